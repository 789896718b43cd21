//! Rows about spent outputs and their conditions.

use bitcoin::absolute::LockTime;
use bitcoin::transaction::Version;
use bitcoin::{Amount, ScriptBuf, Sequence, Transaction, TxOut, Witness};

use crate::wallet::{Coin, Kind, coins_of, unsigned};
use crate::{World, first_output};

const SCRIPT_FAILED: &str = "block-script-verify-flag-failed";
const MISSING: &str = "bad-txns-inputs-missingorspent";

pub(crate) fn rows(world: &mut World) {
    let parent = world.spend(Kind::Pkh);
    let child = world.wallet.spend(&[first_output(&parent, Kind::True)], &[Kind::Tr], 0);
    let grandchild = world.wallet.spend(&[first_output(&child, Kind::Tr)], &[Kind::True], 0);
    let draft = world.draft().with([child.clone(), parent.clone(), grandchild.clone()]).commit();
    world.bad("a child before its parent", MISSING, draft);
    let draft = world.draft().with([parent.clone(), child, grandchild]).commit();
    world.good("three generations in one block", draft);
    let again = world.wallet.spend(&[first_output(&parent, Kind::True)], &[Kind::Pkh], 0);
    let draft = world.draft().with([again]);
    world.bad("a coin spent in an earlier block", MISSING, draft);
    let coin = world.coin(Kind::True);
    let twice = [Kind::True, Kind::Pkh].map(|kind| world.wallet.spend(std::slice::from_ref(&coin), &[kind], 0));
    let draft = world.draft().with(twice);
    world.bad("a coin spent twice in a block", MISSING, draft);
    let mut burnt = world.spend(Kind::True);
    burnt.output.push(TxOut { value: Amount::ZERO, script_pubkey: ScriptBuf::from_bytes(vec![0x6a]) });
    let mut ghost = first_output(&burnt, Kind::True);
    (ghost.outpoint.vout, ghost.output) = (1, burnt.output[1].clone());
    let digger = world.wallet.spend(&[ghost], &[Kind::True], 0);
    let draft = world.draft().with([burnt, digger]);
    world.bad("an OP_RETURN output spent", MISSING, draft);

    let coin = world.coin(Kind::True);
    let mut rich = world.wallet.spend(&[coin], &[Kind::True], 0);
    rich.output[0].value += Amount::from_sat(1);
    let draft = world.draft().with([rich]);
    world.bad("a satoshi more out than in", "bad-txns-in-belowout", draft);
    let coins = [world.coin(Kind::True), world.coin(Kind::Wpkh)];
    let paying = world.wallet.spend(&coins, &[Kind::Pkh, Kind::Tr], 5000);
    let draft = world.draft().with([paying.clone()]).pay(5001).commit();
    world.bad("a satoshi more than the fees", "bad-cb-amount", draft);
    let draft = world.draft().with([paying]).pay(5000).commit();
    world.good("all the fees", draft);

    let height = world.pair.tip().1 + 1;
    let (_, young) = world.coinbases.iter().find(|(made, _)| height - made == 99).cloned().unwrap();
    let early = world.wallet.spend(&[young], &[Kind::True], 0);
    let draft = world.draft().with([early.clone()]);
    world.bad("a coinbase spent after 99 blocks", "bad-txns-premature-spend-of-coinbase", draft);
    let filler = world.draft();
    world.good("a block in between", filler);
    let draft = world.draft().with([early]);
    world.good("the coinbase spent after 100 blocks", draft);
}

pub(crate) fn script_rows(world: &mut World) {
    for kind in crate::KINDS {
        let spend = world.spend(kind);
        let draft = world.draft().with([spend]).commit();
        world.good(&format!("a spend of {kind:?}"), draft);
    }
    for kind in [Kind::Pk, Kind::Pkh, Kind::Sh, Kind::Wpkh, Kind::ShWpkh, Kind::Wsh, Kind::Tr] {
        let mut spend = world.spend(kind);
        // Signed for another amount.
        spend.output[0].value -= Amount::from_sat(1);
        let draft = world.draft().with([spend]).commit();
        world.bad(&format!("a signature for something else, {kind:?}"), SCRIPT_FAILED, draft);
    }
    for kind in [Kind::Pkh, Kind::Wpkh, Kind::Tr, Kind::Sh, Kind::Wsh] {
        let mut spend = world.spend(kind);
        (spend.input[0].script_sig, spend.input[0].witness) = (ScriptBuf::new(), Witness::new());
        let draft = world.draft().with([spend]).commit();
        world.bad(&format!("no signature, {kind:?}"), SCRIPT_FAILED, draft);
    }
    let other = [Kind::Pkh, Kind::Wpkh].map(|kind| world.coin(kind));
    let mut swapped = world.wallet.spend(&other, &[Kind::True], 0);
    let (left, right) = swapped.input.split_at_mut(1);
    std::mem::swap(&mut left[0].script_sig, &mut right[0].script_sig);
    std::mem::swap(&mut left[0].witness, &mut right[0].witness);
    let draft = world.draft().with([swapped]).commit();
    world.bad("inputs with each other's signatures", SCRIPT_FAILED, draft);
    let mut hiding = world.spend(Kind::Future);
    hiding.input[0].script_sig = ScriptBuf::from_bytes(vec![0x51]);
    let draft = world.draft().with([hiding]);
    world.bad("a script beside a witness program", SCRIPT_FAILED, draft);
    let mut extra = world.spend(Kind::True);
    extra.input[0].witness = Witness::from_slice(&[[1_u8]]);
    let draft = world.draft().with([extra]).commit();
    world.bad("a witness that no program asks for", SCRIPT_FAILED, draft);
    let (mut unsigned, poor) = (world.spend(Kind::Pkh), world.spend(Kind::Pkh));
    unsigned.input[0].script_sig = ScriptBuf::new();
    let draft = world.draft().with([unsigned.clone()]).pay(1);
    world.bad("a bad script and too much pay", "bad-cb-amount", draft);
    let draft = world.draft().with([unsigned, poor.clone(), poor]);
    // The tree of four leaves ends with two equal ones, so this is the mutation, not the double spend.
    world.bad("a bad script and a transaction twice", "bad-txns-duplicate", draft);
    let high = high_s(world);
    let draft = world.draft().with([high]);
    world.good("the other form of a signature", draft);
}

/// P2PKH spend with the malleated, high S: not relayed, but valid in a block.
fn high_s(world: &mut World) -> Transaction {
    let mut spend = world.spend(Kind::Pkh);
    let script = spend.input[0].script_sig.clone();
    let mut pushes = script.instructions().map(|one| one.unwrap().push_bytes().unwrap().as_bytes().to_vec());
    let (signature, key) = (pushes.next().unwrap(), pushes.next().unwrap());
    let compact = bitcoin::ecdsa::Signature::from_slice(&signature).unwrap().signature.serialize_compact();
    let order = hex("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141");
    let mut borrow = 0_i16;
    let mut flipped = compact;
    for at in (0..32).rev() {
        let digit = i16::from(order[at]) - i16::from(compact[32 + at]) - borrow;
        borrow = i16::from(digit < 0);
        flipped[32 + at] = u8::try_from(digit.rem_euclid(256)).unwrap();
    }
    let high = bitcoin::secp256k1::ecdsa::Signature::from_compact(&flipped).unwrap();
    let high = bitcoin::ecdsa::Signature::sighash_all(high).to_vec();
    let push = |bytes: Vec<u8>| bitcoin::script::PushBytesBuf::try_from(bytes).unwrap();
    spend.input[0].script_sig =
        bitcoin::script::Builder::new().push_slice(push(high)).push_slice(push(key)).into_script();
    spend
}

fn hex(digits: &str) -> Vec<u8> {
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

pub(crate) fn lock_rows(world: &mut World) {
    // A few even blocks first, so that the median time is known again after the rows about time.
    world.grow_to(world.pair.tip().1 + 12);
    let height = world.pair.tip().1 + 1;
    let median = world.draft().block.header.time - 6 * crate::SPACING;
    let locked = |world: &mut World, lock_time, sequence: Sequence| {
        let coin = world.coin(Kind::True);
        let mut transaction = unsigned(std::slice::from_ref(&coin), vec![coin.output.clone()]);
        transaction.lock_time = LockTime::from_consensus(lock_time);
        transaction.input[0].sequence = sequence;
        world.draft().with([transaction])
    };
    let open = Sequence::ENABLE_LOCKTIME_NO_RBF;
    let draft = locked(world, height, open);
    world.bad("locked up to this height", "bad-txns-nonfinal", draft);
    let draft = locked(world, median, open);
    world.bad("locked up to the median time", "bad-txns-nonfinal", draft);
    let draft = locked(world, u32::MAX, Sequence::MAX);
    world.good("a lock that all inputs waive", draft);
    let draft = locked(world, height, open);
    world.good("locked up to the height before", draft);
    let draft = locked(world, median + crate::SPACING, open);
    world.good("locked up to a second before the median time", draft);
    relative_lock_rows(world);
    script_lock_rows(world);
}

/// Locks imposed on the spender by an output's script.
fn script_lock_rows(world: &mut World) {
    let kinds = [Kind::After, Kind::Older];
    let coin = world.coin(Kind::True);
    let fan_out = world.wallet.spend(&[coin], &kinds, 0);
    let coins = coins_of(&fan_out, &kinds);
    let draft = world.draft().with([fan_out]);
    world.good("coins behind locks", draft);
    let draft = world.draft();
    world.good("a block for the relative one to pass", draft);
    let spend = |world: &World, coin: &Coin, version, lock_time, sequence| {
        let output = TxOut { value: coin.output.value, script_pubkey: world.wallet.script(Kind::True) };
        let mut transaction = unsigned(std::slice::from_ref(coin), vec![output]);
        transaction.version = Version(version);
        transaction.lock_time = LockTime::from_consensus(lock_time);
        transaction.input[0].sequence = Sequence::from_consensus(sequence);
        world.wallet.sign(&mut transaction, std::slice::from_ref(coin));
        world.draft().with([transaction]).commit()
    };
    let (open, never) = (0xffff_fffe, u32::MAX);
    for (name, verdict, coin, version, lock_time, sequence) in [
        ("a lock time below the script's", SCRIPT_FAILED, 0, 2, 9, open),
        ("a lock time of another kind", SCRIPT_FAILED, 0, 2, 500_000_001, open),
        ("a waived lock time", SCRIPT_FAILED, 0, 2, 10, never),
        ("the lock time that the script asks for", "null", 0, 1, 10, open),
        ("a sequence below the script's", SCRIPT_FAILED, 1, 2, 0, 0),
        ("a waived sequence", SCRIPT_FAILED, 1, 2, 0, never),
        ("a sequence of another kind", SCRIPT_FAILED, 1, 2, 0, 1 << 22),
        ("a relative lock under version 1", SCRIPT_FAILED, 1, 1, 0, 1),
        ("the sequence that the script asks for", "null", 1, 2, 0, 1),
    ] {
        let draft = spend(world, &coins[coin], version, lock_time, sequence);
        world.bad(name, verdict, draft);
    }
}

fn relative_lock_rows(world: &mut World) {
    // A coin in a block of its own, so that its age is known.
    let fresh = world.spend(Kind::True);
    let second = world.spend(Kind::True);
    let draft = world.draft().with([fresh.clone(), second.clone()]);
    world.good("coins to wait for", draft);
    let made = world.pair.tip().1;
    let (fresh, second) = (first_output(&fresh, Kind::True), first_output(&second, Kind::True));
    let waiting = |coin: &Coin, version, sequence| {
        let mut transaction = unsigned(std::slice::from_ref(coin), vec![coin.output.clone()]);
        transaction.version = Version(version);
        transaction.input[0].sequence = Sequence::from_consensus(sequence);
        transaction
    };
    world.grow_to(made + 3);
    let draft = world.draft().with([waiting(&fresh, 2, 5)]);
    world.bad("a coin spent a block too early (BIP 68)", "bad-txns-nonfinal", draft);
    let draft = world.draft().with([waiting(&fresh, -1, 5)]);
    world.bad("the same under the highest version", "bad-txns-nonfinal", draft);
    let draft = world.draft().with([waiting(&fresh, 2, 4)]);
    world.good("a coin spent as soon as it may be (BIP 68)", draft);
    // 512 seconds are between eight and nine blocks; time counts between medians.
    let in_time = 1 << 22 | 1;
    world.grow_to(made + 7);
    let draft = world.draft().with([waiting(&second, 2, in_time)]);
    world.bad("a coin spent too soon in time (BIP 68)", "bad-txns-nonfinal", draft);
    world.grow_to(made + 8);
    let draft = world.draft().with([waiting(&second, 2, in_time)]);
    world.good("a coin spent after 512 seconds (BIP 68)", draft);
    let coin = world.spend(Kind::True);
    let first_version = waiting(&first_output(&coin, Kind::True), 1, 100);
    let unset = waiting(&first_output(&first_version, Kind::True), 2, 1 << 31 | 100);
    let draft = world.draft().with([coin, first_version, unset]);
    world.good("version 1 and the disabling bit know no relative locks", draft);
}
