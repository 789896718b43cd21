//! The steps of "Add a coin by file", done as the page says, with a private chain's daemon as the coin's.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use test_support::{Bitcoind, free_port, get, payout_address, wait_until};

use crate::text;

/// Path of the program.
const P2POOL: &str = env!("CARGO_BIN_EXE_p2pool");

/// Time limits of a node's start, and of a processor's first block.
const START_LIMIT: Duration = Duration::from_secs(30);
const BLOCK_LIMIT: Duration = Duration::from_secs(60);

/// Language and text of each fenced block in "Add a coin by file".
fn fences(page: &str) -> Vec<(String, String)> {
    let (_, section) = page.split_once("## Add a coin by file").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let blocks = section.split("```").skip(1).step_by(2);
    let split = blocks.map(|block| block.split_once('\n').unwrap());
    split.map(|(language, text)| (language.to_owned(), text.to_owned())).collect()
}

/// A process that is killed at the end of the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have exited already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A command of the page, in `folder`, with what this machine needs beside it.
fn command(line: &str, folder: &Path, daemon: &Bitcoind, demo_port: u16) -> Command {
    let mut words = line.split_whitespace();
    assert_eq!(words.next(), Some("p2pool"), "{line}");
    let (user, password) = daemon.credentials();
    let mut command = Command::new(P2POOL);
    // Neither the reader's home nor the environment of the test run may configure anything.
    command.args(words).current_dir(folder).stdin(Stdio::null()).env_clear().env("HOME", folder);
    command.env("P2POOL_RPC_USER", user).env("P2POOL_RPC_PASSWORD", password).env("P2POOL_DISABLE_UPNP", "true");
    if line.starts_with("p2pool demo") {
        command.env("P2POOL_WORKER_PORT", format!("127.0.0.1:{demo_port}"));
    }
    command
}

/// Hash of the first block of the daemon's chain.
fn first_block(daemon: &Bitcoind) -> String {
    let hash = daemon.call("getblockhash", serde_json::json!([1]));
    hash.as_str().expect("a hash").to_owned()
}

#[test]
fn the_page_adds_a_coin_that_mines_a_block() {
    let daemon = Bitcoind::start();
    let folder = tempfile::tempdir().unwrap();
    let (worker_port, demo_port) = (free_port(), free_port());
    let mut page = text("docs/networks/README.md");
    for (in_page, here) in [
        ("21021", free_port().to_string()),
        ("21022", worker_port.to_string()),
        ("18443", daemon.rpc_port().to_string()),
        ("18444", daemon.p2p_port().to_string()),
        ("YOUR_ADDRESS", payout_address(1).to_string()),
    ] {
        assert!(page.contains(in_page), "{in_page}");
        page = page.replace(in_page, &here);
    }
    let mut running = Vec::new();
    let (mut files, mut commands) = (0, Vec::new());
    for (language, block) in fences(&page) {
        if language == "toml" {
            let name = block.lines().next().and_then(|line| line.strip_prefix("# ")).expect("the file's name");
            fs::write(folder.path().join(name), &block).unwrap();
            files += 1;
            continue;
        }
        assert_eq!(language, "sh", "{block}");
        for line in block.lines() {
            let mut command = command(line, folder.path(), &daemon, demo_port);
            commands.push(line.to_owned());
            let subcommand = line.split_whitespace().nth(1).unwrap();
            if subcommand.starts_with("--") {
                running.push(Running(command.spawn().unwrap()));
                wait_until("the node serves miners", START_LIMIT, || {
                    get(([127, 0, 0, 1], worker_port).into(), "/health").is_ok_and(|answer| answer.status == 200)
                });
            } else if subcommand == "mine" {
                running.push(Running(command.spawn().unwrap()));
                wait_until("the coin has a block", BLOCK_LIMIT, || daemon.height() > 0);
            } else {
                let output = command.output().unwrap();
                let said = String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned();
                assert!(output.status.success(), "{line}:\n{said}");
                match subcommand {
                    "demo" => assert!(said.contains("Block found at height 1"), "{said}"),
                    "status" => assert!(said.contains("mycoin"), "{said}"),
                    "blocks" => assert!(said.contains(&first_block(&daemon)), "{said}"),
                    _ => {}
                }
            }
        }
    }
    assert_eq!(files, 1);
    let kinds: Vec<&str> = commands.iter().map(|line| line.split_whitespace().nth(1).unwrap()).collect();
    assert_eq!(kinds, ["config", "demo", "doctor", "--net", "mine", "status", "blocks"]);
}
