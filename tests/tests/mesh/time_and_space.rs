//! Identities of a mesh of real processes under time and operators: certificates that end while the control plane is
//! away, and identities that are banned. Each test ends in service, or in a sentence with the cure.

use std::time::{Duration, Instant};

use serde_json::json;
use weft_tests::{App, Client, Mesh, Sidecar, Workload, eventually, until};

async fn pair(mesh: &Mesh) -> (Sidecar, Sidecar, App) {
    let server = Workload::server("reviews", 8080, "http");
    let app = App::start("reviews", server.ip, 8080).await;
    (mesh.sidecar(Workload::client("frontend")).await, mesh.sidecar(server).await, app)
}

/// Status and text of one request on a connection of its own.
async fn ask(client: &Sidecar, path: &str) -> (u16, String) {
    let answer = Client::through(client.proxy(), "reviews").await.get(path).await;
    (answer.status.as_u16(), answer.text())
}

async fn becomes(client: &Sidecar, path: &str, status: u16) {
    eventually(&format!("{path} gives {status}"), || async { (ask(client, path).await.0 == status).then_some(()) })
        .await;
}

async fn readiness(sidecar: &Sidecar) -> String {
    Client::direct(sidecar.at(15021)).await.get("/healthz/ready").await.text()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_banned_identity_is_cut_off_within_two_seconds_and_kept_out() {
    let mesh = Mesh::start().await;
    let (client, server, _app) = pair(&mesh).await;
    becomes(&client, "/who", 200).await;
    let mut standing = Client::through(client.proxy(), "reviews").await;
    assert_eq!(standing.get("/who").await.status, 200);
    let begun = Instant::now();
    let banned = mesh.weft(&["proxy", "ban", "frontend", "--reason", "broken into"]);
    assert!(banned.code == 0 && banned.out.contains("sa/frontend is kept out"), "{banned:?}");
    while standing.get("/who").await.status != 503 {
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    }
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    let (_, text) = ask(&client, "/who").await;
    assert!(text.contains("banned"), "{text}");
    let listed = mesh.weft(&["proxy", "bans"]);
    assert!(listed.out.contains("broken into"), "{listed:?}");
    // The callee knows without its control plane, also after a restart.
    assert!(std::fs::read_to_string(server.state().join("denied")).unwrap().contains("sa/frontend"));
    let lifted = mesh.weft(&["proxy", "unban", "default/frontend"]);
    assert_eq!(lifted.code, 0, "{lifted:?}");
    becomes(&client, "/who", 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_evicted_proxy_loses_its_connections_within_two_seconds_and_comes_back() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    let mesh = Mesh::start().await;
    let (client, _server, _app) = pair(&mesh).await;
    becomes(&client, "/who", 200).await;
    // A request whose end never comes stands in a connection of the two.
    let mut standing = tokio::net::TcpStream::connect(client.proxy()).await.unwrap();
    standing.write_all(b"POST /echo HTTP/1.1\r\nhost: reviews\r\ncontent-length: 9\r\n\r\nhalf").await.unwrap();
    let mut answer = vec![0; 12];
    standing.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 200");
    let begun = Instant::now();
    let evicted = mesh.weft(&["proxy", "evict", "frontend"]);
    assert!(evicted.code == 0 && evicted.out.contains("is evicted"), "{evicted:?}");
    while standing.read_buf(&mut answer).await.unwrap_or(0) > 0 {}
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    becomes(&client, "/who", 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_ended_meanwhile_is_renewed_when_the_control_plane_is_back() {
    let mut mesh = Mesh::start_with(json!({"svid_ttl_seconds": 10})).await;
    let (client, mut server, _app) = pair(&mesh).await;
    becomes(&client, "/who", 200).await;
    mesh.kill_control();
    let ended = || server.health("ready") == 503;
    until("the certificate has ended", ended, || server.process.tail());
    let text = readiness(&server).await;
    assert!(text.contains("the certificate expired at"), "{text}");
    eventually("the caller is told", || async {
        let (status, text) = ask(&client, "/who").await;
        (status == 503 && text.contains("expired")).then_some(())
    })
    .await;
    // One of the two is started anew meanwhile.
    server.restart();
    mesh.start_control();
    server.ready();
    client.ready();
    becomes(&client, "/who", 200).await;
    let shown = mesh.weft(&["proxies"]);
    assert!(!shown.out.contains("EXPIRED"), "{shown:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fresh_token_serves_a_proxy_whose_certificate_is_over_without_a_restart() {
    let mut mesh = Mesh::start_with(json!({"svid_ttl_seconds": 10, "identity_grace_seconds": 0})).await;
    let (client, server, _app) = pair(&mesh).await;
    becomes(&client, "/who", 200).await;
    mesh.kill_control();
    until(
        "the certificates have ended",
        || server.health("ready") == 503 && client.health("ready") == 503,
        || server.process.tail(),
    );
    mesh.start_control();
    eventually("the cure is told", || async { readiness(&server).await.contains("token").then_some(()) }).await;
    for sidecar in [&client, &server] {
        let file = sidecar.configuration().with_file_name("token");
        std::fs::write(file, mesh.token_for(&sidecar.workload)).unwrap();
    }
    server.ready();
    client.ready();
    becomes(&client, "/who", 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_proxies_with_one_name_the_earlier_keeps_away_and_says_so() {
    let mesh = Mesh::start().await;
    let mut first = mesh.sidecar(Workload::client("frontend")).await;
    let copied = Workload { account: "frontend".to_owned(), ..Workload::client("copied") };
    let copied = mesh.sidecar(copied.setting("name", json!("frontend"))).await;
    let kept_away = async |sidecar: &Sidecar| sidecar.metrics().await.sum("weft_control_kept_away_total", &[]);
    eventually("the earlier start keeps away", || async { (kept_away(&first).await >= 1.0).then_some(()) }).await;
    let text = Client::direct(first.at(15000)).await.get("/config_dump").await;
    assert_eq!((text.status.as_u16(), first.health("live")), (200, 200), "it serves what it has");
    let shown = mesh.weft(&["proxies", "-o", "json"]).json();
    let shown = shown["proxies"].as_array().unwrap();
    assert!(shown.len() == 1 && shown[0]["name"] == "frontend" && shown[0]["state"] == "synced", "{shown:?}");
    // It does not come back every moment: once it was told, it waits for minutes.
    assert_eq!((kept_away(&first).await, kept_away(&copied).await), (1.0, 0.0));
    first.process.logs("wait_s=");
    let log = first.process.log();
    let wait = log.split("wait_s=").nth(1).and_then(|rest| rest.split_whitespace().next()).expect(&log);
    assert!(wait.parse::<u64>().expect(wait) >= 60, "{wait} s");
    first.restart();
    eventually("the later start stays", || async { (kept_away(&copied).await >= 1.0).then_some(()) }).await;
}
