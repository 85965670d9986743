//! Bodies and queries of weft-control's HTTP API, each defined once for the server, its callers and its OpenAPI document.
//! The server refuses fields that it does not know in a request; a caller passes over those that it does not know in an
//! answer, so that the two may be of different releases.

mod authority;
mod changes;
mod error;
mod events;
mod filters;
mod objects;
mod proxies;
mod store;
mod tokens;
mod words;

pub use authority::{
    Authority, AuthorityReplica, FinishRequest, InstallRequest, Root, RotateRequest, RotationLeft, Signer,
    SigningRequest,
};
pub use changes::{
    Action, Applied, ApplyRequest, Change, DeleteQuery, Deleted, Finding, Lint, LintQuery, LintRequest, Severity,
};
pub use error::{Detail, ErrorBody, ErrorInner, ObjectRef};
pub use events::{Event, EventQuery, Events};
pub use filters::{
    FilterMoved, FilterVersion, FilterVersions, Filters, PromoteQuery, PublishQuery, RollbackQuery, VersionQuery,
    YankQuery,
};
pub use objects::{
    Condition, ListQuery, Metadata, ParentStatus, Resource, ResourceList, Status, Unreadable, UnreadableList,
};
pub use proxies::{
    AccountGrants, Ban, BanRequest, Banned, Bans, Evicted, GrantList, LeftWorkload, LoadedFilter, Proxies, Proxy,
    ProxyRevision, RevisionStatus, SilentReplica, StatusQuery, SyncState, Unbanned, WithdrawRequest, Withdrawn,
};
pub use store::{Ahead, Leads, RestoreQuery, Restored, SnapshotAbout, Store, Version};
pub use tokens::{CreateToken, CreatedToken, Revoked, Role, Token, TokenKind, Tokens};
pub use weft_policy::explain::{
    BackendExplanation, EndpointExplanation, Explanation, MirrorExplanation, Query as ExplainQuery, RouteExplanation,
};

/// Leaves a switch that is off out of a request: an older server, which may not know it, then takes the request.
fn is_off(switch: &bool) -> bool {
    !switch
}
