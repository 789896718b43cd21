//! `p2pool config check`: the effective value of each option and its source. The text output is a configuration file
//! without the secrets.

use clap::{Arg, ArgMatches, Args, Subcommand};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;

use super::daemon::{CREDENTIALS, PASSWORD, USER};
use super::layers::{self, Given};
use super::merged;
use super::node::{NodeArgs, SECRETS};
use super::options;
use super::options::Form;
use super::places::FILE_OPTION;
use super::problems::Source;
use crate::node::Config;

#[derive(Debug, Args)]
pub(super) struct ConfigArgs {
    #[command(subcommand)]
    pub(super) command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Check the node's options from all sources, and print the value and source of each. The output can be saved as a
    /// configuration file; secrets are left out.
    Check(Box<CheckArgs>),
}

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) node: NodeArgs,
}

/// Shown in the place of a secret.
const MASK: &str = "***";

/// Option with its effective value.
struct Row {
    name: String,
    form: Form,
    /// Empty if the option has no value.
    values: Vec<String>,
    source: Source,
    /// Description of the default, for an option without a value.
    instead: String,
    /// Set if the values, masked here, hold a secret.
    is_secret: bool,
}

/// Returns the values of `config`, as a file or as JSON.
pub(super) fn report(given: &Given, config: &mut Config, as_json: bool) -> String {
    let rows = rows(given, config);
    if as_json {
        let rows: Vec<Value> = rows.iter().map(Row::to_json).collect();
        return format!("{:#}\n", Value::from(rows));
    }
    let mut text = "# Effective configuration of a node; the source of each value follows it.\n".to_owned();
    for row in rows {
        let _ = writeln!(text, "{}", row.to_line());
    }
    text
}

fn rows(given: &Given, config: &mut Config) -> Vec<Row> {
    let derived: BTreeMap<String, Vec<String>> = options::derived(config).into_iter().collect();
    let is_shown = |arg: &&Arg| arg.get_long().is_some_and(|long| ![FILE_OPTION, "json"].contains(&long));
    let (_, matches) = layers::innermost(&given.matches);
    let words = raw(matches, CREDENTIALS);
    let has_password = config.merged.chains.iter().any(merged::is_fixed);
    let row = |arg: &Arg| {
        let id = arg.get_id().as_str();
        let (mut values, mut source) = (raw(matches, id), given.problems.source(id));
        // Positional user and password set these options.
        if let [.., password] = &words[..] {
            let user = if words.len() > 1 { words[0].clone() } else { String::new() };
            match id {
                USER => (values, source) = (vec![user], given.problems.source(CREDENTIALS)),
                PASSWORD => (values, source) = (vec![password.clone()], given.problems.source(CREDENTIALS)),
                _ => {}
            }
        }
        // Chains are shown without their passwords.
        if source == Source::Default || values.is_empty() || id == merged::CHAINS {
            values = derived.get(id).cloned().unwrap_or(values);
        }
        let is_secret = SECRETS.contains(&id) || (id == merged::CHAINS && has_password);
        if SECRETS.contains(&id) {
            values.iter_mut().for_each(|value| MASK.clone_into(value));
        }
        Row { name: id.to_owned(), form: options::form(arg), values, source, instead: instead(arg), is_secret }
    };
    given.command.get_arguments().filter(is_shown).map(row).collect()
}

fn raw(matches: &ArgMatches, id: &str) -> Vec<String> {
    let values = matches.get_raw(id).unwrap_or_default();
    values.map(|value| value.to_string_lossy().into_owned()).collect()
}

/// Returns the default named in the option's help.
fn instead(arg: &Arg) -> String {
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let named = help.split_once("[default: ").and_then(|(_, rest)| rest.split_once(']'));
    named.map_or_else(|| "none".to_owned(), |(default, _)| default.to_owned())
}

impl Row {
    /// Returns the line of the file.
    fn to_line(&self) -> String {
        let Self { name, source, .. } = self;
        if self.values.is_empty() {
            return format!("# {name} is not set  # {source}: {}", self.instead);
        }
        let value = match self.form {
            Form::Switch => self.values[0].clone(),
            Form::One => scalar(&self.values[0]),
            Form::List => format!("[{}]", self.values.iter().map(|one| quoted(one)).collect::<Vec<_>>().join(", ")),
        };
        // What is masked is no value.
        let comment = if self.is_secret { "# " } else { "" };
        format!("{comment}{name} = {value}  # {source}")
    }

    fn to_json(&self) -> Value {
        let value = match self.form {
            _ if self.values.is_empty() => Value::Null,
            Form::Switch => (self.values[0] == "true").into(),
            Form::One => self.values[0].clone().into(),
            Form::List => self.values.clone().into(),
        };
        json!({ "option": self.name, "value": value, "source": self.source.to_string() })
    }
}

/// Formats a TOML value: numbers as they are, everything else quoted.
fn scalar(text: &str) -> String {
    let is_digits = |text: &str| (1..16).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_whole = |text: &str| is_digits(text) && (text == "0" || !text.starts_with('0'));
    let is_number =
        is_whole(text) || text.split_once('.').is_some_and(|(whole, part)| is_whole(whole) && is_digits(part));
    if is_number { text.to_owned() } else { quoted(text) }
}

fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use crate::config::{self, Config, Refused};
    use std::ffi::OsString;
    use std::fs;
    use std::path::Path;

    const SECRET: &str = "hunter2";

    fn read(words: &[&str], variables: &[(&str, &str)], file: Option<&Path>) -> Result<Config, Refused> {
        let mut words: Vec<OsString> = ["p2pool"].iter().chain(words).map(Into::into).collect();
        words.extend(file.into_iter().flat_map(|path| ["--config".into(), path.into()]));
        Config::read(words, &variables.iter().copied().collect())
    }

    fn report(words: &[&str], variables: &[(&str, &str)], file: Option<&Path>) -> String {
        match read(&[&["config", "check"], words].concat(), variables, file) {
            Ok(Config::Check { text }) => text,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_option_is_shown_with_its_value_and_where_that_comes_from() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.toml");
        fs::write(&path, "share-rate = 5\nwhitelist = ['192.0.2.0/24', '::1']\n").unwrap();
        let text = report(&["-w", "9332", "-w", "9334,start=1024"], &[("P2POOL_FEE", "1.5")], Some(&path));
        for line in [
            "net = \"bitcoin\"  # default".to_owned(),
            "debug = false  # default".to_owned(),
            "logfile = \"data/bitcoin/log\"  # default".to_owned(),
            "worker-port = [\"9332\", \"9334,start=1024\"]  # command line".to_owned(),
            "fee = 1.5  # environment P2POOL_FEE".to_owned(),
            format!("share-rate = 5  # {} line 1", path.display()),
            format!("whitelist = [\"192.0.2.0/24\", \"::1\"]  # {} line 2", path.display()),
            "max-connections = 50000  # default".to_owned(),
            "p2pool-port = \"[::]:9333\"  # default".to_owned(),
            "# idle-timeout is not set  # default: no limit".to_owned(),
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line} is missing in:\n{text}");
        }
        let shown =
            config::command().get_arguments().filter_map(|arg| arg.get_long()).map(str::to_owned).collect::<Vec<_>>();
        let missing: Vec<_> =
            shown.iter().filter(|long| *long != "config" && !text.contains(&format!("{long} "))).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }

    #[test]
    fn secrets_are_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.toml");
        let webhook = format!("https://example.org/{SECRET}");
        fs::write(
            &path,
            format!("rpc-password = '{SECRET}'\nannounce-webhook = '{webhook}'\nannounce-hook = 'x {SECRET}'"),
        )
        .unwrap();
        let variables =
            [("P2POOL_RPC_PASSWORD", SECRET), ("P2POOL_ANNOUNCE_WEBHOOK", &webhook), ("P2POOL_ANNOUNCE_HOOK", SECRET)];
        let options = ["--rpc-password", SECRET, "--announce-webhook", &webhook, "--announce-hook", SECRET];
        for (words, variables, file) in [
            (&[][..], &[][..], Some(&*path)),
            (&[], &variables, None),
            (&options, &[], None),
            (&["alice", SECRET], &[], None),
            (&[SECRET], &[], None),
        ] {
            for json in [&[][..], &["--json"]] {
                let text = report(&[json, words].concat(), variables, file);
                assert!(text.contains("rpc-password") && text.contains("***") && !text.contains(SECRET), "{text}");
            }
        }
        assert!(report(&["alice", SECRET], &[], None).contains("rpc-user = \"alice\"  # command line"));
    }

    #[test]
    fn merged_chains_are_shown_as_they_are_used_without_their_passwords() {
        let doge = format!("http://me:{SECRET}@127.0.0.1:22555,address=D1");
        let nmc = "http://[::1]:8336/,login-file=/nmc";
        let nmc_shown = "http://[::1]:8336/,name=merged-8336,login-file=/nmc";
        let shown = ["http://me:***@127.0.0.1:22555/,address=D1,name=merged-22555", nmc_shown];
        let table =
            format!("[[merged]]\nurl = 'http://127.0.0.1:22555'\nuser = 'me'\npassword = '{SECRET}'\naddress = 'D1'");
        let table = format!("{table}\n[[merged]]\nurl = 'http://[::1]:8336'\nlogin-file = '/nmc'");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.toml");
        fs::write(&path, table).unwrap();
        let both = format!("{doge};{nmc}");
        for (words, variables, file, source) in [
            (&["--merged", &doge, "--merged", nmc][..], &[][..], None, "command line".to_owned()),
            (&[], &[("P2POOL_MERGED", &*both)], None, "environment P2POOL_MERGED".to_owned()),
            (&[], &[], Some(&*path), format!("{} line 1", path.display())),
        ] {
            let text = report(words, variables, file);
            let line = format!("# merged = [\"{}\", \"{}\"]  # {source}", shown[0], shown[1]);
            assert!(text.lines().any(|one| one == line) && !text.contains(SECRET), "{line} is missing in:\n{text}");
            let text = report(&[&["--json"], words].concat(), variables, file);
            let rows: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
            let row = rows.iter().find(|row| row["option"] == "merged").unwrap();
            assert_eq!(row["value"], serde_json::json!(shown));
            assert!(!text.contains(SECRET), "{text}");
        }
        let text = report(&["--merged", nmc], &[], None);
        let line = format!("merged = [\"{nmc_shown}\"]  # command line");
        assert!(text.lines().any(|one| one == line), "{line} is missing in:\n{text}");
        assert!(report(&[], &[], None).contains("# merged is not set  # default: none\nmerged-pause = 3  # default\n"));
    }

    #[test]
    fn the_report_is_a_file_that_gives_the_same_configuration() {
        let words = "--net litecoin --testnet -w 127.0.0.1:9332,start=2 -w 9334 --fee 2.5 --coinbtext a\"b --p2pool-port 5 \
                     --external-ip 192.0.2.1 -n one.example --whitelist 10.0.0.0/8 --disable-upnp --max-conns 0 \
                     --version-mask 1fffe000 --late-work never --min-difficulty 0.5 --log-size 0.5 --irc-announce \
                     --irc-channel #here --irc-nick node_1 --irc-server irc://[::1]:7 --idle-timeout 60 --strict \
                     --bitcoind-rpc-port 18332 --datadir /tmp --worker-tls cert.pem key.pem \
                     --merged http://[::1]:1/,login-file=/doge,address=D1 --merged-pause 5";
        let words: Vec<&str> = words.split_whitespace().collect();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.toml");
        fs::write(&path, report(&words, &[], None)).unwrap();
        let (told, saved) = (read(&words, &[], None).unwrap(), read(&[], &[], Some(&path)).unwrap());
        assert_eq!(format!("{told:?}"), format!("{saved:?}"));
        let again = report(&[], &[], Some(&path));
        let values = |text: &str| {
            text.lines()
                .filter_map(|line| line.rsplit_once("  # "))
                .map(|(value, _)| value.to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(values(&again), values(&fs::read_to_string(&path).unwrap()));
        fs::write(&path, report(&[], &[], None)).unwrap();
        assert_eq!(
            format!("{:?}", read(&[], &[], None).unwrap()),
            format!("{:?}", read(&[], &[], Some(&path)).unwrap())
        );
    }

    #[test]
    fn what_a_node_would_not_take_is_refused() {
        let Err(Refused::Check(errors)) = read(&["config", "check", "--fee", "101", "-w", "1", "-w", "1"], &[], None)
        else {
            panic!("it is refused")
        };
        let text = errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        assert!(text.contains("--fee: `101`") && text.contains("--worker-port: [::]:1 is given twice"), "{text}");
    }

    #[test]
    fn what_only_looks_like_a_number_is_quoted() {
        for number in ["0", "9332", "0.5", "0.00001", "10.25"] {
            assert_eq!(super::scalar(number), number);
        }
        for text in ["", "007", "1.2.3.4", "1e10", ".5", "5.", "-1", "1fffe000", "12345678901234567"] {
            assert_eq!(super::scalar(text), format!("\"{text}\""));
        }
    }

    #[test]
    fn programs_read_it_as_json() {
        let text = report(&["--json", "--fee", "1", "--debug"], &[], None);
        let rows: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
        let row = |name| rows.iter().find(|row| row["option"] == name).unwrap();
        assert_eq!(*row("fee"), serde_json::json!({ "option": "fee", "value": "1", "source": "command line" }));
        assert_eq!(row("debug")["value"], true);
        assert!(row("idle-timeout")["value"].is_null() && row("worker-port")["value"].is_array());
    }
}
