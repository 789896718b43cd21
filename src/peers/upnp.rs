//! Port mapping by UPnP, renewed while the node runs and removed when it stops.

use igd_next::aio::Gateway;
use igd_next::aio::tokio::{Tokio, search_gateway};
use igd_next::{PortMappingProtocol, SearchOptions};
use std::error::Error;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

/// Interval of renewals, as in the reference: a restarted router has forgotten the mapping.
const RENEW_INTERVAL: Duration = Duration::from_secs(120);

/// Lifetime of a mapping that is not renewed, for a node that was killed. Some routers answer slowly, so that several
/// renewals may fail.
const LEASE: Duration = Duration::from_secs(600);

/// Timeout of the search for a gateway.
const SEARCH_TIMEOUT: Duration = Duration::from_secs(5);

/// Maximum time that a stopping node waits for the mapping's removal.
const REMOVE_TIMEOUT: Duration = Duration::from_secs(1);

/// Name of the mapping in the router's pages.
const DESCRIPTION: &str = "P2Pool";

/// Multicast group on which gateways listen for searches.
const GROUP: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(239, 255, 255, 250)), 1900);

/// Keeps `port` mapped to this machine until `stop`; silent where there is no gateway.
pub async fn run(port: u16, stop: CancellationToken) {
    run_with(
        port,
        Search { group: GROUP, bind: SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0), is_here: false },
        stop,
    )
    .await;
}

/// Parameters of the search for a gateway.
#[derive(Debug, Clone, Copy)]
struct Search {
    group: SocketAddr,
    bind: SocketAddr,
    /// Set if the gateway runs on this machine, as in tests.
    is_here: bool,
}

async fn run_with(port: u16, search: Search, stop: CancellationToken) {
    let mut mapped: Option<Mapping> = None;
    loop {
        let renewed = stop.run_until_cancelled(map(port, search)).await;
        match renewed {
            None => break,
            Some(Ok(mapping)) => {
                if mapped.is_none() {
                    info!(router = %mapping.gateway.addr, port, local = %mapping.local, "the router lets peers in");
                }
                mapped = Some(mapping);
            }
            // The mapping may still exist: try to remove it at the end.
            Some(Err(error)) => debug!(error = error.as_ref(), "no port mapping by UPnP"),
        }
        if stop.run_until_cancelled(sleep(RENEW_INTERVAL)).await.is_none() {
            break;
        }
    }
    if let Some(mapping) = mapped {
        let removal = mapping.gateway.remove_port(PortMappingProtocol::TCP, port);
        match timeout(REMOVE_TIMEOUT, removal).await {
            Ok(Ok(())) => debug!(port, "port mapping removed"),
            Ok(Err(error)) => debug!(%error, port, "port mapping not removed"),
            Err(_) => debug!(port, "port mapping not removed in time"),
        }
    }
}

#[derive(Debug)]
struct Mapping {
    gateway: Gateway<Tokio>,
    local: SocketAddr,
}

async fn map(port: u16, search: Search) -> Result<Mapping, Box<dyn Error + Send + Sync>> {
    let mut options = SearchOptions::default();
    options.bind_addr = search.bind;
    options.broadcast_address = search.group;
    options.timeout = Some(SEARCH_TIMEOUT);
    if search.is_here {
        options.allowed_gateway_ips.push(Ipv4Addr::LOCALHOST.into());
    }
    let gateway = search_gateway(options).await?;
    let local = SocketAddr::new(local_address(gateway.addr).await?, port);
    let lease = u32::try_from(LEASE.as_secs()).expect("some minutes");
    // Never a port of the router's choice: we announce ours to peers.
    gateway.add_port(PortMappingProtocol::TCP, port, local, lease, DESCRIPTION).await?;
    Ok(Mapping { gateway, local })
}

/// This machine's address as seen by `gateway`. Sends nothing.
async fn local_address(gateway: SocketAddr) -> io::Result<IpAddr> {
    let unspecified: IpAddr = if gateway.is_ipv6() { [0_u16; 8].into() } else { [0, 0, 0, 0].into() };
    let socket = UdpSocket::bind((unspecified, 0)).await?;
    socket.connect(gateway).await?;
    Ok(socket.local_addr()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::mpsc;

    /// A router on this machine: answers the search, describes itself, and reports the requested actions.
    struct Router {
        search: Search,
        asked: mpsc::UnboundedReceiver<String>,
    }

    impl Router {
        async fn start() -> Self {
            let search_socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let pages = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let location = format!("http://{}/root.xml", pages.local_addr().unwrap());
            let group = search_socket.local_addr().unwrap();
            tokio::spawn(async move {
                let mut request = [0; 2048];
                while let Ok((_, from)) = search_socket.recv_from(&mut request).await {
                    let answer = format!(
                        "HTTP/1.1 200 OK\r\nST: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\nLOCATION: \
                         {location}\r\n\r\n"
                    );
                    let _ = search_socket.send_to(answer.as_bytes(), from).await;
                }
            });
            let (sender, asked) = mpsc::unbounded_channel();
            let sender = Arc::new(sender);
            tokio::spawn(async move {
                while let Ok((stream, _)) = pages.accept().await {
                    tokio::spawn(serve(stream, sender.clone()));
                }
            });
            Self { search: Search { group, bind: "127.0.0.1:0".parse().unwrap(), is_here: true }, asked }
        }

        async fn next(&mut self) -> String {
            timeout(Duration::from_secs(10), self.asked.recv()).await.expect("the router is asked").unwrap()
        }
    }

    const ROOT: &str = "<root><device><deviceType>urn:schemas-upnp-org:device:InternetGatewayDevice:1</deviceType>\
        <deviceList><device><deviceList><device><serviceList><service><serviceType>urn:schemas-upnp-org:service:\
        WANIPConnection:1</serviceType><controlURL>/control</controlURL><SCPDURL>/scpd.xml</SCPDURL></service>\
        </serviceList></device></deviceList></device></deviceList></device></root>";

    fn scpd() -> String {
        let argument = |name: &str| format!("<argument><name>{name}</name><direction>in</direction></argument>");
        let action = |name: &str, arguments: &[&str]| {
            let arguments: String = arguments.iter().map(|name| argument(name)).collect();
            format!("<action><name>{name}</name><argumentList>{arguments}</argumentList></action>")
        };
        let common = ["NewRemoteHost", "NewExternalPort", "NewProtocol"];
        let more =
            ["NewInternalPort", "NewInternalClient", "NewEnabled", "NewPortMappingDescription", "NewLeaseDuration"];
        let add: Vec<&str> = common.iter().chain(&more).copied().collect();
        let (add, delete) = (action("AddPortMapping", &add), action("DeletePortMapping", &common));
        format!("<scpd><actionList>{add}{delete}</actionList></scpd>")
    }

    async fn serve(mut stream: TcpStream, asked: Arc<mpsc::UnboundedSender<String>>) {
        let mut request = Vec::new();
        let text = loop {
            if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
                return;
            }
            let text = String::from_utf8_lossy(&request).into_owned();
            if text.starts_with("GET") && text.ends_with("\r\n\r\n") || text.contains("Envelope>") {
                break text;
            }
        };
        let body = if text.starts_with("GET /root.xml") {
            ROOT.to_owned()
        } else if text.starts_with("GET /scpd.xml") {
            scpd()
        } else {
            let action = if text.contains("AddPortMapping") { "AddPortMapping" } else { "DeletePortMapping" };
            let _ = asked.send(text);
            format!(
                "<s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\"><s:Body><u:{action}Response \
                 xmlns:u=\"urn:schemas-upnp-org:service:WANIPConnection:1\"/></s:Body></s:Envelope>"
            )
        };
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
        let _ = stream.write_all((head + &body).as_bytes()).await;
    }

    #[tokio::test]
    async fn a_router_maps_the_port_for_some_minutes_and_forgets_it_at_the_end() {
        let mut router = Router::start().await;
        let stop = CancellationToken::new();
        let mapper = tokio::spawn(run_with(9333, router.search, stop.clone()));
        let added = router.next().await;
        for part in [
            "AddPortMapping",
            "<NewExternalPort>9333</NewExternalPort>",
            "<NewInternalPort>9333</NewInternalPort>",
            "<NewInternalClient>127.0.0.1</NewInternalClient>",
            "<NewProtocol>TCP</NewProtocol>",
            "<NewLeaseDuration>600</NewLeaseDuration>",
        ] {
            assert!(added.contains(part), "{part} is missing in {added}");
        }
        // The answer is on its way.
        sleep(Duration::from_millis(200)).await;
        stop.cancel();
        let removed = router.next().await;
        assert!(removed.contains("DeletePortMapping"), "{removed}");
        assert!(removed.contains("<NewExternalPort>9333</NewExternalPort>"), "{removed}");
        mapper.await.unwrap();
    }

    #[tokio::test]
    async fn without_a_router_it_ends_at_once_when_the_node_does() {
        let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let search =
            Search { group: silent.local_addr().unwrap(), bind: "127.0.0.1:0".parse().unwrap(), is_here: true };
        let stop = CancellationToken::new();
        let mapper = tokio::spawn(run_with(9333, search, stop.clone()));
        sleep(Duration::from_millis(50)).await;
        stop.cancel();
        timeout(Duration::from_secs(1), mapper).await.unwrap().unwrap();
    }
}
