//! Filters for proxies in this process: signed by hand, attached as the control plane would.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use ed25519_dalek::pkcs8::EncodePublicKey as _;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::{Signer as _, SigningKey};
use serde_json::json;
use weft_filter_host::{Digest, FilterSpec, Prepared};
use weft_policy::bundle::serde_json_raw::Json;
use weft_policy::bundle::{
    Direction, FILTER_CONTRACT, FILTER_CONTRACT_0_2, FilterAttachment, FilterLimits, FilterMode, OnFailure,
};

use super::{Of, Pair};

/// A filter by the name of its component, with its configuration.
#[derive(Debug, Clone, Copy)]
pub(in crate::mesh) struct Filter {
    pub(in crate::mesh) component: &'static str,
    pub(in crate::mesh) direction: Direction,
    pub(in crate::mesh) config: &'static str,
    pub(in crate::mesh) authorization: bool,
}

/// Attaches one filter to one of the proxies, instead of those that it has.
///
/// # Panics
/// When the filter isn't built, or can't be loaded.
pub(in crate::mesh) fn attach(pair: &Pair, of: Of, filter: Filter) {
    attach_all(pair, of, &[filter]);
}

/// The same with several in this order, each of another component.
///
/// # Panics
/// When one isn't built, or can't be loaded.
pub(in crate::mesh) fn attach_all(pair: &Pair, of: Of, filters: &[Filter]) {
    attach_with(pair, of, filters, |_| {});
}

/// The same, each attachment as `change` leaves it. Gives those that are ready, for further changes.
///
/// # Panics
/// When one isn't built, or can't be loaded.
pub(in crate::mesh) fn attach_with(
    pair: &Pair,
    of: Of,
    filters: &[Filter],
    change: impl Fn(&mut FilterAttachment),
) -> HashMap<String, Arc<Prepared>> {
    let (mut attachments, mut ready) = (BTreeMap::new(), HashMap::new());
    for (order, filter) in (0..).zip(filters) {
        let wasm = wasm(filter.component);
        let mut attachment = FilterAttachment { order, ..signed(&wasm, *filter) };
        if attachments.contains_key(&attachment.name) {
            // One filter may be attached several times.
            attachment.name += &format!("-{order}");
        }
        change(&mut attachment);
        let spec = FilterSpec::try_from(&attachment).expect("a specification");
        let prepared = pair.shared(of).filter_host.prepare(&spec, &wasm).expect("a sound filter");
        ready.insert(attachment.name.clone(), prepared);
        attachments.insert(attachment.name.clone(), attachment);
    }
    pair.change(of, &ready, |bundle| bundle.filters = attachments);
    ready
}

/// Has the origin's proxy check tokens, and let in whose token has one role and not one subject. Gives credentials with a token
/// of `ada`, who has the roles `admin` and `dev`.
///
/// # Panics
/// When the filters aren't built.
pub(in crate::mesh) fn attach_claims(pair: &Pair, role: &str, denied: &str) -> String {
    let vectors: serde_json::Value =
        serde_json::from_str(include_str!("../../../../filters/jwt/vectors.json")).expect("JSON");
    let tokens = json!({"issuers": ["https://issuer.test"], "keys": vectors["config"]["keys"], "optional": true,
        "claims": [{"claim": "roles"}, {"claim": "sub"}]});
    let claim = |name: &str, exact: &str| json!([{"from": [{"claims": [{"name": name, "exact": exact}]}]}]);
    let rules = json!({"policies": [
        {"name": "a/allow", "action": "Allow", "rules": claim("roles", role)},
        {"name": "a/deny", "action": "Deny", "rules": claim("sub", denied)}]});
    let filter = |component, config: serde_json::Value, authorization| Filter {
        component,
        direction: Direction::Inbound,
        config: config.to_string().leak(),
        authorization,
    };
    attach_with(pair, Of::Origin, &[filter("jwt", tokens, false), filter("authz", rules, true)], |it| {
        it.capabilities = if it.authorization { Vec::new() } else { vec!["crypto".to_owned()] };
    });
    format!("Bearer {}", vectors["tokens"]["EdDSA"].as_str().expect("text"))
}

/// A filter made ready for one of the proxies.
///
/// # Panics
/// When it isn't built, or can't be loaded.
pub(in crate::mesh) fn prepared(pair: &Pair, of: Of, filter: Filter) -> Arc<Prepared> {
    let wasm = wasm(filter.component);
    pair.shared(of).filter_host.prepare(&specification(filter, &wasm), &wasm).expect("a sound filter")
}

/// The specification of a filter that consists of these bytes.
pub(in crate::mesh) fn specification(filter: Filter, wasm: &[u8]) -> FilterSpec {
    FilterSpec::try_from(&signed(wasm, filter)).expect("a specification")
}

/// A filter as the control plane tells of it.
pub(in crate::mesh) fn attachment(filter: Filter) -> FilterAttachment {
    signed(&wasm(filter.component), filter)
}

fn signed(wasm: &[u8], filter: Filter) -> FilterAttachment {
    let (key, digest) = (SigningKey::from_bytes(&[7; 32]), Digest::of(wasm));
    // The one of them that stays as it was released.
    let contract = if filter.component == "hostile" { FILTER_CONTRACT } else { FILTER_CONTRACT_0_2 };
    FilterAttachment {
        name: filter.component.to_owned(),
        filter: format!("weft-system/{}", filter.component),
        version: "1.0.0".to_owned(),
        digest: digest.to_string(),
        signature: base64::engine::general_purpose::STANDARD.encode(key.sign(digest.as_bytes()).to_bytes()),
        public_key_pem: key.verifying_key().to_public_key_pem(LineEnding::LF).expect("a key"),
        statement: None,
        shipped: false,
        direction: filter.direction,
        order: 0,
        mode: FilterMode::Enforce,
        on_failure: OnFailure::Deny,
        authorization: filter.authorization,
        config: Json(filter.config.to_owned()),
        capabilities: Vec::new(),
        grants: Vec::new(),
        rules: Vec::new(),
        limits: FilterLimits { call_timeout_ms: 100, ..FilterLimits::default() },
        workloads: Vec::new(),
        contract: contract.to_owned(),
    }
}

/// The bytes of a built filter; without them there is nothing to test.
pub(in crate::mesh) fn wasm(name: &str) -> Vec<u8> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |target| root.join(target));
    let folder = std::env::var_os("WEFT_FILTERS_DIR").map_or_else(|| target.join("filters"), PathBuf::from);
    let path = folder.join(format!("{name}.wasm"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}; `cargo xtask build` makes it", path.display()))
}
