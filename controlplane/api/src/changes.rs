//! Applying, deleting, and the findings of the linter about both.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use weft_policy::lint;
use weft_policy::plan;
use weft_policy::resource::ObjectKey;

use crate::error::ObjectRef;
use crate::is_off;
use crate::words::words;

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Apply)]
pub struct ApplyRequest {
    /// Manifests.
    #[schema(value_type = Vec<Object>)]
    pub documents: Vec<Value>,
    /// Change nothing, and say what would change.
    #[serde(default)]
    pub dry_run: bool,
    /// Also where it takes protection away.
    #[serde(default, skip_serializing_if = "is_off")]
    pub force: bool,
    /// Only where each object is still of the `metadata.revision` that its document tells; 409 else.
    #[serde(default, skip_serializing_if = "is_off")]
    pub if_unchanged: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct Applied {
    pub revision: u64,
    /// Every object that was given.
    pub changes: Vec<Change>,
    /// Findings that are no reason to refuse it: about the objects that were given, and those that the change touches.
    pub problems: Vec<Finding>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Change {
    pub action: Action,
    pub kind: String,
    /// Empty for kinds without a namespace.
    pub namespace: String,
    pub name: String,
    /// Unified diff of the YAML.
    pub diff: String,
}

words! {
    Action { Created = "created", Changed = "changed", Unchanged = "unchanged", Deleted = "deleted" }
}

impl From<&plan::Change> for Change {
    fn from(change: &plan::Change) -> Self {
        let ObjectRef { kind, namespace, name } = (&change.object).into();
        let action = match change.action {
            plan::Action::Created => Action::Created,
            plan::Action::Changed => Action::Changed,
            plan::Action::Unchanged => Action::Unchanged,
            plan::Action::Deleted => Action::Deleted,
        };
        Self { action, kind, namespace, name, diff: change.diff.clone() }
    }
}

impl Change {
    #[must_use]
    pub fn object(&self) -> ObjectRef {
        ObjectRef { kind: self.kind.clone(), namespace: self.namespace.clone(), name: self.name.clone() }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct DeleteQuery {
    /// Also where that takes protection away.
    #[serde(default, skip_serializing_if = "is_off")]
    pub force: bool,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
pub struct Deleted {
    /// The first revision without it.
    pub revision: u64,
    /// What opens by it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Finding>,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LintRequest {
    /// Manifests.
    #[schema(value_type = Vec<Object>)]
    pub documents: Vec<Value>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct LintQuery {
    /// Only of objects of this kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Only of this namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Only of objects of this name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct Lint {
    pub revision: u64,
    pub findings: Vec<Finding>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Finding {
    /// `WEFT103`
    pub code: String,
    pub severity: Severity,
    pub kind: String,
    /// Empty for kinds without a namespace.
    pub namespace: String,
    pub name: String,
    /// Place inside the manifest: `spec.filter.name`; empty for the object as a whole.
    pub key: String,
    pub message: String,
}

words! {
    Severity { Error = "error", Warning = "warning", Note = "note" }
}

impl From<&lint::Finding> for Finding {
    fn from(finding: &lint::Finding) -> Self {
        let lint::Finding { code, severity, object: ObjectKey { kind, namespace, name }, key, message } = finding;
        let severity = match severity {
            lint::Severity::Error => Severity::Error,
            lint::Severity::Warning => Severity::Warning,
            lint::Severity::Note => Severity::Note,
        };
        Self {
            code: code.to_string(),
            severity,
            kind: kind.as_str().to_owned(),
            namespace: namespace.clone(),
            name: name.clone(),
            key: key.clone(),
            message: message.clone(),
        }
    }
}

impl Finding {
    #[must_use]
    pub fn object(&self) -> ObjectRef {
        ObjectRef { kind: self.kind.clone(), namespace: self.namespace.clone(), name: self.name.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_server_is_not_sent_what_is_not_asked_for() {
        let text = |request: &ApplyRequest| serde_json::to_string(request).unwrap();
        assert_eq!(text(&ApplyRequest::default()), r#"{"documents":[],"dry_run":false}"#);
        let forced = ApplyRequest { force: true, ..ApplyRequest::default() };
        assert_eq!(text(&forced), r#"{"documents":[],"dry_run":false,"force":true}"#);
    }

    #[test]
    fn words_of_another_release_are_kept() {
        let severity: Severity = serde_json::from_str("\"fatal\"").unwrap();
        assert_eq!((severity.as_str(), serde_json::to_string(&severity).unwrap().as_str()), ("fatal", "\"fatal\""));
        assert_eq!(serde_json::from_str::<Severity>("\"note\"").unwrap(), Severity::Note);
    }
}
