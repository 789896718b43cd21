//! Authority messages: what the holders of two keys announce inside of shares (protocol-v36 section 7).
//!
//! A share of version 36 may carry a blob, `message_data`, and is valid only if [`read`] accepts it. The blob is
//! encrypted with the public key of its author, so everybody can read it, and everybody can put a recorded message into
//! a new envelope: only the signatures show who wrote it.

use bitcoin::hashes::{Hash, HashEngine, Hmac, HmacEngine, sha256, sha256d};
use bitcoin::secp256k1::ecdsa::Signature;
use bitcoin::secp256k1::{Message, PublicKey, Secp256k1, VerifyOnly};
use std::fmt;
use std::sync::LazyLock;
use thiserror::Error;

use super::transition::Transition;
use crate::merkle::Digest;
use crate::pack::Reader;

static SECP: LazyLock<Secp256k1<VerifyOnly>> = LazyLock::new(Secp256k1::verification_only);

/// Version of the envelope and of the plain bytes.
const VERSION: u8 = 1;

/// Minimum size of a blob in bytes: version, nonce (16), mac (32), and four bytes that are encrypted.
const BLOB_BYTES_MIN: usize = 53;

/// Maximum number of messages that are read from one blob.
const MESSAGES_MAX: usize = 3;

/// Maximum size of a message's payload in bytes.
const PAYLOAD_BYTES_MAX: usize = 220;

/// Maximum size of a message in bytes: kind, flags, timestamp and payload length, payload, id of the signing key, and
/// signature with its length.
const MESSAGE_BYTES_MAX: usize = 8 + PAYLOAD_BYTES_MAX + 20 + 1 + 255;

/// Plain bytes that messages can lie in: four of the head, the longest announcement of a key, and the messages. Nothing
/// after them is ever read.
const INNER_BYTES_MAX: usize = 4 + 255 + MESSAGES_MAX * MESSAGE_BYTES_MAX;

/// Bit of the plain bytes' flags: an announcement of a key, which is skipped, stands before the messages.
const HAS_ANNOUNCEMENT: u8 = 1;

/// Kind of a transition signal.
const TRANSITION: u8 = 0x20;

/// Reasons why a share must not carry a blob.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MessageError {
    /// Too few bytes for an envelope.
    #[error("message_data has {0} bytes, which should be 53 or more")]
    TooShort(usize),
    /// Unknown version of the envelope.
    #[error("message_data has version {0}, which should be 1")]
    EnvelopeVersion(u8),
    /// Damaged, or encrypted with a key that is no authority's.
    #[error("message_data has mac {}, which fits neither authority's key", hex::encode(.0))]
    Mac([u8; 32]),
    /// Unknown version of the plain bytes.
    #[error("message_data has inner version {0}, which should be 1")]
    InnerVersion(u8),
    /// No message, or a malformed first one.
    #[error("message_data has no readable message, but claims {claimed}")]
    NoMessages {
        /// Claimed number of messages.
        claimed: u8,
    },
    /// Message without a signature.
    #[error("message of kind {kind:#04x} has no signature")]
    Unsigned {
        /// Kind of the message.
        kind: u8,
    },
    /// Message with a timestamp of 0, in whose place the reference uses its own clock, so that no signature fits.
    #[error("message of kind {kind:#04x} has timestamp 0")]
    NoTimestamp {
        /// Kind of the message.
        kind: u8,
    },
    /// Signature that is not in DER.
    #[error("message of kind {kind:#04x} has a signature of {length} bytes that is not DER")]
    NotDer {
        /// Kind of the message.
        kind: u8,
        /// Length of the signature in bytes.
        length: usize,
    },
    /// Signature by another key than the one that decrypted the envelope, or of another message.
    #[error("message of kind {kind:#04x} is not signed by the {signer}")]
    Signature {
        /// Kind of the message.
        kind: u8,
        /// Holder of the key that decrypted the envelope.
        signer: Signer,
    },
}

/// Holder of a key that can sign messages. The two keys are those of version 36's donation script.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Signer {
    /// First author of P2Pool, whose key is also the donation's before version 36.
    FirstAuthor,
    /// Maintainer of the fork that introduced version 36.
    ForkMaintainer,
}

impl Signer {
    /// Both, in the order in which their keys are tried.
    pub const ALL: [Signer; 2] = [Signer::FirstAuthor, Signer::ForkMaintainer];

    /// Compressed public key.
    pub const fn public_key(self) -> &'static [u8; 33] {
        match self {
            Signer::FirstAuthor => &FIRST_AUTHORS_KEY,
            Signer::ForkMaintainer => &FORK_MAINTAINERS_KEY,
        }
    }

    /// Name for logs and pages.
    pub const fn name(self) -> &'static str {
        match self {
            Signer::FirstAuthor => "first author",
            Signer::ForkMaintainer => "fork maintainer",
        }
    }
}

impl fmt::Display for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

const FIRST_AUTHORS_KEY: [u8; 33] = [
    0x03, 0xff, 0xd0, 0x3d, 0xe4, 0x4a, 0x6e, 0x11, 0xb9, 0x91, 0x7f, 0x3a, 0x29, 0xf9, 0x44, 0x32, 0x83, 0xd9, 0x87,
    0x1c, 0x9d, 0x74, 0x3e, 0xf3, 0x0d, 0x5e, 0xdd, 0xcd, 0x37, 0x09, 0x4b, 0x64, 0xd1,
];

const FORK_MAINTAINERS_KEY: [u8; 33] = [
    0x02, 0xfe, 0x65, 0x78, 0xf8, 0x02, 0x1a, 0x7d, 0x46, 0x67, 0x87, 0x82, 0x7b, 0x3f, 0x26, 0x43, 0x7a, 0xef, 0x88,
    0x27, 0x9e, 0xf3, 0x80, 0xaf, 0x32, 0x6f, 0x87, 0xec, 0x36, 0x26, 0x33, 0x29, 0x3a,
];

/// Message of an authority, with a signature that was verified.
///
/// Nothing in it is printable before it is escaped, apart from the texts of [`AuthorityMessage::transition`] and
/// [`AuthorityMessage::content`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorityMessage {
    /// Kind of the message; [`AuthorityMessage::kind_name`] has the known ones.
    pub kind: u8,
    /// Flags as on the wire: 1 signed, 2 to be broadcast, 4 to be kept, 8 by an authority. Nothing depends on them:
    /// c2pool alone demands the first (protocol-v36 trap 26).
    pub flags: u8,
    /// Time of the message as its author gives it, seconds since 1970.
    pub timestamp: u32,
    /// Content, at most 220 bytes, whose form depends on the kind.
    pub payload: Box<[u8]>,
    /// Holder of the key that encrypted and signed the message.
    pub signer: Signer,
}

impl AuthorityMessage {
    /// Name of the kind, if it is a known one.
    pub fn kind_name(&self) -> Option<&'static str> {
        match self.kind {
            0x01 => Some("node status"),
            0x02 => Some("miner message"),
            0x03 => Some("announcement"),
            0x04 => Some("version signal"),
            0x05 => Some("merged status"),
            0x10 => Some("emergency"),
            TRANSITION => Some("transition signal"),
            _ => None,
        }
    }

    /// Content of a transition signal; `None` for another kind, and if the payload is no JSON object.
    pub fn transition(&self) -> Option<Transition> {
        (self.kind == TRANSITION).then(|| Transition::read(&self.payload)).flatten()
    }

    /// Content of a message of any kind, as the reference shows it: that of a JSON object with a transition signal's keys,
    /// or the payload as a text.
    pub fn content(&self) -> Transition {
        let plain = || Transition::of_text(&String::from_utf8_lossy(&self.payload));
        Transition::read(&self.payload).unwrap_or_else(plain)
    }

    /// Digest that is signed. It identifies the message, which many shares may carry.
    pub fn digest(&self) -> Digest {
        let mut engine = sha256d::Hash::engine();
        engine.input(&[self.kind, self.flags]);
        engine.input(&self.timestamp.to_le_bytes());
        engine.input(&self.payload);
        sha256d::Hash::from_engine(engine).to_byte_array()
    }
}

/// Message as it stands in an envelope: its signature is not verified yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnverifiedMessage {
    message: AuthorityMessage,
    signature: Box<[u8]>,
}

impl UnverifiedMessage {
    /// The message that it would be if the signature were good.
    pub fn claimed(&self) -> &AuthorityMessage {
        &self.message
    }

    /// Signature, at most 255 bytes that should be DER.
    pub fn signature(&self) -> &[u8] {
        &self.signature
    }

    /// Verifies the signature with the key that decrypted the envelope.
    ///
    /// # Errors
    /// [`MessageError`].
    pub fn verify(self) -> Result<AuthorityMessage, MessageError> {
        let key = self.message.signer.public_key();
        self.verify_with(key)
    }

    fn verify_with(self, key: &[u8; 33]) -> Result<AuthorityMessage, MessageError> {
        let UnverifiedMessage { message, signature } = self;
        let (kind, signer) = (message.kind, message.signer);
        if signature.is_empty() {
            return Err(MessageError::Unsigned { kind });
        }
        if message.timestamp == 0 {
            return Err(MessageError::NoTimestamp { kind });
        }
        let not_der = |_| MessageError::NotDer { kind, length: signature.len() };
        let mut parsed = Signature::from_der(&signature).map_err(not_der)?;
        // Trap 19 of protocol-v36: both forms of S are valid. The message that the live network carries has the high
        // one, so a node that follows libsecp256k1 in refusing it would leave that network. Its Python nodes verify
        // with python-ecdsa, and c2pool normalises S, too.
        parsed.normalize_s();
        let digest = Message::from_digest(message.digest());
        let is_signed = PublicKey::from_slice(key).is_ok_and(|key| SECP.verify_ecdsa(&digest, &parsed, &key).is_ok());
        if is_signed { Ok(message) } else { Err(MessageError::Signature { kind, signer }) }
    }
}

/// Envelope whose mac fits an authority's key, which everybody can make: its messages are still to be verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    signer: Signer,
    inner: Box<[u8]>,
}

impl Envelope {
    /// Decrypts a blob with the first of the two keys that its mac fits.
    ///
    /// # Errors
    /// [`MessageError::TooShort`], [`MessageError::EnvelopeVersion`], [`MessageError::Mac`].
    pub fn open(blob: &[u8]) -> Result<Envelope, MessageError> {
        Envelope::open_with(blob, Signer::ALL.map(|signer| (signer, signer.public_key())))
    }

    fn open_with(blob: &[u8], keys: [(Signer, &[u8; 33]); 2]) -> Result<Envelope, MessageError> {
        // In this order, so that no hash is computed in vain.
        let too_short = || MessageError::TooShort(blob.len());
        let (version, rest) = blob.split_first().filter(|_| blob.len() >= BLOB_BYTES_MIN).ok_or_else(too_short)?;
        if *version != VERSION {
            return Err(MessageError::EnvelopeVersion(*version));
        }
        let (nonce, rest) = rest.split_first_chunk::<16>().ok_or_else(too_short)?;
        let (mac, ciphertext) = rest.split_first_chunk::<32>().ok_or_else(too_short)?;
        for (signer, public_key) in keys {
            let key = hmac(public_key, nonce);
            if hmac(&key, ciphertext) == *mac {
                let readable = &ciphertext[..ciphertext.len().min(INNER_BYTES_MAX)];
                return Ok(Envelope { signer, inner: decrypt(&key, readable).into() });
            }
        }
        Err(MessageError::Mac(*mac))
    }

    /// Holder of the key that the mac fits.
    pub fn signer(&self) -> Signer {
        self.signer
    }

    /// Plain bytes, of which only the first 1771 are decrypted: no message reaches further.
    pub fn inner(&self) -> &[u8] {
        &self.inner
    }

    /// Parses the messages, at most three. The first malformed one ends the list silently, and what follows the last is
    /// ignored.
    ///
    /// # Errors
    /// [`MessageError::TooShort`], [`MessageError::InnerVersion`], [`MessageError::NoMessages`].
    pub fn messages(&self) -> Result<Vec<UnverifiedMessage>, MessageError> {
        let Some(([version, flags, claimed, announcement], rest)) = self.inner.split_first_chunk::<4>() else {
            return Err(MessageError::TooShort(BLOB_BYTES_MIN - 4 + self.inner.len()));
        };
        if *version != VERSION {
            return Err(MessageError::InnerVersion(*version));
        }
        let skipped = if flags & HAS_ANNOUNCEMENT == 0 { 0 } else { usize::from(*announcement) };
        // A length beyond the data leaves no messages.
        let mut reader = Reader::new(rest.get(skipped..).unwrap_or(&[]));
        let count = usize::from(*claimed).min(MESSAGES_MAX);
        let messages: Vec<_> = (0..count).map_while(|_| read_message(&mut reader, self.signer)).collect();
        if messages.is_empty() { Err(MessageError::NoMessages { claimed: *claimed }) } else { Ok(messages) }
    }
}

/// Reads one message; `None` if it is malformed.
fn read_message(reader: &mut Reader<'_>, signer: Signer) -> Option<UnverifiedMessage> {
    let kind = reader.u8("kind").ok()?;
    let flags = reader.u8("flags").ok()?;
    let timestamp = reader.u32("timestamp").ok()?;
    let length = usize::from(reader.u16("payload length").ok()?);
    if length > PAYLOAD_BYTES_MAX {
        return None;
    }
    let payload = reader.bytes("payload", length).ok()?.into();
    // Not signed, so it says nothing.
    reader.array::<20>("id of the signing key").ok()?;
    let length = usize::from(reader.u8("signature length").ok()?);
    let signature = reader.bytes("signature", length).ok()?.into();
    Some(UnverifiedMessage { message: AuthorityMessage { kind, flags, timestamp, payload, signer }, signature })
}

/// Returns the messages of a blob, all of them verified, if a share may carry it. (An empty `message_data` is none: the
/// caller does not ask.)
///
/// A blob of n bytes costs two macs over n − 49 bytes, then the decryption of at most 1771 bytes and the verification
/// of at most three signatures, about 0.05 ms each. There is no limit on n below that of the share, as the reference
/// has none, and a lower one would separate this node from the others: at 32 MB, the macs take about 0.2 s with SHA-256
/// in software. That is little beside the rest: the ref hash covers the blob, so the same bytes are hashed before the
/// share's proof of work can be checked at all, and a share without that proof never gets here. So each blob costs its
/// sender a share's work. The caller reads a share's blob once and keeps the result.
///
/// # Errors
/// [`MessageError`], the first in the order of its variants; of several messages, the first that fails decides.
pub fn read(blob: &[u8]) -> Result<Vec<AuthorityMessage>, MessageError> {
    Envelope::open(blob)?.messages()?.into_iter().map(UnverifiedMessage::verify).collect()
}

fn hmac(key: &[u8], data: &[u8]) -> [u8; 32] {
    let mut engine = HmacEngine::<sha256::Hash>::new(key);
    engine.input(data);
    Hmac::from_engine(engine).to_byte_array()
}

/// Decrypts or encrypts with the stream of `key`: the hashes of the key and a counter.
fn decrypt(key: &[u8; 32], text: &[u8]) -> Vec<u8> {
    let mut text = text.to_vec();
    for (counter, block) in (0_u32..).zip(text.chunks_mut(32)) {
        let mut engine = sha256::Hash::engine();
        engine.input(key);
        engine.input(&counter.to_le_bytes());
        let stream = sha256::Hash::from_engine(engine).to_byte_array();
        for (byte, mask) in block.iter_mut().zip(stream) {
            *byte ^= mask;
        }
    }
    text
}

#[cfg(test)]
mod tests;
