//! Names of workloads: trust domains and SPIFFE IDs. Parsed once, private fields, `FromStr` is the only door: a
//! `SpiffeId` that exists is `spiffe://<trust-domain>/ns/<namespace>/sa/<service-account>` and nothing else.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Longest SPIFFE ID, bytes.
//= spiffe-id#section-2.3
const MAX_ID: usize = 2048;
/// Longest trust domain, bytes.
//= spiffe-id#section-2.1
const MAX_TRUST_DOMAIN: usize = 255;

/// Why a string is not an identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    #[error("a SPIFFE ID begins with spiffe://")]
    Scheme,
    #[error("a SPIFFE ID has at most {MAX_ID} bytes")]
    TooLong,
    #[error("{0:?} is not a trust domain: lower-case letters, digits, '.', '-' and '_', at most {MAX_TRUST_DOMAIN}")]
    TrustDomain(String),
    #[error("a workload's SPIFFE ID ends in /ns/<namespace>/sa/<service-account>")]
    Shape,
    #[error("{0:?} is not a namespace: lower-case letters, digits and '-', at most 63")]
    Namespace(String),
    #[error("{0:?} is not a service account: lower-case letters, digits, '-' and '.', at most 253")]
    ServiceAccount(String),
}

/// The name of a root of trust, `cluster.local` by default.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrustDomain(Arc<str>);

impl TrustDomain {
    pub const DEFAULT: &'static str = "cluster.local";

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The identity of a service account of this trust domain.
    pub fn workload(&self, namespace: &str, service_account: &str) -> Result<SpiffeId, IdentityError> {
        format!("spiffe://{}/ns/{namespace}/sa/{service_account}", self.0).parse()
    }
}

impl Default for TrustDomain {
    fn default() -> Self {
        Self(Self::DEFAULT.into())
    }
}

impl FromStr for TrustDomain {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_');
        if text.is_empty() || text.len() > MAX_TRUST_DOMAIN || !text.bytes().all(allowed) {
            return Err(IdentityError::TrustDomain(text.to_owned()));
        }
        Ok(Self(text.into()))
    }
}

/// The identity of a workload: a service account of a namespace of a trust domain. Cheap to clone.
#[derive(Clone)]
pub struct SpiffeId {
    text: Arc<str>,
    /// Byte ranges of `text`; they follow from it, so equality and order look at `text` alone.
    trust_domain: Range<usize>,
    namespace: Range<usize>,
    service_account: Range<usize>,
}

impl SpiffeId {
    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub fn trust_domain(&self) -> &str {
        &self.text[self.trust_domain.clone()]
    }

    pub fn namespace(&self) -> &str {
        &self.text[self.namespace.clone()]
    }

    pub fn service_account(&self) -> &str {
        &self.text[self.service_account.clone()]
    }
}

impl FromStr for SpiffeId {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const SCHEME: &str = "spiffe://";
        if text.len() > MAX_ID {
            return Err(IdentityError::TooLong);
        }
        let rest = text.strip_prefix(SCHEME).ok_or(IdentityError::Scheme)?;
        let mut parts = rest.split('/');
        let (Some(domain), Some("ns"), Some(namespace), Some("sa"), Some(account), None) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(IdentityError::Shape);
        };
        domain.parse::<TrustDomain>()?;
        if !is_label(namespace) {
            return Err(IdentityError::Namespace(namespace.to_owned()));
        }
        if !is_subdomain(account) {
            return Err(IdentityError::ServiceAccount(account.to_owned()));
        }
        let trust_domain = SCHEME.len()..SCHEME.len() + domain.len();
        let namespace_start = trust_domain.end + "/ns/".len();
        let namespace = namespace_start..namespace_start + namespace.len();
        let account_start = namespace.end + "/sa/".len();
        Ok(Self { text: text.into(), trust_domain, namespace, service_account: account_start..text.len() })
    }
}

impl PartialEq for SpiffeId {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for SpiffeId {}

impl PartialOrd for SpiffeId {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for SpiffeId {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.text.cmp(&other.text)
    }
}

impl std::hash::Hash for SpiffeId {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

/// A DNS label as namespaces and services are named (RFC 1123): `[a-z0-9]([-a-z0-9]*[a-z0-9])?`, at most 63.
pub fn is_label(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    !text.is_empty() && text.len() <= 63 && text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

/// Dot-separated labels, at most 253 bytes.
pub fn is_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_label)
}

/// Both are strings outside, in text and in serde.
macro_rules! string_outside {
    ($type:ty, $what:literal) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", self.as_str())
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Visitor;
                impl serde::de::Visitor<'_> for Visitor {
                    type Value = $type;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($what)
                    }

                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$type, E> {
                        text.parse().map_err(E::custom)
                    }
                }
                deserializer.deserialize_str(Visitor)
            }
        }
    };
}

string_outside!(TrustDomain, "a trust domain");
string_outside!(SpiffeId, "a SPIFFE ID");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_exactly_one_shape() {
        fn check(input: &str, expect: Result<(&str, &str, &str), &str>) {
            let got = input.parse::<SpiffeId>();
            let got = got.as_ref().map(|id| (id.trust_domain(), id.namespace(), id.service_account()));
            assert_eq!(got.map_err(ToString::to_string), expect.map_err(str::to_owned), "{input}");
        }
        check("spiffe://cluster.local/ns/shop/sa/web", Ok(("cluster.local", "shop", "web")));
        check("spiffe://td_1/ns/a-b/sa/web.front", Ok(("td_1", "a-b", "web.front")));
        check("https://cluster.local/ns/shop/sa/web", Err("a SPIFFE ID begins with spiffe://"));
        check("SPIFFE://cluster.local/ns/shop/sa/web", Err("a SPIFFE ID begins with spiffe://"));
        let shape = "a workload's SPIFFE ID ends in /ns/<namespace>/sa/<service-account>";
        check("spiffe://cluster.local/ns/shop/sa/web/", Err(shape));
        check("spiffe://cluster.local/ns/shop/sa", Err(shape));
        check("spiffe://cluster.local//ns/shop/sa/web", Err(shape));
        check("spiffe://cluster.local/sa/web/ns/shop", Err(shape));
        check("spiffe://cluster.local", Err(shape));
        let domain =
            |d| format!("{d:?} is not a trust domain: lower-case letters, digits, '.', '-' and '_', at most 255");
        check("spiffe:///ns/shop/sa/web", Err(&domain("")));
        check("spiffe://Cluster.local/ns/shop/sa/web", Err(&domain("Cluster.local")));
        check("spiffe://cluster.local:80/ns/shop/sa/web", Err(&domain("cluster.local:80")));
        check("spiffe://u@cluster.local/ns/shop/sa/web", Err(&domain("u@cluster.local")));
        let namespace = |n| format!("{n:?} is not a namespace: lower-case letters, digits and '-', at most 63");
        check("spiffe://cluster.local/ns//sa/web", Err(&namespace("")));
        check("spiffe://cluster.local/ns/../sa/web", Err(&namespace("..")));
        check("spiffe://cluster.local/ns/Shop/sa/web", Err(&namespace("Shop")));
        let account =
            |a| format!("{a:?} is not a service account: lower-case letters, digits, '-' and '.', at most 253");
        check("spiffe://cluster.local/ns/shop/sa/we%62", Err(&account("we%62")));
        check("spiffe://cluster.local/ns/shop/sa/web?x", Err(&account("web?x")));
        check("spiffe://cluster.local/ns/shop/sa/", Err(&account("")));
        check(&format!("spiffe://{}/ns/shop/sa/web", "a".repeat(2048)), Err("a SPIFFE ID has at most 2048 bytes"));
    }

    #[test]
    fn is_a_string_outside() {
        let id = TrustDomain::default().workload("shop", "web").unwrap();
        assert_eq!(id.to_string(), "spiffe://cluster.local/ns/shop/sa/web");
        assert_eq!(id, id.as_str().parse().unwrap());
        assert!(TrustDomain::default().workload("shop", "a/b").is_err());
    }
}
