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

/// docker-compose.yml as read by Docker's own program, with the variables of an environment file filled in.
fn compose(env_file: Option<&str>) -> Value {
    let mut command = Command::new("docker-compose");
    command.arg("--file").arg(repository("docker-compose.yml"));
    if let Some(file) = env_file {
        command.arg("--env-file").arg(repository(file));
    }
    // The environment of the test run must not fill them in.
    let output =
        run(command.arg("config").current_dir("/").env_clear().env("PATH", std::env::var_os("PATH").expect("a PATH")));
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
    for env_file in [None, Some(".docker/mainnet.env")] {
        let compose = compose(env_file);
        let services = compose["services"].as_object().expect("services");
        assert_eq!(
            services.keys().map(String::as_str).collect::<Vec<_>>(),
            ["bitcoind", "grafana", "miner", "p2pool", "prometheus"]
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
        let is_main = env_file.is_some();
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
    assert_eq!(images.len(), 3, "{images:?}");
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
