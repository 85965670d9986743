//! What signs is replaced under load: no request fails, nobody is cut off, and in the end nothing needs the old root.

use serde_json::{Value, json};
use weft_tests::{App, Client, Mesh, Sidecar, Workload, eventually};

use super::load::load;

fn authority(mesh: &Mesh) -> Value {
    mesh.weft(&["ca", "show", "-o", "json"]).json()
}

async fn answers(client: &Sidecar) {
    eventually("the service answers", || async {
        (Client::through(client.proxy(), "reviews").await.get("/who").await.status == 200).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_root_is_replaced_and_nobody_notices() {
    let mut mesh = Mesh::start_with(json!({"svid_ttl_seconds": 10, "identity_grace_seconds": 0})).await;
    let server = Workload::server("reviews", 8080, "http");
    let app = App::start("reviews", server.ip, 8080).await;
    let server = mesh.sidecar(server).await;
    // Its host keeps the root that it was given at first.
    let kept = mesh.folder().join("first-ca.pem");
    std::fs::copy(mesh.ca_file(), &kept).unwrap();
    let client = mesh.sidecar(Workload::client("shopper").setting("control_ca", json!(kept))).await;
    answers(&client).await;
    let (load, tasks) = load(client.proxy(), "reviews", 200, 8);
    load.more(100).await;
    assert_eq!(mesh.weft(&["ca", "rotate", "--intermediate"]).code, 0);
    let before = authority(&mesh);
    let rotated = mesh.weft(&["ca", "rotate"]);
    assert!(rotated.code == 0 && rotated.out.contains("Trusted too:"), "{rotated:?}");
    let during = authority(&mesh);
    assert_eq!(during["previous"]["fingerprint"], before["root"]["fingerprint"]);
    assert!(during["left"]["certificates"].as_u64().unwrap() >= 2, "{during}");
    assert_ne!(mesh.weft(&["ca", "rotate"]).code, 0, "one at a time");
    // Whoever joins meanwhile, by the old root or the new one, is one of them.
    let late = mesh.sidecar(Workload::client("late").setting("control_ca", json!(kept))).await;
    answers(&late).await;
    load.more(100).await;
    eventually("the old root is dropped", || async { authority(&mesh)["previous"].is_null().then_some(()) }).await;
    assert!(authority(&mesh)["left"].is_null());
    load.more(200).await;
    // The control plane shows a certificate of the new root alone, which a proxy knows though its file has the old one.
    mesh.kill_control();
    mesh.start_control();
    for sidecar in [&client, &server, &late] {
        eventually("the proxies are back", || async {
            (sidecar.metrics().await.sum("weft_control_connected", &[]) == 1.0).then_some(())
        })
        .await;
    }
    load.stop.store(true, std::sync::atomic::Ordering::SeqCst);
    tasks.join_all().await;
    let failures = load.failures.lock().unwrap().clone();
    assert!(failures.is_empty(), "{:?}\n{}", failures.first(), client.process.tail());
    let events = mesh.weft(&["events", "--limit", "200"]);
    for action in ["ca.rotate-intermediate", "ca.rotate", "ca.finish"] {
        assert!(events.out.contains(action), "{action}: {events:?}");
    }
    drop(app);
}
