//! The physical limit: a server that answers every line alike, and writes given bytes to all connections.

use anyhow::{Context, Result};
use bytes::Bytes;
use parking_lot::Mutex;
use std::sync::{Arc, Weak};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::clock_ns;
use super::miner::ACCEPTED;
use super::socket::{read, write_all};
use crate::runtime::accept::Acceptor;
use crate::runtime::sockets;

/// Maximum number of answers per write.
const ANSWERS_MAX: usize = 512;

/// All open connections. Each belongs to its reader, so that one that the client closes takes no descriptor any more.
type Writers = Arc<Mutex<Vec<Weak<OwnedWriteHalf>>>>;

/// Serves until standard input ends; its first line of output is its address. A line `job TEXT` writes that text as a
/// line to every connection in turn, and the time at which that began to standard output.
///
/// # Errors
/// No port can be opened.
pub async fn run() -> Result<()> {
    sockets::raise_file_limit()?;
    let listener = sockets::bind(([127, 0, 0, 1], 0).into()).context("cannot listen")?;
    println!("{}", listener.local_addr()?);
    let answers: Arc<[u8]> = ACCEPTED.repeat(ANSWERS_MAX).into();
    let writers = Writers::default();
    let taken = writers.clone();
    let mut acceptor = Acceptor::new(listener, "the benchmark");
    tokio::spawn(async move {
        loop {
            let (stream, _) = acceptor.next().await;
            let (reader, writer) = stream.into_split();
            let writer = Arc::new(writer);
            let mut taken = taken.lock();
            if taken.len() == taken.capacity() {
                taken.retain(|writer| writer.strong_count() > 0);
            }
            taken.push(Arc::downgrade(&writer));
            drop(taken);
            tokio::spawn(answer(reader, writer, answers.clone()));
        }
    });
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        if let Some(job) = line.strip_prefix("job ") {
            let bytes = Bytes::from([job, "\n"].concat());
            let writers = writers.clone();
            // On a thread of the runtime, like all work of the node.
            tokio::spawn(async move {
                println!("{}", clock_ns());
                write_to_all(&writers, &bytes).await;
            });
        }
    }
    Ok(())
}

async fn answer(mut reader: OwnedReadHalf, writer: Arc<OwnedWriteHalf>, answers: Arc<[u8]>) {
    let mut lines = 0;
    while read(&mut reader, |bytes| lines += memchr::memchr_iter(b'\n', bytes).count()).await.is_ok() {
        while lines > 0 {
            let now = lines.min(ANSWERS_MAX);
            if write_all(&writer, &answers[..now * ACCEPTED.len()]).await.is_err() {
                return;
            }
            lines -= now;
        }
    }
}

async fn write_to_all(writers: &Writers, bytes: &[u8]) {
    let mut open = std::mem::take(&mut *writers.lock());
    open.retain(|writer| writer.strong_count() > 0);
    for writer in &open {
        // Closed connections are skipped.
        if let Some(writer) = writer.upgrade() {
            let _ = write_all(&writer, bytes).await;
        }
    }
    let mut writers = writers.lock();
    open.append(&mut writers);
    *writers = open;
}
