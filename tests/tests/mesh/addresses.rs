//! A proxy that knows several addresses of the control plane: it moves to the next when its own ends or is cut off.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::json;
use weft_tests::{Mesh, Way, Workload, address, eventually};

/// How soon a proxy has moved.
const MOVES: Duration = Duration::from_secs(2);

/// A workload whose proxy knows these addresses; its token admits it wherever it speaks from.
fn knows(mesh: &Mesh, workload: Workload, addresses: &[SocketAddr]) -> Workload {
    let (ip, label) = (workload.ip.to_string(), format!("app={}", workload.name));
    let account = format!("{}/{}", workload.namespace, workload.account);
    let granted = ["--service-account", &account, "--address", &ip, "--label", &label, "-o", "json"];
    let token = mesh.weft(&[&["token", "create"], &granted[..]].concat()).json()["token"].clone();
    let file = mesh.folder().join(format!("{}.token", workload.name));
    std::fs::write(&file, token.as_str().expect("a token")).expect("the scratch folder is writable");
    let addresses: Vec<_> = addresses.iter().map(|address| format!("https://{address}")).collect();
    workload.setting("control", json!({"address": addresses, "ca_file": mesh.ca_file(), "token_file": file}))
}

/// The index of the way that the proxy uses.
async fn used(ways: &[Option<Way>]) -> usize {
    eventually("the proxy uses a way", || async {
        ways.iter().position(|way| way.as_ref().is_some_and(|way| way.carried() > 0))
    })
    .await
}

/// What is applied arrives, which waits for each proxy.
fn hears_of_changes(mesh: &Mesh, round: usize) {
    mesh.apply(&format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: round-{round}}}\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_moves_when_its_replica_ends() {
    let ips = [address::next(), address::next(), address::next()];
    let mesh = Mesh::start_with(json!({"advertise": ips})).await;
    let (server, addresses) = (SocketAddr::new(mesh.ip, 15012), ips.map(|ip| SocketAddr::new(ip, 15012)));
    // Nobody is at the first; the proxy joins all the same, wherever it begins.
    let mut ways = [None, Some(Way::to(server, addresses[1]).await), Some(Way::to(server, addresses[2]).await)];
    let _sidecar = mesh.sidecar(knows(&mesh, Workload::client("shopper"), &addresses)).await;
    for round in 0..3 {
        let ended = used(&ways).await;
        ways[ended] = None;
        let since = Instant::now();
        assert_ne!(used(&ways).await, ended);
        assert!(since.elapsed() < MOVES, "it moved after {:?}", since.elapsed());
        hears_of_changes(&mesh, round);
        ways[ended] = Some(Way::to(server, addresses[ended]).await);
    }
}

mod real {
    use super::{Duration, Instant, MOVES, Mesh, SocketAddr, Way, Workload, hears_of_changes, json, knows, used};
    use weft_tests::namespace::{HERE, Hosts, Namespace, THERE, ip};

    /// A second network between the two hosts: an address that goes takes no other with it.
    const ALSO_HERE: &str = "10.231.8.1";
    const ALSO_THERE: &str = "10.231.8.2";

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "needs root and network namespaces: cargo xtask test --real"]
    async fn a_proxy_leaves_a_replica_that_is_cut_off_and_keeps_one_that_is_busy() {
        let hosts = Hosts::new();
        let address = |change: &str, (host, link): (&str, &str), at: &str| {
            ip(&["-n", host, "address", change, &format!("{at}/24"), "dev", link]);
        };
        let (near, link) = (hosts.link_here(), hosts.link_there());
        address("add", (&hosts.here, &near), ALSO_HERE);
        address("add", (&hosts.there, &link), ALSO_THERE);
        let far = Namespace::enter(&hosts.there).expect("root may enter a namespace");
        let mesh = Mesh::start_with(json!({"advertise": [THERE, ALSO_THERE]})).await;
        let server = SocketAddr::new(mesh.ip, 15012);
        let addresses = [THERE, ALSO_THERE].map(|at| SocketAddr::new(at.parse().expect("an address"), 15012));
        let ways = addresses.map(|at| {
            let listener = far.listen(at).expect("the address is free");
            listener.set_nonblocking(true).expect("a listener");
            Some(Way::over(tokio::net::TcpListener::from_std(listener).expect("a runtime"), server))
        });
        let caller = Workload::client("caller").inside(&hosts.here, HERE.parse().expect("an address"));
        let caller = caller.setting("listen", json!({"admin": "127.0.0.1:15000"}));
        let _sidecar = mesh.sidecar(knows(&mesh, caller, &addresses)).await;
        // A replica that is busy acknowledges all the same.
        let kept = used(&ways).await;
        let way = ways[kept].as_ref().expect("it is open");
        way.set_open(false);
        tokio::time::sleep(Duration::from_secs(3)).await;
        way.set_open(true);
        hears_of_changes(&mesh, 0);
        assert_eq!((way.carried(), used(&ways).await), (1, kept));
        // One that is cut off does not.
        address("delete", (&hosts.there, &link), [THERE, ALSO_THERE][kept]);
        let since = Instant::now();
        let other = ways[1 - kept].as_ref().expect("it is open");
        weft_tests::eventually("the proxy has moved", || async { (other.carried() > 0).then_some(()) }).await;
        assert!(since.elapsed() < MOVES + Duration::from_millis(500), "it moved after {:?}", since.elapsed());
        hears_of_changes(&mesh, 1);
    }
}
