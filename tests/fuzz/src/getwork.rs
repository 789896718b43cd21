//! Any request of a polling miner: credentials in the first line, the body of the call in the rest. It is understood or
//! refused; whatever is submitted has a verdict, and none of it counts twice.
#![no_main]

#[path = "../../../stratum/tests/fixture/mod.rs"]
mod fixture;

use libfuzzer_sys::fuzz_target;
use p2pool::front::getwork::request::{Call, Getwork, Login};
use std::sync::Arc;
use std::time::{Duration, Instant};
use stratum::getwork::{Ask, DATA_BYTES, GetworkServer};
use stratum::mining::extranonce::Extranonces;
use stratum::mining::source::Source;
use stratum::mining::vardiff;
use stratum::{Difficulty, Epochs, Now, Offer, Refusal, Work, Worker};

use fixture::{UNIX, parts};

#[derive(Debug)]
struct OneJob;

impl Work for OneJob {
    type Payout = String;
    type Ticket = ();

    fn authorize(&self, name: &str, password: &str) -> Result<Worker<String>, Refusal> {
        let difficulty = password.parse().ok().and_then(Difficulty::new);
        Ok(Worker { name: name.into(), payout: name.to_owned(), difficulty, notice: None })
    }

    fn offer(&self, payout: &String, generation: u32, _draw: u32) -> Result<Offer<()>, Refusal> {
        Ok(Offer::new(&parts(u64::from(generation), payout.as_bytes()), ()))
    }

    fn epochs(&self) -> Epochs {
        Epochs::default()
    }
}

fuzz_target!(|input: &[u8]| {
    let end = input.iter().position(|byte| *byte == b'\n').unwrap_or(input.len());
    let (authorization, body) = (&input[..end], input.get(end + 1..).unwrap_or_default());
    let login = Login::parse(authorization);
    let (name, password) = login.as_ref().map_or(("", ""), |login| (&login.name, &login.password));
    let Ok(call) = Call::parse(body) else { return };
    let server = server();
    let source = Source::of([192, 0, 2, 1].into());
    let now = Now { instant: Instant::now(), unix: UNIX };
    let ask = Ask { name, password, source, draw: 0, easiest: None };
    let handed = server.hand_out(&OneJob, ask, now).expect("there is a job for every name");
    match call.getwork() {
        Getwork::Ask | Getwork::Malformed => {}
        Getwork::Submit(data) => {
            assert!(data.len() <= DATA_BYTES);
            assert!(server.judge(None, &data, source, now).verdict.is_err(), "only what was handed out can be good");
            // The same as changes of what was handed out.
            let mut changed = handed.data;
            changed.iter_mut().zip(&data).for_each(|(byte, change)| *byte ^= change);
            let first = server.judge(None, &changed, source, now);
            let again = server.judge(None, &changed, source, now);
            assert!(first.verdict.is_err() || first.credit.is_some());
            assert!(again.verdict.is_err() && again.credit.is_none() && again.solution.is_none());
        }
    }
});

fn server() -> GetworkServer<OneJob> {
    let difficulty = |value| Difficulty::new(value).expect("it is above zero");
    let config = vardiff::Config {
        interval: Duration::from_secs(3),
        start: difficulty(1e-10),
        min: difficulty(1e-11),
        max: difficulty(1e12),
    };
    GetworkServer::new(config, Extranonces::starting_at(1), Arc::default(), true).expect("the only lease")
}
