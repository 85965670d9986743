//! Certificates are checked with the verifier that peers use (webpki behind rustls) and read back field by field.

use std::os::unix::fs::PermissionsExt as _;

use rcgen::{CertificateParams, PublicKeyData as _};
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::UnixTime;
use x509_parser::extensions::GeneralName;

use super::*;

fn identity(text: &str) -> SpiffeId {
    text.parse().unwrap()
}

fn csr(key: &KeyPair, names: Vec<SanType>) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.subject_alt_names = names;
    params.serialize_request(key).unwrap().der().to_vec()
}

fn verify(authority: &Authority, chain: &[CertificateDer<'static>], at: OffsetDateTime) -> Result<(), rustls::Error> {
    let mut roots = RootCertStore::empty();
    authority.roots_der().into_iter().for_each(|root| roots.add(root).unwrap());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), crate::tls::provider()).build().unwrap();
    let at = UnixTime::since_unix_epoch(std::time::Duration::from_secs(at.unix_timestamp().try_into().unwrap()));
    verifier.verify_client_cert(&chain[0], &chain[1..], at).map(|_| ())
}

fn names(addresses: &[IpAddr]) -> ServerNames {
    ServerNames { dns: vec!["weft-control".to_owned()], addresses: addresses.to_vec() }
}

#[test]
fn names_come_from_the_server_and_the_key_from_the_request() {
    let dir = tempfile::tempdir().unwrap();
    let now = OffsetDateTime::now_utc();
    let authority = Authority::open(dir.path(), "cluster.local", now).unwrap();
    let key = KeyPair::generate().unwrap();
    let wishes = vec![
        SanType::URI("spiffe://cluster.local/ns/kube-system/sa/admin".try_into().unwrap()),
        SanType::DnsName("weft-control".try_into().unwrap()),
    ];
    let id = identity("spiffe://cluster.local/ns/shop/sa/web");
    let issued = authority.issue_workload(&csr(&key, wishes), &id, Duration::hours(1), now).unwrap();
    let (_, leaf) = x509_parser::parse_x509_certificate(&issued.chain[0]).unwrap();
    let san = leaf.subject_alternative_name().unwrap().unwrap();
    assert_eq!(san.value.general_names, vec![GeneralName::URI(id.as_str())]);
    assert_eq!(leaf.public_key().raw, key.subject_public_key_info());
    assert!(!leaf.is_ca());
    assert_eq!(leaf.validity().not_after.timestamp(), (now + Duration::hours(1)).unix_timestamp());
    let usage = leaf.extended_key_usage().unwrap().unwrap();
    assert!(usage.value.client_auth && usage.value.server_auth);
    assert_eq!(issued.serial.replace(':', ""), leaf.raw_serial_as_string().replace(':', ""));
    verify(&authority, &issued.chain, now).unwrap();
    assert!(verify(&authority, &issued.chain, now + Duration::hours(2)).is_err());
    let again = authority.issue_workload(&csr(&key, vec![]), &id, Duration::hours(1), now).unwrap();
    assert_ne!(again.serial, issued.serial);
}

#[test]
fn a_request_signed_by_another_key_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let now = OffsetDateTime::now_utc();
    let authority = Authority::open(dir.path(), "cluster.local", now).unwrap();
    let id = identity("spiffe://cluster.local/ns/shop/sa/web");
    let mut forged = csr(&KeyPair::generate().unwrap(), vec![]);
    // Another public key under the first one's signature.
    let other = KeyPair::generate().unwrap();
    let start = forged.windows(65).position(|w| w[0] == 4).map(|_| ()).and_then(|()| {
        let params = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(forged.as_slice()));
        let raw = params.unwrap().public_key.der_bytes().to_vec();
        forged.windows(raw.len()).position(|w| w == raw)
    });
    let start = start.unwrap();
    forged[start..start + other.public_key_raw().len()].copy_from_slice(other.public_key_raw());
    let error = authority.issue_workload(&forged, &id, Duration::hours(1), now).unwrap_err();
    assert!(matches!(error, IssueError::NotPossessed), "{error}");
    for garbage in [&b""[..], b"\x30\x80", &forged[..forged.len() / 2]] {
        assert!(authority.issue_workload(garbage, &id, Duration::hours(1), now).is_err());
    }
}

#[test]
fn it_opens_again_as_it_was_and_its_keys_are_private() {
    let dir = tempfile::tempdir().unwrap();
    let now = OffsetDateTime::now_utc();
    let first = Authority::open(dir.path(), "cluster.local", now).unwrap();
    let again = Authority::open(dir.path(), "cluster.local", now).unwrap();
    assert_eq!(first.trust_bundle_pem(), again.trust_bundle_pem());
    assert_eq!(first.signers.load().intermediate.der, again.signers.load().intermediate.der);
    for file in ["ca/root.key", "ca/intermediate.pem"] {
        let mode = std::fs::metadata(dir.path().join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    std::fs::remove_file(dir.path().join("ca/root.key")).unwrap();
    let error = Authority::open(dir.path(), "cluster.local", now).err().unwrap();
    assert!(error.to_string().contains("root.key"), "{error}");
}

#[test]
fn the_intermediate_is_renewed_in_time_and_caps_what_it_signs() {
    let dir = tempfile::tempdir().unwrap();
    let now = OffsetDateTime::now_utc();
    let authority = Authority::open(dir.path(), "cluster.local", now).unwrap();
    let first = authority.intermediate_not_after();
    assert!(!authority.maintain(now + Duration::days(200)).unwrap());
    let later = now + Duration::days(250);
    let id = identity("spiffe://cluster.local/ns/shop/sa/web");
    let request = csr(&KeyPair::generate().unwrap(), vec![]);
    let old = authority.issue_workload(&request, &id, Duration::days(300), later).unwrap();
    assert_eq!(old.not_after, first);
    assert!(authority.maintain(later).unwrap());
    assert!(authority.intermediate_not_after() > first);
    let new = authority.issue_workload(&request, &id, Duration::days(300), later).unwrap();
    verify(&authority, &old.chain, later).unwrap();
    verify(&authority, &new.chain, later).unwrap();
    assert_eq!(authority.roots_der(), Authority::open(dir.path(), "cluster.local", later).unwrap().roots_der());
}

#[test]
fn server_certificates_name_hosts_only() {
    let dir = tempfile::tempdir().unwrap();
    let now = OffsetDateTime::now_utc();
    let authority = Authority::open(dir.path(), "cluster.local", now).unwrap();
    let server = authority.issue_server(&names(&[[127, 0, 0, 9].into()]), now).unwrap();
    assert!(!server.is_due(now));
    assert!(server.is_due(now + Duration::days(21)));
    let (_, leaf) = x509_parser::parse_x509_certificate(&server.chain[0]).unwrap();
    let names = &leaf.subject_alternative_name().unwrap().unwrap().value.general_names;
    assert!(names.iter().all(|name| matches!(name, GeneralName::DNSName(_) | GeneralName::IPAddress(_))));
    assert!(verify(&authority, &server.chain, now).is_err(), "it is no client certificate");
}

/// Damage to the files of an authority between two starts, and the outcome of the second start.
struct Fault {
    name: &'static str,
    does: fn(&Path),
    /// Part of the sentence that a start ends with; none: it goes on, and what was issued before is still believed.
    ends_with: Option<&'static str>,
}

const FAULTS: [Fault; 13] = [
    Fault { name: "ca.pem is missing", does: |at| remove(at, "ca.pem"), ends_with: None },
    Fault { name: "ca.pem is empty", does: |at| write(at, "ca.pem", b""), ends_with: None },
    Fault { name: "ca.pem is half", does: |at| halve(at, "ca.pem"), ends_with: None },
    Fault { name: "ca.pem is no text", does: |at| write(at, "ca.pem", &[0xff; 64]), ends_with: None },
    Fault { name: "ca.pem is another's", does: |at| foreign(at, "ca.pem"), ends_with: Some("don't belong together") },
    Fault {
        name: "root.key is missing",
        does: |at| remove(at, "ca/root.key"),
        ends_with: Some("ca/root.key is not: restore it"),
    },
    Fault { name: "root.key is half", does: |at| halve(at, "ca/root.key"), ends_with: Some("root.key can't be read") },
    Fault {
        name: "root.key is another's",
        does: |at| foreign(at, "ca/root.key"),
        ends_with: Some("don't belong together"),
    },
    Fault { name: "the intermediate is missing", does: |at| remove(at, "ca/intermediate.pem"), ends_with: None },
    Fault { name: "the intermediate is half", does: |at| halve(at, "ca/intermediate.pem"), ends_with: None },
    Fault {
        name: "the intermediate is another root's",
        does: |at| foreign(at, "ca/intermediate.pem"),
        ends_with: None,
    },
    Fault {
        name: "ca.pem and root.key are missing",
        does: |at| {
            remove(at, "ca.pem");
            remove(at, "ca/root.key");
        },
        ends_with: Some("intermediate.pem is there but"),
    },
    Fault {
        name: "a crash left temporary files",
        does: |at| {
            write(at, "ca.new", b"half");
            write(at, "ca/intermediate.new", b"half");
        },
        ends_with: None,
    },
];

fn remove(at: &Path, name: &str) {
    std::fs::remove_file(at.join(name)).unwrap();
}

fn write(at: &Path, name: &str, bytes: &[u8]) {
    std::fs::write(at.join(name), bytes).unwrap();
}

fn halve(at: &Path, name: &str) {
    let whole = std::fs::read(at.join(name)).unwrap();
    write(at, name, &whole[..whole.len() / 2]);
}

/// The file of that name as another authority has it.
fn foreign(at: &Path, name: &str) {
    let dir = tempfile::tempdir().unwrap();
    Authority::open(dir.path(), "cluster.local", OffsetDateTime::now_utc()).unwrap();
    write(at, name, &std::fs::read(dir.path().join(name)).unwrap());
}

#[test]
fn damaged_files_are_made_again_or_named_with_the_cure() {
    for Fault { name, does, ends_with } in FAULTS {
        let dir = tempfile::tempdir().unwrap();
        let now = OffsetDateTime::now_utc();
        let before = Authority::open(dir.path(), "cluster.local", now).unwrap();
        let id = identity("spiffe://cluster.local/ns/shop/sa/web");
        let request = csr(&KeyPair::generate().unwrap(), vec![]);
        let issued = before.issue_workload(&request, &id, Duration::hours(1), now).unwrap();
        let key = std::fs::read(dir.path().join("ca/root.key")).unwrap();
        does(dir.path());
        let damaged_key = std::fs::read(dir.path().join("ca/root.key")).ok();
        let again = Authority::open(dir.path(), "cluster.local", now);
        assert_eq!(std::fs::read(dir.path().join("ca/root.key")).ok(), damaged_key, "{name}: a key was written");
        match (again, ends_with) {
            (Ok(again), None) => {
                assert_eq!(again.fingerprint(), before.fingerprint(), "{name}");
                assert_eq!(damaged_key, Some(key), "{name}");
                verify(&again, &issued.chain, now).unwrap_or_else(|error| panic!("{name}: {error}"));
                let new = again.issue_workload(&request, &id, Duration::hours(1), now).unwrap();
                // Holders of the old ca.pem believe certificates that are issued now.
                verify(&before, &new.chain, now).unwrap_or_else(|error| panic!("{name}: {error}"));
                Authority::require(dir.path(), &before.fingerprint()).unwrap();
            }
            (Err(error), Some(part)) => {
                let text = error.to_string();
                assert!(text.contains(part) && text.contains("restore"), "{name}: {text}");
            }
            (Ok(_), Some(part)) => panic!("{name}: it started, {part} was expected"),
            (Err(error), None) => panic!("{name}: {error}"),
        }
    }
}

#[test]
fn what_a_clock_that_was_ahead_made_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let now = OffsetDateTime::now_utc();
    let ahead = now + Duration::days(400);
    let authority = Authority::open(dir.path(), "cluster.local", ahead).unwrap();
    let id = identity("spiffe://cluster.local/ns/shop/sa/web");
    let request = csr(&KeyPair::generate().unwrap(), vec![]);
    let server = authority.issue_server(&names(&[]), ahead).unwrap();
    assert!(server.is_due(now) && !server.is_due(ahead));
    // While it runs, and at a start.
    for _ in 0..2 {
        assert!(authority.maintain(now).unwrap());
        assert!(!authority.maintain(now).unwrap());
        let issued = authority.issue_workload(&request, &id, Duration::hours(1), now).unwrap();
        verify(&authority, &issued.chain, now).unwrap();
        authority.maintain(ahead).unwrap();
        let again = Authority::open(dir.path(), "cluster.local", now).unwrap();
        let issued = again.issue_workload(&request, &id, Duration::hours(1), now).unwrap();
        verify(&authority, &issued.chain, now).unwrap();
    }
    // And by one that is behind.
    assert!(authority.maintain(now - Duration::days(9000)).unwrap());
    assert!(authority.maintain(now).unwrap());
}

#[test]
fn a_store_gets_no_other_authority_than_its_own() {
    let (own, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let now = OffsetDateTime::now_utc();
    let authority = Authority::open(own.path(), "cluster.local", now).unwrap();
    Authority::open(other.path(), "cluster.local", now).unwrap();
    Authority::require(own.path(), &authority.fingerprint()).unwrap();
    let empty = tempfile::tempdir().unwrap();
    for at in [other.path(), empty.path()] {
        let text = Authority::require(at, &authority.fingerprint()).unwrap_err().to_string();
        assert!(text.contains("A whole backup is the state folder"), "{text}");
    }
    assert_eq!(std::fs::read_dir(empty.path()).unwrap().count(), 0, "nothing is made");
}
