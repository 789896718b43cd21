//! Calls to a daemon that answers from a script.

use super::*;
use crate::merged::testing::{Scripted, bare};
use bitcoin::hashes::Hash;
use sharechain::merged::MergedTarget;

async fn daemon(address: Option<&str>) -> (Arc<Scripted>, Daemon) {
    let (script, config) = Scripted::start(address).await;
    (script, Daemon::new(&config))
}

fn methods(script: &Scripted) -> Vec<String> {
    script.called().into_iter().map(|(method, _)| method).collect()
}

#[tokio::test]
async fn an_address_is_paid_by_createauxblock_and_the_wallet_by_getauxblock() {
    for (address, method, payee) in [(Some("D8"), "createauxblock", "D8"), (None, "getauxblock", "the daemon's wallet")]
    {
        let (script, daemon) = daemon(address).await;
        let mut answer = bare(98, 1);
        answer["height"] = json!(12);
        answer["previousblockhash"] = json!("02".repeat(32));
        script.answers(method, answer);
        let block = daemon.next_block(None, None).await.unwrap();
        assert_eq!((block.chain_id, block.height, block.hash, block.previous_block), (98, 12, [1; 32], [2; 32]));
        assert_eq!((&*block.chain, &*block.payee, block.value), ("doge", payee, None));
        assert!(matches!(block.target, MergedTarget::Own(_)));
        assert_eq!(script.called(), [(method.to_owned(), address.map_or(json!([]), |address| json!([address])))]);
    }
}

#[tokio::test]
async fn what_an_answer_lacks_is_asked_for_once_for_each_block() {
    let (script, daemon) = daemon(None).await;
    script.answers("getauxblock", bare(1, 3));
    script.answers("getblockcount", json!(41));
    script.answers("getbestblockhash", json!("0a".repeat(31) + "0b"));
    let first = daemon.next_block(None, None).await.unwrap();
    assert_eq!((first.height, first.previous_block[0]), (42, 0x0b));
    assert_eq!(methods(&script), ["getauxblock", "getbestblockhash", "getblockcount"]);
    script.answers("getblockcount", json!(50));
    let again = daemon.next_block(Some(1), Some(&first)).await.unwrap();
    assert_eq!((again, methods(&script)), (first.clone(), vec!["getauxblock".to_owned()]));
    script.answers("getauxblock", bare(1, 4));
    assert_eq!(daemon.next_block(Some(1), Some(&first)).await.unwrap().height, 51);
    // Daemons of before 2012.
    script.answers("getauxblock", bare(1, 5));
    script.fails("getbestblockhash", code::NO_METHOD, "Method not found");
    assert_eq!(daemon.next_block(Some(1), Some(&first)).await.unwrap().previous_block, UNKNOWN);
    script.answers("getauxblock", bare(1, 6));
    script.answers("getblockcount", json!("many"));
    let error = daemon.next_block(Some(1), Some(&first)).await.unwrap_err().to_string();
    assert!(error.contains("getblockcount") && error.contains("many"), "{error}");
}

#[tokio::test]
async fn without_createauxblock_the_wallet_is_not_paid_instead() {
    let (script, daemon) = daemon(Some("D8")).await;
    script.answers("getauxblock", bare(98, 1));
    let trouble = daemon.next_block(None, None).await.unwrap_err();
    assert!(matches!(trouble, Trouble::NoCreate { .. }) && trouble.is_refusal(), "{trouble:?}");
    assert_eq!(methods(&script), ["createauxblock"]);
}

#[tokio::test]
async fn each_refusal_says_what_to_do() {
    let (script, with_address) = daemon(Some("D8<b>")).await;
    let (wallets, without) = daemon(None).await;
    let mut seen = Vec::new();
    for (code, address_word, wallet_word) in [
        (-32601, "no_createauxblock", "no_getauxblock"),
        (-5, "address", "daemon"),
        (-13, "daemon", "wallet"),
        (-18, "daemon", "wallet"),
        (-28, "warming_up", "warming_up"),
        (-10, "syncing", "syncing"),
        (-9, "no_peers", "no_peers"),
    ] {
        script.fails("createauxblock", code, "no\n");
        wallets.fails("getauxblock", code, "no\n");
        let troubles =
            [with_address.next_block(None, None).await.unwrap_err(), without.next_block(None, None).await.unwrap_err()];
        assert_eq!(troubles.each_ref().map(Trouble::word), [address_word, wallet_word], "{code}");
        seen.extend(troubles);
    }
    let (script, broken) = daemon(None).await;
    script.answers("getauxblock", json!([1]));
    seen.push(broken.next_block(None, None).await.unwrap_err());
    script.answers("getauxblock", bare(98, 1));
    let other = broken.next_block(Some(1), None).await.unwrap_err();
    assert_eq!(other, Trouble::OtherChain { before: 1, now: 98 });
    seen.push(other);
    script.answers("getauxblock", json!("x".repeat(70_000)));
    let long = broken.next_block(None, None).await.unwrap_err();
    assert!(long.to_string().ends_with("longer than 65536 bytes") && long.is_refusal(), "{long}");
    script.stop();
    let gone = broken.next_block(None, None).await.unwrap_err();
    assert!(!gone.is_refusal(), "{gone:?}");
    seen.extend([long, gone]);
    for trouble in seen {
        let text = trouble.to_string();
        assert!(!text.contains(['\n', '<']) && !text.contains("hunter2"), "{text}");
    }
}

#[tokio::test]
async fn a_daemon_need_not_say_what_it_is() {
    let (script, daemon) = daemon(None).await;
    assert_eq!(&*daemon.version().await.unwrap(), "");
    script.answers("getnetworkinfo", json!({"version": 1_140_900}));
    assert_eq!(&*daemon.version().await.unwrap(), "");
    script.answers("getnetworkinfo", json!({"subversion": "/Shibetoshi:1.14.9/".to_owned() + &"\u{1b}<".repeat(500)}));
    let version = daemon.version().await.unwrap();
    assert!(version.starts_with("/Shibetoshi:1.14.9/") && version.chars().count() <= VERSION_MAX + 1, "{version}");
    assert!(!version.contains(['\u{1b}', '<']), "{version}");
    script.fails("getnetworkinfo", -28, "Loading wallet...");
    assert_eq!(daemon.version().await.unwrap_err().word(), "warming_up");
}

#[tokio::test]
async fn old_daemons_are_asked_for_the_block_instead_of_its_header() {
    let (script, daemon) = daemon(None).await;
    let hash = BlockHash::from_byte_array([7; 32]);
    script.answers("getblock", json!({"confirmations": 2, "height": 9, "tx": ["00".repeat(32)]}));
    let place = daemon.position(&hash).await;
    assert_eq!(place, Ok(BlockPosition::InChain { height: 9, confirmations: 2 }));
    assert_eq!(methods(&script), ["getblockheader", "getblock"]);
    script.answers("getblockheader", json!({"confirmations": -1, "height": 9, "auxpow": {"tx": "x".repeat(200_000)}}));
    assert_eq!(daemon.position(&hash).await, Ok(BlockPosition::Beside { height: 9 }));
    script.fails("getblockheader", -5, "Block not found");
    assert_eq!(daemon.position(&hash).await, Ok(BlockPosition::Unknown));
    script.answers("getblockheader", json!("x".repeat(5 << 20)));
    assert!(daemon.position(&hash).await.is_err());
}
