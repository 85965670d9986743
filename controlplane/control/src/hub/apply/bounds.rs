//! Sizes of what is applied and of the Secrets' values that policies grant, and how many TrafficPolicies are for one
//! target.

use std::collections::BTreeSet;

use weft_policy::bundle::ObjectName;
use weft_policy::plan::{Action, Change, MAX_FOR_ONE, World, crowds, granted_bytes};
use weft_policy::resource::{Kind, ObjectKey};

use super::super::Draft;
use super::ApplyError;
use crate::config::Limits;

/// Refuses objects that are too large, and namespaces that grow too large: every proxy may be told of them.
pub(super) fn check(draft: &Draft, before: &World, changes: &[Change]) -> Result<(), ApplyError> {
    let Limits { max_object_bytes: object, max_namespace_bytes: namespace, .. } = draft.limits;
    let touched = || changes.iter().filter(|change| change.action != Action::Unchanged).map(|change| &change.object);
    let grown = |key: &ObjectKey, bytes: usize| before.get(key).is_none_or(|was| bytes > was.bytes());
    let sizes = touched().filter_map(|key| Some((key, draft.world.get(key)?.bytes())));
    let sizes = sizes.filter(|(key, bytes)| grown(key, *bytes));
    if let Some((key, bytes)) = sizes.filter(|(_, bytes)| *bytes > object).max_by_key(|(_, bytes)| *bytes) {
        let limit = "limits.max_object_bytes";
        return Err(ApplyError::Refused(format!("{key}: {bytes} bytes; an object has at most {object} ({limit})")));
    }
    let namespaces: BTreeSet<&str> = touched().map(|key| key.namespace.as_str()).collect();
    for name in namespaces {
        // What proxies are told of a policy has the values that it grants.
        let (now, grants) = (draft.world.applied_bytes(name), granted_bytes(&draft.world, name));
        let was = || before.applied_bytes(name) + granted_bytes(before, name);
        if now + grants > namespace && now + grants > was() {
            let limit = "limits.max_namespace_bytes";
            let secrets = match grants {
                0 => String::new(),
                _ => format!(", and its policies grant {grants} bytes of Secrets"),
            };
            let told =
                format!("namespace {name}: its objects would have {now} bytes{secrets}; at most {namespace} ({limit})");
            return Err(ApplyError::Refused(told));
        }
    }
    let policies = touched().filter(|key| key.kind == Kind::TrafficPolicy).map(ObjectKey::object_name);
    few_for_one(before, &draft.world, &policies.collect::<Vec<_>>())
}

/// Refuses more TrafficPolicies for one target than are read for each of its services.
fn few_for_one(before: &World, after: &World, policies: &[ObjectName]) -> Result<(), ApplyError> {
    let were = crowds(before, policies.iter());
    for (target, count) in crowds(after, policies.iter()) {
        if count > MAX_FOR_ONE && were.get(&target).is_none_or(|was| count > *was) {
            let told = format!("{target}: {count} TrafficPolicies would be for it; at most {MAX_FOR_ONE} may be");
            return Err(ApplyError::Refused(told));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::How;
    use super::*;
    use crate::hub::tests::{SHOP, hub_in, resources};

    #[tokio::test]
    async fn one_target_has_few_traffic_policies() {
        let dir = tempfile::tempdir().unwrap();
        let hub = hub_in(dir.path(), |_| {});
        hub.apply("me", resources(SHOP), How::Safely).await.unwrap();
        let apply = async |numbers: std::ops::Range<usize>, target: &str| {
            let policy = |number: usize| {
                format!(
                    "{{apiVersion: weft.dev/v1alpha1, kind: TrafficPolicy, metadata: {{name: p{number}, namespace: shop}}, spec: \
                     {{targetRefs: [{{{target}}}], retry: {{attempts: 1}}}}}}\n"
                )
            };
            let all: Vec<String> = numbers.map(policy).collect();
            hub.apply("me", resources(&all.join("---\n")), How::Safely).await.map_err(|error| error.to_string())
        };
        let (namespace, service) = ("kind: Namespace, name: shop", "kind: Service, name: web");
        apply(0..MAX_FOR_ONE, namespace).await.unwrap();
        let next = MAX_FOR_ONE..MAX_FOR_ONE + 1;
        let many = "Namespace shop: 17 TrafficPolicies would be for it; at most 16 may be";
        assert_eq!(apply(next.clone(), namespace).await.unwrap_err(), many);
        // Another target has room, and a policy that turns to the first is one more there.
        apply(next.clone(), service).await.unwrap();
        assert_eq!(apply(next.clone(), namespace).await.unwrap_err(), many);
        hub.delete("me", ObjectKey::new(Kind::TrafficPolicy, "shop", "p0"), How::Safely).await.unwrap();
        apply(next, namespace).await.unwrap();
    }

    #[tokio::test]
    async fn objects_and_namespaces_have_a_size() {
        let dir = tempfile::tempdir().unwrap();
        let hub = hub_in(dir.path(), |config| {
            (config.limits.max_object_bytes, config.limits.max_namespace_bytes) = (600, 1_000);
        });
        let service = |name: &str, namespace: &str, note: usize| {
            let note = "x".repeat(note);
            let text = format!(
                "{{apiVersion: v1, kind: Service, metadata: {{name: {name}, namespace: {namespace}, annotations: {{note: \
                 {note}}}}}, spec: {{selector: {{app: {name}}}, ports: [{{port: 80}}]}}}}"
            );
            resources(&text)
        };
        let apply = async |resources| hub.apply("me", resources, How::Safely).await.map_err(|error| error.to_string());
        let refused = apply(service("web", "shop", 600)).await.unwrap_err();
        assert!(refused.contains("Service shop/web: ") && refused.contains("an object has at most 600"), "{refused}");
        apply(service("web", "shop", 300)).await.unwrap();
        let refused = apply(service("till", "shop", 400)).await.unwrap_err();
        assert!(
            refused.contains("namespace shop: its objects would have ") && refused.contains("at most 1000"),
            "{refused}"
        );
        apply(service("till", "bank", 400)).await.unwrap();
        apply(service("web", "shop", 10)).await.unwrap();
        apply(service("till", "shop", 400)).await.unwrap();
    }

    #[tokio::test]
    async fn values_count_as_often_as_they_are_granted() {
        let values: Vec<_> = (0..16).map(|number| format!("{{name: s, key: k, as: a{number}}}")).collect();
        let (value, values) = ("x".repeat(300), values.join(", "));
        let text = format!(
            "{{apiVersion: weft.dev/v1alpha1, kind: Secret, metadata: {{name: s, namespace: shop}}, spec: {{stringData: \
             {{k: {value}}}}}}}\n---\n{{apiVersion: weft.dev/v1alpha1, kind: FilterPolicy, metadata: {{name: p, namespace: \
             shop}}, spec: {{filter: {{name: nowhere}}, capabilities: [{{secret: {{values: [{values}]}}}}]}}}}\n"
        );
        let refused = async |most: usize| {
            let dir = tempfile::tempdir().unwrap();
            let hub = hub_in(dir.path(), |config| config.limits.max_namespace_bytes = most);
            hub.apply("me", resources(&text), How::Safely).await.unwrap_err().to_string()
        };
        let large = refused(5_000).await;
        assert!(large.contains("and its policies grant 4800 bytes of Secrets; at most 5000"), "{large}");
        // There is room, and no such filter.
        let unknown = refused(20_000).await;
        assert!(unknown.contains("nowhere"), "{unknown}");
    }
}
