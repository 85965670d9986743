//! The proxies' faults: those of an endpoint, seen by its caller.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use weft_tests::process::Process;
use weft_tests::wait::LIMIT;
use weft_tests::{App, Client, Mesh, Sidecar, Workload};

use super::super::reachable;
use super::{Disk, Then, copy, cut, garbage, gone, started};

/// A fault, done to the folder of a proxy while it is down.
type Fault = (&'static str, fn(&Path), Then);

fn identities_garbage(at: &Path) {
    garbage(at.join("state/identity.pem"));
    garbage(at.join("state/identity.copy"));
}

/// The first file of a folder.
fn first(folder: PathBuf) -> PathBuf {
    let entry = fs::read_dir(&folder).expect("a folder").flatten().next();
    entry.unwrap_or_else(|| panic!("{} is empty", folder.display())).path()
}

fn clock(at: &Path, distance: &str) {
    fs::write(at.join("clock"), distance).expect("a file can be written");
}

const WITH_CONTROL: &[Fault] = &[
    ("nothing", |_| {}, Then::Serves),
    (
        "the certificate is cut",
        |at| cut(at.join("state/identity.pem")),
        Then::ServesAndSays("written again from the other"),
    ),
    ("the certificate is gone", |at| gone(at.join("state/identity.pem")), Then::Serves),
    ("both certificates are garbage, the token is used", identities_garbage, Then::Says("put a new join token")),
    (
        "the roots are garbage",
        |at| garbage(at.join("state/trust.pem")),
        Then::ServesAndSays("trust.pem is missing or damaged"),
    ),
    ("the bundle is cut", |at| cut(at.join("state/bundle.pb")), Then::ServesAndSays("bundle.pb is damaged")),
    (
        "the bundle is empty",
        |at| fs::write(at.join("state/bundle.pb"), "").unwrap(),
        Then::ServesAndSays("bundle.pb is damaged"),
    ),
    ("the bundle is gone", |at| gone(at.join("state/bundle.pb")), Then::Serves),
    ("the secret is cut", |at| cut(at.join("state/secret")), Then::Serves),
    ("the number of the start is garbage", |at| garbage(at.join("state/incarnation")), Then::Serves),
    ("the admin's token is garbage", |at| garbage(at.join("state/admin.token")), Then::Serves),
    ("a filter is cut", |at| cut(first(at.join("state/filters"))), Then::ServesAndSays("it is fetched again")),
    ("a compiled filter is garbage", |at| garbage(first(at.join("state/compiled"))), Then::Serves),
    (
        "the state folder is gone, the token is used",
        |at| fs::remove_dir_all(at.join("state")).unwrap(),
        Then::Says("weft token create"),
    ),
    (
        "the state folder is a file",
        |at| {
            fs::remove_dir_all(at.join("state")).unwrap();
            fs::write(at.join("state"), "").unwrap();
        },
        Then::Says("state directory"),
    ),
    ("the clock is 20 hours ahead", |at| clock(at, "+20h"), Then::Serves),
    ("the clock is two days ahead", |at| clock(at, "+2d"), Then::Says("is the clock right?")),
    ("the clock is two days behind", |at| clock(at, "-2d"), Then::Says("certificate not valid yet")),
];

const WITHOUT_CONTROL: &[Fault] = &[
    ("nothing", |_| {}, Then::ServesAndSays("serving from the kept bundle")),
    ("the certificate is cut", |at| cut(at.join("state/identity.pem")), Then::Serves),
    ("the bundle is garbage", |at| garbage(at.join("state/bundle.pb")), Then::Says("the kept bundle cannot be used")),
    ("the bundle is gone", |at| gone(at.join("state/bundle.pb")), Then::Says("no control stream")),
    ("a filter is cut", |at| cut(first(at.join("state/filters"))), Then::Says("the kept bundle cannot be served")),
    ("a compiled filter is garbage", |at| garbage(first(at.join("state/compiled"))), Then::Serves),
    (
        "the state folder is gone",
        |at| fs::remove_dir_all(at.join("state")).unwrap(),
        Then::Says("the control plane cannot be reached to join"),
    ),
    ("the clock is 20 hours ahead", |at| clock(at, "+20h"), Then::Serves),
];

struct Stage {
    mesh: Mesh,
    client: Sidecar,
    server: Sidecar,
    _app: App,
}

impl Stage {
    /// `reviews` with a filter, and a caller.
    async fn set() -> Self {
        let mesh = Mesh::start().await;
        let server = Workload::server("reviews", 8080, "http");
        let app = App::start("reviews", server.ip, 8080).await;
        let (client, server) = (mesh.sidecar(Workload::client("frontend")).await, mesh.sidecar(server).await);
        mesh.apply(
            "apiVersion: weft.dev/v1alpha1\nkind: FilterPolicy\nmetadata: {name: harmless, namespace: default}\nspec:\n  \
             targetRefs: [{kind: Service, name: reviews}]\n  filter: {name: fault, namespace: weft-system}\n  \
             config: {abort: {status: 503, percentage: 0}}\n",
        );
        reachable(&client, "reviews").await;
        let mut stage = Self { mesh, client, server, _app: app };
        stage.server.process.kill();
        copy(&stage.state(), &stage.folder().join("whole"));
        stage
    }

    fn folder(&self) -> PathBuf {
        self.server.configuration().parent().expect("a file is in a folder").to_owned()
    }

    fn state(&self) -> PathBuf {
        self.server.state()
    }

    fn start(&self) -> Process {
        _ = fs::remove_file(self.folder().join("weft-proxy.log"));
        started("weft-proxy", &self.folder(), self.server.configuration())
    }

    async fn serves(&self) -> bool {
        let asked = async {
            let mut caller = Client::through(self.client.proxy(), "reviews").await;
            self.server.health("ready") == 200 && caller.get("/who").await.status == 200
        };
        tokio::time::timeout(Duration::from_secs(5), asked).await.unwrap_or(false)
    }

    /// Starts the proxy on what it finds, until it is as it has to be.
    async fn judged(&self, then: Then) -> Result<(), String> {
        let mut proxy = self.start();
        let deadline = Instant::now() + LIMIT;
        loop {
            let ended = proxy.has_ended();
            if let Some(verdict) = then.judge(self.serves().await, &proxy.log()) {
                return verdict;
            }
            if ended.is_some() || Instant::now() > deadline {
                return Err(format!("{ended:?}, {}", proxy.tail()));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn go_through(&self, faults: &[Fault]) {
        let (state, whole) = (self.state(), self.folder().join("whole"));
        let mut wrong = Vec::new();
        for (what, fault, then) in faults {
            fault(&self.folder());
            if let Err(why) = self.judged(*then).await {
                wrong.push(format!("{what}: {then:?}: {why}"));
            }
            _ = fs::remove_dir_all(&state).or_else(|_| fs::remove_file(&state));
            _ = fs::remove_file(self.folder().join("clock"));
            copy(&whole, &state);
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "mounts disks and sets clocks: cargo xtask test --real"]
async fn a_proxy_serves_or_says_what_to_do() {
    let stage = Stage::set().await;
    stage.go_through(WITH_CONTROL).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "mounts disks and sets clocks: cargo xtask test --real"]
async fn a_proxy_alone_serves_or_says_what_to_do() {
    let mut stage = Stage::set().await;
    stage.mesh.kill_control();
    stage.go_through(WITHOUT_CONTROL).await;
}

/// A full disk keeps nobody from serving, with the control plane and without; one that can't be written at all is told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "mounts disks and sets clocks: cargo xtask test --real"]
async fn a_proxy_serves_on_a_disk_that_takes_nothing() {
    let mut stage = Stage::set().await;
    let disk = Disk::under(&stage.state());
    disk.fill();
    assert_eq!(stage.judged(Then::Serves).await, Ok(()));
    let proxy = stage.start();
    stage.mesh.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n");
    proxy.logs("the bundle could not be kept on disk");
    drop(proxy);
    stage.mesh.kill_control();
    assert_eq!(stage.judged(Then::Serves).await, Ok(()), "alone, on a full disk");
    disk.make_room();
    disk.read_only();
    assert_eq!(stage.judged(Then::Says("Read-only file system")).await, Ok(()));
}

/// A machine that was suspended, or whose clock was set: 20 of the certificate's 24 hours are gone at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "mounts disks and sets clocks: cargo xtask test --real"]
async fn a_clock_that_steps_forward_renews_the_certificate() {
    let stage = Stage::set().await;
    clock(&stage.folder(), "+0");
    let proxy = stage.start();
    stage.server.ready();
    clock(&stage.folder(), "+20h");
    proxy.logs("certificate renewed");
    reachable(&stage.client, "reviews").await;
}
