//! A root takes over from another: each certificate is believed by who should believe it, before and after, and a crash at
//! any moment leaves one of the two states.

use std::path::PathBuf;

use rcgen::{CertificateParams, KeyPair};
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::{CertificateDer, UnixTime};
use time::Duration;
use weft_policy::identity::SpiffeId;

use super::super::{Issued, ServerNames};
use super::*;

fn open(state: &Path) -> Authority {
    Authority::open(state, "cluster.local", OffsetDateTime::now_utc()).unwrap()
}

fn issue(authority: &Authority) -> Issued {
    let key = KeyPair::generate().unwrap();
    let csr = CertificateParams::default().serialize_request(&key).unwrap();
    let identity: SpiffeId = "spiffe://cluster.local/ns/shop/sa/web".parse().unwrap();
    authority.issue_workload(csr.der(), &identity, Duration::hours(1), OffsetDateTime::now_utc()).unwrap()
}

fn is_believed(chain: &[CertificateDer<'static>], root: &CertificateDer<'static>) -> bool {
    let mut roots = RootCertStore::empty();
    roots.add(root.clone()).unwrap();
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), crate::tls::provider()).build().unwrap();
    verifier.verify_client_cert(&chain[0], &chain[1..], UnixTime::now()).is_ok()
}

#[test]
fn the_old_root_vouches_for_the_new_one_until_it_is_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let authority = open(dir.path());
    let (old, before) = (issue(&authority), authority.fingerprint());
    assert!(matches!(authority.finish_rotation(), Err(RotateError::NotUnderway)));
    authority.rotate(OffsetDateTime::now_utc()).unwrap();
    assert!(matches!(authority.rotate(OffsetDateTime::now_utc()), Err(RotateError::Underway)));
    for authority in [authority, open(dir.path())] {
        let Authorities { root, previous, .. } = authority.authorities();
        assert!(root.0 != before && previous.is_some_and(|(fingerprint, _)| fingerprint == before));
        let [new_root, old_root] = authority.roots_der().try_into().unwrap();
        assert_eq!(authority.trust_bundle_pem(), std::fs::read_to_string(dir.path().join("ca.pem")).unwrap());
        let new = issue(&authority);
        assert_eq!(new.root, root.0);
        assert!(is_believed(&old.chain, &old_root) && !is_believed(&old.chain, &new_root));
        // Whoever knows one of the two believes it.
        assert!(is_believed(&new.chain, &old_root) && is_believed(&new.chain, &new_root));
        let names = ServerNames { dns: vec!["localhost".to_owned()], ..ServerNames::default() };
        let server = authority.issue_server(&names, OffsetDateTime::now_utc()).unwrap();
        assert_eq!(server.chain.len(), 3);
        for root in [&before, &root.0] {
            Authority::require(dir.path(), root).unwrap();
        }
    }
    let authority = open(dir.path());
    authority.finish_rotation().unwrap();
    for authority in [authority, open(dir.path())] {
        let [new_root] = authority.roots_der().try_into().unwrap();
        assert_eq!(authority.trust_bundle_pem(), std::fs::read_to_string(dir.path().join("ca.pem")).unwrap());
        let new = issue(&authority);
        assert!(new.chain.len() == 2 && is_believed(&new.chain, &new_root));
        Authority::require(dir.path(), &before).unwrap_err();
        Authority::require(dir.path(), &authority.fingerprint()).unwrap();
    }
    // The intermediate alone: who trusts the root notices nothing.
    let authority = open(dir.path());
    let first = issue(&authority);
    authority.renew_intermediate(OffsetDateTime::now_utc()).unwrap();
    let [root] = authority.roots_der().try_into().unwrap();
    let next = issue(&authority);
    assert!(first.chain[1] != next.chain[1] && is_believed(&next.chain, &root) && is_believed(&first.chain, &root));
}

fn copy(from: &Path, to: &Path, file: &str) {
    std::fs::create_dir_all(to.join(file).parent().unwrap()).unwrap();
    std::fs::copy(from.join(file), to.join(file)).unwrap();
}

#[test]
fn a_rotation_that_was_cut_off_is_gone_on_with() {
    let (before, after) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let authority = open(before.path());
    let next = authority.next(&authority.signers.load().root, OffsetDateTime::now_utc()).unwrap();
    let own = ["ca/intermediate.pem", "ca.pem", "ca/root.key"];
    own.iter().for_each(|file| copy(before.path(), after.path(), file));
    Next::parse(after.path(), &Keys::default(), &next).unwrap().place(after.path()).unwrap();
    let wanted = open(after.path()).authorities();
    // In the order in which they are written.
    let written = ["ca/previous.pem", "ca/intermediate.pem", "ca.pem", "ca/root.key"];
    for done in 0..=written.len() {
        let cut = tempfile::tempdir().unwrap();
        own.iter().for_each(|file| copy(before.path(), cut.path(), file));
        written[..done].iter().for_each(|file| copy(after.path(), cut.path(), file));
        let path: PathBuf = cut.path().join("ca").join(NEXT);
        std::fs::write(&path, &next).unwrap();
        for fingerprint in [&wanted.root.0, &authority.fingerprint()] {
            Authority::require(cut.path(), fingerprint).unwrap();
        }
        let found = open(cut.path());
        assert_eq!(found.authorities(), wanted, "after {done} writes");
        assert!(!path.exists());
        issue(&found);
    }
    // The disk failed when it had the file: it takes over with the next look.
    let path = before.path().join("ca").join(NEXT);
    std::fs::write(&path, &next).unwrap();
    assert!(!authority.maintain(OffsetDateTime::now_utc()).unwrap());
    assert_eq!(authority.authorities(), wanted);
    assert!(!path.exists());
}

#[test]
fn a_disk_that_takes_no_more_puts_nothing_off() {
    let dir = tempfile::tempdir().unwrap();
    let authority = open(dir.path());
    let before = authority.fingerprint();
    // A file of the rotation can't be written.
    let full = dir.path().join("ca").join(PREVIOUS);
    std::fs::create_dir(&full).unwrap();
    authority.rotate(OffsetDateTime::now_utc()).unwrap();
    let wanted = authority.authorities();
    assert!(wanted.root.0 != before && wanted.previous.is_some());
    assert!(authority.maintain(OffsetDateTime::now_utc()).is_err(), "it is tried again");
    for refused in [authority.rotate(OffsetDateTime::now_utc()), authority.finish_rotation()] {
        assert!(matches!(refused, Err(RotateError::Authority(AuthorityError::File { .. }))), "{refused:?}");
    }
    // No start waits for the disk, and each has the root that took over.
    let authority = open(dir.path());
    assert_eq!(authority.authorities(), wanted);
    issue(&authority);
    std::fs::remove_dir(&full).unwrap();
    authority.maintain(OffsetDateTime::now_utc()).unwrap();
    assert!(!dir.path().join("ca").join(NEXT).exists());
    for authority in [authority, open(dir.path())] {
        assert_eq!(authority.authorities(), wanted);
    }
}

#[test]
fn an_intermediate_that_is_due_while_a_root_is_replaced_is_believed_by_both() {
    let dir = tempfile::tempdir().unwrap();
    let authority = open(dir.path());
    let now = OffsetDateTime::now_utc();
    authority.rotate(now).unwrap();
    let first = issue(&authority);
    // Two thirds of its life are over, as after a long rotation or with a clock that was ahead.
    assert!(authority.maintain(now + Duration::days(300)).unwrap());
    for authority in [authority, open(dir.path())] {
        let next = issue(&authority);
        assert!(next.chain.len() == 3 && next.chain[1] != first.chain[1] && next.chain[2] == first.chain[2]);
        let [new_root, old_root] = authority.roots_der().try_into().unwrap();
        assert!(is_believed(&next.chain, &old_root));
        let later = UnixTime::since_unix_epoch(std::time::Duration::from_secs(
            u64::try_from((now + Duration::days(300)).unix_timestamp()).unwrap(),
        ));
        let mut roots = RootCertStore::empty();
        roots.add(new_root).unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), crate::tls::provider());
        let issued = authority.issue_workload(
            CertificateParams::default().serialize_request(&KeyPair::generate().unwrap()).unwrap().der(),
            &"spiffe://cluster.local/ns/shop/sa/web".parse().unwrap(),
            Duration::hours(1),
            now + Duration::days(300),
        );
        let chain = issued.unwrap().chain;
        verifier.build().unwrap().verify_client_cert(&chain[0], &chain[1..], later).unwrap();
    }
}
