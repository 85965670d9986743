//! What proxies are answered when something is refused: the one place that knows both the reasons and gRPC's codes.

use tonic::Status;

use crate::ca::IssueError;
use crate::hub::{JoinError, NotValid, RegisterError, RenewError};

impl From<JoinError> for Status {
    fn from(error: JoinError) -> Self {
        match &error {
            JoinError::Unknown | JoinError::Expired(_) | JoinError::WrongKind => {
                Self::unauthenticated(error.to_string())
            }
            JoinError::Banned(_) | JoinError::OtherAccount { .. } | JoinError::Misconfigured { .. } => {
                Self::permission_denied(error.to_string())
            }
            JoinError::Owned(_) => Self::already_exists(error.to_string()),
            JoinError::TooOften { .. } => Self::resource_exhausted(error.to_string()),
            JoinError::TooManyGrants { .. } => Self::failed_precondition(error.to_string()),
            JoinError::Issue(IssueError::Sign(_)) | JoinError::Store(_) => {
                tracing::error!(error = %crate::chain(&error), "certificate could not be issued");
                Self::unavailable("the control plane can't issue certificates now; its log says why")
            }
            JoinError::Issue(IssueError::NotVouched) => Self::unavailable(error.to_string()),
            JoinError::Issue(_) => Self::invalid_argument(error.to_string()),
        }
    }
}

impl From<RenewError> for Status {
    fn from(error: RenewError) -> Self {
        match error {
            RenewError::Join(error) => error.into(),
            RenewError::TooOften { .. } => Self::resource_exhausted(error.to_string()),
            RenewError::GraceOver { .. } | RenewError::Replaced { .. } | RenewError::NotKnown { .. } => {
                Self::permission_denied(error.to_string())
            }
        }
    }
}

impl From<NotValid> for Status {
    fn from(error: NotValid) -> Self {
        Self::unauthenticated(error.to_string())
    }
}

impl From<RegisterError> for Status {
    fn from(error: RegisterError) -> Self {
        match &error {
            RegisterError::Taken { .. } | RegisterError::Owned(_) => Self::already_exists(error.to_string()),
            RegisterError::OtherIdentity { .. } | RegisterError::Held { .. } | RegisterError::NotGranted { .. } => {
                Self::permission_denied(error.to_string())
            }
            RegisterError::Invalid { .. } => Self::invalid_argument(error.to_string()),
            RegisterError::TooMuch { .. } => Self::failed_precondition(error.to_string()),
            RegisterError::TooOften { .. } => Self::resource_exhausted(error.to_string()),
            RegisterError::Store(_) => {
                tracing::error!(error = %crate::chain(&error), "workload could not be registered");
                Self::unavailable("the control plane's store failed; its log says why")
            }
        }
    }
}
