//! Text from strangers, escaped once where it is parsed: safe in a log, on a terminal and in a page after that.
//!
//! Escaped are control characters (line feeds, escape codes), characters that are invisible or change the direction of
//! others, and in a [`Printable`] those with a meaning in HTML: front ends of P2Pool put names into pages as they are.
//! Letters, marks and symbols of any script stay as they are, and so does a backslash: escaping twice changes nothing.

use std::borrow::{Borrow, Cow};
use std::fmt::{self, Write};
use std::ops::Deref;
use std::sync::Arc;

/// Maximum length of a [`Printable`] in characters; an ellipsis marks a longer text.
pub const CHARACTERS_MAX: usize = 255;

/// Short text with printable characters only, none of which has a meaning in HTML. Clones share it.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Printable(Arc<str>);

impl Printable {
    /// Escapes `text`, and cuts it after [`CHARACTERS_MAX`] characters.
    pub fn new(text: &str) -> Self {
        Self::of_at_most(text, CHARACTERS_MAX)
    }

    /// Escapes `text`, and cuts it after `characters_max` characters, never within an escape.
    pub fn of_at_most(text: &str, characters_max: usize) -> Self {
        Self(shortened(text, characters_max, is_harmless).into())
    }

    /// The text, shared.
    pub fn shared(&self) -> &Arc<str> {
        &self.0
    }
}

impl From<&str> for Printable {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl Deref for Printable {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Printable {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Printable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Printable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// True if a terminal or a log shows `character` as one visible character or a plain space, and does nothing else.
pub fn is_printable(character: char) -> bool {
    if character.is_ascii() {
        return !character.is_ascii_control();
    }
    if is_ignorable(character) {
        return false;
    }
    // The standard library knows which characters are printable, but says it of a text only. The letter is for marks,
    // which it escapes at the beginning of a text.
    let mut text = [b'a', 0, 0, 0, 0];
    let length = 1 + character.encode_utf8(&mut text[1..]).len();
    std::str::from_utf8(&text[..length]).is_ok_and(|text| text.escape_debug().count() == 2)
}

/// True for letters, marks and symbols that show nothing; the standard library takes them for printable.
fn is_ignorable(character: char) -> bool {
    matches!(character,
        '\u{34f}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}' | '\u{2800}'
        | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{ffa0}' | '\u{e0100}'..='\u{e01ef}')
}

/// True if `character` is harmless in HTML, too.
fn is_harmless(character: char) -> bool {
    !matches!(character, '<' | '>' | '&' | '"' | '\'') && is_printable(character)
}

/// Escapes what is not printable in `text`, for a terminal or a log.
pub fn escaped(text: &str) -> Cow<'_, str> {
    if text.chars().all(is_printable) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(2 * text.len());
    // Writing to a string does not fail.
    let _ = Escape(&mut out).write_str(text);
    Cow::Owned(out)
}

/// Writer that escapes what is not printable, for a terminal or a log.
#[derive(Debug)]
pub struct Escape<W>(pub W);

impl<W: fmt::Write> fmt::Write for Escape<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some((start, character)) = rest.char_indices().find(|(_, character)| !is_printable(*character)) {
            self.0.write_str(&rest[..start])?;
            write_escape(&mut self.0, character)?;
            rest = &rest[start + character.len_utf8()..];
        }
        self.0.write_str(rest)
    }
}

/// Escapes the characters of `text` that are not `kept`, and cuts it after `characters_max` characters.
pub(crate) fn shortened(text: &str, characters_max: usize, kept: fn(char) -> bool) -> String {
    let mut out = String::with_capacity(text.len().min(4 * characters_max));
    let mut left = characters_max;
    for character in text.chars() {
        let before = out.len();
        if kept(character) {
            out.push(character);
        } else {
            let _ = write_escape(&mut out, character);
        }
        let Some(fewer) = left.checked_sub(out[before..].chars().count()) else {
            out.truncate(before);
            out.push('…');
            break;
        };
        left = fewer;
    }
    out
}

fn write_escape(out: &mut impl fmt::Write, character: char) -> fmt::Result {
    match character {
        '\n' | '\r' | '\t' => write!(out, "{}", character.escape_debug()),
        other => write!(out, "{}", other.escape_unicode()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ordinary_names_stay_as_they_are_in_any_script() {
        for name in [
            "1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2.rig_1-a",
            "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4.Büro (2. Stock) 50 %",
            "шахта",
            "矿机 7",
            "e\u{301}tage",
            "नमस्ते",
            "⛏",
            r"host\rig",
            "",
        ] {
            assert_eq!(&*Printable::new(name), name);
            assert_eq!(escaped(name), name);
        }
    }

    #[test]
    fn what_steers_a_terminal_breaks_a_line_or_hides_is_escaped() {
        for (text, shown) in [
            ("a\nb\r\tc\0", r"a\nb\r\tc\u{0}"),
            ("\u{1b}[2J\u{9b}2J\u{7f}", r"\u{1b}[2J\u{9b}2J\u{7f}"),
            ("a\u{202e}b\u{2066}c\u{200f}", r"a\u{202e}b\u{2066}c\u{200f}"),
            ("a\u{200b}\u{ad}\u{feff}\u{2028}b", r"a\u{200b}\u{ad}\u{feff}\u{2028}b"),
            ("\u{a0}\u{3164}\u{fe0f}\u{e0041}\u{e000}", r"\u{a0}\u{3164}\u{fe0f}\u{e0041}\u{e000}"),
        ] {
            assert_eq!(&*Printable::new(text), shown);
            assert_eq!(escaped(text), shown);
        }
    }

    #[test]
    fn a_name_in_a_page_is_never_markup() {
        let name = Printable::new("<img src=x onerror=\"a('&')\">");
        assert_eq!(&*name, r"\u{3c}img src=x onerror=\u{22}a(\u{27}\u{26}\u{27})\u{22}\u{3e}");
        assert_eq!(escaped("<b>"), "<b>", "in a log it is only text");
    }

    #[test]
    fn a_text_is_cut_between_characters_and_escapes() {
        assert_eq!(&*Printable::of_at_most("abcdef", 6), "abcdef");
        assert_eq!(&*Printable::of_at_most("abcdef", 5), "abcde…");
        assert_eq!(&*Printable::of_at_most("ab\u{1b}c", 7), "ab…");
        assert_eq!(Printable::new(&"\u{1b}".repeat(5000)).chars().count(), 253);
    }

    proptest! {
        #[test]
        fn any_text_becomes_short_and_harmless_and_stays_the_same_after_that(text in "(?s).{0,400}") {
            let name = Printable::new(&text);
            prop_assert!(name.chars().all(is_harmless), "{name}");
            prop_assert!(name.chars().count() <= CHARACTERS_MAX + 1);
            let in_a_log = escaped(&text);
            prop_assert!(in_a_log.chars().all(is_printable), "{in_a_log}");
            prop_assert_eq!(escaped(&in_a_log), &*in_a_log);
            if name.chars().count() <= CHARACTERS_MAX {
                prop_assert_eq!(&Printable::new(&name), &name);
            }
        }
    }
}
