//! Filters of rules that answer browsers and that copy requests: what proxies are told of them, and what people are.

use super::*;

#[test]
fn cors_is_told_as_it_is_written_and_what_never_meets_it_is_noted() {
    let of = |rule: &str| {
        let web = "parentRefs: [{group: \"\", kind: Service, name: web}]";
        shop_and(&route("shop/r", &format!("{{{web}, rules: [{{{rule}, backendRefs: [{{name: web, port: 80}}]}}]}}")))
    };
    let world = of(
        "filters: [{type: CORS, cors: {allowOrigins: ['https://*.a.example'], allowMethods: ['*'], allowHeaders: [X-A]}}]",
    );
    let routes = bundle(&world, &["shop/web-1"]).routes;
    let [RouteAction::Cors(cors)] = &routes.values().next().unwrap().rules[0].actions[..] else { panic!("{routes:?}") };
    let told =
        serde_json::json!({"origins": ["https://*.a.example"], "methods": ["*"], "headers": ["x-a"], "max_age_s": 5});
    assert_eq!(serde_json::to_value(cors).unwrap(), told);
    assert_eq!(undone(&world), [""; 0]);
    let cors = "filters: [{type: CORS, cors: {allowOrigins: ['*']}}]";
    let missed = "spec.rules[0].matches: no preflight meets the rule: its method is OPTIONS, which no match has";
    assert_eq!(undone(&of(&format!("matches: [{{method: GET}}], {cors}"))), [missed]);
    assert_eq!(undone(&of(&format!("matches: [{{method: GET}}, {{method: OPTIONS}}], {cors}"))), [""; 0]);
    assert_eq!(undone(&of(&format!("matches: [{{path: {{value: /a}}}}], {cors}"))), [""; 0]);
}

#[test]
fn mirrors_are_held_and_told_as_backends_are() {
    let of = |mirror: &str, own: &str| {
        let filter = |mirror: &str| format!("{{type: RequestMirror, requestMirror: {{{mirror}}}}}");
        let spec = format!(
            "{{parentRefs: [{{group: '', kind: Service, name: web}}], rules: [{{filters: [{}], \
             backendRefs: [{{name: web, port: 80, filters: [{}]}}]}}]}}",
            filter(mirror),
            filter(own)
        );
        let db = "apiVersion: v1\nkind: Service\nmetadata: {name: db, namespace: shop}\n\
            spec: {selector: {app: web}, ports: [{port: 5432, appProtocol: tcp}]}\n";
        shop_and(&format!("{db}---\n{}", route("shop/r", &spec)))
    };
    let to_db = "backendRef: {name: db, port: 5432}";
    let world = of(
        &format!("{to_db}, percent: 20"),
        "backendRef: {name: gone, port: 80}, fraction: {numerator: 1, denominator: 3}",
    );
    let routes = bundle(&world, &["shop/web-1"]).routes;
    let rule = &routes.values().next().unwrap().rules[0];
    let told = serde_json::json!([{"mirror": {"service": {"name": "db", "namespace": "shop"}, "port": 5432, "numerator": 20, "denominator": 100}}]);
    assert_eq!(serde_json::to_value(&rule.actions).unwrap(), told);
    let told = serde_json::json!([{"mirror": {"port": 80, "numerator": 1, "denominator": 3}}]);
    assert_eq!(serde_json::to_value(&rule.backends[0].actions).unwrap(), told);
    let key = ObjectKey::new(Kind::HttpRoute, "shop", "r");
    let resolved = &route_status(&world, world.route(&key).unwrap())[0].conditions[1];
    assert_eq!((resolved.kind, resolved.status, resolved.reason), ("ResolvedRefs", false, "BackendNotFound"));
    assert_eq!(resolved.key, "spec.rules[0].backendRefs[0].filters[0].requestMirror.backendRef");
    let findings: Vec<_> = lint::check(&world, Scope::Whole).into_iter().map(|it| (it.code, it.key)).collect();
    let at = "spec.rules[0].filters[0].requestMirror.backendRef".to_owned();
    assert!(findings.contains(&(Code::BackendNotHttp, at)), "{findings:?}");
    assert!(findings.contains(&(Code::BackendMissing, resolved.key.clone())), "{findings:?}");
    let foreign = of("backendRef: {name: web, namespace: partner, port: 80}", to_db);
    assert_eq!(route_status(&foreign, foreign.route(&key).unwrap())[0].conditions[1].reason, "RefNotPermitted");
    // Who holds the service holds what its requests are copied to.
    let asked = [crate::scope::Ask::Service(ObjectName::new("shop", "web"))].into();
    let held = scope_of(&world, &[ObjectName::new("partner", "api-1")], &asked);
    assert!(held.contains(&ObjectName::new("shop", "db")), "{held:?}");
}
