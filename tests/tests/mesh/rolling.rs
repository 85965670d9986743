//! A rolling restart in good order: each endpoint in turn leaves and comes back, sidecar and app, under load. Nobody notices.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use weft_tests::{App, Client, Mesh, Sidecar, Workload, eventually};

use super::load::load;

struct Endpoint {
    sidecar: Sidecar,
    app: Option<App>,
}

async fn endpoint(mesh: &Mesh, name: &str) -> Endpoint {
    let workload = Workload::server(name, 8080, "http").of("reviews");
    let app = App::start(name, workload.ip, 8080).await;
    Endpoint { sidecar: mesh.sidecar(workload).await, app: Some(app) }
}

impl Endpoint {
    /// The sidecar drains and ends, then the app; both come back as new processes would.
    async fn restart(&mut self) {
        let ended = self.sidecar.terminate();
        assert_eq!(ended.code(), Some(0), "{}", self.sidecar.process.tail());
        if let Some(app) = self.app.take() {
            app.stop().await;
        }
        let workload = &self.sidecar.workload;
        let (name, ip) = (workload.name.clone(), workload.ip);
        self.app = Some(App::start(&name, ip, 8080).await);
        self.sidecar.restart();
        self.sidecar.ready();
        let app = self.app.as_ref().expect("just started");
        eventually("it gets its share again", || async { (app.served() > 20).then_some(()) }).await;
    }
}

/// Restarts `endpoints` endpoints in turn, `rounds` times, under `rate` requests a second.
async fn restarts_lose_nothing(endpoints: usize, rounds: usize, rate: u32) {
    let mesh = Mesh::start().await;
    let mut all = Vec::new();
    for index in 0..endpoints {
        all.push(endpoint(&mesh, &format!("reviews-{index}")).await);
    }
    let client = mesh.sidecar(Workload::client("shopper")).await;
    eventually("every endpoint gets its share", || async {
        let status = Client::through(client.proxy(), "reviews").await.get("/who").await.status;
        let all_served = all.iter().all(|one| one.app.as_ref().is_some_and(|app| app.served() > 0));
        (status == 200 && all_served).then_some(())
    })
    .await;

    let (load, tasks) = load(client.proxy(), "reviews", rate, 40);
    load.more(500).await;
    let began = Instant::now();
    for _ in 0..rounds {
        for one in &mut all {
            one.restart().await;
        }
    }
    let (took, sent) = (began.elapsed(), load.sent.load(Ordering::SeqCst));
    load.stop.store(true, Ordering::SeqCst);
    tasks.join_all().await;
    let failures = load.failures.lock().unwrap().clone();
    let rate = sent as f64 / took.max(Duration::from_millis(1)).as_secs_f64();
    eprintln!("{} restarts, {sent} requests, {rate:.0} a second, {} lost", endpoints * rounds, failures.len());
    let shown: Vec<_> = failures.iter().take(5).map(|failure| (failure.sent - began, &failure.what)).collect();
    assert!(failures.is_empty(), "{} of {sent} lost: {shown:#?}\n{}", failures.len(), client.process.tail());
    assert_eq!(load.sent.load(Ordering::SeqCst), load.answered.load(Ordering::SeqCst), "each request was answered");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn each_endpoint_in_turn_restarts_and_nothing_is_lost() {
    restarts_lose_nothing(2, 1, 500).await;
}

mod long {
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    #[ignore = "takes a minute and the whole machine: cargo xtask test --long"]
    async fn twelve_rolling_restarts_lose_nothing() {
        super::restarts_lose_nothing(3, 4, 2_000).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    #[ignore = "takes a minute and the whole machine: cargo xtask test --long"]
    async fn twelve_rolling_restarts_of_two_lose_nothing() {
        super::restarts_lose_nothing(2, 6, 2_000).await;
    }
}
