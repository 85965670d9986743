//! Routes, weights, fault and rate limit: what an operator writes is what callers meet; what does not work yet is refused.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use weft_tests::{App, Client, Mesh, Sidecar, Workload, eventually};

struct Shop {
    mesh: Mesh,
    client: Sidecar,
    _servers: Vec<(Sidecar, App)>,
}

/// `reviews` with two versions behind services of their own, and a caller.
async fn shop() -> Shop {
    let mesh = Mesh::start().await;
    let mut servers = Vec::new();
    for name in ["reviews-v1", "reviews-v2"] {
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
    Shop { mesh, client, _servers: servers }
}

fn route(rules: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: reviews, namespace: default}}\nspec:\n  \
         parentRefs: [{{group: \"\", kind: Service, name: reviews, port: 80}}]\n  rules:\n{rules}"
    )
}

fn filter(name: &str, filter: &str, capabilities: &str, config: &str) -> String {
    format!(
        "apiVersion: weft.dev/v1alpha1\nkind: FilterPolicy\nmetadata: {{name: {name}, namespace: default}}\nspec:\n  targetRefs: \
         [{{kind: Service, name: reviews-v1}}]\n  filter: {{name: {filter}, namespace: weft-system}}\n  capabilities: {capabilities}\n  config: {config}\n"
    )
}

/// A configuration that its filter refuses, a capability that it was not given: no proxy hears of any.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_proxy_could_run_is_refused_where_it_is_written() {
    let mesh = Mesh::start().await;
    let cases = [
        (filter("a", "fault", "[]", "{abort: {status: 503, percentage: \"50\"}}"), "spec.config", "percentage"),
        (filter("b", "fault", "[]", "{abort: {status: 503, persentage: 50}}"), "spec.config", "persentage"),
        (filter("c", "fault", "[]", "{abort: {status: 99}}"), "spec.config", "status"),
        (filter("d", "ratelimit", "[token-bucket]", "{}"), "spec.config", "limits"),
        (filter("e", "ratelimit", "[]", "{limits: [{requests: 1}]}"), "spec.config", "token-bucket"),
    ];
    for (manifest, key, why) in cases {
        let dry = mesh.weft_reading(&manifest, &["diff", "-f", "-"]);
        let printed = mesh.weft_reading(&manifest, &["apply", "-f", "-"]);
        assert_eq!(printed.code, 1, "{manifest}{}", printed.out);
        assert!(printed.err.contains(key) && printed.err.contains(why), "{manifest}{}", printed.err);
        let told = format!("{}{}", dry.out, dry.err);
        assert!(told.contains(key) && told.contains(why), "a dry run says so: {manifest}{told}");
    }
    assert_eq!(
        mesh.weft(&["get", "filterpolicies", "-A", "-o", "json"]).json()["items"].as_array().map(Vec::len),
        Some(0)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn routes_match_weigh_and_modify() {
    let shop = shop().await;
    shop.mesh.apply(&route(
        "  - matches: [{path: {type: PathPrefix, value: /seen}, headers: [{name: x-canary, value: \"yes\"}]}]\n    \
         filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-set, value: one}], remove: [x-gone]}}]\n    \
         backendRefs: [{name: reviews-v2, port: 80}]\n  - matches: [{path: {type: PathPrefix, value: /}}]\n    \
         backendRefs: [{name: reviews-v1, port: 80, weight: 3}, {name: reviews-v2, port: 80, weight: 1}]\n",
    ));
    let mut client = Client::through(shop.client.proxy(), "reviews").await;
    let seen = client.get_with("/seen/x", &[("x-canary", "yes"), ("x-gone", "soon")]).await.text();
    assert!(seen.contains("x-set") && !seen.contains("x-gone"), "{seen}");
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..400 {
        *counts.entry(client.get("/who").await.text()).or_default() += 1;
    }
    let second = counts.get("reviews-v2").copied().unwrap_or(0);
    assert!((50..150).contains(&second), "one of four goes to v2: {counts:?}");

    // A weight moved under way: nothing fails, then all arrive at v2.
    shop.mesh.apply(&route(
        "  - backendRefs: [{name: reviews-v1, port: 80, weight: 0}, {name: reviews-v2, port: 80, weight: 1}]\n",
    ));
    for _ in 0..50 {
        assert_eq!(client.get("/who").await.text(), "reviews-v2");
    }
    // By expression and query, with a change of the answer.
    shop.mesh.apply(&route(
        "  - matches: [{path: {type: RegularExpression, value: \"/v[0-9]+/.*\"}, queryParams: [{name: tier, value: gold}]}]\n    \
         filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: x-route, value: gold}]}}]\n    \
         backendRefs: [{name: reviews-v2, port: 80}]\n  - backendRefs: [{name: reviews-v1, port: 80}]\n",
    ));
    for (path, status, who, by) in [
        ("/v12/who?a=b&tier=gold", 200, "reviews-v2", "gold"),
        ("/v12/who?tier=golden", 200, "reviews-v1", ""),
        ("/vx/who?tier=gold", 200, "reviews-v1", ""),
    ] {
        let answer = client.get(path).await;
        assert_eq!(
            (answer.status.as_u16(), answer.text().as_str(), answer.header("x-route")),
            (status, who, by),
            "{path}"
        );
    }
    let answer = client.get("/v12/who?tier=gold&tier=tin").await;
    assert!(answer.status == 400 && answer.text().contains("the query in several ways"), "{}", answer.text());
    // A rule that matches nothing of the request is a 404 that says so.
    shop.mesh.apply(&route(
        "  - matches: [{path: {type: Exact, value: /only}}]\n    backendRefs: [{name: reviews-v1, port: 80}]\n",
    ));
    let answer = client.get("/other").await;
    assert_eq!(answer.status, 404, "{}", answer.text());
    assert_eq!(client.get("/only").await.text(), "reviews-v1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn routes_send_elsewhere_and_replace_what_is_sent() {
    let shop = shop().await;
    shop.mesh.apply(
        "apiVersion: weft.dev/v1alpha1\nkind: AccessPolicy\nmetadata: {name: closed, namespace: default}\nspec:\n  \
         targetRefs: [{kind: Service, name: reviews-v1}]\n  action: Deny\n  rules: [{to: [{paths: [\"/admin/*\"]}]}]\n",
    );
    shop.mesh.apply(&route(
        "  - matches: [{path: {value: /old}}]\n    filters: [{type: RequestRedirect, requestRedirect: {statusCode: 301, path: \
         {type: ReplacePrefixMatch, replacePrefixMatch: /new}}}]\n  - matches: [{path: {type: Exact, value: /elsewhere}}]\n    \
         filters: [{type: RequestRedirect, requestRedirect: {scheme: https, hostname: example.org, port: 8443}}]\n  \
         - matches: [{path: {value: /public}}]\n    filters: [{type: URLRewrite, urlRewrite: {hostname: in.example, path: \
         {type: ReplacePrefixMatch, replacePrefixMatch: /}}}]\n    backendRefs: [{name: reviews-v1, port: 80}]\n  \
         - matches: [{path: {value: /full}}]\n    backendRefs: [{name: reviews-v2, port: 80, filters: [{type: URLRewrite, \
         urlRewrite: {path: {type: ReplaceFullPath, replaceFullPath: /seen/one}}}]}]\n",
    ));
    let mut client = Client::through(shop.client.proxy(), "reviews").await;
    for (path, status, location) in [
        ("/old", 301, "http://reviews/new"),
        ("/old/lemon?a=b", 301, "http://reviews/new/lemon?a=b"),
        ("/old/a%2Fb;c", 301, "http://reviews/new/a%2Fb;c"),
        ("/elsewhere", 302, "https://example.org:8443/elsewhere"),
    ] {
        let answer = client.get(path).await;
        assert_eq!((answer.status.as_u16(), answer.header("location")), (status, location), "{path}");
    }
    for (path, target, host) in [
        ("/public/seen/x?a=b", "/seen/x?a=b", "in.example"),
        ("/public/./seen/%78//y;z", "/seen/x//y;z", "in.example"),
        ("/full/of/it?a=b", "/seen/one?a=b", "reviews"),
    ] {
        let seen: serde_json::Value = serde_json::from_str(&client.get(path).await.text()).unwrap();
        let headers: Vec<(String, String)> = serde_json::from_value(seen["headers"].clone()).unwrap();
        let hosts: Vec<_> = headers.iter().filter(|header| header.0 == "host").map(|header| &*header.1).collect();
        assert_eq!((seen["target"].as_str(), &hosts[..]), (Some(target), &[host][..]), "{path}: {seen}");
    }
    // The callee judges what it is sent, in each of its readings: no spelling passes its policy behind a prefix.
    assert_eq!(client.get("/public").await.text(), "reviews-v1");
    for path in [
        "/public/admin/x",
        "/public/%61dmin/x",
        "/public//admin/x",
        "/public/x/..%2Fadmin/x",
        "/public/x/..;/admin/x",
        "/public/x/..%5Cadmin/x",
        "/public/;/admin/x",
    ] {
        assert_eq!(client.get(path).await.status, 403, "{path}");
    }
    // An answer that a rule gives itself is counted as what it is.
    let labels = [("response_code", "301"), ("response_flags", "-")];
    eventually("redirects are counted", || async {
        (shop.client.metrics().await.sum("istio_requests_total", &labels) == 3.0).then_some(())
    })
    .await;
    let explained = shop.mesh.weft(&["explain", "--from", "default/shopper", "--to", "reviews", "--path", "/old/x"]);
    assert!(
        explained.out.starts_with("REDIRECTED") && explained.out.contains("http://reviews/new/x"),
        "{}",
        explained.out
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_route_has_its_deadline() {
    let shop = shop().await;
    shop.mesh.apply(&route("  - timeouts: {request: 300ms}\n    backendRefs: [{name: reviews-v1, port: 80}]\n"));
    let mut client = Client::through(shop.client.proxy(), "reviews").await;
    assert_eq!(client.get("/slow/10").await.status, 200);
    let answer = client.get("/slow/20000").await;
    assert_eq!(answer.status, 504, "{}", answer.text());
    // Counted just after the answer has left.
    let labels = [("response_code", "504"), ("response_flags", "UT")];
    eventually("the timeout is counted", || async {
        (shop.client.metrics().await.sum("istio_requests_total", &labels) == 1.0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_aborts_and_delays() {
    let shop = shop().await;
    shop.mesh.apply(&filter(
        "chaos",
        "fault",
        "[]",
        "{abort: {status: 418, percentage: 100, headers: [{name: x-abort, exact: \"1\"}]}, delay: {ms: 400, percentage: 100, \
         headers: [{name: x-delay, exact: \"1\"}]}}",
    ));
    let mut client = Client::through(shop.client.proxy(), "reviews").await;
    assert_eq!(client.get("/who").await.status, 200);
    let aborted = client.get_with("/who", &[("x-abort", "1")]).await;
    assert_eq!(aborted.status, 418, "{}", aborted.text());
    let began = Instant::now();
    assert_eq!(client.get_with("/who", &[("x-delay", "1")]).await.status, 200);
    assert!(began.elapsed() >= Duration::from_millis(400), "{:?}", began.elapsed());

    // A delay is a verdict, not a blocked worker: a hundred of them at once take about as long as one.
    let began = Instant::now();
    let mut tasks = Vec::new();
    for _ in 0..100 {
        let proxy = shop.client.proxy();
        tasks.push(tokio::spawn(async move {
            Client::through(proxy, "reviews").await.get_with("/who", &[("x-delay", "1")]).await.status
        }));
    }
    for task in tasks {
        assert_eq!(task.await.unwrap(), 200);
    }
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_is_exact_across_workers() {
    let shop = shop().await;
    shop.mesh.apply(&filter(
        "limit",
        "ratelimit",
        "[token-bucket]",
        "{limits: [{key: \"header:x-user\", requests: 5, per_seconds: 3600, burst: 5}]}",
    ));
    let mut statuses: BTreeMap<u16, u32> = BTreeMap::new();
    let mut tasks = Vec::new();
    // Forty connections spread over the workers.
    for _ in 0..40 {
        let proxy = shop.client.proxy();
        tasks.push(tokio::spawn(async move {
            let answer = Client::through(proxy, "reviews").await.get_with("/who", &[("x-user", "one")]).await;
            (answer.status.as_u16(), answer.header("retry-after").to_owned())
        }));
    }
    for task in tasks {
        let (status, retry_after) = task.await.unwrap();
        assert!(status != 429 || !retry_after.is_empty(), "429 says when to come back");
        *statuses.entry(status).or_default() += 1;
    }
    assert_eq!(statuses, BTreeMap::from([(200, 5), (429, 35)]));
    let other = Client::through(shop.client.proxy(), "reviews").await.get_with("/who", &[("x-user", "two")]).await;
    assert_eq!(other.status, 200, "another key has its own bucket");
}

/// What is not built is taken, as clusters have it, and leads nowhere: the requests that it would narrow don't pass meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_route_that_cannot_be_done_answers_500_and_says_why() {
    let shop = shop().await;
    let limited = route(
        "  - filters: [{type: ExtensionRef, extensionRef: {group: example.com, kind: Limit, name: some}}]\n    backendRefs: \
         [{name: reviews, port: 80}]\n",
    );
    let printed = shop.mesh.weft_reading(&limited, &["apply", "-f", "-", "--wait", "30s"]);
    let said = format!("{}{}", printed.out, printed.err);
    assert!(printed.code == 0 && said.contains("ExtensionRef is not supported yet"), "{said}");
    let answer = Client::through(shop.client.proxy(), "reviews").await.get("/who").await;
    assert_eq!(answer.status, 500, "{}", answer.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_work_is_refused_whole() {
    let mesh = Mesh::start().await;
    let good = "apiVersion: v1\nkind: Service\nmetadata: {name: fine, namespace: default}\nspec:\n  selector: {app: x}\n  ports: \
                [{port: 80, targetPort: 8080}]\n";
    for (bad, words) in [
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: x}\n", "Pod"),
        ("apiVersion: v1\nkind: Service\nmetadata: {name: x, namespace: default}\nspec: {portz: []}\n", "portz"),
        ("nonsense", "<stdin>:8"),
    ] {
        let printed = mesh.weft_reading(&format!("{good}---\n{bad}"), &["apply", "-f", "-"]);
        assert_ne!(printed.code, 0, "{bad}");
        let said = printed.out + &printed.err;
        assert!(said.contains(words), "{words} is missing in: {said}");
        assert!(!said.contains("panicked"), "{said}");
        let get = mesh.weft(&["get", "service", "fine"]);
        assert_ne!(get.code, 0, "an apply lands whole or not at all");
    }
}
