//! Commands and programs of today with a node older than HTTP on the socket.

use super::*;

/// Requests to a node older than HTTP on the socket, each with its answer, recorded from version 0.1.0 of 2026-11-29.
const RECORDED: &str = include_str!("../old_node.json");

/// Answers as that node did: lines of JSON, and a closed connection for anything else.
async fn old_node(listener: UnixListener) {
    let recorded: Vec<(Value, Value)> = serde_json::from_str(RECORDED).unwrap();
    while let Ok((mut stream, _)) = listener.accept().await {
        let (reader, mut writer) = stream.split();
        let mut lines = BufReader::new(reader).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            let Ok(request) = serde_json::from_str::<Value>(&line) else {
                let error = "{\"error\":\"not a line of JSON: expected value at line 1 column 1\"}\n";
                let _ = writer.write_all(error.as_bytes()).await;
                break;
            };
            let answer = recorded.iter().find(|(recorded, _)| *recorded == request);
            let (_, answer) = answer.unwrap_or_else(|| panic!("{request} is not recorded"));
            let _ = writer.write_all(format!("{answer}\n").as_bytes()).await;
        }
    }
}

#[tokio::test]
async fn every_command_understands_an_old_node_during_an_upgrade() {
    let folder = tempfile::tempdir().unwrap();
    tokio::spawn(old_node(UnixListener::bind(socket_path(folder.path())).unwrap()));
    let shown = async |request: Request| {
        let config = client::Config { data_dir: folder.path().to_owned(), request, json: false };
        client::run(&config, 1_795_939_700.0).await.map_err(|error| error.to_string())
    };
    let status = shown(Request::Status).await.unwrap();
    for part in
        ["p2pool 0.1.0 on demo, process 14180", "miners are served", "embedded chain", "16 of ours, 0 of them lost"]
    {
        assert!(status.contains(part), "{part} is missing in:\n{status}");
    }
    let payouts = shown(Request::Payouts).await.unwrap();
    assert!(payouts.starts_with("the next block would pay 50.00000000 demo coins"), "{payouts}");
    assert!(
        payouts.contains("29.89110098  59.8 %  bcrt1qge9hc79cg58awj3c350udyw2z9rkcvx3wtqkxg  mined here"),
        "{payouts}"
    );
    let blocks = shown(Request::Blocks).await.unwrap();
    assert!(blocks.contains("1 of 100") && blocks.contains(".alice  embedded accepted  00000019391613"), "{blocks}");
    let hash = "00000019391613680260b273daa0952167ebb37579dee0a31877f054691299ac".parse().unwrap();
    assert!(shown(Request::Resubmit { hash }).await.unwrap().contains("accepted\n  embedded  accepted"));
    let hash = "00".repeat(32).parse().unwrap();
    assert!(shown(Request::Resubmit { hash }).await.unwrap_err().starts_with("no bytes of block 0000"));
    let peers = shown(Request::Peers).await.unwrap();
    assert!(peers.contains("127.0.0.1:57234  in") && peers.contains("3501      p2pool-rs/0.1.0"), "{peers}");
    let address = "192.0.2.7".parse().unwrap();
    let banned = shown(Request::Ban { address, hours: 48.0, reason: "bad manners".into() }).await.unwrap();
    assert!(banned.contains("192.0.2.7  1 d 23 h     you  bad manners"), "{banned}");
    assert_eq!(shown(Request::Bans).await.unwrap(), banned);
    assert_eq!(shown(Request::Unban { address }).await.unwrap(), "192.0.2.7 may connect again\n");
    let address = "192.0.2.8".parse().unwrap();
    assert!(shown(Request::Unban { address }).await.unwrap_err().contains("192.0.2.8 is not banned"));
    assert_eq!(shown(Request::UnbanAll).await.unwrap(), "1 ban lifted\n");
}

#[tokio::test]
async fn programs_read_an_old_nodes_answers_in_todays_form() {
    let folder = tempfile::tempdir().unwrap();
    tokio::spawn(old_node(UnixListener::bind(socket_path(folder.path())).unwrap()));
    let overview: Overview = client::ask_for(folder.path(), &Request::Overview).await.unwrap();
    let summary = &overview.summary;
    assert_eq!((summary.node.network.as_str(), summary.node.serving), ("demo", true));
    assert!(summary.node.uptime_seconds > 10.0 && summary.node.uptime_seconds < 100.0, "{summary:?}");
    assert!(summary.pool.hash_rate.is_some_and(|rate| rate > 1e6), "{summary:?}");
    assert_eq!(summary.local.workers, 3);
    assert!(
        summary.local.efficiency.is_some() && summary.block.as_ref().is_some_and(|block| block.value == 5_000_000_000)
    );
    assert_eq!((overview.workers.total, overview.workers.workers.len()), (3, 2));
    assert!(overview.workers.workers[0].name.contains("bcrt1") && overview.workers.workers[0].hash_rate > 0.0);
    assert!(overview.shares.shares[0].is_best && overview.shares.shares[0].height > 0);
    assert_eq!(overview.blocks.blocks[0].routes[0].outcome, "accepted");
    assert_eq!((overview.blocks.symbol.as_str(), overview.log.len()), ("demo coins", 2));
    let payouts: Payouts = client::ask_for(folder.path(), &Request::Payouts).await.unwrap();
    assert_eq!((payouts.total, payouts.block_value), (4, Some(5_000_000_000)));
    let bans: Bans = client::ask_for(folder.path(), &Request::Bans).await.unwrap();
    let expected = Ban { reason: "bad manners".into(), by_operator: true, ..bans.bans[0].clone() };
    assert_eq!(bans.bans, [expected]);
}
