//! Ports for miners and for pages, and the servers behind each of them.

use anyhow::{Context, Result};
use axum::Router;
use ipnet::IpNet;
use std::net::SocketAddr;
use std::sync::Arc;
use stratum::getwork::GetworkServer;
use stratum::server::{PortPolicy, PortService, Server};
use stratum::v1::session;
use stratum::{Solution, Tallies};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::front::getwork::Getwork;
use crate::front::{self, Front, Tls};
use crate::runtime::data_dir::DataDir;
use crate::runtime::sockets::Port;
use crate::runtime::tasks::Tasks;
use crate::view::http::{Hosts, Http};
use crate::work::{Ticket, WorkSet};

/// Ports, and what holds for all of them.
#[derive(Debug)]
pub struct Ports {
    /// Ports for miners, and the policy of each.
    pub miners: Vec<(Port, PortPolicy)>,
    /// Port for pages and metrics; without one the miners' ports serve them.
    pub web: Option<Port>,
    /// Enables TLS on all ports.
    pub tls: Option<Tls>,
    /// Trusted proxies.
    pub proxies: Vec<IpNet>,
}

/// What serves the miners of all ports.
pub(super) struct Mining {
    pub(super) server: Arc<Server<WorkSet>>,
    /// Session settings where a port has no others.
    pub(super) session: session::Config,
    pub(super) work: watch::Receiver<Option<Arc<WorkSet>>>,
    pub(super) solutions: mpsc::Sender<Solution<Ticket>>,
    pub(super) tallies: Arc<Tallies>,
    /// Set when difficulty is that of SHA-256d hardware.
    pub(super) is_sha256d: bool,
}

impl Mining {
    /// Routes for polling miners of a port with `policy`.
    fn polling(&self, policy: PortPolicy, stop: CancellationToken) -> Router {
        let Self { server, session, work, solutions, tallies, is_sha256d } = self;
        let vardiff = policy.vardiff(session.vardiff);
        let exempts_loopback = server.admission().limits().exempts_loopback;
        let desk = GetworkServer::new(vardiff, server.extranonces().clone(), tallies.clone(), exempts_loopback);
        let desk = desk.expect("there are more extranonces than ports");
        let meters = server.meters().clone();
        let (work, solutions) = (work.clone(), solutions.clone());
        let getwork = Getwork::new(desk, *is_sha256d, work, solutions, meters, exempts_loopback, stop);
        Arc::new(getwork).router()
    }
}

impl Ports {
    /// Reads the TLS certificate and opens the ports of `config`.
    ///
    /// # Errors
    /// A port is taken, or the certificate or its key is unusable.
    pub fn open(config: &front::Config, data_dir: &DataDir) -> Result<Self> {
        let tls = config.tls.as_ref().map(Tls::read).transpose().context("cannot speak TLS")?;
        let open = |address: SocketAddr, who| {
            Port::open(address, data_dir).with_context(|| format!("cannot listen for {who} on {address}"))
        };
        let miners = config.miners.iter().map(|(address, policy)| Ok((open(*address, "miners")?, *policy)));
        let miners = miners.collect::<Result<_>>()?;
        let web = config.web.map(|address| open(address, "readers of pages")).transpose()?;
        Ok(Self { miners, web, tls, proxies: config.proxies.clone() })
    }

    /// Listens for miners, and for readers of `pages`; browsers know this node by `hosts`.
    pub(super) fn listen(self, mining: &Mining, pages: Router, hosts: &Hosts, tasks: &Tasks) {
        let Self { miners, web, tls, proxies } = self;
        let miners_see_pages = web.is_none();
        let front = |stratum: Option<_>, router, policy: PortPolicy| {
            let service = PortService::new(policy.session(mining.session), None);
            let http = Http::at(hosts.clone(), router, tasks.stop_signal());
            let has_pages = stratum.is_none() || miners_see_pages;
            Arc::new(Front {
                admission: mining.server.admission().clone(),
                stratum,
                http,
                has_pages,
                tls: tls.clone(),
                proxies: proxies.clone(),
                service,
            })
        };
        for (port, policy) in miners {
            let mut router = mining.polling(policy, tasks.stop_signal());
            if miners_see_pages {
                router = router.merge(pages.clone());
            }
            let front = front(Some(mining.server.clone()), router, policy);
            tasks.spawn("listen", front::run(port, front, tasks.stop_signal()));
        }
        if let Some(port) = web {
            let front = front(None, pages, PortPolicy::default());
            tasks.spawn("listen for pages", front::run(port, front, tasks.stop_signal()));
        }
    }
}
