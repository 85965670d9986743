//! The messages between proxy and control plane, and the only way in and out: what arrives is parsed into the inner
//! types once, and refused with the name of the field that is wrong.

mod from_wire;
#[cfg(test)]
mod tests;
mod to_wire;

use prost::Message;

use crate::bundle::Bundle;
use crate::delta::{Key, Object};

/// The current version of the messages.
pub use v1 as pb;

/// Messages, client and server, generated from `proto/weft/control/v1/control.proto`.
#[allow(clippy::all, clippy::pedantic, clippy::allow_attributes_without_reason, reason = "generated code")]
pub mod v1 {
    tonic::include_proto!("weft.control.v1");
}

/// The capability of a proxy that reports which peers it reaches.
pub const PEER_WORD: &str = "peer-word";

/// A message that can't be meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct WireError {
    pub field: String,
    pub message: String,
}

/// The version of an object: a hash of its encoding, so that both sides find it without asking the other.
pub fn version(object: &Object) -> u64 {
    // FNV-1a: no security rests on it, a proxy could only fool itself.
    let bytes = v1::Object::from(object).encode_to_vec();
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Bytes of what a proxy says of one workload.
pub fn size(registration: &v1::WorkloadRegistration) -> usize {
    registration.encoded_len()
}

/// Object versions that a proxy holding `bundle` lists in its Hello.
pub fn versions(bundle: &Bundle) -> Vec<v1::ObjectVersion> {
    let entry =
        |(key, object): (Key, Object)| v1::ObjectVersion { key: Some((&key).into()), version: version(&object) };
    bundle.objects().into_iter().map(entry).collect()
}
