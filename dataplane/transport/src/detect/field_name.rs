//! Finds the name of a header field in a stream of bytes, in every spelling that servers fold into it, wherever the stream
//! is cut into pieces.

/// A name that is looked for. No part of it may begin as the whole does.
#[derive(Debug)]
pub struct FieldName {
    /// In lower case.
    name: &'static [u8],
    matched: usize,
}

impl FieldName {
    pub fn new(name: &'static str) -> Self {
        let name = name.as_bytes();
        debug_assert!(!name.is_empty() && !name[1..].contains(&name[0]), "a match could begin inside of another");
        Self { name, matched: 0 }
    }

    /// Reads on; true once the name was there.
    pub fn read(&mut self, bytes: &[u8]) -> bool {
        for byte in bytes {
            if self.matched == self.name.len() {
                return true;
            }
            let is_next = |wanted: u8| folded(*byte) == wanted;
            self.matched = match self.matched {
                matched if is_next(self.name[matched]) => matched + 1,
                _ => usize::from(is_next(self.name[0])),
            };
        }
        self.matched == self.name.len()
    }
}

/// Servers read field names without regard to case, and some take `_` for `-`.
fn folded(byte: u8) -> u8 {
    if byte == b'_' { b'-' } else { byte.to_ascii_lowercase() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_found_however_it_is_spelt_and_cut() {
        let check = |text: &str, expect: bool| {
            assert_eq!(FieldName::new("x-client-cert").read(text.as_bytes()), expect, "{text}");
            let mut pieces = FieldName::new("x-client-cert");
            let found = text.as_bytes().chunks(3).any(|piece| pieces.read(piece));
            assert_eq!(found, expect, "{text} in pieces");
        };
        check("GET / HTTP/1.1\r\nX-Client-Cert: a\r\n", true);
        check("x_client-CERT", true);
        check("xx-client-cert", true);
        check("x-client-x-client-cert more", true);
        check("x-client-certain", true);
        check("x-client-cer", false);
        check("x-clientx-cert", false);
        check("", false);
    }
}
