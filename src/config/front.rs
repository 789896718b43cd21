//! What the options say about the ports that miners and readers connect to.

use sharechain::coin::Network;
use std::net::{Ipv6Addr, SocketAddr};
use stratum::Difficulty;
use stratum::server::PortPolicy;

use super::arguments::RunArgs;
use super::{Problems, ip_network, listen_address};
use crate::front::{self, TlsFiles};

/// Everything is looked at, whatever is wrong before it.
pub(super) fn front(
    arguments: &RunArgs,
    network: Option<&'static Network>,
    problems: &mut Problems,
) -> Option<front::Config> {
    let mut miners = Vec::new();
    for text in &arguments.worker_port {
        miners.extend(problems.take("--worker-port", worker_port(text)));
    }
    if let (Some(network), true) = (network, arguments.worker_port.is_empty()) {
        miners.push(((Ipv6Addr::UNSPECIFIED, network.worker_port).into(), PortPolicy::default()));
    }
    let web = match &arguments.web_port {
        Some(text) => problems.take("--web-port", listen_address(text)).map(Some),
        None => Some(None),
    };
    let web_static = arguments.web_static.clone();
    if let Some(dir) = web_static.as_ref().filter(|dir| !dir.is_dir()) {
        problems.add("--web-static", format!("`{}` is no folder", dir.display()));
    }
    let tls = match &arguments.worker_tls[..] {
        [certificates, key] => Some(TlsFiles { certificates: certificates.into(), key: key.into() }),
        [] => None,
        // By the environment, where the command line's own check is not made.
        others => {
            problems.add("--worker-tls", format!("{} files instead of two, CERT and KEY", others.len()));
            None
        }
    };
    let mut proxies = Vec::new();
    for text in &arguments.proxy_protocol {
        proxies.extend(problems.take("--proxy-protocol", ip_network(text)));
    }
    let mut addresses: Vec<SocketAddr> = miners.iter().map(|(address, _)| *address).chain(web?).collect();
    addresses.retain(|address| address.port() != 0);
    addresses.sort_unstable();
    if let Some(pair) = addresses.windows(2).find(|pair| pair[0] == pair[1]) {
        problems.add("--worker-port", format!("{} is named twice", pair[0]));
    }
    Some(front::Config { miners, web: web?, web_static, tls, proxies })
}

/// `[ADDRESS:]PORT[,start=D][,min=D]`.
pub(super) fn worker_port(text: &str) -> Result<(SocketAddr, PortPolicy), String> {
    let mut parts = text.split(',');
    let address = listen_address(parts.next().unwrap_or_default())?;
    let mut terms = PortPolicy::default();
    for part in parts {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        let slot = match name {
            "start" => &mut terms.start,
            "min" => &mut terms.min,
            _ => return Err(format!("`{part}` in `{text}` is neither start=DIFFICULTY nor min=DIFFICULTY")),
        };
        let difficulty = value.parse().ok().and_then(Difficulty::new);
        *slot =
            Some(difficulty.ok_or_else(|| format!("`{value}` in `{text}` is no difficulty, such as 1024 or 0.001"))?);
    }
    Ok((address, terms))
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_proxy_is_an_address_or_a_network() {
        assert_eq!(ip_network("192.0.2.1").unwrap(), "192.0.2.1/32".parse().unwrap());
        assert_eq!(ip_network("2001:db8::/32").unwrap(), "2001:db8::/32".parse().unwrap());
        assert!(ip_network("proxy.example").unwrap_err().contains("`proxy.example`"));
    }
}
