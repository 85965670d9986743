//! Mistakes of every part, told at once and changing nothing.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::*;
use crate::app::App;
use crate::app::tests::Control;
use crate::config::Ports;

fn config(state: &Path) -> Config {
    Config { state: state.to_owned(), ports: Ports::ANY, ..Config::default() }
}

/// Checks, and that each file is as before.
fn check(config: &Config) -> Findings {
    let before = contents(&config.state);
    let found = findings(config);
    assert!(contents(&config.state) == before, "a check changes nothing: {found:?}");
    found
}

fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.file_type().unwrap().is_dir() {
            true => all.extend(contents(&entry.path())),
            false => drop(all.insert(entry.path(), std::fs::read(entry.path()).unwrap())),
        }
    }
    all
}

#[test]
fn a_first_start_is_good_and_says_what_it_would_make() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("deep").join("state");
    let found = check(&config(&state));
    assert_eq!(found.faults, [""; 0]);
    assert!(found.notes.len() == 1 && found.notes[0].contains("is not there: the first start makes it"), "{found:?}");
    assert!(!dir.path().join("deep").exists());
}

#[tokio::test]
async fn one_that_runs_is_no_fault() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    let control = Control::start(dir.path()).await;
    let taken = config(dir.path());
    let taken = Config { ports: Ports { grpc: control.app.grpc_address.port(), ..taken.ports }, ..taken };
    let found = findings(&taken);
    assert_eq!(found.faults, [""; 0]);
    assert!(found.notes.len() == 1 && found.notes[0].starts_with("running already: "), "{found:?}");
    control.app.stop().await;
    let found = check(&taken);
    assert!(found.faults.is_empty() && found.notes.is_empty(), "{found:?}");
}

#[test]
fn listeners_that_cannot_be_opened_are_told_with_why() {
    let dir = tempfile::tempdir().unwrap();
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = other.local_addr().unwrap().port();
    let mut wrong = config(dir.path());
    wrong.ports.api = port;
    let found = check(&wrong);
    assert_eq!(found.faults.len(), 1, "{found:?}");
    let expect =
        format!("ports.api: 127.0.0.1:{port} can't be opened: Address already in use (os error 98); a program listens");
    assert!(found.faults[0].starts_with(&expect), "{found:?}");
    drop(other);
    assert_eq!(check(&wrong).faults, [""; 0], "and it is let go of");
    // TEST-NET-1 is nobody's.
    let found = check(&Config { bind: "192.0.2.1".parse().unwrap(), ..wrong });
    assert_eq!(found.faults.len(), 3, "{found:?}");
    assert!(found.faults.iter().all(|told| told.ends_with("`bind` is no address of this machine")), "{found:?}");
}

#[tokio::test]
async fn a_lost_store_and_damaged_keys_are_told_at_once_with_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    Control::start(dir.path()).await.app.stop().await;
    std::fs::remove_file(dir.path().join("weft.redb")).unwrap();
    let found = check(&config(dir.path()));
    assert_eq!(found.faults.len(), 1, "{found:?}");
    assert!(
        found.faults[0].contains("weft.redb is not there") && found.faults[0].contains("weft store accept"),
        "{found:?}"
    );
    let key = dir.path().join("ca").join("root.key");
    std::fs::write(&key, "no key").unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let wrong = Config {
        coalesce_quiet_ms: 500,
        coalesce_max_ms: 1,
        trust_domain: "Not A Domain".to_owned(),
        ..config(dir.path())
    };
    let found = check(&wrong);
    let expect =
        ["coalesce_max_ms", "trust_domain", "root.key can be read by everybody", "root.key can't be read", "was lost"];
    assert_eq!(found.faults.len(), expect.len(), "{found:?}");
    for (told, expect) in found.faults.iter().zip(expect) {
        assert!(told.contains(expect), "{told}: {expect}");
    }
    // A folder in the place of a file is unreadable for root as well.
    std::fs::remove_file(&key).unwrap();
    std::fs::create_dir(&key).unwrap();
    let found = check(&config(dir.path()));
    assert!(found.faults.iter().any(|told| told.contains("root.key: Is a directory")), "{found:?}");
}

#[tokio::test]
async fn a_secret_that_opens_no_key_and_another_trust_domain_are_told_as_a_start_would() {
    let (dir, own) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let secret = |name: &str, text: &str| {
        let path = own.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        path
    };
    let good = Config { ca_secret_file: Some(secret("good", "correct horse battery\n")), ..config(dir.path()) };
    App::start(good.clone()).await.unwrap().stop().await;
    assert_eq!(check(&good).faults, [""; 0]);
    // As where the root is one's own, and its key never was here.
    let ca = dir.path().join("ca");
    std::fs::remove_file(ca.join("root.key")).unwrap();
    std::fs::write(ca.join("external"), "").unwrap();
    assert_eq!(check(&good).faults, [""; 0]);
    let wrong = Config { ca_secret_file: Some(secret("wrong", "another horse battery\n")), ..good.clone() };
    for (config, expect) in [
        (wrong, "intermediate.pem is encrypted with another secret than that of ca_secret_file, or damaged"),
        (
            Config { ca_secret_file: None, ..good.clone() },
            "intermediate.pem is encrypted: name the file with its secret",
        ),
    ] {
        let found = check(&config);
        assert!(found.faults.len() == 1 && found.faults[0].contains(expect), "{found:?}");
        let error = format!("{:#}", App::start(config).await.err().unwrap());
        assert_eq!(error, found.faults[0]);
    }
    let other = Config { trust_domain: "other.example".to_owned(), ..good.clone() };
    let found = check(&other);
    let expect =
        "state folder is of trust domain cluster.local, the configuration says other.example: it can't be changed";
    assert_eq!(found.faults, [format!("trust_domain: {expect}")]);
    assert_eq!(format!("{:#}", App::start(other).await.err().unwrap()), expect);
    std::fs::remove_file(ca.join("intermediate.pem")).unwrap();
    let found = check(&good);
    assert!(found.faults.len() == 1 && found.faults[0].starts_with("the root's key is not here"), "{found:?}");
}

#[tokio::test]
async fn ports_of_one_number_collide_and_a_start_names_all_that_are_taken() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    let others: Vec<_> = (0..2).map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let [api, metrics] = [0, 1].map(|index: usize| others[index].local_addr().unwrap().port());
    let one = Config { ports: Ports { grpc: 0, api, metrics: api }, ..config(dir.path()) };
    let found = check(&one);
    assert_eq!(found.faults.len(), 2, "{found:?}");
    assert_eq!(found.faults[0], format!("ports.metrics: 127.0.0.1:{api} collides with ports.api"));
    assert!(found.faults[1].starts_with(&format!("ports.api: 127.0.0.1:{api} can't be opened")), "{found:?}");
    let both = Config { ports: Ports { grpc: 0, api, metrics }, ..config(dir.path()) };
    let error = App::start(both).await.err().unwrap().to_string();
    let told: Vec<_> = error.lines().map(|line| line.split(": ").next().unwrap()).collect();
    assert_eq!(told, ["ports.api", "ports.metrics"], "{error}");
}

#[test]
fn a_store_in_etcd_is_told_by_each_of_its_files_and_whether_it_answers() {
    let dir = tempfile::tempdir().unwrap();
    let text =
        "etcd: {ca_file: /nowhere/ca, user: weft, password_file: /nowhere/password}\nstore: 'etcd://127.0.0.1:1'\n";
    let path = dir.path().join("control.yaml");
    std::fs::write(&path, text).unwrap();
    let state = dir.path().join("state");
    let read = Config::load(Some(&path)).unwrap();
    let wrong = Config { state: state.clone(), ports: Ports::ANY, ..read };
    let found = check(&wrong);
    assert_eq!(found.faults.len(), 2, "{found:?}");
    assert!(found.faults[0].starts_with("etcd.ca_file: /nowhere/ca can't be read: "), "{found:?}");
    assert!(found.faults[1].starts_with("etcd.password_file: /nowhere/password can't be read: "), "{found:?}");
    let silent = Config { store: "etcd://127.0.0.1:1".to_owned(), ..config(&state) };
    let found = check(&silent);
    assert!(found.faults.len() == 1 && found.faults[0].starts_with("store etcd://127.0.0.1:1: "), "{found:?}");
    let malformed = Config { store: "etcd://a:b:2379".to_owned(), ..config(&state) };
    let found = check(&malformed);
    assert!(found.faults.len() == 1 && found.faults[0].contains("\"a:b:2379\" is no HOST:PORT"), "{found:?}");
}
