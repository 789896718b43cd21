//! Ports for miners and for pages, and the servers behind each of them.

use anyhow::{Context, Result};
use axum::Router;
use ipnet::IpNet;
use std::net::SocketAddr;
use std::sync::Arc;
use stratum::getwork::GetworkServer;
use stratum::server::Server;
use stratum::v1::session;
use stratum::{Solution, Tallies};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::front::getwork::Getwork;
use crate::front::{self, Access, Front, OpenPage, Tls};
use crate::runtime::data_dir::DataDir;
use crate::runtime::sockets::Port;
use crate::runtime::tasks::Tasks;
use crate::runtime::users::Users;
use crate::view::http::{Budgets, Checker, Hosts, Http, Login, Readers};
use crate::work::{Ticket, WorkSet};

/// Ports, and what holds for all of them.
#[derive(Debug)]
pub struct Ports {
    /// Ports for miners, and what each requires.
    pub miners: Vec<(Port, Access)>,
    /// Port for pages and metrics; without one the miners' ports serve them.
    pub web: Option<Port>,
    /// Enables TLS on all ports.
    pub tls: Option<Tls>,
    /// Trusted proxies.
    pub proxies: Vec<IpNet>,
    /// Networks whose connections are neither limited nor closed for others.
    pub trusted: Vec<IpNet>,
    /// Users that may see pages; `None` for all readers.
    pub web_users: Option<Users>,
    /// Pages for all readers although others need a password.
    pub web_open: Vec<OpenPage>,
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
    /// Routes for polling miners of a port with `access`.
    fn polling(&self, access: &Access, stop: CancellationToken) -> Router {
        let Self { server, session, work, solutions, tallies, is_sha256d } = self;
        let vardiff = access.policy.session(*session).vardiff;
        let exempts_loopback = server.admission().limits().exempts_loopback;
        let desk = GetworkServer::new(vardiff, server.extranonces().clone(), tallies.clone(), exempts_loopback);
        let desk = desk.expect("there are more extranonces than ports");
        let desk = desk.with_difficulty_scale(session.difficulty_scale);
        let meters = server.meters().clone();
        let (work, solutions) = (work.clone(), solutions.clone());
        let getwork = Getwork::new(desk, *is_sha256d, work, solutions, meters, exempts_loopback, stop);
        let getwork = getwork.hashing_with(server.hashers().clone());
        Arc::new(getwork.for_users_of(access.gatekeeper())).router()
    }
}

impl Ports {
    /// Reads the TLS certificate and the users, and opens the ports of `config`.
    ///
    /// # Errors
    /// A port is taken, or the certificate, its key or a file of users is unusable.
    pub fn open(config: &front::Config, data_dir: &DataDir) -> Result<Self> {
        let tls = config.tls.as_ref().map(Tls::read).transpose().context("cannot speak TLS")?;
        let open = |address: SocketAddr, who| {
            Port::open(address, data_dir).with_context(|| format!("cannot listen for {who} on {address}"))
        };
        let miners = config.miners.iter().map(|port| Ok((open(port.address, "miners")?, port.access()?)));
        let miners = miners.collect::<Result<_>>()?;
        let web_users = config.web_users.as_deref().map(Users::read).transpose()?;
        let web = config.web.map(|address| open(address, "readers of pages")).transpose()?;
        let (proxies, trusted, web_open) = (config.proxies.clone(), config.trusted.clone(), config.web_open.clone());
        Ok(Self { miners, web, tls, proxies, trusted, web_users, web_open })
    }

    /// Readers of pages: limited, if not from this machine and `exempts_loopback`, and asked for passwords if the
    /// operator wants that.
    pub(super) fn readers(&self, exempts_loopback: bool) -> Readers {
        let login = self.web_users.clone().map(|users| Login {
            checker: Checker(Arc::new(move |name, password, client| {
                let users = users.clone();
                Box::pin(async move { users.check(&[&name], &password, client).await })
            })),
            opens_metrics: self.web_open.contains(&OpenPage::Metrics),
            opens_health: self.web_open.contains(&OpenPage::Health),
        });
        Readers { budgets: Some(Budgets::new(exempts_loopback)), login }
    }

    /// Listens for miners, and for readers of `pages`; browsers know this node by `hosts`.
    pub(super) fn listen(self, mining: &Mining, pages: Router, hosts: &Hosts, tasks: &Tasks) {
        let users = self.miners.iter().filter_map(|(_, access)| access.users.clone()).chain(self.web_users.clone());
        for users in users {
            tasks.spawn("users", users.keep_current(tasks.stop_signal()));
        }
        let Self { miners, web, tls, proxies, .. } = self;
        let miners_see_pages = web.is_none();
        let front = |stratum: Option<_>, router, access: Access| {
            let has_pages = stratum.is_none() || miners_see_pages;
            Arc::new(Front {
                admission: mining.server.admission().clone(),
                stratum,
                http: Http::at(hosts.clone(), router, tasks.stop_signal()),
                has_pages,
                tls: tls.clone(),
                proxies: proxies.clone(),
                service: access.service(mining.session),
                networks: access.networks,
            })
        };
        for (port, access) in miners {
            let mut router = mining.polling(&access, tasks.stop_signal());
            if miners_see_pages {
                router = router.merge(pages.clone());
            }
            let front = front(Some(mining.server.clone()), router, access);
            tasks.spawn("listen", front::run(port, front, tasks.stop_signal()));
        }
        if let Some(port) = web {
            let front = front(None, pages, Access::default());
            tasks.spawn("listen for pages", front::run(port, front, tasks.stop_signal()));
        }
    }
}
