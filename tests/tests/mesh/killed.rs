//! `kill -9` of the control plane at random moments, under applies and load: what was acknowledged is there, no request fails, and
//! afterwards every proxy is in step.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use weft_tests::control::Operator;
use weft_tests::{App, Client, Mesh, Sidecar, Workload, eventually};

use super::load::load;

/// What a series of applies came to: the namespaces of which the control plane said that they are there.
#[derive(Default)]
struct Applied {
    stop: AtomicBool,
    acknowledged: Mutex<BTreeSet<String>>,
}

impl Applied {
    /// Applies one namespace after the other, each with a policy that keeps it out from then on, until told to stop.
    fn run(&self, operator: &Operator) {
        for index in 0.. {
            if self.stop.load(Ordering::SeqCst) {
                return;
            }
            let name = format!("n-{index}");
            let manifest = format!(
                "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}}}\n---\n\
                 apiVersion: weft.dev/v1alpha1\nkind: AccessPolicy\nmetadata: {{name: no-{name}, namespace: default}}\nspec:\n  \
                 targetRefs: [{{kind: Service, name: reviews}}]\n  action: Deny\n  \
                 rules: [{{from: [{{namespaces: [{name}]}}]}}]\n"
            );
            if operator.weft_reading(&manifest, &["apply", "-f", "-"]).code == 0 {
                self.acknowledged.lock().unwrap().insert(name);
            }
        }
    }
}

/// The configuration that a proxy has in force, but for its revision: an object that changed nothing for it is not told.
async fn in_force(sidecar: &Sidecar) -> serde_json::Value {
    let dump = Client::direct(sidecar.at(15000)).await.get("/config_dump").await.text();
    let mut dump: serde_json::Value = serde_json::from_str(&dump).unwrap();
    dump.as_object_mut().unwrap().remove("revision");
    dump
}

/// A pause of 0 to 400 ms, another one each time.
fn pause(round: usize) -> Duration {
    Duration::from_millis((round as u64 * 2_654_435_761 % 401) + 1)
}

async fn kills_lose_nothing(kills: usize, rate: u32) {
    let mut mesh = Mesh::start().await;
    let server = Workload::server("reviews", 8080, "http");
    let app = App::start("reviews", server.ip, 8080).await;
    let mut server = mesh.sidecar(server).await;
    let mut client = mesh.sidecar(Workload::client("shopper")).await;
    eventually("reviews is reachable", || async {
        (Client::through(client.proxy(), "reviews").await.get("/who").await.status == 200).then_some(())
    })
    .await;
    let (load, tasks) = load(client.proxy(), "reviews", rate, 40);
    let applied = Arc::new(Applied::default());
    let (doing, operator) = (applied.clone(), mesh.operator());
    let applying = std::thread::spawn(move || doing.run(&operator));
    for round in 0..kills {
        // At any moment of an apply.
        tokio::time::sleep(pause(round)).await;
        mesh.kill_control();
        mesh.start_control();
    }
    load.more(200).await;
    applied.stop.store(true, Ordering::SeqCst);
    applying.join().unwrap();
    load.stop.store(true, Ordering::SeqCst);
    tasks.join_all().await;

    let acknowledged = applied.acknowledged.lock().unwrap().clone();
    let listed = mesh.weft(&["get", "namespaces", "-o", "json"]).json();
    let listed: BTreeSet<_> = listed["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["metadata"]["name"].as_str().unwrap().to_owned())
        .collect();
    let lost: Vec<_> = acknowledged.difference(&listed).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    assert!(acknowledged.len() >= kills / 4, "{} applies", acknowledged.len());
    let failures = load.failures.lock().unwrap().clone();
    let sent = load.sent.load(Ordering::SeqCst);
    eprintln!("{kills} kills, {} applies acknowledged, {sent} requests, {} failed", acknowledged.len(), failures.len());
    assert!(failures.is_empty(), "{:?}\n{}", failures.first(), client.process.tail());
    // Every proxy is in step again, and holds what the control plane holds.
    mesh.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: last}\n");
    let proxies = mesh.weft(&["proxies", "-o", "json"]).json();
    let states: Vec<_> = proxies["proxies"].as_array().unwrap().iter().map(|proxy| proxy["state"].clone()).collect();
    assert!(states.len() == 2 && states.iter().all(|state| state == "synced"), "{proxies}");
    let told = in_force(&server).await.to_string();
    assert!(acknowledged.iter().all(|name| told.contains(&format!("\"{name}\\\""))), "the callee misses some: {told}");
    for sidecar in [&mut client, &mut server] {
        let held = in_force(sidecar).await;
        // One that starts with nothing is told everything that it uses.
        std::fs::remove_file(sidecar.state().join("bundle.pb")).unwrap();
        sidecar.restart();
        sidecar.ready();
        // It is in discovery again once it has taken what it is told.
        let served =
            async { while Client::through(sidecar.proxy(), "reviews").await.get("/who").await.status != 200 {} };
        tokio::time::timeout(Duration::from_secs(10), served).await.expect("it serves again");
        let told = in_force(sidecar).await;
        assert_eq!(held, told, "{} holds other than what it would be told", sidecar.workload.name);
    }
    drop(app);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_control_plane_that_is_killed_loses_nothing() {
    kills_lose_nothing(5, 200).await;
}

mod long {
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    #[ignore = "takes minutes and the whole machine: cargo xtask test --long"]
    async fn a_hundred_kills_lose_nothing() {
        super::kills_lose_nothing(100, 1_000).await;
    }
}
