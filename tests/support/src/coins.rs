//! Coins and transactions for tests, since the bitcoind built for them has no wallet.

use bitcoin::absolute::LockTime;
use bitcoin::hashes::Hash;
use bitcoin::key::{CompressedPublicKey, Secp256k1};
use bitcoin::script::PushBytesBuf;
use bitcoin::secp256k1::{All, Message, SecretKey};
use bitcoin::sighash::{EcdsaSighashType, SighashCache};
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness, consensus};
use serde_json::json;

use crate::addresses::{payout_address, private_key};
use crate::daemon::{Daemon, mine_blocks};

/// Amount that each transaction of [`Spender::send_many`] spends, its fee included.
const COIN: Amount = Amount::from_sat(1_000_000);

/// Fee of each transaction of [`Spender::send_many`].
const FEE: Amount = Amount::from_sat(10_000);

/// Number of blocks until a coinbase may be spent.
const MATURITY: usize = 100;

/// Kind of output: its key and script.
#[derive(Debug)]
struct Purse {
    secret: SecretKey,
    public: CompressedPublicKey,
    script: ScriptBuf,
    segwit: bool,
}

/// An output that we can spend.
#[derive(Debug, Clone, Copy)]
struct Coin {
    outpoint: OutPoint,
    value: Amount,
    /// Index into [`Spender::purses`].
    purse: usize,
}

/// Coins on a daemon's chain, half of them behind segwit scripts (P2WPKH) and half behind legacy ones (P2PKH).
#[derive(Debug)]
pub struct Spender {
    secp: Secp256k1<All>,
    purses: [Purse; 2],
    /// Large coins, which [`Self::send_many`] splits into small ones.
    funds: Vec<Coin>,
}

impl Spender {
    /// Mines 102 blocks, so that a coinbase of each kind is mature.
    pub fn new(daemon: &Daemon) -> Self {
        let secp = Secp256k1::new();
        let purses = [true, false].map(|segwit| {
            let private = private_key(0x50, u8::from(segwit));
            let public = CompressedPublicKey::from_private_key(&secp, &private).expect("made as a compressed key");
            let script = if segwit {
                ScriptBuf::new_p2wpkh(&public.wpubkey_hash())
            } else {
                ScriptBuf::new_p2pkh(&public.pubkey_hash())
            };
            Purse { secret: private.inner, public, script, segwit }
        });
        let mut funds = Vec::new();
        for (index, purse) in purses.iter().enumerate() {
            for hash in mine_blocks(daemon, 1, &purse.script) {
                let coinbase = daemon.coinbase(&hash);
                let txid = coinbase["txid"].as_str().and_then(|txid| txid.parse().ok()).expect("every one has an id");
                let value = coinbase["vout"][0]["value"].as_f64().and_then(|coins| Amount::from_btc(coins).ok());
                let value = value.expect("an amount with eight digits");
                funds.push(Coin { outpoint: OutPoint::new(txid, 0), value, purse: index });
            }
        }
        mine_blocks(daemon, MATURITY, &payout_address(0).script_pubkey());
        Self { secp, purses, funds }
    }

    /// Puts `count` independent transactions into the daemon's mempool, alternately segwit and legacy, each with a fee
    /// of 10 000 satoshis. First mines a block with the transaction that splits their coins, so that no limit on chains
    /// of unconfirmed transactions applies.
    pub fn send_many(&mut self, daemon: &Daemon, count: usize) -> Vec<Transaction> {
        let coins = self.cut(daemon, count);
        let sent: Vec<Transaction> = coins
            .into_iter()
            .map(|coin| {
                let output = TxOut { value: coin.value - FEE, script_pubkey: self.purses[coin.purse].script.clone() };
                self.sign(coin, vec![output])
            })
            .collect();
        for transaction in &sent {
            submit(daemon, transaction);
        }
        sent
    }

    /// Splits `count` small coins off a large one, and mines the transaction.
    fn cut(&mut self, daemon: &Daemon, count: usize) -> Vec<Coin> {
        let source = self.funds.remove(0);
        let mut output: Vec<TxOut> = (0..count)
            .map(|index| TxOut { value: COIN, script_pubkey: self.purses[index % 2].script.clone() })
            .collect();
        // At about 34 bytes per output this is above one satoshi a byte for any count that a test needs.
        let fee = FEE + Amount::from_sat(100 * u64::try_from(count).expect("a small number"));
        let rest = source.value.checked_sub(COIN * count as u64 + fee).expect("a coinbase is worth thousands of coins");
        output.push(TxOut { value: rest, script_pubkey: self.purses[source.purse].script.clone() });
        let transaction = self.sign(source, output);
        submit(daemon, &transaction);
        mine_blocks(daemon, 1, &payout_address(0).script_pubkey());
        let txid = transaction.compute_txid();
        let outpoint = |index: usize| OutPoint::new(txid, u32::try_from(index).expect("a small number"));
        self.funds.push(Coin { outpoint: outpoint(count), value: rest, purse: source.purse });
        (0..count).map(|index| Coin { outpoint: outpoint(index), value: COIN, purse: index % 2 }).collect()
    }

    /// Signs a transaction that spends one coin.
    fn sign(&self, coin: Coin, output: Vec<TxOut>) -> Transaction {
        let purse = &self.purses[coin.purse];
        let mut transaction = Transaction {
            version: Version::TWO,
            lock_time: LockTime::ZERO,
            input: vec![TxIn {
                previous_output: coin.outpoint,
                script_sig: ScriptBuf::new(),
                sequence: Sequence::MAX,
                witness: Witness::new(),
            }],
            output,
        };
        let kind = EcdsaSighashType::All;
        let mut cache = SighashCache::new(&transaction);
        let digest = if purse.segwit {
            cache
                .p2wpkh_signature_hash(0, &purse.script, coin.value, kind)
                .expect("input 0 exists and the script is P2WPKH")
                .to_byte_array()
        } else {
            cache.legacy_signature_hash(0, &purse.script, kind.to_u32()).expect("input 0 exists").to_byte_array()
        };
        let signature = bitcoin::ecdsa::Signature {
            signature: self.secp.sign_ecdsa(&Message::from_digest(digest), &purse.secret),
            sighash_type: kind,
        };
        if purse.segwit {
            transaction.input[0].witness = Witness::p2wpkh(&signature, &purse.public.0);
        } else {
            let signature = PushBytesBuf::try_from(signature.to_vec()).expect("a signature is short");
            transaction.input[0].script_sig =
                ScriptBuf::builder().push_slice(signature).push_slice(purse.public.to_bytes()).into_script();
        }
        transaction
    }
}

fn submit(daemon: &Daemon, transaction: &Transaction) {
    daemon.call("sendrawtransaction", json!([consensus::encode::serialize_hex(transaction)]));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bitcoind::Bitcoind;

    #[test]
    fn sent_transactions_wait_in_the_mempool_half_of_them_with_witnesses() {
        let daemon = Bitcoind::start();
        let mut spender = Spender::new(&daemon);
        for _ in 0..3 {
            let sent = spender.send_many(&daemon, 20);
            assert_eq!(daemon.mempool().len(), 20);
            assert_eq!(sent.iter().filter(|transaction| !transaction.input[0].witness.is_empty()).count(), 10);
            let mined = mine_blocks(&daemon, 1, &payout_address(0).script_pubkey());
            assert_eq!(daemon.block(&mined[0]).txdata.len(), 21);
        }
    }
}
