//! Network files: constants of any coin in the layout of the built-in tables, with P2Pool's constant names as keys.

use std::collections::BTreeMap;

use ruint::aliases::U256;
use thiserror::Error;
use toml::Value;

use super::{ALL, BITCOIN, DEMO, Network, Pow, Subsidy};
use crate::rules::ShareVersion;

/// Minimum chain length in a network file: scores sample a sixteenth of it, which must be at least one share.
const CHAIN_LENGTH_MIN: i64 = 16;
/// Maximum chain length in a network file: twice as many shares are kept in memory.
const CHAIN_LENGTH_MAX: i64 = 1 << 20;

/// Error in one field of a network file.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{field}: {problem}")]
pub struct FieldError {
    /// The key, or the line of a TOML syntax error.
    pub field: String,
    /// The value and the expected form.
    pub problem: String,
}

/// Keys that define a network: without `BASE`, each of them is required.
const ESSENTIAL: &[&str] = &[
    "IDENTIFIER",
    "PREFIX",
    "SHARE_PERIOD",
    "CHAIN_LENGTH",
    "REAL_CHAIN_LENGTH",
    "TARGET_LOOKBEHIND",
    "SPREAD",
    "MIN_TARGET",
    "MAX_TARGET",
    "SEGWIT_ACTIVATION_VERSION",
    "ADDRESS_VERSION",
    "ADDRESS_P2SH_VERSION",
    "HUMAN_READABLE_PART",
    "BLOCK_PERIOD",
];

/// Parses a network file. Keys are P2Pool's constant names; those of the parent chain are in a table `[PARENT]` or
/// begin with `PARENT_`, those of the subsidy are in `[SUBSIDY]` or begin with `SUBSIDY_`. Missing keys take the value
/// of the network named by `BASE`. Strings are leaked: the file is read once, at start.
///
/// # Errors
/// All wrong, unknown and missing fields at once.
pub fn from_toml(text: &str) -> Result<Network, Vec<FieldError>> {
    let table: toml::Table = match text.parse() {
        Ok(table) => table,
        Err(error) => {
            let offset = error.span().map_or(0, |span| span.start);
            let line = text.get(..offset).map_or(1, |before| before.matches('\n').count() + 1);
            return Err(vec![FieldError { field: format!("line {line}"), problem: error.message().to_owned() }]);
        }
    };
    let mut fields = Fields { values: BTreeMap::new(), errors: Vec::new() };
    for (key, value) in table {
        match value {
            Value::Table(inner) => {
                for (name, value) in inner {
                    fields.values.insert(format!("{key}_{name}").to_uppercase(), value);
                }
            }
            value => drop(fields.values.insert(key.to_uppercase(), value)),
        }
    }
    let network = fields.network();
    fields.refuse_the_rest();
    if fields.errors.is_empty() { Ok(network) } else { Err(fields.errors) }
}

/// Values of the file that are not used yet, and the errors so far.
struct Fields {
    values: BTreeMap<String, Value>,
    errors: Vec<FieldError>,
}

impl Fields {
    fn network(&mut self) -> Network {
        let mut net = self.base();
        self.text("NAME", &mut net.name);
        self.bytes("IDENTIFIER", &mut net.identifier);
        self.bytes("PREFIX", &mut net.prefix);
        self.port("P2P_PORT", &mut net.p2p_port);
        self.port("WORKER_PORT", &mut net.worker_port);
        self.number("SHARE_PERIOD", 1..=86_400, &mut net.share_period);
        self.number("CHAIN_LENGTH", CHAIN_LENGTH_MIN..=CHAIN_LENGTH_MAX, &mut net.chain_length);
        self.number("REAL_CHAIN_LENGTH", CHAIN_LENGTH_MIN..=CHAIN_LENGTH_MAX, &mut net.real_chain_length);
        self.number("TARGET_LOOKBEHIND", 2..=CHAIN_LENGTH_MAX, &mut net.target_lookbehind);
        self.number("SPREAD", 1..=1_000_000, &mut net.spread);
        self.target("MIN_TARGET", &mut net.min_target);
        self.target("MAX_TARGET", &mut net.max_target);
        self.flag("PERSIST", &mut net.persist);
        self.number("PROTOCOL_VERSION", 0..=i64::from(u32::MAX), &mut net.protocol_version);
        self.number("MINIMUM_PROTOCOL_VERSION", 0..=i64::from(u32::MAX), &mut net.minimum_protocol_version);
        self.number("SEGWIT_ACTIVATION_VERSION", 0..=i64::from(u32::MAX), &mut net.segwit_activation_version);
        self.version("START_VERSION", &mut net.start_version);
        self.version("NEWEST_VERSION", &mut net.newest_version);
        self.list("BOOTSTRAP_ADDRS", &mut net.bootstrap_addresses);
        self.list("SOFTFORKS_REQUIRED", &mut net.known_rules);
        self.start_difficulty(&mut net.start_difficulty);
        self.parent(&mut net.parent);

        // Constraints between fields.
        if net.newest_version < net.start_version {
            self.error(
                "NEWEST_VERSION",
                format!("{} is less than START_VERSION, {}", net.newest_version, net.start_version),
            );
        }
        if net.newest_version >= 36 && net.segwit_activation_version == 0 {
            self.error("NEWEST_VERSION", "36 needs a SEGWIT_ACTIVATION_VERSION: its shares hold segwit data");
        }
        if net.minimum_protocol_version > net.protocol_version {
            let problem =
                format!("{} is more than PROTOCOL_VERSION, {}", net.minimum_protocol_version, net.protocol_version);
            self.error("MINIMUM_PROTOCOL_VERSION", problem);
        }
        if net.min_target > net.max_target {
            self.error("MIN_TARGET", "is easier than MAX_TARGET");
        }
        if net.real_chain_length > net.chain_length {
            let problem = format!("{} is more than CHAIN_LENGTH, {}", net.real_chain_length, net.chain_length);
            self.error("REAL_CHAIN_LENGTH", problem);
        }
        if net.target_lookbehind > net.real_chain_length {
            let problem =
                format!("{} is more than REAL_CHAIN_LENGTH, {}", net.target_lookbehind, net.real_chain_length);
            self.error("TARGET_LOOKBEHIND", problem);
        }
        net
    }

    fn parent(&mut self, parent: &mut super::Parent) {
        self.text("SYMBOL", &mut parent.symbol);
        self.bytes("PARENT_P2P_PREFIX", &mut parent.magic);
        self.bytes("PARENT_MAGIC", &mut parent.magic);
        self.port("PARENT_P2P_PORT", &mut parent.p2p_port);
        self.port("PARENT_RPC_PORT", &mut parent.rpc_port);
        self.text("PARENT_RPC_CHAIN", &mut parent.rpc_chain);
        self.text("PARENT_GENESIS", &mut parent.genesis);
        self.text("PARENT_DATA_FOLDER", &mut parent.data_folder);
        self.text("PARENT_DATA_FOLDER_MACOS", &mut parent.data_folder_macos);
        self.text("PARENT_CONF_NAME", &mut parent.conf_name);
        self.text("PARENT_CONF_SECTION", &mut parent.conf_section);
        self.text("PARENT_DATADIR_FOLDER", &mut parent.datadir_folder);
        self.text("PARENT_DAEMON_OPTION", &mut parent.daemon_option);
        self.list("PARENT_TEMPLATE_RULES", &mut parent.template_rules);
        self.optional_text("PARENT_TEMPLATE_ALGO", &mut parent.template_algo);
        self.number("ADDRESS_VERSION", 0..=255, &mut parent.address_version);
        self.number("ADDRESS_P2SH_VERSION", 0..=255, &mut parent.address_p2sh_version);
        self.old_p2sh_version(&mut parent.address_p2sh_version_old);
        self.human_readable_part(&mut parent.human_readable_part);
        self.number("PARENT_VERSION_MIN", 0..=i64::from(u32::MAX), &mut parent.version_min);
        self.number("BLOCK_PERIOD", 1..=1_000_000, &mut parent.block_period);
        self.number("BLOCK_MAX_SIZE", 1..=i64::from(u32::MAX), &mut parent.block_max_size);
        self.number("BLOCK_MAX_WEIGHT", 1..=i64::from(u32::MAX), &mut parent.block_max_weight);
        self.number("DUST_THRESHOLD", 0..=i64::MAX, &mut parent.dust_threshold);
        self.number("DUMB_SCRYPT_DIFF", 1..=i64::from(u32::MAX), &mut parent.dumb_scrypt_diff);
        self.subsidy_function(&mut parent.subsidy);
        self.number("SUBSIDY_INITIAL", 0..=i64::MAX, &mut parent.subsidy.initial);
        self.number("SUBSIDY_INTERVAL", 1..=i64::from(u32::MAX), &mut parent.subsidy.halving_interval);
        self.pow(&mut parent.pow);
        self.sane_target_range(&mut parent.sane_target_range);
    }

    fn base(&mut self) -> Network {
        let Some(value) = self.values.remove("BASE") else {
            for key in ESSENTIAL {
                if !self.values.contains_key(*key) {
                    self.error(key, "is missing, and there is no BASE to take it from");
                }
            }
            return BITCOIN;
        };
        let named = value.as_str().and_then(|name| ALL.iter().chain(&[&DEMO]).find(|network| network.name == name));
        named.map_or_else(
            || {
                let known: Vec<&str> = ALL.iter().chain(&[&DEMO]).map(|network| network.name).collect();
                self.error("BASE", format!("{value} is not a known network; known are {}", known.join(", ")));
                BITCOIN
            },
            |network| (*network).clone(),
        )
    }

    fn refuse_the_rest(&mut self) {
        for key in std::mem::take(&mut self.values).into_keys() {
            self.error(&key, "is not a network constant");
        }
    }

    fn error(&mut self, field: &str, problem: impl Into<String>) {
        self.errors.push(FieldError { field: field.to_owned(), problem: problem.into() });
    }

    /// Stores the field's value in `slot` if the file has it and `read` accepts it.
    fn take<T>(&mut self, field: &str, wanted: &str, slot: &mut T, read: impl Fn(&Value) -> Option<T>) {
        let Some(value) = self.values.remove(field) else { return };
        match read(&value) {
            Some(read) => *slot = read,
            None => self.error(field, format!("{value} is not {wanted}")),
        }
    }

    fn text(&mut self, field: &str, slot: &mut &'static str) {
        self.take(field, "a string", slot, |value| value.as_str().map(leak));
    }

    /// An empty text stands for none, so that a file can drop what its `BASE` has.
    fn optional_text(&mut self, field: &str, slot: &mut Option<&'static str>) {
        self.take(field, "a string", slot, |value| value.as_str().map(|text| (!text.is_empty()).then(|| leak(text))));
    }

    fn human_readable_part(&mut self, slot: &mut &'static str) {
        self.take("HUMAN_READABLE_PART", "the part of a segwit address before its 1, such as \"ltc\"", slot, |value| {
            value.as_str().filter(|text| bech32::Hrp::parse(text).is_ok()).map(leak)
        });
    }

    fn old_p2sh_version(&mut self, slot: &mut Option<u8>) {
        self.take(
            "ADDRESS_P2SH_VERSION_OLD",
            "a whole number from 0 to 255, or -1 for none",
            slot,
            |value| match value.as_integer()? {
                -1 => Some(None),
                number => u8::try_from(number).ok().map(Some),
            },
        );
    }

    fn subsidy_function(&mut self, slot: &mut Subsidy) {
        self.take("SUBSIDY_FUNC", "\"unknown\" (a subsidy that halves has INITIAL and INTERVAL)", slot, |value| {
            (value.as_str()? == "unknown").then_some(Subsidy::UNKNOWN)
        });
    }

    fn list(&mut self, field: &str, slot: &mut &'static [&'static str]) {
        self.take(field, "a list of strings", slot, |value| {
            let texts: Option<Vec<&'static str>> =
                value.as_array()?.iter().map(|text| text.as_str().map(leak)).collect();
            Some(texts?.leak())
        });
    }

    fn flag(&mut self, field: &str, slot: &mut bool) {
        self.take(field, "true or false", slot, Value::as_bool);
    }

    fn port(&mut self, field: &str, slot: &mut u16) {
        self.number(field, 1..=65_535, slot);
    }

    fn number<T: TryFrom<i64>>(&mut self, field: &str, range: std::ops::RangeInclusive<i64>, slot: &mut T) {
        let wanted = format!("a whole number from {} to {}", range.start(), range.end());
        self.take(field, &wanted, slot, |value| {
            let number = value.as_integer().or_else(|| whole(value.as_float()?))?;
            if range.contains(&number) { T::try_from(number).ok() } else { None }
        });
    }

    fn bytes<const N: usize>(&mut self, field: &str, slot: &mut [u8; N]) {
        self.take(field, &format!("{} hex digits", 2 * N), slot, |value| {
            let mut bytes = [0; N];
            hex::decode_to_slice(value.as_str()?, &mut bytes).ok().map(|()| bytes)
        });
    }

    fn target(&mut self, field: &str, slot: &mut U256) {
        self.take(field, "a target of 64 hex digits", slot, target);
    }

    fn sane_target_range(&mut self, slot: &mut (U256, U256)) {
        self.take("SANE_TARGET_RANGE", "two targets of 64 hex digits, the lower first", slot, |value| {
            match value.as_array()?.as_slice() {
                [low, high] => Some((target(low)?, target(high)?)).filter(|(low, high)| low <= high),
                _ => None,
            }
        });
    }

    fn pow(&mut self, slot: &mut Pow) {
        self.take("POW", "\"sha256d\" or \"scrypt\"", slot, |value| match value.as_str()? {
            "sha256d" => Some(Pow::Sha256d),
            "scrypt" => Some(Pow::Scrypt),
            _ => None,
        });
    }

    fn version(&mut self, field: &str, slot: &mut u64) {
        self.take(field, "a share version that this node knows", slot, |value| {
            let number = u64::try_from(value.as_integer()?).ok()?;
            ShareVersion::from_number(number).ok().map(ShareVersion::number)
        });
    }

    fn start_difficulty(&mut self, slot: &mut f64) {
        self.take("START_DIFFICULTY", "a difficulty above 0", slot, |value| {
            match *value {
                Value::Float(number) => Some(number),
                // Integers in a file are far below 2^53.
                #[allow(clippy::cast_precision_loss)]
                Value::Integer(number) => Some(number as f64),
                _ => None,
            }
            .filter(|number| number.is_finite() && *number > 0.0)
        });
    }
}

fn leak(text: &str) -> &'static str {
    text.to_owned().leak()
}

/// P2Pool writes some integers as floats.
fn whole(number: f64) -> Option<i64> {
    // Below 2^53 every integral float is exact.
    #[allow(clippy::cast_possible_truncation)]
    (number.fract() == 0.0 && number.abs() < 9e15).then_some(number as i64)
}

fn target(value: &Value) -> Option<U256> {
    let text = value.as_str().filter(|text| text.len() == 64)?;
    let mut bytes = [0; 32];
    hex::decode_to_slice(text, &mut bytes).ok()?;
    Some(U256::from_be_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coin::{BITCOIN_SIGNET, LITECOIN};

    #[test]
    fn the_example_file_differs_from_its_base_in_what_it_says() {
        let network = from_toml(include_str!("../../../tests/networks/run17.toml")).unwrap();
        assert_eq!(network.name, "run17");
        assert_eq!(network.identifier, *b"sinet001");
        assert_eq!((network.chain_length, network.target_lookbehind, network.share_period), (120, 20, 5));
        assert_eq!(network.segwit_activation_version, 15);
        assert_eq!(network.max_target.bit_len(), 242);
        assert_eq!(network.parent.magic, [0x54, 0xd2, 0x6f, 0xbd]);
        assert_eq!(network.parent.rpc_chain, BITCOIN_SIGNET.parent.rpc_chain);
    }

    #[test]
    fn an_empty_file_with_a_base_is_the_base() {
        assert_eq!(from_toml("BASE = \"litecoin\"").unwrap(), LITECOIN);
    }

    #[test]
    fn a_coin_of_several_proofs_of_work_says_which_templates_it_needs_and_that_its_subsidy_is_not_known() {
        let network = from_toml(
            "BASE = \"litecoin\"\nADDRESS_P2SH_VERSION_OLD = 6\n[PARENT]\nTEMPLATE_ALGO = \"scrypt\"\n\
             [SUBSIDY]\nFUNC = \"unknown\"",
        )
        .unwrap();
        assert_eq!(network.parent.template_algo, Some("scrypt"));
        assert_eq!(network.parent.address_p2sh_version_old, Some(6));
        assert_eq!(network.parent.subsidy.one_block_early(100_000_000), u64::MAX, "no share takes more than that");
        let none =
            from_toml("BASE = \"litecoin\"\nADDRESS_P2SH_VERSION_OLD = -1\n[PARENT]\nTEMPLATE_ALGO = \"\"").unwrap();
        assert_eq!((none.parent.template_algo, none.parent.address_p2sh_version_old), (None, None));
        let errors = from_toml(
            "BASE = \"litecoin\"\nADDRESS_P2SH_VERSION_OLD = 256\n[PARENT]\nTEMPLATE_ALGO = 1\n[SUBSIDY]\nFUNC = \"x\"",
        )
        .unwrap_err();
        let fields: Vec<&str> = errors.iter().map(|error| error.field.as_str()).collect();
        assert_eq!(fields, ["PARENT_TEMPLATE_ALGO", "ADDRESS_P2SH_VERSION_OLD", "SUBSIDY_FUNC"]);
    }

    #[test]
    fn every_bad_field_is_told_at_once() {
        let errors = from_toml(
            "BASE = \"dogecoin\"\nHUMAN_READABLE_PART = \"\"\nPREFIX = \"12\"\nMAX_TARGET = 5\nP2P_PORT = 70000\nPOW = \"x11\"\nCOLOUR = \"red\"\n\
             TARGET_LOOKBEHIND = 1\n[SUBSIDY]\ninterval = 0\n",
        )
        .unwrap_err();
        let fields: Vec<&str> = errors.iter().map(|error| error.field.as_str()).collect();
        let wanted = [
            "BASE",
            "PREFIX",
            "P2P_PORT",
            "TARGET_LOOKBEHIND",
            "MAX_TARGET",
            "HUMAN_READABLE_PART",
            "SUBSIDY_INTERVAL",
            "POW",
            "COLOUR",
        ];
        assert_eq!(fields, wanted);
        assert!(errors[0].to_string().contains("bitcoin_signet"), "{}", errors[0]);
        assert_eq!(errors[1].to_string(), "PREFIX: \"12\" is not 16 hex digits");
    }

    #[test]
    fn without_a_base_each_missing_constant_is_told() {
        let errors = from_toml("IDENTIFIER = \"73696e6574303031\"").unwrap_err();
        assert_eq!(errors.len(), ESSENTIAL.len() - 1);
    }

    #[test]
    fn constants_that_contradict_each_other_are_refused() {
        let errors = from_toml("BASE = \"demo\"\nCHAIN_LENGTH = 60").unwrap_err();
        assert_eq!(errors.len(), 1);
        assert_eq!(errors[0].field, "REAL_CHAIN_LENGTH");
    }

    #[test]
    fn the_protocol_version_is_the_files_or_its_bases_and_not_below_the_minimum() {
        let version = |text: &str| from_toml(text).map(|network| network.protocol_version);
        assert_eq!(version("BASE = \"litecoin\""), Ok(3600));
        assert_eq!(version("BASE = \"litecoin\"\nPROTOCOL_VERSION = 3502"), Ok(3502));
        let errors = version("BASE = \"litecoin\"\nPROTOCOL_VERSION = 3300").unwrap_err();
        assert_eq!(errors[0].to_string(), "MINIMUM_PROTOCOL_VERSION: 3301 is more than PROTOCOL_VERSION, 3300");
    }

    #[test]
    fn a_file_that_is_no_toml_names_the_line() {
        let errors = from_toml("BASE = \"demo\"\nCHAIN_LENGTH 60").unwrap_err();
        assert_eq!(errors[0].field, "line 2");
    }
}
