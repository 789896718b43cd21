//! Operator tools around a node: doctor, top, announcements, log, import from an old node.

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::mpsc;
use std::time::Duration;
use test_support::{Bitcoind, Node, NodeBuilder, StratumClient, free_port, payout_address, wait_until};

use crate::{P2POOL, mine_one, miner_name};

const SOON: Duration = Duration::from_secs(20);

/// Runs a subcommand with the data directory `datadir`.
fn run(datadir: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(P2POOL);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("P2POOL_") {
            command.env_remove(name);
        }
    }
    command.env("HOME", datadir);
    command.args(arguments).args(["--net", "bitcoin_regtest", "--datadir"]).arg(datadir);
    command.output().expect("the program can be run")
}

fn told(datadir: &Path, arguments: &[&str]) -> String {
    let output = run(datadir, arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).expect("text")
}

/// Output of the doctor for a node with these ports, and whether all checks passed.
fn doctor(datadir: &Path, rpc_port: u16, password: &str, ports: (u16, u16)) -> (bool, String) {
    let (rpc_port, worker, pool) =
        (rpc_port.to_string(), format!("127.0.0.1:{}", ports.0), format!("127.0.0.1:{}", ports.1));
    let address = payout_address(1).to_string();
    let mut arguments = vec!["doctor", "-w", &worker, "--p2pool-port", &pool, "--bitcoind-rpc-port", &rpc_port];
    arguments.extend(["-a", &address, "user", password]);
    let output = run(datadir, &arguments);
    (output.status.success(), String::from_utf8(output.stdout).expect("text"))
}

#[test]
fn the_doctor_says_of_each_thing_that_it_is_fine_or_what_to_do() {
    let daemon = Bitcoind::start();
    let (user, password) = daemon.credentials();
    assert!(!user.is_empty());
    let folder = tempfile::tempdir().expect("a folder");
    let (worker, pool, p2p) = (free_port().to_string(), free_port().to_string(), daemon.p2p_port().to_string());
    let (rpc, address) = (daemon.rpc_port().to_string(), payout_address(1).to_string());
    let (worker, pool) = (format!("127.0.0.1:{worker}"), format!("127.0.0.1:{pool}"));
    let mut arguments = vec!["doctor", "-w", &worker, "--p2pool-port", &pool, "--bitcoind-rpc-port", &rpc];
    arguments.extend(["--bitcoind-p2p-port", &p2p, "-a", &address]);
    let healthy = [&arguments[..], &[&user, &password]].concat();
    let text = told(folder.path(), &healthy);
    for part in [
        "ok       bitcoind RPC",
        "ok       bitcoind P2P",
        "ok       chain",
        "ok       clock",
        "ok       coinbase room",
        "ok       data directory",
        "ok       worker port",
        "ok       p2pool port",
        "open files",
        "disk",
        &address,
    ] {
        assert!(text.contains(part), "{part} is missing in:\n{text}");
    }
    assert!(!folder.path().join("bitcoin_regtest").exists(), "it changes nothing");
    let json: Value = serde_json::from_str(&told(folder.path(), &[&healthy[..], &["--json"]].concat())).expect("JSON");
    assert_eq!(json["ok"], true);
    assert!(json["checks"].as_array().is_some_and(|checks| checks.len() > 10), "{json}");

    // Wrong password, port in use, no daemon.
    let (is_content, text) = doctor(folder.path(), daemon.rpc_port(), "wrong", (free_port(), free_port()));
    assert!(!is_content && text.contains("BAD      bitcoind RPC") && text.contains("P2POOL_RPC_PASSWORD"), "{text}");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("bound").port();
    let (is_content, text) = doctor(folder.path(), free_port(), "x", (port, free_port()));
    assert!(!is_content && text.contains("BAD      worker port") && text.contains("choose another port"), "{text}");
    assert!(text.contains("start bitcoind"), "{text}");
}

#[test]
fn a_running_node_is_shown_on_one_page_with_its_payouts_and_blocks() {
    let daemon = Bitcoind::start();
    let node = Node::start(P2POOL, &daemon);
    let user = miner_name(1);
    let mut miner = StratumClient::ready(node.worker_port(), &user);
    let datadir = node.data_dir();
    assert_eq!(told(datadir, &["blocks"]), "no block has been found yet\n");
    assert!(told(datadir, &["merged"]).starts_with("no merged chain is configured"));
    let hashes: Vec<String> = (0..3)
        .map(|_| mine_one(&mut miner, &user, &daemon, &node, &payout_address(1)).block_hash().to_string())
        .collect();
    wait_until("every block is listed", SOON, || {
        let text = told(datadir, &["blocks"]);
        hashes.iter().all(|hash| text.contains(hash)) && text.contains(" of 100")
    });
    let blocks: Value = serde_json::from_str(&told(datadir, &["blocks", "--json"])).expect("JSON");
    assert_eq!(blocks["blocks"].as_array().map(Vec::len), Some(3));
    wait_until("the payouts know the miner", SOON, || {
        told(datadir, &["payouts"]).contains(&payout_address(1).to_string())
    });
    let payouts: Value = serde_json::from_str(&told(datadir, &["payouts", "--json"])).expect("JSON");
    let paid: u64 =
        payouts["payouts"].as_array().expect("a list").iter().filter_map(|one| one["amount"].as_u64()).sum();
    assert!(paid > 0 && paid <= payouts["block_value"].as_u64().expect("a number"), "{payouts}");

    // Hash rates are updated once a second.
    wait_until("the miner's work is counted", SOON, || told(datadir, &["top", "--once"]).contains("Miners: 1 active"));
    let page = told(datadir, &["top", "--once"]);
    for part in
        ["bitcoin_regtest", "Pool", "This node", "Next block", "Miners: 1 active", "Blocks found", "block found"]
    {
        assert!(page.contains(part), "{part} is missing in:\n{page}");
    }
    let json: Value = serde_json::from_str(&told(datadir, &["top", "--json"])).expect("JSON");
    assert!(json["summary"]["local"]["hash_rate"].as_f64().is_some_and(|rate| rate > 0.0), "{json}");
    assert_eq!(json["blocks"]["blocks"].as_array().map(Vec::len), Some(3));
    let status = told(datadir, &["status"]);
    assert!(status.contains("3 of ours") && status.contains("3 found"), "{status}");
}

/// Web server that accepts any POST request.
fn collector() -> (u16, mpsc::Receiver<Value>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let (sender, received) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { return };
            let mut reader = BufReader::new(stream);
            let mut length = 0;
            let mut line = String::new();
            while reader.read_line(&mut line).is_ok_and(|count| count > 2) {
                if let Some(text) = line.to_lowercase().strip_prefix("content-length:") {
                    length = text.trim().parse().expect("a number");
                }
                line.clear();
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).expect("the whole body");
            reader.get_mut().write_all(b"HTTP/1.1 204 Taken\r\nConnection: close\r\n\r\n").expect("it listens");
            if sender.send(serde_json::from_slice(&body).expect("JSON")).is_err() {
                return;
            }
        }
    });
    (port, received)
}

#[test]
fn a_command_and_a_web_address_are_told_of_a_block_from_its_finding_to_its_loss() {
    let daemon = Bitcoind::start();
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("told");
    let hook = format!(
        "echo \"$P2POOL_BLOCK_EVENT $P2POOL_BLOCK_HASH ${{P2POOL_RPC_PASSWORD:-unset}}\" >> {}",
        file.display()
    );
    let (port, received) = collector();
    let url = format!("http://127.0.0.1:{port}/hook");
    let (user, password) = daemon.credentials();
    let node = NodeBuilder::new(P2POOL, &daemon)
        .credentials(None)
        .env("P2POOL_RPC_USER", &user)
        .env("P2POOL_RPC_PASSWORD", &password)
        .args(&["--announce-hook", &hook, "--announce-webhook", &url, "--no-bugreport"])
        .start();
    let name = miner_name(1);
    let mut miner = StratumClient::ready(node.worker_port(), &name);
    let hash = mine_one(&mut miner, &name, &daemon, &node, &payout_address(1)).block_hash().to_string();
    let lines = || fs::read_to_string(&file).unwrap_or_default();
    wait_until("the hook was told", SOON, || lines().contains(&format!("accepted {hash} unset")));
    assert!(lines().starts_with(&format!("found {hash} unset")), "{}", lines());
    let events: Vec<Value> = (0..2).map(|_| received.recv_timeout(SOON).expect("the webhook was told")).collect();
    assert_eq!((&events[0]["event"], &events[1]["event"]), (&"found".into(), &"accepted".into()));
    assert_eq!((&events[1]["hash"], &events[1]["network"]), (&hash.clone().into(), &"bitcoin_regtest".into()));
    daemon.call("invalidateblock", serde_json::json!([hash]));
    test_support::mine_blocks(&daemon, 2, &payout_address(9).script_pubkey());
    wait_until("the hook is told of the loss", SOON, || lines().contains(&format!("orphaned {hash}")));
    assert_eq!(received.recv_timeout(SOON).expect("the webhook is told")["event"], "orphaned");
}

#[test]
fn the_log_goes_on_in_a_new_file_by_signal_and_by_size() {
    let daemon = Bitcoind::start();
    let mut node =
        NodeBuilder::new(P2POOL, &daemon).args(&["--debug", "--log-size", "0.02", "--log-files", "2"]).start();
    let folder = node.data_dir().join("bitcoin_regtest");
    let log = folder.join("log");
    let pid = Pid::from_raw(i32::try_from(node.pid()).expect("small")).expect("not 0");
    for (signal, name) in [(Signal::USR1, "by-usr1"), (Signal::HUP, "by-hup")] {
        let moved = folder.join(name);
        fs::rename(&log, &moved).expect("there is a log");
        kill_process(pid, signal).expect("our own child");
        wait_until("there is a new log", SOON, || {
            fs::read_to_string(&log).is_ok_and(|text| text.contains("the log goes on in a new file"))
        });
        assert!(node.is_running() && moved.exists());
    }
    let user = miner_name(1);
    let mut miner = StratumClient::ready(node.worker_port(), &user);
    let full = folder.join("log.1");
    for _ in 0..40 {
        if full.exists() {
            break;
        }
        mine_one(&mut miner, &user, &daemon, &node, &payout_address(1));
    }
    let size = fs::metadata(&full).expect("a full log").len();
    assert!(size <= 20_000, "{size}");
}

#[test]
fn what_an_old_node_had_is_taken_over_and_its_address_is_paid() {
    let daemon = Bitcoind::start();
    let old = tempfile::tempdir().expect("a folder");
    let address = payout_address(7);
    fs::write(old.path().join("cached_payout_address"), address.to_string()).expect("written");
    fs::write(old.path().join("addrs"), "[[[\"192.0.2.1\", 9333], [0, 1500000000, 1600000000]]]").expect("written");
    let new = tempfile::Builder::new().prefix("p2pool-node-").tempdir().expect("a folder");
    let from = old.path().display().to_string();
    let text = told(new.path(), &["import", &from]);
    assert!(text.contains("1 imported, 1 in all") && text.contains(&address.to_string()), "{text}");
    let node = NodeBuilder::new(P2POOL, &daemon).address(None).spawn_in(new);
    node.wait_ready();
    assert!(node.wait_for_log("imported from an old node", SOON).contains(&address.to_string()));
    let mut miner = StratumClient::ready(node.worker_port(), "garage+0.00001");
    mine_one(&mut miner, "garage+0.00001", &daemon, &node, &address);
    let output = run(node.data_dir(), &["import", &from]);
    let error = String::from_utf8(output.stderr).expect("text");
    assert!(!output.status.success() && error.contains("stop it first"), "{error}");
}
