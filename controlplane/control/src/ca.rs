//! The trust domain's authority: a root of ten years that signs intermediates only, an intermediate of one year that signs
//! workloads (by CSR) and this server, and while a root is replaced the one before beside it. Invariant: names in a
//! certificate are set here, never taken from a request; no private key of a workload is ever seen.

mod external;
mod files;
mod found;
mod keys;
mod line;
mod params;
mod rotation;
mod several;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use rcgen::{
    Certificate, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair, PublicKeyData,
    SanType,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use sha2::{Digest as _, Sha256};
use time::{Duration, OffsetDateTime};
use weft_policy::identity::SpiffeId;
use x509_parser::extensions::ParsedExtension;

pub(crate) use self::files::{make_private_folder, write_private, write_public};
use self::found::{Found, Vouched};
pub(crate) use self::found::{faults, is_there};
pub use self::keys::Keys;
pub(crate) use self::line::{Dropped, Line};
use self::params::{
    authority_params, intermediate_name, intermediate_params, leaf_params, own_subject, root_params, serial_text,
};
pub use self::rotation::{Authorities, RotateError};
pub(crate) use self::several::{Offer, SignError, Taken};

const SERVER_LIFE: Duration = Duration::days(30);
const REPLICA_LIFE: Duration = Duration::days(1);

/// Root and current intermediate. Shared; rotation swaps both.
pub struct Authority {
    state: PathBuf,
    keys: Keys,
    trust_domain: String,
    signers: ArcSwap<Signers>,
    /// Held by who replaces them.
    turn: Mutex<()>,
    /// The folder does not hold yet what is followed of another control plane's root.
    is_unwritten: AtomicBool,
}

/// What signs at one moment.
#[derive(Clone)]
struct Signers {
    root: Arc<Root>,
    /// The root before, trusted until nothing is in use that only it vouches for. Its key is no more.
    previous: Option<Arc<Anchor>>,
    intermediate: Arc<Intermediate>,
}

struct Root {
    /// None where its key lies elsewhere.
    issuer: Option<Issuer<'static, KeyPair>>,
    /// Its key lies with another control plane of the store.
    is_followed: bool,
    anchor: Anchor,
}

/// The certificate of a root.
#[derive(Clone)]
struct Anchor {
    pem: String,
    der: CertificateDer<'static>,
    /// Names the root by its key: a certificate that is made again of the same key is the same anchor.
    fingerprint: String,
    not_after: OffsetDateTime,
    /// Of a root before: what it signed of the key of the one that took its place, for who trusts no other yet.
    successor: Option<CertificateDer<'static>>,
}

struct Intermediate {
    issuer: Issuer<'static, KeyPair>,
    der: CertificateDer<'static>,
    /// The certificates between this one and a root that lies elsewhere.
    upper: Vec<CertificateDer<'static>>,
    /// The same name and key, signed by the root before, for who trusts no other yet.
    cross: Option<CertificateDer<'static>>,
    /// The fingerprint of the root that vouches for it; empty where that is none that is trusted.
    root: String,
    not_before: OffsetDateTime,
    not_after: OffsetDateTime,
}

/// A certificate for somebody else's key.
#[derive(Debug, Clone)]
pub struct Issued {
    /// Leaf first, then the intermediate, and while a root is replaced the same as the one before signed it.
    pub chain: Vec<CertificateDer<'static>>,
    pub serial: String,
    /// The fingerprint of the root that vouches for it.
    pub root: String,
    pub not_after: OffsetDateTime,
}

/// Files of the state folder by their path there, as they are.
pub type Files = Vec<(PathBuf, Vec<u8>)>;

/// The names by which this server is reached.
#[derive(Debug, Clone, Default)]
pub struct ServerNames {
    pub dns: Vec<String>,
    pub addresses: Vec<IpAddr>,
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
    #[error("the root's key is not here: weft ca request, have that signed where it is, weft ca install")]
    RootElsewhere,
    #[error(
        "the root's key lies with another control plane of the store, and without an intermediate of its own this one can't ask it \
         for one: copy ca.pem and the folder ca, but for ca/intermediate.pem, from the one that has the key (weft ca show)"
    )]
    WithAnother,
    #[error("ca_secret_file {path}: {reason}")]
    Secret { path: PathBuf, reason: String },
    #[error("{0} is encrypted: name the file with its secret as ca_secret_file in the configuration")]
    Sealed(PathBuf),
    #[error("{0} is encrypted with another secret than that of ca_secret_file, or damaged")]
    OtherSecret(PathBuf),
    #[error("a key could not be encrypted: {0}")]
    Encrypt(String),
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
    #[error(
        "this control plane has no intermediate of the root that took the place of its own: the one with that root's key \
         has not signed it yet (weft ca show)"
    )]
    NotVouched,
    #[error("certificate could not be made")]
    Sign(#[source] rcgen::Error),
}

impl Authority {
    /// Opens what `state` holds, or makes a new root and intermediate where it holds nothing. What can be made again of
    /// what is there is made again; a key is never replaced.
    pub fn open_with(
        state: &Path,
        keys: Keys,
        trust_domain: &str,
        now: OffsetDateTime,
    ) -> Result<Self, AuthorityError> {
        let folder = state.join("ca");
        files::make_private_folder(&folder)?;
        for file in ["root.key", "intermediate.pem", external::REQUESTED, rotation::NEXT] {
            keys.seal(folder.join(file))?;
        }
        let signers = match rotation::go_on(state, &keys)? {
            Some(signers) => signers,
            None => {
                let root = open_root(state, &keys, trust_domain, now)?;
                let previous = rotation::previous(&folder)?;
                let intermediate = match open_intermediate(&folder, &keys, &root, previous.as_ref())? {
                    Some(intermediate) => intermediate,
                    None => make_intermediate(&folder, &keys, trust_domain, &root, now)?,
                };
                Signers { root: Arc::new(root), previous: previous.map(Arc::new), intermediate: Arc::new(intermediate) }
            }
        };
        let authority = Self {
            state: state.to_owned(),
            keys,
            trust_domain: trust_domain.to_owned(),
            signers: ArcSwap::from_pointee(signers),
            turn: Mutex::default(),
            is_unwritten: AtomicBool::new(false),
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

    /// The same with keys in plain text.
    #[cfg(test)]
    pub fn open(state: &Path, trust_domain: &str, now: OffsetDateTime) -> Result<Self, AuthorityError> {
        Self::open_with(state, Keys::default(), trust_domain, now)
    }

    #[cfg(test)]
    pub fn require(state: &Path, wanted: &str) -> Result<(), AuthorityError> {
        Self::require_with(state, &Keys::default(), wanted)
    }

    /// Checks that `state` holds the authority with this fingerprint, or one that took its place; makes nothing.
    ///
    /// # Errors
    /// It holds none or another one.
    pub fn require_with(state: &Path, keys: &Keys, wanted: &str) -> Result<(), AuthorityError> {
        let path = state.join("ca").join("root.key");
        let Some(pem) = files::read(&path)? else {
            let certificate = state.join("ca.pem");
            if let Some(root) = rotation::elsewhere(state)? {
                let is_it = root.fingerprint == wanted || rotation::took_the_place_of(state, wanted)?;
                return if is_it { Ok(()) } else { Err(AuthorityError::Foreign(state.to_owned())) };
            }
            return Err(match certificate.exists() {
                true => AuthorityError::Incomplete { path: certificate, missing: path },
                false => AuthorityError::Foreign(state.to_owned()),
            });
        };
        let is_it = fingerprint(&keys.first_of(&path, &pem)?.subject_public_key_info()) == wanted;
        if is_it || rotation::took_the_place_of(state, wanted)? {
            return Ok(());
        }
        Err(AuthorityError::Foreign(state.to_owned()))
    }

    /// Names the root that signs.
    pub fn fingerprint(&self) -> String {
        self.signers.load().root.anchor.fingerprint.clone()
    }

    /// The fingerprint of the root that signs, and `ca.pem` with these files of the folder `ca`, as of one moment.
    pub fn files(&self, names: &[&str]) -> std::io::Result<(String, Files)> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let paths = [PathBuf::from("ca.pem")].into_iter().chain(names.iter().map(|name| Path::new("ca").join(name)));
        let read = |path: PathBuf| match std::fs::read(self.state.join(&path)) {
            Ok(content) => Some(Ok((path, content))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => Some(Err(error)),
        };
        let files: std::io::Result<_> = paths.filter_map(read).collect();
        Ok((self.fingerprint(), files?))
    }

    /// Makes a new intermediate when two thirds of the current one's life are over, or before its life has begun: then it
    /// was made while the clock was ahead. True when it did.
    pub fn maintain(&self, now: OffsetDateTime) -> Result<bool, AuthorityError> {
        self.write_next()?;
        let signers = self.signers.load();
        // What another control plane has to sign is asked for by who can wait for it.
        if signers.root.is_followed || !signers.is_due(now) {
            return Ok(false);
        }
        self.renew_intermediate(now)?;
        Ok(true)
    }

    /// Roots of the trust domain, PEM; the one that signs comes first.
    pub fn trust_bundle_pem(&self) -> String {
        self.signers.load().anchors().map(|anchor| anchor.pem.as_str()).collect()
    }

    /// The same, each as DER.
    pub fn roots_der(&self) -> Vec<CertificateDer<'static>> {
        self.signers.load().anchors().map(|anchor| anchor.der.clone()).collect()
    }

    pub fn intermediate_not_after(&self) -> OffsetDateTime {
        self.signers.load().intermediate.not_after
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
        self.signers.load().issue(csr_der, identity, ttl, now)
    }

    /// A new key and certificate for this server, for the given DNS names and addresses.
    pub fn issue_server(&self, names: &ServerNames, now: OffsetDateTime) -> Result<ServerIdentity, rcgen::Error> {
        self.signers.load().issue_server(names, now)
    }

    /// The name in certificates of control planes, by which one shows another of its store what it is. No workload can have
    /// it: a workload's name is `ns/.../sa/...`.
    pub fn replica_name(&self) -> String {
        replica_name(&self.trust_domain)
    }

    /// A new key and certificate by which this control plane shows others of its store what it is.
    pub fn issue_replica(&self, now: OffsetDateTime) -> Result<ServerIdentity, rcgen::Error> {
        let name = SanType::URI(self.replica_name().as_str().try_into()?);
        self.signers.load().issue_own(vec![name], ExtendedKeyUsagePurpose::ClientAuth, REPLICA_LIFE, now)
    }
}

fn replica_name(trust_domain: &str) -> String {
    format!("spiffe://{trust_domain}/control-plane/replica")
}

impl ServerIdentity {
    /// Its chain and its key as PEM.
    pub fn pem(&self) -> (String, String) {
        let chain = self.chain.iter().map(|der| files::pem("CERTIFICATE", der)).collect();
        (chain, files::pem("PRIVATE KEY", self.key.secret_der()))
    }

    /// True when it is time to issue the next certificate.
    pub fn is_due(&self, now: OffsetDateTime) -> bool {
        is_due(self.not_before, self.not_after, now)
    }
}

impl Intermediate {
    fn parse(path: &Path, pem: &str, key: KeyPair) -> Result<Self, AuthorityError> {
        let malformed = |reason: String| AuthorityError::Malformed { path: path.to_owned(), reason };
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
        let mut certificates = certificates.map_err(|e| malformed(e.to_string()))?.into_iter();
        let der = certificates.next().ok_or_else(|| malformed("it holds no certificate".to_owned()))?;
        let is_cross = |other: &CertificateDer<'_>| {
            x509_parser::parse_x509_certificate(other)
                .is_ok_and(|(_, other)| other.public_key().raw == key.subject_public_key_info())
        };
        let (cross, upper): (Vec<_>, Vec<_>) = certificates.partition(is_cross);
        let cross = cross.into_iter().next();
        let (not_before, not_after) = {
            let (_, parsed) = x509_parser::parse_x509_certificate(&der).map_err(|e| malformed(e.to_string()))?;
            if parsed.public_key().raw != key.subject_public_key_info() {
                return Err(malformed("its key is another certificate's".to_owned()));
            }
            (parsed.validity().not_before.to_datetime(), parsed.validity().not_after.to_datetime())
        };
        // A certificate must not outlive any of the chain above it.
        let mut not_after = not_after;
        for above in &upper {
            let (_, parsed) = x509_parser::parse_x509_certificate(above).map_err(|e| malformed(e.to_string()))?;
            not_after = not_after.min(parsed.validity().not_after.to_datetime());
        }
        let issuer = Issuer::from_ca_cert_der(&der, key).map_err(|e| malformed(e.to_string()))?;
        Ok(Self { issuer, der, upper, cross, root: String::new(), not_before, not_after })
    }

    /// The same, where `root` is what signed it. What the root before signed counts while that is trusted.
    fn signed_by(mut self, path: &Path, root: &Root, previous: Option<&Anchor>) -> Result<Self, AuthorityError> {
        // An intermediate that a root elsewhere signed was checked when it was installed.
        if root.issuer.is_some() && signer(&self.der) != own_key(&root.anchor.der) {
            return Err(AuthorityError::Malformed {
                path: path.to_owned(),
                reason: "another root signed it".to_owned(),
            });
        }
        let of_previous = previous.filter(|previous| signer(&self.der) == own_key(&previous.der));
        self.root = match of_previous {
            Some(previous) => previous.fingerprint.clone(),
            None if root.is_followed && signer(&self.der) != own_key(&root.anchor.der) => String::new(),
            None => root.anchor.fingerprint.clone(),
        };
        let previous = previous.and_then(|previous| own_key(&previous.der));
        self.cross = self.cross.filter(|cross| previous.is_some() && signer(cross) == previous);
        Ok(self)
    }
}

impl Signers {
    /// True where a root that is trusted vouches for what is issued.
    fn is_vouched(&self) -> bool {
        self.anchors().any(|anchor| anchor.fingerprint == self.intermediate.root)
    }

    fn is_due(&self, now: OffsetDateTime) -> bool {
        is_due(self.intermediate.not_before, self.intermediate.not_after, now)
    }

    fn anchors(&self) -> impl Iterator<Item = &Anchor> {
        std::iter::once(&self.root.anchor).chain(self.previous.as_deref())
    }

    /// See `Authority::issue_workload`.
    fn issue(
        &self,
        csr_der: &[u8],
        identity: &SpiffeId,
        ttl: Duration,
        now: OffsetDateTime,
    ) -> Result<Issued, IssueError> {
        if !self.is_vouched() {
            return Err(IssueError::NotVouched);
        }
        let public_key = verified_key(csr_der)?;
        let name = identity.as_str().try_into().map_err(IssueError::Sign)?;
        let mut params = leaf_params(now, now + ttl, vec![SanType::URI(name)]);
        // The SPIFFE X.509-SVID profile: client and server authentication, the subject carries no meaning.
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        params.distinguished_name.push(DnType::OrganizationName, "weft");
        params.not_after = params.not_after.min(self.intermediate.not_after);
        let serial = serial_text(&params);
        let leaf = params.signed_by(&public_key, &self.intermediate.issuer).map_err(IssueError::Sign)?;
        let root = self.intermediate.root.clone();
        Ok(Issued { chain: self.chain(&leaf), serial, root, not_after: params.not_after })
    }

    /// See `Authority::issue_server`.
    fn issue_server(&self, names: &ServerNames, now: OffsetDateTime) -> Result<ServerIdentity, rcgen::Error> {
        let mut all = Vec::new();
        for name in &names.dns {
            all.push(SanType::DnsName(name.as_str().try_into()?));
        }
        all.extend(names.addresses.iter().copied().map(SanType::IpAddress));
        self.issue_own(all, ExtendedKeyUsagePurpose::ServerAuth, SERVER_LIFE, now)
    }

    /// A certificate of this process, with its key.
    fn issue_own(
        &self,
        names: Vec<SanType>,
        usage: ExtendedKeyUsagePurpose,
        life: Duration,
        now: OffsetDateTime,
    ) -> Result<ServerIdentity, rcgen::Error> {
        let mut params = leaf_params(now, now + life, names);
        params.extended_key_usages = vec![usage];
        params.distinguished_name.push(DnType::CommonName, "weft-control");
        params.not_after = params.not_after.min(self.intermediate.not_after);
        let key = KeyPair::generate()?;
        let leaf = params.signed_by(&key, &self.intermediate.issuer)?;
        Ok(ServerIdentity {
            chain: self.chain(&leaf),
            key: PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
            not_before: params.not_before,
            not_after: params.not_after,
        })
    }

    fn chain(&self, leaf: &Certificate) -> Vec<CertificateDer<'static>> {
        let cross = self.intermediate.cross.as_ref().filter(|_| self.previous.is_some());
        let is_new = self.intermediate.root == self.root.anchor.fingerprint;
        let successor = self.previous.as_ref().and_then(|previous| previous.successor.as_ref()).filter(|_| is_new);
        let above = self.intermediate.upper.iter().chain(cross).chain(successor);
        [leaf.der(), &self.intermediate.der].into_iter().chain(above).cloned().collect()
    }
}

impl Root {
    /// The root of `key`, whose certificate is the first of a PEM text.
    fn new(path: &Path, pem: &str, key: KeyPair) -> Result<Self, AuthorityError> {
        let anchor = Anchor::parse(path, pem)?;
        let malformed = |e: rcgen::Error| AuthorityError::Malformed { path: path.to_owned(), reason: e.to_string() };
        let issuer = Some(Issuer::from_ca_cert_der(&anchor.der, key).map_err(malformed)?);
        Ok(Self { issuer, is_followed: false, anchor })
    }
}

impl Anchor {
    /// The first certificate of a PEM text, and nothing else of it.
    fn parse(path: &Path, pem: &str) -> Result<Self, AuthorityError> {
        let malformed = |reason: String| AuthorityError::Malformed { path: path.to_owned(), reason };
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|e| malformed(e.to_string()))?;
        let (fingerprint, not_after) = {
            let (_, parsed) = x509_parser::parse_x509_certificate(&der).map_err(|e| malformed(e.to_string()))?;
            (fingerprint(parsed.public_key().raw), parsed.validity().not_after.to_datetime())
        };
        Ok(Self { pem: files::pem("CERTIFICATE", &der), der, fingerprint, not_after, successor: None })
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

fn fingerprint(public_key: &[u8]) -> String {
    crate::token::hex(&Sha256::digest(public_key))
}

fn open_root(state: &Path, keys: &Keys, trust_domain: &str, now: OffsetDateTime) -> Result<Root, AuthorityError> {
    let (certificate, key) = (state.join("ca.pem"), state.join("ca").join("root.key"));
    let root = |pem: String, key: KeyPair| Root::new(&certificate, &pem, key);
    match found::root(state, keys)? {
        Found::Nothing => {
            let new = KeyPair::generate()?;
            files::write_private(&key, keys.pem(&new)?.as_bytes())?;
            root(make_root(state, trust_domain, &new, now)?, new)
        }
        Found::Elsewhere(anchor) => Ok(Root { issuer: None, is_followed: rotation::is_followed(state)?, anchor }),
        Found::Key(key, Vouched::By(pem)) => root(pem, key),
        Found::Key(key, Vouched::ByNothing) => {
            tracing::warn!(path = %certificate.display(), "the root's certificate is missing; it is made again of its key");
            root(make_root(state, trust_domain, &key, now)?, key)
        }
        Found::Key(key, Vouched::Unreadable) => {
            let aside = files::set_aside(&certificate)?;
            tracing::warn!(aside = %aside.display(), "the root's certificate can't be read; it is made again of its key");
            root(make_root(state, trust_domain, &key, now)?, key)
        }
    }
}

/// The intermediate that `folder` holds. One that can't be used is moved away: the root makes another.
fn open_intermediate(
    folder: &Path,
    keys: &Keys,
    root: &Root,
    previous: Option<&Anchor>,
) -> Result<Option<Intermediate>, AuthorityError> {
    let path = folder.join("intermediate.pem");
    let Some(pem) = files::read(&path)? else { return Ok(None) };
    let found = keys.first_of(&path, &pem).and_then(|key| Intermediate::parse(&path, &pem, key));
    match found.and_then(|found| found.signed_by(&path, root, previous)) {
        Ok(intermediate) => Ok(Some(intermediate)),
        Err(error @ (AuthorityError::Sealed(_) | AuthorityError::OtherSecret(_))) => Err(error),
        Err(error) if root.is_followed => Err(error),
        Err(error) => {
            let aside = files::set_aside(&path)?;
            tracing::warn!(%error, aside = %aside.display(), "the intermediate can't be used; another one is made");
            Ok(None)
        }
    }
}

/// The root's certificate, made of its key.
fn make_root(state: &Path, trust_domain: &str, key: &KeyPair, now: OffsetDateTime) -> Result<String, AuthorityError> {
    let pem = root_params(trust_domain, now).self_signed(key)?.pem();
    files::write_public(&state.join("ca.pem"), pem.as_bytes())?;
    Ok(pem)
}

fn make_intermediate(
    folder: &Path,
    keys: &Keys,
    trust_domain: &str,
    root: &Root,
    now: OffsetDateTime,
) -> Result<Intermediate, AuthorityError> {
    sign_intermediate(folder, keys, trust_domain, root, KeyPair::generate()?, None, now)
}

/// The intermediate of `key`, and beside it what the root before signed of the same key.
fn sign_intermediate(
    folder: &Path,
    keys: &Keys,
    trust_domain: &str,
    root: &Root,
    key: KeyPair,
    cross: Option<&CertificateDer<'_>>,
    now: OffsetDateTime,
) -> Result<Intermediate, AuthorityError> {
    let elsewhere = if root.is_followed { AuthorityError::WithAnother } else { AuthorityError::RootElsewhere };
    let issuer = root.issuer.as_ref().ok_or(elsewhere)?;
    let certificate = intermediate_params(trust_domain, now).signed_by(&key, issuer)?;
    let chain = certificate.pem() + &cross.map(|cross| files::pem("CERTIFICATE", cross)).unwrap_or_default();
    let path = folder.join("intermediate.pem");
    // One file holds certificate and key, so that no crash leaves two that do not match.
    files::write_private(&path, (chain.clone() + &keys.pem(&key)?).as_bytes())?;
    Ok(Intermediate { root: root.anchor.fingerprint.clone(), ..Intermediate::parse(&path, &chain, key)? })
}

/// Names the key of a signing request.
///
/// # Errors
/// The request is malformed, or not signed by that key.
pub(crate) fn key_of(csr_der: &[u8]) -> Result<String, IssueError> {
    Ok(fingerprint(&verified_key(csr_der)?.subject_public_key_info()))
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
