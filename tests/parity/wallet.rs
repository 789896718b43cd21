//! Coins of every kind supported by the embedded chain, and the signatures that spend them.

use bitcoin::absolute::LockTime;
use bitcoin::hashes::Hash;
use bitcoin::key::{Secp256k1, TapTweak};
use bitcoin::script::{Builder, PushBytesBuf};
use bitcoin::secp256k1::{All, Keypair, Message, SecretKey};
use bitcoin::sighash::{EcdsaSighashType, Prevouts, SighashCache, TapSighashType};
use bitcoin::transaction::Version;
use bitcoin::{
    Amount, OutPoint, PublicKey, ScriptBuf, Sequence, Transaction, TxIn, TxOut, WPubkeyHash, Witness, opcodes,
};

/// Locking script of an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// `OP_TRUE`.
    True,
    Pk,
    Pkh,
    Wpkh,
    ShWpkh,
    /// P2TR, spent by its key.
    Tr,
    /// P2WSH of `<key> OP_CHECKSIG`.
    Wsh,
    /// P2SH of the same.
    Sh,
    /// P2WSH of `10 OP_CHECKLOCKTIMEVERIFY OP_VERIFY <key> OP_CHECKSIG` (BIP 65).
    After,
    /// P2WSH of `1 OP_CHECKSEQUENCEVERIFY OP_VERIFY <key> OP_CHECKSIG` (BIP 112).
    Older,
    /// Witness program of version 2, which anyone can spend as yet.
    Future,
}

/// Kinds that can be spent at once.
pub(crate) const KINDS: [Kind; 9] =
    [Kind::True, Kind::Pk, Kind::Pkh, Kind::Wpkh, Kind::ShWpkh, Kind::Tr, Kind::Wsh, Kind::Sh, Kind::Future];

/// Spendable output.
#[derive(Debug, Clone)]
pub(crate) struct Coin {
    pub(crate) outpoint: OutPoint,
    pub(crate) output: TxOut,
    pub(crate) kind: Kind,
}

/// One key, with signing.
#[derive(Debug)]
pub(crate) struct Wallet {
    secp: Secp256k1<All>,
    pair: Keypair,
    public: PublicKey,
}

impl Wallet {
    pub(crate) fn new() -> Self {
        let secp = Secp256k1::new();
        let secret = SecretKey::from_slice(&[7; 32]).unwrap();
        let pair = Keypair::from_secret_key(&secp, &secret);
        Self { public: PublicKey::new(secret.public_key(&secp)), pair, secp }
    }

    pub(crate) fn script(&self, kind: Kind) -> ScriptBuf {
        match kind {
            Kind::True => Builder::new().push_opcode(opcodes::OP_TRUE).into_script(),
            Kind::Pk => ScriptBuf::new_p2pk(&self.public),
            Kind::Pkh => ScriptBuf::new_p2pkh(&self.public.pubkey_hash()),
            Kind::Wpkh => ScriptBuf::new_p2wpkh(&self.key_hash()),
            Kind::ShWpkh => self.script(Kind::Wpkh).to_p2sh(),
            Kind::Tr => ScriptBuf::new_p2tr(&self.secp, self.pair.x_only_public_key().0, None),
            Kind::Wsh | Kind::After | Kind::Older => self.witness_script(kind).to_p2wsh(),
            Kind::Sh => self.script(Kind::Pk).to_p2sh(),
            Kind::Future => Builder::new().push_opcode(opcodes::all::OP_PUSHNUM_2).push_slice([9; 8]).into_script(),
        }
    }

    fn witness_script(&self, kind: Kind) -> ScriptBuf {
        let lock = match kind {
            Kind::After => Builder::new().push_int(10).push_opcode(opcodes::all::OP_CLTV),
            Kind::Older => Builder::new().push_int(1).push_opcode(opcodes::all::OP_CSV),
            _ => return self.script(Kind::Pk),
        };
        lock.push_verify().push_key(&self.public).push_opcode(opcodes::all::OP_CHECKSIG).into_script()
    }

    fn key_hash(&self) -> WPubkeyHash {
        self.public.wpubkey_hash().unwrap()
    }

    /// Spends `coins` into outputs of these kinds, which share the coins' value less `fee`.
    pub(crate) fn spend(&self, coins: &[Coin], kinds: &[Kind], fee: u64) -> Transaction {
        let total: u64 = coins.iter().map(|coin| coin.output.value.to_sat()).sum();
        let each = Amount::from_sat((total - fee) / kinds.len() as u64);
        let output = kinds.iter().map(|kind| TxOut { value: each, script_pubkey: self.script(*kind) }).collect();
        let mut transaction = unsigned(coins, output);
        self.sign(&mut transaction, coins);
        transaction
    }

    /// Puts a valid signature into every input.
    pub(crate) fn sign(&self, transaction: &mut Transaction, coins: &[Coin]) {
        let outputs: Vec<TxOut> = coins.iter().map(|coin| coin.output.clone()).collect();
        for (index, coin) in coins.iter().enumerate() {
            let (script_sig, witness) = self.unlock(transaction, index, coin, &outputs);
            transaction.input[index].script_sig = script_sig;
            transaction.input[index].witness = witness;
        }
    }

    fn unlock(&self, tx: &Transaction, index: usize, coin: &Coin, outputs: &[TxOut]) -> (ScriptBuf, Witness) {
        let all = EcdsaSighashType::All;
        let key = self.public.to_bytes();
        let mut cache = SighashCache::new(tx);
        let legacy = |script: &ScriptBuf| {
            let hash = cache.legacy_signature_hash(index, script, all.to_u32()).unwrap();
            PushBytesBuf::try_from(self.ecdsa(hash.to_byte_array())).unwrap()
        };
        match coin.kind {
            Kind::True | Kind::Future => (ScriptBuf::new(), Witness::new()),
            Kind::Pk => (Builder::new().push_slice(legacy(&coin.output.script_pubkey)).into_script(), Witness::new()),
            Kind::Pkh => {
                let signature = legacy(&coin.output.script_pubkey);
                (Builder::new().push_slice(signature).push_key(&self.public).into_script(), Witness::new())
            }
            Kind::Sh => {
                let redeem = self.script(Kind::Pk);
                let signature = legacy(&redeem);
                let redeem = PushBytesBuf::try_from(redeem.into_bytes()).unwrap();
                (Builder::new().push_slice(signature).push_slice(redeem).into_script(), Witness::new())
            }
            Kind::Wpkh | Kind::ShWpkh => {
                let program = self.script(Kind::Wpkh);
                let hash = cache.p2wpkh_signature_hash(index, &program, coin.output.value, all).unwrap();
                let witness = Witness::from_slice(&[self.ecdsa(hash.to_byte_array()), key]);
                let wrapped = PushBytesBuf::try_from(program.into_bytes()).unwrap();
                let nested = Builder::new().push_slice(wrapped).into_script();
                (if coin.kind == Kind::ShWpkh { nested } else { ScriptBuf::new() }, witness)
            }
            Kind::Wsh | Kind::After | Kind::Older => {
                let script = self.witness_script(coin.kind);
                let hash = cache.p2wsh_signature_hash(index, &script, coin.output.value, all).unwrap();
                let signature = self.ecdsa(hash.to_byte_array());
                (ScriptBuf::new(), Witness::from_slice(&[signature, script.into_bytes()]))
            }
            Kind::Tr => {
                let prevouts = Prevouts::All(outputs);
                let hash = cache.taproot_key_spend_signature_hash(index, &prevouts, TapSighashType::Default).unwrap();
                let tweaked = self.pair.tap_tweak(&self.secp, None).to_keypair();
                let signature = self.secp.sign_schnorr_no_aux_rand(&Message::from(hash), &tweaked);
                (ScriptBuf::new(), Witness::from_slice(&[signature.as_ref().to_vec()]))
            }
        }
    }

    fn ecdsa(&self, digest: [u8; 32]) -> Vec<u8> {
        let signature = self.secp.sign_ecdsa(&Message::from_digest(digest), &self.pair.secret_key());
        bitcoin::ecdsa::Signature::sighash_all(signature).to_vec()
    }
}

/// Transaction whose inputs are not signed yet.
pub(crate) fn unsigned(coins: &[Coin], output: Vec<TxOut>) -> Transaction {
    let input = coins
        .iter()
        .map(|coin| TxIn { previous_output: coin.outpoint, sequence: Sequence::MAX, ..TxIn::default() })
        .collect();
    Transaction { version: Version::TWO, lock_time: LockTime::ZERO, input, output }
}

/// Outputs of a transaction made for `kinds`, as coins.
pub(crate) fn coins_of(transaction: &Transaction, kinds: &[Kind]) -> Vec<Coin> {
    let txid = transaction.compute_txid();
    (0..)
        .zip(transaction.output.iter().zip(kinds))
        .map(|(vout, (output, kind))| Coin { outpoint: OutPoint { txid, vout }, output: output.clone(), kind: *kind })
        .collect()
}
