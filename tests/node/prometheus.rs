//! Real Prometheus on nodes under load: evaluates the metrics, every panel of the boards and every alert rule.

use p2pool::embedded::auxiliary::{Config, Daemon};
use p2pool::runtime::tasks::Tasks;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use test_support::{
    Bitcoind, Node, NodeBuilder, StratumClient, free_port, get, metric_value, payout_address, wait_until,
};

use crate::{P2POOL, job_on_tip, miner_name, wait_for_best};

/// Duration of the load: several times the window of rates.
const LOAD: Duration = Duration::from_secs(25);

/// Replacement of Grafana's `$__rate_interval` at a scrape interval of one second.
const RATE_INTERVAL: &str = "15s";

/// Queries that may be empty on a healthy node, with the reason.
const MAY_BE_EMPTY: [(&str, &str); 5] = [
    ("bitcoind_rpc_failures_total", "no call has failed"),
    ("/ max(figures_network_hash_rate", "what mines on a private chain rounds to no hash a second"),
    ("stratum_pow_wait_seconds", "proof of work is cheap on this network"),
    ("merged_rpc_failures_total", "no call to a merged chain's daemon has failed"),
    ("p2pool_network_info{network!~", "these alerts leave private chains out, and this is one"),
];

/// File below `grafana/`.
fn grafana(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "grafana", name].iter().collect()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Runs a program of the Prometheus package, and returns its output if it succeeds.
fn run(program: &str, arguments: &[&str], input: &str) -> String {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}: tests/run.sh installs what the tests need"));
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("it reads its input");
    let output = child.wait_with_output().expect("our own child can be waited for");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
    said
}

/// Prometheus with the configuration of `grafana/`, scraping the test's nodes.
pub(crate) struct Prometheus {
    child: Child,
    port: u16,
    folder: TempDir,
}

impl Prometheus {
    /// Scrapes these worker ports every second. `arguments` are those of docker-compose.yml, with its paths.
    pub(crate) fn start(worker_ports: &[u16], arguments: &[&str]) -> Self {
        let folder = tempfile::Builder::new().prefix("p2pool-prometheus-").tempdir().expect("a temporary folder");
        let port = free_port();
        let targets: Vec<String> = worker_ports.iter().map(|port| format!("\"127.0.0.1:{port}\"")).collect();
        let config = read(&grafana("prometheus.yml"))
            .replace("\"p2pool:9332\"", &targets.join(", "))
            .replace("localhost:9090", &format!("127.0.0.1:{port}"))
            .replace("15s", "1s");
        fs::write(folder.path().join("prometheus.yml"), config).expect("the folder is ours");
        fs::copy(grafana("alerts.yml"), folder.path().join("alerts.yml")).expect("the folder is ours");
        let place = folder.path().to_str().expect("a path of text");
        run("promtool", &["check", "config", &format!("{place}/prometheus.yml")], "");
        let log = fs::File::create(folder.path().join("log")).expect("the folder is ours");
        let child = Command::new("prometheus")
            .args(arguments.iter().map(|argument| {
                argument
                    .replace("/etc/prometheus/", &format!("{place}/"))
                    .replace("=/prometheus", &format!("={place}/data"))
            }))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("prometheus is installed with promtool");
        let prometheus = Self { child, port, folder };
        wait_until("Prometheus is ready", Duration::from_secs(30), || {
            get(([127, 0, 0, 1], port).into(), "/-/ready").is_ok_and(|answer| answer.status == 200)
        });
        prometheus
    }

    fn ask(&self, path: &str) -> Value {
        let answer = get(([127, 0, 0, 1], self.port).into(), path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let body: Value = serde_json::from_str(&answer.body).unwrap_or_else(|error| panic!("{error}: {answer:?}"));
        assert_eq!(body["status"], "success", "{path}: {body}");
        body["data"].clone()
    }

    /// Current values of a query.
    fn query(&self, query: &str) -> Vec<f64> {
        let answer = self.ask(&format!("/api/v1/query?query={}", encoded(query)));
        let result = answer["result"].as_array().expect("a vector").clone();
        let value = |sample: &Value| sample["value"][1].as_str().and_then(|text| text.parse().ok());
        result.iter().map(|sample| value(sample).unwrap_or_else(|| panic!("{query}: {sample}"))).collect()
    }

    /// Number of healthy targets.
    pub(crate) fn targets_up(&self) -> usize {
        let targets = self.ask("/api/v1/targets")["activeTargets"].as_array().expect("a list").clone();
        targets.iter().filter(|target| target["labels"]["job"] == "p2pool" && target["health"] == "up").count()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // It may have exited already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            println!(
                "--- Prometheus said:\n{}",
                fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
            );
        }
    }
}

/// Escapes text for the query of a URL.
fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

/// Checks that panels have distinct ids, do not overlap, and are not wider than the board.
fn check_layout(title: &str, panels: &[Value]) {
    let place = |panel: &Value| ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().expect("a place"));
    for (index, panel) in panels.iter().enumerate() {
        let [x, y, w, h] = place(panel);
        assert!(x + w <= 24, "{title}: {} is too wide", panel["title"]);
        for other in &panels[..index] {
            let [left, top, width, height] = place(other);
            let is_apart = x >= left + width || left >= x + w || y >= top + height || top >= y + h;
            assert!(is_apart, "{title}: {} lies on {}", panel["title"], other["title"]);
            assert_ne!(panel["id"], other["id"], "{title}: {} and {}", panel["title"], other["title"]);
        }
    }
}

/// Checks that a board shows the nodes of one network: sums over several coins would mean nothing.
fn check_variables(title: &str, variables: &Value) {
    let variables = variables.as_array().expect("variables");
    let names: Vec<&str> = variables.iter().map(|variable| variable["name"].as_str().expect("a name")).collect();
    assert_eq!(names, ["source", "network", "instance"], "{title}");
    let [_, network, instance] = &variables[..] else { panic!("{title}: three variables") };
    assert_eq!([&network["multi"], &network["includeAll"]], [&Value::Bool(false); 2], "{title}: one network at a time");
    let query = instance["query"]["query"].as_str().expect("a query");
    assert_eq!(query, "label_values(p2pool_network_info{network=~\"$network\"}, instance)", "{title}");
    // All of them are these, and not every node that Prometheus knows.
    assert_eq!(instance["allValue"], Value::Null, "{title}");
}

/// Every query of the boards, with its location and Grafana's variables filled in.
fn queries_of_boards() -> Vec<(String, String)> {
    let mut queries = Vec::new();
    for entry in fs::read_dir(grafana("boards")).expect("there are boards") {
        let path = entry.expect("a file").path();
        let board: Value =
            serde_json::from_str(&read(&path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let title = board["title"].as_str().expect("a title").to_owned();
        let panels = board["panels"].as_array().expect("panels");
        let annotations = board["annotations"]["list"].as_array().expect("annotations");
        check_variables(&title, &board["templating"]["list"]);
        let mut add = |name: &Value, expr: &Value| {
            let expr = expr.as_str().unwrap_or_else(|| panic!("{title}: {name} has no query"));
            let filled = expr.replace("$instance", ".*").replace("$__rate_interval", RATE_INTERVAL);
            assert!(!filled.contains('$'), "{title}: {name}: a variable is left in {filled}");
            queries.push((format!("{title}: {name}"), filled));
        };
        check_layout(&title, panels);
        for panel in panels.iter().filter(|panel| panel["type"] != "row") {
            let description = panel["description"].as_str().unwrap_or_default();
            assert!(description.len() > 10, "{title}: {} says nothing about itself", panel["title"]);
            for target in panel["targets"].as_array().expect("targets") {
                add(&panel["title"], &target["expr"]);
            }
        }
        for annotation in annotations {
            add(&annotation["name"], &annotation["expr"]);
        }
    }
    assert!(queries.len() > 50, "the boards are read");
    queries
}

/// Operands of a query's comparisons, which have values even while the alert is inactive.
fn operands(query: &str) -> Vec<String> {
    let mut operands = vec![String::new()];
    for word in query.split(' ') {
        if ["and", "or", "unless", "==", "!=", ">", "<", ">=", "<="].contains(&word) {
            operands.push(String::new());
        } else {
            let operand = operands.last_mut().expect("there is one from the start");
            *operand = format!("{operand} {word}");
        }
    }
    let matching = |operand: &String| operand.trim_start().strip_prefix("on (instance)").map(str::to_owned);
    let operands = operands.iter().map(|operand| matching(operand).unwrap_or_else(|| operand.clone()));
    operands.filter(|operand| operand.trim().parse::<f64>().is_err()).collect()
}

/// Names of our metrics in a query or a board.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let words = text.split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_'));
    let parts =
        ["bitcoind_", "disk_", "http_", "log_", "p2p_", "p2pool_", "process_", "runtime_", "sharechain_", "solution_"];
    let others = ["figures_", "found_", "merged_", "stats_", "stratum_", "work_"];
    words.filter(|word| parts.iter().chain(&others).any(|part| word.starts_with(part))).map(str::to_owned).collect()
}

/// Metric families exported by a node.
fn families(metrics: &str) -> BTreeSet<String> {
    let names = metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    names.map(str::to_owned).collect()
}

/// Load on a node: blocks by both nodes' miners in turn, and everything else from miners, peers and web clients.
fn put_load(daemon: &Bitcoind, nodes: [&Node; 2]) {
    let users = [miner_name(1), miner_name(2)];
    let mut miners = [0, 1].map(|at: usize| StratumClient::ready(nodes[at].worker_port(), &users[at]));
    let started = Instant::now();
    let mut round = 0;
    while started.elapsed() < LOAD {
        let at = round % 2;
        let found = job_on_tip(&mut miners[at], daemon).solve_block();
        assert_eq!(miners[at].submit(&users[at], &found), Ok(true));
        wait_for_best(daemon, found.hash);
        miners[at].submit(&users[at], &found).expect_err("a duplicate, or stale by now");
        miners[at].request("mining.nonsense", serde_json::json!([])).expect_err("nobody knows that");
        for node in nodes {
            for (path, status) in [("/health", 200), ("/fee", 200), ("/address/nobody", 200), ("/no-such-page", 404)] {
                assert_eq!(node.get(path).status, status, "{path}");
            }
            let mut passing = StratumClient::connect(node.worker_port());
            passing.raw(r#"{"id":1,"method":"mining.subscribe","params":["NerdMinerV2"]}"#);
            passing.raw(&format!(r#"{{"id":2,"method":"mining.authorize","params":["{}","x"]}}"#, users[at]));
            passing.wait_for_job(|_| true);
            let mut wrong = StratumClient::connect(node.worker_port());
            wrong.subscribe().expect("everybody may");
            let typo = format!("{}x", payout_address(1));
            wrong.authorize(&typo, "x").expect_err("an address with a typo");
        }
        if round < 2 {
            speak_nonsense(nodes[round]);
        }
        round += 1;
        std::thread::sleep(Duration::from_millis(200));
    }
    println!("{round} blocks in {:?}", started.elapsed());
}

/// Daemon of a merged chain, of which every block of the parent chain is a block, too.
struct MergedChain {
    daemon: Daemon,
    _tasks: Tasks,
    /// Ends the daemon when it is dropped.
    _runtime: tokio::runtime::Runtime,
}

impl MergedChain {
    fn start() -> Self {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).enable_all().build().expect("the system gives a thread");
        let tasks = Tasks::new();
        let daemon = {
            let _inside = runtime.enter();
            Daemon::start(Config::namecoin(), &tasks).expect("a port is free")
        };
        Self { daemon, _tasks: tasks, _runtime: runtime }
    }

    /// Value of `--merged`.
    fn option(&self) -> String {
        format!("{},address={},name=aux", self.daemon.url_with_login(), self.daemon.config().address_of("operator"))
    }
}

/// Message before `version` on the peers' port.
fn speak_nonsense(node: &Node) {
    let mut stream = TcpStream::connect(node.pool_address()).expect("the node listens");
    // The prefix of bitcoin_regtest's share chain; the checksum is that of no bytes.
    let prefix = sharechain::coin::BITCOIN_REGTEST.prefix;
    let ping = [&prefix[..], b"ping\0\0\0\0\0\0\0\0", &[0; 4], b"\x5d\xf6\xe0\xe2"].concat();
    stream.write_all(&ping).expect("connected");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout above zero");
    // Its data before the close is ignored.
    let _ = stream.read_to_end(&mut Vec::new());
}

#[test]
fn no_panel_and_no_alert_is_without_data_on_nodes_under_load() {
    let queries = queries_of_boards();
    let daemon = Bitcoind::start();
    let merged = MergedChain::start();
    let first = NodeBuilder::new(P2POOL, &daemon).args(&["--merged", &merged.option()]).start();
    let second = NodeBuilder::new(P2POOL, &daemon).peer(first.pool_address()).start();
    wait_until("the nodes are connected", Duration::from_secs(30), || {
        metric_value(&second.metrics(), "p2p_peers{direction=\"out\"}") == Some(1.0)
    });
    let arguments = ["--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/prometheus"];
    let prometheus = Prometheus::start(&[first.worker_port(), second.worker_port()], &arguments);
    put_load(&daemon, [&first, &second]);
    assert_eq!(prometheus.targets_up(), 2);

    // Each export is valid for Prometheus, and only the operator controls its size.
    for node in [&first, &second] {
        let metrics = node.metrics();
        let complaints = run("promtool", &["check", "metrics"], &metrics);
        assert_eq!(complaints.trim(), "", "promtool check metrics");
        let samples: Vec<&str> = metrics.lines().filter(|line| !line.starts_with('#')).collect();
        for theirs in [&payout_address(1).to_string(), ".rig", "nobody", "no-such-page", "nonsense"] {
            assert!(!samples.iter().any(|sample| sample.contains(theirs)), "{theirs:?} is in a label:\n{metrics}");
        }
    }

    let may_be_empty = |query: &str| MAY_BE_EMPTY.iter().any(|(part, _)| query.contains(part));
    let mut wrong = Vec::new();
    let mut used = BTreeSet::new();
    let mut look = |place: &str, query: &str| {
        used.extend(metrics_in(query));
        for operand in operands(query) {
            let values = prometheus.query(&operand);
            if values.iter().all(|value| value.is_nan()) && !may_be_empty(&operand) {
                wrong.push(format!("{place}: no data: {operand}"));
            }
        }
    };
    for (place, query) in queries {
        // Unchanged: it must be a valid query.
        prometheus.query(&query);
        look(&place, &query);
    }
    let groups = prometheus.ask("/api/v1/rules?type=alert")["groups"].as_array().expect("groups").clone();
    let rules: Vec<Value> = groups.iter().flat_map(|group| group["rules"].as_array().expect("rules").clone()).collect();
    assert!(rules.len() > 15, "the rules are read");
    for rule in &rules {
        let name = rule["name"].as_str().expect("a name");
        assert_eq!(rule["health"], "ok", "{name}: {}", rule["lastError"]);
        assert_ne!(rule["state"], "firing", "{name} alarms somebody although all is well: {rule}");
        for note in ["summary", "reason", "action"] {
            assert!(rule["annotations"][note].is_string(), "{name} has no {note}");
        }
        look(name, rule["query"].as_str().expect("a query"));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));

    let of = |suffix: &str, name: &String| name.strip_suffix(suffix).map(str::to_owned);
    let shown = |name: &String| of("_bucket", name).unwrap_or_else(|| name.clone());
    let used: BTreeSet<String> = used.iter().map(shown).collect();
    let given = families(&first.metrics());
    let not_shown: Vec<&String> = given.difference(&used).collect();
    assert!(not_shown.is_empty(), "on no board and in no alert: {not_shown:?}");
}

#[test]
fn every_alert_fires_when_it_should_and_none_on_a_healthy_node() {
    for config in ["prometheus.yml", "prometheus-litecoin.yml"] {
        let said = run("promtool", &["check", "config", grafana(config).to_str().expect("text")], "");
        assert!(said.contains("SUCCESS"), "{config}: {said}");
    }
    run("promtool", &["test", "rules", grafana("alerts_test.yml").to_str().expect("text")], "");
    // Each has its own test.
    let tests = read(&grafana("alerts_test.yml"));
    for alert in read(&grafana("alerts.yml")).lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        assert!(tests.contains(&format!("alertname=\"{alert}\"")), "nothing shows that {alert} fires");
    }
}
