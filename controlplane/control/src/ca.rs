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
use sha2::{Digest as _, Sha256};
use time::{Duration, OffsetDateTime};
use weft_policy::identity::SpiffeId;
use x509_parser::extensions::ParsedExtension;

pub(crate) use self::files::{make_private_folder, write_private, write_public};

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
    fingerprint: String,
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
    #[error("{path} is there but {missing} is not: restore it from a backup of the whole state folder")]
    Incomplete { path: PathBuf, missing: PathBuf },
    #[error("{path} can't be read ({reason}): restore it from a backup of the whole state folder")]
    Malformed { path: PathBuf, reason: String },
    #[error("{certificate} and {key} don't belong together: restore both from one backup of the state folder")]
    Mismatch { certificate: PathBuf, key: PathBuf },
    #[error(
        "the store belongs to an authority that is not in {0}: ca.pem and the folder ca are missing or another mesh's. \
         A whole backup is the state folder, not the store alone: restore ca.pem and ca with it"
    )]
    Foreign(PathBuf),
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
    /// Opens what `state` holds, or makes a new root and intermediate where it holds nothing. What can be made again of
    /// what is there is made again; a key is never replaced.
    pub fn open(state: &Path, trust_domain: &str, now: OffsetDateTime) -> Result<Self, AuthorityError> {
        let folder = state.join("ca");
        files::make_private_folder(&folder)?;
        let (root_pem, root_key) = open_root(state, &folder, trust_domain, now)?;
        let malformed =
            |e: &dyn std::fmt::Display| AuthorityError::Malformed { path: state.join("ca.pem"), reason: e.to_string() };
        let root_der = CertificateDer::from_pem_slice(root_pem.as_bytes()).map_err(|e| malformed(&e))?;
        let fingerprint = fingerprint(&root_key);
        let root = Issuer::from_ca_cert_der(&root_der, root_key).map_err(|e| malformed(&e))?;
        let intermediate = match open_intermediate(&folder, &root_der)? {
            Some(intermediate) => intermediate,
            None => make_intermediate(&folder, trust_domain, &root, now)?,
        };
        let authority = Self {
            folder,
            trust_domain: trust_domain.to_owned(),
            root,
            root_pem,
            root_der,
            fingerprint,
            intermediate: ArcSwap::from_pointee(intermediate),
        };
        if let Err(error) = authority.maintain(now) {
            // It is due long before it ends: a disk without room puts it off, and no start waits for it.
            let end = authority.intermediate_not_after();
            if now >= end {
                return Err(error);
            }
            tracing::error!(error = %crate::chain(&error), %end, "a new intermediate could not be made yet; it is tried again");
        }
        Ok(authority)
    }

    /// Checks that `state` holds the authority with this fingerprint; makes nothing.
    ///
    /// # Errors
    /// It holds none or another one.
    pub fn require(state: &Path, wanted: &str) -> Result<(), AuthorityError> {
        let path = state.join("ca").join("root.key");
        let Some(pem) = files::read(&path)? else {
            let certificate = state.join("ca.pem");
            return Err(match certificate.exists() {
                true => AuthorityError::Incomplete { path: certificate, missing: path },
                false => AuthorityError::Foreign(state.to_owned()),
            });
        };
        let is_it = fingerprint(&files::key_of(&path, &pem)?) == wanted;
        if is_it { Ok(()) } else { Err(AuthorityError::Foreign(state.to_owned())) }
    }

    /// Names the root by its key: a certificate that is made again of the same key is the same anchor.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Makes a new intermediate when two thirds of the current one's life are over, or before its life has begun: then it
    /// was made while the clock was ahead. True when it did.
    pub fn maintain(&self, now: OffsetDateTime) -> Result<bool, AuthorityError> {
        let current = self.intermediate.load();
        if !is_due(current.not_before, current.not_after, now) {
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
    /// True when it is time to issue the next certificate.
    pub fn is_due(&self, now: OffsetDateTime) -> bool {
        is_due(self.not_before, self.not_after, now)
    }
}

impl Intermediate {
    fn parse(path: &Path, pem: &str, key: KeyPair) -> Result<Self, AuthorityError> {
        let malformed = |reason: String| AuthorityError::Malformed { path: path.to_owned(), reason };
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|e| malformed(e.to_string()))?;
        let (not_before, not_after) = {
            let (_, parsed) = x509_parser::parse_x509_certificate(&der).map_err(|e| malformed(e.to_string()))?;
            if parsed.public_key().raw != key.subject_public_key_info() {
                return Err(malformed("its key is another certificate's".to_owned()));
            }
            (parsed.validity().not_before.to_datetime(), parsed.validity().not_after.to_datetime())
        };
        let issuer = Issuer::from_ca_cert_der(&der, key).map_err(|e| malformed(e.to_string()))?;
        Ok(Self { issuer, der, not_before, not_after })
    }

    /// The same, where `root` is what signed it.
    fn signed_by(self, path: &Path, root: &CertificateDer<'_>) -> Result<Self, AuthorityError> {
        if signer(&self.der) == own_key(root) {
            return Ok(self);
        }
        Err(AuthorityError::Malformed { path: path.to_owned(), reason: "another root signed it".to_owned() })
    }
}

/// The identifier of the key that signed a certificate, as the certificate says.
fn signer(der: &CertificateDer<'_>) -> Option<Vec<u8>> {
    let (_, parsed) = x509_parser::parse_x509_certificate(der).ok()?;
    parsed.iter_extensions().find_map(|extension| {
        let ParsedExtension::AuthorityKeyIdentifier(id) = extension.parsed_extension() else { return None };
        id.key_identifier.as_ref().map(|id| id.0.to_vec())
    })
}

/// The identifier of a certificate's own key, as the certificate says.
fn own_key(der: &CertificateDer<'_>) -> Option<Vec<u8>> {
    let (_, parsed) = x509_parser::parse_x509_certificate(der).ok()?;
    parsed.iter_extensions().find_map(|extension| {
        let ParsedExtension::SubjectKeyIdentifier(id) = extension.parsed_extension() else { return None };
        Some(id.0.to_vec())
    })
}

/// Two thirds of the life are over, or the clock says that it has not begun.
fn is_due(not_before: OffsetDateTime, not_after: OffsetDateTime, now: OffsetDateTime) -> bool {
    now < not_before || now >= not_before + (not_after - not_before) * 2 / 3
}

fn fingerprint(key: &KeyPair) -> String {
    crate::token::hex(&Sha256::digest(key.subject_public_key_info()))
}

fn open_root(
    state: &Path,
    folder: &Path,
    trust_domain: &str,
    now: OffsetDateTime,
) -> Result<(String, KeyPair), AuthorityError> {
    let (certificate, key) = (state.join("ca.pem"), folder.join("root.key"));
    let (pem, key_pem) = (files::read(&certificate)?, files::read(&key)?);
    let Some(key_pem) = key_pem else {
        let intermediate = folder.join("intermediate.pem");
        let left = [certificate, intermediate].into_iter().find(|path| path.exists());
        if let Some(path) = left {
            return Err(AuthorityError::Incomplete { path, missing: key });
        }
        let new = KeyPair::generate()?;
        files::write_private(&key, new.serialize_pem().as_bytes())?;
        return Ok((make_root(state, trust_domain, &new, now)?, new));
    };
    let root_key = files::key_of(&key, &key_pem)?;
    let Some(pem) = pem else {
        tracing::warn!(path = %certificate.display(), "the root's certificate is missing; it is made again of its key");
        return Ok((make_root(state, trust_domain, &root_key, now)?, root_key));
    };
    let Ok(der) = CertificateDer::from_pem_slice(pem.as_bytes()) else {
        let aside = files::set_aside(&certificate)?;
        tracing::warn!(aside = %aside.display(), "the root's certificate can't be read; it is made again of its key");
        return Ok((make_root(state, trust_domain, &root_key, now)?, root_key));
    };
    let reason = |e: &dyn std::fmt::Display| e.to_string();
    let (_, parsed) = x509_parser::parse_x509_certificate(&der)
        .map_err(|e| AuthorityError::Malformed { path: certificate.clone(), reason: reason(&e) })?;
    if parsed.public_key().raw != root_key.subject_public_key_info() {
        return Err(AuthorityError::Mismatch { certificate, key });
    }
    Ok((pem, root_key))
}

/// The intermediate that `folder` holds. One that can't be used is moved away: the root makes another.
fn open_intermediate(folder: &Path, root: &CertificateDer<'_>) -> Result<Option<Intermediate>, AuthorityError> {
    let path = folder.join("intermediate.pem");
    let Some(pem) = files::read(&path)? else { return Ok(None) };
    let found = files::key_of(&path, &pem).and_then(|key| Intermediate::parse(&path, &pem, key));
    match found.and_then(|found| found.signed_by(&path, root)) {
        Ok(intermediate) => Ok(Some(intermediate)),
        Err(error) => {
            let aside = files::set_aside(&path)?;
            tracing::warn!(%error, aside = %aside.display(), "the intermediate can't be used; another one is made");
            Ok(None)
        }
    }
}

/// The root's certificate, made of its key.
fn make_root(state: &Path, trust_domain: &str, key: &KeyPair, now: OffsetDateTime) -> Result<String, AuthorityError> {
    let params = authority_params(&format!("weft root of {trust_domain}"), 1, now, now + ROOT_LIFE);
    let pem = params.self_signed(key)?.pem();
    files::write_public(&state.join("ca.pem"), pem.as_bytes())?;
    Ok(pem)
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
