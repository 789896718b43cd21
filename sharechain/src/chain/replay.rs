//! Feeds shares to an empty chain with every check and reports each result as JSON, for reading and for comparing two
//! implementations.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io::{self, BufRead, Write};
use std::sync::Arc;

use serde::Serialize;
use thiserror::Error;

use super::{Event, Sharechain};
use crate::coin::Network;
use crate::share::{GenerationError, Payouts, Share, ShareHash, display_hex, donation_payee, donation_script};

/// Errors that stop a replay. A share's own error is its verdict, and stops nothing.
#[derive(Debug, Error)]
pub enum ReplayError {
    /// Reading the shares failed.
    #[error("cannot read the shares: {0}")]
    Read(#[source] io::Error),
    /// Writing the results failed.
    #[error("cannot write: {0}")]
    Write(#[source] io::Error),
}

/// Result of one line.
#[derive(Debug, Serialize)]
struct Line {
    #[serde(flatten)]
    share: Option<ShareLine>,
    verdict: Option<String>,
}

#[derive(Debug, Serialize)]
struct ShareLine {
    hash: String,
    version: u64,
    height: u32,
    previous: Option<String>,
    absheight: u32,
    /// Decimal: it may exceed the numbers that JSON parsers keep exact.
    abswork: String,
    pow_hash: String,
    gentx_hash: String,
    /// Raw bytes in the order of the coinbase, as in the vectors.
    ref_hash: String,
    max_target: String,
    target: String,
    /// Satoshis by script; unknown for a share that was not verified.
    payouts: Option<BTreeMap<String, u64>>,
}

#[derive(Debug, Serialize)]
struct Summary {
    best: Option<String>,
    height: u32,
    verified: usize,
    unverified: usize,
}

/// Verdict on a share whose ancestors are missing.
const UNVERIFIED: &str = "unverified";

/// Replays `shares`, lines of hex (version and contents), each optionally followed by a space and its arrival time in
/// seconds; without one, a share arrives at its own timestamp. Writes one JSON object per line in the same order, and a
/// summary at the end. Heights of the parent chain's blocks count as unknown.
///
/// # Errors
/// If reading or writing fails.
pub fn replay(network: &'static Network, shares: impl BufRead, mut out: impl Write) -> Result<(), ReplayError> {
    let mut chain = Sharechain::new(network);
    let mut lines: VecDeque<(Option<ShareHash>, Line)> = VecDeque::new();
    let mut fates: HashMap<ShareHash, Fate> = HashMap::new();
    for text in shares.lines() {
        let text = text.map_err(ReplayError::Read)?;
        let text = text.trim();
        if text.is_empty() {
            continue;
        }
        lines.push_back(take(&mut chain, text, &mut fates));
        settle(&mut lines, &mut fates, &mut out, false)?;
    }
    settle(&mut lines, &mut fates, &mut out, true)?;
    let best = chain.choice().best;
    let summary = Summary {
        best: best.map(|best| best.to_string()),
        height: best.map_or(0, |best| chain.all().height(best)),
        verified: chain.verified().len(),
        unverified: chain.all().len() - chain.verified().len(),
    };
    write_json(&mut out, &summary)?;
    out.flush().map_err(ReplayError::Write)
}

/// Result of a share.
#[derive(Debug)]
struct Fate {
    verdict: String,
    payouts: Option<BTreeMap<String, u64>>,
}

/// Adds the share of one line; its verdict stays open if that depends on its ancestors.
fn take(chain: &mut Sharechain, text: &str, fates: &mut HashMap<ShareHash, Fate>) -> (Option<ShareHash>, Line) {
    let decided = |verdict: String| (None, Line { share: None, verdict: Some(verdict) });
    let (hex, arrival) = match text.split_once(char::is_whitespace) {
        Some((hex, arrival)) => (hex, Some(arrival.trim())),
        None => (text, None),
    };
    let bytes = match hex::decode(hex) {
        Ok(bytes) => bytes,
        Err(error) => return decided(format!("not hex: {error}")),
    };
    let arrival: Option<f64> = match arrival.map(str::parse).transpose() {
        Ok(arrival) => arrival,
        Err(_) => return decided(format!("arrival time {} is not a number of seconds", arrival.unwrap_or_default())),
    };
    let share = match Share::from_bytes(&bytes, chain.rules()) {
        Ok(share) => Arc::new(share),
        Err(error) => return decided(error.to_string()),
    };
    let now = arrival.unwrap_or_else(|| f64::from(share.timestamp()));
    let hash = share.hash();
    if !chain.add(Arc::clone(&share), None, now) {
        let line = Line { share: Some(describe(chain, &share)), verdict: Some("duplicate".to_owned()) };
        return (None, line);
    }
    let line = Line { share: Some(describe(chain, &share)), verdict: None };
    chain.think(now);
    while let Some(event) = chain.poll_event() {
        match event {
            Event::Verified(hash) => {
                let payouts = chain.payouts_of(hash).and_then(Result::ok).map(by_script);
                fates.insert(hash, Fate { verdict: "ok".to_owned(), payouts });
            }
            Event::Refused { hash, error, .. } | Event::Early { hash, error, .. } => {
                fates.insert(hash, Fate { verdict: error.to_string(), payouts: None });
            }
            _ => {}
        }
    }
    (Some(hash), line)
}

/// Writes the lines whose verdict is known, in order; all remaining ones at the `end`.
fn settle(
    lines: &mut VecDeque<(Option<ShareHash>, Line)>,
    fates: &mut HashMap<ShareHash, Fate>,
    out: &mut impl Write,
    end: bool,
) -> Result<(), ReplayError> {
    while let Some((hash, line)) = lines.front_mut() {
        if let Some(fate) = hash.and_then(|hash| fates.remove(&hash)) {
            line.verdict = Some(fate.verdict);
            if let Some(share) = &mut line.share {
                share.payouts = fate.payouts;
            }
        } else if line.verdict.is_none() {
            if !end {
                return Ok(());
            }
            line.verdict = Some(UNVERIFIED.to_owned());
        }
        write_json(out, line)?;
        lines.pop_front();
    }
    Ok(())
}

fn describe(chain: &Sharechain, share: &Share) -> ShareLine {
    ShareLine {
        hash: share.hash().to_string(),
        version: share.version().number(),
        height: chain.all().height(share.hash()),
        previous: share.previous().map(|previous| previous.to_string()),
        absheight: share.absheight(),
        abswork: share.abswork().to_string(),
        pow_hash: display_hex(share.pow_hash()),
        gentx_hash: display_hex(share.gentx_hash()),
        ref_hash: hex::encode(share.ref_hash()),
        max_target: share.max_target().to_hex(),
        target: share.target().to_hex(),
        payouts: None,
    }
}

/// Several payees may have one script: another spelling of an address is another payee.
fn by_script(payouts: Outputs) -> BTreeMap<String, u64> {
    let mut sums = BTreeMap::new();
    for (script, amount) in payouts {
        *sums.entry(hex::encode(script)).or_default() += amount;
    }
    sums
}

fn write_json(out: &mut impl Write, value: &impl Serialize) -> Result<(), ReplayError> {
    serde_json::to_writer(&mut *out, value).map_err(|error| ReplayError::Write(error.into()))?;
    out.write_all(b"\n").map_err(ReplayError::Write)
}

/// Scripts and satoshis, in the order of a coinbase.
pub type Outputs = Vec<(Box<[u8]>, u64)>;

impl Sharechain {
    /// Payouts of a share's coinbase, in the order of its outputs, the donation last. Derived from its ancestors, so it
    /// is right only for a verified share. `None` if the share is unknown.
    pub fn payouts_of(&mut self, hash: ShareHash) -> Option<Result<Outputs, GenerationError>> {
        let share = self.share(hash).cloned()?;
        let parent = share.previous().and_then(|previous| self.share(previous).cloned());
        let mut windows = std::mem::take(&mut self.windows);
        let view = self.view();
        let query = view.window(share.version(), parent.as_deref(), share.block_target());
        let weights = windows.payouts.weights(query, &|hash| view.entry(hash));
        self.windows = windows;
        let donation = donation_payee(share.version(), &self.rules);
        let payouts = Payouts::new(share.version(), share.data().subsidy, &weights, &self.rules);
        Some(payouts.and_then(|payouts| {
            payouts
                .with_finder(share.payee())
                .map(|(payee, amount)| {
                    let script = if *payee == donation {
                        donation_script(share.version())
                    } else {
                        payee.script(share.version())?
                    };
                    Ok((script.into(), amount))
                })
                .collect()
        }))
    }
}
