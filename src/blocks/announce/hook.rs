//! Runs the operator's command at each event of a found block: one at a time, with a timeout.

use sharechain::coin::Network;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::sync::broadcast;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{Announcement, next};
use crate::blocks::found::Event;
use crate::runtime::secret::Secret;

/// Maximum run time of a command; it is killed then.
const TIME_MAX: Duration = Duration::from_secs(60);

/// Bytes of a failing command's stderr that are logged.
const COMPLAINT_BYTES_MAX: u64 = 1000;

/// Environment variables that commands must not inherit.
const SECRETS: [&str; 5] =
    ["P2POOL_RPC_USER", "P2POOL_RPC_PASSWORD", "P2POOL_ANNOUNCE_WEBHOOK", "P2POOL_MERGED", "P2POOL_MERGED_ADDR"];

/// Runs the command, which is in the environment: as an argument it would be in the process list, and it may hold a
/// secret.
const SCRIPT: &str = "hook=$P2POOL_ANNOUNCE_HOOK; unset P2POOL_ANNOUNCE_HOOK; eval \"$hook\"";

/// Runs `command` at each event until `stop`.
pub(super) async fn run(
    command: Secret,
    network: &'static Network,
    mut events: broadcast::Receiver<Event>,
    stop: CancellationToken,
) {
    while let Some(event) = next(&mut events, "--announce-hook", &stop).await {
        let announcement = Announcement::new(&event, network);
        let ended = tokio::select! {
            // The command may continue after the node has stopped.
            () = stop.cancelled() => return,
            ended = execute(command.expose(), &announcement, TIME_MAX) => ended,
        };
        let chain = announcement.chain.as_deref();
        match ended {
            Ok(()) => {
                info!(chain, event = announcement.event, hash = announcement.hash, "--announce-hook command finished")
            }
            Err(reason) => {
                warn!(chain, event = announcement.event, hash = announcement.hash, reason, "--announce-hook failed")
            }
        }
    }
}

async fn execute(command: &str, announcement: &Announcement, time_max: Duration) -> Result<(), String> {
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(SCRIPT).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    // Its own process group, so that its children are killed with it.
    shell.process_group(0);
    for secret in SECRETS {
        shell.env_remove(secret);
    }
    shell.env("P2POOL_ANNOUNCE_HOOK", command);
    shell.envs([
        ("P2POOL_BLOCK_EVENT", announcement.event),
        ("P2POOL_BLOCK_NETWORK", announcement.network),
        ("P2POOL_BLOCK_HASH", &announcement.hash),
        ("P2POOL_BLOCK_HEIGHT", &announcement.height.map(|height| height.to_string()).unwrap_or_default()),
        ("P2POOL_BLOCK_VALUE", &announcement.value.to_string()),
        ("P2POOL_BLOCK_PAYEE", &announcement.payee),
        ("P2POOL_BLOCK_FINDER", &announcement.finder),
        ("P2POOL_BLOCK_IS_OURS", if announcement.is_ours { "1" } else { "0" }),
        ("P2POOL_BLOCK_TEXT", &announcement.text),
    ]);
    // Not set for the parent chain, not even by the node's own environment.
    match &announcement.chain {
        Some(chain) => shell.env("P2POOL_BLOCK_CHAIN", &**chain),
        None => shell.env_remove("P2POOL_BLOCK_CHAIN"),
    };
    let mut child = shell.spawn().map_err(|error| format!("cannot start sh: {error}"))?;
    let ended = timeout(time_max, attend(&mut child, announcement.json())).await;
    let Ok(ended) = ended else {
        end(&child);
        let _ = child.wait().await;
        return Err(format!("killed after {time_max:?}"));
    };
    ended
}

/// Writes the child's stdin, reads its stderr, and waits for its exit.
async fn attend(child: &mut Child, json: String) -> Result<(), String> {
    let (input, errors) = (child.stdin.take(), child.stderr.take());
    let feed = async {
        if let Some(mut input) = input {
            // A command need not read its input.
            let _ = input.write_all(json.as_bytes()).await;
            let _ = input.write_all(b"\n").await;
        }
    };
    let hear = async {
        let mut complaint = Vec::new();
        if let Some(mut errors) = errors {
            let _ = (&mut errors).take(COMPLAINT_BYTES_MAX).read_to_end(&mut complaint).await;
            // The rest is drained, or the command would block on a full pipe.
            let _ = tokio::io::copy(&mut errors, &mut tokio::io::sink()).await;
        }
        String::from_utf8_lossy(&complaint).trim().replace(char::is_control, " ")
    };
    let ((), complaint) = tokio::join!(feed, hear);
    match child.wait().await {
        Ok(status) if status.success() => Ok(()),
        Ok(status) if complaint.is_empty() => Err(status.to_string()),
        Ok(status) => Err(format!("{status}: {complaint}")),
        Err(error) => Err(error.to_string()),
    }
}

/// Kills a command and its children.
fn end(child: &Child) {
    let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
    if let Some(group) = group {
        // Fails if it has just exited.
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{event, merged};
    use super::*;
    use crate::blocks::found::EventKind;
    use sharechain::coin::BITCOIN_REGTEST;

    fn announcement(finder: &str) -> Announcement {
        Announcement::new(&event(EventKind::Orphaned, finder), &BITCOIN_REGTEST)
    }

    #[tokio::test]
    async fn a_command_gets_the_event_in_its_environment_and_as_json() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("out");
        let command = format!("{{ echo \"$P2POOL_BLOCK_EVENT $P2POOL_BLOCK_FINDER\"; cat; }} > {}", file.display());
        // A name that would be two commands if the shell evaluated it.
        execute(&command, &announcement("eve; touch evil"), TIME_MAX).await.unwrap();
        let text = std::fs::read_to_string(file).unwrap();
        let (environment, json) = text.split_once('\n').unwrap();
        assert_eq!(environment, "orphaned eve; touch evil");
        let json: serde_json::Value = serde_json::from_str(json).unwrap();
        assert_eq!((&json["event"], &json["value"]), (&"orphaned".into(), &312_500_001.into()));
    }

    #[tokio::test]
    async fn a_command_gets_the_name_of_a_merged_chain_and_nothing_new_for_the_parent_chain() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("out");
        let command = format!(
            "env | grep ^P2POOL_BLOCK_ | cut -d= -f1 | sort > {0}; echo \"$P2POOL_BLOCK_CHAIN\" >> {0}",
            file.display()
        );
        execute(&command, &announcement("x"), TIME_MAX).await.unwrap();
        let parent = std::fs::read_to_string(&file).unwrap();
        let names = ["EVENT", "FINDER", "HASH", "HEIGHT", "IS_OURS", "NETWORK", "PAYEE", "TEXT", "VALUE"];
        let names = names.map(|name| format!("P2POOL_BLOCK_{name}\n")).concat();
        assert_eq!(parent, format!("{names}\n"));
        let of_merged = Announcement::new(&merged(event(EventKind::Found, "x")), &BITCOIN_REGTEST);
        execute(&command, &of_merged, TIME_MAX).await.unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), format!("P2POOL_BLOCK_CHAIN\n{names}dogecoin\n"));
    }

    #[tokio::test]
    async fn what_a_command_holds_is_not_in_the_process_list() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("out");
        let command = format!("token=hunter2\n{{ cat /proc/$$/cmdline; env; echo \"$token\"; }} > {}", file.display());
        execute(&command, &announcement("x"), TIME_MAX).await.unwrap();
        let text = String::from_utf8(std::fs::read(file).unwrap()).unwrap();
        assert!(text.starts_with("sh\0-c\0") && text.ends_with("hunter2\n"), "{text}");
        assert_eq!(text.matches("hunter2").count(), 1, "only what it printed: {text}");
    }

    #[tokio::test]
    async fn a_command_that_fails_is_logged_with_its_complaint_however_long_that_is() {
        let error = execute("echo no such thing >&2; exit 3", &announcement("x"), TIME_MAX).await.unwrap_err();
        assert!(error.contains('3') && error.contains("no such thing"), "{error}");
        let error = execute("head -c 1000000 /dev/zero >&2; exit 4", &announcement("x"), TIME_MAX).await.unwrap_err();
        assert!(error.contains('4') && error.len() < 2000, "{}", error.len());
    }

    #[tokio::test]
    async fn a_command_that_hangs_is_ended_with_all_that_it_started() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pid");
        let command = format!("sleep 600 & echo $! > {}; wait", file.display());
        let error = execute(&command, &announcement("x"), Duration::from_secs(1)).await.unwrap_err();
        assert!(error.contains("killed after"), "{error}");
        let pid: i32 = std::fs::read_to_string(file).unwrap().trim().parse().unwrap();
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        // A zombie remains until its new parent reaps it.
        let is_gone = || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
            stat.map_or(true, |stat| stat.contains(") Z "))
        };
        for _ in 0..100 {
            if is_gone() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the command's child still runs");
    }
}
