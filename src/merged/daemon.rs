//! RPC client of a merged chain's daemon: its next block, and the fate of found ones. Each call is bounded in time and
//! bytes.

use bitcoin::BlockHash;
use bitcoin::hashes::Hash;
use bitcoin::hex::DisplayHex;
use serde::Deserialize;
use serde_json::{Value, json};
use sharechain::merged::{DOGECOIN, MergedBlock};
use sharechain::merkle::Digest;
use std::sync::Arc;
use std::time::Duration;
use stratum::Printable;
use tokio::task::spawn_blocking;

use super::answer::{Answer, AnswerError, tip_hash, tip_height};
use super::template::{MergedTemplate, TemplateAnswer, is_whole};
use super::trouble::{TEMPLATE, Trouble};
use super::{ChainConfig, Mode};
use crate::bitcoind::responses::BlockHeaderInfo;
use crate::bitcoind::rpc::{CallLimits, Rpc, RpcError, code};
use crate::blocks::{BlockPosition, FoundBlock};

/// Limits of an ordinary call. Answers have some hundreds of bytes, and one that hangs must not hide the chain for long.
const CALL: CallLimits = CallLimits { timeout: Duration::from_secs(10), answer_bytes_max: 64 * 1024 };

/// Limits of asking for a template: of a block of a megabyte, in hex and with what is said of each transaction.
const GIVE_TEMPLATE: CallLimits = CallLimits { answer_bytes_max: 8 * 1024 * 1024, ..CALL };

/// Limits of submitting a block, which the daemon validates before it answers.
const SUBMIT: CallLimits = CallLimits { timeout: Duration::from_secs(30), ..CALL };

/// Limits of looking a block up: the answer may list the block's transactions, and the outputs of its proof's coinbase.
const LOOK_UP: CallLimits = CallLimits { answer_bytes_max: 4 * 1024 * 1024, ..CALL };

/// Method that takes whole blocks.
pub(super) const SUBMIT_WHOLE: &str = "submitblock";

/// Maximum length of the user agent that is shown, in characters.
const VERSION_MAX: usize = 100;

/// Hash that stands for an unknown one.
const UNKNOWN: Digest = [0; 32];

/// Client of one daemon. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Daemon {
    rpc: Rpc,
    chain: Arc<str>,
    address: Option<Arc<str>>,
    payee: Arc<str>,
}

/// Answer to `getnetworkinfo`, as far as it is shown.
#[derive(Deserialize)]
struct NetworkInfo {
    subversion: String,
}

impl Daemon {
    /// Creates a client. Connects at each call.
    pub(super) fn new(config: &ChainConfig) -> Self {
        let ChainConfig { name, host, port, path, credentials, address, .. } = config;
        let payee = match address {
            Some(address) => Printable::new(address).shared().clone(),
            None => "the daemon's wallet".into(),
        };
        Self {
            rpc: Rpc::of_merged(name.clone(), host, *port, path, credentials.clone()),
            chain: name.clone(),
            address: address.as_deref().map(Into::into),
            payee,
        }
    }

    /// Name of the chain.
    pub(super) fn chain(&self) -> &Arc<str> {
        &self.chain
    }

    /// Address and port, for messages.
    pub(super) fn target(&self) -> &str {
        self.rpc.target()
    }

    /// Payee of the blocks, for display.
    pub(super) fn payee(&self) -> &Arc<str> {
        &self.payee
    }

    /// How blocks that the daemon makes are asked for: never from the wallet where an address is configured.
    pub(super) fn mode(&self) -> Mode {
        if self.address.is_some() { Mode::Address } else { Mode::Wallet }
    }

    /// User agent, printable; empty if the daemon does not say it.
    ///
    /// # Errors
    /// The daemon does not answer, or is starting.
    pub(super) async fn version(&self) -> Result<Arc<str>, Trouble> {
        match self.rpc.call_within_limits::<NetworkInfo>(CALL, "getnetworkinfo", Vec::new()).await {
            Ok(info) => Ok(Printable::of_at_most(&info.subversion, VERSION_MAX).shared().clone()),
            Err(error @ RpcError::Daemon { code: code::WARMING_UP, .. }) => Err(self.trouble(error)),
            Err(RpcError::Daemon { .. } | RpcError::Malformed { .. }) => Ok(Arc::default()),
            Err(error) => Err(self.trouble(error)),
        }
    }

    /// The chain's next block. `before` is the last one, and `chain_id` the chain's number, if known: another is refused.
    ///
    /// # Errors
    /// [`Trouble`].
    pub(super) async fn next_block(
        &self,
        chain_id: Option<u32>,
        before: Option<&MergedBlock>,
    ) -> Result<MergedBlock, Trouble> {
        let (method, params) = match &self.address {
            Some(address) => ("createauxblock", vec![json!(address)]),
            None => ("getauxblock", Vec::new()),
        };
        let answer: Value = self.ask(method, params).await?;
        let answer = Answer::read(&answer).map_err(|reason| Trouble::Answer { method, reason })?;
        if let Some(before) = chain_id.filter(|before| *before != answer.chain_id) {
            return Err(Trouble::OtherChain { before, now: answer.chain_id });
        }
        let before = before.filter(|block| block.hash == answer.hash);
        let previous_block = match (answer.previous_block, before) {
            (Some(given), _) => given,
            (None, Some(before)) => before.previous_block,
            (None, None) => self.tip_hash().await?,
        };
        let height = match (answer.height, before) {
            (Some(given), _) => given,
            (None, Some(before)) => before.height,
            (None, None) => self.look_at_tip("getblockcount", tip_height).await? + 1,
        };
        Ok(answer.into_block(self.chain.clone(), self.payee.clone(), previous_block, height))
    }

    /// Template of the chain's next block, for blocks that pay the miners.
    ///
    /// # Errors
    /// [`Trouble`]: also if the chain is another than Dogecoin.
    pub(super) async fn template(&self) -> Result<Arc<MergedTemplate>, Trouble> {
        // Core refuses who does not know segwit, and Dogecoin Core does not mind.
        let params = vec![json!({ "rules": ["segwit"] })];
        let answer: TemplateAnswer =
            self.rpc.call_within_limits(GIVE_TEMPLATE, TEMPLATE, params).await.map_err(Trouble::of_template)?;
        let checked = spawn_blocking(move || answer.check()).await;
        let checked = checked.map_err(|error| Trouble::NoTemplates { message: error.to_string() })?;
        let template = checked.map_err(|reason| Trouble::Answer { method: TEMPLATE, reason })?;
        match template.chain_id() {
            DOGECOIN => Ok(template.into()),
            other => Err(Trouble::NotDogecoin(other)),
        }
    }

    /// Hash of the best block; zeros if the daemon does not have the call.
    ///
    /// # Errors
    /// [`Trouble`].
    pub(super) async fn tip_hash(&self) -> Result<Digest, Trouble> {
        match self.look_at_tip("getbestblockhash", tip_hash).await {
            Err(Trouble::Rpc(error)) if error.code() == Some(code::NO_METHOD) => Ok(UNKNOWN),
            other => other,
        }
    }

    async fn look_at_tip<T>(
        &self,
        method: &'static str,
        read: impl FnOnce(&Value) -> Result<T, AnswerError>,
    ) -> Result<T, Trouble> {
        let answer: Value = self.rpc.call_within_limits(CALL, method, Vec::new()).await.map_err(Trouble::Rpc)?;
        read(&answer).map_err(|reason| Trouble::Answer { method, reason })
    }

    async fn ask(&self, method: &'static str, params: Vec<Value>) -> Result<Value, Trouble> {
        self.rpc.call_within_limits(CALL, method, params).await.map_err(|error| self.trouble(error))
    }

    fn trouble(&self, error: RpcError) -> Trouble {
        Trouble::of(error, self.address.as_deref())
    }

    /// Method that takes `block`: what was built here is submitted as a whole, of what the daemon made the proof of work,
    /// whatever the mode is now.
    pub(super) fn submit_method(&self, block: &FoundBlock) -> &'static str {
        if is_whole(&block.bytes, block.hash.as_byte_array()) {
            return SUBMIT_WHOLE;
        }
        match self.address {
            Some(_) => "submitauxblock",
            None => "getauxblock",
        }
    }

    /// Submits `block` by its [`submit_method`](Self::submit_method); returns the answer.
    ///
    /// # Errors
    /// The call failed.
    pub(super) async fn submit(&self, block: &FoundBlock) -> Result<Value, RpcError> {
        let (method, bytes) = (self.submit_method(block), json!(block.bytes.to_lower_hex_string()));
        let params = if method == SUBMIT_WHOLE { vec![bytes] } else { vec![json!(block.hash), bytes] };
        self.rpc.call_within_limits(SUBMIT, method, params).await
    }

    /// Looks up the position of a block.
    ///
    /// # Errors
    /// The call failed.
    pub(super) async fn position(&self, hash: &BlockHash) -> Result<BlockPosition, RpcError> {
        // Daemons of before 2016 have no look-up of headers.
        let found = match self.look_up("getblockheader", hash).await {
            Err(error) if error.code() == Some(code::NO_METHOD) => self.look_up("getblock", hash).await,
            other => other,
        };
        match found {
            Ok(BlockHeaderInfo { confirmations, height }) => Ok(match u32::try_from(confirmations) {
                Ok(confirmations) if confirmations > 0 => BlockPosition::InChain { height, confirmations },
                _ => BlockPosition::Beside { height },
            }),
            Err(error) if error.code() == Some(code::NOT_FOUND) => Ok(BlockPosition::Unknown),
            Err(error) => Err(error),
        }
    }

    async fn look_up(&self, method: &'static str, hash: &BlockHash) -> Result<BlockHeaderInfo, RpcError> {
        self.rpc.call_within_limits(LOOK_UP, method, vec![json!(hash)]).await
    }
}

#[cfg(test)]
mod tests;
