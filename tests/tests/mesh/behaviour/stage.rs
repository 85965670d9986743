//! A service with its app, a caller, and the way by which the caller's requests come: whole processes or two proxies in this
//! process, the explicit proxy's form or a tunnel.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use weft_policy::bundle::{Protocol, ServicePort};
use weft_tests::client::{raw, tunnel};
use weft_tests::{App, Client, Mesh, Scrape, Sidecar, Workload, eventually};

use crate::mesh::in_process::{Of, Pair};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// In forward-proxy form.
    Explicit,
    /// Inside CONNECT, as captured connections are served too.
    Tunnel,
}

/// The way by which an app enters the mesh.
#[derive(Debug, Clone, Copy)]
pub(super) struct Door {
    way: Way,
    proxy: SocketAddr,
}

impl Door {
    /// A client of HTTP/1.1.
    pub(super) async fn client(self) -> Client {
        match self.way {
            Way::Explicit => Client::through(self.proxy, "origin").await,
            Way::Tunnel => Client::h1_in_tunnel(self.proxy, "origin:80").await,
        }
    }
}

pub(super) struct Stage {
    pub(super) door: Door,
    pub(super) app: App,
    proxies: Proxies,
}

enum Proxies {
    InProcess(Pair),
    Processes { caller: Box<Sidecar>, origin: Box<Sidecar>, _mesh: Box<Mesh> },
}

impl Stage {
    pub(super) async fn processes(way: Way) -> Self {
        let mesh = Mesh::start().await;
        let workload = Workload::server("origin", 8080, "auto");
        let app = App::start("reviews-1", workload.ip, 8080).await;
        let origin = mesh.sidecar(workload).await;
        let caller = mesh.sidecar(Workload::client("shopper")).await;
        let door = Door { way, proxy: caller.proxy() };
        let proxies = Proxies::Processes { caller: caller.into(), origin: origin.into(), _mesh: mesh.into() };
        let stage = Self { door, app, proxies };
        eventually("the origin is reachable", || async {
            let answer = Client::through(door.proxy, "origin").await.get("/who").await;
            (answer.status == 200).then_some(())
        })
        .await;
        stage
    }

    pub(super) async fn in_process(way: Way) -> Self {
        let pair = Pair::start_with(&[(8080, Protocol::Auto)], |_, bundle| {
            for service in bundle.services.values_mut() {
                let of_workload = service.ports[0].clone();
                service.ports.push(ServicePort { port: 80, ..of_workload });
            }
        });
        let app = App::start("reviews-1", pair.origin, 8080).await;
        Self { door: Door { way, proxy: pair.proxy() }, app, proxies: Proxies::InProcess(pair) }
    }

    pub(super) fn proxy(&self) -> SocketAddr {
        self.door.proxy
    }

    pub(super) async fn client(&self) -> Client {
        self.door.client().await
    }

    /// `Host` of such a client.
    pub(super) fn host(&self) -> &'static str {
        match self.door.way {
            Way::Explicit => "origin",
            Way::Tunnel => "origin:80",
        }
    }

    /// The account of the caller.
    pub(super) fn account(&self) -> &'static str {
        match self.proxies {
            Proxies::InProcess(_) => "caller",
            Proxies::Processes { .. } => "shopper",
        }
    }

    /// Sends bytes as they are and reads until the proxy closes.
    pub(super) async fn raw(&self, bytes: &[u8]) -> String {
        if self.door.way == Way::Explicit {
            return raw(self.door.proxy, bytes).await;
        }
        let mut stream = tunnel(self.door.proxy, "origin:80").await;
        stream.write_all(bytes).await.expect("the proxy reads");
        let mut answer = Vec::new();
        let closed = tokio::time::timeout(weft_tests::wait::LIMIT, stream.read_to_end(&mut answer)).await.is_ok();
        assert!(closed, "the proxy does not close after {:?}", String::from_utf8_lossy(bytes));
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// Request series of one of the proxies; of a process all other metrics too.
    pub(super) async fn metrics(&self, of: Of) -> Scrape {
        match (&self.proxies, of) {
            (Proxies::InProcess(pair), of) => pair.series(of),
            (Proxies::Processes { caller, .. }, Of::Caller) => caller.metrics().await,
            (Proxies::Processes { origin, .. }, Of::Origin) => origin.metrics().await,
        }
    }

    /// True for processes: counters outside the request series belong to one.
    pub(super) fn has_counters(&self) -> bool {
        matches!(self.proxies, Proxies::Processes { .. })
    }
}
