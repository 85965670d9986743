//! Text to resources: YAML (several documents) or JSON. Every mistake names file, line and key; a text with any mistake
//! yields no resource.

#[cfg(test)]
mod tests;
mod tree;

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::resource::{DEFAULT_NAMESPACE, Kind, Metadata, Object, Resource};

/// A resource and where it was written.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    pub resource: Resource,
    /// First line, from 1.
    pub line: usize,
    lines: BTreeMap<String, usize>,
}

impl Document {
    /// The line of a key such as `spec.rules[0].name`, or of the nearest one around it.
    pub fn line_of(&self, key: &str) -> usize {
        line_of(&self.lines, key).unwrap_or(self.line)
    }
}

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ManifestError {
    pub file: String,
    /// From 1; 0 where there is none.
    pub line: usize,
    /// `spec.rules[0].matches[0].path.value`; empty for the document as a whole.
    pub key: String,
    pub message: String,
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, key, message } = self;
        write!(f, "{file}:{line}: ")?;
        if key.is_empty() { f.write_str(message) } else { write!(f, "{key}: {message}") }
    }
}

/// A mistake in one resource.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {message}")]
pub struct ResourceError {
    pub key: String,
    pub message: String,
}

fn wrong<T>(key: &str, message: impl ToString) -> Result<T, ResourceError> {
    Err(ResourceError { key: key.to_owned(), message: message.to_string() })
}

/// All documents of a text, or every mistake: the first of each document, and any name that is given twice.
pub fn parse(file_name: &str, text: &str) -> Result<Vec<Document>, Vec<ManifestError>> {
    let error = |line, key: String, message| ManifestError { file: file_name.to_owned(), line, key, message };
    let trees = tree::parse(text).map_err(|(line, message)| vec![error(line, String::new(), message)])?;
    let (mut documents, mut errors): (Vec<Document>, _) = (Vec::new(), Vec::new());
    for tree::Tree { value, line, lines } in trees {
        match from_json(value) {
            Ok(resource) => match documents.iter().find(|known| known.resource.key() == resource.key()) {
                Some(first) => {
                    let message = format!("{} is given twice; first in line {}", resource.key(), first.line);
                    let line = line_of(&lines, "metadata.name").unwrap_or(line);
                    errors.push(error(line, "metadata.name".to_owned(), message));
                }
                None => documents.push(Document { resource, line, lines }),
            },
            Err(ResourceError { key, message }) => {
                let line = line_of(&lines, &key).unwrap_or(line);
                errors.push(error(line, key, message));
            }
        }
    }
    if errors.is_empty() { Ok(documents) } else { Err(errors) }
}

fn line_of(lines: &BTreeMap<String, usize>, key: &str) -> Option<usize> {
    let mut key = key;
    loop {
        if let Some(line) = lines.get(key) {
            return Some(*line);
        }
        key = &key[..key.rfind(['.', '['])?];
    }
}

/// A document as the operator API takes it. What the server itself adds (`status`, `metadata.uid` ...) is read past, so
/// that what `weft get` printed can be applied.
pub fn from_json(document: Value) -> Result<Resource, ResourceError> {
    let resource = unchecked(document)?;
    match resource.check().into_iter().next() {
        None => Ok(resource),
        Some(wrong) => Err(wrong),
    }
}

/// A document of the right shape; whether it is fit is `Resource::check`'s question.
pub(crate) fn unchecked(document: Value) -> Result<Resource, ResourceError> {
    let Value::Object(mut fields) = document else {
        return wrong("", "a document is a mapping with apiVersion, kind, metadata and spec");
    };
    let kind = kind(&mut fields)?;
    let mut metadata = fields.remove("metadata");
    let spec = fields.remove("spec");
    fields.remove("status");
    if let Some(key) = fields.keys().next() {
        return wrong(
            key,
            format_args!("unknown field `{key}`, expected one of `apiVersion`, `kind`, `metadata`, `spec`"),
        );
    }
    if let Some(Value::Object(metadata)) = &mut metadata {
        for own in ["uid", "generation", "revision", "creationRevision", "resourceVersion", "creationTimestamp"] {
            metadata.remove(own);
        }
    }
    let Some(metadata) = metadata else { return wrong("metadata", "is missing") };
    let mut metadata: Metadata = typed("metadata", metadata)?;
    if kind.is_namespaced() && metadata.namespace.is_empty() {
        DEFAULT_NAMESPACE.clone_into(&mut metadata.namespace);
    }
    let optional = matches!(kind, Kind::Namespace | Kind::Mesh);
    let spec = match spec {
        None | Some(Value::Null) if optional => Value::Object(Map::new()),
        None | Some(Value::Null) => return wrong("spec", "is missing"),
        Some(spec) => spec,
    };
    build(kind, metadata, spec)
}

fn kind(fields: &mut Map<String, Value>) -> Result<Kind, ResourceError> {
    const LATER: [&str; 17] = [
        "GRPCRoute",
        "TCPRoute",
        "TLSRoute",
        "UDPRoute",
        "ReferenceGrant",
        "Gateway",
        "GatewayClass",
        "TrafficPolicy",
        "RateLimitPolicy",
        "FaultPolicy",
        "Rollout",
        "PolicyTemplate",
        "Bypass",
        "ExternalService",
        "Zone",
        "BackendTLSPolicy",
        "ServiceEntry",
    ];
    let mut text = |key: &str| match fields.remove(key) {
        Some(Value::String(text)) => Ok(text),
        Some(_) => wrong(key, "is not a string"),
        None => wrong(key, "is missing"),
    };
    let (name, version) = (text("kind")?, text("apiVersion")?);
    let Some(kind) = Kind::ALL.into_iter().find(|kind| kind.as_str() == name) else {
        if LATER.contains(&name.as_str()) {
            return wrong("kind", format_args!("kind {name} is not supported yet"));
        }
        let known = Kind::ALL.map(Kind::as_str).join(", ");
        return wrong("kind", format_args!("kind {name} is not known; known are {known}"));
    };
    if version != kind.api_version() {
        let expected = kind.api_version();
        return wrong("apiVersion", format_args!("{version:?} is not supported for kind {kind}; expected {expected}"));
    }
    Ok(kind)
}

/// Deserialises a part; an error carries the key from the document's root.
fn typed<T: DeserializeOwned>(root: &str, value: Value) -> Result<T, ResourceError> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        let key = match path.trim_end_matches(".?") {
            "." | "?" => root.to_owned(),
            path => format!("{root}.{path}"),
        };
        ResourceError { key, message: error.into_inner().to_string() }
    })
}

fn build(kind: Kind, metadata: Metadata, spec: Value) -> Result<Resource, ResourceError> {
    fn object<S: DeserializeOwned>(metadata: Metadata, spec: Value) -> Result<Object<S>, ResourceError> {
        Ok(Object { metadata, spec: typed("spec", spec)? })
    }
    Ok(match kind {
        Kind::Namespace => Resource::Namespace(object(metadata, spec)?),
        Kind::Mesh => Resource::Mesh(object(metadata, spec)?),
        Kind::Service => Resource::Service(object(metadata, spec)?),
        Kind::Workload => Resource::Workload(object(metadata, spec)?),
        Kind::HttpRoute => Resource::HttpRoute(object(metadata, spec)?),
        Kind::Filter => Resource::Filter(object(metadata, spec)?),
        Kind::FilterPolicy => Resource::FilterPolicy(object(metadata, spec)?),
        Kind::AccessPolicy => Resource::AccessPolicy(object(metadata, spec)?),
    })
}

/// YAML of a manifest, keys in the order of the alphabet (which puts `apiVersion` first and `spec` after `metadata`).
pub fn to_yaml(resource: &impl Serialize) -> String {
    let value = serde_json::to_value(resource).expect("manifests have string keys and no failing serialiser");
    serde_saphyr::to_string(&value).expect("a JSON value is always YAML")
}
