//! The root of three control planes is replaced under load and changes, while one of them is stopped: it comes back when its root
//! is dropped, and nobody notices anything.

use super::*;

/// How the control plane tells of the roots.
fn authority(mesh: &Mesh) -> Value {
    mesh.weft(&["ca", "show", "-o", "json"]).json()
}

/// Three control planes that reach each other, and proxies that know all of them.
struct Three {
    planes: [Mesh; 3],
    client: Sidecar,
    _endpoints: Vec<(Sidecar, App)>,
}

impl Three {
    async fn start(cluster: &Cluster) -> Self {
        let settings = json!({
            "store": cluster.location("mesh"), "svid_ttl_seconds": 20, "identity_grace_seconds": 0,
            "limits": {"max_api_calls_per_minute": 1_000_000},
        });
        let first = Mesh::start_with(settings.clone()).await;
        let planes = [Mesh::beside(&first, settings.clone()), Mesh::beside(&first, settings)];
        let [second, third] = planes;
        let planes = [first, second, third];
        let all: Vec<_> = planes.iter().map(|mesh| format!("https://{}:15012", mesh.ip)).collect();
        let first = &planes[0];
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
        answers(&client).await;
        first.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: changes}\n");
        Self { planes, client, _endpoints: endpoints }
    }

    /// These control planes trust this root and no other.
    async fn trust_alone(&self, planes: &[usize], root: &Value) {
        for plane in planes {
            eventually("the old root is dropped", || async {
                let shown = authority(&self.planes[*plane]);
                (shown["previous"].is_null() && shown["root"]["fingerprint"] == *root).then_some(())
            })
            .await;
        }
    }

    async fn all_issue_below(&self, root: &Value) {
        for mesh in &self.planes {
            eventually("each issues below the new root", || async {
                let shown = authority(mesh);
                let replicas = shown["replicas"].as_array().unwrap();
                (replicas.len() == 3 && replicas.iter().all(|replica| replica["root"] == *root)).then_some(())
            })
            .await;
        }
    }
}

async fn answers(client: &Sidecar) {
    eventually("the service answers", || async {
        (Client::through(client.proxy(), "reviews").await.get("/who").await.status == 200).then_some(())
    })
    .await;
}

mod long {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    #[ignore = "takes minutes and etcd: cargo xtask test --long"]
    async fn the_root_of_three_control_planes_is_replaced_and_nobody_notices() {
        let cluster = Cluster::start(3);
        let mut three = Three::start(&cluster).await;
        let changing = Changing::start([0, 2].map(|plane: usize| three.planes[plane].operator()));
        let (load, tasks) = load(three.client.proxy(), "reviews", 50, 10);
        load.more(100).await;
        let before = authority(&three.planes[0])["root"]["fingerprint"].clone();

        three.planes[1].kill_control();
        let rotated = three.planes[2].weft(&["ca", "rotate"]);
        assert!(rotated.code == 0 && rotated.out.contains("Trusted too:"), "{rotated:?}");
        let root = authority(&three.planes[2])["root"]["fingerprint"].clone();
        assert_ne!(root, before);
        let refused = three.planes[0].weft(&["ca", "rotate"]);
        assert!(refused.code != 0 && refused.err.contains("is being replaced already"), "{refused:?}");
        load.more(100).await;
        three.trust_alone(&[0, 2], &root).await;
        load.more(100).await;
        // It has the old root alone, which nobody trusts any more.
        three.planes[1].start_control();
        three.all_issue_below(&root).await;
        // What it issues is believed: a proxy that knows no other joins there, and calls.
        let late = three.planes[1].sidecar(Workload::client("late")).await;
        answers(&late).await;
        load.more(200).await;
        load.stop.store(true, Ordering::SeqCst);
        tasks.join_all().await;
        let changes = changing.end().await;
        let (sent, failures) = (load.sent.load(Ordering::SeqCst), load.failures.lock().unwrap().clone());
        let (applied, refused) = (changes.applied.load(Ordering::SeqCst), changes.refused.load(Ordering::SeqCst));
        eprintln!("{sent} requests, {} failed; {applied} changes, {refused} refused", failures.len());
        assert!(failures.is_empty(), "{:?}\n{}", failures.first(), three.client.process.tail());
        assert_eq!(refused, 0, "a control plane that goes on refuses nothing");
        let events = three.planes[0].weft(&["events", "--limit", "1000", "--action", "ca."]);
        for action in ["ca.rotate", "ca.sign", "ca.finish"] {
            assert!(events.out.contains(action), "{action}: {events:?}");
        }
    }
}
