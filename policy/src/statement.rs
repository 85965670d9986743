//! What a publisher signs of a filter: which name, version, world, binary and configuration schema it is, and by whose
//! key. Invariant: there is one text for each statement, so that nobody reads two things into one signature.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::identity::is_label;

/// Tells statements from everything else that the same key may sign.
const PAYLOAD_TYPE: &str = "application/vnd.weft.filter-statement.v1";
const FIRST_LINE: &str = "weft filter statement v1";
/// The schema of a filter that has none.
const NO_SCHEMA: &str = "none";
/// The longest version that is taken.
const MAX_VERSION: usize = 64;
/// The DER of an ed25519 public key in front of its 32 octets (RFC 8410 section 4).
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// An ed25519 public key by itself: `ed25519:` and 64 hex digits in lower case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyId([u8; 32]);

impl KeyId {
    #[must_use]
    pub fn of(key: &[u8; 32]) -> Self {
        Self(*key)
    }

    /// Of a key in PEM, whatever white space is in it. `None`: it is not the PEM of an ed25519 public key.
    #[must_use]
    pub fn of_pem(text: &str) -> Option<Self> {
        let inside =
            text.trim().strip_prefix("-----BEGIN PUBLIC KEY-----")?.strip_suffix("-----END PUBLIC KEY-----")?;
        let der = base64(inside.bytes().filter(|byte| !byte.is_ascii_whitespace()))?;
        der.strip_prefix(&SPKI_PREFIX)?.try_into().ok().map(Self)
    }
}

/// Octets of a text in base64 with its padding.
pub(crate) fn base64(text: impl Iterator<Item = u8>) -> Option<Vec<u8>> {
    let text: Vec<u8> = text.collect();
    let mut octets = Vec::with_capacity(text.len() / 4 * 3);
    let last = text.chunks(4).len().checked_sub(1)?;
    for (index, quad) in text.chunks(4).enumerate() {
        let quad = <[u8; 4]>::try_from(quad).ok()?;
        let padding = quad.iter().rev().take_while(|byte| **byte == b'=').count();
        if padding > 2 || (padding > 0 && index != last) {
            return None;
        }
        let mut number = 0_u32;
        for byte in &quad[..4 - padding] {
            number = number << 6 | u32::from(sextet(*byte)?);
        }
        let [_, first, second, third] = (number << (6 * padding)).to_be_bytes();
        octets.extend([first, second, third].iter().take(3 - padding));
    }
    Some(octets)
}

fn sextet(byte: u8) -> Option<u8> {
    match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ed25519:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for KeyId {
    type Err = StatementError;

    fn from_str(text: &str) -> Result<Self, StatementError> {
        let wrong = StatementError::Field { field: "publisher", expected: "ed25519: and 64 hex digits in lower case" };
        let digits = text.strip_prefix("ed25519:").filter(|digits| is_hex(digits)).ok_or_else(|| wrong.clone())?;
        let mut key = [0; 32];
        for (octet, pair) in key.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| wrong.clone())?;
            *octet = u8::from_str_radix(pair, 16).map_err(|_| wrong.clone())?;
        }
        Ok(Self(key))
    }
}

/// 64 hex digits in lower case.
fn is_hex(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// True for a digest as it is written: `sha256:` and 64 hex digits in lower case.
pub(crate) fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(is_hex)
}

/// A version of a filter, as its publisher answers for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    pub name: String,
    pub version: String,
    /// `weft:filter@0.2.0`
    pub abi: String,
    /// Of the binary: `sha256:` and 64 hex digits in lower case.
    pub digest: String,
    /// Of the configuration schema as it is in the binary, written as the digest.
    pub schema: Option<String>,
    pub publisher: KeyId,
}

/// A statement with its signature, as it is kept and told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedStatement {
    /// The text of a [`Statement`].
    pub text: String,
    /// Raw ed25519 over [`signed_bytes`] of the text, base64.
    pub signature: String,
}

/// Why a statement is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StatementError {
    #[error("the statement is not one of this form: {FIRST_LINE:?} and a line for each field are expected")]
    Form,
    #[error("the statement's {field} is not {expected}")]
    Field { field: &'static str, expected: &'static str },
    #[error("the statement is about {field} {said}, and this is {found}")]
    Other { field: &'static str, said: String, found: String },
}

/// The bytes that are signed: DSSE's pre-authentication encoding, in which type and text can't run into each other.
#[must_use]
pub fn signed_bytes(text: &str) -> Vec<u8> {
    format!("DSSEv1 {} {PAYLOAD_TYPE} {} {text}", PAYLOAD_TYPE.len(), text.len()).into_bytes()
}

impl Statement {
    /// Refuses to be taken for a statement about something else.
    ///
    /// # Errors
    /// The first field in which `found` differs.
    pub fn is_about(&self, found: &Self) -> Result<(), StatementError> {
        let none = || NO_SCHEMA.to_owned();
        let fields = [
            ("name", self.name.clone(), found.name.clone()),
            ("version", self.version.clone(), found.version.clone()),
            ("world", self.abi.clone(), found.abi.clone()),
            ("digest", self.digest.clone(), found.digest.clone()),
            ("schema", self.schema.clone().unwrap_or_else(none), found.schema.clone().unwrap_or_else(none)),
            ("publisher", self.publisher.to_string(), found.publisher.to_string()),
        ];
        match fields.into_iter().find(|(_, said, found)| said != found) {
            Some((field, said, found)) => Err(StatementError::Other { field, said, found }),
            None => Ok(()),
        }
    }

    fn check(&self) -> Result<(), StatementError> {
        let is_word = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        let fields = [
            ("name", "a name of lower-case letters, digits and '-'", is_label(&self.name)),
            ("version", "MAJOR.MINOR.PATCH", is_word(&self.version) && self.version.len() <= MAX_VERSION),
            ("abi", "a package with its version", is_word(&self.abi) && self.abi.len() <= MAX_VERSION),
            ("digest", "sha256: and 64 hex digits in lower case", is_digest(&self.digest)),
            (
                "config-schema",
                "none, or sha256: and 64 hex digits in lower case",
                self.schema.as_deref().is_none_or(is_digest),
            ),
        ];
        match fields.into_iter().find(|(.., is_fit)| !is_fit) {
            Some((field, expected, _)) => Err(StatementError::Field { field, expected }),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Statement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, version, abi, digest, schema, publisher } = self;
        let schema = schema.as_deref().unwrap_or(NO_SCHEMA);
        write!(
            f,
            "{FIRST_LINE}\nname: {name}\nversion: {version}\nabi: {abi}\ndigest: {digest}\nconfig-schema: {schema}\n\
             publisher: {publisher}\n"
        )
    }
}

impl FromStr for Statement {
    type Err = StatementError;

    fn from_str(text: &str) -> Result<Self, StatementError> {
        let mut lines = text.lines();
        if lines.next() != Some(FIRST_LINE) {
            return Err(StatementError::Form);
        }
        let mut field = |name: &str| {
            let value = lines.next().and_then(|line| line.strip_prefix(name)?.strip_prefix(": "));
            value.map(str::to_owned).ok_or(StatementError::Form)
        };
        let statement = Self {
            name: field("name")?,
            version: field("version")?,
            abi: field("abi")?,
            digest: field("digest")?,
            schema: Some(field("config-schema")?).filter(|schema| schema != NO_SCHEMA),
            publisher: field("publisher")?.parse()?,
        };
        statement.check()?;
        // Whatever else could be read into it is not what was signed.
        if statement.to_string() == text { Ok(statement) } else { Err(StatementError::Form) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEM: &str = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n";

    fn statement() -> Statement {
        Statement {
            name: "mine".to_owned(),
            version: "1.2.0".to_owned(),
            abi: "weft:filter@0.2.0".to_owned(),
            digest: format!("sha256:{}", "a".repeat(64)),
            schema: None,
            publisher: KeyId::of_pem(PEM).unwrap(),
        }
    }

    #[test]
    fn a_key_is_the_same_however_its_pem_is_written() {
        let id = KeyId::of_pem(PEM).unwrap();
        // The example of RFC 8410 section 10.1.
        assert_eq!(id.to_string(), "ed25519:19bf44096984cdfe8541bac167dc3b96c85086aa30b6b6cb0c5c38ad703166e1");
        assert_eq!(KeyId::of_pem(&PEM.replace('\n', "\r\n")), Some(id));
        assert_eq!(id.to_string().parse(), Ok(id));
        for wrong in ["", "-----BEGIN PUBLIC KEY-----\nMCow\n-----END PUBLIC KEY-----", &PEM.replace("MCow", "MCox")] {
            assert_eq!(KeyId::of_pem(wrong), None, "{wrong}");
        }
        assert!("ed25519:19BF".parse::<KeyId>().is_err());
    }

    #[test]
    fn a_statement_has_one_text() {
        let text = statement().to_string();
        assert_eq!(text.parse(), Ok(statement()));
        let with_schema = Statement { schema: Some(format!("sha256:{}", "b".repeat(64))), ..statement() };
        assert_eq!(with_schema.to_string().parse(), Ok(with_schema));
        for (from, to) in [
            ("\nversion", "\r\nversion"),
            ("mine", "Mine"),
            ("mine\n", "mine\nname: other\n"),
            ("v1\n", "v2\n"),
            ("sha256:a", "sha256:A"),
            ("1.2.0", "1.2.0 "),
            ("config-schema: none\n", ""),
        ] {
            let changed = text.replacen(from, to, 1);
            assert_ne!(changed, text);
            assert!(changed.parse::<Statement>().is_err(), "{changed}");
        }
        assert!(format!("{text}\n").parse::<Statement>().is_err() && text.trim_end().parse::<Statement>().is_err());
    }

    #[test]
    fn what_is_signed_can_not_be_split_otherwise() {
        let text = statement().to_string();
        let bytes = String::from_utf8(signed_bytes(&text)).unwrap();
        assert_eq!(bytes, format!("DSSEv1 40 {PAYLOAD_TYPE} {} {text}", text.len()));
    }

    #[test]
    fn a_statement_is_about_nothing_else() {
        let other = Statement { name: "stamp".to_owned(), ..statement() };
        let error = statement().is_about(&other).unwrap_err().to_string();
        assert_eq!(error, "the statement is about name mine, and this is stamp");
        assert_eq!(statement().is_about(&statement()), Ok(()));
        let older = Statement { version: "1.1.0".to_owned(), ..statement() };
        assert!(older.is_about(&statement()).unwrap_err().to_string().contains("version 1.1.0"));
    }
}
