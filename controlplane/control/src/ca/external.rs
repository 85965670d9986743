//! A root that lies elsewhere: the key of the next intermediate is made here, somebody signs it where the root's key is, and
//! what comes back is taken once a certificate that it issues is believed by who trusts that root.

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::{Arc, PoisonError};

use rcgen::{CertificateParams, KeyPair, PublicKeyData as _};
use rustls::RootCertStore;
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::aws_lc_rs;
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, UnixTime};
use time::OffsetDateTime;
use weft_policy::identity::SpiffeId;

use super::rotation::{NEXT, RotateError};
use super::{
    Anchor, Authority, AuthorityError, Intermediate, Root, ServerNames, Signers, authority_params, files,
    intermediate_params, own_subject,
};

/// The key that waits for its certificate.
pub(super) const REQUESTED: &str = "requested.pem";
/// Certificates in a chain at the most.
const LONGEST: usize = 5;

impl Authority {
    /// A signing request, PEM, for the key of the next intermediate. The one asked for before is worth nothing from then on.
    pub fn request(&self) -> Result<String, AuthorityError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let key = KeyPair::generate()?;
        files::write_private(&self.state.join("ca").join(REQUESTED), self.keys.pem(&key)?.as_bytes())?;
        let mut params = intermediate_params(&self.trust_domain, OffsetDateTime::now_utc());
        // Serial number and authority key identifier are the signer's to choose.
        (params.serial_number, params.use_authority_key_identifier_extension) = (None, false);
        Ok(params.serialize_request(&key)?.pem()?)
    }

    /// True where a chain ends in the root that signs already.
    pub fn has_root_of(&self, chain: &str) -> bool {
        let last = CertificateDer::pem_slice_iter(chain.as_bytes()).last().and_then(Result::ok);
        last.is_some_and(|last| last == self.signers.load().root.anchor.der)
    }

    /// Takes the certificate of the key that was asked for, with those between it and its root, and the root last. A root that
    /// signs already gets another intermediate; another one takes over as by `rotate`. True where it took over.
    pub fn install(&self, chain: &str, names: &ServerNames, now: OffsetDateTime) -> Result<bool, RotateError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.place_next()?;
        let old = self.signers.load();
        if old.previous.is_some() {
            return Err(RotateError::Underway);
        }
        let folder = self.state.join("ca");
        let path = folder.join(REQUESTED);
        let wrong = |reason: String| RotateError::Chain(reason);
        let key = files::read(&path)?.ok_or_else(|| wrong("nothing was asked for: weft ca request".to_owned()))?;
        let key = self.keys.first_of(&path, &key)?;
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain.as_bytes()).collect();
        let certificates = certificates.map_err(|error| wrong(format!("it is no PEM: {error}")))?;
        let [own, upper @ .., root] = certificates.as_slice() else {
            return Err(wrong("it needs the intermediate's certificate first and the root's last".to_owned()));
        };
        if certificates.len() > LONGEST {
            return Err(wrong(format!("it has {} certificates; at most {LONGEST} are taken", certificates.len())));
        }
        is_intermediate(own, &key, &self.trust_domain, now).map_err(wrong)?;
        let text =
            |ders: &[CertificateDer<'_>]| ders.iter().map(|der| files::pem("CERTIFICATE", der)).collect::<String>();
        let anchor = Anchor::parse(&path, &text(std::slice::from_ref(root)))?;
        let lines = text(std::slice::from_ref(own)) + &text(upper);
        let key_pem = self.keys.pem(&key)?;
        let again = |pem: &str| Intermediate::parse(&path, pem, self.keys.first_of(&path, &key_pem)?);
        believed(again(&lines)?, anchor, &self.trust_domain, names, now).map_err(wrong)?;
        if *root == old.root.anchor.der {
            files::write_private(&folder.join("intermediate.pem"), (lines.clone() + &key_pem).as_bytes())?;
            let intermediate = Arc::new(Intermediate { root: old.root.anchor.fingerprint.clone(), ..again(&lines)? });
            self.signers.store(Arc::new(Signers { intermediate, ..Signers::clone(&old) }));
            forget(&path);
            return Ok(false);
        }
        let issuer = old.root.issuer.as_ref().ok_or(RotateError::RootElsewhere)?;
        let mut cross = intermediate_params(&self.trust_domain, now);
        cross.not_after = cross.not_after.min(old.root.anchor.not_after);
        let cross = cross.signed_by(&key, issuer).map_err(AuthorityError::Sign)?;
        let next = [
            text(std::slice::from_ref(root)),
            text(std::slice::from_ref(own)),
            cross.pem(),
            old.root.anchor.pem.clone(),
            text(upper),
            key_pem,
        ];
        let next = next.concat();
        files::write_private(&folder.join(NEXT), next.as_bytes())?;
        self.take_over(&next)?;
        forget(&path);
        Ok(true)
    }
}

/// Removes the request that was answered. One that stays is worth nothing: its key has its certificate.
fn forget(request: &Path) {
    if let Err(error) = files::remove(request) {
        tracing::warn!(error = %crate::chain(&error), "the request that was answered could not be removed");
    }
}

/// Looks whether a certificate is what was asked for.
pub(super) fn is_intermediate(
    own: &CertificateDer<'_>,
    key: &KeyPair,
    trust_domain: &str,
    now: OffsetDateTime,
) -> Result<(), String> {
    let (_, parsed) =
        x509_parser::parse_x509_certificate(own).map_err(|error| format!("its first certificate: {error}"))?;
    let validity = parsed.validity();
    let wanted = own_subject(&authority_params(&super::intermediate_name(trust_domain), 0, now, now), key);
    if parsed.public_key().raw != key.subject_public_key_info() {
        return Err("its first certificate is not of the key that was asked for last (weft ca request)".to_owned());
    }
    if Some(parsed.subject().as_raw()) != wanted.as_deref() {
        return Err(format!(
            "its first certificate has the subject {}, not the one that was asked for",
            parsed.subject()
        ));
    }
    if !parsed.is_ca() {
        return Err("its first certificate may sign no others: basicConstraints CA:TRUE is needed".to_owned());
    }
    if validity.not_before.to_datetime() > now || validity.not_after.to_datetime() <= now {
        return Err(format!("its first certificate is valid from {} to {}", validity.not_before, validity.not_after));
    }
    Ok(())
}

/// Issues certificates as for a workload and for this server, and looks whether they are believed by the root alone, as a
/// caller's and as a callee's: a chain may be for one of them only, or for other names.
pub(super) fn believed(
    intermediate: Intermediate,
    root: Anchor,
    trust_domain: &str,
    names: &ServerNames,
    now: OffsetDateTime,
) -> Result<(), String> {
    let der = root.der.clone();
    let root = Root { issuer: None, is_followed: false, anchor: root };
    let intermediate = Intermediate { root: root.anchor.fingerprint.clone(), ..intermediate };
    let signers = Signers { root: Arc::new(root), previous: None, intermediate: Arc::new(intermediate) };
    let probe: SpiffeId = format!("spiffe://{trust_domain}/ns/weft-system/sa/probe")
        .parse()
        .map_err(|_| "the trust domain".to_owned())?;
    let key = KeyPair::generate().map_err(|error| error.to_string())?;
    let request = CertificateParams::default().serialize_request(&key).map_err(|error| error.to_string())?;
    let issued =
        signers.issue(request.der(), &probe, time::Duration::hours(1), now).map_err(|error| error.to_string())?;
    let server = signers.issue_server(names, now).map_err(|error| error.to_string())?;
    let seconds = u64::try_from(now.unix_timestamp()).unwrap_or_default();
    let at = UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
    let not = |whose: &str, reason: String| {
        format!("{whose} that it issues is not believed by who trusts its root: {reason}")
    };
    is_believed(&issued.chain, &der, at).map_err(|reason| not("a caller's certificate", reason))?;
    is_callee(&issued.chain, &der, at).map_err(|reason| not("a callee's certificate", reason))?;
    is_callee(&server.chain, &der, at).map_err(|reason| not("this server's certificate", reason))
}

fn only(root: &CertificateDer<'static>) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    roots.add(root.clone()).map_err(|error| error.to_string())?;
    Ok(roots)
}

/// Whether a client that shows this chain is believed by who trusts one root alone, or why not.
pub(super) fn is_believed(
    chain: &[CertificateDer<'static>],
    root: &CertificateDer<'static>,
    at: UnixTime,
) -> Result<(), String> {
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(only(root)?), Arc::new(aws_lc_rs::default_provider()))
            .build();
    let verifier = verifier.map_err(|error| error.to_string())?;
    let (leaf, between) = chain.split_first().ok_or("it is empty")?;
    verifier.verify_client_cert(leaf, between, at).map(drop).map_err(|error| error.to_string())
}

/// The same of a server, whichever name it is asked for by: the chain may be for none of those that it has.
fn is_callee(chain: &[CertificateDer<'static>], root: &CertificateDer<'static>, at: UnixTime) -> Result<(), String> {
    let (leaf, between) = chain.split_first().ok_or("it is empty")?;
    let parsed = ParsedCertificate::try_from(leaf).map_err(|error| error.to_string())?;
    let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms.all;
    verify_server_cert_signed_by_trust_anchor(&parsed, &only(root)?, between, at, algorithms)
        .map_err(|error| error.to_string())
}
