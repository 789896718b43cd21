//! Hosts connected by a network that is as slow, lossy or partitioned as a test wants: network namespaces, whose
//! packets pass through this process.
//!
//! The kernel's own emulation (`tc netem`) is a module that not every machine has. Here each host has a TUN device; a
//! thread reads its packets, and another delivers them to the destination's device when they are due.

use std::collections::BinaryHeap;
use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tappers::{DeviceState, Interface, Tun};

use crate::namespace::Namespace;

/// Sleep of a reader without packets: far below any delay that a test sets.
const IDLE: Duration = Duration::from_micros(500);

/// Maximum size of a packet, in bytes.
const PACKET_BYTES_MAX: usize = 1500;

/// Maximum number of packets in transit; more are lost, as in a router.
const PACKETS_MAX: usize = 20_000;

/// Hosts, and the network between them.
#[derive(Debug)]
pub struct Internet {
    hosts: Vec<Namespace>,
    wire: Arc<Wire>,
}

#[derive(Debug)]
struct Wire {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    delay: Duration,
    loss: f64,
    /// Part of the network that each host is in.
    parts: Vec<usize>,
    under_way: BinaryHeap<Packet>,
    /// Number of packets so far, which orders those of one moment.
    count: u64,
    lost: u64,
    is_over: bool,
}

/// A packet in transit. The earliest is the greatest.
#[derive(Debug, PartialEq, Eq)]
struct Packet {
    due: Instant,
    number: u64,
    to: usize,
    bytes: Vec<u8>,
}

impl Ord for Packet {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.due, other.number).cmp(&(self.due, self.number))
    }
}

impl PartialOrd for Packet {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Internet {
    /// Creates `hosts` hosts, at first without delay or loss. `None` where the tests' user has opted out of namespaces.
    pub fn new(hosts: usize) -> Option<Self> {
        let hosts: Vec<Namespace> = (0..hosts).map(|_| Namespace::new()).collect::<Option<_>>()?;
        let state = State {
            delay: Duration::ZERO,
            loss: 0.0,
            parts: vec![0; hosts.len()],
            under_way: BinaryHeap::new(),
            count: 0,
            lost: 0,
            is_over: false,
        };
        let wire = Arc::new(Wire { state: Mutex::new(state), changed: Condvar::new() });
        let devices: Vec<Arc<Tun>> =
            hosts.iter().enumerate().map(|(host, namespace)| Arc::new(device(namespace, host))).collect();
        for (host, device) in devices.iter().enumerate() {
            let (wire, device) = (Arc::clone(&wire), Arc::clone(device));
            std::thread::spawn(move || wire.read(host, &device));
        }
        let for_courier = Arc::clone(&wire);
        std::thread::spawn(move || for_courier.deliver(&devices));
        Some(Self { hosts, wire })
    }

    /// Address of a host, each in another /16.
    pub fn address(&self, host: usize) -> Ipv4Addr {
        address_of(host)
    }

    /// Runs `action` on a thread of a host. Sockets it opens and processes it starts stay there.
    pub fn on<T: Send>(&self, host: usize, action: impl FnOnce() -> T + Send) -> T {
        self.hosts[host].enter(action)
    }

    /// Sets the one-way delay of packets, and the fraction lost.
    pub fn set(&self, delay: Duration, loss: f64) {
        let mut state = self.wire.lock();
        (state.delay, state.loss) = (delay, loss);
    }

    /// Lets packets pass only between hosts with the same number in `parts`.
    pub fn split(&self, parts: &[usize]) {
        assert_eq!(parts.len(), self.hosts.len(), "one number for each host");
        self.wire.lock().parts = parts.to_vec();
    }

    /// Lets packets pass between all hosts again.
    pub fn join(&self) {
        self.wire.lock().parts.fill(0);
    }

    /// Number of packets so far, and of lost ones.
    pub fn packets(&self) -> (u64, u64) {
        let state = self.wire.lock();
        (state.count, state.lost)
    }
}

impl Drop for Internet {
    fn drop(&mut self) {
        self.wire.lock().is_over = true;
        self.wire.changed.notify_all();
    }
}

impl Wire {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code panics while it holds this lock")
    }

    /// Reads a host's packets until the end.
    fn read(&self, host: usize, device: &Tun) {
        let mut buffer = [0; PACKET_BYTES_MAX];
        loop {
            match device.recv(&mut buffer) {
                Ok(count) => self.take(host, &buffer[..count]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                    if self.lock().is_over {
                        return;
                    }
                    std::thread::sleep(IDLE);
                }
                Err(_) => return,
            }
        }
    }

    fn take(&self, from: usize, bytes: &[u8]) {
        // Anything but IPv4 is the kernel looking for neighbours and routers, of which there are none.
        let Some(to) = destination(bytes) else { return };
        let mut state = self.lock();
        if to >= state.parts.len() {
            return;
        }
        state.count += 1;
        let is_lost = state.parts[from] != state.parts[to]
            || state.under_way.len() >= PACKETS_MAX
            || fastrand::f64() < state.loss;
        if is_lost {
            state.lost += 1;
            return;
        }
        let (due, number) = (Instant::now() + state.delay, state.count);
        state.under_way.push(Packet { due, number, to, bytes: bytes.to_vec() });
        drop(state);
        self.changed.notify_all();
    }

    /// Delivers packets until the end.
    fn deliver(&self, devices: &[Arc<Tun>]) {
        let mut state = self.lock();
        while !state.is_over {
            let now = Instant::now();
            let wait = match state.under_way.peek() {
                Some(next) if next.due <= now => {
                    let packet = state.under_way.pop().expect("it was there");
                    // A full device loses it.
                    let _ = devices[packet.to].send(&packet.bytes);
                    continue;
                }
                Some(next) => next.due - now,
                None => Duration::from_secs(1),
            };
            state = self.changed.wait_timeout(state, wait).expect("no code panics while it holds this lock").0;
        }
    }
}

fn address_of(host: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, u8::try_from(host + 1).expect("a test has few hosts"), 0, 1)
}

/// Destination host of an IPv4 packet.
fn destination(packet: &[u8]) -> Option<usize> {
    let address = (packet.first()? >> 4 == 4).then(|| packet.get(16..20))??;
    (address[0] == 10 && address[1] > 0).then(|| usize::from(address[1]) - 1)
}

/// Creates a host's network device.
fn device(namespace: &Namespace, host: usize) -> Tun {
    let name = Interface::new("net0").expect("a name that an interface can have");
    let mut device = namespace
        .enter(|| Tun::new_named(name))
        .unwrap_or_else(|error| panic!("/dev/net/tun, which the tests' network between hosts needs: {error}"));
    device.set_nonblocking(true).expect("a device has this option");
    namespace.enter(|| device.set_state(DeviceState::Up)).expect("it is ours");
    namespace.ip(&["address", "add", &format!("{}/8", address_of(host)), "dev", "net0"]);
    device
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn hosts_reach_each_other_as_slowly_and_as_far_as_they_are_let() {
        let Some(internet) = Internet::new(2) else { return };
        let there = (internet.address(1), 2000);
        let listener = internet.on(1, || TcpListener::bind(there)).expect("the address is the host's");
        internet.set(Duration::from_millis(60), 0.0);
        let start = Instant::now();
        let mut stream = internet.on(0, || TcpStream::connect(there)).expect("the hosts are connected");
        // There and back.
        assert!(start.elapsed() >= Duration::from_millis(120), "it took {:?}", start.elapsed());
        assert!(start.elapsed() < Duration::from_millis(900), "it took {:?}", start.elapsed());
        let (mut accepted, from) = listener.accept().expect("it was connected");
        assert_eq!(from.ip(), internet.address(0));

        internet.set(Duration::from_millis(5), 0.1);
        let (sent, mut received) = (vec![7; 200_000], Vec::new());
        let for_writer = sent.clone();
        let writer = std::thread::spawn(move || stream.write_all(&for_writer));
        accepted.read_to_end(&mut received).expect("the writer ends");
        writer.join().expect("it does not panic").expect("all was sent");
        assert_eq!(received, sent);
        assert!(internet.packets().1 > 0, "nothing was lost");

        internet.set(Duration::ZERO, 0.0);
        internet.split(&[0, 1]);
        let limit = Duration::from_millis(500);
        assert!(internet.on(0, || TcpStream::connect_timeout(&there.into(), limit)).is_err());
        internet.join();
        assert!(internet.on(0, || TcpStream::connect_timeout(&there.into(), Duration::from_secs(5))).is_ok());
    }
}
