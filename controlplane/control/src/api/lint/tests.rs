//! Findings by the API: of the mesh as it is, as it would be, and where an apply is refused for them.

use serde_json::{Value, json};

use crate::app::tests::{Control, documents};

const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
";

const NEVER: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r, namespace: shop}
spec:
  parentRefs: [{group: '', kind: Service, name: web}]
  rules:
    - filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: Host, value: other}]}}]
      backendRefs: [{name: wep, port: 80}]
";

fn codes(answer: &Value) -> Vec<String> {
    let findings = answer["findings"].as_array().unwrap();
    findings
        .iter()
        .map(|finding| format!("{} {}", finding["code"].as_str().unwrap(), finding["name"].as_str().unwrap()))
        .collect()
}

#[tokio::test]
async fn what_an_apply_would_bring_is_told_and_certain_mistakes_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    let (status, _) = control.call("post", "/api/v1/apply", json!({ "documents": documents(SERVICE) })).await;
    assert_eq!(status, 200);
    let (status, as_it_is) = control.call("get", "/api/v1/lint", Value::Null).await;
    assert_eq!((status, codes(&as_it_is)), (200, vec!["WEFT302 web".to_owned()]), "{as_it_is}");
    let (status, other) = control.call("get", "/api/v1/lint?kind=service&namespace=shop&name=other", Value::Null).await;
    assert_eq!((status, codes(&other)), (200, vec![]), "{other}");
    let (status, wrong) = control.call("get", "/api/v1/lint?kind=nothing", Value::Null).await;
    assert_eq!((status, &wrong["error"]["code"]), (400, &json!("invalid")), "{wrong}");

    let with = json!({ "documents": documents(NEVER) });
    let (status, as_it_would_be) = control.call("post", "/api/v1/lint", with.clone()).await;
    let expect = ["WEFT302 web", "WEFT114 r", "WEFT103 r", "WEFT118 r"].map(str::to_owned).to_vec();
    assert_eq!((status, codes(&as_it_would_be)), (200, expect), "{as_it_would_be}");
    let (status, refused) = control.call("post", "/api/v1/apply", with).await;
    assert_eq!(status, 422, "{refused}");
    let message = refused["error"]["message"].as_str().unwrap();
    assert!(message.contains("host can't be changed"), "{message}");
    assert!(refused["error"]["details"][0]["message"].as_str().unwrap().ends_with("[WEFT114]"), "{refused}");
    let key = "spec.rules[0].filters[0].requestHeaderModifier.set[0].name";
    let detail = &refused["error"]["details"][0];
    assert_eq!((&detail["file"], &detail["key"]), (&json!("documents[0]"), &json!(key)));
    let fixed = documents(&NEVER.replace("Host", "x-host"));
    let (status, applied) = control.call("post", "/api/v1/apply", json!({ "documents": fixed })).await;
    let problems = applied["problems"].as_array().unwrap();
    assert!(status == 200 && problems.iter().any(|problem| problem["code"] == "WEFT103"), "{applied}");
}
