//! Options of the ports for miners and for the web.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::options::Opt;
use super::problems::Problems;
use super::values;
use crate::front::{Config, MinerPort, OpenPage, TlsFiles};
use crate::runtime::users::Users;

pub(super) fn options() -> Vec<Opt<Config>> {
    vec![
        Opt::list("worker-port", WORKER_PORT, Some(';'), worker_port, |config: &mut Config, ports| {
            config.miners = ports;
            Ok(())
        })
        .derived(|config| config.miners.iter().map(show_worker_port).collect())
        .short('w')
        .help(
            "Listen address for miners (a port alone: all interfaces), with an optional starting and minimum \
             difficulty in the miners' unit (on scrypt networks 1 is 65,536 hashes), a file of users with passwords, \
             and networks that may or may not connect; may be given several times [default: the network's port, 9332 on \
             bitcoin]",
        ),
        Opt::optional("web-port", "[ADDRESS:]PORT", values::listen_address, |config: &mut Config, address| {
            config.web = Some(address);
        })
        .help("Listen address for web pages and metrics, instead of the worker ports"),
        Opt::path("web-static", "DIR", |config: &mut Config, folder| config.web_static = Some(folder))
            .help("Directory of pages made for the original P2Pool, served at /static/; / redirects there"),
        Opt::list("worker-tls", "CERT", Some(';'), |text: &str| Ok(PathBuf::from(text)), set_tls)
            .value_names(&["CERT", "KEY"])
            .help("Accept TLS as well on the worker ports, with this certificate chain and key (PEM files)"),
        Opt::list("proxy-protocol", "ADDRESS[/BITS]", Some(','), values::ip_network, |config: &mut Config, proxies| {
            config.proxies = proxies;
            Ok(())
        })
        .help("Trusted proxy (address or network) that sends a PROXY protocol header; may be given several times"),
        Opt::list("trusted-network", "ADDRESS[/BITS]", Some(','), values::ip_network, |config: &mut Config, networks| {
            config.trusted = networks;
            Ok(())
        })
        .help(
            "Address or network whose connections to the worker and web ports are not limited; may be given several times",
        ),
        Opt::path("web-users", "FILE", |config: &mut Config, path| config.web_users = Some(path)).help(
            "File of users that may see the pages, as made by htpasswd -B; without it they are open to everyone who \
             reaches them",
        ),
        Opt::list("web-open", "LIST", Some(','), open_page, |config: &mut Config, pages| {
            config.web_open = pages;
            Ok(())
        })
        .help("Pages that need no password in spite of --web-users: metrics, health"),
    ]
}

/// Syntax of a worker port with its options.
pub(super) const WORKER_PORT: &str = "[ADDRESS:]PORT[,start=D][,min=D][,users=FILE][,allow=NET][,deny=NET]";

/// Parses the name of a page that may be open.
fn open_page(text: &str) -> Result<OpenPage, String> {
    match text {
        "metrics" => Ok(OpenPage::Metrics),
        "health" => Ok(OpenPage::Health),
        _ => Err(format!("`{text}` is neither metrics nor health")),
    }
}

fn set_tls(config: &mut Config, files: Vec<PathBuf>) -> Result<(), String> {
    // clap checks the number of values on the command line only, not in variables.
    let [certificates, key] = <[PathBuf; 2]>::try_from(files)
        .map_err(|files| format!("{} files, expected two: CERT and KEY", files.len()))?;
    config.tls = Some(TlsFiles { certificates, key });
    Ok(())
}

/// Reports options that contradict each other.
pub(super) fn check(config: &Config, problems: &mut Problems) {
    let mut addresses: Vec<SocketAddr> = config.miners.iter().map(|port| port.address).chain(config.web).collect();
    addresses.retain(|address| address.port() != 0);
    addresses.sort_unstable();
    if let Some(folder) = config.web_static.as_ref().filter(|folder| !folder.is_dir()) {
        problems.add("web-static", format!("`{}` is not a directory", folder.display()));
    }
    if let Some(pair) = addresses.windows(2).find(|pair| pair[0] == pair[1]) {
        problems.add("worker-port", format!("{} is given twice", pair[0]));
    }
    if config.web_users.is_none() && !config.web_open.is_empty() {
        problems.add("web-open", "all pages are open without --web-users");
    }
    check_users(&config.miners, config.web_users.as_deref(), problems);
}

/// Reports files of users that cannot be used.
pub(super) fn check_users(miners: &[MinerPort], web: Option<&Path>, problems: &mut Problems) {
    let of_miners = miners.iter().filter_map(|port| Some(("worker-port", port.users.as_deref()?)));
    for (option, path) in of_miners.chain(web.map(|path| ("web-users", path))) {
        problems.take(option, Users::read(path).map_err(|error| error.to_string()));
    }
}

/// Parses [`WORKER_PORT`].
pub(super) fn worker_port(text: &str) -> Result<MinerPort, String> {
    let mut parts = text.split(',');
    let mut port = MinerPort::at(values::listen_address(parts.next().unwrap_or_default())?);
    for part in parts {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        let within = |problem: String| format!("{problem} in `{text}`");
        match name {
            "start" => port.policy.start = Some(values::difficulty(value).map_err(within)?),
            "min" => port.policy.min = Some(values::difficulty(value).map_err(within)?),
            "users" if !value.is_empty() => port.users = Some(value.into()),
            "allow" => port.networks.allow.push(values::ip_network(value).map_err(within)?),
            "deny" => port.networks.deny.push(values::ip_network(value).map_err(within)?),
            _ => {
                let known = "start=DIFFICULTY, min=DIFFICULTY, users=FILE, allow=NETWORK or deny=NETWORK";
                return Err(format!("`{part}` in `{text}` is not {known}"));
            }
        }
    }
    Ok(port)
}

/// Inverse of [`worker_port`].
pub(super) fn show_worker_port(port: &MinerPort) -> String {
    let MinerPort { address, policy, networks, users } = port;
    let difficulties = [("start", policy.start), ("min", policy.min)];
    let mut parts = vec![address.to_string()];
    parts.extend(difficulties.iter().filter_map(|(name, value)| value.map(|value| format!("{name}={value}"))));
    parts.extend(users.iter().map(|path| format!("users={}", path.display())));
    parts.extend(networks.allow.iter().map(|network| format!("allow={network}")));
    parts.extend(networks.deny.iter().map(|network| format!("deny={network}")));
    parts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::front::Networks;
    use stratum::server::PortPolicy;

    #[test]
    fn a_worker_port_has_terms_of_its_own() {
        let port = worker_port(
            "127.0.0.1:9334,start=65536,min=1e3,users=/etc/miners,allow=10.0.0.0/8,allow=::1,deny=10.9.0.0/16",
        );
        let network = |text: &str| text.parse().unwrap();
        let wanted = MinerPort {
            address: "127.0.0.1:9334".parse().unwrap(),
            policy: PortPolicy { start: Some(65_536.0), min: Some(1000.0) },
            networks: Networks {
                allow: vec![network("10.0.0.0/8"), network("::1/128")],
                deny: vec![network("10.9.0.0/16")],
            },
            users: Some("/etc/miners".into()),
        };
        assert_eq!(port, Ok(wanted));
        assert_eq!(worker_port("9332"), Ok(MinerPort::at("[::]:9332".parse().unwrap())));
        for (text, reported) in [
            ("", "``"),
            ("9332,", "`` in `9332,`"),
            ("9332,start", "`` is not a difficulty"),
            ("9332,start=0", "`0` is not a difficulty"),
            ("9332,min=-1", "`-1` is not a difficulty, such as 1024 or 0.001 in `9332,min=-1`"),
            ("9332,users=", "`users=` in"),
            ("9332,allow=home", "`home` is not an address or network"),
            ("9332,deny=10.0.0.0/33", "`10.0.0.0/33`"),
            ("9332,most=5", "`most=5`"),
            ("93320", "`93320`"),
        ] {
            let error = worker_port(text).unwrap_err();
            assert!(error.contains(reported), "{error}");
        }
    }

    #[test]
    fn a_worker_port_is_shown_as_it_is_read() {
        for text in [
            "[::]:9332",
            "127.0.0.1:9334,start=65536",
            "[::1]:1,start=0.5,min=0.001",
            "[::1]:1,users=miners.txt,allow=10.0.0.0/8,allow=::1/128,deny=10.9.0.0/16",
        ] {
            assert_eq!(show_worker_port(&worker_port(text).unwrap()), text);
        }
    }

    #[test]
    fn a_file_of_users_that_cannot_be_used_is_named_with_its_line_and_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        std::fs::write(&path, "# miners\nhunter2\n").unwrap();
        let port = MinerPort { users: Some(path.clone()), ..MinerPort::at("[::]:1".parse().unwrap()) };
        let mut problems = Problems::default();
        check_users(&[port], Some(Path::new("/no/such")), &mut problems);
        let reported: Vec<String> = problems.found.iter().map(ToString::to_string).collect();
        assert_eq!(reported[0], format!("--worker-port: `{}` line 2: not NAME:HASH", path.display()));
        assert!(reported[1].starts_with("--web-users: cannot read the users in `/no/such`"), "{reported:?}");
    }
}
