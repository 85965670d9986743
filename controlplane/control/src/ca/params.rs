//! What stands in certificates of each kind, but for keys and signers.

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose, SanType, SerialNumber};
use time::{Duration, OffsetDateTime};

const ROOT_LIFE: Duration = Duration::days(3652);
const INTERMEDIATE_LIFE: Duration = Duration::days(365);
/// Certificates are valid from this much before their issue, for clocks that are behind.
const BACKDATE: Duration = Duration::minutes(5);

pub(super) fn root_params(trust_domain: &str, now: OffsetDateTime) -> CertificateParams {
    authority_params(&format!("weft root of {trust_domain}"), 1, now, now + ROOT_LIFE)
}

pub(super) fn intermediate_params(trust_domain: &str, now: OffsetDateTime) -> CertificateParams {
    authority_params(&intermediate_name(trust_domain), 0, now, now + INTERMEDIATE_LIFE)
}

pub(super) fn intermediate_name(trust_domain: &str) -> String {
    format!("weft intermediate of {trust_domain}")
}

/// The subject of what `params` say, as it is in certificates.
pub(super) fn own_subject(params: &CertificateParams, key: &KeyPair) -> Option<Vec<u8>> {
    let made = params.self_signed(key).ok()?;
    let (_, parsed) = x509_parser::parse_x509_certificate(made.der()).ok()?;
    Some(parsed.subject().as_raw().to_vec())
}

pub(super) fn authority_params(
    name: &str,
    path_length: u8,
    now: OffsetDateTime,
    until: OffsetDateTime,
) -> CertificateParams {
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

pub(super) fn leaf_params(now: OffsetDateTime, until: OffsetDateTime, names: Vec<SanType>) -> CertificateParams {
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

pub(super) fn serial_text(params: &CertificateParams) -> String {
    params.serial_number.as_ref().map(ToString::to_string).unwrap_or_default()
}
