//! A filter binary on its way in: digest, signature, shape. Invariant: an `Artifact` exists only verified: its digest is
//! computed here, its signature holds, it is a valid component and imports nothing but the filter contract.

#[cfg(test)]
mod tests;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePublicKey as _, EncodePublicKey as _};
use ed25519_dalek::{Signature, VerifyingKey};
use sha2::{Digest as _, Sha256};
use wasmparser::{ComponentExternalKind, Encoding, Parser, Payload, Validator, WasmFeatures};

use crate::token::hex;

/// The package that a filter's imports and exports must come from.
const CONTRACT: &str = "weft:filter/";

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

/// What the binary says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// `weft:filter@MAJOR.MINOR.PATCH`, from its exports and imports.
    pub abi: String,
    /// Interfaces of the contract that it imports, without package and version: the capabilities it asks for.
    pub imports: Vec<String>,
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
    #[error("signature does not hold for this binary ({digest}) and this key: it is made over the 32 bytes of its sha256")]
    Signature { digest: String },
    #[error("the binary is a core WebAssembly module, not a component: build it with `weft filter build`")]
    NotAComponent,
    #[error("the binary is not a valid WebAssembly component: {0}")]
    Invalid(String),
    #[error("the binary imports {0:?}: a filter may import interfaces of {CONTRACT} only")]
    Import(String),
    #[error("the binary exports nothing of {CONTRACT}: it is not a filter")]
    NotAFilter,
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
                    found.import(import.map_err(invalid)?.name.name)?;
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

#[derive(Default)]
struct Names {
    version: Option<String>,
    imports: Vec<String>,
    exports_contract: bool,
}

impl Names {
    fn import(&mut self, name: &str) -> Result<(), ArtifactError> {
        let inner = name.strip_prefix(CONTRACT).ok_or_else(|| ArtifactError::Import(name.to_owned()))?;
        let interface = self.versioned(inner);
        self.imports.push(interface);
        Ok(())
    }

    fn export(&mut self, name: &str, kind: ComponentExternalKind) {
        if kind != ComponentExternalKind::Instance {
            return;
        }
        if let Some(inner) = name.strip_prefix(CONTRACT) {
            self.exports_contract = true;
            self.versioned(inner);
        }
    }

    /// Splits `interface@version` and keeps the version.
    fn versioned(&mut self, inner: &str) -> String {
        let (interface, version) = inner.split_once('@').unwrap_or((inner, "0.0.0"));
        self.version.get_or_insert_with(|| version.to_owned());
        interface.to_owned()
    }

    fn shape(mut self) -> Result<Shape, ArtifactError> {
        if !self.exports_contract {
            return Err(ArtifactError::NotAFilter);
        }
        self.imports.sort();
        self.imports.dedup();
        let version = self.version.unwrap_or_default();
        Ok(Shape { abi: format!("weft:filter@{version}"), imports: self.imports })
    }
}
