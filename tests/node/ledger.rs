//! Share chain on a node's disk, and the payouts of each coinbase by it: the rules of the protocol (sections 4.6 to 4.8
//! and 7) implemented again as plain loops over all shares, with numbers that cannot overflow.

use bitcoin::address::NetworkUnchecked;
use bitcoin::hashes::Hash;
use bitcoin::{Address, BlockHash};
use p2pool::chain::store::Store;
use ruint::Uint;
use sharechain::chain::share_rules;
use sharechain::coin::Network;
use sharechain::share::{Payout, Share, ShareHash};
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;
use test_support::{Bitcoind, Node, wait_until};

/// Larger than any product computed here.
type Big = Uint<2048, 32>;

/// P2PK script of the donation, from the protocol's description.
const DONATION_SCRIPT: &str = "4104ffd03de44a6e11b9917f3a29f9443283d9871c9d743ef30d5eddcd37094b64d1b3d8090496b53256786bf5c82932ec\
                               23c3b74d9f05a6f95a8b5529352656664bac";

/// Time limit from a miner's submission until the share is on disk.
const KEPT_LIMIT: Duration = Duration::from_secs(10);

/// Shares on a node's disk, in file order.
pub(crate) struct Ledger {
    network: &'static Network,
    pub(crate) shares: Vec<Share>,
    places: HashMap<ShareHash, usize>,
}

/// Payouts due in a coinbase.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Due {
    /// Scripts and satoshis in the order of the outputs; the donation is last.
    pub(crate) outputs: Vec<(Vec<u8>, u64)>,
    /// Number of shares in the window.
    pub(crate) window: usize,
    /// Set if the last share counts only in part.
    pub(crate) is_cut: bool,
}

/// Block hash in the form used by the share chain.
pub(crate) fn share_hash(hash: BlockHash) -> ShareHash {
    ShareHash(hash.to_byte_array())
}

/// Average number of hashes for these compact bits (section 4.6).
pub(crate) fn attempts(bits: u32) -> Big {
    let (exponent, mantissa) = (bits >> 24, Big::from(bits & 0x00ff_ffff));
    let target = if exponent >= 3 { mantissa << (8 * (exponent - 3)) } else { mantissa >> (8 * (3 - exponent)) };
    let all: Big = Big::from(1) << 256;
    if target >= all { Big::ZERO } else { all / (target + Big::from(1)) }
}

impl Ledger {
    /// Reads a copy of the node's files, so that the node is not disturbed.
    pub(crate) fn read(node: &Node, network: &'static Network) -> Self {
        let copy = tempfile::tempdir().expect("the temporary folder can be written");
        let folder = copy.path().join("shares");
        std::fs::create_dir(&folder).expect("the temporary folder can be written");
        let from = node.data_dir().join(network.name).join("shares");
        for entry in std::fs::read_dir(&from).expect("a started node has a store").flatten() {
            std::fs::copy(entry.path(), folder.join(entry.file_name())).expect("the store can be read");
        }
        let (_, loaded) = Store::open(copy.path()).expect("the store can be read");
        let rules = share_rules(network);
        let parse = |bytes: &[u8]| Share::from_bytes(bytes, &rules).expect("a node keeps shares only");
        let shares: Vec<Share> = loaded.shares.iter().map(|stored| parse(&stored.bytes)).collect();
        let places = shares.iter().enumerate().map(|(place, share)| (share.hash(), place)).collect();
        Self { network, shares, places }
    }

    /// Waits until this share is on disk.
    pub(crate) fn with(node: &Node, network: &'static Network, share: ShareHash) -> Self {
        let mut ledger = Self::read(node, network);
        wait_until(&format!("share {share} is on disk"), KEPT_LIMIT, || {
            ledger = Self::read(node, network);
            ledger.places.contains_key(&share)
        });
        ledger
    }

    pub(crate) fn share(&self, hash: ShareHash) -> &Share {
        let place = self.places.get(&hash).unwrap_or_else(|| panic!("share {hash} is not on disk"));
        &self.shares[*place]
    }

    /// Returns the chain from a share down to the genesis.
    pub(crate) fn chain(&self, from: Option<ShareHash>) -> Vec<&Share> {
        let mut chain = Vec::new();
        let mut next = from;
        while let Some(hash) = next {
            let share = self.share(hash);
            next = share.previous();
            chain.push(share);
        }
        chain
    }

    /// Payouts due in the coinbase of `share`.
    pub(crate) fn due(&self, share: &Share) -> Due {
        let bits = share.contents().min_header.bits.0;
        self.due_after(share.previous(), bits, share.data().subsidy, &address_of(share))
    }

    /// Payouts due in a coinbase on top of the share `previous` (sections 7 and 4.8).
    fn due_after(&self, previous: Option<ShareHash>, block_bits: u32, subsidy: u64, finder: &str) -> Due {
        let below = self.chain(previous);
        let real_chain_length = self.network.real_chain_length as usize;
        // The window begins at the grandparent, and is one share shorter than the chain below.
        let shares_max = below.len().min(real_chain_length).saturating_sub(1);
        let limit = Big::from(65535) * Big::from(self.network.spread) * attempts(block_bits);
        let mut weights: BTreeMap<String, Big> = BTreeMap::new();
        let (mut total, mut window, mut is_cut) = (Big::ZERO, 0, false);
        for share in below.iter().skip(1).take(shares_max) {
            if total == limit {
                break;
            }
            let work = attempts(share.info().bits.0);
            let given = Big::from(share.data().donation);
            let mut weight = work * (Big::from(65535) - given);
            let mut whole = work * Big::from(65535);
            if total + whole > limit {
                let left = (limit - total) / Big::from(65535);
                weight = left * weight / work;
                whole = limit - total;
                is_cut = true;
            }
            *weights.entry(address_of(share)).or_default() += weight;
            total += whole;
            window += 1;
        }

        let subsidy = Big::from(subsidy);
        let mut amounts: BTreeMap<String, Big> = BTreeMap::new();
        for (address, weight) in weights {
            amounts.insert(address, subsidy * Big::from(199) * weight / (Big::from(200) * total));
        }
        *amounts.entry(finder.to_owned()).or_default() += subsidy / Big::from(200);
        let paid = amounts.values().fold(Big::ZERO, |sum, amount| sum + amount);
        let mut sorted: Vec<(u64, String)> =
            amounts.into_iter().map(|(address, amount)| (amount.to::<u64>(), address)).collect();
        // Ascending by amount, then by text.
        sorted.sort();
        let mut outputs: Vec<(Vec<u8>, u64)> = sorted
            .into_iter()
            .filter(|(amount, _)| *amount > 0)
            .map(|(amount, address)| (script_of(&address), amount))
            .collect();
        outputs.push((hex::decode(DONATION_SCRIPT).expect("hex"), (subsidy - paid).to()));
        Due { outputs, window, is_cut }
    }

    /// Checks that every output of a daemon's block pays what is due by the shares below it, with `finder` as finder.
    /// Returns the payouts due.
    pub(crate) fn check_block(&self, daemon: &Bitcoind, block: &bitcoin::Block, finder: &Address) -> Due {
        let hash = block.block_hash();
        let share = self.share(share_hash(hash));
        assert_eq!(script_of(&address_of(share)), finder.script_pubkey().into_bytes(), "the finder of {hash}");
        assert_eq!(share.data().subsidy, to_divide(daemon, hash), "what {hash} has to divide");
        let due = self.due(share);
        assert_eq!(check_form(block), *share.ref_hash());
        check_payouts(block, &due);
        due
    }

    /// The same for a block that misses the share target requested by its miner, and builds on `tip`.
    pub(crate) fn check_block_that_is_no_share(
        &self,
        daemon: &Bitcoind,
        block: &bitcoin::Block,
        finder: &Address,
        tip: ShareHash,
    ) {
        let hash = block.block_hash();
        assert!(!self.places.contains_key(&share_hash(hash)), "{hash} is a share");
        let bits = block.header.bits.to_consensus();
        check_form(block);
        check_payouts(block, &self.due_after(Some(tip), bits, to_divide(daemon, hash), &finder.to_string()));
    }
}

/// Subsidy and fees of a block.
fn to_divide(daemon: &Bitcoind, hash: BlockHash) -> u64 {
    let stats = daemon.call("getblockstats", serde_json::json!([hash, ["subsidy", "totalfee"]]));
    stats["subsidy"].as_u64().expect("a number") + stats["totalfee"].as_u64().expect("a number")
}

/// Checks that a coinbase's outputs begin with the witness commitment and end with a ref hash and nonces, which have no
/// payee. Returns the ref hash.
fn check_form(block: &bitcoin::Block) -> [u8; 32] {
    let [first, .., last] = &block.txdata[0].output[..] else { panic!("too few outputs: {:?}", block.txdata[0]) };
    assert_eq!((first.value.to_sat(), last.value.to_sat()), (0, 0));
    let (first, last) = (first.script_pubkey.as_bytes(), last.script_pubkey.as_bytes());
    assert!(first.len() == 38 && first.starts_with(&[0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed]), "{first:?}");
    assert!(last.len() == 42 && last.starts_with(&[0x6a, 0x28]), "{last:?}");
    last[2..34].try_into().expect("32 bytes")
}

/// Checks each output of a coinbase against the payouts due.
fn check_payouts(block: &bitcoin::Block, due: &Due) {
    let outputs = &block.txdata[0].output;
    let payouts: Vec<(Vec<u8>, u64)> = outputs[1..outputs.len() - 1]
        .iter()
        .map(|output| (output.script_pubkey.to_bytes(), output.value.to_sat()))
        .collect();
    assert_eq!(payouts, due.outputs, "what block {} pays", block.block_hash());
}

/// Payee named by a share.
pub(crate) fn address_of(share: &Share) -> String {
    match &share.data().payout {
        Payout::Address(address) => address.to_string(),
        Payout::PubkeyHash(hash) | Payout::Hash { hash, .. } => {
            panic!("{} names {hash:?}, as no share of version 35 does", share.hash())
        }
    }
}

fn script_of(address: &str) -> Vec<u8> {
    let address: Address<NetworkUnchecked> = address.parse().expect("a share names an address");
    address.assume_checked().script_pubkey().into_bytes()
}
