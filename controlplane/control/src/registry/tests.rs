//! Whose word counts on an endpoint.

use super::*;
use crate::lease::Word;

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
    let word = || registry.voices(std::slice::from_ref(&web)).word(&own);
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
