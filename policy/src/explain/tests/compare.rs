//! A caller's proxy and a callee's, as far as they decide, beside `explain`: over thousands of random worlds and requests
//! they must agree.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;

use super::super::*;
use crate::authz::{self, Request};
use crate::bundle::{ObjectName, Revision};
use crate::delta::diff;
use crate::plan::bundle_for;
use crate::plan::tests::world;
use crate::route::plan;
use crate::wire::{Received, v1};

/// Linear congruential, from a seed: the same in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from((self.0 >> 33) % bound as u64).unwrap()
    }

    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }
}

const PATHS: [&str; 18] = [
    "/",
    "/a",
    "/a/b",
    "/admin",
    "//admin",
    "/a;x/b",
    "/x/..;/admin",
    "/a%2Fb",
    "/%61dmin",
    "/a/../b",
    "/a\\b",
    "/caf%e9",
    "/a.A/Add",
    "/a.A/Add",
    "/a.A/Get",
    "/a.A/Get",
    "/b/Add",
    "/a.A%2FAdd",
];

/// Two namespaces with two services each; routes, policies and declarations at random.
fn random_world(random: &mut Random) -> World {
    let mut text = String::from("apiVersion: weft.dev/v1alpha1\nkind: Mesh\nmetadata: {name: mesh}\n");
    text += &format!("spec: {{egress: {}}}\n", random.one(&["Allow", "RegistryOnly"]));
    for namespace in ["shop", "partner"] {
        for app in ["web", "api"] {
            let reading = random.one(&["", "", "params=cut", "slashes=merged, encoded-slash=literal"]);
            let annotations = match reading {
                "" => String::new(),
                declared => format!(", annotations: {{weft.dev/path-reading: \"{declared}\"}}"),
            };
            // Routes don't hold for tcp.
            let protocol =
                random.one(&["http", "http", "http", "grpc", "grpc", "kubernetes.io/h2c", "kubernetes.io/h2c", "tcp"]);
            text += &format!(
                "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {app}, namespace: {namespace}{annotations}}}\n\
                 spec: {{selector: {{app: {app}}}, ports: [{{port: 80, targetPort: 8080, appProtocol: {protocol}}}]}}\n"
            );
            let last = usize::from(namespace == "shop") * 20 + usize::from(app == "web") * 10;
            for number in 0..1 + random.below(2) {
                let port = random.one(&["8080", "8080", "8080", "9090"]);
                text += &format!(
                    "---\napiVersion: weft.dev/v1alpha1\nkind: Workload\n\
                     metadata: {{name: {app}-{number}, namespace: {namespace}, labels: {{app: {app}}}}}\n\
                     spec: {{address: 10.0.0.{}, serviceAccount: {app}, ports: [{{port: {port}}}]}}\n",
                    last + number + 1
                );
            }
        }
    }
    for number in 0..1 + random.below(3) {
        text += &random_route(random, number);
    }
    for number in 0..random.below(3) {
        text += &random_policy(random, number);
    }
    text +=
        "---\napiVersion: weft.dev/v1alpha1\nkind: Filter\nmetadata: {name: authz, namespace: weft-system}\nspec:\n";
    text += &format!("  version: 1.0.0\n  digest: sha256:{}\n", "a".repeat(64));
    text += "  signature: c2ln\n  publicKey: PEM\n  size: 10\n  abi: weft:filter@0.1.0\n";
    world(&text)
}

fn random_route(random: &mut Random, number: usize) -> String {
    let namespace = random.one(&["shop", "partner"]);
    let port = random.one(&["", ", port: 80"]);
    let kind = random.one(&["HTTPRoute", "HTTPRoute", "HTTPRoute", "GRPCRoute"]);
    let mut text = format!(
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\n\
         metadata: {{name: r{number}, namespace: {namespace}}}\nspec:\n  \
         parentRefs: [{{group: \"\", kind: Service, name: web, namespace: shop{port}}}]\n  rules:\n"
    );
    if kind == "GRPCRoute" {
        return text + &random_calls(random);
    }
    for _ in 0..1 + random.below(3) {
        let path = random.one(&["/", "/", "/a", "/admin", "/b", "/a%2Fb"]);
        let kind = random.one(&["Exact", "PathPrefix", "PathPrefix"]);
        let method = random.one(&["", "", ", method: POST"]);
        let header = random.one(&["", "", ", headers: [{name: x-a, value: \"1\"}]"]);
        let timeout = random.one(&[
            "",
            "",
            ", timeouts: {request: 1s}",
            ", timeouts: {backendRequest: 1s}, retry: {codes: [503]}",
        ]);
        let filters = random_filters(random, kind == "PathPrefix");
        let mut backends = String::new();
        let most = if filters.contains("Redirect") { 1 } else { 3 };
        for _ in 0..random.below(most) {
            let name = random.one(&["web", "api", "api", "gone"]);
            let weight = random.one(&["0", "1", "1", "3"]);
            let own = if random.below(4) == 0 { random_filters(random, kind == "PathPrefix") } else { String::new() };
            let own = if own.contains("Redirect") || own.contains("CORS") { String::new() } else { own };
            backends += &format!("{{name: {name}, port: 80, weight: {weight}{own}}}, ");
        }
        text += &format!(
            "  - {{matches: [{{path: {{type: {kind}, value: {path}}}{method}{header}}}], backendRefs: [{backends}]{timeout}{filters}}}\n"
        );
    }
    text
}

/// Rules of a GRPCRoute.
fn random_calls(random: &mut Random) -> String {
    let mut text = String::new();
    for _ in 0..1 + random.below(3) {
        let called = [
            "{service: a.A}",
            "{service: a.A, method: Add}",
            "{method: Add}",
            "{type: RegularExpression, service: '[a-z]+', method: '(Add|Get)'}",
        ];
        let (method, header) = (random.one(&called), random.one(&["", "", ", headers: [{name: x-a, value: \"1\"}]"]));
        let matches = match random.below(5) {
            0 => String::new(),
            _ => format!("matches: [{{method: {method}{header}}}], "),
        };
        let mut backends = String::new();
        for _ in 0..[0, 1, 1, 2][random.below(4)] {
            let (name, weight) = (random.one(&["web", "api", "api", "gone"]), random.one(&["0", "1", "1", "3"]));
            backends += &format!("{{name: {name}, port: 80, weight: {weight}}}, ");
        }
        let filters = random_filters(random, false);
        let filters = if filters.contains("HeaderModifier") { filters } else { String::new() };
        text += &format!("  - {{{matches}backendRefs: [{backends}]{filters}}}\n");
    }
    text
}

/// Changes of what is sent, and redirects.
fn random_filters(random: &mut Random, by_prefix: bool) -> String {
    let to = random.one(&["/admin", "/b", "/", "/x;y", "/a%2F"]);
    let path = match random.below(3) {
        0 if by_prefix => format!("{{type: ReplacePrefixMatch, replacePrefixMatch: {to}}}"),
        _ => format!("{{type: ReplaceFullPath, replaceFullPath: {to}}}"),
    };
    // Each kind as often as it takes to be met by some of the requests.
    match random.below(13) {
        0 => format!(", filters: [{{type: URLRewrite, urlRewrite: {{hostname: else.where, path: {path}}}}}]"),
        1 | 2 => format!(", filters: [{{type: RequestRedirect, requestRedirect: {{path: {path}}}}}]"),
        3 => {
            ", filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-a, value: '2'}]}}]".into()
        }
        4 => ", filters: [{type: RequestHeaderModifier, requestHeaderModifier: {remove: [x-a]}}]".into(),
        5..=7 => ", filters: [{type: CORS, cors: {allowOrigins: ['https://a.example']}}]".into(),
        8..=10 => {
            let to = random.one(&["api", "gone", "web"]);
            let percent = random.one(&["0", "50", "100"]);
            format!(
                ", filters: [{{type: RequestMirror, requestMirror: {{backendRef: {{name: {to}, port: 80}}, percent: {percent}}}}}]"
            )
        }
        _ => String::new(),
    }
}

fn random_policy(random: &mut Random, number: usize) -> String {
    let namespace = random.one(&["shop", "partner", "weft-system"]);
    let action = random.one(&["Allow", "Deny"]);
    let paths = random.one(&["paths", "notPaths"]);
    let path = random.one(&["/admin/*", "/a/{id}", "/a/*", "/b", "/caf%C3%A9"]);
    // Of one account all workloads are in the block, or none.
    let from = random.one(&[
        "",
        "from: [{namespaces: [shop]}], ",
        "from: [{serviceAccounts: [partner/web]}], ",
        "from: [{ipBlocks: [10.0.0.0/28]}], ",
    ]);
    let more = random.one(&[
        "",
        ", methods: [GET]",
        ", headers: [{name: x-a, present: true}]",
        ", ports: [8080]",
        ", hosts: [web.shop, '*.mesh.local']",
    ]);
    format!(
        "---\napiVersion: weft.dev/v1alpha1\nkind: AccessPolicy\nmetadata: {{name: p{number}, namespace: {namespace}}}\n\
         spec: {{action: {action}, rules: [{{{from}to: [{{{paths}: [\"{path}\"]{more}}}]}}]}}\n"
    )
}

/// The bundle of a proxy, as it comes out of the wire.
fn held(world: &World, workload: &ObjectName) -> Arc<Bundle> {
    let planned = bundle_for(world, std::slice::from_ref(workload), Revision(1), "");
    let bytes = v1::Delta::from(&diff(&Bundle::default(), &planned)).encode_to_vec();
    let delta = Received::try_from(v1::Delta::decode(bytes.as_slice()).unwrap()).unwrap().delta;
    let mut held = Bundle::default();
    held.apply(&delta);
    assert_eq!(held, planned);
    Arc::new(held)
}

/// Status of a request at the proxy of a callee; 200 where the app answers.
fn inbound(
    world: &World,
    endpoint: &Endpoint,
    port: u16,
    caller: &SpiffeId,
    query: &Query,
    path: Option<&NormalPath>,
) -> u16 {
    let bundle = held(world, &endpoint.workload);
    let served = bundle.workloads.values().find(|workload| workload.is_at(endpoint.address)).unwrap();
    let Some(served_port) = served.port(port) else { return 400 };
    let filter = bundle.filters.values().find(|filter| filter.authorization);
    let config: authz::Config =
        filter.map_or_else(authz::Config::default, |filter| serde_json::from_str(&filter.config.0).unwrap());
    let engine = Engine::new(&config).unwrap();
    let from = |workload: &&Object<WorkloadSpec>| {
        workload.metadata.namespace == caller.namespace() && workload.spec.service_account == caller.service_account()
    };
    let address = world.workloads().find(from).map(|workload| workload.spec.address);
    let connection = Request { address, ..Request::connection(Some(caller.as_str()), port) };
    let Some(path) = path else {
        let allowed = engine.decide(&connection).allowed;
        return if served_port.takes_tunnels().is_err() {
            400
        } else if allowed {
            200
        } else {
            403
        };
    };
    let Ok(readings) = path.readings(&served_port.path_reading) else { return 400 };
    let headers: Vec<(&str, &str)> =
        query.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let allowed = readings.iter().all(|reading| {
        let (method, authority) = (query.method.as_str(), Some(query.to.as_str()));
        engine.decide(&Request { l4: false, method, path: reading, authority, headers: &headers, ..connection }).allowed
    });
    if allowed { 200 } else { 403 }
}

/// Results of a request at its two proxies, for dice that meet each backend, and where it is copied to.
fn carried(
    world: &World,
    query: &Query,
    caller: &ObjectName,
    copied: &mut BTreeSet<Option<String>>,
) -> Result<Vec<Carried>, ()> {
    let bundle = held(world, caller);
    let (table, mesh) = (RouteTable::new(&bundle), bundle.mesh.clone().unwrap());
    let own = bundle.workloads.values().next().unwrap();
    let from_namespace = own.name.namespace.as_str();
    let resolver = Resolver { table: &table, mesh: &mesh, from_namespace, is_local: &|_| false };
    let authority = Authority { host: &query.to, port: query.port };
    let Resolution::Mesh(to) = resolver.resolve(Meant::Nothing, Some(authority)) else { return Err(()) };
    if to.protocol() == Protocol::Tcp {
        return Ok(match route::plan_connection(&to) {
            Ok(plan) => delivered(world, query, &own.identity, &plan, None),
            Err(refusal) => vec![Carried { status: refusal.status(), ..Carried::default() }],
        });
    }
    let Ok(path) = NormalPath::new(Bytes::from(query.path.clone())) else {
        return Ok(vec![Carried { status: 400, ..Carried::default() }]);
    };
    let lookup = |name: &str| query.headers.get(name).map(String::as_str);
    let head = HeadView { method: &query.method, path: &path, host: Some(&query.to), headers: &lookup, others: &[] };
    let mut all = Vec::new();
    for step in 0..12_u64 {
        let dice = u64::MAX / 12 * step + u64::MAX / 24;
        let plan = match plan(&table, &to, from_namespace, &head, dice, &mesh) {
            Ok(plan) => plan,
            Err(refusal) => {
                all.push(Carried { status: refusal.status(), ..Carried::default() });
                continue;
            }
        };
        let named = |copied: crate::route::Copied<'_>| copied.named.map(ToString::to_string);
        copied.extend(plan.copies(&table, || 0).into_iter().map(named));
        all.extend(delivered(world, query, &own.identity, &plan, Some(&path)));
    }
    Ok(all)
}

/// The outcome at each endpoint that may be picked; without a path it is a connection.
fn delivered(
    world: &World,
    query: &Query,
    caller: &SpiffeId,
    plan: &Plan<'_>,
    path: Option<&NormalPath>,
) -> Vec<Carried> {
    let route = plan.route.map(|route| (RouteName::of(&route.name).to_string(), plan.rule_index));
    let service = Some(plan.service.name.to_string());
    let meant = |endpoint: &&Endpoint| plan.direct.is_none_or(|only| *only == endpoint.workload);
    let endpoints = plan.service.endpoints.values().filter(meant);
    let endpoints: Vec<_> = endpoints.filter_map(|it| Some((it, plan.target.at(&it.workload)?))).collect();
    if endpoints.is_empty() {
        return vec![Carried { status: 503, route, service }];
    }
    // What the caller's proxy makes of the request is what the callee's judges.
    let mut fields = http::HeaderMap::new();
    for (name, value) in &query.headers {
        fields.insert(http::HeaderName::try_from(name).unwrap(), value.parse().unwrap());
    }
    plan.modify(&mut fields);
    let text = |value: &http::HeaderValue| value.to_str().unwrap().to_owned();
    let headers = fields.iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect();
    let to = plan.host.unwrap_or(&query.to).to_owned();
    let sent = Query { headers, to, ..query.clone() };
    let path = plan.path.as_ref().or(path);
    let status = |(endpoint, port): &(&Endpoint, u16)| inbound(world, endpoint, *port, caller, &sent, path);
    let carried = |endpoint| Carried { status: status(endpoint), route: route.clone(), service: service.clone() };
    endpoints.iter().map(carried).collect()
}

#[derive(Debug, Clone, Default, PartialEq)]
struct Carried {
    status: u16,
    route: Option<(String, usize)>,
    service: Option<String>,
}

/// Fields of a request.
fn random_fields(random: &mut Random) -> BTreeMap<String, String> {
    match random.below(5) {
        0 | 1 => BTreeMap::from([("x-a".to_owned(), "1".to_owned())]),
        2 | 3 => {
            let origin =
                random.one(&["https://a.example", "https://a.example", "https://a.example", "https://b.example"]);
            let fields = [("origin", origin), ("access-control-request-method", "PUT")];
            fields.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
        }
        _ => BTreeMap::new(),
    }
}

fn random_query(random: &mut Random, caller: &ObjectName) -> Query {
    let account = caller.name.trim_end_matches("-0");
    let headers = random_fields(random);
    let methods: &[&str] = match headers.contains_key("origin") {
        true => &["OPTIONS", "OPTIONS", "GET"],
        false => &["GET", "POST", "OPTIONS"],
    };
    let to = [
        "web.shop",
        "web.shop",
        "web.shop",
        "web.shop",
        "web.shop.",
        "web",
        "api",
        "WEB.Shop.mesh.local",
        "10.0.0.31",
        "gone.shop",
        "example.com",
    ];
    Query {
        sni: None,
        from: format!("{}/{account}", caller.namespace),
        to: random.one(&to).to_owned(),
        port: Some([80, 80, 80, 80, 80, 8080, 81][random.below(7)]),
        method: random.one(methods).to_owned(),
        path: random.one(&PATHS).to_owned(),
        headers,
        claims: BTreeMap::new(),
    }
}

#[test]
fn explain_says_what_the_proxies_do() {
    let mut random = Random(3);
    let (mut seen, mut nowhere, mut calls) = (BTreeMap::<u16, usize>::new(), 0, 0);
    let (mut preflights, mut copies) = (0, 0);
    for round in 0..300 {
        let world = random_world(&mut random);
        for _ in 0..16 {
            let caller =
                ObjectName::new(random.one(&["shop", "partner"]), format!("{}-0", random.one(&["web", "api"])));
            let query = random_query(&mut random, &caller);
            let said = explain(&world, &query);
            let mut copied = BTreeSet::new();
            let done = carried(&world, &query, &caller, &mut copied);
            let (said, done) = match (said, done) {
                (Ok(said), Ok(done)) => (said, done),
                (Err(_), Err(())) => {
                    nowhere += 1;
                    continue;
                }
                (said, done) => panic!("round {round}: {query:?}: said {said:?}, done {done:?}"),
            };
            let told = format!("round {round}: {query:?}: said {said:?}, done {done:?}");
            let by_app = |one: &Carried| one.status == 200 && one.service.is_some();
            assert_eq!(said.allowed, done.iter().all(by_app), "{told}");
            if let Some(status) = said.status {
                assert!(done.iter().any(|one| one.status == status), "{told}");
            }
            let mirrored = |to: &Option<String>| said.mirrors.iter().any(|mirror| mirror.service == *to);
            assert!(copied.iter().all(mirrored), "copied to {copied:?}, {told}");
            copies += copied.len();
            let route = said.route.as_ref().map(|route| (format!("{} {}", route.kind, route.name), route.rule_index));
            let services: Vec<_> = said.backends.iter().filter(|backend| backend.weight > 0).collect();
            for one in done.iter().filter(|one| one.service.is_some()) {
                assert_eq!(one.route, route, "{told}");
                assert!(services.iter().any(|backend| backend.service == one.service), "{told}");
            }
            calls += usize::from(said.allowed && route.is_some_and(|(name, _)| name.starts_with("GRPCRoute")));
            preflights += usize::from(said.status == Some(200));
            *seen.entry(said.status.unwrap_or(200)).or_default() += 1;
        }
    }
    for (status, least) in [(200, 100), (302, 12), (400, 20), (403, 20), (404, 100), (500, 50)] {
        assert!(seen.get(&status).is_some_and(|count| *count > least), "{status} happens: {seen:?}");
    }
    assert!(nowhere > 100 && calls > 8, "{nowhere} go nowhere, {calls} are calls");
    assert!(preflights > 2 && copies > 4, "{preflights} preflights, {copies} copies");
}
