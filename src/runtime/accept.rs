//! Accepts connections, for every port and socket of the program.

use futures::FutureExt;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::unconstrained;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::backoff::Backoff;
use super::sockets::{self, BACKLOG};

/// Pauses after errors such as running out of file descriptors; meanwhile connections wait in the kernel's queue.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Time without an error after which trouble counts as over and would be reported again.
const TROUBLE_IS_OVER_AFTER: Duration = Duration::from_secs(60);

/// Source of connections.
pub trait Listen: Send + 'static {
    type Stream: Send;
    /// Address of the other side.
    type Remote: Send;

    /// Accepts one connection.
    ///
    /// # Errors
    /// The system refuses.
    fn poll_accept(&self, context: &mut Context<'_>) -> Poll<io::Result<(Self::Stream, Self::Remote)>>;

    /// Sets a new connection up.
    ///
    /// # Errors
    /// The connection is gone already.
    fn prepare(stream: &Self::Stream) -> io::Result<()>;
}

/// Connections come [prepared](sockets::prepare), and from [canonical](sockets::canonical) addresses.
impl Listen for TcpListener {
    type Stream = TcpStream;
    type Remote = SocketAddr;

    fn poll_accept(&self, context: &mut Context<'_>) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
        self.poll_accept(context).map_ok(|(stream, remote)| (stream, sockets::canonical(remote)))
    }

    fn prepare(stream: &TcpStream) -> io::Result<()> {
        sockets::prepare(stream)
    }
}

impl Listen for UnixListener {
    type Stream = UnixStream;
    type Remote = ();

    fn poll_accept(&self, context: &mut Context<'_>) -> Poll<io::Result<(UnixStream, ())>> {
        self.poll_accept(context).map_ok(|(stream, _)| (stream, ()))
    }

    fn prepare(_: &UnixStream) -> io::Result<()> {
        Ok(())
    }
}

/// Accepts connections at a listener. A refusal by the system, most likely because of the limit of open files, is
/// reported once and retried with back-off.
#[derive(Debug)]
pub struct Acceptor<L> {
    listener: L,
    /// Kind of client, for log messages.
    who: &'static str,
    backoff: Backoff,
    /// Time of the next attempt, after an error.
    retry_at: Option<Instant>,
    /// Time of the last error, while there is trouble.
    failed_at: Option<Instant>,
}

impl<L: Listen> Acceptor<L> {
    /// Accepts at `listener`; `who` names the clients in log messages.
    pub fn new(listener: L, who: &'static str) -> Self {
        let backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        Self { listener, who, backoff, retry_at: None, failed_at: None }
    }

    pub fn listener(&self) -> &L {
        &self.listener
    }

    /// Accepts until `stop` and passes each connection to `welcome`; then also those that had connected before.
    pub async fn run(self, stop: CancellationToken, mut welcome: impl FnMut(L::Stream, L::Remote)) {
        let unlimited = Arc::new(Semaphore::new(Semaphore::MAX_PERMITS));
        self.run_within(unlimited, stop, |stream, remote, _| welcome(stream, remote)).await;
    }

    /// Same as [`Self::run`], with a slot of `places` for each connection: without one it waits in the kernel's queue.
    /// Dropping a slot frees it.
    pub async fn run_within(
        mut self,
        places: Arc<Semaphore>,
        stop: CancellationToken,
        mut welcome: impl FnMut(L::Stream, L::Remote, OwnedSemaphorePermit),
    ) {
        let mut stopped = pin!(stop.cancelled());
        loop {
            tokio::select! {
                biased;
                () = &mut stopped => break,
                (stream, remote, place) = self.next_in(&places) => welcome(stream, remote, place),
            }
        }
        // No more than the kernel keeps: clients may go on connecting for ever.
        for _ in 0..BACKLOG {
            match unconstrained(self.next_in(&places)).now_or_never() {
                Some((stream, remote, place)) => welcome(stream, remote, place),
                None => return,
            }
        }
    }

    /// Returns the next connection and its slot.
    async fn next_in(&mut self, places: &Arc<Semaphore>) -> (L::Stream, L::Remote, OwnedSemaphorePermit) {
        let place = places.clone().acquire_owned().await.expect("places are never closed");
        let (stream, remote) = self.next().await;
        (stream, remote, place)
    }

    /// Returns the next connection. Cancel safe.
    pub async fn next(&mut self) -> (L::Stream, L::Remote) {
        loop {
            if let Some(at) = self.retry_at {
                sleep_until(at).await;
                self.retry_at = None;
            }
            match poll_fn(|context| self.listener.poll_accept(context)).await {
                Ok((stream, remote)) => {
                    self.on_accepted();
                    match L::prepare(&stream) {
                        Ok(()) => return (stream, remote),
                        Err(error) => debug!(who = self.who, %error, "connection lost at once"),
                    }
                }
                Err(error) if is_of_the_connection(&error) => {
                    debug!(who = self.who, %error, "connection lost before it was accepted");
                }
                Err(error) => self.on_error(&error),
            }
        }
    }

    fn on_accepted(&mut self) {
        self.backoff.reset();
        if self.failed_at.is_some_and(|at| at.elapsed() > TROUBLE_IS_OVER_AFTER) {
            self.failed_at = None;
            info!(who = self.who, "connections are accepted again");
        }
    }

    fn on_error(&mut self, error: &io::Error) {
        let now = Instant::now();
        if self.failed_at.replace(now).is_none() {
            warn!(who = self.who, %error, "cannot accept connections, most likely too many files are open; retrying");
        }
        self.retry_at = Some(now + self.backoff.delay());
    }
}

/// True if an error concerns one connection alone, not those queued behind it.
fn is_of_the_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;
    use std::collections::VecDeque;
    use std::io::ErrorKind;
    use tokio::io::AsyncWriteExt;
    use tokio::sync::mpsc;
    use tokio::time::timeout;

    /// Gives the scripted answers, then stays pending.
    #[derive(Debug, Clone)]
    struct Script(Arc<Mutex<VecDeque<io::Result<u8>>>>);

    impl Script {
        fn new(answers: impl IntoIterator<Item = io::Result<u8>>) -> Self {
            Self(Arc::new(Mutex::new(answers.into_iter().collect())))
        }

        fn left(&self) -> usize {
            self.0.lock().len()
        }
    }

    impl Listen for Script {
        type Stream = u8;
        type Remote = ();

        fn poll_accept(&self, _: &mut Context<'_>) -> Poll<io::Result<(u8, ())>> {
            match self.0.lock().pop_front() {
                Some(answer) => Poll::Ready(answer.map(|stream| (stream, ()))),
                None => Poll::Pending,
            }
        }

        fn prepare(stream: &u8) -> io::Result<()> {
            if *stream == 0 { Err(ErrorKind::NotConnected.into()) } else { Ok(()) }
        }
    }

    fn no_file_left() -> io::Result<u8> {
        // EMFILE.
        Err(io::Error::from_raw_os_error(24))
    }

    #[tokio::test]
    async fn while_no_file_is_left_it_is_tried_ever_more_seldom() {
        let refusals = (0..3).map(|_| no_file_left());
        let mut acceptor = Acceptor::new(Script::new(refusals.chain([Ok(7)])), "tests");
        let began = Instant::now();
        assert_eq!(acceptor.next().await, (7, ()));
        // 0.1, 0.2 and 0.4 s, each up to a fifth less.
        assert!(began.elapsed() > Duration::from_millis(550), "{:?}", began.elapsed());
    }

    #[tokio::test]
    async fn trouble_is_reported_once_until_it_has_been_over_for_a_while() {
        let answers = [no_file_left(), Ok(1), no_file_left(), Ok(2), Ok(3)];
        let mut acceptor = Acceptor::new(Script::new(answers), "tests");
        for stream in [1, 2] {
            assert_eq!(acceptor.next().await.0, stream);
            assert!(acceptor.failed_at.is_some(), "what comes and goes is one trouble");
        }
        acceptor.failed_at = Instant::now().checked_sub(2 * TROUBLE_IS_OVER_AFTER);
        assert_eq!(acceptor.next().await.0, 3);
        assert!(acceptor.failed_at.is_none());
    }

    #[tokio::test]
    async fn a_pause_goes_on_when_the_caller_looks_after_something_else() {
        let script = Script::new((0..100).map(|_| no_file_left()));
        let mut acceptor = Acceptor::new(script.clone(), "tests");
        let began = Instant::now();
        for _ in 0..100 {
            assert!(timeout(Duration::from_millis(1), acceptor.next()).await.is_err());
        }
        let tries = 100 - script.left();
        let tries_max = 1 + began.elapsed().as_millis() / 80;
        assert!(tries as u128 <= tries_max, "{tries} tries, {tries_max} are allowed");
    }

    #[tokio::test]
    async fn a_connection_that_is_gone_holds_up_none_behind_it() {
        let answers = [Err(ErrorKind::ConnectionAborted.into()), Ok(0), Ok(3)];
        let mut acceptor = Acceptor::new(Script::new(answers), "tests");
        assert_eq!(acceptor.next().await.0, 3);
        assert!(acceptor.failed_at.is_none() && acceptor.retry_at.is_none());
    }

    #[tokio::test]
    async fn those_for_whom_there_is_no_place_wait() {
        let script = Script::new((1..=4).map(Ok));
        let (sender, mut welcomed) = mpsc::unbounded_channel();
        let stop = CancellationToken::new();
        let welcome = move |stream, (), place| sender.send((stream, place)).unwrap();
        let running =
            Acceptor::new(script.clone(), "tests").run_within(Arc::new(Semaphore::new(2)), stop.clone(), welcome);
        let running = tokio::spawn(running);
        let mut take = async || {
            // A single thread: every task that can run does so.
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
            std::iter::from_fn(|| welcomed.try_recv().ok()).collect::<Vec<_>>()
        };
        let numbers =
            |taken: &[(u8, OwnedSemaphorePermit)]| taken.iter().map(|(stream, _)| *stream).collect::<Vec<_>>();
        let first = take().await;
        assert_eq!(numbers(&first), [1, 2]);
        drop(first);
        assert_eq!(numbers(&take().await), [3, 4]);
        stop.cancel();
        running.await.unwrap();
    }

    #[tokio::test]
    async fn those_that_connected_before_the_stop_are_welcomed() {
        const MANY: usize = 300;
        let listener = sockets::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let mut miners = Vec::new();
        for _ in 0..MANY {
            let mut miner = TcpStream::connect(address).await.unwrap();
            miner.write_all(b"a block, perhaps").await.unwrap();
            miners.push(miner);
        }
        let stop = CancellationToken::new();
        stop.cancel();
        let mut count = 0;
        Acceptor::new(listener, "tests").run(stop, |_, _| count += 1).await;
        assert_eq!(count, MANY);
    }
}
