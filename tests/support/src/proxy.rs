//! Proxies in front of a daemon, for faults that the daemon itself cannot produce.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Fault of a call, instead of passing it on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The connection ends without an answer; the daemon never gets the call.
    Cut,
    /// The daemon gets the call, but its answer is lost.
    LoseAnswer,
    /// Answers with this status and body; the daemon never gets the call.
    Answer(u16, String),
    /// Gives no answer for this time, then closes the connection; the daemon never gets the call.
    Hang(Duration),
}

/// Passes JSON-RPC on to a daemon, except for chosen methods.
#[derive(Debug)]
pub struct HttpProxy {
    listener: Listener,
    rules: Arc<Mutex<Rules>>,
}

#[derive(Debug, Default)]
struct Rules {
    faults: HashMap<String, Fault>,
    seen: HashMap<String, usize>,
}

impl HttpProxy {
    /// Listens on a free loopback port for calls to the daemon at `upstream_port`.
    pub fn start(upstream_port: u16) -> Self {
        let rules = Arc::new(Mutex::new(Rules::default()));
        let for_calls = Arc::clone(&rules);
        let listener = Listener::start(move |stream, _| {
            // A client may hang up in mid-call.
            let _ = serve_call(stream, upstream_port, &for_calls);
        });
        Self { listener, rules }
    }

    /// Port that it listens on.
    pub fn port(&self) -> u16 {
        self.listener.port
    }

    /// Makes calls of `method` fail from now on.
    pub fn fail(&self, method: &str, fault: Fault) {
        self.lock().faults.insert(method.to_owned(), fault);
    }

    /// Passes calls of `method` on again.
    pub fn mend(&self, method: &str) {
        self.lock().faults.remove(method);
    }

    /// Number of calls of `method`, faults included.
    pub fn calls(&self, method: &str) -> usize {
        self.lock().seen.get(method).copied().unwrap_or(0)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Rules> {
        self.rules.lock().expect("no code panics while it holds this lock")
    }
}

/// Passes bytes on to a daemon until it is cut.
#[derive(Debug)]
pub struct TcpProxy {
    listener: Listener,
}

impl TcpProxy {
    /// Listens on a free loopback port for connections to `upstream_port`.
    pub fn start(upstream_port: u16) -> Self {
        let listener = Listener::start(move |down, shared| {
            let Ok(up) = TcpStream::connect(("127.0.0.1", upstream_port)) else { return };
            shared.remember(&up);
            let (Ok(down_read), Ok(up_write)) = (down.try_clone(), up.try_clone()) else { return };
            std::thread::spawn(move || pump(down_read, up_write));
            pump(up, down);
        });
        Self { listener }
    }

    /// Port that it listens on.
    pub fn port(&self) -> u16 {
        self.listener.port
    }

    /// Closes every connection, and every new one at once.
    pub fn cut(&self) {
        self.listener.shared.cut.store(true, Ordering::SeqCst);
        self.listener.shared.close_all();
    }

    /// Passes new connections on again.
    pub fn mend(&self) {
        self.listener.shared.cut.store(false, Ordering::SeqCst);
    }

    /// Number of connections accepted so far, cut ones included.
    pub fn connections(&self) -> usize {
        *self.listener.shared.accepted.lock().expect("no code panics while it holds this lock")
    }
}

/// A listening socket with a thread that serves it until dropped.
#[derive(Debug)]
struct Listener {
    port: u16,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    cut: AtomicBool,
    stopped: AtomicBool,
    accepted: Mutex<usize>,
    open: Mutex<Vec<TcpStream>>,
}

impl Listener {
    fn start(serve: impl Fn(TcpStream, &Shared) + Send + Sync + 'static) -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
        let port = socket.local_addr().expect("a bound socket has an address").port();
        let shared = Arc::new(Shared::default());
        let for_accept = Arc::clone(&shared);
        let serve = Arc::new(serve);
        std::thread::spawn(move || {
            for stream in socket.incoming().flatten() {
                if for_accept.stopped.load(Ordering::SeqCst) {
                    return;
                }
                *for_accept.accepted.lock().expect("no code panics while it holds this lock") += 1;
                for_accept.remember(&stream);
                if for_accept.cut.load(Ordering::SeqCst) {
                    for_accept.close_all();
                    continue;
                }
                let (serve, shared) = (Arc::clone(&serve), Arc::clone(&for_accept));
                std::thread::spawn(move || serve(stream, &shared));
            }
        });
        Self { port, shared }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        self.shared.close_all();
        // Wakes the thread from accept, so that it sees the flag and ends.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

impl Shared {
    fn remember(&self, stream: &TcpStream) {
        if let Ok(stream) = stream.try_clone() {
            self.open.lock().expect("no code panics while it holds this lock").push(stream);
        }
    }

    fn close_all(&self) {
        for stream in self.open.lock().expect("no code panics while it holds this lock").drain(..) {
            // Already closed by its peer.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// Copies bytes until either side ends, then ends the other.
fn pump(mut from: TcpStream, mut to: TcpStream) {
    let _ = std::io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}

/// Serves one request, then closes the connection, so that it need not find the end of the answer.
fn serve_call(mut down: TcpStream, upstream_port: u16, rules: &Mutex<Rules>) -> std::io::Result<()> {
    let (head, body) = read_request(&mut down)?;
    let method = method_of(&body);
    let fault = {
        let mut rules = rules.lock().expect("no code panics while it holds this lock");
        *rules.seen.entry(method.clone()).or_default() += 1;
        rules.faults.get(&method).cloned()
    };
    match &fault {
        Some(Fault::Cut) => return down.shutdown(Shutdown::Both),
        Some(Fault::Hang(how_long)) => {
            std::thread::sleep(*how_long);
            return down.shutdown(Shutdown::Both);
        }
        Some(Fault::Answer(status, answer)) => {
            write!(
                down,
                "HTTP/1.1 {status} Scripted\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: \
                 {}\r\n\r\n{answer}",
                answer.len()
            )?;
            return down.shutdown(Shutdown::Both);
        }
        Some(Fault::LoseAnswer) | None => {}
    }
    let mut up = TcpStream::connect(("127.0.0.1", upstream_port))?;
    for line in head.iter().filter(|line| !line.to_ascii_lowercase().starts_with("connection:")) {
        write!(up, "{line}\r\n")?;
    }
    write!(up, "Connection: close\r\n\r\n")?;
    up.write_all(&body)?;
    let mut answer = Vec::new();
    up.read_to_end(&mut answer)?;
    if fault.is_none() {
        down.write_all(&answer)?;
    }
    down.shutdown(Shutdown::Both)
}

/// Reads the request line with the headers, and the body.
fn read_request(stream: &mut TcpStream) -> std::io::Result<(Vec<String>, Vec<u8>)> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        head.push(line.to_owned());
    }
    let length = head
        .iter()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse().ok())
        .unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok((head, body))
}

/// JSON-RPC method of a request, or of the first in a batch.
fn method_of(body: &[u8]) -> String {
    let parsed: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let call = parsed.get(0).unwrap_or(&parsed);
    call["method"].as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bitcoind::Bitcoind;
    use bitcoincore_rpc::{Auth, Client, RpcApi};

    #[test]
    fn calls_pass_the_proxy_except_the_chosen_ones() {
        let daemon = Bitcoind::start();
        let proxy = HttpProxy::start(daemon.rpc_port());
        let (user, password) = daemon.cookie();
        let client = Client::new(&format!("http://127.0.0.1:{}", proxy.port()), Auth::UserPass(user, password))
            .expect("the address is well formed");
        proxy.fail("getbestblockhash", Fault::Cut);
        assert_eq!(client.get_block_count().expect("passed on"), 0);
        assert!(client.get_best_block_hash().is_err());
        proxy.fail(
            "getbestblockhash",
            Fault::Answer(500, r#"{"result":null,"error":{"code":-9,"message":"no"},"id":1}"#.to_owned()),
        );
        let refused = client.get_best_block_hash().expect_err("scripted").to_string();
        assert!(refused.contains("-9"), "{refused}");
        proxy.mend("getbestblockhash");
        assert!(client.get_best_block_hash().is_ok());
        assert_eq!(proxy.calls("getbestblockhash"), 3);
    }

    #[test]
    fn a_cut_route_is_dead_until_mended() {
        let echo = TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
        let proxy = TcpProxy::start(echo.local_addr().expect("bound").port());
        std::thread::spawn(move || {
            for mut stream in echo.incoming().flatten() {
                let _ = stream.write_all(b"hello");
                std::thread::spawn(move || {
                    let _ = stream.read_to_end(&mut Vec::new());
                });
            }
        });
        let greeting = || {
            let mut stream = TcpStream::connect(("127.0.0.1", proxy.port())).expect("it listens");
            let mut greeting = [0; 5];
            stream.read_exact(&mut greeting).map(|()| stream)
        };
        let mut open = greeting().expect("passed on");
        proxy.cut();
        assert_eq!(open.read(&mut [0; 1]).unwrap_or(0), 0, "the open connection should have ended");
        assert!(greeting().is_err());
        proxy.mend();
        assert!(greeting().is_ok());
    }
}
