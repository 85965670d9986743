//! GRPCRoutes between real sidecars: the cases of Gateway API's conformance suite that concern a mesh (exact method matching,
//! header matching, named rules, header modifiers, weights) and those that it leaves out, as tables of a call and what it meets.

use std::collections::BTreeMap;

use http::Method;
use weft_tests::app::message;
use weft_tests::client::{Answer, full};
use weft_tests::{App, Client, Mesh, Sidecar, Workload, eventually};

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Met {
    /// This app answers.
    App(&'static str),
    /// The mesh answers with this status.
    Status(u16),
}

use Met::{App as To, Status};

const UNIMPLEMENTED: Met = Status(12);
const UNAVAILABLE: Met = Status(14);

type Call = (&'static str, &'static [(&'static str, &'static str)], Met);

struct Echo {
    mesh: Mesh,
    client: Sidecar,
    _servers: Vec<(Sidecar, App)>,
}

/// `echo` with a port for calls and one for HTTP, two versions behind services of their own, and a caller.
async fn echo() -> Echo {
    let mesh = Mesh::start().await;
    let mut servers = Vec::new();
    for name in ["echo-v1", "echo-v2"] {
        let workload = Workload::server(name, 7070, "grpc");
        let app = App::start(name, workload.ip, 7070).await;
        servers.push((mesh.sidecar(workload).await, app));
    }
    mesh.apply(
        "apiVersion: v1\nkind: Service\nmetadata: {name: echo, namespace: default}\nspec:\n  selector: {app: echo-v1}\n  \
         ports: [{name: grpc, port: 7070, targetPort: 7070, appProtocol: grpc}, {name: other, port: 7071, targetPort: 7070, \
         appProtocol: grpc}]\n",
    );
    let client = mesh.sidecar(Workload::client("caller")).await;
    let echo = Echo { mesh, client, _servers: servers };
    eventually("echo is reachable", || async {
        (echo.call("echo:7070", "/test.Who/Echo", &[]).await.status == 200).then_some(())
    })
    .await;
    echo
}

impl Echo {
    fn route(&self, rules: &str) {
        self.mesh.apply(&route("GRPCRoute", "port: 7070", rules));
    }

    async fn call(&self, to: &str, path: &str, metadata: &[(&str, &str)]) -> Answer {
        let mut client = Client::h2_through(self.client.proxy(), to).await;
        let grpc = [("content-type", "application/grpc"), ("te", "trailers")];
        client.call(Method::POST, path, &[&grpc[..], metadata].concat(), full(message(b""))).await.expect("an answer")
    }

    async fn met(&self, to: &str, path: &str, metadata: &[(&str, &str)]) -> (String, Option<u16>) {
        let answer = self.call(to, path, metadata).await;
        assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, "application/grpc"), "{path}");
        let trailers = answer.trailers.as_ref().and_then(|trailers| trailers.get("grpc-status"));
        let status =
            trailers.or(answer.headers.get("grpc-status")).and_then(|status| status.to_str().ok()?.parse().ok());
        (answer.body.get(5..).map(|name| String::from_utf8_lossy(name).into_owned()).unwrap_or_default(), status)
    }

    async fn check(&self, to: &str, calls: &[Call]) {
        for (path, metadata, expect) in calls {
            let expect = match expect {
                To(app) => ((*app).to_owned(), Some(0)),
                Status(status) => (String::new(), Some(*status)),
            };
            assert_eq!(self.met(to, path, metadata).await, expect, "{path} {metadata:?}");
        }
    }

    /// The first condition of this kind of the route `echo`, towards its first parent: status and reason.
    fn condition(&self, plural: &str, kind: &str) -> (String, String) {
        let route = self.mesh.weft(&["get", plural, "echo", "-o", "json"]).json();
        let conditions = route["status"]["parents"][0]["conditions"].as_array().cloned().unwrap_or_default();
        let found = conditions.iter().find(|condition| condition["type"] == kind).unwrap_or_else(|| panic!("{route}"));
        ["status", "reason"].map(|key| found[key].as_str().unwrap().to_owned()).into()
    }
}

fn route(kind: &str, parent: &str, rules: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\nmetadata: {{name: echo, namespace: default}}\nspec:\n  \
         parentRefs: [{{group: \"\", kind: Service, name: echo, {parent}}}]\n  rules:\n{rules}"
    )
}

const V1: &str = "backendRefs: [{name: echo-v1, port: 7070}]";
const V2: &str = "backendRefs: [{name: echo-v2, port: 7070}]";

/// Rules as lines: what each has beside its backend.
fn rules(each: &[(&str, &str)]) -> String {
    each.iter().map(|(rule, backend)| format!("  - {{{rule}{backend}}}\n")).collect()
}

/// Rules, each with its backend, and the calls that are made while they are all that there is.
type Fields = &'static [(&'static str, &'static str)];

const CASES: [(Fields, &[Call]); 5] = [
    // Exact method matching.
    (
        &[
            ("matches: [{method: {service: test.Who, method: Echo}}], ", V1),
            ("matches: [{method: {service: test.Who, method: EchoTwo}}], ", V2),
        ],
        &[
            ("/test.Who/Echo", &[], To("echo-v1")),
            ("/test.Who/EchoTwo", &[], To("echo-v2")),
            ("/test.Who/EchoThree", &[], UNIMPLEMENTED),
            ("/test.Other/Echo", &[], UNIMPLEMENTED),
            ("/test.who/Echo", &[], UNIMPLEMENTED),
        ],
    ),
    // Header matching.
    (
        &[
            ("matches: [{headers: [{name: Version, value: one}]}], ", V1),
            ("matches: [{headers: [{name: Version, value: two}]}], ", V2),
            ("matches: [{headers: [{name: Version, value: two}, {name: Color, value: orange}]}], ", V1),
            ("matches: [{headers: [{name: Color, value: blue}]}, {headers: [{name: Color, value: green}]}], ", V1),
            ("matches: [{headers: [{name: Color, value: red}]}, {headers: [{name: Color, value: yellow}]}], ", V2),
        ],
        &[
            ("/test.Who/Echo", &[("version", "one")], To("echo-v1")),
            ("/test.Who/Echo", &[("version", "two")], To("echo-v2")),
            ("/test.Who/Echo", &[("version", "two"), ("color", "orange")], To("echo-v1")),
            ("/test.Who/Echo", &[("version", "two"), ("color", "blue")], To("echo-v2")),
            ("/test.Who/Echo", &[("color", "orange")], UNIMPLEMENTED),
            ("/test.Who/Echo", &[("some-other-header", "one")], UNIMPLEMENTED),
            ("/test.Who/Echo", &[("color", "blue")], To("echo-v1")),
            ("/test.Who/Echo", &[("color", "green")], To("echo-v1")),
            ("/test.Who/Echo", &[("color", "red")], To("echo-v2")),
            ("/test.Who/Echo", &[("color", "yellow")], To("echo-v2")),
            ("/test.Who/Echo", &[("color", "purple")], UNIMPLEMENTED),
        ],
    ),
    // Named rules.
    (
        &[("name: first, matches: [{method: {service: test.Who, method: Echo}}], ", V1), ("name: second, ", V2)],
        &[("/test.Who/Echo", &[], To("echo-v1")), ("/test.Who/EchoTwo", &[], To("echo-v2"))],
    ),
    // A service alone, a method alone, expressions.
    (
        &[
            ("matches: [{method: {method: Echo}}], ", V2),
            ("matches: [{method: {service: test.Who}}], ", V1),
            ("matches: [{method: {type: RegularExpression, service: 'tes[a-z].W.*', method: 'Echo(Two)?'}}], ", V2),
        ],
        &[
            ("/test.Who/Echo", &[], To("echo-v2")),
            ("/test.Who/EchoTwo", &[], To("echo-v2")),
            ("/test.Who/EchoThree", &[], To("echo-v1")),
            ("/test.Who/Echo/More", &[], UNIMPLEMENTED),
            ("/other.Who/EchoTwo", &[], UNIMPLEMENTED),
        ],
    ),
    // Backends that are none.
    (
        &[
            ("matches: [{method: {method: Echo}}], ", "backendRefs: [{name: gone, port: 7070}]"),
            ("matches: [{method: {method: EchoTwo}}], ", "backendRefs: [{name: echo-v1, port: 7070, weight: 0}]"),
            ("matches: [{method: {method: EchoThree}}]", ""),
        ],
        &[
            ("/test.Who/Echo", &[], UNAVAILABLE),
            ("/test.Who/EchoTwo", &[], UNAVAILABLE),
            ("/test.Who/EchoThree", &[], UNAVAILABLE),
            ("/test.Who/EchoFour", &[], UNIMPLEMENTED),
        ],
    ),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_call_meets_the_rule_that_the_standard_says() {
    let echo = echo().await;
    for (each, calls) in CASES {
        echo.route(&rules(each));
        assert_eq!(echo.condition("grpcroutes", "Accepted"), ("True".to_owned(), "Accepted".to_owned()));
        echo.check("echo:7070", calls).await;
        // Another port has no route.
        echo.check("echo:7071", &[("/test.Who/EchoFour", &[], To("echo-v1"))]).await;
    }
    assert_eq!(echo.condition("grpcroutes", "ResolvedRefs"), ("False".to_owned(), "BackendNotFound".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_are_changed_and_shared_as_their_rule_says() {
    let echo = echo().await;
    let changed = |match_of: &str, change: &str| {
        format!(
            "  - matches: [{{headers: [{{name: x-case, value: {match_of}}}]}}]\n    filters: [{{type: RequestHeaderModifier, \
             requestHeaderModifier: {{{change}}}}}]\n    {V1}\n"
        )
    };
    let each = [
        changed("set", "set: [{name: X-Header-Set, value: set-overwrites-values}]"),
        changed("add", "add: [{name: X-Header-Add, value: add-appends-values}]"),
        changed("remove", "remove: [X-Header-Remove]"),
        changed("all", "set: [{name: x-one, value: a}], add: [{name: x-two, value: b}], remove: [x-three]"),
        "  - filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: x-answer, value: changed}]}}]\n    \
         backendRefs: [{name: echo-v1, port: 7070, weight: 70}, {name: echo-v2, port: 7070, weight: 30}]\n"
            .to_owned(),
    ];
    echo.route(&each.concat());
    type Seen = &'static [(&'static str, &'static [&'static str])];
    let seen: [(&str, Fields, Seen); 5] = [
        ("set", &[], &[("x-header-set", &["set-overwrites-values"])]),
        ("set", &[("x-header-set", "old")], &[("x-header-set", &["set-overwrites-values"])]),
        ("add", &[("x-header-add", "old")], &[("x-header-add", &["old", "add-appends-values"])]),
        ("remove", &[("x-header-remove", "old")], &[("x-header-remove", &[])]),
        (
            "all",
            &[("x-one", "old"), ("x-two", "old"), ("x-three", "old")],
            &[("x-one", &["a"]), ("x-two", &["old", "b"]), ("x-three", &[])],
        ),
    ];
    for (case, metadata, expect) in seen {
        let (seen, status) =
            echo.met("echo:7070", "/test.Seen/Echo", &[&[("x-case", case)][..], metadata].concat()).await;
        let seen: serde_json::Value = serde_json::from_str(&seen).unwrap();
        let headers: Vec<(String, String)> = serde_json::from_value(seen["headers"].clone()).unwrap();
        for (name, values) in expect {
            let own: Vec<_> = headers.iter().filter(|header| header.0 == *name).map(|header| &*header.1).collect();
            assert_eq!((own.join(","), status), (values.join(","), Some(0)), "{case} {name}: {seen}");
        }
    }
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..300 {
        *counts.entry(echo.met("echo:7070", "/test.Who/Echo", &[]).await.0).or_default() += 1;
    }
    let second = counts.get("echo-v2").copied().unwrap_or(0);
    assert!((60..120).contains(&second), "three of ten go to v2: {counts:?}");
    assert_eq!(echo.call("echo:7070", "/test.Who/Echo", &[]).await.header("x-answer"), "changed");
    let explained =
        echo.mesh.weft(&["explain", "--from", "default/caller", "--to", "echo:7070", "--path", "/test.Who/Echo"]);
    assert!(explained.out.contains("GRPCRoute default/echo"), "{}", explained.out);
}

/// GEP-1294, Route types: of two kinds at one port GRPCRoutes are applied, and the others know it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beside_a_grpcroute_no_httproute_is_asked() {
    let echo = echo().await;
    let to_v2 = |kind: &str, parent: &str| route(kind, parent, &rules(&[("", V2)]));
    echo.mesh.apply(&to_v2("HTTPRoute", "port: 7070"));
    assert_eq!(echo.condition("httproutes", "Accepted"), ("True".to_owned(), "Accepted".to_owned()));
    echo.check("echo:7070", &[("/test.Who/Echo", &[], To("echo-v2")), ("/test.Who/Two", &[], To("echo-v2"))]).await;
    echo.route(&rules(&[("matches: [{method: {method: Echo}}], ", V1)]));
    echo.check("echo:7070", &[("/test.Who/Echo", &[], To("echo-v1")), ("/test.Who/Two", &[], UNIMPLEMENTED)]).await;
    assert_eq!(echo.condition("httproutes", "Accepted"), ("False".to_owned(), "Conflicted".to_owned()));
    assert_eq!(echo.condition("grpcroutes", "Accepted"), ("True".to_owned(), "Accepted".to_owned()));
    // Requests of other kinds are answered in their own form.
    let mut client = Client::h2_through(echo.client.proxy(), "echo:7070").await;
    let answer = client.get("/who").await;
    assert_eq!(answer.status, 404, "{}", answer.text());
    // An HTTPRoute holds where no GRPCRoute is.
    echo.mesh.apply(&to_v2("HTTPRoute", "port: 7071"));
    echo.check("echo:7071", &[("/test.Who/Two", &[], To("echo-v2"))]).await;
    let printed = echo.mesh.weft(&["delete", "grpcroute", "echo", "--force"]);
    assert_eq!(printed.code, 0, "{}", printed.err);
    eventually("no route holds any more", || async {
        (echo.met("echo:7070", "/test.Who/Two", &[]).await == ("echo-v1".to_owned(), Some(0))).then_some(())
    })
    .await;
    // A Service without endpoints of its own, inside CONNECT, as gRPC's libraries come by a proxy.
    let front = "apiVersion: v1\nkind: Service\nmetadata: {name: front, namespace: default}\nspec:\n  \
                 ports: [{port: 7070, appProtocol: grpc}]\n---\n";
    let routed = route("GRPCRoute", "port: 7070", &rules(&[("", V2)])).replace("name: echo,", "name: front,");
    echo.mesh.apply(&format!("{front}{routed}"));
    let mut client = Client::h2_in_tunnel(echo.client.proxy(), "front:7070").await;
    let answer =
        client.call(Method::POST, "/test.Who/Two", &[("content-type", "application/grpc")], full(message(b"")));
    assert_eq!(answer.await.expect("an answer").body.get(5..), Some(&b"echo-v2"[..]));
}
