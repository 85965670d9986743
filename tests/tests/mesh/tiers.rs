//! A service is called as its tier, its namespace and its own policy say, the nearest first, through real sidecars; a label
//! that is taken away takes its tier's settings with it.

use weft_tests::{App, Client, Mesh, Sidecar, Workload, eventually};

const TIER: &str = "{apiVersion: weft.dev/v1alpha1, kind: PolicyTemplate, metadata: {name: critical}, spec: {tier: critical, \
                    parameters: [{name: patience, type: Duration, default: 300ms, max: 1m}], trafficPolicy: {timeouts: \
                    {request: '${patience}'}}}}\n";

struct Cart {
    mesh: Mesh,
    _app: App,
    _server: Sidecar,
    caller: Sidecar,
}

impl Cart {
    async fn start() -> Self {
        let mesh = Mesh::start().await;
        let server = Workload::server("cart-1", 8080, "http").of("cart");
        let app = App::start("cart-1", server.ip, 8080).await;
        let server = mesh.sidecar(server).await;
        let caller = mesh.sidecar(Workload::client("shopper")).await;
        let cart = Self { mesh, _app: app, _server: server, caller };
        eventually("the service answers", || async { (cart.get("/who").await == 200).then_some(()) }).await;
        cart
    }

    /// Applies it, and waits until every proxy has it.
    fn apply(&self, text: &str) {
        let applied = self.mesh.weft_reading(text, &["apply", "-f", "-", "--wait", "30s"]);
        assert_eq!(applied.code, 0, "{}{}", applied.out, applied.err);
    }

    fn label(&self, labels: &str) {
        self.apply(&format!(
            "{{apiVersion: v1, kind: Service, metadata: {{name: cart, namespace: default, labels: {{{labels}}}}}, spec: \
             {{selector: {{weft.dev/service: cart}}, ports: [{{port: 80, targetPort: 8080, appProtocol: http}}]}}}}\n"
        ));
    }

    fn policy(&self, name: &str, target: &str, request: &str) {
        self.apply(&format!(
            "{{apiVersion: weft.dev/v1alpha1, kind: TrafficPolicy, metadata: {{name: {name}, namespace: default}}, spec: \
             {{targetRefs: [{{{target}}}], timeouts: {{request: {request}}}}}}}\n"
        ));
    }

    async fn get(&self, path: &str) -> u16 {
        Client::through(self.caller.proxy(), "cart").await.get(path).await.status.as_u16()
    }

    /// What `weft describe service` says of the time of a request.
    fn described(&self) -> String {
        let described = self.mesh.weft(&["describe", "service", "cart"]);
        let line = described.out.lines().find(|line| line.contains("timeouts.request: "));
        line.unwrap_or_else(|| panic!("{}{}", described.out, described.err)).trim().to_owned()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_nearest_policy_says_how_long_a_request_may_take() {
    let cart = Cart::start().await;
    cart.apply(TIER);
    assert_eq!(cart.get("/slow/1500").await, 200, "of no tier");
    cart.label("weft.dev/tier: critical");
    assert_eq!(cart.get("/slow/5000").await, 504);
    assert_eq!(cart.described(), "timeouts.request: 300ms (PolicyTemplate critical, of the tier)");
    cart.label("");
    assert_eq!(cart.get("/slow/1500").await, 200, "of no tier again");
    cart.label("weft.dev/tier: critical");
    cart.policy("all", "kind: Namespace, name: default", "30s");
    assert_eq!(cart.get("/slow/1500").await, 200);
    assert_eq!(cart.described(), "timeouts.request: 30s (TrafficPolicy default/all, of the namespace)");
    cart.policy("cart", "kind: Service, name: cart", "200ms");
    assert_eq!(cart.get("/slow/5000").await, 504);
    assert_eq!(cart.described(), "timeouts.request: 200ms (TrafficPolicy default/cart)");
    let explained = cart.mesh.weft(&["explain", "--from", "default/shopper", "--to", "cart"]);
    let told = "200ms in all, as TrafficPolicy default/cart says";
    assert!(explained.out.contains(told), "{}", explained.out);
}
