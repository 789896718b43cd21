//! Makes the coinbase and its `Job` from a template and a payout, and the whole block from a solved job.
//!
//! The extranonces stand in the last output, as in P2Pool's shares (protocol section 4.8): everything before them is
//! hashed once per job, whatever the number of payouts. The last output here is
//! `OP_RETURN <job's number, 8 bytes || extranonce1 || extranonce2>`: the number makes every job's coinbase differ.

use bitcoin::consensus::encode::{VarInt, serialize};
use bitcoin::hashes::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};
use stratum::version_rolling::VERSION_MASK;
use stratum::{JobId, JobParts, Offer, Target};
use thiserror::Error;

use super::{Config, Payout};
use crate::template::{Template, WITNESS_RESERVED_VALUE};

/// Longest coinbase script that Bitcoin takes.
const SCRIPT_BYTES_MAX: usize = 100;

/// Room that height and flags leave for the operator's texts.
const TEXTS_BYTES_MAX: usize = 80;

/// Bytes of the coinbase after the extranonces: the lock time.
const LOCK_TIME: [u8; 4] = [0; 4];

/// Bits that the top of a block's version must be (BIP 9), so that no bit is a signal by accident.
const VERSION_TOP_BITS: u32 = 0x2000_0000;

/// What a job needs to become a block, whenever its solution comes.
#[derive(Debug)]
pub struct Ticket {
    template: Arc<Template>,
    payout: Payout,
    /// The coinbase up to the extranonces, without witness.
    coinbase_head: Box<[u8]>,
}

impl Ticket {
    /// What the block is made of.
    pub fn template(&self) -> &Template {
        &self.template
    }

    /// Whom the coinbase pays.
    pub fn payout(&self) -> &Payout {
        &self.payout
    }

    /// The whole block, as it goes over the wire.
    pub fn block(&self, header: &[u8; 80], extranonces: [u8; 8]) -> Vec<u8> {
        let transactions = &self.template.transactions;
        let size: usize = transactions.iter().map(|transaction| transaction.raw.len()).sum();
        let mut block = Vec::with_capacity(80 + 9 + self.coinbase_head.len() + 64 + size);
        block.extend_from_slice(header);
        block.extend_from_slice(&serialize(&VarInt::from(transactions.len() + 1)));
        let (version, rest) = self.coinbase_head.split_at(4);
        block.extend_from_slice(version);
        if self.template.witness_root.is_some() {
            block.extend_from_slice(&[0, 1]);
        }
        block.extend_from_slice(rest);
        block.extend_from_slice(&extranonces);
        if self.template.witness_root.is_some() {
            block.extend_from_slice(&[1, 32]);
            block.extend_from_slice(&WITNESS_RESERVED_VALUE);
        }
        block.extend_from_slice(&LOCK_TIME);
        for transaction in transactions.iter() {
            block.extend_from_slice(&transaction.raw);
        }
        block
    }
}

/// Texts for the coinbase that do not fit.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TextsError {
    /// One text is too long for the script.
    #[error("text `{0}` is longer than 75 bytes")]
    TooLong(String),
    /// All together are.
    #[error("together they take {0} bytes of the coinbase script, of which {TEXTS_BYTES_MAX} are free")]
    TooMany(usize),
}

/// The script bytes that push each of `texts`.
///
/// # Errors
/// Texts that would not fit into the coinbase script.
pub fn coinbase_script_of_texts(texts: &[String]) -> Result<Vec<u8>, TextsError> {
    let mut script = Vec::new();
    for text in texts {
        let length = u8::try_from(text.len()).ok().filter(|length| *length <= 75);
        script.push(length.ok_or_else(|| TextsError::TooLong(text.clone()))?);
        script.extend_from_slice(text.as_bytes());
    }
    if script.len() > TEXTS_BYTES_MAX { Err(TextsError::TooMany(script.len())) } else { Ok(script) }
}

/// A job on `template` that pays `payout` all there is.
pub(super) fn offer(template: &Arc<Template>, payout: &Payout, config: &Config) -> Offer<Ticket> {
    let id = next_job_id();
    let head = coinbase_head(template, payout, config, id);
    let parts = JobParts {
        id,
        coinbase_head: &head,
        coinbase_tail: &LOCK_TIME,
        branch: &template.branch,
        version: (template.version & !VERSION_MASK) | VERSION_TOP_BITS,
        previous_block: template.previous_block.to_byte_array(),
        bits: template.bits.to_consensus(),
        time: template.time,
        time_min: template.time_min,
        solution_target: Target::from_le_bytes(template.target.to_le_bytes()),
        pow: stratum::job::sha256d,
    };
    let ticket = Ticket { template: template.clone(), payout: payout.clone(), coinbase_head: head.clone().into() };
    Offer::new(&parts, ticket)
}

/// Numbers that are never used again, also not after a restart: they start at the clock's microseconds.
fn next_job_id() -> JobId {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let start = u64::try_from(since_1970.as_micros()).unwrap_or(u64::MAX / 2);
    // Only the first call finds it at zero; whoever loses that race takes what the winner stored.
    let _ = NEXT.compare_exchange(0, start, Ordering::Relaxed, Ordering::Relaxed);
    JobId(NEXT.fetch_add(1, Ordering::Relaxed))
}

fn coinbase_head(template: &Template, payout: &Payout, config: &Config, id: JobId) -> Vec<u8> {
    let script = coinbase_script(template, config);
    let mut head = Vec::with_capacity(256);
    head.extend_from_slice(&1_u32.to_le_bytes());
    head.push(1);
    head.extend_from_slice(&[0; 32]);
    head.extend_from_slice(&[0xff; 4]);
    head.extend_from_slice(&serialize(&VarInt::from(script.len())));
    head.extend_from_slice(&script);
    head.extend_from_slice(&[0xff; 4]);
    let commitment = template.witness_commitment_script();
    head.push(if commitment.is_some() { 3 } else { 2 });
    if let Some(commitment) = &commitment {
        push_output(&mut head, 0, commitment);
    }
    push_output(&mut head, template.coinbase_value, payout.script.as_bytes());
    head.extend_from_slice(&0_u64.to_le_bytes());
    head.extend_from_slice(&[18, 0x6a, 16]);
    head.extend_from_slice(&id.0.to_le_bytes());
    head
}

fn push_output(bytes: &mut Vec<u8>, value: u64, script: &[u8]) {
    bytes.extend_from_slice(&value.to_le_bytes());
    bytes.extend_from_slice(&serialize(&VarInt::from(script.len())));
    bytes.extend_from_slice(script);
}

/// `push(height) || push(text)… || flags`, cut to 100 bytes (protocol section 4.9).
fn coinbase_script(template: &Template, config: &Config) -> Vec<u8> {
    let mut script = height_push(template.height);
    script.extend_from_slice(&config.coinbase_texts);
    script.extend_from_slice(&template.coinbase_flags);
    script.truncate(SCRIPT_BYTES_MAX);
    // The first sixteen heights are pushed by a single byte, and Bitcoin wants at least two in the script.
    if script.len() < 2 {
        script.push(0);
    }
    script
}

/// The height as BIP 34 wants it pushed.
fn height_push(height: u32) -> Vec<u8> {
    bitcoin::script::Builder::new().push_int(i64::from(height)).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address;
    use crate::network::BITCOIN_REGTEST;
    use crate::template::tests::{RULES, parts};
    use crate::template::{TemplateParts, TemplateTransaction};
    use bitcoin::consensus::deserialize;
    use bitcoin::{Block, Transaction};
    use bytes::Bytes;

    fn payout() -> Payout {
        let address = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080";
        let script = address::script_of(address, &BITCOIN_REGTEST.parent).unwrap();
        Payout { script, address: address.into(), share_difficulty: None }
    }

    fn config(texts: &[&str]) -> Config {
        let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
        Config {
            network: &BITCOIN_REGTEST,
            default_payout: payout(),
            fee_percent: 0.0,
            coinbase_texts: coinbase_script_of_texts(&texts).unwrap(),
        }
    }

    /// A template with one segwit transaction of block 100,000 flavour: any will do that has a witness.
    fn template(height: u32) -> Arc<Template> {
        let raw = concat!(
            "01000000000101db6b1b20aa0fd7b23880be2ecbd4a98130974cf4748fb66092ac4d3ceb1a54770100000000feffffff02b8b4eb0b",
            "000000001976a914a457b684d7f0d539a46a45bbc043f35b59d0d96388ac0008af2f000000001976a914fd270b1ee6abcaea97fe",
            "a7ad0402e8bd8ad6d77c88ac02473044022047ac8e878352d3ebbde1c94ce3a10d057c24175747116f8288e5d794d12d482f0220",
            "217f36a485cae903c713331d877c1f64677e3622ad4010726870540656fe9dcb012103ad1d8e89212f0b92c74d23bb710c00662a",
            "d1470198ac48c43f7d6f93a2a2687392040000"
        );
        let raw = hex::decode(raw).unwrap();
        let transaction: Transaction = deserialize(&raw).unwrap();
        let transactions = vec![TemplateTransaction {
            txid: transaction.compute_txid(),
            wtxid: transaction.compute_wtxid(),
            fee: 1000,
            weight: transaction.weight().to_wu(),
            sigops: 4,
            raw: Bytes::from(raw),
        }];
        Template::new(TemplateParts { height, transactions, ..parts() }, RULES).unwrap().into()
    }

    fn block_at(height: u32, texts: &[&str]) -> Block {
        let offer = offer(&template(height), &payout(), &config(texts));
        let submission = stratum::submission::Submission {
            extranonce2: [5, 6, 7, 8],
            time: parts().time,
            nonce: 9,
            version_bits: None,
        };
        let solved = submission.solve(&offer.job, [1, 2, 3, 4], 0, parts().time).unwrap();
        deserialize(&offer.job.ticket().block(&solved.header, [1, 2, 3, 4, 5, 6, 7, 8])).unwrap()
    }

    #[test]
    fn the_block_is_one_that_bitcoin_would_take() {
        let block = block_at(101, &["hello"]);
        assert!(block.check_merkle_root());
        assert!(block.check_witness_commitment());
        assert_eq!(block.bip34_block_height(), Ok(101));
        assert_eq!(block.txdata.len(), 2);
        let coinbase = &block.txdata[0];
        assert!(coinbase.is_coinbase());
        assert_eq!(coinbase.output.len(), 3);
        assert_eq!(coinbase.output[1].script_pubkey, payout().script);
        assert_eq!(coinbase.output[1].value.to_sat(), parts().coinbase_value);
        assert!(coinbase.output[2].script_pubkey.as_bytes().ends_with(&[1, 2, 3, 4, 5, 6, 7, 8]));
        assert!(coinbase.input[0].script_sig.as_bytes().ends_with(b"\x05hello"));
    }

    #[test]
    fn heights_are_pushed_as_bip_34_wants_them_and_the_script_is_never_too_short() {
        for (height, script) in [
            (1, vec![0x51, 0]),
            (16, vec![0x60, 0]),
            (17, vec![1, 17]),
            (127, vec![1, 127]),
            (128, vec![2, 128, 0]),
            (255, vec![2, 255, 0]),
            (32_768, vec![3, 0, 0x80, 0]),
            (850_000, vec![3, 0x50, 0xf8, 0x0c]),
        ] {
            let template = Template { height, ..Template::clone(&template(1)) };
            assert_eq!(coinbase_script(&template, &config(&[])), script, "height {height}");
        }
    }

    #[test]
    fn texts_that_do_not_fit_are_refused_by_name() {
        let long = "x".repeat(76);
        assert_eq!(coinbase_script_of_texts(std::slice::from_ref(&long)), Err(TextsError::TooLong(long)));
        let two = ["x".repeat(60), "y".repeat(60)];
        assert_eq!(coinbase_script_of_texts(&two), Err(TextsError::TooMany(122)));
    }

    #[test]
    fn before_segwit_there_is_no_commitment_and_no_witness() {
        let parts = TemplateParts { rules: vec!["csv".into()], ..parts() };
        let template = Arc::new(Template::new(parts, RULES).unwrap());
        let offer = offer(&template, &payout(), &config(&[]));
        let block: Block = deserialize(&offer.job.ticket().block(&[0; 80], [0; 8])).unwrap();
        assert_eq!(block.txdata[0].output.len(), 2);
        assert!(block.txdata[0].input[0].witness.is_empty());
    }

    #[test]
    fn job_numbers_never_repeat() {
        let first = next_job_id();
        assert!(next_job_id() > first);
        assert!(first.0 > 1_700_000_000_000_000, "they start at the clock: {first}");
    }
}
