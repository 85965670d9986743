//! Policies that lose their filter by a change of something else: of the keys that are trusted, or of a Secret. They are
//! told to whoever makes the change, though they are none of what was given.

use std::collections::BTreeSet;

use weft_policy::lint::{Code, Finding};
use weft_policy::plan::Change;
use weft_policy::resource::{Kind, ObjectKey};

fn is_consequence(finding: &Finding) -> bool {
    matches!(finding.code, Code::PublisherDistrusted | Code::SecretMissing)
}

/// Leaves of such findings those of what was given, and those that were not there `before`.
pub(super) fn retain_new(findings: &mut Vec<Finding>, changes: &[Change], before: impl FnOnce() -> Vec<Finding>) {
    let is_given = |finding: &Finding| changes.iter().any(|change| change.object == finding.object);
    if !findings.iter().any(|finding| is_consequence(finding) && !is_given(finding)) {
        return;
    }
    let known = before();
    let known: BTreeSet<_> = known.iter().map(Finding::place).collect();
    findings.retain(|finding| !is_consequence(finding) || is_given(finding) || !known.contains(&finding.place()));
}

/// What the removal of an object has brought.
pub(super) fn of_removal(
    removed: &ObjectKey,
    after: impl FnOnce() -> Vec<Finding>,
    before: impl FnOnce() -> Vec<Finding>,
) -> Vec<Finding> {
    if !matches!(removed.kind, Kind::Secret | Kind::FilterPublisher | Kind::Mesh) {
        return Vec::new();
    }
    let mut findings = after();
    findings.retain(is_consequence);
    retain_new(&mut findings, &[], before);
    findings
}

#[cfg(test)]
mod tests {
    use weft_policy::bundle::Revision;
    use weft_policy::lint::{self, Scope};
    use weft_policy::plan::{Action, Owner, World};

    use super::*;
    use crate::hub::tests::resources;

    const POLICY: &str = "
{apiVersion: weft.dev/v1alpha1, kind: Filter, metadata: {name: signer, namespace: weft-system},
 spec: {version: 1.0.0, digest: 'sha256:cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc',
  signature: c2ln, publicKey: PEM, size: 10, abi: 'weft:filter@0.2.0', capabilities: [secret]}}
---
{apiVersion: weft.dev/v1alpha1, kind: FilterPolicy, metadata: {name: p, namespace: shop},
 spec: {filter: {name: signer}, capabilities: [{secret: {values: [{name: s, key: k}]}}]}}
";
    const SECRET: &str = "
---
{apiVersion: weft.dev/v1alpha1, kind: Secret, metadata: {name: s, namespace: shop}, spec: {stringData: {k: v}}}
";

    fn found(text: &str) -> Vec<Finding> {
        let mut world = World::default();
        for resource in resources(text) {
            world.put(&Owner::Applied, resource, Revision(1), "uid").unwrap();
        }
        lint::check(&world, Scope::Whole)
    }

    #[test]
    fn a_policy_that_loses_its_secret_is_told_to_whoever_deletes_it() {
        let key = ObjectKey::new(Kind::Secret, "shop", "s");
        let (with, without) = (|| found(&format!("{POLICY}{SECRET}")), || found(POLICY));
        let lost = of_removal(&key, without, with);
        let lost: Vec<_> = lost.iter().map(|finding| (finding.code, finding.object.to_string())).collect();
        assert_eq!(lost, [(Code::SecretMissing, "FilterPolicy shop/p".to_owned())]);
        assert!(of_removal(&key, with, with).is_empty(), "nothing is lost");
        assert!(of_removal(&key, without, without).is_empty(), "it was lost before");
    }

    #[test]
    fn an_apply_is_told_what_is_new_of_others_and_all_of_what_was_given() {
        let mut findings = found(POLICY);
        let object = ObjectKey::new(Kind::FilterPolicy, "shop", "p");
        let given = Change { action: Action::Unchanged, object, diff: String::new() };
        retain_new(&mut findings, &[given], || found(POLICY));
        assert!(findings.iter().any(is_consequence), "{findings:?}");
        retain_new(&mut findings, &[], || found(&format!("{POLICY}{SECRET}")));
        assert!(findings.iter().any(is_consequence), "it is new: {findings:?}");
        retain_new(&mut findings, &[], || found(POLICY));
        assert!(!findings.iter().any(is_consequence), "{findings:?}");
    }
}
