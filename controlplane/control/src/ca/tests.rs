//! Certificates are checked with the verifier that peers use (webpki behind rustls) and read back field by field.

use std::os::unix::fs::PermissionsExt as _;

use rcgen::PublicKeyData as _;
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
    roots.add(authority.root_der().clone()).unwrap();
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), crate::tls::provider()).build().unwrap();
    let at = UnixTime::since_unix_epoch(std::time::Duration::from_secs(at.unix_timestamp().try_into().unwrap()));
    verifier.verify_client_cert(&chain[0], &chain[1..], at).map(|_| ())
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
    assert_eq!(first.intermediate.load().der, again.intermediate.load().der);
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
    assert_eq!(authority.root_der(), Authority::open(dir.path(), "cluster.local", later).unwrap().root_der());
}

#[test]
fn server_certificates_name_hosts_only() {
    let dir = tempfile::tempdir().unwrap();
    let now = OffsetDateTime::now_utc();
    let authority = Authority::open(dir.path(), "cluster.local", now).unwrap();
    let server = authority.issue_server(&["weft-control".into()], &[[127, 0, 0, 9].into()], now).unwrap();
    assert!(!server.is_due(now));
    assert!(server.is_due(now + Duration::days(21)));
    let (_, leaf) = x509_parser::parse_x509_certificate(&server.chain[0]).unwrap();
    let names = &leaf.subject_alternative_name().unwrap().unwrap().value.general_names;
    assert!(names.iter().all(|name| matches!(name, GeneralName::DNSName(_) | GeneralName::IPAddress(_))));
    assert!(verify(&authority, &server.chain, now).is_err(), "it is no client certificate");
}
