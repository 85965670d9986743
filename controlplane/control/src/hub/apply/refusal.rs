//! Why nothing was applied or deleted, in words.

use weft_policy::lint::{Code, Finding, Severity};
use weft_policy::plan::{Loss, Owned};
use weft_policy::resource::ObjectKey;

use super::places::Misplaced;
use super::{How, Stale};
use crate::store::StoreError;

/// Why nothing was applied or deleted.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    #[error("{0} does not exist")]
    NotFound(ObjectKey),
    #[error(transparent)]
    Owned(#[from] Owned),
    #[error(
        "{0} enforces every AccessPolicy of the mesh: it comes with the control plane and can't be changed or deleted"
    )]
    Own(ObjectKey),
    #[error("{}", .0.first().map(ToString::to_string).unwrap_or_default())]
    Stale(Vec<Stale>),
    #[error("{}", .0.first().map(ToString::to_string).unwrap_or_default())]
    Misplaced(Vec<Misplaced>),
    #[error("{0}")]
    Refused(String),
    #[error("other filters are being tried with their configurations: try again in a moment")]
    Trying,
    #[error("the filters that this names were published anew meanwhile: try again")]
    Overtaken,
    #[error(transparent)]
    Busy(#[from] crate::hub::Busy),
    #[error("{}", told(.0))]
    Unprotects(Vec<Loss>),
    #[error("the world would not be sound: {}", first(.0))]
    Unsound(Vec<Finding>),
    #[error("the world would not be sound: it conflicts with an object that this token may not read [{0}]")]
    Conflicts(Code),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ApplyError {
    /// Together with the protection that the change would take away as well, unless that is what somebody wants.
    pub(super) fn beside(mut self, losses: &[Loss], how: How) -> Self {
        if let Self::Unsound(findings) = &mut self
            && how != How::Forced
        {
            findings.extend(losses.iter().map(unprotects));
        }
        self
    }
}

/// A loss of protection as a finding about the policy.
pub(crate) fn unprotects(loss: &Loss) -> Finding {
    Finding {
        code: Code::Unprotects,
        severity: Severity::Error,
        object: loss.policy.clone(),
        key: "spec.targetRefs".to_owned(),
        message: loss.to_string(),
    }
}

fn told(losses: &[Loss]) -> String {
    let first = losses.first().map(ToString::to_string).unwrap_or_default();
    match losses.len() {
        0 | 1 => format!("{first}; --force does it all the same"),
        more => format!("{first}, and {} more; --force does it all the same", more - 1),
    }
}

fn first(findings: &[Finding]) -> String {
    let text = |finding: &Finding| match finding.key.as_str() {
        "" => format!("{}: {} [{}]", finding.object, finding.message, finding.code),
        key => format!("{}: {key}: {} [{}]", finding.object, finding.message, finding.code),
    };
    findings.first().map(text).unwrap_or_default()
}
