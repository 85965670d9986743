//! Notes of what one side of an exchange saw, as lines of a key and a value, so that two of them can be compared, and a
//! difference named.

use std::fmt;

/// Lines in the order in which they were seen. Keys are paths: `1.status`, `1.field.host`, `2.end`.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Seen(pub Vec<(String, String)>);

impl Seen {
    pub fn note(&mut self, key: impl Into<String>, value: impl Into<String>) {
        self.0.push((key.into(), value.into()));
    }

    /// The value of the first line with this key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str())
    }

    /// Forgets every line for which this holds.
    pub fn forget(&mut self, mut which: impl FnMut(&str, &str) -> bool) {
        self.0.retain(|(key, value)| !which(key, value));
    }

    /// Sets the value of every line with this key.
    pub fn set(&mut self, key: &str, value: &str) {
        for (known, line) in &mut self.0 {
            if known == key {
                value.clone_into(line);
            }
        }
    }

    /// The lines of one message under another number.
    pub fn add(&mut self, number: usize, lines: &Seen) {
        self.0.extend(lines.0.iter().map(|(key, value)| (format!("{number}.{key}"), value.clone())));
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(key, value)| writeln!(out, "      {key}: {value}"))
    }
}

/// Bytes as text that can be read and compared.
pub fn shown(bytes: &[u8]) -> String {
    if bytes.len() <= 2_000 {
        return bytes.escape_ascii().to_string();
    }
    format!("{}.. {} bytes, sum {:016x}", bytes[..40].escape_ascii(), bytes.len(), sum(bytes))
}

/// A body by its length and a sum over its bytes.
pub fn body(bytes: &[u8]) -> String {
    format!("{} bytes, sum {:016x}", bytes.len(), sum(bytes))
}

/// FNV-1a.
fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xCBF2_9CE4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3))
}
