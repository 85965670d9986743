//! A stage for other people's programs: a server and its callers, each with a sidecar that `weft run` starts, or
//! captured on two hosts. The programs are the same in both cases and know of neither.

use std::net::{IpAddr, SocketAddr};
use std::process::{Command, Output};

use serde_json::json;
use weft_tests::namespace::{HERE, Hosts, THERE};
use weft_tests::process::{Process, command};
use weft_tests::{Mesh, Sidecar, Workload, address as loopback};

/// The service's virtual address where it is captured.
const VIP: &str = "10.231.7.100";

/// How a program gets into the mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// Under `weft run`, by the explicit proxy that its environment names.
    Run,
    Captured,
}

/// The server: what its port speaks, and its command line at an address.
pub(super) struct Server {
    pub(super) port: u16,
    pub(super) protocol: &'static str,
    pub(super) command: Box<dyn Fn(IpAddr) -> Vec<String>>,
}

pub(super) struct Stage {
    pub(super) way: Way,
    port: u16,
    caller: IpAddr,
    pub(super) mesh: Mesh,
    /// The server, under `weft run` or by itself.
    pub(super) server: Process,
    _sidecars: Vec<Sidecar>,
    hosts: Option<Hosts>,
}

fn inside(hosts: &str, words: &[String]) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", hosts]).args(words);
    command
}

impl Stage {
    pub(super) async fn new(way: Way, server: Server) -> Self {
        match way {
            Way::Run => Self::run(server).await,
            Way::Captured => Self::captured(server).await,
        }
    }

    async fn run(server: Server) -> Self {
        let mesh = Mesh::start().await;
        let (origin, caller) = (loopback::next(), loopback::next());
        let words = (server.command)(origin);
        let mut run = weft_run(&mesh, "origin", origin);
        run.args(["--port", &server.port.to_string(), "--protocol", server.protocol, "--"]).args(words);
        let process = Process::start("origin", mesh.folder(), &mut run);
        process.logs("listening");
        let port = if server.protocol == "tcp" { server.port } else { 80 };
        Self { way: Way::Run, port, caller, mesh, server: process, _sidecars: Vec::new(), hosts: None }
    }

    async fn captured(server: Server) -> Self {
        let hosts = Hosts::new();
        let (here, there): (IpAddr, IpAddr) = (address(HERE), address(THERE));
        let mesh = Mesh::start_inside(&hosts.there, there);
        let words = (server.command)(there);
        let process = Process::start("origin", mesh.folder(), &mut inside(&hosts.there, &words));
        process.logs("listening");
        let listen = json!({"outbound": "[::]:15001", "inbound": "[::]:15006", "admin": "127.0.0.1:15000"});
        let origin = Workload::server("origin", server.port, server.protocol).inside(&hosts.there, there);
        let origin = origin.setting("listen", listen.clone());
        let origin = mesh.sidecar(origin.setting("capture", json!({"exclude_ports": [15012, 15013, 15014]}))).await;
        let caller = Workload::client("caller").inside(&hosts.here, here).setting("listen", listen);
        let caller = mesh.sidecar(caller.setting("capture", json!({"exclude_ports": [15012]}))).await;
        mesh.apply(&format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: origin, namespace: default}}\nspec:\n  selector: {{app: origin}}\n  \
             clusterIP: {VIP}\n  ports: [{{port: 80, targetPort: {}, appProtocol: {}}}]\n",
            server.port, server.protocol
        ));
        let (way, sidecars) = (Way::Captured, vec![origin, caller]);
        Self { way, port: 80, caller: here, mesh, server: process, _sidecars: sidecars, hosts: Some(hosts) }
    }

    /// The authority by which a program names the service.
    pub(super) fn authority(&self) -> String {
        match self.way {
            Way::Run => format!("origin:{}", self.port),
            Way::Captured => format!("{VIP}:80"),
        }
    }

    /// The explicit proxy of the program that runs next, where it has one.
    pub(super) fn proxy(&self) -> Option<SocketAddr> {
        (self.way == Way::Run).then(|| SocketAddr::new(self.caller, 15080))
    }

    /// A program of the caller's, as the way has it.
    pub(super) fn program(&self, program: &str, arguments: &[&str]) -> Command {
        match &self.hosts {
            Some(hosts) => {
                let words: Vec<String> = [program].iter().chain(arguments).map(|word| (*word).to_owned()).collect();
                inside(&hosts.here, &words)
            }
            None => {
                let mut run = weft_run(&self.mesh, "caller", self.caller);
                run.arg("--").arg(program).args(arguments);
                run
            }
        }
    }

    /// Runs a program of the caller's to its end, which has to be a good one; what it printed.
    pub(super) fn plays(&self, program: &str, arguments: &[&str]) -> String {
        let mut command = self.program(program, arguments);
        let Output { status, stdout, stderr } = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let (out, err) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
        assert!(status.success(), "{command:?}: {status}\n{out}\n{err}\n{}", self.server.tail());
        out.into_owned()
    }
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn weft_run(mesh: &Mesh, service: &str, ip: IpAddr) -> Command {
    let state = mesh.folder().join("control");
    let mut run = command("weft", None);
    run.args(["run", "--service", service, "--ip", &ip.to_string(), "--drain-timeout", "2s"]);
    run.env("WEFT_SERVER", format!("https://{}:15013", mesh.ip));
    run.env("WEFT_TOKEN_FILE", state.join("operator.token")).env("WEFT_CA_FILE", state.join("ca.pem"));
    run
}
