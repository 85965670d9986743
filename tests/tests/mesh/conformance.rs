//! The behaviours of Gateway API's conformance suite that concern a mesh, through real sidecars, and that docs/conformance.md
//! says of each what it does and what shows it.

mod cases;
mod document;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use weft_tests::client::{Answer, empty};
use weft_tests::{App, Client, Mesh, Sidecar, Workload, eventually};

use self::cases::{CASES, Case, Met, Row, SHORT};

struct Echo {
    mesh: Mesh,
    caller: Sidecar,
    /// The address of echo-v1.
    first: IpAddr,
    _servers: Vec<(Sidecar, App)>,
    _resetting: Sidecar,
}

/// Two versions of `echo`, and a service of its own for each case, all applied at once.
async fn echo() -> Echo {
    let mesh = Mesh::start().await;
    let mut servers = Vec::new();
    for name in ["echo-v1", "echo-v2"] {
        let workload = Workload::server(name, 8080, "http");
        let app = App::start(name, workload.ip, 8080).await;
        servers.push((mesh.sidecar(workload).await, app));
    }
    let workload = Workload::server("resetting", 8080, "http");
    resetting(workload.ip).await;
    let resetting = mesh.sidecar(workload).await;
    // Rows are sent one after the other, and one of them asks for three retries.
    let limits = serde_json::json!({"retry_budget_per_second": 1_000});
    let caller = mesh.sidecar(Workload::client("caller").setting("limits", limits)).await;
    let retried = "[{retry: {codes: [500], attempts: 3, backoff: 1ms}, backendRefs: [{name: resetting, port: 80}]}]";
    let cases = CASES.iter().enumerate().map(|(number, case)| objects(case, number));
    let all: Vec<String> = cases.chain([route("resetting", 0, "", retried)]).collect();
    mesh.apply(&all.join("---\n"));
    let first = servers[0].0.workload.ip;
    let echo = Echo { mesh, caller, first, _servers: servers, _resetting: resetting };
    for name in ["echo-v1", "echo-v2"] {
        eventually(&format!("{name} is reachable"), || async {
            (echo.send(name, "GET /", &[]).await.status == 200).then_some(())
        })
        .await;
    }
    echo
}

/// The virtual address of a case's service.
fn address(number: usize) -> String {
    format!("10.96.7.{}", number + 1)
}

/// The service of a case and its routes.
fn objects(case: &Case, number: usize) -> String {
    let name = case.name;
    let service = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: default}}\nspec:\n  selector: {{app: echo-v1}}\n  \
         clusterIP: {}\n  ports: [{{name: http, port: 80, targetPort: 8080, appProtocol: http}}, {{name: other, port: 8080, targetPort: \
         8080, appProtocol: http}}]\n",
        address(number)
    );
    let routes = case.routes.iter().enumerate().map(|(place, rules)| route(name, place, case.parent, rules));
    std::iter::once(service).chain(routes).collect::<Vec<_>>().join("---\n")
}

fn route(service: &str, place: usize, parent: &str, rules: &str) -> String {
    let suffix = if place == 0 { String::new() } else { format!("-{place}") };
    let rules = SHORT.iter().fold(rules.to_owned(), |rules, (short, long)| rules.replace(short, long));
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: {service}{suffix}, namespace: default}}\nspec:\n  \
         parentRefs: [{{group: \"\", kind: Service, name: {service}{parent}}}]\n  rules: {rules}\n"
    )
}

impl Echo {
    /// A request to a service; `ask` as a row has it.
    async fn send(&self, service: &str, ask: &str, fields: &[(&str, &str)]) -> Answer {
        let (method, target) = ask.split_once(' ').unwrap();
        let (host, target) = match target.strip_prefix(":8080") {
            Some(target) => (format!("{service}:8080"), target),
            None => (service.to_owned(), target),
        };
        let mut client = Client::through(self.caller.proxy(), &host).await;
        let fields = [fields, &[("x-show", "all")]].concat();
        client.call(method.parse().unwrap(), target, &fields, empty()).await.expect("an answer")
    }

    async fn check(&self, case: &Case) {
        for row in case.rows {
            let (ask, fields, _) = *row;
            let answer = self.send(case.name, ask, fields).await;
            let faults = faults(*row, &answer);
            assert!(faults.is_empty(), "{}: {ask} {fields:?}: {faults:#?}\n{}", case.name, answer.text());
        }
        if case.routes.is_empty() {
            return;
        }
        let route = self.mesh.weft(&["get", "httproutes", case.name, "-o", "json"]).json();
        let conditions = route["status"]["parents"][0]["conditions"].as_array().cloned().unwrap_or_default();
        for (kind, status, reason) in case.conditions {
            let found = conditions.iter().find(|condition| condition["type"] == *kind);
            let found = found.map(|condition| (condition["status"].as_str(), condition["reason"].as_str()));
            assert_eq!(found, Some((Some(*status), Some(*reason))), "{} {kind}: {route:#}", case.name);
        }
    }
}

/// Everything in which an answer is not what a row says.
fn faults((ask, _, expect): Row, answer: &Answer) -> Vec<String> {
    let target = ask.split_once(' ').map_or(ask, |(_, target)| target).trim_start_matches(":8080");
    let (status, location, app) = match expect {
        Met::App(app) => (200, "", Some((app, target, &[][..]))),
        Met::Sent(app, target, seen) => (200, "", Some((app, target, seen))),
        Met::Answered(app, _) => (200, "", Some((app, target, &[][..]))),
        Met::Moved(status, location) => (status, location, None),
        Met::Status(status) => (status, "", None),
    };
    let mut faults = Vec::new();
    let mut same = |what: &str, got: &str, expect: &str| {
        if got != expect {
            faults.push(format!("{what} is {got:?}, not {expect:?}"));
        }
    };
    same("status", answer.status.as_str(), &status.to_string());
    same("location", answer.header("location"), location);
    if let Met::Answered(_, fields) = expect {
        for (name, values) in fields {
            let got: Vec<_> = answer.headers.get_all(*name).iter().filter_map(|value| value.to_str().ok()).collect();
            same(name, &got.join(","), values);
        }
    }
    if let Some((app, target, fields)) = app {
        let seen: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        same("app", seen["app"].as_str().unwrap_or_default(), app);
        same("target", seen["target"].as_str().unwrap_or_default(), target);
        for (name, values) in fields {
            same(name, &values_of(&seen, name), values);
        }
    }
    faults
}

/// The values of a field that an app saw.
fn values_of(seen: &Value, name: &str) -> String {
    let headers: Vec<(String, String)> = serde_json::from_value(seen["headers"].clone()).unwrap_or_default();
    let own = headers.iter().filter(|header| header.0 == name).map(|header| &*header.1);
    own.collect::<Vec<_>>().join(",")
}

/// An app that resets the first two connections, and answers on the others.
async fn resetting(ip: IpAddr) {
    static TAKEN: AtomicUsize = AtomicUsize::new(0);
    async fn serve(mut stream: TcpStream) {
        let mut buffer = [0; 4096];
        let is_used = matches!(stream.peek(&mut buffer).await, Ok(1..));
        // What is closed with bytes unread is reset.
        if is_used && TAKEN.fetch_add(1, Ordering::SeqCst) >= 2 && stream.read(&mut buffer).await.is_ok() {
            _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nthird").await;
        }
    }
    let listener = TcpListener::bind((ip, 8080)).await.expect("the app's address is free");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_meet_what_the_conformance_suite_says() {
    let echo = echo().await;
    for case in CASES {
        echo.check(case).await;
    }
    a_route_holds_for_what_is_sent_to_its_service(&echo).await;
    a_consumers_route_holds_for_its_namespace(&echo).await;
    a_backend_of_another_namespace_takes_its_grant(&echo).await;
    shares_are_as_the_weights_say(&echo).await;
    // Two connections that the app resets, and one more attempt than those.
    let answer = echo.send("resetting", "GET /", &[]).await;
    assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "third"));
}

/// Not for an endpoint that is addressed itself, and by the address, whatever Host says.
async fn a_route_holds_for_what_is_sent_to_its_service(echo: &Echo) {
    const SET: &str = "x-header-set";
    let direct = echo.send(&format!("{}:8080", echo.first), "GET /", &[]).await;
    assert_eq!((direct.status.as_u16(), direct.header(SET)), (200, ""), "{}", direct.text());
    let at = |name: &str| format!("{}:80", address(CASES.iter().position(|case| case.name == name).unwrap()));
    for (to, host, expect) in [("frontend", "basic", "set"), ("basic", "frontend", "")] {
        let mut client = Client::h1_in_tunnel(echo.caller.proxy(), &at(to)).await;
        let answer = client.get_with("/", &[("host", host)]).await;
        assert_eq!((answer.status.as_u16(), answer.header(SET)), (200, expect), "{to} as {host}: {}", answer.text());
    }
}

async fn a_consumers_route_holds_for_its_namespace(echo: &Echo) {
    let consumers = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: theirs, namespace: other}\nspec:\n  \
                     parentRefs: [{group: \"\", kind: Service, name: consumed, namespace: default}]\n  rules: [{filters: [{type: \
                     ResponseHeaderModifier, responseHeaderModifier: {set: [{name: X-Header-Set, value: set}]}}], backendRefs: \
                     [{name: consumed, namespace: default, port: 80}]}]\n";
    echo.mesh.apply(&format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: other}}\n---\n{consumers}"));
    let consumer = echo.mesh.sidecar(Workload::client("consumer").namespace("other")).await;
    for (proxy, host, expect) in [(consumer.proxy(), "consumed.default", "set"), (echo.caller.proxy(), "consumed", "")]
    {
        let answer = Client::through(proxy, host).await.get("/").await;
        assert_eq!((answer.status.as_u16(), answer.header("x-header-set")), (200, expect), "{host}: {}", answer.text());
    }
}

/// Without the grant, with one for another kind of route, and once it is deleted the route is as its case says.
async fn a_backend_of_another_namespace_takes_its_grant(echo: &Echo) {
    let workload = Workload::server("theirs", 8080, "http").namespace("granting");
    let _app = App::start("theirs", workload.ip, 8080).await;
    let _server = echo.mesh.sidecar(workload).await;
    let grant = |kind: &str| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: ReferenceGrant\nmetadata: {{name: theirs, namespace: granting}}\nspec: \
             {{from: [{{group: gateway.networking.k8s.io, kind: {kind}, namespace: default}}], to: [{{group: '', kind: Service}}]}}\n"
        )
    };
    let case = CASES.iter().find(|case| case.name == "foreign").unwrap();
    echo.mesh.apply(&grant("GRPCRoute"));
    echo.check(case).await;
    echo.mesh.apply(&grant("HTTPRoute"));
    let answer = eventually("the granted backend is reached", || async {
        let answer = echo.send(case.name, "GET /theirs", &[]).await;
        (answer.status == 200).then_some(answer)
    })
    .await;
    let faults = faults(("GET /theirs", &[], Met::App("theirs")), &answer);
    assert!(faults.is_empty(), "{faults:#?}");
    let printed = echo.mesh.weft(&["delete", "referencegrant", "theirs", "--namespace", "granting"]);
    assert_eq!(printed.code, 0, "{}", printed.err);
    eventually("nobody is led there any more", || async {
        (echo.send(case.name, "GET /theirs", &[]).await.status == 500).then_some(())
    })
    .await;
    echo.check(case).await;
}

/// Within five hundredths, which chance leaves once in thousands of runs; and each backend's own fields go to it alone.
async fn shares_are_as_the_weights_say(echo: &Echo) {
    let mut tasks = Vec::new();
    for _ in 0..10 {
        let proxy = echo.caller.proxy();
        tasks.push(tokio::spawn(async move {
            let mut client = Client::through(proxy, "weights").await;
            let mut shares: BTreeMap<String, u32> = BTreeMap::new();
            for _ in 0..120 {
                let answer = client.get_with("/", &[("x-show", "all")]).await;
                let seen: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
                let app = seen["app"].as_str().unwrap_or_default().to_owned();
                assert_eq!(values_of(&seen, "x-backend"), app, "{}", answer.text());
                *shares.entry(app).or_default() += 1;
            }
            shares
        }));
    }
    let mut shares: BTreeMap<String, u32> = BTreeMap::new();
    for task in tasks {
        for (app, count) in task.await.unwrap() {
            *shares.entry(app).or_default() += count;
        }
    }
    let of = |app: &str| shares.get(app).copied().unwrap_or(0);
    let (first, second) = (of("echo-v1"), of("echo-v2"));
    assert!(first + second == 1_200 && (300..=420).contains(&second), "seven and three of ten: {shares:?}");
}
