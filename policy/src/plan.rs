//! The world and what follows from it: what does each proxy get, what does a change change. Pure and deterministic: the same world gives the same bundles, byte for byte.

mod affected;
mod assemble;
mod callout;
mod carried;
mod changes;
mod expression;
mod external;
mod grant;
mod http_only;
mod index;
mod merge;
mod modifier;
mod opening;
mod owner;
mod protection;
mod release;
mod route_status;
mod scope;
mod secret;
mod select;
mod shared;
mod spread;
mod tenancy;
#[cfg(test)]
pub(crate) mod tests;
mod traffic;
mod unserved;
mod world;

pub use crate::delta::{Delta, Key, diff};
pub use assemble::{AUDIT_ATTACHMENT, AUTHZ_ATTACHMENT, attachment, bundle_for, filters_for, has_endpoint};
pub use callout::{CALLOUTS_RESOLVED, callees};
pub use changes::{Action, Change, diff_world, text_diff};
pub use external::external_status;
pub use merge::{Idle, Level, MAX_FOR_ONE, Setter, Source, crowds};
pub use opening::{Opening, openings};
pub use owner::{Owned, Owner, ProxyKey};
pub use protection::{Loss, losses, losses_of_workloads, policy_status};
pub use release::Release;
pub use route_status::{Condition, ParentStatus, route_status};
pub use scope::{meant, scope_of, scoped_bundle_for};
pub use secret::granted_bytes;
pub use select::selects;
#[cfg(test)]
pub(crate) use select::work;
pub use shared::Shared;
pub use tenancy::{Intrusion, intrusions};
pub use traffic::{Effective, effective, template_status, traffic_status, without_effect};
pub use unserved::service_status;
pub use world::{Entry, World};

pub(crate) use assemble::{access_config, audited_config, externals, mesh_settings, serve, visible};
pub(crate) use callout::unresolved as unresolved_callouts;
pub(crate) use carried::OffPorts;
pub(crate) use expression::unfit_expressions;
pub(crate) use external::claimed_before;
pub(crate) use http_only::{RoutesOf, policies as http_policies, routes as http_routes, service_protocol};
pub(crate) use merge::{Sources, older_of_tier, overruled, template_of, tier_of};
pub(crate) use modifier::uneditable;
pub(crate) use protection::route_named;
pub(crate) use route_status::{Displaced, Led, misattached, resolve, undone};
pub(crate) use secret::missing as missing_secrets;
pub(crate) use select::{holds_for, is_missing};
pub(crate) use traffic::{lacks_template, sources_of, sources_outside, taken_tier, unfit_template};
pub(crate) use unserved::{of_service as unserved_of, targets};
