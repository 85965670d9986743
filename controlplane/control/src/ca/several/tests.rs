//! Several folders of one authority: a root that one of them makes is followed by the others, whatever is cut off, and never
//! because a store names it.

use std::path::Path;

use rcgen::CertificateParams;
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use tempfile::TempDir;
use weft_policy::identity::SpiffeId;

use super::super::{Dropped, Issued};
use super::*;

const NOW: fn() -> OffsetDateTime = OffsetDateTime::now_utc;

fn open(dir: &TempDir) -> Authority {
    Authority::open(dir.path(), "cluster.local", NOW()).unwrap()
}

/// Two folders of one root.
fn two() -> [TempDir; 2] {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    open(&dirs[0]);
    copy(dirs[0].path(), dirs[1].path(), &["ca.pem", "ca/root.key"]);
    dirs
}

fn copy(from: &Path, to: &Path, files: &[&str]) {
    std::fs::create_dir_all(to.join("ca")).unwrap();
    for file in files {
        let _ = std::fs::remove_file(to.join(file));
        if from.join(file).exists() {
            std::fs::copy(from.join(file), to.join(file)).unwrap();
        }
    }
}

fn offered(authority: &Authority) -> Vouched {
    match authority.offer(NOW()).unwrap() {
        Offer::Ready(vouched) => vouched,
        Offer::Wanted(_) => panic!("the root's key is here"),
    }
}

/// A line as it comes back from the store.
fn stored(line: &Line) -> Line {
    serde_json::from_str(&serde_json::to_string(line).unwrap()).unwrap()
}

fn rotated(authority: &Authority) -> Line {
    stored(&offered(authority).behind(&authority.first_line()).unwrap())
}

fn issue(authority: &Authority) -> Result<Issued, IssueError> {
    let key = KeyPair::generate().unwrap();
    let csr = CertificateParams::default().serialize_request(&key).unwrap();
    let identity: SpiffeId = "spiffe://cluster.local/ns/shop/sa/web".parse().unwrap();
    authority.issue_workload(csr.der(), &identity, Duration::hours(1), NOW())
}

fn believes(root: &CertificateDer<'static>, chain: &[CertificateDer<'static>]) -> bool {
    let mut roots = RootCertStore::empty();
    roots.add(root.clone()).unwrap();
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), crate::tls::provider()).build().unwrap();
    verifier.verify_client_cert(&chain[0], &chain[1..], UnixTime::now()).is_ok()
}

fn names() -> ServerNames {
    ServerNames { dns: vec!["weft-control".to_owned()], ..ServerNames::default() }
}

/// Gets an intermediate for one from the other.
fn sign(from: &Authority, to: &Authority) {
    let asked = to.ask().unwrap();
    let signed = from.sign_for_another(&asked.csr_der, false, NOW()).unwrap();
    to.take(asked, &signed, &names(), NOW()).unwrap();
}

const DROPPED: Dropped = Dropped { unix: i64::MAX, by_force: false };

#[test]
fn who_has_no_key_of_the_new_root_issues_below_it_and_all_believe_each_other() {
    let dirs = two();
    let [one, other] = [open(&dirs[0]), open(&dirs[1])];
    let before = one.fingerprint();
    let old = issue(&other).unwrap();
    let line = rotated(&one);
    assert_eq!(
        (one.fingerprint(), one.authorities().previous),
        (before.clone(), None),
        "an offer alone changes nothing"
    );
    for authority in [&other, &one] {
        assert_eq!(authority.follow(&line).unwrap(), Taken::Roots);
        assert_eq!(authority.follow(&line).unwrap(), Taken::Nothing);
    }
    assert!(one.has_root_key() && !other.has_root_key());
    assert!(!dirs[1].path().join("ca/root.key").exists(), "the old root's key is no more");
    let [new_root, old_root] = one.roots_der().try_into().unwrap();
    assert_eq!(other.roots_der(), [new_root.clone(), old_root.clone()]);
    let of_one = issue(&one).unwrap();
    assert!(of_one.root == line.newest() && believes(&new_root, &of_one.chain) && believes(&old_root, &of_one.chain));
    // Until it has an intermediate of the new root it issues below the old one, and says so.
    let still = issue(&other).unwrap();
    assert!(still.root == before && believes(&old_root, &still.chain) && !believes(&new_root, &still.chain));
    assert!(other.wants_intermediate(NOW()) && !one.wants_intermediate(NOW()));
    assert!(matches!(other.renew_intermediate(NOW()), Err(AuthorityError::WithAnother)));
    sign(&one, &other);
    for (one, other) in [(one, other), (open(&dirs[0]), open(&dirs[1]))] {
        for authority in [&one, &other] {
            let issued = issue(authority).unwrap();
            assert_eq!((issued.root.as_str(), issued.chain.len()), (line.newest(), 3));
            assert!(believes(&new_root, &issued.chain) && believes(&old_root, &issued.chain));
            assert!(authority.trusts(&old.root) && !authority.wants_intermediate(NOW()));
            assert_eq!(authority.follow(&line).unwrap(), Taken::Nothing);
        }
        assert!(matches!(one.offer(NOW()), Err(RotateError::Underway)));
    }
    // Nobody trusts the old one any more.
    let (one, other) = (open(&dirs[0]), open(&dirs[1]));
    let line = stored(&line.without_previous(DROPPED));
    for authority in [&one, &other] {
        assert_eq!(authority.follow(&line).unwrap(), Taken::Roots);
    }
    for authority in [one, other, open(&dirs[0]), open(&dirs[1])] {
        assert_eq!(authority.roots_der(), std::slice::from_ref(&new_root));
        let issued = issue(&authority).unwrap();
        assert!(issued.chain.len() == 2 && believes(&new_root, &issued.chain));
        assert_eq!(authority.follow(&line).unwrap(), Taken::Nothing);
    }
}

/// The next root is made by one that has not the key of this one.
#[test]
fn a_root_moves_to_another_folder_by_the_word_of_who_has_its_key() {
    let dirs = two();
    let [one, other] = [open(&dirs[0]), open(&dirs[1])];
    let line = rotated(&one);
    for authority in [&one, &other] {
        authority.follow(&line).unwrap();
    }
    sign(&one, &other);
    let early = KeyPair::generate().unwrap();
    let early = CertificateParams::default().serialize_request(&early).unwrap();
    assert!(matches!(one.sign_for_another(early.der(), true, NOW()), Err(SignError::Underway)));
    let line = line.without_previous(DROPPED);
    for authority in [&one, &other] {
        authority.follow(&line).unwrap();
    }
    let Offer::Wanted(wanted) = other.offer(NOW()).unwrap() else { panic!("the key is not there") };
    assert!(matches!(other.sign_for_another(&wanted.csr_der, true, NOW()), Err(SignError::NotHere)));
    let Offer::Wanted(unsigned) = other.offer(NOW()).unwrap() else { panic!("the key is not there") };
    let intermediate = one.sign_for_another(&wanted.csr_der, false, NOW()).unwrap();
    let refused = other.keep_offer(unsigned, &intermediate, NOW()).err().unwrap().to_string();
    assert!(refused.contains("not of its key"), "{refused}");
    let cross = one.sign_for_another(&wanted.csr_der, true, NOW()).unwrap();
    let next = stored(&other.keep_offer(wanted, &cross, NOW()).unwrap().behind(&line).unwrap());
    for authority in [&one, &other] {
        authority.follow(&next).unwrap();
    }
    sign(&other, &one);
    for (holder, follower) in [(other, one), (open(&dirs[1]), open(&dirs[0]))] {
        assert!(holder.has_root_key() && !follower.has_root_key());
        for authority in [&holder, &follower] {
            let issued = issue(authority).unwrap();
            assert!(authority.roots_der().iter().all(|root| believes(root, &issued.chain)));
            assert_eq!((authority.roots_der().len(), issued.root.as_str()), (2, next.newest()));
        }
    }
}

#[test]
fn no_root_is_followed_because_the_store_names_it() {
    let dirs = two();
    let (one, strange) = (open(&dirs[0]), tempfile::tempdir().unwrap());
    let strange = open(&strange);
    let (known, foreign) = (one.first_line(), strange.first_line());
    let text = |line: &Line, change: &dyn Fn(&mut serde_json::Value)| -> Line {
        let mut value = serde_json::to_value(line).unwrap();
        change(&mut value);
        serde_json::from_value(value).unwrap()
    };
    let refused = |line: &Line| one.follow(line).unwrap_err().to_string();
    let root = |line: &Line| serde_json::to_value(line).unwrap()["roots"].clone();
    assert!(refused(&foreign).contains("the store does not know the root"));
    // Another root behind this one, with no word, with its own, and with that of a third.
    let own = root(&rotated(&strange))[1]["cross"].clone();
    for cross in [serde_json::Value::Null, root(&foreign)[0]["root"].clone(), own] {
        let line = text(&known, &|value| {
            let mut link = root(&foreign)[0].clone();
            link["cross"] = cross.clone();
            value["roots"].as_array_mut().unwrap().push(link);
        });
        assert!(refused(&line).contains("does not vouch"), "{cross}");
    }
    // One beside the newest that nobody here knows.
    let line = text(&known, &|value| value["roots"].as_array_mut().unwrap().insert(0, root(&foreign)[0].clone()));
    assert!(refused(&line).contains("is not known"));
    assert_eq!(one.roots_der().len(), 1);
}

/// What each step writes, in its order, with everything before it: a start goes on from there.
#[test]
fn what_is_cut_off_is_gone_on_with() {
    const FILES: [&str; 8] = [
        "ca/previous.pem",
        "ca/followed",
        "ca/root.key",
        "ca/intermediate.pem",
        "ca.pem",
        "ca/offered.pem",
        "ca/next.pem",
        "ca/external",
    ];
    let dirs = two();
    let line = rotated(&open(&dirs[0]));
    open(&dirs[1]);
    // An offer that the store did not take stays the same one, and takes over when it turns out that it did.
    let again = offered(&open(&dirs[0]));
    assert_eq!(again.fingerprint(), line.newest());
    for (number, steps) in [
        (0, ["ca/next.pem", "ca/previous.pem", "ca/intermediate.pem", "ca.pem", "ca/root.key"]),
        (1, ["ca/previous.pem", "ca/followed", "ca/root.key", "ca.pem", "ca/none"]),
    ] {
        let before = tempfile::tempdir().unwrap();
        copy(dirs[number].path(), before.path(), &FILES);
        let after = tempfile::tempdir().unwrap();
        copy(dirs[number].path(), after.path(), &FILES);
        open(&after).follow(&line).unwrap();
        let (wanted, has_key) = (open(&after).authorities(), open(&after).has_root_key());
        if number == 0 {
            copy(before.path(), after.path(), &["ca/offered.pem"]);
            std::fs::copy(before.path().join("ca/offered.pem"), after.path().join("ca/next.pem")).unwrap();
        }
        for done in 0..=steps.len() {
            let cut = tempfile::tempdir().unwrap();
            copy(before.path(), cut.path(), &FILES);
            copy(after.path(), cut.path(), &steps[..done]);
            let found = open(&cut);
            found.follow(&line).unwrap();
            for found in [found, open(&cut)] {
                assert_eq!(found.authorities().root, wanted.root, "{number}: after {done} writes");
                assert_eq!(found.authorities().previous, wanted.previous, "{number}: after {done} writes");
                assert_eq!(found.has_root_key(), has_key, "{number}: after {done} writes");
                issue(&found).unwrap();
            }
        }
    }
    // A disk that takes nothing puts nothing off, and is tried again.
    let other = open(&dirs[1]);
    let full = dirs[1].path().join("ca/previous.pem");
    std::fs::create_dir(&full).unwrap();
    other.follow(&line).unwrap();
    assert!(other.roots_der().len() == 2 && other.maintain(NOW()).is_err());
    std::fs::remove_dir(&full).unwrap();
    other.maintain(NOW()).unwrap();
    assert_eq!(std::fs::read_to_string(dirs[1].path().join("ca.pem")).unwrap(), other.trust_bundle_pem());
}

#[test]
fn who_was_away_while_its_root_was_dropped_issues_nothing_until_it_has_shown_what_it_is() {
    let dirs = two();
    let [one, other] = [open(&dirs[0]), open(&dirs[1])];
    let line = rotated(&one);
    one.follow(&line).unwrap();
    let dropped = Dropped { unix: NOW().unix_timestamp(), by_force: false };
    let forced = line.without_previous(Dropped { by_force: true, ..dropped });
    let late = line.without_previous(Dropped { unix: dropped.unix - 91 * 86_400, ..dropped });
    let line = line.without_previous(dropped);
    one.follow(&line).unwrap();
    other.follow(&line).unwrap();
    for other in [&other, &open(&dirs[1])] {
        other.follow(&line).unwrap();
        assert!(!other.is_vouched() && other.wants_intermediate(NOW()));
        assert!(matches!(issue(other), Err(IssueError::NotVouched)));
    }
    let asked = other.ask().unwrap();
    let proof: Vec<_> = other.prove(&asked.csr_der, NOW()).unwrap().into_iter().map(CertificateDer::from).collect();
    let check = |line: &Line, csr: &[u8], proof: &[CertificateDer<'static>]| one.check_proof(line, csr, proof, NOW());
    check(&line, &asked.csr_der, &proof).unwrap();
    let refused = check(&line, &other.ask().unwrap().csr_der, &proof).unwrap_err();
    assert!(refused.contains("another key"), "{refused}");
    for line in [&forced, &late] {
        let refused = check(line, &asked.csr_der, &proof).unwrap_err();
        assert!(refused.contains("of no root that was dropped of late"), "{refused}");
    }
    let strange = tempfile::tempdir().unwrap();
    let foreign = open(&strange).prove(&asked.csr_der, NOW()).unwrap().into_iter().map(CertificateDer::from);
    check(&line, &asked.csr_der, &foreign.collect::<Vec<_>>()).unwrap_err();
    let signed = one.sign_for_another(&asked.csr_der, false, NOW()).unwrap();
    other.take(asked, &signed, &names(), NOW()).unwrap();
    for other in [other, open(&dirs[1])] {
        assert!(other.is_vouched() && believes(&one.roots_der()[0], &issue(&other).unwrap().chain));
    }
}
