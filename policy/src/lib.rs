//! Manifest of a person -> bundle of a proxy -> decision. PURE: no clock, no IO, no environment, no randomness. Its
//! moving counterparts are `weft-control` (which stores and publishes) and `weft-proxy` (which applies).

pub mod authz;
pub mod bundle;
pub mod cel;
pub mod component;
pub mod delta;
#[cfg(feature = "http")]
mod host;
pub mod identity;
pub mod lineage;
mod origin;
pub mod path;

#[cfg(feature = "http")]
pub mod route;
pub mod scope;
pub mod secret;
pub mod statement;
pub mod text;

#[cfg(feature = "manifest")]
pub mod explain;
#[cfg(feature = "manifest")]
pub mod lint;
#[cfg(feature = "manifest")]
pub mod manifest;
#[cfg(feature = "manifest")]
pub mod numbers;
#[cfg(feature = "manifest")]
pub mod plan;
#[cfg(feature = "manifest")]
pub mod registration;
#[cfg(feature = "manifest")]
pub mod resource;
#[cfg(feature = "manifest")]
pub mod schema;

#[cfg(feature = "wire")]
pub mod wire;
