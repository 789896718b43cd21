//! Options about the pool's network.

use super::options::Opt;
use super::values;
use crate::peers::{Config, OUTGOING_MAX};

/// Peers that may be allowed to connect: each may hold memory for what it asked us to remember.
const PEERS_MAX: usize = 1000;

pub(super) fn options() -> Vec<Opt<Config>> {
    vec![
        Opt::optional("p2pool-port", "[ADDRESS:]PORT", values::listen_address, |config: &mut Config, address| {
            config.listen = address;
        })
        .derived(|config| vec![config.listen.to_string()])
        .help(
            "Where peers connect; without an address on all of this machine's [default: the network's port, 9333 on \
             bitcoin]",
        ),
        Opt::list("p2pool-node", "HOST[:PORT]", Some(','), values::host_text, |config: &mut Config, hosts| {
            let hosts = hosts.iter().map(|text| values::host(text, config.network.p2p_port));
            config.nodes = hosts.collect::<Result<_, _>>()?;
            Ok(())
        })
        .short('n')
        .help("A node to be connected with at all times; may be given several times"),
        Opt::field("max-conns", "COUNT", values::count_to(PEERS_MAX), usize::to_string, |config: &mut Config| {
            &mut config.incoming_max
        })
        .help("Most peers that may connect to this node"),
        Opt::field(
            "outgoing-conns",
            "COUNT",
            values::count_to(OUTGOING_MAX),
            usize::to_string,
            |config: &mut Config| &mut config.outgoing,
        )
        .help("Peers that this node connects to by itself, at most 10; those of -n come on top"),
        Opt::flag("disable-upnp", |config: &mut Config| config.upnp = false)
            .help("Do not ask the router (by UPnP) to let peers in"),
        Opt::flag("disable-advertise", |config: &mut Config| config.advertise = false)
            .help("Do not announce this node's address to peers"),
        // Peers are told the port that they can reach, which is the one listened on unless it says otherwise.
        Opt::setter("external-ip", "HOST[:PORT]", values::host_text, |config: &mut Config, text| {
            config.external = Some(values::host(&text, config.listen.port())?);
            Ok(())
        })
        .help("Address announced to peers, if connections come from another one"),
        Opt::list("whitelist", "ADDRESS[/BITS]", Some(','), values::ip_network, |config: &mut Config, networks| {
            config.whitelist = networks;
            Ok(())
        })
        .help(
            "An address, or a network such as 192.0.2.0/24, whose nodes are never banned; may be given several times",
        ),
        Opt::flag("no-bootstrap", |config: &mut Config| config.bootstrap.clear())
            .help("Look for no peers but those of -n and those that are known from earlier"),
    ]
}
