//! Values of Secrets that FilterPolicies grant, as their proxies are told of them. A policy is handed those of its own
//! namespace only, and one that lacks any of them is closed as a whole: a filter never runs with some of what it was
//! promised.

use super::World;
use super::route_status::Condition;
use crate::bundle::{GrantedSecret, ObjectName, SecretGrant};
use crate::resource::capability::SecretRef;
use crate::resource::{FilterPolicySpec, Kind, Metadata, Object};
use crate::secret::SecretBytes;

/// The value that a policy means.
///
/// # Errors
/// There is no such Secret or value in the policy's namespace, or it can't be read.
fn value<'w>(world: &'w World, policy: &Metadata, wanted: &SecretRef) -> Result<&'w SecretBytes, String> {
    let name = ObjectName::new(&policy.namespace, &wanted.name);
    let Some(secret) = world.secret(&name) else {
        return Err(match world.is_unreadable(Kind::Secret, &name) {
            true => format!("Secret {name} can't be read"),
            false => format!("Secret {name} does not exist"),
        });
    };
    let value = secret.spec.data.get(&wanted.key);
    let value = value.ok_or_else(|| format!("Secret {name} has no value {}", wanted.key))?;
    value.known().ok_or_else(|| match value.sealed() {
        Some(_) => format!("{} of Secret {name} can't be decrypted by the secret of ca_secret_file", wanted.key),
        None => format!("{} of Secret {name} is not told here", wanted.key),
    })
}

/// What a capability grants of Secrets; what is not there is left out, and the policy closed.
pub(super) fn granted(world: &World, policy: &Metadata, secrets: &[SecretRef]) -> SecretGrant {
    let one = |wanted: &SecretRef| {
        let value = value(world, policy, wanted).ok()?.clone();
        Some(GrantedSecret { name: wanted.called().to_owned(), value })
    };
    SecretGrant { values: secrets.iter().filter_map(one).collect() }
}

/// Bytes of what the policies of a namespace grant of its Secrets: the attachment of each carries values of its own, and
/// a small policy may name the same large value many times.
#[must_use]
pub fn granted_bytes(world: &World, namespace: &str) -> usize {
    let of_policy = |policy: &Object<FilterPolicySpec>| -> usize {
        let values = policy.spec.secrets().filter_map(|(_, wanted)| value(world, &policy.metadata, wanted).ok());
        values.map(SecretBytes::len).sum()
    };
    world.of_namespace::<FilterPolicySpec>(namespace).map(of_policy).sum()
}

/// Each value that a policy grants and that is not there: its place inside the manifest, and why.
pub(crate) fn missing(world: &World, policy: &Object<FilterPolicySpec>) -> Vec<(String, String)> {
    let wrong = policy.spec.secrets().filter_map(|(key, wanted)| {
        let why = value(world, &policy.metadata, wanted).err()?;
        Some((format!("spec.{key}"), why))
    });
    wrong.collect()
}

/// Tells whether every value is there. `None`: the policy grants none.
pub(super) fn status(world: &World, policy: &Object<FilterPolicySpec>) -> Option<Condition> {
    policy.spec.secrets().next()?;
    let good = Condition::good("SecretsResolved", "every secret that it grants is there");
    let missing = missing(world, policy);
    let Some((key, _)) = missing.first() else { return Some(good) };
    let why: Vec<&str> = missing.iter().map(|(_, why)| why.as_str()).collect();
    let message = format!("{}: {}", why.join("; "), policy.spec.outcome_without_filter());
    Some(Condition { status: false, reason: "SecretNotFound", message, key: key.clone(), ..good })
}
