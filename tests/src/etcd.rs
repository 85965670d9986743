//! Members of a real etcd under test: on loopback ports that were free, with their data in a scratch folder; killed with
//! their handle. Used by several crates' tests by its path, so that it stands on the standard library and `tempfile` alone.

use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long a member may take to come up.
const COMES_UP: Duration = Duration::from_secs(60);

/// A cluster of its own.
pub struct Cluster {
    folder: TempDir,
    members: Vec<Member>,
    options: Vec<String>,
    /// A further address of this host by which clients reach the members.
    also: Option<String>,
}

struct Member {
    client: u16,
    peer: u16,
    process: Option<Child>,
}

impl Cluster {
    /// So many members, each of which answers.
    ///
    /// # Panics
    /// When etcd is not installed or doesn't come up.
    pub fn start(members: usize) -> Self {
        Self::start_with(members, &[])
    }

    /// The same with further options of etcd.
    ///
    /// # Panics
    /// As `start`.
    pub fn start_with(members: usize, options: &[&str]) -> Self {
        Self::begin(members, options, None)
    }

    /// The same, reached by a further address of this host as well.
    ///
    /// # Panics
    /// As `start`.
    pub fn start_also_at(members: usize, address: &str) -> Self {
        Self::begin(members, &[], Some(address.to_owned()))
    }

    fn begin(members: usize, options: &[&str], also: Option<String>) -> Self {
        let folder = tempfile::tempdir().expect("a scratch folder");
        // All are bound at once, so that no two are the same.
        let sockets: Vec<_> = (0..members * 2).map(|_| TcpListener::bind("127.0.0.1:0").expect("a port")).collect();
        let ports: Vec<_> = sockets.iter().map(|socket| socket.local_addr().expect("it is bound").port()).collect();
        drop(sockets);
        let members = ports.chunks(2).map(|ports| Member { client: ports[0], peer: ports[1], process: None }).collect();
        let options = options.iter().map(|&option| option.to_owned()).collect();
        let mut cluster = Self { folder, members, options, also };
        for number in 0..cluster.members.len() {
            cluster.launch(number);
        }
        for number in 0..cluster.members.len() {
            cluster.wait_for(number);
        }
        cluster
    }

    /// `HOST:PORT` of each member.
    pub fn members(&self) -> Vec<String> {
        self.members_at("127.0.0.1")
    }

    /// The same by another address of this host.
    pub fn members_at(&self, address: &str) -> Vec<String> {
        self.members.iter().map(|member| format!("{address}:{}", member.client)).collect()
    }

    /// Where a store with this prefix is.
    pub fn location(&self, prefix: &str) -> String {
        format!("etcd://{}/{prefix}", self.members().join(","))
    }

    /// `kill -9`, and gone when this returns.
    pub fn kill(&mut self, number: usize) {
        if let Some(mut process) = self.members[number].process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Stops a member where it stands, or lets it go on: its connections stay open and nothing is answered.
    ///
    /// # Panics
    /// When it does not run.
    pub fn signal(&self, number: usize, name: &str) {
        let process = self.members[number].process.as_ref().expect("the member runs");
        let status = Command::new("kill").args([&format!("-{name}"), &process.id().to_string()]).status();
        assert!(status.is_ok_and(|status| status.success()), "member {number} can't be signalled");
    }

    /// Starts a member again that was killed, with its data.
    ///
    /// # Panics
    /// When it doesn't come up.
    pub fn start_again(&mut self, number: usize) {
        self.launch(number);
        self.wait_for(number);
    }

    /// Starts a member and does not wait: without the others it does not come up.
    ///
    /// # Panics
    /// When etcd is not installed.
    pub fn launch(&mut self, number: usize) {
        let name = |number: usize| format!("m{number}");
        let tls = self.options.iter().any(|option| option.starts_with("--cert-file"));
        let scheme = if tls { "https" } else { "http" };
        let peers = self.members.iter().enumerate();
        let peers: Vec<_> =
            peers.map(|(number, member)| format!("{}=http://127.0.0.1:{}", name(number), member.peer)).collect();
        let member = &self.members[number];
        let hosts = ["127.0.0.1"].into_iter().chain(self.also.as_deref());
        let client: Vec<_> = hosts.map(|host| format!("{scheme}://{host}:{}", member.client)).collect();
        let client = client.join(",");
        let peer = format!("http://127.0.0.1:{}", member.peer);
        let log = File::options().create(true).append(true).open(self.log_file(number)).expect("a log");
        let errors = log.try_clone().expect("a file handle can be shared");
        let mut etcd = Command::new("etcd");
        etcd.args(["--name", &name(number)]).arg("--data-dir").arg(self.folder.path().join(name(number)));
        etcd.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        etcd.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        etcd.args(["--initial-cluster", &peers.join(","), "--initial-cluster-state", "new"]);
        etcd.args(["--heartbeat-interval", "100", "--election-timeout", "1000"]).args(&self.options);
        // The data of a test need not outlive the machine.
        etcd.arg("--unsafe-no-fsync").stdin(Stdio::null()).stdout(log).stderr(errors);
        let process = etcd.spawn().expect("etcd is installed: cargo xtask test --real brings it");
        self.members[number].process = Some(process);
    }

    /// Waits until a member takes connections.
    fn wait_for(&mut self, number: usize) {
        let began = Instant::now();
        let port = self.members[number].client;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let process = self.members[number].process.as_mut().expect("the member runs");
            let ended = process.try_wait().ok().flatten();
            assert!(ended.is_none() && began.elapsed() < COMES_UP, "etcd does not come up\n{}", self.tail(number));
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn log_file(&self, number: usize) -> PathBuf {
        self.folder().join(format!("m{number}.log"))
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Everything that a member said so far.
    pub fn log(&self, number: usize) -> String {
        std::fs::read_to_string(self.log_file(number)).unwrap_or_default()
    }

    /// The last lines of that.
    pub fn tail(&self, number: usize) -> String {
        let log = self.log(number);
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for number in 0..self.members.len() {
            self.kill(number);
        }
    }
}
