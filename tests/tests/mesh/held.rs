//! A proxy holds what it uses: of a service that it neither serves nor asked for no byte is on its disk or in its memory.

use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

use serde_json::json;
use weft_tests::{App, Client, Mesh, Sidecar, Workload, eventually};

/// Names that are nowhere else.
const HEARD: &str = "zq-heard-of";
const UNHEARD: &str = "zq-never-heard-of";

/// True where some file of a folder has the text.
fn is_on_disk(folder: &Path, text: &str) -> bool {
    let entries: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    let has = |path: &Path| match path.is_dir() {
        true => is_on_disk(path, text),
        false => contains(&std::fs::read(path).unwrap_or_default(), text),
    };
    entries.iter().any(|path| has(path))
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

/// True where the text is anywhere in the memory of a process.
fn is_in_memory(process: u32, text: &str) -> bool {
    let maps = std::fs::read_to_string(format!("/proc/{process}/maps")).unwrap();
    let mut memory = std::fs::File::open(format!("/proc/{process}/mem")).unwrap();
    let mut is_readable = false;
    for line in maps.lines().filter(|line| !line.ends_with("[vvar]") && !line.ends_with("[vsyscall]")) {
        let mut words = line.split(' ');
        let (range, rights) = (words.next().unwrap(), words.next().unwrap());
        // What was never written is no byte that came from elsewhere.
        if !rights.starts_with("rw") {
            continue;
        }
        let (from, to) = range.split_once('-').unwrap();
        let (from, to) = (u64::from_str_radix(from, 16).unwrap(), u64::from_str_radix(to, 16).unwrap());
        memory.seek(SeekFrom::Start(from)).unwrap();
        let mut bytes = Vec::new();
        // A part that is reserved and not there ends it.
        let _ = memory.by_ref().take(to - from).read_to_end(&mut bytes);
        is_readable |= !bytes.is_empty();
        if contains(&bytes, text) {
            return true;
        }
    }
    assert!(is_readable, "nothing of process {process} could be read");
    false
}

/// On disk and in memory.
fn holds(sidecar: &Sidecar, text: &str) -> (bool, bool) {
    (is_on_disk(&sidecar.state(), text), is_in_memory(sidecar.process.id(), text))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_byte_is_held_of_services_that_a_proxy_neither_serves_nor_asked_for() {
    let mesh = Mesh::start().await;
    let mut behind = Vec::new();
    for name in [HEARD, UNHEARD] {
        let workload = Workload::server(name, 8080, "http");
        let app = App::start(name, workload.ip, 8080).await;
        behind.push((mesh.sidecar(workload).await, app));
    }
    let caller = mesh.sidecar(Workload::client("caller")).await;
    let everything = mesh.sidecar(Workload::client("everything").setting("holds", json!("everything"))).await;
    assert_eq!(Client::through(caller.proxy(), HEARD).await.get("/who").await.text(), HEARD);
    assert_eq!(holds(&caller, HEARD), (true, true));
    // What this looks for is found where it is.
    eventually("who holds everything holds it", || async {
        (holds(&everything, UNHEARD) == (true, true)).then_some(())
    })
    .await;
    // Changes of it go by, too: an endpoint more, a policy for it, and an endpoint less.
    let policy = format!(
        "apiVersion: weft.dev/v1alpha1\nkind: AccessPolicy\nmetadata: {{name: closed, namespace: default}}\nspec:\n  \
         targetRefs: [{{kind: Service, name: {UNHEARD}}}]\n  action: Allow\n  rules: []\n"
    );
    mesh.apply(&policy);
    let (mut gone, _app) = behind.pop().unwrap();
    gone.terminate();
    assert_eq!(holds(&caller, UNHEARD), (false, false));
    assert_eq!(Client::through(caller.proxy(), HEARD).await.get("/who").await.text(), HEARD);
    assert_eq!(holds(&caller, UNHEARD), (false, false));
}
