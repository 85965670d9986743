//! A proxy joins by a token of one use and the answer is cut off: it asks again, the same process or the next, and gets a
//! certificate; the token was used once.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use weft_tests::{Mesh, Sidecar, Way, Workload, eventually};

/// The joins that the audit log tells of, the oldest first.
fn joins(mesh: &Mesh) -> Vec<String> {
    let log = mesh.weft(&["events", "--action", "join", "-o", "json"]).json();
    let action = |entry: &Value| entry["action"].as_str().unwrap().to_owned();
    let mut found: Vec<_> = log["entries"].as_array().unwrap().iter().map(action).collect();
    found.sort();
    found
}

/// Starts a proxy whose answers are long on their way, and cuts that off once its join is made.
async fn cut(mesh: &Mesh, name: &str, from: SocketAddr) -> Sidecar {
    let way = Way::to(SocketAddr::new(mesh.ip, 15012), from).await;
    way.delay_answers(Duration::from_secs(2));
    let workload = Workload::client(name);
    let token_file = mesh.folder().join(name).join("token");
    let control = json!({"address": format!("https://{from}"), "ca_file": mesh.ca_file(), "token_file": token_file});
    let known = joins(mesh).len();
    let sidecar = Sidecar::start(mesh, workload.setting("control", control));
    eventually("the join is made", || async { (joins(mesh).len() > known).then_some(()) }).await;
    drop(way);
    assert!(!sidecar.state().join("identity.pem").exists(), "its answer was not there yet");
    sidecar
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_join_whose_answer_is_cut_off_is_made_with_the_same_token() {
    let ways = [weft_tests::address::next(), weft_tests::address::next()];
    let mesh = Mesh::start_with(json!({"advertise": ways})).await;
    let ways = ways.map(|ip| SocketAddr::new(ip, 15012));
    let server = SocketAddr::new(mesh.ip, 15012);
    let first = cut(&mesh, "again", ways[0]).await;
    let _way = Way::to(server, ways[0]).await;
    first.ready();
    assert_eq!(joins(&mesh), ["join", "join.again"]);

    let mut next = cut(&mesh, "restarted", ways[1]).await;
    next.restart();
    let _other = Way::to(server, ways[1]).await;
    next.ready();
    assert_eq!(joins(&mesh), ["join", "join", "join.again", "join.again"]);
    assert!(!next.state().join("joining.pem").exists(), "the key is the certificate's now");
    let tokens = mesh.weft(&["token", "list", "-o", "json"]).json();
    let kinds: Vec<_> =
        tokens["tokens"].as_array().unwrap().iter().map(|token| token["kind"].as_str().unwrap()).collect();
    assert!(!kinds.contains(&"join"), "each was used once and is gone: {tokens}");
}
