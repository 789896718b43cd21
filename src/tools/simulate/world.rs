//! The simulated world: a clock, a queue of events, connections between agents, and randomness; everything follows from
//! one seed.

use sharechain::share::ShareHash;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fastrand::Rng;

use super::agent::Agent;
use super::exchange::{Command, Moment, Opened, Socket};
use super::miner::Miners;
use super::network::{Conditions, Pipe};
use super::node::Node;

/// Timeout of an unanswered dial.
const DIAL_TIMEOUT: Duration = Duration::from_secs(5);
/// Number of timeouts of one agent at one moment that counts as a loop.
const TIMEOUTS_MAX: u32 = 1000;
/// First source port of dials.
const EPHEMERAL_PORT: u16 = 32_768;

#[derive(Debug)]
enum Event {
    Dialled {
        agent: usize,
        from: SocketAddr,
        to: SocketAddr,
        latency: Duration,
    },
    Opened {
        agent: usize,
        opened: Opened,
    },
    Unreachable {
        agent: usize,
        address: SocketAddr,
    },
    Arrived {
        socket: Socket,
        bytes: Bytes,
    },
    /// The other end closed the connection.
    Closed {
        socket: Socket,
    },
    Timeout {
        agent: usize,
    },
    /// Ignored if mining has stopped since.
    FoundShare {
        season: u32,
    },
}

/// Queued event: ordered by time, then by its number in the queue.
#[derive(Debug)]
struct Queued {
    at: Duration,
    sequence: u64,
    event: Event,
}

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.sequence) == (other.at, other.sequence)
    }
}

impl Eq for Queued {}

impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Queued {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.sequence).cmp(&(other.at, other.sequence))
    }
}

#[derive(Debug)]
struct Connection {
    agents: [usize; 2],
    open: [bool; 2],
    /// One from each end to the other.
    pipes: [Pipe; 2],
    /// Held back until a partition heals: bytes, or the end of the stream, by the sending end.
    held: VecDeque<(usize, Option<Bytes>)>,
}

/// A share found by an agent.
#[derive(Debug, Clone)]
pub(super) struct FoundShare {
    pub(super) hash: ShareHash,
    pub(super) finder: usize,
    pub(super) at: Duration,
    /// Agents that accepted it, and their delays.
    pub(super) arrivals: Vec<(u32, Duration)>,
}

/// Traffic so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Traffic {
    pub(super) messages: u64,
    pub(super) bytes: u64,
    pub(super) connections: u64,
}

pub(super) struct World {
    base: Instant,
    unix: f64,
    elapsed: Duration,
    sequence: u64,
    queue: BinaryHeap<Reverse<Queued>>,
    agents: Vec<Box<dyn Agent>>,
    /// Time of each agent's queued timeout.
    due: Vec<Option<Duration>>,
    /// Number of timeouts of an agent at this moment.
    timeouts: (usize, Duration, u32),
    awake: Vec<bool>,
    addresses: HashMap<SocketAddr, usize>,
    connections: Vec<Connection>,
    ports: u16,
    conditions: Conditions,
    /// Side of a partition of each agent.
    sides: Option<Vec<usize>>,
    miners: Miners,
    mining: bool,
    /// Number of starts and stops of mining.
    season: u32,
    nonce: u32,
    found: Vec<FoundShare>,
    found_at: HashMap<ShareHash, usize>,
    traffic: Traffic,
    rng: Rng,
}

impl World {
    /// Creates an empty world that starts at `unix`. `rng` is the source of all randomness.
    pub(super) fn new(unix: f64, conditions: Conditions, miners: Miners, rng: Rng) -> Self {
        Self {
            base: Instant::now(),
            unix,
            elapsed: Duration::ZERO,
            sequence: 0,
            queue: BinaryHeap::new(),
            agents: Vec::new(),
            due: Vec::new(),
            timeouts: (0, Duration::ZERO, 0),
            awake: Vec::new(),
            addresses: HashMap::new(),
            connections: Vec::new(),
            ports: EPHEMERAL_PORT,
            conditions,
            sides: None,
            miners,
            mining: false,
            season: 0,
            nonce: 0,
            found: Vec::new(),
            found_at: HashMap::new(),
            traffic: Traffic::default(),
            rng,
        }
    }

    /// Adds a sleeping agent that listens on these addresses.
    pub(super) fn add(&mut self, agent: Box<dyn Agent>, addresses: impl IntoIterator<Item = SocketAddr>) -> usize {
        let index = self.agents.len();
        self.agents.push(agent);
        self.due.push(None);
        self.awake.push(false);
        self.addresses.extend(addresses.into_iter().map(|address| (address, index)));
        index
    }

    /// Replaces an agent that has not been woken.
    pub(super) fn replace(&mut self, index: usize, agent: Box<dyn Agent>) {
        self.agents[index] = agent;
    }

    /// Handles the commands of an agent after interference.
    pub(super) fn touch(&mut self, agent: usize) {
        self.settle(agent);
    }

    /// Starts a new list of found shares.
    pub(super) fn forget_found(&mut self) {
        self.found.clear();
        self.found_at.clear();
    }

    /// Wakes an agent.
    pub(super) fn wake(&mut self, agent: usize) {
        self.awake[agent] = true;
        self.settle(agent);
    }

    pub(super) fn moment(&self) -> Moment {
        Moment { elapsed: self.elapsed, now: self.base + self.elapsed, unix: self.unix + self.elapsed.as_secs_f64() }
    }

    pub(super) fn agents(&self) -> impl Iterator<Item = &dyn Agent> {
        self.agents.iter().map(|agent| &**agent)
    }

    pub(super) fn node(&self, agent: usize) -> &Node {
        self.agents[agent].node()
    }

    pub(super) fn node_mut(&mut self, agent: usize) -> &mut Node {
        self.agents[agent].node_mut()
    }

    pub(super) fn found(&self) -> &[FoundShare] {
        &self.found
    }

    pub(super) fn traffic(&self) -> Traffic {
        self.traffic
    }

    /// Blocks traffic between agents of different sides, or none. Data in transit arrives, and data sent meanwhile is
    /// kept by the streams, as in TCP.
    pub(super) fn partition(&mut self, sides: Option<Vec<usize>>) {
        self.sides = sides;
        for index in 0..self.connections.len() {
            if self.is_cut(self.connections[index].agents) {
                continue;
            }
            for (end, bytes) in std::mem::take(&mut self.connections[index].held) {
                let socket = self.socket(index, end);
                self.transmit(socket, bytes);
            }
        }
    }

    /// Changes the hash rate of every agent.
    pub(super) fn share_out(&mut self, parts: &[f64]) {
        self.miners.share_out(parts);
    }

    /// Starts mining.
    pub(super) fn start_mining(&mut self) {
        if !self.mining {
            self.mining = true;
            self.season += 1;
            let (wait, _) = self.miners.next();
            self.enqueue(self.elapsed + wait, Event::FoundShare { season: self.season });
        }
    }

    /// Stops mining.
    pub(super) fn stop_mining(&mut self) {
        self.mining = false;
        self.season += 1;
    }

    /// Runs until `count` more shares were found, reporting the number so far to `progress`.
    pub(super) fn run_shares(&mut self, count: usize, progress: &mut dyn FnMut(usize)) {
        let goal = self.found.len() + count;
        self.start_mining();
        while self.found.len() < goal && self.step(Duration::MAX) {
            progress(self.found.len());
        }
        self.stop_mining();
    }

    /// Runs for `time`.
    pub(super) fn run_for(&mut self, time: Duration) {
        let until = self.elapsed + time;
        while self.step(until) {}
        self.elapsed = until;
    }

    /// Makes an agent find a share now.
    pub(super) fn find_now(&mut self, agent: usize) {
        self.nonce += 1;
        let at = self.moment();
        self.agents[agent].find(self.nonce, at);
        self.settle(agent);
    }

    fn step(&mut self, until: Duration) -> bool {
        if self.queue.peek().is_none_or(|Reverse(next)| next.at > until) {
            return false;
        }
        let Some(Reverse(Queued { at, event, .. })) = self.queue.pop() else { return false };
        self.elapsed = at;
        self.handle(event);
        true
    }

    fn handle(&mut self, event: Event) {
        let at = self.moment();
        match event {
            Event::Dialled { agent, from, to, latency } => self.answer(agent, from, to, latency),
            Event::Opened { agent, opened } => {
                // The other end may have closed before this one saw the connection: that arrives next.
                self.agents[agent].connected(opened, at);
                self.settle(agent);
            }
            Event::Unreachable { agent, address } => {
                self.agents[agent].unreachable(address, at);
                self.settle(agent);
            }
            Event::Arrived { socket, bytes } => {
                if let Some(agent) = self.listener(socket) {
                    self.agents[agent].received(socket, &bytes, at);
                    self.settle(agent);
                }
            }
            Event::Closed { socket } => {
                if let Some(agent) = self.listener(socket) {
                    self.connections[socket.connection()].open[socket.end()] = false;
                    self.agents[agent].closed(socket, at);
                    self.settle(agent);
                }
            }
            Event::Timeout { agent } => {
                if self.due[agent] == Some(at.elapsed) {
                    self.due[agent] = None;
                    if self.timeouts.0 == agent && self.timeouts.1 == at.elapsed {
                        self.timeouts.2 += 1;
                        assert!(self.timeouts.2 < TIMEOUTS_MAX, "agent {agent} loops at {:?}", at.elapsed);
                    } else {
                        self.timeouts = (agent, at.elapsed, 0);
                    }
                    self.agents[agent].timeout(at);
                    self.settle(agent);
                }
            }
            Event::FoundShare { season } if season == self.season => {
                let (wait, finder) = self.miners.next();
                if self.awake[finder] {
                    self.find_now(finder);
                }
                self.enqueue(self.elapsed + wait, Event::FoundShare { season });
            }
            Event::FoundShare { .. } => {}
        }
    }

    /// Owner of this end, while it is open.
    fn listener(&self, socket: Socket) -> Option<usize> {
        let connection = &self.connections[socket.connection()];
        connection.open[socket.end()].then_some(connection.agents[socket.end()])
    }

    /// Executes an agent's commands, and queues its next timeout.
    fn settle(&mut self, agent: usize) {
        if !self.awake[agent] {
            return;
        }
        while let Some(command) = self.agents[agent].poll_command() {
            match command {
                Command::Dial { from, to } => self.dial(agent, from, to),
                Command::Send(socket, bytes) => self.transmit(socket, Some(bytes)),
                Command::Close(socket) => {
                    let open = &mut self.connections[socket.connection()].open[socket.end()];
                    if std::mem::replace(open, false) {
                        self.transmit(socket, None);
                    }
                }
                Command::Found(hash) => {
                    self.found_at.insert(hash, self.found.len());
                    self.found.push(FoundShare { hash, finder: agent, at: self.elapsed, arrivals: Vec::new() });
                }
                Command::Accepted(hash) => {
                    if let Some(found) = self.found_at.get(&hash).map(|index| &mut self.found[*index]) {
                        let agent = u32::try_from(agent).unwrap_or(u32::MAX);
                        found.arrivals.push((agent, self.elapsed - found.at));
                    }
                }
            }
        }
        if let Some(wanted) = self.agents[agent].poll_timeout() {
            let wanted = wanted.saturating_duration_since(self.base).max(self.elapsed);
            if self.due[agent].is_none_or(|due| wanted < due) {
                self.due[agent] = Some(wanted);
                self.enqueue(wanted, Event::Timeout { agent });
            }
        }
    }

    fn dial(&mut self, agent: usize, from: SocketAddr, to: SocketAddr) {
        let latency = self.conditions.draw(&mut self.rng);
        let cut = self.addresses.get(&to).is_none_or(|other| self.is_cut([agent, *other]));
        if cut {
            self.enqueue(self.elapsed + DIAL_TIMEOUT, Event::Unreachable { agent, address: to });
        } else {
            self.enqueue(self.elapsed + latency, Event::Dialled { agent, from, to, latency });
        }
    }

    /// Delivers a dial to the other side.
    fn answer(&mut self, agent: usize, from: SocketAddr, to: SocketAddr, latency: Duration) {
        let at = self.moment();
        self.ports = self.ports.checked_add(1).unwrap_or(EPHEMERAL_PORT);
        let from = SocketAddr::new(from.ip(), self.ports);
        let other = self.addresses.get(&to).copied().filter(|other| self.awake[*other]);
        let other = other.filter(|other| *other != agent && self.agents[*other].accepts(from, at));
        let Some(other) = other else {
            return self.enqueue(self.elapsed + latency, Event::Unreachable { agent, address: to });
        };
        let mut pipes = [Pipe::new(latency), Pipe::new(latency)];
        // Nothing overtakes the notice of the connection.
        pipes[1].arrival(0, self.elapsed, &Conditions { jitter: 0.0, loss: 0.0, ..self.conditions }, &mut self.rng);
        let index = self.connections.len();
        self.connections.push(Connection { agents: [agent, other], open: [true; 2], pipes, held: VecDeque::new() });
        self.traffic.connections += 1;
        let (near, far) = (self.socket(index, 0), self.socket(index, 1));
        let opened = Opened { socket: near, remote: to, local: from, is_outbound: true };
        self.enqueue(self.elapsed + latency, Event::Opened { agent, opened });
        self.agents[other].connected(Opened { socket: far, remote: from, local: to, is_outbound: false }, at);
        self.settle(other);
    }

    fn socket(&self, connection: usize, end: usize) -> Socket {
        let number = u32::try_from(connection * 2 + end).expect("connections are far fewer than 2^31");
        Socket(number)
    }

    /// Sends bytes, or the end of the stream.
    fn transmit(&mut self, socket: Socket, bytes: Option<Bytes>) {
        let (index, end) = (socket.connection(), socket.end());
        if self.is_cut(self.connections[index].agents) {
            self.connections[index].held.push_back((end, bytes));
            return;
        }
        let connection = &mut self.connections[index];
        if !connection.open[1 - end] {
            return;
        }
        let length = bytes.as_ref().map_or(0, Bytes::len);
        self.traffic.messages += 1;
        self.traffic.bytes += length as u64;
        let at = connection.pipes[end].arrival(length, self.elapsed, &self.conditions, &mut self.rng);
        let to = socket.other();
        let event = bytes.map_or(Event::Closed { socket: to }, |bytes| Event::Arrived { socket: to, bytes });
        self.enqueue(at, event);
    }

    fn is_cut(&self, agents: [usize; 2]) -> bool {
        self.sides.as_ref().is_some_and(|sides| sides[agents[0]] != sides[agents[1]])
    }

    fn enqueue(&mut self, at: Duration, event: Event) {
        self.sequence += 1;
        self.queue.push(Reverse(Queued { at, sequence: self.sequence, event }));
    }
}
