//! A root takes over from another: each certificate is believed by who should believe it, before and after, and a crash at
//! any moment leaves one of the two states.

use std::path::PathBuf;

use rcgen::{CertificateParams, KeyPair};
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::{CertificateDer, UnixTime};
use time::Duration;
use weft_policy::identity::SpiffeId;

use super::super::Issued;
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
        let server = authority.issue_server(&["localhost".to_owned()], &[], OffsetDateTime::now_utc()).unwrap();
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
    take_over(after.path(), &Keys::default(), &next).unwrap();
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
    // Without room on the disk nothing is replaced, and the next try takes the same.
    let path = before.path().join("ca").join(NEXT);
    std::fs::write(&path, &next).unwrap();
    authority.rotate(OffsetDateTime::now_utc()).unwrap();
    assert_eq!(authority.authorities(), wanted);
}
