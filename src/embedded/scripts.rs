//! Decides if an input may spend its coin, with miniscript's interpreter in place of Bitcoin Core's.
//!
//! It knows the kinds of outputs that wallets make, and scripts that are miniscripts. Anything else is refused with a
//! reason of its own: the chain may be stricter than Bitcoin, never laxer.

use bitcoin::absolute::LockTime;
use bitcoin::secp256k1::{Secp256k1, VerifyOnly};
use bitcoin::sighash::Prevouts;
use bitcoin::{Sequence, Transaction, TxOut, opcodes};
use miniscript::interpreter::{Error as InterpreterError, Interpreter, KeySigPair};
use std::sync::LazyLock;

use super::reject::Reject;

static SECP: LazyLock<Secp256k1<VerifyOnly>> = LazyLock::new(Secp256k1::verification_only);

/// Checks every input of `transaction` against the outputs that it spends, in input order.
///
/// # Errors
/// [`Reject::Script`] for a spend that breaks the rules, [`Reject::UnsupportedScript`] for one that cannot be judged.
pub(super) fn check(transaction: &Transaction, spent: &[TxOut]) -> Result<(), Reject> {
    (0..transaction.input.len()).try_for_each(|index| check_input(transaction, index, spent))
}

fn check_input(transaction: &Transaction, index: usize, spent: &[TxOut]) -> Result<(), Reject> {
    let input = &transaction.input[index];
    let script = &spent[index].script_pubkey;
    if let Some(version) = script.witness_version() {
        let unused = version.to_num() > 1 || (version.to_num() == 1 && !script.is_p2tr());
        if unused {
            // BIP 141: witness programs of undefined versions are spendable by all, if the script signature is empty.
            return if input.script_sig.is_empty() { Ok(()) } else { Err(failed("witness program malleated")) };
        }
    }
    if script.as_bytes() == [opcodes::OP_TRUE.to_u8()] {
        return check_anyone(transaction, index);
    }
    let interpreter = Interpreter::from_txdata(
        script,
        &input.script_sig,
        &input.witness,
        // BIP 112: relative lock times bind only transactions of version 2 and above; the interpreter does not check.
        if transaction.version.0.cast_unsigned() >= 2 { input.sequence } else { Sequence::MAX },
        // BIP 65: an input that waives the lock time cannot satisfy one; the interpreter does not check that either.
        if input.sequence.is_final() { LockTime::ZERO } else { transaction.lock_time },
    )
    .map_err(reject)?;
    let prevouts = Prevouts::All(spent);
    let verify = |pair: &KeySigPair| {
        let mut pair = *pair;
        if let KeySigPair::Ecdsa(_, signature) = &mut pair {
            // Consensus allows both forms of S, the library only the low one.
            signature.signature.normalize_s();
        }
        interpreter.verify_sig(&*SECP, transaction, index, &prevouts, &pair)
    };
    let outcome = interpreter.iter_custom(Box::new(verify)).try_for_each(|step| step.map(drop));
    outcome.map_err(reject)
}

/// An output with `OP_TRUE`: whatever is pushed before it, true stays on top.
fn check_anyone(transaction: &Transaction, index: usize) -> Result<(), Reject> {
    let input = &transaction.input[index];
    if !input.witness.is_empty() {
        return Err(failed("witness provided for non-witness script"));
    }
    let parses = input.script_sig.instructions().all(|instruction| instruction.is_ok());
    if !parses || !input.script_sig.is_push_only() {
        return Err(Reject::UnsupportedScript("opcodes in a script signature".into()));
    }
    Ok(())
}

fn failed(why: &str) -> Reject {
    Reject::Script(why.to_owned())
}

/// Separates invalid spends from those that the interpreter cannot judge. In doubt it is the latter, the weaker claim.
fn reject(error: InterpreterError) -> Reject {
    use InterpreterError as E;
    let text = error.to_string();
    match error {
        E::AbsoluteLockTimeNotMet(_)
        | E::AbsoluteLockTimeComparisonInvalid(..)
        | E::RelativeLockTimeNotMet(_)
        | E::RelativeLockTimeDisabled(_)
        | E::ControlBlockParse(_)
        | E::ControlBlockVerificationError
        | E::IncorrectPubkeyHash
        | E::IncorrectScriptHash
        | E::IncorrectWPubkeyHash
        | E::IncorrectWScriptHash
        | E::InvalidEcdsaSignature(_)
        | E::InvalidSchnorrSignature(_)
        | E::SchnorrSig(_)
        | E::EcdsaSig(_)
        | E::NonEmptyWitness
        | E::NonEmptyScriptSig
        | E::PkHashVerifyFail(_)
        | E::PkEvaluationError(_)
        | E::UnexpectedStackEnd
        | E::ScriptSatisfactionError
        | E::VerifyFailed => Reject::Script(text),
        _ => Reject::UnsupportedScript(text),
    }
}
