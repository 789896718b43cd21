//! Difficulties on a scrypt chain, wherever a node shows one: those of shares and submissions are in scrypt miners' unit,
//! blocks' are the daemon's, and user names and the JSON of the original P2Pool are not scaled (protocol trap 48).

use bitcoin::hashes::{Hash, sha256d};
use bitcoin::{BlockHash, Target};
use serde_json::Value;
use sharechain::coin::Pow;
use std::process::Command;
use std::time::Duration;
use test_support::{Browser, Job, Node, NodeBuilder, StratumClient, Submission, metric_value, target_of, wait_until};

use crate::P2POOL;
use crate::api::listen;
use crate::shares::{network_file, open_signet, own_address, wpkh};

/// Factor of scrypt miners' unit.
const SCALE: f64 = 65_536.0;

/// Shares that the original JSON needs for statistics, and some more.
const SHARES: u32 = 12;

/// Time limit for statistics to be current.
const SHOWN_LIMIT: Duration = Duration::from_secs(20);

/// Finds a submission whose scrypt hash meets the difficulty that the node has set.
fn solve(job: &Job) -> Submission {
    let target = target_of(job.difficulty / SCALE);
    let extranonce2 = vec![fastrand::u8(..); job.extranonce2_size];
    for nonce in 0..u32::MAX {
        let header = job.header(&extranonce2, job.version, job.time, nonce);
        if Target::from_le_bytes(Pow::Scrypt.function()(&header)) <= target {
            return Submission {
                job_id: job.id.clone(),
                extranonce2: hex::encode(&extranonce2),
                time: format!("{:08x}", job.time),
                nonce: format!("{nonce:08x}"),
                version_bits: None,
                hash: BlockHash::from_raw_hash(sha256d::Hash::hash(&header)),
            };
        }
    }
    panic!("no nonce meets difficulty {}", job.difficulty)
}

fn ask(node: &Node, path: &str) -> Value {
    let answer = node.get(path);
    assert_eq!(answer.status, 200, "{path}: {answer:?}");
    serde_json::from_str(&answer.body).unwrap_or_else(|error| panic!("{path}: {error}: {answer:?}"))
}

/// A number in an answer, as in `ask(node, path)["a"]["b"]`.
fn number(node: &Node, path: &str, pointer: &str) -> f64 {
    let answer = ask(node, path);
    let value = answer.pointer(pointer).and_then(Value::as_f64);
    value.unwrap_or_else(|| panic!("{path} has no number at {pointer}: {answer}"))
}

fn check_close(what: &str, shown: f64, expected: f64, tolerance: f64) {
    assert!((shown / expected - 1.0).abs() <= tolerance, "{what} is {shown}, not about {expected}");
}

/// Output of a subcommand for the node.
fn console(node: &Node, arguments: &[&str]) -> String {
    let mut command = Command::new(P2POOL);
    command.args(arguments).args(["--net", &network_file("scrypt.toml"), "--datadir"]).arg(node.data_dir());
    let output = command.output().expect("the program can be run");
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).expect("text")
}

/// A node whose miner found [`SHARES`] shares, the miner's connection, and its address.
fn mined() -> (test_support::Bitcoind, Node, StratumClient, String) {
    let daemon = open_signet();
    let node = NodeBuilder::new(P2POOL, &daemon)
        .network(&network_file("scrypt.toml"))
        .address(Some(&own_address().to_string()))
        .start();
    let hear = listen(node.worker_port(), Duration::from_secs(2));
    let address = wpkh(1).to_string();
    // More than a share takes: lowered to that.
    let user = format!("{address}.rig+1");
    let mut miner = StratumClient::ready(node.worker_port(), &user);
    for _ in 0..SHARES {
        let job = miner.job();
        assert_eq!(miner.submit(&user, &solve(&job)), Ok(true));
        miner.wait_for_job(|next| next.clean && next.coinbase_start != job.coinbase_start);
    }
    let events = hear();
    let shares = events.get("share").map(Vec::as_slice).unwrap_or_default();
    let heard: Vec<f64> = shares.iter().filter_map(|share| share["difficulty"].as_f64()).collect();
    assert!(!heard.is_empty(), "{events:?}");
    heard.iter().for_each(|difficulty| check_close("an event's", *difficulty, miner.job().difficulty, 0.001));
    wait_until("all shares are shown", SHOWN_LIMIT, || {
        ask(&node, "/api/v1/summary")["pool"]["shares"] == SHARES
            && ask(&node, "/api/v1/workers")["workers"][0]["accepted"] == SHARES
            && !ask(&node, "/local_stats")["miner_last_difficulties"][&address].is_null()
    });
    (daemon, node, miner, address)
}

#[test]
fn scrypt_miners_see_their_own_unit_everywhere_and_the_original_json_stays_unscaled() {
    let (daemon, node, miner, address) = mined();
    let set = miner.job().difficulty;

    // What is set is what a share takes: 64 hashes, of which 2^16 are one unit.
    check_close("set_difficulty", set, 64.0 / SCALE, 0.001);
    // A difficulty in a user name is bdiff: 32 hashes.
    let wish = 32.0 * f64::powi(2.0, -32);
    let other = StratumClient::ready(node.worker_port(), &format!("{}.rig+{wish:e}", wpkh(2)));
    assert_eq!(other.job().difficulty, wish * SCALE);

    // The API, the metrics and the original JSON.
    let share = number(&node, "/api/v1/summary", "/pool/share_difficulty");
    let block = number(&node, "/api/v1/summary", "/block/difficulty");
    check_close("a share's difficulty", share, set, 0.001);
    assert_eq!(ask(&node, "/api/v1/node")["difficulty_scale"], 65_536);
    assert_eq!(number(&node, "/difficulty", "") * SCALE, share);
    assert_eq!(number(&node, "/global_stats", "/min_difficulty") * SCALE, share);
    assert_eq!(number(&node, "/global_stats", "/network_block_difficulty"), block);
    let daemons = daemon.call("getdifficulty", serde_json::json!([])).as_f64().expect("a number");
    check_close("the block's difficulty", block, daemons, 1e-9);
    let last = number(&node, "/local_stats", &format!("/miner_last_difficulties/{address}"));
    let path = format!("/api/v1/addresses/{address}");
    assert_eq!(number(&node, &path, "/share_difficulty"), share.max(last * SCALE));
    let metrics = node.metrics();
    let metric = |name: &str| metric_value(&metrics, name).unwrap_or_else(|| panic!("no {name} in:\n{metrics}"));
    check_close("the metric of a share", metric("figures_share_difficulty "), share, 1e-9);
    check_close("the metric of a block", metric("figures_block_difficulty "), block, 1e-9);

    // Workers, connections and shares.
    check_close("a worker's", number(&node, "/api/v1/workers", "/workers/0/difficulty"), set, 1e-9);
    let best = number(&node, "/api/v1/workers", "/workers/0/best_difficulty");
    assert!(best >= set, "the best of {SHARES} submissions at {set} was {best}");
    check_close("a connection's", number(&node, "/api/v1/connections", "/connections/0/difficulty"), set, 1e-9);
    assert_eq!(number(&node, "/api/v1/connections", "/connections/0/best_difficulty"), best);
    assert_eq!(number(&node, &path, "/best_difficulty"), best);
    let newest = &ask(&node, "/api/v1/shares")["shares"][0];
    check_close("a share's in the list", newest["difficulty"].as_f64().expect("a number"), set, 0.001);
    let hash = newest["hash"].as_str().expect("a hash").to_owned();
    let detail = format!("/api/v1/shares/{hash}");
    check_close("a share's own", number(&node, &detail, "/difficulty"), set, 0.001);
    check_close("what it needed", number(&node, &detail, "/min_difficulty"), set, 0.001);
    check_close("its block's", number(&node, &detail, "/block/difficulty"), daemons, 1e-9);

    // Hashes are hashes in any unit.
    let hashes = number(&node, "/api/v1/summary", "/local/hashes");
    check_close("the work done", hashes, f64::from(SHARES) * 64.0, 0.001);
    check_close("attempts_to_share", number(&node, "/local_stats", "/attempts_to_share"), 64.0, 0.001);

    // The console.
    let status: Value = serde_json::from_str(&console(&node, &["status", "--json"])).expect("JSON");
    assert_eq!(status["summary"]["pool"]["share_difficulty"], share);
    let top = console(&node, &["top", "--once"]);
    assert!(top.contains(&format!("difficulty {share:.2e}")) && top.contains(" bdiff"), "{top}");

    check_pages(&node, &hash, share, block);
}

/// Checks the pages that show a share's and a block's difficulty.
fn check_pages(node: &Node, hash: &str, share: f64, block: f64) {
    let mut browser = Browser::start();
    let port = node.worker_port();
    // Three digits, as the pages write what is below 0.01.
    let mut shown = |number: f64| {
        assert!(number < 0.01, "{number} is written in another way");
        browser.evaluate(&format!("({number:e}).toPrecision(3)")).as_str().expect("text").to_owned()
    };
    let (share, block) = (shown(share), shown(block));
    let detail = format!("/share/{hash}");
    for (path, text) in [
        ("/", format!("at difficulty {share}")),
        ("/", format!("at difficulty {block} (bdiff)")),
        ("/sharechain", share.clone()),
        (detail.as_str(), format!("{block} (bdiff)")),
        (detail.as_str(), format!("(at least {share})")),
    ] {
        browser.open(&format!("http://127.0.0.1:{port}{path}"));
        browser.wait_for(&text, &format!("document.body.innerText.includes({})", serde_json::json!(text)));
    }
    assert_eq!(browser.complaints(), &[] as &[String]);
}
