//! Options of the P2P network.

use super::options::Opt;
use super::values;
use crate::peers::{Config, OUTGOING_MAX};

/// Upper limit of incoming peers: each takes memory for its state.
const PEERS_MAX: usize = 1000;

pub(super) fn options() -> Vec<Opt<Config>> {
    vec![
        Opt::optional("p2pool-port", "[ADDRESS:]PORT", values::listen_address, |config: &mut Config, address| {
            config.listen = address;
        })
        .derived(|config| vec![config.listen.to_string()])
        .help("Listen address for peers (a port alone: all interfaces) [default: the network's port, 9333 on bitcoin]"),
        Opt::list("p2pool-node", "HOST[:PORT]", Some(','), values::host_text, |config: &mut Config, hosts| {
            let hosts = hosts.iter().map(|text| values::host(text, config.network.p2p_port));
            config.nodes = hosts.collect::<Result<_, _>>()?;
            Ok(())
        })
        .short('n')
        .help("Peer to stay connected to; may be given several times"),
        Opt::field("max-conns", "COUNT", values::count_to(PEERS_MAX), usize::to_string, |config: &mut Config| {
            &mut config.incoming_max
        })
        .help("Maximum number of incoming peers"),
        Opt::field(
            "outgoing-conns",
            "COUNT",
            values::count_to(OUTGOING_MAX),
            usize::to_string,
            |config: &mut Config| &mut config.outgoing,
        )
        .help("Number of outgoing peers, at most 10, in addition to those of -n"),
        Opt::flag("disable-upnp", |config: &mut Config| config.upnp = false)
            .help("Do not forward the port on the router by UPnP"),
        Opt::flag("disable-advertise", |config: &mut Config| config.advertise = false)
            .help("Do not announce this node's address to peers"),
        // The announced port is the one listened on unless the option has another.
        Opt::setter("external-ip", "HOST[:PORT]", values::host_text, |config: &mut Config, text| {
            config.external = Some(values::host(&text, config.listen.port())?);
            Ok(())
        })
        .help("Address to announce to peers, if it differs from that of outgoing connections"),
        Opt::list("whitelist", "ADDRESS[/BITS]", Some(','), values::ip_network, |config: &mut Config, networks| {
            config.whitelist = networks;
            Ok(())
        })
        .help("Address or network, such as 192.0.2.0/24, whose peers are never banned; may be given several times"),
        Opt::flag("no-bootstrap", |config: &mut Config| config.bootstrap.clear())
            .help("Connect only to peers of -n and saved ones, not to the built-in bootstrap nodes"),
    ]
}
