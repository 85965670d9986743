//! Health checks that a TrafficPolicy asks for, through real sidecars: whom they find unwell gets no requests, though it
//! would answer them, and is back when they pass; what a policy refuses is told, and is no failure of the app.

use tokio::io::AsyncReadExt as _;
use weft_tests::client::try_tunnel;
use weft_tests::{App, Client, Mesh, Sidecar, TcpApp, Workload, eventually};

fn traffic_policy(check: &str) -> String {
    format!(
        "apiVersion: weft.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {{name: cart, namespace: default}}\n\
         spec: {{targetRefs: [{{kind: Service, name: cart}}], healthCheck: {check}}}\n"
    )
}

fn apply(mesh: &Mesh, text: &str) {
    let applied = mesh.weft_reading(text, &["apply", "-f", "-", "--wait", "30s"]);
    assert_eq!(applied.code, 0, "{}{}", applied.out, applied.err);
}

struct Cart {
    mesh: Mesh,
    apps: Vec<App>,
    caller: Sidecar,
    _servers: Vec<Sidecar>,
}

impl Cart {
    async fn start() -> Self {
        let mesh = Mesh::start().await;
        let (mut apps, mut servers) = (Vec::new(), Vec::new());
        for name in ["cart-1", "cart-2"] {
            let workload = Workload::server(name, 8080, "http").of("cart");
            apps.push(App::start(name, workload.ip, 8080).await);
            servers.push(mesh.sidecar(workload).await);
        }
        let caller = mesh.sidecar(Workload::client("shopper")).await;
        Self { mesh, apps, caller, _servers: servers }
    }

    /// Who answers a request, if anybody does.
    async fn who(&self) -> Option<String> {
        let answer = Client::through(self.caller.proxy(), "cart").await.get("/who").await;
        (answer.status == 200).then(|| answer.text())
    }

    /// Waits until this one answers.
    async fn reaches(&self, name: &str) {
        eventually(name, || async { (self.who().await.as_deref() == Some(name)).then_some(()) }).await;
    }

    async fn unhealthy(&self) -> f64 {
        self.caller.metrics().await.sum("weft_endpoints_unhealthy", &[])
    }

    async fn checks(&self, result: &str) -> f64 {
        self.caller.metrics().await.sum("weft_health_checks_total", &[("result", result)])
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_unwell_gets_no_requests_until_it_is_well() {
    let cart = Cart::start().await;
    cart.reaches("cart-1").await;
    cart.reaches("cart-2").await;
    assert_eq!((cart.unhealthy().await, cart.checks("passed").await), (0.0, 0.0), "nobody is checked unasked");
    for (probe, told) in [("http: {path: /healthz}", "GET /healthz for 200-299"), ("grpc: {}", "gRPC health")] {
        cart.apps[0].health(503);
        apply(&cart.mesh, &traffic_policy(&format!("{{{probe}, interval: 500ms, timeout: 500ms}}")));
        let setting = cart.mesh.weft(&["describe", "service", "cart"]);
        let expect =
            format!("healthCheck: {told} every 500ms, each within 500ms, out after 3, back after 2 (TrafficPolicy");
        assert!(setting.out.contains(&expect), "{}", setting.out);
        eventually("cart-1 is out", || async {
            cart.who().await;
            (cart.unhealthy().await == 1.0).then_some(())
        })
        .await;
        for _ in 0..30 {
            assert_eq!(cart.who().await.as_deref(), Some("cart-2"), "{probe}");
        }
        cart.apps[0].health(200);
        cart.reaches("cart-1").await;
        assert_eq!(cart.unhealthy().await, 0.0, "{probe}");
        assert!(cart.checks("passed").await >= 2.0 && cart.checks("failed").await >= 1.0, "{probe}");
    }
    assert_eq!(cart.caller.metrics().await.sum("weft_ejections_total", &[]), 0.0);
}

/// A policy of access keeps the caller from asking: nobody is out by that, and whoever looks is told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_that_a_policy_refuses_is_told_and_puts_nobody_out() {
    let cart = Cart::start().await;
    cart.mesh.apply(
        "apiVersion: weft.dev/v1alpha1\nkind: AccessPolicy\nmetadata: {name: closed, namespace: default}\nspec:\n  \
         targetRefs: [{kind: Service, name: cart}]\n  action: Deny\n  rules: [{to: [{paths: [/healthz]}]}]\n",
    );
    eventually("it is closed", || async {
        let answer = Client::through(cart.caller.proxy(), "cart").await.get("/healthz").await;
        (answer.status == 403).then_some(())
    })
    .await;
    cart.reaches("cart-1").await;
    apply(&cart.mesh, &traffic_policy("{http: {path: /healthz}, interval: 500ms, timeout: 500ms}"));
    eventually("checks are refused", || async {
        cart.who().await;
        (cart.checks("refused").await >= 4.0).then_some(())
    })
    .await;
    assert_eq!(cart.unhealthy().await, 0.0);
    cart.reaches("cart-1").await;
    cart.reaches("cart-2").await;
    cart.caller.process.logs("its health can't be checked");
    cart.caller.process.logs("its proxy answered 403");
}

/// One app of two does not listen: connections go to the other, and to both once it does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_that_does_not_listen_gets_no_connections() {
    let mesh = Mesh::start().await;
    let workloads = ["cart-1", "cart-2"].map(|name| Workload::server(name, 7000, "tcp").of("cart"));
    let (quiet, _listening) = (workloads[0].ip, TcpApp::start(workloads[1].ip, 7000, "2").await);
    let mut servers = Vec::new();
    for workload in workloads {
        servers.push(mesh.sidecar(workload).await);
    }
    let caller = mesh.sidecar(Workload::client("shopper")).await;
    apply(&mesh, &traffic_policy("{tcp: {}, interval: 500ms, timeout: 500ms, healthyThreshold: 1}"));
    let greeting = || async {
        let (mut stream, _) = try_tunnel(caller.proxy(), "cart:7000").await;
        let mut greeting = Vec::new();
        let read = stream.read_buf(&mut greeting);
        _ = tokio::time::timeout(std::time::Duration::from_secs(5), read).await;
        greeting
    };
    let unhealthy = || async { caller.metrics().await.sum("weft_endpoints_unhealthy", &[]) };
    eventually("one is out", || async {
        greeting().await;
        (unhealthy().await == 1.0).then_some(())
    })
    .await;
    for _ in 0..10 {
        assert_eq!(greeting().await, b"2");
    }
    let _started = TcpApp::start(quiet, 7000, "1").await;
    eventually("both are used", || async { (greeting().await == b"1").then_some(()) }).await;
    assert_eq!(unhealthy().await, 0.0);
    drop(servers);
}
