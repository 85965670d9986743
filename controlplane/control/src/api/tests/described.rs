//! The OpenAPI document against the router: each has what the other has, requests are taken and answers given as it says.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::golden::check_record;
use super::{filter, publish};
use crate::app::tests::{Control, Proxy, workload};

const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

/// Operations of the document: method, path, description.
fn operations(document: &Value) -> Vec<(String, String, Value)> {
    let mut all = Vec::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            all.push((method.clone(), path.clone(), operation.clone()));
        }
    }
    all
}

/// A path with something in the place of each parameter.
fn concrete(path: &str) -> String {
    let path = path.replace("{kind}", "services").replace("{namespace}", "shop").replace("{name}", "web");
    path.replace("{revision}", "0").replace("{proxy}", "shop%2Fweb")
}

async fn document(control: &Control) -> Value {
    control.request("get", "/api/v1/openapi.json").send().await.unwrap().json().await.unwrap()
}

#[tokio::test]
async fn the_document_lists_what_the_router_serves_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    let document = document(&control).await;
    let operations = operations(&document);
    let described: BTreeSet<_> = operations.iter().map(|(method, path, _)| (method.clone(), path.clone())).collect();
    let routed = super::super::endpoints().into_iter().map(|endpoint| {
        let method = serde_json::to_value(endpoint.method).unwrap();
        (method.as_str().unwrap().to_owned(), endpoint.path.to_owned())
    });
    assert_eq!(described, routed.collect());
    for path in operations.iter().map(|(_, path, _)| path).collect::<BTreeSet<_>>() {
        for method in METHODS {
            let status = control.request(method, &concrete(path)).send().await.unwrap().status().as_u16();
            let is_described = described.contains(&(method.to_owned(), path.clone()));
            assert_eq!(status != 405, is_described, "{method} {path}: {status}");
        }
    }
    for (method, path, operation) in &operations {
        let status = control.request(method, &concrete(path)).send().await.unwrap().status().as_u16();
        let expected = if operation["security"].is_array() { 401 } else { 200 };
        assert_eq!(status, expected, "{method} {path} without a token");
        let in_path = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
        assert_eq!(names(operation, "path"), in_path.map(str::to_owned).collect(), "{method} {path}");
    }
    let response = control.request("get", "/api/v1/nowhere").send().await.unwrap();
    assert_eq!(response.status(), 404);
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["error"]["code"], "not_found");
}

/// Names of the parameters in one place.
fn names(operation: &Value, place: &str) -> BTreeSet<String> {
    let parameters = operation["parameters"].as_array().into_iter().flatten();
    parameters.filter(|it| it["in"] == place).map(|it| it["name"].as_str().unwrap().to_owned()).collect()
}

/// The fields that a refusal of `surprise` says are known.
fn expected(refusal: &Value) -> BTreeSet<String> {
    let message = refusal["error"]["message"].as_str().unwrap_or_else(|| panic!("{refusal}"));
    let (_, known) = message.split_once("unknown field `surprise`, expected ").unwrap_or_else(|| panic!("{message}"));
    known.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[tokio::test]
async fn queries_and_bodies_are_taken_as_they_are_described() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    let document = document(&control).await;
    let mut checked = 0;
    for (method, path, operation) in operations(&document) {
        let query = names(&operation, "query");
        if !query.is_empty() {
            let url = format!("{}?surprise=1", concrete(&path));
            let (status, refusal) = control.call(&method, &url, Value::Null).await;
            assert_eq!((status, expected(&refusal)), (400, query), "{method} {path}");
            checked += 1;
        }
        if let Some(schema) = operation["requestBody"]["content"].get("application/json") {
            let properties = resolved(&document, &schema["schema"])["properties"].as_object().unwrap();
            let (status, refusal) = control.call(&method, &concrete(&path), json!({ "surprise": 1 })).await;
            assert_eq!((status, expected(&refusal)), (400, properties.keys().cloned().collect()), "{method} {path}");
            checked += 1;
        }
    }
    assert_eq!(checked, 21);
}

const WORLD: &str = "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web, namespace: shop}
spec: {parentRefs: [{group: '', kind: Service, name: web}], rules: [{backendRefs: [{name: web, port: 80}]}]}
";

#[tokio::test]
async fn answers_have_the_shape_that_is_described() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    let document = document(&control).await;
    control.apply(WORLD).await;
    let svid = control.join("shop/web").await;
    let told = workload("web-1", "shop", "127.0.0.11", Some("web"));
    let mut proxy = Proxy::connect(&control, &svid, "web-1", Some(told), Default::default()).await;
    proxy.take_until(|bundle| bundle.services.values().any(|service| !service.endpoints.is_empty())).await;
    let token = control.admin_token();
    assert_eq!(
        publish(&control, &token, "name=web&version=1.0.0", &filter(&["weft:filter/log@0.1.0"]), 1).await.0,
        200
    );
    let ban = json!({ "proxy": "shop/other", "reason": "r" });
    let changes = [
        ("post", "/api/v1/apply", json!({ "documents": [], "dry_run": true })),
        ("post", "/api/v1/lint", json!({ "documents": crate::app::tests::documents(WORLD) })),
        ("post", "/api/v1/explain", json!({ "from": "shop/web", "to": "web" })),
        ("post", "/api/v1/bans", ban),
        ("post", "/api/v1/authority/rotate", json!({ "signer": "root" })),
        ("post", "/api/v1/tokens", json!({ "kind": "join", "service_account": "shop/web", "services": ["till"] })),
        ("post", "/api/v1/tokens", json!({ "kind": "operator", "role": "viewer", "namespaces": ["shop"] })),
        ("delete", "/api/v1/resources/services/shop/none", Value::Null),
    ];
    let mut calls: Vec<_> = changes.map(|(method, path, body)| (method, path.to_owned(), path.to_owned(), body)).into();
    calls.last_mut().unwrap().1 = "/api/v1/resources/{kind}/{namespace}/{name}".to_owned();
    for (method, path, _) in operations(&document) {
        if method == "get" && !["/healthz", "/readyz", "/api/v1/snapshot"].contains(&path.as_str()) {
            calls.push(("get", path.clone(), concrete(&path), Value::Null));
        }
    }
    for kind in ["httproutes", "workloads", "filters"] {
        calls.push(("get", "/api/v1/resources/{kind}".to_owned(), format!("/api/v1/resources/{kind}"), Value::Null));
    }
    for (method, path, url, body) in calls {
        let (status, answer) = control.call(method, &url, body).await;
        let responses = &document["paths"][&path][method]["responses"];
        let response = if status == 200 { &responses["200"] } else { &responses["default"] };
        assert!(status == 200 || method == "delete", "{method} {url}: {status} {answer}");
        let wrong = faults(&document, &response["content"]["application/json"]["schema"], &answer, "");
        assert!(wrong.is_empty(), "{method} {url}: {wrong:?} in {answer}");
    }
}

/// The schema itself where this is a reference to it.
fn resolved<'d>(document: &'d Value, schema: &'d Value) -> &'d Value {
    match schema["$ref"].as_str() {
        Some(reference) => document.pointer(&reference[1..]).unwrap_or_else(|| panic!("no {reference}")),
        None => schema,
    }
}

/// Where a value is not as a schema has it, for the words of JSON Schema that the document uses. Fields that the schema
/// does not have are faults, too: a server says what it may answer.
fn faults(document: &Value, schema: &Value, value: &Value, place: &str) -> Vec<String> {
    let schema = resolved(document, schema);
    if let Some(choices) = schema["oneOf"].as_array() {
        let fits = choices.iter().any(|choice| faults(document, choice, value, place).is_empty());
        return if fits { vec![] } else { vec![format!("{place} is none of several")] };
    }
    let of_type = |name: &Value| match name.as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("null") => value.is_null(),
        _ => false,
    };
    let types = &schema["type"];
    let is_of_type = match types.as_array() {
        Some(names) => names.iter().any(of_type),
        None => types.is_null() || of_type(types),
    };
    if !is_of_type || schema["enum"].as_array().is_some_and(|words| !words.contains(value)) {
        return vec![format!("{place} is {value}, not {schema}")];
    }
    let mut wrong = Vec::new();
    let properties = schema["properties"].as_object();
    for required in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if value.get(required).is_none() {
            wrong.push(format!("{place}.{required} is missing"));
        }
    }
    for (key, part) in value.as_object().into_iter().flatten() {
        let place = format!("{place}.{key}");
        match (properties.and_then(|known| known.get(key)), schema.get("additionalProperties")) {
            (Some(schema), _) | (None, Some(schema @ Value::Object(_))) => {
                wrong.extend(faults(document, schema, part, &place));
            }
            (None, _) if properties.is_some() => wrong.push(format!("{place} is not described")),
            (None, _) => {}
        }
    }
    for (number, part) in value.as_array().into_iter().flatten().enumerate() {
        wrong.extend(faults(document, &schema["items"], part, &format!("{place}[{number}]")));
    }
    wrong
}

#[tokio::test]
async fn the_document_is_on_record() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    let mut document = document(&control).await;
    document["info"]["version"] = "RELEASE".into();
    let record = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/openapi.json");
    check_record(&record, &format!("{}\n", on_lines(&document, 3)));
}

/// JSON with a line for each operation and each schema.
fn on_lines(value: &Value, levels: usize) -> String {
    let Some(fields) = value.as_object().filter(|fields| levels > 0 && !fields.is_empty()) else {
        return value.to_string();
    };
    let lines: Vec<_> =
        fields.iter().map(|(key, part)| format!("{}: {}", json!(key), on_lines(part, levels - 1))).collect();
    format!("{{\n{}\n}}", lines.join(",\n"))
}
