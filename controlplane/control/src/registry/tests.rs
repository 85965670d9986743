//! Seats, words and waiting.

use super::*;

#[test]
fn one_account_alone_removes_nothing_where_others_could_be_heard() {
    let registry = Registry::new();
    let seat = |account: &str, name: &str| {
        let identity: SpiffeId = format!("spiffe://cluster.local/ns/shop/sa/{account}").parse().unwrap();
        let capabilities = [wire::PEER_WORD.to_owned()].into();
        let introduction = Introduction { capabilities, ..Introduction::default() };
        let key = ProxyKey { name: name.to_owned(), identity };
        registry.enter(key, introduction, OffsetDateTime::UNIX_EPOCH).unwrap().seat
    };
    let web = ObjectName::new("shop", "web-1");
    let own: SpiffeId = "spiffe://cluster.local/ns/shop/sa/web".parse().unwrap();
    let word = || registry.word(std::slice::from_ref(&web), &own);
    let say = |seat: &Seat, reached| registry.record_words(seat, [(web.clone(), reached)].into());
    assert_eq!(word(), Word::None);
    let liars = [seat("liar", "a"), seat("liar", "b")];
    liars.iter().for_each(|liar| say(liar, false));
    assert_eq!(word(), Word::Unreachable, "there is nobody else to ask");
    let honest = seat("honest", "c");
    assert_eq!(word(), Word::None, "many proxies of one account have one voice");
    say(&honest, false);
    assert_eq!(word(), Word::Unreachable);
    say(&honest, true);
    assert_eq!(word(), Word::Reached);
    registry.leave(&honest, true);
    let third = seat("third", "d");
    assert_eq!(word(), Word::None);
    say(&seat("web", "web-2"), false);
    assert_eq!(word(), Word::Unreachable, "its own account is believed");
    say(&third, true);
    assert_eq!(word(), Word::Reached);
}

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
