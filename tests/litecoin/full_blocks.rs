//! Full blocks with an extension block: the coinbase of a large pool fits beside what the block cannot do without.

use bitcoin::absolute::LockTime;
use bitcoin::consensus::serialize;
use bitcoin::hashes::{Hash, hash160};
use bitcoin::hex::DisplayHex;
use bitcoin::opcodes::all::OP_RETURN;
use bitcoin::script::{Builder, PushBytesBuf};
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness};
use p2pool::bitcoind::responses::BlockTemplate;
use p2pool::template::{BLOCK_WEIGHT_MAX, Template};
use p2pool::work::{Config, Goal, Payout, WorkParts, WorkSet};
use ruint::aliases::U320;
use serde_json::{Value, json};
use sharechain::chain::{Sharechain, share_rules};
use sharechain::coin::LITECOIN_REGTEST;
use sharechain::share::{Payee, Weights};
use std::sync::Arc;
use stratum::mining::job::LastRoot;
use stratum::mining::submission::Submission;
use stratum::{Epochs, Work};
use test_support::Litecoind;

/// Number of transactions of about 40,000 weight units: three blocks.
const LARGE: usize = 300;

/// Number of those of about 4,000, which pay the least and fill what the large ones leave of a block.
const MEDIUM: usize = 120;

/// Number of small ones, each with a child that pays for it.
const SMALL: usize = 30;

/// Value of a coin that they spend, in satoshis.
const COIN: u64 = 10_000_000;

const EXTRANONCES: [u8; 8] = [1, 2, 3, 4, 5, 6, 7, 8];

/// Coins of the wallet with at least `confirmations`, outside the extension block.
fn coins(daemon: &Litecoind, confirmations: u32) -> Vec<Value> {
    let listed = daemon.call_wallet("main", "listunspent", json!([confirmations]));
    let listed: Vec<Value> = serde_json::from_value(listed).unwrap();
    let wanted = |coin: &Value| coin["vout"].is_u64() && (confirmations > 0 || coin["confirmations"] == 0);
    listed.into_iter().filter(wanted).collect()
}

/// Sends a transaction with one input; returns its id.
fn send(daemon: &Litecoind, input: OutPoint, output: Vec<TxOut>) -> Txid {
    let transaction = Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output: input,
            script_sig: ScriptBuf::new(),
            sequence: Sequence::MAX,
            witness: Witness::new(),
        }],
        output,
    };
    let raw = serialize(&transaction).to_lower_hex_string();
    let signed = daemon.call_wallet("main", "signrawtransactionwithwallet", json!([raw]));
    assert_eq!(signed["complete"], true, "{signed}");
    serde_json::from_value(daemon.call("sendrawtransaction", json!([signed["hex"], 0]))).unwrap()
}

/// Fills the mempool with more than three blocks of transactions at many fee rates.
fn fill_mempool(daemon: &Litecoind) {
    let address = daemon.call_wallet("main", "getaddressinfo", json!([daemon.new_address()]));
    let script_pubkey = ScriptBuf::from_hex(address["scriptPubKey"].as_str().unwrap()).unwrap();
    let paying = |value| TxOut { value: Amount::from_sat(value), script_pubkey: script_pubkey.clone() };
    let coin = coins(daemon, 100).into_iter().find(|coin| coin["amount"] == 50.0).expect("a mature coin");
    let txid: Txid = serde_json::from_value(coin["txid"].clone()).unwrap();
    let coin = OutPoint::new(txid, u32::try_from(coin["vout"].as_u64().unwrap()).unwrap());
    let txid = send(daemon, coin, vec![paying(COIN); LARGE + MEDIUM + SMALL]);
    daemon.mine(1);
    let mut outputs = (0..).map(|output| OutPoint::new(txid, output));
    let mut spend = |fee: u64, ballast: usize| {
        let data = PushBytesBuf::try_from(vec![7; ballast]).unwrap();
        let data = Builder::new().push_opcode(OP_RETURN).push_slice(data).into_script();
        let data = (ballast > 0).then_some(TxOut { value: Amount::ZERO, script_pubkey: data });
        let outputs_of = std::iter::once(paying(COIN - fee)).chain(data).collect();
        send(daemon, outputs.next().unwrap(), outputs_of)
    };
    for number in 0..LARGE as u64 {
        spend(20_000 + 100 * number, 10_000);
    }
    for number in 0..MEDIUM as u64 {
        spend(1400 + number, 900);
    }
    for number in 0..SMALL as u64 {
        let parent = spend(500, 0);
        send(daemon, OutPoint::new(parent, 0), vec![paying(COIN - 500 - 1000 - 100 * number)]);
    }
}

/// Sends a peg-in whose parent is in the mempool; returns the ids of both.
fn peg_in_of_unconfirmed(daemon: &Litecoind) -> [Txid; 2] {
    let confirmed = coins(daemon, 1);
    // All outputs of the parent are ours, and it is the only unconfirmed one of the wallet that is not locked.
    let unconfirmed = coins(daemon, 0);
    let lock = |is_unlock: bool, coins: &[Value]| {
        let outputs: Vec<Value> =
            coins.iter().map(|coin| json!({"txid": coin["txid"], "vout": coin["vout"]})).collect();
        daemon.call_wallet("main", "lockunspent", json!([is_unlock, outputs]));
    };
    lock(false, &unconfirmed);
    let parent = daemon.send(&daemon.new_address(), 1.0);
    lock(false, &confirmed.iter().filter(|coin| is_unspent(daemon, coin)).cloned().collect::<Vec<_>>());
    let change: Vec<Value> = coins(daemon, 0).into_iter().filter(|coin| coin["txid"] == parent.as_str()).collect();
    let amount: f64 = change.iter().map(|coin| coin["amount"].as_f64().unwrap()).sum();
    let params = json!([daemon.new_mweb_address(), format!("{amount:.8}"), "", "", true]);
    let peg_in = daemon.call_wallet("main", "sendtoaddress", params);
    daemon.call_wallet("main", "lockunspent", json!([true]));
    [parent.parse().unwrap(), serde_json::from_value(peg_in).unwrap()]
}

fn is_unspent(daemon: &Litecoind, coin: &Value) -> bool {
    !daemon.call("gettxout", json!([coin["txid"], coin["vout"]])).is_null()
}

fn template(daemon: &Litecoind) -> Arc<Template> {
    let answer = daemon.call("getblocktemplate", json!({"rules": ["segwit", "mweb"]}));
    let answer: BlockTemplate = serde_json::from_value(answer).unwrap();
    Arc::new(answer.into_template(LITECOIN_REGTEST.known_rules, BLOCK_WEIGHT_MAX).unwrap())
}

/// Work on `template` for a pool of `count` miners with the same work.
fn work(daemon: &Litecoind, template: &Arc<Template>, count: u32) -> WorkSet {
    let config = Config {
        network: &LITECOIN_REGTEST,
        default_payout: payout(daemon),
        fee_percent: 0.0,
        donation_percent: 0.0,
        coinbase_texts: Vec::new(),
        merged_pause: p2pool::merged::PAUSE,
        clock: p2pool::runtime::clock::unix_second,
    };
    let mut chain = Sharechain::new(&LITECOIN_REGTEST);
    chain.think(0.0);
    let mut parts = WorkParts::new(template, &chain.tip(), Arc::default()).unwrap();
    let rules = share_rules(&LITECOIN_REGTEST);
    let payees = (0..count).map(|number| {
        let hash = hash160::Hash::hash(&number.to_le_bytes()).to_byte_array();
        (Payee::from_pubkey_hash(&hash, &rules), U320::from(1))
    });
    let weights = Weights { by_payee: payees.collect(), total: U320::from(count), donation: U320::ZERO };
    parts.next_share.weights = Arc::new(weights);
    WorkSet::new(&Arc::new(config), parts, Arc::default(), Epochs::default(), None).unwrap()
}

fn payout(daemon: &Litecoind) -> Payout {
    Payout::to_address(&daemon.payout_address(1), &LITECOIN_REGTEST).unwrap()
}

/// Solves a job of `work`, and returns the block.
fn solve(daemon: &Litecoind, work: &WorkSet) -> Vec<u8> {
    let offer = work.offer(&payout(daemon), 0, 0).unwrap();
    let ticket = offer.job.ticket();
    let draft = ticket.draft().unwrap();
    let (extranonce1, extranonce2) = ([1, 2, 3, 4], [5, 6, 7, 8]);
    let time = ticket.template().time;
    for nonce in 0.. {
        let submission = Submission { extranonce2, time, nonce, version_bits: None };
        let solved = submission.solve(&offer.job, extranonce1, 0, time, &mut LastRoot::default()).unwrap();
        if ticket.reached(&solved.pow_hash).contains(&Goal::Block) {
            return ticket.block(&draft, &solved.header, EXTRANONCES);
        }
    }
    unreachable!("every other nonce solves it")
}

#[test]
fn full_blocks_with_peg_ins_are_accepted_with_any_number_of_payees() {
    let daemon = Litecoind::start_with_mweb();
    // Litecoin's daemon makes no templates without a peer.
    let other = Litecoind::start();
    other.connect(&daemon);
    fill_mempool(&daemon);
    for (payees, fits) in [(1, true), (100, false), (500, false)] {
        let pinned = peg_in_of_unconfirmed(&daemon);
        let alone: Txid = daemon.peg_in().parse().unwrap();
        let template = template(&daemon);
        assert!(template.used().weight > BLOCK_WEIGHT_MAX - 20_000, "{}", template.used().weight);
        let work = work(&daemon, &template, payees);
        let kept = work.template();
        assert_eq!(kept.transactions.len() == template.transactions.len(), fits, "{payees} payees");
        let lost: u64 = template.coinbase_value - kept.coinbase_value;
        let block = solve(&daemon, &work);
        let answer = daemon.call("submitblock", json!([block.to_lower_hex_string()]));
        assert_eq!(answer, Value::Null, "the block with {payees} payees");

        let hash = daemon.best_block_hash();
        let block = daemon.call("getblock", json!([hash, 2]));
        let weight = block["weight"].as_u64().unwrap();
        assert!((BLOCK_WEIGHT_MAX - 100_000..=BLOCK_WEIGHT_MAX).contains(&weight), "{weight}");
        assert!(daemon.has_mweb(&hash));
        let transactions = block["tx"].as_array().unwrap();
        let txids: Vec<Txid> = transactions.iter().map(|one| one["txid"].as_str().unwrap().parse().unwrap()).collect();
        assert!(pinned.iter().chain([&alone]).all(|txid| txids.contains(txid)), "peg-ins and their parents are mined");
        let outputs = transactions[0]["vout"].as_array().unwrap();
        assert!(outputs.len() > payees as usize, "{} outputs", outputs.len());
        let paid = outputs.iter().map(|output| Amount::from_btc(output["value"].as_f64().unwrap()).unwrap().to_sat());
        assert_eq!(paid.sum::<u64>(), template.coinbase_value - lost);
        let fees: u64 = template.transactions.iter().filter(|one| !txids.contains(&one.txid)).map(|one| one.fee).sum();
        assert_eq!(lost, fees);
    }
}
