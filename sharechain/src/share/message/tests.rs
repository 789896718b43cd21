//! Authority messages: the genuine one and every way to damage it, and messages that are signed with keys of our own.

use bitcoin::secp256k1::{All, SecretKey};
use proptest::prelude::*;

use super::*;
use crate::share::{DONATION_SCRIPT, Urgency};
use crate::testkit::GENUINE_MESSAGE as GENUINE;

fn genuine() -> Vec<u8> {
    hex::decode(GENUINE).unwrap()
}

/// Keys whose secrets are known here, in place of the authorities'.
struct Keys {
    context: Secp256k1<All>,
    secret: [SecretKey; 2],
    public: [[u8; 33]; 2],
}

static KEYS: LazyLock<Keys> = LazyLock::new(|| {
    let context = Secp256k1::new();
    let secret = [[0x11; 32], [0x22; 32]].map(|bytes| SecretKey::from_slice(&bytes).unwrap());
    let public = secret.map(|secret| secret.public_key(&context).serialize());
    Keys { context, secret, public }
});

fn open(blob: &[u8]) -> Result<Envelope, MessageError> {
    let [first, second] = &KEYS.public;
    Envelope::open_with(blob, [(Signer::FirstAuthor, first), (Signer::ForkMaintainer, second)])
}

/// Like [`super::read`], with the keys of the tests.
fn read_ours(blob: &[u8]) -> Result<Vec<AuthorityMessage>, MessageError> {
    let verify = |message: UnverifiedMessage| {
        let index = Signer::ALL.iter().position(|signer| *signer == message.claimed().signer).unwrap();
        message.verify_with(&KEYS.public[index])
    };
    open(blob)?.messages()?.into_iter().map(verify).collect()
}

/// Encrypts with a public key.
fn sealed(inner: &[u8], public_key: &[u8; 33], nonce: [u8; 16]) -> Vec<u8> {
    let key = hmac(public_key, &nonce);
    let ciphertext = decrypt(&key, inner);
    [&[VERSION][..], &nonce, &hmac(&key, &ciphertext), &ciphertext].concat()
}

/// Encrypts with the key of the tests' fork maintainer.
fn ours(inner: &[u8]) -> Vec<u8> {
    sealed(inner, &KEYS.public[1], [7; 16])
}

fn message(kind: u8, timestamp: u32, payload: &[u8]) -> AuthorityMessage {
    AuthorityMessage { kind, flags: 0x0f, timestamp, payload: payload.into(), signer: Signer::ForkMaintainer }
}

fn signature(message: &AuthorityMessage, secret: &SecretKey) -> Signature {
    KEYS.context.sign_ecdsa(&Message::from_digest(message.digest()), secret)
}

/// Bytes of a message with this signature.
fn packed(message: &AuthorityMessage, signature: &[u8]) -> Vec<u8> {
    let mut bytes = vec![message.kind, message.flags];
    bytes.extend(message.timestamp.to_le_bytes());
    bytes.extend(u16::try_from(message.payload.len()).unwrap().to_le_bytes());
    bytes.extend(&message.payload);
    bytes.extend([0; 20]);
    bytes.push(u8::try_from(signature.len()).unwrap());
    bytes.extend(signature);
    bytes
}

/// Bytes of a message that is signed as it should be.
fn signed(message: &AuthorityMessage) -> Vec<u8> {
    packed(message, &signature(message, &KEYS.secret[1]).serialize_der())
}

/// The same signature with the other form of S.
fn other_s(signature: &Signature) -> Signature {
    let mut compact = signature.serialize_compact();
    let s = SecretKey::from_slice(&compact[32..]).unwrap().negate();
    compact[32..].copy_from_slice(&s.secret_bytes());
    Signature::from_compact(&compact).unwrap()
}

#[test]
fn the_genuine_message_is_read() {
    let messages = read(&genuine()).unwrap();
    let [message] = &messages[..] else { panic!("{messages:?}") };
    assert_eq!((message.kind, message.flags, message.timestamp), (0x20, 0x0f, 1_771_930_983));
    assert_eq!((message.signer, message.signer.to_string().as_str()), (Signer::ForkMaintainer, "fork maintainer"));
    assert_eq!(message.kind_name(), Some("transition signal"));
    assert_eq!(hex::encode(message.digest()), "0f7c0c162a47f1165df41e357ed36041c94788686c797ad9cbc73b2a710f71c0");
    let transition = message.transition().unwrap();
    assert_eq!((transition.from.as_str(), transition.to.as_str()), ("35", "36"));
    assert_eq!((transition.urgency, transition.threshold), (Urgency::Info, None));
    assert!(transition.text.starts_with("V36 merged mining (LTC+DOGE) is live. "));
    assert_eq!(transition.url.as_deref(), Some("https://github.com/frstrtr/p2pool-merged-v36/releases"));
}

#[test]
fn the_genuine_signature_has_the_high_s() {
    let message = Envelope::open(&genuine()).unwrap().messages().unwrap().remove(0);
    let signature = Signature::from_der(message.signature()).unwrap();
    let mut low = signature;
    low.normalize_s();
    assert_ne!(signature, low);
    let key = PublicKey::from_slice(Signer::ForkMaintainer.public_key()).unwrap();
    let digest = Message::from_digest(message.claimed().digest());
    assert!(SECP.verify_ecdsa(&digest, &signature, &key).is_err(), "libsecp256k1 alone refuses it");
    assert!(SECP.verify_ecdsa(&digest, &low, &key).is_ok());
}

#[test]
fn both_keys_are_points_and_the_first_is_the_old_donations() {
    for signer in Signer::ALL {
        PublicKey::from_slice(signer.public_key()).unwrap();
    }
    let key = PublicKey::from_slice(&DONATION_SCRIPT[1..66]).unwrap();
    assert_eq!(&key.serialize(), Signer::FirstAuthor.public_key());
}

#[test]
fn envelopes_are_refused_with_the_reason() {
    let blob = genuine();
    assert_eq!(read(&[]), Err(MessageError::TooShort(0)));
    assert_eq!(read(&blob[..52]).unwrap_err().to_string(), "message_data has 52 bytes, which should be 53 or more");
    assert!(matches!(read(&blob[..53]), Err(MessageError::Mac(_))));
    let mut other = blob.clone();
    other[0] = 0;
    assert_eq!(read(&other).unwrap_err().to_string(), "message_data has version 0, which should be 1");
    let mut longer = blob.clone();
    longer.push(0);
    assert!(matches!(read(&longer), Err(MessageError::Mac(_))));
    assert!(matches!(open(&blob), Err(MessageError::Mac(_))), "with our own keys");
}

#[test]
fn plain_bytes_are_refused_with_the_reason() {
    let message = signed(&message(3, 1, b"text"));
    let inner = |head: [u8; 4], rest: &[u8]| read_ours(&ours(&[&head, rest].concat()));
    assert_eq!(inner([1, 0, 1, 0], &message).unwrap().len(), 1);
    assert_eq!(inner([0, 0, 1, 0], &message), Err(MessageError::InnerVersion(0)));
    assert_eq!(inner([2, 0, 1, 0], &message), Err(MessageError::InnerVersion(2)));
    assert_eq!(inner([1, 0, 0, 0], &message), Err(MessageError::NoMessages { claimed: 0 }));
    assert_eq!(inner([1, 0, 255, 0], b""), Err(MessageError::NoMessages { claimed: 255 }));
    for cut in 0..message.len() {
        assert_eq!(inner([1, 0, 1, 0], &message[..cut]), Err(MessageError::NoMessages { claimed: 1 }), "{cut}");
    }
    assert_eq!(read_ours(&ours(&[1, 0, 1])), Err(MessageError::TooShort(52)));
}

#[test]
fn an_announcement_is_skipped_by_its_length_if_the_flags_say_so() {
    let message = signed(&message(3, 1, b"text"));
    let read = |head: [u8; 4], before: &[u8]| read_ours(&ours(&[&head, before, &message].concat()));
    for (flags, length, before) in
        [(0, 0, 0), (0, 57, 0), (2, 57, 0), (1, 0, 0), (1, 57, 57), (3, 1, 1), (255, 255, 255)]
    {
        let messages = read([1, flags, 1, length], &vec![0xff; before]);
        assert_eq!(messages.map(|messages| messages.len()), Ok(1), "{flags} {length}");
    }
    let beyond = u8::try_from(message.len()).unwrap() + 1;
    assert_eq!(read([1, 1, 1, beyond], &[]), Err(MessageError::NoMessages { claimed: 1 }));
    assert_eq!(read([1, 1, 1, beyond - 1], &[]), Err(MessageError::NoMessages { claimed: 1 }), "nothing is left");
}

#[test]
fn every_message_that_is_parsed_must_be_signed_with_the_key_that_decrypts() {
    let good = message(0x10, 5, b"good");
    let ours = |messages: &[&[u8]]| {
        let count = u8::try_from(messages.len()).unwrap();
        read_ours(&ours(&[&[1, 0, count, 0], &messages.concat()[..]].concat()))
    };
    let der = signature(&good, &KEYS.secret[1]).serialize_der();
    let of_the_other = signature(&good, &KEYS.secret[0]).serialize_der();
    let long_form = [&[0x30, 0x81], &der[1..]].concat();
    let trailing = [&der[..], &[0]].concat();
    for (bytes, error) in [
        (packed(&good, b""), "message of kind 0x10 has no signature"),
        (packed(&good, b"x"), "message of kind 0x10 has a signature of 1 bytes that is not DER"),
        (packed(&good, &long_form), "that is not DER"),
        (packed(&good, &trailing), "that is not DER"),
        (packed(&good, &of_the_other), "message of kind 0x10 is not signed by the fork maintainer"),
        (packed(&message(0x10, 6, b"good"), &der), "message of kind 0x10 is not signed by the fork maintainer"),
        (signed(&message(0x10, 0, b"good")), "message of kind 0x10 has timestamp 0"),
    ] {
        let signed = signed(&good);
        for messages in [vec![&bytes[..]], vec![&signed, &bytes], vec![&signed, &signed, &bytes]] {
            let text = ours(&messages).unwrap_err().to_string();
            assert!(text.ends_with(error), "{text}");
        }
        assert_eq!(
            ours(&[&signed, &signed, &signed, &bytes]).unwrap(),
            vec![good.clone(); 3],
            "the fourth is not read"
        );
    }
}

#[test]
fn both_forms_of_s_are_valid() {
    let message = message(0x20, 5, b"{}");
    let low = signature(&message, &KEYS.secret[1]);
    let high = other_s(&low);
    assert_ne!(low, high);
    for signature in [low, high] {
        let inner = [&[1, 0, 1, 0], &packed(&message, &signature.serialize_der())[..]].concat();
        assert_eq!(read_ours(&ours(&inner)), Ok(vec![message.clone()]));
    }
}

#[test]
fn the_largest_messages_are_read_and_what_follows_is_never_decrypted() {
    let large = message(2, 9, &[b'x'; PAYLOAD_BYTES_MAX]);
    // Not DER, so only for the parser.
    let bytes = packed(&large, &[1; 255]);
    assert_eq!(bytes.len(), MESSAGE_BYTES_MAX);
    let inner = [&[1, 1, 9, 255], &[0; 255][..], &bytes.repeat(3), &[7; 100_000]].concat();
    let envelope = open(&ours(&inner)).unwrap();
    assert_eq!(envelope.inner(), &inner[..INNER_BYTES_MAX]);
    assert_eq!(envelope.messages().unwrap().len(), 3);
    let mut too_large = large;
    too_large.payload = [b'x'; PAYLOAD_BYTES_MAX + 1].into();
    let inner = [&[1, 0, 2, 0], &signed(&message(2, 9, b""))[..], &signed(&too_large)].concat();
    assert_eq!(read_ours(&ours(&inner)).unwrap().len(), 1, "a malformed message ends the list");
}

#[test]
fn only_a_transition_signal_is_a_transition() {
    assert!(message(0x20, 1, b"{}").transition().is_some());
    assert_eq!(message(0x20, 1, b"text").transition(), None);
    assert_eq!(message(0x03, 1, b"{}").transition(), None);
    let named = (0..=255).filter(|kind| message(*kind, 1, b"").kind_name().is_some()).collect::<Vec<u8>>();
    assert_eq!(named, [1, 2, 3, 4, 5, 0x10, 0x20]);
}

proptest! {
    #[test]
    fn any_damaged_byte_of_the_genuine_blob_is_noticed(at in 0..363_usize, mask in 1..=255_u8) {
        let mut blob = genuine();
        blob[at] ^= mask;
        let error = read(&blob).unwrap_err();
        prop_assert!(matches!(error, MessageError::Mac(_)) || at == 0 && error == MessageError::EnvelopeVersion(blob[0]));
        prop_assert!(error.to_string().is_ascii());
    }

    #[test]
    fn any_damaged_byte_of_the_genuine_message_is_noticed_under_a_good_mac(at in 4..314_usize, mask in 1..=255_u8) {
        let envelope = Envelope::open(&genuine()).unwrap();
        let original = read(&genuine());
        let mut inner = envelope.inner().to_vec();
        inner[at] ^= mask;
        let messages = read(&sealed(&inner, Signer::ForkMaintainer.public_key(), [9; 16]));
        // Nothing but the id of the signing key is free.
        if (222..242).contains(&at) {
            prop_assert_eq!(messages, original);
        } else {
            prop_assert!(messages.is_err());
        }
    }

    #[test]
    fn what_is_signed_is_read_back(
        contents in prop::collection::vec((any::<u8>(), any::<u8>(), 1_u32.., prop::collection::vec(any::<u8>(), 0..=220)), 1..5),
        claimed in 1..=255_u8,
        announcement in prop::collection::vec(any::<u8>(), 0..=255),
        nonce: [u8; 16],
        trailing in prop::collection::vec(any::<u8>(), 0..80),
    ) {
        let mut expected = Vec::new();
        let mut inner = vec![1, 1, claimed, u8::try_from(announcement.len()).unwrap()];
        inner.extend(announcement);
        for (kind, flags, timestamp, payload) in contents {
            let message = AuthorityMessage { flags, ..message(kind, timestamp, &payload) };
            inner.extend(signed(&message));
            expected.push(message);
        }
        expected.truncate(usize::from(claimed).min(MESSAGES_MAX));
        // Less than a message, so the list ends here, if not before.
        inner.extend(&trailing[..trailing.len().min(28)]);
        prop_assert_eq!(read_ours(&sealed(&inner, &KEYS.public[1], nonce)), Ok(expected));
        let under_the_other = read_ours(&sealed(&inner, &KEYS.public[0], nonce));
        let is_refused = matches!(under_the_other, Err(MessageError::Signature { signer: Signer::FirstAuthor, .. }));
        prop_assert!(is_refused, "{:?}", under_the_other);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..700), known in any::<bool>()) {
        prop_assert!(read(&bytes).is_err());
        let mut inner = bytes;
        if known && let Some(version) = inner.first_mut() {
            *version = VERSION;
        }
        prop_assert!(read_ours(&ours(&inner)).is_err());
        let messages = open(&ours(&inner)).and_then(|envelope| envelope.messages());
        prop_assert!(messages.map_or(0, |messages| messages.len()) <= MESSAGES_MAX);
    }
}
