//! IRC bot that announces the pool's accepted blocks, as P2Pool's did (`--irc-announce`). Blocks that another bot has
//! announced in the channel are skipped.

use futures::StreamExt;
use irc_proto::{Command, Message, Response};
use sharechain::coin::Network;
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::sync::broadcast;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tokio_util::codec::FramedRead;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{next, printable};
use crate::blocks::found::{Event, EventKind};
use crate::runtime::json_lines::LineCodec;

/// Maximum length of a nick that every server accepts, in characters.
const NICK_MAX: usize = 9;

/// Timeout for connecting, and for sending a line.
const SEND_MAX: Duration = Duration::from_secs(30);

/// Idle time after which the server is pinged; after twice as long the connection is closed.
const QUIET_MAX: Duration = Duration::from_secs(150);

/// First and longest pause before reconnecting; it doubles after each failure.
const PAUSE_FIRST: Duration = Duration::from_secs(10);
const PAUSE_LONGEST: Duration = Duration::from_secs(600);

/// Mean of the random delay for others' blocks, so that only one of all bots announces a block, as P2Pool's did.
const WAIT_MEAN: Duration = Duration::from_secs(60);

/// Maximum of the random delay.
const WAIT_MAX: Duration = Duration::from_secs(300);

/// Minimum time between announcements of merged chains' blocks, which may come every few seconds: the channel is the
/// pool's.
const MERGED_PAUSE: Duration = Duration::from_secs(60);

/// Capacity of the queue of announcements.
const WAITING_MAX: usize = 64;

/// Lines of the channel that are remembered.
const HEARD_MAX: usize = 100;

/// Maximum length of a message, in characters: a line has at most 512 bytes with its envelope.
const TEXT_MAX: usize = 350;

/// Server, channel and nick of the bot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Host name or IP address of the server.
    pub host: String,
    pub port: u16,
    /// Set to use TLS.
    pub tls: bool,
    pub channel: String,
    /// Nick of the bot; digits are added if it is in use.
    pub nick: String,
}

/// Default port without TLS.
pub const PORT: u16 = 6667;
/// Default port with TLS.
pub const TLS_PORT: u16 = 6697;

impl Config {
    /// Returns the channel of P2Pool's nodes on `network`, on Libera Chat, where free software projects moved from
    /// P2Pool's old IRC network; with a random nick.
    pub fn on(network: &Network) -> Self {
        let channel = match network.name {
            "bitcoin" => "#p2pool",
            "litecoin" => "#p2pool-ltc",
            _ => "#p2pool-alt",
        };
        Self {
            host: "irc.libera.chat".to_owned(),
            port: TLS_PORT,
            tls: true,
            channel: channel.to_owned(),
            nick: another_nick("p2pool"),
        }
    }
}

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}:{}", self.channel, self.host, self.port)
    }
}

/// Returns a TLS configuration with the root certificates that browsers trust.
pub(super) fn public_roots() -> Arc<ClientConfig> {
    client_config(RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() })
}

fn client_config(roots: RootCertStore) -> Arc<ClientConfig> {
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring speaks the default versions of TLS");
    Arc::new(config.with_root_certificates(roots).with_no_client_auth())
}

/// Announces accepted blocks until `stop`.
pub(super) async fn run(
    config: Config,
    tls: Arc<ClientConfig>,
    network: &'static Network,
    mut events: broadcast::Receiver<Event>,
    stop: CancellationToken,
) {
    let mut outbox =
        Outbox { network, waiting: VecDeque::new(), heard: VecDeque::new(), wait_mean: WAIT_MEAN, merged_at: None };
    let mut pause = PAUSE_FIRST;
    loop {
        let mut session = Session { config: &config, outbox: &mut outbox, has_joined: false };
        let ended = session.run(&tls, &mut events, &stop).await;
        if session.has_joined {
            pause = PAUSE_FIRST;
        }
        match ended {
            Ended::Stopped => return,
            Ended::Broken(reason) => warn!(place = %config, reason, again_after = ?pause, "not on IRC"),
        }
        let until = Instant::now() + pause;
        pause = (2 * pause).min(PAUSE_LONGEST);
        loop {
            tokio::select! {
                () = sleep_until(until) => break,
                event = next(&mut events, "--irc-announce", &stop) => match event {
                    Some(event) => outbox.take(&event),
                    None => return,
                },
            }
        }
    }
}

enum Ended {
    Stopped,
    Broken(String),
}

/// Announcements waiting to be sent, and the channel's latest lines.
struct Outbox {
    network: &'static Network,
    waiting: VecDeque<(Instant, String, String)>,
    heard: VecDeque<String>,
    wait_mean: Duration,
    /// Time of the latest announcement of a merged chain's block.
    merged_at: Option<Instant>,
}

impl Outbox {
    fn take(&mut self, event: &Event) {
        let record = &event.record;
        let hash = record.hash.to_string();
        if event.kind != EventKind::Accepted || self.waiting.iter().any(|(_, known, _)| *known == hash) {
            return;
        }
        if record.chain.is_some() {
            if self.merged_at.is_some_and(|at| at.elapsed() < MERGED_PAUSE) {
                debug!(hash, "a merged chain's block follows another too soon to be announced on IRC");
                return;
            }
            self.merged_at = Some(Instant::now());
        }
        if self.waiting.len() == WAITING_MAX {
            self.waiting.pop_front();
        }
        // The finder's node announces first.
        let wait = if record.finding.is_ours { Duration::ZERO } else { random_wait(self.wait_mean) };
        let name = self.network.name.to_uppercase();
        let height = record.height.map_or_else(|| "?".to_owned(), |height| height.to_string());
        let payee: String = printable(&record.finding.payee).chars().take(TEXT_MAX / 2).collect();
        let text = match &record.chain {
            None => format!("\u{2}{name} BLOCK FOUND by {payee}! Height {height}, {hash}\u{2}"),
            Some(chain) => {
                let chain = chain.to_uppercase();
                format!("\u{2}{chain} BLOCK FOUND, merged with {name}, for {payee}! Height {height}, {hash}\u{2}")
            }
        };
        self.waiting.push_back((Instant::now() + wait, hash, text));
    }

    /// Returns the time at which the next announcement is due.
    fn due(&self) -> Option<Instant> {
        self.waiting.iter().map(|(due, ..)| *due).min()
    }

    /// Returns the due texts whose blocks were not announced in the channel yet.
    fn take_due(&mut self, now: Instant) -> Vec<String> {
        let (due, waiting) = self.waiting.drain(..).partition::<VecDeque<_>, _>(|(due, ..)| *due <= now);
        self.waiting = waiting;
        let is_news = |hash: &str| !self.heard.iter().any(|line| line.contains(hash));
        due.into_iter().filter(|(_, hash, _)| is_news(hash)).map(|(.., text)| text).collect()
    }

    fn hear(&mut self, text: &str) {
        if self.heard.len() == HEARD_MAX {
            self.heard.pop_front();
        }
        self.heard.push_back(text.to_lowercase());
    }
}

/// Returns a random delay from an exponential distribution.
fn random_wait(mean: Duration) -> Duration {
    mean.mul_f64(-(1.0 - fastrand::f64()).ln()).min(WAIT_MAX)
}

/// One connection.
struct Session<'a> {
    config: &'a Config,
    outbox: &'a mut Outbox,
    has_joined: bool,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

type Reader = FramedRead<ReadHalf<Box<dyn Stream>>, LineCodec>;
type Writer = WriteHalf<Box<dyn Stream>>;

impl Session<'_> {
    async fn run(
        &mut self,
        tls: &Arc<ClientConfig>,
        events: &mut broadcast::Receiver<Event>,
        stop: &CancellationToken,
    ) -> Ended {
        let connected = tokio::select! {
            () = stop.cancelled() => return Ended::Stopped,
            connected = timeout(SEND_MAX, connect(self.config, tls)) => connected,
        };
        let stream = match connected {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Ended::Broken(format!("cannot connect: {error}")),
            Err(_) => return Ended::Broken(format!("no connection within {SEND_MAX:?}")),
        };
        let (reader, mut writer) = tokio::io::split(stream);
        let mut reader = FramedRead::new(reader, LineCodec::default());
        match self.talk(&mut reader, &mut writer, events, stop).await {
            Ok(()) => {
                let _ = send(&mut writer, Command::QUIT(Some("p2pool is stopping".to_owned()))).await;
                Ended::Stopped
            }
            Err(reason) => Ended::Broken(reason),
        }
    }

    async fn talk(
        &mut self,
        reader: &mut Reader,
        writer: &mut Writer,
        events: &mut broadcast::Receiver<Event>,
        stop: &CancellationToken,
    ) -> Result<(), String> {
        let mut nick = self.config.nick.clone();
        send(writer, Command::NICK(nick.clone())).await?;
        send(writer, Command::USER(self.config.nick.clone(), "0".to_owned(), "p2pool".to_owned())).await?;
        let (mut quiet_until, mut was_asked) = (Instant::now() + QUIET_MAX, false);
        loop {
            let due = self.outbox.due().filter(|_| self.has_joined);
            tokio::select! {
                event = next(events, "--irc-announce", stop) => match event {
                    Some(event) => self.outbox.take(&event),
                    None => return Ok(()),
                },
                line = reader.next() => {
                    let line = line.ok_or("the server closed the connection")?.map_err(|error| error.to_string())?;
                    (quiet_until, was_asked) = (Instant::now() + QUIET_MAX, false);
                    let line = String::from_utf8_lossy(&line);
                    // Lines that do not parse are ignored.
                    if let Ok(message) = line.trim_end().parse::<Message>() {
                        self.answer(&message, &mut nick, writer).await?;
                    }
                }
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    for text in self.outbox.take_due(Instant::now()) {
                        info!(place = %self.config, text = printable(&text), "announced on IRC");
                        self.outbox.hear(&text);
                        let text: String = text.chars().take(TEXT_MAX).collect();
                        send(writer, Command::PRIVMSG(self.config.channel.clone(), text)).await?;
                    }
                }
                () = sleep_until(quiet_until) => {
                    if was_asked {
                        return Err("the server does not answer".to_owned());
                    }
                    (quiet_until, was_asked) = (Instant::now() + QUIET_MAX, true);
                    send(writer, Command::PING("p2pool".to_owned(), None)).await?;
                }
            }
        }
    }

    async fn answer(&mut self, message: &Message, nick: &mut String, writer: &mut Writer) -> Result<(), String> {
        match &message.command {
            Command::PING(token, _) => send(writer, Command::PONG(token.clone(), None)).await?,
            Command::Response(Response::RPL_WELCOME, _) => {
                send(writer, Command::JOIN(self.config.channel.clone(), None, None)).await?;
            }
            Command::Response(Response::ERR_NICKNAMEINUSE, _) if !self.has_joined => {
                *nick = another_nick(&self.config.nick);
                send(writer, Command::NICK(nick.clone())).await?;
            }
            Command::JOIN(channel, ..) if channel.eq_ignore_ascii_case(&self.config.channel) => {
                let is_us = message.source_nickname().is_some_and(|who| who.eq_ignore_ascii_case(nick));
                if is_us && !self.has_joined {
                    self.has_joined = true;
                    info!(place = %self.config, nick = printable(nick), "joined the IRC channel");
                }
            }
            Command::PRIVMSG(channel, text) if channel.eq_ignore_ascii_case(&self.config.channel) => {
                self.outbox.hear(text);
            }
            Command::ERROR(reason) => return Err(printable(reason)),
            Command::Response(response, words) if response.is_error() && !self.has_joined => {
                return Err(printable(&format!("{response:?}: {}", words.join(" "))));
            }
            _ => debug!(message = printable(message.to_string().trim_end()), "IRC message ignored"),
        }
        Ok(())
    }
}

/// Returns `nick` with random digits, short enough for every server (RFC 2812 section 1.2.1).
pub fn another_nick(nick: &str) -> String {
    let stem: String = nick.chars().take(NICK_MAX - 3).collect();
    format!("{stem}{}", fastrand::u32(100..1000))
}

async fn connect(config: &Config, tls: &Arc<ClientConfig>) -> std::io::Result<Box<dyn Stream>> {
    let stream = TcpStream::connect((config.host.as_str(), config.port)).await?;
    if !config.tls {
        return Ok(Box::new(stream));
    }
    let name = ServerName::try_from(config.host.clone()).map_err(std::io::Error::other)?;
    Ok(Box::new(TlsConnector::from(tls.clone()).connect(name, stream).await?))
}

async fn send(writer: &mut Writer, command: Command) -> Result<(), String> {
    let line = Message::from(command).to_string();
    let sending = async {
        writer.write_all(line.as_bytes()).await?;
        writer.flush().await
    };
    match timeout(SEND_MAX, sending).await {
        Ok(sent) => sent.map_err(|error| error.to_string()),
        Err(_) => Err(format!("sending a line timed out after {SEND_MAX:?}")),
    }
}

#[cfg(test)]
mod tests;
