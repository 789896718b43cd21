//! Cost of a new tip until every miner's job is ready, throughput of own shares, cost of a start, cost of work beside an
//! extension block, and one more job for share versions 35 and 36 side by side.
//!
//! `cargo bench --bench work`, with `-- versions` for the last alone. A chain of 17,300 forged shares, as many as are
//! kept, of 300 payees; a template of 2,000 transactions and four million weight units; 500 payout addresses. Beside the
//! extension block (Litecoin's MWEB) the template has as many small transactions as fit, twenty of them peg-ins.

#![allow(clippy::unwrap_used, reason = "a benchmark can do nothing about an error but stop")]

use bitcoin::absolute::LockTime;
use bitcoin::consensus::serialize;
use bitcoin::hashes::Hash;
use bitcoin::transaction::Version;
use bitcoin::{
    Amount, BlockHash, CompactTarget, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness, Wtxid,
};
use bytes::Bytes;
use p2pool::chain::store::Store;
use sharechain::chain::{Sharechain, Tip};
use sharechain::coin::{DOGECOIN_TESTNET, Network};
use sharechain::merged::{MergedBlock, MergedTarget, MergedWork};
use sharechain::share::Bits;
use sharechain::testkit::{Plan, START, bits_of, merged_address, network, network_of_work, share_on};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use stratum::mining::job::LastRoot;
use stratum::{Epochs, Work};

use p2pool::chain::{Config as ChainConfig, ParentFeed, load};
use p2pool::runtime::disk::DiskHealth;
use p2pool::template::{BLOCK_WEIGHT_MAX, Template, TemplateParts, TemplateTransaction};
use p2pool::work::{Config, Goal, Payout, WorkParts, WorkSet};
use tokio::sync::{mpsc, watch};

const SHARES: u32 = 17_300;
const PAYEES: u32 = 300;
/// Hashes that a block takes where a share takes one: hard enough for the window to be full by number, not by work.
const BLOCK_WORK: u64 = 40_000;
/// Hashes that a share takes where versions are compared: with less, all weights that fade are rounded to 0.
const SHARE_WORK: u64 = 64;
const ADDRESSES: u32 = 500;
const TRANSACTIONS: u32 = 2_000;

/// Payees of a tip whose coinbase is smaller by more than the step of its weight (`WEIGHT_STEP`), so that another
/// selection of transactions fits beside it.
const FEWER_PAYEES: u32 = PAYEES - 20;

/// Peg-ins of the extension block.
const PEG_INS: u32 = 20;

/// A share's time is above its parent's, so thousands per second need a clock that starts where the chain ends, and
/// advances by a share period each, so that shares do not get ever harder.
static CLOCK: AtomicU32 = AtomicU32::new(START + 10 * SHARES);

fn chain_clock() -> u32 {
    CLOCK.load(Ordering::Relaxed)
}

fn main() {
    let template = Arc::new(template());
    if std::env::args().any(|argument| argument == "versions") {
        return versions();
    }
    let network = network(8_640, 35);
    let mut chain = Sharechain::new(network);
    let before = resident_kilobytes();
    grow(&mut chain, PAYEES, bits_of(BLOCK_WORK), false);
    println!("{SHARES} shares of {PAYEES} payees: {} kB", resident_kilobytes().saturating_sub(before));

    let config = config(network);
    let payouts = payouts(network);
    let before = resident_kilobytes();
    let (common, each, bytes) = new_tips(&mut chain, &config, &template, &payouts);
    println!("work common to all: {:.0} µs", micros(common));
    println!(
        "one more payout address: {:.1} µs ({ADDRESSES}: {:.1} ms); a job is {bytes} bytes",
        micros(each),
        micros(each * ADDRESSES) / 1000.0,
    );
    println!("the work and the jobs of one tip: {} kB", resident_kilobytes().saturating_sub(before));
    for chains in [0, 1, 4, 16] {
        merged_chains(&mut chain, &config, &template, &payouts, chains);
    }
    own_shares(&mut chain, &config, &template, &payouts);
    start(&chain, network);
    println!("in all {} kB resident", resident_kilobytes());
    let mut other = Sharechain::new(network);
    grow(&mut other, FEWER_PAYEES, bits_of(BLOCK_WORK), false);
    beside_extension(&config, [&chain.tip(), &other.tip()]);
    versions();
}

/// Times one more payout address for each share version; the last one's shares and jobs have addresses on a merged chain
/// as well.
fn versions() {
    let block_bits = bits_of(BLOCK_WORK * SHARE_WORK);
    let parts = TemplateParts { bits: CompactTarget::from_consensus(block_bits.0), ..parts() };
    let template = Arc::new(Template::new(parts, &["csv", "segwit", "taproot"]).unwrap());
    println!("one more payout address by share version, at most 40 µs:");
    println!("{:<26} {:>8} {:>10} {:>10}", "share version", "µs", "common µs", "job bytes");
    for (name, version, merged_chain) in
        [("35", 35, None), ("36", 36, None), ("36 with merged addresses", 36, Some(&DOGECOIN_TESTNET))]
    {
        CLOCK.store(START + 10 * SHARES, Ordering::Relaxed);
        let network: &'static Network =
            Box::leak(Box::new(Network { merged_chain, ..network_of_work(8_640, version, SHARE_WORK).clone() }));
        let mut chain = Sharechain::new(network);
        grow(&mut chain, PAYEES, block_bits, merged_chain.is_some());
        assert_eq!(chain.tip().weights(block_bits.target()).by_payee.len(), PAYEES as usize);
        let (common, each, bytes) = new_tips(&mut chain, &config(network), &template, &payouts(network));
        println!("{name:<26} {:>8.1} {:>10.0} {bytes:>10}", micros(each), micros(common));
    }
}

/// Times a new tip until the notify bytes of every payout address are ready. Returns the time for what is common to all,
/// the time for each address, and the bytes of a job.
fn new_tips(
    chain: &mut Sharechain,
    config: &Arc<Config>,
    template: &Arc<Template>,
    payouts: &[Payout],
) -> (Duration, Duration, usize) {
    const ROUNDS: u32 = 10;
    let mut sets: Vec<WorkSet> = Vec::new();
    let (mut common, mut each, mut bytes) = (Duration::ZERO, Duration::ZERO, 0);
    for _ in 0..ROUNDS {
        let tip = chain.tip();
        let begin = Instant::now();
        let parts = WorkParts::new(template, &tip, Arc::default()).unwrap();
        let set = WorkSet::new(config, parts, Arc::default(), Epochs::default(), sets.last()).unwrap();
        common += begin.elapsed();
        let begin = Instant::now();
        for payout in payouts {
            bytes = set.offer(payout, 0, 0).unwrap().line.len();
        }
        each += begin.elapsed();
        // As in a running node, where sessions release the work that they drop.
        sets.clear();
        sets.push(set);
    }
    (common / ROUNDS, each / ROUNDS / ADDRESSES, bytes)
}

/// Times a new tip until the notify bytes of every payout address are ready beside this many merged chains, all of which
/// have new blocks.
fn merged_chains(
    chain: &mut Sharechain,
    config: &Arc<Config>,
    template: &Arc<Template>,
    payouts: &[Payout],
    chains: u32,
) {
    const ROUNDS: u8 = 20;
    let mut sets: Vec<WorkSet> = Vec::new();
    let mut spent = [Duration::ZERO; 2];
    for round in 0..ROUNDS {
        let block = |chain_id| MergedBlock {
            chain: format!("chain-{chain_id}").into(),
            chain_id,
            hash: [round; 32],
            target: MergedTarget::Own(bits_of(40_000).target()),
            previous_block: [1; 32],
            height: 1,
            value: None,
            payee: "an address".into(),
        };
        let tip = chain.tip();
        let begin = Instant::now();
        let merged = Arc::new(MergedWork::new((1..=chains).map(block).collect()).unwrap());
        let parts = WorkParts::new(template, &tip, merged).unwrap();
        let set = WorkSet::new(config, parts, Arc::default(), Epochs::default(), sets.last()).unwrap();
        set.offer(&payouts[0], 0, 0).unwrap();
        spent[0] += begin.elapsed();
        for payout in payouts {
            set.offer(payout, 0, 0).unwrap();
        }
        spent[1] += begin.elapsed();
        sets.clear();
        sets.push(set);
    }
    let [first, all] = spent.map(|spent| micros(spent / u32::from(ROUNDS)) / 1000.0);
    println!("tip to notify with {chains} merged chains: first miner {first:.2} ms, {ADDRESSES} addresses {all:.2} ms");
}

/// Times a solved header until the next tip and a new job: share made, checked like all others, chosen, new work.
fn own_shares(chain: &mut Sharechain, config: &Arc<Config>, template: &Arc<Template>, payouts: &[Payout]) {
    const COUNT: u32 = 3_000;
    let mut set: Option<WorkSet> = None;
    let mut spent = [Duration::ZERO; 4];
    for number in 0..COUNT {
        let mut begin = Instant::now();
        let mut lap = |stage: usize, begin: &mut Instant| {
            let now = Instant::now();
            spent[stage] += now - std::mem::replace(begin, now);
        };
        let tip = chain.tip();
        let parts = WorkParts::new(template, &tip, Arc::default()).unwrap();
        let next = WorkSet::new(config, parts, Arc::default(), Epochs::default(), set.as_ref()).unwrap();
        lap(0, &mut begin);
        let offer = next.offer(&payouts[number as usize % payouts.len()], 0, 0).unwrap();
        lap(1, &mut begin);
        // The miner's part: not measured.
        let submission = |nonce| stratum::mining::submission::Submission {
            extranonce2: [0; 4],
            time: template.time,
            nonce,
            version_bits: None,
        };
        let ticket = offer.job.ticket();
        let solved = (0..)
            .map(|nonce| {
                submission(nonce).solve(&offer.job, [0; 4], 0, template.time, &mut LastRoot::default()).unwrap()
            })
            .find(|solved| ticket.reached(&solved.pow_hash).contains(&Goal::Share))
            .unwrap();
        let mut begin = Instant::now();
        let draft = ticket.draft().unwrap();
        let share = ticket.share(&draft, &solved.header, [0; 8]).unwrap();
        lap(2, &mut begin);
        CLOCK.store(share.timestamp() + 10, Ordering::Relaxed);
        let now = f64::from(share.timestamp());
        chain.add_own(Arc::new(share), false, now);
        chain.think(now);
        while chain.poll_event().is_some() {}
        lap(3, &mut begin);
        set = Some(next);
    }
    let each = spent.iter().sum::<Duration>() / COUNT;
    println!("own share to next job: {:.0} µs each, {:.0} a second", micros(each), 1.0 / each.as_secs_f64());
    for (stage, spent) in ["tip and work", "job", "share", "check and choice"].iter().zip(spent) {
        println!("    {stage}: {:.0} µs", micros(spent / COUNT));
    }
}

/// Times work beside an extension block: on a new template, and on the same one with the same tip, with one whose
/// coinbase has another weight, and with the first again.
fn beside_extension(config: &Arc<Config>, [tip, other]: [&Tip; 2]) {
    const ROUNDS: u32 = 20;
    let parts = with_extension();
    let mut spent = [Duration::ZERO; 5];
    let mut left_out = [0; 2];
    for _ in 0..ROUNDS {
        let parts = parts.clone();
        let begin = Instant::now();
        let template = Arc::new(Template::new(parts, &["csv", "segwit", "taproot", "mweb"]).unwrap());
        spent[0] += begin.elapsed();
        let mut before: Option<WorkSet> = None;
        for (stage, tip) in [tip, tip, other, tip].into_iter().enumerate() {
            let begin = Instant::now();
            let parts = WorkParts::new(&template, tip, Arc::default()).unwrap();
            let set = WorkSet::new(config, parts, Arc::default(), Epochs::default(), before.as_ref()).unwrap();
            spent[stage + 1] += begin.elapsed();
            left_out[usize::from(std::ptr::eq(tip, other))] =
                template.transactions.len() - set.template().transactions.len();
            before = Some(set);
        }
    }
    assert!(left_out[0] > left_out[1] && left_out[1] > 0, "both tips leave out something: {left_out:?}");
    println!(
        "beside an extension block, {} transactions, {PEG_INS} peg-ins, {} or {} left out:",
        parts.transactions.len(),
        left_out[0],
        left_out[1],
    );
    let stages =
        ["a new template", "work on it", "the next tip", "a tip that pays fewer miners", "one that pays as before"];
    for (stage, spent) in stages.iter().zip(spent) {
        println!("    {stage}: {:.0} µs", micros(spent / ROUNDS));
    }
}

/// Times a start with a full store, until there is a tip.
fn start(chain: &Sharechain, network: &'static Network) {
    let folder = tempfile::tempdir().unwrap();
    let (mut store, _) = Store::open(folder.path()).unwrap();
    let best = chain.choice().best.unwrap();
    let shares: Vec<_> = chain.all().chain(best, u32::MAX).collect();
    for hash in shares.iter().rev() {
        store.append_share(*hash, &chain.share(*hash).unwrap().to_bytes(), 1, false).unwrap();
        store.append_verified(*hash).unwrap();
    }
    store.sync().unwrap();
    drop(store);
    let (wanted, _queue) = mpsc::channel(1);
    let (_known_sender, known) = watch::channel(Arc::new(HashMap::new()));
    let config = ChainConfig { network, data_dir: folder.path().to_owned(), legacy: None, disk: DiskHealth::new() };
    // The store's writer waits on a runtime of its own, but needs the clock of one here.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let begin = Instant::now();
    let (handle, _owner) = runtime.block_on(async {
        load(&config, ParentFeed { wanted, known, templates: watch::channel(Arc::default()).1 }).unwrap()
    });
    let took = begin.elapsed();
    let height = handle.tips.borrow().as_ref().unwrap().height();
    println!("start with {} stored shares: {:.0} ms to a tip at height {height}", shares.len(), micros(took) / 1000.0);
}

fn grow(chain: &mut Sharechain, payees: u32, block_bits: Bits, merges: bool) {
    for number in 0..SHARES {
        let timestamp = START + 10 * number;
        let payee = number % payees;
        let merged_addresses = if merges { vec![merged_address(payee)] } else { Vec::new() };
        let plan = Plan { payee, timestamp, block_bits, nonce: number, merged_addresses, ..Plan::default() };
        let best = chain.choice().best;
        let share = share_on(chain, best, &plan);
        chain.add(share, None, f64::from(timestamp));
        chain.think(f64::from(timestamp));
        while chain.poll_event().is_some() {}
    }
    assert_eq!(u32::try_from(chain.verified().len()), Ok(SHARES));
}

fn config(network: &'static Network) -> Arc<Config> {
    Arc::new(Config {
        network,
        default_payout: payout(network, 0),
        fee_percent: 0.0,
        donation_percent: 0.0,
        coinbase_texts: Vec::new(),
        merged_pause: p2pool::merged::PAUSE,
        clock: chain_clock,
    })
}

fn payouts(network: &'static Network) -> Vec<Payout> {
    (0..ADDRESSES).map(|number| payout(network, 1_000_000 + number)).collect()
}

fn payout(network: &'static Network, number: u32) -> Payout {
    let mut hash = [9; 20];
    hash[..4].copy_from_slice(&number.to_be_bytes());
    let hrp = bech32::Hrp::parse(network.parent.human_readable_part).unwrap();
    Payout::to_address(&bech32::segwit::encode_v0(hrp, &hash).unwrap(), network).unwrap()
}

/// Full except for the room that a daemon leaves.
fn template() -> Template {
    Template::new(parts(), &["csv", "segwit", "taproot"]).unwrap()
}

fn parts() -> TemplateParts {
    let weight = (4_000_000 - 8_000) / u64::from(TRANSACTIONS);
    let transaction = |number: u32| {
        let mut id = [3; 32];
        id[..4].copy_from_slice(&number.to_be_bytes());
        TemplateTransaction {
            raw: Bytes::from(vec![0; usize::try_from(weight / 4).unwrap()]),
            txid: Txid::from_byte_array(id),
            wtxid: Wtxid::from_byte_array(id),
            fee: 10_000,
            weight,
            sigops: 4,
        }
    };
    TemplateParts {
        version: 0x2000_0000,
        previous_block: BlockHash::from_byte_array([7; 32]),
        height: 850_000,
        bits: CompactTarget::from_consensus(bits_of(BLOCK_WORK).0),
        time: START,
        time_min: START - 3600,
        coinbase_value: 330_000_000,
        coinbase_flags: Vec::new(),
        transactions: (0..TRANSACTIONS).map(transaction).collect(),
        weight_max: BLOCK_WEIGHT_MAX,
        rules: vec!["csv".into(), "!segwit".into(), "taproot".into()],
        default_witness_commitment: None,
        suffix: Vec::new(),
    }
}

/// The same with an extension block. Every third transaction spends an output of the one before it, as in a busy
/// mempool.
fn with_extension() -> TemplateParts {
    let mut transactions: Vec<TemplateTransaction> = Vec::new();
    let mut weight = 0;
    while weight < 3_990_000 {
        let number = u32::try_from(transactions.len()).unwrap();
        let parent = transactions.last().filter(|_| number % 3 == 2).map(|parent| parent.txid);
        let fee = 1_000 + u64::from(number.wrapping_mul(2_654_435_761) >> 16);
        let one = spending([OutPoint::new(parent.unwrap_or(Txid::all_zeros()), number)], 2, fee);
        weight += one.weight;
        transactions.push(one);
    }
    let peg_ins = transactions.iter().step_by(transactions.len() / PEG_INS as usize).take(PEG_INS as usize);
    let inputs = std::iter::once(Txid::from_byte_array([8; 32])).chain(peg_ins.map(|peg_in| peg_in.txid));
    let mut hogex = spending(inputs.map(|txid| OutPoint::new(txid, 0)), 1, 0);
    // Flag 8 before the inputs, and a null MWEB transaction before the lock time.
    let witnessless = hogex.raw.clone();
    hogex.raw = [&witnessless[..4], &[0, 8], &witnessless[4..witnessless.len() - 4], &[0; 5]].concat().into();
    transactions.push(hogex);
    let rules = ["csv", "!segwit", "taproot", "!mweb"].map(String::from).to_vec();
    TemplateParts { transactions, rules, suffix: vec![1; 1000], ..parts() }
}

/// A transaction that spends `inputs`; its first output is like that of a HogEx.
fn spending(inputs: impl IntoIterator<Item = OutPoint>, outputs: usize, fee: u64) -> TemplateTransaction {
    let input = |previous_output| TxIn {
        previous_output,
        script_sig: ScriptBuf::new(),
        sequence: Sequence::MAX,
        witness: Witness::new(),
    };
    let script_pubkey = ScriptBuf::from_bytes([&[0x58, 0x20][..], &[7; 32]].concat());
    let transaction = Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: inputs.into_iter().map(input).collect(),
        output: vec![TxOut { value: Amount::from_sat(1000), script_pubkey }; outputs],
    };
    TemplateTransaction {
        txid: transaction.compute_txid(),
        wtxid: transaction.compute_wtxid(),
        fee,
        weight: transaction.weight().to_wu(),
        sigops: 1,
        raw: serialize(&transaction).into(),
    }
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// Memory of this process in kB; 0 where the system does not report it.
fn resident_kilobytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}
