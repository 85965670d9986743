//! The trust domain's authority: a root of ten years that signs intermediates only, an intermediate of one year that signs
//! workloads (by CSR) and this server. Invariant: names in a certificate are set here, never taken from a request; keys
//! are files of mode 0600 and no private key of a workload is ever seen.

mod files;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use time::{Duration, OffsetDateTime};
use weft_policy::identity::SpiffeId;

pub(crate) use self::files::write_private;

const ROOT_LIFE: Duration = Duration::days(3652);
const INTERMEDIATE_LIFE: Duration = Duration::days(365);
const SERVER_LIFE: Duration = Duration::days(30);
/// Certificates are valid from this much before their issue, for clocks that are behind.
const BACKDATE: Duration = Duration::minutes(5);

/// Root and current intermediate. Shared; rotation swaps the intermediate.
pub struct Authority {
    folder: PathBuf,
    trust_domain: String,
    root: Issuer<'static, KeyPair>,
    root_pem: String,
    root_der: CertificateDer<'static>,
    intermediate: ArcSwap<Intermediate>,
}

struct Intermediate {
    issuer: Issuer<'static, KeyPair>,
    der: CertificateDer<'static>,
    not_before: OffsetDateTime,
    not_after: OffsetDateTime,
}

/// A certificate for somebody else's key.
#[derive(Debug, Clone)]
pub struct Issued {
    /// Leaf first, then the intermediate.
    pub chain: Vec<CertificateDer<'static>>,
    pub serial: String,
    pub not_after: OffsetDateTime,
}

/// A certificate of this server, with its key.
pub struct ServerIdentity {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
    pub not_before: OffsetDateTime,
    pub not_after: OffsetDateTime,
}

/// Why the authority can't be opened or kept.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    #[error("{path}")]
    File { path: PathBuf, source: std::io::Error },
    #[error("{path} is there but {missing} is not: restore the file, or start with an empty state folder")]
    Incomplete { path: PathBuf, missing: PathBuf },
    #[error("{path} can't be read: {reason}")]
    Malformed { path: PathBuf, reason: String },
    #[error("certificate could not be made")]
    Sign(#[from] rcgen::Error),
}

/// Why a signing request was refused. Always the requester's fault but for `Sign`.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    #[error("signing request is malformed: {0}")]
    Malformed(String),
    #[error("signing request is not signed by the key that it names")]
    NotPossessed,
    #[error("signing request has a key of kind {0}; ECDSA P-256 or P-384 and Ed25519 are accepted")]
    Algorithm(String),
    #[error("certificate could not be made")]
    Sign(#[source] rcgen::Error),
}

impl Authority {
    /// Opens what `state` holds, or makes a new root and intermediate where it holds nothing.
    pub fn open(state: &Path, trust_domain: &str, now: OffsetDateTime) -> Result<Self, AuthorityError> {
        let folder = state.join("ca");
        files::make_private_folder(&folder)?;
        let (root_pem, root_key) = match files::load(&state.join("ca.pem"), &folder.join("root.key"))? {
            Some(found) => found,
            None => make_root(state, &folder, trust_domain, now)?,
        };
        let malformed =
            |e: &dyn std::fmt::Display| AuthorityError::Malformed { path: state.join("ca.pem"), reason: e.to_string() };
        let root_der = CertificateDer::from_pem_slice(root_pem.as_bytes()).map_err(|e| malformed(&e))?;
        let root = Issuer::from_ca_cert_der(&root_der, root_key).map_err(|e| malformed(&e))?;
        let path = folder.join("intermediate.pem");
        let intermediate = match files::load(&path, &path)? {
            Some((pem, key)) => Intermediate::parse(&path, &pem, key)?,
            None => make_intermediate(&folder, trust_domain, &root, now)?,
        };
        let authority = Self {
            folder,
            trust_domain: trust_domain.to_owned(),
            root,
            root_pem,
            root_der,
            intermediate: ArcSwap::from_pointee(intermediate),
        };
        authority.maintain(now)?;
        Ok(authority)
    }

    /// Makes a new intermediate when two thirds of the current one's life are over. True when it did.
    pub fn maintain(&self, now: OffsetDateTime) -> Result<bool, AuthorityError> {
        let current = self.intermediate.load();
        if !two_thirds_over(current.not_before, current.not_after, now) {
            return Ok(false);
        }
        let next = make_intermediate(&self.folder, &self.trust_domain, &self.root, now)?;
        self.intermediate.store(Arc::new(next));
        Ok(true)
    }

    /// Roots of the trust domain, PEM.
    pub fn trust_bundle_pem(&self) -> &str {
        &self.root_pem
    }

    pub fn root_der(&self) -> &CertificateDer<'static> {
        &self.root_der
    }

    pub fn intermediate_not_after(&self) -> OffsetDateTime {
        self.intermediate.load().not_after
    }

    /// A certificate for the key of the signing request, whose only name is `identity`. Everything else that the
    /// request asks for is ignored.
    pub fn issue_workload(
        &self,
        csr_der: &[u8],
        identity: &SpiffeId,
        ttl: Duration,
        now: OffsetDateTime,
    ) -> Result<Issued, IssueError> {
        let public_key = verified_key(csr_der)?;
        let name = identity.as_str().try_into().map_err(IssueError::Sign)?;
        let mut params = leaf_params(now, now + ttl, vec![SanType::URI(name)]);
        // The SPIFFE X.509-SVID profile: client and server authentication, the subject carries no meaning.
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        params.distinguished_name.push(DnType::OrganizationName, "weft");
        let intermediate = self.intermediate.load();
        params.not_after = params.not_after.min(intermediate.not_after);
        let serial = serial_text(&params);
        let leaf = params.signed_by(&public_key, &intermediate.issuer).map_err(IssueError::Sign)?;
        let chain = vec![leaf.der().clone(), intermediate.der.clone()];
        Ok(Issued { chain, serial, not_after: params.not_after })
    }

    /// A new key and certificate for this server, for the given DNS names and addresses.
    pub fn issue_server(
        &self,
        dns_names: &[String],
        addresses: &[IpAddr],
        now: OffsetDateTime,
    ) -> Result<ServerIdentity, rcgen::Error> {
        let mut names = Vec::new();
        for name in dns_names {
            names.push(SanType::DnsName(name.as_str().try_into()?));
        }
        names.extend(addresses.iter().copied().map(SanType::IpAddress));
        let mut params = leaf_params(now, now + SERVER_LIFE, names);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.distinguished_name.push(DnType::CommonName, "weft-control");
        let intermediate = self.intermediate.load();
        params.not_after = params.not_after.min(intermediate.not_after);
        let key = KeyPair::generate()?;
        let leaf = params.signed_by(&key, &intermediate.issuer)?;
        Ok(ServerIdentity {
            chain: vec![leaf.der().clone(), intermediate.der.clone()],
            key: PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
            not_before: params.not_before,
            not_after: params.not_after,
        })
    }
}

impl ServerIdentity {
    /// Whether it is time for the next one.
    pub fn is_due(&self, now: OffsetDateTime) -> bool {
        two_thirds_over(self.not_before, self.not_after, now)
    }
}

impl Intermediate {
    fn parse(path: &Path, pem: &str, key: KeyPair) -> Result<Self, AuthorityError> {
        let malformed = |reason: String| AuthorityError::Malformed { path: path.to_owned(), reason };
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|e| malformed(e.to_string()))?;
        let (not_before, not_after) = {
            let (_, parsed) = x509_parser::parse_x509_certificate(&der).map_err(|e| malformed(e.to_string()))?;
            (parsed.validity().not_before.to_datetime(), parsed.validity().not_after.to_datetime())
        };
        let issuer = Issuer::from_ca_cert_der(&der, key).map_err(|e| malformed(e.to_string()))?;
        Ok(Self { issuer, der, not_before, not_after })
    }
}

fn two_thirds_over(not_before: OffsetDateTime, not_after: OffsetDateTime, now: OffsetDateTime) -> bool {
    now >= not_before + (not_after - not_before) * 2 / 3
}

fn make_root(
    state: &Path,
    folder: &Path,
    trust_domain: &str,
    now: OffsetDateTime,
) -> Result<(String, KeyPair), AuthorityError> {
    let key = KeyPair::generate()?;
    let params = authority_params(&format!("weft root of {trust_domain}"), 1, now, now + ROOT_LIFE);
    let pem = params.self_signed(&key)?.pem();
    files::write_private(&folder.join("root.key"), key.serialize_pem().as_bytes())?;
    files::write_public(&state.join("ca.pem"), pem.as_bytes())?;
    Ok((pem, key))
}

fn make_intermediate(
    folder: &Path,
    trust_domain: &str,
    root: &Issuer<'_, KeyPair>,
    now: OffsetDateTime,
) -> Result<Intermediate, AuthorityError> {
    let key = KeyPair::generate()?;
    let params = authority_params(&format!("weft intermediate of {trust_domain}"), 0, now, now + INTERMEDIATE_LIFE);
    let certificate: Certificate = params.signed_by(&key, root)?;
    let path = folder.join("intermediate.pem");
    // One file holds certificate and key, so that no crash leaves two that do not match.
    files::write_private(&path, (certificate.pem() + &key.serialize_pem()).as_bytes())?;
    Intermediate::parse(&path, &certificate.pem(), key)
}

fn authority_params(name: &str, path_length: u8, now: OffsetDateTime, until: OffsetDateTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = now - BACKDATE;
    params.not_after = until;
    params.serial_number = Some(new_serial());
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "weft");
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(path_length));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    params
}

fn leaf_params(now: OffsetDateTime, until: OffsetDateTime, names: Vec<SanType>) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = now - BACKDATE;
    params.not_after = until;
    params.serial_number = Some(new_serial());
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.subject_alt_names = names;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    params
}

//= rfc5280#section-4.1.2.2
/// A positive, unpredictable number of 16 bytes.
fn new_serial() -> SerialNumber {
    let mut bytes: [u8; 16] = rand::random();
    bytes[0] = bytes[0] & 0x7f | 0x40;
    SerialNumber::from_slice(&bytes)
}

fn serial_text(params: &CertificateParams) -> String {
    params.serial_number.as_ref().map(ToString::to_string).unwrap_or_default()
}

/// The public key of a signing request, once its own signature proves that the requester holds the private one.
fn verified_key(csr_der: &[u8]) -> Result<impl PublicKeyData, IssueError> {
    let parsed = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(csr_der));
    let request = parsed.map_err(|error| {
        let is_forged = error == rcgen::Error::InvalidCertificationRequestSignature;
        if is_forged { IssueError::NotPossessed } else { IssueError::Malformed(error.to_string()) }
    })?;
    let accepted = [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519];
    let algorithm = PublicKeyData::algorithm(&request.public_key);
    if !accepted.contains(&algorithm) {
        return Err(IssueError::Algorithm(format!("{algorithm:?}")));
    }
    Ok(request.public_key)
}
