//! Two hosts: the caller's with its sidecar, and one with the control plane, the peer's sidecar and its apps.

use std::net::{IpAddr, SocketAddr};
use std::process::Command;

use serde_json::json;
use tokio::net::TcpStream;
use weft_tests::namespace::{HERE, Hosts, Namespace, THERE, ip};
use weft_tests::{App, Client, Mesh, Sidecar, TcpApp, Workload, eventually};

/// The address that the caller's host gets when it moves.
pub(super) const NEW: &str = "10.231.7.9";

pub(super) struct Ground {
    pub(super) client: Sidecar,
    pub(super) server: Sidecar,
    near: Namespace,
    mesh: Mesh,
    _apps: (App, TcpApp),
    hosts: Hosts,
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

impl Ground {
    pub(super) async fn new() -> Self {
        let hosts = Hosts::new();
        let far = Namespace::enter(&hosts.there).expect("root may enter a namespace");
        let near = Namespace::enter(&hosts.here).expect("root may enter a namespace");
        // The control plane waits long for a silent peer, because its reaction is not tested here.
        let patient = json!({"disconnect_grace_ms": 60_000});
        let mesh = Mesh::start_inside_with(&hosts.there, address(THERE), patient);
        let listen = |port| far.listen(SocketAddr::new(address(THERE), port)).expect("the address is free");
        let apps = (App::on("origin", listen(8080)), TcpApp::on(listen(6000), ""));
        let server = Workload::server("origin", 8080, "http").port(6000, "tcp").inside(&hosts.there, address(THERE));
        let server = mesh.sidecar(server.setting("listen", json!({"admin": "127.0.0.1:15000"}))).await;
        // The caller's app reaches its sidecar whatever the address of the host is.
        let client = Workload::client("caller").inside(&hosts.here, address(HERE)).setting(
            "listen",
            json!({
                "explicit": "127.0.0.1:15080", "mesh": "0.0.0.0:15008", "admin": "127.0.0.1:15000",
                "health": "0.0.0.0:15021",
            }),
        );
        let client = mesh.sidecar(client).await;
        mesh.apply(
            "apiVersion: v1\nkind: Service\nmetadata: {name: origin, namespace: default}\nspec:\n  selector: {app: origin}\n  \
             ports:\n  - {name: http, port: 80, targetPort: 8080, appProtocol: http}\n  - {name: tcp, port: 6000, targetPort: \
             6000, appProtocol: tcp}\n",
        );
        let ground = Self { client, server, near, mesh, _apps: apps, hosts };
        eventually("the origin answers", || async {
            let stream = ground.dial().await;
            (Client::over(stream, "origin").await.get("/who").await.status == 200).then_some(())
        })
        .await;
        ground
    }

    /// A connection to the caller's sidecar.
    pub(super) async fn dial(&self) -> TcpStream {
        dial(&self.near).await
    }

    pub(super) fn near(&self) -> Namespace {
        self.near.clone()
    }

    /// Drops UDP at this hook of both hosts.
    pub(super) fn drop_udp(&self, hook: &str) {
        for netns in [&self.hosts.here, &self.hosts.there] {
            let rules = format!(
                "add table inet hiccup\nadd chain inet hiccup silence {{ type filter hook {hook} priority 0; }}\n\
                 add rule inet hiccup silence meta l4proto udp drop\n"
            );
            nft(netns, &rules);
        }
    }

    pub(super) fn pass_udp(&self) {
        for netns in [&self.hosts.here, &self.hosts.there] {
            nft(netns, "delete table inet hiccup\n");
        }
    }

    /// Sets the caller's interface `up` or `down`. Its IPv4 address stays.
    pub(super) fn link(&self, state: &str) {
        ip(&["-n", &self.hosts.here, "link", "set", &self.hosts.link_here(), state]);
    }

    /// Takes the caller's address away and gives it another.
    pub(super) fn change_address(&self, to: &str) {
        let (netns, link) = (self.hosts.here.as_str(), self.hosts.link_here());
        ip(&["-n", netns, "address", "delete", &format!("{HERE}/24"), "dev", &link]);
        ip(&["-n", netns, "address", "add", &format!("{to}/24"), "dev", &link]);
    }

    /// Sets what fits into a packet on the cable.
    pub(super) fn mtu(&self, bytes: u32) {
        for (netns, link) in [(&self.hosts.here, self.hosts.link_here()), (&self.hosts.there, self.hosts.link_there())]
        {
            ip(&["-n", netns, "link", "set", &link, "mtu", &bytes.to_string()]);
        }
    }

    /// Waits until the origin's path is answered so, and gives the text of the answer.
    pub(super) async fn becomes(&self, status: u16) -> String {
        eventually(&format!("requests are answered {status}"), || async {
            let answer = Client::over(self.dial().await, "origin").await.get("/who").await;
            (answer.status == status).then(|| answer.text())
        })
        .await
    }

    /// Waits until a change reaches the caller's sidecar.
    pub(super) async fn hears_of_changes(&self) {
        let applied = self.mesh.weft_reading(
            "apiVersion: v1\nkind: Service\nmetadata: {name: alias, namespace: default}\nspec:\n  selector: {app: origin}\n  \
             ports: [{port: 80, targetPort: 8080, appProtocol: http}]\n",
            &["apply", "-f", "-"],
        );
        assert_eq!(applied.code, 0, "{}{}", applied.out, applied.err);
        eventually("a new service is known", || async {
            let stream = self.dial().await;
            (Client::over(stream, "alias").await.get("/who").await.status == 200).then_some(())
        })
        .await;
    }
}

pub(super) async fn dial(near: &Namespace) -> TcpStream {
    near.dial(SocketAddr::from(([127, 0, 0, 1], 15080))).await.expect("the sidecar listens")
}

fn nft(netns: &str, rules: &str) {
    let mut nft = Command::new("ip");
    nft.args(["netns", "exec", netns, "nft", rules]);
    let output = nft.output().expect("nft runs");
    assert!(output.status.success(), "{rules}: {}", String::from_utf8_lossy(&output.stderr));
}
