//! `/api/v1`: each documented path responds as documented, while miners mine.

use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};
use test_support::{Node, wait_until};

use crate::shares::{Pool, wpkh};

/// Time limit for statistics to be current: they are updated at least every five seconds.
const FIGURES_LIMIT: Duration = Duration::from_secs(20);

/// API description as served by the node.
struct Description(Value);

impl Description {
    fn of(node: &Node) -> Self {
        let answer = node.get("/api/v1/openapi.json");
        assert_eq!(answer.status, 200, "{answer:?}");
        let mut document: Value = serde_json::from_str(&answer.body).expect("the description is JSON");
        assert!(document["openapi"].as_str().is_some_and(|version| version.starts_with("3.1")));
        let schemas = document["components"]["schemas"].as_object_mut().expect("there are schemas");
        let before = schemas.clone();
        for schema in schemas.values_mut() {
            strict(schema, &before);
        }
        Self(document)
    }

    /// Checks a value against a named schema, without additional properties.
    fn check(&self, name: &str, value: &Value) {
        let schema = json!({"$ref": format!("#/components/schemas/{name}"), "components": self.0["components"]});
        let validator = jsonschema::validator_for(&schema).unwrap_or_else(|error| panic!("{name}: {error}"));
        let wrong: Vec<String> =
            validator.iter_errors(value).map(|error| format!("{}: {error}", error.instance_path())).collect();
        assert!(wrong.is_empty(), "{name}: {wrong:#?} in {value:#}");
    }

    /// Schema of a path's response with this status.
    fn schema(&self, path: &str, status: u16) -> Option<String> {
        let response = &self.0["paths"][path]["get"]["responses"][status.to_string()];
        assert!(!response.is_null(), "{path} does not say that it answers {status}");
        let reference = response["content"]["application/json"]["schema"]["$ref"].as_str()?;
        reference.rsplit('/').next().map(str::to_owned)
    }
}

/// Makes a schema refuse additional properties. A schema that extends another is merged with it.
fn strict(schema: &mut Value, all: &Map<String, Value>) {
    if let Some(parts) = schema.get("allOf").and_then(Value::as_array) {
        let (mut properties, mut required) = (Map::new(), Vec::new());
        for part in parts {
            let name = part["$ref"].as_str().and_then(|reference| reference.rsplit('/').next());
            let part = name.map_or(part, |name| &all[name]);
            properties.extend(part["properties"].as_object().cloned().unwrap_or_default());
            required.extend(part["required"].as_array().cloned().unwrap_or_default());
        }
        *schema = json!({"type": "object", "properties": properties, "required": required});
    }
    if schema.get("properties").is_some() {
        schema["additionalProperties"] = json!(false);
    }
}

/// GETs JSON, and checks it against the description.
fn ask(node: &Node, description: &Description, path: &str, asked: &str, status: u16) -> Value {
    let answer = node.get(asked);
    assert_eq!(answer.status, status, "{asked}: {answer:?}");
    let header = |name: &str| answer.headers.lines().find(|line| line.to_lowercase().starts_with(name));
    assert!(header("access-control-allow-origin: *").is_some(), "{asked}: {answer:?}");
    let kind = if status == 200 { "content-type: application/json" } else { "content-type: application/problem+json" };
    assert!(header(kind).is_some(), "{asked}: {answer:?}");
    let value: Value =
        serde_json::from_str(&answer.body).unwrap_or_else(|error| panic!("{asked}: {error}: {answer:?}"));
    match description.schema(path, status) {
        Some(schema) => description.check(&schema, &value),
        None => assert!(value.is_object()),
    }
    value
}

/// Collects the API's events for a while, by kind.
pub(crate) fn listen(port: u16, time: Duration) -> impl FnOnce() -> BTreeMap<String, Vec<Value>> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the node listens");
    stream.set_read_timeout(Some(Duration::from_secs(1))).expect("a timeout can be set");
    write!(stream, "GET /api/v1/events HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n")
        .expect("it reads");
    let mut lines = BufReader::new(stream).lines();
    let mut head = lines.by_ref().map_while(Result::ok).take_while(|line| !line.is_empty());
    assert!(head.any(|line| line.to_lowercase() == "content-type: text/event-stream"));
    head.for_each(drop);
    move || {
        let until = Instant::now() + time;
        let mut heard: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        let mut kind = String::new();
        while Instant::now() < until {
            let Some(Ok(line)) = lines.next() else { continue };
            if let Some(name) = line.strip_prefix("event: ") {
                name.clone_into(&mut kind);
            } else if let Some(data) = line.strip_prefix("data: ") {
                heard.entry(kind.clone()).or_default().push(serde_json::from_str(data).expect("data is JSON"));
            }
        }
        heard
    }
}

#[test]
fn every_path_answers_as_it_is_described_while_miners_mine() {
    let pool = Pool::start(&[]);
    let node = &pool.node;
    let description = Description::of(node);
    // Before the first share the values are unknown, in the same form.
    for path in [
        "summary",
        "node",
        "miners",
        "workers",
        "connections",
        "payouts",
        "shares",
        "peers",
        "bans",
        "blocks",
        "merged",
    ] {
        let path = format!("/api/v1/{path}");
        ask(node, &description, &path, &path, 200);
    }
    let hear = listen(node.worker_port(), Duration::from_secs(4));
    let mut miners = [pool.miner(&wpkh(1), "a"), pool.miner(&wpkh(2), "b")];
    let mut found = Vec::new();
    for round in 0..8 {
        let old = miners[(round + 1) % 2].client.job();
        found.push(miners[round % 2].mine_share());
        miners[(round + 1) % 2].client.wait_for_job(|job| job.clean && job.coinbase_start != old.coinbase_start);
    }
    let address = wpkh(1).to_string();
    let shown = || {
        let shares: Value = serde_json::from_str(&node.get("/api/v1/shares").body).expect("JSON");
        let miners: Value = serde_json::from_str(&node.get("/api/v1/miners").body).expect("JSON");
        shares["shares"].as_array().is_some_and(|shares| shares.len() == found.len())
            && miners["miners"]
                .as_array()
                .is_some_and(|miners| miners.len() == 2 && miners.iter().all(|miner| miner["accepted"] == 4))
    };
    wait_until("the shares and whose they are is shown", FIGURES_LIMIT, shown);

    let parameters = BTreeMap::from([
        ("address", address.clone()),
        ("hash", found[5].to_string()),
        ("source", "pool_rates".to_owned()),
        ("view", "last_hour".to_owned()),
    ]);
    let mut asked = 0;
    for path in description.0["paths"].as_object().expect("there are paths").keys() {
        if path == "/api/v1/events" || path == "/api/v1/openapi.json" {
            continue;
        }
        let filled =
            parameters.iter().fold(path.clone(), |path, (name, value)| path.replace(&format!("{{{name}}}"), value));
        assert!(!filled.contains('{'), "nothing to fill {path} with");
        ask(node, &description, path, &filled, 200);
        asked += 1;
    }
    assert!(asked >= 11, "{asked} paths");

    let shares = ask(node, &description, "/api/v1/shares", "/api/v1/shares?limit=3", 200);
    assert_eq!(shares["shares"].as_array().map(Vec::len), Some(3), "{shares}");
    assert_eq!(shares["tip"], json!(found[7].to_string()));
    let share = ask(node, &description, "/api/v1/shares/{hash}", &format!("/api/v1/shares/{}", found[5]), 200);
    assert_eq!(share["parent"], json!(found[4].to_string()));
    assert_eq!(share["children"], json!([found[6].to_string()]));
    assert_eq!(share["ancestors"][2], json!(found[2].to_string()));
    assert_eq!((&share["is_own"], &share["is_best"], &share["is_block"]), (&json!(true), &json!(true), &json!(false)));
    let miner = ask(node, &description, "/api/v1/addresses/{address}", &format!("/api/v1/addresses/{address}"), 200);
    assert_eq!(miner["shares"], 4, "{miner}");
    assert_eq!(miner["workers"].as_array().map(Vec::len), Some(1), "{miner}");
    assert_eq!((&miner["workers"][0]["connections"], &miner["workers"][0]["health"]), (&json!(1), &json!("good")));
    let connection = &miner["connections"][0];
    assert_eq!((&connection["worker"], &connection["accepted"]), (&miner["workers"][0]["name"], &json!(4)), "{miner}");
    assert!(miner["expected_payout"].as_u64().is_some_and(|amount| amount > 0), "{miner}");
    let capitals = format!("/api/v1/addresses/{}", address.to_uppercase());
    assert_eq!(ask(node, &description, "/api/v1/addresses/{address}", &capitals, 200)["address"], json!(address));
    let payouts = ask(node, &description, "/api/v1/payouts", "/api/v1/payouts", 200);
    let sum: u64 =
        payouts["payouts"].as_array().into_iter().flatten().filter_map(|payout| payout["amount"].as_u64()).sum();
    assert_eq!(Some(sum), payouts["block_value"].as_u64(), "{payouts}");

    // Errors have one form, too.
    for (path, asked, status) in [
        ("/api/v1/shares/{hash}", format!("/api/v1/shares/{}", "0".repeat(64)), 404),
        ("/api/v1/shares/{hash}", "/api/v1/shares/nonsense".to_owned(), 400),
        ("/api/v1/addresses/{address}", format!("/api/v1/addresses/{}", wpkh(9)), 404),
        ("/api/v1/addresses/{address}", "/api/v1/addresses/%3Cscript%3E".to_owned(), 404),
        ("/api/v1/graphs/{source}/{view}", "/api/v1/graphs/pool_rates/last_minute".to_owned(), 404),
        ("/api/v1/shares", "/api/v1/shares?limit=many".to_owned(), 400),
        ("/api/v1/workers", "/api/v1/workers?limit=1000000".to_owned(), 400),
    ] {
        ask(node, &description, path, &asked, status);
    }
    assert_eq!(node.get("/api/v1/nonsense").status, 404);

    let heard = hear();
    for (kind, schema) in [("share", "NewShare"), ("tip", "NewTip"), ("rates", "NewRates")] {
        let events = heard.get(kind).unwrap_or_else(|| panic!("no {kind} among {heard:?}"));
        events.iter().for_each(|event| description.check(schema, event));
    }
    let told: Vec<&Value> = heard["share"].iter().map(|share| &share["hash"]).collect();
    assert_eq!(told, found.iter().map(|hash| json!(hash.to_string())).collect::<Vec<_>>().iter().collect::<Vec<_>>());
}

#[test]
fn a_connection_is_told_of_from_authorising_to_its_end() {
    let pool = Pool::start(&[]);
    let description = Description::of(&pool.node);
    let connections = || ask(&pool.node, &description, "/api/v1/connections", "/api/v1/connections", 200);
    assert_eq!(connections(), json!({"total": 0, "connections": []}));
    let mut miner = pool.miner(&wpkh(1), "a");
    wait_until("the connection is shown", FIGURES_LIMIT, || connections()["total"] == 1);
    let new = &connections()["connections"][0];
    assert_eq!((&new["worker"], &new["address"]), (&json!(format!("{}.riga", wpkh(1))), &json!(wpkh(1).to_string())));
    assert_eq!((&new["protocol"], &new["health"], &new["last_seen"]), (&json!("stratum"), &json!("new"), &Value::Null));
    assert!(new["user_agent"].as_str().is_some_and(|name| !name.is_empty()), "{new}");
    assert_eq!(new["difficulty"].as_f64(), Some(miner.client.difficulty), "as it was told");
    miner.mine_share();
    wait_until("the submission is shown", FIGURES_LIMIT, || connections()["connections"][0]["accepted"] == 1);
    drop(miner);
    wait_until("the connection is gone", FIGURES_LIMIT, || connections()["total"] == 0);
    let address =
        ask(&pool.node, &description, "/api/v1/addresses/{address}", &format!("/api/v1/addresses/{}", wpkh(1)), 200);
    assert_eq!((&address["workers"][0]["connections"], &address["workers"][0]["accepted"]), (&json!(0), &json!(1)));
}

#[test]
fn a_stopping_node_does_not_wait_for_those_who_listen() {
    let mut pool = Pool::start(&[]);
    let hear = listen(pool.node.worker_port(), Duration::from_millis(500));
    assert!(hear().contains_key("rates"), "a new listener is told how things stand");
    let exit = {
        let _listening = listen(pool.node.worker_port(), Duration::ZERO);
        pool.node.terminate()
    };
    assert!(exit.took < Duration::from_secs(2), "it took {:?}", exit.took);
}
