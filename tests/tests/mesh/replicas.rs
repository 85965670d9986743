//! Three control planes on three members of a real etcd, under changes through all of them and load: a control plane is killed,
//! a member is killed, another is silent, a control plane is cut off from everybody by the network. What was acknowledged is there
//! and was done once, no proxy of another control plane leaves, no request fails, and each tells of the proxies of all.

mod changes;
mod roots;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use weft_tests::control::Operator;
use weft_tests::etcd::Cluster;
use weft_tests::namespace::Apart;
use weft_tests::{App, Client, Mesh, Scrape, Sidecar, Workload, eventually};

use self::changes::Changing;
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

/// The third control plane has a network namespace of its own, whose cable can be plugged out.
struct Ground {
    planes: Vec<Mesh>,
    cluster: Cluster,
    apart: Apart,
}

impl Ground {
    async fn new(settings: Value) -> Self {
        let apart = Apart::new();
        let cluster = Cluster::start_also_at(3, &apart.here().to_string());
        let on = |members: Vec<String>| {
            let mut settings = settings.clone();
            settings["store"] = format!("etcd://{}/mesh", members.join(",")).into();
            settings
        };
        let first = Mesh::start_with(on(cluster.members())).await;
        let second = Mesh::beside(&first, on(cluster.members()));
        let there = on(cluster.members_at(&apart.here().to_string()));
        let third = Mesh::beside_inside(&first, &apart.name, apart.there(), there);
        Self { planes: vec![first, second, third], cluster, apart }
    }

    /// Gives a workload's sidecar the addresses of all.
    fn at_any(&self, workload: Workload) -> Workload {
        let first = &self.planes[0];
        let all: Vec<_> = self.planes.iter().map(|mesh| format!("https://{}:15012", mesh.ip)).collect();
        let token_file = first.folder().join(&workload.name).join("token");
        workload.setting("control", json!({"address": all, "ca_file": first.ca_file(), "token_file": token_file}))
    }

    /// Of the third, as its own host sees it.
    fn readiness(&self) -> String {
        let url = format!("http://{}/readyz", SocketAddr::new(self.apart.there(), 15014));
        let mut curl = Command::new("ip");
        let name = &self.apart.name;
        curl.args(["netns", "exec", name, "curl", "-s", "--max-time", "2", "-w", " %{http_code}", &url]);
        String::from_utf8_lossy(&curl.output().unwrap().stdout).into_owned()
    }

    async fn third_is_ready(&self) {
        let is_ready = || async { self.readiness().ends_with(" 200").then_some(()) };
        eventually("the control plane is ready", is_ready).await;
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

/// Under changes by all control planes, and requests through a sidecar to two endpoints. All proxies know all control planes.
struct Run {
    ground: Ground,
    client: Sidecar,
    endpoints: Vec<(Sidecar, App)>,
    applying: Applying,
}

const BOTH: [&str; 2] = ["reviews-1", "reviews-2"];
const ALL: [&str; 3] = ["shopper", BOTH[0], BOTH[1]];

/// A proxy is in step so long after what kept it from that is over.
const IN_STEP: Duration = Duration::from_secs(5);

impl Run {
    async fn start() -> Self {
        // As many calls as can be made.
        let ground = Ground::new(json!({"limits": {"max_api_calls_per_minute": 1_000_000}})).await;
        let first = &ground.planes[0];
        let at = |workload: Workload, number| ground.at_any(workload.at(ground.apart.further(number)));
        let client = first.sidecar(at(Workload::client("shopper"), 3)).await;
        let mut endpoints = Vec::new();
        for (number, name) in (4..).zip(BOTH) {
            let workload = at(Workload::server(name, 8080, "http").of("reviews"), number);
            let app = App::start(name, workload.ip, 8080).await;
            endpoints.push((first.sidecar(workload).await, app));
        }
        ground.knows(0, &ALL).await;
        first.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: changes}\n");
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

    /// One is killed, and another stands still: its connections stay open and nothing is answered.
    async fn a_member_is_killed_and_one_is_silent(&mut self) {
        self.ground.cluster.kill(0);
        self.applying.go_on(&[0, 1, 2]).await;
        self.ground.cluster.start_again(0);
        self.applying.go_on(&[0, 1, 2]).await;
        self.ground.cluster.signal(1, "STOP");
        self.applying.go_on(&[0, 1, 2]).await;
        self.ground.cluster.signal(1, "CONT");
        self.applying.go_on(&[0, 1, 2]).await;
    }

    /// From etcd, the proxies and the others, until those take it for gone.
    async fn the_third_is_cut_off(&self) {
        self.ground.apart.set_open(false);
        let cut = Instant::now();
        let said = eventually("the one that is cut off says so", || async {
            Some(self.ground.readiness()).filter(|said| said.ends_with(" 503"))
        })
        .await;
        assert!(said.contains("the store can't be written since"), "{said}");
        self.applying.go_on(&[0, 1]).await;
        // While its lease holds it is named; its proxies move on.
        let silent = |told: &Value| told["silent"].as_array().is_none_or(Vec::is_empty);
        eventually("the others have its proxies and take it for gone", || async {
            let told = self.ground.planes[0].weft(&["proxies", "-o", "json"]).json();
            let is_there = |proxy: &Value| proxy["state"] == "synced" || proxy["state"] == "behind";
            let proxies = told["proxies"].as_array().unwrap();
            (silent(&told) && proxies.len() == 3 && proxies.iter().all(is_there)).then_some(())
        })
        .await;
        eprintln!("its proxies are at the others, and it is gone, {:?} after the cut", cut.elapsed());
        self.ground.knows(0, &ALL).await;
        self.all_serve().await;
        self.ground.apart.set_open(true);
        self.ground.third_is_ready().await;
        self.applying.go_on(&[0, 1, 2]).await;
    }

    /// Those that reach all others tell the same of the proxies of all: each is in step. The host of the third reaches no
    /// loopback of theirs.
    async fn all_know_of_all(&self) {
        self.ground.planes[0].apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: last}\n");
        eventually("each knows of all proxies", || async {
            for mesh in &self.ground.planes[..2] {
                if mesh.weft(&["get", "namespace", "last"]).code != 0 {
                    return None;
                }
                let told = mesh.weft(&["proxies", "-o", "json"]).json();
                let proxies = told["proxies"].as_array().unwrap();
                let has_it = |proxy: &Value| proxy["state"] == "synced" && proxy["version"] != "";
                if proxies.len() != 3 || !proxies.iter().all(has_it) || !told["silent"].is_null() {
                    return None;
                }
            }
            Some(())
        })
        .await;
    }

    /// What every proxy holds of what all are told, as a digest.
    async fn digests(&self) -> BTreeSet<Vec<u8>> {
        let sidecars = self.endpoints.iter().map(|(sidecar, _)| sidecar).chain([&self.client]);
        let mut all = BTreeSet::new();
        for sidecar in sidecars {
            let dump = Client::direct(sidecar.at(15000)).await.get("/config_dump").await.text();
            let dump: Value = serde_json::from_str(&dump).unwrap();
            all.insert(Sha256::digest(dump["mesh"].to_string()).to_vec());
        }
        all
    }
}

mod long {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    #[ignore = "takes minutes, root and etcd: cargo xtask test --long"]
    async fn of_three_control_planes_one_is_killed_members_fail_and_one_is_cut_off() {
        let mut run = Run::start().await;
        let (load, tasks) = load(run.client.proxy(), "reviews", 50, 10);
        let changing = Changing::start(run.ground.planes.iter().map(Mesh::operator));
        run.the_leader_is_killed().await;
        run.a_member_is_killed_and_one_is_silent().await;
        run.the_third_is_cut_off().await;
        let rate = changing.rate();
        let changes = changing.end().await;
        run.applying.end();
        let ended = Instant::now();
        run.all_know_of_all().await;
        assert!(ended.elapsed() < IN_STEP, "in step {:?} after the last change", ended.elapsed());
        let digests = run.digests().await;
        assert_eq!(digests.len(), 1, "the proxies hold the same of what all are told");
        load.stop.store(true, Ordering::SeqCst);
        tasks.join_all().await;
        run.all_serve().await;
        let applied = &run.applying.by;
        nothing_is_lost_or_done_twice(&run.ground, applied);
        let fates = changes.fates.lock().unwrap().clone();
        for mesh in &run.ground.planes {
            changes::check(&fates, &mesh.weft(&["get", "services", "-n", "changes", "-o", "json"]).json());
        }
        let counts: Vec<_> = applied.iter().map(|by| (by.count(), by.refused.lock().unwrap().len())).collect();
        let failures = load.failures.lock().unwrap().clone();
        let sent = load.sent.load(Ordering::SeqCst);
        let (made, refused) = (changes.applied.load(Ordering::SeqCst), changes.refused.load(Ordering::SeqCst));
        eprintln!(
            "{made} applies of {} objects acknowledged ({rate:.0} a second), {refused} refused; those by hand: {counts:?}; \
             {sent} requests, {} failed",
            changes::AT_ONCE,
            failures.len()
        );
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
    #[ignore = "takes minutes, root and etcd: cargo xtask test --long"]
    async fn workloads_that_left_behind_a_cut_come_back_after_it() {
        // The graces are so short that the workload leaves long before the cut heals.
        let settings = json!({"disconnect_grace_ms": 1_000, "unheard_grace_ms": 1_000, "restart_grace_ms": 1_000});
        let ground = Ground::new(settings).await;
        let mut sidecars: Vec<Sidecar> = Vec::new();
        for (plane, mesh) in ground.planes.iter().enumerate() {
            let mut workload = Workload::server(&format!("web-{plane}"), 8080, "http").of("web");
            if plane == 2 {
                workload = workload.at(ground.apart.here());
            }
            sidecars.push(mesh.sidecar(workload).await);
        }
        let all = ["web-0", "web-1", "web-2"];
        ground.knows(0, &all).await;
        ground.apart.set_open(false);
        ground.knows(0, &all[..2]).await;
        ground.apart.set_open(true);
        for plane in 0..3 {
            ground.knows(plane, &all).await;
        }
        assert!(sidecars[2].health("ready") == 200, "{}", sidecars[2].process.tail());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    #[ignore = "takes root and etcd: cargo xtask test --long"]
    async fn proxies_of_another_control_plane_are_told_of_evicted_and_banned() {
        let ground = Ground::new(json!({})).await;
        let mut sidecars = Vec::new();
        for (plane, mesh) in ground.planes.iter().enumerate() {
            let mut workload = Workload::server(&format!("web-{plane}"), 8080, "http");
            if plane == 2 {
                workload = workload.at(ground.apart.here());
            }
            sidecars.push(mesh.sidecar(workload).await);
        }
        let [first, ..] = &ground.planes[..] else { panic!("three control planes") };
        let told = || first.weft(&["proxies", "-o", "json"]).json();
        let states = |told: &Value| -> Vec<String> {
            told["proxies"]
                .as_array()
                .unwrap()
                .iter()
                .map(|proxy| proxy["state"].as_str().unwrap().to_owned())
                .collect()
        };
        eventually("all are in step", || async { (states(&told()) == ["synced"; 3]).then_some(()) }).await;
        let printed = first.weft_reading(
            "apiVersion: v1\nkind: Namespace\nmetadata: {name: later}\n",
            &["apply", "-f", "-", "--wait", "30s"],
        );
        assert!(
            printed.code == 0 && printed.err.contains("at all 3 proxies concerned"),
            "{}{}",
            printed.out,
            printed.err
        );

        // One that is cut off is named within the second that it has.
        ground.apart.set_open(false);
        let asked = Instant::now();
        let printed = first.weft(&["proxies", "-o", "json"]);
        assert!(asked.elapsed() < Duration::from_secs(3), "{:?}", asked.elapsed());
        let named = format!("control plane {}:15012 does not say how its 1 proxies are", ground.apart.there());
        assert!(printed.err.contains(&named), "{}", printed.err);
        assert!(states(&printed.json()).contains(&"elsewhere".to_owned()), "{}", printed.out);
        ground.apart.set_open(true);
        eventually("all are in step again", || async { (states(&told()) == ["synced"; 3]).then_some(()) }).await;

        let evicted = first.weft(&["proxy", "evict", "web-2"]);
        assert_eq!(evicted.code, 0, "{}", evicted.err);
        sidecars[2].process.logs("evicted by an operator");
        eventually("it comes back", || async { (states(&told()) == ["synced"; 3]).then_some(()) }).await;

        let began = Instant::now();
        assert_eq!(first.weft(&["proxy", "ban", "web-2"]).code, 0);
        sidecars[2].process.logs("is banned since");
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    }
}
