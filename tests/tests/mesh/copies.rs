//! Filters of routes that answer browsers and that copy requests, with real sidecars.

use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http::Method;
use serde_json::json;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use weft_tests::client::empty;
use weft_tests::{App, Client, Mesh, Sidecar, Workload, eventually};

struct Shop {
    mesh: Mesh,
    client: Sidecar,
    servers: Vec<(Sidecar, App)>,
}

/// Service `reviews`, served by `reviews-v1`; services of their own for the others.
async fn shop(others: &[&str]) -> Shop {
    let mesh = Mesh::start().await;
    let mut servers = Vec::new();
    for name in ["reviews-v1"].iter().chain(others) {
        let workload = Workload::server(name, 8080, "http");
        let app = App::start(name, workload.ip, 8080).await;
        servers.push((mesh.sidecar(workload).await, app));
    }
    mesh.apply(
        "apiVersion: v1\nkind: Service\nmetadata: {name: reviews, namespace: default}\nspec:\n  selector: {app: reviews-v1}\n  \
         ports: [{port: 80, targetPort: 8080, appProtocol: http}]\n",
    );
    let client = mesh.sidecar(Workload::client("shopper")).await;
    eventually("reviews is reachable", || async {
        (Client::through(client.proxy(), "reviews").await.get("/who").await.status == 200).then_some(())
    })
    .await;
    Shop { mesh, client, servers }
}

fn route(rules: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: reviews, namespace: default}}\nspec:\n  \
         parentRefs: [{{group: \"\", kind: Service, name: reviews, port: 80}}]\n  rules:\n{rules}"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn preflights_are_answered_by_the_callers_proxy_and_answers_name_their_origin() {
    let shop = shop(&[]).await;
    shop.mesh.apply(
        "apiVersion: weft.dev/v1alpha1\nkind: AccessPolicy\nmetadata: {name: closed, namespace: default}\nspec:\n  \
         targetRefs: [{kind: Service, name: reviews-v1}]\n  action: Deny\n  rules: [{to: [{paths: [\"/admin/*\"]}]}]\n",
    );
    shop.mesh.apply(&route(
        "  - filters: [{type: CORS, cors: {allowOrigins: [\"https://*.shop.example\"], allowMethods: [GET, PUT], \
         allowHeaders: [\"*\"], allowCredentials: true, exposeHeaders: [x-total], maxAge: 60}}]\n    \
         backendRefs: [{name: reviews-v1, port: 80}]\n",
    ));
    let mut client = Client::through(shop.client.proxy(), "reviews").await;
    let served = shop.servers[0].1.served();
    let page = ("origin", "https://www.shop.example");
    let asked = [("access-control-request-method", "PUT"), ("access-control-request-headers", "x-a, x-b")];
    for path in ["/who", "/admin/x"] {
        let fields = [&[page][..], &asked].concat();
        let answer = client.call(Method::OPTIONS, path, &fields, empty()).await.unwrap();
        assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, ""), "{path}: {answer:?}");
        for (name, expect) in [
            ("access-control-allow-origin", "https://www.shop.example"),
            ("access-control-allow-credentials", "true"),
            ("access-control-allow-methods", "GET, PUT"),
            ("access-control-allow-headers", "x-a, x-b"),
            ("access-control-expose-headers", "x-total"),
            ("access-control-max-age", "60"),
            ("vary", "Origin"),
            ("content-length", "0"),
        ] {
            assert_eq!(answer.header(name), expect, "{path}: {name}");
        }
    }
    let foreign = [&[("origin", "https://shop.example.evil")][..], &asked].concat();
    let answer = client.call(Method::OPTIONS, "/who", &foreign, empty()).await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.header("access-control-allow-origin")), (403, ""), "{answer:?}");
    assert_eq!(shop.servers[0].1.served(), served, "no app sees a preflight");
    // A preflight opens nothing: the request that it asks for is judged as any other.
    for (path, origin, status, shared) in [
        ("/who", page.1, 200, page.1),
        ("/who", "https://shop.example.evil", 200, ""),
        ("/admin/x", page.1, 403, page.1),
    ] {
        let answer = client.get_with(path, &[("origin", origin)]).await;
        let told = (answer.status.as_u16(), answer.header("access-control-allow-origin"), answer.header("vary"));
        assert_eq!(told, (status, shared, "Origin"), "{path} {origin}");
    }
    let metrics = shop.client.metrics().await;
    for (reason, count) in [("preflight", 2.0), ("origin_not_allowed", 1.0)] {
        assert_eq!(metrics.sum("weft_local_replies_total", &[("reason", reason)]), count, "{reason}");
    }
}

/// A rule that mirrors to these, each with its share.
fn mirroring(mirrors: &[(&str, &str)]) -> String {
    let filter = |(to, share): &(&str, &str)| {
        format!("{{type: RequestMirror, requestMirror: {{backendRef: {{name: {to}, port: 80}}{share}}}}}")
    };
    let filters: Vec<_> = mirrors.iter().map(filter).collect();
    let set = "{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-set, value: one}]}}";
    route(&format!(
        "  - matches: [{{path: {{value: /public}}}}]\n    filters: [{set}, {{type: URLRewrite, urlRewrite: {{path: {{type: \
         ReplacePrefixMatch, replacePrefixMatch: /}}}}}}, {}]\n    backendRefs: [{{name: reviews-v1, port: 80}}]\n",
        filters.join(", ")
    ))
}

/// Copies that the caller's proxy has ended so.
async fn ended(client: &Sidecar, result: &str) -> f64 {
    client.metrics().await.sum("weft_mirrored_requests_total", &[("result", result)])
}

async fn eventually_ended(client: &Sidecar, result: &str, count: f64) {
    eventually(&format!("{count} copies are {result}"), || async {
        let now = ended(client, result).await;
        assert!(now <= count, "{now} instead of {count}");
        (now == count).then_some(())
    })
    .await;
}

/// An application that notes the heads of requests, answers none, and reads nothing behind a head.
struct Silent {
    heads: Arc<Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Silent {
    async fn start(ip: IpAddr, port: u16) -> Self {
        let listener = TcpListener::bind((ip, port)).await.unwrap();
        let heads = Arc::<Mutex<Vec<String>>>::default();
        let noted = Arc::clone(&heads);
        let task = tokio::spawn(async move {
            let mut open = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let noted = Arc::clone(&noted);
                open.push(tokio::spawn(async move {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        head.push(stream.read_u8().await.unwrap_or(b'\n'));
                    }
                    noted.lock().unwrap().push(String::from_utf8_lossy(&head).into_owned());
                    std::future::pending::<()>().await;
                }));
            }
        });
        Self { heads, task }
    }

    fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_go_to_each_mirror_whole_and_are_told_apart() {
    const MUCH: usize = 1_000_000;
    let log = tempfile::tempdir().unwrap();
    let shop = shop(&["copy-1", "copy-2"]).await;
    let logged = Workload::client("logger").setting("access_log_file", json!(log.path().join("log")));
    let logged = shop.mesh.sidecar(logged).await;
    shop.mesh.apply(
        "apiVersion: weft.dev/v1alpha1\nkind: Mesh\nmetadata: {name: mesh}\nspec: {telemetry: {accessLog: true}}\n---\n\
         apiVersion: weft.dev/v1alpha1\nkind: AccessPolicy\nmetadata: {name: closed, namespace: default}\nspec:\n  \
         targetRefs: [{kind: Service, name: copy-2}]\n  action: Deny\n  rules: [{to: [{paths: [\"/closed\"]}]}]\n",
    );
    shop.mesh.apply(&mirroring(&[("copy-1", ""), ("copy-2", ", percent: 100"), ("gone", "")]));
    let mut client = Client::through(shop.client.proxy(), "reviews").await;
    let [(_, original), (near, first), (far, second)] = &shop.servers[..] else { panic!("three servers") };
    let before = original.served();
    assert_eq!(client.get("/public/who").await.text(), "reviews-v1");
    assert_eq!(client.post("/public/digest", vec![7; MUCH]).await.text(), MUCH.to_string());
    // Who may not reach the callee sends it no copy either.
    assert_eq!(client.get("/public/closed").await.text(), "reviews-v1");
    eventually_ended(&shop.client, "answered", 6.0).await;
    assert_eq!((original.served() - before, first.served(), second.served()), (3, 3, 2));
    eventually_ended(&shop.client, "unresolved", 3.0).await;
    for copy in [near, far] {
        let metrics = copy.metrics().await;
        assert_eq!(metrics.sum("weft_mirrored_requests_served_total", &[]), 3.0);
        let bytes = metrics.sum("istio_request_bytes_sum", &[("reporter", "destination")]);
        assert_eq!(bytes, MUCH as f64, "{}", metrics.lines("istio_request_bytes_sum"));
    }
    let metrics = shop.client.metrics().await;
    for copy in ["copy-1", "copy-2"] {
        let of_copy = [("reporter", "source"), ("destination_service_name", copy)];
        assert_eq!(metrics.sum("istio_requests_total", &of_copy), 0.0, "{}", metrics.lines("istio_requests_total"));
    }
    assert_eq!(metrics.sum("weft_mirrored_requests_in_flight", &[]), 0.0);
    // The log tells copies from what apps sent.
    assert_eq!(Client::through(logged.proxy(), "reviews").await.get("/public/closed").await.status, 200);
    eventually("lines of a request and its copies", || async {
        let text = std::fs::read_to_string(log.path().join("log")).unwrap_or_default();
        let lines = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let mut told: Vec<_> = lines
            .map(|line| {
                let (path, code) = (line["path"].as_str().unwrap_or_default(), &line["response_code"]);
                format!("{path} {code} {} {}", line["mirrored"], line["route_name"])
            })
            .collect();
        told.sort();
        let route = "\"default/reviews\"";
        let copies = [200, 403].map(|code| format!("/closed {code} true {route}"));
        (told == [&copies[..], &[format!("/public/closed 200 null {route}")]].concat()).then_some(())
    })
    .await;
    let explained =
        shop.mesh.weft(&["explain", "--from", "default/shopper", "--to", "reviews", "--path", "/public/who"]);
    assert!(explained.out.starts_with("ALLOWED"), "{}", explained.out);
    for told in ["default/copy-1:80, every request", "default/copy-2:80, every request", "nowhere"] {
        assert!(explained.out.contains(&format!("MIRRORED TO:  {told}")), "{}", explained.out);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mirrors_that_hang_or_are_away_cost_a_request_nothing() {
    const MUCH: usize = 24 << 20;
    let mesh = Mesh::start().await;
    let server = Workload::server("reviews-v1", 8080, "http");
    let app = App::start("reviews-v1", server.ip, 8080).await;
    let (hanging, away) = (Workload::server("hanging", 8080, "http"), Workload::server("away", 8080, "http"));
    let silent = Silent::start(hanging.ip, 8080).await;
    let _servers = [mesh.sidecar(server).await, mesh.sidecar(hanging).await, mesh.sidecar(away).await];
    mesh.apply(
        "apiVersion: v1\nkind: Service\nmetadata: {name: reviews, namespace: default}\nspec:\n  selector: {app: reviews-v1}\n  \
         ports: [{port: 80, targetPort: 8080, appProtocol: http}]\n",
    );
    mesh.apply(&mirroring(&[("hanging", ""), ("away", "")]));
    let limits = json!({"mirrors": 8, "mirror_timeout_ms": 60_000});
    let shopper = Workload::client("shopper").setting("limits", limits).setting("workers", json!(1));
    let shopper = mesh.sidecar(shopper).await;
    eventually("the route is there", || async {
        (Client::through(shopper.proxy(), "reviews").await.get("/public/who").await.status == 200).then_some(())
    })
    .await;
    eventually("a copy hangs", || async { (!silent.heads().is_empty()).then_some(()) }).await;
    let head = silent.heads().remove(0).to_ascii_lowercase();
    for told in ["get /who http/1.1\r\n", "\r\nhost: reviews\r\n", "\r\nx-set: one\r\n"] {
        assert!(head.contains(told), "{told:?}: {head}");
    }
    assert!(!head.contains("weft-"), "{head}");
    // Far more than may hang, in far less time than one of them would take.
    let begun = Instant::now();
    let mut client = Client::through(shopper.proxy(), "reviews").await;
    for _ in 0..40 {
        assert_eq!(client.get("/public/who").await.text(), "reviews-v1");
    }
    eventually("those over the limit are counted", || async {
        (ended(&shopper, "full").await > 0.0 && ended(&shopper, "failed").await > 0.0).then_some(())
    })
    .await;
    assert_eq!(shopper.metrics().await.sum("weft_mirrored_requests_in_flight", &[]), 8.0);
    assert_eq!(silent.heads().len(), 8);
    assert!(begun.elapsed() < Duration::from_secs(45), "{:?}", begun.elapsed());
    drop(client);
    // A body that nobody reads at the mirror is cut there, and arrives whole where it is for.
    mesh.apply(&mirroring(&[("hanging", "")]));
    let other = mesh.sidecar(Workload::client("uploader")).await;
    eventually("the uploader has the route", || async {
        (Client::through(other.proxy(), "reviews").await.get("/public/who").await.status == 200).then_some(())
    })
    .await;
    let mut client = Client::through(other.proxy(), "reviews").await;
    assert_eq!(client.post("/public/digest", vec![7; MUCH]).await.text(), MUCH.to_string());
    eventually_ended(&other, "behind", 1.0).await;
    drop(app);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_of_the_requests_is_copied() {
    const REQUESTS: u32 = 600;
    let shop = shop(&["half", "fifth", "none"]).await;
    shop.mesh.apply(&mirroring(&[
        ("half", ", fraction: {numerator: 1, denominator: 2}"),
        ("fifth", ", percent: 20"),
        ("none", ", percent: 0"),
    ]));
    let mut client = Client::through(shop.client.proxy(), "reviews").await;
    for _ in 0..REQUESTS {
        assert_eq!(client.get("/public/who").await.text(), "reviews-v1");
    }
    eventually("no copy is under way", || async {
        (shop.client.metrics().await.sum("weft_mirrored_requests_in_flight", &[]) == 0.0).then_some(())
    })
    .await;
    // Within five standard deviations.
    for ((_, app), share) in shop.servers[1..].iter().zip([0.5, 0.2, 0.0]) {
        let (expect, served) = (f64::from(REQUESTS) * share, app.served() as f64);
        let around = 5.0 * (expect * (1.0 - share)).sqrt();
        assert!((served - expect).abs() <= around, "{served} instead of {expect} +- {around}");
    }
    assert_eq!(ended(&shop.client, "failed").await + ended(&shop.client, "full").await, 0.0);
}
