//! Whose timeouts and retries a request keeps: the rule's, then the TrafficPolicy's of the service that it reaches, then the
//! mesh's.

use std::time::Duration;

use super::*;
use crate::bundle::{Retry, Traffic};

fn retry(attempts: u32) -> Retry {
    Retry { codes: vec![503], attempts: Some(attempts), ..Retry::default() }
}

/// The service shop/web with a TrafficPolicy, and shop/bare without.
fn table_with(request_timeout_ms: Option<u64>, attempt_timeout_ms: Option<u64>, retry: Option<Retry>) -> RouteTable {
    let stream_timeout_ms = Some(60_000);
    let traffic = Traffic { request_timeout_ms, attempt_timeout_ms, stream_timeout_ms, retry, ..traffic("shop/p") };
    let mut web = service("shop/web", None, &[]);
    web.traffic = Some(Box::new(traffic));
    let to =
        |service: &str| Backend { service: Some(name(service)), outside: false, port: 80, weight: 1, actions: vec![] };
    let own =
        vec![RouteAction::RequestTimeoutMs(5), RouteAction::AttemptTimeoutMs(3), RouteAction::Retry(self::retry(9))];
    let none =
        vec![RouteAction::RequestTimeoutMs(0), RouteAction::AttemptTimeoutMs(0), RouteAction::Retry(self::retry(0))];
    let to_rule = |label: &str, at: &str, actions: Vec<RouteAction>, service: &str| RouteRule {
        backends: vec![to(service)],
        actions,
        ..rule(label, vec![matching(exact(at), None, &[])])
    };
    let rules = vec![
        to_rule("own", "/own", own, "shop/web"),
        to_rule("none", "/none", none, "shop/web"),
        to_rule("silent", "/silent", vec![], "shop/web"),
        to_rule("bare", "/bare", vec![], "shop/bare"),
    ];
    let mut route = route("shop/r", 1, rules);
    route.parent_port = Some(80);
    table(vec![web, service("shop/bare", None, &[])], vec![route])
}

#[test]
fn a_rule_comes_before_a_policy_before_the_mesh() {
    fn check(
        table: &RouteTable,
        host: &str,
        at: &str,
        expect: (Option<u64>, Option<u64>, Option<u32>),
        by: [SaidBy; 3],
    ) {
        let to = table.by_host(host, 80, "shop").unwrap();
        let head = HeadView { method: "GET", path: &path(at), host: None, headers: &|_| None, others: &[] };
        let plan = plan(table, &to, "shop", &head, 0, &mesh(Egress::Allow)).unwrap();
        let ms = |limit: Option<Duration>| limit.map(|limit| u64::try_from(limit.as_millis()).unwrap());
        let attempts = plan.retry.map(|retry| retry.attempts.unwrap());
        assert_eq!((ms(plan.timeout), ms(plan.attempt_timeout), attempts), expect, "{host} {at}");
        let said = [Setting::RequestTimeout, Setting::AttemptTimeout, Setting::Retry].map(|it| plan.says(it));
        assert_eq!(said, by, "{host} {at}");
    }
    use SaidBy::{Mesh, Policy, Rule};
    let full = table_with(Some(900), Some(90), Some(retry(4)));
    check(&full, "web", "/own", (Some(5), Some(3), Some(9)), [Rule; 3]);
    check(&full, "web", "/none", (None, None, Some(0)), [Rule; 3]);
    check(&full, "web", "/silent", (Some(900), Some(90), Some(4)), [Policy; 3]);
    check(&full, "web", "/bare", (Some(7_000), None, None), [Mesh; 3]);
    check(&full, "bare", "/any", (Some(7_000), None, None), [Mesh; 3]);
    let partial = table_with(None, Some(0), None);
    check(&partial, "web", "/silent", (Some(7_000), None, None), [Mesh, Policy, Mesh]);
    let endless = table_with(Some(0), None, Some(retry(1)));
    check(&endless, "web", "/silent", (None, None, Some(1)), [Policy, Mesh, Policy]);
}

#[test]
fn a_policy_holds_without_a_route() {
    let mut table = table_with(Some(900), Some(90), Some(retry(4)));
    let bundle = Bundle { routes: BTreeMap::new(), ..(*table.bundle).clone() };
    table = RouteTable::new(&Arc::new(bundle));
    let to = table.by_host("web", 80, "shop").unwrap();
    let head = HeadView { method: "GET", path: &path("/"), host: None, headers: &|_| None, others: &[] };
    let plan = plan(&table, &to, "shop", &head, 0, &mesh(Egress::Allow)).unwrap();
    assert_eq!(
        (plan.timeout, plan.attempt_timeout),
        (Some(Duration::from_millis(900)), Some(Duration::from_millis(90)))
    );
    assert_eq!(plan.retry, Some(&retry(4)));
    assert_eq!(plan.stream_timeout(), Some(Duration::from_secs(60)));
    let connection = plan_connection(&to).unwrap();
    assert_eq!((connection.timeout, connection.attempt_timeout, connection.retry), (None, None, None));
}
