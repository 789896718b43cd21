//! Options of `p2pool demo`.

use super::options::{Opt, Part, within};
use super::problems::Problems;
use super::{front, log, miners, places, values};
use crate::tools::demo::Config;

impl Part for Config {
    fn base() -> Self {
        Self::default()
    }

    fn options() -> Vec<Opt<Self>> {
        let log = within(log::options(), |config: &mut Self| &mut config.log);
        let load = within(miners::load(), |config: &mut Self| &mut config.stratum);
        let serving = within(miners::serving(), |config: &mut Self| &mut config.stratum);
        // First, since the coin decides how miners are served; what else is given comes on top of that.
        std::iter::once(net()).chain(log).chain(own()).chain(load).chain(serving).collect()
    }
}

fn net() -> Opt<Config> {
    Opt::optional("net", "NAME|FILE", places::network, |config: &mut Config, coin| *config = Config::on(coin))
        .default(|config: &mut Config| config.coin.name.to_owned())
        .help(
            "Network whose addresses and proof of work the private chain has: one that a node knows, such as litecoin, or \
             a TOML file",
        )
}

fn own() -> Vec<Opt<Config>> {
    vec![
        Opt::flag("merged", |config: &mut Config| config.merged = true)
            .help("Mine two private merged chains, too: one like Dogecoin, one like Namecoin"),
        Opt::optional("blocks", "N", values::count, |config: &mut Config, blocks| config.blocks = Some(blocks))
            .help("Number of blocks after which the demo stops and prints a summary"),
        Opt::flag("no-miner", |config: &mut Config| config.miner = false).help("Wait for your miner, start none"),
        Opt::field(
            "worker-port",
            front::WORKER_PORT,
            front::worker_port,
            front::show_worker_port,
            |config: &mut Config| &mut config.worker_port,
        )
        .short('w')
        .help(
            "Listen address for miners, with an optional starting and minimum difficulty, a file of users with passwords, \
             and networks that may or may not connect",
        ),
        Opt::path("datadir", "DIR", |config: &mut Config, folder| config.data_dir = Some(folder))
            .help("Directory of found blocks [default: a temporary one, removed at the end]"),
        Opt::number("fee", "PERCENT", 0.0..=100.0, |config: &mut Config| &mut config.fee_percent)
            .short('f')
            .help("Percentage of the miners' work that pays the demo's node instead"),
    ]
}

/// Reports options that contradict each other.
pub(super) fn check(config: &Config, problems: &mut Problems) {
    miners::check(&config.stratum, problems);
    front::check_users(std::slice::from_ref(&config.worker_port), None, problems);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Environment, Refused};
    use crate::front::MinerPort;
    use crate::node;
    use sharechain::coin;
    use std::time::Duration;
    use stratum::server::PortPolicy;
    use stratum::server::admission::Limits;

    fn read(arguments: &[&str]) -> Result<Config, Refused> {
        let words = ["p2pool", "demo"].iter().chain(arguments).map(|word| (*word).into());
        match config::Config::read(words, &Environment::default())? {
            config::Config::Demo(demo) => Ok(*demo),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn without_options_the_demo_serves_few_miners_that_submit_often() {
        let demo = read(&[]).unwrap();
        let mut wanted = node::serving(&coin::DEMO);
        wanted.session.vardiff.interval = Duration::from_millis(750);
        wanted.limits = Limits { connections_max: 1000, connections_per_address_max: 100, ..Limits::default() };
        assert_eq!(demo.stratum, wanted);
        assert_eq!(demo.worker_port, MinerPort::at("127.0.0.1:9332".parse().unwrap()));
        assert!(demo.fee_percent.abs() < f64::EPSILON);
        assert!(!demo.merged && read(&["--merged"]).unwrap().merged);
    }

    #[test]
    fn the_demo_takes_the_miners_options_of_a_node() {
        let text = "-w 127.0.0.1:1,start=2,min=1 --fee 2.5 --share-rate 5 --max-connections 7 --max-workers-per-address 3 \
                    --min-difficulty 0.5 --max-difficulty 64 --idle-timeout 60 --strict --late-work always --max-names 1";
        let demo = read(&text.split_whitespace().collect::<Vec<_>>()).unwrap();
        let policy = PortPolicy { start: Some(2.0), min: Some(1.0) };
        assert_eq!(demo.worker_port, MinerPort { policy, ..MinerPort::at("127.0.0.1:1".parse().unwrap()) });
        assert!((demo.fee_percent - 2.5).abs() < f64::EPSILON);
        let (session, limits) = (demo.stratum.session, demo.stratum.limits);
        assert_eq!(session.vardiff.interval, Duration::from_secs(5));
        assert_eq!((session.vardiff.min.get(), session.vardiff.max.get()), (0.5, 64.0));
        assert_eq!((limits.connections_max, limits.connections_per_address_max), (7, 3));
        assert_eq!((session.idle_timeout, session.workers_max), (Some(Duration::from_secs(60)), 1));
        assert!(!session.lenient);
    }

    #[test]
    fn the_demo_of_a_coin_serves_its_miners_whatever_else_is_given() {
        let scale = |arguments: &[&str]| format!("{:?}", read(arguments).unwrap().stratum.session.difficulty_scale);
        let of_litecoin = format!("{:?}", node::serving(&coin::LITECOIN).session.difficulty_scale);
        assert_ne!(scale(&[]), of_litecoin);
        for arguments in [["--net", "litecoin", "--fee", "2.5"], ["--fee", "2.5", "--net", "litecoin"]] {
            let demo = read(&arguments).unwrap();
            assert_eq!(demo.coin.name, "litecoin");
            assert_eq!(scale(&arguments), of_litecoin);
            assert!((demo.fee_percent - 2.5).abs() < f64::EPSILON);
        }
        let Err(Refused::Values(errors)) = read(&["--net", "dogecoin"]) else { panic!("it is refused") };
        assert!(errors[0].to_string().contains("--net: unknown network `dogecoin`"), "{}", errors[0]);
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
            "--max-connections: `0`",
            "--min-difficulty: 8 is more than --max-difficulty, 4",
            "--blocks: `0`",
        ] {
            assert!(text.contains(part), "{part} is missing in:\n{text}");
        }
    }
}
