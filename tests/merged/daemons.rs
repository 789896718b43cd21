//! Daemons of merged chains, in the test's own process.

use bitcoin::hashes::{Hash, sha256d};
use bitcoin::{BlockHash, CompactTarget, Target};
use p2pool::embedded::auxiliary::proof::ParentPow;
use p2pool::embedded::auxiliary::{Bits, Config, Daemon, Faults};
use p2pool::runtime::secret::Secret;
use p2pool::runtime::tasks::Tasks;
use test_support::wait_until;

use crate::LIMIT;

/// The daemons, and the runtime that they run on.
pub(crate) struct Auxes {
    runtime: tokio::runtime::Runtime,
    tasks: Tasks,
}

/// One daemon.
pub(crate) struct Aux {
    name: String,
    daemon: Daemon,
    handle: tokio::runtime::Handle,
}

impl Auxes {
    pub(crate) fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        Self { runtime, tasks: Tasks::new() }
    }

    /// Starts a daemon like Namecoin's for a chain whose parent is Bitcoin.
    pub(crate) fn start(&self, name: &str, chain_id: u16, bits: u32) -> Aux {
        let mut config = Config::namecoin();
        config.rules.chain_id = chain_id;
        config.rules.bits = Bits::Fixed(CompactTarget::from_consensus(bits));
        self.start_with(name, config)
    }

    /// Starts a daemon like Dogecoin's for a chain whose parent has `parent_pow`.
    pub(crate) fn start_dogecoin(&self, parent_pow: ParentPow, bits: u32) -> Aux {
        let mut config = Config::dogecoin();
        config.rules.parent_pow = parent_pow;
        config.rules.bits = Bits::Fixed(CompactTarget::from_consensus(bits));
        self.start_with("dogecoin", config)
    }

    /// Starts a daemon with any settings.
    pub(crate) fn start_with(&self, name: &str, config: Config) -> Aux {
        let _inside = self.runtime.enter();
        let password = Secret::new(format!("secret-of-{name}"));
        let config = Config { name: name.to_owned(), password, ..config };
        let daemon = Daemon::start(config, &self.tasks).unwrap();
        Aux { name: name.to_owned(), daemon, handle: self.runtime.handle().clone() }
    }

    /// Commitment to the blocks that these daemons have created: the root, and the tree's size. By the published rule,
    /// with no code of the node.
    pub(crate) fn commitment(chains: &[&Aux]) -> ([u8; 32], u32) {
        let (size, slots) = (0..12)
            .map(|level| 1_u32 << level)
            .find_map(|size| {
                let slots: Vec<u32> = chains.iter().map(|chain| slot(chain.chain_id(), size)).collect();
                let distinct: std::collections::BTreeSet<&u32> = slots.iter().collect();
                (distinct.len() == slots.len()).then_some((size, slots))
            })
            .unwrap();
        let mut level = vec![[0; 32]; usize::try_from(size).unwrap()];
        for (chain, slot) in chains.iter().zip(slots) {
            level[usize::try_from(slot).unwrap()] = chain.created().to_byte_array();
        }
        while level.len() > 1 {
            let pairs = level.chunks_exact(2);
            level = pairs.map(|pair| sha256d::Hash::hash(&pair.concat()).to_byte_array()).collect();
        }
        level[0].reverse();
        (level[0], size)
    }
}

/// Slot of a chain in a tree: two steps of a linear congruential generator that starts at the commitment's nonce, 0.
fn slot(chain_id: u16, size: u32) -> u32 {
    let step = |number: u32| number.wrapping_mul(1_103_515_245).wrapping_add(12_345);
    step(step(0).wrapping_add(u32::from(chain_id))) % size
}

impl Aux {
    /// Name that the node has for it.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Value of `--merged`.
    pub(crate) fn option(&self) -> String {
        format!("{},address={},name={}", self.daemon.url_with_login(), self.payee(), self.name)
    }

    fn chain_id(&self) -> u16 {
        self.daemon.config().rules.chain_id
    }

    /// Payee of its blocks.
    pub(crate) fn payee(&self) -> String {
        self.daemon.config().address_of("operator")
    }

    /// The daemon.
    pub(crate) fn daemon(&self) -> &Daemon {
        &self.daemon
    }

    pub(crate) fn faults(&self) -> &Faults {
        self.daemon.faults()
    }

    pub(crate) fn height(&self) -> u32 {
        self.daemon.chain(|chain, _| chain.tip().height)
    }

    pub(crate) fn tip(&self) -> BlockHash {
        self.daemon.chain(|chain, _| chain.tip().hash)
    }

    /// Target of its next block.
    pub(crate) fn target(&self) -> Target {
        match self.daemon.config().rules.bits {
            Bits::Fixed(bits) => bits.into(),
            Bits::Adaptive { .. } => panic!("tests use fixed bits"),
        }
    }

    /// Hash of the block that it has created for the operator.
    pub(crate) fn created(&self) -> BlockHash {
        let script = self.daemon.config().script_of("operator");
        self.daemon.chain(|chain, now| chain.create(&script, now).hash)
    }

    /// Has another miner find blocks.
    pub(crate) fn mine(&self, count: u32) {
        for _ in 0..count {
            self.daemon.chain(|chain, now| chain.mine(now));
        }
    }

    /// What the operator has received, spendable or not.
    pub(crate) fn paid(&self) -> u64 {
        let script = self.daemon.config().script_of("operator");
        let balance = self.daemon.chain(|chain, _| chain.balance(&script));
        balance.mature + balance.immature
    }

    pub(crate) fn close(&self) {
        self.handle.block_on(self.daemon.close());
    }

    pub(crate) fn open(&self) {
        self.handle.block_on(self.daemon.open());
    }

    pub(crate) fn wait_for_height(&self, height: u32) {
        wait_until(&format!("{} has a block at height {height}", self.name), LIMIT, || self.height() >= height);
    }
}
