//! Untrusted bytes as a blob of authority messages, and as the plain bytes of an envelope that fits a key: only what
//! the authorities signed is read, and every transition has bounded, printable texts.
#![no_main]

use bitcoin::hashes::{Hash, HashEngine, Hmac, HmacEngine, sha256};
use libfuzzer_sys::fuzz_target;
use sharechain::share::{Envelope, Signer, read_messages};
use stratum::printable::escaped;

/// The only message that was signed in any seed: its digest in hex.
const SIGNED: &str = "0f7c0c162a47f1165df41e357ed36041c94788686c797ad9cbc73b2a710f71c0";

fn hmac(key: &[u8], data: &[u8]) -> [u8; 32] {
    let mut engine = HmacEngine::<sha256::Hash>::new(key);
    engine.input(data);
    Hmac::from_engine(engine).to_byte_array()
}

/// Makes an envelope, which needs no secret: a fuzzer finds no mac that fits.
fn sealed(inner: &[u8], signer: Signer) -> Vec<u8> {
    let nonce = [7; 16];
    let key = hmac(signer.public_key(), &nonce);
    let mut ciphertext = inner.to_vec();
    for (counter, block) in (0_u32..).zip(ciphertext.chunks_mut(32)) {
        let stream = sha256::Hash::hash(&[&key[..], &counter.to_le_bytes()].concat()).to_byte_array();
        for (byte, mask) in block.iter_mut().zip(stream) {
            *byte ^= mask;
        }
    }
    [&[1][..], &nonce, &hmac(&key, &ciphertext), &ciphertext].concat()
}

fn check(blob: &[u8]) {
    let read = read_messages(blob);
    match &read {
        Ok(messages) => {
            assert!((1..=3).contains(&messages.len()));
            for message in messages {
                let digest: String = message.digest().iter().map(|byte| format!("{byte:02x}")).collect();
                assert_eq!((digest.as_str(), message.signer), (SIGNED, Signer::ForkMaintainer));
            }
        }
        Err(error) => assert!(error.to_string().chars().count() < 150),
    }
    let Ok(envelope) = Envelope::open(blob) else { return };
    assert!(envelope.inner().len() <= 1771);
    for message in envelope.messages().unwrap_or_default() {
        let claimed = message.claimed();
        assert!(claimed.payload.len() <= 220 && claimed.signer == envelope.signer());
        if let Some(transition) = claimed.transition() {
            let url = transition.url.unwrap_or_default();
            for text in [transition.from, transition.to, transition.text, url] {
                assert!(text.len() <= 6 * 220 && !text.chars().any(char::is_control));
                // Escaped once more for a log, it only loses what shows nothing.
                assert!(escaped(&text).len() <= 4 * text.len());
            }
        }
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((choice, bytes)) = input.split_first() else { return };
    let Some(signer) = Signer::ALL.get(usize::from(*choice)) else { return check(bytes) };
    let blob = sealed(bytes, *signer);
    if bytes.len() >= 4 {
        let envelope = Envelope::open(&blob).expect("the mac fits");
        assert_eq!((envelope.signer(), envelope.inner()), (*signer, &bytes[..bytes.len().min(1771)]));
    }
    check(&blob);
});
