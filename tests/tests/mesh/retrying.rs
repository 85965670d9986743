//! What rules and TrafficPolicies ask to be sent again is sent again through real sidecars: elsewhere, whole, counted, no
//! more often than they say and the budget grants, and nothing that somebody may have acted on twice unless they say so.

use std::collections::BTreeSet;
use std::time::Instant;

use http::Method;
use serde_json::json;
use weft_tests::client::{empty, full};
use weft_tests::{App, Client, Mesh, Sidecar, Workload, eventually};

const ENDPOINTS: [&str; 2] = ["cart-1", "cart-2"];

struct Cart {
    mesh: Mesh,
    apps: Vec<App>,
    caller: Sidecar,
    servers: Vec<Sidecar>,
}

impl Cart {
    /// With a budget that no test uses up.
    async fn start() -> Self {
        let limits = json!({"retry_budget_per_second": 1_000});
        Self::start_as(Workload::client("shopper").setting("limits", limits)).await
    }

    async fn start_as(caller: Workload) -> Self {
        let mesh = Mesh::start().await;
        let (mut apps, mut servers) = (Vec::new(), Vec::new());
        for name in ENDPOINTS {
            // They send little themselves.
            let limits = json!({"retry_budget_per_second": 1});
            let workload = Workload::server(name, 8080, "http").of("cart").setting("limits", limits);
            apps.push(App::start(name, workload.ip, 8080).await);
            servers.push(mesh.sidecar(workload).await);
        }
        let caller = mesh.sidecar(caller).await;
        let cart = Self { mesh, apps, caller, servers };
        cart.apply(
            "TrafficPolicy",
            "targetRefs: [{kind: Service, name: cart}], loadBalancing: {algorithm: RoundRobin}",
        );
        for app in &cart.apps {
            let before = app.served();
            eventually("each endpoint answers", || async {
                let answer = cart.get("/who").await;
                (answer.0 == 200 && app.served() > before).then_some(())
            })
            .await;
        }
        cart
    }

    /// Applies an object called cart, and waits until every proxy has it.
    fn apply(&self, kind: &str, spec: &str) {
        self.apply_with(kind, ("cart", ""), spec);
    }

    fn apply_with(&self, kind: &str, (name, annotations): (&str, &str), spec: &str) {
        let version = if kind == "HTTPRoute" { "gateway.networking.k8s.io/v1" } else { "weft.dev/v1alpha1" };
        let text = format!(
            "{{apiVersion: {version}, kind: {kind}, metadata: {{name: {name}, namespace: default, annotations: \
             {{{annotations}}}}}, spec: {{{spec}}}}}\n"
        );
        let applied = self.mesh.weft_reading(&text, &["apply", "-f", "-", "--wait", "30s"]);
        assert_eq!(applied.code, 0, "{}{}", applied.out, applied.err);
    }

    /// A rule for the service with these further fields.
    fn route(&self, annotations: &str, fields: &str) {
        self.route_of("cart", annotations, fields);
    }

    fn route_of(&self, service: &str, annotations: &str, fields: &str) {
        let parent = format!("parentRefs: [{{group: '', kind: Service, name: {service}}}]");
        let rule = format!("{parent}, rules: [{{backendRefs: [{{name: {service}, port: 80}}], {fields}}}]");
        self.apply_with("HTTPRoute", (service, annotations), &rule);
    }

    async fn client(&self) -> Client {
        Client::through(self.caller.proxy(), "cart").await
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let answer = self.client().await.get(path).await;
        (answer.status.as_u16(), answer.text())
    }

    fn served(&self) -> u64 {
        self.apps.iter().map(App::served).sum()
    }

    fn fail(&self, status: u16) {
        self.apps.iter().for_each(|app| app.fail(status));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_of_such_a_status_is_followed_by_another_attempt_elsewhere() {
    let cart = Cart::start().await;
    cart.route("", "retry: {codes: [503], attempts: 2, backoff: 10ms}");
    cart.apps[0].fail(503);
    let mut client = cart.client().await;
    let before = cart.apps[0].served();
    let mut counted = 0;
    for _ in 0..10 {
        let answer = client.get("/seen").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        counted += usize::from(answer.text().contains(r#"["weft-attempt","2"]"#));
    }
    let had = cart.apps[0].served() - before;
    assert!(had > 0 && counted == usize::try_from(had).unwrap(), "{counted} of {had} attempts were counted");
    // With its body, for as much as is kept of it.
    for _ in 0..4 {
        let answer = client.call(Method::PUT, "/echo", &[], full("what was sent")).await.unwrap();
        assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "what was sent"));
    }
    // Somebody may have acted on it.
    let mut posted = Vec::new();
    for _ in 0..4 {
        posted.push(client.post("/echo", "x").await.status.as_u16());
    }
    posted.sort_unstable();
    assert_eq!(posted, [200, 200, 503, 503]);
    let explained = cart.mesh.weft(&["explain", "--from", "default/shopper", "--to", "cart"]);
    let told = "2 more after 503, no answer, at least 10ms later, of idempotent methods, as HTTPRoute default/cart says; \
                within the retry budget of the caller's proxy";
    assert!(explained.out.contains(told), "{}", explained.out);
    cart.route("weft.dev/retry-methods: any", "retry: {codes: [503], attempts: 2, backoff: 10ms}");
    for _ in 0..4 {
        assert_eq!(client.post("/echo", "x").await.status, 200);
    }
    let metrics = cart.caller.metrics().await;
    assert!(metrics.sum("weft_policy_retries_total", &[]) >= 5.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_attempts_are_made_than_are_asked_for_and_granted() {
    let cart = Cart::start_as(Workload::client("shopper")).await;
    cart.route("", "retry: {codes: [503], attempts: 2, backoff: 1ms}");
    cart.fail(503);
    let before = cart.served();
    assert_eq!(cart.get("/who").await.0, 503, "the last answer is passed on");
    assert_eq!(cart.served() - before, 3);
    cart.fail(429);
    let before = cart.served();
    assert_eq!(cart.get("/who").await.0, 429, "of another status");
    assert_eq!(cart.served() - before, 1);
    cart.fail(503);
    let before = cart.served();
    let mut client = cart.client().await;
    for _ in 0..400 {
        assert_eq!(client.get("/who").await.status, 503);
    }
    // A fifth of them and the reserve of a second, by all workers together.
    let attempts = cart.served() - before;
    assert!((400 + 70..=400 + 80 + 3).contains(&attempts), "{attempts} attempts");
    assert!(cart.caller.metrics().await.sum("weft_retries_refused_total", &[]) > 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_callers_send_again_is_not_sent_again_behind_them() {
    let cart = Cart::start().await;
    let workload = Workload::server("stock", 8080, "http");
    let stock = App::start("stock", workload.ip, 8080).await;
    let _stock = cart.mesh.sidecar(workload).await;
    for service in ["cart", "stock"] {
        cart.route_of(service, "", "retry: {codes: [503], attempts: 2, backoff: 1ms}");
    }
    let [tier, other] = &cart.servers[..] else { panic!("two endpoints") };
    // In turn, one of the two would have all first attempts and the other all retries.
    cart.apply("TrafficPolicy", "targetRefs: [{kind: Service, name: cart}], loadBalancing: {algorithm: Random}");
    stock.fail(503);
    let (mut shopper, mut to_stock) = (cart.client().await, Client::through(tier.proxy(), "stock").await);
    for _ in 0..100 {
        assert_eq!(to_stock.get("/who").await.status, 503);
    }
    let alone = stock.served() - 100;
    assert!(alone >= 17, "{alone} of its own");
    // All that reaches the tier fails, and is sent again and again.
    cart.fail(503);
    let (before, start) = (stock.served(), Instant::now());
    for _ in 0..100 {
        assert_eq!(shopper.get("/who").await.status, 503);
        assert_eq!(to_stock.get("/who").await.status, 503);
    }
    let received =
        [tier.metrics().await, other.metrics().await].map(|metrics| metrics.sum("weft_retries_received_total", &[]));
    let behind = stock.served() - before - 100;
    // The first requests tell of it, and one retry a second is always granted.
    assert!(
        behind <= 5 + start.elapsed().as_secs(),
        "{behind} behind those of its callers: {received:?} of {}",
        cart.served()
    );
    assert!(received.iter().all(|received| *received >= 20.0), "{received:?} of {} requests", cart.served());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attempt_that_is_late_is_given_up_and_followed_by_another() {
    let cart = Cart::start().await;
    cart.route("", "timeouts: {backendRequest: 300ms}");
    let before = cart.served();
    let (status, text) = cart.get("/slow/5000").await;
    assert_eq!((status, text.contains("no answer within 300 ms")), (504, true), "{text}");
    assert_eq!(cart.served() - before, 1);
    cart.route("", "timeouts: {request: 20s, backendRequest: 300ms}, retry: {attempts: 2, backoff: 1ms}");
    let before = cart.served();
    assert_eq!(cart.get("/slow/5000").await.0, 504);
    assert_eq!(cart.served() - before, 3);
    let answer = cart.client().await.call(Method::POST, "/slow/5000", &[], empty()).await.unwrap();
    assert_eq!(answer.status, 504);
    assert_eq!(cart.served() - before, 4, "somebody may act on it still");
    // All attempts together have the time of the request.
    cart.route("", "timeouts: {request: 500ms, backendRequest: 400ms}, retry: {attempts: 9, backoff: 1ms}");
    let before = cart.served();
    assert_eq!(cart.get("/slow/5000").await.0, 504);
    assert_eq!(cart.served() - before, 2);
    let explained = cart.mesh.weft(&["explain", "--from", "default/shopper", "--to", "cart"]);
    let told = "500ms in all, as HTTPRoute default/cart says; 400ms each attempt, as HTTPRoute default/cart says";
    assert!(explained.out.contains(told), "{}", explained.out);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_of_grpc_are_sent_again_by_their_status() {
    let cart = Cart::start().await;
    let policy =
        "targetRefs: [{kind: Service, name: cart}], retry: {grpcCodes: [NOT_FOUND], attempts: 2, backoff: 1ms}";
    cart.apply("TrafficPolicy", policy);
    let grpc = [("content-type", "application/grpc"), ("te", "trailers")];
    let mut client = Client::h2_through(cart.caller.proxy(), "cart").await;
    for (path, attempts) in [("/test.Echo/Missing", 3), ("/test.Echo/MissingBehind", 3), ("/test.Echo/Unary", 1)] {
        let before = cart.served();
        let answer = client.call(Method::POST, path, &grpc, full(weft_tests::app::message(b"one"))).await.unwrap();
        assert_eq!(answer.status, 200);
        assert_eq!(cart.served() - before, attempts, "{path}");
    }
    let described = cart.mesh.weft(&["describe", "service", "cart"]);
    let told = "retry: 2 more after NOT_FOUND of gRPC, no answer, at least 1ms later, of idempotent methods \
                (TrafficPolicy default/cart)";
    assert!(described.out.contains(told), "{}", described.out);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_stays_at_its_endpoint_for_as_long_as_that_takes_requests() {
    let cart = Cart::start().await;
    cart.apply(
        "TrafficPolicy",
        "targetRefs: [{kind: Service, name: cart}], loadBalancing: {algorithm: RoundRobin}, outlierDetection: \
         {consecutive5xx: 1, maxEjectionPercent: 100}",
    );
    cart.route("", "sessionPersistence: {sessionName: sid}");
    let mut client = cart.client().await;
    let first = client.get("/who").await;
    let cookie = first.header("set-cookie").to_owned();
    assert!(cookie.starts_with("sid=") && cookie.ends_with("; Path=/; HttpOnly"), "{cookie}");
    let token = cookie.split(';').next().unwrap();
    for _ in 0..6 {
        let answer = client.get_with("/who", &[("cookie", token)]).await;
        assert_eq!((answer.text(), answer.header("set-cookie")), (first.text(), ""));
    }
    let explained = cart.mesh.weft(&["explain", "--from", "default/shopper", "--to", "cart"]);
    assert!(explained.out.contains("by cookie sid of /, as HTTPRoute default/cart says"), "{}", explained.out);

    let at = ENDPOINTS.iter().position(|name| *name == first.text()).unwrap();
    cart.apps[at].fail(500);
    let failed = client.get_with("/who", &[("cookie", token)]).await;
    assert_eq!(failed.status, 500, "it is ejected by that");
    let moved = client.get_with("/who", &[("cookie", token)]).await;
    assert_eq!((moved.status.as_u16(), moved.text().as_str()), (200, ENDPOINTS[1 - at]));
    let again = moved.header("set-cookie");
    assert!(again.starts_with("sid=") && !again.starts_with(token), "{again} after {token}");
    assert_eq!(cart.caller.metrics().await.sum("weft_sessions_moved_total", &[]), 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_answer_is_raced_by_another_endpoint() {
    let cart = Cart::start().await;
    cart.apply(
        "TrafficPolicy",
        "targetRefs: [{kind: Service, name: cart}], loadBalancing: {algorithm: RoundRobin}, hedge: {after: 60ms}",
    );
    let explained = cart.mesh.weft(&["explain", "--from", "default/shopper", "--to", "cart"]);
    let told = "another attempt beside it after 60ms, of idempotent methods, as TrafficPolicy default/cart says";
    assert!(explained.out.contains(told), "{}", explained.out);
    let mut client = cart.client().await;
    // Both are connected to: who can't be reached is not picked.
    let mut answered = BTreeSet::new();
    for _ in 0..2_000 {
        if answered.len() == ENDPOINTS.len() {
            break;
        }
        answered.insert(client.get("/who").await.text());
    }
    assert_eq!(answered.len(), ENDPOINTS.len(), "{answered:?}");
    cart.servers[0].process.signal("STOP");
    for _ in 0..4 {
        let answer = client.get("/seen").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    cart.servers[0].process.signal("CONT");
    let metrics = cart.caller.metrics().await;
    let [raced, won] =
        ["weft_hedged_attempts_total", "weft_hedged_attempts_won_total"].map(|name| metrics.sum(name, &[]));
    assert!(raced >= 1.0 && (raced - won).abs() < 0.5, "{won} of {raced}");
}
