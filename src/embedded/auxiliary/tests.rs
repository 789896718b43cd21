//! The daemon over HTTP: proofs mined by hand, and each fault.

use super::proof::tests::Parts;
use super::proof::{DecodeError, ParentPow, ProofError};
use super::*;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, CompactTarget, Target};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(10);

/// Time after which an answer counts as missing.
const SILENCE: Duration = Duration::from_millis(200);

fn start(config: Config) -> Daemon {
    Daemon::start(config, &Tasks::new()).unwrap()
}

/// Sends a request, and returns the whole answer.
async fn exchange(address: SocketAddr, head: &str, body: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("{head}\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

fn head_of(config: &Config) -> String {
    let login = BASE64_STANDARD.encode(format!("{}:{}", config.user, config.password.expose()));
    format!("POST / HTTP/1.1\r\nAuthorization: Basic {login}")
}

async fn ask(daemon: &Daemon, method: &str, params: Value) -> io::Result<String> {
    let body = json!({ "method": method, "params": params, "id": 7 }).to_string();
    timeout(PATIENCE, exchange(daemon.address(), &head_of(daemon.config()), &body)).await.unwrap()
}

/// Status and body of the answer to a call.
async fn call(daemon: &Daemon, method: &str, params: Value) -> (u16, Value) {
    let answer = ask(daemon, method, params).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap())
}

async fn result(daemon: &Daemon, method: &str, params: Value) -> Value {
    let (status, answer) = call(daemon, method, params).await;
    assert_eq!((status, &answer["error"], &answer["id"]), (200, &Value::Null, &json!(7)), "{answer}");
    answer["result"].clone()
}

async fn error(daemon: &Daemon, method: &str, params: Value) -> (u16, i64, String) {
    let (status, answer) = call(daemon, method, params).await;
    assert_eq!(answer["result"], Value::Null, "{answer}");
    (status, answer["error"]["code"].as_i64().unwrap(), answer["error"]["message"].as_str().unwrap().to_owned())
}

async fn create(daemon: &Daemon) -> Value {
    result(daemon, "createauxblock", json!([daemon.config().address_of("alice")])).await
}

fn hash_of(work: &Value) -> BlockHash {
    work["hash"].as_str().unwrap().parse().unwrap()
}

/// A proof that is not mined yet.
fn parts_for(daemon: &Daemon, work: &Value) -> Parts {
    Parts::of(hash_of(work), u32::from(daemon.config().rules.chain_id), 2)
}

/// A proof mined for the target that the work has, in reversed byte order.
fn mined(daemon: &Daemon, work: &Value, field: &str) -> String {
    let target: [u8; 32] = hex::decode(work[field].as_str().unwrap()).unwrap().try_into().unwrap();
    let mut parts = parts_for(daemon, work);
    parts.mine(Target::from_le_bytes(target), daemon.config().rules.parent_pow, true);
    hex::encode(parts.serialise())
}

#[tokio::test]
async fn a_proof_mined_by_hand_makes_a_block_of_both_kinds_of_chain() {
    for (config, field) in [(Config::dogecoin(), "target"), (Config::namecoin(), "_target")] {
        let daemon = start(config);
        daemon.chain(|chain, _| chain.set_bits(CompactTarget::from_consensus(0x2000_ffff))).unwrap();
        let genesis = result(&daemon, "getbestblockhash", json!([])).await;
        let work = create(&daemon).await;
        assert_eq!(
            (&work["height"], &work["previousblockhash"], &work["bits"]),
            (&json!(1), &genesis, &json!("2000ffff"))
        );
        assert_eq!(work["chainid"], daemon.config().rules.chain_id);
        assert_eq!(work["coinbasevalue"], daemon.config().rules.subsidy);
        let digits = work[field].as_str().unwrap();
        assert_eq!(digits, format!("{}ffff00", "00".repeat(29)), "the least significant byte is first");
        let mut tips = daemon.tips();
        let proof = mined(&daemon, &work, field);
        assert_eq!(result(&daemon, "submitauxblock", json!([work["hash"], proof])).await, true);
        assert_eq!(tips.wait_for(|tip| tip.height == 1).await.unwrap().hash, hash_of(&work));
        daemon.chain(|chain, now| chain.mine(now));
        for method in ["getblock", "getblockheader"] {
            let block = result(&daemon, method, json!([work["hash"]])).await;
            assert_eq!((&block["confirmations"], &block["height"]), (&json!(2), &json!(1)), "{block}");
            assert_eq!((&block["hash"], &block["previousblockhash"]), (&work["hash"], &genesis), "{block}");
        }
        assert_eq!(result(&daemon, "getblockcount", json!([])).await, 2);
        assert_eq!(result(&daemon, "getblockhash", json!([1])).await, work["hash"]);
        let header = result(&daemon, "getblockheader", json!([work["hash"], false])).await;
        assert_eq!(header.as_str().unwrap()[160..], proof);
        let raw = result(&daemon, "getblock", json!([work["hash"], 0])).await;
        assert!(raw.as_str().unwrap().starts_with(header.as_str().unwrap()));
        let alice = daemon.config().script_of("alice");
        assert_eq!(daemon.chain(|chain, _| chain.balance(&alice)).immature, daemon.config().rules.subsidy);
    }
}

#[tokio::test]
async fn wrong_proofs_are_refused_each_for_its_reason() {
    let daemon = start(Config {
        rules: Rules { parent_pow: ParentPow::Sha256d, ..Config::dogecoin().rules },
        ..Config::dogecoin()
    });
    let work = create(&daemon).await;
    let hash = hash_of(&work);
    let mut expected = Vec::new();
    for (edit, reason) in [
        ((|parts| parts.coinbase_index = 3) as fn(&mut Parts), ProofError::NotCoinbase(3)),
        (|parts| parts.version = 98 << 16, ProofError::OwnParent(98)),
        (|parts| parts.script.extend([0xfa, 0xbe, 0x6d, 0x6d]), ProofError::TwoMarks),
        (|parts| parts.script.truncate(20), ProofError::RootMissing),
        (|parts| parts.chain_siblings.truncate(1), ProofError::RootMissing),
    ] {
        let mut parts = parts_for(&daemon, &work);
        edit(&mut parts);
        let proof = hex::encode(parts.serialise());
        assert_eq!(result(&daemon, "submitauxblock", json!([hash, proof])).await, false, "{reason}");
        expected.push(Err(SubmitError::Rule(reason.into())));
    }
    let mut weak = parts_for(&daemon, &work);
    weak.mine(Target::from_compact(CompactTarget::from_consensus(0x207f_ffff)), ParentPow::Sha256d, false);
    assert_eq!(result(&daemon, "submitauxblock", json!([hash, hex::encode(weak.serialise())])).await, false);
    expected.push(Err(SubmitError::Rule(ProofError::HighHash.into())));
    let good = mined(&daemon, &work, "target");
    for (proof, reason) in [
        (format!("{good}00"), DecodeError::TrailingBytes(1)),
        (good.replacen("00", "zz", 1), DecodeError::Part("coinbase transaction")),
    ] {
        let (status, code, _) = error(&daemon, "submitauxblock", json!([hash, proof])).await;
        assert_eq!((status, code), (500, -1));
        expected.push(Err(SubmitError::Decode(reason)));
    }
    let unknown = BlockHash::all_zeros();
    let refusal = (500, -8, "block hash unknown".to_owned());
    assert_eq!(error(&daemon, "submitauxblock", json!([unknown, good])).await, refusal);
    expected.push(Err(SubmitError::Unknown));
    assert_eq!(error(&daemon, "submitauxblock", json!(["no hash", good])).await, refusal);
    let judged: Vec<_> = daemon.chain(|chain, _| chain.submissions().map(|one| one.verdict.clone()).collect());
    assert_eq!(judged, expected);
    assert_eq!(daemon.chain(|chain, _| chain.tip().height), 0);
}

#[tokio::test]
async fn a_block_on_an_old_tip_is_answered_with_true_and_is_beside_the_chain() {
    let daemon = start(Config::namecoin());
    let work = create(&daemon).await;
    daemon.chain(|chain, now| chain.mine(now));
    let submission = json!([work["hash"], mined(&daemon, &work, "_target")]);
    assert_eq!(result(&daemon, "submitauxblock", submission.clone()).await, true);
    let block = result(&daemon, "getblock", json!([work["hash"]])).await;
    assert_eq!((&block["confirmations"], block.get("nextblockhash")), (&json!(-1), None), "{block}");
    create(&daemon).await;
    assert_eq!(error(&daemon, "submitauxblock", submission).await.1, -8);
}

#[tokio::test]
async fn an_early_program_has_only_getauxblock() {
    let daemon = start(Config { creates: false, ..Config::namecoin() });
    for method in ["createauxblock", "submitauxblock", "generate"] {
        assert_eq!(error(&daemon, method, json!(["x"])).await, (404, -32_601, "Method not found".to_owned()));
    }
    assert!(!result(&daemon, "help", json!([])).await.as_str().unwrap().contains("createauxblock"));
    let work = result(&daemon, "getauxblock", json!([])).await;
    let proof = mined(&daemon, &work, "_target");
    assert_eq!(result(&daemon, "getauxblock", json!([work["hash"], proof])).await, true);
    let wallet = daemon.config().wallet_script();
    assert!(daemon.chain(|chain, _| chain.balance(&wallet)).immature > 0);
    assert_eq!((daemon.calls("getauxblock"), daemon.calls("createauxblock")), (2, 1));
}

#[tokio::test]
async fn what_cannot_be_done_is_an_error_with_the_programs_own_code() {
    let codes = [(Config::dogecoin(), [-8, -12]), (Config::namecoin(), [-5, -18])];
    for (config, [address_code, wallet_code]) in codes {
        let daemon = start(Config { wallet: false, ..config });
        for wrong in ["alice", "", "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080"] {
            assert_eq!(error(&daemon, "createauxblock", json!([wrong])).await.1, address_code);
            assert_eq!(result(&daemon, "validateaddress", json!([wrong])).await["isvalid"], false);
        }
        let alice = daemon.config().address_of("alice");
        assert_eq!(result(&daemon, "validateaddress", json!([alice])).await["isvalid"], true);
        assert_eq!(error(&daemon, "getauxblock", json!([])).await.1, wallet_code);
        assert_eq!(error(&daemon, "createauxblock", json!([])).await.1, -1);
        assert_eq!(error(&daemon, "createauxblock", json!([7])).await.1, -1);
        assert_eq!(error(&daemon, "getblock", json!(["00".repeat(32)])).await.1, -5);
        assert_eq!(error(&daemon, "getblockhash", json!([1])).await.1, -8);
        let info = result(&daemon, "getblockchaininfo", json!([])).await;
        assert_eq!((&info["blocks"], &info["initialblockdownload"]), (&json!(0), &json!(false)));
        assert!(result(&daemon, "getnetworkinfo", json!([])).await["subversion"].as_str().unwrap().starts_with('/'));
    }
}

#[tokio::test]
async fn only_who_has_the_password_is_answered() {
    let daemon = start(Config::namecoin());
    let body = r#"{"method":"getblockcount"}"#;
    for head in ["POST / HTTP/1.1", "POST / HTTP/1.1\r\nAuthorization: Basic bWVyZ2VkOnd"] {
        assert!(exchange(daemon.address(), head, body).await.unwrap().starts_with("HTTP/1.1 401 "), "{head}");
    }
    assert!(exchange(daemon.address(), "GET / HTTP/1.1", "").await.unwrap().starts_with("HTTP/1.1 405 "));
    let head = head_of(daemon.config());
    for (body, status) in [(body, 200), ("{", 500), ("[]", 500), ("{}", 400), (r#"{"method":"x","params":7}"#, 400)] {
        let answer = exchange(daemon.address(), &head, body).await.unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{body}: {answer}");
    }
    assert_eq!(daemon.url_with_login(), format!("http://merged:private@{}/", daemon.address()));
    assert!(!format!("{daemon:?}").contains("private"));
}

#[tokio::test]
async fn each_fault_does_what_it_says() {
    let daemon = start(Config::namecoin());
    let faults = daemon.faults();
    let set = |fault| faults.set(Calls::Work, fault);
    let address = json!([daemon.config().address_of("alice")]);
    let honest = create(&daemon).await;
    for (fault, code) in [(Fault::warming_up(), -28), (Fault::downloading(), -10), (Fault::not_connected(), -9)] {
        set(fault);
        assert_eq!(error(&daemon, "createauxblock", address.clone()).await.1, code);
    }
    set(Fault::Field("chainid", json!(5)));
    assert_eq!(create(&daemon).await["chainid"], 5);
    set(Fault::target_zero("_target"));
    assert_eq!(create(&daemon).await["_target"], "0".repeat(64));
    set(Fault::target_max("_target"));
    assert_eq!(create(&daemon).await["_target"], "f".repeat(64));
    set(Fault::Without("hash"));
    assert_eq!(create(&daemon).await.get("hash"), None);
    set(Fault::Result(json!("duplicate")));
    assert_eq!(create(&daemon).await, "duplicate");
    set(Fault::Slow(SILENCE));
    let began = Instant::now();
    assert_eq!(create(&daemon).await, honest);
    assert!(began.elapsed() >= SILENCE);
    set(Fault::Status(500));
    assert!(ask(&daemon, "createauxblock", address.clone()).await.unwrap().starts_with("HTTP/1.1 500 "));
    set(Fault::Body(b"{\"result\":".to_vec()));
    assert!(ask(&daemon, "createauxblock", address.clone()).await.unwrap().ends_with("\r\n\r\n{\"result\":"));
    set(Fault::Disconnect);
    assert_eq!(ask(&daemon, "createauxblock", address.clone()).await.unwrap_or_default(), "");
    set(Fault::Huge(1_000_000));
    assert!(ask(&daemon, "createauxblock", address.clone()).await.unwrap().len() > 1_000_000);
    for fault in [Fault::Hang, Fault::HalfAnswer] {
        set(fault);
        assert!(timeout(SILENCE, ask(&daemon, "createauxblock", address.clone())).await.is_err());
    }
    assert_eq!(result(&daemon, "getblockcount", json!([])).await, 0, "another group");
    faults.set_all(&Fault::Status(503));
    assert!(ask(&daemon, "getblockcount", json!([])).await.unwrap().starts_with("HTTP/1.1 503 "));
    faults.clear();
    assert_eq!(create(&daemon).await, honest);
}

#[tokio::test]
async fn a_submission_may_succeed_without_a_word_and_fail_without_a_reason() {
    let daemon = start(Config::namecoin());
    let work = create(&daemon).await;
    let submission = json!([work["hash"], mined(&daemon, &work, "_target")]);
    daemon.faults().set(Calls::Submissions, Fault::Result(json!(false)));
    assert_eq!(result(&daemon, "submitauxblock", submission.clone()).await, false);
    assert_eq!(daemon.chain(|chain, _| chain.submissions().count()), 0);
    daemon.faults().set_after(Calls::Submissions, Fault::Hang);
    assert!(timeout(SILENCE, ask(&daemon, "submitauxblock", submission.clone())).await.is_err());
    assert_eq!(daemon.chain(|chain, _| chain.tip().hash), hash_of(&work));
    daemon.faults().clear();
    assert_eq!(result(&daemon, "submitauxblock", submission).await, true, "known already");
}

#[tokio::test]
async fn a_daemon_that_is_down_refuses_connections_and_has_forgotten_its_work_when_it_is_up() {
    let daemon = start(Config::namecoin());
    let work = create(&daemon).await;
    let submission = json!([work["hash"], mined(&daemon, &work, "_target")]);
    let mut kept = TcpStream::connect(daemon.address()).await.unwrap();
    for _ in 0..3 {
        daemon.close().await;
        let refused = ask(&daemon, "getblockcount", json!([])).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        daemon.open().await;
        assert_eq!(result(&daemon, "getblockcount", json!([])).await, 0);
    }
    let ended = timeout(PATIENCE, kept.read(&mut [0])).await.unwrap();
    assert!(ended.is_err() || ended.is_ok_and(|bytes| bytes == 0), "its connections have ended");
    assert_eq!(error(&daemon, "submitauxblock", submission).await.1, -8);
    let work = create(&daemon).await;
    daemon.restart().await;
    let submission = json!([work["hash"], mined(&daemon, &work, "_target")]);
    assert_eq!(error(&daemon, "submitauxblock", submission).await.1, -8);
    let address = daemon.address();
    drop(daemon);
    while TcpStream::connect(address).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn the_target_may_be_a_word_and_unusable_settings_are_refused() {
    let daemon = start(Config { target: TargetForm::Word, ..Config::dogecoin() });
    assert_eq!(create(&daemon).await["target"], "p2pool");
    let taken = Config { listen: daemon.address(), ..Config::namecoin() };
    let refused = Daemon::start(taken, &Tasks::new()).unwrap_err();
    assert!(matches!(refused, StartError::Listen { .. }), "{refused}");
    let rules = Rules { bits: Bits::Fixed(CompactTarget::from_consensus(0x1d80_0000)), ..Config::namecoin().rules };
    let refused = Daemon::start(Config { rules, ..Config::namecoin() }, &Tasks::new()).unwrap_err();
    assert_eq!(refused.to_string(), "0x1d800000 are no bits of a target: use such as 0x207fffff");
}

/// A whole block of a template, with a coinbase that pays `value`.
fn whole_block(daemon: &Daemon, template: &Value, value: u64) -> (BlockHash, String) {
    let height = u8::try_from(template["height"].as_u64().unwrap()).unwrap();
    let mut coinbase = vec![1, 0, 0, 0, 1];
    coinbase.extend([0; 32]);
    coinbase.extend([0xff; 4]);
    coinbase.extend([2, 0x50 + height, 0]);
    coinbase.extend([0xff; 4]);
    coinbase.push(1);
    coinbase.extend(value.to_le_bytes());
    coinbase.extend([1, 0x51, 0, 0, 0, 0]);
    let version = u32::try_from(template["version"].as_u64().unwrap()).unwrap() | 0x100;
    let mut previous = hex::decode(template["previousblockhash"].as_str().unwrap()).unwrap();
    previous.reverse();
    let root = BlockHash::hash(&coinbase).to_byte_array();
    let time = u32::try_from(template["curtime"].as_u64().unwrap()).unwrap();
    let bits = u32::from_str_radix(template["bits"].as_str().unwrap(), 16).unwrap();
    let ends = [time, bits, 0].map(u32::to_le_bytes).concat();
    let header = [&version.to_le_bytes()[..], &previous, &root, &ends].concat();
    let hash = BlockHash::hash(&header);
    let target: [u8; 32] = hex::decode(template["target"].as_str().unwrap()).unwrap().try_into().unwrap();
    let mut parts = Parts::of(hash, u32::from(daemon.config().rules.chain_id), 0);
    parts.mine(Target::from_be_bytes(target), daemon.config().rules.parent_pow, true);
    (hash, hex::encode([&header[..], &parts.serialise(), &[1], &coinbase].concat()))
}

#[tokio::test]
async fn a_template_becomes_a_block_and_each_answer_is_the_programs_own() {
    let daemon = start(Config::dogecoin());
    let template = result(&daemon, "getblocktemplate", json!([{"rules": ["segwit"]}])).await;
    assert_eq!(template["version"], 0x0062_0004);
    let genesis = result(&daemon, "getbestblockhash", json!([])).await;
    assert_eq!((&template["previousblockhash"], &template["height"]), (&genesis, &json!(1)));
    let subsidy = daemon.config().rules.subsidy;
    assert_eq!((&template["coinbasevalue"], &template["transactions"]), (&json!(subsidy), &json!([])));
    let (_, dear) = whole_block(&daemon, &template, subsidy + 1);
    assert_eq!(result(&daemon, "submitblock", json!([dear])).await, "bad-cb-amount");
    let (hash, block) = whole_block(&daemon, &template, subsidy);
    daemon.restart().await;
    assert_eq!(result(&daemon, "submitblock", json!([block])).await, Value::Null, "a restart forgets no template");
    assert_eq!(result(&daemon, "submitblock", json!([block, {}])).await, "duplicate");
    assert_eq!(result(&daemon, "getbestblockhash", json!([])).await, json!(hash));
    assert_eq!(result(&daemon, "getblock", json!([hash, 0])).await, block);
    let (_, late) = whole_block(&daemon, &template, subsidy - 1);
    assert_eq!(result(&daemon, "submitblock", json!([late])).await, "inconclusive");
    daemon.chain(|chain, _| chain.invalidate(1));
    assert_eq!(result(&daemon, "submitblock", json!([block])).await, "duplicate-invalid");
    for wrong in ["", "zz", "00", &block[..200]] {
        let refusal = (500, -22, "Block decode failed".to_owned());
        assert_eq!(error(&daemon, "submitblock", json!([wrong])).await, refusal, "{wrong}");
    }
    assert_eq!(error(&daemon, "getblocktemplate", json!([{"mode": "proposal"}])).await.1, -8);
    assert_eq!(error(&daemon, "getblocktemplate", json!(["x"])).await.1, -1);
    let faults = daemon.faults();
    faults.set(Calls::Work, Fault::Field("coinbasevalue", json!(1)));
    assert_eq!(result(&daemon, "getblocktemplate", json!([])).await["coinbasevalue"], 1);
    faults.set(Calls::Submissions, Fault::Result(json!("bad-txnmrklroot")));
    assert_eq!(result(&daemon, "submitblock", json!([block])).await, "bad-txnmrklroot");
    let other = start(Config::namecoin());
    for method in ["getblocktemplate", "submitblock"] {
        assert_eq!(error(&other, method, json!(["x"])).await.1, -32_601);
    }
}
