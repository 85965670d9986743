//! The one shape of every refusal: `{"error": {"code", "message", "details"}}`.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use weft_policy::resource::ObjectKey;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = Error)]
pub struct ErrorBody {
    pub error: ErrorInner,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct ErrorInner {
    /// Stable, for programs.
    pub code: String,
    /// For people.
    pub message: String,
    pub details: Vec<Detail>,
}

/// Place in the input at which something is wrong, and the problem there.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct Detail {
    /// `documents[2]`; empty where it is none of the request's.
    pub file: String,
    pub line: u64,
    /// The number of the request's document, from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<ObjectRef>,
    /// `spec.rules[0].name`; empty for the whole object.
    pub key: String,
    pub message: String,
}

/// An object by its names. Its kind may be one that only the other side knows.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize, ToSchema)]
pub struct ObjectRef {
    pub kind: String,
    /// Empty for kinds without a namespace.
    pub namespace: String,
    pub name: String,
}

impl From<&ObjectKey> for ObjectRef {
    fn from(key: &ObjectKey) -> Self {
        let ObjectKey { kind, namespace, name } = key;
        Self { kind: kind.as_str().to_owned(), namespace: namespace.clone(), name: name.clone() }
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, namespace, name } = self;
        if namespace.is_empty() { write!(f, "{kind} {name}") } else { write!(f, "{kind} {namespace}/{name}") }
    }
}

impl fmt::Display for Detail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.file.as_str(), self.line) {
            ("", _) => {}
            (file, 0) => write!(f, "{file}: ")?,
            (file, line) => write!(f, "{file}:{line}: ")?,
        }
        if let Some(object) = &self.object {
            write!(f, "{object}: ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}
