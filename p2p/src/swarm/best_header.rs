//! Best known block header of the parent chain: peers may announce a block before our bitcoind does.

use sharechain::coin::Pow;
use sharechain::merkle::Digest;
use sharechain::share::{Bits, Target, display_hex};

use super::{Action, Now, Parent, PeerId, Swarm};
use crate::limits::Kind;
use crate::peer::{Close, Offence, Order};

/// Serialised block header.
type Header = [u8; 80];

/// Best header, and the hash for checking others.
#[derive(Debug)]
pub(super) struct BestHeader {
    pow: fn(&Header) -> Digest,
    best: Option<Header>,
}

/// Judgement of a peer's header by all that needs no proof of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outlook {
    /// It would not become the best one, whatever its proof of work: nothing is computed.
    Useless,
    /// Our daemon built the template on it.
    Vouched,
    /// The best one, if its proof of work meets its target.
    Unproven(Target),
}

impl BestHeader {
    /// Creates an empty state. `pow` is the proof-of-work hash of a header.
    pub(super) fn new(pow: fn(&Header) -> Digest) -> Self {
        Self { pow, best: None }
    }

    /// Returns true if a header of our own daemon becomes the best one.
    fn offer_own(&mut self, header: Header, parent: &Parent) -> bool {
        let is_better = match &self.best {
            None => true,
            Some(best) => {
                *best != header && (self.is_the_templates(&header, parent) || self.follows_template(&header, parent))
            }
        };
        if is_better {
            self.best = Some(header);
        }
        is_better
    }

    /// Judges a peer's header (protocol section 3.10). The reference computes proofs of work first, and takes any header
    /// while it has none.
    fn outlook(&self, header: &Header, parent: &Parent) -> Outlook {
        let bits = bits_of(header);
        if self.best == Some(*header) {
            Outlook::Useless
        } else if self.is_the_templates(header, parent) {
            Outlook::Vouched
        } else if self.follows_template(header, parent) && bits.target() == parent.target {
            Outlook::Unproven(parent.target)
        } else {
            Outlook::Useless
        }
    }

    /// True if the header meets its own target: else peers would ban us for it (section 3.10). On a coin with several
    /// proofs of work, most of our daemon's blocks have another one.
    fn has_proof(&self, header: &Header) -> bool {
        bits_of(header).target().is_met_by(&(self.pow)(header))
    }

    /// True for the block that the template builds on, unless a block on top of it is known.
    fn is_the_templates(&self, header: &Header, parent: &Parent) -> bool {
        name_of(header) == parent.previous_block
            && self.best.is_none_or(|best| previous_of(&best) != parent.previous_block)
    }

    /// True for the first block beside the template's that is known.
    fn follows_template(&self, header: &Header, parent: &Parent) -> bool {
        previous_of(header) == parent.previous_block
            && self.best.is_none_or(|best| name_of(&best) == parent.previous_block)
    }
}

impl Swarm {
    /// Handles our own bitcoind's header of the block that the current template builds on.
    pub fn handle_own_header(&mut self, header: Header) {
        let is_best = self.parent.as_ref().is_some_and(|parent| self.best_header.offer_own(header, parent));
        if is_best && self.best_header.has_proof(&header) {
            self.announce_header(header);
        }
    }

    /// Handles a peer's header. Only one that would become the best costs a proof of work, and only one that lacks it is
    /// misbehaviour.
    pub(super) fn note_header(&mut self, peer: PeerId, header: Header, now: Now) {
        let (Some(parent), Some(connection)) = (&self.parent, self.connections.get_mut(&peer)) else { return };
        let is_proven = match self.best_header.outlook(&header, parent) {
            Outlook::Useless => return,
            Outlook::Vouched => self.best_header.has_proof(&header),
            Outlook::Unproven(target) => {
                if let Err(excess) = connection.limits.take(Kind::Work, 1, now.instant) {
                    return self.disconnect(peer, excess.into(), now);
                }
                let hash = (self.best_header.pow)(&header);
                if !target.is_met_by(&hash) {
                    let offence = Offence::BestBlock { hash: display_hex(&hash) };
                    return self.disconnect(peer, Close::Offence(offence), now);
                }
                true
            }
        };
        // Also without a proof, which is not computed twice.
        self.best_header.best = Some(header);
        if is_proven {
            self.announce_header(header);
        }
    }

    fn announce_header(&mut self, header: Header) {
        self.order_all(|_| Order::BestBlock(header));
        self.actions.push_back(Action::BestHeader(header));
    }
}

fn bits_of(header: &Header) -> Bits {
    Bits(u32::from_le_bytes([header[72], header[73], header[74], header[75]]))
}

/// Hash of a block, on every coin.
fn name_of(header: &Header) -> Digest {
    Pow::Sha256d.function()(header)
}

fn previous_of(header: &Header) -> &[u8] {
    &header[4..36]
}

#[cfg(test)]
mod tests {
    use super::super::tests::{World, host};
    use super::*;
    use crate::peer::PeerEvent;
    use std::sync::Arc;

    /// Met by every second hash.
    const EASY: Bits = Bits(0x207f_ffff);

    fn header(previous: Digest, bits: Bits, nonce: u8) -> Header {
        let mut header = [0; 80];
        header[4..36].copy_from_slice(&previous);
        header[72..76].copy_from_slice(&bits.0.to_le_bytes());
        header[79] = nonce;
        header
    }

    /// A header on `previous` that meets `EASY`, or not.
    fn proven(previous: Digest, is_proven: bool, skip: usize) -> Header {
        let headers = (0..=255).map(|nonce| header(previous, EASY, nonce));
        headers.filter(|header| EASY.target().is_met_by(&name_of(header)) == is_proven).nth(skip).unwrap()
    }

    fn parent(previous_block: Digest) -> Parent {
        Parent { heights: Arc::default(), best_height: 0, previous_block, target: EASY.target() }
    }

    /// A swarm whose template builds on `previous`, and whose proofs of work are a failed test.
    fn world(previous: Digest) -> World {
        let mut world = World::usual();
        world.swarm.best_header.pow = |_| panic!("a proof of work is computed");
        world.swarm.handle_parent(parent(previous));
        world
    }

    fn reported(actions: &[Action]) -> Option<Header> {
        actions.iter().find_map(|action| match action {
            Action::BestHeader(header) => Some(*header),
            _ => None,
        })
    }

    #[test]
    fn a_header_that_is_known_or_leads_nowhere_costs_no_proof_of_work_and_nobody_is_to_blame() {
        let first = proven([1; 32], true, 0);
        let mut world = world(name_of(&first));
        let peer = world.accept(host(1));
        world.swarm.best_header.pow = name_of;
        assert_eq!(reported(&world.event(peer, PeerEvent::BestBlock(first))), Some(first), "our daemon vouches for it");
        world.swarm.best_header.pow = |_| panic!("a proof of work is computed");
        let useless = [
            first,
            [0; 80],
            proven([1; 32], true, 1),
            proven(name_of(&proven(name_of(&first), true, 0)), true, 0),
            header(name_of(&first), Bits(0x1d00_ffff), 0),
            header(name_of(&first), Bits(0x2100_ffff), 0),
        ];
        for header in useless.repeat(100) {
            assert!(world.event(peer, PeerEvent::BestBlock(header)).is_empty());
        }
        assert!(world.swarm.list_bans(world.now).is_empty());
    }

    #[test]
    fn a_block_with_another_proof_of_work_of_the_coin_is_not_announced_and_nobody_is_to_blame() {
        let first = proven([1; 32], true, 0);
        let mut world = world(name_of(&first));
        world.swarm.best_header.pow = |_| [0xff; 32];
        let peer = world.accept(host(1));
        assert!(world.event(peer, PeerEvent::BestBlock(first)).is_empty(), "from a peer");
        world.swarm.best_header.pow = |_| panic!("a proof of work is computed twice");
        assert!(world.event(peer, PeerEvent::BestBlock(first)).is_empty(), "and again");
        world.swarm.best_header.pow = |_| [0xff; 32];
        let second = proven([2; 32], true, 0);
        world.swarm.handle_parent(parent(name_of(&second)));
        world.swarm.handle_own_header(second);
        assert!(reported(&world.done()).is_none(), "from our daemon");
        assert!(world.swarm.list_bans(world.now).is_empty());
    }

    #[test]
    fn nothing_is_computed_before_there_is_a_template() {
        let mut world = World::usual();
        world.swarm.best_header.pow = |_| panic!("a proof of work is computed");
        let peer = world.accept(host(1));
        assert!(world.event(peer, PeerEvent::BestBlock(proven([1; 32], true, 0))).is_empty());
    }

    #[test]
    fn a_header_must_follow_the_template_or_be_what_it_builds_on() {
        let mut world = world([1; 32]);
        world.swarm.best_header.pow = name_of;
        let peer = world.accept(host(1));
        let reports = |world: &mut World, header| reported(&world.event(peer, PeerEvent::BestBlock(header))).is_some();
        let first = proven([1; 32], true, 0);
        let second = proven(name_of(&first), true, 0);
        let rival = proven(name_of(&first), true, 1);
        let third = proven(name_of(&second), true, 0);
        assert!(reports(&mut world, first), "a peer was faster than our daemon");
        world.swarm.handle_parent(parent(name_of(&first)));
        world.swarm.handle_own_header(first);
        assert!(reported(&world.done()).is_none(), "nothing new");
        assert!(!reports(&mut world, third), "it skips one");
        assert!(reports(&mut world, second));
        assert!(!reports(&mut world, rival), "the first of two stays");
        world.swarm.handle_own_header(first);
        assert!(reported(&world.done()).is_none(), "and our daemon's old one does not replace it");
        world.swarm.handle_parent(parent(name_of(&rival)));
        world.swarm.handle_own_header(rival);
        assert_eq!(reported(&world.done()), Some(rival), "until our daemon takes another side");
    }

    #[test]
    fn a_header_that_would_be_the_best_and_lacks_its_proof_of_work_costs_one_and_is_an_offence() {
        let mut world = world([1; 32]);
        world.swarm.best_header.pow = name_of;
        let peer = world.accept(host(1));
        let actions = world.event(peer, PeerEvent::BestBlock(proven([1; 32], false, 0)));
        assert!(
            matches!(actions[..], [Action::Disconnect(_, Close::Offence(Offence::BestBlock { .. }))]),
            "{actions:?}"
        );
        assert!(!world.swarm.list_bans(world.now).is_empty());
    }
}
