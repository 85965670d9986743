//! One workload's sidecar: weft-proxy with a configuration file of its own, on an address of its own, at the ports that CONTRACT
//! fixes.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use serde_json::{Value, json};

use crate::control::Mesh;
use crate::process::{Process, command};
use crate::scrape::Scrape;
use crate::{address, wait};

/// Workload of a sidecar, and the sidecar's settings.
#[derive(Debug, Clone)]
pub struct Workload {
    pub name: String,
    pub namespace: String,
    pub account: String,
    pub service: Option<String>,
    pub ports: Vec<(u16, &'static str)>,
    pub labels: Value,
    pub ip: IpAddr,
    /// Further keys of the configuration file; those of `listen` are added to the usual ones.
    pub settings: Value,
    /// The network namespace it runs in.
    pub netns: Option<String>,
    /// Its join token grants its address: it may be registered by who speaks from another.
    pub is_placed: bool,
}

impl Workload {
    /// A pure client.
    pub fn client(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            namespace: "default".to_owned(),
            account: name.to_owned(),
            service: None,
            ports: Vec::new(),
            labels: json!({"app": name}),
            ip: address::next(),
            settings: json!({}),
            netns: None,
            is_placed: false,
        }
    }

    /// An endpoint of the service of its own name, with its app on `port`.
    pub fn server(name: &str, port: u16, protocol: &'static str) -> Self {
        Self { service: Some(name.to_owned()), ports: vec![(port, protocol)], ..Self::client(name) }
    }

    /// Another endpoint of a service.
    #[must_use]
    pub fn of(mut self, service: &str) -> Self {
        service.clone_into(&mut self.account);
        self.labels = json!({"app": service});
        self.service = Some(service.to_owned());
        self
    }

    #[must_use]
    pub fn namespace(mut self, namespace: &str) -> Self {
        namespace.clone_into(&mut self.namespace);
        self
    }

    #[must_use]
    pub fn port(mut self, port: u16, protocol: &'static str) -> Self {
        self.ports.push((port, protocol));
        self
    }

    /// Runs it at `ip` inside a network namespace.
    #[must_use]
    pub fn inside(mut self, netns: &str, ip: IpAddr) -> Self {
        self.netns = Some(netns.to_owned());
        self.ip = ip;
        self
    }

    /// Runs it at `ip`, which its join token grants.
    #[must_use]
    pub fn at(mut self, ip: IpAddr) -> Self {
        (self.ip, self.is_placed) = (ip, true);
        self
    }

    #[must_use]
    pub fn setting(mut self, key: &str, value: Value) -> Self {
        self.settings[key] = value;
        self
    }
}

/// A running sidecar.
#[derive(Debug)]
pub struct Sidecar {
    pub workload: Workload,
    pub process: Process,
    folder: PathBuf,
    configuration: PathBuf,
}

impl Sidecar {
    /// Writes the configuration and starts the proxy; see [`Sidecar::ready`].
    ///
    /// # Panics
    /// When a file can't be written or the program not started.
    pub fn start(mesh: &Mesh, workload: Workload) -> Self {
        let folder = mesh.folder().join(&workload.name);
        std::fs::create_dir_all(&folder).expect("the scratch folder is writable");
        let token = mesh.token_for(&workload);
        std::fs::write(folder.join("token"), token).expect("the scratch folder is writable");
        let configuration = folder.join("proxy.yaml");
        let text = configure(mesh, &workload, &folder);
        std::fs::write(&configuration, text.to_string()).expect("the scratch folder is writable");
        let process = launch(&workload, &folder, &configuration);
        Self { workload, process, folder, configuration }
    }

    /// The configuration file.
    pub fn configuration(&self) -> &Path {
        &self.configuration
    }

    /// Waits until it is ready.
    ///
    /// # Panics
    /// When it never is.
    pub fn ready(&self) {
        wait::until(
            &format!("{} is ready", self.workload.name),
            || self.health("ready") == 200,
            || self.process.tail(),
        );
    }

    /// The status of `/healthz/WHAT`, 0 where nobody answers. Blocks.
    pub fn health(&self, what: &str) -> u16 {
        let (address, path) = (self.at(15021), format!("/healthz/{what}"));
        match &self.workload.netns {
            None => http_status(address, &path),
            Some(netns) => curl_status(netns, &format!("http://{address}{path}")),
        }
    }

    /// The same configuration and state, a new process.
    pub fn restart(&mut self) {
        self.process.kill();
        self.process = launch(&self.workload, &self.folder, &self.configuration);
    }

    /// SIGTERM, and how it ended.
    pub fn terminate(&mut self) -> ExitStatus {
        self.process.signal("TERM");
        self.process.ended()
    }

    pub fn at(&self, port: u16) -> SocketAddr {
        place(self.workload.ip, port)
    }

    /// The explicit proxy for the application.
    pub fn proxy(&self) -> SocketAddr {
        self.at(15080)
    }

    pub async fn metrics(&self) -> Scrape {
        Scrape::fetch(self.at(15020)).await
    }

    pub fn state(&self) -> PathBuf {
        self.folder.join("state")
    }

    /// The access log's lines, where it is on.
    pub fn access_log(&self) -> Vec<Value> {
        let lines = self.process.log();
        let parsed = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        parsed.filter(|line| line.get("response_flags").is_some()).collect()
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.process.tail());
        }
    }
}

/// The port for whoever is on this machine.
const ADMIN: u16 = 15_000;

fn launch(workload: &Workload, folder: &Path, configuration: &Path) -> Process {
    let mut program = command("weft-proxy", workload.netns.as_deref());
    Process::start(&workload.name, folder, program.arg("--config").arg(configuration))
}

fn configure(mesh: &Mesh, workload: &Workload, folder: &Path) -> Value {
    let at = |port: u16| place(workload.ip, port).to_string();
    let ports: Vec<_> =
        workload.ports.iter().map(|(port, protocol)| json!({"port": port, "protocol": protocol})).collect();
    let mut text = json!({
        "name": workload.name,
        "state_dir": folder.join("state"),
        "control": {
            "address": format!("https://{}:15012", mesh.ip),
            "ca_file": mesh.ca_file(),
            "token_file": folder.join("token"),
        },
        "workload": {
            "name": workload.name, "namespace": workload.namespace, "service_account": workload.account,
            "address": workload.ip, "ports": ports, "labels": workload.labels, "service": workload.service,
        },
        "listen": {
            "explicit": at(15080), "mesh": at(15008), "admin": at(15000), "metrics": at(15020), "health": at(15021),
        },
        "workers": 2,
    });
    for (key, value) in workload.settings.as_object().into_iter().flatten() {
        match value.as_object().filter(|_| key == "listen") {
            Some(listen) => listen.iter().for_each(|(name, address)| text["listen"][name] = address.clone()),
            None if key == "control_ca" => text["control"]["ca_file"] = value.clone(),
            None => text[key] = value.clone(),
        }
    }
    text
}

/// Where a sidecar listens. What this machine alone may reach is on loopback, also beside an address of a real link, unless that
/// is in a namespace of its own, whose test says where.
fn place(ip: IpAddr, port: u16) -> SocketAddr {
    if let IpAddr::V4(v4) = ip
        && !v4.is_loopback()
        && port == ADMIN
    {
        let [_, b, c, d] = v4.octets();
        return SocketAddr::new(IpAddr::from([127, b, c, d]), port);
    }
    SocketAddr::new(ip, port)
}

/// One GET from inside a network namespace.
fn curl_status(netns: &str, url: &str) -> u16 {
    let mut curl = Command::new("ip");
    curl.args(["netns", "exec", netns, "curl", "-s", "-o", "/dev/null", "--max-time", "2", "-w", "%{http_code}", url]);
    let output = curl.output().map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&output).parse().unwrap_or(0)
}

/// One GET without a runtime, for waiting before anything else runs.
fn http_status(address: SocketAddr, path: &str) -> u16 {
    use std::io::{Read as _, Write as _};
    let ask = || -> std::io::Result<u16> {
        let mut stream = std::net::TcpStream::connect(address)?;
        stream.set_read_timeout(Some(std::time::Duration::from_secs(2)))?;
        write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0))
    };
    ask().unwrap_or(0)
}
