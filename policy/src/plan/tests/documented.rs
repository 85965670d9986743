//! What the documentation of Gateway API shows of routes (its page on meshes, its guides and the enhancement proposals), with a
//! Service as parent and in words of our own: each is taken as it stands, accepted, and whole.

use super::*;

/// Ports of requests, of calls and of bytes, and a service of another namespace.
const SERVICES: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: calls, namespace: shop}\n\
    spec: {selector: {app: web}, ports: [{name: grpc, port: 50051, appProtocol: grpc}]}\n---\n\
    apiVersion: v1\nkind: Service\nmetadata: {name: db, namespace: shop}\n\
    spec: {selector: {app: web}, ports: [{name: bytes, port: 5432, appProtocol: tcp}, {name: secure, port: 8443, appProtocol: tls}]}\n\
    ---\napiVersion: v1\nkind: Service\nmetadata: {name: ledger, namespace: partner}\n\
    spec: {selector: {app: web}, ports: [{port: 80}]}\n";

const GRANT: &str = "apiVersion: gateway.networking.k8s.io/v1\nkind: ReferenceGrant\nmetadata: {name: g, namespace: partner}\nspec: \
    {from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: shop}], to: [{group: '', kind: Service, name: ledger}]}\n";

fn check(kind: Kind, own: &str, spec: &str) {
    let text = route(own, &format!("{{{spec}}}")).replace("kind: HTTPRoute", &format!("kind: {}", kind.as_str()));
    let world = shop_and(&[SERVICES, GRANT, &text].join("---\n"));
    let own = name(own);
    let made = world.route(&ObjectKey::new(kind, &own.namespace, &own.name)).unwrap();
    let statuses = route_status(&world, made);
    assert!(!statuses.is_empty(), "{spec}");
    for condition in statuses.into_iter().flat_map(|parent| parent.conditions) {
        assert!(condition.status && condition.kind != "PartiallyInvalid", "{spec}: {condition:?}");
    }
    let served = if own.namespace == "shop" { "shop/web-1" } else { "partner/api-1" };
    let routes = bundle(&world, &[served]).routes;
    assert!(!routes.is_empty(), "{spec}");
    for rule in routes.values().flat_map(|route| &route.rules) {
        assert!(rule.backends.iter().all(|backend| backend.service.is_some()), "{spec}");
    }
}

fn http(rest: &str) {
    check(Kind::HttpRoute, "shop/r", &format!("parentRefs: [{{group: '', kind: Service, name: web}}], {rest}"));
}

const TO_WEB: &str = "backendRefs: [{name: web, port: 80}]";

#[test]
fn parents_of_a_mesh() {
    let rules = format!("rules: [{{{TO_WEB}}}]");
    for parent in [
        "{group: '', kind: Service, name: web}",
        "{group: core, kind: Service, name: web, port: 80}",
        "{name: web, kind: Service, group: '', namespace: shop}",
    ] {
        check(Kind::HttpRoute, "shop/smiley", &format!("parentRefs: [{parent}], {rules}"));
    }
    // By a consumer, for the callers of its own namespace.
    let consumers = "parentRefs: [{name: web, namespace: shop, kind: Service, group: core, port: 80}], rules: [{timeouts: {request: \
                     100ms}, backendRefs: [{name: ledger, port: 80}]}]";
    check(Kind::HttpRoute, "partner/smiley", consumers);
    let named = "parentRefs: [{group: '', kind: Service, name: calls, sectionName: grpc}], rules: [{backendRefs: [{name: calls, \
                 port: 50051}]}]";
    check(Kind::GrpcRoute, "shop/r", named);
}

#[test]
fn what_the_guides_show_of_requests() {
    let filtered = |filter: &str| http(&format!("rules: [{{filters: [{filter}], {TO_WEB}}}]"));
    let matched = |matches: &str| http(&format!("rules: [{{matches: [{matches}], {TO_WEB}}}, {{backendRefs: []}}]"));
    // Routing, and shares of it.
    http(&format!("rules: [{{name: main, matches: [{{path: {{type: PathPrefix, value: /login}}}}], {TO_WEB}}}]"));
    http("rules: [{backendRefs: [{name: web, port: 80, weight: 90}, {name: web-v2, port: 80, weight: 10}]}]");
    http("rules: [{backendRefs: [{name: web, port: 80, weight: 0}, {name: web-v2, port: 80, weight: 1}]}]");
    http(&format!(
        "rules: [{{matches: [{{headers: [{{name: traffic, value: test}}]}}], backendRefs: [{{name: web-v2, port: 80}}]}}, {{{TO_WEB}}}]"
    ));
    matched("{path: {type: Exact, value: /login}, method: POST}");
    matched("{path: {value: /}, headers: [{type: Exact, name: env, value: canary}]}");
    matched("{queryParams: [{name: great, value: example}]}, {queryParams: [{type: Exact, name: abc, value: one}]}");
    matched("{headers: [{type: RegularExpression, name: version, value: 'v[12]'}]}");
    // Headers.
    filtered("{type: RequestHeaderModifier, requestHeaderModifier: {add: [{name: my-header, value: my-value}]}}");
    filtered("{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: my-header, value: other}]}}");
    filtered("{type: RequestHeaderModifier, requestHeaderModifier: {remove: [x-request-id]}}");
    filtered(
        "{type: ResponseHeaderModifier, responseHeaderModifier: {add: [{name: X-Header-Add-1, value: one}], set: [{name: \
         X-Header-Set, value: two}], remove: [X-Header-Remove]}}",
    );
    // Redirects.
    let redirect = |how: &str| {
        let filter = format!("{{type: RequestRedirect, requestRedirect: {how}}}");
        http(&format!("rules: [{{matches: [{{path: {{type: PathPrefix, value: /cayenne}}}}], filters: [{filter}]}}]"));
    };
    redirect("{scheme: https, statusCode: 301}");
    redirect("{path: {type: ReplaceFullPath, replaceFullPath: /paprika}, statusCode: 302}");
    redirect("{path: {type: ReplacePrefixMatch, replacePrefixMatch: /paprika}, statusCode: 302}");
    redirect("{hostname: other.example, port: 8443}");
    [303, 307, 308].into_iter().for_each(|status| redirect(&format!("{{statusCode: {status}, hostname: a.example}}")));
    // Rewrites.
    let rewrite = |how: &str| {
        let filter = format!("{{type: URLRewrite, urlRewrite: {how}}}");
        http(&format!("rules: [{{matches: [{{path: {{value: /store}}}}], filters: [{filter}], {TO_WEB}}}]"));
    };
    rewrite("{hostname: elsewhere.example}");
    rewrite("{path: {type: ReplaceFullPath, replaceFullPath: /}}");
    rewrite("{hostname: elsewhere.example, path: {type: ReplacePrefixMatch, replacePrefixMatch: /v1/store}}");
}

#[test]
fn what_the_guides_show_of_the_rest() {
    let filtered = |filter: &str| http(&format!("rules: [{{filters: [{filter}], {TO_WEB}}}]"));
    let backend = "backendRef: {name: web-v2, port: 80}";
    filtered(&format!("{{type: RequestMirror, requestMirror: {{{backend}}}}}"));
    filtered(&format!("{{type: RequestMirror, requestMirror: {{{backend}, percent: 42}}}}"));
    filtered(&format!(
        "{{type: RequestMirror, requestMirror: {{{backend}, fraction: {{numerator: 5, denominator: 1000}}}}}}"
    ));
    let cors = |how: &str| filtered(&format!("{{type: CORS, cors: {{{how}}}}}"));
    cors(
        "allowOrigins: ['https://www.a.example', 'https://*.b.example'], allowMethods: [GET, OPTIONS], allowHeaders: ['*'], \
          exposeHeaders: [x-header-3, x-header-4], allowCredentials: true, maxAge: 3600",
    );
    cors("allowOrigins: ['*'], allowMethods: ['*']");
    cors("allowOrigins: ['https://www.a.example']");
    cors("allowOrigins: ['https://*.b.example', 'http://a.example:8080'], allowCredentials: false");
    http(&format!("rules: [{{timeouts: {{request: 10s, backendRequest: 2s}}, {TO_WEB}}}]"));
    http(&format!("rules: [{{timeouts: {{request: 0s}}, {TO_WEB}}}]"));
    http(&format!("rules: [{{retry: {{codes: [500, 502, 503, 504], attempts: 2, backoff: 100ms}}, {TO_WEB}}}]"));
    http(&format!("rules: [{{sessionPersistence: {{sessionName: s, type: Cookie, absoluteTimeout: 24h}}, {TO_WEB}}}]"));
    http(
        "rules: [{backendRefs: [{name: web, port: 80, filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: \
         v, value: one}]}}]}]}]",
    );
    // Into another namespace, as its grant permits.
    http("rules: [{backendRefs: [{name: ledger, namespace: partner, port: 80}]}]");
}

#[test]
fn what_the_guides_show_of_calls_and_bytes() {
    let calls = |rules: &str| {
        let parent = "parentRefs: [{group: '', kind: Service, name: calls}]";
        check(Kind::GrpcRoute, "shop/r", &format!("{parent}, rules: [{rules}]"));
    };
    let to = "backendRefs: [{name: calls, port: 50051}]";
    calls(&format!("{{matches: [{{method: {{service: com.example.User, method: Login}}}}], {to}}}"));
    calls(&format!("{{matches: [{{method: {{type: Exact, service: com.example.Things}}}}], {to}}}"));
    calls(&format!("{{matches: [{{method: {{method: DoThing}}}}], {to}}}"));
    calls(&format!("{{matches: [{{headers: [{{type: Exact, name: env, value: canary}}]}}], {to}}}, {{{to}}}"));
    calls(&format!("{{matches: [{{method: {{service: grpc.reflection.v1.ServerReflection}}}}], {to}}}"));
    let header = "{type: RequestHeaderModifier, requestHeaderModifier: {add: [{name: my-header, value: foo}]}}";
    calls(&format!("{{name: named, filters: [{header}], {to}}}"));
    calls("{backendRefs: [{name: calls, port: 50051, weight: 90}, {name: web, port: 80, weight: 10}]}");
    let bytes = |kind: Kind, parent: &str, rest: &str| {
        let parent = format!("parentRefs: [{{group: '', kind: Service, name: db, {parent}}}]");
        check(kind, "shop/r", &format!("{parent}, {rest}"));
    };
    bytes(Kind::TcpRoute, "sectionName: bytes", "rules: [{backendRefs: [{name: db, port: 5432}]}]");
    bytes(
        Kind::TcpRoute,
        "port: 5432",
        "rules: [{backendRefs: [{name: db, port: 5432}, {name: db, port: 8443, weight: 2}]}]",
    );
    let to = "rules: [{backendRefs: [{name: db, port: 8443}]}]";
    bytes(Kind::TlsRoute, "sectionName: secure", &format!("hostnames: [a.example.com], {to}"));
    bytes(Kind::TlsRoute, "port: 8443", &format!("hostnames: ['*.example.com', b.example.org], {to}"));
}
