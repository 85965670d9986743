//! The control plane killed under load, and two of three endpoints after it: traffic goes on, nothing is lost, and when they
//! are back everything is as it would have been.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt;
use weft_tests::client::try_tunnel;
use weft_tests::{App, Client, Mesh, Sidecar, TcpApp, Workload, eventually};

use super::load::{Failure, Load, load};

/// Failures that no death of an endpoint excuses: of requests sent later than 1.5 s after it, or known later than 2.5 s.
/// A connection is suspect after 750 ms of silence, which is looked for four times a second; then a dial tells.
fn unexcused(load: &Load, deaths: &[Instant]) -> String {
    let failures = load.failures.lock().unwrap();
    let excused = |failure: &&Failure, death: Instant| {
        let (sent, known) = (failure.sent + Duration::from_secs(1), failure.known);
        sent > death
            && failure.sent < death + Duration::from_millis(1_500)
            && known < death + Duration::from_millis(2_500)
    };
    let excused = |failure: &&Failure| deaths.iter().any(|death| excused(failure, *death));
    let unexcused: Vec<_> = failures.iter().filter(|failure| !excused(failure)).collect();
    let show = |failure: &&Failure| {
        let after = |at: Instant| at.saturating_duration_since(deaths[0]).as_millis();
        format!("sent at {} ms, known at {} ms: {}", after(failure.sent), after(failure.known), failure.what)
    };
    let shown: Vec<_> = unexcused.iter().take(5).map(show).collect();
    if unexcused.is_empty() { String::new() } else { format!("{} of {}: {shown:#?}", unexcused.len(), failures.len()) }
}

/// An endpoint by its sidecar and its app.
async fn endpoint(mesh: &Mesh, name: &str) -> (Sidecar, App) {
    let workload = Workload::server(name, 8080, "http").of("reviews");
    let app = App::start(name, workload.ip, 8080).await;
    (mesh.sidecar(workload).await, app)
}

/// Gives the number of requests that it took.
async fn all_answer(client: &Sidecar, count: usize) -> u32 {
    let asked = std::cell::Cell::new(0);
    eventually("all endpoints answer", || async {
        let mut connection = Client::through(client.proxy(), "reviews").await;
        let mut names = BTreeSet::new();
        for _ in 0..30 {
            names.insert(connection.get("/who").await.text());
            asked.set(asked.get() + 1);
        }
        (names.len() == count).then_some(())
    })
    .await;
    asked.get()
}

/// Waits until the dead are known: then no request goes there, not even to be sent again.
async fn nobody_is_sent_again(client: &Sidecar, load: &Load) {
    eventually("the dead are known", || async {
        let before = client.metrics().await.sum("weft_retries_total", &[]);
        load.more(4_000).await;
        (client.metrics().await.sum("weft_retries_total", &[]) == before).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn killed_under_load_and_back() {
    // Certificates of 60 s: one is renewed while this runs.
    let mut mesh = Mesh::start_with(serde_json::json!({"svid_ttl_seconds": 60})).await;
    let (first, first_app) = endpoint(&mesh, "reviews-1").await;
    let (mut second, second_app) = endpoint(&mesh, "reviews-2").await;
    let (mut third, third_app) = endpoint(&mesh, "reviews-3").await;
    let client = mesh.sidecar(Workload::client("shopper")).await;
    let mut bystander = mesh.sidecar(Workload::client("bystander")).await;
    let asked = f64::from(all_answer(&client, 3).await);
    // It asks for what it uses while there is somebody to ask, and remembers.
    assert_eq!(Client::through(bystander.proxy(), "reviews").await.get("/who").await.status, 200);
    let apps = || first_app.served() + second_app.served() + third_app.served();
    let counted = || async { client.metrics().await.sum("istio_requests_total", &[("reporter", "source")]) };
    eventually("those are counted", || async { (counted().await == asked).then_some(()) }).await;
    let (served_before, (load, tasks)) = (apps(), load(client.proxy(), "reviews", 2_000, 40));
    let certificate = client.metrics().await.sum("weft_certificate_expiry_timestamp_seconds", &[]);
    load.more(1_000).await;

    mesh.kill_control();
    // A proxy that restarts meanwhile is ready from its disk and reaches everybody.
    bystander.restart();
    bystander.ready();
    assert_eq!(Client::through(bystander.proxy(), "reviews").await.get("/who").await.status, 200);
    let by_bystander = 1;
    // Two of three endpoints die without the control plane to tell of it.
    let mut deaths = Vec::new();
    for victim in [&mut third, &mut second] {
        deaths.push(Instant::now());
        victim.process.kill();
        load.more(4_000).await;
        nobody_is_sent_again(&client, &load).await;
        assert_eq!(unexcused(&load, &deaths), "", "only requests to a dead endpoint may fail, until it is noticed");
    }
    let metrics = client.metrics().await;
    assert!(metrics.sum("weft_config_staleness_seconds", &[]) > 0.0, "{}", metrics.lines("staleness"));
    assert!(metrics.sum("weft_endpoints_unreachable", &[]) >= 2.0, "{}", metrics.lines("unreachable"));
    // One comes back from its disk, and is found without being told of.
    third.restart();
    let before = third_app.served();
    eventually("it gets its share again", || async { (third_app.served() > before + 100).then_some(()) }).await;

    mesh.start_control();
    second.restart();
    for proxy in [&client, &first, &second, &third] {
        eventually("the proxies are back", || async {
            (proxy.metrics().await.sum("weft_control_connected", &[]) == 1.0).then_some(())
        })
        .await;
    }
    eventually("every endpoint is reached again", || async {
        (client.metrics().await.sum("weft_endpoints_unreachable", &[]) == 0.0).then_some(())
    })
    .await;
    // An endpoint leaves in order, and a certificate is renewed: neither costs a request.
    second.process.signal("TERM");
    assert_eq!(second.process.ended().code(), Some(0), "{}", second.process.tail());
    eventually("the certificate is renewed", || async {
        (client.metrics().await.sum("weft_certificate_expiry_timestamp_seconds", &[]) > certificate).then_some(())
    })
    .await;
    load.stop.store(true, Ordering::SeqCst);
    tasks.join_all().await;
    let (sent, answered) = (load.sent.load(Ordering::SeqCst), load.answered.load(Ordering::SeqCst));
    assert_eq!(unexcused(&load, &deaths), "");
    let failures = load.failures.lock().unwrap().clone();
    assert_eq!(sent, answered, "each request was answered: {failures:?}");
    eventually("requests sent = counted", || async { (counted().await - asked == sent as f64).then_some(()) }).await;
    let failed = u64::try_from(failures.len()).unwrap();
    let arrived = apps() - served_before - by_bystander;
    assert!(arrived + failed >= sent && arrived <= sent, "{arrived} arrived, {failed} failed, {sent} sent");
    drop(first);
}

/// Greeting on a new connection to the service `store`, which tells who answered.
async fn greeted(client: &Sidecar) -> Option<String> {
    let (mut stream, head) = try_tunnel(client.proxy(), "store:6000").await;
    let mut greeting = [0; 7];
    let greeted = head.contains(" 200") && stream.read_exact(&mut greeting).await.is_ok();
    greeted.then(|| String::from_utf8_lossy(&greeting).into_owned())
}

/// Greetings on 30 connections, one after the other; `None` where one of them failed.
async fn thirty_greeted(client: &Sidecar) -> Option<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for _ in 0..30 {
        names.insert(greeted(client).await?);
    }
    Some(names)
}

/// An app that is away under a living sidecar has seen nothing: its share goes to the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_go_to_the_endpoint_whose_app_is_there() {
    let mesh = Mesh::start().await;
    let (_here, _app) = endpoint(&mesh, "here").await;
    let _away = mesh.sidecar(Workload::server("away", 8080, "http").of("reviews")).await;
    let alone = mesh.sidecar(Workload::server("alone", 8080, "http")).await;
    let client = mesh.sidecar(Workload::client("web")).await;
    let retried = || async { client.metrics().await.sum("weft_retries_total", &[]) > 0.0 };
    eventually("the endpoint without an app was tried", || async {
        let mut connection = Client::through(client.proxy(), "reviews").await;
        for _ in 0..10 {
            let answer = connection.get("/who").await;
            assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "here"));
        }
        retried().await.then_some(())
    })
    .await;
    // With nobody else to turn to the caller is told why.
    let answer = Client::through(client.proxy(), "alone").await.get("/who").await;
    let address = format!("cannot connect to the app at {}:8080", alone.workload.ip);
    assert!(answer.status == 503 && answer.text().contains(&address), "{} {}", answer.status, answer.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tcp_connections_go_where_somebody_lives() {
    let mut mesh = Mesh::start().await;
    let (mut sidecars, mut apps) = (Vec::new(), Vec::new());
    for name in ["store-1", "store-2", "store-3"] {
        let workload = Workload::server(name, 6000, "tcp").of("store");
        apps.push(TcpApp::start(workload.ip, 6000, name).await);
        sidecars.push(mesh.sidecar(workload).await);
    }
    let client = mesh.sidecar(Workload::client("teller")).await;
    eventually("all greet", || async { (thirty_greeted(&client).await?.len() == 3).then_some(()) }).await;

    mesh.kill_control();
    sidecars[0].process.kill();
    sidecars[1].process.kill();
    eventually("every connection is served, at the first try", || async {
        let before = client.metrics().await.sum("weft_retries_total", &[]);
        let names = thirty_greeted(&client).await?;
        let retries = client.metrics().await.sum("weft_retries_total", &[]) - before;
        (retries == 0.0 && names == BTreeSet::from(["store-3".to_owned()])).then_some(())
    })
    .await;
}
