//! The physical limit: a server that answers every line the same, and writes given bytes to all connections.

use anyhow::{Context, Result};
use bytes::Bytes;
use parking_lot::Mutex;
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;

use super::{allow_many_files, clock_ns};
use crate::sockets;

/// What the node answers to an accepted submission, byte for byte.
pub(super) const ACCEPTED: &[u8] = b"{\"id\":4,\"result\":true,\"error\":null}\n";

/// Bytes read at a time, as in the node.
const READ_BYTES: usize = 16 * 1024;

/// Connections that are open, or were.
type Streams = Arc<Mutex<Vec<Arc<TcpStream>>>>;

/// Serves until standard input ends; its first line of output is its address. A line `job TEXT` writes that text as a line
/// to every connection, one after the other, and the time when that began to standard output.
///
/// # Errors
/// There is no port.
pub async fn run() -> Result<()> {
    allow_many_files()?;
    let listener = sockets::bind(([127, 0, 0, 1], 0).into()).context("cannot listen")?;
    println!("{}", listener.local_addr()?);
    let streams = Streams::default();
    let taken = streams.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // What fails here fails for the client, too, and it says so.
            if sockets::prepare(&stream).is_ok() {
                let stream = Arc::new(stream);
                taken.lock().push(stream.clone());
                tokio::spawn(answer(stream));
            }
        }
    });
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        if let Some(job) = line.strip_prefix("job ") {
            let bytes = Bytes::from([job, "\n"].concat());
            let streams = streams.clone();
            // On a thread of the runtime's own, as everything that the node does.
            tokio::spawn(async move {
                println!("{}", clock_ns());
                write_to_all(&streams, &bytes).await;
            });
        }
    }
    Ok(())
}

async fn answer(stream: Arc<TcpStream>) {
    let answers = ACCEPTED.repeat(READ_BYTES / ACCEPTED.len());
    let mut buffer = vec![0; READ_BYTES];
    loop {
        if stream.readable().await.is_err() {
            return;
        }
        let mut lines = match stream.try_read(&mut buffer) {
            Ok(0) => return,
            Ok(count) => memchr::memchr_iter(b'\n', &buffer[..count]).count(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(_) => return,
        };
        while lines > 0 {
            let now = lines.min(READ_BYTES / ACCEPTED.len());
            if write_all(&stream, &answers[..now * ACCEPTED.len()]).await.is_err() {
                return;
            }
            lines -= now;
        }
    }
}

async fn write_to_all(streams: &Streams, bytes: &[u8]) {
    let mut open = std::mem::take(&mut *streams.lock());
    for stream in &open {
        // Who is gone misses nothing.
        let _ = write_all(stream, bytes).await;
    }
    let mut streams = streams.lock();
    open.append(&mut streams);
    *streams = open;
}

/// Writes through a shared handle.
pub(super) async fn write_all(stream: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match stream.try_write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => stream.writable().await?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
