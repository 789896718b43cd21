//! A daemon of a merged chain that answers from a script.

use axum::Router;
use axum::http::StatusCode;
use axum::routing::post;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{ChainConfig, Pays};
use crate::bitcoind::credentials::{Credentials, Login};
use crate::runtime::secret::Secret;

/// A call, and its time.
type Call = (Instant, String, Value);

/// Answers by method; a method without one is unknown.
#[derive(Debug, Default)]
pub(super) struct Scripted {
    answers: Mutex<HashMap<String, Value>>,
    calls: Mutex<Vec<Call>>,
    stop: CancellationToken,
}

impl Scripted {
    /// Starts the daemon of a chain called `doge`, whose blocks pay `address`.
    pub(super) async fn start(address: Option<&str>) -> (Arc<Self>, ChainConfig) {
        let script = Arc::<Self>::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let answering = script.clone();
        let router = Router::new().route("/", post(async move |body: String| answering.answer(&body)));
        let stop = script.stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                served = axum::serve(listener, router) => served.unwrap(),
            }
        });
        let login = Login { user: "user".into(), password: Secret::new("hunter2") };
        let (name, host, path) = ("doge".into(), "127.0.0.1".to_owned(), "/".to_owned());
        let credentials = Credentials::Fixed { login, origin: "a test".to_owned() };
        let address = address.map(str::to_owned);
        (script, ChainConfig { name, host, port, path, credentials, address, pays: Pays::default() })
    }

    fn answer(&self, body: &str) -> (StatusCode, String) {
        let call: Value = serde_json::from_str(body).unwrap();
        let method = call["method"].as_str().unwrap().to_owned();
        let answer = self.answers.lock().get(&method).cloned();
        self.calls.lock().push((Instant::now(), method, call["params"].clone()));
        match answer {
            Some(answer) if answer["error"].is_null() => (StatusCode::OK, answer.to_string()),
            Some(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
            None => {
                let error = json!({"result": null, "error": {"code": -32601, "message": "Method not found"}, "id": 0});
                (StatusCode::NOT_FOUND, error.to_string())
            }
        }
    }

    /// Sets the result of `method`.
    pub(super) fn answers(&self, method: &str, result: Value) {
        self.answers.lock().insert(method.to_owned(), json!({"result": result, "error": null, "id": 0}));
    }

    /// Lets `method` fail.
    pub(super) fn fails(&self, method: &str, code: i32, message: &str) {
        let error = json!({"code": code, "message": message});
        self.answers.lock().insert(method.to_owned(), json!({"result": null, "error": error, "id": 0}));
    }

    /// Calls so far; forgets them.
    pub(super) fn called(&self) -> Vec<(String, Value)> {
        std::mem::take(&mut *self.calls.lock()).into_iter().map(|(_, method, params)| (method, params)).collect()
    }

    /// Times of the calls of `method` so far.
    pub(super) fn times(&self, method: &str) -> Vec<Instant> {
        self.calls.lock().iter().filter(|(_, called, _)| called == method).map(|(at, ..)| *at).collect()
    }

    /// Closes the port.
    pub(super) fn stop(&self) {
        self.stop.cancel();
    }
}

/// Answer to `createauxblock` that has what it must have.
pub(super) fn bare(chain_id: u32, hash: u8) -> Value {
    json!({"chainid": chain_id, "hash": format!("{hash:02x}").repeat(32), "target": "ff".repeat(28) + "00000000"})
}
