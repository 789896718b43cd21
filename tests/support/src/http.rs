//! Minimal HTTP for tests: one request, one response, then the connection ends.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// An HTTP response.
#[derive(Debug, Clone)]
pub struct Response {
    /// Status code, such as 200.
    pub status: u16,
    /// Header lines as received, without the status line.
    pub headers: String,
    /// Body, with chunks joined.
    pub body: String,
}

/// GETs a path.
pub fn get(address: SocketAddr, path: &str) -> std::io::Result<Response> {
    get_as(address, path, "*/*")
}

/// GETs a path with an `Accept` header.
pub(crate) fn get_as(address: SocketAddr, path: &str, accept: &str) -> std::io::Result<Response> {
    get_with(address, path, &format!("Accept: {accept}\r\n"))
}

/// GETs a path with these header lines, each with its end.
pub fn get_with(address: SocketAddr, path: &str, lines: &str) -> std::io::Result<Response> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{lines}\r\n")?;
    let mut raw = Vec::new();
    stream.read_to_end(&mut raw)?;
    let text = String::from_utf8_lossy(&raw).into_owned();
    let malformed = || std::io::Error::other(format!("not an HTTP response: {text:?}"));
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(malformed)?;
    let (status_line, headers) = head.split_once("\r\n").unwrap_or((head, ""));
    let status = status_line.split(' ').nth(1).and_then(|word| word.parse().ok()).ok_or_else(malformed)?;
    let chunked = headers.to_ascii_lowercase().contains("transfer-encoding: chunked");
    let body = if chunked { join_chunks(body).ok_or_else(malformed)? } else { body.to_owned() };
    Ok(Response { status, headers: headers.to_owned(), body })
}

fn join_chunks(mut rest: &str) -> Option<String> {
    let mut joined = String::new();
    loop {
        let (size, after) = rest.split_once("\r\n")?;
        let size = usize::from_str_radix(size.split(';').next()?.trim(), 16).ok()?;
        if size == 0 {
            return Some(joined);
        }
        joined.push_str(after.get(..size)?);
        rest = after.get(size + 2..)?;
    }
}
