//! Untrusted bytes, in pieces: cut into lines of limited length, each parsed or refused.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stratum::v1::line::Lines;
use stratum::v1::message::{Request, failure, success};

const LINE_BYTES_MAX: usize = 512;

fuzz_target!(|input: &[u8]| {
    let Some((piece, bytes)) = input.split_first() else { return };
    let mut lines = Lines::default();
    for piece in bytes.chunks(usize::from(*piece) + 1) {
        lines.extend(piece);
        loop {
            match lines.next(LINE_BYTES_MAX) {
                Ok(Some(line)) => understand(line),
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
});

fn understand(line: &[u8]) {
    assert!(line.len() <= LINE_BYTES_MAX && !line.contains(&b'\n'));
    let Ok(request) = Request::parse(line) else { return };
    let answer = match &request.call {
        Ok(_) => success(request.id, "true"),
        Err(error) => failure(request.id, error),
    };
    if let Some(answer) = answer {
        assert_eq!(answer.iter().filter(|byte| **byte == b'\n').count(), 1, "one line, however odd the id");
        assert!(Request::parse(answer.trim_ascii_end()).is_ok(), "an answer is itself a message");
    }
}
