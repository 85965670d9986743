//! Messages of each release, byte for byte, as files: a release reads those of the ones before it, and says what it says in
//! the same bytes, so that no upgrade sends everything anew. `WEFT_BLESS=1` writes those of the release at work.

#![expect(clippy::disallowed_methods, reason = "what is on record lies in files")]

use std::path::PathBuf;

use super::*;

const RELEASE: &str = "0.1";

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/wire/tests/recorded").join(RELEASE)
}

fn mesh_as_it_is() -> MeshSettings {
    MeshSettings {
        trust_domain: TrustDomain::default(),
        trust_bundle_pem: String::new(),
        access_log: false,
        request_timeout_ms: None,
        connect_timeout_ms: 5_000,
        max_retries: 2,
        egress: Egress::Allow,
        namespaces: [].into(),
        ranges: None,
    }
}

/// Objects in which everything is as it is where nothing was said. What is not written must go on to mean this.
fn defaults() -> Vec<Object> {
    let identity = TrustDomain::default().workload("shop", "web").unwrap();
    let address = "127.0.0.11".parse().unwrap();
    let endpoint = Endpoint {
        workload: name("shop/web-1"),
        identity: None,
        address,
        addresses: Vec::new(),
        mesh_address: "127.0.0.11:15008".parse().unwrap(),
        weight: 1,
        labels: BTreeMap::new(),
    };
    let rule =
        RouteRule { name: None, matches: vec![RouteMatch::default()], actions: Vec::new(), backends: Vec::new() };
    let unknown = "".parse().unwrap_or_default();
    vec![
        Object::Mesh(mesh_as_it_is()),
        Object::Workload(ServedWorkload {
            name: name("shop/web-1"),
            identity,
            address,
            addresses: Vec::new(),
            ports: vec![WorkloadPort {
                port: 8080,
                protocol: Protocol::Auto,
                app_version: AppVersion::AsCaller,
                path_reading: unknown,
                opaque_refused: false,
            }],
            labels: BTreeMap::new(),
            service: None,
            outbound_closed: None,
        }),
        Object::Service(Service {
            name: name("shop/web"),
            ports: vec![ServicePort {
                name: None,
                port: 80,
                target_port: 8080,
                protocol: Protocol::Auto,
                app_version: AppVersion::AsCaller,
                opaque_refused: false,
                other_targets: BTreeMap::new(),
            }],
            path_reading: unknown,
            vip: None,
            traffic: None,
            spread: None,
            endpoints: BTreeMap::from([(name("shop/web-1"), endpoint)]),
        }),
        Object::Route(Route {
            name: name("shop/r"),
            kind: RouteKind::Http,
            parent: name("shop/web"),
            outside: false,
            parent_port: None,
            consumer_namespace: None,
            hostnames: Vec::new(),
            created: Revision(0),
            rules: vec![rule],
        }),
    ]
}

/// A Hello of a proxy that holds nothing yet.
fn hello() -> v1::Hello {
    let text = str::to_owned;
    let workload = v1::WorkloadRegistration {
        name: text("web-1"),
        namespace: text("shop"),
        address: text("127.0.0.11"),
        ports: vec![v1::WorkloadPort { port: 8080, protocol: v1::Protocol::Grpc.into() }],
        labels: BTreeMap::from([(text("app"), text("web"))]),
        port_names: BTreeMap::from([(8080, text("grpc"))]),
        service: Some(text("web")),
        mesh_address: text("127.0.0.11:15008"),
        weight: 3,
    };
    v1::Hello {
        proxy_name: text("web-1"),
        version: text("0.1.0"),
        capabilities: CAPABILITIES.map(str::to_owned).to_vec(),
        workloads: vec![workload],
        current_revision: 9,
        incarnation: 3,
        ..v1::Hello::default()
    }
}

/// One of each message that a stream carries, no field at its default.
fn messages() -> Vec<(&'static str, Vec<u8>)> {
    use v1::control_message::Message as FromControl;
    use v1::proxy_message::Message as FromProxy;
    let from_control = |message| v1::ControlMessage { message: Some(message) }.encode_to_vec();
    let from_proxy = |message| v1::ProxyMessage { message: Some(message) }.encode_to_vec();
    let keys: Vec<Key> = everything().iter().map(Object::key).collect();
    let endpoint = Key::Endpoint { service: name("shop/web"), workload: name("shop/web-1") };
    let lineage = || Some(v1::Lineage { store: "store".to_owned(), epoch: 2, supersedes: vec!["older".to_owned()] });
    let delta = |delta: Delta| v1::Delta { lineage: lineage(), view: 4, ..v1::Delta::from(&delta) };
    let revision = Revision(9);
    let answered = asks().into();
    let whole = Delta { revision, upserts: everything(), full: true, answered, ..Delta::default() };
    let removals =
        Delta { revision, removals: [keys.clone(), vec![endpoint]].concat(), subtractive: true, ..Delta::default() };
    let versions: Versions = keys.iter().cloned().zip(1..).collect();
    let text = str::to_owned;
    let wanted: Vec<v1::Ask> = asks().iter().map(Into::into).collect();
    let hello = v1::Hello { known: known(&versions), lineage: lineage(), asked: wanted.clone(), ..hello() };
    let state = v1::FilterState {
        name: text("shop/limit"),
        digest: text("sha256:00"),
        version: text("1.0.0"),
        state: text("loaded"),
    };
    let report = v1::Report {
        filters: vec![state],
        transport: text("quic"),
        certificate_not_after_unix: 1_700_000_000,
        current_revision: 9,
        staleness_ms: 5,
        peers: vec![v1::PeerWord { workload: Some((&name("shop/web-1")).into()), reached: true }],
    };
    let key: v1::Key = (&keys[3]).into();
    let denials = v1::Denials { identities: vec![text("spiffe://x")], evicted: Vec::new() };
    let nack = v1::Nack { revision: 9, key: Some(key.clone()), reason: text("why"), view: 4 };
    let filter: v1::Key = (&Key::Filter(text("shop/limit"))).into();
    let stage = v1::Ack { revision: 9, skipped: vec![], view: 4, pending: vec![filter.clone()] };
    let settled = v1::Settled {
        loaded: vec![v1::ObjectVersion { key: Some(filter.clone()), version: 7 }],
        refused: vec![v1::Unusable { key: Some(filter), version: 8, reason: text("why") }],
    };
    vec![
        ("stages", from_control(FromControl::Delta(v1::Delta { revision: 9, stages: true, ..v1::Delta::default() }))),
        ("stage", from_proxy(FromProxy::Ack(stage))),
        ("settled", from_proxy(FromProxy::Settled(settled))),
        ("delta", from_control(FromControl::Delta(delta(whole)))),
        (
            "defaults",
            from_control(FromControl::Delta(delta(Delta { revision, upserts: defaults(), ..Delta::default() }))),
        ),
        ("removals", from_control(FromControl::Delta(delta(removals)))),
        ("notice", from_control(FromControl::Notice(v1::Notice { reason: text("shutdown"), reconnect: true }))),
        ("denials", from_control(FromControl::Denials(denials))),
        ("hello", from_proxy(FromProxy::Hello(hello))),
        ("ack", from_proxy(FromProxy::Ack(v1::Ack { revision: 9, skipped: vec![key], view: 4, pending: vec![] }))),
        ("nack", from_proxy(FromProxy::Nack(nack))),
        ("report", from_proxy(FromProxy::Report(report))),
        ("asks", from_proxy(FromProxy::Asks(v1::Asks { forgotten: wanted[..1].to_vec(), wanted }))),
        ("draining", from_proxy(FromProxy::Draining(v1::Draining {}))),
    ]
}

#[test]
fn what_is_said_is_said_in_the_bytes_on_record() {
    for (name, bytes) in messages() {
        let path = folder().join(format!("{name}.bin"));
        if std::env::var_os("WEFT_BLESS").is_some() {
            std::fs::create_dir_all(folder()).unwrap();
            std::fs::write(&path, &bytes).unwrap();
        }
        let recorded = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(recorded == bytes, "{name}: proxies of release {RELEASE} would be sent everything anew");
    }
}

/// Every release's, by file name.
fn recorded() -> Vec<(String, Vec<u8>)> {
    let root = folder().parent().unwrap().to_owned();
    let releases = std::fs::read_dir(root).unwrap().flatten();
    let files = releases.flat_map(|release| std::fs::read_dir(release.path()).unwrap().flatten());
    files
        .map(|file| (file.path().file_stem().unwrap().to_string_lossy().into_owned(), file.path()))
        .map(|(name, path)| (name, std::fs::read(path).unwrap()))
        .collect()
}

/// What each of them means, whatever release it is of.
#[test]
fn what_is_on_record_is_read() {
    use v1::control_message::Message as FromControl;
    use v1::proxy_message::Message as FromProxy;
    let all = recorded();
    assert!(all.len() >= messages().len());
    for (name, bytes) in all {
        let from_control = || v1::ControlMessage::decode(bytes.as_slice()).unwrap().message.unwrap();
        let from_proxy = || v1::ProxyMessage::decode(bytes.as_slice()).unwrap().message.unwrap();
        match name.as_str() {
            "delta" | "defaults" => {
                let FromControl::Delta(delta) = from_control() else { panic!("{name}") };
                let received = Received::try_from(delta).unwrap();
                let expected = if name == "delta" { everything() } else { defaults() };
                assert_eq!((received.delta.upserts, received.skipped), (expected, vec![]), "{name}");
                assert_eq!(received.delta.answered.len(), if name == "delta" { 3 } else { 0 });
            }
            "removals" => {
                let FromControl::Delta(delta) = from_control() else { panic!("{name}") };
                assert_eq!(Received::try_from(delta).unwrap().delta.removals.len(), 6);
            }
            "stages" => {
                let FromControl::Delta(delta) = from_control() else { panic!("{name}") };
                assert!(delta.stages && Received::try_from(delta).unwrap().delta.upserts.is_empty());
            }
            "stage" => {
                let FromProxy::Ack(ack) = from_proxy() else { panic!("{name}") };
                assert_eq!((ack.revision, ack.pending.len()), (9, 1));
            }
            "settled" => {
                let FromProxy::Settled(settled) = from_proxy() else { panic!("{name}") };
                assert_eq!((settled.loaded[0].version, settled.refused[0].version), (7, 8));
            }
            "notice" => {
                let FromControl::Notice(notice) = from_control() else { panic!("{name}") };
                assert!(notice.reconnect && notice.reason == "shutdown");
            }
            "denials" => {
                let FromControl::Denials(denials) = from_control() else { panic!("{name}") };
                assert_eq!(denials.identities, ["spiffe://x"]);
            }
            "hello" => {
                let FromProxy::Hello(hello) = from_proxy() else { panic!("{name}") };
                assert!(hello.capabilities.iter().any(|told| told == ENVELOPES), "{hello:?}");
                let told = crate::registration::Told::try_from(&hello.workloads[0]).unwrap();
                assert_eq!(told.ports, [(8080, Protocol::Grpc)]);
                assert_eq!((hello.known.len(), hello.current_revision, hello.incarnation), (5, 9, 3));
                assert_eq!(hello.asked.into_iter().map(Ask::try_from).collect::<Vec<_>>(), asks().map(Ok));
            }
            "ack" => {
                let FromProxy::Ack(ack) = from_proxy() else { panic!("{name}") };
                assert_eq!((ack.revision, ack.skipped.len(), ack.view), (9, 1, 4));
            }
            "nack" => {
                let FromProxy::Nack(nack) = from_proxy() else { panic!("{name}") };
                assert_eq!(Key::try_from(nack.key.unwrap()).unwrap(), Key::Route(super::name("shop/r#1")));
            }
            "report" => {
                let FromProxy::Report(report) = from_proxy() else { panic!("{name}") };
                assert!(report.peers[0].reached && report.filters[0].state == "loaded");
            }
            "asks" => {
                let FromProxy::Asks(asked) = from_proxy() else { panic!("{name}") };
                assert_eq!(asked.wanted.into_iter().map(Ask::try_from).collect::<Vec<_>>(), asks().map(Ok));
                assert_eq!(asked.forgotten.len(), 1);
            }
            "draining" => assert!(matches!(from_proxy(), FromProxy::Draining(_))),
            other => panic!("{other} is on record, and nobody reads it"),
        }
    }
}
