//! Each failure of a call is named by its cause, and no answer is read beyond its limit.

use super::*;
use crate::runtime::secret::Secret;
use std::io::{Read, Write};
use std::net::TcpListener;

fn rpc(port: u16) -> Rpc {
    let login = Login { user: "u".into(), password: Secret::new("p") };
    Rpc::new("127.0.0.1", port, Credentials::Fixed { login, origin: "a test".into() })
}

/// Starts a daemon that answers every request with `reply`.
fn fake(reply: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 4096];
        let _ = stream.read(&mut request).unwrap();
        stream.write_all(reply.as_bytes()).unwrap();
    });
    port
}

#[tokio::test]
async fn a_closed_port_is_told_as_unreachable() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let error = rpc(port).call::<Value>("getblockcount", Vec::new()).await.unwrap_err();
    assert!(matches!(error, RpcError::Unreachable { .. }), "{error:?}");
}

#[tokio::test]
async fn a_wrong_password_is_told_in_one_line() {
    let port = fake("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n");
    let error = rpc(port).call::<Value>("getblockcount", Vec::new()).await.unwrap_err();
    assert_eq!(error.to_string(), format!("bitcoind at 127.0.0.1:{port} refuses the user name or password (a test)"));
}

#[tokio::test]
async fn a_full_work_queue_is_told_by_its_status() {
    let port = fake("HTTP/1.1 503 Busy\r\nContent-Length: 9\r\n\r\nWork queu");
    let error = rpc(port).call::<Value>("getblockcount", Vec::new()).await.unwrap_err();
    assert!(matches!(error, RpcError::Http { status: 503, .. }), "{error:?}");
}

#[tokio::test]
async fn a_connection_that_closes_without_an_answer_is_told_as_such() {
    let error = rpc(fake("")).call::<Value>("getblockcount", Vec::new()).await.unwrap_err();
    assert!(error.to_string().ends_with("closed the connection without an answer"), "{error:?}");
}

#[tokio::test]
async fn an_answer_that_is_no_json_is_malformed() {
    let port = fake("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
    let error = rpc(port).call::<Value>("getblockcount", Vec::new()).await.unwrap_err();
    assert!(matches!(error, RpcError::Malformed { .. }), "{error:?}");
}

#[tokio::test]
async fn a_daemon_that_does_not_answer_is_a_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let timeout = Duration::from_secs(1);
    let error =
        rpc(port).call_within::<Value>(timeout, "getblockcount", "getblockcount", Vec::new()).await.unwrap_err();
    assert!(matches!(error, RpcError::Timeout { .. }), "{error:?}");
}

const LIMITS: CallLimits = CallLimits { timeout: Duration::from_secs(5), answer_bytes_max: 1000 };

fn merged(port: u16, path: &str) -> Rpc {
    let login = Login { user: "u".into(), password: Secret::new("hunter2") };
    Rpc::of_merged("doge".into(), "127.0.0.1", port, path, Credentials::Fixed { login, origin: "a test".into() })
}

/// Starts a daemon that handles one connection with `serve`, and returns what that returned.
fn serving<T: Send + 'static>(
    serve: impl FnOnce(std::net::TcpStream) -> T + Send + 'static,
) -> (u16, std::thread::JoinHandle<T>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    (port, std::thread::spawn(move || serve(listener.accept().unwrap().0)))
}

async fn limited(reply: &'static str) -> Result<Value, RpcError> {
    merged(fake(reply), "/").call_within_limits(LIMITS, "createauxblock", Vec::new()).await
}

#[tokio::test]
async fn a_merged_chains_daemon_is_called_at_its_path_and_named_in_messages() {
    let (port, served) = serving(|mut stream| {
        let mut request = [0; 4096];
        let length = stream.read(&mut request).unwrap();
        let body = r#"{"result":{"a":[1]},"error":null,"id":0}"#;
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
        String::from_utf8(request[..length].to_vec()).unwrap()
    });
    let rpc = merged(port, "/wallet/pool");
    let answer: Value = rpc.call_within_limits(LIMITS, "createauxblock", vec![json!("D8")]).await.unwrap();
    assert_eq!(answer, json!({"a": [1]}));
    let request = served.join().unwrap().to_ascii_lowercase();
    assert!(request.starts_with("post /wallet/pool http/1.1\r\n"), "{request}");
    // u:hunter2
    assert!(request.contains("\r\nauthorization: basic dtpodw50zxiy\r\n"), "{request}");
    assert!(request.contains(r#""method":"createauxblock""#) && request.contains(r#""params":["d8"]"#), "{request}");
    let error = rpc.call_within_limits::<Value>(LIMITS, "createauxblock", Vec::new()).await.unwrap_err();
    assert!(error.to_string().starts_with(&format!("cannot reach doge's RPC at 127.0.0.1:{port}: ")), "{error}");
}

#[tokio::test]
async fn the_errors_of_a_merged_chains_daemon_are_told_by_their_cause() {
    let error = limited("HTTP/1.1 500 Error\r\nContent-Length: 63\r\n\r\n{\"result\":null,\"error\":{\"code\":-8,\"message\":\"no <b>\"},\"id\":\"x\"}")
        .await
        .unwrap_err();
    assert_eq!(error.code(), Some(-8), "{error:?}");
    assert!(!error.to_string().contains('<'), "{error}");
    let refused = limited("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n").await.unwrap_err();
    assert!(matches!(refused, RpcError::Unauthorized { .. }), "{refused:?}");
    let busy = limited("HTTP/1.1 503 Busy\r\nContent-Length: 9\r\n\r\nWork queu").await.unwrap_err();
    assert!(matches!(busy, RpcError::Http { status: 503, .. }), "{busy:?}");
    let text = limited("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello").await.unwrap_err();
    assert!(matches!(text, RpcError::Malformed { .. }), "{text:?}");
    let nothing = limited("").await.unwrap_err();
    assert!(matches!(nothing, RpcError::Unreachable { .. }), "{nothing:?}");
    // Another host would get the password.
    let elsewhere = "HTTP/1.1 301 Moved\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n";
    let moved = limited(elsewhere).await.unwrap_err();
    assert!(matches!(moved, RpcError::Http { status: 301, .. }), "{moved:?}");
    for error in [error, refused, busy, text, nothing, moved] {
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
    }
}

/// Result of a daemon that ends with its connection, which the runtime closes meanwhile.
async fn joined<T: Send + 'static>(served: std::thread::JoinHandle<T>) -> T {
    tokio::task::spawn_blocking(move || served.join().unwrap()).await.unwrap()
}

#[tokio::test]
async fn an_answer_beyond_its_limit_is_refused_before_it_is_here() {
    let announced = limited("HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n").await.unwrap_err();
    assert!(announced.to_string().ends_with("longer than 1000 bytes"), "{announced}");
    // Neither announced nor ended.
    let (port, served) = serving(|mut stream| {
        let mut request = [0; 4096];
        let _ = stream.read(&mut request).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n").unwrap();
        let mut written = 0_u64;
        while stream.write_all(&[b' '; 4096]).is_ok() {
            written += 4096;
        }
        written
    });
    let endless = merged(port, "/").call_within_limits::<Value>(LIMITS, "createauxblock", Vec::new()).await;
    assert!(endless.unwrap_err().to_string().ends_with("longer than 1000 bytes"));
    // What the sockets' buffers took.
    assert!(joined(served).await < 64 << 20);
    let (port, served) = serving(|mut stream| {
        let _ = stream.read(&mut [0; 4096]).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\n").unwrap();
        while stream.write_all(b"X-More: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\r\n").is_ok() {}
    });
    let headers = merged(port, "/").call_within_limits::<Value>(LIMITS, "createauxblock", Vec::new()).await;
    assert!(matches!(headers, Err(RpcError::Unreachable { .. })), "{headers:?}");
    joined(served).await;
}

#[tokio::test]
async fn a_merged_chains_daemon_that_drips_its_answer_is_a_timeout() {
    let (port, served) = serving(|mut stream| {
        let _ = stream.read(&mut [0; 4096]).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n").unwrap();
        while stream.write_all(b" ").is_ok() {
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    let limits = CallLimits { timeout: Duration::from_millis(300), ..LIMITS };
    let error = merged(port, "/").call_within_limits::<Value>(limits, "getblockcount", Vec::new()).await.unwrap_err();
    assert!(matches!(error, RpcError::Timeout { .. }), "{error:?}");
    joined(served).await;
}
