//! The node's real front, over a forged chain and a prepared template: no daemon, no peers.

use anyhow::{Context, Result};
use axum::Router;
use axum::routing::get;
use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, CompactTarget, Txid, Wtxid};
use bytes::Bytes;
use ipnet::Ipv4Net;
use metrics_exporter_prometheus::PrometheusHandle;
use sharechain::chain::{Sharechain, Tip};
use sharechain::coin::{Network, Parent, Pow};
use sharechain::testkit::{self, Plan};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use stratum::getwork::GetworkServer;
use stratum::server::admission::Limits;
use stratum::server::{self, PortService, Server};
use stratum::v1::session;
use stratum::{Difficulty, Tallies};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::sync::{mpsc, watch};

use super::clock_ns;
use crate::front::getwork::Getwork;
use crate::front::{self, Front, Networks};
use crate::rates::{self, Rates};
use crate::runtime::clock;
use crate::runtime::metrics;
use crate::runtime::sockets::{self, Port};
use crate::runtime::tasks::Tasks;
use crate::template::{BLOCK_WEIGHT_MAX, Template, TemplateParts, TemplateTransaction};
use crate::view::http::{Budgets, Http, Readers};
use crate::work::{self, Gate, Payout, WorkSet};

/// Average number of hashes for the easiest share. Miners that ask for a hard one get one thirty times as hard
/// (protocol section 6): with submissions of eight or nine hashes, fewer than one in a thousand solves anything.
const SHARE_ATTEMPTS: u64 = 512;

/// Average number of hashes for a block: none is found, and the window is full by number, not by work.
const BLOCK_ATTEMPTS: u64 = 1 << 40;

/// Share version of the pool.
const SHARE_VERSION: u64 = 35;

/// Size of the page that readers may ask for, in bytes.
const PAGE_BYTES: usize = 100_000;

/// Clients without a PROXY header are not limited: they share one address.
const EXEMPTS_LOOPBACK: bool = true;

/// All addresses of this machine: clients connect from several, as one has too few ports.
const LOOPBACK: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8);

/// Queue capacity for solutions, as in the node.
const SOLUTIONS_QUEUED_MAX: usize = 1024;

/// Size of the served work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Served {
    /// Number of payees beside the finder.
    pub payees: u32,
    /// Number of transactions in the template; together they fill a block.
    pub transactions: u32,
    /// Trusts PROXY headers from this machine: clients are limited by the addresses in them.
    pub trusts_proxy: bool,
    /// Hands out jobs whose proof of work is scrypt.
    pub scrypt: bool,
}

/// Serves until standard input ends; its first line of output is its address. The line `block` simulates a block, and
/// prints the time at which the template on it became known; `solutions` prints the number of solutions so far.
///
/// # Errors
/// No port can be opened.
pub async fn run(served: Served, handle: PrometheusHandle) -> Result<()> {
    sockets::raise_file_limit()?;
    server::metrics::describe();
    rates::describe();
    let mut network = testkit::network_of_work((2 * served.payees).max(60), SHARE_VERSION, SHARE_ATTEMPTS);
    let mut parts = template_parts(served.transactions);
    let (templates_sender, templates) = watch::channel(Some(template(parts.clone())?));
    let (_tips_sender, tips) = watch::channel(Some(tip(network, served.payees)));
    if served.scrypt {
        network = with_scrypt(network);
    }
    let (_gate_sender, gate) = watch::channel(Gate::Open);
    let (rates_sender, rates) = watch::channel(Arc::<Rates>::default());
    let (work_sender, work) = watch::channel(None);
    let (solutions, mut solutions_found) = mpsc::channel(SOLUTIONS_QUEUED_MAX);
    let tallies = Arc::<Tallies>::default();
    let config = work::Config {
        network,
        default_payout: payout(network)?,
        fee_percent: 0.0,
        donation_percent: 0.0,
        coinbase_texts: Vec::new(),
        merged_pause: crate::merged::PAUSE,
        clock: clock::unix_second,
    };
    let tasks = Tasks::new();
    let (count, stop) = (Arc::new(AtomicU64::new(0)), || tasks.stop_signal());
    let counted = count.clone();
    tasks.spawn("metrics", metrics::upkeep(handle, stop()));
    tasks.spawn("stats", rates::run(tallies.clone(), rates_sender, stop()));
    let outputs = work::Outputs { work: work_sender, gate: watch::channel(Gate::Open).0, pays_miners: Arc::default() };
    let merged = watch::channel(Arc::default()).1;
    tasks.spawn("work", work::publish(config, work::Inputs { templates, tips, merged, gate, rates }, outputs, stop()));
    tasks.spawn("solutions", async move {
        while solutions_found.recv().await.is_some() {
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });
    work.clone().wait_for(Option::is_some).await.context("there is no work")?;

    let config = server_config();
    let server = Server::<WorkSet>::new(config, work.clone(), solutions.clone(), tallies.clone(), stop());
    let server = Arc::new(server);
    let extranonces = server.extranonces().clone();
    let desk = GetworkServer::new(config.session.vardiff, extranonces, tallies, EXEMPTS_LOOPBACK);
    let desk = desk.context("no extranonce is free")?;
    let meters = server.meters().clone();
    let polling = Getwork::new(desk, !served.scrypt, work, solutions, meters, EXEMPTS_LOOPBACK, stop());
    let polling = polling.hashing_with(server.hashers().clone());
    let front = Front {
        admission: server.admission().clone(),
        stratum: Some(server),
        http: Http::new(Arc::new(polling).router().merge(page()), stop()),
        has_pages: false,
        tls: None,
        proxies: if served.trusts_proxy { vec![LOOPBACK.into()] } else { Vec::new() },
        networks: Networks::default(),
        service: PortService::new(config.session, None),
    };
    let listener = sockets::bind(([127, 0, 0, 1], 0).into()).context("cannot listen")?;
    println!("{}", listener.local_addr()?);
    tasks.spawn("listen", front::run(Port::Open(listener), Arc::new(front), stop()));

    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        match line.as_str() {
            "block" => {
                parts.height += 1;
                parts.previous_block = BlockHash::hash(&parts.height.to_le_bytes());
                let parts = parts.clone();
                let known = clock_ns();
                templates_sender.send_replace(Some(template(parts)?));
                println!("{known}");
            }
            "solutions" => println!("{}", count.load(Ordering::Relaxed)),
            _ => {}
        }
    }
    Ok(())
}

/// A page of the size of the largest that the node has, with the limits of readers.
fn page() -> Router {
    let text = Bytes::from(vec![b'x'; PAGE_BYTES]);
    let readers = Readers { budgets: Some(Budgets::new(EXEMPTS_LOOPBACK)), login: None };
    readers.guard(Router::new().route("/", get(async move || text.clone())))
}

/// Returns the same network with scrypt as its proof of work: jobs need it, the forged chain does not.
fn with_scrypt(network: &Network) -> &'static Network {
    let parent = Parent { pow: Pow::Scrypt, ..network.parent.clone() };
    Box::leak(Box::new(Network { parent, ..network.clone() }))
}

/// The node's defaults, except for easy submissions and any number of connections.
fn server_config() -> server::Config {
    let session = session::Config::default();
    let min = Difficulty::new(1e-12).expect("a positive constant");
    server::Config {
        session: session::Config { vardiff: stratum::mining::vardiff::Config { min, ..session.vardiff }, ..session },
        limits: Limits { connections_max: 1_000_000, exempts_loopback: EXEMPTS_LOOPBACK, ..Limits::default() },
        ..server::Config::default()
    }
}

fn payout(network: &'static Network) -> Result<Payout> {
    Ok(Payout::to_address(&address(network, u32::MAX), network)?)
}

/// Returns the address with this number.
pub(super) fn address(network: &Network, number: u32) -> String {
    let mut hash = [9; 20];
    hash[..4].copy_from_slice(&number.to_be_bytes());
    let hrp = bech32::Hrp::parse(network.parent.human_readable_part).expect("every network's is one");
    bech32::segwit::encode_v0(hrp, &hash).expect("twenty bytes are a witness program")
}

/// Tip of a pool with this many payees.
fn tip(network: &'static Network, payees: u32) -> Arc<Tip> {
    let mut chain = Sharechain::new(network);
    for number in 0..network.chain_length + 10 {
        let timestamp = testkit::START + 10 * number;
        let plan = Plan {
            payee: number % payees,
            timestamp,
            block_bits: testkit::bits_of(BLOCK_ATTEMPTS),
            nonce: number,
            ..Plan::default()
        };
        let best = chain.choice().best;
        let share = testkit::share_on(&mut chain, best, &plan);
        chain.add(share, None, f64::from(timestamp));
        chain.think(f64::from(timestamp));
        while chain.poll_event().is_some() {}
    }
    chain.tip()
}

fn template(parts: TemplateParts) -> Result<Arc<Template>> {
    Ok(Arc::new(Template::new(parts, &["csv", "segwit", "taproot"])?))
}

/// Full except for the room that a daemon leaves.
fn template_parts(transactions: u32) -> TemplateParts {
    let weight = (4_000_000 - 8_000) / u64::from(transactions.max(1));
    let raw = Bytes::from(vec![0; usize::try_from(weight / 4).expect("less than a block")]);
    let transaction = |number: u32| {
        let mut id = [3; 32];
        id[..4].copy_from_slice(&number.to_be_bytes());
        TemplateTransaction {
            raw: raw.clone(),
            txid: Txid::from_byte_array(id),
            wtxid: Wtxid::from_byte_array(id),
            fee: 10_000,
            weight,
            sigops: 4,
        }
    };
    let now = clock::unix_second();
    TemplateParts {
        version: 0x2000_0000,
        previous_block: BlockHash::from_byte_array([7; 32]),
        height: 850_000,
        bits: CompactTarget::from_consensus(testkit::bits_of(BLOCK_ATTEMPTS).0),
        time: now,
        time_min: now - 3600,
        coinbase_value: 330_000_000,
        coinbase_flags: Vec::new(),
        transactions: (0..transactions).map(transaction).collect(),
        weight_max: BLOCK_WEIGHT_MAX,
        rules: vec!["csv".into(), "!segwit".into(), "taproot".into()],
        default_witness_commitment: None,
        suffix: Vec::new(),
    }
}
