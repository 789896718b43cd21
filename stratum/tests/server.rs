//! The server over pipes, in virtual time: slow readers, miners that do not read, and shutdown.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

mod fixture;

use serde_json::{Value, json};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;
use stratum::server::{Check, Config, Gatekeeper, PortService, Server};
use stratum::v1::session::Credentials;
use stratum::{Difficulty, Epochs, JobParts, Offer, Refusal, Solution, Tallies, Work, Worker};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, DuplexStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use fixture::{UNIX, parts};

#[derive(Debug, Clone, PartialEq)]
struct Payee;

impl fmt::Display for Payee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("alice")
    }
}

/// One job per snapshot; every hash is good enough for credit, and for a solution if the snapshot is `easy`.
#[derive(Debug)]
struct Numbered {
    number: u64,
    easy: bool,
}

impl Work for Numbered {
    type Payout = Payee;
    type Ticket = ();

    fn authorize(&self, name: &str, _password: &str) -> Result<Worker<Payee>, Refusal> {
        Ok(Worker { name: name.into(), payout: Payee, difficulty: Difficulty::new(1e-12), notice: None })
    }

    fn offer(&self, _payout: &Payee, generation: u32, _draw: u32) -> Result<Offer<()>, Refusal> {
        let head = [&self.number.to_le_bytes()[..], &generation.to_le_bytes(), &[0; 2000]].concat();
        let parts = JobParts {
            solution_target: Difficulty::new(if self.easy { 1e-12 } else { 1e9 }).unwrap().target(),
            ..parts(self.number * 1000 + u64::from(generation), &head)
        };
        Ok(Offer::new(&parts, ()))
    }

    fn epochs(&self) -> Epochs {
        Epochs { stale: self.number, late: 0, urgent: 0 }
    }
}

struct Front {
    server: Arc<Server<Numbered>>,
    work: watch::Sender<Option<Arc<Numbered>>>,
    solutions: mpsc::Receiver<Solution<()>>,
    tallies: Arc<Tallies>,
    stop: CancellationToken,
}

impl Front {
    fn new(easy: bool, change: impl FnOnce(&mut Config)) -> Self {
        let (work, work_of_server) = watch::channel(Some(Arc::new(Numbered { number: 1, easy })));
        let (found, solutions) = mpsc::channel(16);
        let tallies = Arc::<Tallies>::default();
        let stop = CancellationToken::new();
        let mut config = Config::default();
        config.session.vardiff.min = Difficulty::new(1e-12).unwrap();
        change(&mut config);
        let server = Arc::new(Server::new(config, work_of_server, found, tallies.clone(), stop.clone()));
        Self { server, work, solutions, tallies, stop }
    }

    /// Connects a miner whose pipe holds `room` bytes.
    fn connect(&self, room: usize) -> (DuplexStream, JoinHandle<()>) {
        let (ours, theirs) = tokio::io::duplex(room);
        let server = self.server.clone();
        let address = IpAddr::from(Ipv4Addr::LOCALHOST);
        (ours, tokio::spawn(async move { server.serve(theirs, bytes::BytesMut::new(), address).await }))
    }

    /// Connects a miner and returns it with its first job read.
    async fn join(&self, room: usize) -> (BufReader<DuplexStream>, JoinHandle<()>) {
        let (stream, task) = self.connect(room);
        let mut miner = BufReader::with_capacity(64, stream);
        say(&mut miner, &json!({"id": 1, "method": "mining.subscribe", "params": ["x/1"]})).await;
        say(&mut miner, &json!({"id": 2, "method": "mining.authorize", "params": ["alice", "x"]})).await;
        while hear(&mut miner).await["method"] != "mining.notify" {}
        (miner, task)
    }

    fn new_work(&self, number: u64) {
        self.work.send_replace(Some(Arc::new(Numbered { number, easy: false })));
    }
}

async fn say(miner: &mut BufReader<DuplexStream>, line: &Value) {
    miner.write_all(format!("{line}\n").as_bytes()).await.unwrap();
}

async fn hear(miner: &mut BufReader<DuplexStream>) -> Value {
    let mut line = String::new();
    miner.read_line(&mut line).await.unwrap();
    serde_json::from_str(&line).unwrap_or_else(|error| panic!("`{line}`: {error}"))
}

fn submission(id: u32, nonce: u32) -> Value {
    let params = json!(["alice", "00000000000003e8", "00000005", format!("{UNIX:08x}"), format!("{nonce:08x}")]);
    json!({"id": id, "method": "mining.submit", "params": params})
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_gets_the_newest_job_and_none_between_and_keeps_nobody_waiting() {
    let front = Front::new(false, |_| {});
    // Hardly a tenth of a job fits into the pipe.
    let (mut slow, _) = front.join(500).await;
    let (mut fast, _) = front.join(64 * 1024).await;
    for number in 2..=9 {
        front.new_work(number);
        let job = hear(&mut fast).await;
        assert_eq!(job["params"][0], format!("{:016x}", number * 1000));
    }
    let first = hear(&mut slow).await;
    assert_eq!(first["params"][0], format!("{:016x}", 2000), "the one that was under way is finished");
    let second = hear(&mut slow).await;
    assert_eq!(second["params"][0], format!("{:016x}", 9000));
}

#[tokio::test(start_paused = true)]
async fn who_does_not_read_is_closed_after_a_while_and_was_sent_no_more_than_the_bound() {
    let front = Front::new(false, |config| config.pending_bytes_max = 4096);
    let (mut miner, task) = front.join(500).await;
    let began = tokio::time::Instant::now();
    let mut said = 0;
    // With so much queued, its requests are no longer read: that stops a flood.
    let ping = b"{\"id\":1,\"method\":\"mining.ping\",\"params\":[]}\n";
    while let Ok(Ok(())) = tokio::time::timeout(Duration::from_secs(5), miner.write_all(ping)).await {
        said += 1;
    }
    assert!((4096 / 60..400).contains(&said), "{said}");
    task.await.unwrap();
    assert_eq!(began.elapsed().as_secs(), 60);
}

#[tokio::test(start_paused = true)]
async fn new_work_buys_no_time_for_a_miner_that_does_not_read() {
    let front = Front::new(false, |_| {});
    // Hardly a tenth of a job fits into the pipe.
    let (_miner, task) = front.join(500).await;
    let began = tokio::time::Instant::now();
    for number in 2..12 {
        front.new_work(number);
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
    assert!(task.is_finished(), "blocked for {} s", began.elapsed().as_secs());
    assert_eq!(front.server.connections(), 0);
}

#[tokio::test(start_paused = true)]
async fn answers_come_in_the_order_of_the_requests_however_they_arrive() {
    let front = Front::new(false, |_| {});
    let (mut miner, task) = front.join(64 * 1024).await;
    let lines: String = (0..200).map(|id| format!("{}\n", submission(id, id))).collect();
    for piece in lines.as_bytes().chunks(333) {
        miner.write_all(piece).await.unwrap();
        tokio::task::yield_now().await;
    }
    for id in 0..200 {
        let answer = hear(&mut miner).await;
        assert_eq!(answer, json!({"id": id, "result": true, "error": null}));
    }
    // No task is waiting, and nothing is lost, even when the miner has left.
    drop(miner);
    task.await.unwrap();
    let tallies = front.tallies.take();
    assert_eq!(tallies.len(), 1);
    assert_eq!((tallies[0].totals().accepted, tallies[0].is_over()), (200, true));
}

#[tokio::test(start_paused = true)]
async fn a_solution_is_passed_on_before_its_answer_and_never_dropped() {
    let mut front = Front::new(true, |_| {});
    let (mut miner, _) = front.join(64 * 1024).await;
    for id in 0..20 {
        say(&mut miner, &submission(id, id)).await;
    }
    // The node is busy, and its queue holds sixteen: further solutions wait, and so do the answers.
    let more = tokio::time::timeout(Duration::from_secs(1), hear(&mut miner)).await;
    assert!(more.is_err(), "{more:?}");
    for _ in 0..20 {
        front.solutions.recv().await.unwrap();
    }
    for id in 0..20 {
        assert_eq!(hear(&mut miner).await, json!({"id": id, "result": true, "error": null}));
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_stops_tells_miners_to_come_back() {
    let front = Front::new(false, |_| {});
    let (mut miner, task) = front.join(64 * 1024).await;
    front.stop.cancel();
    assert_eq!(hear(&mut miner).await["method"], "client.reconnect");
    task.await.unwrap();
    assert_eq!(miner.read(&mut [0]).await.unwrap(), 0);
    assert_eq!(front.server.connections(), 0);
}

#[tokio::test(start_paused = true)]
async fn where_there_is_nothing_to_mine_miners_are_closed_so_that_they_go_elsewhere() {
    let front = Front::new(false, |_| {});
    let (mut miner, task) = front.join(64 * 1024).await;
    front.work.send_replace(None);
    task.await.unwrap();
    assert_eq!(miner.read(&mut [0]).await.unwrap(), 0);
    let (mut newcomer, task) = front.connect(500);
    task.await.unwrap();
    assert_eq!(newcomer.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_busy_socket_does_not_keep_new_work_waiting() {
    let front = Front::new(false, |_| {});
    let (miner, _) = front.join(64 * 1024).await;
    let (reader, mut writer) = tokio::io::split(miner.into_inner());
    let flood = tokio::spawn(async move {
        for id in 0.. {
            if writer.write_all(format!("{}\n", submission(id, id)).as_bytes()).await.is_err() {
                return;
            }
        }
    });
    let mut lines = BufReader::new(reader).lines();
    for _ in 0..50 {
        lines.next_line().await.unwrap();
    }
    front.new_work(2);
    let mut waited = 0;
    while !lines.next_line().await.unwrap().unwrap().contains("mining.notify") {
        waited += 1;
    }
    assert!(waited < 2000, "{waited} answers first");
    flood.abort();
}

#[tokio::test(start_paused = true)]
async fn a_stranger_who_says_nothing_is_closed_after_fifteen_seconds() {
    let front = Front::new(false, |_| {});
    let began = tokio::time::Instant::now();
    let (_stream, task) = front.connect(500);
    task.await.unwrap();
    assert_eq!(began.elapsed().as_secs(), 15);
}

/// Submissions as one piece of text, each a solution if the work is easy.
fn submissions(ids: std::ops::Range<u32>) -> String {
    ids.map(|id| format!("{}\n", submission(id, id))).collect()
}

impl Front {
    /// Collects the nonces of all solutions until the connection `task` has ended.
    async fn solved(&mut self, task: JoinHandle<()>) -> Vec<u32> {
        let mut solved = Vec::new();
        let mut task = std::pin::pin!(task);
        loop {
            tokio::select! {
                biased;
                Some(solution) = self.solutions.recv() => {
                    let nonce = solution.solved.header[76..].try_into().unwrap();
                    solved.push(u32::from_le_bytes(nonce));
                }
                ended = &mut task => {
                    ended.unwrap();
                    return solved;
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_sent_before_the_server_stopped_is_judged_and_answered() {
    let mut front = Front::new(true, |_| {});
    let (mut miner, task) = front.join(128 * 1024).await;
    // More than one turn's worth.
    miner.write_all(submissions(0..400).as_bytes()).await.unwrap();
    front.stop.cancel();
    assert_eq!(front.solved(task).await, (0..400).collect::<Vec<_>>());
    for id in 0..400 {
        assert_eq!(hear(&mut miner).await, json!({"id": id, "result": true, "error": null}));
    }
    assert_eq!(hear(&mut miner).await["method"], "client.reconnect");
}

#[tokio::test(start_paused = true)]
async fn what_is_sent_before_the_miner_knows_that_it_is_sent_away_is_judged() {
    let mut front = Front::new(true, |_| {});
    let (mut miner, task) = front.join(64 * 1024).await;
    front.work.send_replace(None);
    assert_eq!(miner.read(&mut [0]).await.unwrap(), 0, "it is sent away");
    let began = tokio::time::Instant::now();
    // It was in flight.
    tokio::time::sleep(Duration::from_millis(500)).await;
    miner.write_all(submissions(0..3).as_bytes()).await.unwrap();
    assert_eq!(front.solved(task).await, [0, 1, 2]);
    assert_eq!(began.elapsed().as_secs(), 2, "the miner is read from for no longer");
    // A stop shortens it.
    front.work.send_replace(Some(Arc::new(Numbered { number: 1, easy: true })));
    let (_miner, task) = front.join(64 * 1024).await;
    front.work.send_replace(None);
    tokio::time::sleep(Duration::from_millis(1)).await;
    let began = tokio::time::Instant::now();
    front.stop.cancel();
    task.await.unwrap();
    assert!(began.elapsed() < Duration::from_millis(200), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn the_solution_behind_a_flood_is_judged_but_not_for_ever() {
    for (useless, is_judged) in [(300, true), (600, false)] {
        let mut front = Front::new(true, |_| {});
        let (mut miner, task) = front.join(256 * 1024).await;
        let unknown = submission(1, 1).to_string().replace("00000000000003e8", "ffffffffffffffff");
        let lines = format!("{unknown}\n").repeat(useless) + &submissions(7..8);
        miner.write_all(lines.as_bytes()).await.unwrap();
        assert_eq!(front.solved(task).await, [7_u32][..usize::from(is_judged)], "behind {useless}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_miner_sent_before_it_went_is_judged_to_the_last_line() {
    let mut front = Front::new(true, |_| {});
    let (mut miner, task) = front.join(128 * 1024).await;
    let lines = submissions(0..400);
    miner.write_all(lines.trim_end().as_bytes()).await.unwrap();
    // Writing to it fails from now on, which is noticed first.
    drop(miner);
    assert_eq!(front.solved(task).await, (0..400).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn what_was_not_read_while_the_miner_did_not_read_is_judged_at_the_end() {
    let mut front = Front::new(true, |config| config.pending_bytes_max = 2000);
    let (mut miner, task) = front.join(500).await;
    let ping = "{\"id\":1,\"method\":\"mining.ping\",\"params\":[]}\n";
    // Answers to some 66 fill the pipe and the queue; the rest is not read.
    miner.write_all(ping.repeat(70).as_bytes()).await.unwrap();
    miner.write_all(submissions(7..8).as_bytes()).await.unwrap();
    let began = tokio::time::Instant::now();
    assert_eq!(front.solved(task).await, [7]);
    assert_eq!(began.elapsed().as_secs(), 60);
}

/// A check that waits for its result.
type Asked = (Credentials, oneshot::Sender<Result<(), Refusal>>);

/// Lets the test decide on each user.
#[derive(Debug)]
struct Asks(mpsc::UnboundedSender<Asked>);

impl Gatekeeper for Asks {
    fn check(&self, credentials: Credentials, source: IpAddr) -> Check<'_> {
        assert!(source.is_loopback(), "it is the miner's address");
        let (result, checked) = oneshot::channel();
        self.0.send((credentials, result)).unwrap();
        Box::pin(async { checked.await.unwrap() })
    }
}

impl Front {
    /// A port for users, and the checks that it asks for.
    fn for_users() -> (PortService, mpsc::UnboundedReceiver<Asked>) {
        let (asked, asks) = mpsc::unbounded_channel();
        let mut config = Config::default();
        config.session.vardiff.min = Difficulty::new(1e-12).unwrap();
        (PortService::new(config.session, Some(Arc::new(Asks(asked)))), asks)
    }

    /// Connects a miner to a port of its own.
    fn connect_to(&self, service: &PortService) -> (BufReader<DuplexStream>, JoinHandle<()>) {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let (server, service) = (self.server.clone(), service.clone());
        let address = IpAddr::from(Ipv4Addr::LOCALHOST);
        let place = server.admission().enter(address).expect("there is room");
        let task = async move { server.serve_with(&service, theirs, bytes::BytesMut::new(), &place).await };
        (BufReader::new(ours), tokio::spawn(task))
    }
}

fn authorize(id: u32, name: &str, password: &str) -> Value {
    json!({"id": id, "method": "mining.authorize", "params": [name, password]})
}

fn refused() -> Refusal {
    Refusal("user name or password is wrong".to_owned())
}

#[tokio::test(start_paused = true)]
async fn a_check_that_takes_long_keeps_its_own_miner_waiting_and_no_other() {
    let front = Front::new(false, |_| {});
    let (service, mut asks) = Front::for_users();
    let (mut slow, _) = front.connect_to(&service);
    // What comes after the name waits with it.
    say(&mut slow, &authorize(1, "alice", "secret")).await;
    say(&mut slow, &json!({"id": 2, "method": "mining.subscribe", "params": ["x/1"]})).await;
    let (credentials, result) = asks.recv().await.unwrap();
    assert_eq!((&*credentials.name, &*credentials.password), ("alice", "secret"));

    let (mut other, _) = front.connect_to(&service);
    say(&mut other, &json!({"id": 1, "method": "mining.subscribe", "params": ["x/1"]})).await;
    say(&mut other, &authorize(2, "alice", "secret")).await;
    asks.recv().await.unwrap().1.send(Ok(())).unwrap();
    while hear(&mut other).await["method"] != "mining.notify" {}
    for id in 10..20 {
        say(&mut other, &submission(id, id)).await;
        assert_eq!(hear(&mut other).await, json!({"id": id, "result": true, "error": null}));
    }

    result.send(Ok(())).unwrap();
    assert_eq!(hear(&mut slow).await, json!({"id": 1, "result": true, "error": null}));
    assert_eq!(hear(&mut slow).await["id"], 2);
    while hear(&mut slow).await["method"] != "mining.notify" {}
}

#[tokio::test(start_paused = true)]
async fn wrong_passwords_are_refused_by_error_24_and_end_the_connection_after_a_few() {
    let front = Front::new(false, |_| {});
    let (service, mut asks) = Front::for_users();
    let (mut miner, task) = front.connect_to(&service);
    say(&mut miner, &json!({"id": 0, "method": "mining.subscribe", "params": ["x/1"]})).await;
    hear(&mut miner).await;
    for id in 1..=4 {
        say(&mut miner, &authorize(id, "alice", &format!("guess {id}"))).await;
        asks.recv().await.unwrap().1.send(Err(refused())).unwrap();
        let answer = hear(&mut miner).await;
        assert_eq!((&answer["id"], &answer["result"], &answer["error"][0]), (&json!(id), &Value::Null, &json!(24)));
        assert_eq!(answer["error"][1], "not authorised: user name or password is wrong");
    }
    task.await.unwrap();
    assert_eq!(miner.read(&mut [0]).await.unwrap(), 0);
    assert!(front.tallies.take().is_empty(), "no worker was made");
}

#[tokio::test(start_paused = true)]
async fn a_miner_whose_check_does_not_end_is_closed_in_time_and_its_check_with_it() {
    let front = Front::new(false, |_| {});
    let (service, mut asks) = Front::for_users();
    let began = tokio::time::Instant::now();
    let (mut miner, task) = front.connect_to(&service);
    say(&mut miner, &authorize(1, "alice", "secret")).await;
    // More than it may send: nothing of it is read while the check runs.
    let flood = tokio::spawn(async move { while miner.write_all(&[b'x'; 4096]).await.is_ok() {} });
    let (_, mut result) = asks.recv().await.unwrap();
    result.closed().await;
    task.await.unwrap();
    assert!((60..=63).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    flood.await.unwrap();
    assert_eq!(front.server.connections(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_server_stops_although_a_check_runs() {
    let front = Front::new(false, |_| {});
    let (service, mut asks) = Front::for_users();
    let (mut miner, task) = front.connect_to(&service);
    say(&mut miner, &authorize(1, "alice", "secret")).await;
    let (_, mut result) = asks.recv().await.unwrap();
    front.stop.cancel();
    task.await.unwrap();
    result.closed().await;
}

#[tokio::test(start_paused = true)]
async fn no_submission_waits_for_the_check_of_a_further_name() {
    let mut front = Front::new(true, |_| {});
    let (service, mut asks) = Front::for_users();
    let (mut miner, _) = front.connect_to(&service);
    say(&mut miner, &json!({"id": 1, "method": "mining.subscribe", "params": ["x/1"]})).await;
    say(&mut miner, &authorize(2, "alice", "secret")).await;
    asks.recv().await.unwrap().1.send(Ok(())).unwrap();
    while hear(&mut miner).await["method"] != "mining.notify" {}
    say(&mut miner, &authorize(3, "alice.two", "secret")).await;
    say(&mut miner, &authorize(4, "alice.three", "guess")).await;
    let (second, result) = asks.recv().await.unwrap();
    assert_eq!(&*second.name, "alice.two");
    say(&mut miner, &submission(5, 5)).await;
    assert!(front.solutions.recv().await.is_some());
    assert_eq!(hear(&mut miner).await, json!({"id": 5, "result": true, "error": null}));
    assert!(asks.try_recv().is_err(), "one at a time");
    result.send(Ok(())).unwrap();
    assert_eq!(hear(&mut miner).await, json!({"id": 3, "result": true, "error": null}));
    let (third, result) = asks.recv().await.unwrap();
    assert_eq!(&*third.name, "alice.three");
    result.send(Err(refused())).unwrap();
    assert_eq!(hear(&mut miner).await["error"][0], 24);
}
