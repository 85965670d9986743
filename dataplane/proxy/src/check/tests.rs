//! Machines that lack what a file asks for.

use std::os::unix::fs::PermissionsExt as _;

use rcgen::{CertificateParams, KeyPair};

use super::*;

/// A file whose listeners are on free ports of an address of its own.
fn config(folder: &Path, more: &str) -> Config {
    let ca = folder.join("ca.pem");
    let key = KeyPair::generate().unwrap();
    std::fs::write(&ca, CertificateParams::default().self_signed(&key).unwrap().pem()).unwrap();
    let text = format!(
        "name: web-1\nstate_dir: {}\ncontrol: {{address: 'https://127.0.0.1:1', ca_file: {}}}\n\
         workload: {{service_account: web, address: 127.63.9.7}}\n{more}",
        folder.join("state").display(),
        ca.display()
    );
    Config::parse(Path::new("proxy.yaml"), &text).unwrap()
}

const LISTEN: &str = "listen: {mesh: '127.63.9.7:15008', explicit: '127.63.9.7:15080', admin: '127.63.9.7:15000', metrics: \
                      '127.63.9.7:15020', health: '127.63.9.7:15021'}\n";

#[test]
fn addresses_that_cannot_be_bound_are_told_by_key_and_let_go_of() {
    let dir = tempfile::tempdir().unwrap();
    let good = config(dir.path(), LISTEN);
    let (mesh, metrics) = (UdpSocket::bind(good.listen.mesh).unwrap(), TcpListener::bind(good.listen.metrics).unwrap());
    let found = findings(&good);
    assert_eq!(found.faults.len(), 2, "{found:?}");
    let taken = "Address already in use (os error 98); a program has it already";
    assert!(
        found.faults[0].starts_with(&format!("listen.metrics: cannot bind TCP 127.63.9.7:15020: {taken}")),
        "{found:?}"
    );
    assert!(
        found.faults[1].starts_with(&format!("listen.mesh: cannot bind UDP 127.63.9.7:15008: {taken}")),
        "{found:?}"
    );
    drop((mesh, metrics));
    for _ in 0..2 {
        let found = findings(&good);
        assert!(found.faults.is_empty() && found.notes.is_empty(), "{found:?}");
    }
    assert!(!dir.path().join("state").exists(), "nothing is made");
    // TEST-NET-1 is nobody's.
    let elsewhere = config(dir.path(), &LISTEN.replace("mesh: '127.63.9.7", "mesh: '192.0.2.1"));
    let found = findings(&elsewhere);
    assert!(found.faults.len() == 1 && found.faults[0].ends_with("it is no address of this machine"), "{found:?}");
}

#[test]
fn one_that_runs_is_no_fault() {
    let dir = tempfile::tempdir().unwrap();
    let good = config(dir.path(), &LISTEN.replace("9.7", "9.8"));
    let listen = &good.listen;
    let _mesh = UdpSocket::bind(listen.mesh).unwrap();
    let all = [listen.explicit.unwrap(), listen.metrics, listen.health].map(|at| TcpListener::bind(at).unwrap());
    let admin = TcpListener::bind(listen.admin).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (mut stream, _) = admin.accept().unwrap();
            let _ = stream.read(&mut [0; 1_024]);
            stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nweft-proxy admin\n").unwrap();
        });
        let found = findings(&good);
        assert!(
            found.faults.is_empty() && found.notes == ["running already: a weft-proxy answers at 127.63.9.8:15000"],
            "{found:?}"
        );
    });
    drop(all);
}

#[test]
fn files_and_folders_that_a_start_needs_are_told_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut wrong = config(dir.path(), &LISTEN.replace("9.7", "9.9"));
    std::fs::write(dir.path().join("ca.pem"), "no certificate").unwrap();
    std::fs::write(dir.path().join("file"), "").unwrap();
    wrong.state_dir = dir.path().join("file").join("state");
    let found = findings(&wrong);
    assert_eq!(found.faults.len(), 2, "{found:?}");
    assert!(found.faults[0].starts_with("control.ca_file: "), "{found:?}");
    let token = dir.path().join("token");
    std::fs::write(&token, "abc").unwrap();
    std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o666)).unwrap();
    wrong.control.token_file = Some(token);
    let notes = findings(&wrong).notes;
    assert!(notes.len() == 1 && notes[0].contains("can't be read yet: everybody may change it"), "{notes:?}");
    wrong.control.ca_file = "/nowhere/ca.pem".into();
    assert!(findings(&wrong).faults[0].starts_with("control.ca_file: cannot read /nowhere/ca.pem"));
    assert!(found.faults[1].contains("state_dir: ") && found.faults[1].contains("is no folder"), "{found:?}");
}

#[test]
fn a_namespace_in_which_nothing_can_be_captured_is_told() {
    let check = |error: CaptureError, expect: &str| {
        let told = refused(Err(error)).unwrap();
        assert!(told.starts_with("capture: ") && told.contains(expect), "{told}");
    };
    check(
        CaptureError::Taken("inet weft_other".to_owned()),
        "another proxy captures in this network namespace (nft table inet weft_other)",
    );
    check(
        CaptureError::NotPermitted("Operation not permitted".to_owned()),
        "CAP_NET_ADMIN in this network namespace is needed",
    );
    check(CaptureError::Run(ErrorKind::Other.into()), "nft could not be run: other error");
    assert_eq!(refused(Ok(())), None);
}

#[test]
fn a_token_file_without_a_token_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let mut new = config(dir.path(), &LISTEN.replace("9.7", "9.10"));
    let token = dir.path().join("token");
    new.control.token_file = Some(token.clone());
    for (content, expect) in [
        ("\n", "it is empty"),
        ("one\ntwo\n", "it holds no token, which is one word of printable characters"),
        ("wöft", "it holds no token, which is one word of printable characters"),
    ] {
        std::fs::write(&token, content).unwrap();
        let notes = findings(&new).notes;
        let told = format!("control.token_file: {} can't be read yet: {expect}", token.display());
        assert_eq!(notes, [told], "{content:?}");
    }
    std::fs::write(&token, " wj_abc\n").unwrap();
    assert_eq!(findings(&new).notes, [""; 0]);
}

#[test]
fn listeners_that_take_less_than_capture_redirects_are_told() {
    let check = |outbound: &str, inbound: &str, has_ipv6: bool, expect: &[&str]| {
        let [outbound, inbound] = [outbound, inbound].map(|at| Some(at.parse().unwrap()));
        let dir = tempfile::tempdir().unwrap();
        let listen = Listen { outbound, inbound, ..config(dir.path(), LISTEN).listen };
        assert_eq!(uncaptured(&listen, has_ipv6), expect, "{outbound:?} {inbound:?}");
    };
    check("[::]:15001", "[::]:15006", true, &[]);
    check("0.0.0.0:15001", "0.0.0.0:15006", false, &[]);
    check(
        "127.0.0.1:15001",
        "0.0.0.0:15006",
        true,
        &[
            "listen.outbound: 127.0.0.1:15001 takes no IPv6, which capture redirects there: '[::]:15001'",
            "listen.inbound: 0.0.0.0:15006 takes no IPv6, which capture redirects there: '[::]:15006'",
        ],
    );
    check(
        "[::1]:15001",
        "10.0.0.1:15006",
        false,
        &[
            "listen.outbound: [::1]:15001 takes no IPv4, which capture redirects there: '[::]:15001'",
            "listen.inbound: 10.0.0.1:15006 takes no IPv4, which capture redirects there: '[::]:15006'",
        ],
    );
}
