//! Configuration file: TOML, with the node's options by their long names. Values are converted to the text used on the
//! command line, so that both go through the same checks.

use clap::error::{ContextKind, ContextValue};
use clap::{Arg, Command};
use std::fs::File;
use std::io::Read;
use std::path::Path;
use stratum::printable::escaped;
use toml::de::{DeTable, DeValue};

use super::merged;
use super::options::{self, Form};
use super::places::FILE_OPTION;
use super::problems::{ConfigError, Problems, Source};

/// Maximum size of the file, in bytes: one with every option has a few thousand.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Option whose values have parts.
struct Parted {
    option: &'static str,
    /// Key of the first part, which has no name on the command line.
    first: &'static str,
    /// Keys of parts that are percent-encoded on the command line.
    encoded: &'static [&'static str],
}

const TABLES: [Parted; 2] = [
    Parted { option: "worker-port", first: "listen", encoded: &[] },
    Parted { option: merged::CHAINS, first: "url", encoded: &merged::LOGIN_PARTS },
];

/// Values of one option in the file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) id: String,
    /// In the form used on the command line.
    pub(super) values: Vec<String>,
    pub(super) source: Source,
}

/// Reads the file with options of `node`. Errors are added to `problems`.
pub(super) fn read(path: &Path, node: &Command, problems: &mut Problems) -> Vec<Entry> {
    let shown = escaped(&path.display().to_string()).into_owned();
    match text(path) {
        Ok(text) => parse(&shown, &text, node, problems),
        Err(problem) => {
            problems.found.push(ConfigError::new("--config", format!("cannot read `{shown}`: {problem}")));
            Vec::new()
        }
    }
}

fn text(path: &Path) -> Result<String, String> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| error.to_string())?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > FILE_BYTES_MAX) {
        return Err(format!("more than {FILE_BYTES_MAX} bytes"));
    }
    String::from_utf8(bytes).map_err(|_| "not UTF-8".to_owned())
}

fn parse(shown: &str, text: &str, node: &Command, problems: &mut Problems) -> Vec<Entry> {
    let at = |offset: usize| {
        let line = text.as_bytes().iter().take(offset).filter(|byte| **byte == b'\n').count() + 1;
        Source::File { path: shown.to_owned(), line }
    };
    let table = match DeTable::parse(text) {
        Ok(table) => table.into_inner(),
        Err(error) => {
            // The full message would quote the line, which may hold a secret.
            let place = at(error.span().map_or(0, |span| span.start)).to_string();
            problems.found.push(ConfigError::new(place, error.message()));
            return Vec::new();
        }
    };
    let mut entries: Vec<Entry> = Vec::new();
    let mut keys: Vec<_> = table.iter().collect();
    keys.sort_by_key(|(key, _)| key.span().start);
    for (key, value) in keys {
        let (name, source) = (key.get_ref().as_ref(), at(key.span().start));
        let place = format!("{source}: {}", printable(name));
        let mut refuse = |problem| problems.found.push(ConfigError::new(place.as_str(), problem));
        let arg = match option(name, node) {
            Ok(arg) => arg,
            Err(problem) => {
                refuse(problem);
                continue;
            }
        };
        let id = arg.get_id().to_string();
        if entries.iter().any(|entry| entry.id == id) {
            refuse(format!("`{id}` is given twice, once by its former name"));
        }
        match checked_values(arg, value.get_ref()) {
            Ok(values) => entries.push(Entry { id, values, source }),
            Err(wrong) => {
                wrong.into_iter().for_each(refuse);
                problems.mark(&id);
            }
        }
    }
    entries
}

/// Returns `value` as written on the command line, or all errors in it.
fn checked_values(arg: &Arg, value: &DeValue<'_>) -> Result<Vec<String>, Vec<String>> {
    let values = values(arg, value).map_err(|problem| vec![problem])?;
    let wrong: Vec<String> = values.iter().filter_map(|value| options::check(arg, value.as_ref()).err()).collect();
    if wrong.is_empty() { Ok(values) } else { Err(wrong) }
}

/// Looks up an option by its name or former name.
fn option<'a>(name: &str, node: &'a Command) -> Result<&'a Arg, String> {
    if name == FILE_OPTION {
        return Err("a configuration file cannot include another".to_owned());
    }
    let is_it = |arg: &&Arg| {
        arg.get_long() == Some(name) || arg.get_all_aliases().is_some_and(|aliases| aliases.contains(&name))
    };
    node.get_arguments().find(is_it).ok_or_else(|| match nearest(name, node) {
        Some(nearest) => format!("unknown option; did you mean `{nearest}`?"),
        None => "unknown option; see `p2pool --help`".to_owned(),
    })
}

/// Returns the option with a name similar to `name`, as suggested by clap.
fn nearest(name: &str, node: &Command) -> Option<String> {
    let possible = node.get_arguments().filter(|arg| arg.get_long() != Some(FILE_OPTION)).cloned();
    let alone = Command::new("p2pool").no_binary_name(true).args(possible);
    let error = alone.try_get_matches_from([format!("--{name}")]).err()?;
    match error.get(ContextKind::SuggestedArg)? {
        ContextValue::String(nearest) => Some(nearest.trim_start_matches('-').to_owned()),
        _ => None,
    }
}

/// Returns `value` as written on the command line.
fn values(arg: &Arg, value: &DeValue<'_>) -> Result<Vec<String>, String> {
    match (options::form(arg), value) {
        (Form::Switch, DeValue::Boolean(is_on)) => Ok(vec![is_on.to_string()]),
        (Form::Switch, other) => Err(format!("expected true or false, not {}", kind(other))),
        (Form::List, DeValue::Array(elements)) => elements.iter().map(|one| word(arg, one.get_ref())).collect(),
        (Form::One, DeValue::Array(_)) => Err("expected one value, not a list".to_owned()),
        (_, one) => word(arg, one).map(|word| vec![word]),
    }
}

fn word(arg: &Arg, value: &DeValue<'_>) -> Result<String, String> {
    match value {
        DeValue::String(text) => Ok(text.to_string()),
        DeValue::Integer(number) => Ok(number.to_string()),
        DeValue::Float(number) => Ok(number.to_string()),
        DeValue::Table(parts) => in_parts(arg, parts),
        other => Err(format!("expected text or a number, not {}", kind(other))),
    }
}

/// Converts a value of several parts: `{ listen = "9332", allow = ["a", "b"] }` becomes `9332,allow=a,allow=b`.
fn in_parts(arg: &Arg, parts: &DeTable<'_>) -> Result<String, String> {
    let known = TABLES.iter().find(|parted| arg.get_long() == Some(parted.option));
    let Parted { first, encoded, .. } = *known.ok_or("expected text or a number, not a table")?;
    let (mut text, mut rest) = (None, String::new());
    for (name, value) in parts {
        let values: Vec<String> = match value.get_ref() {
            DeValue::Table(_) => Err("expected text or a number in a table, not another table".to_owned()),
            DeValue::Array(elements) => elements.iter().map(|one| word(arg, one.get_ref())).collect(),
            value => word(arg, value).map(|word| vec![word]),
        }?;
        match (name.get_ref().as_ref(), &values[..]) {
            (name, [value]) if name == first => text = Some(value.clone()),
            (name, values) if encoded.contains(&name) => {
                values.iter().for_each(|value| rest.push_str(&format!(",{name}={}", merged::encoded(value))));
            }
            (name, values) => values.iter().for_each(|value| rest.push_str(&format!(",{name}={value}"))),
        }
    }
    text.map(|text| text + &rest).ok_or_else(|| format!("the table has no `{first}`"))
}

/// Name of the value's type.
fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// Escapes and shortens a key, which may be any text.
fn printable(name: &str) -> String {
    escaped(&name.chars().take(60).collect::<String>()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// Parses a file with `text` into values by option, or errors.
    fn said(text: &str) -> Result<BTreeMap<String, Vec<String>>, String> {
        let mut problems = Problems::default();
        let entries = parse("node.toml", text, &config::command(), &mut problems);
        if problems.found.is_empty() {
            return Ok(entries.into_iter().map(|entry| (entry.id, entry.values)).collect());
        }
        Err(problems.found.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    }

    fn one(text: &str) -> Vec<String> {
        said(text).unwrap().into_values().next().unwrap()
    }

    #[test]
    fn values_are_written_as_toml_has_them() {
        assert_eq!(one("fee = 1.5"), ["1.5"]);
        assert_eq!(one("fee = \"1.5\""), ["1.5"]);
        assert_eq!(one("max-connections = 20_000"), ["20000"]);
        assert_eq!(one("version-mask = 0x1fffe000"), ["0x1fffe000"]);
        assert_eq!(one("max-difficulty = 1e9"), ["1e9"]);
        assert_eq!(one("disable-upnp = true"), ["true"]);
        assert_eq!(one("disable-upnp = false"), ["false"]);
        assert_eq!(one("worker-port = [9332, \"127.0.0.1:9334,start=1024\"]"), ["9332", "127.0.0.1:9334,start=1024"]);
        assert_eq!(one("p2pool-node = \"one.example\""), ["one.example"]);
        assert_eq!(one("whitelist = []"), [""; 0]);
        assert_eq!(one("worker-tls = ['cert.pem', 'key.pem']"), ["cert.pem", "key.pem"]);
    }

    #[test]
    fn an_option_of_several_parts_may_be_a_table() {
        let text =
            "[[worker-port]]\nlisten = 9332\n[[worker-port]]\nlisten = '127.0.0.1:9334'\nstart = 1e6\nmin = 1024\n";
        assert_eq!(one(text), ["9332", "127.0.0.1:9334,min=1024,start=1e6"]);
        let text =
            "[[worker-port]]\nlisten = 1\nusers = 'miners'\nallow = ['10.0.0.0/8', '::1']\ndeny = '10.9.0.0/16'\n";
        assert_eq!(one(text), ["1,allow=10.0.0.0/8,allow=::1,deny=10.9.0.0/16,users=miners"]);
        for (text, told) in [
            ("[[worker-port]]\nstart = 1", "node.toml line 1: worker-port: the table has no `listen`"),
            ("[[worker-port]]\nlisten = 1\nmost = 2", "`most=2` in `1,most=2`"),
            ("[[worker-port]]\nlisten = { listen = 1 }", "expected text or a number in a table"),
            ("[[p2pool-node]]\nlisten = 1", "expected text or a number, not a table"),
        ] {
            assert!(said(text).unwrap_err().contains(told), "{text}: {:?}", said(text));
        }
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line_and_what_is_nearest_to_it() {
        let error = said("fee = 1\n\nmax-conections = 5\nbanana = 1\n[stratum]\nfee = 1").unwrap_err();
        for told in [
            "node.toml line 3: max-conections: unknown option; did you mean `max-connections`?",
            "node.toml line 4: banana: unknown option",
            "node.toml line 5: stratum: unknown option",
        ] {
            assert!(error.contains(told), "{told} is missing in:\n{error}");
        }
        for key in ["config = 'other.toml'", "json = true", "help = true", "credentials = 'a'", "'-w' = 1", "'' = 1"] {
            assert!(said(key).is_err(), "{key}");
        }
    }

    #[test]
    fn a_wrong_value_is_named_with_its_line_and_all_are_named_at_once() {
        let error = said(
            "fee = 101\nnet = \"dogecoin\"\ndebug = 1\nweb-port = [1]\nshare-rate = true\nmax-conns = 2026-01-01\n\
                          p2pool-node = [\"a b\", \"host:0\"]",
        )
        .unwrap_err();
        for told in [
            "node.toml line 1: fee: `101` is not a number from 0 to 100",
            "node.toml line 2: net: unknown network `dogecoin`",
            "node.toml line 3: debug: expected true or false, not a number",
            "node.toml line 4: web-port: expected one value, not a list",
            "node.toml line 5: share-rate: expected text or a number, not true or false",
            "node.toml line 6: max-conns: expected text or a number, not a date",
            "node.toml line 7: p2pool-node: `a b`",
            "node.toml line 7: p2pool-node: `host:0`",
        ] {
            assert!(error.contains(told), "{told} is missing in:\n{error}");
        }
        assert!(error.lines().is_sorted(), "they are in the order of the file:\n{error}");
    }

    #[test]
    fn old_names_are_keys_too() {
        assert_eq!(said("max-workers = 5").unwrap()["max-connections"], ["5"]);
        assert!(said("max-workers = 5\nmax-connections = 6").unwrap_err().contains("given twice"));
        assert!(said("fee = 1\nfee = 2").unwrap_err().contains("node.toml line 2"));
    }

    #[test]
    fn what_is_no_toml_is_named_by_its_line_and_never_shown() {
        let error = said("fee = 1\nrpc-password = \"hunter2\nnet = 1\n").unwrap_err();
        assert!(error.contains("node.toml line 2") && !error.contains("hunter2"), "{error}");
        let error = said("rpc-password = { a = 'hunter2' }\nannounce-webhook = 'hunter2'").unwrap_err();
        assert!(error.contains("rpc-password") && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn a_file_that_cannot_be_read_or_is_too_large_is_refused() {
        let told = |path: &Path| {
            let mut problems = Problems::default();
            read(path, &config::command(), &mut problems);
            problems.found.iter().map(ToString::to_string).collect::<String>()
        };
        assert!(told(Path::new("/no/such.toml")).contains("--config: cannot read `/no/such.toml`"));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.toml");
        std::fs::write(&path, vec![b' '; 1 << 20]).unwrap();
        assert_eq!(told(&path), "");
        std::fs::write(&path, vec![b' '; (1 << 20) + 1]).unwrap();
        assert!(told(&path).contains("more than 1048576 bytes"));
        std::fs::write(&path, [0xff]).unwrap();
        assert!(told(&path).contains("not UTF-8"));
        // A device without an end.
        assert!(told(Path::new("/dev/zero")).contains("more than 1048576 bytes"));
    }

    /// Text that resembles a configuration file.
    fn scraps() -> impl Strategy<Value = String> {
        let scrap = prop_oneof![
            Just("worker-port".to_owned()),
            Just("fee".to_owned()),
            Just("debug".to_owned()),
            Just("=".to_owned()),
            Just("[".to_owned()),
            Just("]".to_owned()),
            Just("{".to_owned()),
            Just("}".to_owned()),
            Just("\"".to_owned()),
            Just("\n".to_owned()),
            Just(",".to_owned()),
            Just("listen".to_owned()),
            Just("1e3".to_owned()),
            Just("0x1f".to_owned()),
            Just("true".to_owned()),
            ".{0,5}",
        ];
        proptest::collection::vec(scrap, 0..40).prop_map(|scraps| scraps.concat())
    }

    proptest! {
        #[test]
        fn garbage_is_an_error_and_no_panic(text in prop_oneof![scraps(), ".{0,200}"]) {
            let _ = said(&text);
        }

        #[test]
        fn any_key_is_answered(key in ".{0,80}", value in ".{0,20}") {
            let text = format!("{} = {}\n", toml::Value::from(key.as_str()), toml::Value::from(value.as_str()));
            prop_assert!(said(&text).is_err() || config::command().get_arguments().any(|arg| arg.get_long() == Some(&key)));
        }
    }
}
