//! Whatever is accepted by any door and written down can be read again: tokens, claims and bans of every shape.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use proptest::collection::btree_set;
use proptest::prelude::*;
use weft_policy::bundle::ObjectName;
use weft_policy::identity::{SpiffeId, TrustDomain};

use super::super::*;
use crate::claims::{Claims, Grants};
use crate::hub::Ban;
use crate::token::{Grant, Role};

fn label() -> impl Strategy<Value = String> {
    "[a-z]([a-z0-9-]{0,20}[a-z0-9])?"
}

fn identity() -> impl Strategy<Value = SpiffeId> {
    (label(), label()).prop_map(|(namespace, account)| TrustDomain::default().workload(&namespace, &account).unwrap())
}

fn range() -> impl Strategy<Value = IpNet> {
    prop_oneof![
        (any::<u32>(), 0..=32_u8)
            .prop_map(|(address, length)| IpNet::new(IpAddr::from(address.to_be_bytes()), length).unwrap()),
        (any::<u128>(), 0..=128_u8).prop_map(|(address, length)| IpNet::new(
            IpAddr::from(address.to_be_bytes()),
            length
        )
        .unwrap()),
    ]
}

fn grants() -> impl Strategy<Value = Grants> {
    let labels = btree_set((label(), "[a-zA-Z0-9]([a-zA-Z0-9._-]{0,20}[a-zA-Z0-9])?"), 0..6);
    (btree_set(label(), 0..6), labels, btree_set(range(), 0..6)).prop_map(|(services, labels, addresses)| Grants {
        services,
        labels,
        addresses,
    })
}

fn grant() -> impl Strategy<Value = Grant> {
    let role = prop_oneof![Just(Role::Viewer), Just(Role::Operator), Just(Role::Publisher), Just(Role::Admin)];
    let join = (identity(), 1..10_000_u32, grants());
    let person = (role, btree_set(label(), 0..6), btree_set(range(), 0..6));
    prop_oneof![
        join.prop_map(|(identity, uses_left, grants)| Grant::Join { identity, uses_left, grants }),
        person.prop_map(|(role, namespaces, addresses)| {
            // A token for the whole mesh may set any address and names none.
            let addresses = if namespaces.is_empty() { BTreeSet::new() } else { addresses };
            Grant::Operator { role, namespaces, addresses }
        }),
    ]
}

fn read<T: DeserializeOwned>(record: &impl Serialize) -> T {
    let text = write_record(record).unwrap();
    read_record(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn tokens_that_are_written_are_read(
        grant in grant(),
        name in proptest::option::of(label()),
        created_unix in any::<i64>(),
        expires_unix in any::<Option<i64>>(),
    ) {
        let record = TokenRecord { id: "id".to_owned(), name, grant, created_unix, created_by: "me".to_owned(), expires_unix };
        prop_assert_eq!(read::<TokenRecord>(&record), record);
    }

    #[test]
    fn claims_that_are_written_are_read(
        accounts in proptest::collection::vec((identity(), grants(), label(), any::<Option<(u64, i64)>>()), 0..8),
    ) {
        let (mut claims, mut records) = (Claims::default(), Vec::new());
        for (identity, grants, workload, left) in accounts {
            records.extend(claims.grant(&identity, &grants));
            let name = ObjectName::new(identity.namespace(), workload);
            records.extend(claims.take(&name, &identity));
            records.extend(left.and_then(|(age, unix)| claims.leave(&name, age, unix)));
        }
        // The last record of each key is what the store has.
        let stored: std::collections::BTreeMap<_, _> = records.into_iter().collect();
        let loaded = Claims::load(stored.into_values().flatten().map(|record| read(&record)));
        prop_assert_eq!(loaded, claims);
    }

    #[test]
    fn bans_that_are_written_are_read(identity in identity(), reason in any::<String>(), since_unix in any::<i64>()) {
        let ban = Ban { identity, reason, since_unix, by: "operator:x".to_owned() };
        prop_assert_eq!(read::<Ban>(&ban), ban);
    }
}
