//! Imports called as a component would, without one: what is granted, for whom, and within which bounds.

use std::sync::Arc;

use serde_json::json;
use weft_policy::bundle::FilterAttachment;

use crate::bindings::v02::weft::filter::types::Error;
use crate::bindings::v02::weft::filter::{callouts, crypto, kv, metrics, secrets, token_bucket};
use crate::host::{Host, HostConfig};
use crate::metrics::CustomValue;
use crate::spec::FilterSpec;
use crate::state::{ConfigShared, Shared, State};
use crate::stats::FilterStats;

/// Everything that can be granted.
fn all() -> (Vec<&'static str>, serde_json::Value) {
    let services = json!([{"name": "quota", "authority": "quota.shop.svc.cluster.local:80"}, {"name": "gone"}]);
    let kv = json!({"Kv": {"entries": 2, "bytes": 4096, "scope": "Policy"}});
    (vec!["token-bucket", "crypto"], json!([kv, {"Callout": {"services": services}}]))
}

fn config(host: &Host, name: &str, (words, grants): (Vec<&str>, serde_json::Value)) -> Arc<ConfigShared> {
    let attachment = json!({
        "name": name, "filter": "quota", "version": "1.0.0", "digest": format!("sha256:{}", "0".repeat(64)),
        "signature": "", "public_key_pem": "", "direction": "Inbound", "order": 0, "mode": "Enforce",
        "on_failure": "Deny", "authorization": false, "config": "{}", "capabilities": words, "grants": grants,
        "limits": {"memory_bytes": 1 << 20, "call_timeout_ms": 10}, "workloads": [], "contract": "wit-0.2",
    });
    let attachment: FilterAttachment = serde_json::from_value(attachment).expect("an attachment");
    let spec = FilterSpec::try_from(&attachment).expect("a spec");
    Arc::new(ConfigShared::new(&host.0, &spec).expect("sound grants"))
}

fn state(host: &Host) -> State {
    State::new(Arc::new(Shared::new(&host.0, 1 << 20, Arc::new(FilterStats::default()))))
}

fn host() -> Host {
    Host::new(HostConfig { max_instances: 1, ..HostConfig::default() }).expect("an engine")
}

fn limit(tokens: u32) -> token_bucket::Limit {
    token_bucket::Limit { name: "l".to_owned(), tokens, period_ms: 60_000, burst: tokens }
}

fn request(service: &str) -> callouts::Request {
    callouts::Request {
        service: service.to_owned(),
        method: "GET".to_owned(),
        path: "/".to_owned(),
        headers: Vec::new(),
        body: Vec::new(),
        timeout_ms: 100,
        answer_bytes: 100,
    }
}

#[test]
fn what_is_not_granted_is_denied_and_counted() {
    let host = host();
    let none = config(&host, "shop/none", (Vec::new(), json!([])));
    let mut state = state(&host);
    state.enter(&none);
    let denied = [
        kv::Host::get(&mut state, b"k".to_vec()).err(),
        kv::Host::set(&mut state, b"k".to_vec(), Vec::new(), 0).err(),
        kv::Host::add(&mut state, b"k".to_vec(), 1, 0).err(),
        kv::Host::compare_and_swap(&mut state, b"k".to_vec(), None, Vec::new(), 0).err(),
        kv::Host::remove(&mut state, b"k".to_vec()).err(),
        callouts::Host::send(&mut state, request("quota")).err(),
        secrets::Host::get(&mut state, "key".to_owned()).err(),
        crypto::Host::sha256(&mut state, Vec::new()).err(),
        crypto::Host::verify(&mut state, crypto::Algorithm::Hs256, vec![1], Vec::new(), Vec::new()).err(),
        crypto::Host::sign(&mut state, vec![1], Vec::new()).err(),
        crypto::Host::sign_with(&mut state, "key".to_owned(), Vec::new()).err(),
        crypto::Host::verify_with(&mut state, crypto::Algorithm::Hs256, "key".to_owned(), Vec::new(), Vec::new()).err(),
        crypto::Host::random(&mut state, 1).err(),
        token_bucket::Host::define(&mut state, limit(1)).err(),
    ];
    for (index, error) in denied.iter().enumerate() {
        assert!(matches!(error, Some(Error::Denied)), "{index}: {error:?}");
    }
    assert_eq!(token_bucket::Host::take(&mut state, 0, Vec::new(), 1).err(), Some(u64::MAX));
    assert_eq!(none.stats.denied_calls.value(), 15);
}

#[test]
fn what_is_granted_is_done() {
    let host = host();
    let granted = config(&host, "shop/all", all());
    let mut state = state(&host);
    state.enter(&granted);
    for key in [b"a", b"b", b"c"] {
        kv::Host::set(&mut state, key.to_vec(), key.to_vec(), 0).expect("granted");
    }
    assert_eq!(kv::Host::get(&mut state, b"a".to_vec()).expect("granted"), None, "there may be two");
    assert_eq!(kv::Host::get(&mut state, b"c".to_vec()).expect("granted"), Some(b"c".to_vec()));
    assert_eq!(granted.stats.kv_evictions.value(), 1);
    let swapped = kv::Host::compare_and_swap(&mut state, b"c".to_vec(), None, Vec::new(), 0);
    assert!(matches!(swapped, Err(Error::Changed)), "{swapped:?}");
    assert_eq!(crypto::Host::random(&mut state, 16).expect("granted").len(), 16);
    let handle = token_bucket::Host::define(&mut state, limit(2)).expect("granted");
    let left = token_bucket::Host::take(&mut state, handle, b"k".to_vec(), 1).expect("two are there");
    assert_eq!((left.remaining, left.reset_ms), (1, 30_000));
    assert!(token_bucket::Host::take(&mut state, handle + 1, b"k".to_vec(), 1).is_err(), "no such limit");
    assert_eq!(granted.stats.denied_calls.value(), 0);
}

/// What one policy is granted is not another's, a name of the one list is none of the other, and each wrong name is
/// counted.
#[test]
fn secrets_are_known_by_the_names_that_the_grant_gives_them() {
    let host = host();
    // "correct horse battery"
    let list = |name: &str| json!({"values": [{"name": name, "value": "Y29ycmVjdCBob3JzZSBiYXR0ZXJ5"}]});
    let granted = (vec!["crypto"], json!([{"Secret": list("token")}, {"CryptoKeys": list("sig")}]));
    let config = config(&host, "shop/signer", granted);
    let mut state = state(&host);
    state.enter(&config);
    let secret = secrets::Host::get(&mut state, "token".to_owned()).expect("granted");
    assert_eq!(secret, b"correct horse battery");
    let message = b"hello".to_vec();
    let signed = crypto::Host::sign_with(&mut state, "sig".to_owned(), message.clone()).expect("granted");
    assert_eq!(signed, crypto::Host::sign(&mut state, secret, message.clone()).expect("granted"));
    let hs256 = crypto::Algorithm::Hs256;
    let mut holds =
        |signature| crypto::Host::verify_with(&mut state, hs256, "sig".to_owned(), message.clone(), signature);
    assert!(holds(signed).expect("granted"));
    assert!(!holds(vec![0; 32]).expect("granted"));
    for denied in [
        secrets::Host::get(&mut state, "sig".to_owned()).err(),
        secrets::Host::get(&mut state, String::new()).err(),
        crypto::Host::sign_with(&mut state, "token".to_owned(), Vec::new()).err(),
    ] {
        assert!(matches!(denied, Some(Error::Denied)), "{denied:?}");
    }
    assert_eq!(config.stats.denied_calls.value(), 3);
    assert!(!format!("{config:?}").contains("correct"), "nothing prints it");
}

#[test]
fn callouts_are_few_and_belong_to_one_call() {
    let host = host();
    let granted = config(&host, "shop/all", all());
    let mut state = state(&host);
    state.enter(&granted);
    let other = callouts::Host::send(&mut state, request("other"));
    assert!(matches!(other, Err(Error::Denied)), "{other:?}");
    let gone = callouts::Host::send(&mut state, request("gone"));
    assert!(matches!(gone, Err(Error::Other(_))), "{gone:?}");
    let ids: Vec<_> = (0..4).map(|_| callouts::Host::send(&mut state, request("quota")).expect("room")).collect();
    let fifth = callouts::Host::send(&mut state, request("quota"));
    assert!(matches!(fifth, Err(Error::Full(_))), "{fifth:?}");
    let sent = state.take_callouts();
    assert_eq!(sent.iter().map(|callout| callout.id).collect::<Vec<_>>(), ids);
    assert!(sent.iter().all(|callout| callout.service == "quota.shop.svc.cluster.local:80"));
    callouts::Host::send(&mut state, request("quota")).expect("room again");
    state.enter(&granted);
    assert!(state.take_callouts().is_empty(), "nobody took those of the call before");
}

/// One instance serves several configurations: what each defines is its own.
#[test]
fn configurations_of_one_instance_are_apart() {
    let host = host();
    let (first, second) = (config(&host, "shop/first", all()), config(&host, "shop/second", all()));
    let mut state = state(&host);
    let define = |state: &mut State, config: &Arc<ConfigShared>| {
        state.enter(config);
        let seen = metrics::Host::define(state, metrics::Kind::Counter, "seen".to_owned(), Vec::new());
        (seen.expect("sound"), token_bucket::Host::define(state, limit(1)).expect("granted"))
    };
    let (of_first, of_second) = (define(&mut state, &first), define(&mut state, &second));
    assert_eq!(define(&mut state, &first), of_first, "the same name is the same handle");
    assert_ne!(of_first, of_second);
    for (config, (_, bucket)) in [(&first, of_first), (&second, of_second)] {
        state.enter(config);
        assert!(token_bucket::Host::take(&mut state, bucket, b"k".to_vec(), 1).is_ok(), "{}", config.name);
        kv::Host::set(&mut state, b"k".to_vec(), config.name.as_bytes().to_vec(), 0).expect("granted");
    }
    metrics::Host::add(&mut state, of_second.0, Vec::new(), 3);
    let seen = |config: &ConfigShared| config.stats.custom()[0].value();
    assert_eq!((seen(&first), seen(&second)), (CustomValue::Counter(0), CustomValue::Counter(3)));
    state.enter(&first);
    let kept = kv::Host::get(&mut state, b"k".to_vec()).expect("granted");
    assert_eq!(kept.as_deref(), Some(&b"shop/first"[..]));
    state.forget(&first);
    state.enter(&second);
    metrics::Host::add(&mut state, of_first.0, Vec::new(), 1);
    assert_eq!(second.stats.metric_misuses.value(), 1, "a handle that outlived its configuration");
    assert_eq!(seen(&first), CustomValue::Counter(0));
}

/// However many instances there are, one after another.
#[test]
fn a_filter_has_as_many_limits_as_it_may() {
    let host = host();
    let granted = config(&host, "shop/all", all());
    let named = |number: usize| token_bucket::Limit { name: format!("l{number}"), ..limit(1) };
    let define = |number: usize| {
        let mut state = state(&host);
        state.enter(&granted);
        token_bucket::Host::define(&mut state, named(number))
    };
    for number in 0..32 {
        define(number).expect("room");
    }
    let more = define(32);
    assert!(matches!(more, Err(Error::Full(_))), "{more:?}");
    define(0).expect("it is there already");
}

#[test]
fn before_a_configuration_nothing_is_done() {
    let mut state = state(&host());
    assert!(metrics::Host::define(&mut state, metrics::Kind::Counter, "seen".to_owned(), Vec::new()).is_err());
    assert!(matches!(kv::Host::get(&mut state, b"k".to_vec()), Err(Error::Denied)));
}
