//! Access to the worker ports: users with passwords, and networks; and readers with passwords.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::json;
use std::path::Path;
use std::time::{Duration, Instant};
use test_support::{Bitcoind, NodeBuilder, Response, StratumClient, free_port, get_with, wait_until};

use crate::{P2POOL, miner_name};

const PATIENCE: Duration = Duration::from_secs(20);

/// Hash of `hunter2`, made by libxcrypt as `htpasswd -nbB -C 4` does.
const HASH: &str = "$2y$04$abcdefghijklmnopqrstuuV3duMsC0HpUex6N9qapiuOHHWkwRXVm";

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).expect("the temporary folder can be written");
}

/// Answers of the port to `user` with this password: over Stratum whether it is admitted, over HTTP the status.
fn login(port: u16, user: &str, password: &str) -> (bool, u16) {
    let mut miner = StratumClient::connect(port);
    miner.subscribe().expect("anyone may subscribe");
    let answer = miner.authorize(user, password);
    if let Err(refusal) = &answer {
        assert_eq!(refusal.code(), Some(24), "{refusal:?}");
    }
    let is_admitted = answer == Ok(true);
    if is_admitted {
        miner.wait_for_job(|_| true);
    }
    (is_admitted, getwork(port, user, password))
}

/// Status of the answer to a call of `getwork`.
fn getwork(port: u16, user: &str, password: &str) -> u16 {
    use std::io::{Read, Write};
    let credentials = BASE64_STANDARD.encode(format!("{user}:{password}"));
    let body = json!({"id": 7, "method": "getwork", "params": []}).to_string();
    let length = body.len();
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).expect("the node listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("it is a socket");
    let head = format!("POST / HTTP/1.1\r\nHost: pool.example\r\nAuthorization: Basic {credentials}\r\n");
    write!(stream, "{head}Connection: close\r\nContent-Length: {length}\r\n\r\n{body}").expect("the node reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the node answers");
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status line")
}

/// Answer to a reader of `path` who gives these credentials, if any.
fn read(port: u16, path: &str, credentials: Option<&str>) -> Response {
    let line = |credentials| format!("Authorization: Basic {}\r\n", BASE64_STANDARD.encode(credentials));
    let answer = get_with(([127, 0, 0, 1], port).into(), path, &credentials.map(line).unwrap_or_default());
    answer.unwrap_or_else(|error| panic!("GET {path}: {error}"))
}

#[test]
fn only_users_with_the_right_password_mine_on_a_port_with_users() {
    let daemon = Bitcoind::start();
    let folder = tempfile::tempdir().expect("there is a temporary folder");
    let users = folder.path().join("users");
    write(&users, &format!("# farm\ngarage:{HASH}\n"));
    let port = free_port();
    let terms = format!("127.0.0.1:{port},users={}", users.display());
    let node = NodeBuilder::new(P2POOL, &daemon).args(&["-w", &terms, "--debug"]).start();
    assert_eq!(login(port, "garage.rig1+0.001", "hunter2,d=5"), (true, 200));
    assert_eq!(login(port, "garage.rig1", "hunter3"), (false, 401));
    assert_eq!(login(port, &miner_name(1), "hunter2"), (false, 401));
    // The other port is open to all.
    assert_eq!(login(node.worker_port(), &miner_name(1), "x"), (true, 200));
    let mut guesser = StratumClient::connect(port);
    guesser.subscribe().expect("anyone may subscribe");
    for guess in 0..4 {
        assert!(guesser.authorize("garage", &format!("guess {guess}")).is_err());
    }
    assert!(guesser.disconnected_within(PATIENCE));

    // With one password for everyone else, an address is paid itself.
    write(&users, &format!("*:{HASH}\n"));
    node.hang_up();
    wait_until("the new users may mine", PATIENCE, || login(port, &miner_name(1), "hunter2") == (true, 200));
    write(&users, "garage:oops\n");
    node.wait_for_log("cannot read the users again", PATIENCE);
    assert_eq!(login(port, &miner_name(1), "hunter2"), (true, 200));
    let log = node.log();
    assert!(!log.contains("hunter2") && !log.contains(&HASH[7..]) && !log.contains("oops"), "{log}");
}

#[test]
fn a_network_that_may_not_use_a_port_is_counted_and_served_nothing() {
    let daemon = Bitcoind::start();
    let (denied, allowed) = (free_port(), free_port());
    let terms = [
        format!("127.0.0.1:{denied},allow=10.0.0.0/8,allow=192.168.0.0/16"),
        format!("127.0.0.1:{allowed},allow=127.0.0.0/8,deny=10.0.0.0/8"),
    ];
    let node = NodeBuilder::new(P2POOL, &daemon).args(&["-w", &terms[0], "-w", &terms[1]]).start();
    let mut stranger = StratumClient::connect(denied);
    assert!(stranger.disconnected_within(PATIENCE));
    assert_eq!(login(allowed, &miner_name(1), "x"), (true, 200));
    let metrics = node.metrics();
    assert!(metrics.contains("stratum_connections_refused_total{reason=\"denied\"} 1"), "{metrics}");
    assert!(!node.log().contains("this port is not for"), "what strangers do is logged for debugging alone");
}

#[test]
fn a_node_does_not_start_with_users_that_it_cannot_read() {
    let folder = tempfile::tempdir().expect("there is a temporary folder");
    let users = folder.path().join("users");
    write(&users, &format!("garage:{HASH}\nhunter2\n"));
    let terms = format!("127.0.0.1:1,users={}", users.display());
    for words in [&["--net", "bitcoin_regtest"][..], &["config", "check"], &["demo"]] {
        let mut command = std::process::Command::new(P2POOL);
        let output = command.args(words).args(["-w", &terms]).output().expect("the program runs");
        let text = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        assert!(!output.status.success(), "{text}");
        assert!(text.contains(&format!("--worker-port: `{}` line 2: not NAME:HASH", users.display())), "{text}");
        assert!(!text.contains("hunter2") && !text.contains(&HASH[7..]), "{text}");
    }
}

#[test]
fn readers_give_a_password_for_pages_and_json_and_miners_on_the_same_port_do_not() {
    let daemon = Bitcoind::start();
    let folder = tempfile::tempdir().expect("there is a temporary folder");
    let users = folder.path().join("readers");
    write(&users, &format!("alice:{HASH}\n"));
    let args = ["--web-users", &users.to_string_lossy(), "--web-open", "metrics", "--debug"];
    let node = NodeBuilder::new(P2POOL, &daemon).args(&args).start();
    let port = node.worker_port();
    for path in ["/", "/miners", "/api/v1/summary", "/api/v1/nothing", "/local_stats", "/web/log", "/health"] {
        for credentials in [None, Some("alice:hunter3"), Some("bob:hunter2"), Some("alice:"), Some("hunter2")] {
            let answer = read(port, path, credentials);
            assert_eq!(answer.status, 401, "{path} {credentials:?}: {answer:?}");
            assert!(answer.headers.contains("Www-Authenticate: Basic realm=\"P2Pool pages\""), "{path}: {answer:?}");
        }
        let status = read(port, path, Some("alice:hunter2")).status;
        assert_eq!(status, if path.ends_with("nothing") { 404 } else { 200 }, "{path}");
    }
    // What was to stay open, and what shows nothing.
    for path in ["/metrics", "/assets/app.js", "/favicon.ico"] {
        assert_eq!(read(port, path, None).status, 200, "{path}");
    }
    assert_eq!(login(port, &miner_name(1), "x"), (true, 200));
    let metrics = node.metrics();
    assert!(metrics.contains("http_refused_total{reason=\"login\"} 35"), "{metrics}");

    write(&users, &format!("bob:{HASH}\n"));
    node.hang_up();
    wait_until("the new reader is let in", PATIENCE, || read(port, "/", Some("bob:hunter2")).status == 200);
    assert_eq!(read(port, "/", Some("alice:hunter2")).status, 401);
    let log = node.log();
    assert!(!log.contains("hunter") && !log.contains(&HASH[7..]), "{log}");
}

#[test]
fn a_network_that_guesses_readers_passwords_waits_and_a_reader_who_gave_the_right_one_does_not() {
    /// Documented in `docs/operators/security.md`.
    const GUESSES: u32 = 20;
    const WAIT: Duration = Duration::from_secs(5);
    let daemon = Bitcoind::start();
    let folder = tempfile::tempdir().expect("there is a temporary folder");
    let users = folder.path().join("readers");
    write(&users, &format!("alice:{HASH}\n"));
    let node = NodeBuilder::new(P2POOL, &daemon).args(&["--web-users", &users.to_string_lossy()]).start();
    let port = node.worker_port();
    assert_eq!(read(port, "/", Some("alice:hunter2")).status, 200);
    // A forgotten device or tab that repeats one wrong password is not a guesser.
    let start = Instant::now();
    (0..3 * GUESSES).for_each(|_| assert_eq!(read(port, "/", Some("alice:old")).status, 401));
    for guess in 1..GUESSES {
        assert_eq!(read(port, "/", Some(&format!("alice:guess {guess}"))).status, 401);
    }
    let guesser = std::thread::spawn(move || read(port, "/", Some("alice:one more")).status);
    let mut answered = 0;
    while !guesser.is_finished() {
        assert_eq!(read(port, "/", Some("alice:hunter2")).status, 200);
        assert_eq!(login(port, &miner_name(1), "x"), (true, 200));
        answered += 1;
    }
    assert_eq!(guesser.join().expect("it is answered"), 401);
    assert!(start.elapsed() >= WAIT, "{GUESSES} guesses and one more took {:?}", start.elapsed());
    assert!(answered > 1, "nobody else was answered meanwhile");
}
