//! Options of the notifications about found blocks.

use super::options::Opt;
use super::values;
use crate::blocks::announce::irc;
use crate::node::Config;
use crate::peers::Host;
use crate::runtime::secret::Secret;

const HEADING: &str = "Notifications";

/// Options whose values may hold a secret: a command with credentials, a URL with a token.
pub(super) const HOOK: &str = "announce-hook";
pub(super) const WEBHOOK: &str = "announce-webhook";

pub(super) fn options() -> Vec<Opt<Config>> {
    let options = vec![
        Opt::optional(HOOK, "CMD", values::text, |config: &mut Config, command| {
            config.announce.hook = Some(Secret::new(command));
        })
        .help(
            "Shell command to run when a block is found, accepted, mature, stale, orphaned or rejected; the event is \
             passed in P2POOL_BLOCK_EVENT, _HASH, _HEIGHT, _VALUE, _PAYEE, _FINDER, _IS_OURS and _TEXT (and _CHAIN if \
             it is of a merged chain), and as JSON on standard input",
        ),
        Opt::optional(WEBHOOK, "URL", web_address, |config: &mut Config, url| {
            config.announce.webhook = Some(Secret::new(url));
        })
        .help("URL to post the same JSON to"),
        Opt::flag("irc-announce", |config: &mut Config| config.announce.irc = Some(irc::Config::on(config.network)))
            .help("Announce the pool's accepted blocks on IRC"),
        bot("irc-server", "[ircs://]HOST[:PORT]", irc_server, |bot, server| {
            (bot.host, bot.port, bot.tls) = server;
        })
        .default(|config| show_server(&irc::Config::on(config.network)))
        .help("IRC server; irc:// disables TLS"),
        bot("irc-channel", "CHANNEL", irc_channel, |bot, channel| bot.channel = channel)
            .derived(|config| vec![irc::Config::on(config.network).channel])
            .help("IRC channel [default: #p2pool on bitcoin, #p2pool-ltc on litecoin, else #p2pool-alt]"),
        bot("irc-nick", "NAME", irc_nick, |bot, nick| bot.nick = nick)
            .help("IRC nickname [default: p2pool and a random number]"),
        Opt::flag("no-bugreport", |_| ())
            .help("No effect: accepted for compatibility with the Python node. This program never sends bug reports"),
    ];
    options.into_iter().map(|option| option.heading(HEADING)).collect()
}

/// Option of the IRC bot. No effect without `--irc-announce`, which is applied before.
fn bot<T: Clone + Send + Sync + 'static>(
    name: &'static str,
    unit: &'static str,
    parse: impl values::Parse<T>,
    set: fn(&mut irc::Config, T),
) -> Opt<Config> {
    Opt::setter(name, unit, parse, move |config: &mut Config, value| {
        if let Some(bot) = &mut config.announce.irc {
            set(bot, value);
        }
        Ok(())
    })
}

fn web_address(text: &str) -> Result<String, String> {
    let address: Option<axum::http::Uri> = text.parse().ok();
    let is_web = address.is_some_and(|address| {
        matches!(address.scheme_str(), Some("http" | "https")) && address.host().is_some_and(|host| !host.is_empty())
    });
    // The error does not repeat the value: it may hold a secret.
    if is_web { Ok(text.to_owned()) } else { Err("not a URL that begins with http:// or https://".to_owned()) }
}

fn irc_server(text: &str) -> Result<(String, u16, bool), String> {
    let wrong = || format!("`{text}` is not [ircs://]HOST[:PORT] or irc://HOST[:PORT]");
    let (tls, rest) = match text.split_once("://") {
        Some(("ircs", rest)) => (true, rest),
        Some(("irc", rest)) => (false, rest),
        Some(_) => return Err(wrong()),
        None => (true, text),
    };
    let default_port = if tls { irc::TLS_PORT } else { irc::PORT };
    let host = Host::parse(rest, default_port).ok_or_else(wrong)?;
    Ok((host.name().to_owned(), host.port(), tls))
}

/// Inverse of [`irc_server`], without the port: a network's own server has the default one.
fn show_server(bot: &irc::Config) -> String {
    format!("{}://{}", if bot.tls { "ircs" } else { "irc" }, bot.host)
}

fn irc_channel(text: &str) -> Result<String, String> {
    let is_channel = text.starts_with(['#', '&']) && is_word(text, 50);
    if is_channel { Ok(text.to_owned()) } else { Err(format!("`{text}` is not a channel, such as #p2pool")) }
}

fn irc_nick(text: &str) -> Result<String, String> {
    let is_nick = is_word(text, 30) && text.starts_with(|first: char| !first.is_ascii_digit() && first != '-');
    if is_nick { Ok(text.to_owned()) } else { Err(format!("`{text}` is not an IRC nickname, such as p2pool-node")) }
}

/// Returns whether `text` is one word of an IRC message.
fn is_word(text: &str, length_max: usize) -> bool {
    (2..=length_max).contains(&text.len())
        && text.chars().all(|character| character.is_ascii_graphic() && !matches!(character, ',' | ':'))
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
    fn the_default_server_is_shown_as_it_is_read() {
        let bot = irc::Config::on(&sharechain::coin::BITCOIN);
        assert_eq!(irc_server(&show_server(&bot)).unwrap(), (bot.host, bot.port, bot.tls));
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
