//! Whoever may not read an object learns nothing of it: the answers for what is hidden are those for what is missing.

use serde_json::{Value, json};

use super::SERVICE;
use crate::app::tests::{Control, documents};
use crate::artifact::tests::publication;

const BANK: &str = "
apiVersion: v1
kind: Service
metadata: {name: till, namespace: bank}
spec: {selector: {app: till}, clusterIP: 198.51.100.7, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: weft.dev/v1alpha1
kind: Workload
metadata: {name: till, namespace: bank, labels: {app: till}}
spec: {address: 192.0.2.7, ports: [{port: 8080}], serviceAccount: till}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: till, namespace: bank}
spec: {parentRefs: [{group: '', kind: Service, name: till}], rules: [{backendRefs: [{name: till, port: 80}]}]}
";

/// A route of shop that names a service of bank.
fn route(name: &str) -> Value {
    let text = "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r, namespace: shop}
spec:
  parentRefs: [{group: '', kind: Service, name: NAME, namespace: bank}, {group: '', kind: Service, name: web}]
  rules: [{backendRefs: [{name: NAME, namespace: bank, port: 80}]}]
";
    json!(documents(&text.replace("NAME", name)))
}

/// The answers to every call that names something of bank, without the name and without numbers.
async fn answers(control: &Control, token: &str, name: &str, last: &str) -> Vec<String> {
    let explain = |to: &str| ("post", "/api/v1/explain", json!({ "from": "shop/web", "to": to }));
    let (virtual_address, address) = (format!("198.51.100.{last}"), format!("192.0.2.{last}"));
    let object = format!("/api/v1/resources/services/bank/{name}");
    let (evict, revoke) = (format!("/api/v1/proxies/{name}/evict"), format!("/api/v1/tokens/{name}"));
    let withdraw = json!({ "proxy": format!("bank/{name}"), "all": true });
    let principal = format!(
        "{{apiVersion: weft.dev/v1alpha1, kind: AccessPolicy, metadata: {{name: p, namespace: shop}}, spec: {{action: Deny, \
         rules: [{{from: [{{serviceAccounts: ['bank/{name}']}}]}}]}}}}"
    );
    let calls = [
        explain(&format!("{name}.bank")),
        explain(&format!("{name}.{name}.bank")),
        explain(&virtual_address),
        explain(&address),
        ("get", object.as_str(), Value::Null),
        ("delete", object.as_str(), Value::Null),
        ("post", evict.as_str(), Value::Null),
        ("post", "/api/v1/bans", json!({ "proxy": name })),
        ("post", "/api/v1/grants/withdraw", withdraw),
        ("post", "/api/v1/lint", json!({ "documents": route(name) })),
        ("post", "/api/v1/lint", json!({ "documents": documents(&principal) })),
        ("post", "/api/v1/apply", json!({ "documents": route(name), "dry_run": true })),
        ("post", "/api/v1/apply", json!({ "documents": route(name) })),
        ("get", "/api/v1/resources/httproutes/shop/r", Value::Null),
        ("get", "/api/v1/lint", Value::Null),
        ("delete", "/api/v1/resources/httproutes/shop/r", Value::Null),
        ("delete", revoke.as_str(), Value::Null),
        ("post", "/api/v1/tokens", json!({ "kind": "join", "service_account": "shop/web", "name": name })),
        ("delete", revoke.as_str(), Value::Null),
    ];
    let mut answers = Vec::new();
    for (method, path, body) in calls {
        let (status, mut body) = control.call_as(token, method, path, body).await;
        for told in ["uid", "creationTimestamp"] {
            if let Some(metadata) = body["metadata"].as_object_mut() {
                metadata.remove(told);
            }
        }
        for told in ["token", "id", "revoked"] {
            if let Some(answer) = body.as_object_mut() {
                answer.remove(told);
            }
        }
        let text = format!("{method} {path}: {status} {body}").replace(name, "NAME");
        let words = text.split(|c: char| c.is_ascii_digit()).filter(|part| !part.is_empty());
        answers.push(words.collect::<Vec<_>>().join("#"));
    }
    answers
}

async fn bound(control: &Control, role: &str) -> String {
    let body = json!({ "kind": "operator", "role": role, "namespaces": ["shop"], "addresses": ["192.0.2.0/24"] });
    let (status, body) = control.call("post", "/api/v1/tokens", body).await;
    assert_eq!(status, 200, "{body}");
    body["token"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn what_is_hidden_is_answered_for_as_what_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    control.apply(SERVICE).await;
    control.apply(BANK).await;
    let named = json!({ "kind": "operator", "role": "viewer", "name": "till" });
    assert_eq!(control.call("post", "/api/v1/tokens", named).await.0, 200);
    for role in ["viewer", "operator", "admin"] {
        let token = bound(&control, role).await;
        let (hidden, missing) =
            (answers(&control, &token, "till", "7").await, answers(&control, &token, "none", "8").await);
        for (hidden, missing) in hidden.iter().zip(&missing) {
            assert_eq!(hidden, missing, "{role}");
        }
        if role != "viewer" {
            assert!(hidden[13].contains("NotReadable") && hidden[13].contains("\"Unknown\""), "{}", hidden[13]);
        }
    }
    // Whoever may read all is told.
    let (_, body) = control.call("post", "/api/v1/explain", json!({ "from": "shop/web", "to": "till.bank" })).await;
    assert_eq!(body["service"], "bank/till", "{body}");
}

/// The callouts of a policy tell no more of a Service than the backends of a route do.
#[tokio::test]
async fn callouts_tell_nothing_of_what_is_hidden() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    control.apply(SERVICE).await;
    control.apply(BANK).await;
    control.app.hub.publish_filter("me", publication("noop", "1.0.0", "weft:filter/log@0.1.0")).await.unwrap();
    let bound = bound(&control, "viewer").await;
    let body = json!({ "kind": "operator", "role": "viewer" });
    let free = control.call("post", "/api/v1/tokens", body).await.1["token"].as_str().unwrap().to_owned();
    let policy = |name: &str| {
        format!(
            "{{apiVersion: weft.dev/v1alpha1, kind: FilterPolicy, metadata: {{name: p, namespace: shop}}, spec: {{filter: {{name: \
             noop}}, capabilities: [{{callout: {{services: [{{name: {name}, namespace: bank, port: 80}}]}}}}]}}}}"
        )
    };
    let resolved = async |token: &str| {
        let (_, shown) = control.call_as(token, "get", "/api/v1/resources/filterpolicies/shop/p", Value::Null).await;
        let conditions = shown["status"]["conditions"].as_array().unwrap_or_else(|| panic!("{shown}"));
        let found = conditions.iter().find(|condition| condition["type"] == "CalloutsResolved");
        let found = found.unwrap_or_else(|| panic!("{shown}"));
        json!([found["status"], found["reason"]])
    };
    for (name, is_there) in [("till", true), ("none", false)] {
        control.apply(&policy(name)).await;
        assert_eq!(resolved(&bound).await, json!(["Unknown", "NotReadable"]), "{name}");
        assert_eq!(resolved(&free).await[0] == "True", is_there, "{name}");
    }
}

#[tokio::test]
async fn a_refusal_names_no_object_of_another_namespace() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    control.apply(BANK).await;
    let token = bound(&control, "operator").await;
    // Before the other in the order of names, and behind it.
    for name in ["a", "z"] {
        let text = format!(
            "{{apiVersion: weft.dev/v1alpha1, kind: Workload, metadata: {{name: {name}, namespace: shop}}, spec: {{address: \
             192.0.2.7, ports: [{{port: 8080}}], serviceAccount: web}}}}"
        );
        for dry_run in [true, false] {
            let body = json!({ "documents": documents(&text), "dry_run": dry_run });
            let (status, body) = control.call_as(&token, "post", "/api/v1/apply", body).await;
            let told = body.to_string();
            assert!(status == 422 && told.contains("an object that this token may not read"), "{told}");
            assert!(!told.contains("bank") && !told.contains("till"), "{told}");
        }
    }
}

#[tokio::test]
async fn who_did_something_is_told_as_far_as_his_token_may_be_known() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    control.apply(SERVICE).await;
    control.join_token("shop/web").await;
    control.call("post", "/api/v1/bans", json!({ "proxy": "shop/other" })).await;
    let (_, own) = control.call("get", "/api/v1/tokens", Value::Null).await;
    let first = own["tokens"].as_array().unwrap().iter().find(|token| token["name"] == "first-operator").unwrap();
    let admin = first["id"].as_str().unwrap().to_owned();
    for role in ["viewer", "operator"] {
        let token = bound(&control, role).await;
        for path in ["/api/v1/events", "/api/v1/bans", "/api/v1/tokens"] {
            let (status, body) = control.call_as(&token, "get", path, Value::Null).await;
            let told = body.to_string();
            assert!(status == 403 || told.contains("\"operator\""), "{told}");
            assert!(!told.contains(&admin) && !told.contains("first-operator"), "{role} {path}: {told}");
        }
        let path = format!("/api/v1/events?actor={admin}");
        assert_eq!(
            control.call_as(&token, "get", &path, Value::Null).await.1["entries"],
            json!([]),
            "no filter tells it"
        );
    }
    let (_, all) = control.call("get", "/api/v1/events", Value::Null).await;
    assert!(all.to_string().contains(&admin), "{all}");
}
