//! Bytes that nobody is shown. Invariant: `Debug`, `Display` and `Serialize` tell their number only. The store, the wire,
//! `weft apply` and the host of filters ask for them by [`SecretBytes::reveal`] or [`SecretBytes::to_base64`].

#[cfg(feature = "manifest")]
use std::collections::BTreeMap;
use std::fmt;
#[cfg(feature = "manifest")]
use std::marker::PhantomData;
use std::sync::Arc;

#[cfg(feature = "manifest")]
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::statement::base64;

/// Bytes of one value at the most: as long as the longest key that `crypto` takes.
pub const MAX_SECRET_BYTES: usize = 16 << 10;
/// The longest text in base64 that is looked at; line ends may be in it.
const MAX_TEXT: usize = MAX_SECRET_BYTES * 2;

#[derive(Clone, PartialEq, Eq)]
pub struct SecretBytes(Arc<[u8]>);

impl SecretBytes {
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }

    /// Of a text in base64 with its padding, whatever white space is in it. `None`: it is none, or empty.
    #[must_use]
    pub fn of_base64(text: &str) -> Option<Self> {
        if text.len() > MAX_TEXT {
            return None;
        }
        base64(text.bytes().filter(|byte| !byte.is_ascii_whitespace())).map(|bytes| Self(bytes.into()))
    }

    /// The bytes themselves.
    #[must_use]
    pub fn reveal(&self) -> &[u8] {
        &self.0
    }

    /// The bytes themselves, as the wire and the store write them.
    #[must_use]
    pub fn to_base64(&self) -> String {
        const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut text = String::with_capacity(self.0.len().div_ceil(3) * 4);
        for three in self.0.chunks(3) {
            let mut octets = [0; 4];
            octets[1..=three.len()].copy_from_slice(three);
            let number = u32::from_be_bytes(octets);
            for place in 0..4 {
                let digit = (number >> (18 - 6 * place) & 63) as usize;
                text.push(if place <= three.len() { char::from(DIGITS[digit]) } else { '=' });
            }
        }
        text
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "redacted ({} bytes)", self.0.len())
    }
}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What is shown of them: it can't be read back.
impl Serialize for SecretBytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// From base64.
impl<'de> Deserialize<'de> for SecretBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let UnspokenText(text) = UnspokenText::deserialize(deserializer)?;
        Self::of_base64(&text).ok_or_else(|| D::Error::custom("is not the base64 of a value"))
    }
}

/// A text of which no error says what was written in its place.
pub(crate) struct UnspokenText(pub(crate) String);

impl<'de> Deserialize<'de> for UnspokenText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        fn none<T, E: Error>() -> Result<T, E> {
            Err(E::custom("is not a text; numbers and words such as true stand in quotes"))
        }

        impl<'de> Visitor<'de> for Text {
            type Value = UnspokenText;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<UnspokenText, E> {
                Ok(UnspokenText(text.to_owned()))
            }

            fn visit_bool<E: Error>(self, _: bool) -> Result<UnspokenText, E> {
                none()
            }

            fn visit_i64<E: Error>(self, _: i64) -> Result<UnspokenText, E> {
                none()
            }

            fn visit_u64<E: Error>(self, _: u64) -> Result<UnspokenText, E> {
                none()
            }

            fn visit_f64<E: Error>(self, _: f64) -> Result<UnspokenText, E> {
                none()
            }

            fn visit_unit<E: Error>(self) -> Result<UnspokenText, E> {
                none()
            }

            fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<UnspokenText, A::Error> {
                none()
            }

            fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<UnspokenText, A::Error> {
                none()
            }
        }

        deserializer.deserialize_any(Text)
    }
}

/// Reads a mapping. Where there is none, no error says what was written in its place: it `is not` what is `wanted`.
#[cfg(feature = "manifest")]
pub(crate) fn unspoken_mapping<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
    wanted: &'static str,
) -> Result<T, D::Error> {
    struct Mapping<T> {
        wanted: &'static str,
        of: PhantomData<T>,
    }

    impl<T> Mapping<T> {
        fn none<E: Error>(self) -> Result<T, E> {
            Err(E::custom(format_args!("is not {}", self.wanted)))
        }
    }

    impl<'de, T: Deserialize<'de>> Visitor<'de> for Mapping<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.wanted)
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
            T::deserialize(MapAccessDeserializer::new(map))
        }

        fn visit_str<E: Error>(self, _: &str) -> Result<T, E> {
            self.none()
        }

        fn visit_bool<E: Error>(self, _: bool) -> Result<T, E> {
            self.none()
        }

        fn visit_i64<E: Error>(self, _: i64) -> Result<T, E> {
            self.none()
        }

        fn visit_u64<E: Error>(self, _: u64) -> Result<T, E> {
            self.none()
        }

        fn visit_f64<E: Error>(self, _: f64) -> Result<T, E> {
            self.none()
        }
    }

    deserializer.deserialize_any(Mapping { wanted, of: PhantomData })
}

/// A mapping of names to values of which no error says what was written in its place.
#[cfg(feature = "manifest")]
pub(crate) struct Unspoken<T>(pub(crate) BTreeMap<String, T>);

#[cfg(feature = "manifest")]
impl<T> Default for Unspoken<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

#[cfg(feature = "manifest")]
impl<'de, T: Deserialize<'de>> Deserialize<'de> for Unspoken<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        unspoken_mapping(deserializer, "a mapping of names to values").map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    //= rfc4648#section-10
    #[test]
    fn base64_is_the_standard_s_both_ways() {
        for (plain, text) in
            [("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("fooba", "Zm9vYmE=")]
        {
            let bytes = SecretBytes::new(plain.as_bytes());
            assert_eq!(bytes.to_base64(), text);
            assert_eq!(SecretBytes::of_base64(text), Some(bytes));
        }
        let all: Vec<u8> = (0..=255).collect();
        let folded = SecretBytes::new(&all).to_base64().replace('Q', "Q\n ");
        assert_eq!(SecretBytes::of_base64(&folded).map(|bytes| bytes.reveal().to_vec()), Some(all));
        for wrong in ["", "Zg", "Zg=", "Z===", "Zg==Zg==", "redacted (3 bytes)", "Zm9v!"] {
            assert_eq!(SecretBytes::of_base64(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn no_form_of_it_tells_the_bytes() {
        let bytes = SecretBytes::new(b"hunter22");
        let shown = "redacted (8 bytes)";
        assert_eq!((format!("{bytes}").as_str(), format!("{bytes:?}").as_str()), (shown, shown));
        assert_eq!(format!("{:#?}", Some(&bytes)), format!("Some(\n    {shown},\n)"));
    }
}
