//! Posts events of found blocks to the operator's webhook.

use sharechain::coin::Network;
use std::time::Duration;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{ATTEMPTS_MAX, Announcement, PAUSE_FIRST, next};
use crate::blocks::found::Event;
use crate::runtime::secret::Secret;

/// Timeout and pauses of a delivery.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// Timeout of one attempt.
    pub(super) time_max: Duration,
    /// Pause after the first attempt; it doubles after each.
    pub(super) pause_first: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { time_max: Duration::from_secs(15), pause_first: PAUSE_FIRST }
    }
}

/// Failure of an attempt.
#[derive(Debug)]
struct Failure {
    reason: String,
    /// True if another attempt would be refused as well.
    is_final: bool,
}

/// Posts each event to `url` until `stop`. The URL is never logged: it often contains a secret.
pub(super) async fn run(
    url: Secret,
    network: &'static Network,
    mut events: broadcast::Receiver<Event>,
    pace: Pace,
    stop: CancellationToken,
) {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(pace.time_max))
        .max_redirects(0)
        .http_status_as_error(false)
        .user_agent(concat!("p2pool/", env!("CARGO_PKG_VERSION")))
        .build()
        .into();
    while let Some(event) = next(&mut events, "--announce-webhook", &stop).await {
        let announcement = Announcement::new(&event, network);
        tokio::select! {
            () = stop.cancelled() => return,
            () = deliver(&agent, url.expose(), &announcement, pace) => {}
        }
    }
}

async fn deliver(agent: &ureq::Agent, url: &str, announcement: &Announcement, pace: Pace) {
    let mut pause = pace.pause_first;
    let chain = announcement.chain.as_deref();
    for attempt in 1..=ATTEMPTS_MAX {
        let (agent, url, json) = (agent.clone(), url.to_owned(), announcement.json());
        let posting = tokio::task::spawn_blocking(move || post(&agent, &url, &json));
        let failure = match posting.await {
            Ok(Ok(())) => {
                info!(chain, event = announcement.event, hash = announcement.hash, "webhook delivered");
                return;
            }
            Ok(Err(failure)) => failure,
            Err(panic) => Failure { reason: panic.to_string(), is_final: true },
        };
        if failure.is_final || attempt == ATTEMPTS_MAX {
            let reason = failure.reason;
            warn!(
                chain,
                event = announcement.event,
                hash = announcement.hash,
                attempt,
                reason,
                "webhook delivery failed"
            );
            return;
        }
        debug!(
            chain,
            event = announcement.event,
            hash = announcement.hash,
            attempt,
            reason = failure.reason,
            "webhook delivery is retried"
        );
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
}

fn post(agent: &ureq::Agent, url: &str, json: &str) -> Result<(), Failure> {
    match agent.post(url).header("content-type", "application/json").send(json) {
        Ok(response) => {
            let status = response.status().as_u16();
            match status {
                200..=299 => Ok(()),
                // Asked to retry later, or a server error.
                408 | 429 | 500..=599 => Err(Failure { reason: format!("HTTP status {status}"), is_final: false }),
                _ => Err(Failure { reason: format!("HTTP status {status}"), is_final: true }),
            }
        }
        Err(error) => Err(Failure { reason: error.to_string().replace(url, "the URL"), is_final: false }),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::event;
    use super::*;
    use crate::blocks::found::EventKind;
    use sharechain::coin::BITCOIN_REGTEST;
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::TcpListener;
    use std::sync::mpsc;

    const PACE: Pace = Pace { time_max: Duration::from_secs(5), pause_first: Duration::from_millis(10) };

    /// Starts a server that gives these answers in turn, each on its own connection; returns the bodies it receives.
    fn server(answers: &'static [&'static str]) -> (String, mpsc::Receiver<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/secret", listener.local_addr().unwrap());
        let (bodies, received) = mpsc::channel();
        std::thread::spawn(move || {
            for answer in answers {
                let (stream, _) = listener.accept().unwrap();
                let mut reader = BufReader::new(stream);
                let mut length = 0;
                loop {
                    let mut line = String::new();
                    reader.read_line(&mut line).unwrap();
                    if let Some(text) = line.to_lowercase().strip_prefix("content-length:") {
                        length = text.trim().parse().unwrap();
                    }
                    if line.trim().is_empty() {
                        break;
                    }
                }
                let mut body = vec![0; length];
                reader.read_exact(&mut body).unwrap();
                bodies.send(String::from_utf8(body).unwrap()).unwrap();
                let head = format!("HTTP/1.1 {answer}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                reader.get_mut().write_all(head.as_bytes()).unwrap();
            }
        });
        (url, received)
    }

    /// Posts one event to the server; returns the bodies it received.
    async fn delivered(answers: &'static [&'static str]) -> Vec<String> {
        let (url, received) = server(answers);
        let (events, heard) = broadcast::channel(1);
        events.send(event(EventKind::Found, "alice")).unwrap();
        drop(events);
        run(Secret::new(url), &BITCOIN_REGTEST, heard, PACE, CancellationToken::new()).await;
        received.try_iter().collect()
    }

    #[tokio::test]
    async fn an_event_is_posted_as_json_and_again_until_it_is_taken() {
        let bodies = delivered(&["503 Busy", "429 Slow down", "204 Fine"]).await;
        assert_eq!(bodies.len(), 3);
        let json: serde_json::Value = serde_json::from_str(&bodies[2]).unwrap();
        assert_eq!((&json["event"], &json["finder"]), (&"found".into(), &"alice".into()));
        assert!(json["content"].as_str().unwrap().contains("block 850000 was found"), "{json}");
    }

    #[tokio::test]
    async fn what_is_refused_is_not_sent_again() {
        for refusal in [&["404 Unknown", "204 Fine"], &["302 Elsewhere", "204 Fine"]] {
            assert_eq!(delivered(refusal).await.len(), 1);
        }
    }

    #[tokio::test]
    async fn nobody_there_is_given_up_on_and_named_to_nobody() {
        let url = format!("http://{}/secret", TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
        let agent: ureq::Agent = ureq::Agent::config_builder().timeout_global(Some(PACE.time_max)).build().into();
        let failure = post(&agent, &url, "{}").unwrap_err();
        assert!(!failure.is_final && !failure.reason.contains("secret"), "{failure:?}");
    }
}
