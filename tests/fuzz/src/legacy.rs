//! The old node's share file with arbitrary contents: every line is imported or counted as skipped.
#![no_main]

use libfuzzer_sys::fuzz_target;
use p2pool::chain::store::legacy::Legacy;

fuzz_target!(|input: &[u8]| {
    let mut legacy = Legacy::default();
    let problem = legacy.take_file(input);
    let lines = input.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty()).count();
    assert!(legacy.shares.len() + legacy.verified.len() + usize::from(problem.is_some()) <= lines);
});
