//! A root that lies elsewhere, and the ways in which what it signed may be wrong.

use rcgen::{
    BasicConstraints, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer,
    KeyUsagePurpose, NameConstraints,
};
use time::Duration;

use super::*;
use crate::ca::Keys;

/// Somebody else's root.
struct Elsewhere {
    pem: String,
    der: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

impl Elsewhere {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let root = params("root of the house").self_signed(&key).unwrap();
        let issuer = Issuer::from_ca_cert_der(root.der(), key).unwrap();
        Self { pem: root.pem(), der: root.der().clone(), issuer }
    }

    /// Another authority below this one, and the PEM of its certificate.
    fn below(&self) -> (String, Issuer<'static, KeyPair>) {
        let key = KeyPair::generate().unwrap();
        let certificate = params("department").signed_by(&key, &self.issuer).unwrap();
        let issuer = Issuer::from_ca_cert_der(certificate.der(), key).unwrap();
        (certificate.pem(), issuer)
    }
}

fn sign(request: &str, issuer: &Issuer<'_, KeyPair>, change: impl FnOnce(&mut CertificateParams)) -> String {
    let mut request = CertificateSigningRequestParams::from_pem(request).unwrap();
    request.params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    request.params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    request.params.not_before = OffsetDateTime::now_utc() - Duration::hours(1);
    request.params.not_after = OffsetDateTime::now_utc() + Duration::days(90);
    change(&mut request.params);
    request.signed_by(issuer).unwrap().pem()
}

fn names() -> ServerNames {
    ServerNames { dns: vec!["weft-control".to_owned()], addresses: vec![[127, 0, 0, 1].into()] }
}

fn issue(authority: &Authority) -> Vec<CertificateDer<'static>> {
    let key = KeyPair::generate().unwrap();
    let csr = CertificateParams::default().serialize_request(&key).unwrap();
    let identity: SpiffeId = "spiffe://cluster.local/ns/shop/sa/web".parse().unwrap();
    authority.issue_workload(csr.der(), &identity, Duration::hours(1), OffsetDateTime::now_utc()).unwrap().chain
}

#[test]
fn a_root_that_lies_elsewhere_takes_over() {
    let dir = tempfile::tempdir().unwrap();
    let now = OffsetDateTime::now_utc();
    let open = || Authority::open(dir.path(), "cluster.local", now).unwrap();
    let (authority, house) = (open(), Elsewhere::new());
    let [old_root] = authority.roots_der().try_into().unwrap();
    let old = authority.fingerprint();
    let (department, issuer) = house.below();
    let request = authority.request().unwrap();
    let chain = [sign(&request, &issuer, |_| {}), department, house.pem.clone()].concat();
    assert!(authority.install(&chain, &names(), now).unwrap());
    assert!(!dir.path().join("ca/root.key").exists());
    for authority in [authority, open()] {
        assert_eq!(authority.roots_der(), [house.der.clone(), old_root.clone()]);
        let chain = issue(&authority);
        for root in [&house.der, &old_root] {
            is_believed(&chain, root, UnixTime::now()).unwrap();
        }
        for root in [&old, &authority.fingerprint()] {
            Authority::require(dir.path(), root).unwrap();
        }
    }
    let authority = open();
    assert!(matches!(authority.install(&chain, &names(), now), Err(RotateError::Underway)));
    authority.finish_rotation().unwrap();
    let authority = open();
    assert_eq!(authority.roots_der(), std::slice::from_ref(&house.der));
    is_believed(&issue(&authority), &house.der, UnixTime::now()).unwrap();
    assert!(is_believed(&issue(&authority), &old_root, UnixTime::now()).is_err());
    Authority::require(dir.path(), &old).unwrap_err();
    // Here nobody can sign the next one, and the same root is asked again.
    let refused = authority.renew_intermediate(now).unwrap_err().to_string();
    assert!(refused.contains("weft ca request"), "{refused}");
    assert!(matches!(authority.rotate(now), Err(RotateError::Authority(AuthorityError::RootElsewhere))));
    let before = issue(&authority)[1].clone();
    let request = authority.request().unwrap();
    let chain = [sign(&request, &house.issuer, |_| {}), house.pem.clone()].concat();
    assert!(!authority.install(&chain, &names(), now).unwrap());
    for authority in [authority, open()] {
        let chain = issue(&authority);
        assert!(chain[1] != before && chain.len() == 2);
        is_believed(&chain, &house.der, UnixTime::now()).unwrap();
    }
    // Another root can't take the place of this one.
    let (authority, other) = (open(), Elsewhere::new());
    let request = authority.request().unwrap();
    let chain = [sign(&request, &other.issuer, |_| {}), other.pem].concat();
    let refused = authority.install(&chain, &names(), now).unwrap_err().to_string();
    assert!(refused.contains("Not built: one external root in place of another"), "{refused}");
}

#[test]
fn what_is_not_what_was_asked_for_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let now = OffsetDateTime::now_utc();
    let authority = Authority::open(dir.path(), "cluster.local", now).unwrap();
    let (house, other) = (Elsewhere::new(), Elsewhere::new());
    let before = authority.authorities();
    let refuse = |chain: &str, reason: &str| {
        let refused = authority.install(chain, &names(), now).unwrap_err().to_string();
        assert!(refused.contains(reason), "{refused}, not {reason}");
        assert_eq!(authority.authorities(), before);
    };
    refuse(&house.pem, "nothing was asked for");
    let first = authority.request().unwrap();
    let request = authority.request().unwrap();
    let good = sign(&request, &house.issuer, |_| {});
    let with_root = |certificate: &str| [certificate, house.pem.as_str()].concat();
    refuse("", "needs the intermediate's certificate first");
    refuse(&good, "needs the intermediate's certificate first");
    refuse(&with_root(&good).replace("-----END", "-----AND"), "it is no PEM");
    refuse(&with_root(&sign(&first, &house.issuer, |_| {})), "not of the key that was asked for last");
    refuse(&[good.as_str(), &other.pem].concat(), "is not believed by who trusts its root");
    refuse(&with_root(&good.repeat(5)), "at most 5 are taken");
    let named = |params: &mut CertificateParams| params.distinguished_name.push(DnType::CommonName, "else");
    refuse(&with_root(&sign(&request, &house.issuer, named)), "has the subject");
    let leaf = |params: &mut CertificateParams| params.is_ca = IsCa::ExplicitNoCa;
    refuse(&with_root(&sign(&request, &house.issuer, leaf)), "basicConstraints CA:TRUE");
    let ended = |params: &mut CertificateParams| params.not_after = OffsetDateTime::now_utc() - Duration::minutes(1);
    refuse(&with_root(&sign(&request, &house.issuer, ended)), "is valid from");
    // A chain may be good for callers only, or for other names than this server's.
    let for_callers = |params: &mut CertificateParams| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    };
    refuse(&with_root(&sign(&request, &house.issuer, for_callers)), "a callee's certificate that it issues is not");
    let of_the_house = |params: &mut CertificateParams| {
        let permitted_subtrees = vec![GeneralSubtree::DnsName("corp.example".to_owned())];
        params.name_constraints = Some(NameConstraints { permitted_subtrees, excluded_subtrees: Vec::new() });
    };
    refuse(&with_root(&sign(&request, &house.issuer, of_the_house)), "this server's certificate that it issues is not");
    assert!(authority.install(&with_root(&good), &names(), now).unwrap());
}

#[test]
fn nothing_outlives_the_certificates_above_it() {
    let dir = tempfile::tempdir().unwrap();
    let now = OffsetDateTime::now_utc();
    let (authority, house) = (Authority::open(dir.path(), "cluster.local", now).unwrap(), Elsewhere::new());
    let end = (now + Duration::minutes(30)).replace_nanosecond(0).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut department = params("department");
    department.not_after = end;
    let certificate = department.signed_by(&key, &house.issuer).unwrap();
    let issuer = Issuer::from_ca_cert_der(certificate.der(), key).unwrap();
    let chain = [sign(&authority.request().unwrap(), &issuer, |_| {}), certificate.pem(), house.pem.clone()].concat();
    assert!(authority.install(&chain, &names(), now).unwrap());
    assert_eq!(authority.intermediate_not_after(), end);
    let csr = CertificateParams::default().serialize_request(&KeyPair::generate().unwrap()).unwrap();
    let identity: SpiffeId = "spiffe://cluster.local/ns/shop/sa/web".parse().unwrap();
    let issued = authority.issue_workload(csr.der(), &identity, Duration::hours(1), now).unwrap();
    assert_eq!(issued.not_after, end);
}

#[test]
fn a_take_over_by_a_root_elsewhere_is_gone_on_with() {
    let (dir, after) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let now = OffsetDateTime::now_utc();
    let authority = Authority::open(dir.path(), "cluster.local", now).unwrap();
    let house = Elsewhere::new();
    let request = authority.request().unwrap();
    let folder = |state: &std::path::Path| state.join("ca");
    std::fs::create_dir_all(folder(after.path())).unwrap();
    for file in ["ca.pem", "ca/root.key", "ca/intermediate.pem", "ca/requested.pem"] {
        std::fs::copy(dir.path().join(file), after.path().join(file)).unwrap();
    }
    let chain = [sign(&request, &house.issuer, |_| {}), house.pem.clone()].concat();
    // Cut off before the last step, the end of the old root's key.
    std::fs::create_dir(folder(dir.path()).join("external")).unwrap();
    assert!(authority.install(&chain, &names(), now).unwrap());
    assert!(folder(dir.path()).join("root.key").exists());
    std::fs::remove_dir(folder(dir.path()).join("external")).unwrap();
    let wanted = Authority::open_with(after.path(), Keys::default(), "cluster.local", now).unwrap();
    wanted.install(&chain, &names(), now).unwrap();
    let found = Authority::open(dir.path(), "cluster.local", now).unwrap();
    assert_eq!(found.authorities().root, wanted.authorities().root);
    assert_eq!(found.authorities().previous, wanted.authorities().previous);
    assert!(!folder(dir.path()).join("root.key").exists());
}
