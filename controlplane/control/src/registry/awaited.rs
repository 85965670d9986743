//! How long a proxy that is away is waited for.

use super::*;

#[test]
fn one_that_crashed_is_waited_for_for_a_few_seconds_and_named_after() {
    let registry = Registry::new();
    let identity: SpiffeId = "spiffe://cluster.local/ns/shop/sa/web".parse().unwrap();
    let key = |name: &str| ProxyKey { name: name.to_owned(), identity: identity.clone() };
    let seat = registry.enter(key("crashed"), Introduction::default(), OffsetDateTime::UNIX_EPOCH).unwrap().seat;
    registry.leave(&seat, false);
    registry.expect(key("unheard"), OffsetDateTime::UNIX_EPOCH);
    let seen = |gone: Duration| {
        for entry in registry.lock().values_mut() {
            entry.gone_since = Instant::now().checked_sub(gone);
        }
        let all = registry.list(Revision(1), Revision(0)).into_iter();
        all.map(|proxy| (proxy.key.name.clone(), proxy.is_awaited, proxy.is_away())).collect::<Vec<_>>()
    };
    let told = |name: &str, awaited: bool| (name.to_owned(), awaited, !awaited);
    assert_eq!(seen(Duration::from_secs(3)), [told("crashed", true), told("unheard", true)]);
    assert_eq!(seen(Duration::from_secs(7)), [told("crashed", false), told("unheard", true)]);
    assert_eq!(seen(Duration::from_secs(12)), [told("crashed", false), told("unheard", false)]);
}
