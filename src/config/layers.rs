//! Precedence: command line, environment, file, defaults. The values of each option from the first of these that has it
//! become its default in clap, so that every value goes through the same check, and all errors are reported at once.

use clap::builder::{OsStr as DefaultValue, Resettable, ValueParser};
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

use super::Refused;
use super::environment::Environment;
use super::file;
use super::merged;
use super::options::check;
use super::places::FILE_OPTION;
use super::problems::{ConfigError, Problems, Source};

/// Command line parsed up to its subcommand.
pub(super) struct Asked {
    command: Command,
    /// Arguments as they are in the process list.
    typed: Vec<OsString>,
    /// Arguments with the words of files.
    arguments: Vec<OsString>,
    /// Values on the command line, unchecked.
    given: ArgMatches,
}

/// Options from all layers.
pub(super) struct Given {
    /// Options of the program, with those of the subcommand nested. Wrong values are left out.
    pub(super) matches: ArgMatches,
    /// Subcommand to run, with its options.
    pub(super) command: Command,
    /// Sources of the values, and errors in them.
    pub(super) problems: Problems,
}

/// Values by the ids of options.
type Values = BTreeMap<String, Vec<OsString>>;

impl Asked {
    /// Finds the subcommand.
    pub(super) fn of(command: Command, typed: Vec<OsString>, arguments: Vec<OsString>) -> Result<Self, Refused> {
        // Help and version are handled here, before any check.
        let lenient = take_any_values(command.clone()).ignore_errors(true);
        let given = lenient.try_get_matches_from(&arguments).map_err(Refused::Arguments)?;
        Ok(Self { command, typed, arguments, given })
    }

    /// Returns whether `path` is the subcommand.
    pub(super) fn is(&self, path: &[&str]) -> bool {
        innermost(&self.given).0 == path
    }

    /// Reads the layers.
    pub(super) fn read(&self, environment: &Environment) -> Result<Given, Refused> {
        let (path, given) = innermost(&self.given);
        let command = subcommand(&self.command, &path);
        let mut problems = Problems::default();
        let file = self.file(command, given, environment, &mut problems);
        let (mut on_command_line, mut below) = (Values::new(), Values::new());
        for arg in command.get_arguments() {
            let id = arg.get_id().as_str();
            let (layer, values, source) = if is_given(given, id) {
                let values: Vec<OsString> = given.get_raw(id).unwrap_or_default().map(OsStr::to_owned).collect();
                let source = if self.is_typed(id, &values) { Source::CommandLine } else { Source::ArgumentFile };
                (&mut on_command_line, values, source)
            } else if let Some((name, value)) = environment.find(arg) {
                (&mut below, vec![value.to_owned()], Source::Environment(name))
            } else if let Some(entry) = file.iter().find(|entry| entry.id == id) {
                (&mut below, entry.values.iter().map(OsString::from).collect(), entry.source.clone())
            } else {
                continue;
            };
            problems.sources.insert(id.to_owned(), (label(arg, &source), source));
            let wrong: Vec<String> = values.iter().filter_map(|value| check(arg, value).err()).collect();
            if wrong.is_empty() {
                layer.insert(id.to_owned(), values);
            }
            wrong.into_iter().for_each(|error| problems.add(id, error));
        }
        self.refuse_misplaced(&mut problems);
        self.check_form(&path, &below)?;
        // The values of all layers become defaults for the final parse.
        below.append(&mut on_command_line);
        let complete = change(without_variables(self.command.clone()), &path, &|arg| fill(arg, &below));
        let words = self.arguments.iter().take(1).cloned().chain(path.iter().map(OsString::from));
        let matches = match complete.clone().try_get_matches_from(words) {
            Ok(matches) => matches,
            Err(error) if problems.found.is_empty() => return Err(Refused::Arguments(error)),
            Err(_) => return Err(Refused::Values(problems.found)),
        };
        let command = subcommand(&complete, &path).clone();
        Ok(Given { matches, command, problems })
    }

    /// True if the secret one of the option's `values` can be read in the process list: the last, or that of a merged
    /// chain with a password.
    fn is_typed(&self, id: &str, values: &[OsString]) -> bool {
        let holds = |typed: &OsString, value: &OsString| {
            memchr::memmem::find(typed.as_encoded_bytes(), value.as_encoded_bytes()).is_some()
        };
        let is_typed = |value: &OsString| self.typed.iter().any(|typed| holds(typed, value));
        let is_secret = |value: &&OsString| id == merged::CHAINS && merged::has_password(value);
        if values.iter().any(|value| is_secret(&value)) {
            return values.iter().filter(is_secret).any(is_typed);
        }
        values.last().is_none_or(is_typed)
    }

    /// Refuses a malformed command line, regardless of its values.
    fn check_form(&self, path: &[String], below: &Values) -> Result<(), Refused> {
        let command = take_any_values(without_variables(self.command.clone()));
        let command = change(command, path, &|arg| fill(arg, below));
        command.try_get_matches_from(&self.arguments).map(drop).map_err(Refused::Arguments)
    }

    /// Entries of the configuration file, if there is one.
    fn file(
        &self,
        command: &Command,
        given: &ArgMatches,
        environment: &Environment,
        problems: &mut Problems,
    ) -> Vec<file::Entry> {
        let Some(option) = command.get_arguments().find(|arg| arg.get_id() == FILE_OPTION) else { return Vec::new() };
        let path = if is_given(given, FILE_OPTION) {
            given.get_raw(FILE_OPTION).and_then(|mut values| values.next())
        } else {
            environment.find(option).map(|(_, value)| value)
        };
        // The file always has the node's options, which are the program's own, for any subcommand.
        path.map_or_else(Vec::new, |path| file::read(path.as_ref(), &self.command, problems))
    }

    /// Refuses options before the subcommand's name, which would be silently ignored.
    fn refuse_misplaced(&self, problems: &mut Problems) {
        let Some((subcommand, _)) = self.given.subcommand() else { return };
        for arg in self.command.get_arguments().filter(|arg| is_given(&self.given, arg.get_id().as_str())) {
            let name = label(arg, &Source::CommandLine);
            let problem = format!("`{name}` does not go with `{subcommand}`, or must follow it");
            problems.found.push(ConfigError::new("subcommand", problem));
        }
    }
}

fn is_given(matches: &ArgMatches, id: &str) -> bool {
    matches.value_source(id) == Some(ValueSource::CommandLine)
}

/// Returns the path of the subcommand in `matches`, and its own matches.
pub(super) fn innermost(matches: &ArgMatches) -> (Vec<String>, &ArgMatches) {
    let (mut path, mut innermost) = (Vec::new(), matches);
    while let Some((name, inner)) = innermost.subcommand() {
        path.push(name.to_owned());
        innermost = inner;
    }
    (path, innermost)
}

fn subcommand<'a>(command: &'a Command, path: &[String]) -> &'a Command {
    path.iter().fold(command, |command, name| command.find_subcommand(name).unwrap_or(command))
}

/// Changes the arguments of the subcommand `path`.
fn change(command: Command, path: &[String], how: &dyn Fn(Arg) -> Arg) -> Command {
    match path {
        [] => command.mut_args(how),
        [name, rest @ ..] => command.mut_subcommand(name, |command| change(command, rest, how)),
    }
}

/// Returns the command with parsers that accept any value.
fn take_any_values(command: Command) -> Command {
    let any = |arg: Arg| {
        if arg.get_action().takes_values() { arg.value_parser(ValueParser::os_string()) } else { arg }
    };
    command.mut_args(any).mut_subcommands(take_any_values)
}

/// Returns the command without clap's own lookup of variables.
fn without_variables(command: Command) -> Command {
    command.mut_args(|arg| arg.env(Resettable::<DefaultValue>::Reset)).mut_subcommands(without_variables)
}

/// Sets the option's values as its default.
fn fill(arg: Arg, values: &Values) -> Arg {
    match values.get(arg.get_id().as_str()) {
        Some(values) => arg.default_values(values.clone()).required(false),
        None => arg,
    }
}

/// Name of the option in error messages, as the operator wrote it.
fn label(arg: &Arg, source: &Source) -> String {
    let named = || arg.get_value_names().unwrap_or_default().iter().map(|name| name.as_str()).collect::<Vec<_>>();
    match (source, arg.get_long()) {
        (Source::Environment(name), _) => name.clone(),
        (Source::File { .. }, Some(long)) => format!("{source}: {long}"),
        (_, Some(long)) => format!("--{long}"),
        (_, None) => named().join(" "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use std::fs;

    /// Reads the configuration with this file, these variables and these arguments.
    fn read(file: &str, variables: &[(&str, &str)], arguments: &str) -> Result<Config, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.toml");
        fs::write(&path, file).unwrap();
        let mut words: Vec<OsString> =
            ["p2pool"].into_iter().chain(arguments.split_whitespace()).map(Into::into).collect();
        words.extend(["--config".into(), path.into()]);
        let environment = variables.iter().copied().collect();
        Config::read(words, &environment).map_err(|refused| match refused {
            Refused::Arguments(error) => error.to_string(),
            Refused::Values(errors) | Refused::Check(errors) => {
                errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
            }
        })
    }

    fn node(file: &str, variables: &[(&str, &str)], arguments: &str) -> crate::node::Config {
        match read(file, variables, arguments) {
            Ok(Config::Node(node)) => *node,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_command_line_wins_over_the_environment_and_that_over_the_file() {
        let file = "fee = 1\nshare-rate = 5\nmax-conns = 7\n";
        let variables = [("P2POOL_FEE", "2"), ("P2POOL_SHARE_RATE", "6")];
        let node = node(file, &variables, "--fee 3");
        assert!((node.fee_percent - 3.0).abs() < f64::EPSILON);
        assert_eq!(node.stratum.session.vardiff.interval.as_secs(), 6);
        assert_eq!((node.p2p.incoming_max, node.p2p.outgoing), (7, 6));
    }

    #[test]
    fn a_list_replaces_that_of_a_lower_layer() {
        let names = |node: crate::node::Config| node.p2p.nodes.iter().map(ToString::to_string).collect::<Vec<_>>();
        let (file, variables) = ("p2pool-node = [\"a:1\", \"b:1\"]", [("P2POOL_P2POOL_NODE", "c:1,d:1")]);
        assert_eq!(names(node(file, &[], "")), ["a:1", "b:1"]);
        assert_eq!(names(node(file, &variables, "")), ["c:1", "d:1"]);
        assert_eq!(names(node(file, &variables, "-n e:1 -n f:1")), ["e:1", "f:1"]);
        assert_eq!(names(node("p2pool-node = []", &[], "")), [""; 0]);
    }

    #[test]
    fn a_switch_that_the_file_turns_on_is_turned_off_by_the_environment() {
        let file = "disable-upnp = true\nno-bootstrap = true";
        let node = node(file, &[("P2POOL_DISABLE_UPNP", "false")], "");
        assert!(node.p2p.upnp && node.p2p.bootstrap.is_empty());
        assert!(read("", &[("P2POOL_DEBUG", "maybe")], "").unwrap_err().contains("P2POOL_DEBUG: `maybe` is neither"));
    }

    #[test]
    fn the_file_may_be_named_by_the_environment() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.toml");
        fs::write(&path, "net = 'litecoin'\nrpc-user = 'alice'\nrpc-password = 'secret'").unwrap();
        let environment = [("P2POOL_CONFIG", path.as_os_str())].into_iter().collect();
        let Ok(Config::Node(node)) = Config::read(["p2pool".into()], &environment) else { panic!("it is read") };
        assert_eq!(node.network.name, "litecoin");
        let login = node.daemon.credentials.unwrap();
        assert_eq!((login.user.as_str(), login.password.expose()), ("alice", "secret"));
        assert!(node.visible_secrets.is_empty());
    }

    #[test]
    fn a_secret_is_reported_only_where_others_can_read_it() {
        let url = "https://example.org/hunter2";
        let visible =
            |file: &str, variables: &[(&str, &str)], words: &str| node(file, variables, words).visible_secrets;
        assert_eq!(visible("", &[], "--rpc-password=hunter2"), ["rpc-password"]);
        assert_eq!(visible("", &[], "alice hunter2"), ["credentials"]);
        let both = format!("--announce-webhook {url} --announce-hook hunter2");
        assert_eq!(visible("", &[], &both), ["announce-hook", "announce-webhook"]);
        let variables =
            [("P2POOL_RPC_PASSWORD", "hunter2"), ("P2POOL_ANNOUNCE_WEBHOOK", url), ("P2POOL_ANNOUNCE_HOOK", "x")];
        assert_eq!(visible("", &variables, ""), [""; 0]);
        assert_eq!(visible(&format!("rpc-password = 'hunter2'\nannounce-webhook = '{url}'"), &[], ""), [""; 0]);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secrets");
        fs::write(&path, format!("{both} alice hunter3")).unwrap();
        let config = node("", &[], &format!("@{}", path.display()));
        assert_eq!(config.visible_secrets, [""; 0]);
        fs::write(&path, "hunter3").unwrap();
        assert_eq!(visible("", &[], &format!("alice @{}", path.display())), [""; 0], "a user name is no secret");
        assert!(config.announce.hook.is_some() && config.daemon.credentials.is_some());
        assert!(!format!("{config:?}").contains("hunter"), "{config:?}");
    }

    #[test]
    fn commands_that_ask_a_node_find_it_by_its_file() {
        let file = "net = 'litecoin'\ndatadir = '/var/lib/p2pool'\nfee = 1";
        let Ok(Config::Control(asked)) = read(file, &[], "status") else { panic!("it is read") };
        assert_eq!(asked.data_dir.display().to_string(), "/var/lib/p2pool/litecoin");
        let Ok(Config::Doctor { node, .. }) = read(file, &[], "doctor --json") else { panic!("it is read") };
        assert!((node.fee_percent - 1.0).abs() < f64::EPSILON);
        assert!(read("fee = 101", &[], "status").unwrap_err().contains("`101`"));
        let foreign = "net = 'dogecoin'\naddress = 'mipcBbFg9gMiCh81Kj8tqqdgoZub1ZJRfn'";
        assert!(!read(foreign, &[], "").unwrap_err().contains("another network"));
    }

    #[test]
    fn what_is_wrong_is_named_by_the_layer_that_it_is_in() {
        let error =
            read("fee = 101\nmax-conns = -1", &[("P2POOL_SHARE_RATE", "0")], "--max-names 0 --min-difficulty 1e11");
        let error = error.unwrap_err();
        for told in [
            "node.toml line 1: fee: `101`",
            "node.toml line 2: max-conns: `-1`",
            "P2POOL_SHARE_RATE: `0`",
            "--max-names: `0`",
            "--min-difficulty: 100000000000 is more than",
        ] {
            assert!(error.contains(told), "{told} is missing in:\n{error}");
        }
    }

    #[test]
    fn the_old_names_of_options_work_in_every_layer() {
        let most = |node: crate::node::Config| node.stratum.limits.connections_max;
        assert_eq!(most(node("max-workers = 1", &[], "")), 1);
        assert_eq!(most(node("max-workers = 1", &[("P2POOL_MAX_WORKERS", "2")], "")), 2);
        assert_eq!(most(node("", &[("P2POOL_MAX_WORKERS", "2")], "--max-workers 3")), 3);
        assert_eq!(most(node("", &[("P2POOL_MAX_WORKERS", "2"), ("P2POOL_MAX_CONNECTIONS", "4")], "")), 4);
    }

    #[test]
    fn variables_may_hold_what_the_command_line_must_have() {
        let environment = [("P2POOL_USER", "me"), ("P2POOL_URL", "pool.example:1"), ("P2POOL_PACE", "4")];
        let read = |variables: &[(&str, &str)]| {
            Config::read(["p2pool", "mine"].map(Into::into), &variables.iter().copied().collect())
        };
        let Ok(Config::Mine(mine)) = read(&environment) else { panic!("it is read") };
        assert_eq!((mine.user.as_str(), mine.pool.as_str()), ("me", "pool.example:1"));
        assert!(matches!(read(&environment[..1]), Err(Refused::Arguments(_))));
        // A variable of a program's option does not affect subcommands.
        assert!(
            Config::read(
                ["p2pool", "share", "replay", "-"].map(Into::into),
                &[("P2POOL_FEE", "x")].into_iter().collect()
            )
            .is_ok()
        );
    }

    #[test]
    fn help_and_a_command_line_of_the_wrong_form_come_before_values() {
        for arguments in ["--help", "doctor --help", "--version", "--no-such-option", "--fee", "peers stray"] {
            let environment = [("P2POOL_FEE", "x")].into_iter().collect();
            let words = ["p2pool"].into_iter().chain(arguments.split_whitespace()).map(Into::into);
            assert!(matches!(Config::read(words, &environment), Err(Refused::Arguments(_))), "{arguments}");
        }
    }

    #[test]
    fn help_shows_no_value_of_the_environment() {
        let environment = [("P2POOL_RPC_PASSWORD", "hunter2")].into_iter().collect();
        let Err(Refused::Arguments(help)) = Config::read(["p2pool", "--help"].map(Into::into), &environment) else {
            panic!("help is shown")
        };
        let help = help.to_string();
        assert!(help.contains("P2POOL_RPC_PASSWORD") && help.contains("--max-connections"));
        assert!(!help.contains("hunter2") && !help.contains("--max-workers"));
    }
}
