//! Cost of the server, next to the physical limits of the same machine in the same run: a bare echo server under the
//! same submissions, and a bare writer of the same bytes for a new job.
//!
//! `cargo bench -p stratum --bench server [SECONDS]`. Servers are separate processes, so that CPU time and memory are
//! theirs alone. Submissions are judged in full but need no grinding: every hash meets the difficulty.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "a test reads the clock and opens sockets")]
#![allow(clippy::unwrap_used, reason = "a benchmark can do nothing about an error but stop")]
#![allow(clippy::cast_precision_loss, reason = "figures to be read")]

use std::fmt;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use stratum::mining::midstate::Midstate;
use stratum::{Difficulty, Epochs, JobId, JobParts, Offer, Refusal, Tallies, Work, Worker, server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// Number of connections that submit.
const SUBMITTERS: usize = 100;

/// Number of idle connections, for measuring memory and fan-out.
const LISTENERS: usize = 3000;

/// Size of the coinbase, in bytes: 200 outputs.
const COINBASE_BYTES: usize = 6500;

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    match arguments.next().as_deref() {
        Some("serve") => serve(&arguments.next().unwrap()),
        seconds => compare(seconds.map_or(3.0, |seconds| seconds.parse().unwrap())),
    }
}

// The servers.

#[derive(Debug, Clone, PartialEq)]
struct Payee(String);

impl fmt::Display for Payee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One job for all, made once.
struct OneJob {
    number: u64,
    offer: Offer<()>,
}

impl OneJob {
    fn new(number: u64) -> Arc<Self> {
        let head = vec![0x5a; COINBASE_BYTES];
        let parts = JobParts {
            id: JobId(number),
            coinbase_head: &head,
            coinbase_midstate: Midstate::new(&head),
            coinbase_tail: &[0; 4],
            branch: &[[3; 32]; 12],
            version: 0x2000_0000,
            previous_block: [1; 32],
            bits: 0x1d00_ffff,
            time: 1_700_000_000,
            time_min: 1_600_000_000,
            solution_target: Difficulty::new(1e9).unwrap().target(),
            extra_target: None,
            pow: stratum::mining::job::Pow::Sha256d,
        };
        Arc::new(Self { number, offer: Offer::new(&parts, ()) })
    }
}

impl Work for OneJob {
    type Payout = Payee;
    type Ticket = ();

    fn authorize(&self, name: &str, _password: &str) -> Result<Worker<Payee>, Refusal> {
        Ok(Worker {
            name: name.into(),
            payout: Payee("alice".into()),
            difficulty: Difficulty::new(1e-12),
            notice: None,
        })
    }

    fn offer(&self, _payout: &Payee, _generation: u32, _draw: u32) -> Result<Offer<()>, Refusal> {
        Ok(self.offer.clone())
    }

    fn epochs(&self) -> Epochs {
        Epochs { stale: self.number, late: 0, urgent: 0 }
    }
}

/// Serves until the end of standard input, each line of which triggers a new job. Prints the port first.
fn serve(kind: &str) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let (new_job, jobs) = watch::channel(1_u64);
    let listener = runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        socket.listen(4096).unwrap()
    });
    println!("{}", listener.local_addr().unwrap().port());
    let kind = kind.to_owned();
    runtime.spawn(async move {
        match &*kind {
            "echo" => echo(listener).await,
            "writer" => write_jobs(listener, jobs).await,
            _ => stratum(listener, jobs).await,
        }
    });
    for line in std::io::stdin().lines() {
        new_job.send(line.unwrap().parse().unwrap()).unwrap();
    }
}

async fn echo(listener: TcpListener) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        tokio::spawn(async move {
            let mut buffer = vec![0; 16 * 1024];
            while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                if stream.write_all(&buffer[..count]).await.is_err() {
                    return;
                }
            }
        });
    }
}

/// Writes the bytes of each new job to all connections in turn.
async fn write_jobs(listener: TcpListener, mut jobs: watch::Receiver<u64>) {
    let mut streams = Vec::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => streams.push(accepted.unwrap().0),
            changed = jobs.changed() => {
                changed.unwrap();
                let offer = OneJob::new(*jobs.borrow_and_update()).offer.line.clone();
                let line = [&offer, b"true]}\n".as_slice()].concat();
                for stream in &mut streams {
                    stream.write_all(&line).await.unwrap();
                }
            }
        }
    }
}

async fn stratum(listener: TcpListener, mut jobs: watch::Receiver<u64>) {
    let (new_work, work) = watch::channel(Some(OneJob::new(1)));
    let (solutions, _solutions) = mpsc::channel(16);
    let tallies = Arc::<Tallies>::default();
    let mut config = server::Config::default();
    config.session.vardiff.min = Difficulty::new(1e-12).unwrap();
    config.session.notify_interval = Duration::from_secs(600);
    let server = Arc::new(server::Server::new(config, work, solutions, tallies, CancellationToken::new()));
    tokio::spawn(async move {
        while jobs.changed().await.is_ok() {
            new_work.send_replace(Some(OneJob::new(*jobs.borrow_and_update())));
        }
    });
    loop {
        let (stream, from) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let server = server.clone();
        tokio::spawn(async move { server.serve(stream, bytes::BytesMut::new(), from.ip()).await });
    }
}

// The load.

struct Server {
    process: Child,
    input: Option<ChildStdin>,
    _output: BufReader<ChildStdout>,
    port: u16,
}

impl Server {
    fn start(kind: &str) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["serve", kind])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        let mut port = String::new();
        output.read_line(&mut port).unwrap();
        Self { input: process.stdin.take(), port: port.trim().parse().unwrap(), _output: output, process }
    }

    async fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect((IpAddr::from(Ipv4Addr::LOCALHOST), self.port)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// Connects a miner and reads its first job.
    async fn join(&self) -> TcpStream {
        let mut stream = self.connect().await;
        let lines = concat!(
            r#"{"id":1,"method":"mining.subscribe","params":["bench/1"]}"#,
            "\n",
            r#"{"id":2,"method":"mining.authorize","params":["alice.rig","x"]}"#,
            "\n"
        );
        stream.write_all(lines.as_bytes()).await.unwrap();
        let mut seen = Vec::new();
        while !seen.ends_with(b"true]}\n") {
            let mut buffer = [0; 32 * 1024];
            let count = stream.read(&mut buffer).await.unwrap();
            assert!(count > 0, "the server closed");
            seen.extend_from_slice(&buffer[..count]);
        }
        stream
    }

    fn new_job(&mut self, number: u64) {
        writeln!(self.input.as_mut().unwrap(), "{number}").unwrap();
    }

    /// CPU time used so far, in seconds, system time included.
    fn cpu_s(&self) -> f64 {
        let mut text = String::new();
        let path = format!("/proc/{}/stat", self.process.id());
        std::fs::File::open(path).unwrap().read_to_string(&mut text).unwrap();
        let fields: Vec<&str> = text[text.rfind(')').unwrap()..].split(' ').collect();
        let ticks: f64 = fields[12].parse::<f64>().unwrap() + fields[13].parse::<f64>().unwrap();
        ticks / 100.0
    }

    /// Memory in use, in bytes.
    fn memory(&self) -> f64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = text.lines().find(|line| line.starts_with("VmRSS")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() * 1024.0
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn compare(seconds: f64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    println!("{:<34}{:>12}{:>12}{:>10}{:>16}", "", "server", "bare", "ratio", "CPU/line");
    runtime.block_on(async {
        for in_flight in [1, 16] {
            let bare = submissions("echo", in_flight, seconds).await;
            let ours = submissions("stratum", in_flight, seconds).await;
            println!(
                "{:<34}{:>10.0}/s{:>10.0}/s{:>10.2}{:>7.1} − {:.1} µs",
                format!("submissions, {in_flight} in flight"),
                ours.0,
                bare.0,
                ours.0 / bare.0,
                ours.1 * 1e6,
                bare.1 * 1e6
            );
        }
        let (bare, _) = fan_out("writer").await;
        let (ours, memory) = fan_out("stratum").await;
        println!(
            "{:<34}{:>10.1}ms{:>10.1}ms{:>10.2}",
            format!("a job for {LISTENERS} connections"),
            ours * 1e3,
            bare * 1e3,
            ours / bare
        );
        println!("{:<34}{:>9.1}KiB", "memory of an idle connection", memory / 1024.0);
    });
}

/// Returns the answered lines per second, and the server's CPU time for each, in seconds.
async fn submissions(kind: &str, in_flight: usize, seconds: f64) -> (f64, f64) {
    let server = Server::start(kind);
    let answered = Arc::new(AtomicU64::new(0));
    let mut tasks = Vec::new();
    for _ in 0..SUBMITTERS {
        let stream = if kind == "echo" { server.connect().await } else { server.join().await };
        tasks.push(tokio::spawn(submit(stream, in_flight, answered.clone())));
    }
    tokio::time::sleep(Duration::from_secs_f64(seconds / 3.0)).await;
    let (cpu, count, at) = (server.cpu_s(), answered.load(Ordering::Relaxed), Instant::now());
    tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
    let count = (answered.load(Ordering::Relaxed) - count) as f64;
    let result = (count / at.elapsed().as_secs_f64(), (server.cpu_s() - cpu) / count);
    tasks.into_iter().for_each(|task| task.abort());
    result
}

async fn submit(mut stream: TcpStream, in_flight: usize, answered: Arc<AtomicU64>) {
    let mut nonce = 0_u32;
    let mut next = |count: usize| {
        let mut lines = Vec::with_capacity(count * 160);
        for _ in 0..count {
            nonce += 1;
            writeln!(
                lines,
                r#"{{"id":4,"method":"mining.submit","params":["alice.rig","0000000000000001","00000005","6553f100","{nonce:08x}"]}}"#,
            )
            .unwrap();
        }
        lines
    };
    stream.write_all(&next(in_flight)).await.unwrap();
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let count = stream.read(&mut buffer).await.unwrap();
        assert!(count > 0, "the server closed");
        let read = &buffer[..count];
        assert!(!read.windows(5).any(|window| window == b"false" || window == b"ror\":["), "{read:?}");
        let lines = read.iter().filter(|byte| **byte == b'\n').count();
        answered.fetch_add(lines as u64, Ordering::Relaxed);
        if lines > 0 {
            stream.write_all(&next(lines)).await.unwrap();
        }
    }
}

/// Seconds from a new job until the last listener has it (the least of five), and memory per listener.
async fn fan_out(kind: &str) -> (f64, f64) {
    let mut server = Server::start(kind);
    let (joined, mut arrivals) = mpsc::unbounded_channel();
    let before = server.memory();
    for _ in 0..LISTENERS {
        let mut stream = if kind == "writer" { server.connect().await } else { server.join().await };
        let joined = joined.clone();
        tokio::spawn(async move {
            let mut buffer = vec![0; 64 * 1024];
            while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                if buffer[..count].ends_with(b"true]}\n") && joined.send(Instant::now()).is_err() {
                    return;
                }
            }
        });
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let memory = (server.memory() - before) / LISTENERS as f64;
    let mut least = f64::MAX;
    for number in 2..7 {
        let at = Instant::now();
        server.new_job(number);
        let mut last = at;
        for _ in 0..LISTENERS {
            last = arrivals.recv().await.unwrap();
        }
        least = least.min((last - at).as_secs_f64());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    (least, memory)
}
