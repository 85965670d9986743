//! The control plane killed under load: traffic goes on, nothing is lost, and when it is back everything is as it would have been.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use weft_tests::{App, Client, Mesh, Sidecar, Workload, eventually};

/// Load at a fixed rate: requests sent, answered, and failed with when.
#[derive(Default)]
struct Load {
    stop: AtomicBool,
    sent: AtomicU64,
    answered: AtomicU64,
    failures: std::sync::Mutex<Vec<(Instant, String)>>,
}

/// `connections` clients that together send `rate` requests per second until told to stop.
fn load(
    proxy: std::net::SocketAddr,
    host: &'static str,
    rate: u32,
    connections: u32,
) -> (Arc<Load>, Vec<tokio::task::JoinHandle<()>>) {
    let load = Arc::new(Load::default());
    let pause = Duration::from_secs(1) * connections / rate;
    let tasks = (0..connections)
        .map(|_| {
            let load = Arc::clone(&load);
            tokio::spawn(async move {
                let mut client = Client::through(proxy, host).await;
                let mut next = tokio::time::interval(pause);
                while !load.stop.load(Ordering::SeqCst) {
                    next.tick().await;
                    load.sent.fetch_add(1, Ordering::SeqCst);
                    let result = client.call(http::Method::GET, "/who", &[], weft_tests::client::empty()).await;
                    match result {
                        Ok(answer) => {
                            load.answered.fetch_add(1, Ordering::SeqCst);
                            if answer.status != 200 {
                                let what = format!("{} {}", answer.status, answer.text());
                                load.failures.lock().unwrap().push((Instant::now(), what));
                            }
                        }
                        Err(error) => {
                            load.failures.lock().unwrap().push((Instant::now(), error.0));
                            client = Client::through(proxy, host).await;
                        }
                    }
                }
            })
        })
        .collect();
    (load, tasks)
}

async fn endpoint(mesh: &Mesh, name: &str) -> (Sidecar, App) {
    let workload = Workload::server(name, 8080, "http").of("reviews");
    let app = App::start(name, workload.ip, 8080).await;
    (mesh.sidecar(workload).await, app)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn killed_under_load_and_back() {
    // Certificates of 60 s: one is renewed while this runs.
    let mut mesh = Mesh::start_with(serde_json::json!({"svid_ttl_seconds": 60})).await;
    let (first, first_app) = endpoint(&mesh, "reviews-1").await;
    let (second, second_app) = endpoint(&mesh, "reviews-2").await;
    let (mut third, third_app) = endpoint(&mesh, "reviews-3").await;
    let client = mesh.sidecar(Workload::client("shopper")).await;
    let mut bystander = mesh.sidecar(Workload::client("bystander")).await;
    eventually("all three endpoints answer", || async {
        let mut connection = Client::through(client.proxy(), "reviews").await;
        let mut names = std::collections::BTreeSet::new();
        for _ in 0..30 {
            names.insert(connection.get("/who").await.text());
        }
        (names.len() == 3).then_some(())
    })
    .await;
    let apps = || first_app.served() + second_app.served() + third_app.served();
    let counted_before = client.metrics().await.sum("istio_requests_total", &[("reporter", "source")]);
    let (served_before, (load, tasks)) = (apps(), load(client.proxy(), "reviews", 2_000, 40));
    let certificate = client.metrics().await.sum("weft_certificate_expiry_timestamp_seconds", &[]);
    eventually("load runs", || async { (load.answered.load(Ordering::SeqCst) > 1_000).then_some(()) }).await;

    mesh.kill_control();
    // A proxy that restarts meanwhile is ready from its disk and reaches everybody.
    bystander.restart();
    bystander.ready();
    assert_eq!(Client::through(bystander.proxy(), "reviews").await.get("/who").await.status, 200);
    let by_bystander = 1;
    // An endpoint stops without the control plane to tell of it.
    let stopped = Instant::now();
    third.process.kill();
    let noticed = load.answered.load(Ordering::SeqCst) + 4_000;
    eventually("load goes on without it", || async { (load.answered.load(Ordering::SeqCst) > noticed).then_some(()) })
        .await;
    let late: Vec<_> = {
        let failures = load.failures.lock().unwrap();
        failures.iter().filter(|(at, _)| *at < stopped || *at > stopped + Duration::from_secs(1)).cloned().collect()
    };
    assert!(late.is_empty(), "only requests to the stopped endpoint may fail, and for at most 1 s: {late:?}");
    let staleness = client.metrics().await;
    assert!(staleness.sum("weft_config_staleness_seconds", &[]) > 0.0, "{}", staleness.lines("staleness"));

    mesh.start_control();
    eventually("the proxies are back", || async {
        (client.metrics().await.sum("weft_control_connected", &[]) == 1.0).then_some(())
    })
    .await;
    // An endpoint leaves in order, and a certificate is renewed: neither costs a request.
    let mut second = second;
    second.process.signal("TERM");
    assert_eq!(second.process.ended().code(), Some(0), "{}", second.process.tail());
    eventually("the certificate is renewed", || async {
        (client.metrics().await.sum("weft_certificate_expiry_timestamp_seconds", &[]) > certificate).then_some(())
    })
    .await;
    load.stop.store(true, Ordering::SeqCst);
    for task in tasks {
        task.await.unwrap();
    }
    let (sent, answered) = (load.sent.load(Ordering::SeqCst), load.answered.load(Ordering::SeqCst));
    let failures = load.failures.lock().unwrap();
    let late: Vec<_> = failures.iter().filter(|(at, _)| *at > stopped + Duration::from_secs(1)).collect();
    assert!(late.is_empty(), "{late:?}");
    assert_eq!(sent, answered, "each request was answered: {failures:?}");
    eventually("requests sent = counted", || async {
        let counted = client.metrics().await.sum("istio_requests_total", &[("reporter", "source")]) - counted_before;
        (counted == sent as f64).then_some(())
    })
    .await;
    let failed = u64::try_from(failures.len()).unwrap();
    let arrived = apps() - served_before - by_bystander;
    assert!(arrived + failed >= sent && arrived <= sent, "{arrived} arrived, {failed} failed, {sent} sent");
    drop(first);
}
