//! Options of the ports for miners and for the web.

use std::net::SocketAddr;
use std::path::PathBuf;
use stratum::server::PortPolicy;

use super::options::Opt;
use super::problems::Problems;
use super::values;
use crate::front::{Config, TlsFiles};

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
             difficulty; may be given several times [default: the network's port, 9332 on bitcoin]",
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
    ]
}

/// Syntax of a worker port with its difficulties.
pub(super) const WORKER_PORT: &str = "[ADDRESS:]PORT[,start=D][,min=D]";

fn set_tls(config: &mut Config, files: Vec<PathBuf>) -> Result<(), String> {
    // clap checks the number of values on the command line only, not in variables.
    let [certificates, key] = <[PathBuf; 2]>::try_from(files)
        .map_err(|files| format!("{} files, expected two: CERT and KEY", files.len()))?;
    config.tls = Some(TlsFiles { certificates, key });
    Ok(())
}

/// Reports options that contradict each other.
pub(super) fn check(config: &Config, problems: &mut Problems) {
    let mut addresses: Vec<SocketAddr> = config.miners.iter().map(|(address, _)| *address).chain(config.web).collect();
    addresses.retain(|address| address.port() != 0);
    addresses.sort_unstable();
    if let Some(folder) = config.web_static.as_ref().filter(|folder| !folder.is_dir()) {
        problems.add("web-static", format!("`{}` is not a directory", folder.display()));
    }
    if let Some(pair) = addresses.windows(2).find(|pair| pair[0] == pair[1]) {
        problems.add("worker-port", format!("{} is given twice", pair[0]));
    }
}

/// Parses `[ADDRESS:]PORT[,start=D][,min=D]`.
pub(super) fn worker_port(text: &str) -> Result<(SocketAddr, PortPolicy), String> {
    let mut parts = text.split(',');
    let address = values::listen_address(parts.next().unwrap_or_default())?;
    let mut terms = PortPolicy::default();
    for part in parts {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        let slot = match name {
            "start" => &mut terms.start,
            "min" => &mut terms.min,
            _ => return Err(format!("`{part}` in `{text}` is neither start=DIFFICULTY nor min=DIFFICULTY")),
        };
        let difficulty = values::difficulty(value);
        *slot = Some(difficulty.map_err(|_| format!("`{value}` in `{text}` is not a difficulty, such as 1024"))?);
    }
    Ok((address, terms))
}

/// Inverse of [`worker_port`].
pub(super) fn show_worker_port((address, terms): &(SocketAddr, PortPolicy)) -> String {
    let term = |name: &str, value: Option<stratum::Difficulty>| value.map(|value| format!(",{name}={value}"));
    let terms = [term("start", terms.start), term("min", terms.min)];
    terms.into_iter().flatten().fold(address.to_string(), |text, term| text + &term)
}

#[cfg(test)]
mod tests {
    use super::*;
    use stratum::Difficulty;

    #[test]
    fn a_worker_port_has_terms_of_its_own() {
        let (address, terms) = worker_port("127.0.0.1:9334,start=65536,min=1e3").unwrap();
        assert_eq!(address, "127.0.0.1:9334".parse().unwrap());
        assert_eq!((terms.start, terms.min), (Difficulty::new(65_536.0), Difficulty::new(1000.0)));
        assert_eq!(worker_port("9332").unwrap(), ("[::]:9332".parse().unwrap(), PortPolicy::default()));
        for (text, told) in [
            ("", "``"),
            ("9332,", "`` in `9332,`"),
            ("9332,start", "`` in"),
            ("9332,start=0", "`0` in"),
            ("9332,min=-1", "`-1` in"),
            ("9332,most=5", "`most=5`"),
            ("93320", "`93320`"),
        ] {
            let error = worker_port(text).unwrap_err();
            assert!(error.contains(told), "{error}");
        }
    }

    #[test]
    fn a_worker_port_is_shown_as_it_is_read() {
        for text in ["[::]:9332", "127.0.0.1:9334,start=65536", "[::1]:1,start=0.5,min=0.001"] {
            assert_eq!(show_worker_port(&worker_port(text).unwrap()), text);
        }
    }
}
