//! Near endpoints take everything while they can, whether a policy ejects or not; farther ones take over when they die or
//! fail, and give back when they are there again.

use serde_json::json;
use weft_tests::{App, Client, Mesh, Sidecar, Workload, eventually};

const REGION: &str = "topology.kubernetes.io/region";
const ZONE: &str = "topology.kubernetes.io/zone";

fn policy(rest: &str) -> String {
    format!(
        "apiVersion: weft.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {{name: cart, namespace: default}}\n\
         spec: {{targetRefs: [{{kind: Service, name: cart}}], loadBalancing: {{locality: {{prefer: Zone}}}}{rest}}}\n"
    )
}

/// An endpoint of the cart in a zone of its own.
async fn endpoint(mesh: &Mesh, name: &str, zone: &str) -> (App, Sidecar) {
    let mut workload = Workload::server(name, 8080, "http").of("cart");
    workload.labels = json!({"app": "cart", REGION: "eu", ZONE: zone});
    let app = App::start(name, workload.ip, 8080).await;
    (app, mesh.sidecar(workload).await)
}

/// The answers of twenty requests, each by a connection of its own, and so by any worker.
async fn twenty(caller: &Sidecar) -> Vec<(u16, String)> {
    let mut answers = Vec::new();
    for _ in 0..20 {
        let answer = Client::through(caller.proxy(), "cart").await.get("/who").await;
        answers.push((answer.status.as_u16(), answer.text()));
    }
    answers
}

/// Waits until one endpoint answers everything.
async fn all_from(caller: &Sidecar, name: &str) {
    let expected = (200, name.to_owned());
    eventually(&format!("{name} answers everything"), || async {
        twenty(caller).await.iter().all(|answer| *answer == expected).then_some(())
    })
    .await;
}

/// Requests that were sent to endpoints so near.
async fn counted(caller: &Sidecar, nearness: &str) -> f64 {
    caller.metrics().await.sum("weft_locality_requests_total", &[("nearness", nearness)])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_near_one_takes_all_until_it_dies_or_fails_and_again_when_it_is_back() {
    let mesh = Mesh::start().await;
    let (near_app, mut near) = endpoint(&mesh, "near", "a").await;
    let (_far_app, _far) = endpoint(&mesh, "far", "b").await;
    let mut shopper = Workload::client("shopper");
    shopper.labels = json!({"app": "shopper", REGION: "eu", ZONE: "a"});
    let caller = mesh.sidecar(shopper).await;
    let apply = |rest: &str| {
        let applied = mesh.weft_reading(&policy(rest), &["apply", "-f", "-", "--wait", "30s"]);
        assert_eq!(applied.code, 0, "{}{}", applied.out, applied.err);
    };
    eventually("without a policy both answer", || async {
        let answers = twenty(&caller).await;
        ["near", "far"].iter().all(|name| answers.contains(&(200, (*name).to_owned()))).then_some(())
    })
    .await;

    apply("");
    all_from(&caller, "near").await;
    let (zone, region) = (counted(&caller, "zone").await, counted(&caller, "region").await);
    let answers = twenty(&caller).await;
    assert!(answers.iter().all(|answer| *answer == (200, "near".to_owned())), "{answers:?}");
    assert_eq!((counted(&caller, "zone").await, counted(&caller, "region").await), (zone + 20.0, region));
    let told = mesh.weft(&["describe", "service", "cart"]);
    let locality = "loadBalancing.locality: Zone: zone, region, then elsewhere, each as far as it carries at 140 % \
                    (TrafficPolicy default/cart)";
    assert!(told.out.contains(locality), "{}", told.out);
    let told = mesh.weft(&["explain", "--from", "default/shopper", "--to", "cart"]);
    let order = "from eu/a first zone (near), then region (far), as TrafficPolicy default/cart says";
    assert!(told.out.contains(order), "{}", told.out);

    // No ejection is asked for: who can't be reached is out by that alone.
    near.process.kill();
    all_from(&caller, "far").await;
    assert!(counted(&caller, "region").await >= region + 20.0);
    near.restart();
    near.ready();
    all_from(&caller, "near").await;

    // It can be reached, and fails: what ejects it makes the far one take over.
    apply(", outlierDetection: {consecutive5xx: 2, baseEjectionTime: 1h, maxEjectionTime: 1h, maxEjectionPercent: 50}");
    near_app.fail(500);
    all_from(&caller, "far").await;
}
