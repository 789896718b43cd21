//! Tests of the resulting configuration and of refused options.

use sharechain::coin;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::*;
use crate::bitcoind::credentials::Credentials;
use crate::front::{MinerPort, OpenPage};

const ADDRESS: &str = "mipcBbFg9gMiCh81Kj8tqqdgoZub1ZJRfn";

fn read(arguments: &[&str]) -> Result<Config, Refused> {
    read_with(arguments, &Environment::default())
}

fn read_with(arguments: &[&str], environment: &Environment) -> Result<Config, Refused> {
    Config::read(std::iter::once("p2pool").chain(arguments.iter().copied()).map(OsString::from), environment)
}

fn node(arguments: &[&str]) -> crate::node::Config {
    match read(arguments) {
        Ok(Config::Node(node)) => *node,
        other => panic!("{other:?}"),
    }
}

fn problems(arguments: &[&str]) -> String {
    match read(arguments) {
        Err(Refused::Values(errors)) => errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_command_line_is_well_formed() {
    command().debug_assert();
}

#[test]
fn a_pool_to_mine_on_is_a_url_or_host_and_port() {
    let mine = |url: &str| match read(&["mine", url, "-u", ADDRESS, "--pace", "1e6"]) {
        Ok(Config::Mine(config)) => Ok((config.pool, config.pace)),
        Err(Refused::Values(errors)) => Err(errors[0].to_string()),
        other => panic!("{other:?}"),
    };
    for url in ["stratum+tcp://pool.example:9332", "pool.example:9332", "stratum+tcp://pool.example:9332/"] {
        assert_eq!(mine(url), Ok(("pool.example:9332".to_owned(), 1e6)));
    }
    assert_eq!(mine("[::1]:9332"), Ok(("[::1]:9332".to_owned(), 1e6)));
    for url in ["pool.example", ":9332", "pool.example:0", "pool.example:70000", "http://pool.example/9332"] {
        let error = mine(url).unwrap_err();
        assert!(error.contains(url), "{error}");
    }
    assert!(problems(&["mine", "here:1", "-u", "me", "--pace", "0"]).contains("--pace"));
}

#[test]
fn a_miner_hashes_as_bitcoin_does_unless_asked_for_scrypt() {
    for (flag, pow) in [(None, coin::Pow::Sha256d), (Some("--scrypt"), coin::Pow::Scrypt)] {
        let arguments: Vec<&str> = ["mine", "here:1", "-u", "me"].into_iter().chain(flag).collect();
        assert!(matches!(read(&arguments), Ok(Config::Mine(config)) if config.pow == pow), "{arguments:?}");
    }
}

#[test]
fn difficulties_are_in_the_unit_of_the_networks_miners() {
    let arguments = ["--min-difficulty", "2", "--max-difficulty", "131072", "-w", "1,start=32768,min=16"];
    for (network, unit, most) in [("bitcoin", 1.0, 1e10), ("litecoin", 65_536.0, 1e15 / 65_537.0)] {
        let node = node(&[&["--net", network], &arguments[..]].concat());
        let session = node.stratum.session;
        assert_eq!((session.vardiff.min.get(), session.vardiff.max.get()), (2.0 / unit, 131_072.0 / unit), "{network}");
        let on_port = node.front.miners[0].policy.session(session).vardiff;
        assert_eq!((on_port.start.get(), on_port.min.get()), (32_768.0 / unit, 16.0 / unit), "{network}");
        assert_eq!(on_port.max, session.vardiff.max);
        let Ok(Config::Check { text }) = read(&["config", "check", "--net", network, "--min-difficulty", "2"]) else {
            panic!("it is right")
        };
        assert!(text.contains("min-difficulty = 2  # command line"), "{text}");
        let default = text.lines().find_map(|line| line.strip_prefix("max-difficulty = ")?.strip_suffix("  # default"));
        let default: f64 = default.expect("a line").trim_matches('"').parse().unwrap();
        assert!((default / most - 1.0).abs() < 1e-6, "{network}: {default}");
    }
    // The error is in the same unit, and so are the limits of the coin.
    let wrong = problems(&["--net", "litecoin", "--min-difficulty", "8", "--max-difficulty", "4"]);
    assert_eq!(wrong, "--min-difficulty: 8 is more than --max-difficulty, 4");
    let wrong = problems(&["--net", "litecoin", "--max-difficulty", "0.01"]);
    assert!(wrong.starts_with("--min-difficulty: 0.0152"), "{wrong}");
    assert!(problems(&["--net", "litecoin", "--min-difficulty", "1e-323"]).contains("is not a difficulty"));
}

#[test]
fn without_arguments_it_is_a_bitcoin_node_with_the_defaults_of_old() {
    let node = node(&[]);
    assert_eq!(node.network.name, "bitcoin");
    assert_eq!(node.front.miners, [MinerPort::at("[::]:9332".parse().unwrap())]);
    assert_eq!(node.data_dir, PathBuf::from("data/bitcoin"));
    assert_eq!(node.log.logfile, Some("data/bitcoin/log".into()));
    assert_eq!(node.stratum.session.vardiff.interval, Duration::from_secs(3));
    assert_eq!(node.daemon.address, "127.0.0.1");
    assert_eq!(node.daemon.gone_after, Duration::from_secs(60));
    assert!(node.daemon.credentials.is_none());
}

#[test]
fn one_word_is_the_password_and_two_are_user_and_password() {
    let login = |arguments: &[&str]| {
        let login = node(arguments).daemon.credentials.unwrap();
        (login.user, login.password.expose().to_owned())
    };
    assert_eq!(login(&["secret"]), (String::new(), "secret".to_owned()));
    assert_eq!(login(&["alice", "secret"]), ("alice".to_owned(), "secret".to_owned()));
    assert!(problems(&["a", "b", "c"]).contains("3 words"));
}

#[test]
fn a_subcommand_wins_over_a_password_spelled_like_it() {
    assert!(matches!(read(&["demo"]), Ok(Config::Demo(_))));
    assert!(problems(&["alice", "demo"]).contains("subcommand: `[USER] PASSWORD` does not go with `demo`"));
    assert!(problems(&["--fee", "1", "demo"]).contains("`--fee` does not go with `demo`"));
}

#[test]
fn a_running_node_is_asked_by_its_data_directory_and_network() {
    let asked = |arguments: &[&str]| match read(arguments) {
        Ok(Config::Control(control)) => control,
        other => panic!("{other:?}"),
    };
    let peers = asked(&["peers", "--datadir", "there", "--net", "litecoin", "--json"]);
    let wanted = control::Config { data_dir: "there/litecoin".into(), request: Request::Peers, json: true };
    assert_eq!(peers, wanted);
    let address = "192.0.2.1".parse().unwrap();
    let ban = asked(&["ban", "192.0.2.1:9333", "--hours", "0.5", "--reason", "spam"]);
    assert_eq!(ban.request, Request::Ban { address, hours: 0.5, reason: "spam".into() });
    assert_eq!(ban.data_dir, PathBuf::from("data/bitcoin"));
    assert_eq!(asked(&["unban", "192.0.2.1"]).request, Request::Unban { address });
    assert_eq!(asked(&["unban", "all"]).request, Request::UnbanAll);
    assert!(problems(&["ban", "somebody", "--hours", "-1"]).contains("`somebody` is not an IP address"));
    assert!(problems(&["ban", "somebody", "--hours", "-1"]).contains("--hours: `-1`"));
    assert!(problems(&["unban", "some"]).contains("`some` is not an IP address"));
}

#[test]
fn the_environment_gives_credentials_and_arguments_win() {
    let environment = [("P2POOL_RPC_USER", "bob"), ("P2POOL_RPC_PASSWORD", "hidden")].into_iter().collect();
    let user = |arguments: &[&str]| match read_with(arguments, &environment) {
        Ok(Config::Node(node)) => node.daemon.credentials.unwrap().user,
        other => panic!("{other:?}"),
    };
    assert_eq!(user(&[]), "bob");
    assert_eq!(user(&["alice", "secret"]), "alice");
    let half = [("P2POOL_RPC_USER", "bob")].into_iter().collect();
    assert!(read_with(&[], &half).is_err());
}

#[test]
fn every_wrong_value_is_named_at_once() {
    let text = problems(&[
        "--net",
        "dogecoin",
        "--fee",
        "101",
        "-w",
        "x",
        "--bitcoind-rpc-port",
        "0",
        "--share-rate",
        "nan",
        "--coinbtext",
        &"x".repeat(80),
        "--max-workers",
        "-1",
        "--p2pool-port",
        "x:1",
        "-n",
        "a b",
        "-n",
        "host:0",
        "--max-conns",
        "many",
        "--outgoing-conns",
        "11",
        "--external-ip",
        "1.2.3",
        "--whitelist",
        "10.0.0.0/33",
    ]);
    for part in [
        "--net: unknown network `dogecoin`",
        "--fee: `101`",
        "--worker-port: `x`",
        "--bitcoind-rpc-port: `0`",
        "--share-rate: `nan`",
        "--coinbtext: text",
        "--max-connections: `-1`",
        "--p2pool-port: `x:1`",
        "--p2pool-node: `a b`",
        "--p2pool-node: `host:0`",
        "--max-conns: `many`",
        "--outgoing-conns: `11` is not a whole number from 0 to 10",
        "--external-ip: `1.2.3`",
        "--whitelist: `10.0.0.0/33`",
    ] {
        assert!(text.contains(part), "{part} is missing in:\n{text}");
    }
}

#[test]
fn an_address_must_be_payable_on_the_network() {
    assert_eq!(&*node(&["--testnet", "-a", ADDRESS]).address.unwrap().address, ADDRESS);
    assert!(problems(&["-a", ADDRESS]).contains("another network"));
    assert!(problems(&["-a", "myself"]).contains("`myself` is not an address"));
    let (ltc, doge) = ("LdrKq4oUQBJtekFvMzEQQyKMZwzBo4AhMA", "DGdY6D21dTGeWqNQQjh5NbwFKpjqD8ef6e");
    let both = node(&["--net", "litecoin", "-a", &format!("{ltc},{doge}")]).address.unwrap();
    assert_eq!(format!("{both:#}"), format!("{ltc} (DOGE: {doge})"));
    assert!(problems(&["--net", "litecoin", "-a", doge]).contains("the LTC address is missing"));
}

#[test]
fn the_pools_network_has_the_defaults_of_old_and_takes_what_it_is_told() {
    let default = node(&[]).p2p;
    assert_eq!(default.listen, "[::]:9333".parse().unwrap());
    assert_eq!((default.incoming_max, default.outgoing), (40, 6));
    assert!(default.upnp && default.advertise && default.nodes.is_empty() && default.external.is_none());
    assert_eq!(default.bootstrap.len(), coin::BITCOIN.bootstrap_addresses.len(), "all of them can be read");
    assert_eq!(default.bootstrap[0].to_string(), "ml.toom.im:9333");
    assert!(node(&["--no-bootstrap"]).p2p.bootstrap.is_empty());
    let text = "--p2pool-port 127.0.0.1:5 -n one.example -n [::1]:6 --external-ip 192.0.2.1 --whitelist 10.0.0.0/8 \
                --disable-upnp --disable-advertise --max-conns 0 --outgoing-conns 10 --start-pool";
    let told = node(&text.split_whitespace().collect::<Vec<_>>());
    assert!(told.start_pool);
    let told = told.p2p;
    assert_eq!(told.listen, "127.0.0.1:5".parse().unwrap());
    assert_eq!(told.nodes.iter().map(ToString::to_string).collect::<Vec<_>>(), ["one.example:9333", "[::1]:6"]);
    assert_eq!(told.external.map(|host| host.to_string()).as_deref(), Some("192.0.2.1:5"));
    assert!(told.whitelist[0].contains(&"10.1.2.3".parse::<IpAddr>().unwrap()));
    assert!(!told.upnp && !told.advertise);
    assert_eq!((told.incoming_max, told.outgoing), (0, 10));
}

#[test]
fn without_options_a_node_is_what_its_parts_say() {
    for network in coin::ALL {
        let wanted = crate::node::Config::on(network, PathBuf::from("data").join(network.name));
        assert_eq!(format!("{:?}", node(&["--net", network.name])), format!("{wanted:?}"));
    }
}

#[test]
fn a_wrong_network_is_no_reason_to_doubt_the_rest() {
    let text = problems(&["--net", "dogecoin", "-a", ADDRESS, "--fee", "101"]);
    assert!(text.contains("--net: unknown network `dogecoin`") && text.contains("--fee: `101`"), "{text}");
    assert!(!text.contains("another network"), "{text}");
}

#[test]
fn names_for_browsers_are_host_names() {
    let names = ["pool.example", "node_1.lan", "pool"];
    assert_eq!(node(&["--web-host", "pool.example,node_1.lan", "--web-host", "pool"]).web_hosts, names);
    for wrong in ["", "pool.example:9332", "http://pool.example", "*.example", "a..b", "pool.example/"] {
        assert!(
            problems(&["--web-host", wrong]).contains(&format!("--web-host: `{wrong}` is not a host name")),
            "{wrong}"
        );
    }
}

/// Reads a node with this file, these variables and these arguments.
fn layered(file: &str, variables: &[(&str, &str)], arguments: &[&str]) -> Result<crate::node::Config, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("node.toml");
    std::fs::write(&path, file).unwrap();
    let arguments = [arguments, &["--config", path.to_str().unwrap()]].concat();
    match read_with(&arguments, &variables.iter().copied().collect()) {
        Ok(Config::Node(node)) => Ok(*node),
        Err(Refused::Values(errors)) => Err(errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")),
        other => panic!("{other:?}"),
    }
}

#[test]
fn merged_chains_come_from_every_layer() {
    let shown = |node: crate::node::Config| {
        let show = |chain: &crate::merged::ChainConfig| {
            let login = match &chain.credentials {
                Credentials::Fixed { login, .. } => format!("{}:{}", login.user, login.password.expose()),
                other => other.origin(),
            };
            format!("{} {}:{}{} {:?} {login}", chain.name, chain.host, chain.port, chain.path, chain.address)
        };
        node.merged.chains.iter().map(show).collect::<Vec<_>>()
    };
    let (doge, nmc) = ("http://u:p@127.0.0.1:22555/,address=D1,name=doge", "http://[::1]:8336/wallet/w,login-file=f");
    let wanted = ["doge 127.0.0.1:22555/ Some(\"D1\") u:p", "merged-8336 ::1:8336/wallet/w None the login file f"];
    assert_eq!(shown(node(&["--merged", doge, "--merged", nmc])), wanted);
    assert_eq!(shown(node(&["--merged", &format!("{doge};{nmc}")])), wanted);
    let both = format!("{doge};{nmc}");
    assert_eq!(shown(layered("", &[("P2POOL_MERGED", &both)], &[]).unwrap()), wanted);
    let tables = "[[merged]]\nurl = 'http://127.0.0.1:22555/'\nuser = 'u'\npassword = 'p'\naddress = 'D1'\nname = 'doge'\n\
                  [[merged]]\nurl = 'http://[::1]:8336/wallet/w'\nlogin-file = 'f'\n";
    assert_eq!(shown(layered(tables, &[], &[]).unwrap()), wanted);
    let list = format!("merged = ['{doge}', '{nmc}']\nmerged-pause = 0.5");
    let node_of_file = layered(&list, &[], &[]).unwrap();
    assert_eq!(node_of_file.merged.pause, Duration::from_millis(500));
    assert_eq!(shown(node_of_file), wanted);
    assert_eq!(
        shown(layered(tables, &[("P2POOL_MERGED", nmc)], &[]).unwrap()),
        wanted[1..],
        "a layer replaces a lower one"
    );
    let old = "D1%http://u:p@127.0.0.1:22555/";
    let of_old = ["merged-22555 127.0.0.1:22555/ Some(\"D1\") u:p"];
    assert_eq!(shown(node(&["--merged_addr", old])), of_old);
    assert_eq!(shown(layered("", &[("P2POOL_MERGED_ADDR", old)], &[]).unwrap()), of_old);
    let secret = "[[merged]]\nurl = 'http://127.0.0.1:1'\nuser = 'a:b'\npassword = 'x'";
    assert!(
        layered(secret, &[], &[]).unwrap_err().contains("node.toml line 1: merged: a user name cannot have a colon")
    );
    let secret = "[[merged]]\nurl = 'http://127.0.0.1:1'\nuser = 'a;ü'\npassword = '%,;/@ é'";
    assert_eq!(shown(layered(secret, &[], &[]).unwrap()), ["merged-1 127.0.0.1:1/ None a;ü:%,;/@ é"]);
}

#[test]
fn wrong_merged_chains_are_refused_by_the_place_where_they_stand_without_their_passwords() {
    let doge = "http://u:hunter2@127.0.0.1:22555/";
    for (file, variables, arguments, reported) in [
        ("", &[][..], &["--merged", "https://u:hunter2@h:1/"][..], "--merged: https:// is not spoken"),
        (
            "",
            &[],
            &["--merged", doge, "--merged", "http://u:hunter2@h:22555"],
            "--merged: two chains are named `merged-22555`",
        ),
        ("", &[], &["--merged_addr", doge, "--merged", doge], "--merged: the daemon at 127.0.0.1:22555 is given twice"),
        (
            "",
            &[("P2POOL_MERGED", "http://u:hunter2,@h:1/")],
            &[],
            "P2POOL_MERGED: the URL's host and port cannot be read",
        ),
        ("", &[("P2POOL_MERGED_ADDR", "D1%ftp://u:hunter2@h:1/")], &[], "P2POOL_MERGED_ADDR: a chain begins with"),
        ("merged = 'u:hunter2@h:1'", &[], &[], "node.toml line 1: merged: a chain begins with"),
        ("\n[[merged]]\npassword = 'hunter2'", &[], &[], "node.toml line 2: merged: the table has no `url`"),
        ("[[merged]]\nurl = 'http://h:1'\npasswort = 'hunter2'", &[], &[], "merged: `passwort` is not address=ADDRESS"),
        (
            "merged = 'http://u:hunter2@h:1'\nmerged_addr = 'http://u:hunter2@h:2'",
            &[],
            &[],
            "`merged` is given twice, once by its former name",
        ),
        ("merged-pause = 61", &[], &[], "merged-pause: `61` is not a number from 0 to 60"),
        ("", &[], &["--merged-pause", "-1"], "--merged-pause: `-1`"),
    ] {
        let error = layered(file, variables, arguments).unwrap_err();
        assert!(error.contains(reported) && !error.contains("hunter2"), "{reported} is missing in: {error}");
    }
}

#[test]
fn a_password_of_a_merged_chain_is_reported_only_where_others_can_read_it() {
    let doge = "http://u:hunter2@127.0.0.1:22555/";
    let visible = |file: &str, variables: &[(&str, &str)], arguments: &[&str]| {
        layered(file, variables, arguments).unwrap().visible_secrets
    };
    assert_eq!(visible("", &[], &["--merged", doge]), ["merged"]);
    assert_eq!(visible("", &[], &["--merged", "http://127.0.0.1:1/,login-file=/doge"]), [""; 0]);
    assert_eq!(visible("", &[("P2POOL_MERGED", doge)], &[]), [""; 0]);
    assert_eq!(visible(&format!("merged = '{doge}'"), &[], &[]), [""; 0]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secrets");
    std::fs::write(&path, format!("--merged {doge}")).unwrap();
    let file = format!("@{}", path.display());
    let harmless = ["--merged", "http://127.0.0.1:1/,login-file=/doge"];
    assert_eq!(visible("", &[], &[&file]), [""; 0]);
    assert_eq!(visible("", &[], &[&harmless[..], &[&file]].concat()), [""; 0]);
    assert_eq!(visible("", &[], &[&[&*file], &harmless[..]].concat()), [""; 0]);
    let other = "http://u:hunter3@127.0.0.1:2/";
    assert_eq!(visible("", &[], &["--merged", other, &file]), ["merged"]);
    assert_eq!(visible("", &[], &[&file, "--merged", other]), ["merged"]);
    let shown = format!("{:?}", node(&["--merged", doge]));
    assert!(shown.contains("22555") && !shown.contains("hunter2"), "{shown}");
}

#[test]
fn texts_must_fit_into_the_coinbase_with_the_commitment_to_merged_chains() {
    let merged = ["--merged", "http://127.0.0.1:1/,login-file=/doge"];
    let text = |length: usize| "x".repeat(length);
    assert_eq!(node(&["--coinbtext", &text(75)]).coinbase_texts.len(), 1);
    assert_eq!(node(&[&merged[..], &["--coinbtext", &text(34)]].concat()).coinbase_texts.len(), 1);
    let wrong = problems(&[&["--coinbtext", &text(35)], &merged[..]].concat());
    assert_eq!(
        wrong,
        "--coinbtext: together they take 36 bytes of the coinbase script, of which 35 are free beside the commitment to \
         the chains of --merged"
    );
    let wrong = problems(&["--coinbtext", "00fabe6d6d"]);
    assert!(wrong.starts_with("--coinbtext: text `00fabe6d6d` contains fabe6d6d, the mark of"), "{wrong}");
    assert_eq!(wrong.lines().count(), 1, "{wrong}");
}

#[test]
fn pages_are_served_from_a_folder_that_exists() {
    assert!(
        problems(&["--web-static", "/no/such/folder"]).contains("--web-static: `/no/such/folder` is not a directory")
    );
    assert_eq!(node(&["--web-static", "/"]).front.web_static, Some("/".into()));
}

#[test]
fn access_to_the_ports_is_limited_by_options() {
    let open = node(&[]);
    assert!(open.stratum.limits.exempts_loopback);
    assert_eq!((open.front.web_users, open.front.trusted), (None, Vec::new()));

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("users");
    std::fs::write(&path, format!("bob:{}\n", bcrypt::hash("secret", 4).unwrap())).unwrap();
    let file = path.to_str().unwrap();
    let limited = node(&[
        "--no-local-exemption",
        "--trusted-network",
        "10.0.0.0/8,::1",
        "--trusted-network",
        "192.0.2.1",
        "--web-users",
        file,
        "--web-open",
        "metrics,health",
    ]);
    assert!(!limited.stratum.limits.exempts_loopback);
    let networks = ["10.0.0.0/8", "::1/128", "192.0.2.1/32"].map(|text| text.parse().unwrap());
    assert_eq!(limited.front.trusted, networks);
    assert_eq!(limited.front.web_users, Some(path.clone()));
    assert_eq!(limited.front.web_open, [OpenPage::Metrics, OpenPage::Health]);
    let problems = problems(&["--web-open", "metrics", "--trusted-network", "home"]);
    assert!(problems.contains("--trusted-network: `home`"), "{problems}");
}
