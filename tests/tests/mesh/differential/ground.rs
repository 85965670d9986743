//! Grounds on which exchanges happen: origins that are called directly, origins behind a sidecar, and the ways to both.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::time::Duration;

use serde_json::json;
use tokio::net::TcpStream;
use weft_policy::bundle::Protocol;
use weft_tests::client::try_tunnel;
use weft_tests::exchange::h1::Origin;
use weft_tests::namespace::{HERE, Hosts, Namespace, THERE};
use weft_tests::{Mesh, Sidecar, Workload, address, eventually};

use crate::mesh::in_process::Pair;

/// Exchanges that run side by side; each lane has its own ports, so that what an origin sees is of one exchange.
pub(super) const LANES: u16 = 4;

/// Lanes at the most: ports of one declaration.
pub(super) const MOST_LANES: u16 = 100;

/// The service's virtual address where it is captured.
const VIP: &str = "10.231.7.100";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Direct,
    /// Forward-proxy form on 15080.
    Explicit,
    /// CONNECT on 15080.
    Tunnel,
    /// Redirected by nftables.
    Captured,
}

impl Way {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Explicit => "explicit",
            Self::Tunnel => "tunnel",
            Self::Captured => "captured",
        }
    }
}

/// Protocol that a port is declared to speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Declared {
    Http,
    Grpc,
    Nothing,
}

const DECLARED: [Declared; 3] = [Declared::Http, Declared::Grpc, Declared::Nothing];

impl Declared {
    fn port(self, lane: u16) -> u16 {
        let base = match self {
            Self::Http => 9000,
            Self::Grpc => 9000 + MOST_LANES,
            Self::Nothing => 9000 + 2 * MOST_LANES,
        };
        base + lane
    }

    fn in_bundle(self) -> Protocol {
        match self {
            Self::Http => Protocol::Http,
            Self::Grpc => Protocol::Grpc,
            Self::Nothing => Protocol::Auto,
        }
    }

    fn protocol(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Grpc => "grpc",
            Self::Nothing => "auto",
        }
    }
}

/// One port of the service: the origin behind the mesh, and another that is called directly under the same name.
pub(super) struct Lane {
    declared: Declared,
    index: u16,
    pub(super) direct: Origin,
    pub(super) meshed: Origin,
}

impl Lane {
    /// The authority by which clients call it, the same by every way.
    pub(super) fn authority(&self) -> String {
        format!("origin:{}", self.declared.port(self.index))
    }

    pub(super) fn origin(&self, way: Way) -> &Origin {
        if way == Way::Direct { &self.direct } else { &self.meshed }
    }
}

pub(super) struct Ground {
    lanes: Vec<Lane>,
    /// The caller's proxy for applications.
    proxy: SocketAddr,
    inside: Option<Namespace>,
    _proxies: Proxies,
    /// Last: the namespaces go when nobody is in them.
    _hosts: Option<Hosts>,
}

/// Proxies that have to live as long as the exchanges.
#[expect(dead_code, reason = "held, not used")]
enum Proxies {
    InProcess(Pair),
    Processes(Box<(Sidecar, Sidecar, Mesh)>),
}

fn workload(mut workload: Workload) -> Workload {
    for declared in DECLARED {
        for lane in 0..LANES {
            workload = workload.port(declared.port(lane), declared.protocol());
        }
    }
    workload
}

fn manifest() -> String {
    let mut text = "apiVersion: v1\nkind: Service\nmetadata: {name: origin, namespace: default}\nspec:\n  selector: {app: origin}\n".to_owned();
    text += &format!("  clusterIP: {VIP}\n  ports:\n");
    for declared in DECLARED {
        for lane in 0..LANES {
            let port = declared.port(lane);
            let protocol = match declared {
                Declared::Nothing => String::new(),
                Declared::Http | Declared::Grpc => format!(", appProtocol: {}", declared.protocol()),
            };
            text += &format!("  - {{name: p{port}, port: {port}, targetPort: {port}{protocol}}}\n");
        }
    }
    text
}

fn lanes(count: u16, meshed: impl Fn(u16) -> std::io::Result<TcpListener>) -> Vec<Lane> {
    let own = address::next();
    let mut lanes = Vec::new();
    for declared in DECLARED {
        for index in 0..count {
            let port = declared.port(index);
            let direct = TcpListener::bind((own, port)).expect("the address is free");
            let meshed = meshed(port).expect("the address is free");
            lanes.push(Lane { declared, index, direct: Origin::start(direct), meshed: Origin::start(meshed) });
        }
    }
    lanes
}

impl Ground {
    /// Two proxies in this process.
    pub(super) async fn on_loopback(count: u16) -> Self {
        let ports =
            DECLARED.iter().flat_map(|declared| (0..count).map(|lane| (declared.port(lane), declared.in_bundle())));
        let pair = Pair::start(&ports.collect::<Vec<_>>());
        let lanes = lanes(count, |port| TcpListener::bind((pair.origin, port)));
        let ground =
            Self { lanes, proxy: pair.proxy(), inside: None, _proxies: Proxies::InProcess(pair), _hosts: None };
        ground.is_reachable(Way::Tunnel).await;
        ground
    }

    /// Two hosts with a whole mesh on them.
    pub(super) async fn captured() -> Self {
        let hosts = Hosts::new();
        let (here, there): (IpAddr, IpAddr) = (HERE.parse().unwrap(), THERE.parse().unwrap());
        let far = Namespace::enter(&hosts.there).expect("root may enter a namespace");
        let near = Namespace::enter(&hosts.here).expect("root may enter a namespace");
        let mesh = Mesh::start_inside(&hosts.there, there);
        let lanes = lanes(LANES, |port| far.listen(SocketAddr::new(there, port)));
        let listen = json!({"outbound": "[::]:15001", "inbound": "[::]:15006", "admin": "127.0.0.1:15000"});
        let server = workload(Workload::client("origin")).inside(&hosts.there, there);
        let server = server.setting("listen", listen.clone());
        let server = server.setting("capture", json!({"exclude_ports": [15012, 15013, 15014]}));
        let server = mesh.sidecar(server).await;
        let client = Workload::client("caller").inside(&hosts.here, here).setting("listen", listen);
        let client = client.setting("capture", json!({"exclude_ports": [15012]}));
        let client = mesh.sidecar(client).await;
        mesh.apply(&manifest());
        let (proxy, proxies) = (client.proxy(), Proxies::Processes(Box::new((server, client, mesh))));
        let ground = Self { lanes, proxy, inside: Some(near), _proxies: proxies, _hosts: Some(hosts) };
        ground.is_reachable(Way::Captured).await;
        ground
    }

    pub(super) fn lane(&self, declared: Declared, index: u16) -> &Lane {
        let is = |lane: &&Lane| lane.declared == declared && lane.index == index;
        self.lanes.iter().find(is).expect("every port has its lanes")
    }

    /// Opens the connection for the bytes of an exchange.
    pub(super) async fn dial(&self, way: Way, lane: &Lane) -> Result<TcpStream, String> {
        let told = |error: std::io::Error| error.to_string();
        match way {
            Way::Direct => TcpStream::connect(lane.direct.address).await.map_err(told),
            Way::Explicit => TcpStream::connect(self.proxy).await.map_err(told),
            Way::Tunnel => {
                let (stream, head) = try_tunnel(self.proxy, &lane.authority()).await;
                if head.starts_with("HTTP/1.1 200") { Ok(stream) } else { Err(head) }
            }
            Way::Captured => {
                let inside = self.inside.as_ref().expect("a captured ground has a namespace");
                let to = SocketAddr::new(VIP.parse().unwrap(), lane.declared.port(lane.index));
                inside.dial(to).await.map_err(told)
            }
        }
    }

    /// As a captured exchange is dialled, from this port.
    pub(super) fn dial_from(&self, port: u16, lane: &Lane) -> std::io::Result<TcpStream> {
        let inside = self.inside.as_ref().expect("a captured ground has a namespace");
        let to = SocketAddr::new(VIP.parse().unwrap(), lane.declared.port(lane.index));
        let stream = inside.connect_from(port, to)?;
        stream.set_nonblocking(true)?;
        TcpStream::from_std(stream)
    }

    async fn is_reachable(&self, way: Way) {
        let lane = self.lane(Declared::Http, 0);
        eventually("the origin is reachable", || async {
            let stream = self.dial(way, lane).await.ok()?;
            lane.meshed.prepare(&[], &[]);
            let request = format!("GET / HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", lane.authority());
            let act = weft_tests::exchange::h1::Act::Send(request.into_bytes());
            let acts = [act];
            let client = weft_tests::exchange::h1::client(stream, &["GET"], &acts, &lane.meshed);
            let seen = tokio::time::timeout(Duration::from_secs(5), client);
            (seen.await.ok()?.get("1.line") == Some("HTTP/1.1 200 OK")).then_some(())
        })
        .await;
    }
}
