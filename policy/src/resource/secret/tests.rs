//! No form of a Secret tells its values but the one that says so.

use serde_json::json;

use super::*;
use crate::bundle::Revision;
use crate::manifest::{from_json, parse, to_yaml};
use crate::plan::{Entry, World, diff_world};

const PLAIN: &str = "correct horse battery";
/// The same in base64.
const CODED: &str = "Y29ycmVjdCBob3JzZSBiYXR0ZXJ5";

fn secret(spec: &str) -> Resource {
    let text =
        format!("apiVersion: weft.dev/v1alpha1\nkind: Secret\nmetadata: {{name: s, namespace: shop}}\nspec: {spec}\n");
    parse("s.yaml", &text).unwrap_or_else(|wrong| panic!("{wrong:?}")).remove(0).resource
}

fn spec(resource: &Resource) -> &SecretSpec {
    let Resource::Secret(secret) = resource else { panic!("{}", resource.kind()) };
    &secret.spec
}

#[test]
fn a_value_is_the_same_however_it_is_written() {
    let plain = secret(&format!("{{stringData: {{k: {PLAIN}}}}}"));
    assert_eq!(plain, secret(&format!("{{data: {{k: {CODED}}}}}")));
    let both = secret(&format!("{{data: {{k: AAAA, other: AAAA}}, stringData: {{k: {PLAIN}}}}}"));
    assert_eq!(spec(&both).data["k"], spec(&plain).data["k"], "the text wins");
    assert_eq!(spec(&both).bytes(), PLAIN.len() + 3);
}

#[test]
fn no_form_tells_a_value() {
    let resource = secret(&format!("{{stringData: {{k: {PLAIN}}}}}"));
    let rotated = secret("{stringData: {k: another one}}");
    let entry = Entry::applied(resource.clone(), Revision(1), String::new());
    let (mut old, mut new) = (World::default(), World::default());
    old.insert(entry.clone());
    new.insert(Entry::applied(rotated, Revision(2), String::new()));
    let forms = [
        format!("{resource:?}"),
        format!("{resource:#?}"),
        format!("{entry:?}"),
        format!("{old:?}"),
        format!("{}", spec(&resource).data["k"]),
        to_yaml(&resource),
        serde_json::to_string(&resource).unwrap(),
        serde_json::to_string(&entry).unwrap(),
        serde_json::to_string(&diff_world(&old, &new)).unwrap(),
        serde_json::to_string(&diff_world(&World::default(), &old)).unwrap(),
    ];
    for form in &forms {
        assert!(form.contains("redacted ("), "{form}");
        for told in [PLAIN, CODED, "correct", "another one", "YW5vdGhlciBvbmU"] {
            assert!(!form.contains(told), "{form}");
        }
    }
    let shown = serde_json::to_value(&resource).unwrap()["spec"]["data"]["k"].clone();
    assert!(shown.as_str().is_some_and(|text| text.starts_with("redacted (21 bytes, sha256 ")), "{shown}");
    let pin = secret("{stringData: {k: \"4711\"}}");
    assert_eq!(
        spec(&pin).data["k"].to_string(),
        "redacted (4 bytes)",
        "its hash would tell it from ten thousand others"
    );
    assert_eq!(resource.revealed().unwrap()["spec"]["data"]["k"], json!(CODED));
    let again: Resource = serde_json::from_value(resource.revealed().unwrap()).unwrap();
    assert_eq!(again, resource, "as the store keeps it");
}

#[test]
fn what_is_shown_is_not_taken_for_the_value() {
    let resource = secret(&format!("{{stringData: {{k: {PLAIN}}}}}"));
    let shown = serde_json::to_value(&resource).unwrap();
    let wrong = from_json(shown.clone()).unwrap_err();
    assert_eq!(wrong.len(), 1);
    assert_eq!(wrong[0].key, "spec.data.k");
    assert!(wrong[0].message.starts_with("is what is shown of a value, not the value"), "{}", wrong[0].message);
    // Who reads what a control plane prints can still look at it.
    let read: Resource = serde_json::from_value(shown.clone()).unwrap();
    assert_eq!((spec(&read).data["k"].known(), spec(&read).bytes()), (None, 0));
    assert_eq!(serde_json::to_value(&read).unwrap(), shown);
}

#[test]
fn mistakes_are_told_without_what_was_written() {
    let check = |spec: serde_json::Value, key: &str, part: &str| {
        let document = json!({
            "apiVersion": "weft.dev/v1alpha1", "kind": "Secret", "metadata": {"name": "s", "namespace": "shop"}, "spec": spec,
        });
        let wrong = from_json(document).expect_err(part);
        let told: Vec<String> = wrong.iter().map(ToString::to_string).collect();
        assert!(told.iter().any(|told| told.starts_with(key) && told.contains(part)), "{told:?}");
        assert!(told.iter().all(|told| !told.contains("hunter") && !told.contains("4711")), "{told:?}");
    };
    let long = "h".repeat(MAX_SECRET_BYTES + 1);
    check(json!({"data": {"k": "hunter2"}}), "spec.data.k", "is not the base64");
    check(json!({"data": {"k": ""}}), "spec.data.k", "is not the base64");
    check(json!({"data": {"k": 4711}}), "spec.data.k", "is not a text");
    check(json!({"data": {"k": 47.11}}), "spec.data.k", "is not a text");
    check(json!({"data": {"k": ["hunter2"]}}), "spec.data.k", "is not a text");
    check(json!({"data": {"k": {"hunter2": 4711}}}), "spec.data.k", "is not a text");
    check(json!({"data": {"k": null}}), "spec.data.k", "is not a text");
    check(json!({"stringData": {"k": 4711}}), "spec.stringData.k", "is not a text");
    check(json!("hunter2"), "spec", "is not a mapping with `data`");
    check(json!(4711), "spec", "is not a mapping with `data`");
    check(json!(["hunter2"]), "spec", "a list");
    check(json!({"data": "hunter2"}), "spec.data", "is not a mapping");
    check(json!({"stringData": 4711}), "spec.stringData", "is not a mapping");
    check(json!({"stringData": {"k": ""}}), "spec.data.k", "0 bytes; a value has 1 to 16384");
    check(json!({"stringData": {"k": long}}), "spec.data.k", "16385 bytes; a value has 1 to 16384");
    check(json!({"stringData": {"k/l": "hunter2"}}), "spec.data.k/l", "is no name of a value");
    check(json!({"data": {}}), "spec.data", "0 values; a Secret has 1 to 64");
    let many: std::collections::BTreeMap<String, &str> = (0..65).map(|n| (format!("k{n}"), "hunter2")).collect();
    check(json!({"stringData": many}), "spec.data", "65 values");
    let large: std::collections::BTreeMap<String, String> =
        (0..17).map(|n| (format!("k{n}"), "h".repeat(MAX_SECRET_BYTES))).collect();
    check(json!({"stringData": large}), "spec.data", "278528 bytes in all; at most 262144");
}
