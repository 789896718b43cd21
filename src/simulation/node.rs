//! One simulated node.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::forge::{self, Plan};
use super::agent::{Agent, Command, Moment, Opened, Socket};
use crate::network::Network;
use crate::share::{Share, ShareHash};
use crate::sharechain::{Event, Sharechain};

/// Between the choices that are made whatever happens.
const THINK_INTERVAL: Duration = Duration::from_secs(30);

/// A node.
pub(super) struct Node {
    payee: u32,
    chain: Sharechain,
    own: HashSet<ShareHash>,
    sockets: BTreeSet<Socket>,
    shared: HashSet<ShareHash>,
    dials: Vec<(SocketAddr, SocketAddr)>,
    think_at: Option<Instant>,
    commands: VecDeque<Command>,
}

impl Node {
    pub(super) fn new(network: &'static Network, payee: u32, dials: Vec<(SocketAddr, SocketAddr)>) -> Self {
        let commands = dials.iter().map(|(from, to)| Command::Dial { from: *from, to: *to }).collect();
        Self {
            payee,
            chain: Sharechain::new(network),
            own: HashSet::new(),
            sockets: BTreeSet::new(),
            shared: HashSet::new(),
            dials,
            think_at: None,
            commands,
        }
    }

    pub(super) fn chain(&self) -> &Sharechain {
        &self.chain
    }

    /// Starts with these shares.
    pub(super) fn load(&mut self, shares: &[Arc<Share>], unix: f64) {
        for share in shares {
            self.chain.load(Arc::clone(share), true);
            self.shared.insert(share.hash());
        }
        self.chain.think(unix);
        while self.chain.poll_event().is_some() {}
    }

    fn think(&mut self, at: Moment, source: Option<Socket>) {
        self.chain.think(at.unix);
        let mut changed = false;
        while let Some(event) = self.chain.poll_event() {
            match event {
                Event::Verified(hash) => self.commands.push_back(Command::Accepted(hash)),
                Event::TipChanged(_) => changed = true,
                _ => {}
            }
        }
        if !changed {
            return;
        }
        let Some(best) = self.chain.choice().best else { return };
        let mut bytes = Vec::new();
        let news: Vec<ShareHash> = self.chain.all().chain(best, 5).take_while(|hash| !self.shared.contains(hash)).collect();
        for hash in news {
            self.shared.insert(hash);
            let share = self.chain.share(hash).expect("here").to_bytes();
            bytes.extend_from_slice(&u32::try_from(share.len()).expect("small").to_le_bytes());
            bytes.extend_from_slice(&share);
        }
        let bytes = Bytes::from(bytes);
        for socket in &self.sockets {
            if Some(*socket) != source {
                self.commands.push_back(Command::Send(*socket, bytes.clone()));
            }
        }
    }
}

impl Agent for Node {
    fn accepts(&mut self, _: SocketAddr, _: Moment) -> bool {
        true
    }

    fn connected(&mut self, opened: Opened, at: Moment) {
        self.think_at.get_or_insert(at.now + THINK_INTERVAL);
        self.sockets.insert(opened.socket);
    }

    fn unreachable(&mut self, _: SocketAddr, _: Moment) {}

    fn received(&mut self, socket: Socket, bytes: &[u8], at: Moment) {
        let mut rest = bytes;
        let mut shares = Vec::new();
        while let Some((length, after)) = rest.split_first_chunk::<4>() {
            let (share, after) = after.split_at(u32::from_le_bytes(*length) as usize);
            rest = after;
            shares.push(Share::from_bytes(share, self.chain.rules()).expect("good"));
        }
        let mut new = false;
        for share in shares.into_iter().rev() {
            new |= self.chain.add(Arc::new(share), None, at.unix);
        }
        if new {
            self.think(at, Some(socket));
        }
    }

    fn closed(&mut self, socket: Socket, _: Moment) {
        self.sockets.remove(&socket);
    }

    fn timeout(&mut self, at: Moment) {
        if self.think_at.is_some_and(|when| when <= at.now) {
            self.think_at = Some(at.now + THINK_INTERVAL);
            self.chain.prune(at.unix);
            self.think(at, None);
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.think_at
    }

    fn poll_command(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }

    fn find(&mut self, nonce: u32, at: Moment) {
        let best = self.chain.choice().best;
        let stale_info = self.chain.own().next_stale_info();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a time since 1970")]
        let timestamp = at.unix as u32;
        let plan = Plan { payee: self.payee, timestamp, stale_info, nonce, ..Plan::default() };
        let share = forge::share_on(&mut self.chain, best, &plan);
        self.commands.push_back(Command::Found(share.hash()));
        self.own.insert(share.hash());
        self.chain.add_own(share, false, at.unix);
        self.think(at, None);
    }

    fn node(&self) -> &Node {
        self
    }
}
