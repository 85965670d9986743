//! A filter binary on its way in: digest, signature, shape. Invariant: an `Artifact` exists only verified: its digest is
//! computed here, its signature holds, it is a valid component of the filter world and imports nothing else.

#[cfg(test)]
pub(crate) mod tests;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePublicKey as _, EncodePublicKey as _};
use ed25519_dalek::{Signature, VerifyingKey};
use sha2::{Digest as _, Sha256};
use wasmparser::{ComponentExternalKind, ComponentTypeRef, Encoding, Parser, Payload, Validator, WasmFeatures};

use crate::token::hex;

/// The package whose interfaces a filter may import, with the version that this release speaks.
const PACKAGE: &str = "weft:filter/";
const ABI: &str = "0.1";
/// Interfaces that are no capability: every filter has them.
const ALWAYS_GRANTED: [&str; 3] = ["types", "log", "metrics"];
/// Interfaces that a FilterPolicy must grant.
const CAPABILITIES: [&str; 1] = ["token-bucket"];
/// Functions that the world `weft:filter/filter` exports.
const EXPORTS: [&str; 5] = ["configure", "on-connection", "on-request-head", "on-response-head", "on-done"];

/// A verified filter binary.
#[derive(Debug)]
pub struct Artifact {
    pub bytes: Vec<u8>,
    /// `sha256:` + 64 hex digits.
    pub digest: String,
    /// Base64 of the raw ed25519 signature over the 32 digest bytes.
    pub signature: String,
    pub public_key_pem: String,
    pub shape: Shape,
}

/// ABI version and capabilities that a binary declares by its imports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// `weft:filter@MAJOR.MINOR.PATCH`, from its imports.
    pub abi: String,
    /// The capabilities that it asks for.
    pub capabilities: Vec<String>,
}

/// Why a binary was refused. Always the publisher's fault.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    #[error("the binary is empty")]
    Empty,
    #[error("signature is not base64 of 64 bytes")]
    SignatureEncoding,
    #[error("public key is not an ed25519 key in PEM, DER or 32 raw bytes, base64")]
    KeyEncoding,
    #[error(
        "signature does not hold for this binary ({digest}) and this key: it is made over the 32 bytes of its sha256"
    )]
    Signature { digest: String },
    #[error("the binary is a core WebAssembly module, not a component: build it with `weft filter build`")]
    NotAComponent,
    #[error("the binary is not a valid WebAssembly component: {0}")]
    Invalid(String),
    #[error("the binary imports {0:?}: a filter may import interfaces of {PACKAGE} only")]
    ForeignImport(String),
    #[error("the binary imports {0:?}, which this release does not know")]
    UnknownImport(String),
    #[error("the binary is made for {PACKAGE}*@{0}; this release runs {ABI}")]
    Abi(String),
    #[error("the binary does not export {0:?}: it is not a filter")]
    MissingExport(&'static str),
}

impl Artifact {
    /// Checks `bytes` against a signature and a key as the headers of a publication carry them.
    pub fn verify(bytes: Vec<u8>, signature_base64: &str, key_text: &str) -> Result<Self, ArtifactError> {
        if bytes.is_empty() {
            return Err(ArtifactError::Empty);
        }
        let hash = Sha256::digest(&bytes);
        let digest = format!("sha256:{}", hex(&hash));
        let key = parse_key(key_text).ok_or(ArtifactError::KeyEncoding)?;
        let raw = STANDARD.decode(signature_base64.trim()).map_err(|_| ArtifactError::SignatureEncoding)?;
        let signature = Signature::from_slice(&raw).map_err(|_| ArtifactError::SignatureEncoding)?;
        if key.verify_strict(&hash, &signature).is_err() {
            return Err(ArtifactError::Signature { digest });
        }
        let shape = inspect(&bytes)?;
        let public_key_pem = key.to_public_key_pem(LineEnding::LF).map_err(|_| ArtifactError::KeyEncoding)?;
        Ok(Self { bytes, digest, signature: STANDARD.encode(raw), public_key_pem, shape })
    }
}

/// An ed25519 key: PEM as it is, or base64 of PEM, DER (SPKI) or 32 raw bytes.
fn parse_key(text: &str) -> Option<VerifyingKey> {
    let text = text.trim();
    if text.starts_with("-----BEGIN") {
        return VerifyingKey::from_public_key_pem(text).ok();
    }
    let bytes = STANDARD.decode(text).ok()?;
    if bytes.starts_with(b"-----BEGIN") {
        return VerifyingKey::from_public_key_pem(std::str::from_utf8(&bytes).ok()?.trim()).ok();
    }
    if let Ok(raw) = <[u8; 32]>::try_from(bytes.as_slice()) {
        return VerifyingKey::from_bytes(&raw).ok();
    }
    VerifyingKey::from_public_key_der(&bytes).ok()
}

/// Validates a component and reads the names of its own imports and exports, not those of what is nested in it.
#[expect(clippy::wildcard_enum_match_arm, reason = "a component has many kinds of sections; few tell what it is")]
fn inspect(bytes: &[u8]) -> Result<Shape, ArtifactError> {
    let invalid = |e: wasmparser::BinaryReaderError| ArtifactError::Invalid(e.to_string());
    let mut depth = 0_u32;
    let mut found = Names::default();
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.map_err(invalid)? {
            Payload::Version { encoding: Encoding::Module, .. } if depth == 0 => {
                return Err(ArtifactError::NotAComponent);
            }
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section {
                    let import = import.map_err(invalid)?;
                    // A type is a name for what is known already: it brings nothing in.
                    if !matches!(import.ty, ComponentTypeRef::Type(_)) {
                        found.import(import.name.name)?;
                    }
                }
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                for export in section {
                    let export = export.map_err(invalid)?;
                    found.export(export.name.name, export.kind);
                }
            }
            _ => {}
        }
    }
    Validator::new_with_features(WasmFeatures::default()).validate_all(bytes).map_err(invalid)?;
    found.shape()
}

/// Names seen at the outermost level of a component.
#[derive(Default)]
struct Names {
    version: Option<String>,
    capabilities: Vec<String>,
    exports: Vec<String>,
}

impl Names {
    fn import(&mut self, name: &str) -> Result<(), ArtifactError> {
        let inner = name.strip_prefix(PACKAGE).ok_or_else(|| ArtifactError::ForeignImport(name.to_owned()))?;
        let (interface, version) = inner.split_once('@').unwrap_or((inner, "?"));
        let parsed = semver::Version::parse(version).map_err(|_| ArtifactError::Abi(version.to_owned()))?;
        if format!("{}.{}", parsed.major, parsed.minor) != ABI {
            return Err(ArtifactError::Abi(version.to_owned()));
        }
        if CAPABILITIES.contains(&interface) {
            self.capabilities.push(interface.to_owned());
        } else if !ALWAYS_GRANTED.contains(&interface) {
            return Err(ArtifactError::UnknownImport(name.to_owned()));
        }
        self.version.get_or_insert_with(|| version.to_owned());
        Ok(())
    }

    fn export(&mut self, name: &str, kind: ComponentExternalKind) {
        if kind == ComponentExternalKind::Func {
            self.exports.push(name.to_owned());
        }
    }

    fn shape(mut self) -> Result<Shape, ArtifactError> {
        for name in EXPORTS {
            if !self.exports.iter().any(|export| export == name) {
                return Err(ArtifactError::MissingExport(name));
            }
        }
        self.capabilities.sort();
        let version = self.version.unwrap_or_else(|| format!("{ABI}.0"));
        Ok(Shape { abi: format!("weft:filter@{version}"), capabilities: self.capabilities })
    }
}
