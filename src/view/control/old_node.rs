//! Client for nodes older than HTTP on the control socket: request and answer are one line of JSON each. During an
//! upgrade in place, commands of the new program still query such a node. Remove this file when none is left.
//!
//! Their answers are converted to today's form; fields that an old node does not send are zero or empty.

use futures::{SinkExt, StreamExt};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::io;
use tokio::net::UnixStream;

use super::Request;
use super::answers::{Overview, Status};
use crate::runtime::json_lines;
use crate::view::http::api::{
    Ban, Bans, Block, Blocks, Connections, Daemon, Estimate, FoundBlocks, Local, NextBlock, Node, OwnShares, Payout,
    Payouts, Peer, Peers, Pool, Route, Share, Shares, Summary, Worker, Workers,
};

/// An old node's answer.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    Result(Value),
    Error(String),
}

/// Sends one request, and returns the answer, or the reason of a refusal.
///
/// # Errors
/// The connection failed, or the server speaks another protocol.
pub(super) async fn ask(stream: UnixStream, request: &Request) -> io::Result<Result<Value, String>> {
    let Some(command) = command(request) else {
        return Ok(Err("the running node is older than merged mining".to_owned()));
    };
    let (reader, writer) = stream.into_split();
    // Kept until the answer has arrived: dropping it would close the connection.
    let mut requests = json_lines::writer(writer);
    requests.send(command).await?;
    let line = json_lines::reader(reader).next().await.ok_or(io::ErrorKind::UnexpectedEof)??;
    Ok(match serde_json::from_value(line)? {
        Answer::Result(result) => Ok(today(request, result)),
        Answer::Error(reason) => Err(reason),
    })
}

/// Encodes the request for old nodes; `None` if they do not know it.
fn command(request: &Request) -> Option<Value> {
    Some(match request {
        Request::Status => json!({"command": "status"}),
        Request::Overview => json!({"command": "overview"}),
        Request::Payouts => json!({"command": "payouts"}),
        Request::Blocks => json!({"command": "blocks"}),
        Request::Merged => return None,
        Request::Resubmit { hash } => json!({"command": "resubmit", "hash": hash}),
        Request::Peers => json!({"command": "peers"}),
        Request::Bans => json!({"command": "bans"}),
        Request::Ban { address, hours, reason } => {
            json!({"command": "ban", "address": address, "hours": hours, "reason": reason})
        }
        Request::Unban { address } => json!({"command": "unban", "address": address}),
        Request::UnbanAll => json!({"command": "unban_all"}),
    })
}

/// Converts an answer to today's form.
fn today(request: &Request, result: Value) -> Value {
    let old = Old(&result);
    match request {
        Request::Status => value(&status(old)),
        Request::Overview => value(&overview(old)),
        Request::Payouts => value(&payouts(old)),
        Request::Blocks => value(&blocks(old)),
        Request::Peers => value(&peers(old)),
        Request::Bans => {
            let bans: Vec<Ban> = old.list("bans").map(ban).collect();
            value(&Bans { total: bans.len(), bans })
        }
        Request::Ban { .. } => value(&ban(old)),
        // Their form has not changed.
        Request::Merged | Request::Resubmit { .. } | Request::Unban { .. } | Request::UnbanAll => result,
    }
}

fn value(answer: &impl Serialize) -> Value {
    serde_json::to_value(answer).unwrap_or_default()
}

/// An object of an old answer. Missing fields are zero, empty or none.
#[derive(Debug, Clone, Copy)]
struct Old<'a>(&'a Value);

impl<'a> Old<'a> {
    fn get<T: Deserialize<'a>>(self, name: &str) -> Option<T> {
        T::deserialize(&self.0[name]).ok()
    }

    fn or_default<T: Deserialize<'a> + Default>(self, name: &str) -> T {
        self.get(name).unwrap_or_default()
    }

    fn object(self, name: &str) -> Option<Self> {
        self.0[name].is_object().then(|| Self(&self.0[name]))
    }

    fn list(self, name: &str) -> impl Iterator<Item = Self> {
        self.0[name].as_array().into_iter().flatten().map(Self)
    }
}

fn status(old: Old<'_>) -> Status {
    let summary = Summary {
        node: node(old),
        pool: Pool { hash_rate: old.get("pool_hash_rate"), shares: old.or_default("height"), ..Pool::default() },
        local: Local {
            hash_rate: old.or_default("hash_rate"),
            workers: old.or_default("workers"),
            // Old nodes do not separate orphan and dead shares.
            shares: OwnShares { total: old.or_default("shares"), orphan: old.or_default("stale_shares"), dead: 0 },
            ..Local::default()
        },
        blocks: FoundBlocks { found: old.or_default("blocks"), last: None },
        // Old nodes do not separate incoming and outgoing ones.
        peers: Connections {
            incoming: old.or_default("peers"),
            outgoing: 0,
            banned: old.or_default("banned"),
            known: old.or_default("addresses"),
        },
        ..Summary::default()
    };
    Status { pid: old.or_default("pid"), clock: old.get("clock"), refused: None, summary }
}

fn node(old: Old<'_>) -> Node {
    let (trouble, waiting): (Option<String>, Option<String>) = (old.get("trouble"), old.get("waiting"));
    let seconds = |name| old.get::<f64>(name).unwrap_or_default();
    Node {
        version: old.or_default("version"),
        network: old.or_default("network"),
        symbol: old.or_default("symbol"),
        // Old nodes scale no difficulties.
        difficulty_scale: 1,
        uptime_seconds: (seconds("time") - seconds("started")).max(0.0),
        serving: trouble.is_none() && waiting.is_none(),
        waiting,
        daemon: Daemon { version: old.or_default("daemon"), trouble, ..Daemon::default() },
        fee: seconds("fee_percent") / 100.0,
        ..Node::default()
    }
}

fn overview(old: Old<'_>) -> Overview {
    let peers: Vec<Peer> = old.list("peers").map(peer).collect();
    let incoming = peers.iter().filter(|peer| peer.is_incoming).count();
    let outgoing = peers.len() - incoming;
    let blocks = blocks(old);
    let found = old.object("pool").map_or(blocks.total, |pool| pool.or_default("blocks_found"));
    let summary = Summary {
        time: old.or_default("time"),
        node: node(old),
        warnings: old.or_default("warnings"),
        pool: old.object("pool").map(pool).unwrap_or_default(),
        local: old.object("local").map(local).unwrap_or_default(),
        block: old.object("block").map(next_block),
        blocks: FoundBlocks { found, last: blocks.blocks.first().map(|block| block.time) },
        peers: Connections { incoming, outgoing, banned: old.or_default("banned"), known: 0 },
        ..Summary::default()
    };
    Overview {
        summary,
        workers: Workers { total: old.or_default("miners_total"), workers: old.list("miners").map(worker).collect() },
        shares: Shares { shares: old.list("shares").map(share).collect(), ..Shares::default() },
        peers: Peers { incoming, outgoing, peers, ..Peers::default() },
        blocks,
        log: old.or_default("log"),
        ..Overview::default()
    }
}

fn pool(old: Old<'_>) -> Pool {
    let (found, expected): (f64, f64) = (old.or_default("blocks_found"), old.or_default("blocks_expected"));
    Pool {
        hash_rate: old.get("hash_rate"),
        stale_proportion: old.get("stale_proportion"),
        shares: old.or_default("height"),
        share_difficulty: old.get("share_difficulty"),
        seconds_to_block: old.get("seconds_to_block"),
        luck: (expected > 0.0).then(|| found / expected),
        ..Pool::default()
    }
}

fn local(old: Old<'_>) -> Local {
    let estimate = |old: Old<'_>| Estimate {
        value: old.or_default("value"),
        low: old.or_default("low"),
        high: old.or_default("high"),
    };
    Local {
        hash_rate: old.or_default("hash_rate"),
        late_hash_rate: old.or_default("late_hash_rate"),
        workers: old.or_default("workers"),
        shares: OwnShares {
            total: old.or_default("shares"),
            orphan: old.or_default("orphan"),
            dead: old.or_default("dead"),
        },
        efficiency: old.object("efficiency").map(estimate),
        seconds_to_share: old.get("seconds_to_share"),
        expected_payout: old.or_default("payout"),
        ..Local::default()
    }
}

fn next_block(old: Old<'_>) -> NextBlock {
    NextBlock {
        height: old.or_default("height"),
        difficulty: old.or_default("difficulty"),
        value: old.or_default("value"),
        transactions: old.or_default("transactions"),
        network_hash_rate: old.or_default("network_hash_rate"),
        ..NextBlock::default()
    }
}

fn worker(old: Old<'_>) -> Worker {
    let refused: u64 = old.or_default("refused");
    Worker {
        name: old.or_default("worker"),
        hash_rate: old.or_default("hash_rate"),
        late_hash_rate: old.or_default("late_hash_rate"),
        difficulty: old.get("difficulty"),
        accepted: old.or_default("accepted"),
        late: old.or_default("late"),
        refused: (refused > 0).then(|| ("refused".to_owned(), refused)).into_iter().collect(),
        last_seen: old.or_default("last_seen"),
        ..Worker::default()
    }
}

fn share(old: Old<'_>) -> Share {
    Share {
        hash: old.or_default("hash"),
        height: old.or_default("height"),
        time: old.or_default("time"),
        payee: old.or_default("payee"),
        difficulty: old.or_default("difficulty"),
        is_best: old.or_default("in_best_chain"),
        is_own: old.or_default("is_own"),
        is_block: old.or_default("is_block"),
        ..Share::default()
    }
}

fn peers(old: Old<'_>) -> Peers {
    Peers {
        incoming: old.or_default("incoming"),
        outgoing: old.or_default("outgoing"),
        dialing: old.or_default("dialing"),
        known_addresses: old.or_default("addresses"),
        download: None,
        peers: old.list("peers").map(peer).collect(),
    }
}

fn peer(old: Old<'_>) -> Peer {
    Peer {
        id: old.or_default("id"),
        address: old.or_default("address"),
        is_incoming: old.or_default("is_incoming"),
        is_permanent: old.or_default("is_permanent"),
        sub_version: old.or_default("sub_version"),
        protocol_version: old.or_default("protocol_version"),
        since: old.or_default("since"),
        shares_received: old.or_default("shares_received"),
        shares_sent: old.or_default("shares_sent"),
        latency: old.get("latency"),
    }
}

fn ban(old: Old<'_>) -> Ban {
    Ban {
        address: old.or_default("address"),
        until: old.or_default("until"),
        score: old.or_default("score"),
        reason: old.or_default("reason"),
        by_operator: old.or_default("by_operator"),
    }
}

fn payouts(old: Old<'_>) -> Payouts {
    let payout = |old: Old<'_>| Payout {
        address: old.or_default("address"),
        amount: old.or_default("amount"),
        fraction: old.or_default("part"),
        is_local: old.or_default("is_local"),
        is_dust: false,
        ..Payout::default()
    };
    let payouts: Vec<Payout> = old.list("payouts").map(payout).collect();
    Payouts {
        symbol: old.or_default("symbol"),
        // Zero without a template.
        block_value: old.get("value").filter(|value| *value > 0),
        share_version: 35,
        finder_percent: 0.5,
        merged_symbol: None,
        total: payouts.len(),
        payouts,
    }
}

fn blocks(old: Old<'_>) -> Blocks {
    let blocks: Vec<Block> = old.list("blocks").map(block).collect();
    Blocks { symbol: old.or_default("symbol"), total: blocks.len(), blocks }
}

fn block(old: Old<'_>) -> Block {
    let hash: String = old.or_default("hash");
    // Such as `rpc accepted`.
    let route = |text: String| {
        let (route, outcome) = text.split_once(' ').unwrap_or((&text, ""));
        Route { route: route.to_owned(), outcome: outcome.to_owned(), ..Route::default() }
    };
    Block {
        share: hash.clone(),
        hash,
        height: old.get("height"),
        time: old.or_default("found_at"),
        payee: old.get("payee"),
        finder: old.get("finder"),
        is_own: old.or_default("is_ours"),
        value: old.get("value"),
        state: old.get("standing"),
        confirmations: old.get("confirmations"),
        routes: old.or_default::<Vec<String>>("routes").into_iter().map(route).collect(),
        ..Block::default()
    }
}
