//! A mesh under test: its control plane, and the operator's commands against it.

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;
use tempfile::TempDir;

use crate::process::{Process, command};
use crate::sidecar::{Sidecar, Workload};
use crate::{address, wait};

/// A control plane with a folder for everything that belongs to its mesh.
#[derive(Debug)]
pub struct Mesh {
    pub ip: IpAddr,
    folder: TempDir,
    control: Option<Process>,
    settings: Value,
    namespace: Option<String>,
}

/// Output of a command, and its exit code.
#[derive(Debug, Clone)]
pub struct Printed {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Printed {
    /// The output as JSON.
    ///
    /// # Panics
    /// When it is none.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("no JSON: {error}\n{}\n{}", self.out, self.err))
    }
}

/// An operator of a mesh.
#[derive(Debug, Clone)]
pub struct Operator {
    ip: IpAddr,
    state: PathBuf,
    namespace: Option<String>,
}

impl Operator {
    /// Where the API is, the roots by which it is checked, and the token.
    ///
    /// # Panics
    /// When a file is not there.
    pub fn access(&self) -> (SocketAddr, Vec<u8>, String) {
        let read = |name: &str| std::fs::read(self.state.join(name)).expect("the control plane made it");
        let token = String::from_utf8_lossy(&read("operator.token")).trim().to_owned();
        (SocketAddr::new(self.ip, 15013), read("ca.pem"), token)
    }

    /// A call of `weft` with something on standard input.
    ///
    /// # Panics
    /// When `weft` can't be started.
    pub fn weft_reading(&self, input: &str, arguments: &[&str]) -> Printed {
        let mut program = command("weft", self.namespace.as_deref());
        program.args(arguments).env("WEFT_SERVER", format!("https://{}:15013", self.ip));
        program
            .env("WEFT_TOKEN_FILE", self.state.join("operator.token"))
            .env("WEFT_CA_FILE", self.state.join("ca.pem"));
        program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = program.spawn().expect("weft starts");
        // A command that doesn't read closes the pipe: that is its right.
        _ = child.stdin.take().map(|mut stdin| stdin.write_all(input.as_bytes()));
        let output = child.wait_with_output().expect("weft ends");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Printed { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
    }
}

impl Mesh {
    /// A new mesh with default settings.
    pub async fn start() -> Self {
        Self::start_with(serde_json::json!({})).await
    }

    /// A new mesh; `settings` are further keys of the control plane's configuration.
    ///
    /// # Panics
    /// When the control plane does not come up.
    #[expect(clippy::unused_async, reason = "a test awaits what starts a process, however it is done")]
    pub async fn start_with(settings: Value) -> Self {
        Self::launch(address::next(), settings, None)
    }

    /// A new mesh whose control plane runs at `ip` inside a network namespace.
    ///
    /// # Panics
    /// When the control plane does not come up.
    pub fn start_inside(namespace: &str, ip: IpAddr) -> Self {
        Self::start_inside_with(namespace, ip, serde_json::json!({}))
    }

    /// The same with `settings`.
    ///
    /// # Panics
    /// When the control plane does not come up.
    pub fn start_inside_with(namespace: &str, ip: IpAddr, settings: Value) -> Self {
        Self::launch(ip, settings, Some(namespace.to_owned()))
    }

    /// A further control plane on the store of another, with that one's authority and first token.
    ///
    /// # Panics
    /// When the control plane does not come up.
    pub fn beside(other: &Self, settings: Value) -> Self {
        Self::launch_beside(other, address::next(), settings, None)
    }

    /// The same at `ip` inside a network namespace.
    ///
    /// # Panics
    /// When the control plane does not come up.
    pub fn beside_inside(other: &Self, namespace: &str, ip: IpAddr, settings: Value) -> Self {
        Self::launch_beside(other, ip, settings, Some(namespace.to_owned()))
    }

    fn launch_beside(other: &Self, ip: IpAddr, settings: Value, namespace: Option<String>) -> Self {
        let folder = tempfile::tempdir().expect("a scratch folder");
        let (from, to) = (other.folder.path().join("control"), folder.path().join("control"));
        std::fs::create_dir_all(to.join("ca")).expect("the scratch folder is writable");
        for file in ["ca.pem", "operator.token", "ca/root.key", "ca/filters.key"] {
            std::fs::copy(from.join(file), to.join(file)).expect("the other one has it");
        }
        Self::launch_in(folder, ip, settings, namespace)
    }

    fn launch(ip: IpAddr, settings: Value, namespace: Option<String>) -> Self {
        let folder = tempfile::tempdir().expect("a scratch folder");
        Self::launch_in(folder, ip, settings, namespace)
    }

    fn launch_in(folder: TempDir, ip: IpAddr, settings: Value, namespace: Option<String>) -> Self {
        let mut mesh = Self { ip, folder, control: None, settings, namespace };
        mesh.start_control();
        mesh
    }

    /// Starts the control plane (again) and waits until it answers.
    ///
    /// # Panics
    /// When it doesn't.
    pub fn start_control(&mut self) {
        let mut settings = self.settings.clone();
        settings["bind"] = self.ip.to_string().into();
        settings["state"] = self.folder.path().join("control").display().to_string().into();
        let file = self.folder.path().join("control.yaml");
        std::fs::write(&file, settings.to_string()).expect("the scratch folder is writable");
        let mut program = command("weft-control", self.namespace.as_deref());
        let control = Process::start("weft-control", self.folder.path(), program.arg("--config").arg(file));
        let answers = || self.weft(&["get", "services"]).code == 0;
        wait::until("the control plane answers", answers, || self.weft(&["get", "services"]).err + &control.tail());
        self.control = Some(control);
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn ca_file(&self) -> PathBuf {
        self.folder.path().join("control/ca.pem")
    }

    /// The control plane's process.
    ///
    /// # Panics
    /// While it is killed.
    pub fn control(&self) -> &Process {
        self.control.as_ref().expect("the control plane runs")
    }

    /// `kill -9`.
    pub fn kill_control(&mut self) {
        self.control = None;
    }

    /// Sends a signal that must not end it, and waits until it says so.
    ///
    /// # Panics
    /// When it has ended.
    pub fn signal_control(&self, name: &str) {
        let control = self.control.as_ref().expect("the control plane runs");
        control.signal(name);
        control.logs(&format!("signal=\"{name}\""));
    }

    /// A call of `weft`, as a person would type it.
    pub fn weft(&self, arguments: &[&str]) -> Printed {
        self.weft_reading("", arguments)
    }

    /// The same with something on standard input.
    ///
    /// # Panics
    /// When `weft` can't be started.
    pub fn weft_reading(&self, input: &str, arguments: &[&str]) -> Printed {
        self.operator().weft_reading(input, arguments)
    }

    /// Who may change this mesh, for another thread.
    pub fn operator(&self) -> Operator {
        Operator { ip: self.ip, state: self.folder.path().join("control"), namespace: self.namespace.clone() }
    }

    /// Applies and waits until every proxy concerned has it.
    ///
    /// # Panics
    /// When it is refused or does not arrive.
    pub fn apply(&self, manifest: &str) {
        let printed = self.weft_reading(manifest, &["apply", "-f", "-", "--wait", "30s"]);
        let log = self.control.as_ref().map(Process::tail).unwrap_or_default();
        assert_eq!(printed.code, 0, "apply: {}{}\n{manifest}\n{log}", printed.out, printed.err);
    }

    /// A join token for a service account, `NS/SA`.
    ///
    /// # Panics
    /// When none is given.
    pub fn token(&self, account: &str) -> String {
        let printed = self.weft(&["token", "create", "--service-account", account, "-o", "json"]);
        assert_eq!(printed.code, 0, "token create: {}", printed.err);
        printed.json()["token"].as_str().expect("a token").to_owned()
    }

    /// A join token that grants what a workload claims.
    ///
    /// # Panics
    /// When none is given.
    pub fn token_for(&self, workload: &Workload) -> String {
        let account = format!("{}/{}", workload.namespace, workload.account);
        let mut arguments = vec!["token".to_owned(), "create".to_owned(), "--service-account".to_owned(), account];
        if let Some(service) = workload.service.as_ref().filter(|service| **service != workload.account) {
            arguments.extend(["--service".to_owned(), service.clone()]);
        }
        if workload.is_placed {
            arguments.extend(["--address".to_owned(), format!("{}/32", workload.ip)]);
        }
        for (key, value) in workload.labels.as_object().into_iter().flatten() {
            arguments.extend(["--label".to_owned(), format!("{key}={}", value.as_str().unwrap_or_default())]);
        }
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).chain(["-o", "json"]).collect();
        let printed = self.weft(&arguments);
        assert_eq!(printed.code, 0, "token create: {}", printed.err);
        printed.json()["token"].as_str().expect("a token").to_owned()
    }

    /// A sidecar that is ready.
    #[expect(clippy::unused_async, reason = "a test awaits what starts a process, however it is done")]
    pub async fn sidecar(&self, workload: Workload) -> Sidecar {
        let sidecar = Sidecar::start(self, workload);
        sidecar.ready();
        sidecar
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(control) = &self.control
        {
            eprintln!("{}", control.tail());
        }
    }
}
