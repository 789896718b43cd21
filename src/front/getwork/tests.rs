//! Tests of the HTTP side: solutions that outlive their connection, limits of networks, places earned.

use super::*;
use axum::http::header;
use futures::FutureExt;
use stratum::mining::extranonce::Extranonces;
use stratum::mining::job::Pow;
use stratum::mining::midstate::Midstate;
use stratum::mining::vardiff;
use stratum::server::admission::{Admission, Limits};
use stratum::{Epochs, JobId, JobParts, Offer, Refusal, Tallies, Worker};

const DEVICE: Device = Device { is_tiny: false, is_cpu: true };

fn parts() -> JobParts<'static> {
    JobParts {
        id: JobId(1),
        coinbase_head: &[],
        coinbase_midstate: Midstate::new(&[]),
        coinbase_tail: &[0; 4],
        branch: &[],
        version: 0x2000_0000,
        previous_block: [9; 32],
        bits: 0x207f_ffff,
        time: now().unix,
        time_min: now().unix - 600,
        solution_target: stratum::Target::from_le_bytes([0xff; 32]),
        extra_target: None,
        pow: Pow::Sha256d,
    }
}

/// Work whose every hash is a solution.
#[derive(Debug)]
struct Easiest;

impl Work for Easiest {
    type Payout = String;
    type Ticket = ();

    fn authorize(&self, name: &str, _password: &str) -> Result<Worker<String>, Refusal> {
        Ok(Worker { name: name.into(), payout: name.to_owned(), difficulty: None, notice: None })
    }

    fn offer(&self, _payout: &String, _generation: u32, _draw: u32) -> Result<Offer<()>, Refusal> {
        Ok(Offer::new(&parts(), ()))
    }

    fn epochs(&self) -> Epochs {
        Epochs::default()
    }
}

#[tokio::test]
async fn a_solution_is_not_lost_with_a_miner_that_hangs_up_while_the_node_is_behind() {
    let desk =
        GetworkServer::new(vardiff_of_test(), Extranonces::starting_at(1), Arc::<Tallies>::default(), true).unwrap();
    let source = Source::of(Ipv4Addr::LOCALHOST.into());
    let ask = Ask { name: "alice", password: "", source, draw: 0, easiest: None };
    let solved: Vec<_> = (0..2).map(|_| desk.hand_out(&Easiest, ask, now()).unwrap().data).collect();
    let (solutions, mut found) = mpsc::channel(1);
    // The source of work has closed, too.
    let (_work_sender, work) = watch::channel(None);
    let stop = CancellationToken::new();
    let getwork = Arc::new(Getwork::new(desk, true, work, solutions, Arc::default(), true, stop));
    let (device, headers) = (DEVICE, HeaderMap::new());
    let submit = |data: &[u8]| {
        let (getwork, data, headers) = (&getwork, data.to_vec(), &headers);
        async move { getwork.submit(None, &data, device, source, None, headers).await }
    };
    assert!(submit(&solved[0]).now_or_never().is_some(), "there is room for one");
    assert!(submit(&solved[1]).now_or_never().is_none(), "the next one waits, and its miner hangs up");
    for _ in 0..2 {
        let next = tokio::time::timeout(Duration::from_secs(10), found.recv());
        assert!(next.await.unwrap().is_some());
    }
}

#[tokio::test]
async fn a_credited_submission_earns_its_connections_place() {
    let admission =
        Admission::new(Limits { connections_max: 1, ..Limits::default() }, Vec::new(), CancellationToken::new());
    let place = admission.enter([192, 0, 2, 1].into()).unwrap();
    let getwork = stopping(true);
    let source = Source::of([192, 0, 2, 1].into());
    let ask = Ask { name: "alice", password: "", source, draw: 0, easiest: None };
    getwork.submit(None, &[0; DATA_BYTES], DEVICE, source, Some(&place), &HeaderMap::new()).await;
    assert!(admission.enter([192, 0, 2, 2].into()).is_ok() && place.is_evicted(), "nothing was credited");
    drop(place);
    let place = admission.enter([192, 0, 2, 1].into()).unwrap();
    let data = getwork.desk.hand_out(&Easiest, ask, now()).unwrap().data;
    getwork.submit(None, &data, DEVICE, source, Some(&place), &HeaderMap::new()).await;
    assert!(admission.enter([192, 0, 2, 2].into()).is_err());
}

/// [`Easiest`] on a chain with a costly proof of work.
#[derive(Debug)]
struct Costly;

/// Takes longer than anything else in the test.
fn slow(header: &[u8; 80]) -> [u8; 32] {
    std::thread::sleep(Duration::from_millis(50));
    stratum::mining::job::sha256d(header)
}

impl Work for Costly {
    type Payout = String;
    type Ticket = ();

    fn authorize(&self, name: &str, password: &str) -> Result<Worker<String>, Refusal> {
        Easiest.authorize(name, password)
    }

    fn offer(&self, _payout: &String, _generation: u32, _draw: u32) -> Result<Offer<()>, Refusal> {
        Ok(Offer::new(&JobParts { pow: Pow::Costly(slow), ..parts() }, ()))
    }

    fn epochs(&self) -> Epochs {
        Easiest.epochs()
    }
}

#[tokio::test]
async fn a_costly_submission_is_hashed_off_the_event_loop_and_its_solution_not_lost_with_the_miner() {
    let desk = GetworkServer::<Costly>::new(vardiff_of_test(), Extranonces::starting_at(1), Arc::default(), true);
    let desk = desk.unwrap();
    let source = Source::of(Ipv4Addr::LOCALHOST.into());
    let ask = Ask { name: "alice", password: "", source, draw: 0, easiest: None };
    let data = desk.hand_out(&Costly, ask, now()).unwrap().data;
    let (solutions, mut found) = mpsc::channel(1);
    let (_work_sender, work) = watch::channel(None);
    let getwork = Getwork::new(desk, false, work, solutions, Arc::default(), true, CancellationToken::new());
    let getwork = Arc::new(getwork);
    let headers = HeaderMap::new();
    {
        let submitted = getwork.submit(None, &data, DEVICE, source, None, &headers);
        // The runtime has a single thread, and is asked again before the hash is there.
        assert!(submitted.now_or_never().is_none(), "the miner hangs up meanwhile");
    }
    let again = getwork.submit(None, &data, DEVICE, source, None, &headers).await;
    assert_eq!(again.headers()["x-reject-reason"], "duplicate submission");
    let solution = tokio::time::timeout(Duration::from_secs(10), found.recv()).await.unwrap().expect("a solution");
    assert_eq!(solution.solved.pow_hash, solution.solved.hash);
    let again = getwork.submit(None, &data, DEVICE, source, None, &headers).await;
    assert_eq!(again.headers()["x-reject-reason"], "duplicate submission");
}

fn client(address: [u8; 4]) -> Option<Extension<Client>> {
    Some(Extension(Client(address.into())))
}

/// Server of a node that is about to stop: long polls are answered at once.
fn stopping(exempts_loopback: bool) -> Arc<Getwork<Easiest>> {
    let extranonces = Extranonces::starting_at(1);
    let desk = GetworkServer::new(vardiff_of_test(), extranonces, Arc::default(), exempts_loopback).unwrap();
    let (solutions, _) = mpsc::channel(1);
    let (_, work) = watch::channel(Some(Arc::new(Easiest)));
    let stop = CancellationToken::new();
    stop.cancel();
    Arc::new(Getwork::new(desk, true, work, solutions, Arc::default(), exempts_loopback, stop))
}

async fn ask(getwork: &Arc<Getwork<Easiest>>, address: [u8; 4], body: &'static str) -> StatusCode {
    let headers = HeaderMap::from_iter([(header::AUTHORIZATION, HeaderValue::from_static("Basic YWxpY2U6eA=="))]);
    call(State(getwork.clone()), client(address), None, headers, Bytes::from_static(body.as_bytes())).await.status()
}

async fn poll(getwork: &Arc<Getwork<Easiest>>, address: [u8; 4]) -> StatusCode {
    let headers = HeaderMap::from_iter([(header::AUTHORIZATION, HeaderValue::from_static("Basic YWxpY2U6eA=="))]);
    long_poll(State(getwork.clone()), Method::GET, client(address), headers, Bytes::new()).await.status()
}

const ASK: &str = r#"{"method":"getwork","params":[],"id":0}"#;
const SUBMIT: &str = r#"{"method":"getwork","params":["00"],"id":0}"#;

#[tokio::test]
async fn a_network_above_its_limit_is_told_so_and_others_are_served() {
    let getwork = stopping(true);
    // Whatever it asks: for work, for nothing known, or as long polls.
    for round in 0..10_000 {
        let status = match round % 4 {
            0 => ask(&getwork, [192, 0, 2, 1], ASK).await,
            1 => ask(&getwork, [192, 0, 2, 2], "{").await,
            2 => ask(&getwork, [192, 0, 2, 3], r#"{"method":"getblocktemplate"}"#).await,
            _ => poll(&getwork, [192, 0, 2, 4]).await,
        };
        assert_eq!(status, StatusCode::OK);
    }
    let mut refused = 0;
    while ask(&getwork, [192, 0, 2, 5], ASK).await == StatusCode::OK {
        refused += 1;
        assert!(refused < 1_000_000, "the limit is reached");
    }
    // Submissions have a limit of their own, so that a block is not lost to a poll too many.
    assert_eq!(ask(&getwork, [192, 0, 2, 5], SUBMIT).await, StatusCode::OK);
    assert_eq!(
        [ask(&getwork, [198, 51, 100, 1], ASK).await, poll(&getwork, [198, 51, 100, 1]).await],
        [StatusCode::OK; 2]
    );
}

#[tokio::test]
async fn submissions_of_a_network_are_limited_and_the_answer_says_so_to_man_and_machine() {
    let getwork = stopping(true);
    let mut allowed = 0;
    while ask(&getwork, [192, 0, 2, 1], SUBMIT).await == StatusCode::OK {
        allowed += 1;
        assert!(allowed < 1_000_000, "the limit is reached");
    }
    assert!(allowed >= 10_000);
    let response = loop {
        let body = Bytes::from_static(SUBMIT.as_bytes());
        let response = call(State(getwork.clone()), client([192, 0, 2, 1]), None, HeaderMap::new(), body).await;
        if response.status() != StatusCode::OK {
            break response;
        }
    };
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(response.headers()[header::RETRY_AFTER], "1");
    let body = axum::body::to_bytes(response.into_body(), 1000).await.unwrap();
    let answer: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((&answer["id"], &answer["error"]["code"]), (&0.into(), &(-32005).into()));
    assert!(answer["error"]["message"].as_str().unwrap().contains("poll less often"));
}

#[tokio::test]
async fn this_machine_is_limited_only_if_wanted() {
    let status_after_many = async |exempts_loopback| {
        let getwork = stopping(exempts_loopback);
        for _ in 0..50_000 {
            let status = ask(&getwork, [127, 0, 0, 1], "{").await;
            if status != StatusCode::OK {
                return status;
            }
        }
        StatusCode::OK
    };
    assert_eq!(status_after_many(true).await, StatusCode::OK);
    assert_eq!(status_after_many(false).await, StatusCode::TOO_MANY_REQUESTS);
}

fn vardiff_of_test() -> stratum::mining::vardiff::Config {
    let difficulty = |value| Difficulty::new(value).unwrap();
    vardiff::Config {
        interval: Duration::from_secs(3),
        start: difficulty(1.0),
        min: difficulty(1e-9),
        max: difficulty(1e9),
    }
}
