//! Signals to child processes, without unsafe code.

use rustix::process::{Pid, Signal, kill_process};
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

/// Sends `signal` to a child that has not been waited for, so that its process id is still its own.
pub(crate) fn send(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("process ids fit in an i32")).expect("never zero");
    kill_process(pid, signal).expect("a child may be signalled until it is waited for");
}

/// Waits up to `limit` for the child to end.
pub(crate) fn wait(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("our own child can be waited for") {
            return Some(status);
        }
        if start.elapsed() > limit {
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
