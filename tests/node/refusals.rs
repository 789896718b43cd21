//! Each mistake of a miner gets its own error code and text, and does not affect other connections.

use serde_json::{Value, json};
use std::time::Duration;
use test_support::{Bitcoind, ClientError, Job, Node, StratumClient, Submission, payout_address};

use crate::{P2POOL, mine_one, miner_name};

/// Miner with a job, and the data of the job.
struct Room {
    daemon: Bitcoind,
    node: Node,
    user: String,
    miner: StratumClient,
    job: Job,
}

impl Room {
    fn new() -> Self {
        let daemon = Bitcoind::start();
        let node = Node::start(P2POOL, &daemon);
        let user = miner_name(1);
        let mut miner = StratumClient::connect(node.worker_port());
        miner.configure(0x1fff_e000).expect("version rolling is granted");
        miner.subscribe().expect("subscribing needs nothing");
        assert_eq!(miner.authorize(&user, "x"), Ok(true));
        let job = miner.wait_for_job(|_| true);
        Self { daemon, node, user, miner, job }
    }

    /// Checks that a submission is refused with `code`, and that the connection can go on mining.
    fn check_refused(mut self, submission: &Submission, code: i64) {
        let refused = self.miner.submit(&self.user, submission).expect_err("it is not valid");
        assert_eq!(refused.code(), Some(code), "{refused}");
        self.still_mines();
    }

    fn still_mines(mut self) {
        mine_one(&mut self.miner, &self.user, &self.daemon, &self.node, &payout_address(1));
    }

    /// Valid submission, to be altered. On regtest it is a block as well.
    fn submission(&self) -> Submission {
        self.job.solve()
    }
}

fn code_of(outcome: Result<Value, ClientError>) -> Option<i64> {
    outcome.expect_err("it should have been refused").code()
}

#[test]
fn a_job_that_was_never_sent_is_refused() {
    let room = Room::new();
    let submission = Submission { job_id: "ffffffffffff".to_owned(), ..room.submission() };
    room.check_refused(&submission, 21);
}

#[test]
fn a_submission_sent_twice_is_refused_the_second_time() {
    let mut room = Room::new();
    let submission = room.submission();
    // It is a block as well; with the daemon paused, no new work makes the second one stale.
    room.daemon.pause();
    assert_eq!(room.miner.submit(&room.user, &submission), Ok(true));
    let refused = room.miner.submit(&room.user, &submission).expect_err("it was sent before");
    assert_eq!(refused.code(), Some(22), "{refused}");
    room.daemon.resume();
    crate::wait_for_best(&room.daemon, submission.hash);
    room.still_mines();
}

#[test]
fn a_hash_above_the_target_is_refused() {
    let room = Room::new();
    let submission = room.job.solve_worthless();
    room.check_refused(&submission, 23);
}

#[test]
fn a_time_that_is_not_eight_hex_digits_is_refused() {
    for time in ["", "xyzxyzxy", "1234567", "123456789"] {
        let room = Room::new();
        let submission = Submission { time: time.to_owned(), ..room.submission() };
        room.check_refused(&submission, 20);
    }
}

#[test]
fn a_time_far_in_the_future_is_refused() {
    let room = Room::new();
    let submission = room.job.solve_rolled(3 * 3600, None);
    room.check_refused(&submission, 20);
}

#[test]
fn a_time_before_the_chains_median_is_refused() {
    let room = Room::new();
    // The chain's only block is from 2011.
    let submission = room.job.solve_rolled(-(i64::from(room.job.time) - 1_000_000_000), None);
    room.check_refused(&submission, 20);
}

#[test]
fn a_nonce_that_is_no_hex_is_refused() {
    // Hex digits that firmware left out or added are accepted.
    for nonce in ["", "0x", "wxyzwxyz"] {
        let room = Room::new();
        let submission = Submission { nonce: nonce.to_owned(), ..room.submission() };
        room.check_refused(&submission, 20);
    }
}

#[test]
fn an_extranonce2_that_is_no_hex_is_refused() {
    for extranonce2 in ["", "0x", "wxyzwxyz"] {
        let room = Room::new();
        let submission = Submission { extranonce2: extranonce2.to_owned(), ..room.submission() };
        room.check_refused(&submission, 20);
    }
}

#[test]
fn version_bits_outside_the_mask_are_refused() {
    let room = Room::new();
    let submission = Submission { version_bits: Some("e0000000".to_owned()), ..room.submission() };
    room.check_refused(&submission, 20);
}

#[test]
fn version_bits_without_an_agreement_are_refused() {
    let daemon = Bitcoind::start();
    let node = Node::start(P2POOL, &daemon);
    let user = miner_name(1);
    let mut miner = StratumClient::ready(node.worker_port(), &user);
    let submission = Submission { version_bits: Some("00002000".to_owned()), ..miner.job().solve() };
    assert_eq!(miner.submit(&user, &submission).expect_err("nothing was agreed").code(), Some(20));
}

#[test]
fn a_submission_by_a_name_that_was_not_authorised_is_refused() {
    let mut room = Room::new();
    let submission = room.submission();
    let stranger = miner_name(2);
    let refused = room.miner.submit(&stranger, &submission).expect_err("the name is unknown here");
    assert_eq!(refused.code(), Some(24), "{refused}");
    // The name is refused, but not the block.
    crate::wait_for_best(&room.daemon, submission.hash);
    room.still_mines();
}

#[test]
fn a_submission_before_authorize_is_refused() {
    let room = Room::new();
    let submission = room.submission();
    let mut eager = StratumClient::connect(room.node.worker_port());
    eager.subscribe().expect("subscribing needs nothing");
    let refused = eager.submit(&room.user, &submission).expect_err("nobody is authorised");
    assert_eq!(refused.code(), Some(24), "{refused}");
    room.still_mines();
}

#[test]
fn a_submission_before_subscribe_is_refused() {
    let room = Room::new();
    let submission = room.submission();
    let mut eager = StratumClient::connect(room.node.worker_port());
    let refused = eager.submit(&room.user, &submission).expect_err("it has not subscribed");
    assert_eq!(refused.code(), Some(25), "{refused}");
    room.still_mines();
}

#[test]
fn an_unknown_method_is_refused() {
    let mut room = Room::new();
    assert_eq!(code_of(room.miner.request("mining.make_coffee", json!([]))), Some(-3));
    room.still_mines();
}

#[test]
fn a_submission_with_missing_or_odd_parameters_is_refused() {
    let mut room = Room::new();
    for params in
        [json!([]), json!([room.user]), json!({}), json!([1, 2, 3, 4, 5]), json!([room.user, [], {}, null, true])]
    {
        let outcome = room.miner.request("mining.submit", params.clone());
        assert!(matches!(code_of(outcome), Some(20 | 24)), "{params}");
    }
    room.still_mines();
}

#[test]
fn a_line_that_is_not_json_is_refused() {
    let mut room = Room::new();
    room.miner.raw("{this is not JSON");
    let reply = room.miner.any_reply().expect("one odd line is answered, not punished");
    assert_eq!(reply["error"][0], json!(20), "{reply}");
    room.still_mines();
}

#[test]
fn a_line_without_end_ends_the_connection_and_no_other() {
    let room = Room::new();
    let mut flood = StratumClient::connect(room.node.worker_port());
    for _ in 0..64 {
        flood.raw_bytes(&[b'x'; 16_384]);
    }
    assert!(flood.disconnected_within(Duration::from_secs(5)), "a megabyte is no line");
    room.still_mines();
}

#[test]
fn tls_ends_the_connection_at_once() {
    let room = Room::new();
    let mut miner = StratumClient::connect(room.node.worker_port());
    // The start of a TLS hello: bfgminer tries that first, and falls back when refused.
    miner.raw_bytes(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00]);
    assert!(miner.disconnected_within(Duration::from_secs(2)));
    room.still_mines();
}

#[test]
fn a_block_is_the_last_line_of_a_miner_that_is_dropped_for_its_invalid_submissions() {
    let mut room = Room::new();
    let found = room.job.solve_block();
    let params = json!([room.user, "ffffffffffffffff", "00000000", "00000000", "00000000"]);
    let junk = json!({"id": 1, "method": "mining.submit", "params": params});
    room.miner.raw_bytes(format!("{junk}\n").repeat(350).as_bytes());
    room.miner.send_submission(&room.user, &found);
    crate::wait_for_best(&room.daemon, found.hash);
    assert!(room.miner.disconnected_within(Duration::from_secs(20)));
    room.node.wait_for_log("too many useless lines", Duration::from_secs(20));
}
