//! The block of a merged chain that pays the miners of the share chain's window: the canonical coinbase that every node
//! derives (protocol-v36 section 8.3), around it the daemon's template, and what a share says of it.

use bitcoin::Script;
use sharechain::merged::{MergedKey, MergedOutputs, MergedWeights, canonical_script};
use sharechain::share::MergedCoinbase;
use std::sync::Arc;
use thiserror::Error;

use super::template::{MergedTemplate, TemplateBlock};

/// Longest script of a miner that is paid where the canonical coinbase does not fit, in bytes: that of any address.
const SCRIPT_BYTES_MAX: usize = 42;

/// Signature operations of such a script: that of an address has one at most.
const SCRIPT_SIGOPS_MAX: usize = 1;

/// Reason why a block cannot pay the miners.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum NotPaid {
    /// No share of the window votes for the version that pays merged chains, or all is donated.
    #[error("no miner of the share chain's window has a part in it yet")]
    NoMiner,
    /// The outputs do not fit into a block.
    #[error("the coinbase that pays all miners does not fit into its block")]
    TooLarge,
    /// A bug: the weights are no window's.
    #[error("the miners' weights exceed their total")]
    Weights,
}

/// A block that pays the miners.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PaidBlock {
    pub(super) block: TemplateBlock,
    /// What its coinbase pays, in base units.
    pub(super) value: u64,
    /// Number of miners that it pays.
    pub(super) miners: usize,
    /// Entry for shares; `None` if other nodes might expect another coinbase.
    pub(super) entry: Option<MergedCoinbase>,
}

/// Builds the block of `template` that pays by `weights`.
///
/// # Errors
/// [`NotPaid`].
pub(super) fn pay(template: &Arc<MergedTemplate>, weights: &MergedWeights) -> Result<PaidBlock, NotPaid> {
    if weights.is_empty() {
        return Err(NotPaid::NoMiner);
    }
    match pay_by(template, weights, true) {
        // One share can name any script, and with it make the canonical coinbase larger than a block. All other miners
        // are paid, without a claim that every node would do so.
        Err(NotPaid::TooLarge) => pay_by(template, &without_odd_scripts(weights), false),
        other => other,
    }
}

fn pay_by(template: &Arc<MergedTemplate>, weights: &MergedWeights, is_canonical: bool) -> Result<PaidBlock, NotPaid> {
    let script = canonical_script(template.height.into());
    let outputs_of = |value| MergedOutputs::new(weights, value).ok_or(NotPaid::Weights);
    let mut outputs = outputs_of(template.value)?;
    let mut coinbase = outputs.coinbase(&script);
    let sigops = outputs.miners().map(|(script, _)| sigops(script.as_bytes()) as u64).sum();
    let kept = template.fitting(coinbase.len(), sigops).ok_or(NotPaid::TooLarge)?;
    let value = template.value_with(kept);
    if value != template.value {
        // Without the fees of what was left out; no output is added by it.
        outputs = outputs_of(value)?;
        coinbase = outputs.coinbase(&script);
    }
    let miners = outputs.miners().count();
    if miners == 0 {
        return Err(NotPaid::NoMiner);
    }
    let block = template.block(coinbase, kept);
    let entry = (is_canonical && !outputs.is_undefined()).then(|| MergedCoinbase {
        chain_id: template.chain_id(),
        value,
        height: template.height.into(),
        header: *block.header(),
        branch: block.branch().into(),
        script: script.into(),
    });
    Ok(PaidBlock { block, value, miners, entry })
}

/// The weights of all miners but those with a script that no address has. Their part falls to the others.
fn without_odd_scripts(weights: &MergedWeights) -> MergedWeights {
    let is_usual = |script: &[u8]| script.len() <= SCRIPT_BYTES_MAX && sigops(script) <= SCRIPT_SIGOPS_MAX;
    let mut usual = weights.clone();
    usual.by_key.retain(|key, _| match key {
        MergedKey::Merged(script) => is_usual(script.as_bytes()),
        // Paid by a script of the usual kinds, or not at all.
        MergedKey::Parent(_) => true,
    });
    usual
}

fn sigops(script: &[u8]) -> usize {
    Script::from_bytes(script).count_sigops_legacy()
}

#[cfg(test)]
mod tests;
