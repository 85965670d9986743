//! A control plane that proxies can't hear: silence removes nobody. Each sidecar reaches it through a relay of its own, which falls
//! silent as a network does: what was open stays open, and nothing comes through.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::json;
use weft_tests::{App, Client, Mesh, Sidecar, Way, Workload, address, eventually};

use super::load::load;

struct Ground {
    mesh: Mesh,
    ways: Vec<Way>,
    client: Sidecar,
    endpoints: Vec<(Sidecar, App)>,
}

impl Ground {
    /// A caller and four endpoints.
    async fn new() -> Self {
        let ips: Vec<_> = (0..5).map(|_| address::next()).collect();
        let mesh = Mesh::start_with(json!({"advertise": ips})).await;
        let mut ways = Vec::new();
        for ip in ips {
            ways.push(Way::to(SocketAddr::new(mesh.ip, 15012), SocketAddr::new(ip, 15012)).await);
        }
        let by = |way: &Way, workload: Workload| {
            let folder = mesh.folder().join(&workload.name);
            let control = json!({
                "address": format!("https://{}", way.address), "ca_file": mesh.ca_file(), "token_file": folder.join("token"),
            });
            workload.setting("control", control)
        };
        let client = mesh.sidecar(by(&ways[0], Workload::client("shopper"))).await;
        let mut endpoints = Vec::new();
        for (index, way) in ways.iter().enumerate().skip(1) {
            let workload = by(way, Workload::server(&format!("reviews-{index}"), 8080, "http").of("reviews"));
            let app = App::start(&workload.name, workload.ip, 8080).await;
            endpoints.push((mesh.sidecar(workload).await, app));
        }
        let ground = Self { mesh, ways, client, endpoints };
        ground.all_serve().await;
        ground
    }

    /// Waits until each endpoint gets requests.
    async fn all_serve(&self) {
        let before: Vec<u64> = self.endpoints.iter().map(|(_, app)| app.served()).collect();
        eventually("every endpoint gets its share", || async {
            _ = Client::through(self.client.proxy(), "reviews").await.get("/who").await;
            self.endpoints.iter().zip(&before).all(|((_, app), before)| app.served() > *before).then_some(())
        })
        .await;
    }

    /// Cuts off these sidecars for so long, under load: nobody notices, and what is changed afterwards arrives.
    async fn survives(&self, cut: &[usize], lasts: Duration) {
        let what = format!("{} of {} cut off for {lasts:?}", cut.len(), self.ways.len());
        let (load, tasks) = load(self.client.proxy(), "reviews", 200, 20);
        load.more(100).await;
        for index in cut {
            self.ways[*index].set_open(false);
        }
        // The silence is the subject, not a wait for something.
        tokio::time::sleep(lasts).await;
        load.more(100).await;
        self.all_serve().await;
        for index in cut {
            self.ways[*index].set_open(true);
        }
        self.mesh.apply(&format!(
            "apiVersion: v1\nkind: Namespace\nmetadata: {{name: after-{}-{}}}\n",
            cut.len(),
            lasts.as_secs()
        ));
        self.all_serve().await;
        load.stop.store(true, Ordering::SeqCst);
        tasks.join_all().await;
        let failures = load.failures.lock().unwrap().clone();
        let sent = load.sent.load(Ordering::SeqCst);
        eprintln!("{what}: {sent} requests, {} failed", failures.len());
        let shown: Vec<_> = failures.iter().take(5).map(|failure| &failure.what).collect();
        assert!(failures.is_empty(), "{what}: {} of {sent}: {shown:#?}", failures.len());
    }
}

/// The endpoints of half the mesh, and everybody.
const HALF: &[usize] = &[1, 2];
const ALL: &[usize] = &[0, 1, 2, 3, 4];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_control_plane_that_nobody_hears_empties_nothing() {
    let ground = Ground::new().await;
    ground.survives(HALF, Duration::from_secs(1)).await;
    ground.survives(ALL, Duration::from_secs(1)).await;
}

mod long {
    use super::{ALL, Duration, Ground, HALF};

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "takes minutes: cargo xtask test --long"]
    async fn half_and_all_are_cut_off_for_up_to_a_minute() {
        let ground = Ground::new().await;
        for seconds in [1, 10, 60] {
            ground.survives(HALF, Duration::from_secs(seconds)).await;
            ground.survives(ALL, Duration::from_secs(seconds)).await;
        }
    }
}
