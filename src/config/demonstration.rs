//! What the options say about the demonstration.

use sharechain::coin;

use super::arguments::DemoArgs;
use super::{Problems, front, log, miners, number, whole_number};
use crate::tools::demo;

/// Everything is looked at, whatever is wrong before it.
pub(super) fn demo(arguments: DemoArgs, problems: &mut Problems) -> Option<demo::Config> {
    let blocks = match arguments.blocks {
        Some(text) => problems.take("--blocks", whole_number(&text)).map(Some),
        None => Some(None),
    };
    let worker_port = problems.take("--worker-port", front::worker_port(&arguments.worker_port));
    let fee_percent = problems.take("--fee", number(&arguments.fee, 0.0..=100.0));
    let stratum = miners::stratum(&arguments.load, &arguments.miners, Some(&coin::DEMO), problems);
    let logfile = arguments.log.logfile.clone();
    let log = log(&arguments.log, logfile, problems);
    Some(demo::Config {
        log: log?,
        blocks: blocks?,
        miner: !arguments.no_miner,
        worker_port: worker_port?,
        data_dir: arguments.datadir,
        fee_percent: fee_percent?,
        stratum: stratum?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Environment, Refused};
    use std::time::Duration;
    use stratum::Difficulty;
    use stratum::server::PortPolicy;
    use stratum::server::limits::Limits;

    fn read(arguments: &[&str]) -> Result<demo::Config, Refused> {
        let words = ["p2pool", "demo"].iter().chain(arguments).map(|word| (*word).into());
        match Config::read(words, &Environment::default())? {
            Config::Demo(demo) => Ok(*demo),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn without_options_the_demo_serves_few_miners_that_submit_often() {
        let demo = read(&[]).unwrap();
        let mut wanted = miners::base(&coin::DEMO);
        wanted.session.vardiff.interval = Duration::from_millis(750);
        wanted.limits = Limits { connections_max: 1000, connections_per_address_max: 100, ..Limits::default() };
        assert_eq!(demo.stratum, wanted);
        assert_eq!(demo.worker_port, ("127.0.0.1:9332".parse().unwrap(), PortPolicy::default()));
        assert!(demo.fee_percent.abs() < f64::EPSILON);
    }

    #[test]
    fn the_demo_takes_the_miners_options_of_a_node() {
        let text = "-w 127.0.0.1:1,start=2,min=1 --fee 2.5 --share-rate 5 --max-workers 7 --max-workers-per-address 3 \
                    --min-difficulty 0.5 --max-difficulty 64 --idle-timeout 60 --strict --late-work always --max-names 1";
        let demo = read(&text.split_whitespace().collect::<Vec<_>>()).unwrap();
        let policy = PortPolicy { start: Difficulty::new(2.0), min: Difficulty::new(1.0) };
        assert_eq!(demo.worker_port, ("127.0.0.1:1".parse().unwrap(), policy));
        assert!((demo.fee_percent - 2.5).abs() < f64::EPSILON);
        let (session, limits) = (demo.stratum.session, demo.stratum.limits);
        assert_eq!(session.vardiff.interval, Duration::from_secs(5));
        assert_eq!((session.vardiff.min.get(), session.vardiff.max.get()), (0.5, 64.0));
        assert_eq!((limits.connections_max, limits.connections_per_address_max), (7, 3));
        assert_eq!((session.idle_timeout, session.workers_max), (Some(Duration::from_secs(60)), 1));
        assert!(!session.lenient);
    }

    #[test]
    fn every_wrong_value_of_the_demo_is_named_at_once() {
        let text = "-w x --fee 101 --share-rate 0 --max-workers 0 --min-difficulty 8 --max-difficulty 4 --blocks 0";
        let Err(Refused::Values(errors)) = read(&text.split_whitespace().collect::<Vec<_>>()) else {
            panic!("it is refused");
        };
        let text = errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        for part in [
            "--worker-port: `x`",
            "--fee: `101`",
            "--share-rate: `0`",
            "--max-workers: `0`",
            "--min-difficulty: 8 is more than --max-difficulty, 4",
            "--blocks: `0`",
        ] {
            assert!(text.contains(part), "{part} is missing in:\n{text}");
        }
    }
}
