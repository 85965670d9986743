//! The life of a process: ready only when it can serve, ending without losing what is in flight, starting again from what it
//! kept on disk.

use http::Method;
use http_body_util::BodyExt as _;
use weft_tests::client::empty;
use weft_tests::process::{Process, binary};
use weft_tests::{App, Client, Mesh, Workload, eventually};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ready_only_with_a_configuration() {
    let mut mesh = Mesh::start().await;
    let workload = Workload::client("early");
    let token = mesh.token("default/early");
    assert!(!token.is_empty());
    let mut sidecar = weft_tests::Sidecar::start(&mesh, workload);
    sidecar.ready();
    mesh.kill_control();
    // From disk it is ready again, the control plane still away.
    sidecar.restart();
    sidecar.ready();
    let metrics = sidecar.metrics().await;
    assert_eq!(metrics.sum("weft_control_connected", &[]), 0.0);
    // One that has never been in the mesh has nothing to serve by: alive, not ready.
    std::fs::remove_dir_all(sidecar.state()).unwrap();
    sidecar.restart();
    eventually("it lives", || async { (sidecar.health("live") == 200).then_some(()) }).await;
    assert_eq!(sidecar.health("ready"), 503);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_in_flight_finish_when_the_server_drains() {
    let mesh = Mesh::start().await;
    let workload = Workload::server("slow", 8080, "http");
    let _app = App::start("slow", workload.ip, 8080).await;
    let mut server = mesh.sidecar(workload).await;
    let client = mesh.sidecar(Workload::client("waiter")).await;
    eventually("slow is reachable", || async {
        (Client::through(client.proxy(), "slow").await.get("/who").await.status == 200).then_some(())
    })
    .await;
    let proxy = client.proxy();
    let in_flight = tokio::spawn(async move { Client::through(proxy, "slow").await.get("/slow/1500").await });
    eventually("the request has arrived", || async { (_app.served() >= 2).then_some(()) }).await;
    let status = server.terminate();
    assert_eq!(status.code(), Some(0), "SIGTERM ends with 0\n{}", server.process.tail());
    let answer = in_flight.await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "slow"));
    // And it has left discovery: a new request is told so at once.
    eventually("the endpoint has left", || async {
        (Client::through(client.proxy(), "slow").await.get("/who").await.status == 503).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outbound_goes_on_for_an_app_that_is_finishing() {
    let mesh = Mesh::start().await;
    let workload = Workload::server("bank", 8080, "http");
    let _app = App::start("bank", workload.ip, 8080).await;
    let _server = mesh.sidecar(workload).await;
    let mut client = mesh.sidecar(Workload::client("payer")).await;
    let mut connection = Client::through(client.proxy(), "bank").await;
    eventually("bank is reachable", || async {
        (Client::through(client.proxy(), "bank").await.get("/who").await.status == 200).then_some(())
    })
    .await;
    // A download is on its way while SIGTERM comes; it is read only afterwards.
    let unread = connection.start(Method::GET, "/bytes/20000000", &[], empty()).await.unwrap();
    client.process.signal("TERM");
    eventually("it drains", || async { (client.health("ready") != 200).then_some(()) }).await;
    let collected = unread.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(collected.len(), 20_000_000);
    drop(connection);
    assert_eq!(client.process.ended().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_configuration_names_what_and_where() {
    let folder = tempfile::tempdir().unwrap();
    let check = |text: &str, expect: &[&str]| {
        let file = folder.path().join("proxy.yaml");
        std::fs::write(&file, text).unwrap();
        let mut command = std::process::Command::new(binary("weft-proxy"));
        let mut process = Process::start("check", folder.path(), command.arg("--config").arg(&file).arg("--check"));
        let status = process.ended();
        let log = process.log();
        assert_ne!(status.code(), Some(0), "{text}\n{log}");
        for word in expect {
            assert!(log.contains(word), "{word} is missing in: {log}");
        }
        assert!(!log.contains("panicked"), "{log}");
    };
    check("nonsense: [", &["proxy.yaml"]);
    check("name: a\nnonsense: 1\n", &["proxy.yaml", "nonsense"]);
    check("", &["proxy.yaml"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_taken_address_is_said_at_start() {
    let mesh = Mesh::start().await;
    let workload = Workload::client("squatter");
    let _squatter = tokio::net::TcpListener::bind((workload.ip, 15080)).await.unwrap();
    let mut sidecar = weft_tests::Sidecar::start(&mesh, workload);
    assert_ne!(sidecar.process.ended().code(), Some(0));
    let log = sidecar.process.log();
    assert!(log.contains("15080") && !log.contains("panicked"), "{log}");
}

const NOBODY: &str = "apiVersion: weft.dev/v1alpha1\nkind: AccessPolicy\nmetadata: {name: nobody, namespace: default}\n\
                      spec: {targetRefs: [{kind: Service, name: vault}], action: Allow, rules: []}\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_asks_before_it_serves_what_it_kept() {
    let mesh = Mesh::start().await;
    let workload = Workload::server("vault", 8080, "http");
    let _app = App::start("vault", workload.ip, 8080).await;
    let mut server = mesh.sidecar(workload).await;
    let client = mesh.sidecar(Workload::client("thief")).await;
    let ask = async || Client::through(client.proxy(), "vault").await.get("/who").await.status.as_u16();
    eventually("vault is reachable", || async { (ask().await == 200).then_some(()) }).await;
    server.process.kill();
    let applied = mesh.weft_reading(NOBODY, &["apply", "-f", "-"]);
    assert_eq!(applied.code, 0, "{}", applied.err);
    server.restart();
    let seen = std::sync::Mutex::new(Vec::new());
    eventually("the denial is in force", || async {
        let status = ask().await;
        seen.lock().unwrap().push(status);
        (status == 403).then_some(())
    })
    .await;
    let seen = seen.into_inner().unwrap();
    assert!(!seen.contains(&200), "what was kept let nobody in: {seen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signals_for_log_files_end_nothing() {
    let mut mesh = Mesh::start().await;
    let mut sidecar = mesh.sidecar(Workload::client("signalled")).await;
    for signal in ["HUP", "USR1", "USR2"] {
        sidecar.process.signal(signal);
        sidecar.process.logs(&format!("signal=\"{signal}\""));
        mesh.signal_control(signal);
    }
    assert_eq!(sidecar.health("ready"), 200);
    assert_eq!(sidecar.terminate().code(), Some(0));
    mesh.kill_control();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_requests_at_the_health_port_cost_nobody_else() {
    use tokio::io::AsyncWriteExt as _;
    let mesh = Mesh::start().await;
    let workload = Workload::server("probed", 8080, "http");
    let _app = App::start("probed", workload.ip, 8080).await;
    let server = mesh.sidecar(workload).await;
    let client = mesh.sidecar(Workload::client("asking")).await;
    eventually("probed is reachable", || async {
        (Client::through(client.proxy(), "probed").await.get("/who").await.status == 200).then_some(())
    })
    .await;
    let mut silent = Vec::new();
    for _ in 0..400 {
        let mut stream = tokio::net::TcpStream::connect(server.at(15021)).await.unwrap();
        let _ = stream.write_all(b"GET /healthz/ready HTTP/1.1\r\nhost: ").await;
        silent.push(stream);
    }
    assert_eq!(server.health("ready"), 200);
    assert_eq!(Client::through(client.proxy(), "probed").await.get("/who").await.status, 200);
    let metrics = server.metrics().await;
    assert!(metrics.sum("weft_side_connections", &[("port", "health")]) <= 65.0);
    assert!(metrics.sum("weft_side_connections_evicted_total", &[("port", "health")]) >= 300.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changing_calls_take_the_token() {
    let mesh = Mesh::start().await;
    let mut sidecar = mesh.sidecar(Workload::client("guarded")).await;
    let admin = format!("http://{}", sidecar.at(15000));
    let post = |fields: &[&str]| {
        let mut curl = std::process::Command::new("curl");
        curl.args(["-s", "-o", "/dev/null", "-w", "%{http_code}", "-X", "POST"]);
        for field in fields {
            curl.args(["-H", field]);
        }
        let output = curl.arg(format!("{admin}/quitquitquit")).output().expect("curl runs");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let token = std::fs::read_to_string(sidecar.state().join("admin.token")).unwrap();
    let known = format!("authorization: Bearer {}", token.trim());
    assert_eq!(post(&[]), "401");
    assert_eq!(post(&["authorization: Bearer guess"]), "401");
    assert_eq!(post(&[&known, "host: evil.example:15000"]), "421");
    assert_eq!(post(&[&known, "origin: http://evil.example"]), "403");
    assert_eq!(sidecar.health("ready"), 200);
    assert_eq!(post(&[&known]), "200");
    assert_eq!(sidecar.process.ended().code(), Some(0));
}
