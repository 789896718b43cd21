//! Options of merged mining.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use std::ffi::OsStr;
use std::path::PathBuf;

use super::options::Opt;
use crate::bitcoind::credentials::{Credentials, Login};
use crate::merged::{CHAINS_MAX, ChainConfig, Config, Pays};
use crate::peers::Host;
use crate::runtime::secret::Secret;

/// Option of the chains.
pub(super) const CHAINS: &str = "merged";

/// Its syntax.
const CHAIN: &str = "URL[,address=A][,name=N][,mode=M][,login-file=FILE]";

/// Values of `mode=`.
const MODES: [(&str, Pays); 2] = [("payouts", Pays::Miners), ("single", Pays::One)];

/// Keys of user and password as parts of their own, percent-encoded as in a URL: what a table of the file becomes.
pub(super) const LOGIN_PARTS: [&str; 2] = ["user", "password"];

/// Maximum length of a name.
const NAME_MAX: usize = 32;

/// Maximum length of an address: the longest kinds have some two hundred characters.
const ADDRESS_MAX: usize = 256;

/// Way to write what would end a user or password.
const ENCODE: &str = "in user and password `,` is written %2C, `;` %3B, `/` %2F, `@` %40 and `%` %25";

/// Characters encoded in users and passwords.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

pub(super) fn options() -> Vec<Opt<Config>> {
    vec![
        Opt::list(CHAINS, CHAIN, Some(';'), chain, |config: &mut Config, chains| {
            check(&chains)?;
            config.chains = chains;
            Ok(())
        })
        .derived(|config| config.chains.iter().map(show_chain).collect())
        .help(
            "Chain to mine together with the network's own: URL of its daemon, http://USER:PASSWORD@HOST:PORT/, an \
             address of the chain that its blocks pay (without one they pay the daemon's wallet), a name for pages and \
             logs, and a file with USER:PASSWORD, such as the daemon's cookie, instead of those in the URL. Its blocks pay \
             the miners where shares are of version 36 and the chain is Dogecoin, else you alone; mode=single always you \
             alone, mode=payouts the miners or there are none. May be given several times",
        ),
        Opt::seconds("merged-pause", 0.0..=60.0, |config: &mut Config| &mut config.pause)
            .help("Minimum time between two changes of miners' jobs that only chains of --merged caused"),
    ]
}

/// Refuses chains that do not go together.
fn check(chains: &[ChainConfig]) -> Result<(), String> {
    if chains.len() > CHAINS_MAX {
        return Err(format!("{} chains, of which at most {CHAINS_MAX} can be mined together", chains.len()));
    }
    for (index, chain) in chains.iter().enumerate() {
        let before = &chains[..index];
        if before.iter().any(|other| (&other.host, other.port) == (&chain.host, chain.port)) {
            return Err(format!("the daemon at {} is given twice: a chain can be mined once", target(chain)));
        }
        if before.iter().any(|other| other.name == chain.name) {
            return Err(format!("two chains are named `{}`: give one of them another name (name=…)", chain.name));
        }
    }
    Ok(())
}

/// Returns whether `value` is a chain whose password stands in it.
pub(super) fn has_password(value: &OsStr) -> bool {
    value.to_str().is_some_and(|text| chain(text).is_ok_and(|chain| is_fixed(&chain)))
}

/// Returns whether the chain's password was given as an option.
pub(super) fn is_fixed(chain: &ChainConfig) -> bool {
    matches!(chain.credentials, Credentials::Fixed { .. })
}

/// Percent-encodes a user or password.
pub(super) fn encoded(text: &str) -> String {
    utf8_percent_encode(text, ENCODED).to_string()
}

/// Parses [`CHAIN`], or `ADDRESS%URL` as P2Pool's `--merged_addr` had it. No error repeats what may be of a password.
fn chain(text: &str) -> Result<ChainConfig, String> {
    let is_old = |(_, rest): &(&str, &str)| rest.starts_with("http://") || rest.starts_with("https://");
    let (old_address, text) = match text.split_once('%').filter(is_old) {
        Some((address, rest)) => (Some(address), rest),
        None => (None, text),
    };
    let (url, rest) = text.split_once(',').map_or((text, None), |(url, rest)| (url, Some(rest)));
    let Url { login, host, path } = Url::parse(url)?;
    let mut parts = Parts { login, ..Parts::default() };
    if let Some(address) = old_address {
        parts.set("address", address)?;
    }
    for part in rest.into_iter().flat_map(|rest| rest.split(',')) {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        if key != "login-file" && part.contains('@') {
            return Err(format!("`@` after a comma: {ENCODE}"));
        }
        parts.set(key, value)?;
    }
    Ok(ChainConfig {
        name: parts.name.take().unwrap_or_else(|| format!("merged-{}", host.port())).into(),
        host: host.name().to_owned(),
        port: host.port(),
        path,
        address: parts.address.take(),
        pays: parts.mode.take().unwrap_or_default(),
        credentials: parts.credentials()?,
    })
}

/// URL of a daemon's RPC.
struct Url {
    login: Option<(String, Secret)>,
    host: Host,
    path: String,
}

impl Url {
    /// Parses `http://[USER:PASSWORD@]HOST:PORT[/PATH]`.
    fn parse(text: &str) -> Result<Self, String> {
        const FORM: &str = "http://USER:PASSWORD@HOST:PORT/";
        let Some(rest) = text.strip_prefix("http://") else {
            return Err(match text.starts_with("https://") {
                true => "https:// is not spoken, since the chains' daemons do not: use http:// to a daemon on this \
                         machine, or to the near end of a tunnel (ssh -L, stunnel) to another"
                    .to_owned(),
                false => format!("a chain begins with the URL of its daemon, {FORM}"),
            });
        };
        let (authority, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
        if path.contains('@') {
            return Err(format!("`@` after a slash: {ENCODE}"));
        }
        if !path.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#".contains(&byte)) {
            return Err("the URL's path has characters that it cannot have".to_owned());
        }
        let (login, place) = match authority.rsplit_once('@') {
            Some((login, place)) => {
                let (user, password) = login.split_once(':').ok_or("the URL has a user without a password")?;
                (Some((decoded(user)?, Secret::new(decoded(password)?))), place)
            }
            None => (None, authority),
        };
        let wrong = || format!("the URL's host and port cannot be read: it is {FORM}, and {ENCODE}");
        let host = Host::parse(place, 0).ok_or_else(wrong)?;
        if host.port() == 0 {
            return Err(format!("the URL has no port: it is {FORM}"));
        }
        Ok(Self { login, host, path: path.to_owned() })
    }
}

/// Parts that follow the URL, and its user and password.
#[derive(Default)]
struct Parts {
    login: Option<(String, Secret)>,
    user: Option<String>,
    password: Option<Secret>,
    login_file: Option<PathBuf>,
    address: Option<String>,
    name: Option<String>,
    mode: Option<Pays>,
}

impl Parts {
    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        let is_second = match key {
            "address" => self.address.replace(address(value)?).is_some(),
            "name" => self.name.replace(name(value)?).is_some(),
            "mode" => self.mode.replace(mode(value)?).is_some(),
            "login-file" => self.login_file.replace(login_file(value)?).is_some(),
            "user" => self.user.replace(decoded(value)?).is_some(),
            "password" => self.password.replace(Secret::new(decoded(value)?)).is_some(),
            _ => return Err(format!("`{key}` is not address=ADDRESS, name=NAME, mode=MODE or login-file=FILE")),
        };
        if is_second { Err(format!("{key}= is given twice")) } else { Ok(()) }
    }

    fn credentials(self) -> Result<Credentials, String> {
        let alone = match (self.user, self.password) {
            (None, None) => None,
            (user, Some(password)) => Some((user.unwrap_or_default(), password)),
            (Some(_), None) => return Err("a user without a password".to_owned()),
        };
        let login = match (self.login, alone, self.login_file) {
            (Some(login), None, None) | (None, Some(login), None) => login,
            (None, None, Some(path)) => return Ok(Credentials::File { path }),
            (None, None, None) => {
                let how = "write them into the URL (http://USER:PASSWORD@HOST:PORT/), or name a file with USER:PASSWORD, \
                           such as the daemon's cookie (login-file=FILE)";
                return Err(format!("the daemon's user and password are missing: {how}"));
            }
            _ => {
                return Err(
                    "user and password are given twice: in the URL, apart from it, or in a login-file".to_owned()
                );
            }
        };
        let (user, password) = login;
        if password.expose().is_empty() {
            return Err("the password is empty".to_owned());
        }
        if user.contains(':') {
            return Err("a user name cannot have a colon".to_owned());
        }
        Ok(Credentials::Fixed { login: Login { user, password }, origin: "those given with --merged".to_owned() })
    }
}

/// Decodes a percent-encoded user or password.
fn decoded(text: &str) -> Result<String, String> {
    let is_escape = |rest: &str| {
        let mut digits = rest.bytes().take(2).filter(u8::is_ascii_hexdigit);
        digits.next().is_some() && digits.next().is_some()
    };
    if !text.split('%').skip(1).all(is_escape) {
        return Err("a `%` in user or password is written %25: it begins the code of a character".to_owned());
    }
    let decoded = percent_decode_str(text).decode_utf8().map_err(|_| "user or password are not UTF-8")?;
    if decoded.chars().any(char::is_control) {
        return Err("user or password contain a control character".to_owned());
    }
    Ok(decoded.into_owned())
}

fn address(text: &str) -> Result<String, String> {
    let is_address = (1..=ADDRESS_MAX).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b":_-".contains(&byte));
    if is_address { Ok(text.to_owned()) } else { Err(format!("`{text}` is not an address")) }
}

fn name(text: &str) -> Result<String, String> {
    let is_name = (1..=NAME_MAX).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    let wrong = || format!("`{text}` is not a name: 1 to {NAME_MAX} of a to z, digits and -");
    if is_name { Ok(text.to_owned()) } else { Err(wrong()) }
}

fn mode(text: &str) -> Result<Pays, String> {
    let wrong = || format!("`{text}` is not a mode: payouts pays the miners, single one payee");
    MODES.iter().find(|(word, _)| *word == text).map(|(_, pays)| *pays).ok_or_else(wrong)
}

fn login_file(text: &str) -> Result<PathBuf, String> {
    match text {
        "" => Err("login-file= names no file".to_owned()),
        text if text.starts_with('~') => Err(format!("`{text}`: no shell expands the ~ here, write the whole path")),
        text => Ok(text.into()),
    }
}

/// Address and port of the chain's daemon.
fn target(chain: &ChainConfig) -> String {
    let ChainConfig { host, port, .. } = chain;
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Inverse of [`chain`], with `***` for a password.
fn show_chain(chain: &ChainConfig) -> String {
    let (login, file) = match &chain.credentials {
        Credentials::Fixed { login, .. } => (format!("{}:***@", encoded(&login.user)), None),
        Credentials::File { path } => (String::new(), Some(path)),
        // Not to be had by options.
        Credentials::Cookie { .. } => (String::new(), None),
    };
    let mut parts = vec![format!("http://{login}{}{}", target(chain), chain.path)];
    parts.extend(chain.address.iter().map(|address| format!("address={address}")));
    parts.push(format!("name={}", chain.name));
    parts.extend(MODES.iter().filter(|(_, pays)| *pays == chain.pays).map(|(word, _)| format!("mode={word}")));
    parts.extend(file.map(|path| format!("login-file={}", path.display())));
    parts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn login(text: &str) -> Result<(String, String), String> {
        match chain(text)?.credentials {
            Credentials::Fixed { login, .. } => Ok((login.user, login.password.expose().to_owned())),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_chain_is_what_the_original_took_and_more() {
        let doge = chain("http://user:pass@127.0.0.1:22555/").unwrap();
        let wanted = ChainConfig {
            name: "merged-22555".into(),
            host: "127.0.0.1".to_owned(),
            port: 22555,
            path: "/".to_owned(),
            credentials: Credentials::Fixed {
                login: Login { user: "user".to_owned(), password: Secret::new("pass") },
                origin: "those given with --merged".to_owned(),
            },
            address: None,
            pays: Pays::MinersIfPossible,
        };
        assert_eq!(doge, wanted);
        assert_eq!(chain("http://user:pass@127.0.0.1:22555"), Ok(wanted.clone()), "the path may be missing");
        let paid = ChainConfig { address: Some("DAddress".to_owned()), ..wanted };
        assert_eq!(chain("DAddress%http://user:pass@127.0.0.1:22555/"), Ok(paid.clone()), "as with --merged_addr");
        let named = ChainConfig { name: "doge-2".into(), path: "/wallet/a-b".to_owned(), ..paid };
        assert_eq!(chain("http://user:pass@127.0.0.1:22555/wallet/a-b,name=doge-2,address=DAddress"), Ok(named));
        for (mode, pays) in [("payouts", Pays::Miners), ("single", Pays::One)] {
            assert_eq!(chain(&format!("http://u:p@h:1/,mode={mode}")).unwrap().pays, pays);
        }
        let other = chain("http://[::1]:1,login-file=/etc/p2pool/d@ge,address=bc:q_-1").unwrap();
        assert_eq!((other.host.as_str(), other.port, other.address.as_deref()), ("::1", 1, Some("bc:q_-1")));
        assert_eq!(other.credentials, Credentials::File { path: "/etc/p2pool/d@ge".into() });
        assert_eq!(chain("http://a:b@doge.example:1/").unwrap().host, "doge.example");
    }

    #[test]
    fn users_and_passwords_are_percent_decoded() {
        let both = |user: &str, password: &str| Ok((user.to_owned(), password.to_owned()));
        assert_eq!(login("http://a%3Bb:%25%2c%2F%40%C3%BC:x@h:1/"), both("a;b", "%,/@ü:x"));
        assert_eq!(login("http://:secret@h:1/"), both("", "secret"), "a password alone, as old daemons take it");
        assert_eq!(login("http://u:p@ss=w?rd#!@h:1/"), both("u", "p@ss=w?rd#!"), "as the original took it");
        assert_eq!(login("http://h:1/,user=a%20b,password=c%2Cd"), both("a b", "c,d"));
        assert_eq!(login("http://h:1,password=c"), both("", "c"));
    }

    #[test]
    fn what_is_wrong_is_named_with_the_way_out_and_no_password_is_repeated() {
        for (text, reported) in [
            ("", "begins with the URL of its daemon, http://USER:PASSWORD@HOST:PORT/"),
            ("hunter2", "begins with the URL"),
            ("ftp://u:hunter2@h:1/", "begins with the URL"),
            ("https://u:hunter2@h:1/", "https:// is not spoken"),
            ("http://u:hunter2@h/", "the URL has no port"),
            ("http://u:hunter2@h:0/", "host and port cannot be read"),
            ("http://u:hunter2@h:70000/", "host and port cannot be read"),
            ("http://u:hunter2@/", "host and port cannot be read"),
            ("http://u:hunter2", "host and port cannot be read"),
            ("http://u:hunter2@h:1/wallet/a b", "the URL's path"),
            ("http://u:hunter2@h:1/?x", "the URL's path"),
            ("http://hunter2@h:1/", "a user without a password"),
            ("http://u:@h:1/", "the password is empty"),
            ("http://u%3Aser:hunter2@h:1/", "a user name cannot have a colon"),
            ("http://h:1/", "user and password are missing"),
            ("http://u:hunter2,x@h:1/", "`,` is written %2C"),
            ("http://u:hunter2,name=x@h:1/", "`,` is written %2C"),
            ("http://u:1,hunter2@h:1/", "`@` after a comma: in user and password `,` is written %2C"),
            ("http://u:1,name=hunter2@h:1/", "`@` after a comma"),
            ("http://u:hunter2/x@h:1/", "`@` after a slash"),
            ("http://u:1/hunter2@h:1/", "`@` after a slash: in user and password"),
            ("http://u:100%hunter2@h:1/", "a `%` in user or password is written %25"),
            ("http://u:hunter2%@h:1/", "a `%` in user or password is written %25"),
            ("http://u:hunter2%0Ax@h:1/", "a control character"),
            ("http://u:hunter2%ff@h:1/", "not UTF-8"),
            ("http://u:hunter2@h:1/,", "`` is not address=ADDRESS, name=NAME, mode=MODE or login-file=FILE"),
            ("http://u:hunter2@h:1/,mode=all", "`all` is not a mode: payouts pays the miners, single one payee"),
            ("http://u:hunter2@h:1/,mode=single,mode=single", "mode= is given twice"),
            ("http://u:hunter2@h:1/,adress=D", "`adress` is not address=ADDRESS"),
            ("http://u:hunter2@h:1/,address=", "`` is not an address"),
            ("http://u:hunter2@h:1/,address=D<b>", "`D<b>` is not an address"),
            ("http://u:hunter2@h:1/,address=D,address=E", "address= is given twice"),
            ("D%http://u:hunter2@h:1/,address=E", "address= is given twice"),
            ("http://u:hunter2@h:1/,name=Doge", "`Doge` is not a name"),
            ("http://u:hunter2@h:1/,name=", "`` is not a name"),
            ("http://u:hunter2@h:1/,name=a/b", "`a/b` is not a name"),
            ("http://u:hunter2@h:1/,login-file=/x", "user and password are given twice"),
            ("http://u:hunter2@h:1/,user=u,password=hunter2", "user and password are given twice"),
            ("http://h:1/,password=hunter2,login-file=/x", "user and password are given twice"),
            ("http://h:1/,password=hunter2,password=hunter2", "password= is given twice"),
            ("http://h:1/,user=hunter2", "a user without a password"),
            ("http://h:1/,login-file=", "names no file"),
            ("http://h:1/,login-file=~/.dogecoin/.cookie", "`~/.dogecoin/.cookie`: no shell expands the ~"),
        ] {
            let error = chain(text).unwrap_err();
            assert!(error.contains(reported) && !error.contains("hunter2"), "{text}: {error}");
        }
        for long in [format!("address={}", "D".repeat(257)), format!("name={}", "n".repeat(33))] {
            assert!(chain(&format!("http://u:p@h:1/,{long}")).is_err(), "{long}");
        }
    }

    #[test]
    fn chains_that_do_not_go_together_are_refused() {
        let refused = |texts: &[&str]| check(&texts.iter().map(|text| chain(text).unwrap()).collect::<Vec<_>>());
        let [a, b] = ["http://u:p@a:1/", "http://u:p@b:1/"];
        let same_name = "two chains are named `merged-1`: give one of them another name (name=…)";
        assert_eq!(refused(&[a, b]).unwrap_err(), same_name);
        assert_eq!(refused(&[a, "http://u:p@b:1/,name=b"]), Ok(()));
        let twice = refused(&["http://u:p@[::1]:1/wallet/x,name=a", "http://u:p@[::1]:1/wallet/y,name=b"]).unwrap_err();
        assert_eq!(twice, "the daemon at [::1]:1 is given twice: a chain can be mined once");
        let many = |count: usize| {
            let chains: Vec<_> = (1..=count).map(|port| chain(&format!("http://u:p@a:{port}/")).unwrap()).collect();
            check(&chains)
        };
        assert_eq!(many(CHAINS_MAX), Ok(()));
        assert_eq!(many(CHAINS_MAX + 1).unwrap_err(), "17 chains, of which at most 16 can be mined together");
    }

    #[test]
    fn a_chain_is_shown_as_it_is_read_without_its_password() {
        for text in [
            "http://[::1]:1/wallet/x,address=D,name=doge,login-file=/etc/doge",
            "http://doge.example:22555/,name=merged-22555,login-file=.cookie",
            "http://doge.example:22555/,name=doge,mode=payouts,login-file=.cookie",
        ] {
            assert_eq!(show_chain(&chain(text).unwrap()), text);
        }
        let shown = show_chain(&chain("http://a%3Bb:hunter2@h:1").unwrap());
        assert_eq!(shown, "http://a%3Bb:***@h:1/,name=merged-1");
        assert_eq!(show_chain(&chain("http://h:1,user=a;b,password=hunter2").unwrap()), shown);
        assert!(!format!("{:?}", chain("http://u:hunter2@h:1/")).contains("hunter2"));
    }

    #[test]
    fn a_value_with_a_password_is_recognised() {
        let has_password = |text: &str| has_password(OsStr::new(text));
        assert!(has_password("http://u:p@h:1/") && has_password("http://h:1/,password=p"));
        assert!(!has_password("http://h:1/,login-file=/x") && !has_password("http://u@h:1/") && !has_password("pass"));
    }

    proptest! {
        #[test]
        fn any_user_and_password_can_be_encoded(user in "[^:\\pC]{0,20}", password in "\\PC{1,20}") {
            let text = format!("http://{}:{}@h:1/", encoded(&user), encoded(&password));
            prop_assert_eq!(login(&text), Ok((user, password)));
        }

        #[test]
        fn garbage_is_an_error_and_no_panic(text in "(http://|D%http://|)[a-c%@:/,;=\\[\\]é ]{0,40}") {
            let _ = chain(&text);
        }
    }
}
