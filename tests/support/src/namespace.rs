//! A network for a test: with its own loopback interface, addresses and ports, and no way out.
//!
//! Creating one requires root, or `unshare -Urn` around the tests. Without, tests that need one fail, or do nothing if
//! `P2POOL_TESTS_WITHOUT_NAMESPACES` is set.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Variable that opts out of tests with namespaces.
const OPT_OUT: &str = "P2POOL_TESTS_WITHOUT_NAMESPACES";

/// True if the user has opted out; prints so.
pub(crate) fn is_opted_out() -> bool {
    let is_opted_out = std::env::var_os(OPT_OUT).is_some_and(|value| !value.is_empty());
    if is_opted_out {
        println!("nothing is tested: {OPT_OUT} is set");
    }
    is_opted_out
}

/// A network namespace. It ends when this is dropped and nothing runs in it any more.
#[derive(Debug)]
pub struct Namespace {
    file: File,
}

impl Namespace {
    /// Creates one in which only the loopback interface is up. `None` where the tests' user has opted out.
    pub fn new() -> Option<Self> {
        if is_opted_out() {
            return None;
        }
        // Safe code cannot create one, so another program does, and holds it until it is opened here.
        let mut holder = Command::new("unshare")
            .args(["--net", "--", "cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("unshare (of util-linux): {error}"));
        let (mut input, output) = (holder.stdin.take().expect("piped"), holder.stdout.take().expect("piped"));
        let mut line = String::new();
        let echoed = writeln!(input, "ready").is_ok() && BufReader::new(output).read_line(&mut line).is_ok();
        assert!(
            echoed && line == "ready\n",
            "no network namespace can be made: run the tests as root or in `unshare -Urn`, or set {OPT_OUT}=1 to do \
             without those that need it"
        );
        let file = File::open(format!("/proc/{}/ns/net", holder.id())).expect("the holder waits for its input's end");
        drop(input);
        holder.wait().expect("our own child can be waited for");
        let namespace = Self { file };
        namespace.ip(&["link", "set", "lo", "up"]);
        Some(namespace)
    }

    /// Runs `action` on a thread inside. Sockets it opens and processes it starts stay inside for good.
    pub fn enter<T: Send>(&self, action: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network))
                    .expect("a namespace of our own can be entered");
                action()
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Runs `ip` (of iproute2) inside, which must succeed.
    pub fn ip(&self, args: &[&str]) {
        let output = self.enter(|| Command::new("ip").args(args).output()).expect("ip (of iproute2) is installed");
        assert!(output.status.success(), "ip {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn what_listens_inside_is_not_heard_outside() {
        let Some(namespace) = Namespace::new() else { return };
        // As 127/8 is on the loopback interface everywhere, so all of 10/8 is here.
        namespace.ip(&["address", "add", "10.0.0.1/8", "dev", "lo"]);
        let listener = namespace.enter(|| TcpListener::bind("10.1.2.3:2000")).expect("the address is inside");
        let address = listener.local_addr().expect("it is bound");
        assert!(namespace.enter(|| TcpStream::connect(address)).is_ok());
        assert!(TcpListener::bind(address).is_err(), "the address is outside, too");
    }
}
