//! Parameters of a request, with the variants that miners send.

use serde_json::Value;
use serde_json::value::RawValue;
use std::borrow::Cow;

use super::{Call, Configure};
use crate::mining::difficulty::Target;
use crate::mining::error::StratumError;
use crate::mining::submission::shown;

/// Maximum number of parameters read; NiceHash and MiningRigRentals append their own, which are ignored.
const PARAMETERS_MAX: usize = 16;

/// Maximum number of extensions read in a `mining.configure`; four exist.
const EXTENSIONS_MAX: usize = 16;

/// Maximum number of addresses in a `mining.set_merged_addresses`, one for each merged chain.
const MERGED_ADDRESSES_MAX: usize = 8;

/// Maximum length of one of them, in bytes.
const MERGED_ADDRESS_BYTES_MAX: usize = 128;

/// Parameters of a request, each as raw JSON.
pub(super) struct Params<'a>(Vec<&'a RawValue>);

impl<'a> Params<'a> {
    pub(super) fn parse(raw: Option<&'a RawValue>) -> Result<Self, StratumError> {
        let Some(raw) = raw else { return Ok(Self(Vec::new())) };
        let mut all: Vec<&RawValue> = serde_json::from_str(raw.get())
            .map_err(|_| StratumError::Parameters(format!("`{}` is not a list", shown(raw.get()))))?;
        all.truncate(PARAMETERS_MAX);
        Ok(Self(all))
    }

    pub(super) fn text(&self, index: usize, name: &str) -> Result<Cow<'a, str>, StratumError> {
        let raw = self.0.get(index).ok_or_else(|| StratumError::Parameters(format!("{name} is missing")))?.get();
        text_of(raw).ok_or_else(|| StratumError::Parameters(format!("{name} `{}` is not a string", shown(raw))))
    }

    pub(super) fn text_or_empty(&self, index: usize) -> Cow<'a, str> {
        self.0.get(index).and_then(|raw| text_of(raw.get())).unwrap_or_default()
    }

    /// Parses hex digits, or a number that stands for them, as some proxies send it.
    fn digits(&self, index: usize, name: &str) -> Result<Cow<'a, str>, StratumError> {
        match self.0.get(index).and_then(|raw| raw.get().parse::<u32>().ok()) {
            Some(number) => Ok(Cow::Owned(format!("{number:08x}"))),
            None => self.text(index, name),
        }
    }

    /// Parses a number, or a string with one.
    pub(super) fn number(&self, index: usize) -> Result<f64, StratumError> {
        let raw = self.0.get(index).ok_or_else(|| StratumError::Parameters("the number is missing".into()))?.get();
        number_of(&text_of(raw).unwrap_or(Cow::Borrowed(raw)))
    }

    pub(super) fn target(&self, index: usize) -> Result<Target, StratumError> {
        let digits = self.text(index, "target")?;
        Target::from_hex(&digits)
            .ok_or_else(|| StratumError::Parameters(format!("target `{}` is not hex", shown(&digits))))
    }

    pub(super) fn submit(&self) -> Result<Call<'a>, StratumError> {
        Ok(Call::Submit {
            name: self.text(0, "worker name")?,
            job: self.text(1, "job")?,
            extranonce2: self.text(2, "extranonce2")?,
            time: self.digits(3, "ntime")?,
            nonce: self.digits(4, "nonce")?,
            version_bits: match self.0.get(5) {
                Some(raw) if raw.get() != "null" => Some(self.digits(5, "version bits")?),
                _ => None,
            },
        })
    }

    pub(super) fn merged_addresses(&self) -> Result<Call<'a>, StratumError> {
        let raw = self.0.first().map_or("", |raw| raw.get());
        let bad = |what: &str| StratumError::Parameters(format!("`{}` {what}", shown(raw)));
        let no_addresses = || bad("is not an object with an address for each chain number");
        let given: serde_json::Map<String, Value> = serde_json::from_str(raw).map_err(|_| no_addresses())?;
        if given.len() > MERGED_ADDRESSES_MAX {
            return Err(bad("has too many addresses"));
        }
        let address = |(number, address): (String, Value)| -> Result<(u32, Box<str>), StratumError> {
            let number = number.parse().map_err(|_| no_addresses())?;
            let address = address.as_str().ok_or_else(no_addresses)?;
            if address.len() > MERGED_ADDRESS_BYTES_MAX {
                Err(bad("has too long an address"))
            } else {
                Ok((number, address.into()))
            }
        };
        Ok(Call::SetMergedAddresses(given.into_iter().map(address).collect::<Result<_, _>>()?))
    }

    pub(super) fn configure(&self) -> Result<Call<'a>, StratumError> {
        let list = self.0.first().map_or("[]", |raw| raw.get());
        let mut extensions: Vec<String> = serde_json::from_str(list)
            .map_err(|_| StratumError::Parameters(format!("extensions `{}` are not a list of names", shown(list))))?;
        extensions.truncate(EXTENSIONS_MAX);
        let options: Value = match self.0.get(1) {
            Some(raw) => serde_json::from_str(raw.get()).unwrap_or(Value::Null),
            None => Value::Null,
        };
        // `version-rolling.min-bit-count` is ignored: a miner that can roll less than it wants gets the mask all the
        // same. Braiins OS leaves it out, others send it as a string.
        let version_rolling_mask = match options.get("version-rolling.mask") {
            None | Some(Value::Null) => None,
            Some(given) => Some(mask_of(given).ok_or_else(|| {
                let given = shown(&given.to_string());
                StratumError::Parameters(format!("version-rolling.mask `{given}` is not a hex number"))
            })?),
        };
        let minimum_difficulty = options
            .get("minimum-difficulty.value")
            .and_then(|given| given.as_f64().or_else(|| given.as_str().and_then(|text| number_of(text).ok())));
        let software = options.get("info.sw-version").and_then(Value::as_str).map(str::to_owned);
        Ok(Call::Configure(Configure { extensions, version_rolling_mask, minimum_difficulty, software }))
    }
}

fn mask_of(given: &Value) -> Option<u32> {
    let digits = given.as_str()?;
    u32::from_str_radix(digits.strip_prefix("0x").unwrap_or(digits), 16).ok()
}

pub(super) fn number_of(text: &str) -> Result<f64, StratumError> {
    text.trim()
        .parse()
        .ok()
        .filter(|number: &f64| number.is_finite() && *number > 0.0)
        .ok_or_else(|| StratumError::Parameters(format!("`{}` is not a number above 0", shown(text))))
}

/// Text of a JSON string, borrowed unless it has escapes.
pub(super) fn text_of(raw: &str) -> Option<Cow<'_, str>> {
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') { serde_json::from_str(raw).ok().map(Cow::Owned) } else { Some(Cow::Borrowed(inner)) }
}
