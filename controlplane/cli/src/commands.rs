//! The commands that ask the operator API, one file each.

pub(crate) mod apply;
pub(crate) mod ca;
pub(crate) mod delete;
pub(crate) mod describe;
pub(crate) mod diff;
pub(crate) mod events;
pub(crate) mod explain;
pub(crate) mod filter;
pub(crate) mod get;
pub(crate) mod lint;
pub(crate) mod proxies;
pub(crate) mod proxy;
pub(crate) mod shell;
pub(crate) mod snapshot;
pub(crate) mod store;
pub(crate) mod token;
pub(crate) mod validate;
pub(crate) mod version;
pub(crate) mod wait;

use crate::access::AccessArgs;
use crate::output::OutputArgs;

/// Arguments of a command that lists and takes no other.
#[derive(Debug, clap::Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    #[command(flatten)]
    pub(crate) access: AccessArgs,
}
