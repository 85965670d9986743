//! Whatever proxies register, with the services and labels that are made for it, can be loaded again.

use proptest::collection::vec;
use proptest::prelude::*;
use weft_policy::bundle::Protocol;

use super::*;

fn told() -> impl Strategy<Value = Told> {
    let name = prop_oneof![4 => "[a-c]{1,2}", 1 => "[a-z.-]{1,8}", 1 => any::<String>()];
    let service = proptest::option::of(prop_oneof![4 => "[a-c]", 1 => any::<String>()]);
    let labels =
        vec(("[a-c]|app|weft.dev/service", prop_oneof![3 => "[a-c]".boxed(), 1 => any::<String>().boxed()]), 0..3);
    let protocol = prop_oneof![Just(Protocol::Http), Just(Protocol::Grpc), Just(Protocol::Tcp), Just(Protocol::Auto)];
    let ports = vec((0..4_u32, protocol).prop_map(|(port, protocol)| (8_080 + port, protocol)), 0..3);
    (name, service, labels, ports, 1..40_u8, any::<u32>()).prop_map(|(name, service, labels, ports, host, weight)| {
        Told {
            namespace: "shop".to_owned(),
            name,
            address: format!("127.0.0.{host}"),
            mesh_address: format!("127.0.0.{host}:15008"),
            ports,
            labels: labels.into_iter().collect(),
            service,
            weight,
            ..Told::default()
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_a_registration_makes_is_loaded_again(all in vec((told(), "[a-c]"), 1..12)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let hub = hub_in(dir.path(), |_| {});
            for (number, (told, account)) in all.into_iter().enumerate() {
                let proxy = proxy_of(&format!("p-{number}"), &account);
                // Whether it is taken is another question: what is taken must be readable.
                if let Ok(registration) = Registration::new(told, &proxy.identity) {
                    let _ = hub.register(&proxy, HERE, vec![registration]).await;
                }
            }
            let loaded = apply::load(&hub.store, &hub.store.frozen().unwrap(), &hub.trust_domain, &hub.authority.trust_bundle_pem()).unwrap();
            let published = hub.published();
            assert_eq!(*loaded.unreadable, BTreeMap::new());
            assert_eq!((loaded.revision, &loaded.claims), (published.revision, &published.claims));
            let objects = |published: &Published| -> Vec<_> {
                published.world.iter().map(|(key, entry)| (key.clone(), entry.resource.clone())).collect()
            };
            assert_eq!(objects(&loaded), objects(&published));
        });
    }
}
