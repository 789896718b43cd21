//! Any bytes on the control socket, which also serves all public paths: each request gets an answer of HTTP, or the
//! connection is closed.
#![no_main]

use libfuzzer_sys::fuzz_target;
use p2pool::blocks::Reports;
use p2pool::blocks::submit::Resubmitter;
use p2pool::runtime::log::Tail;
use p2pool::view::control::routes::{self, KeptBlocks};
use p2pool::view::http::{Http, testing};
use std::cell::RefCell;
use std::net::Ipv4Addr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;

/// Time until a client hangs up, on a clock that runs ahead while all tasks wait.
const CLIENT_WAITS: Duration = Duration::from_secs(3600);

/// A node's HTTP, and the runtime that it needs.
struct Bench {
    runtime: Runtime,
    http: Http,
}

thread_local! {
    static BENCH: RefCell<Option<Bench>> = const { RefCell::new(None) };
}

impl Bench {
    fn new() -> Self {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
        let folder = tempfile::tempdir().expect("a folder for the chain");
        let public = {
            let _context = runtime.enter();
            testing::sources(folder.path())
        };
        let kept = KeptBlocks { chain: None, resubmitter: Resubmitter::disconnected(), reports: Reports::new() };
        let router = routes::router(routes::Sources { public, kept: vec![kept], log: Tail::default() });
        Self { runtime, http: Http::new(router, CancellationToken::new()) }
    }

    /// Sends `request`, and returns what came back until the connection ended or the client hung up.
    fn answer(&self, request: &[u8]) -> Vec<u8> {
        self.runtime.block_on(async {
            let (mut client, server) = tokio::io::duplex(1 << 16);
            let http = self.http.clone();
            let serving = tokio::spawn(async move { http.serve(server, Ipv4Addr::LOCALHOST.into()).await });
            let mut answer = Vec::new();
            let _ = tokio::time::timeout(CLIENT_WAITS, async {
                let (mut reader, mut writer) = tokio::io::split(&mut client);
                let send = async {
                    // A server that has read enough closes the connection.
                    let _ = writer.write_all(request).await;
                    let _ = writer.shutdown().await;
                };
                let receive = async {
                    let _ = reader.read_to_end(&mut answer).await;
                };
                tokio::join!(send, receive)
            })
            .await;
            drop(client);
            serving.await.expect("a connection does not panic");
            answer
        })
    }
}

fuzz_target!(|request: &[u8]| {
    BENCH.with_borrow_mut(|bench| {
        let answer = bench.get_or_insert_with(Bench::new).answer(request);
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1."), "{}", String::from_utf8_lossy(&answer));
    });
});
