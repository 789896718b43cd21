//! What the options say about telling of found blocks.

use clap::Args;
use sharechain::coin::Network;

use super::Problems;
use crate::blocks::announce::{self, irc};
use crate::peers::Host;

/// The IRC network that the free software projects of P2Pool's old one moved to.
const IRC_SERVER: &str = "ircs://irc.libera.chat";

/// Ports without and with TLS.
const IRC_PORT: u16 = 6667;
const IRCS_PORT: u16 = 6697;

/// Options that announce found blocks outside of this process.
#[derive(Debug, Args)]
#[command(next_help_heading = "Notifications")]
pub(super) struct AnnounceArgs {
    /// A command for sh, run when a block is found, accepted, mature, stale, orphaned or rejected; P2POOL_BLOCK_EVENT,
    /// _HASH, _HEIGHT, _VALUE, _PAYEE, _FINDER, _IS_OURS and _TEXT say what and which, and standard input has it all as
    /// JSON.
    #[arg(long, value_name = "CMD", env = "P2POOL_ANNOUNCE_HOOK")]
    announce_hook: Option<String>,
    /// An address that the same JSON is posted to.
    #[arg(long, value_name = "URL", env = "P2POOL_ANNOUNCE_WEBHOOK")]
    announce_webhook: Option<String>,
    /// Tell an IRC channel of the pool's accepted blocks.
    #[arg(long, env = "P2POOL_IRC_ANNOUNCE")]
    irc_announce: bool,
    /// The IRC server; irc:// speaks no TLS.
    #[arg(long, value_name = "[ircs://]HOST[:PORT]", default_value = IRC_SERVER, env = "P2POOL_IRC_SERVER")]
    irc_server: String,
    /// The IRC channel [default: #p2pool on bitcoin, #p2pool-ltc on litecoin, else #p2pool-alt].
    #[arg(long, value_name = "CHANNEL", env = "P2POOL_IRC_CHANNEL")]
    irc_channel: Option<String>,
    /// What the node is called on IRC [default: p2pool and a random number].
    #[arg(long, value_name = "NAME", env = "P2POOL_IRC_NICK")]
    irc_nick: Option<String>,
    /// Accepted, as P2Pool had it. Nothing about this node is ever reported to anybody, with or without it.
    #[arg(long, env = "P2POOL_NO_BUGREPORT")]
    no_bugreport: bool,
}

/// Whom to tell.
pub(super) fn announce(
    arguments: &AnnounceArgs,
    network: Option<&'static Network>,
    problems: &mut Problems,
) -> Option<announce::Config> {
    let webhook = match &arguments.announce_webhook {
        Some(url) => problems.take("--announce-webhook", web_address(url)).map(Some),
        None => Some(None),
    };
    let server = problems.take("--irc-server", irc_server(&arguments.irc_server));
    let channel = match &arguments.irc_channel {
        Some(channel) => problems.take("--irc-channel", irc_channel(channel)),
        None => Some(default_channel(network).to_owned()),
    };
    let nick = match &arguments.irc_nick {
        Some(nick) => problems.take("--irc-nick", irc_nick(nick)),
        None => Some(irc::another_nick("p2pool")),
    };
    let (host, port, tls) = server?;
    let irc = irc::Config { host, port, tls, channel: channel?, nick: nick? };
    Some(announce::Config {
        hook: arguments.announce_hook.clone(),
        webhook: webhook?,
        irc: arguments.irc_announce.then_some(irc),
    })
}

fn web_address(text: &str) -> Result<String, String> {
    let address: Option<axum::http::Uri> = text.parse().ok();
    let is_web = address.is_some_and(|address| {
        matches!(address.scheme_str(), Some("http" | "https")) && address.host().is_some_and(|host| !host.is_empty())
    });
    // What is wrong is not shown: it may hold a secret.
    if is_web {
        Ok(text.to_owned())
    } else {
        Err("it is not an address that begins with http:// or https://".to_owned())
    }
}

fn irc_server(text: &str) -> Result<(String, u16, bool), String> {
    let wrong = || format!("`{text}` is not [ircs://]HOST[:PORT] or irc://HOST[:PORT]");
    let (tls, rest) = match text.split_once("://") {
        Some(("ircs", rest)) => (true, rest),
        Some(("irc", rest)) => (false, rest),
        Some(_) => return Err(wrong()),
        None => (true, text),
    };
    let default_port = if tls { IRCS_PORT } else { IRC_PORT };
    let host = Host::parse(rest, default_port).ok_or_else(wrong)?;
    Ok((host.name().to_owned(), host.port(), tls))
}

fn irc_channel(text: &str) -> Result<String, String> {
    let is_channel = text.starts_with(['#', '&']) && is_word(text, 50);
    if is_channel { Ok(text.to_owned()) } else { Err(format!("`{text}` is not a channel, such as #p2pool")) }
}

fn irc_nick(text: &str) -> Result<String, String> {
    let is_nick = is_word(text, 30) && text.starts_with(|first: char| !first.is_ascii_digit() && first != '-');
    if is_nick { Ok(text.to_owned()) } else { Err(format!("`{text}` is not a name on IRC, such as p2pool-node")) }
}

/// What stands as one word in a line of IRC.
fn is_word(text: &str, length_max: usize) -> bool {
    (2..=length_max).contains(&text.len())
        && text.chars().all(|character| character.is_ascii_graphic() && !matches!(character, ',' | ':'))
}

/// The channels that P2Pool's nodes met in.
fn default_channel(network: Option<&Network>) -> &'static str {
    match network.map(|network| network.name) {
        Some("bitcoin") | None => "#p2pool",
        Some("litecoin") => "#p2pool-ltc",
        Some(_) => "#p2pool-alt",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn irc_servers_with_and_without_scheme_and_port() {
        let server = |text| irc_server(text).unwrap();
        assert_eq!(server("ircs://irc.example"), ("irc.example".into(), 6697, true));
        assert_eq!(server("irc.example:7000"), ("irc.example".into(), 7000, true));
        assert_eq!(server("irc://127.0.0.1"), ("127.0.0.1".into(), 6667, false));
        assert_eq!(server("irc://[::1]:6668"), ("::1".into(), 6668, false));
        for text in ["http://irc.example", "a b", "irc.example:0", ""] {
            assert!(irc_server(text).unwrap_err().contains(&format!("`{text}`")), "{text}");
        }
    }

    #[test]
    fn what_would_be_another_line_or_word_of_irc_is_refused() {
        for text in ["p2pool", "#a b", "#a\r\nQUIT", "#a,b", "#", ""] {
            assert!(irc_channel(text).is_err(), "{text}");
        }
        for text in ["1node", "a b", "a\n", ":a", ""] {
            assert!(irc_nick(text).is_err(), "{text}");
        }
        assert!(irc_channel("#p2pool-ltc").is_ok() && irc_nick("node_1").is_ok());
    }

    #[test]
    fn a_webhook_is_a_web_address_and_is_not_repeated_where_it_is_none() {
        assert!(web_address("https://example.org/hooks/secret?x=1").is_ok());
        assert!(web_address("http://127.0.0.1:8080").is_ok());
        for text in ["ftp://secret", "secret", "https://", ""] {
            assert!(!web_address(text).unwrap_err().contains("secret"), "{text}");
        }
    }
}
