//! Finds a text in a stream of bytes, in every spelling that servers fold into it, wherever the stream is cut into pieces.

/// A text that is looked for, such as the name of a header field.
#[derive(Debug)]
pub struct Text {
    /// In lower case, with `-` for `_`.
    text: &'static [u8],
    matched: usize,
}

impl Text {
    /// # Panics
    /// When the text is empty, or not written as [`Text::read`] folds bytes.
    #[must_use]
    pub const fn new(text: &'static str) -> Self {
        let text = text.as_bytes();
        assert!(!text.is_empty());
        let mut at = 0;
        while at < text.len() {
            assert!(folded(text[at]) == text[at], "the text is not folded");
            at += 1;
        }
        Self { text, matched: 0 }
    }

    /// Reads on; true once the text was there.
    pub fn read(&mut self, bytes: &[u8]) -> bool {
        for byte in bytes {
            if self.matched == self.text.len() {
                return true;
            }
            let byte = folded(*byte);
            while self.text[self.matched] != byte && self.matched > 0 {
                self.matched = self.begun_anew();
            }
            self.matched += usize::from(self.text[self.matched] == byte);
        }
        self.matched == self.text.len()
    }

    /// Length of the longest shorter beginning of the text that the bytes read last are.
    fn begun_anew(&self) -> usize {
        let read = &self.text[..self.matched];
        (0..self.matched).rev().find(|length| read.ends_with(&self.text[..*length])).unwrap_or(0)
    }
}

/// Servers read field names without regard to case, and some take `_` for `-`.
const fn folded(byte: u8) -> u8 {
    if byte == b'_' { b'-' } else { byte.to_ascii_lowercase() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(wanted: &'static str, text: &str, expect: bool) {
        assert_eq!(Text::new(wanted).read(text.as_bytes()), expect, "{text}");
        let mut pieces = Text::new(wanted);
        let found = text.as_bytes().chunks(3).any(|piece| pieces.read(piece));
        assert_eq!(found, expect, "{text} in pieces");
    }

    #[test]
    fn a_name_is_found_however_it_is_spelt_and_cut() {
        let check = |text: &str, expect: bool| check("x-client-cert", text, expect);
        check("GET / HTTP/1.1\r\nX-Client-Cert: a\r\n", true);
        check("x_client-CERT", true);
        check("xx-client-cert", true);
        check("x-client-x-client-cert more", true);
        check("x-client-certain", true);
        check("x-client-cer", false);
        check("x-clientx-cert", false);
        check("", false);
    }

    #[test]
    fn a_text_that_begins_inside_of_itself_is_found() {
        for (text, expect) in [("PRI * HTTPRI * HTTP/2.0", true), ("PRI * HTTP/2", false), ("PPRI * HTTP/2.0", true)] {
            check("pri * http/2.0", text, expect);
        }
        check("aabaaac", "aabaabaaac", true);
        check("aabaaac", "aabaabaabaac", false);
    }
}
