//! A world, a request, the expected explanation.

#[cfg(feature = "wire")]
mod compare;
mod shown;

use super::*;
use crate::plan::effective;
use crate::plan::tests::{SHOP, world};

const POLICIES: &str = r#"
apiVersion: weft.dev/v1alpha1
kind: AccessPolicy
metadata: {name: callers, namespace: shop}
spec: {rules: [{name: partner, from: [{namespaces: [partner]}]}]}
---
apiVersion: weft.dev/v1alpha1
kind: AccessPolicy
metadata: {name: no-admin, namespace: shop}
spec: {action: Deny, targetRefs: [{kind: Service, name: web}], rules: [{name: admin, to: [{paths: [/admin/*]}]}]}
---
apiVersion: weft.dev/v1alpha1
kind: FilterPolicy
metadata: {name: limit, namespace: shop}
spec: {filter: {name: ratelimit}, capabilities: [token-bucket]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: canary, namespace: shop}
spec:
  parentRefs: [{group: "", kind: Service, name: web}]
  rules:
  - name: two
    matches: [{headers: [{name: x-canary, value: "yes"}]}]
    backendRefs: [{name: web-v2, port: 80}]
  - matches: [{path: {value: /gone}}]
    backendRefs: [{name: gone, port: 80}]
  - matches: [{path: {value: /empty}}]
    backendRefs: [{name: nothing, port: 80}]
  - matches: [{path: {value: /none}}]
  - matches: [{path: {value: /app}}, {path: {value: /admin}}]
    backendRefs: [{name: web, port: 80}]
"#;

/// A plain request.
fn asked(from: &str, to: &str) -> Query {
    serde_json::from_value(serde_json::json!({"from": from, "to": to})).unwrap()
}

fn ask(from: &str, to: &str, path: &str, headers: &[(&str, &str)]) -> Result<Explanation, QueryError> {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let query = Query { path: path.to_owned(), headers, ..asked(from, to) };
    explain(&world(&format!("{SHOP}---\n{POLICIES}")), &query)
}

#[test]
fn verdicts() {
    fn check(from: &str, path: &str, headers: &[(&str, &str)], expect: (bool, Option<u16>, Option<&str>, &str)) {
        let got = ask(from, "web.shop", path, headers).unwrap();
        assert_eq!((got.allowed, got.status, got.rule.as_deref(), got.reason.as_str()), expect, "{from} {path}");
    }
    let partner = Some("shop/callers#partner");
    check("partner/api", "/app", &[], (true, None, partner, "allowed by rule"));
    check("shop/web", "/app", &[], (false, Some(403), Some("shop/callers#no-match"), "no allow rule matches"));
    check("partner/api", "/app/../admin/x", &[], (false, Some(403), Some("shop/no-admin#admin"), "denied by rule"));
    check("partner/api", "/x/../%61dmin/x?a=b", &[], (false, Some(403), Some("shop/no-admin#admin"), "denied by rule"));
    check("partner/api", "/elsewhere", &[], (false, Some(404), None, "no rule of the routes of shop/web matches"));
    check("partner/api", "/elsewhere", &[("X-Canary", "yes")], (true, None, partner, "allowed by rule"));
    check("partner/api", "/gone", &[], (false, Some(500), None, "a backend of the rule does not resolve"));
    check("partner/api", "/none", &[], (false, Some(500), None, "the rule has no backend with a weight"));
    check("partner/api", "/empty", &[], (false, Some(503), None, "service shop/nothing has no endpoints"));
    check("partner/api", "/%c0%af", &[], (false, Some(400), None, "path has overlong UTF-8"));
}

#[test]
fn rules_read_the_claims_that_are_given() {
    let policy = "apiVersion: weft.dev/v1alpha1\nkind: AccessPolicy\nmetadata: {name: admins, namespace: shop}\n\
                  spec: {rules: [{from: [{claims: [{name: roles, exact: admin}]}]}]}";
    let world = world(&format!("{SHOP}---\n{policy}"));
    let told = |roles: &[&str]| {
        let claims = [("roles".to_owned(), roles.iter().map(|role| (*role).to_owned()).collect())];
        let claims = if roles.is_empty() { BTreeMap::new() } else { claims.into() };
        let got = explain(&world, &Query { claims, ..asked("partner/api", "web.shop") }).unwrap();
        (got.allowed, got.reason)
    };
    assert_eq!(told(&["dev", "admin"]), (true, "allowed by rule".to_owned()));
    assert_eq!(told(&["dev"]), (false, "no allow rule matches".to_owned()));
    let without = "no allow rule matches, for a caller without a token (rules read its roles)";
    assert_eq!(told(&[]), (false, without.to_owned()));
}

#[test]
fn the_whole_way() {
    let got = ask("partner/api", "WEB.shop.svc.cluster.local", "/", &[("x-canary", "yes")]).unwrap();
    let expect = serde_json::json!({
        "allowed": true,
        "rule": "shop/callers#partner",
        "reason": "allowed by rule",
        "principal": "spiffe://cluster.local/ns/partner/sa/api",
        "service": "shop/web",
        "port": 80,
        "path": "/",
        "route": {"kind": "HTTPRoute", "name": "shop/canary", "rule_index": 0, "rule_name": "two"},
        "backends": [{
            "service": "shop/web-v2",
            "port": 80,
            "weight": 1,
            "balancing": "PeakEwma by default",
            "endpoints": [{
                "workload": "shop/web-2",
                "address": "127.0.0.12:8080",
                "identity": "spiffe://cluster.local/ns/shop/sa/web",
                "allowed": true,
                "rule": "shop/callers#partner",
                "reason": "allowed by rule",
                "filters": ["shop/limit", "weft-system/authz"],
            }],
        }],
    });
    assert_eq!(serde_json::to_value(&got).unwrap(), expect);
}

#[test]
fn a_route_that_cannot_be_done_is_told_as_such() {
    let mirrored = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: m, namespace: shop}\n\
        spec: {parentRefs: [{group: '', kind: Service, name: other}, {group: '', kind: Service, name: web}], rules: [{\
        filters: [{type: ExtensionRef, extensionRef: {}}], backendRefs: [{name: web, port: 80}]}]}";
    let query = asked("partner/api", "web.shop");
    let got = explain(&world(&format!("{SHOP}---\n{mirrored}")), &query).unwrap();
    let reason =
        "the route asks for what can't be done: spec.rules[0].filters[0].type: ExtensionRef is not supported yet";
    assert_eq!((got.status, got.reason.as_str(), got.backends.len()), (Some(500), reason, 0));
}

#[test]
fn what_a_route_sends_elsewhere_and_what_it_makes_of_a_path_is_told() {
    let route = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: a, namespace: shop}\n\
        spec: {parentRefs: [{group: '', kind: Service, name: web}], rules: [\
        {matches: [{path: {value: /old}}], filters: [{type: RequestRedirect, requestRedirect: {statusCode: 301, \
        scheme: https, path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}}}]},\
        {matches: [{path: {value: /public}}], filters: [{type: URLRewrite, urlRewrite: {hostname: in.example, \
        path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}}], backendRefs: [{name: web, port: 80}]}]}";
    let ask = |path: &str| {
        let query = Query { path: path.to_owned(), ..asked("partner/api", "web.shop") };
        explain(&world(&format!("{SHOP}---\n{POLICIES}---\n{route}")), &query).unwrap()
    };
    let got = ask("/old/x?y");
    let reason = "to https://web.shop/new/x?y, by HTTPRoute shop/a";
    assert_eq!((got.allowed, got.status, got.reason.as_str()), (false, Some(301), reason));
    assert_eq!(got.route.map(|route| route.name).as_deref(), Some("shop/a"));
    // A rule of the callee holds for what it is sent, in each of its readings.
    for (path, sent, allowed, reading) in [
        ("/public/app", "/app", true, None),
        ("/public", "/", true, None),
        ("/public/admin/x", "/admin/x", false, None),
        ("/public/%61dmin/x", "/admin/x", false, None),
        ("/public//admin/x", "//admin/x", false, Some("/admin/x")),
        ("/public/x/..%2Fadmin/x", "/x/..%2Fadmin/x", false, Some("/admin/x")),
        ("/public/x/..;/admin/x", "/x/..;/admin/x", false, Some("/admin/x")),
        ("/public/x/..%5Cadmin/x", "/x/..%5Cadmin/x", false, Some("/admin/x")),
    ] {
        let got = ask(path);
        let backend = &got.backends[0];
        assert_eq!((backend.host.as_deref(), backend.path.as_deref()), (Some("in.example"), Some(sent)), "{path}");
        assert_eq!((got.allowed, got.reading.as_deref()), (allowed, reading), "{path}: {got:?}");
    }
    // One reading of it meets a rule that changes nothing.
    assert_eq!(ask("/public/..%5Cadmin/x").status, Some(400));
}

#[test]
fn mirrors_are_told_and_decide_nothing() {
    let mirror = |to: &str| {
        format!("{{type: RequestMirror, requestMirror: {{backendRef: {{name: {to}, port: 80}}, percent: 20}}}}")
    };
    let route = format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: a, namespace: shop}}\n\
         spec: {{parentRefs: [{{group: '', kind: Service, name: web}}], rules: [{{filters: [{}, {}], \
         backendRefs: [{{name: web, port: 80, filters: [{}]}}]}}]}}",
        mirror("web-v2"),
        mirror("gone"),
        mirror("nothing")
    );
    let query = asked("partner/api", "web.shop");
    let got = explain(&world(&format!("{SHOP}---\n{route}")), &query).unwrap();
    assert!(got.allowed, "{got:?}");
    let told = serde_json::json!([
        {"service": "shop/web-v2", "port": 80, "share": "20 % of the requests"},
        {"service": null, "port": 80, "share": "20 % of the requests"},
        {"service": "shop/nothing", "port": 80, "share": "20 % of the requests", "backend": "shop/web"},
    ]);
    assert_eq!(serde_json::to_value(&got.mirrors).unwrap(), told);
}

#[test]
fn preflights_and_who_may_read_an_answer_are_told() {
    let route = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: a, namespace: shop}\n\
        spec: {parentRefs: [{group: '', kind: Service, name: web}], rules: [{filters: [{type: CORS, \
        cors: {allowOrigins: ['https://a.example']}}], backendRefs: [{name: web, port: 80}]}]}";
    let check = |method: &str, origin: &str, expect: (bool, Option<u16>, &str), notes: &[&str]| {
        let fields = [("Origin", origin), ("Access-Control-Request-Method", "PUT")];
        let query = Query {
            method: method.to_owned(),
            path: "/x".to_owned(),
            headers: fields.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            ..asked("partner/api", "web.shop")
        };
        let got = explain(&world(&format!("{SHOP}---\n{route}")), &query).unwrap();
        assert_eq!((got.allowed, got.status, got.reason.as_str()), expect, "{method} {origin}");
        assert_eq!(got.notes, notes, "{method} {origin}");
    };
    let answered = "the preflight of https://a.example is answered by HTTPRoute shop/a, which allows it";
    check("OPTIONS", "https://a.example", (false, Some(200), answered), &[]);
    let refused = "the preflight of https://b.example is answered by HTTPRoute shop/a, which does not allow it";
    check("OPTIONS", "https://b.example", (false, Some(403), refused), &[]);
    let reached = (true, None, "no policy forbids it");
    let note = "pages of https://a.example may read the answer, as HTTPRoute shop/a says";
    check("PUT", "https://a.example", reached, &[note]);
    let note = "pages of https://b.example may not read the answer: HTTPRoute shop/a does not allow it";
    check("PUT", "https://b.example", reached, &[note]);
}

#[test]
fn an_account_that_nobody_has_is_noted() {
    let got = ask("partner/apii", "web.shop", "/app", &[]).unwrap();
    assert!(got.allowed, "rules look at the name alone: {got:?}");
    assert_eq!(got.notes, ["no workload has the account partner/apii: this is told of one that would"]);
    assert_eq!(ask("partner/api", "web.shop", "/app", &[]).unwrap().notes, [""; 0]);
}

#[test]
fn whoever_is_barred_reaches_nobody_and_is_reached_by_nobody() {
    let ask = |barred: &Barred, path: &str| {
        let query = Query { path: path.to_owned(), ..asked("partner/api", "web.shop") };
        explain_among(&world(&format!("{SHOP}---\n{POLICIES}")), barred, &query).unwrap()
    };
    let account = |namespace: &str, name: &str| -> SpiffeId {
        format!("spiffe://cluster.local/ns/{namespace}/sa/{name}").parse().unwrap()
    };
    let why = || "its identity is banned".to_owned();
    let check = |barred: &Barred, path: &str, expect: (Option<u16>, &str)| {
        let got = ask(barred, path);
        assert!(!got.allowed && got.barred && got.rule.is_none(), "{got:?}");
        assert_eq!((got.status, got.reason.as_str()), expect, "{path}");
    };
    let caller = Barred { identities: [(account("partner", "api"), why())].into(), ..Barred::default() };
    let refused = "nobody accepts its connections: its identity is banned";
    check(&caller, "/app", (Some(503), refused));
    // Its own proxy answers this one.
    check(&caller, "/elsewhere", (Some(404), refused));
    assert!(ask(&caller, "/app").backends[0].endpoints[0].allowed, "the way is shown all the same");
    let callee = Barred { identities: [(account("shop", "web"), why())].into(), ..Barred::default() };
    check(&callee, "/app", (Some(503), "nobody connects to shop/web-1: its identity is banned"));
    // One of several is avoided.
    let one = |name: &str| Barred { workloads: [(ObjectName::new("shop", name), why())].into(), ..Barred::default() };
    let all = ask(&Barred::default(), "/app").backends[0].endpoints.len();
    let got = ask(&one("web-1"), "/app");
    let barred = got.backends[0].endpoints.iter().filter(|endpoint| endpoint.barred).count();
    assert_eq!((barred, got.allowed), (1, all > 1), "{got:?}");
    assert!(ask(&one("nobody"), "/app").allowed);
}

#[test]
fn questions_without_an_answer() {
    fn check(from: &str, to: &str, port: Option<u16>, expect: &str) {
        let query = Query { port, ..asked(from, to) };
        assert_eq!(explain(&world(SHOP), &query).unwrap_err().to_string(), expect);
    }
    check("partner", "web.shop", None, "from: \"partner\" is not namespace/service-account");
    check("Partner/x", "web.shop", None, "from: \"Partner/x\" is not namespace/service-account");
    check(
        "partner/x",
        "web",
        None,
        "to: \"web\" for a caller in namespace partner: no service has this name: it is misspelt, or the service was deleted",
    );
    let named = "to: \"shop/web\" is no host name: the service NAME of namespace NS is NAME.NS, here web.shop";
    check("partner/x", "shop/web", None, named);
    check("partner/x", "example.com", None, "to: \"example.com\" is outside the mesh, which says nothing of it");
}

#[test]
fn a_name_outside_is_told_with_its_external_service() {
    let external = "apiVersion: weft.dev/v1alpha1\nkind: ExternalService\nmetadata: {name: api, namespace: partner}\nspec: {hosts: [\
        api.example.com], ports: [{port: 80, protocol: http, targetPort: 443}, {port: 5432, protocol: tcp}], tls: {mode: Originate, \
        systemRoots: true}}";
    let world = world(&format!("{SHOP}---\n{external}"));
    let check = |from: &str, port: Option<u16>, expect: Result<(bool, &str, &str), &str>| {
        let query = Query { port, ..asked(from, "api.example.com") };
        let got = explain(&world, &query).map_err(|error| error.to_string());
        let got = got.as_ref().map(|got| {
            assert!(got.allowed && got.status.is_none() && got.backends.is_empty() == got.connection, "{got:?}");
            (got.connection, got.reason.as_str(), got.notes.last().map(String::as_str).unwrap_or_default())
        });
        assert_eq!(got.map_err(String::as_str), expect, "{port:?} from {from}");
    };
    let tls =
        "dialled: api.example.com:443 with TLS, which has to be api.example.com by the roots of the proxy's machine";
    check("partner/api", None, Ok((false, "outside the mesh: ExternalService partner/api lets requests out", tls)));
    let tcp = "dialled: api.example.com:5432, tcp as the app sends it";
    check(
        "partner/api",
        Some(5432),
        Ok((true, "outside the mesh: ExternalService partner/api lets connections out", tcp)),
    );
    let outside = Err("to: \"api.example.com\" is outside the mesh, which says nothing of it");
    check("partner/api", Some(81), outside);
    check("shop/web", None, outside);
}

#[test]
fn a_port_that_a_service_lacks() {
    let query = Query { port: Some(81), ..asked("partner/x", "web.shop") };
    let got = explain(&world(SHOP), &query).unwrap();
    assert_eq!(
        (got.allowed, got.status, got.reason.as_str()),
        (false, Some(404), "shop/web serves nothing at port 81")
    );
}

/// A proxy sees neither method nor path of such a connection, and `explain` judges it in the same way.
#[test]
fn a_port_declared_tcp_is_judged_as_a_connection() {
    let ask = |own: &str, policy: &str| {
        let service = SHOP.replace("appProtocol: http", "appProtocol: tcp").replace("8080, protocol: http", own);
        assert!(service.contains("appProtocol: tcp") && !service.contains("protocol: http"));
        let policy = format!(
            "apiVersion: weft.dev/v1alpha1\nkind: AccessPolicy\nmetadata: {{name: p, namespace: shop}}\nspec: {policy}\n"
        );
        let query = Query { path: "/harmless".to_owned(), ..asked("partner/api", "web.shop") };
        let got = explain(&world(&format!("{service}---\n{policy}")), &query).unwrap();
        assert!(got.connection);
        (got.allowed, got.rule, got.status)
    };
    let (denied, tcp) = (Some(403), "8080");
    let rule = |name: &str| Some(format!("shop/p#{name}"));
    let deny = "{action: Deny, rules: [{to: [{paths: [/admin]}]}]}";
    assert_eq!(ask(tcp, deny), (false, rule("0"), denied), "the path can't be seen");
    let elsewhere = "{action: Deny, rules: [{to: [{methods: [POST], ports: [9]}]}]}";
    assert_eq!(ask(tcp, elsewhere), (true, None, None));
    assert_eq!(ask(tcp, "{rules: [{to: [{paths: [/harmless]}]}]}"), (false, rule("no-match"), denied));
    assert_eq!(ask(tcp, "{rules: [{from: [{namespaces: [partner]}]}]}"), (true, rule("0"), None));
    assert_eq!(
        ask("8080, protocol: grpc", elsewhere),
        (false, None, Some(400)),
        "a workload that takes no connections"
    );
}

/// A path that apps may read in several ways is refused where any reading is, and the reading is named.
#[test]
fn each_reading_is_judged() {
    const OPEN: &str = r#"
apiVersion: weft.dev/v1alpha1
kind: AccessPolicy
metadata: {name: no-admin, namespace: shop}
spec: {action: Deny, rules: [{name: admin, to: [{paths: [/admin/*]}]}]}
---
apiVersion: weft.dev/v1alpha1
kind: AccessPolicy
metadata: {name: all-but, namespace: shop}
spec: {rules: [{name: any, to: [{notPaths: [/secret/*]}]}]}
"#;
    let ask = |declared: &str, path: &str| {
        let service = SHOP.replace(
            "metadata: {name: web, namespace: shop}",
            &format!(
                "metadata: {{name: web, namespace: shop, annotations: {{weft.dev/path-reading: \"{declared}\"}}}}"
            ),
        );
        let service = if declared.is_empty() { SHOP.to_owned() } else { service };
        // The other service in front of the same pods says nothing.
        let service = service.replace("selector: {app: web, version: v2}", "selector: {app: none}");
        let query = Query { path: path.to_owned(), ..asked("shop/web", "web") };
        explain(&world(&format!("{service}---\n{OPEN}")), &query).unwrap()
    };
    let check = |declared: &str, path: &str, status: Option<u16>, reading: Option<&str>| {
        let got = ask(declared, path);
        assert_eq!((got.status, got.reading.as_deref()), (status, reading), "{path} {declared}: {}", got.reason);
    };
    let denied = Some(403);
    check("", "/books", None, None);
    check("", "/admin", denied, None);
    check("", "//admin", denied, Some("/admin"));
    check("", "/admin;x=1", denied, Some("/admin"));
    check("", "/x/..;/admin", denied, Some("/admin"));
    check("", "/a%2f..%2fadmin", denied, Some("/admin"));
    check("", "/%5c../admin", denied, Some("/admin"));
    check("", "/admin%2fx", denied, Some("/admin/x"));
    check("", "//secret/x", denied, Some("/secret/x"));
    check("", "/books//x", None, None);
    check("", "/npm/@scope%2fpackage", None, None);
    check("encoded-slash=literal", "/a%2f..%2fadmin", None, None);
    check("slashes=merged", "//admin", denied, None);
    check("slashes=kept", "//admin", None, None);
    check("params=kept", "/admin;x=1", None, None);
    check("", "/;/;%2f\\%5c..;%2f..//%e9;/;a%2f", Some(400), None);
}

#[test]
fn how_endpoints_are_picked_is_told_with_who_says_so() {
    let policy = "apiVersion: weft.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {name: sticky, namespace: shop}\n\
                  spec: {targetRefs: [{kind: Service, name: web}], loadBalancing: {algorithm: RingHash, hash: {cookie: sid}}}";
    let limited = "apiVersion: v1\nkind: Service\nmetadata: {name: limited, namespace: shop}\n\
                   spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}\n---\n\
                   apiVersion: weft.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {name: limiting, namespace: shop}\n\
                   spec: {targetRefs: [{kind: Service, name: limited}], limits: {maxActiveRequests: 1}}";
    let world = world(&format!("{SHOP}---\n{policy}\n---\n{limited}"));
    let told = |to: &str, headers: &[(&str, &str)]| {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let (from, path) = ("partner/api".to_owned(), root());
        let claims = BTreeMap::new();
        let query = Query { sni: None, from, to: to.to_owned(), port: None, method: get(), path, headers, claims };
        explain(&world, &query).unwrap().backends.remove(0).balancing.unwrap_or_default()
    };
    assert_eq!(told("web-v2.shop", &[]), "PeakEwma by default");
    // As `weft describe` has it: a policy that says nothing of it has not set it.
    assert_eq!(told("limited.shop", &[]), "PeakEwma by default");
    let limited = effective(&world, &"shop/limited".parse().unwrap());
    assert_eq!((limited[0].policy(), limited[2].policy().is_some()), (None, true));
    let query = |headers: &[(&str, &str)]| {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let (from, to, path) = ("partner/api".to_owned(), "limited.shop".to_owned(), root());
        let claims = BTreeMap::new();
        explain(&world, &Query { sni: None, from, to, port: None, method: get(), path, headers, claims }).unwrap()
    };
    let backend = query(&[]).backends.remove(0);
    let limits = "1 active requests of each proxy, as TrafficPolicy shop/limiting says";
    assert_eq!(backend.limits.as_deref(), Some(limits));
    let note = "weft-timeout-ms \"250\" shortens the time of the request here and at each proxy on its way, and lengthens none";
    let notes = query(&[("Weft-Timeout-Ms", "250")]).notes;
    assert!(notes.iter().any(|told| told == note), "{notes:?}");
    assert_eq!(
        told("web.shop", &[("Cookie", "a=b; sid=7")]),
        "RingHash by cookie sid, as TrafficPolicy shop/sticky says"
    );
    assert_eq!(
        told("web.shop", &[]),
        "RingHash by cookie sid, which it lacks: any endpoint, as TrafficPolicy shop/sticky says"
    );
}

/// By the same function as a proxy's (`route::choose_stream`).
#[test]
fn connections_are_led_by_routes_of_bytes() {
    let route = |kind: &str, name: &str, rest: &str| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: shop}}\nspec: \
             {{parentRefs: [{{group: '', kind: Service, name: db}}], {rest}}}\n"
        )
    };
    let backends = |list: &str| format!("rules: [{{name: all, backendRefs: [{list}]}}]");
    let service = |protocol: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: db, namespace: shop}}\nspec: {{selector: {{app: db}}, ports: [{{port: \
             5432{protocol}}}]}}\n---\napiVersion: v1\nkind: Service\nmetadata: {{name: db-v2, namespace: shop}}\nspec: {{selector: \
             {{app: db}}, ports: [{{port: 5432{protocol}}}]}}\n---\napiVersion: weft.dev/v1alpha1\nkind: Workload\nmetadata: {{name: \
             db-1, namespace: shop, labels: {{app: db}}}}\nspec: {{address: 127.0.0.21, ports: [{{port: 5432}}]}}\n"
        )
    };
    let check = |protocol: &str, routes: &[String], sni: Option<&str>, expect: (bool, &str, &str)| {
        let text = [&[SHOP.to_owned(), service(protocol)][..], routes].concat().join("---\n");
        let query = Query { sni: sni.map(str::to_owned), ..asked("shop/web", "db") };
        let told = explain(&world(&text), &query).unwrap();
        let led = told.route.map(|route| format!("{} {}", route.kind, route.name)).unwrap_or_default();
        assert_eq!((told.allowed, led.as_str(), told.reason.as_str()), expect, "{sni:?} {routes:?}");
        assert!(told.connection);
    };
    let (tcp, allowed) = (", appProtocol: tcp", "no policy forbids it");
    let split = route("TCPRoute", "t", &backends("{name: db, port: 5432}, {name: db-v2, port: 5432}"));
    check(tcp, &[], None, (true, "", allowed));
    check(tcp, std::slice::from_ref(&split), None, (true, "TCPRoute shop/t", allowed));
    check("", std::slice::from_ref(&split), Some("a.b"), (true, "TCPRoute shop/t", allowed));
    let gone = route("TCPRoute", "t", &backends("{name: gone, port: 5432}"));
    check(tcp, &[gone], None, (false, "TCPRoute shop/t", "a backend of the rule does not resolve"));
    let named = route("TLSRoute", "s", &format!("hostnames: ['*.b'], {}", backends("{name: db-v2, port: 5432}")));
    let both = [split, named];
    check(tcp, &both, Some("A.b."), (true, "TLSRoute shop/s", allowed));
    check(tcp, &both, Some("b"), (false, "", "no TLSRoute of shop/db is for the server name b"));
    check(tcp, &both, None, (false, "", "no TLSRoute of shop/db is for a ClientHello without a server name"));
    let http = route("HTTPRoute", "h", &backends("{name: db, port: 5432}"));
    let refused = "port 5432 takes HTTP only: what is attached to it holds for nothing else";
    check("", &[both[0].clone(), http], Some("a.b"), (false, "", refused));
}

/// Where the caller is decides who comes first; an account may be in several places, or nowhere.
#[test]
fn who_comes_first_is_told_for_the_callers_place() {
    let workload = |name: &str, account: &str, address: u8, labels: &str| {
        format!(
            "---\napiVersion: weft.dev/v1alpha1\nkind: Workload\nmetadata: {{name: {name}, namespace: shop, labels: {{{labels}}}}}\n\
             spec: {{address: 127.0.1.{address}, serviceAccount: {account}, ports: [{{port: 8080}}]}}\n"
        )
    };
    let at = |region: &str, zone: &str| {
        format!("topology.kubernetes.io/region: {region}, topology.kubernetes.io/zone: {zone}")
    };
    let service = "---\napiVersion: v1\nkind: Service\nmetadata: {name: cart, namespace: shop}\n\
                   spec: {selector: {app: cart}, ports: [{port: 80, targetPort: 8080}], trafficDistribution: PreferClose}\n";
    let cart = |region: &str, zone: &str| format!("app: cart, {}", at(region, zone));
    let workloads = [
        workload("cart-1", "cart", 1, &cart("eu", "a")),
        workload("cart-2", "cart", 2, &cart("eu", "b")),
        workload("cart-3", "cart", 3, &cart("us", "a")),
        workload("cart-4", "cart", 4, &cart("eu", "b")),
        workload("one-1", "one", 5, &at("eu", "b")),
        workload("both-1", "both", 6, &at("eu", "a")),
        workload("both-2", "both", 7, &at("us", "a")),
        workload("nowhere-1", "nowhere", 8, "app: nowhere"),
    ];
    let text = format!("{SHOP}{service}{}", workloads.concat());
    let policy = "---\napiVersion: weft.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {name: near, namespace: shop}\n\
                  spec: {targetRefs: [{kind: Service, name: cart}], loadBalancing: {algorithm: Random, locality: {prefer: Region}}}\n";
    let told = |text: &str, from: &str| {
        explain(&world(text), &asked(&format!("shop/{from}"), "cart"))
            .unwrap()
            .backends
            .remove(0)
            .balancing
            .unwrap_or_default()
    };
    let by = "as Service shop/cart says";
    let default = "PeakEwma by default";
    assert_eq!(
        told(&text, "one"),
        format!(
            "{default}; from eu/b first zone (cart-2, cart-4), then region (cart-1), then elsewhere (cart-3), {by}"
        )
    );
    assert_eq!(
        told(&text, "both"),
        format!(
            "{default}; from eu/a first zone (cart-1), then region (cart-2, cart-4), then elsewhere (cart-3); from us/a first zone \
             (cart-3), then elsewhere (cart-1, cart-2, cart-4), {by}"
        )
    );
    let nobody = "near endpoints first, and this caller does not say where it is: all are as near";
    assert_eq!(told(&text, "nowhere"), format!("{default}; {nobody}, {by}"));
    assert_eq!(
        told(&format!("{text}{policy}"), "one"),
        "Random, as TrafficPolicy shop/near says; from eu/b first region (cart-1, cart-2, cart-4), then elsewhere (cart-3), as \
         TrafficPolicy shop/near says"
    );
}

#[test]
fn the_outbound_filters_of_a_caller_are_noted() {
    let policy = |name: &str, spec: &str| {
        format!(
            "---\napiVersion: weft.dev/v1alpha1\nkind: FilterPolicy\nmetadata: {{name: {name}, namespace: shop}}\n\
             spec: {{direction: Outbound, filter: {{name: ratelimit}}{spec}}}\n"
        )
    };
    let route = "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: a, namespace: shop}\n\
        spec: {parentRefs: [{group: '', kind: Service, name: web}], rules: [{name: buy, backendRefs: \
        [{name: web, port: 80}]}]}\n";
    let of_rule = |rule: &str| format!(", targetRefs: [{{kind: HTTPRoute, name: a, sectionName: {rule}}}]");
    let policies = [policy("all", ", mode: Audit"), policy("buy", &of_rule("buy")), policy("sell", &of_rule("sell"))];
    let query = Query { path: "/x".to_owned(), ..asked("shop/web", "web.shop") };
    let got = explain(&world(&format!("{SHOP}{route}{}", policies.concat())), &query).unwrap();
    let note =
        "what shop/web sends passes its outbound filters first, which are not asked here: shop/all (audit), shop/buy";
    assert_eq!(got.notes, [note]);
}

/// A rule whose filter another lacks is passed by no other spelling of its path, as proxies have it.
#[test]
fn filters_of_rules_make_readings_ambiguous() {
    let routes = "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: a, namespace: shop}\n\
        spec: {parentRefs: [{group: '', kind: Service, name: web}], rules: [{name: buy, matches: [{path: {value: /buy}}], \
        backendRefs: [{name: web, port: 80}]}, {name: rest, backendRefs: [{name: web, port: 80}]}]}\n";
    let check = |policy: &str, path: &str, expect: Option<u16>| {
        let policy = format!(
            "---\napiVersion: weft.dev/v1alpha1\nkind: FilterPolicy\nmetadata: {{name: f, namespace: shop}}\n\
             spec: {{direction: Outbound, filter: {{name: ratelimit}}{policy}}}\n"
        );
        let query = format!(r#"{{"from": "shop/web", "to": "web.shop", "path": "{path}"}}"#);
        let query = serde_json::from_str(&query).unwrap();
        let got = explain(&world(&format!("{SHOP}{routes}{policy}")), &query).unwrap();
        assert_eq!(got.status, expect, "{policy} {path}: {}", got.reason);
    };
    let of = |section: &str| format!(", targetRefs: [{{kind: HTTPRoute, name: a{section}}}]");
    let of_rule = of(", sectionName: buy");
    check(&of_rule, "/buy", None);
    check(&of_rule, "/x", None);
    for spelling in ["//buy", "/buy;x", "/x/..;/buy", "/buy%2fx"] {
        check(&of_rule, spelling, Some(400));
        // The same for both rules, for every request, or only counted: nobody is treated differently.
        check(&of(""), spelling, None);
        check("", spelling, None);
        check(&format!("{of_rule}, mode: Audit"), spelling, None);
    }
}

#[test]
fn audited_policies_are_noted_and_refuse_nothing() {
    let policy = |mode: &str| {
        format!(
            "---\napiVersion: weft.dev/v1alpha1\nkind: AccessPolicy\nmetadata: {{name: watch, namespace: shop}}\n\
             spec: {{mode: {mode}, rules: [{{from: [{{namespaces: [partner]}}]}}]}}\n"
        )
    };
    let of = |kind: &str, spec: &str| {
        format!(
            "---\napiVersion: weft.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: p, namespace: shop}}\nspec: {spec}\n"
        )
    };
    let typed = [
        of("FilterPolicy", "{filter: {name: ratelimit}, order: -9}"),
        of("RateLimitPolicy", "{limits: [{requests: 1}], order: 9}"),
        of("FaultPolicy", "{abort: {reset: true}}"),
    ];
    let check = |mode: &str, expect: (bool, &[&str], &[&str])| {
        let text = format!("{SHOP}{}{}", typed.concat(), policy(mode));
        let query = serde_json::json!({"from": "shop/web", "to": "web-v2.shop"});
        let got = explain(&world(&text), &serde_json::from_value(query).unwrap()).unwrap();
        let filters: Vec<_> = got.backends[0].endpoints[0].filters.iter().map(String::as_str).collect();
        let notes: Vec<_> = got.notes.iter().map(String::as_str).collect();
        assert_eq!((got.allowed, filters.as_slice(), notes.as_slice()), expect, "{mode}");
    };
    let note = "policies in mode Audit would refuse it: shop/watch#no-match";
    let typed = ["shop/p#FaultPolicy", "shop/p#RateLimitPolicy", "shop/p"];
    check("Audit", (true, &[&typed[..], &["weft-system/authz#audit"]].concat(), &[note]));
    check("Off", (true, &typed, &[]));
    check("Enforce", (false, &[&typed[..], &["weft-system/authz"]].concat(), &[]));
}
