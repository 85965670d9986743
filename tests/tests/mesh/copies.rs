//! Filters of routes that answer browsers and that copy requests, with real sidecars.

use http::Method;
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
