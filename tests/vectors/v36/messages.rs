//! Authority messages: recorded blobs, their plain bytes and messages, and whether a share may carry them.

use serde_json::Value;
use sharechain::share::{Envelope, MessageError, Signer, UnverifiedMessage, read_messages};

use crate::vectors::support::{bytes_of, json, list_of, number_of, ran, str_of};

/// Compares a message with its recording, its signature's verdict included.
fn check_message(message: &UnverifiedMessage, recorded: &Value, name: &str) {
    let claimed = message.claimed();
    assert_eq!(u64::from(claimed.kind), number_of(&recorded["type"]).to::<u64>(), "{name}");
    assert_eq!(u64::from(claimed.flags), number_of(&recorded["wire_flags"]).to::<u64>(), "{name}");
    assert_eq!(u64::from(claimed.timestamp), number_of(&recorded["timestamp"]).to::<u64>(), "{name}");
    assert_eq!(*claimed.payload, *bytes_of(&recorded["payload"]), "{name}");
    assert_eq!(message.signature(), bytes_of(&recorded["signature"]), "{name}");
    assert_eq!(claimed.digest().to_vec(), bytes_of(&recorded["hash"]), "{name}");
    // Zeros in every recording; it is not signed, so it is not kept.
    assert!(recorded["signing_id"].is_null(), "{name}");
    assert_eq!(Some(message.clone().verify().is_ok()), recorded["valid"].as_bool(), "{name}");
}

/// Reason for which a blob of this name is refused.
fn is_reason(name: &str, error: &MessageError) -> bool {
    match name {
        "same inner under the other authority key: signature fails" => {
            *error == MessageError::Signature { kind: 0x20, signer: Signer::FirstAuthor }
        }
        "count 0" => *error == MessageError::NoMessages { claimed: 0 },
        "mac wrong" => matches!(error, MessageError::Mac(_)),
        "52 bytes" => *error == MessageError::TooShort(52),
        "53 bytes with a good mac" | "payload length beyond 220" => *error == MessageError::NoMessages { claimed: 1 },
        "inner version 0" => *error == MessageError::InnerVersion(0),
        _ => false,
    }
}

#[test]
fn authority_messages_are_read_as_recorded() {
    let file = json("messages_v36.json");
    let keys: Vec<_> = list_of(&file["authority_pubkeys"]).iter().map(bytes_of).collect();
    assert_eq!(keys, Signer::ALL.map(|signer| signer.public_key().to_vec()));

    let cases = list_of(&file["cases"]);
    for case in cases {
        let (name, blob) = (str_of(&case["name"]), bytes_of(&case["hex"]));
        let messages = list_of(&case["messages"]);
        match Envelope::open(&blob) {
            Ok(envelope) => {
                assert_eq!(envelope.signer().public_key().to_vec(), bytes_of(&case["decrypted_by"]), "{name}");
                assert_eq!(envelope.inner(), bytes_of(&case["inner"]), "{name}");
                let read = envelope.messages().unwrap_or_default();
                assert_eq!(read.len(), messages.len(), "{name}");
                for (message, recorded) in read.iter().zip(messages) {
                    check_message(message, recorded, name);
                }
            }
            Err(_) => {
                assert!(case["decrypted_by"].is_null() && messages.is_empty(), "{name}");
                assert!(case["inner"].as_str().is_none_or(str::is_empty), "{name}");
            }
        }
        let verdict = read_messages(&blob);
        assert_eq!(Some(verdict.is_ok()), case["share_valid"].as_bool(), "{name}");
        match verdict {
            Ok(read) => assert_eq!(read.len(), messages.len(), "{name}"),
            Err(error) => assert!(is_reason(name, &error), "{name}: {error}"),
        }
    }
    ran("messages_v36.json", "cases", cases.len());
}
