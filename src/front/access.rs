//! Access to a worker port: the networks that may connect, and the users that may mine.

use ipnet::IpNet;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use stratum::Refusal;
use stratum::server::{Check, Gatekeeper, PortPolicy, PortService};
use stratum::v1::session::{self, Credentials};

use crate::runtime::users::{Users, UsersError, Verdict};
use crate::work::username;

/// Configuration of a port for miners.
#[derive(Debug, Clone, PartialEq)]
pub struct MinerPort {
    /// Address to listen on.
    pub address: SocketAddr,
    /// Difficulties.
    pub policy: PortPolicy,
    /// Networks that may connect.
    pub networks: Networks,
    /// File of users that may mine; `None` for all.
    pub users: Option<PathBuf>,
}

impl MinerPort {
    /// A port at `address` that is open to all.
    pub fn at(address: SocketAddr) -> Self {
        Self { address, policy: PortPolicy::default(), networks: Networks::default(), users: None }
    }

    /// Reads the users.
    ///
    /// # Errors
    /// Their file is unusable.
    pub fn access(&self) -> Result<Access, UsersError> {
        let users = self.users.as_deref().map(Users::read).transpose()?;
        Ok(Access { policy: self.policy, networks: self.networks.clone(), users })
    }
}

/// Networks that may connect to a port.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Networks {
    /// Networks that may connect, unless denied; empty for all.
    pub allow: Vec<IpNet>,
    /// Networks that may not connect.
    pub deny: Vec<IpNet>,
}

impl Networks {
    /// True if `address` may connect.
    pub fn admits(&self, address: IpAddr) -> bool {
        let is_in = |networks: &[IpNet]| networks.iter().any(|network| network.contains(&address));
        !is_in(&self.deny) && (self.allow.is_empty() || is_in(&self.allow))
    }
}

/// What a port for miners requires and offers.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// Difficulties.
    pub policy: PortPolicy,
    /// Networks that may connect.
    pub networks: Networks,
    /// Users that may mine; `None` for all.
    pub users: Option<Users>,
}

impl Access {
    /// Check of the users, if there are any.
    pub fn gatekeeper(&self) -> Option<Arc<dyn Gatekeeper>> {
        let users = self.users.clone()?;
        Some(Arc::new(Passwords(users)))
    }

    /// Service of the port, whose sessions have the settings `session` besides its own.
    pub fn service(&self, session: session::Config) -> PortService {
        PortService::new(self.policy.session(session), self.gatekeeper())
    }
}

/// Admits the users of a file.
#[derive(Debug)]
struct Passwords(Users);

impl Passwords {
    async fn decide(&self, Credentials { name, password }: Credentials, source: IpAddr) -> Result<(), Refusal> {
        let accounts = username::accounts(&name);
        let password = username::without_difficulties(&password);
        let accounts: Vec<&str> = accounts.iter().map(String::as_str).collect();
        match self.0.check(&accounts, &password, source).await {
            Verdict::Accepted => Ok(()),
            Verdict::Refused => Err(Refusal("user name or password is wrong".to_owned())),
            Verdict::Busy => Err(Refusal("too many passwords are being checked; try again".to_owned())),
        }
    }
}

impl Gatekeeper for Passwords {
    fn check(&self, credentials: Credentials, source: IpAddr) -> Check<'_> {
        Box::pin(self.decide(credentials, source))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::front::{self, Front};
    use crate::runtime::sockets::{self, Port};
    use crate::view::http::Http;
    use crate::work::WorkSet;
    use axum::Router;
    use axum::routing::get;
    use std::time::Duration;
    use stratum::server::admission::{Admission, Limits};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio_util::sync::CancellationToken;

    /// Opens a port for these networks that trusts this machine as a proxy, and returns its address.
    fn open(networks: Networks, stop: &CancellationToken) -> SocketAddr {
        let listener = sockets::bind(([127, 0, 0, 1], 0).into()).unwrap();
        let address = listener.local_addr().unwrap();
        let front = Front::<WorkSet> {
            admission: Admission::new(Limits::default(), Vec::new(), stop.clone()),
            stratum: None,
            http: Http::new(Router::new().route("/", get(async || "welcome")), stop.clone()),
            has_pages: true,
            tls: None,
            proxies: vec!["127.0.0.1/32".parse().unwrap()],
            networks,
            service: Access::default().service(session::Config::default()),
        };
        tokio::spawn(front::run(Port::Open(listener), Arc::new(front), stop.clone()));
        address
    }

    /// What the port at `address` answers to `text`.
    async fn answer(address: SocketAddr, text: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = String::new();
        // Closing with unread bytes resets the connection.
        let read = tokio::time::timeout(Duration::from_secs(60), stream.read_to_string(&mut answer)).await;
        read.expect("it is closed").map_or_else(|_| String::new(), |_| answer)
    }

    #[tokio::test]
    async fn a_network_that_may_not_connect_is_not_served_and_a_proxy_passes_on_whose_connection_it_is() {
        let stop = CancellationToken::new();
        let address = open(networks(&["192.0.2.0/24", "127.0.0.1/32"], &["192.0.2.7/32"]), &stop);
        let page = "GET / HTTP/1.1\r\nHost: pool.example\r\nConnection: close\r\n\r\n";
        for (client, is_served) in [("192.0.2.1", true), ("192.0.2.7", false), ("198.51.100.1", false)] {
            let header = format!("PROXY TCP4 {client} 192.0.2.200 51234 9332\r\n");
            let answer = answer(address, &(header + page)).await;
            assert_eq!(answer.ends_with("welcome"), is_served, "{client}: {answer}");
            assert_eq!(answer.is_empty(), !is_served, "{client}: {answer}");
        }
        assert!(answer(address, page).await.ends_with("welcome"), "the proxy's own");
        let closed = open(networks(&[], &["127.0.0.0/8"]), &stop);
        assert_eq!(answer(closed, page).await, "");
        stop.cancel();
    }

    fn networks(allow: &[&str], deny: &[&str]) -> Networks {
        let parsed = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        Networks { allow: parsed(allow), deny: parsed(deny) }
    }

    #[test]
    fn a_port_without_lists_admits_all_and_one_with_an_allow_list_no_others() {
        let admits = |networks: &Networks, address: &str| networks.admits(address.parse().unwrap());
        let open = networks(&[], &[]);
        assert!(admits(&open, "192.0.2.1") && admits(&open, "2001:db8::1"));
        let site = networks(&["10.0.0.0/8", "2001:db8::/32"], &[]);
        assert!(admits(&site, "10.1.2.3") && admits(&site, "2001:db8::1"));
        assert!(!admits(&site, "192.0.2.1") && !admits(&site, "127.0.0.1") && !admits(&site, "2001:db9::1"));
    }

    #[test]
    fn what_is_denied_is_refused_although_it_is_allowed() {
        let most = networks(&["10.0.0.0/8"], &["10.9.0.0/16", "192.0.2.1/32"]);
        let admits = |address: &str| most.admits(address.parse().unwrap());
        assert!(admits("10.1.2.3"));
        assert!(!admits("10.9.2.3") && !admits("192.0.2.1"));
        assert!(networks(&[], &["192.0.2.1/32"]).admits("192.0.2.2".parse().unwrap()));
    }

    #[tokio::test]
    async fn a_miner_gives_the_password_of_its_worker_or_account_beside_its_difficulties() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        let hash = |password: &str| bcrypt::hash(password, 4).unwrap();
        std::fs::write(&path, format!("garage:{}\ngarage.own:{}\n", hash("one"), hash("two"))).unwrap();
        let gate = Passwords(Users::read(&path).unwrap());
        for (name, password, is_allowed) in [
            ("garage", "one", true),
            ("garage.rig1/1000+8", "one,d=8", true),
            ("garage_rig1", "one", true),
            ("garage.own", "two", true),
            ("garage_own+5", "two", true),
            ("garage.own", "one", false),
            ("garage", "two", false),
            ("garage", "", false),
            ("Garage", "one", false),
            ("*", "one", false),
        ] {
            let credentials = Credentials { name: name.into(), password: password.into() };
            let checked = gate.decide(credentials, [192, 0, 2, 1].into()).await;
            assert_eq!(checked.is_ok(), is_allowed, "{name} {password}: {checked:?}");
        }
    }
}
