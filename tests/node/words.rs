//! What strangers say, as the operator sees it: in the log, on the terminal, in JSON that other pages show as it is.

use serde_json::{Value, json};
use std::time::Duration;
use test_support::{StratumClient, wait_until};

use crate::P2POOL;
use crate::shares::{Pool, wpkh};

const SOON: Duration = Duration::from_secs(20);

/// Forged log line, escape code, override of direction and markup. It has no character that separates parts of a name.
const ATTACK: &str = "x\n2026-01-01T00:00:00Z ERROR forged\u{1b}[31m\u{202e}<img src=x onerror=\"a('&')\">";

/// The same as a stored name.
const STORED: &str = r"x\n2026-01-01T00:00:00Z ERROR forged\u{1b}[31m\u{202e}\u{3c}img src=x onerror=\u{22}a(\u{27}\u{26}\u{27})\u{22}\u{3e}";

/// Checks that a text has neither escape codes nor invisible characters, nor lines that begin as the attacker wanted.
fn check_harmless(what: &str, text: &str) {
    let lines = text.lines().find(|line| line.starts_with("2026-01-01") || line.contains(['\u{1b}', '\u{202e}']));
    assert_eq!(lines, None, "{what}");
}

/// Collects all texts in `value`, keys included.
fn texts(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::String(text) => found.push(text.clone()),
        Value::Array(list) => list.iter().for_each(|one| texts(one, found)),
        Value::Object(map) => map.iter().for_each(|(key, one)| {
            found.push(key.clone());
            texts(one, found);
        }),
        _ => {}
    }
}

#[test]
fn names_user_agents_and_methods_reach_log_terminal_and_json_without_markup_and_escape_codes() {
    let pool = Pool::start(&["--debug"]);
    let mut honest = pool.miner(&wpkh(1), "");
    for _ in 0..11 {
        honest.mine_share();
    }
    let user = format!("{}.{ATTACK}", wpkh(2));
    let mut stranger = StratumClient::connect(pool.node.worker_port());
    stranger.request("mining.subscribe", json!([ATTACK])).expect("subscribing needs nothing");
    drop(stranger);
    let mut stranger = StratumClient::connect(pool.node.worker_port());
    assert!(
        stranger.request(ATTACK, json!([])).is_err() && stranger.request("mining.submit", json!([ATTACK])).is_err()
    );
    stranger.subscribe().expect("subscribing needs nothing");
    assert_eq!(stranger.authorize(&user, "x"), Ok(true));
    stranger.wait_for_job(|_| true);
    let found = stranger.job().solve();
    assert_eq!(stranger.submit(&user, &found), Ok(true));
    let stored = format!("{}.{STORED}", wpkh(2));
    wait_until("its rate is shown", SOON, || {
        let local: Value = serde_json::from_str(&pool.node.get("/local_stats").body).unwrap_or_default();
        local["miner_hash_rates"][&stored].as_f64().is_some()
    });
    for path in [
        "/local_stats",
        "/peer_versions",
        "/web/graph_data/miner_hash_rates/last_hour",
        "/api/v1/workers",
        "/api/v1/connections",
        "/api/v1/summary",
        "/health",
        "/recent_blocks",
    ] {
        let answer = pool.node.get(path);
        let mut all = Vec::new();
        texts(&serde_json::from_str(&answer.body).unwrap_or_else(|error| panic!("{path}: {error}")), &mut all);
        for text in all {
            assert!(!text.contains(['<', '>', '"']) && !text.contains("&'"), "{path}: {text:?}");
            check_harmless(path, &text);
        }
    }
    check_harmless("/metrics", &pool.node.metrics());
    let text = pool.node.get_text(&format!("/address/{}", wpkh(2))).body;
    check_harmless("text", &text);
    assert!(text.contains(&stored), "the same name as in JSON: {text}");
    drop(stranger);
    let (method, name) = (r"method `x\n2026-01-01T00:00:00Z ERROR forged…` not found", r"\u{3c}img src=x");
    pool.node.wait_for_log(method, SOON);
    pool.node.wait_for_log(name, SOON);
    let path = pool.node.data_dir().join(pool.network.name).join("log");
    let read = || std::fs::read_to_string(&path).expect("there is a log");
    wait_until("the file has both", SOON, || read().contains(method) && read().contains(name));
    let file = read();
    for (what, text) in [("terminal", pool.node.log()), ("file", file)] {
        check_harmless(what, &text);
        assert!(text.contains(method) && text.contains(name), "{text}");
    }
    for command in [&["top", "--once"][..], &["blocks"], &["peers"], &["status"]] {
        let output = std::process::Command::new(P2POOL)
            .args(command)
            .args(["--net", &crate::shares::network_file("easy.toml"), "--datadir"])
            .arg(pool.node.data_dir())
            .output()
            .expect("the program runs");
        assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
        check_harmless("console", &String::from_utf8_lossy(&output.stdout));
    }
}
