//! Inputs and the exact answers to them, side by side in `tests/golden`; `WEFT_BLESS=1` writes the answers anew. Manifests
//! as clusters print them are taken, and their printed statuses say what nothing acts on; bad calls and odd registrations
//! have their words.

use std::path::{Path, PathBuf};

use weft_policy::registration::{Registration, Told};

use super::*;

/// The inputs of a folder, in the order of their names.
fn inputs(folder: &str) -> Vec<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(folder);
    let paths = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let is_input = |path: &PathBuf| path.extension().is_some_and(|end| end != "out");
    let mut paths: Vec<_> = paths.filter(is_input).collect();
    paths.sort();
    paths
}

/// Compares with the answer beside an input.
fn check_answer(input: &Path, got: &str) {
    check_record(&PathBuf::from(format!("{}.out", input.display())), got);
}

/// Compares with what is on record.
pub(super) fn check_record(expected: &Path, got: &str) {
    if std::env::var_os("WEFT_BLESS").is_some() {
        std::fs::write(expected, got).unwrap();
    }
    let expect = std::fs::read_to_string(expected).unwrap_or_else(|error| panic!("{}: {error}", expected.display()));
    assert_eq!(got, expect, "{}", expected.display());
}

/// `Kind namespace/name type=status reason: message` for each condition of an object as it is printed.
fn conditions(object: &Value) -> Vec<String> {
    let status = &object["status"];
    let parents = status["parents"].as_array().into_iter().flatten();
    let holders = parents.map(|parent| (format!(" {}", parent["parentRef"]["name"].as_str().unwrap()), parent));
    let mut lines = Vec::new();
    for (of, holder) in holders.chain([(String::new(), status)]) {
        for condition in holder["conditions"].as_array().into_iter().flatten() {
            assert_eq!(condition["observedGeneration"], object["metadata"]["generation"], "{condition}");
            let text = |key: &str| condition[key].as_str().unwrap().to_owned();
            let (kind, metadata) = (object["kind"].as_str().unwrap(), &object["metadata"]);
            let place = [&metadata["namespace"], &metadata["name"]].map(|part| part.as_str().unwrap_or("_"));
            let condition = [text("type"), text("status"), text("reason"), text("message")];
            let [kind_of, status, reason, message] = condition;
            lines.push(format!("{kind} {}{of} {kind_of}={status} {reason}: {message}", place.join("/")));
        }
    }
    lines
}

#[tokio::test]
async fn what_clusters_print_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    let manifests = inputs("taken");
    assert!(manifests.len() >= 20, "{manifests:?}");
    let mut given = Vec::new();
    for path in &manifests {
        let text = std::fs::read_to_string(path).unwrap();
        let documents = weft_policy::manifest::parse(&path.display().to_string(), &text)
            .unwrap_or_else(|errors| panic!("{}", errors.iter().map(|e| format!("{e}\n")).collect::<String>()));
        let bodies: Vec<_> = documents.iter().map(|document| json!(document.resource)).collect();
        let (status, body) = control.call("post", "/api/v1/apply", json!({ "documents": bodies })).await;
        assert_eq!(status, 200, "{}: {body}", path.display());
        given.push(documents.into_iter().map(|document| document.resource.key()).collect::<Vec<_>>());
    }
    for (path, keys) in manifests.iter().zip(given) {
        let mut lines = Vec::new();
        for key in keys {
            let namespace = if key.namespace.is_empty() { "_" } else { &key.namespace };
            let object = format!("/api/v1/resources/{}/{namespace}/{}", key.kind.plural(), key.name);
            let (status, object) = control.call("get", &object, Value::Null).await;
            assert_eq!(status, 200, "{object}");
            lines.extend(conditions(&object));
            // The API's own print is taken again, and means the same.
            let again = json!({ "documents": [object] });
            let (status, body) = control.call("post", "/api/v1/apply", again).await;
            assert_eq!((status, &body["changes"][0]["action"]), (200, &json!("unchanged")), "{body}");
        }
        check_answer(path, &lines.iter().map(|line| format!("{line}\n")).collect::<String>());
    }
}

/// Shapes that were refused or misread once: each by itself, on an empty mesh, with what an apply would say.
#[tokio::test]
async fn each_shape_of_a_cluster_has_its_answer() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    let shapes = inputs("shapes");
    assert!(shapes.len() >= 14, "{shapes:?}");
    for path in shapes {
        let text = std::fs::read_to_string(&path).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        let documents = match weft_policy::manifest::parse(name, &text) {
            Ok(documents) => documents,
            Err(errors) => {
                check_answer(&path, &errors.iter().map(|error| format!("{error}\n")).collect::<String>());
                continue;
            }
        };
        let bodies: Vec<_> = documents.iter().map(|document| json!(document.resource)).collect();
        let (status, body) =
            control.call("post", "/api/v1/apply", json!({ "documents": bodies, "dry_run": true })).await;
        let told = body["problems"].as_array().or(body["error"]["details"].as_array()).into_iter().flatten();
        let told = told.map(|problem| {
            let of = |key: &str| problem[key].as_str().unwrap_or_default().to_owned();
            format!("{} {}: {}: {}\n", of("severity"), of("code"), of("key"), of("message"))
        });
        check_answer(&path, &format!("{status}\n{}", told.collect::<String>()));
    }
}

#[tokio::test]
async fn a_list_is_one_document_of_several_resources() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    let namespace = |name: &str| json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } });
    let list = |items: Value| json!({ "documents": [{ "apiVersion": "v1", "kind": "List", "items": items }] });
    let (status, body) = control.call("post", "/api/v1/apply", list(json!([namespace("a"), namespace("b")]))).await;
    assert_eq!((status, body["changes"].as_array().map(Vec::len)), (200, Some(2)), "{body}");
    let bad =
        json!([namespace("A"), { "apiVersion": "v1", "kind": "Servcie", "metadata": { "name": "b" } }, namespace("c")]);
    let (status, body) = control.call("post", "/api/v1/apply", list(bad)).await;
    let details = body["error"]["details"].as_array().unwrap();
    let told: Vec<_> = details.iter().map(|detail| (&detail["document"], detail["key"].as_str().unwrap())).collect();
    let zero = json!(0);
    assert_eq!(
        (status, &told[..]),
        (400, &[(&zero, "items[0].metadata.name"), (&zero, "items[1].kind"), (&zero, "items[1].spec")][..]),
        "{body}"
    );
}

/// Bad calls with their answers: `tests/golden/calls` holds both, side by side.
#[tokio::test]
async fn every_bad_call_has_its_answer() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    let paths = inputs("calls");
    assert!(paths.len() >= 20, "{paths:?}");
    let mut tokens = std::collections::BTreeMap::new();
    for path in paths {
        let call: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let (method, place) = (call["method"].as_str().unwrap(), call["path"].as_str().unwrap());
        let (status, body) = match call["role"].as_str() {
            Some(role) => {
                if !tokens.contains_key(role) {
                    tokens.insert(role.to_owned(), token(&control, role).await);
                }
                control.call_as(&tokens[role], method, place, call["body"].clone()).await
            }
            None => {
                let answer = control.request(method, place).json(&call["body"]).send().await.unwrap();
                (answer.status().as_u16(), answer.json().await.unwrap())
            }
        };
        assert!((400..500).contains(&status), "{}: {status} {body}", path.display());
        let got = format!("{status}\n{}\n", serde_json::to_string_pretty(&body).unwrap());
        check_answer(&path, &got);
    }
}

fn told(value: &Value) -> Told {
    let text = |key: &str| value[key].as_str().unwrap().to_owned();
    let number = |value: &Value| u32::try_from(value.as_u64().unwrap()).unwrap();
    let port = |port: &Value| (number(&port[0]), serde_json::from_value(port[1].clone()).unwrap());
    Told {
        namespace: text("namespace"),
        name: text("name"),
        address: text("address"),
        mesh_address: text("mesh_address"),
        ports: value["ports"].as_array().unwrap().iter().map(port).collect(),
        port_names: value
            .get("port_names")
            .map(|names| serde_json::from_value(names.clone()).unwrap())
            .unwrap_or_default(),
        labels: serde_json::from_value(value["labels"].clone()).unwrap(),
        service: Some(text("service")),
        weight: number(&value["weight"]),
    }
}

#[test]
fn every_odd_registration_has_its_words() {
    let paths = inputs("registrations");
    assert!(paths.len() >= 15, "{paths:?}");
    let identity = "spiffe://cluster.local/ns/shop/sa/web".parse().unwrap();
    for path in paths {
        let value: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let faults = Registration::new(told(&value), &identity).map(drop).unwrap_err();
        check_answer(&path, &faults.iter().map(|fault| format!("{fault}\n")).collect::<String>());
    }
}
