//! Free loopback ports, handed out at most once per process.

use std::collections::HashSet;
use std::net::TcpListener;
use std::sync::Mutex;

/// Below Linux's ephemeral range (32768 and up), so that no outgoing connection takes a port while its daemon restarts.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

static TAKEN: Mutex<Option<HashSet<u16>>> = Mutex::new(None);

/// Returns a loopback port on which nothing listens now. Another process may still take it first, so callers retry.
pub fn free_port() -> u16 {
    let mut taken = TAKEN.lock().expect("no code panics while it holds this lock");
    let taken = taken.get_or_insert_default();
    for _ in 0..10_000 {
        let port = fastrand::u16(PORTS);
        if !taken.contains(&port) && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            taken.insert(port);
            return port;
        }
    }
    panic!("no free loopback port in {PORTS:?}");
}
