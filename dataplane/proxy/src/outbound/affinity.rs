//! What keeps a request together with others, where its destination is balanced by that: found once for all attempts, on
//! the head as it is sent. Pure.

use std::net::IpAddr;

use http::HeaderMap;
use weft_flow::hash;
use weft_policy::bundle::{HashKey, Service, SourceKey};

use crate::snapshot::Served;

/// How a request is placed among the endpoints of its destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Affinity {
    /// Its destination goes by no key.
    None,
    Key(u64),
    /// It lacks the key that its destination goes by: it goes anywhere.
    Lacking,
}

impl Affinity {
    pub(super) fn key(self) -> Option<u64> {
        match self {
            Affinity::Key(key) => Some(key),
            Affinity::None | Affinity::Lacking => None,
        }
    }
}

/// `headers`: of the request; `None` for a connection whose bytes are not looked into.
pub(super) fn affinity(service: &Service, from: &Served, headers: Option<&HeaderMap>) -> Affinity {
    let Some(key) = service.traffic.as_ref().and_then(|traffic| traffic.balancing.hash_key()) else {
        return Affinity::None;
    };
    let fields = |name: &str| {
        let values = headers.map(|headers| headers.get_all(name).into_iter());
        values.into_iter().flatten().map(http::HeaderValue::as_bytes)
    };
    let found = match key {
        HashKey::Source(SourceKey::Identity) => Some(hash(from.workload.identity.as_str().as_bytes())),
        HashKey::Source(SourceKey::Address) => Some(match from.workload.address.to_canonical() {
            IpAddr::V4(address) => hash(&address.octets()),
            IpAddr::V6(address) => hash(&address.octets()),
        }),
        HashKey::Header(_) | HashKey::Cookie(_) => key.find(fields).map(hash),
    };
    found.map_or(Affinity::Lacking, Affinity::Key)
}

#[cfg(test)]
mod tests {
    use weft_policy::bundle::{Balancing, ObjectName};

    use super::*;
    use crate::destination::tests::{balanced, snapshot};
    use crate::snapshot::Snapshot;

    fn of(snapshot: &Snapshot, fields: &[(&'static str, &str)]) -> Affinity {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().unwrap());
        }
        let service = &snapshot.bundle.services[&ObjectName::new("shop", "reviews")];
        affinity(service, snapshot.first(), Some(&headers))
    }

    #[test]
    fn a_request_is_placed_by_what_its_policy_names() {
        fn check(balancing: Balancing, fields: &[(&'static str, &str)], expect: Option<&[u8]>) {
            let expect = expect.map_or(Affinity::Lacking, |bytes| Affinity::Key(hash(bytes)));
            assert_eq!(of(&balanced(&[("a", 2, 1)], balancing), fields), expect, "{fields:?}");
        }
        let header = || Balancing::RingHash(HashKey::Header("x-user".to_owned()));
        check(header(), &[("x-user", "ann"), ("x-user", "bob")], Some(b"ann"));
        check(header(), &[("x-users", "ann")], None);
        check(header(), &[("x-user", "")], None);
        let cookie = || Balancing::Maglev(HashKey::Cookie("sid".to_owned()));
        check(cookie(), &[("cookie", "a=1"), ("cookie", "b=2; sid=3")], Some(b"3"));
        check(cookie(), &[("set-cookie", "sid=3")], None);
        let source = |key| Balancing::Maglev(HashKey::Source(key));
        check(source(SourceKey::Identity), &[], Some(b"spiffe://cluster.local/ns/shop/sa/reviews"));
        check(source(SourceKey::Address), &[], Some(&[10, 0, 0, 1]));
    }

    #[test]
    fn without_a_key_to_go_by_nothing_is_looked_at() {
        let fields = [("x-user", "ann")];
        assert_eq!(of(&snapshot(&[("a", 2, 1)]), &fields), Affinity::None);
        assert_eq!(of(&balanced(&[("a", 2, 1)], Balancing::RoundRobin), &fields), Affinity::None);
        let by_header = balanced(&[("a", 2, 1)], Balancing::RingHash(HashKey::Header("x-user".to_owned())));
        let service = &by_header.bundle.services[&ObjectName::new("shop", "reviews")];
        assert_eq!(affinity(service, by_header.first(), None), Affinity::Lacking, "bytes have no header");
        assert_eq!((Affinity::Lacking.key(), Affinity::Key(7).key()), (None, Some(7)));
    }
}
