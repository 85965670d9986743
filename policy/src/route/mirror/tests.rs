//! Which requests are copied, and where copies go.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;
use crate::bundle::{AppVersion, Backend, Bundle, Protocol, Revision, Route, RouteKind, ServicePort};
use crate::path::{NormalPath, PathReading};
use crate::route::{Choice, HeadView, Resolved, choose, to_backend};

fn mirror(service: Option<&str>, port: u16, numerator: u32, denominator: u32) -> RouteAction {
    let service = service.map(|name| name.parse().unwrap());
    RouteAction::Mirror(Mirror { service, port, numerator, denominator })
}

fn service(name: &str) -> Service {
    let port = ServicePort {
        name: None,
        port: 80,
        target_port: 8080,
        protocol: Protocol::Http,
        app_version: AppVersion::AsCaller,
        opaque_refused: false,
        other_targets: BTreeMap::new(),
    };
    Service {
        name: name.parse().unwrap(),
        ports: vec![port],
        vip: None,
        path_reading: PathReading::default(),
        traffic: None,
        spread: None,
        endpoints: BTreeMap::new(),
    }
}

/// The copies of one request, for dice that come in turn: `service:port` or what does not resolve.
fn copies(of_rule: Vec<RouteAction>, of_backend: Vec<RouteAction>, dice: &[u64]) -> Vec<String> {
    let names = ["shop/web", "shop/copy", "shop/other"];
    let web: ObjectName = "shop/web".parse().unwrap();
    let backend = Backend { service: Some(web.clone()), outside: false, port: 80, weight: 1, actions: of_backend };
    let rule = RouteRule { name: None, matches: Vec::new(), actions: of_rule, backends: vec![backend] };
    let route = Route {
        name: "shop/r".parse().unwrap(),
        kind: RouteKind::Http,
        parent: web.clone(),
        outside: false,
        parent_port: None,
        consumer_namespace: None,
        hostnames: Vec::new(),
        created: Revision(1),
        rules: vec![rule],
    };
    let bundle = Arc::new(Bundle {
        services: names.map(|name| (name.parse().unwrap(), service(name))).into(),
        routes: [(route.name.clone(), route)].into(),
        ..Bundle::default()
    });
    let table = RouteTable::new(&bundle);
    let path = NormalPath::new("/".to_owned().into()).unwrap();
    let head = HeadView { method: "GET", path: &path, host: None, headers: &|_| None, others: &[] };
    let to = Resolved { service: &bundle.services[&web], port: 80, endpoint: None, outside: false };
    let Ok(Choice::Rule(met)) = choose(&table, &to, "shop", &head) else { panic!("no rule") };
    let plan = to_backend(&table, met, 0, &head, &super::super::tests::mesh(crate::bundle::Egress::Allow)).unwrap();
    let mut dice = dice.iter().copied();
    let copies = plan.copies(&table, || dice.next().expect("one for each mirror"));
    assert_eq!(dice.next(), None, "one for each mirror");
    let told = |copied: &Copied<'_>| match (copied.to, copied.named) {
        (Some((service, target)), _) => {
            let workload = "shop/any".parse().unwrap();
            format!("{}:{}", service.name, target.at(&workload).unwrap())
        }
        (None, Some(name)) => format!("not {name}"),
        (None, None) => "nowhere".to_owned(),
    };
    copies.iter().map(told).collect()
}

#[test]
fn a_rules_mirrors_and_its_backends_get_a_copy_each() {
    let of_rule =
        vec![mirror(Some("shop/copy"), 80, 1, 1), mirror(None, 80, 1, 1), mirror(Some("shop/copy"), 81, 1, 1)];
    let of_backend = vec![mirror(Some("shop/other"), 80, 1, 1), mirror(Some("shop/gone"), 80, 1, 1)];
    let expect = ["shop/copy:8080", "nowhere", "not shop/copy", "shop/other:8080", "not shop/gone"];
    assert_eq!(copies(of_rule, of_backend, &[0, 1, 2, 3, u64::MAX]), expect);
    assert_eq!(copies(Vec::new(), Vec::new(), &[]), [""; 0]);
}

/// Each mirror has dice of its own, and their whole range is divided as the share says.
#[test]
fn the_dice_decide_by_the_share() {
    let check = |(numerator, denominator): (u32, u32), dice: u64, expect: bool| {
        let got = copies(vec![mirror(Some("shop/copy"), 80, numerator, denominator)], Vec::new(), &[dice]);
        assert_eq!(got.len(), usize::from(expect), "{numerator}/{denominator} at {dice}");
    };
    let half = 1_u64 << 63;
    check((50, 100), half - 1, true);
    check((50, 100), half, false);
    check((0, 100), 0, false);
    check((1, 1), u64::MAX, true);
    check((100, 100), u64::MAX, true);
    check((1, 3), u64::MAX / 3, true);
    check((1, 3), u64::MAX / 3 + 1, false);
    let both = || vec![mirror(Some("shop/copy"), 80, 1, 2), mirror(Some("shop/other"), 80, 1, 2)];
    assert_eq!(copies(both(), Vec::new(), &[0, u64::MAX]), ["shop/copy:8080"]);
    assert_eq!(copies(both(), Vec::new(), &[u64::MAX, 0]), ["shop/other:8080"]);
    // Over dice that are spread evenly each share is met exactly.
    let even = |share: (u32, u32)| {
        let rule = |dice| copies(vec![mirror(Some("shop/copy"), 80, share.0, share.1)], Vec::new(), &[dice]).len();
        (0..500).map(|step| rule(u64::MAX / 500 * step + u64::MAX / 1_000)).sum::<usize>()
    };
    assert_eq!([(20, 100), (1, 2), (35, 100)].map(even), [100, 250, 175]);
}
