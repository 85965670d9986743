//! Three control planes on three members of a real etcd, under changes through all of them and load: a control plane is killed,
//! a member is killed, a control plane is cut off from etcd. What was acknowledged is there and was done once, no proxy of
//! another control plane leaves, and no request fails.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use serde_json::{Value, json};
use weft_tests::control::Operator;
use weft_tests::etcd::Cluster;
use weft_tests::{App, Client, Mesh, Scrape, Sidecar, Way, Workload, eventually};

use super::load::load;

/// What a series of applies by one control plane came to.
#[derive(Default)]
struct Applied {
    stop: AtomicBool,
    /// The namespaces of which it said that they are there.
    acknowledged: Mutex<BTreeSet<String>>,
    /// Why others were refused.
    refused: Mutex<Vec<String>>,
}

impl Applied {
    /// Applies one namespace after the other, each with a policy that keeps it out from then on, until told to stop. None is
    /// tried twice.
    fn run(&self, operator: &Operator, prefix: &str) {
        for index in 0.. {
            if self.stop.load(Ordering::SeqCst) {
                return;
            }
            let name = format!("{prefix}-{index}");
            let manifest = format!(
                "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}}}\n---\n\
                 apiVersion: weft.dev/v1alpha1\nkind: AccessPolicy\nmetadata: {{name: no-{name}, namespace: default}}\nspec:\n  \
                 targetRefs: [{{kind: Service, name: reviews}}]\n  action: Deny\n  \
                 rules: [{{from: [{{namespaces: [{name}]}}]}}]\n"
            );
            let printed = operator.weft_reading(&manifest, &["apply", "-f", "-"]);
            match printed.code {
                0 => drop(self.acknowledged.lock().unwrap().insert(name)),
                _ => self.refused.lock().unwrap().push(printed.err),
            }
        }
    }

    fn count(&self) -> usize {
        self.acknowledged.lock().unwrap().len()
    }
}

/// The third control plane reaches etcd by ways that can be cut.
struct Ground {
    cluster: Cluster,
    ways: Vec<Way>,
    planes: Vec<Mesh>,
}

impl Ground {
    async fn new(settings: Value) -> Self {
        let cluster = Cluster::start(3);
        let mut ways = Vec::new();
        for member in cluster.members() {
            let from = SocketAddr::new(weft_tests::address::next(), 2379);
            ways.push(Way::to(member.parse().unwrap(), from).await);
        }
        let ways_to_all: Vec<_> = ways.iter().map(|way| way.address.to_string()).collect();
        let on = |store: String| {
            let mut settings = settings.clone();
            settings["store"] = store.into();
            settings
        };
        let first = Mesh::start_with(on(cluster.location("mesh"))).await;
        let second = Mesh::beside(&first, on(cluster.location("mesh")));
        let third = Mesh::beside(&first, on(format!("etcd://{}/mesh", ways_to_all.join(","))));
        Self { cluster, ways, planes: vec![first, second, third] }
    }

    /// Gives a workload's sidecar the addresses of all.
    fn at_any(&self, workload: Workload) -> Workload {
        let first = &self.planes[0];
        let all: Vec<_> = self.planes.iter().map(|mesh| format!("https://{}:15012", mesh.ip)).collect();
        let token_file = first.folder().join(&workload.name).join("token");
        workload.setting("control", json!({"address": all, "ca_file": first.ca_file(), "token_file": token_file}))
    }

    async fn readiness(&self, plane: usize) -> (u16, String) {
        let answer = Client::direct(SocketAddr::new(self.planes[plane].ip, 15014)).await.get("/readyz").await;
        (answer.status.as_u16(), answer.text())
    }

    async fn is_ready(&self, plane: usize) {
        eventually("the control plane is ready", || async { (self.readiness(plane).await.0 == 200).then_some(()) })
            .await;
    }

    /// Waits until one of these control planes leads, and no more than one.
    async fn one_leads(&self, planes: &[usize]) -> usize {
        eventually("one control plane leads", || async {
            let mut leaders = Vec::new();
            for plane in planes {
                let scrape = Scrape::fetch(SocketAddr::new(self.planes[*plane].ip, 15014)).await;
                leaders.extend((scrape.sum("weft_control_leads", &[]) > 0.0).then_some(*plane));
            }
            leaders.first().copied().filter(|_| leaders.len() == 1)
        })
        .await
    }

    /// Waits until the workloads that a control plane knows are as wanted.
    async fn knows(&self, plane: usize, wanted: &[&str]) {
        let mesh = &self.planes[plane];
        eventually("the workloads are known", || async {
            let listed = names(&mesh.weft(&["get", "workloads", "-o", "json"]).json()["items"], &["metadata", "name"]);
            let wanted: BTreeSet<_> = wanted.iter().map(|&name| name.to_owned()).collect();
            (listed == wanted).then_some(())
        })
        .await;
    }
}

fn names(list: &Value, path: &[&str]) -> BTreeSet<String> {
    let name = |item: &Value| path.iter().fold(item, |item, part| &item[part]).as_str().unwrap().to_owned();
    list.as_array().unwrap().iter().map(name).collect()
}

/// The applies of all control planes, each by a thread of its own.
struct Applying {
    by: Vec<Arc<Applied>>,
    threads: Vec<JoinHandle<()>>,
}

impl Applying {
    fn start(ground: &Ground) -> Self {
        let by: Vec<Arc<Applied>> = ground.planes.iter().map(|_| Arc::default()).collect();
        let threads = by.iter().zip(&ground.planes).enumerate().map(|(number, (applied, mesh))| {
            let (applied, operator) = (applied.clone(), mesh.operator());
            std::thread::spawn(move || applied.run(&operator, &format!("n-{number}")))
        });
        let threads = threads.collect();
        Self { by, threads }
    }

    /// Waits until each of these control planes took some more.
    async fn go_on(&self, planes: &[usize]) {
        let enough: BTreeMap<_, _> = planes.iter().map(|plane| (*plane, self.by[*plane].count() + 5)).collect();
        eventually("changes go on", || async {
            enough.iter().all(|(plane, enough)| self.by[*plane].count() >= *enough).then_some(())
        })
        .await;
    }

    fn end(&mut self) {
        self.by.iter().for_each(|applied| applied.stop.store(true, Ordering::SeqCst));
        self.threads.drain(..).for_each(|thread| thread.join().unwrap());
    }
}

/// What each control plane holds of the applies: every acknowledged one, each once, and the same as the others.
fn nothing_is_lost_or_done_twice(ground: &Ground, applied: &[Arc<Applied>]) {
    let acknowledged: BTreeSet<_> =
        applied.iter().flat_map(|applied| applied.acknowledged.lock().unwrap().clone()).collect();
    let mut seen = Vec::new();
    for mesh in &ground.planes {
        let listed = names(&mesh.weft(&["get", "namespaces", "-o", "json"]).json()["items"], &["metadata", "name"]);
        let lost: Vec<_> = acknowledged.difference(&listed).collect();
        assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
        let mut revisions = Vec::new();
        for number in 0..applied.len() {
            let object = format!("Namespace n-{number}-");
            let log = mesh.weft(&["events", "--action", "apply", "--object", &object, "--limit", "1000", "-o", "json"]);
            let log = log.json();
            let entries = log["entries"].as_array().unwrap();
            assert!(entries.len() < 1_000, "more than the log tells at once");
            let of =
                |name: &String| entries.iter().filter(|entry| entry["object"].as_str().unwrap().contains(name)).count();
            for name in acknowledged.iter().filter(|name| name.starts_with(&format!("n-{number}-"))) {
                assert_eq!(of(&format!("Namespace {name},")), 1, "{name}: {log}");
            }
            revisions.extend(entries.iter().map(|entry| entry["revision"].as_u64().unwrap()));
        }
        let distinct: BTreeSet<_> = revisions.iter().copied().collect();
        assert_eq!(distinct.len(), revisions.len(), "each change has a revision of its own");
        seen.push((listed, distinct));
    }
    assert!(seen.windows(2).all(|pair| pair[0] == pair[1]), "the control planes differ");
}

/// Under changes by all control planes, and requests through a sidecar of any of them to endpoints at the second and third.
struct Run {
    ground: Ground,
    client: Sidecar,
    endpoints: Vec<(Sidecar, App)>,
    applying: Applying,
}

/// The endpoints, each at the control plane of its number.
const BOTH: [&str; 2] = ["reviews-1", "reviews-2"];
const ALL: [&str; 3] = ["shopper", BOTH[0], BOTH[1]];

impl Run {
    async fn start() -> Self {
        let ground = Ground::new(json!({})).await;
        let client = ground.planes[0].sidecar(ground.at_any(Workload::client("shopper"))).await;
        let mut endpoints = Vec::new();
        for (name, mesh) in BOTH.into_iter().zip(&ground.planes[1..]) {
            let workload = Workload::server(name, 8080, "http").of("reviews");
            let app = App::start(name, workload.ip, 8080).await;
            endpoints.push((mesh.sidecar(workload).await, app));
        }
        ground.knows(0, &ALL).await;
        let applying = Applying::start(&ground);
        applying.go_on(&[0, 1, 2]).await;
        let run = Self { ground, client, endpoints, applying };
        run.all_serve().await;
        run
    }

    async fn all_serve(&self) {
        let before: Vec<u64> = self.endpoints.iter().map(|(_, app)| app.served()).collect();
        eventually("every endpoint gets its share", || async {
            _ = Client::through(self.client.proxy(), "reviews").await.get("/who").await;
            self.endpoints.iter().zip(&before).all(|((_, app), before)| app.served() > *before).then_some(())
        })
        .await;
    }

    async fn the_leader_is_killed(&mut self) {
        let leader = self.ground.one_leads(&[0, 1, 2]).await;
        self.ground.planes[leader].kill_control();
        let others: Vec<_> = (0..3).filter(|plane| *plane != leader).collect();
        self.applying.go_on(&others).await;
        self.ground.one_leads(&others).await;
        self.ground.planes[leader].start_control();
        self.applying.go_on(&[0, 1, 2]).await;
    }

    async fn a_member_is_killed(&mut self) {
        self.ground.cluster.kill(0);
        self.applying.go_on(&[0, 1, 2]).await;
        self.ground.cluster.start_again(0);
        self.applying.go_on(&[0, 1, 2]).await;
    }

    /// Until the others take its proxies for gone.
    async fn the_third_is_cut_off(&self) {
        let held_by_nobody = || {
            let log = self.ground.planes[0].control().log();
            log.lines().filter(|line| line.contains("no control plane holds") && line.contains(BOTH[1])).count()
        };
        let known = held_by_nobody();
        let refusals = self.applying.by[2].refused.lock().unwrap().len();
        self.ground.ways.iter().for_each(|way| way.set_open(false));
        let said = eventually("the one that is cut off says so", || async {
            let (status, said) = self.ground.readiness(2).await;
            (status == 503).then_some(said)
        })
        .await;
        assert!(said.contains("the store can't be written since"), "{said}");
        eventually("it refuses changes", || async {
            let refused = self.applying.by[2].refused.lock().unwrap();
            refused.get(refusals..)?.iter().any(|reason| reason.contains("the store can't be reached")).then_some(())
        })
        .await;
        self.applying.go_on(&[0, 1]).await;
        eventually("its proxies are held by nobody", || async { (held_by_nobody() > known).then_some(()) }).await;
        self.ground.knows(0, &ALL).await;
        self.all_serve().await;
        self.ground.ways.iter().for_each(|way| way.set_open(true));
        self.ground.is_ready(2).await;
        self.applying.go_on(&[0, 1, 2]).await;
    }

    /// Each control plane follows what the others did, and knows which proxies they hold: each proxy is one's.
    async fn all_know_of_all(&self) {
        self.ground.planes[0].apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: last}\n");
        eventually("each knows of all proxies", || async {
            let mut states: BTreeMap<String, Vec<String>> = BTreeMap::new();
            for mesh in &self.ground.planes {
                if mesh.weft(&["get", "namespace", "last"]).code != 0 {
                    return None;
                }
                let proxies = mesh.weft(&["proxies", "-o", "json"]).json();
                for proxy in proxies["proxies"].as_array().unwrap() {
                    let text = |key: &str| proxy[key].as_str().unwrap().to_owned();
                    states.entry(text("name")).or_default().push(text("state"));
                }
            }
            states.values_mut().for_each(|states| states.sort());
            let is_ones = |states: &Vec<String>| *states == ["elsewhere", "elsewhere", "synced"];
            (states.len() == 3 && states.values().all(is_ones)).then_some(())
        })
        .await;
    }
}

mod long {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    #[ignore = "takes minutes and etcd: cargo xtask test --long"]
    async fn of_three_control_planes_one_is_killed_a_member_is_killed_and_one_is_cut_off() {
        let mut run = Run::start().await;
        let (load, tasks) = load(run.client.proxy(), "reviews", 50, 10);
        run.the_leader_is_killed().await;
        run.a_member_is_killed().await;
        run.the_third_is_cut_off().await;
        load.stop.store(true, Ordering::SeqCst);
        tasks.join_all().await;
        run.all_serve().await;
        run.applying.end();
        run.all_know_of_all().await;
        let applied = &run.applying.by;
        nothing_is_lost_or_done_twice(&run.ground, applied);
        let counts: Vec<_> = applied.iter().map(|by| (by.count(), by.refused.lock().unwrap().len())).collect();
        let failures = load.failures.lock().unwrap().clone();
        let sent = load.sent.load(Ordering::SeqCst);
        eprintln!("applies acknowledged and refused: {counts:?}; {sent} requests, {} failed", failures.len());
        assert!(failures.is_empty(), "{:?}\n{}", failures.first(), run.client.process.tail());
        // A proxy holds what was changed through the others while its own control plane was cut off.
        for (sidecar, _) in &run.endpoints {
            let dump = Client::direct(sidecar.at(15000)).await.get("/config_dump").await.text();
            for name in applied.iter().flat_map(|applied| applied.acknowledged.lock().unwrap().clone()) {
                assert!(dump.contains(&format!("\"{name}\\\"")), "{} misses {name}", sidecar.workload.name);
            }
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    #[ignore = "takes minutes and etcd: cargo xtask test --long"]
    async fn workloads_that_left_behind_a_cut_come_back_after_it() {
        // The graces are so short that the workload leaves long before the cut heals.
        let settings = json!({"disconnect_grace_ms": 1_000, "unheard_grace_ms": 1_000, "restart_grace_ms": 1_000});
        let ground = Ground::new(settings).await;
        let mut sidecars: Vec<Sidecar> = Vec::new();
        for (plane, mesh) in ground.planes.iter().enumerate() {
            sidecars.push(mesh.sidecar(Workload::server(&format!("web-{plane}"), 8080, "http").of("web")).await);
        }
        let all = ["web-0", "web-1", "web-2"];
        ground.knows(0, &all).await;
        ground.ways.iter().for_each(|way| way.set_open(false));
        ground.knows(0, &all[..2]).await;
        ground.ways.iter().for_each(|way| way.set_open(true));
        for plane in 0..3 {
            ground.knows(plane, &all).await;
        }
        assert!(sidecars[2].health("ready") == 200, "{}", sidecars[2].process.tail());
    }
}
