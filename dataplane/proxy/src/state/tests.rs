//! Files of one state directory, written, damaged and read again.

use super::*;

fn state() -> (tempfile::TempDir, State) {
    let dir = tempfile::tempdir().unwrap();
    let state = State::open(&dir.path().join("state")).unwrap();
    (dir, state)
}

#[test]
fn what_is_kept_is_found_again() {
    let (_dir, state) = state();
    assert_eq!(state.identities().unwrap(), []);
    let kept = Kept { chain_pem: "c ".into(), key_pem: "PRIVATE KEY".into(), trust_pem: "t".into() };
    state.keep_identity(&kept).unwrap();
    let whole = || "c PRIVATE KEY".to_owned();
    let found = Kept { chain_pem: whole(), key_pem: whole(), trust_pem: "t".into() };
    assert_eq!(state.identities().unwrap(), [found.clone(), found.clone()]);
    fs::remove_file(state.path("identity.pem")).unwrap();
    assert_eq!(state.identities().unwrap(), std::slice::from_ref(&found));
    // Kept again from the copy it is the same, twice.
    state.keep_identity(&found).unwrap();
    assert_eq!(state.identities().unwrap(), [found.clone(), found]);
    assert!(state.keep_again().is_none());
    let bundle = Bundle { revision: weft_policy::bundle::Revision(7), ..Bundle::default() };
    let lineage = Some(Lineage { store: "a".into(), epoch: 2, supersedes: vec!["b".into()] });
    let kept = KeptBundle { bundle, lineage, ..KeptBundle::default() };
    state.keep_bundle(&kept).unwrap();
    assert_eq!(state.bundle().unwrap(), Some(kept));
    assert_eq!(state.secret().unwrap(), state.secret().unwrap());
    let token = state.admin_token().unwrap();
    assert_eq!((token.len(), &token), (64, &state.admin_token().unwrap()));
    let mode = || fs::metadata(state.path("admin.token")).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(), 0o600);
    for shared in [0o640, 0o604, 0o622] {
        let before = state.admin_token().unwrap();
        fs::set_permissions(state.path("admin.token"), fs::Permissions::from_mode(shared)).unwrap();
        assert_ne!(state.admin_token().unwrap(), before, "one that others may have read is made anew");
        assert_eq!(mode(), 0o600);
    }
    let mode = fs::metadata(state.path("identity.copy")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn who_is_kept_out_outlives_damage_and_is_never_nobody_by_it() {
    let (_dir, state) = state();
    assert_eq!(state.denied().unwrap(), None);
    let told = ["spiffe://c/ns/a/sa/b".to_owned(), "spiffe://c/ns/a/sa/c".to_owned()];
    state.keep_denied(&told).unwrap();
    assert_eq!(state.denied().unwrap().unwrap(), told);
    for damage in [&b""[..], b"spiffe://c/ns/a/sa/b", b"\xff", b"0000\nspiffe://c/ns/a/sa/b"] {
        state.keep_denied(&told).unwrap();
        fs::write(state.path("denied"), damage).unwrap();
        assert_eq!(state.denied().unwrap().unwrap(), told, "the copy");
        fs::write(state.path("denied.copy"), damage).unwrap();
        state.denied().unwrap_err();
        fs::remove_file(state.path("denied")).unwrap();
        state.denied().unwrap_err();
        fs::remove_file(state.path("denied.copy")).unwrap();
    }
    state.keep_denied(&[]).unwrap();
    assert_eq!(state.denied().unwrap(), Some(Vec::new()), "nobody, and that is known");
}

#[test]
fn what_an_earlier_release_kept_is_found() {
    let (_dir, state) = state();
    fs::write(state.path("identity.pem"), "chain").unwrap();
    fs::write(state.path("identity.key"), "key").unwrap();
    let found = Kept { chain_pem: "chain".into(), key_pem: "key".into(), trust_pem: String::new() };
    assert_eq!(state.identities().unwrap(), [found]);
}

#[test]
fn an_identity_that_the_disk_does_not_take_is_tried_again() {
    let (_dir, state) = state();
    let kept = Kept { chain_pem: "c ".into(), key_pem: "PRIVATE KEY".into(), trust_pem: "t".into() };
    // A folder where the file has to go stands for a disk that takes nothing.
    fs::create_dir(state.path("identity.pem")).unwrap();
    let error = state.keep_identity(&kept).unwrap_err().to_string();
    assert!(error.ends_with("identity.pem"), "{error}");
    assert!(state.clone().keep_again().unwrap().is_err());
    fs::remove_dir(state.path("identity.pem")).unwrap();
    state.keep_again().unwrap().unwrap();
    assert!(state.keep_again().is_none());
    assert_eq!(state.identities().unwrap().len(), 2);
}

#[test]
fn a_damaged_bundle_is_refused_by_name() {
    let (_dir, state) = state();
    state.keep_bundle(&KeptBundle::default()).unwrap();
    let path = state.path("bundle.pb");
    let mut bytes = fs::read(&path).unwrap();
    bytes[0] ^= 1;
    fs::write(&path, bytes).unwrap();
    let error = state.bundle().unwrap_err().to_string();
    assert!(error.contains("bundle.pb is damaged: checksum"), "{error}");
}

#[test]
fn filters_are_swept_by_digest() {
    let (_dir, state) = state();
    state.keep_filter("sha256:aa", b"a").unwrap();
    state.keep_filter("sha256:../../bb", b"b").unwrap();
    assert_eq!(state.filter("sha256:aa").unwrap().as_deref(), Some(&b"a"[..]));
    state.sweep_filters(|digest| digest == "sha256:aa");
    assert_eq!(state.filter("sha256:bb").unwrap(), None);
    assert!(state.filter("sha256:aa").unwrap().is_some());
}

/// What is there is remembered; that something is not there was true when it was said.
#[test]
fn of_what_was_answered_only_what_is_there_is_read_again() {
    use std::net::IpAddr;

    use weft_policy::bundle::{ObjectName, Revision, Service};
    use weft_policy::scope::Ask;

    let (_dir, state) = state();
    let service = |name: &str| Ask::Service(ObjectName::new("shop", name));
    let held = Service {
        name: ObjectName::new("shop", "web"),
        ports: Vec::new(),
        vip: Some(IpAddr::from([10, 0, 0, 1])),
        path_reading: Default::default(),
        traffic: None,
        spread: None,
        endpoints: Default::default(),
    };
    let [there, gone] = [[10, 0, 0, 1], [10, 0, 0, 2]].map(|ip| Ask::address(ip.into()));
    let bundle = Bundle {
        revision: Revision(7),
        services: [(held.name.clone(), held)].into(),
        answered: [service("web"), service("gone"), there.clone(), gone].into(),
        ..Bundle::default()
    };
    state.keep_bundle(&KeptBundle { bundle, ..KeptBundle::default() }).unwrap();
    let read = state.bundle().unwrap().unwrap().bundle;
    assert_eq!((read.answered, read.services.len()), ([service("web"), there].into(), 1));
}

#[test]
fn all_attempts_to_join_by_one_token_have_one_key() {
    let (_dir, state) = state();
    assert_eq!(state.joining("token").unwrap(), None);
    state.keep_joining("token", "key\nof several lines").unwrap();
    let next = State::open(&state.dir).unwrap();
    assert_eq!(next.joining("token").unwrap().as_deref(), Some("key\nof several lines"));
    assert_eq!(next.joining("another").unwrap(), None);
    let mode = fs::metadata(state.path("joining.pem")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    fs::write(state.path("joining.pem"), b"\xff\x00").unwrap();
    assert_eq!(next.joining("token").unwrap(), None);
    next.has_joined();
    next.has_joined();
    assert!(!state.path("joining.pem").exists());
}
