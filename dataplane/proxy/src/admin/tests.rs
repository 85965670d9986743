//! The doors' answers, asked without sockets.

use http_body_util::BodyExt as _;
use weft_filter_host::{Host, HostConfig};

use super::*;
use crate::config::Config;
use crate::heartbeat::STALLED;

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

fn admin() -> Admin {
    let text = "
name: reviews-1
state_dir: /nowhere
control: {address: 'https://127.0.0.1:15012', ca_file: /nowhere}
workload: {service_account: reviews, address: 127.0.0.11}
listen: {mesh: '127.0.0.11:15008'}
";
    let config = Config::parse(std::path::Path::new("proxy.yaml"), text).unwrap();
    let host = Host::new(HostConfig::default()).unwrap();
    Admin {
        shared: Arc::new(Shared::new(config, host).unwrap()),
        identity: OnceLock::new(),
        capture: OnceLock::new(),
        hearts: Heartbeats::new(2),
        token: TOKEN.to_owned(),
        prometheus: metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder().handle(),
        log_level: LogLevel::detached(),
        sides: Default::default(),
    }
}

async fn ask(admin: &Admin, door: Door, method: Method, path: &str, fields: &[(&'static str, &str)]) -> (u16, Vec<u8>) {
    let mut request = Request::builder().method(method).uri(path).header("host", "127.0.0.1:15000");
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let from = SocketAddr::from(([127, 0, 0, 1], 4_000));
    let answer = admin.respond(door, &request.body(()).unwrap(), from).await;
    let status = answer.status().as_u16();
    (status, answer.into_body().collect().await.unwrap().to_bytes().to_vec())
}

#[tokio::test]
async fn nobody_changes_anything_without_the_token() {
    let admin = admin();
    let (status, text) = ask(&admin, Door::Admin, Method::POST, "/quitquitquit", &[]).await;
    assert_eq!(status, 401, "{}", String::from_utf8_lossy(&text));
    assert!(!admin.shared.drain.is_draining());
    let known = ("authorization", &*format!("Bearer {TOKEN}"));
    let cross = ask(&admin, Door::Admin, Method::POST, "/drain", &[known, ("origin", "http://evil.example")]).await;
    assert_eq!(cross.0, 403);
    assert!(!admin.shared.drain.is_draining());
    assert_eq!(ask(&admin, Door::Admin, Method::GET, "/drain", &[known]).await.0, 405);
    assert_eq!(ask(&admin, Door::Admin, Method::POST, "/drain", &[known]).await.0, 200);
    assert!(admin.shared.drain.is_draining());
    assert_eq!(ask(&admin, Door::Admin, Method::GET, "/config_dump", &[]).await.0, 200, "reading takes no token");
}

#[tokio::test]
async fn a_worker_without_progress_is_neither_ready_nor_alive() {
    let admin = admin();
    assert_eq!(ask(&admin, Door::Health, Method::GET, "/healthz/live", &[]).await.0, 200);
    // Its heart beat once and then never again.
    let began = std::time::Instant::now();
    let _heart = admin.hearts.of(1);
    while admin.hearts.stalled().is_empty() {
        assert!(began.elapsed() < STALLED * 3);
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert!(began.elapsed() >= STALLED);
    for probe in ["/healthz/live", "/healthz/ready"] {
        let (status, text) = ask(&admin, Door::Health, Method::GET, probe, &[]).await;
        assert_eq!((status, &*text), (503, &b"no progress for 5 s in worker [1]\n"[..]), "{probe}");
    }
    let (_, text) = ask(&admin, Door::Metrics, Method::GET, "/metrics", &[]).await;
    assert!(String::from_utf8(text).unwrap().contains("\nweft_workers_stalled 1\n"));
}

#[tokio::test]
async fn head_is_answered_as_get() {
    let admin = admin();
    for (door, path) in [
        (Door::Health, "/healthz/live"),
        (Door::Health, "/healthz/ready"),
        (Door::Health, "/nowhere"),
        (Door::Metrics, "/metrics"),
        (Door::Metrics, "/stats/prometheus"),
        (Door::Admin, "/"),
        (Door::Admin, "/drain"),
    ] {
        let (head, get) = (Method::HEAD, Method::GET);
        assert_eq!(ask(&admin, door, head, path, &[]).await.0, ask(&admin, door, get, path, &[]).await.0, "{path}");
    }
    assert_eq!(ask(&admin, Door::Health, Method::HEAD, "/healthz/live", &[]).await.0, 200);
}

#[tokio::test]
async fn a_scrape_is_compressed_for_who_asks() {
    use std::io::Read as _;
    let admin = admin();
    let (_, plain) = ask(&admin, Door::Metrics, Method::GET, "/metrics", &[("accept-encoding", "br, gzip;q=0")]).await;
    assert!(plain.starts_with(b"# HELP "), "{}", String::from_utf8_lossy(&plain));
    for accepts in ["gzip", "deflate, GZIP;q=0.5", "*"] {
        let (_, zipped) = ask(&admin, Door::Metrics, Method::GET, "/metrics", &[("accept-encoding", accepts)]).await;
        let mut text = String::new();
        flate2::read::GzDecoder::new(&*zipped).read_to_string(&mut text).unwrap();
        assert!(zipped.len() < text.len() / 2 && text.contains("process_open_fds"), "{accepts}");
    }
}

#[tokio::test]
async fn each_metric_says_what_it_means_and_what_it_is() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let admin = Admin { prometheus: recorder.handle(), ..admin() };
    metrics::with_local_recorder(&recorder, || {
        scrape::describe();
        crate::telemetry::counters::Counters::register();
    });
    let (_, text) = ask(&admin, Door::Metrics, Method::GET, "/metrics", &[]).await;
    let text = String::from_utf8(text).unwrap();
    for family in ["process_cpu_seconds_total", "process_start_time_seconds", "weft_handshake_failures_total"] {
        assert!(text.contains(&format!("\n{family}")), "{family} is missing");
    }
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let name = line.split(['{', ' ']).next().unwrap();
        let family = ["_bucket", "_sum", "_count"].iter().fold(name, |name, end| name.trim_end_matches(end));
        for kind in ["HELP", "TYPE"] {
            assert_eq!(text.matches(&format!("# {kind} {family} ")).count(), 1, "{kind} of {family}");
        }
    }
}
