//! The addresses of the control plane: one, or a list with one for each replica.

use std::fmt;

use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// Replicas that a proxy knows.
const MOST: usize = 16;

/// URLs such as `https://HOST:15012`, as they are written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Addresses(Vec<String>);

impl Addresses {
    pub(crate) fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// Says of each that can't be used why.
    pub(super) fn faults(&self) -> impl Iterator<Item = String> + '_ {
        let number = match self.0.len() {
            0 => Some("at least one is needed".to_owned()),
            count if count > MOST => Some(format!("{count} are more than {MOST}")),
            _ => None,
        };
        let each = self.0.iter().enumerate().filter_map(|(index, address)| {
            let uri = address.parse::<http::Uri>();
            if !address.starts_with("https://") {
                Some(format!("'{address}' must start with https://"))
            } else if !uri.is_ok_and(|uri| uri.host().is_some_and(|host| !host.is_empty())) {
                Some(format!("'{address}' is no address"))
            } else if self.0[..index].contains(address) {
                Some(format!("'{address}' stands there twice"))
            } else {
                None
            }
        });
        number.into_iter().chain(each)
    }
}

impl<'de> Deserialize<'de> for Addresses {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrSeveral;
        impl<'de> Visitor<'de> for OneOrSeveral {
            type Value = Addresses;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an address such as https://HOST:15012, or a list of them")
            }

            fn visit_str<E: de::Error>(self, one: &str) -> Result<Addresses, E> {
                Ok(Addresses(vec![one.to_owned()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut several: A) -> Result<Addresses, A::Error> {
                let mut all = Vec::new();
                while let Some(address) = several.next_element()? {
                    all.push(address);
                }
                Ok(Addresses(all))
            }
        }
        deserializer.deserialize_any(OneOrSeveral)
    }
}
