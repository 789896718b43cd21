//! Best known block header of the parent chain: peers may announce a block before our bitcoind does.

use sharechain::coin::Pow;
use sharechain::merkle::Digest;
use sharechain::share::Target;

/// Best header, and the hash for checking others.
#[derive(Debug)]
pub(super) struct BestHeader {
    pow: fn(&[u8; 80]) -> Digest,
    best: Option<[u8; 80]>,
}

impl BestHeader {
    /// Creates an empty state. `pow` is the proof-of-work hash of a header.
    pub(super) fn new(pow: fn(&[u8; 80]) -> Digest) -> Self {
        Self { pow, best: None }
    }

    /// Returns true if `header` becomes the best one (protocol section 3.10). The current template builds on
    /// `previous_block`, and its block has `target`.
    pub(super) fn offer(&mut self, header: [u8; 80], previous_block: &Digest, target: Target) -> bool {
        if self.best == Some(header) {
            return false;
        }
        let is_better = match &self.best {
            None => true,
            Some(best) => {
                let follows = previous_of(&header) == previous_block && name_of(best) == *previous_block;
                let is_the_templates = name_of(&header) == *previous_block && previous_of(best) != previous_block;
                follows || is_the_templates
            }
        };
        // Last, because it may be scrypt.
        let is_accepted = is_better && target.is_met_by(&(self.pow)(&header));
        if is_accepted {
            self.best = Some(header);
        }
        is_accepted
    }
}

/// Hash of a block, on every coin.
fn name_of(header: &[u8; 80]) -> Digest {
    Pow::Sha256d.function()(header)
}

fn previous_of(header: &[u8; 80]) -> &[u8] {
    &header[4..36]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(previous: Digest, nonce: u8) -> [u8; 80] {
        let mut header = [0; 80];
        header[4..36].copy_from_slice(&previous);
        header[79] = nonce;
        header
    }

    fn best() -> BestHeader {
        BestHeader::new(Pow::Sha256d.function())
    }

    #[test]
    fn any_header_is_better_than_none_if_it_is_hard_enough() {
        let mut best = best();
        let easy = header([1; 32], 0);
        assert!(!best.offer(easy, &[9; 32], sharechain::share::Bits(0x1d00_ffff).target()));
        assert!(best.offer(easy, &[9; 32], Target::MAX_256));
        assert!(!best.offer(easy, &[9; 32], Target::MAX_256), "nothing new");
    }

    #[test]
    fn a_header_must_follow_the_template_or_be_what_it_builds_on() {
        let mut best = best();
        let first = header([1; 32], 0);
        let second = header(name_of(&first), 0);
        let rival = header(name_of(&first), 1);
        let third = header(name_of(&second), 0);
        assert!(best.offer(first, &name_of(&first), Target::MAX_256));
        assert!(!best.offer(third, &name_of(&first), Target::MAX_256), "it skips one");
        assert!(best.offer(second, &name_of(&first), Target::MAX_256), "a peer was faster than our daemon");
        assert!(!best.offer(rival, &name_of(&first), Target::MAX_256), "the first of two stays");
        assert!(!best.offer(first, &name_of(&first), Target::MAX_256), "and our daemon's old one does not replace it");
        assert!(best.offer(rival, &name_of(&rival), Target::MAX_256), "until our daemon takes another side");
    }
}
