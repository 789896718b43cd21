//! Options of the connection to bitcoind.

use super::options::Opt;
use super::problems::Problems;
use super::values;
use crate::bitcoind::credentials::Login;
use crate::bitcoind::daemon::Config;
use crate::runtime::secret::Secret;

/// Option of bitcoind's RPC user.
pub(super) const USER: &str = "rpc-user";

/// Options of bitcoind's RPC password: by name, and as positional user and password.
pub(super) const PASSWORD: &str = "rpc-password";
pub(super) const CREDENTIALS: &str = "credentials";

pub(super) fn options() -> Vec<Opt<Config>> {
    vec![
        Opt::path("bitcoind-config-path", "FILE", |config: &mut Config, path| config.config_path = Some(path))
            .help("Path of bitcoin.conf [default: where bitcoind looks for it]"),
        Opt::field("bitcoind-address", "HOST", values::text, String::clone, |config: &mut Config| &mut config.address)
            .help("Host of bitcoind"),
        Opt::optional("bitcoind-rpc-port", "PORT", values::port, |config: &mut Config, port| {
            config.rpc_port = Some(port);
        })
        .help("bitcoind's RPC port [default: the one in bitcoin.conf, else bitcoind's own, 8332 on bitcoin]"),
        Opt::optional("bitcoind-p2p-port", "PORT", values::port, |config: &mut Config, port| {
            config.p2p_port = Some(port);
        })
        .help("bitcoind's P2P port [default: the one in bitcoin.conf, else bitcoind's own, 8333 on bitcoin]"),
        Opt::seconds("bitcoind-timeout", 1.0..=86_400.0, |config: &mut Config| &mut config.gone_after)
            .help("Time without a response from bitcoind after which miners are disconnected, so that they fail over"),
        Opt::flag("allow-obsolete-bitcoind", |config: &mut Config| config.allow_obsolete = true)
            .help("Accept a bitcoind older than the oldest supported version"),
        Opt::optional(USER, "NAME", values::text, |config: &mut Config, user| {
            config.credentials = Some(Login { user, password: Secret::new("") });
        })
        .help("bitcoind's RPC user, with --rpc-password [default: in bitcoin.conf, else bitcoind's cookie]"),
        Opt::optional(PASSWORD, "PASSWORD", values::text, |config: &mut Config, password| {
            let user = config.credentials.take().map(|login| login.user).unwrap_or_default();
            config.credentials = Some(Login { user, password: Secret::new(password) });
        })
        .help(
            "bitcoind's RPC password; set it in the environment or the configuration file, since other users can read \
             arguments in the process list [default: in bitcoin.conf, else bitcoind's cookie]",
        ),
    ]
}

/// Sets user and password, or the password alone, from positional arguments. A user needs a password.
pub(super) fn login(words: &[String], config: &mut Config, problems: &mut Problems) {
    let login = |user: &str, password: &str| Some(Login { user: user.to_owned(), password: Secret::new(password) });
    match words {
        [] => {
            if config.credentials.as_ref().is_some_and(|login| login.password.expose().is_empty()) {
                problems.add(USER, "the password is missing: set P2POOL_RPC_PASSWORD, or rpc-password in a file");
            }
        }
        [password] => config.credentials = login("", password),
        [user, password] => config.credentials = login(user, password),
        more => {
            let problem = format!("{} words, expected at most a user and a password: `{}` …", more.len(), more[0]);
            problems.add(CREDENTIALS, problem);
        }
    }
}
