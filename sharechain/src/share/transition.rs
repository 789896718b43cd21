//! Payload of a transition signal: the authorities' advice to change to another share version (protocol-v36 section 7).

use serde_json::{Map, Value};

/// Urgency of a change to another version, as its authority rates it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Urgency {
    /// For information; also any word that is none of the others, as in the reference.
    Info,
    /// Recommended.
    Recommended,
    /// Required: nodes that stay behind will not take part.
    Required,
}

impl Urgency {
    /// Word in the payload and in the reference's JSON.
    pub fn name(self) -> &'static str {
        match self {
            Urgency::Info => "info",
            Urgency::Recommended => "recommended",
            Urgency::Required => "required",
        }
    }

    fn of_name(name: &str) -> Urgency {
        match name {
            "recommended" => Urgency::Recommended,
            "required" => Urgency::Required,
            _ => Urgency::Info,
        }
    }
}

/// Advice to change to another share version; also the content of a message of another kind
/// ([`AuthorityMessage::content`](super::AuthorityMessage::content)).
///
/// All texts are printable: they do nothing to a log or a terminal. In a page they still need the escapes of HTML. At
/// most 220 bytes are parsed, and no escape is longer than six times its character.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transition {
    /// Version to leave, such as `35`; empty if the payload does not name it.
    pub from: String,
    /// Version to change to; empty if the payload does not name it.
    pub to: String,
    /// Text for operators; may be empty.
    pub text: String,
    /// Urgency.
    pub urgency: Urgency,
    /// Address of a page about it. Nothing restricts its scheme: check it before making a link of it.
    pub url: Option<String>,
    /// Votes that switch the chain, in percent.
    pub threshold: Option<u8>,
}

impl Transition {
    /// Content that is a text alone, which may hold anything.
    pub(super) fn of_text(text: &str) -> Transition {
        Transition {
            from: String::new(),
            to: String::new(),
            text: printable(text),
            urgency: Urgency::Info,
            url: None,
            threshold: None,
        }
    }

    /// Parses a payload, in which every field may be missing or of another type, as long as it is a JSON object.
    pub(super) fn read(payload: &[u8]) -> Option<Transition> {
        let object: Map<String, Value> = serde_json::from_slice(payload).ok()?;
        let text_of = |key| match object.get(key) {
            Some(Value::String(text)) => printable(text),
            Some(Value::Number(number)) => number.to_string(),
            _ => String::new(),
        };
        let url = text_of("url");
        let threshold = object.get("thr").and_then(Value::as_u64).and_then(|percent| u8::try_from(percent).ok());
        Some(Transition {
            from: text_of("from"),
            to: text_of("to"),
            text: text_of("msg"),
            urgency: Urgency::of_name(&text_of("urg")),
            url: (!url.is_empty()).then_some(url),
            threshold: threshold.filter(|percent| *percent <= 100),
        })
    }
}

/// Escapes control characters and characters that are invisible or change the direction of others. Escaping twice
/// changes nothing.
fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        if is_printable(character) {
            out.push(character);
        } else {
            out.extend(character.escape_unicode());
        }
    }
    out
}

fn is_printable(character: char) -> bool {
    if character.is_ascii() {
        return !character.is_ascii_control();
    }
    // The standard library knows which characters are printable, but escapes marks at the beginning of a text: hence
    // the letter.
    ['a', character].iter().collect::<String>().escape_debug().count() == 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(payload: &str) -> Option<Transition> {
        Transition::read(payload.as_bytes())
    }

    #[test]
    fn all_fields_are_read() {
        let payload = r#"{"from":35,"to":"36","msg":"Büro: 矿机 <b>","urg":"required","url":"https://example.org/a?b","thr":95,"more":[]}"#;
        let expected = Transition {
            from: "35".into(),
            to: "36".into(),
            text: "Büro: 矿机 <b>".into(),
            urgency: Urgency::Required,
            url: Some("https://example.org/a?b".into()),
            threshold: Some(95),
        };
        assert_eq!(read(payload), Some(expected));
    }

    #[test]
    fn fields_that_are_missing_or_odd_are_empty() {
        let empty = Transition {
            from: String::new(),
            to: String::new(),
            text: String::new(),
            urgency: Urgency::Info,
            url: None,
            threshold: None,
        };
        assert_eq!(read("{}"), Some(empty.clone()));
        let odd = r#"{"from":null,"to":[36],"msg":{"a":1},"urg":"now","url":"","thr":101}"#;
        assert_eq!(read(odd), Some(empty.clone()));
        assert_eq!(read(r#"{"urg":7,"thr":-1}"#), Some(empty));
        for not_an_object in ["", "35", "[]", "\"text\"", "{\"from\":35", "{} x"] {
            assert_eq!(read(not_an_object), None, "{not_an_object}");
        }
        assert_eq!(Transition::read(b"{\"msg\":\"\xff\"}"), None, "not UTF-8");
        assert_eq!(read(&"[".repeat(220)), None, "nested");
    }

    #[test]
    fn urgencies_have_the_words_of_the_reference() {
        for urgency in [Urgency::Info, Urgency::Recommended, Urgency::Required] {
            assert_eq!(Urgency::of_name(urgency.name()), urgency);
        }
    }

    #[test]
    fn what_steers_a_terminal_breaks_a_line_or_hides_is_escaped() {
        let transition = read(r#"{"from":"\u001b[2J","msg":"a\nb\u202ec\u0301","url":"x\u0000"}"#).unwrap();
        assert_eq!(transition.from, r"\u{1b}[2J");
        assert_eq!(transition.text, "a\\u{a}b\\u{202e}c\u{301}");
        assert_eq!(transition.url.as_deref(), Some(r"x\u{0}"));
    }

    proptest! {
        #[test]
        fn any_text_is_printable_and_bounded(text in "(?s).{0,60}") {
            let payload = serde_json::json!({ "from": text, "to": text, "msg": text, "url": text }).to_string();
            let transition = read(&payload).unwrap();
            let url = transition.url.unwrap_or_default();
            for shown in [&transition.from, &transition.to, &transition.text, &url] {
                prop_assert!(shown.chars().all(is_printable), "{shown}");
                prop_assert!(shown.len() <= 6 * text.len());
                prop_assert_eq!(&printable(shown), shown);
            }
        }

        #[test]
        fn no_payload_makes_it_panic(payload in prop::collection::vec(any::<u8>(), 0..=220)) {
            let _ = Transition::read(&payload);
        }
    }
}
