//! Rows about the structure of a block: merkle tree, coinbase, transactions, witnesses.

use bitcoin::hashes::Hash;
use bitcoin::script::Builder;
use bitcoin::{Amount, OutPoint, ScriptBuf, TxMerkleNode, TxOut, Witness, consensus};

use crate::World;
use crate::draft::{Draft, mine, subsidy};
use crate::wallet::Kind;

pub(crate) fn rows(world: &mut World) {
    let mut block = world.draft().block;
    block.header.merkle_root = TxMerkleNode::from_byte_array([5; 32]);
    world.pair.row("a wrong merkle root", "bad-txnmrklroot", &mine(block));

    let (one, two) = (world.spend(Kind::True), world.spend(Kind::Pkh));
    let original = world.draft().with([one.clone(), two.clone()]).seal();
    let mut mutated = original.clone();
    mutated.txdata.push(two);
    world.pair.row("the last transaction twice, same root", "bad-txns-duplicate", &mutated);
    world.pair.row("the same block unmutated", "null", &original);

    let draft = world.draft().edit(|block| block.txdata.clear());
    world.bad("no transactions", "bad-blk-length", draft);
    let spend = world.spend(Kind::True);
    let draft = world.draft().edit(|block| block.txdata = vec![spend]);
    world.bad("no coinbase", "bad-cb-missing", draft);
    let mut second = world.draft().block.txdata.remove(0);
    second.output[0].value = Amount::from_sat(1);
    let draft = world.draft().with([second]);
    world.bad("two coinbases", "bad-cb-multiple", draft);
    coinbase_rows(world);
    transaction_rows(world);
}

fn coinbase_rows(world: &mut World) {
    let height = world.pair.tip().1 + 1;
    let right = Builder::new().push_int(height.into()).into_script().into_bytes();
    let padded = |length: usize| [right.clone(), vec![0; length - right.len()]].concat();
    let with = |world: &World, script: Vec<u8>| {
        world.draft().edit(|block| block.txdata[0].input[0].script_sig = ScriptBuf::from_bytes(script))
    };
    let draft = with(world, vec![1]);
    let short = world.bad("a coinbase script of 1 byte", "bad-cb-length", draft);
    world.pair.row("the same again", "bad-cb-length", &short);
    let draft = with(world, padded(101));
    world.bad("a coinbase script of 101 bytes", "bad-cb-length", draft);
    let next = Builder::new().push_int(i64::from(height) + 1).push_int(0).into_script().into_bytes();
    let draft = with(world, next);
    let high = world.bad("the next height in the coinbase", "bad-cb-height", draft);
    world.pair.row("the same block again", "duplicate-invalid", &high);
    let child = Draft::new(high.block_hash(), height + 1, high.header.time + 60);
    world.bad("a block on the refused one", "bad-prevblk", child);
    let low = u8::try_from(height % 256).unwrap();
    let draft = with(world, vec![3, low, 0, 0]);
    world.bad("the height in a longer form than needed", "bad-cb-height", draft);
    let draft = with(world, vec![7; 20]);
    world.bad("no height in the coinbase", "bad-cb-height", draft);
    let draft = with(world, padded(100));
    world.good("a coinbase script of 100 bytes", draft);

    let draft = world.draft().pay(1);
    let greedy = world.bad("a satoshi too much in the coinbase", "bad-cb-amount", draft);
    world.pair.row("the greedy block again", "duplicate-invalid", &greedy);
    let draft = world.draft().pay(-1_000_000);
    world.good("a coinbase that claims less", draft);
    let nothing = subsidy(world.pair.tip().1 + 1);
    let draft = world.draft().pay(-i64::try_from(nothing).unwrap());
    world.good("a coinbase that claims nothing", draft);
    let draft = world.draft().edit(|block| {
        let data = |text: &[u8]| ScriptBuf::from_bytes([&[0x6a, u8::try_from(text.len()).unwrap()], text].concat());
        let outputs =
            [&b"p2pool"[..], b"", b"more"].map(|text| TxOut { value: Amount::ZERO, script_pubkey: data(text) });
        block.txdata[0].output.extend(outputs);
    });
    world.good("further OP_RETURN outputs in the coinbase", draft);
    let draft = world.draft().edit(|block| block.txdata[0].output.clear());
    world.bad("a coinbase without outputs", "bad-txns-vout-empty", draft);
}

fn transaction_rows(world: &mut World) {
    // Version, no inputs, no outputs (or flags), lock time: parsed by Core as an empty transaction.
    let empty = bitcoin::Transaction {
        version: bitcoin::transaction::Version::TWO,
        lock_time: bitcoin::absolute::LockTime::ZERO,
        input: Vec::new(),
        output: Vec::new(),
    };
    let block = world.draft().with([empty]).seal();
    let full = consensus::serialize(&block);
    // The package writes an empty transaction with the segwit marker; Core reads 10 bytes.
    let cut = 81 + block.txdata[0].total_size();
    let bytes = [&full[..cut], &[2, 0, 0, 0, 0, 0, 0, 0, 0, 0]].concat();
    world.pair.row_bytes("a transaction without inputs", "bad-txns-vin-empty", &bytes);

    let broken = |world: &mut World, change: &dyn Fn(&mut bitcoin::Transaction)| {
        let mut transaction = world.spend(Kind::True);
        change(&mut transaction);
        world.draft().with([transaction])
    };
    let draft = broken(world, &|tx| tx.output.clear());
    world.bad("a transaction without outputs", "bad-txns-vout-empty", draft);
    let draft = broken(world, &|tx| tx.output[0].value = Amount::from_sat(u64::MAX));
    world.bad("a negative output", "bad-txns-vout-negative", draft);
    let draft = broken(world, &|tx| tx.output[0].value = Amount::from_sat(2_100_000_000_000_001));
    world.bad("an output of all coins and one satoshi", "bad-txns-vout-toolarge", draft);
    let draft = broken(world, &|tx| {
        tx.output[0].value = Amount::from_sat(2_100_000_000_000_000);
        tx.output.push(TxOut { value: Amount::from_sat(1), ..tx.output[0].clone() });
    });
    world.bad("outputs of all coins and one satoshi", "bad-txns-txouttotal-toolarge", draft);
    let draft = broken(world, &|tx| tx.input.push(tx.input[0].clone()));
    world.bad("the same input twice", "bad-txns-inputs-duplicate", draft);
    let draft = broken(world, &|tx| {
        tx.input.push(bitcoin::TxIn { previous_output: OutPoint::null(), ..tx.input[0].clone() });
    });
    world.bad("an input from nowhere", "bad-txns-prevout-null", draft);
}

pub(crate) fn witness_rows(world: &mut World) {
    let draft = world.draft().commit();
    world.good("a commitment without witnesses", draft);
    let draft = world.draft().commit().edit(|block| block.txdata[0].input[0].witness.clear());
    world.good("a commitment without its reserved value", draft);

    let spend = world.spend(Kind::Wpkh);
    let original = world.draft().with([spend]).commit().seal();
    let mut mutated = original.clone();
    let witness = mutated.txdata[1].input[0].witness.to_vec();
    mutated.txdata[1].input[0].witness = Witness::from_slice(&[&witness[0][..], &[1]]);
    world.pair.row("another witness than committed to", "bad-witness-merkle-match", &mutated);
    let mut bare = original.clone();
    bare.txdata[1].input[0].witness.clear();
    world.pair.row("the witness left out", "bad-witness-merkle-match", &bare);
    for (name, value) in [("31 bytes of reserved value", &[0_u8; 31][..]), ("33 bytes of reserved value", &[0; 33])] {
        let mut block = original.clone();
        block.txdata[0].input[0].witness = Witness::from_slice(&[value]);
        world.pair.row(name, "bad-witness-nonce-size", &block);
    }
    let mut block = original.clone();
    block.txdata[0].input[0].witness = Witness::from_slice(&[[0_u8; 32], [0; 32]]);
    world.pair.row("two reserved values", "bad-witness-nonce-size", &block);
    let mut block = original.clone();
    block.txdata[0].input[0].witness = Witness::from_slice(&[[1_u8; 32]]);
    world.pair.row("another reserved value", "bad-witness-merkle-match", &block);
    world.pair.row("the block that all these were made from", "null", &original);
    world.pair.row("and again, with a bad witness", "duplicate", &mutated);

    let spend = world.spend(Kind::Wpkh);
    let draft = world.draft().with([spend]);
    world.bad("witnesses without a commitment", "unexpected-witness", draft);
    let draft = world.draft().edit(|block| block.txdata[0].input[0].witness = Witness::from_slice(&[[0_u8; 32]]));
    world.bad("a reserved value without a commitment", "unexpected-witness", draft);

    let spend = world.spend(Kind::Tr);
    let draft = world.draft().with([spend]);
    let (right, mut wrong) = (draft.commitment(), draft.commitment().into_bytes());
    wrong[20] ^= 1;
    let wrong = ScriptBuf::from_bytes(wrong);
    let good = draft.clone().commit_to(wrong.clone()).commit_to(right.clone());
    world.bad(
        "two commitments, the last one wrong",
        "bad-witness-merkle-match",
        draft.commit_to(right).commit_to(wrong),
    );
    world.good("two commitments, the last one right", good);
}
