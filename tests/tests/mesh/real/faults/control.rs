//! The control plane's faults.

use std::fs;
use std::path::Path;
use std::time::Instant;

use weft_tests::wait::LIMIT;
use weft_tests::{Client, Mesh, Workload, until};

use super::{Disk, Then, copy, cut, garbage, gone, started};

/// A fault, done to the folder of a mesh while its control plane is down.
type Fault = (&'static str, fn(&Path), Then);

const STATE: &str = "control";

const FAULTS: &[Fault] = &[
    ("nothing", |_| {}, Then::Serves),
    (
        "the store is cut",
        |at| cut(at.join("control/weft.redb")),
        Then::Says("restore a backup of the whole state folder"),
    ),
    (
        "the store is garbage",
        |at| garbage(at.join("control/weft.redb")),
        Then::Says("restore a backup of the whole state folder"),
    ),
    (
        "the store is empty",
        |at| fs::write(at.join("control/weft.redb"), "").unwrap(),
        Then::ServesAndSays("weft store accept"),
    ),
    ("the store is gone", |at| gone(at.join("control/weft.redb")), Then::ServesAndSays("weft store accept")),
    (
        "the root's key is gone",
        |at| gone(at.join("control/ca/root.key")),
        Then::Says("root.key is not: restore it from a backup"),
    ),
    ("the root's key is garbage", |at| garbage(at.join("control/ca/root.key")), Then::Says("root.key can't be read")),
    (
        "the root's certificate is gone",
        |at| gone(at.join("control/ca.pem")),
        Then::ServesAndSays("it is made again of its key"),
    ),
    (
        "the root's certificate is garbage",
        |at| garbage(at.join("control/ca.pem")),
        Then::ServesAndSays("it is made again of its key"),
    ),
    ("the intermediate is gone", |at| gone(at.join("control/ca/intermediate.pem")), Then::Serves),
    ("the intermediate is garbage", |at| garbage(at.join("control/ca/intermediate.pem")), Then::Serves),
    ("the key of the shipped filters is gone", |at| gone(at.join("control/ca/filters.key")), Then::Serves),
    ("the operator's token is gone", |at| gone(at.join("control/operator.token")), Then::Serves),
    ("the store that the authority knew is garbage", |at| garbage(at.join("control/ca/store")), Then::Serves),
    (
        "the state folder is a file",
        |at| {
            fs::remove_dir_all(at.join(STATE)).unwrap();
            fs::write(at.join(STATE), "").unwrap();
        },
        Then::Says("state folder"),
    ),
    ("the clock is two days ahead", |at| fs::write(at.join("clock"), "+2d").unwrap(), Then::Serves),
    ("the clock is two days behind", |at| fs::write(at.join("clock"), "-2d").unwrap(), Then::Serves),
];

/// Whether it answers on its port for health.
async fn is_healthy(mesh: &Mesh) -> bool {
    let Ok(stream) = tokio::net::TcpStream::connect((mesh.ip, 15014)).await else { return false };
    let asked = async { Client::over(stream, "control").await.get("/readyz").await.status == 200 };
    tokio::time::timeout(LIMIT, asked).await.unwrap_or(false)
}

/// Starts the control plane on what it finds, until it is as it has to be.
async fn judged(mesh: &Mesh, then: Then) -> Result<(), String> {
    let log = mesh.folder().join("weft-control.log");
    _ = fs::remove_file(&log);
    let mut control = started("weft-control", mesh.folder(), &mesh.folder().join("control.yaml"));
    let deadline = Instant::now() + LIMIT;
    loop {
        let ended = control.has_ended();
        if let Some(verdict) = then.judge(is_healthy(mesh).await, &control.log()) {
            return verdict;
        }
        if ended.is_some() || Instant::now() > deadline {
            return Err(format!("{ended:?}, {}", control.tail()));
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "mounts disks and sets clocks: cargo xtask test --real"]
async fn a_control_plane_serves_or_says_what_to_do() {
    let mut mesh = Mesh::start().await;
    mesh.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n");
    mesh.kill_control();
    let (state, whole) = (mesh.folder().join(STATE), mesh.folder().join("whole"));
    copy(&state, &whole);
    let mut wrong = Vec::new();
    for (what, fault, then) in FAULTS {
        fault(mesh.folder());
        if let Err(why) = judged(&mesh, *then).await {
            wrong.push(format!("{what}: {then:?}: {why}"));
        }
        _ = fs::remove_dir_all(&state).or_else(|_| fs::remove_file(&state));
        _ = fs::remove_file(mesh.folder().join("clock"));
        copy(&whole, &state);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    mesh.start_control();
    assert!(mesh.weft(&["get", "namespaces"]).out.contains("shop"), "nothing is lost where nothing was taken away");
}

/// An apply that the disk does not take is refused and named; with room again everything goes on, and what was acknowledged is
/// there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "mounts disks and sets clocks: cargo xtask test --real"]
async fn a_full_disk_is_told_and_left_behind() {
    let mut mesh = Mesh::start().await;
    mesh.kill_control();
    let disk = Disk::under(&mesh.folder().join(STATE));
    mesh.start_control();
    let namespace = |name: &str| format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}}}\n");
    mesh.apply(&namespace("before"));
    let mut sidecar = mesh.sidecar(Workload::server("reviews", 8080, "http")).await;
    disk.fill();
    let large = (0..2_000).map(|index| format!("{}---\n", namespace(&format!("n-{index}")))).collect::<String>();
    let printed = mesh.weft_reading(&large, &["apply", "-f", "-"]);
    assert!(printed.code != 0 && printed.err.contains("disk"), "{printed:?}");
    assert!(mesh.weft(&["get", "namespaces"]).out.contains("before"), "it can be read");
    // Proxies come back meanwhile, also to a control plane that is started anew.
    let is_synced = |mesh: &Mesh| {
        let proxies = mesh.weft(&["proxies", "-o", "json"]).json();
        proxies["proxies"].as_array().is_some_and(|all| all.iter().any(|proxy| proxy["state"] == "synced"))
    };
    sidecar.restart();
    sidecar.ready();
    until("the proxy is back", || is_synced(&mesh), || sidecar.process.tail());
    mesh.kill_control();
    mesh.start_control();
    until("the proxy is back at the new start", || is_synced(&mesh), || mesh.control().tail());
    disk.make_room();
    mesh.apply(&namespace("after"));
    let listed = mesh.weft(&["get", "namespaces"]).out;
    assert!(listed.contains("before") && listed.contains("after") && !listed.contains("n-7"), "{listed}");
    mesh.kill_control();
    disk.read_only();
    let said = judged(&mesh, Then::Says("Read-only file system")).await;
    assert_eq!(said, Ok(()));
}
