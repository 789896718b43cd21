//! The bot talks to a server as IRC servers are, and announces each block once.

use super::super::tests::{event, merged};
use super::*;
use sharechain::coin::BITCOIN;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Server side of one connection.
struct Server(tokio::io::BufReader<Box<dyn Stream>>);

impl Server {
    async fn accept(listener: &TcpListener, acceptor: Option<&TlsAcceptor>) -> Self {
        let (stream, _) = listener.accept().await.unwrap();
        let stream: Box<dyn Stream> = match acceptor {
            Some(acceptor) => Box::new(acceptor.accept(stream).await.unwrap()),
            None => Box::new(stream),
        };
        Self(BufReader::new(stream))
    }

    async fn line(&mut self) -> String {
        let mut line = String::new();
        timeout(Duration::from_secs(20), self.0.read_line(&mut line)).await.unwrap().unwrap();
        line.trim_end().to_owned()
    }

    async fn say(&mut self, line: &str) {
        self.0.write_all(format!("{line}\r\n").as_bytes()).await.unwrap();
        self.0.flush().await.unwrap();
    }

    /// Registers the bot, whose first nick is in use.
    async fn welcome(&mut self) {
        assert_eq!(self.line().await, "NICK p2pool");
        assert_eq!(self.line().await, "USER p2pool 0 * p2pool");
        self.say(":irc.test 433 * p2pool :Nickname is already in use").await;
        let line = self.line().await;
        let nick = line.strip_prefix("NICK ").unwrap();
        assert!(nick.starts_with("p2pool") && nick.len() == NICK_MAX, "{line}");
        self.say(":irc.test PING :token").await;
        assert_eq!(self.line().await, "PONG token");
        self.say(&format!(":irc.test 001 {nick} :Welcome")).await;
        assert_eq!(self.line().await, "JOIN #p2pool");
        self.say(&format!(":{nick}!~p2pool@here JOIN :#p2pool")).await;
    }
}

fn outbox() -> Outbox {
    let (waiting, heard) = (VecDeque::new(), VecDeque::new());
    Outbox { network: &BITCOIN, waiting, heard, wait_mean: Duration::ZERO, merged_at: None }
}

struct Bot {
    events: broadcast::Sender<Event>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

fn bot(port: u16, tls: Option<Arc<ClientConfig>>) -> Bot {
    let (events, heard) = broadcast::channel(8);
    let stop = CancellationToken::new();
    let config =
        Config { host: "localhost".into(), port, tls: tls.is_some(), channel: "#p2pool".into(), nick: "p2pool".into() };
    let task = tokio::spawn(run(config, tls.unwrap_or_else(public_roots), &BITCOIN, heard, stop.clone()));
    Bot { events, stop, task }
}

#[tokio::test]
async fn accepted_blocks_are_announced_in_the_channel_and_nothing_else_is() {
    let listener = TcpListener::bind("localhost:0").await.unwrap();
    let bot = bot(listener.local_addr().unwrap().port(), None);
    let mut server = Server::accept(&listener, None).await;
    // Before the bot has joined the channel.
    bot.events.send(event(EventKind::Found, "x")).unwrap();
    bot.events.send(event(EventKind::Accepted, "x")).unwrap();
    server.welcome().await;
    let line = server.line().await;
    let hash = "ab".repeat(32);
    assert_eq!(line, format!("PRIVMSG #p2pool :\u{2}BITCOIN BLOCK FOUND by bc1qpayee! Height 850000, {hash}\u{2}"));
    // Invalid UTF-8, and lines that are not messages.
    server.0.write_all(b"\xff\xfe\r\n:\r\n").await.unwrap();
    // It is not announced again.
    bot.events.send(event(EventKind::Accepted, "x")).unwrap();
    server.say("PING :still there").await;
    assert!(server.line().await.starts_with("PONG"));
    bot.stop.cancel();
    assert!(server.line().await.starts_with("QUIT"));
    bot.task.await.unwrap();
}

#[tokio::test]
async fn tls_is_spoken_and_the_servers_certificate_checked() {
    let key = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let certificate = CertificateDer::from(key.cert.der().to_vec());
    let private = PrivateKeyDer::try_from(key.signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], private)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let listener = TcpListener::bind("localhost:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let trusting = bot(port, Some(client_config(roots)));
    Server::accept(&listener, Some(&acceptor)).await.welcome().await;
    trusting.stop.cancel();
    trusting.task.await.unwrap();
    let suspicious = bot(port, Some(public_roots()));
    let (stream, _) = listener.accept().await.unwrap();
    assert!(acceptor.accept(stream).await.is_err(), "a self-signed certificate is refused");
    suspicious.stop.cancel();
    suspicious.task.await.unwrap();
}

#[tokio::test]
async fn what_another_bot_has_announced_is_not_repeated() {
    let mut outbox = outbox();
    outbox.take(&event(EventKind::Accepted, "x"));
    outbox.hear(&format!("BLOCK FOUND! {}", "AB".repeat(32)));
    assert_eq!(outbox.take_due(Instant::now()), Vec::<String>::new());
    assert_eq!(outbox.due(), None);
}

#[tokio::test(start_paused = true)]
async fn a_merged_chains_blocks_are_named_as_such_and_do_not_flood_the_channel() {
    let mut outbox = outbox();
    outbox.take(&merged(event(EventKind::Accepted, "x")));
    let hash = "ab".repeat(32);
    let text = format!("\u{2}DOGECOIN BLOCK FOUND, merged with BITCOIN, for bc1qpayee! Height 850000, {hash}\u{2}");
    assert_eq!(outbox.take_due(Instant::now()), [text]);
    outbox.take(&merged(event(EventKind::Accepted, "x")));
    assert_eq!(outbox.due(), None, "too soon");
    outbox.take(&event(EventKind::Accepted, "x"));
    assert_eq!(outbox.take_due(Instant::now()).len(), 1, "the parent chain's blocks are few");
    tokio::time::advance(MERGED_PAUSE).await;
    outbox.take(&merged(event(EventKind::Accepted, "x")));
    assert_eq!(outbox.take_due(Instant::now()).len(), 1);
}

#[test]
fn random_waits_are_about_the_mean_and_never_long() {
    let waits: Vec<f64> = (0..10_000).map(|_| random_wait(WAIT_MEAN).as_secs_f64()).collect();
    let mean = waits.iter().sum::<f64>() / 10_000.0;
    assert!((50.0..70.0).contains(&mean), "{mean}");
    assert!(waits.iter().all(|wait| *wait <= WAIT_MAX.as_secs_f64()));
}
