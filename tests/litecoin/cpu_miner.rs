//! The program's own miner as a process, since the devices of the other tests hash as Bitcoin does.

use rustix::process::{Pid, Signal, kill_process};
use std::process::{Child, Command, Stdio};
use test_support::Node;

use crate::{P2POOL, miner_name};

/// Hashes per second: about one block, so that a test can follow.
const PACE: &str = "4";

/// A running `p2pool mine --scrypt`. Dropping it kills it.
pub(crate) struct CpuMiner(Option<Child>);

impl CpuMiner {
    /// Mines on the node, to be paid at `address`.
    pub(crate) fn start(node: &Node, address: &str) -> Self {
        let child = Command::new(P2POOL)
            .args(["mine", "--scrypt", &format!("127.0.0.1:{}", node.worker_port())])
            .args(["--user", &miner_name(address), "--pace", PACE])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program runs");
        Self(Some(child))
    }

    /// Ends it, and returns what it printed.
    pub(crate) fn stop(mut self) -> String {
        let child = self.0.take().expect("it has not ended yet");
        kill_process(Pid::from_child(&child), Signal::TERM).expect("it runs");
        let output = child.wait_with_output().expect("it can be waited for");
        let printed = [output.stdout, output.stderr].concat();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&printed));
        String::from_utf8(printed).expect("text")
    }
}

impl Drop for CpuMiner {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
