//! JSON of the original P2Pool: every path, with the reference's fields and types, while miners mine; and third-party
//! pages made for it.

#![allow(clippy::unwrap_used, reason = "a test has no use for an answer that is not as it says")]
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use test_support::{NodeBuilder, wait_until};

use crate::P2POOL;
use crate::shares::{Pool, network_file, own_address, wpkh};

/// Time limit for statistics to be current: they are updated at most once a second, and every five seconds.
const SHOWN_LIMIT: Duration = Duration::from_secs(15);

/// Shares that the reference needs for statistics.
const HEIGHT_MIN: usize = 10;

/// Response of a path, parsed as JSON.
fn ask(pool: &Pool, path: &str) -> Value {
    let response = pool.node.get(path);
    assert_eq!(response.status, 200, "{path}: {}", response.body);
    let headers = response.headers.to_ascii_lowercase();
    assert!(headers.contains("access-control-allow-origin: *"), "{path}: {headers}");
    assert!(headers.contains("content-type: application/json"), "{path}: {headers}");
    serde_json::from_str(&response.body).unwrap_or_else(|error| panic!("{path}: {error}: {}", response.body))
}

fn number(pool: &Pool, path: &str) -> f64 {
    ask(pool, path).as_f64().unwrap_or_else(|| panic!("{path} is no number"))
}

fn object(pool: &Pool, path: &str) -> Map<String, Value> {
    ask(pool, path).as_object().unwrap_or_else(|| panic!("{path} is no object")).clone()
}

fn texts(pool: &Pool, path: &str) -> Vec<String> {
    serde_json::from_value(ask(pool, path)).unwrap_or_else(|_| panic!("{path} is no list of texts"))
}

/// Pool whose chain has a few more shares than statistics need, by two miners with their own addresses.
fn mined(args: &[&str]) -> (Pool, Vec<String>) {
    let pool = Pool::start(args);
    let mut miners = [pool.miner(&wpkh(1), ""), pool.miner(&wpkh(2), "")];
    let mut shares = Vec::new();
    for round in 0..HEIGHT_MIN + 4 {
        let old = miners[(round + 1) % 2].client.job();
        shares.push(miners[round % 2].mine_share().to_string());
        // The other miner gets it as well.
        miners[(round + 1) % 2].wait_for_change(&old);
    }
    pool.wait_for_height(shares.len());
    wait_until("the figures have every share", SHOWN_LIMIT, || {
        pool.node.get("/web/best_share_hash").body.trim_matches('"') == shares[shares.len() - 1]
    });
    wait_until("the figures have both miners", SHOWN_LIMIT, || {
        let local = ask(&pool, "/local_stats");
        let rates = local["miner_hash_rates"].as_object();
        rates.is_some_and(|rates| {
            [1, 2].iter().all(|who| rates.keys().any(|name| name.starts_with(&wpkh(*who).to_string())))
        })
    });
    (pool, shares)
}

/// JSON type of a value, down to the fields of objects with fixed ones.
fn shape(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(_) => "bool".into(),
        Value::Number(_) => "number".into(),
        Value::String(_) => "text".into(),
        Value::Array(_) => "list".into(),
        Value::Object(_) => "object".into(),
    }
}

/// Checks that `ours` has the fields of the reference's response, each of the same type; null matches any.
fn check_like(path: &str, ours: &Value, recorded: &str) {
    let theirs: Value = serde_json::from_str(recorded).expect("the recorded answer is JSON");
    let (ours, theirs) = (ours.as_object().expect("an object"), theirs.as_object().expect("an object"));
    let names = |fields: &Map<String, Value>| fields.keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(names(ours), names(theirs), "{path}");
    for (name, theirs) in theirs {
        let (ours, theirs) = (shape(&ours[name]), shape(theirs));
        assert!(ours == theirs || ours == "null" || theirs == "null", "{path}: {name} is {ours}, there {theirs}");
    }
}

#[test]
fn every_old_path_answers_with_the_fields_and_types_that_the_reference_had() {
    let (pool, shares) = mined(&["--fee", "1.5", "--give-author", "2"]);
    let (first, best) = (&shares[0], shares.last().unwrap());
    let [one, two] = [wpkh(1).to_string(), wpkh(2).to_string()];

    assert!(number(&pool, "/rate") > 0.0);
    assert!(number(&pool, "/difficulty") > 0.0);
    assert!((number(&pool, "/fee") - 1.5).abs() < 1e-12);
    assert!(number(&pool, "/uptime") > 0.0);
    let users = object(&pool, "/users");
    let sum: f64 = users.values().map(|part| part.as_f64().unwrap()).sum();
    // Two hundredths of the weight are donated.
    assert!((sum - 0.98).abs() < 0.001, "{users:?}");
    assert!(users.contains_key(&one) && users.contains_key(&two), "{users:?}");
    let stales = object(&pool, "/user_stales");
    assert_eq!(stales[&one].as_f64(), Some(0.0), "{stales:?}");
    let payouts = object(&pool, "/current_payouts");
    let sum: f64 = payouts.values().map(|coins| coins.as_f64().unwrap()).sum();
    let local = ask(&pool, "/local_stats");
    assert!((sum - local["block_value"].as_f64().unwrap()).abs() < 1e-6, "{payouts:?}");
    check_like("/local_stats", &local, include_str!("../vectors/http/local_stats.txt"));
    assert_eq!(local["shares"]["total"], shares.len());
    assert_eq!(local["fee"], 1.5);
    assert_eq!(local["donation_proportion"], 0.02);
    assert!(local["attempts_to_block"].as_u64().unwrap() > local["attempts_to_share"].as_u64().unwrap());
    assert_eq!(local["my_share_counts_in_last_hour"]["unstale_shares"], shares.len());
    assert!(local["miner_hash_rates"].as_object().unwrap().keys().any(|name| name.starts_with(&one)), "{local}");
    assert!(local["miner_last_difficulties"][&one].as_f64().unwrap() > 0.0, "{local}");
    let global = ask(&pool, "/global_stats");
    check_like("/global_stats", &global, include_str!("../vectors/http/global_stats.txt"));
    assert_eq!(global["pool_stale_prop"], 0.0);

    let total = pool.node.get("/patron_sendmany/10");
    assert!(total.headers.to_ascii_lowercase().contains("content-type: text/plain"), "{total:?}");
    let given: Map<String, Value> = serde_json::from_str(&total.body).expect("JSON");
    assert!((given.values().map(|coins| coins.as_f64().unwrap()).sum::<f64>() - 10.0).abs() < 1e-7, "{given:?}");
    assert!(pool.node.get("/patron_sendmany").body.contains("need total"));
    let lot: Map<String, Value> = serde_json::from_str(&pool.node.get("/patron_sendmany/10/100").body).expect("JSON");
    assert_eq!(lot.len(), 1, "all of them are below a hundred coins, so one gets everything: {lot:?}");

    assert_eq!(ask(&pool, "/peer_addresses"), "");
    for path in ["/peer_versions", "/pings", "/peer_txpool_sizes"] {
        assert!(object(&pool, path).is_empty(), "{path}");
    }
    assert_eq!(ask(&pool, "/payout_addr"), own_address().to_string());
    assert_eq!(texts(&pool, "/payout_addrs"), [own_address().to_string()]);
    assert_eq!(ask(&pool, "/recent_blocks"), Value::Array(Vec::new()), "no share of these was a block");
    let rates = ask(&pool, "/stale_rates");
    check_like("/stale_rates", &rates, include_str!("../vectors/http/stale_rates.txt"));

    assert_eq!(texts(&pool, "/web/heads"), std::slice::from_ref(best));
    assert_eq!(texts(&pool, "/web/verified_heads"), std::slice::from_ref(best));
    assert_eq!(texts(&pool, "/web/tails"), std::slice::from_ref(first));
    assert_eq!(texts(&pool, "/web/verified_tails"), std::slice::from_ref(first));
    let own: BTreeSet<String> = texts(&pool, "/web/my_share_hashes").into_iter().collect();
    assert_eq!(own, shares.iter().cloned().collect());
    assert_eq!(texts(&pool, "/web/my_share_hashes50").len(), shares.len());
    assert_eq!(texts(&pool, "/web/verified").len(), shares.len());
    assert_eq!(ask(&pool, "/web/best_share"), **best);
    let tree = object(&pool, "/web/tree");
    assert_eq!((&tree[best], &tree[first]), (&Value::from(shares[shares.len() - 2].clone()), &Value::Null));
    let info = ask(&pool, "/web/currency_info");
    check_like("/web/currency_info", &info, include_str!("../vectors/http/web_currency_info.txt"));
    assert_eq!(ask(&pool, "/web/version"), env!("CARGO_PKG_VERSION"));
    wait_until("something is noted in the log", SHOWN_LIMIT, || ask(&pool, "/web/log") != Value::Array(Vec::new()));
    let noted = &ask(&pool, "/web/log")[0];
    assert_eq!(noted["stale_shares_breakdown"], serde_json::json!({"orphan": 0, "doa": 0}));
    assert!(noted["attempts_to_block"].as_f64().unwrap() > 0.0, "{noted}");

    let mut share = ask(&pool, &format!("/web/share/{best}"));
    // Later than the recorded node.
    assert_eq!(share.as_object_mut().unwrap().remove("version"), Some(35.into()));
    check_like("/web/share", &share, include_str!("../vectors/http/web_share.txt"));
    assert_eq!(share["parent"], shares[shares.len() - 2]);
    assert_eq!(share["local"]["verified"], true);
    let raw = hex::decode(share["block"]["gentx"]["raw"].as_str().unwrap()).expect("the coinbase was made again");
    let coinbase: bitcoin::Transaction = bitcoin::consensus::deserialize(&raw).expect("a transaction");
    assert_eq!(coinbase.compute_txid().to_string(), share["block"]["gentx"]["hash"]);
    assert_eq!(ask(&pool, &format!("/web/share/{first}"))["parent"], "None");
    assert_eq!(ask(&pool, &format!("/web/share/{first}"))["children"], serde_json::json!([shares[1]]));
    assert_eq!(ask(&pool, &format!("/web/share/{:064x}", 1)), Value::Null);
    assert!([one, two].iter().any(|payee| ask(&pool, &format!("/web/payout_address/{best}")) == **payee));
    let data = pool.node.get(&format!("/web/share_data/{best}"));
    assert!(data.headers.to_ascii_lowercase().contains("content-type: application/octet-stream"), "{}", data.headers);
    assert!(data.body.len() > 200);
}

#[test]
fn what_dashboards_of_version_36_read_is_answered_on_a_network_without_it() {
    let (pool, shares) = mined(&[]);
    let one = wpkh(1).to_string();
    let signaling = object(&pool, "/version_signaling");
    assert_eq!((&signaling["status"], &signaling["auto_ratchet"]), (&"no_transition".into(), &Value::Null));
    assert_eq!((&signaling["current_share_type"], &signaling["chain_height"]), (&35.into(), &shares.len().into()));
    assert_eq!(signaling["share_types"]["35"]["count"], shares.len());
    for path in ["/v36_status", "/web/v36_status"] {
        let status = object(&pool, path);
        assert_eq!((&status["auto_ratchet"], &status["share_chain"]["v36_shares"]), (&Value::Null, &0.into()));
    }
    let info = object(&pool, "/node_info");
    assert_eq!((&info["network"], &info["external_ip"]), (&"easy".into(), &Value::Null));
    assert!(info["worker_port"].is_number() && info["p2p_port"].is_number() && info["symbol"].is_string(), "{info:?}");
    let miner = object(&pool, &format!("/miner_stats/{one}"));
    assert_eq!((&miner["active"], &miner["address"]), (&true.into(), &one.clone().into()));
    assert!(miner["hashrate"].as_f64().unwrap() > 0.0 && miner["total_shares"].as_u64().unwrap() > 0, "{miner:?}");
    assert_eq!(object(&pool, "/miner_stats/nobody")["active"], false);
    let payouts = object(&pool, "/current_merged_payouts");
    assert!(payouts[&one]["amount"].as_f64().unwrap() > 0.0, "{payouts:?}");
    assert_eq!(payouts[&one]["merged"], Value::Array(Vec::new()));
    assert_eq!(object(&pool, "/merged_stats")["total_blocks"], 0);
    for path in ["/recent_merged_blocks", "/all_merged_blocks", "/discovered_merged_blocks"] {
        assert_eq!(ask(&pool, path), Value::Array(Vec::new()), "{path}");
    }
}

#[test]
fn every_graph_has_its_bins_and_survives_a_restart() {
    let (mut pool, shares) = mined(&[]);
    let drawn = |pool: &Pool, source: &str, view: &str| -> Vec<(f64, Value, f64, Value)> {
        let path = format!("/web/graph_data/{source}/{view}");
        serde_json::from_value(ask(pool, &path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    };
    let sum = |value: &Value| match value {
        Value::Object(values) => values.values().filter_map(Value::as_f64).sum(),
        other => other.as_f64().unwrap_or_default(),
    };
    // All sources, by the reference's names, and those known to front ends of 2013.
    let filled = [
        "local_hash_rate",
        "local_share_hash_rates",
        "pool_rates",
        "current_payout",
        "current_payouts",
        "miner_hash_rates",
        "desired_version_rates",
        "getwork_latency",
        "memory_usage",
        "local_share_hash_rate",
    ];
    let empty = [
        "local_dead_hash_rate",
        "miner_dead_hash_rates",
        "peers",
        "traffic_rate",
        "incoming_peers",
        "outgoing_peers",
        "local_dead_share_hash_rate",
    ];
    for view in ["last_hour", "last_day", "last_week", "last_month", "last_year"] {
        for source in filled.iter().chain(&empty) {
            let bins = drawn(&pool, source, view);
            assert_eq!(bins.len(), if view == "last_hour" { 150 } else { 300 }, "{source}/{view}");
            assert!(bins.windows(2).all(|pair| pair[0].0 > pair[1].0), "{source}/{view}: the newest comes first");
        }
    }
    let total = |pool: &Pool, source: &str, view: &str| -> f64 {
        drawn(pool, source, view).iter().map(|(_, value, width, _)| sum(value) * width).sum()
    };
    for source in filled.iter().filter(|source| **source != "current_payout") {
        wait_until(&format!("there is something in {source}"), SHOWN_LIMIT, || total(&pool, source, "last_day") > 0.0);
    }
    // The node itself found nothing, and has no payout.
    wait_until("the payout is known", SHOWN_LIMIT, || {
        drawn(&pool, "current_payout", "last_hour").iter().any(|bin| bin.1 == 0.0)
    });
    let before = total(&pool, "local_share_hash_rates", "last_year");
    assert!(before > 0.0, "{} shares were found", shares.len());
    pool.node.terminate();
    assert!(pool.node.data_dir().join("easy").join("graph_db").is_file());
    pool.node.restart();
    wait_until("the graphs are there again", SHOWN_LIMIT, || {
        (total(&pool, "local_share_hash_rates", "last_year") / before - 1.0).abs() < 1e-9
    });
    assert_ne!(ask(&pool, "/web/log"), Value::Array(Vec::new()), "and the log of the last day");
}

#[test]
fn what_cannot_be_answered_is_an_error_as_it_was_and_nothing_else_breaks() {
    let pool = Pool::start(&[]);
    for path in [
        "/web/share/xyz",
        "/web/share_data/-1",
        "/web/payout_address/12",
        "/web/graph_data/pool_rates/last_century",
        "/web/graph_data/nothing/last_hour",
        "/patron_sendmany/much",
        "/patron_sendmany/1/x",
        "/web/best_share_hash",
        "/rate",
        "/difficulty",
        "/stale_rates",
    ] {
        let response = pool.node.get(path);
        assert_eq!((response.status, response.body.as_str()), (500, "---ERROR---"), "{path}");
        assert!(response.headers.to_ascii_lowercase().contains("access-control-allow-origin: *"), "{path}");
    }
    for path in ["/global_stats", "/local_stats"] {
        assert_eq!(ask(&pool, path), Value::Null, "{path}: there are no ten shares yet");
    }
    for path in ["/web/nothing", "/web", "/web/share", "/web/%00", "/%2e%2e/%2e%2e/etc/passwd"] {
        assert_eq!(pool.node.get(path).status, 404, "{path}");
    }
}

#[test]
fn somebodys_pages_are_served_and_nothing_beside_them() {
    let parent = tempfile::tempdir().expect("a folder");
    let dir = parent.path().join("pages");
    std::fs::create_dir_all(dir.join("js")).unwrap();
    std::fs::write(dir.join("index.html"), "<title>theirs</title>").unwrap();
    std::fs::write(dir.join("js/app.js"), "fetch('/rate')").unwrap();
    std::fs::write(parent.path().join("secret"), "secret").unwrap();
    let pool = Pool::start(&["--web-static", dir.to_str().unwrap()]);
    let root = pool.node.get("/");
    assert!((300..400).contains(&root.status) && root.headers.to_ascii_lowercase().contains("location: /static/"));
    assert!(pool.node.get("/static/").body.contains("theirs"));
    let script = pool.node.get("/static/js/app.js");
    assert_eq!(script.body, "fetch('/rate')");
    assert!(script.headers.to_ascii_lowercase().contains("cache-control: no-cache"), "{}", script.headers);
    assert!(script.headers.to_ascii_lowercase().contains("content-type: text/javascript"), "{}", script.headers);
    for path in [
        "/static/../secret",
        "/static/%2e%2e/secret",
        "/static/..%2fsecret",
        "/static/js/../../secret",
        "/static//etc/passwd",
        "/static/%2fetc%2fpasswd",
        "/static/%00",
        "/static/js/..%5c..%5csecret",
    ] {
        let response = pool.node.get(path);
        assert!(response.status >= 400 && !response.body.contains("secret"), "{path}: {response:?}");
    }
    // The JSON is where their scripts request it.
    assert_eq!(ask(&pool, "/global_stats"), Value::Null);
}

#[test]
fn without_pages_of_somebody_else_the_old_place_leads_to_ours() {
    let pool = Pool::start(&[]);
    for path in ["/static", "/static/", "/static/index.html"] {
        let response = pool.node.get(path);
        assert!((300..400).contains(&response.status), "{path}: {response:?}");
        assert!(response.headers.to_ascii_lowercase().contains("location: /\r"), "{path}: {}", response.headers);
    }
}

#[test]
fn what_peers_are_like_is_told_as_it_was() {
    let pool = Pool::start(&[]);
    let other = NodeBuilder::new(P2POOL, &pool.daemon)
        .network(&network_file("easy.toml"))
        .address(Some(&own_address().to_string()))
        .peer(pool.node.pool_address())
        .start();
    wait_until("the peer is shown", SHOWN_LIMIT, || ask(&pool, "/peer_addresses") != "");
    let theirs = ask(&pool, "/peer_addresses");
    let theirs = theirs.as_str().unwrap();
    assert!(theirs.starts_with("127.0.0.1:"), "{theirs}");
    let version = &object(&pool, "/peer_versions")[theirs];
    assert!(version.as_str().unwrap().starts_with("p2pool-rs/"), "{version}");
    assert_eq!(object(&pool, "/peer_txpool_sizes")[theirs], 0, "shares of today list no transactions");
    let milliseconds = object(&pool, "/pings")[theirs].as_f64().expect("it answers");
    assert!((0.0..3000.0).contains(&milliseconds), "{milliseconds}");
    let get = |path: &str| -> Value { serde_json::from_str(&other.get(path).body).unwrap() };
    wait_until("the other one shows it too", SHOWN_LIMIT, || get("/peer_addresses") != "");
    assert_eq!(get("/peer_addresses"), pool.node.pool_address().to_string());
    wait_until("what they sent is drawn", SHOWN_LIMIT, || {
        let bins = get("/web/graph_data/traffic_rate/last_hour");
        bins.as_array().unwrap().iter().any(|bin| bin[1]["p2p/in"].as_f64().unwrap_or_default() > 0.0)
    });
}

#[test]
fn a_found_block_is_among_the_recent_ones() {
    let (pool, _) = mined(&[]);
    let mut miner = pool.miner(&wpkh(3), "");
    let job = miner.client.job();
    let solved = job.solve_block();
    assert_eq!(miner.client.submit(&miner.user, &solved), Ok(true));
    crate::wait_for_best(&pool.daemon, solved.hash);
    wait_until("it is shown", SHOWN_LIMIT, || ask(&pool, "/recent_blocks") != Value::Array(Vec::new()));
    let blocks = ask(&pool, "/recent_blocks");
    let theirs: Value = serde_json::from_str(include_str!("../vectors/http/recent_blocks.txt")).unwrap();
    check_like("/recent_blocks", &blocks[0], &theirs[0].to_string());
    assert_eq!(blocks[0]["hash"], solved.hash.to_string());
    assert_eq!(blocks[0]["share"], solved.hash.to_string());
    assert_eq!(blocks[0]["number"], 1);
}

#[test]
fn every_path_answers_at_all_times_while_miners_mine() {
    let pool = Pool::start(&[]);
    let mut miner = pool.miner(&wpkh(1), "");
    for _ in 0..3 {
        miner.mine_share();
    }
    wait_until("there are figures", SHOWN_LIMIT, || pool.node.get("/web/best_share_hash").status == 200);
    let over = AtomicBool::new(false);
    /// Sets the flag, also when the test fails: otherwise its miner would never end.
    struct AtEnd<'a>(&'a AtomicBool);
    impl Drop for AtEnd<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let (asked, found) = std::thread::scope(|scope| {
        let mining = scope.spawn(|| {
            let mut found = 0;
            // No more, since each makes the next one harder to find.
            while !over.load(Ordering::Relaxed) && found < 12 {
                miner.mine_share();
                found += 1;
                std::thread::sleep(Duration::from_millis(200));
            }
            found
        });
        let at_end = AtEnd(&over);
        let started = Instant::now();
        let mut asked = 0;
        while started.elapsed() < Duration::from_secs(4) {
            let best: String = serde_json::from_value(ask(&pool, "/web/best_share_hash")).unwrap();
            let of_share = ["share", "payout_address"].map(|path| format!("/web/{path}/{best}"));
            let fixed = [
                "/rate",
                "/difficulty",
                "/users",
                "/user_stales",
                "/fee",
                "/current_payouts",
                "/global_stats",
                "/local_stats",
                "/peer_addresses",
                "/peer_txpool_sizes",
                "/pings",
                "/peer_versions",
                "/payout_addr",
                "/payout_addrs",
                "/recent_blocks",
                "/uptime",
                "/stale_rates",
                "/web/log",
                "/web/heads",
                "/web/verified_heads",
                "/web/tails",
                "/web/verified_tails",
                "/web/tree",
                "/web/verified",
                "/web/best_share",
                "/web/my_share_hashes",
                "/web/my_share_hashes50",
                "/web/currency_info",
                "/web/version",
                "/web/graph_data/pool_rates/last_hour",
                "/web/graph_data/miner_hash_rates/last_day",
            ];
            for path in fixed.into_iter().chain(of_share.iter().map(String::as_str)) {
                ask(&pool, path);
                asked += 1;
            }
        }
        drop(at_end);
        (asked, mining.join().expect("the miner mines"))
    });
    println!("{asked} answers while {found} shares were found");
    assert!(found >= 5 && asked >= 30, "{asked} answers, {found} shares");
    assert_eq!(pool.metric("sharechain_own_shares_total{kind=\"late\"}"), 0.0);
}
