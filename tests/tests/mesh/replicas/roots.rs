//! The root of three control planes is replaced under load and changes, while one of them is stopped: it comes back when its root
//! is dropped, and nobody notices anything.

use super::*;

/// How the control plane tells of the roots.
fn authority(mesh: &Mesh) -> Value {
    mesh.weft(&["ca", "show", "-o", "json"]).json()
}

mod long {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    #[ignore = "takes minutes and etcd: cargo xtask test --long"]
    async fn the_root_of_three_control_planes_is_replaced_and_nobody_notices() {
        let cluster = Cluster::start(3);
        let settings = json!({
            "store": cluster.location("mesh"), "svid_ttl_seconds": 20, "identity_grace_seconds": 0,
            "limits": {"max_api_calls_per_minute": 1_000_000},
        });
        let first = Mesh::start_with(settings.clone()).await;
        let mut second = Mesh::beside(&first, settings.clone());
        let third = Mesh::beside(&first, settings);
        let all: Vec<_> = [&first, &second, &third].map(|mesh| format!("https://{}:15012", mesh.ip)).into();
        let at_any = |workload: Workload| {
            let token_file = first.folder().join(&workload.name).join("token");
            workload.setting("control", json!({"address": all, "ca_file": first.ca_file(), "token_file": token_file}))
        };
        let client = first.sidecar(at_any(Workload::client("shopper"))).await;
        let mut endpoints = Vec::new();
        for name in BOTH {
            let workload = at_any(Workload::server(name, 8080, "http").of("reviews"));
            let app = App::start(name, workload.ip, 8080).await;
            endpoints.push((first.sidecar(workload).await, app));
        }
        eventually("the service answers", || async {
            (Client::through(client.proxy(), "reviews").await.get("/who").await.status == 200).then_some(())
        })
        .await;
        first.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: changes}\n");
        let changing = Changing::start([&first, &third].map(Mesh::operator));
        let (load, tasks) = load(client.proxy(), "reviews", 50, 10);
        load.more(100).await;
        let before = authority(&first)["root"]["fingerprint"].clone();

        second.kill_control();
        let rotated = third.weft(&["ca", "rotate"]);
        assert!(rotated.code == 0 && rotated.out.contains("Trusted too:"), "{rotated:?}");
        let root = authority(&third)["root"]["fingerprint"].clone();
        assert_ne!(root, before);
        let refused = first.weft(&["ca", "rotate"]);
        assert!(refused.code != 0 && refused.err.contains("is being replaced already"), "{refused:?}");
        load.more(100).await;
        for mesh in [&first, &third] {
            eventually("the old root is dropped", || async {
                let shown = authority(mesh);
                (shown["previous"].is_null() && shown["root"]["fingerprint"] == root).then_some(())
            })
            .await;
        }
        load.more(100).await;
        // It has the old root alone, which nobody trusts any more.
        second.start_control();
        for mesh in [&first, &second, &third] {
            eventually("each issues below the new root", || async {
                let shown = authority(mesh);
                let replicas = shown["replicas"].as_array().unwrap();
                (replicas.len() == 3 && replicas.iter().all(|replica| replica["root"] == root)).then_some(())
            })
            .await;
        }
        // Its certificates are believed: a proxy that can go nowhere else joins there, and calls.
        let late = second.sidecar(Workload::client("late")).await;
        eventually("the service answers", || async {
            (Client::through(late.proxy(), "reviews").await.get("/who").await.status == 200).then_some(())
        })
        .await;
        load.more(200).await;
        load.stop.store(true, Ordering::SeqCst);
        tasks.join_all().await;
        let changes = changing.end().await;
        let fates = changes.fates.lock().unwrap().clone();
        for mesh in [&first, &second, &third] {
            eventually("the last change is known", || async {
                let listed = mesh.weft(&["get", "services", "-n", "changes", "-o", "json"]).json();
                std::panic::catch_unwind(|| changes::check(&fates, &listed)).is_ok().then_some(())
            })
            .await;
        }
        let (sent, failures) = (load.sent.load(Ordering::SeqCst), load.failures.lock().unwrap().clone());
        let refused = changes.refused.load(Ordering::SeqCst);
        eprintln!("{sent} requests, {} failed; {refused} changes refused", failures.len());
        assert!(failures.is_empty(), "{:?}\n{}", failures.first(), client.process.tail());
        assert_eq!(refused, 0, "and no change was refused");
        let events = first.weft(&["events", "--limit", "1000", "--action", "ca."]);
        for action in ["ca.rotate", "ca.sign", "ca.finish"] {
            assert!(events.out.contains(action), "{action}: {events:?}");
        }
    }
}
