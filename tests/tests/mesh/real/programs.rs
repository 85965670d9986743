//! curl, Python's requests, grpcio, redis-cli with redis-server, psql with PostgreSQL.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use weft_tests::process::Process;
use weft_tests::{App, Mesh, Sidecar, Workload, eventually, until};

use super::{forwarded, reachable, run};

pub(super) fn python() -> PathBuf {
    let named = std::env::var_os("WEFT_REAL_PYTHON");
    PathBuf::from(named.expect("WEFT_REAL_PYTHON names a Python with grpcio and requests: run cargo xtask test --real"))
}

pub(super) fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("real").join(name)
}

async fn web() -> (Mesh, Sidecar, Sidecar, App) {
    let mesh = Mesh::start().await;
    let workload = Workload::server("web", 8080, "http");
    let app = App::start("app", workload.ip, 8080).await;
    let server = mesh.sidecar(workload).await;
    let client = mesh.sidecar(Workload::client("person")).await;
    reachable(&client, "web").await;
    (mesh, server, client, app)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs curl: cargo xtask test --real"]
async fn curl() {
    let (mesh, _server, client, app) = web().await;
    let proxy = format!("http://{}", client.proxy());
    let curl = |arguments: &[&str]| {
        let mut command = Command::new("curl");
        command.args(["-sS", "--max-time", "20", "-x", &proxy]).args(arguments);
        run(&mut command)
    };
    assert_eq!(curl(&["http://web/who"]), "app");
    assert_eq!(curl(&["http://web.default.svc.cluster.local/who", "http://web/who"]), "appapp");
    assert_eq!(curl(&["--proxytunnel", "http://web/who"]), "app");
    assert_eq!(curl(&["--proxytunnel", "--http2-prior-knowledge", "http://web/who"]), "app");
    assert_eq!(curl(&["--http1.0", "http://web/who"]), "app");
    assert_eq!(curl(&["-o", "/dev/null", "-w", "%{http_code}", "-I", "http://web/who"]), "200");
    assert_eq!(curl(&["--data-binary", "hello", "http://web/echo"]), "hello");
    // Over 1 MiB curl asks first: Expect: 100-continue goes to the app and back.
    let upload = mesh.folder().join("upload");
    std::fs::write(&upload, vec![b'u'; 3_000_000]).unwrap();
    assert_eq!(
        curl(&["-T", &upload.display().to_string(), "-H", "Expect: 100-continue", "http://web/digest"]),
        "3000000"
    );
    let arrived = app.served();

    // A denial explained.
    mesh.apply(
        "apiVersion: weft.dev/v1alpha1\nkind: AccessPolicy\nmetadata: {name: closed, namespace: default}\nspec:\n  targetRefs: \
         [{kind: Service, name: web}]\n  action: Deny\n  rules: [{name: admin, to: [{paths: [\"/admin/*\"]}]}]\n",
    );
    let denied = curl(&["-w", " %{http_code}", "http://web/admin/keys"]);
    assert!(denied.ends_with(" 403") && denied.contains("default/closed#admin"), "{denied}");
    assert_eq!(app.served(), arrived);
    let explained = mesh.weft(&["explain", "--from", "default/person", "--to", "web", "--path", "/admin/keys"]);
    assert!(
        explained.code == 1 && explained.out.contains("default/closed#admin"),
        "{}{}",
        explained.out,
        explained.err
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Python's requests: cargo xtask test --real"]
async fn requests() {
    let (_mesh, _server, client, _app) = web().await;
    let mut command = Command::new(python());
    command.arg(script("requests_client.py")).arg("http://web").env("http_proxy", format!("http://{}", client.proxy()));
    assert_eq!(run(&mut command).trim(), "all answered");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs grpcio: cargo xtask test --real"]
async fn grpcio() {
    let mesh = Mesh::start().await;
    let workload = Workload::server("greeter", 50051, "grpc");
    let mut serve = Command::new(python());
    serve.arg(script("grpc_server.py")).arg(format!("{}:50051", workload.ip));
    let app = Process::start("grpc-server", mesh.folder(), &mut serve);
    app.logs("listening");
    let server = mesh.sidecar(workload).await;
    let client = mesh.sidecar(Workload::client("caller")).await;
    let proxy = format!("http://{}", client.proxy());
    let call = || {
        let mut command = Command::new(python());
        command.arg(script("grpc_client.py")).arg("greeter:80").env("grpc_proxy", &proxy).env("http_proxy", &proxy);
        command
    };
    let answered = || call().output().is_ok_and(|output| output.status.success());
    until("the four kinds of call are answered", answered, || format!("{:?}", call().output()));
    let metrics = server.metrics().await;
    let grpc = [("reporter", "destination"), ("request_protocol", "grpc")];
    assert!(metrics.sum("istio_requests_total", &grpc) >= 7.0, "{}", metrics.lines("grpc"));
}

/// The shipped filter `extauth` asks a server of gRPC's own library.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs grpcio: cargo xtask test --real"]
async fn grpcio_authorizes() {
    let (mesh, _server, client, app) = web().await;
    let workload = Workload::server("auth", 50051, "grpc");
    let mut serve = Command::new(python());
    serve.arg(script("extauth_server.py")).arg(format!("{}:50051", workload.ip));
    let service = Process::start("extauth-server", mesh.folder(), &mut serve);
    service.logs("listening");
    let _auth = mesh.sidecar(workload).await;
    mesh.apply(
        "apiVersion: weft.dev/v1alpha1\nkind: FilterPolicy\nmetadata: {name: asks, namespace: default}\nspec:\n  targetRefs: \
         [{kind: Service, name: web}]\n  filter: {name: extauth}\n  capabilities: [{callout: {services: [{name: auth, port: 80}]}}]\n  \
         config: {service: auth, protocol: grpc, allowed_headers: [x-user]}\n",
    );
    let curl = |arguments: &[&str]| {
        let mut command = Command::new("curl");
        command.args(["-sS", "--max-time", "20", "-x", &format!("http://{}", client.proxy())]).args(arguments);
        run(&mut command)
    };
    let seen = || curl(&["-H", "x-user: forged", "http://web/seen"]);
    let is_named = || seen().contains(r#"["x-user","ada"]"#);
    until("the service names the user", is_named, seen);
    let served = app.served();
    assert_eq!(curl(&["-w", " %{http_code}", "http://web/deny"]), "no 401");
    assert_eq!(app.served(), served);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis: cargo xtask test --real"]
async fn redis() {
    let mesh = Mesh::start().await;
    let workload = Workload::server("cache", 6379, "tcp");
    let mut serve = Command::new("redis-server");
    serve.args(["--bind", &workload.ip.to_string(), "--port", "6379", "--save", "", "--protected-mode", "no"]);
    let _app = Process::start("redis-server", mesh.folder(), serve.current_dir(mesh.folder()));
    let server = mesh.sidecar(workload).await;
    let client = mesh.sidecar(Workload::client("worker")).await;
    let local = forwarded(client.proxy(), "cache:6379").await;
    let redis = |arguments: &[&str]| {
        let mut command = Command::new("redis-cli");
        command.args(["-h", &local.ip().to_string(), "-p", &local.port().to_string()]).args(arguments);
        command
    };
    let ping = || redis(&["ping"]).output().is_ok_and(|output| output.stdout == b"PONG\n");
    until("redis answers", ping, || format!("{:?}", redis(&["ping"]).output()));
    assert_eq!(run(&mut redis(&["set", "answer", "42"])), "OK\n");
    assert_eq!(run(&mut redis(&["get", "answer"])), "42\n");
    let big = "x".repeat(100_000);
    assert_eq!(run(&mut redis(&["set", "big", &big])), "OK\n");
    assert_eq!(run(&mut redis(&["strlen", "big"])), "100000\n");
    assert_eq!(run(&mut redis(&["-r", "200", "incr", "count"])).lines().last(), Some("200"));
    eventually("bytes are counted", || async {
        let metrics = server.metrics().await;
        let security = [("connection_security_policy", "mutual_tls"), ("reporter", "destination")];
        (metrics.sum("istio_tcp_received_bytes_total", &security) > 100_000.0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL: cargo xtask test --real"]
async fn postgresql() {
    let mesh = Mesh::start().await;
    let workload = Workload::server("database", 5432, "tcp");
    // PostgreSQL refuses to run as root: a folder that its own user can reach.
    std::fs::set_permissions(mesh.folder(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let data = mesh.folder().join("pg");
    std::fs::create_dir(&data).unwrap();
    let data = data.display().to_string();
    run(Command::new("chown").args(["postgres", &data]));
    let as_postgres = |program: &str| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "postgres", "--regid", "postgres", "--clear-groups", program]).current_dir("/");
        command
    };
    run(as_postgres("initdb").args(["-D", &data, "-A", "trust", "-U", "weft", "--no-sync"]));
    let mut serve = as_postgres("postgres");
    serve.args(["-D", &data, "-h", &workload.ip.to_string(), "-k", "", "-F"]);
    let mut app = Process::start("postgres", mesh.folder(), &mut serve);
    let _server = mesh.sidecar(workload).await;
    let client = mesh.sidecar(Workload::client("clerk")).await;
    let local = forwarded(client.proxy(), "database:5432").await;
    let psql = |sql: &str| {
        let mut command = Command::new("psql");
        let target = format!("host={} port={} user=weft dbname=postgres sslmode=disable", local.ip(), local.port());
        command.args(["-X", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", sql]).arg(target);
        command
    };
    let ready = || psql("select 1").output().is_ok_and(|output| output.stdout == b"1\n");
    until("PostgreSQL answers", ready, || format!("{:?}\n{}", psql("select 1").output(), app.tail()));
    run(&mut psql("create table t as select g, repeat('x', 1000) as x from generate_series(1, 5000) g"));
    assert_eq!(run(&mut psql("select count(*), sum(length(x)) from t")), "5000|5000000\n");
    assert_eq!(run(&mut psql("copy t to stdout")).lines().count(), 5_000);
    app.signal("INT");
    app.ended();
}
