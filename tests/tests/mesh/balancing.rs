//! What a TrafficPolicy says of balancing holds through real sidecars: turns are exact, a key stays at one endpoint and moves
//! when that one leaves, every caller agrees on where, and who fails in a row is left out until a request there went well,
//! and no more requests are under way than may be.

use std::collections::{BTreeMap, BTreeSet};

use weft_tests::{App, Client, Mesh, Sidecar, Workload, eventually};

const ENDPOINTS: [&str; 3] = ["cart-1", "cart-2", "cart-3"];

fn policy(balancing: &str) -> String {
    format!(
        "apiVersion: weft.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {{name: cart, namespace: default}}\n\
         spec: {{targetRefs: [{{kind: Service, name: cart}}], loadBalancing: {balancing}}}\n"
    )
}

struct Cart {
    mesh: Mesh,
    apps: Vec<App>,
    servers: Vec<Sidecar>,
}

impl Cart {
    async fn start() -> Self {
        let mesh = Mesh::start().await;
        let (mut apps, mut servers) = (Vec::new(), Vec::new());
        for name in ENDPOINTS {
            let workload = Workload::server(name, 8080, "http").of("cart");
            apps.push(App::start(name, workload.ip, 8080).await);
            servers.push(mesh.sidecar(workload).await);
        }
        Self { mesh, apps, servers }
    }

    /// Applies the policy and waits until every proxy has it.
    fn balance(&self, balancing: &str) {
        let applied = self.mesh.weft_reading(&policy(balancing), &["apply", "-f", "-", "--wait", "30s"]);
        assert_eq!(applied.code, 0, "{}{}", applied.out, applied.err);
    }
}

/// Waits until requests of this caller reach every one of the endpoints.
async fn reaches_all(caller: &Sidecar) {
    let mut seen = BTreeSet::new();
    eventually("every endpoint answers", || {
        let proxy = caller.proxy();
        async move {
            let answer = Client::through(proxy, "cart").await.get("/who").await;
            (answer.status == 200).then(|| answer.text())
        }
    })
    .await;
    for _ in 0..200 {
        let answer = Client::through(caller.proxy(), "cart").await.get("/who").await;
        seen.insert(answer.text());
        if seen.len() == ENDPOINTS.len() {
            return;
        }
    }
    panic!("only {seen:?} answered");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn turns_are_exact() {
    let cart = Cart::start().await;
    let caller = cart.mesh.sidecar(Workload::client("shopper")).await;
    reaches_all(&caller).await;
    cart.balance("{algorithm: RoundRobin}");
    // One connection is one worker's, which has turns of its own.
    let mut client = Client::through(caller.proxy(), "cart").await;
    let mut got = BTreeMap::new();
    for _ in 0..60 {
        let answer = client.get("/who").await;
        assert_eq!(answer.status, 200);
        *got.entry(answer.text()).or_insert(0) += 1;
    }
    assert_eq!(got, ENDPOINTS.map(|name| (name.to_owned(), 20)).into());
}

/// The endpoint of each of forty users, as a caller finds it.
async fn homes(caller: &Sidecar) -> Vec<String> {
    let mut homes = Vec::new();
    for user in 0..40 {
        let user = format!("user-{user}");
        let mut served = BTreeSet::new();
        // Each by a connection of its own, and so by any worker.
        for _ in 0..3 {
            let answer = Client::through(caller.proxy(), "cart").await.get_with("/who", &[("x-user", &user)]).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            served.insert(answer.text());
        }
        assert_eq!(served.len(), 1, "{user} is at {served:?}");
        homes.extend(served);
    }
    homes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_stays_at_one_endpoint_and_moves_when_that_one_leaves() {
    let mut cart = Cart::start().await;
    let caller = cart.mesh.sidecar(Workload::client("shopper")).await;
    reaches_all(&caller).await;
    cart.balance("{algorithm: RingHash, hash: {header: X-User}}");
    let before = homes(&caller).await;
    assert_eq!(before.iter().collect::<BTreeSet<_>>().len(), 3, "{before:?}");
    let other = cart.mesh.sidecar(Workload::client("second-shopper")).await;
    reaches_all(&other).await;
    assert_eq!(homes(&other).await, before, "every caller agrees");
    let told = cart.mesh.weft(&["describe", "service", "cart"]);
    assert!(told.out.contains("loadBalancing: RingHash by header x-user (TrafficPolicy default/cart)"), "{}", told.out);
    let told = cart.mesh.weft(&["explain", "--from", "default/shopper", "--to", "cart", "-H", "x-user: a"]);
    assert!(told.out.contains("RingHash by header x-user, as TrafficPolicy default/cart says"), "{}", told.out);

    cart.servers.remove(0).terminate();
    eventually("its keys are elsewhere", || async {
        let lost = before.iter().position(|home| home == "cart-1").unwrap();
        let user = format!("user-{lost}");
        let answer = Client::through(caller.proxy(), "cart").await.get_with("/who", &[("x-user", &user)]).await;
        (answer.status == 200 && answer.text() != "cart-1").then_some(())
    })
    .await;
    let after = homes(&caller).await;
    for (was, now) in before.iter().zip(&after) {
        assert!(was == now || was == "cart-1" && now != "cart-1", "{was} moved to {now}");
    }
    let metrics = caller.metrics().await;
    let lacking = metrics.sum("weft_requests_without_hash_key_total", &[]);
    assert_eq!(Client::through(caller.proxy(), "cart").await.get("/who").await.status, 200);
    assert_eq!(caller.metrics().await.sum("weft_requests_without_hash_key_total", &[]), lacking + 1.0);
}

/// CONNECT is answered once an endpoint can be had: that is no request, and those inside it are spread as any others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connect_takes_nothing_of_the_requests_inside_it() {
    let cart = Cart::start().await;
    let caller = cart.mesh.sidecar(Workload::client("shopper")).await;
    reaches_all(&caller).await;
    cart.balance("{algorithm: RingHash, hash: {header: X-User}}");
    let homes = homes(&caller).await;
    let lacking = caller.metrics().await.sum("weft_requests_without_hash_key_total", &[]);
    for (user, home) in (0..10).zip(&homes) {
        let mut client = Client::h1_in_tunnel(caller.proxy(), "cart:80").await;
        let answer = client.get_with("/who", &[("x-user", &format!("user-{user}"))]).await;
        assert_eq!((answer.status.as_u16(), answer.text()), (200, home.clone()));
    }
    assert_eq!(caller.metrics().await.sum("weft_requests_without_hash_key_total", &[]), lacking);
    // Two workers, each with turns of its own, which none of thirty tunnels takes from its request.
    cart.balance("{algorithm: RoundRobin}");
    let mut got = BTreeMap::new();
    for _ in 0..30 {
        let answer = Client::h1_in_tunnel(caller.proxy(), "cart:80").await.get("/who").await;
        *got.entry(answer.text()).or_insert(0_i32) += 1;
    }
    assert!(got.len() == 3 && got.values().all(|count| (count - 10).abs() <= 2), "{got:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_fails_in_a_row_is_left_out_until_a_request_there_went_well() {
    let cart = Cart::start().await;
    let caller = cart.mesh.sidecar(Workload::client("shopper")).await;
    reaches_all(&caller).await;
    let ejecting = "{algorithm: RoundRobin}, outlierDetection: {consecutive5xx: 3, baseEjectionTime: 2s, \
                    maxEjectionTime: 2s, maxEjectionPercent: 50}";
    cart.balance(ejecting);
    cart.apps[0].fail(500);
    // One connection is one worker's, which counts for itself.
    let mut client = Client::through(caller.proxy(), "cart").await;
    let mut failed = 0;
    for _ in 0..30 {
        failed += usize::from(client.get("/who").await.status == 500);
    }
    // Three in a row, and a trial where that took more than a second; without ejection it were ten.
    assert!((3..=5).contains(&failed), "{failed} of 30 failed");
    let metrics = caller.metrics().await;
    assert!(metrics.sum("weft_ejections_total", &[]) >= 1.0);
    assert_eq!(metrics.sum("weft_endpoints_ejected", &[]), 1.0);
    cart.apps[0].fail(0);
    let client = tokio::sync::Mutex::new(client);
    eventually("it is back", || async { (client.lock().await.get("/who").await.text() == "cart-1").then_some(()) })
        .await;
    // Each worker says so with its next request.
    eventually("nobody is ejected any more", || async {
        client.lock().await.get("/who").await;
        (caller.metrics().await.sum("weft_endpoints_ejected", &[]) < 0.5).then_some(())
    })
    .await;
}

/// An answer that comes later than the route gives it is a failure of its endpoint, though nobody broke off.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_always_late_is_ejected() {
    let cart = Cart::start().await;
    let caller = cart.mesh.sidecar(Workload::client("shopper")).await;
    reaches_all(&caller).await;
    let route = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: cart, namespace: default}\n\
                 spec: {parentRefs: [{group: '', kind: Service, name: cart}], rules: [{backendRefs: [{name: cart, port: 80}], \
                 timeouts: {request: 100ms}}]}\n";
    cart.mesh.apply(route);
    cart.balance("{algorithm: RoundRobin}, outlierDetection: {consecutiveLocalOriginFailures: 2}");
    let mut client = Client::through(caller.proxy(), "cart").await;
    for _ in 0..8 {
        assert_eq!(client.get("/slow/3000").await.status, 504);
    }
    // Of three at most one may be out.
    let metrics = caller.metrics().await;
    assert_eq!((metrics.sum("weft_ejections_total", &[]), metrics.sum("weft_endpoints_ejected", &[])), (1.0, 1.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_requests_are_under_way_than_may_be() {
    let cart = Cart::start().await;
    let caller = cart.mesh.sidecar(Workload::client("shopper")).await;
    reaches_all(&caller).await;
    cart.balance("{}, limits: {maxActiveRequests: 2, maxPendingRequests: 1, maxPendingTime: 20s}");
    let ask = |path: &'static str| {
        let proxy = caller.proxy();
        tokio::spawn(async move { Client::through(proxy, "cart").await.get(path).await })
    };
    let served = || cart.apps.iter().map(App::served).sum::<u64>();
    let before = served();
    let slow = [ask("/slow/1500"), ask("/slow/1500")];
    eventually("two are under way", || async { (served() == before + 2).then_some(()) }).await;
    let third = ask("/who");
    eventually("one waits", || async {
        (caller.metrics().await.sum("weft_requests_pending", &[]) == 1.0).then_some(())
    })
    .await;
    let refused = ask("/who").await.unwrap();
    assert_eq!(refused.status, 503);
    assert!(refused.text().contains("1 wait for one of those under way to end"), "{}", refused.text());
    for answer in slow.into_iter().chain([third]) {
        assert_eq!(answer.await.unwrap().status, 200);
    }
    let metrics = caller.metrics().await;
    assert_eq!(metrics.sum("weft_requests_pending", &[]), 0.0);
    assert_eq!(metrics.sum("weft_local_replies_total", &[("reason", "pending_requests")]), 1.0);
    // Off again there is no limit.
    cart.balance("{}");
    let all: Vec<_> = (0..8).map(|_| ask("/slow/200")).collect();
    for answer in all {
        assert_eq!(answer.await.unwrap().status, 200);
    }
}
