//! Files for running a node in containers or as a service. The tests have no Docker: the files are checked, and their
//! command lines are run without it.

use serde_json::Value;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;
use test_support::{Bitcoind, free_port, get, wait_until};

use crate::P2POOL;
use crate::prometheus::Prometheus;

/// Time limit for three blocks by the small miner, on a machine that runs other tests too.
const MINING_LIMIT: Duration = Duration::from_secs(120);

fn repository(path: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), path].iter().collect()
}

fn run(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}: tests/run.sh installs what the tests need"))
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

/// docker-compose.yml as read by Docker's own program, profiles included, with the variables of an environment file
/// filled in.
fn compose(env_file: Option<&str>) -> Value {
    compose_with(env_file, &[])
}

/// The same with variables of the environment.
fn compose_with(env_file: Option<&str>, variables: &[(&str, &str)]) -> Value {
    let mut command = Command::new("docker-compose");
    command.arg("--file").arg(repository("docker-compose.yml")).args(["--profile", "litecoin"]);
    if let Some(file) = env_file {
        command.arg("--env-file").arg(repository(file));
    }
    // The environment of the test run must not fill them in.
    let command = command.arg("config").current_dir("/").env_clear().envs(variables.iter().copied());
    let output = run(command.env("PATH", std::env::var_os("PATH").expect("a PATH")));
    assert!(output.status.success(), "{}", said(&output));
    let text = String::from_utf8(output.stdout).expect("YAML is text");
    serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{error}:\n{text}"))
}

/// Strings of a list.
fn words(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().map(|word| word.as_str().expect("text").to_owned()).collect()
}

/// Returns whether an image is pinned to a version.
fn is_pinned(image: &str) -> bool {
    image
        .rsplit_once(':')
        .is_some_and(|(_, tag)| tag.matches('.').count() >= 1 && tag.contains(|c: char| c.is_ascii_digit()))
}

#[test]
fn every_container_is_pinned_checked_and_without_rights() {
    for env_file in [None, Some(".docker/mainnet.env"), Some(".docker/litecoin.env")] {
        let compose = compose(env_file);
        let services = compose["services"].as_object().expect("services");
        assert_eq!(
            services.keys().map(String::as_str).collect::<Vec<_>>(),
            ["bitcoind", "grafana", "litecoind", "miner", "p2pool", "p2pool-litecoin", "prometheus"]
        );
        for (name, service) in services {
            let user = service["user"].as_str().unwrap_or_default();
            assert!(!user.is_empty() && !user.starts_with('0') && !user.starts_with("root"), "{name} runs as {user:?}");
            assert_eq!(words(&service["cap_drop"]), ["ALL"], "{name}");
            assert_eq!(service["read_only"], true, "{name}");
            assert!(words(&service["security_opt"]).contains(&"no-new-privileges:true".to_owned()), "{name}");
            assert_eq!(service["restart"], "unless-stopped", "{name}");
            let is_built = service["build"]["target"].as_str().is_some();
            assert!(
                is_built || is_pinned(service["image"].as_str().unwrap_or_default()),
                "{name}: {}",
                service["image"]
            );
            // The miner is checked by its pool.
            let is_checked = service["healthcheck"]["test"].is_array();
            assert!(is_checked || name == "miner", "nobody looks after {name}");
        }
        let is_main = env_file == Some(".docker/mainnet.env");
        assert_eq!(services["miner"]["deploy"]["replicas"], u8::from(!is_main));
        assert_eq!(
            services["p2pool"]["environment"]["P2POOL_NET"],
            if is_main { "bitcoin" } else { "bitcoin_regtest" }
        );
        let chain = if is_main { "-chain=main" } else { "-chain=regtest" };
        assert!(words(&services["bitcoind"]["command"]).contains(&chain.to_owned()));
        for (name, service) in services {
            for file in service["volumes"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                let source = file.split(':').next().expect("one part at least");
                let is_there = !source.starts_with('/') || PathBuf::from(source).exists();
                assert!(is_there, "{name} mounts {source}, which is not there");
            }
        }
    }
    let dockerfile = fs::read_to_string(repository(".docker/Dockerfile")).expect("it is there");
    let images: Vec<&str> =
        dockerfile.lines().filter_map(|line| line.strip_prefix("FROM ")?.split(' ').next()).collect();
    assert_eq!(images.len(), 4, "{images:?}");
    assert!(images.iter().all(|image| is_pinned(image)), "{images:?}");
    // The last USER of our images is not root.
    for stage in dockerfile.split("\nFROM ").skip(2) {
        let users: Vec<&str> = stage.lines().filter_map(|line| line.strip_prefix("USER ")).collect();
        assert_eq!(users, ["101:101"], "{stage}");
    }
    let toolchain = format!("rust:{}", env!("CARGO_PKG_RUST_VERSION"));
    assert!(images[0].starts_with(&toolchain), "{} is not the Rust of Cargo.toml, {toolchain}", images[0]);
}

#[test]
fn litecoin_has_a_profile_with_a_daemon_and_volumes_of_its_own_and_is_scraped() {
    let compose = compose(Some(".docker/litecoin.env"));
    let services = compose["services"].as_object().expect("services");
    for (name, service) in services {
        let is_litecoins = words(&service["profiles"]) == ["litecoin"];
        assert_eq!(is_litecoins, name.contains("litecoin"), "{name} is in {}", service["profiles"]);
    }
    let (daemon, node) = (&services["litecoind"], &services["p2pool-litecoin"]);
    assert!(words(&daemon["command"]).contains(&"-chain=main".to_owned()));
    assert_eq!(daemon["build"]["target"], "litecoind");
    assert_eq!(node["environment"]["P2POOL_NET"], "litecoin");
    let ports: Vec<(Option<u64>, Option<u64>)> = node["ports"]
        .as_array()
        .expect("ports")
        .iter()
        .map(|port| (port["published"].as_u64(), port["target"].as_u64()))
        .collect();
    assert_eq!(ports, [(Some(9327), Some(9327)), (Some(9326), Some(9326))], "those of the network");
    assert_eq!(node["environment"]["P2POOL_BITCOIND_ADDRESS"], "litecoind");
    // No volume is both coins'.
    let volumes = |name: &str| -> Vec<String> {
        let all = services[name]["volumes"].as_array().expect("volumes").iter();
        let source = |volume: &Value| match volume.as_str() {
            Some(text) => text.split(':').next().expect("one part at least").to_owned(),
            None => volume["source"].as_str().expect("a source").to_owned(),
        };
        all.map(source).collect()
    };
    assert_eq!(
        (volumes("litecoind"), volumes("p2pool-litecoin")),
        (vec!["litecoind".into()], vec!["p2pool-litecoin".into(), "litecoind".into()])
    );
    assert_eq!(
        (volumes("bitcoind"), volumes("p2pool")),
        (vec!["bitcoind".into()], vec!["p2pool".into(), "bitcoind".into()])
    );
    // Prometheus asks this node, and only this one.
    let config = PathBuf::from(&volumes("prometheus")[0]);
    assert_eq!(config.file_name().and_then(|name| name.to_str()), Some("prometheus-litecoin.yml"));
    let read = |path: PathBuf| fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let settings = |text: String| text.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n");
    let bitcoins = settings(read(repository("grafana/prometheus.yml")));
    assert_eq!(settings(read(config)), bitcoins.replace("\"p2pool:9332\"", "\"p2pool-litecoin:9327\""));
    assert_eq!(node["environment"]["P2POOL_WORKER_PORT"], "9327");
}

#[test]
fn an_image_has_all_that_its_build_reads() {
    let dockerfile = fs::read_to_string(repository(".docker/Dockerfile")).expect("it is there");
    let ignored = fs::read_to_string(repository(".docker/Dockerfile.dockerignore")).expect("it is there");
    let context = tempfile::tempdir().expect("a temporary folder");
    for line in dockerfile.lines().filter_map(|line| line.strip_prefix("COPY ")).filter(|line| !line.starts_with("--"))
    {
        let names: Vec<&str> = line.split(' ').collect();
        for name in &names[..names.len() - 1] {
            symlink(repository(name), context.path().join(name)).expect("the folder is ours");
            assert!(ignored.lines().any(|kept| kept == format!("!{name}")), "{name} does not reach the build");
        }
    }
    // Reads every manifest, finds every target, and checks the lock file. Other systems' packages are missing here.
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let arguments = ["metadata", "--locked", "--offline", "--format-version", "1", "--filter-platform", &platform];
    let output = run(Command::new(cargo).args(arguments).current_dir(context.path()));
    assert!(output.status.success(), "{}", said(&output));
}

/// Process that is killed at the end of its test.
struct Running(Child);

impl Running {
    fn start(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have exited already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The program with a service's environment and command, with `env_clear` as in a container.
fn product(service: &Value, arguments: &[String]) -> Command {
    let mut command = Command::new(P2POOL);
    command.args(arguments).env_clear();
    for (name, value) in service["environment"].as_object().expect("an environment") {
        command.env(name, value.as_str().unwrap_or_else(|| panic!("{name} is no text: {value}")));
    }
    command
}

#[test]
fn what_the_containers_run_mines_on_a_private_chain_in_one_go() {
    let compose = compose(None);
    let services = &compose["services"];
    // bitcoind, on this machine only.
    let arguments: Vec<String> = words(&services["bitcoind"]["command"])
        .iter()
        .map(|word| word.replace("0.0.0.0/0", "127.0.0.1").replace("0.0.0.0", "127.0.0.1"))
        .collect();
    let daemon = Bitcoind::start_with(&arguments.iter().map(String::as_str).collect::<Vec<_>>());

    // The node finds bitcoind's cookie in its home, as in its container.
    let home = tempfile::tempdir().expect("a temporary folder");
    symlink(daemon.data_dir(), home.path().join(".bitcoin")).expect("the folder is ours");
    let (port, pool_port) = (free_port(), free_port());
    let data = home.path().join("data");
    let mut node = product(&services["p2pool"], &[]);
    node.env("HOME", home.path())
        .env("P2POOL_DATADIR", &data)
        .env("P2POOL_BITCOIND_ADDRESS", "127.0.0.1")
        .env("P2POOL_BITCOIND_RPC_PORT", daemon.rpc_port().to_string())
        .env("P2POOL_BITCOIND_P2P_PORT", daemon.p2p_port().to_string())
        .env("P2POOL_WORKER_PORT", format!("127.0.0.1:{port}"))
        .env("P2POOL_P2POOL_PORT", format!("127.0.0.1:{pool_port}"))
        .env("P2POOL_NO_BOOTSTRAP", "true");
    let _node = Running::start(&mut node);
    wait_until("the node serves miners", Duration::from_secs(30), || {
        get(([127, 0, 0, 1], port).into(), "/health").is_ok_and(|answer| answer.status == 200)
    });

    // The miner.
    let arguments = words(&services["miner"]["command"]);
    let arguments: Vec<String> =
        arguments.iter().map(|word| word.replace("p2pool:9332", &format!("127.0.0.1:{port}"))).collect();
    let _miner = Running::start(&mut product(&services["miner"], &arguments));

    // Prometheus, with the same arguments.
    let arguments = words(&services["prometheus"]["command"]);
    let prometheus = Prometheus::start(&[port], &arguments.iter().map(String::as_str).collect::<Vec<_>>());
    wait_until("Prometheus finds the node", Duration::from_secs(30), || prometheus.targets_up() == 1);
    wait_until("three blocks are mined", MINING_LIMIT, || daemon.height() >= 3);

    // Docker's health checks.
    let test = words(&services["p2pool"]["healthcheck"]["test"]);
    assert_eq!(test[..2], ["CMD", "p2pool"]);
    let output = run(product(&services["p2pool"], &test[2..]).env("P2POOL_DATADIR", &data));
    assert!(output.status.success(), "{test:?}: {}", said(&output));
    let output = run(product(&services["p2pool"], &test[2..]).env("P2POOL_DATADIR", home.path().join("elsewhere")));
    assert!(!output.status.success(), "{test:?} is content where no node runs");
    let test = words(&services["bitcoind"]["healthcheck"]["test"]);
    assert_eq!(test[..3], ["CMD", "bitcoin-cli", "-datadir=/data"]);
    let output = run(Command::new(Bitcoind::program().with_file_name("bitcoin-cli"))
        .arg(format!("-datadir={}", daemon.data_dir().display()))
        .arg(format!("-rpcport={}", daemon.rpc_port()))
        .args(&test[3..]));
    assert!(output.status.success(), "{test:?}: {}", said(&output));
}

#[test]
fn what_the_litecoin_containers_run_finds_each_other_and_is_healthy() {
    let variables = [
        ("LITECOIN_CHAIN", "regtest"),
        ("LITECOIN_NET", "litecoin_regtest"),
        ("LITECOIN_ADDRESS", "rltc1qw508d6qejxtdg4y5r3zarvary0c5xw7k693xs3"),
    ];
    let compose = compose_with(Some(".docker/litecoin.env"), &variables);
    let services = &compose["services"];
    let home = tempfile::tempdir().expect("a temporary folder");
    let daemon_data = home.path().join(".litecoin");
    fs::create_dir(&daemon_data).expect("the folder is ours");
    let [rpc_port, daemon_port, port, pool_port] = [free_port(), free_port(), free_port(), free_port()];

    // litecoind, on this machine only.
    let arguments = words(&services["litecoind"]["command"]);
    let mut daemon = Command::new("litecoind");
    daemon
        .args(arguments.iter().map(|word| word.replace("0.0.0.0/0", "127.0.0.1").replace("0.0.0.0", "127.0.0.1")))
        .args([format!("-datadir={}", daemon_data.display()), format!("-rpcport={rpc_port}")])
        .args([format!("-bind=127.0.0.1:{daemon_port}"), "-connect=0".to_owned()])
        .stdout(Stdio::null());
    let _daemon = Running::start(&mut daemon);
    let test = words(&services["litecoind"]["healthcheck"]["test"]);
    assert_eq!(test[..3], ["CMD", "litecoin-cli", "-datadir=/data"]);
    let mut check = Command::new("litecoin-cli");
    check.arg(format!("-datadir={}", daemon_data.display())).arg(format!("-rpcport={rpc_port}")).args(&test[3..]);
    wait_until("litecoind is healthy", Duration::from_secs(60), || run(&mut check).status.success());

    // The node finds litecoind's cookie in its home, as in its container.
    let data = home.path().join("data");
    let mut node = product(&services["p2pool-litecoin"], &[]);
    node.env("HOME", home.path())
        .env("P2POOL_DATADIR", &data)
        .env("P2POOL_BITCOIND_ADDRESS", "127.0.0.1")
        .env("P2POOL_BITCOIND_RPC_PORT", rpc_port.to_string())
        .env("P2POOL_BITCOIND_P2P_PORT", daemon_port.to_string())
        .env("P2POOL_WORKER_PORT", format!("127.0.0.1:{port}"))
        .env("P2POOL_P2POOL_PORT", format!("127.0.0.1:{pool_port}"))
        .env("P2POOL_NO_BOOTSTRAP", "true");
    let _node = Running::start(&mut node);
    wait_until("the node has litecoind's version", Duration::from_secs(30), || {
        get(([127, 0, 0, 1], port).into(), "/health").is_ok_and(|answer| answer.body.contains("LitecoinCore"))
    });
    let test = words(&services["p2pool-litecoin"]["healthcheck"]["test"]);
    assert_eq!(test[..2], ["CMD", "p2pool"]);
    let output = run(product(&services["p2pool-litecoin"], &test[2..]).env("P2POOL_DATADIR", &data));
    assert!(output.status.success(), "{test:?}: {}", said(&output));
}

#[test]
fn the_service_is_well_formed_and_can_do_little_harm() {
    let unit = fs::read_to_string(repository(".systemd/p2pool.service")).expect("it is there");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("p2pool.service");
    // It is not installed here.
    fs::write(&path, unit.replace("/usr/local/bin/p2pool", P2POOL)).expect("the folder is ours");
    let output = run(Command::new("systemd-analyze").arg("verify").arg(&path));
    assert!(output.status.success() && said(&output).trim().is_empty(), "{}", said(&output));
    // 0 is the best score, 100 the worst; above 20 is a failure.
    let output = run(Command::new("systemd-analyze").args(["security", "--offline=yes", "--threshold=20"]).arg(&path));
    assert!(output.status.success(), "{}", said(&output));
}
