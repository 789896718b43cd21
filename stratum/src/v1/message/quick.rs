//! Fast path for `mining.submit` in its usual form.

use super::{Call, Id, Request};

/// Parses `mining.submit` as nearly all miners write it, without a list in between. `None` for any other form, which
/// the full parser may accept.
pub(super) fn quick_submit(text: &str) -> Option<Request<'_>> {
    const STRINGS_MAX: usize = 6;
    // One pass over all bytes is faster than a check where each is read.
    let is_odd = |odd: bool, byte: &u8| odd | (*byte < 0x20) | (*byte == b'\\');
    if text.as_bytes().iter().fold(false, is_odd) {
        return None;
    }
    let mut scan = Scan { text, at: 0 };
    let (mut id, mut is_submit, mut params) = (None, false, None);
    scan.take(b'{')?;
    loop {
        let key = scan.string()?;
        scan.take(b':')?;
        match key {
            "id" if id.is_none() => id = Some(scan.simple()?),
            "method" if !is_submit => is_submit = scan.string()? == "mining.submit",
            "params" if params.is_none() => {
                let mut strings = [None; STRINGS_MAX];
                scan.take(b'[')?;
                for slot in &mut strings {
                    *slot = Some(scan.string()?);
                    if scan.peek()? == b']' {
                        break;
                    }
                    scan.take(b',')?;
                }
                scan.take(b']')?;
                params = Some(strings);
            }
            _ => return None,
        }
        match scan.peek()? {
            b',' => scan.at += 1,
            b'}' => break,
            _ => return None,
        }
    }
    scan.take(b'}')?;
    if scan.peek().is_some() || !is_submit {
        return None;
    }
    let [Some(name), Some(job), Some(extranonce2), Some(time), Some(nonce), version_bits] = params? else {
        return None;
    };
    let call = Call::Submit {
        name: name.into(),
        job: job.into(),
        extranonce2: extranonce2.into(),
        time: time.into(),
        nonce: nonce.into(),
        version_bits: version_bits.map(Into::into),
    };
    Some(Request { id: Id(id), call: Ok(call) })
}

/// Cursor over simple JSON, without control characters and backslashes; each step is `None` for anything else.
struct Scan<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scan<'a> {
    /// Next byte that is not white space.
    fn peek(&mut self) -> Option<u8> {
        loop {
            let byte = *self.text.as_bytes().get(self.at)?;
            if byte != b' ' {
                return Some(byte);
            }
            self.at += 1;
        }
    }

    fn take(&mut self, wanted: u8) -> Option<()> {
        let found = self.peek()? == wanted;
        self.at += usize::from(found);
        found.then_some(())
    }

    /// Parses a string.
    fn string(&mut self) -> Option<&'a str> {
        self.take(b'"')?;
        let rest = &self.text.as_bytes()[self.at..];
        let length = memchr::memchr(b'"', rest)?;
        let string = self.text.get(self.at..self.at + length)?;
        self.at += length;
        self.take(b'"')?;
        Some(string)
    }

    /// Parses a string or a whole number, returned as written.
    fn simple(&mut self) -> Option<&'a str> {
        if self.peek()? == b'"' {
            let start = self.at;
            self.string()?;
            return self.text.get(start..self.at);
        }
        let rest = &self.text.as_bytes()[self.at..];
        let length = rest.iter().position(|byte| !byte.is_ascii_digit())?;
        let number = self.text.get(self.at..self.at + length)?;
        self.at += length;
        // JSON has no leading zeros; the full parser refuses them.
        (length == 1 || !number.is_empty() && !number.starts_with('0')).then_some(number)
    }
}
