//! The server on a chain whose proof of work is costly: a flood delays no other miner's answers, and what was read is
//! judged even if the miner leaves or the server stops. Hashes wait at a gate, so that counts decide, not clocks.

#![cfg(feature = "server")]
#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

use serde_json::{Value, json};
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;
use stratum::mining::job::{Pow, PowFunction, sha256d};
use stratum::mining::midstate::Midstate;
use stratum::server::hashing::Hashers;
use stratum::server::{Config, Server};
use stratum::{Difficulty, Epochs, JobId, JobParts, Offer, Refusal, Solution, Tallies, Work, Worker};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

const UNIX: u32 = 1_700_000_000;

/// A proof-of-work function that waits until it may go on, and notes what it hashed. A function has no state, so each test
/// has a gate of its own among these.
struct Gate {
    state: Mutex<(usize, Vec<u32>)>,
    changed: Condvar,
}

static GATES: [Gate; 4] = [const { Gate { state: Mutex::new((0, Vec::new())), changed: Condvar::new() } }; 4];

fn gated<const TEST: usize>(header: &[u8; 80]) -> [u8; 32] {
    let gate = &GATES[TEST];
    let mut state = gate.changed.wait_while(gate.state.lock().unwrap(), |(allowed, _)| *allowed == 0).unwrap();
    state.0 -= 1;
    state.1.push(u32::from_le_bytes(header[76..].try_into().unwrap()));
    sha256d(header)
}

impl Gate {
    /// Lets this number of hashes through.
    fn open(&self, count: usize) {
        self.state.lock().unwrap().0 += count;
        self.changed.notify_all();
    }

    /// Nonces hashed so far.
    fn hashed(&self) -> Vec<u32> {
        self.state.lock().unwrap().1.clone()
    }
}

#[derive(Debug, Clone, PartialEq)]
struct Payee;

impl fmt::Display for Payee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("alice")
    }
}

/// Every hash earns credit, and is a solution.
#[derive(Debug)]
struct Costly(PowFunction);

impl Work for Costly {
    type Payout = Payee;
    type Ticket = ();

    fn authorize(&self, name: &str, _password: &str) -> Result<Worker<Payee>, Refusal> {
        Ok(Worker { name: name.into(), payout: Payee, difficulty: Difficulty::new(1e-12), notice: None })
    }

    fn offer(&self, _payout: &Payee, generation: u32, _draw: u32) -> Result<Offer<()>, Refusal> {
        let parts = JobParts {
            id: JobId(u64::from(generation)),
            coinbase_head: &generation.to_le_bytes(),
            coinbase_midstate: Midstate::new(&generation.to_le_bytes()),
            coinbase_tail: &[0; 4],
            branch: &[[3; 32]],
            version: 0x2000_0000,
            previous_block: [1; 32],
            bits: 0x1d00_ffff,
            time: UNIX,
            time_min: UNIX - 600,
            solution_target: stratum::Target::from_le_bytes([0xff; 32]),
            extra_target: None,
            pow: Pow::Costly(self.0),
        };
        Ok(Offer::new(&parts, ()))
    }

    fn epochs(&self) -> Epochs {
        Epochs::default()
    }
}

struct Front {
    server: Arc<Server<Costly>>,
    hashers: Arc<Hashers>,
    gate: &'static Gate,
    solutions: mpsc::Receiver<Solution<()>>,
    _work: watch::Sender<Option<Arc<Costly>>>,
    stop: CancellationToken,
}

impl Front {
    /// A server with one hashing thread, and the gate of the test with this number.
    fn new<const TEST: usize>() -> Self {
        let (work_sender, work) = watch::channel(Some(Arc::new(Costly(gated::<TEST>))));
        let (found, solutions) = mpsc::channel(4096);
        let (stop, hashers) = (CancellationToken::new(), Arc::new(Hashers::new(1)));
        let mut config = Config::default();
        config.session.vardiff.min = Difficulty::new(1e-12).unwrap();
        let server = Server::new(config, work, found, Arc::<Tallies>::default(), stop.clone());
        let server = Arc::new(server.hashing_with(hashers.clone()));
        Self { server, hashers, gate: &GATES[TEST], solutions, _work: work_sender, stop }
    }

    async fn join(&self, address: [u8; 4]) -> (BufReader<DuplexStream>, JoinHandle<()>) {
        let (ours, theirs) = tokio::io::duplex(1024 * 1024);
        let server = self.server.clone();
        let address = IpAddr::from(address);
        let task = tokio::spawn(async move { server.serve(theirs, bytes::BytesMut::new(), address).await });
        let mut miner = BufReader::new(ours);
        say(&mut miner, &json!({"id": 1, "method": "mining.subscribe", "params": ["x/1"]})).await;
        say(&mut miner, &json!({"id": 2, "method": "mining.authorize", "params": ["alice", "x"]})).await;
        while hear(&mut miner).await["method"] != "mining.notify" {}
        (miner, task)
    }

    /// Waits until this number of hashes is queued, beside the one at the gate.
    async fn queued(&self, count: usize) {
        let all = async {
            while self.hashers.queued() != count {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(PATIENCE, all).await.unwrap_or_else(|_| panic!("{} are queued", self.hashers.queued()));
    }
}

/// Time after which a test gives up.
const PATIENCE: Duration = Duration::from_secs(60);

async fn say(miner: &mut BufReader<DuplexStream>, line: &Value) {
    miner.write_all(format!("{line}\n").as_bytes()).await.unwrap();
}

async fn hear(miner: &mut BufReader<DuplexStream>) -> Value {
    let mut line = String::new();
    timeout(PATIENCE, miner.read_line(&mut line)).await.unwrap().unwrap();
    serde_json::from_str(&line).unwrap_or_else(|error| panic!("`{line}`: {error}"))
}

async fn submit(miner: &mut BufReader<DuplexStream>, nonces: impl Iterator<Item = u32>) {
    for nonce in nonces {
        let params = json!(["alice", "0000000000000000", "00000005", format!("{UNIX:08x}"), format!("{nonce:08x}")]);
        say(miner, &json!({"id": nonce, "method": "mining.submit", "params": params})).await;
    }
}

/// Reads the answers to so many submissions, and returns their ids.
async fn accepted(miner: &mut BufReader<DuplexStream>, count: usize) -> Vec<u64> {
    let mut ids = Vec::new();
    while ids.len() < count {
        let line = hear(miner).await;
        if let Some(id) = line["id"].as_u64() {
            assert_eq!(line["result"], true, "{line}");
            ids.push(id);
        }
    }
    ids
}

#[tokio::test]
async fn a_flood_of_one_connection_delays_the_answers_of_no_other() {
    let front = Front::new::<0>();
    let (mut flood, _) = front.join([192, 0, 2, 1]).await;
    let (mut neighbour, _) = front.join([192, 0, 2, 2]).await;
    let (mut other, _) = front.join([198, 51, 100, 1]).await;
    // All are miners whose submissions count.
    front.gate.open(120);
    for miner in [&mut flood, &mut neighbour, &mut other] {
        submit(miner, 9000..9040).await;
        accepted(miner, 40).await;
    }
    submit(&mut flood, 0..1000).await;
    // One is at the gate, and of the others only as many are read as may be in flight.
    front.queued(31).await;
    submit(&mut neighbour, 5000..5001).await;
    submit(&mut other, 6000..6001).await;
    front.queued(33).await;
    front.gate.open(4);
    assert_eq!((accepted(&mut neighbour, 1).await, accepted(&mut other, 1).await), (vec![5000], vec![6000]));
    let hashed = front.gate.hashed().split_off(120);
    assert!(hashed.len() <= 4 && hashed.contains(&5000) && hashed.contains(&6000), "{hashed:?}");
    // The flood is answered, too, all of it and in its order: one thread hashes.
    front.gate.open(1000);
    assert_eq!(accepted(&mut flood, 1000).await, (0..1000).collect::<Vec<u64>>());
}

#[tokio::test]
async fn a_solution_that_was_read_is_not_lost_with_a_miner_that_leaves() {
    let mut front = Front::new::<1>();
    let (mut miner, task) = front.join([192, 0, 2, 1]).await;
    // More than may be in flight, in one write, and then the miner is gone.
    submit(&mut miner, 0..100).await;
    front.queued(31).await;
    drop(miner);
    front.gate.open(100);
    timeout(PATIENCE, task).await.expect("the connection ends").unwrap();
    let mut nonces = Vec::new();
    while let Ok(solution) = front.solutions.try_recv() {
        nonces.push(u32::from_le_bytes(solution.solved.header[76..].try_into().unwrap()));
    }
    nonces.sort_unstable();
    assert_eq!(nonces, (0..100).collect::<Vec<u32>>());
}

#[tokio::test]
async fn a_server_that_stops_judges_what_is_in_flight_first() {
    let mut front = Front::new::<2>();
    let (mut miner, task) = front.join([192, 0, 2, 1]).await;
    submit(&mut miner, 0..20).await;
    front.queued(19).await;
    front.stop.cancel();
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(!task.is_finished(), "it waits for the hashes");
    front.gate.open(20);
    timeout(PATIENCE, task).await.expect("the connection ends").unwrap();
    let solutions = std::iter::from_fn(|| front.solutions.try_recv().ok()).count();
    assert_eq!((solutions, front.hashers.queued(), front.server.connections()), (20, 0, 0));
}

#[tokio::test]
async fn the_event_loop_goes_on_while_a_hash_is_computed() {
    // The runtime has a single thread, which answers while the gate is closed.
    let front = Front::new::<3>();
    let (mut miner, _) = front.join([192, 0, 2, 1]).await;
    submit(&mut miner, 7..8).await;
    say(&mut miner, &json!({"id": 99, "method": "mining.ping", "params": []})).await;
    assert_eq!(hear(&mut miner).await["id"], 99);
    front.gate.open(1);
    assert_eq!(accepted(&mut miner, 1).await, [7]);
}
