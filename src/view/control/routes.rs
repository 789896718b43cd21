//! Routes of the control socket: everything on the web port, and queries and commands of the operator.

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use axum::{Json, Router};
use bitcoin::BlockHash;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, oneshot};
use tokio::time::timeout;

use super::answers::{Attempt, LOG_LINES_MAX, Overview, Resubmitted, Status, Unbanned};
use super::{BAN_HOURS_MAX, BanOrder};
use crate::blocks::submit::{ResubmitError, Resubmitter};
use crate::blocks::{BlockReport, Outcome, Reports};
use crate::peers::Command;
use crate::runtime::log::Tail;
use crate::view::http;
use crate::view::http::api::{Answer, Ban, Bans, Peers, Problem};

/// Timeout for the task that carries out a command.
const ORDER_MAX: Duration = Duration::from_secs(5);

/// Timeout from the head of a request to the beginning of its answer.
const REQUEST_MAX: Duration = Duration::from_secs(30);

/// Maximum size of a request's body, in bytes.
const BODY_BYTES_MAX: usize = 4096;

/// Sources of answers, and handles to the tasks that carry out commands.
#[derive(Debug, Clone)]
pub struct Sources {
    /// Sources of the public paths.
    pub public: http::Sources,
    /// Kept blocks of the parent chain, then those of merged chains.
    pub kept: Vec<KeptBlocks>,
    /// Last lines of the log.
    pub log: Tail,
}

/// Access to one chain's kept blocks.
#[derive(Debug, Clone)]
pub struct KeptBlocks {
    /// Name of a merged chain; `None` for the parent chain.
    pub chain: Option<Arc<str>>,
    pub resubmitter: Resubmitter,
    /// Outcomes of submissions.
    pub reports: Reports,
}

/// Returns the router of the control socket. The node's own user reads without limits and passwords.
pub fn router(mut sources: Sources) -> Router {
    sources.public.readers = http::Readers::default();
    let nothing = async || Problem::not_found("no such path; docs/api.md lists the paths");
    Router::new()
        .route("/control/v1/status", get(status))
        .route("/control/v1/overview", get(overview))
        .route("/control/v1/peers", get(peers))
        .route("/control/v1/bans", get(bans).post(ban).delete(unban_all))
        .route("/control/v1/bans/{address}", axum::routing::delete(unban))
        .route("/control/v1/blocks/{hash}/resubmit", post(resubmit))
        .route("/control/v1/{*rest}", any(nothing))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(sources.clone())
        .merge(http::pages(sources.public))
        .layer(middleware::from_fn(in_time))
}

/// Ends a request that gets no answer in time, such as one whose body does not arrive.
async fn in_time(request: Request, next: Next) -> Response {
    timeout(REQUEST_MAX, next.run(request)).await.unwrap_or_else(|_| {
        let detail =
            format!("no answer within {REQUEST_MAX:?}: the request's body did not arrive, or the node is too busy");
        Problem::new(StatusCode::REQUEST_TIMEOUT, detail).into_response()
    })
}

async fn status(State(sources): State<Sources>) -> Json<Status> {
    let snapshot = sources.public.snapshot.borrow().clone();
    Json(Status::of(&snapshot, &sources.public))
}

async fn overview(State(sources): State<Sources>) -> Json<Overview> {
    if let Some(p2p) = &sources.public.p2p {
        p2p.refresh_latencies();
    }
    let snapshot = sources.public.snapshot.borrow().clone();
    Json(Overview::of(&snapshot, &sources.public, sources.log.lines(LOG_LINES_MAX)))
}

/// Same as `/api/v1/peers`, but as of now, with latencies measured for this request.
async fn peers(State(sources): State<Sources>) -> Answer<Peers> {
    if let Some(p2p) = &sources.public.p2p {
        p2p.measure_latencies().await;
    }
    let status = order(&sources, |reply| Command::Status { reply }).await?;
    Ok(Json(Peers::of(&status)))
}

/// Same as `/api/v1/bans`, but as of now: it includes the latest ban.
async fn bans(State(sources): State<Sources>) -> Answer<Bans> {
    let bans = order(&sources, |reply| Command::ListBans { reply }).await?;
    Ok(Json(Bans::of(&bans)))
}

/// Reads the body as JSON whatever its content type: curl declares a form.
async fn ban(State(sources): State<Sources>, body: Result<Bytes, BytesRejection>) -> Answer<Ban> {
    let body = body.map_err(|error| Problem::new(error.status(), error.body_text()))?;
    let BanOrder { address, hours, reason } =
        serde_json::from_slice(&body).map_err(|error| bad_request(format!("not a ban: {error}")))?;
    if !(0.0..=BAN_HOURS_MAX).contains(&hours) {
        return Err(bad_request(format!("`hours` is {hours}: a ban lasts from 0 to {BAN_HOURS_MAX} hours")));
    }
    let seconds = hours * 3600.0;
    let banned = order(&sources, |reply| Command::Ban { address, seconds, reason, reply }).await?;
    banned.map(|ban| Json(Ban::from(&ban))).map_err(|error| Problem::new(StatusCode::CONFLICT, error.to_string()))
}

async fn unban(State(sources): State<Sources>, Path(text): Path<String>) -> Answer<Unbanned> {
    let address: IpAddr = text.parse().map_err(|_| bad_request(format!("{text:?} is no IP address")))?;
    if order(&sources, |reply| Command::Unban { address, reply }).await? {
        Ok(Json(Unbanned { unbanned: 1 }))
    } else {
        Err(Problem::not_found(format!("{address} is not banned; `p2pool bans` lists who is")))
    }
}

async fn unban_all(State(sources): State<Sources>) -> Answer<Unbanned> {
    let mut unbanned = 0;
    for ban in order(&sources, |reply| Command::ListBans { reply }).await? {
        let address = ban.address;
        unbanned += u64::from(order(&sources, |reply| Command::Unban { address, reply }).await?);
    }
    Ok(Json(Unbanned { unbanned }))
}

/// Submits a block of any chain again, and answers with the outcomes of the next few seconds.
async fn resubmit(State(sources): State<Sources>, Path(text): Path<String>) -> Answer<Resubmitted> {
    let hash: BlockHash = text.parse().map_err(|_| bad_request("a block's hash is 64 hex digits"))?;
    let (chain, mut reports) = resubmit_kept(&sources.kept, hash).await.map_err(|error| not_resubmitted(&error))?;
    let mut answer = Resubmitted { chain, hash, routes: Vec::new(), verdict: None };
    let listen = async {
        while !answer.verdict.as_ref().is_some_and(Outcome::is_final) {
            let report = match reports.recv().await {
                Ok(report) => report,
                Err(RecvError::Lagged(_)) => continue,
                Err(RecvError::Closed) => return,
            };
            match report.route {
                _ if report.block.hash != hash => {}
                Some(route) => {
                    answer.routes.retain(|known| known.route != route);
                    answer.routes.push(Attempt { route: route.to_owned(), outcome: report.outcome });
                }
                None => answer.verdict = Some(report.outcome),
            }
        }
    };
    // After a timeout the attempts go on: the answer has the outcomes so far.
    let _ = timeout(ORDER_MAX, listen).await;
    Ok(Json(answer))
}

/// Submits a block again to the chain whose journal has it; returns that chain, and the reports from then on.
async fn resubmit_kept(
    kept: &[KeptBlocks],
    hash: BlockHash,
) -> Result<(Option<Arc<str>>, broadcast::Receiver<BlockReport>), ResubmitError> {
    let (mut searched, mut refusal) = (Vec::new(), None);
    for KeptBlocks { chain, resubmitter, reports } in kept {
        let reports = reports.subscribe();
        match resubmitter.resubmit(hash).await {
            Ok(()) => return Ok((chain.clone(), reports)),
            Err(ResubmitError::NotKept { chains, .. }) => searched.extend(chains),
            // Another chain may have it.
            Err(error) => refusal = Some(error),
        }
    }
    Err(refusal.unwrap_or(ResubmitError::NotKept { hash, chains: searched }))
}

/// Sends a command to the P2P task, and returns its reply.
async fn order<T>(sources: &Sources, make: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, Problem> {
    let Some(p2p) = &sources.public.p2p else {
        return Err(Problem::new(StatusCode::CONFLICT, "this node takes no part in the pool's network"));
    };
    let (reply, replied) = oneshot::channel();
    let carried_out = async {
        p2p.commands.send(make(reply)).await.ok()?;
        replied.await.ok()
    };
    let unavailable = |detail| Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail);
    match timeout(ORDER_MAX, carried_out).await {
        Ok(Some(done)) => Ok(done),
        Ok(None) => Err(unavailable("the node is stopping")),
        Err(_) => Err(unavailable("the node is too busy just now: try again")),
    }
}

fn bad_request(detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, detail)
}

fn not_resubmitted(error: &ResubmitError) -> Problem {
    let status = match error {
        ResubmitError::NotKept { .. } => StatusCode::NOT_FOUND,
        ResubmitError::Reading(_) => StatusCode::CONFLICT,
        ResubmitError::Find(_) => StatusCode::INTERNAL_SERVER_ERROR,
        ResubmitError::Busy => StatusCode::SERVICE_UNAVAILABLE,
    };
    Problem::new(status, error.to_string())
}
