//! The proxy's end of a control stream without a socket: what is told comes into force, or is refused and named.

use std::collections::BTreeMap;
use std::path::Path;

use weft_filter_host::{Host, HostConfig};
use weft_policy::bundle::{
    AttachedRule, Backend, Direction, Egress, FILTER_CONTRACT, FilterAttachment, FilterLimits, FilterMode,
    MeshSettings, ObjectName, OnFailure, Protocol, Route, RouteKind, RouteMatch, RouteRule, ServedWorkload,
    WorkloadPort,
};
use weft_policy::delta::Object;
use weft_policy::wire::encode;
use weft_transport::tls::{IdentityHandle, WorkloadIdentity};

use super::super::channel::Channel;
use super::*;
use crate::config::Config;
use crate::shared::Shared;
use crate::snapshot::RuleChain;
use crate::state::State;

fn with(digests: &[&str]) -> Bundle {
    let attachment = |digest: &&str| FilterAttachment {
        name: (*digest).to_owned(),
        filter: "f".to_owned(),
        version: "1.0.0".to_owned(),
        digest: (*digest).to_owned(),
        signature: String::new(),
        public_key_pem: String::new(),
        statement: None,
        shipped: false,
        direction: Direction::Inbound,
        order: 0,
        mode: FilterMode::Enforce,
        on_failure: OnFailure::Deny,
        authorization: false,
        config: Default::default(),
        capabilities: Vec::new(),
        grants: Vec::new(),
        rules: Vec::new(),
        limits: FilterLimits::default(),
        workloads: Vec::new(),
        contract: FILTER_CONTRACT.to_owned(),
    };
    let filters = digests.iter().map(|digest| ((*digest).to_owned(), attachment(digest)));
    Bundle { filters: filters.collect::<BTreeMap<_, _>>(), ..Bundle::default() }
}

/// A removal may take effect while a new filter is being prepared, whose binary lies on disk already.
#[test]
fn what_is_being_prepared_keeps_its_binaries() {
    let (current, coming) = (with(&["a", "b"]), with(&["b", "c"]));
    assert_eq!(wanted(&current, Some(&coming)), HashSet::from(["a", "b", "c"]));
    assert_eq!(wanted(&current, None), HashSet::from(["a", "b"]));
}
const IDENTITY: &str = "spiffe://cluster.local/ns/shop/sa/web";

fn identity() -> IdentityHandle {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.subject_alt_names = vec![rcgen::SanType::URI(IDENTITY.try_into().unwrap())];
    let certificate = params.self_signed(&key).unwrap();
    let identity = WorkloadIdentity::from_pem(&certificate.pem(), &key.serialize_pem()).unwrap();
    IdentityHandle::new(identity, Trust::from_pem("cluster.local", &certificate.pem()).unwrap())
}

/// A proxy's applier with nothing in force yet.
fn applier(state: &Path) -> Applier {
    starting(state, None)
}

/// The applier of a proxy that starts with what it kept.
fn starting(state: &Path, kept: Option<KeptBundle>) -> Applier {
    let text = "
name: web-1
state_dir: /nowhere
control: {address: 'https://127.0.0.1:15012', ca_file: /nowhere}
workload: {namespace: shop, service_account: web, address: 127.0.0.11}
listen: {mesh: '127.0.0.11:15008'}
";
    let config = Config::parse(Path::new("proxy.yaml"), text).unwrap();
    let addresses = config.control.address.clone();
    let control = Control {
        shared: Arc::new(Shared::new(config, Host::new(HostConfig::default()).unwrap()).unwrap()),
        state: State::open(state).unwrap(),
        channel: Channel::new(&addresses, String::new(), None).unwrap(),
        identity: identity(),
        incarnation: 1,
    };
    Applier::new(Arc::new(control), kept)
}

fn rule(path: &str) -> RouteRule {
    let exact =
        RouteMatch { path: Some(weft_policy::bundle::PathMatch::Exact(path.to_owned())), ..RouteMatch::default() };
    RouteRule { name: None, matches: vec![exact], actions: Vec::new(), backends: Vec::new() }
}

fn route(path: &str) -> Object {
    Object::Route(Route {
        name: ObjectName::new("shop", "r"),
        kind: RouteKind::Http,
        parent: ObjectName::new("shop", "web"),
        outside: false,
        parent_port: None,
        consumer_namespace: None,
        hostnames: Vec::new(),
        created: Revision(1),
        rules: vec![rule(path)],
    })
}

/// What a proxy needs to serve.
fn world() -> Vec<v1::Object> {
    let mesh = MeshSettings {
        trust_domain: "cluster.local".parse().unwrap(),
        trust_bundle_pem: String::new(),
        access_log: false,
        request_timeout_ms: None,
        connect_timeout_ms: 5_000,
        max_retries: 2,
        egress: Egress::Allow,
        namespaces: Default::default(),
        ranges: None,
    };
    let workload = ServedWorkload {
        name: ObjectName::new("shop", "web-1"),
        identity: IDENTITY.parse().unwrap(),
        address: "127.0.0.11".parse().unwrap(),
        addresses: Vec::new(),
        ports: vec![WorkloadPort::new(8080, Protocol::Http)],
        labels: BTreeMap::new(),
        service: None,
        outbound_closed: None,
    };
    vec![encode(&Object::Mesh(mesh)), encode(&Object::Workload(workload)), encode(&route("/a"))]
}

fn told(revision: u64, upserts: Vec<v1::Object>) -> v1::ControlMessage {
    let delta = v1::Delta { revision, upserts, ..v1::Delta::default() };
    v1::ControlMessage { message: Some(v1::control_message::Message::Delta(delta)) }
}

/// The answer to a message: at once, or once it was prepared.
async fn answer(applier: &mut Applier, message: v1::ControlMessage) -> Message {
    let step = match applier.told(message) {
        Step::Nothing => applier.prepared().await,
        step @ (Step::Say(_) | Step::Acked(_) | Step::NotFollowed(_) | Step::Close | Step::KeepAway(_)) => step,
    };
    match step {
        Step::Say(message) | Step::Acked(message) | Step::NotFollowed(message) => message,
        Step::Nothing | Step::Close | Step::KeepAway(_) => panic!("no answer"),
    }
}

fn path_in_force(applier: &Applier) -> Option<weft_policy::bundle::PathMatch> {
    let route = applier.current().bundle.routes.get(&ObjectName::new("shop", "r"))?;
    route.rules[0].matches[0].path.clone()
}

/// Tomorrow's control plane sends what this proxy does not know: of a route with a field, an arm or a requirement of
/// tomorrow's nothing is taken, and what was in force stays.
#[tokio::test]
async fn objects_of_tomorrow_are_refused_by_key_and_what_is_in_force_stays() {
    let dir = tempfile::tempdir().unwrap();
    let mut applier = applier(dir.path());
    let ack = Message::Ack(v1::Ack { revision: 1, skipped: vec![], ..Default::default() });
    assert_eq!(answer(&mut applier, told(1, world())).await, ack);
    let before = path_in_force(&applier);
    let edited = |from: &str, to: &str| {
        let envelope = encode(&route("/b"));
        let inside = String::from_utf8(envelope.payload.to_vec()).unwrap();
        assert!(inside.contains(from), "{inside}");
        v1::Object { payload: inside.replace(from, to).into(), ..envelope }
    };
    let requires = vec!["fields-of-tomorrow".to_owned()];
    let cases = [
        (edited("\"backends\":", "\"mirrors\":[],\"backends\":"), "rules[0].mirrors: unknown field"),
        (edited("\"Exact\"", "\"Glob\""), "rules[0].matches[0].path: unknown variant"),
        (v1::Object { requires, ..encode(&route("/b")) }, "it requires fields-of-tomorrow"),
    ];
    for (revision, (odd, expect)) in (2..).zip(cases) {
        let key = odd.key.clone();
        let Message::Nack(nack) = answer(&mut applier, told(revision, vec![odd])).await else { panic!("{expect}") };
        assert_eq!((nack.revision, nack.key), (revision, key));
        assert!(nack.reason.starts_with(expect), "{}", nack.reason);
        assert_eq!(path_in_force(&applier), before);
        assert_eq!(applier.current().bundle.revision, Revision(1));
    }
    assert!(matches!(answer(&mut applier, told(9, vec![encode(&route("/b"))])).await, Message::Ack(_)));
    assert_ne!(path_in_force(&applier), before);
}

/// A kind that nothing here depends on is passed over, and the control plane is told so.
#[tokio::test]
async fn an_unknown_kind_is_skipped_and_told() {
    let dir = tempfile::tempdir().unwrap();
    let mut applier = applier(dir.path());
    let key = v1::Key { kind: 99, name: "shop/x".to_owned(), workload: String::new() };
    let odd = v1::Object { key: Some(key.clone()), payload: b"?".as_slice().into(), ..v1::Object::default() };
    let all = world().into_iter().chain([odd]).collect();
    let ack = Message::Ack(v1::Ack { revision: 1, skipped: vec![key], ..Default::default() });
    assert_eq!(answer(&mut applier, told(1, all)).await, ack);
    assert!(path_in_force(&applier).is_some());
}

/// The numbers are their sender's: a proxy that made its own would be sent everything anew by another release.
#[tokio::test]
async fn versions_are_kept_as_they_were_told() {
    let dir = tempfile::tempdir().unwrap();
    let mut applier = applier(dir.path());
    let numbered = world().into_iter().zip(70..).map(|(object, version)| v1::Object { version, ..object });
    assert!(matches!(answer(&mut applier, told(1, numbered.collect())).await, Message::Ack(_)));
    let kept = State::open(dir.path()).unwrap().bundle().unwrap().unwrap();
    assert_eq!(kept.versions.values().copied().collect::<Vec<_>>(), [70, 71, 72]);
    assert_eq!((&kept.versions, &kept.bundle), (&applier.current().versions, &applier.current().bundle));
}

/// Where nobody can tell who is kept out, what was kept waits until the control plane says so.
#[tokio::test]
async fn a_lost_list_of_banned_identities_lets_nobody_in() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = applier(dir.path());
    assert!(matches!(answer(&mut first, told(1, world())).await, Message::Ack(_)));
    let kept = || State::open(dir.path()).unwrap().bundle().unwrap();
    let mut restarted = starting(dir.path(), kept());
    assert!(restarted.serve_kept().await && !restarted.has_kept());
    assert!(restarted.control.shared.snapshot.load().is_none());
    assert!(restarted.control.shared.contact.refused().unwrap().contains("banned identities can't be read"));
    let denials = v1::Denials { identities: vec!["spiffe://cluster.local/ns/shop/sa/bad".to_owned()], evicted: vec![] };
    let denials = v1::ControlMessage { message: Some(v1::control_message::Message::Denials(denials)) };
    assert!(matches!(restarted.told(denials), Step::Nothing));
    assert!(restarted.has_kept() && restarted.serve_kept().await);
    assert!(restarted.control.shared.snapshot.load().is_some());
    // From here on it is on disk.
    let mut again = starting(dir.path(), kept());
    assert!(again.has_kept() && again.serve_kept().await);
    assert_eq!(again.control.identity.current().denied.len(), 1);
}

/// What was asked for is answered by the delta that brings it, and by its view of the revision.
#[tokio::test]
async fn an_answer_comes_into_force_with_what_it_answers() {
    let dir = tempfile::tempdir().unwrap();
    let mut applier = applier(dir.path());
    let web = weft_policy::scope::Ask::Service(ObjectName::new("shop", "web"));
    let asking = Arc::clone(&applier.control.shared);
    assert!(asking.asking.ask(&web, 0, Instant::now()));
    let delta = v1::Delta { revision: 1, upserts: world(), view: 3, ..v1::Delta::default() };
    let with = |delta| v1::ControlMessage { message: Some(v1::control_message::Message::Delta(delta)) };
    let ack = |view| Message::Ack(v1::Ack { revision: 1, skipped: vec![], view, pending: vec![] });
    assert_eq!(answer(&mut applier, with(delta)).await, ack(3));
    assert_eq!(asking.asking.say_all(), std::slice::from_ref(&web), "it is open");
    let delta = v1::Delta { revision: 1, answered: vec![(&web).into()], view: 4, ..v1::Delta::default() };
    assert_eq!(answer(&mut applier, with(delta)).await, ack(4));
    assert_eq!(applier.current().bundle.answered, [web].into());
    assert_eq!(asking.asking.say_all(), []);
    let snapshot = asking.snapshot.load_full().unwrap();
    assert_eq!(snapshot.bundle.answered.len(), 1);
}

fn service(name: &str) -> weft_policy::bundle::Service {
    weft_policy::bundle::Service {
        name: ObjectName::new("shop", name),
        ports: Vec::new(),
        vip: None,
        path_reading: Default::default(),
        traffic: None,
        spread: None,
        endpoints: Default::default(),
    }
}

/// A filter that takes its time keeps nobody waiting whom it doesn't judge.
#[tokio::test]
async fn an_answer_comes_into_force_while_a_delta_is_prepared() {
    let dir = tempfile::tempdir().unwrap();
    let mut applier = applier(dir.path());
    let shared = Arc::clone(&applier.control.shared);
    let ask = |name: &str| Ask::Service(ObjectName::new("shop", name));
    let (web, late, dropped) = (ask("web"), ask("late"), ask("dropped"));
    assert!(matches!(answer(&mut applier, told(1, world())).await, Message::Ack(_)));
    assert!([&web, &late].iter().all(|ask| shared.asking.ask(ask, shared.generation(), Instant::now())));
    // Nobody turns the runtime, so that it stays in preparation.
    assert!(matches!(applier.told(told(2, vec![encode(&route("/b"))])), Step::Nothing));
    assert!(applier.pending.is_some());
    let before = path_in_force(&applier);
    let delta = v1::Delta {
        revision: 3,
        upserts: vec![encode(&Object::Service(service("web")))],
        answered: [&web, &late, &dropped].map(Into::into).to_vec(),
        view: 4,
        ahead: true,
        ..v1::Delta::default()
    };
    let ahead = |delta| v1::ControlMessage { message: Some(v1::control_message::Message::Delta(delta)) };
    assert!(matches!(applier.told(ahead(delta.clone())), Step::Nothing));
    let held = |applier: &Applier| {
        let bundle = &applier.current().bundle;
        (bundle.revision, bundle.services.len(), bundle.answered.clone())
    };
    let answered = BTreeSet::from([web.clone(), late.clone()]);
    assert_eq!(held(&applier), (Revision(1), 1, answered.clone()), "what nobody asks is no answer");
    assert_eq!(path_in_force(&applier), before);
    assert_eq!(shared.asking.say_all(), []);
    assert!(shared.snapshot.load_full().unwrap().bundle.services.contains_key(&ObjectName::new("shop", "web")));
    // One that it can't take is no refusal of what is being prepared.
    let odd = v1::Delta { upserts: vec![world().remove(0)], ..delta };
    assert!(matches!(applier.told(ahead(odd)), Step::Nothing));
    let ack = Message::Ack(v1::Ack { revision: 2, skipped: vec![], view: 0, pending: vec![] });
    assert!(matches!(applier.prepared().await, Step::Acked(message) if message == ack));
    assert_eq!(held(&applier), (Revision(2), 1, answered));
    assert_ne!(path_in_force(&applier), before);
}

/// The control plane tells of it from here on: were it given up, nobody would hear when the answer is no longer true.
#[tokio::test]
async fn a_question_is_not_given_up_while_its_answer_is_prepared() {
    let dir = tempfile::tempdir().unwrap();
    let mut applier = applier(dir.path());
    let shared = Arc::clone(&applier.control.shared);
    let ask = |name: &str| Ask::Service(ObjectName::new("shop", name));
    let (web, silent) = (ask("web"), ask("silent"));
    assert!(matches!(answer(&mut applier, told(1, world())).await, Message::Ack(_)));
    assert!([&web, &silent].iter().all(|ask| shared.asking.ask(ask, shared.generation(), Instant::now())));
    assert_eq!(shared.asking.news().await.wanted.len(), 2);
    let delta = v1::Delta { revision: 2, answered: vec![(&web).into()], view: 1, ..v1::Delta::default() };
    let message = v1::ControlMessage { message: Some(v1::control_message::Message::Delta(delta)) };
    assert!(matches!(applier.told(message), Step::Nothing));
    shared.asking.give_up(Instant::now() + Duration::from_secs(3_600));
    assert!(matches!(applier.prepared().await, Step::Acked(_)));
    assert_eq!(applier.current().bundle.answered, [web].into());
    let news = crate::asking::News { wanted: vec![], forgotten: vec![silent] };
    assert_eq!(shared.asking.news().await, news, "what is answered is told of");
}

/// A day without use, and the control plane is asked to take it away; until then it is held, and asked for anew after that.
#[tokio::test]
async fn what_has_not_been_used_for_a_day_is_asked_for_no_longer() {
    let dir = tempfile::tempdir().unwrap();
    let mut applier = applier(dir.path());
    let ask = |name: &str| Ask::Service(ObjectName::new("shop", name));
    let (web, none, held) = (ask("web"), ask("none"), service("web"));
    let upserts = world().into_iter().chain([encode(&Object::Service(held))]).collect();
    let asking = Arc::clone(&applier.control.shared);
    assert!([&web, &none].iter().all(|ask| asking.asking.ask(ask, 0, Instant::now())));
    assert_eq!(asking.asking.say_all().len(), 2);
    let answered = [&web, &none].map(Into::into).to_vec();
    let delta = v1::Delta { revision: 1, upserts, answered, view: 1, ..v1::Delta::default() };
    let message = v1::ControlMessage { message: Some(v1::control_message::Message::Delta(delta)) };
    let ack = Message::Ack(v1::Ack { revision: 1, skipped: vec![], view: 1, pending: vec![] });
    assert_eq!(answer(&mut applier, message).await, ack);
    let (shared, start) = (Arc::clone(&applier.control.shared), Instant::now());
    let after = |hours: u64| start + Duration::from_secs(hours * 3_600);
    applier.forget_unused(start);
    applier.forget_unused(after(23));
    assert_eq!(applier.current().bundle.answered.len(), 2);
    let snapshot = shared.snapshot.load_full().unwrap();
    let uses = crate::usage::WorkerUses::new(shared.uses.clone());
    let using = uses.begin(&snapshot, &snapshot.bundle.services[&ObjectName::new("shop", "web")]);
    for hours in [24, 47, 71] {
        applier.forget_unused(after(hours));
        assert_eq!(applier.current().bundle.answered.len(), 2, "it is in use");
    }
    drop(using);
    applier.forget_unused(after(94));
    assert_eq!(applier.current().bundle.answered.len(), 2);
    applier.forget_unused(after(95));
    assert_eq!(applier.current().bundle.answered, [none].into());
    assert_eq!(shared.snapshot.load_full().unwrap().bundle.services.len(), 1, "it goes when the control plane says so");
    let news = crate::asking::News { wanted: vec![], forgotten: vec![web] };
    assert_eq!(shared.asking.news().await, news);
}

/// A filter whose binary nobody has: there is no control plane to fetch it from.
fn filter(on_failure: OnFailure) -> Object {
    let digest = format!("sha256:{}", "0".repeat(64));
    let mut filter = with(&["shop/guard"]).filters.remove("shop/guard").unwrap();
    (filter.digest, filter.on_failure) = (digest, on_failure);
    Object::Filter(filter)
}

/// The same as `told`, by a control plane that takes an answer in stages.
fn in_stages(revision: u64, upserts: Vec<v1::Object>) -> v1::ControlMessage {
    let delta = v1::Delta { revision, upserts, stages: true, ..v1::Delta::default() };
    v1::ControlMessage { message: Some(v1::control_message::Message::Delta(delta)) }
}

fn states(applier: &Applier) -> Vec<String> {
    let mut states: Vec<_> = applier.filter_states().into_iter().map(|filter| filter.state).collect();
    states.iter_mut().for_each(|state| *state = state.split(':').next().unwrap_or_default().to_owned());
    states
}

/// The version under which the filter is said to be held.
fn known(applier: &Applier) -> Option<u64> {
    let key = v1::Key::from(&Key::Filter("shop/guard".to_owned()));
    applier.known().into_iter().find(|told| told.key.as_ref() == Some(&key)).map(|told| told.version)
}

#[tokio::test]
async fn what_comes_with_a_filter_is_in_force_before_it_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let mut applier = applier(dir.path());
    assert!(matches!(answer(&mut applier, told(1, world())).await, Message::Ack(_)));
    let before = path_in_force(&applier);
    let guard = v1::Object { version: 7, ..encode(&filter(OnFailure::Deny)) };
    let delta = in_stages(2, vec![guard, encode(&route("/b"))]);
    let Message::Ack(ack) = answer(&mut applier, delta).await else { panic!("the rest is in force") };
    let key = v1::Key::from(&Key::Filter("shop/guard".to_owned()));
    assert_eq!((ack.revision, ack.pending), (2, vec![key.clone()]));
    assert_ne!(path_in_force(&applier), before);
    assert_eq!((states(&applier), known(&applier)), (vec!["compiling".to_owned()], Some(0)));
    // What comes next waits for nothing, and the filter is loaded all the same.
    assert!(matches!(applier.told(in_stages(3, vec![encode(&route("/c"))])), Step::Nothing));
    let mut told = Vec::new();
    while told.len() < 2 {
        if let Step::Acked(message) = applier.prepared().await {
            told.push(message);
        }
    }
    let settled = told.iter().find_map(|message| {
        let Message::Settled(settled) = message else { return None };
        Some(settled)
    });
    let refused = &settled.expect("it can't be fetched").refused[0];
    assert_eq!((refused.key.as_ref(), refused.version), (Some(&key), 7));
    assert_eq!((states(&applier), known(&applier)), (vec!["failed".to_owned()], Some(0)));
    assert_eq!(applier.current().bundle.revision, Revision(3));
    // A start without a control plane is not to wait for it.
    let kept = State::open(dir.path()).unwrap().bundle().unwrap().unwrap();
    assert_eq!((kept.bundle.revision, kept.bundle.filters.len()), (Revision(3), 0));
    // Nothing that comes later asks for it again, until it is told anew; and it can be taken away.
    let Message::Ack(ack) = answer(&mut applier, in_stages(4, vec![encode(&route("/d"))])).await else { panic!() };
    assert_eq!((ack.pending, states(&applier)), (vec![], vec!["failed".to_owned()]));
    let mut removal = in_stages(5, vec![]);
    if let Some(v1::control_message::Message::Delta(delta)) = &mut removal.message {
        delta.removals.push(key);
    }
    assert!(matches!(answer(&mut applier, removal).await, Message::Ack(_)));
    assert_eq!((states(&applier), known(&applier)), (vec![], None));
}

/// It is passed by, and the control plane hears that it is settled.
#[tokio::test]
async fn a_filter_that_may_be_passed_by_is_skipped_where_it_can_not_be_loaded() {
    let dir = tempfile::tempdir().unwrap();
    let mut applier = applier(dir.path());
    assert!(matches!(answer(&mut applier, told(1, world())).await, Message::Ack(_)));
    let Message::Ack(ack) = answer(&mut applier, in_stages(2, vec![encode(&filter(OnFailure::Allow))])).await else {
        panic!("it is in force")
    };
    assert_eq!((ack.pending.len(), states(&applier)), (1, vec!["compiling".to_owned()]));
    let Step::Acked(Message::Settled(settled)) = applier.prepared().await else { panic!("it is told") };
    assert_eq!((settled.loaded.len(), settled.refused.len()), (1, 0));
    assert_eq!(states(&applier), ["skipped"]);
}

/// Without a chain that could stand in, and without a control plane that could be told, a filter comes first.
#[tokio::test]
async fn a_filter_comes_first_where_nothing_stands_in_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = applier(dir.path());
    let all = world().into_iter().chain([encode(&filter(OnFailure::Deny))]).collect();
    let Message::Nack(nack) = answer(&mut first, in_stages(1, all)).await else { panic!("nothing is in force yet") };
    assert_eq!(nack.key, Some((&Key::Filter("shop/guard".to_owned())).into()));
    assert!(matches!(answer(&mut first, told(1, world())).await, Message::Ack(_)));
    let alone = vec![encode(&filter(OnFailure::Deny))];
    assert!(matches!(answer(&mut first, told(2, alone)).await, Message::Nack(_)), "nobody takes it in stages");
    assert_eq!(first.current().bundle.revision, Revision(1));
}

/// What an app may call is not widened ahead of a filter that judges its calls.
#[tokio::test]
async fn a_filter_of_calls_comes_before_what_is_called() {
    let dir = tempfile::tempdir().unwrap();
    let mut applier = applier(dir.path());
    assert!(matches!(answer(&mut applier, told(1, world())).await, Message::Ack(_)));
    let Object::Filter(filter) = filter(OnFailure::Deny) else { panic!("it is one") };
    let outbound = encode(&Object::Filter(FilterAttachment { direction: Direction::Outbound, ..filter }));
    let both = vec![outbound.clone(), encode(&Object::Service(service("new")))];
    assert!(matches!(answer(&mut applier, in_stages(2, both)).await, Message::Nack(_)));
    let Message::Ack(ack) = answer(&mut applier, in_stages(3, vec![outbound])).await else { panic!("it is alone") };
    assert_eq!(ack.pending.len(), 1);
}

/// A filter of calls that take the rules of the route of [`world`].
fn filter_of_rules() -> Object {
    let Object::Filter(filter) = filter(OnFailure::Deny) else { panic!("it is one") };
    let rules = vec![AttachedRule { kind: RouteKind::Http, route: ObjectName::new("shop", "r"), rule: None }];
    Object::Filter(FilterAttachment { direction: Direction::Outbound, rules, ..filter })
}

/// What the only rule is closed for want of.
fn closed(applier: &Applier) -> Option<String> {
    let snapshot = applier.control.shared.snapshot.load_full().unwrap();
    let route = &snapshot.bundle.routes[&ObjectName::new("shop", "r")];
    match snapshot.first().rules.of_rule(route, 0)? {
        RuleChain::Closed(filter) => Some(filter.clone()),
        RuleChain::Runs(_) => None,
    }
}

/// Nothing waits for it, and nobody takes its rule without it, after another start either.
#[tokio::test]
async fn a_rule_that_comes_with_its_filter_is_closed_until_that_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = applier(dir.path());
    assert!(matches!(answer(&mut first, told(1, world())).await, Message::Ack(_)));
    let denials = v1::ControlMessage {
        message: Some(v1::control_message::Message::Denials(v1::Denials { identities: vec![], evicted: vec![] })),
    };
    assert!(matches!(first.told(denials), Step::Nothing));
    let guard = v1::Object { version: 7, ..encode(&filter_of_rules()) };
    let all = vec![guard, encode(&route("/b")), encode(&Object::Service(service("new")))];
    let Message::Ack(ack) = answer(&mut first, in_stages(2, all)).await else { panic!("it is in force") };
    assert_eq!((ack.pending.len(), closed(&first).as_deref()), (1, Some("shop/guard")));
    let Step::Acked(Message::Settled(settled)) = first.prepared().await else { panic!("it is told") };
    assert_eq!((settled.refused.len(), closed(&first).as_deref()), (1, Some("shop/guard")), "it can't be fetched");
    let kept = State::open(dir.path()).unwrap().bundle().unwrap();
    let mut again = starting(dir.path(), kept);
    assert!(again.has_kept() && again.serve_kept().await, "everything else is served");
    assert_eq!(closed(&again).as_deref(), Some("shop/guard"));
    assert_eq!((states(&again), known(&again)), (vec!["failed".to_owned()], Some(0)));
}

/// As everything that stands: a rule that was there goes on, until it is another or leads to somebody new.
#[tokio::test]
async fn a_rule_that_stood_goes_on_until_its_filter_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let mut applier = applier(dir.path());
    let to = |path: &str, callee: &str| {
        let Object::Route(mut route) = route(path) else { panic!("it is one") };
        let service = Some(ObjectName::new("shop", callee));
        route.rules[0].backends = vec![Backend { service, outside: false, port: 80, weight: 1, actions: Vec::new() }];
        encode(&Object::Route(route))
    };
    let all = world().into_iter().take(2).chain([to("/a", "late")]).collect();
    assert!(matches!(answer(&mut applier, told(1, all)).await, Message::Ack(_)));
    let alone = in_stages(2, vec![encode(&filter_of_rules())]);
    assert!(matches!(answer(&mut applier, alone).await, Message::Ack(_)));
    assert_eq!(closed(&applier), None);
    let other = in_stages(3, vec![encode(&Object::Service(service("other")))]);
    assert!(matches!(applier.told(other), Step::Nothing));
    while applier.current().bundle.revision != Revision(3) {
        applier.prepared().await;
    }
    assert_eq!(closed(&applier), None, "it does not lead there");
    let callee = in_stages(4, vec![encode(&Object::Service(service("late")))]);
    assert!(matches!(applier.told(callee), Step::Nothing));
    while applier.current().bundle.revision != Revision(4) {
        applier.prepared().await;
    }
    assert_eq!(closed(&applier).as_deref(), Some("shop/guard"));
}
