//! Bytes from a peer as frames and messages: parsed messages serialise to the same bytes, and no more is kept than was
//! received.
//!
//! Input: a command's index, a piece length, and a payload; or, from index 200 on, raw bytes as from a socket.
#![no_main]

use libfuzzer_sys::fuzz_target;
use p2p::frame::{Event, Frames, Verdict, encode};
use p2p::message::{Command, Message};

const PREFIX: [u8; 8] = *b"sinetpre";

fuzz_target!(|input: &[u8]| {
    let Some((&[index, piece], payload)) = input.split_first_chunk::<2>() else { return };
    let mut frames = Frames::new(PREFIX);
    let judge = |command: Command| match command {
        Command::ShareReply => Verdict::Skip,
        _ => Verdict::Take(command.bytes_max()),
    };
    let stream = if index >= 200 {
        payload.to_vec()
    } else {
        let command = Command::ALL[usize::from(index) % Command::ALL.len()];
        check_message(command, payload);
        encode(PREFIX, command.word(), payload).to_vec()
    };
    for mut bytes in stream.chunks(usize::from(piece) + 1) {
        loop {
            match frames.take(&mut bytes, judge) {
                Ok(Some(Event::Frame(frame))) => check_message(frame.command, &frame.payload),
                Ok(Some(Event::Skipped(_))) => {}
                Ok(None) => break,
                Err(error) => {
                    assert!(!error.to_string().is_empty());
                    return;
                }
            }
        }
        assert!(frames.held() <= stream.len());
    }
});

fn check_message(command: Command, payload: &[u8]) {
    match Message::parse(command.word(), payload.to_vec().into()) {
        Ok(Some(message)) => {
            assert_eq!(message.command(), command);
            let written = message.to_payload();
            // A `version` may end early; the rest counts as zeroes.
            let missing = if command == Command::Version { written.len().saturating_sub(payload.len()) } else { 0 };
            assert!(missing < 32);
            assert_eq!(written[..written.len() - missing], *payload);
            assert!(written[written.len() - missing..].iter().all(|byte| *byte == 0));
        }
        Ok(None) => panic!("{command} is ours"),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
