//! The operator API as a stranger reads it: schemathesis makes calls of the OpenAPI document and holds the answers against it.

use std::process::Command;

use serde_json::json;
use weft_tests::Mesh;

use super::programs::{python, script};
use super::run;

/// No answer is a server's error, and each has the status, the type and the shape that the document says.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,\
    response_headers_conformance,unsupported_method,ignored_auth";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs schemathesis: cargo xtask test --real"]
async fn the_api_does_what_its_document_says() {
    let limits = json!({ "max_api_calls_per_minute": 1_000_000, "max_open_calls_per_token": 1_000 });
    let mesh = Mesh::start_with(json!({ "limits": limits })).await;
    mesh.apply(
        "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop}\n\
         spec: {selector: {app: web}, ports: [{port: 80}]}\n",
    );
    let state = mesh.folder().join("control");
    let token = std::fs::read_to_string(state.join("operator.token")).unwrap();
    let base = format!("https://{}:15013", mesh.ip);
    let mut schemathesis = Command::new(python());
    schemathesis
        .args(["-m", "schemathesis.cli", "run", &format!("{base}/api/v1/openapi.json"), "--url", &base])
        .args(["--header", &format!("Authorization: Bearer {}", token.trim())])
        .arg("--tls-verify")
        .arg(state.join("ca.pem"))
        .args(["--checks", CHECKS, "--phases", "examples,coverage,fuzzing", "--max-examples", "30"])
        .args(["--seed", "1", "--generation-database", "none", "--suppress-health-check", "all"])
        .args(["--warnings", "off", "--no-shrink", "--request-timeout", "20", "--no-color"])
        .env("SCHEMATHESIS_HOOKS", script("schemathesis_hooks.py"))
        .current_dir(mesh.folder());
    let told = run(&mut schemathesis);
    assert!(told.contains("Test cases:"), "{told}");
    // It is as well as before.
    let after = mesh.weft(&["get", "services", "-A"]);
    assert_eq!(after.code, 0, "{}{}", after.out, after.err);
}
