//! Rebuilds the header from job and submission, and hashes it; pure.

use crate::mining::error::StratumError;
use crate::mining::extranonce::{EXTRANONCE1_SIZE, EXTRANONCE2_SIZE};
use crate::mining::job::{Job, LastRoot, Pow};
use crate::mining::midstate::double_sha256_of_header;
use crate::mining::version_rolling;
use crate::printable;

/// Maximum time of a block ahead of the clock, in seconds (Bitcoin's consensus limit).
pub const TIME_AHEAD_MAX_S: u32 = 7200;

/// Maximum that a miner may roll a job's time forward, in seconds: as ckpool allows, and more than any device does.
pub const TIME_ROLL_MAX_S: u32 = 7000;

/// Parsed fields of a miner's submission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Submission {
    /// The miner's part of the extranonce.
    pub extranonce2: [u8; EXTRANONCE2_SIZE],
    /// Header time.
    pub time: u32,
    /// Header nonce.
    pub nonce: u32,
    /// Rolled version bits, if sent.
    pub version_bits: Option<u32>,
}

/// Header of a submission, before its proof of work is computed: enough to see whether it was judged before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Serialised header.
    pub header: [u8; 80],
    /// Block hash: `sha256d` on every coin.
    pub hash: [u8; 32],
}

/// Header of a submission, with its hashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Solved {
    /// Serialised header.
    pub header: [u8; 80],
    /// Block hash: `sha256d` on every coin.
    pub hash: [u8; 32],
    /// Proof-of-work hash, compared with targets: the coin's own function.
    pub pow_hash: [u8; 32],
}

impl Submission {
    /// Parses the fields of `mining.submit` after the job id. Digits may be in either case. `lenient` also accepts
    /// known deviations of firmware: a `0x` prefix, too many digits, missing leading zeros.
    ///
    /// # Errors
    /// The first field that is not hex of its length.
    pub fn parse(
        extranonce2: &str,
        time: &str,
        nonce: &str,
        version_bits: Option<&str>,
        mask: u32,
        lenient: bool,
    ) -> Result<Self, StratumError> {
        let bytes = if lenient { padded_right(extranonce2) } else { exact(extranonce2) };
        let number = |digits| if lenient { number(digits) } else { exact(digits) };
        Ok(Self {
            extranonce2: bytes
                .ok_or_else(|| StratumError::Extranonce2 { given: shown(extranonce2), digits: 2 * EXTRANONCE2_SIZE })?,
            time: u32::from_be_bytes(number(time).ok_or_else(|| StratumError::TimeFormat(shown(time)))?),
            nonce: u32::from_be_bytes(number(nonce).ok_or_else(|| StratumError::Nonce(shown(nonce)))?),
            version_bits: match version_bits {
                None => None,
                Some(bits) => Some(u32::from_be_bytes(
                    number(bits).ok_or_else(|| StratumError::VersionBits { given: shown(bits), mask })?,
                )),
            },
        })
    }

    /// Returns the header that this stands for, with its proof of work; arguments and errors as of
    /// [`Self::candidate`].
    ///
    /// # Errors
    /// The header cannot be a block.
    pub fn solve<T>(
        &self,
        job: &Job<T>,
        extranonce1: [u8; EXTRANONCE1_SIZE],
        mask: u32,
        now: u32,
        last: &mut LastRoot,
    ) -> Result<Solved, StratumError> {
        self.candidate(job, extranonce1, mask, now, last).map(|candidate| candidate.solve(job))
    }

    /// Returns the header that this stands for, unless it cannot be a block: times that no node would accept, and
    /// version bits outside `mask` (zero without version rolling). `now` is in seconds since 1970, `last` is the cache
    /// of the connection.
    ///
    /// # Errors
    /// [`StratumError::TimeRange`] and [`StratumError::VersionBits`].
    pub fn candidate<T>(
        &self,
        job: &Job<T>,
        extranonce1: [u8; EXTRANONCE1_SIZE],
        mask: u32,
        now: u32,
        last: &mut LastRoot,
    ) -> Result<Candidate, StratumError> {
        check_time(job, self.time, now)?;
        let version = match self.version_bits {
            Some(bits) => version_rolling::apply(job.version, mask, bits)?,
            None => job.version,
        };
        Ok(self.header(job, extranonce1, version, last))
    }

    /// Returns the headers that a submission may stand for although [`Self::candidate`] or another check refused it: no
    /// block is lost to a time later than our clock allows, or to version bits outside the mask. Bits that were not
    /// negotiated may be meant as bits or as the whole version, so both are tried.
    pub fn candidates_although_refused<T>(
        &self,
        job: &Job<T>,
        extranonce1: [u8; EXTRANONCE1_SIZE],
        last: &mut LastRoot,
    ) -> [Option<Candidate>; 2] {
        if !can_be_block(job, self.time) {
            return [None; 2];
        }
        let with_bits = job.version | self.version_bits.unwrap_or(0);
        let whole = self.version_bits.filter(|whole| *whole != with_bits);
        [Some(with_bits), whole].map(|version| version.map(|version| self.header(job, extranonce1, version, last)))
    }

    fn header<T>(
        &self,
        job: &Job<T>,
        extranonce1: [u8; EXTRANONCE1_SIZE],
        version: u32,
        last: &mut LastRoot,
    ) -> Candidate {
        let root = last.of(job, &self.extranonces(extranonce1));
        Candidate::of(job.header(version, &root, self.time, self.nonce))
    }

    /// Concatenates the bytes between the coinbase's head and tail.
    pub(crate) fn extranonces(&self, extranonce1: [u8; EXTRANONCE1_SIZE]) -> [u8; EXTRANONCE1_SIZE + EXTRANONCE2_SIZE] {
        let mut extranonces = [0; EXTRANONCE1_SIZE + EXTRANONCE2_SIZE];
        extranonces[..EXTRANONCE1_SIZE].copy_from_slice(&extranonce1);
        extranonces[EXTRANONCE1_SIZE..].copy_from_slice(&self.extranonce2);
        extranonces
    }
}

impl Candidate {
    /// Identifies `header`.
    pub(crate) fn of(header: [u8; 80]) -> Self {
        Self { header, hash: double_sha256_of_header(&header) }
    }

    /// Computes its proof of work.
    pub(crate) fn solve<T>(self, job: &Job<T>) -> Solved {
        let pow_hash = match job.pow {
            Pow::Sha256d => self.hash,
            Pow::Costly(pow) => pow(&self.header),
        };
        self.solved_by(pow_hash)
    }

    /// Adds its proof of work, which was computed elsewhere.
    pub(crate) fn solved_by(self, pow_hash: [u8; 32]) -> Solved {
        Solved { header: self.header, hash: self.hash, pow_hash }
    }
}

/// Refuses header times that no node would accept or that are out of the job's range. `now` is in seconds since 1970.
pub(crate) fn check_time<T>(job: &Job<T>, given: u32, now: u32) -> Result<(), StratumError> {
    // A daemon's clock ahead of ours must not make the time of its own template unacceptable.
    let latest = now.saturating_add(TIME_AHEAD_MAX_S).min(job.time.saturating_add(TIME_ROLL_MAX_S)).max(job.time);
    if given < job.time_min || given > latest {
        return Err(StratumError::TimeRange { given, earliest: job.time_min, latest });
    }
    Ok(())
}

/// True if a header of `job` with this time can be a block, now or once clocks have caught up with it.
pub(crate) fn can_be_block<T>(job: &Job<T>, time: u32) -> bool {
    time >= job.time_min
}

/// Parses exactly eight hex digits.
fn exact(digits: &str) -> Option<[u8; 4]> {
    let mut bytes = [0; 4];
    hex::decode_to_slice(digits.as_bytes(), &mut bytes).ok()?;
    Some(bytes)
}

/// Strips a `0x` prefix and digits beyond the eighth (ckpool: "fix broken clients sending too many chars").
fn trimmed(digits: &str) -> Option<&str> {
    let digits = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")).unwrap_or(digits);
    digits.get(..digits.len().min(8)).filter(|digits| !digits.is_empty())
}

/// Parses a number without its leading zeros, as printed with `%x` by some firmware.
fn number(digits: &str) -> Option<[u8; 4]> {
    let digits = trimmed(digits)?;
    if digits.len() == 8 {
        return exact(digits);
    }
    let mut padded = [b'0'; 8];
    padded[8 - digits.len()..].copy_from_slice(digits.as_bytes());
    exact(std::str::from_utf8(&padded).ok()?)
}

/// Parses bytes with the last ones missing: ckpool pads with zeros.
fn padded_right(digits: &str) -> Option<[u8; 4]> {
    let digits = trimmed(digits)?;
    if digits.len() == 8 {
        return exact(digits);
    }
    let mut padded = [b'0'; 8];
    padded[..digits.len()].copy_from_slice(digits.as_bytes());
    exact(std::str::from_utf8(&padded).ok()?)
}

/// Shortens and escapes an untrusted value for an error text, which goes to the miner and to the log.
pub(crate) fn shown(value: &str) -> String {
    const CHARACTERS_MAX: usize = 40;
    printable::shortened(value, CHARACTERS_MAX, printable::is_printable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mining::difficulty::Target;
    use crate::mining::job::{JobId, JobParts, Offer};
    use crate::mining::midstate::Midstate;
    use std::sync::Arc;

    fn bytes<const N: usize>(digits: &str) -> [u8; N] {
        let mut bytes = [0; N];
        hex::decode_to_slice(digits, &mut bytes).unwrap();
        bytes
    }

    fn reversed(digits: &str) -> [u8; 32] {
        let mut digest: [u8; 32] = bytes(digits);
        digest.reverse();
        digest
    }

    /// Bitcoin's block 1: its coinbase is the only transaction, and its last eight bytes before the lock time can serve
    /// as extranonces.
    fn block_one() -> Job<()> {
        job(1, &[])
    }

    fn job(id: u64, branch: &[[u8; 32]]) -> Job<()> {
        let coinbase = hex::decode(concat!(
            "01000000010000000000000000000000000000000000000000000000000000000000000000ffffffff0704ffff001d0104ffffffff",
            "0100f2052a0100000043410496b538e853519c726a2c91e61ec11600ae1390813a627c66fb8be7947be63c52da7589379515d4e0",
            "a604f8141781e62294721166bf621e73a82cbf2342c858eeac00000000"
        ))
        .unwrap();
        let head = coinbase.len() - 12;
        let offer = Offer::new(
            &JobParts {
                id: JobId(id),
                coinbase_head: &coinbase[..head],
                coinbase_midstate: Midstate::new(&coinbase[..head]),
                coinbase_tail: &coinbase[head + 8..],
                branch,
                version: 1,
                previous_block: reversed("000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f"),
                bits: 0x1d00_ffff,
                time: 1_231_469_665,
                time_min: 1_231_469_000,
                solution_target: Target::MAX,
                extra_target: None,
                pow: Pow::Sha256d,
            },
            (),
        );
        Arc::into_inner(offer.job).unwrap()
    }

    fn submission() -> Submission {
        Submission::parse("c858eeac", "4966bc61", "9962e301", None, 0, false).unwrap()
    }

    /// Solves without an earlier submission on the connection.
    fn solve(
        submission: &Submission,
        job: &Job<()>,
        extranonce1: [u8; 4],
        mask: u32,
        now: u32,
    ) -> Result<Solved, StratumError> {
        submission.solve(job, extranonce1, mask, now, &mut LastRoot::default())
    }

    const EXTRANONCE1: [u8; 4] = [0x2c, 0xbf, 0x23, 0x42];
    const NOW: u32 = 1_231_469_700;

    #[test]
    fn block_one_of_bitcoin_is_rebuilt_to_the_byte() {
        let solved = solve(&submission(), &block_one(), EXTRANONCE1, 0, NOW).unwrap();
        assert_eq!(solved.hash, reversed("00000000839a8e6886ab5951d76f411475428afc90947ee320161bbf18eb6048"));
        assert_eq!(solved.pow_hash, solved.hash);
    }

    #[test]
    fn another_extranonce1_gives_another_header() {
        let job = block_one();
        let ours = solve(&submission(), &job, EXTRANONCE1, 0, NOW).unwrap();
        assert_ne!(solve(&submission(), &job, [0; 4], 0, NOW).unwrap().header[36..68], ours.header[36..68]);
    }

    #[test]
    fn a_root_is_kept_for_the_same_coinbase_alone() {
        let (job, other) = (block_one(), job(2, &[[7; 32]]));
        let changes: [fn(&mut Submission); 3] =
            [|one| one.nonce += 1, |one| one.time += 1, |one| one.extranonce2[3] ^= 1];
        let mut last = LastRoot::default();
        let mut submission = submission();
        for step in 0..100_usize {
            let (job, extranonce1) = match step % 7 {
                0 => (&other, EXTRANONCE1),
                1 => (&job, [0; 4]),
                _ => (&job, EXTRANONCE1),
            };
            let kept = submission.solve(job, extranonce1, 0, NOW, &mut last);
            assert_eq!(kept, solve(&submission, job, extranonce1, 0, NOW), "step {step}");
            assert!(kept.is_ok());
            changes[step % 3](&mut submission);
        }
    }

    #[test]
    fn rolled_version_bits_land_in_the_version() {
        let rolled = Submission { version_bits: Some(0x0000_2000), ..submission() };
        let solved = solve(&rolled, &block_one(), EXTRANONCE1, version_rolling::VERSION_MASK, NOW).unwrap();
        assert_eq!(&solved.header[..4], &[0x01, 0x20, 0, 0]);
    }

    #[test]
    fn version_bits_without_negotiation_are_refused() {
        let rolled = Submission { version_bits: Some(0x0000_2000), ..submission() };
        assert_eq!(
            solve(&rolled, &block_one(), EXTRANONCE1, 0, NOW),
            Err(StratumError::VersionBits { given: "00002000".into(), mask: 0 })
        );
    }

    #[test]
    fn times_that_no_node_would_take_are_refused() {
        let job = block_one();
        let at = |time| solve(&Submission { time, ..submission() }, &job, EXTRANONCE1, 0, NOW).map(|_| ());
        let refused = |given, latest| Err(StratumError::TimeRange { given, earliest: 1_231_469_000, latest });
        let rolled_most = 1_231_469_665 + TIME_ROLL_MAX_S;
        assert_eq!(at(1_231_469_000), Ok(()));
        assert_eq!(at(1_231_468_999), refused(1_231_468_999, rolled_most));
        assert_eq!(at(rolled_most), Ok(()));
        assert_eq!(at(rolled_most + 1), refused(rolled_most + 1, rolled_most));
    }

    #[test]
    fn a_clock_that_lags_limits_the_time_but_never_below_the_jobs_own() {
        let job = block_one();
        let behind = 1_231_469_665 - 2 * TIME_AHEAD_MAX_S;
        assert!(solve(&submission(), &job, EXTRANONCE1, 0, behind).is_ok());
        let rolled = Submission { time: 1_231_469_666, ..submission() };
        assert!(solve(&rolled, &job, EXTRANONCE1, 0, behind).is_err());
    }

    #[test]
    fn fields_of_the_wrong_length_or_alphabet_are_refused_by_name() {
        let parse =
            |extranonce2, time, nonce, bits| Submission::parse(extranonce2, time, nonce, bits, 0, false).unwrap_err();
        let good = "00000000";
        assert!(matches!(parse("000000", good, good, None), StratumError::Extranonce2 { digits: 8, .. }));
        assert!(matches!(parse("0000000000", good, good, None), StratumError::Extranonce2 { .. }));
        assert!(matches!(parse(good, "zz000000", good, None), StratumError::TimeFormat(_)));
        assert!(matches!(parse(good, good, "123", None), StratumError::Nonce(_)));
        assert!(matches!(parse(good, good, good, Some("2000")), StratumError::VersionBits { .. }));
        assert_eq!(
            Submission::parse("ABCDEF01", good, good, Some(good), 0, false).unwrap().extranonce2,
            [0xab, 0xcd, 0xef, 1]
        );
    }

    #[test]
    fn what_firmware_does_to_digits_is_understood_if_leniently_read() {
        let parse = |extranonce2, time, nonce, bits| Submission::parse(extranonce2, time, nonce, bits, 0, true);
        let parsed = parse("0xABCDEF01", "0x4966bc61", "e301", Some("0X2000")).unwrap();
        assert_eq!(parsed.extranonce2, [0xab, 0xcd, 0xef, 1]);
        assert_eq!((parsed.time, parsed.nonce, parsed.version_bits), (0x4966_bc61, 0xe301, Some(0x2000)));
        let long = parse("abcdef0100", "4966bc61ff", "9962e30100000000", None).unwrap();
        assert_eq!((long.extranonce2, long.time, long.nonce), ([0xab, 0xcd, 0xef, 1], 0x4966_bc61, 0x9962_e301));
        assert_eq!(parse("ab", "1", "2", None).unwrap().extranonce2, [0xab, 0, 0, 0]);
        for bad in ["", "0x", "zz", "12 4", "ä"] {
            assert!(parse("00000000", bad, "00000000", None).is_err(), "{bad}");
            assert!(parse(bad, "00000000", "00000000", None).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_long_value_is_shortened_in_the_error() {
        assert_eq!(shown(&"ä".repeat(100)).chars().count(), 41);
    }
}
