//! The API over TLS: roles, errors in one shape, filters, and the description against the router.

mod described;
mod reach;
mod secrets;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use weft_policy::wire::v1;

use crate::app::tests::{Control, documents};
use crate::artifact::tests::{component, sign, state_of};
use crate::token::TokenHash;

mod golden;
mod hidden;
mod hostile;
mod status;

const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
";

async fn token(control: &Control, role: &str) -> String {
    let (status, body) = control.call("post", "/api/v1/tokens", json!({ "kind": "operator", "role": role })).await;
    assert_eq!(status, 200, "{body}");
    body["token"].as_str().unwrap().to_owned()
}

async fn publish(control: &Control, token: &str, query: &str, bytes: &[u8], seed: u8) -> (u16, Value) {
    let (signature, key) = sign(bytes, seed);
    let told = |field: &str| query.split('&').find_map(|pair| pair.strip_prefix(field)?.strip_prefix('='));
    let stated = state_of(bytes, told("name").unwrap(), told("version").unwrap(), seed);
    let request = control.request("post", &format!("/api/v1/filters?{query}")).bearer_auth(token);
    let request = request.header("content-type", "application/wasm").header("weft-signature", signature);
    let request = request.header("weft-statement", STANDARD.encode(stated.text));
    let request = request.header("weft-statement-signature", stated.signature);
    let response = request.header("weft-public-key", key).body(bytes.to_vec()).send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

fn filter(imports: &[&str]) -> Vec<u8> {
    component(imports, &["configure", "on-connection", "on-request-head", "on-response-head", "on-done"])
}

#[tokio::test]
async fn roles_allow_what_they_say() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    let bytes = filter(&["weft:filter/log@0.1.0"]);
    let dry = json!({ "documents": documents(SERVICE), "dry_run": true });
    let wet = json!({ "documents": documents(SERVICE) });
    let join = json!({ "kind": "join", "service_account": "shop/web" });
    let person = json!({ "kind": "operator", "role": "viewer" });
    for (role, reads, changes, joins, publishes, persons) in [
        ("viewer", 200, 403, 403, 403, 403),
        ("operator", 200, 200, 200, 403, 403),
        ("publisher", 200, 403, 403, 200, 403),
        ("admin", 200, 200, 200, 200, 200),
    ] {
        let token = token(&control, role).await;
        let call =
            async |method: &str, path: &str, body: &Value| control.call_as(&token, method, path, body.clone()).await.0;
        assert_eq!(call("get", "/api/v1/proxies", &Value::Null).await, reads, "{role}");
        assert_eq!(call("post", "/api/v1/apply", &dry).await, reads, "{role}");
        assert_eq!(call("post", "/api/v1/apply", &wet).await, changes, "{role}");
        assert_eq!(call("post", "/api/v1/tokens", &join).await, joins, "{role}");
        assert_eq!(call("post", "/api/v1/tokens", &person).await, persons, "{role}");
        assert_eq!(publish(&control, &token, "name=noop&version=1.0.0", &bytes, 1).await.0, publishes, "{role}");
        let deleted = call("delete", "/api/v1/resources/services/shop/web", &Value::Null).await;
        assert_eq!(deleted, changes, "{role}");
    }
    for (token, expect) in [("weft_op_wrong", "not known"), (control.join_token("a/b").await.as_str(), "join token")] {
        let (status, body) = control.call_as(token, "get", "/api/v1/proxies", Value::Null).await;
        assert_eq!(status, 401);
        assert!(body["error"]["message"].as_str().unwrap().contains(expect), "{body}");
    }
}

#[tokio::test]
async fn bad_input_is_told_where_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    let good = documents(SERVICE).remove(0);
    let mut bad = good.clone();
    bad["spec"]["prots"] = json!([]);
    let (status, body) = control.call("post", "/api/v1/apply", json!({ "documents": [good, bad] })).await;
    assert_eq!((status, body["error"]["code"].as_str()), (400, Some("invalid")));
    let detail = &body["error"]["details"][0];
    assert_eq!((&detail["file"], &detail["document"]), (&json!("documents[1]"), &json!(1)));
    assert!(detail["message"].as_str().unwrap().contains("prots"), "{body}");
    let (_, list) = control.call("get", "/api/v1/resources/services", Value::Null).await;
    assert_eq!((&list["revision"], &list["items"]), (&json!(0), &json!([])));

    for (method, path, body, expect) in [
        ("post", "/api/v1/apply", json!({ "documents": 1 }), 400),
        ("post", "/api/v1/apply", json!({ "documents": [], "surprise": 1 }), 400),
        ("get", "/api/v1/resources/gizmos", Value::Null, 404),
        ("get", "/api/v1/resources/services/shop/none", Value::Null, 404),
        ("get", "/api/v1/resources/services/_/none", Value::Null, 400),
        ("delete", "/api/v1/resources/services/shop/none", Value::Null, 404),
        ("get", "/api/v1/revisions/99/status", Value::Null, 404),
        ("get", "/api/v1/revisions/x/status", Value::Null, 400),
        ("get", "/api/v1/audit?limit=many", Value::Null, 400),
        ("get", "/api/v1/filters/none", Value::Null, 404),
        ("post", "/api/v1/tokens", json!({ "kind": "join", "service_account": "UPPER/x" }), 400),
        ("post", "/api/v1/tokens", json!({ "kind": "join", "service_account": "a/b", "uses": 0 }), 400),
        ("post", "/api/v1/explain", json!({ "from": "x", "to": "web" }), 400),
    ] {
        let (status, answer) = control.call(method, path, body).await;
        assert_eq!(status, expect, "{method} {path}: {answer}");
        assert!(!answer["error"]["message"].as_str().unwrap().is_empty(), "{path}");
    }
}

#[tokio::test]
async fn resources_are_shown_as_they_can_be_applied_again() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    let revision = control.apply(SERVICE).await;
    let (status, shown) = control.call("get", "/api/v1/resources/svc/shop/web", Value::Null).await;
    assert_eq!(status, 200);
    assert_eq!(shown["metadata"]["revision"], json!(revision));
    assert_eq!(shown["metadata"]["uid"].as_str().unwrap().len(), 36);
    let made = shown["metadata"]["creationTimestamp"].as_str().unwrap();
    let made = time::OffsetDateTime::parse(made, &time::format_description::well_known::Rfc3339).unwrap();
    assert!((0..60).contains(&(crate::now_unix() - made.unix_timestamp())), "{shown}");
    control.apply(&SERVICE.replace("8080", "8081")).await;
    let (_, changed) = control.call("get", "/api/v1/resources/svc/shop/web", Value::Null).await;
    assert_eq!(changed["metadata"]["creationTimestamp"], shown["metadata"]["creationTimestamp"]);
    control.apply(SERVICE).await;
    let (_, again) = control.call("post", "/api/v1/apply", json!({ "documents": [shown] })).await;
    assert_eq!(again["changes"][0]["action"], "unchanged", "{again}");
    let explain = json!({ "from": "shop/client", "to": "web" });
    let (status, explanation) = control.call("post", "/api/v1/explain", explain).await;
    assert_eq!((status, &explanation["service"]), (200, &json!("shop/web")), "{explanation}");
}

#[tokio::test]
async fn nobody_overwrites_what_another_has_changed_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    control.apply(SERVICE).await;
    let path = "/api/v1/resources/services/shop/web";
    let (_, mine) = control.call("get", path, Value::Null).await;
    let edited = |port: u16| {
        let mut document = mine.clone();
        document["spec"]["ports"][0]["targetPort"] = port.into();
        json!({ "documents": [document], "if_unchanged": true })
    };
    let second = control.apply(&SERVICE.replace("8080", "8081")).await;
    for dry_run in [true, false] {
        let mut request = edited(8082);
        request["dry_run"] = dry_run.into();
        let (status, body) = control.call("post", "/api/v1/apply", request).await;
        assert_eq!((status, &body["error"]["code"]), (409, &json!("conflict")), "{body}");
        let text = body["error"]["message"].as_str().unwrap();
        assert_eq!(text, "Service shop/web was changed meanwhile: it is of revision 2, not 1; nothing was applied");
    }
    let delete = async |tag: &str| {
        let request = control.request("delete", path).bearer_auth(control.admin_token());
        request.header("if-match", tag).send().await.unwrap().status().as_u16()
    };
    assert_eq!(delete("\"1\"").await, 412);
    assert_eq!(delete("2").await, 400);
    let shown = control.request("get", path).bearer_auth(control.admin_token()).send().await.unwrap();
    let tag = shown.headers()["etag"].to_str().unwrap().to_owned();
    assert_eq!(tag, format!("\"{second}\""));
    let mut request = edited(8082);
    request["documents"][0]["metadata"]["revision"] = second.into();
    assert_eq!(control.call("post", "/api/v1/apply", request).await.0, 200);
    assert_eq!(delete("\"3\"").await, 200);
    let (status, body) = control.call("post", "/api/v1/apply", edited(8083)).await;
    assert_eq!(status, 409);
    assert!(body["error"]["message"].as_str().unwrap().contains("is not there any more"), "{body}");
    // Who doesn't ask for it applies as ever.
    assert_eq!(control.call("post", "/api/v1/apply", json!({ "documents": [mine] })).await.0, 200);
}

#[tokio::test]
async fn a_list_is_waited_for_until_it_differs() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    let revision = control.apply(SERVICE).await;
    let path = format!("/api/v1/resources/services?namespace=shop&after={revision}&wait_ms=10000");
    let watching = control.call("get", &path, Value::Null);
    let changing = async {
        // Of another kind, of another namespace: neither ends the wait.
        control.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: other}\n").await;
        control.apply(&SERVICE.replace("namespace: shop", "namespace: other")).await;
        control.apply(&SERVICE.replace("8080", "8081")).await
    };
    let ((status, list), last) = tokio::join!(watching, changing);
    assert_eq!((status, &list["items"][0]["spec"]["ports"][0]["targetPort"]), (200, &json!(8081)), "{list}");
    assert_eq!(list["revision"], json!(last));
    // An older list is told at once; one that is the same at the end of the wait.
    let (_, list) = control.call("get", "/api/v1/resources/services?after=1&wait_ms=10000", Value::Null).await;
    assert_eq!(list["revision"], json!(last));
    let path = format!("/api/v1/resources/services?after={last}&wait_ms=1");
    assert_eq!(control.call("get", &path, Value::Null).await.1["revision"], json!(last));
}

#[tokio::test]
async fn filters_are_published_verified_and_fetched_from_where_one_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    let admin = control.admin_token();
    let bytes = filter(&["weft:filter/log@0.1.0"]);
    let (status, published) = publish(&control, &admin, "name=noop&version=1.0.0", &bytes, 1).await;
    assert_eq!(status, 200, "{published}");
    let digest = published["digest"].as_str().unwrap().to_owned();
    assert_eq!(publish(&control, &admin, "name=noop&version=1.0.0", &bytes, 1).await.0, 200, "the same again is fine");
    let other = filter(&["weft:filter/metrics@0.1.0"]);
    let (status, body) = publish(&control, &admin, "name=noop&version=1.0.0", &other, 1).await;
    assert_eq!(status, 409, "{body}");
    let (status, body) = publish(&control, &admin, "name=noop&version=1.1.0", &other, 2).await;
    assert!(status == 409 && body["error"]["message"].as_str().unwrap().contains("--accept-new-key"), "{body}");
    let (status, newer) = publish(&control, &admin, "name=noop&version=1.1.0&accept_new_key=true", &other, 2).await;
    assert_eq!(status, 200, "{newer}");
    assert_eq!(publish(&control, &admin, "name=noop&version=one", &bytes, 1).await.0, 400);
    let foreign = filter(&["wasi:sockets/tcp@0.2.0"]);
    let (status, body) = publish(&control, &admin, "name=evil&version=1.0.0", &foreign, 1).await;
    assert!(status == 422 && body["error"]["message"].as_str().unwrap().contains("wasi:sockets"), "{body}");

    assert_eq!(control.call("post", "/api/v1/filters/noop/promote?version=1.1.0", Value::Null).await.0, 200);
    let (_, shown) = control.call("get", "/api/v1/resources/filters/weft-system/noop", Value::Null).await;
    assert_eq!(shown["spec"]["version"], "1.1.0");

    let svid = control.join("shop/web").await;
    let mut client = control.grpc(Some(&svid)).await;
    // Nobody gets what none of its workloads runs.
    let (old, digest) = (digest, newer["digest"].as_str().unwrap().to_owned());
    let fetch = v1::FetchFilterRequest { digest: digest.clone(), offset: 0 };
    assert_eq!(client.fetch_filter(fetch).await.err().unwrap().code(), tonic::Code::NotFound);
    control
        .apply(
            "apiVersion: weft.dev/v1alpha1\nkind: Workload\nmetadata: {name: web-1, namespace: shop}\n\
             spec: {address: 127.0.0.11, ports: [{port: 8080}], serviceAccount: web}\n---\n\
             apiVersion: weft.dev/v1alpha1\nkind: FilterPolicy\nmetadata: {name: f, namespace: shop}\n\
             spec: {filter: {name: noop}}\n",
        )
        .await;
    let bytes = other;
    for offset in [0_usize, 100, bytes.len()] {
        let request = v1::FetchFilterRequest { digest: digest.clone(), offset: offset as u64 };
        let mut stream = client.fetch_filter(request).await.unwrap().into_inner();
        let mut received = Vec::new();
        while let Some(chunk) = stream.message().await.unwrap() {
            received.extend_from_slice(&chunk.data);
        }
        assert_eq!(received, bytes[offset..], "from {offset}");
    }
    for (digest, offset, code) in [
        ("sha256:none", 0, tonic::Code::NotFound),
        (old.as_str(), 0, tonic::Code::NotFound),
        (digest.as_str(), 1 << 30, tonic::Code::OutOfRange),
    ] {
        let request = v1::FetchFilterRequest { digest: digest.to_owned(), offset };
        assert_eq!(client.fetch_filter(request).await.err().unwrap().code(), code);
    }
}

#[tokio::test]
async fn versions_are_published_apart_from_what_channels_stand_for() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    let admin = control.admin_token();
    for (version, import) in [("1.0.0", "weft:filter/log@0.1.0"), ("1.1.0", "weft:filter/metrics@0.1.0")] {
        let query = format!("name=noop&version={version}");
        assert_eq!(publish(&control, &admin, &query, &filter(&[import]), 1).await.0, 200);
    }
    let (_, list) = control.call("get", "/api/v1/filters/noop", Value::Null).await;
    let current =
        |list: &Value| list["versions"].as_array().unwrap().iter().map(|v| v["current"] == true).collect::<Vec<_>>();
    assert_eq!(current(&list), [true, false], "published alone it changes nothing");
    let path = "/api/v1/filters/noop/promote?version=1.1.0";
    let (status, moved) = control.call("post", path, Value::Null).await;
    assert_eq!((status, moved), (200, json!({"name": "noop", "channel": "stable", "from": "1.0.0", "to": "1.1.0"})));
    for (path, expect) in [
        ("promote?version=1.0.0", 409),
        ("promote?version=9.0.0", 404),
        ("promote?version=1.1.0&channel=No", 400),
        ("yank?version=1.1.0", 409),
        ("rollback?channel=beta", 404),
    ] {
        let (status, body) = control.call("post", &format!("/api/v1/filters/noop/{path}"), Value::Null).await;
        assert_eq!(status, expect, "{path}: {body}");
    }
    assert_eq!(control.call("delete", "/api/v1/filters/noop?version=1.1.0", Value::Null).await.0, 409);
    let (_, list) = control.call("get", "/api/v1/filters/noop", Value::Null).await;
    assert_eq!(current(&list), [false, true]);
    assert_eq!(list["versions"][1]["channels"], json!(["stable"]));
    let bytes = filter(&["weft:filter/log@0.1.0"]);
    // What was signed as one thing is not posted as another.
    let request = control.request("post", "/api/v1/filters?name=stamp&version=1.0.0").bearer_auth(&admin);
    let (signature, key) = sign(&bytes, 1);
    let stated = state_of(&bytes, "noop", "1.0.0", 1);
    let request = request.header("weft-signature", signature).header("weft-public-key", key);
    let request = request.header("weft-statement", STANDARD.encode(stated.text));
    let request = request.header("weft-statement-signature", stated.signature).body(bytes.clone());
    let refused: Value = request.send().await.unwrap().json().await.unwrap();
    assert!(refused["error"]["message"].as_str().unwrap().contains("is about name noop"), "{refused}");
}

#[tokio::test]
async fn a_filter_over_the_limit_is_refused_while_it_comes() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start_with(dir.path(), |config| config.limits.max_filter_bytes = 1_000).await;
    let (status, body) = publish(&control, &control.admin_token(), "name=big&version=1.0.0", &[0; 5_000], 1).await;
    assert_eq!((status, &body["error"]["code"]), (413, &json!("too_large")), "{body}");
}

#[tokio::test]
async fn one_token_makes_so_many_calls() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start_with(dir.path(), |config| config.limits.max_api_calls_per_minute = 5).await;
    let viewer = token(&control, "viewer").await;
    for _ in 0..5 {
        assert_eq!(control.call_as(&viewer, "get", "/api/v1/proxies", Value::Null).await.0, 200);
    }
    let refused = control.request("get", "/api/v1/proxies").bearer_auth(&viewer).send().await.unwrap();
    assert_eq!(refused.status(), 429);
    let wait: u64 = refused.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=13).contains(&wait), "{wait}");
    let body: Value = refused.json().await.unwrap();
    assert_eq!(body["error"]["code"], "too_many_requests");
    assert!(body["error"]["message"].as_str().unwrap().contains("more than 5 calls a minute"), "{body}");
    assert_eq!(control.call("get", "/api/v1/proxies", Value::Null).await.0, 200, "each token by itself");
    assert!(control.metrics().await.contains("weft_control_throttled_total{reason=\"api\"} 1"));
}

#[tokio::test]
async fn so_many_calls_of_one_token_are_under_way_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start_with(dir.path(), |config| config.limits.max_open_calls_per_token = 1).await;
    let viewer = token(&control, "viewer").await;
    let under_way = control.app.hub.take_call(&TokenHash::of(&viewer).id()).unwrap();
    let (status, body) = control.call_as(&viewer, "get", "/api/v1/proxies", Value::Null).await;
    assert_eq!(status, 429, "{body}");
    assert!(body["error"]["message"].as_str().unwrap().contains("1 calls with this token are under way"), "{body}");
    drop(under_way);
    for _ in 0..2 {
        assert_eq!(control.call_as(&viewer, "get", "/api/v1/proxies", Value::Null).await.0, 200);
    }
}

#[test]
fn values_are_counted_without_being_made() {
    for (json, expect) in [("1", 1), (r#""[,{""#, 1), (r#""a\",[""#, 1), ("[[],[],[]]", 7), (r#"{"a":1,"b":[2,3]}"#, 5)]
    {
        assert!(
            (expect..=expect + 1).contains(&super::values(json.as_bytes())),
            "{json}: {}",
            super::values(json.as_bytes())
        );
    }
}

#[tokio::test]
async fn bodies_take_so_much_memory_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start_with(dir.path(), |config| config.limits.max_open_body_bytes = 1 << 20).await;
    let dry = |documents: Value| json!({ "dry_run": true, "documents": documents });
    // 6,000 values are small as text and large as what is made of it.
    let (status, body) = control.call("post", "/api/v1/apply", dry(json!([vec![json!([]); 6_000]]))).await;
    assert_eq!((status, body["error"]["code"].as_str()), (413, Some("too_large")), "{body}");
    assert!(body["error"]["message"].as_str().unwrap().contains("limits.max_open_body_bytes"), "{body}");
    let (status, _) = control.call("post", "/api/v1/apply", dry(documents(SERVICE).into())).await;
    assert_eq!(status, 200);
    // Bodies that have not arrived have their room already; another token has its own.
    let hub = &control.app.hub;
    let held = hub.take_body(&TokenHash::of(&control.admin_token()).id(), 500 << 10).unwrap();
    let long = || dry(json!(["x".repeat(100 << 10)]));
    let (status, body) = control.call("post", "/api/v1/apply", long()).await;
    assert_eq!(status, 429, "{body}");
    drop(held);
    assert_eq!(control.call("post", "/api/v1/apply", long()).await.0, 400, "it is read, and no document");
    assert!(control.metrics().await.contains("weft_control_throttled_total{reason=\"bodies\"} 2"));
}

#[tokio::test]
async fn labels_of_a_token_are_labels() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    let create = |label: String| json!({ "kind": "join", "service_account": "shop/web", "labels": [label] });
    let long = format!("a={}", "x".repeat(64));
    for wrong in [long, format!("{}=a", "x".repeat(64)), "a=\u{1b}[2J".to_owned()] {
        let (status, body) = control.call("post", "/api/v1/tokens", create(wrong.clone())).await;
        assert_eq!(status, 400, "{wrong}: {body}");
        assert!(body["error"]["message"].as_str().unwrap().contains("of a label"), "{body}");
    }
    assert_eq!(control.call("post", "/api/v1/tokens", create("tier=web".to_owned())).await.0, 200);
}
