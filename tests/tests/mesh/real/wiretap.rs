//! Somebody listens on the mesh port: of path, header, body and TCP payload nothing is to be found; and the same search does find
//! them when the tunnel is switched off, so that it can be believed.

use std::path::Path;
use std::process::Command;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use weft_tests::client::tunnel;
use weft_tests::process::Process;
use weft_tests::{App, Client, Mesh, Sidecar, TcpApp, Workload, eventually, until};

use super::{reachable, run};

const MARKERS: [&str; 4] = ["marker-path-5417", "marker-header-8832", "marker-body-2290", "marker-tcp-7716"];

/// Packets seen, and which markers were found in them.
#[derive(Debug, PartialEq, Eq)]
struct Heard {
    packets: usize,
    markers: Vec<&'static str>,
}

/// Sends every marker, the many packets last: a capture that is ended may lack its last packets.
async fn talk(client: &Sidecar) {
    let body = format!("{} ", MARKERS[2]).repeat(2_000);
    let mut tcp = tunnel(client.proxy(), "diary:7000").await;
    for _ in 0..20 {
        tcp.write_all(MARKERS[3].as_bytes()).await.unwrap();
        let mut echoed = vec![0; MARKERS[3].len()];
        tcp.read_exact(&mut echoed).await.unwrap();
        assert_eq!(echoed, MARKERS[3].as_bytes());
    }
    let mut http = Client::through(client.proxy(), "diary").await;
    for _ in 0..150 {
        let path = format!("/echo/{}", MARKERS[0]);
        let answer =
            http.call(http::Method::POST, &path, &[("x-secret", MARKERS[1])], weft_tests::client::full(body.clone()));
        assert_eq!(answer.await.unwrap().body.len(), body.len());
    }
}

async fn listen(name: &str, filter: &str, folder: &Path, client: &Sidecar) -> Heard {
    let file = folder.join(format!("{name}.pcap"));
    let mut tshark = Command::new("tshark");
    tshark.args(["-i", "lo", "-Q", "-F", "pcap", "-f", filter, "-w"]).arg(&file);
    let mut tap = Process::start(&format!("tshark-{name}"), folder, &mut tshark);
    let size = || std::fs::metadata(&file).map_or(0, |metadata| metadata.len());
    // The file's header is written when the capture has begun; the first packet proves it.
    until("the capture has begun", || size() > 0, || tap.tail());
    let mut probes = 0;
    eventually("a packet is captured", || {
        probes += 1;
        async move {
            _ = Client::through(client.proxy(), "diary").await.get("/who").await;
            let count = packets(&file_of(folder, name));
            (count > 0).then_some(())
        }
    })
    .await;
    talk(client).await;
    // dumpcap writes in blocks: what it has seen is complete once it has ended.
    tap.signal("INT");
    tap.ended();
    let bytes = std::fs::read(&file).expect("the capture");
    let found = |marker: &&&str| bytes.windows(marker.len()).any(|window| window == marker.as_bytes());
    Heard { packets: packets(&file), markers: MARKERS.iter().filter(found).copied().collect() }
}

fn file_of(folder: &Path, name: &str) -> std::path::PathBuf {
    folder.join(format!("{name}.pcap"))
}

/// Counts the records of a pcap file, whole ones only.
fn packets(file: &Path) -> usize {
    let bytes = std::fs::read(file).unwrap_or_default();
    let mut at = 24;
    let mut count = 0;
    while let Some(length) = bytes.get(at + 8..at + 12) {
        let length = u32::from_le_bytes(length.try_into().expect("four bytes"));
        at += 16 + usize::try_from(length).expect("a packet fits memory");
        count += usize::from(at <= bytes.len());
    }
    count
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs tshark and root: cargo xtask test --real"]
async fn nothing_is_heard_on_the_mesh_port() {
    run(Command::new("tshark").arg("--version"));
    let mesh = Mesh::start().await;
    let workload = Workload::server("diary", 8080, "http").port(7000, "tcp");
    let _app = App::start("diary", workload.ip, 8080).await;
    let _tcp = TcpApp::start(workload.ip, 7000, "").await;
    let server = mesh.sidecar(workload).await;
    mesh.apply(
        "apiVersion: v1\nkind: Service\nmetadata: {name: diary, namespace: default}\nspec:\n  selector: {app: diary}\n  ports:\n  \
         - {name: http, port: 80, targetPort: 8080, appProtocol: http}\n  - {name: tcp, port: 7000, targetPort: 7000, \
         appProtocol: tcp}\n",
    );
    let client = mesh.sidecar(Workload::client("writer")).await;
    reachable(&client, "diary").await;
    let address = server.workload.ip;
    let heard = listen("tunnel", &format!("udp port 15008 and host {address}"), mesh.folder(), &client).await;
    assert!(heard.packets >= 1_000, "{heard:?}");
    assert_eq!(heard.markers, [] as [&str; 0], "in the clear on the mesh port");

    let open = Workload::client("babbler").setting("danger_plaintext_tunnel", true.into());
    let open = mesh.sidecar(open).await;
    reachable(&open, "diary").await;
    let ports = format!("(udp port 15008 or tcp port 8080 or tcp port 7000) and host {address}");
    let heard = listen("open", &ports, mesh.folder(), &open).await;
    assert_eq!(heard.markers, MARKERS, "the search finds what is there");
}
