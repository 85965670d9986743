//! Who reaches what: every route of the API with every role, for the whole mesh and for one namespace.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use utoipa::openapi::HttpMethod;

use super::{publish, token};
use crate::api::endpoints;
use crate::app::tests::{Control, documents};
use crate::token::{Grant, Role};

const WORLD: &str = "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: bank}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Namespace
metadata: {name: bank}
---
apiVersion: weft.dev/v1alpha1
kind: Mesh
metadata: {name: mesh}
spec: {}
";

/// A call as it is made for one namespace.
struct Call {
    method: &'static str,
    route: &'static str,
    path: Box<dyn Fn(&str) -> String>,
    body: Box<dyn Fn(&str) -> Value>,
    /// The roles that may: V, O, P and A, with a token for the whole mesh ...
    everywhere: &'static str,
    /// ... with one for shop in shop ...
    own: &'static str,
    /// ... and with one for shop in bank.
    foreign: &'static str,
}

fn call(method: &'static str, route: &'static str, may: [&'static str; 3]) -> Call {
    let [everywhere, own, foreign] = may;
    let path = Box::new(move |namespace: &str| {
        let filled = route.replace("{namespace}", namespace).replace("{kind}", "services");
        filled.replace("{name}", "none").replace("{revision}", "0").replace("{proxy}", &format!("{namespace}%2Fnone"))
    });
    Call { method, route, path, body: Box::new(|_| Value::Null), everywhere, own, foreign }
}

impl Call {
    fn body(self, body: impl Fn(&str) -> Value + 'static) -> Self {
        Self { body: Box::new(body), ..self }
    }
}

fn calls() -> Vec<Call> {
    let service = |namespace: &str| {
        documents(&WORLD.split("---").next().unwrap().replace("namespace: shop", &format!("namespace: {namespace}")))
    };
    let all = ["VOPA"; 3];
    vec![
        call("get", "/healthz", all),
        call("get", "/readyz", all),
        call("get", "/api/v1/version", all),
        call("get", "/api/v1/openapi.json", all),
        // Lists show what the caller may see: below.
        call("get", "/api/v1/resources/{kind}", all),
        call("get", "/api/v1/resources/{kind}/{namespace}/{name}", ["VOPA", "VOPA", "...."]),
        call("delete", "/api/v1/resources/{kind}/{namespace}/{name}", [".O.A", ".O.A", "...."]),
        call("get", "/api/v1/unreadable", all),
        call("post", "/api/v1/apply", [".O.A", ".O.A", "...."])
            .body(move |namespace| json!({ "documents": service(namespace) })),
        call("get", "/api/v1/lint", all),
        call("post", "/api/v1/lint", ["VOPA", "VOPA", "...."])
            .body(move |namespace| json!({ "documents": service(namespace) })),
        call("post", "/api/v1/explain", ["VOPA", "VOPA", "...."])
            .body(|namespace| json!({ "from": format!("{namespace}/web"), "to": format!("web.{namespace}") })),
        call("get", "/api/v1/proxies", all),
        call("get", "/api/v1/revisions/{revision}/status", all),
        call("get", "/api/v1/bans", all),
        call("post", "/api/v1/bans", [".O.A", ".O.A", "...."])
            .body(|namespace| json!({ "proxy": format!("{namespace}/none") })),
        call("delete", "/api/v1/bans/{proxy}", [".O.A", ".O.A", "...."]),
        call("get", "/api/v1/grants", all),
        call("post", "/api/v1/grants/withdraw", [".O.A", ".O.A", "...."])
            .body(|namespace| json!({ "proxy": format!("{namespace}/none"), "all": true })),
        // Nobody has the name: what is hit by one that somebody has is below.
        call("post", "/api/v1/proxies/{name}/evict", [".O.A"; 3]),
        call("get", "/api/v1/store", all),
        call("post", "/api/v1/store/accept", ["...A", "....", "...."]),
        call("get", "/api/v1/authority", all),
        call("post", "/api/v1/authority/rotate", ["...A", "....", "...."])
            .body(|_| json!({ "signer": "intermediate" })),
        call("post", "/api/v1/authority/request", ["...A", "....", "...."]),
        call("post", "/api/v1/authority/install", ["...A", "....", "...."]).body(|_| json!({ "chain_pem": "" })),
        call("post", "/api/v1/authority/finish", ["...A", "....", "...."]).body(|_| json!({})),
        call("post", "/api/v1/tokens", [".O.A", ".O.A", "...."])
            .body(|namespace| json!({ "kind": "join", "service_account": format!("{namespace}/web") })),
        call("post", "/api/v1/tokens", [".O.A", "....", "...."])
            .body(|_| json!({ "kind": "join", "service_account": "shop/web", "addresses": ["10.0.0.0/8"] })),
        call("post", "/api/v1/tokens", ["...A", "...A", "...."])
            .body(|namespace| json!({ "kind": "operator", "role": "viewer", "namespaces": [namespace] })),
        call("post", "/api/v1/tokens", ["...A", "....", "...."])
            .body(|_| json!({ "kind": "operator", "role": "viewer" })),
        call("get", "/api/v1/tokens", [".O.A"; 3]),
        call("delete", "/api/v1/tokens/{name}", [".O.A"; 3]),
        call("post", "/api/v1/filters", ["..PA", "....", "...."]),
        call("post", "/api/v1/filters/{name}/promote", ["..PA", "....", "...."]),
        call("post", "/api/v1/filters/{name}/rollback", ["..PA", "....", "...."]),
        call("post", "/api/v1/filters/{name}/yank", ["..PA", "....", "...."]),
        call("delete", "/api/v1/filters/{name}", ["..PA", "....", "...."]),
        call("get", "/api/v1/filters", all),
        call("get", "/api/v1/filters/{name}", all),
        call("get", "/api/v1/events", all),
        call("get", "/api/v1/audit", all),
        call("get", "/api/v1/snapshot", ["...A", "....", "...."]),
        call("post", "/api/v1/snapshot", ["...A", "....", "...."]),
    ]
}

fn word(method: &HttpMethod) -> &'static str {
    match method {
        HttpMethod::Get => "get",
        HttpMethod::Post => "post",
        HttpMethod::Delete => "delete",
        HttpMethod::Put | HttpMethod::Patch | HttpMethod::Head | HttpMethod::Options | HttpMethod::Trace => {
            panic!("a method that this table does not know")
        }
    }
}

async fn bound(control: &Control, role: Role, namespaces: &[&str]) -> String {
    let namespaces = namespaces.iter().map(|name| (*name).to_owned()).collect();
    let made = control
        .app
        .hub
        .create_token("system", Grant::Operator { role, namespaces, addresses: Default::default() }, None)
        .await
        .unwrap();
    made.text.reveal().to_owned()
}

#[tokio::test]
async fn every_route_is_reached_by_whom_the_table_says() {
    let calls = calls();
    let listed: BTreeSet<_> = calls.iter().map(|call| (call.method, call.route)).collect();
    let endpoints = endpoints();
    let served: BTreeSet<_> = endpoints.iter().map(|endpoint| (word(&endpoint.method), endpoint.path)).collect();
    assert_eq!(listed, served, "every route is in this table");

    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    control.apply(WORLD).await;
    let roles = [Role::Viewer, Role::Operator, Role::Publisher, Role::Admin];
    let mut tokens = Vec::new();
    for role in roles {
        tokens.push((bound(&control, role, &[]).await, bound(&control, role, &["shop"]).await));
    }
    let reached = async |call: &Call, namespace: &str, is_bound: bool| {
        let mut letters = String::new();
        for ((everywhere, bound), letter) in tokens.iter().zip("VOPA".chars()) {
            let token = if is_bound { bound } else { everywhere };
            let (path, body) = ((call.path)(namespace), (call.body)(namespace));
            let (status, _) = control.call_as(token, call.method, &path, body).await;
            assert_ne!(status, 401, "{path}");
            letters.push(if status == 403 { '.' } else { letter });
        }
        letters
    };
    for call in &calls {
        let what = format!("{} {}", call.method, call.route);
        assert_eq!(reached(call, "shop", false).await, call.everywhere, "{what} everywhere");
        assert_eq!(reached(call, "shop", true).await, call.own, "{what} in its namespace");
        assert_eq!(reached(call, "bank", true).await, call.foreign, "{what} elsewhere");
    }
}

#[tokio::test]
async fn a_token_for_a_namespace_sees_and_changes_what_is_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    control.apply(WORLD).await;
    control.join_token("bank/teller").await;
    control.join_token("shop/web").await;
    let (svid, other) = (control.join("shop/web").await, control.join("bank/web").await);
    for (svid, name) in [(&svid, "web-1"), (&other, "teller-1")] {
        let bundle = weft_policy::bundle::Bundle::default();
        Box::pin(crate::app::tests::Proxy::connect(&control, svid, name, None, bundle)).await.take().await;
    }
    let ours = bound(&control, Role::Operator, &["shop"]).await;
    let call = async |method: &str, path: &str, body: Value| control.call_as(&ours, method, path, body).await;
    let list = async |path: &str, key: &str, name: &str| {
        let (status, body) = call("get", path, Value::Null).await;
        assert_eq!(status, 200, "{path}: {body}");
        let names = body[key].as_array().unwrap().iter().map(|item| item.pointer(name).unwrap().to_string());
        names.collect::<Vec<_>>()
    };
    let namespace = "/metadata/namespace";
    assert_eq!(list("/api/v1/resources/services", "items", namespace).await, ["\"shop\""]);
    assert_eq!(call("get", "/api/v1/resources/services?namespace=bank", Value::Null).await.0, 403);
    assert_eq!(list("/api/v1/resources/namespaces", "items", "/metadata/name").await, ["\"bank\""]);
    assert_eq!(list("/api/v1/resources/meshes", "items", "/metadata/name").await, ["\"mesh\""]);
    assert_eq!(list("/api/v1/proxies", "proxies", "/name").await, ["\"web-1\""]);
    let (_, tokens) = call("get", "/api/v1/tokens", Value::Null).await;
    let text = tokens.to_string();
    assert!(text.contains("/ns/shop/sa/web") && !text.contains("bank") && !text.contains("first-operator"), "{text}");
    let (_, status) = call("get", "/api/v1/revisions/1/status", Value::Null).await;
    assert!(!status.to_string().contains("bank"), "{status}");
    let (_, events) = call("get", "/api/v1/events", Value::Null).await;
    let told = events["entries"].as_array().unwrap();
    assert!(!told.is_empty() && told.iter().all(|entry| entry["namespaces"] == json!(["shop"])), "{events}");

    assert_eq!(
        call("post", "/api/v1/proxies/teller-1/evict", json!({})).await.0,
        404,
        "it is not told that there is one"
    );
    assert_eq!(call("post", "/api/v1/proxies/web-1/evict", json!({})).await.0, 200);
    // Of several documents each that is out of reach is named, and nothing is applied.
    let (status, body) = call("post", "/api/v1/apply", json!({ "documents": documents(WORLD) })).await;
    let named: Vec<_> =
        body["error"]["details"].as_array().unwrap().iter().map(|d| d["file"].as_str().unwrap()).collect();
    assert_eq!((status, named), (403, vec!["documents[1]", "documents[2]", "documents[3]"]), "{body}");
    let text = body["error"]["message"].as_str().unwrap();
    assert!(
        text.contains("Service bank/web") && text.contains("a token for bank, or for the whole mesh, may"),
        "{text}"
    );
    // A person's token that is named can't be told from one that is not there.
    let (status, _) = call("delete", "/api/v1/tokens/first-operator", Value::Null).await;
    assert_eq!(status, 404);
    for (grant, expect) in [
        (json!({ "kind": "operator", "role": "publisher", "namespaces": ["shop"] }), "a publisher can't be"),
        (json!({ "kind": "operator", "role": "operator", "namespaces": ["weft-system"] }), "holds for the whole mesh"),
        (json!({ "kind": "operator", "role": "operator", "namespaces": ["A b"] }), "not the name of a namespace"),
        (json!({ "kind": "join", "service_account": "a/b", "namespaces": ["shop"] }), "are for operator tokens"),
    ] {
        let (status, body) = control.call("post", "/api/v1/tokens", grant).await;
        assert_eq!(status, 400, "{body}");
        assert!(body["error"]["message"].as_str().unwrap().contains(expect), "{body}");
    }
    let both = json!({ "kind": "operator", "role": "viewer", "name": "both", "namespaces": ["shop", "bank"] });
    assert_eq!(control.call("post", "/api/v1/tokens", both).await.0, 200);
    let (_, tokens) = control.call("get", "/api/v1/tokens", Value::Null).await;
    let both = tokens["tokens"].as_array().unwrap().iter().find(|token| token["name"] == "both").unwrap();
    assert_eq!(both["namespaces"], json!(["bank", "shop"]));
}

/// So many refused attempts, the oldest first. They are written a moment later.
async fn refused(control: &Control, number: usize, query: &str) -> Vec<Value> {
    let mut told: Vec<Value> = Vec::new();
    while told.len() < number {
        let after = told.last().map_or(0, |entry| entry["number"].as_u64().unwrap());
        let path = format!("/api/v1/events?refused=true&after={after}&wait_ms=10000{query}");
        let (status, body) = control.call("get", &path, Value::Null).await;
        assert_eq!(status, 200, "{body}");
        let entries = body["entries"].as_array().unwrap();
        assert!(!entries.is_empty(), "{told:?}");
        told.extend(entries.iter().rev().cloned());
    }
    told
}

#[tokio::test]
async fn a_refused_apply_is_found_by_the_objects_that_it_was_about() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    control.apply(WORLD).await;
    let viewer = token(&control, "viewer").await;
    let limit = WORLD.split("---").next().unwrap().replace("name: web", "name: limit");
    let of_bank = limit.replace("namespace: shop", "namespace: bank").replace("name: limit", "name: other");
    let both = format!("{limit}\n---\n{of_bank}");
    let bound = json!({ "kind": "operator", "role": "operator", "namespaces": ["shop"] });
    let (_, bound) = control.call("post", "/api/v1/tokens", bound).await;
    let bound = bound["token"].as_str().unwrap().to_owned();
    // By the role, by the place, and because somebody else has changed it meanwhile.
    let apply = |text: &str| json!({ "documents": documents(text) });
    assert_eq!(control.call_as(&viewer, "post", "/api/v1/apply", apply(&limit)).await.0, 403);
    assert_eq!(control.call_as(&bound, "post", "/api/v1/apply", apply(&both)).await.0, 403);
    let mut stale = apply(&limit);
    stale["if_unchanged"] = json!(true);
    stale["documents"][0]["metadata"]["revision"] = json!(1);
    let (status, answer) = control.call("post", "/api/v1/apply", stale).await;
    assert_eq!(status, 409, "{answer}");
    let told = refused(&control, 3, "&object=shop/limit").await;
    let shown: Vec<_> = told.iter().map(|entry| [&entry["action"], &entry["object"], &entry["refused"]]).collect();
    let (one, two) = ("/api/v1/apply: Service shop/limit", "/api/v1/apply: Service bank/other, Service shop/limit");
    let entry = |object, refused| [json!("post refused"), json!(object), json!(refused)];
    let expected = [entry(one, "403 forbidden"), entry(two, "403 forbidden"), entry(one, "409 conflict")];
    assert_eq!(shown, expected.each_ref().map(|entry| entry.each_ref()));
    assert_eq!(refused(&control, 1, "&object=bank/other").await.len(), 1);
}

#[tokio::test]
async fn what_is_refused_is_told_with_who_and_from_where() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    control.apply(WORLD).await;
    let viewer = token(&control, "viewer").await;
    assert_eq!(control.call_as(&viewer, "delete", "/api/v1/resources/services/shop/web", Value::Null).await.0, 403);
    assert_eq!(control.call_as("weft_op_wrong", "get", "/api/v1/proxies", Value::Null).await.0, 401);
    assert_eq!(control.call("delete", "/api/v1/resources/filters/weft-system/authz", Value::Null).await.0, 403);
    let named = json!({ "kind": "join", "service_account": "shop/web", "name": "ci" });
    assert_eq!(control.call("post", "/api/v1/tokens", named.clone()).await.0, 200);
    assert_eq!(control.call("post", "/api/v1/tokens", named).await.0, 409);
    let bytes = super::filter(&["weft:filter/log@0.1.0"]);
    assert_eq!(publish(&control, &control.admin_token(), "name=authz&version=9.0.0", &bytes, 1).await.0, 403);
    let told = refused(&control, 5, "").await;
    let shown = |entry: &Value| {
        let text = |key: &str| entry[key].as_str().unwrap_or_default().to_owned();
        assert_eq!(text("from"), "127.0.0.1");
        format!("{} {} {} {}: {}", text("name"), text("role"), text("action"), text("object"), text("refused"))
    };
    let shown: Vec<_> = told.iter().map(shown).collect();
    let viewer_id = told[0]["name"].as_str().unwrap();
    assert_eq!(
        shown,
        [
            format!("{viewer_id} viewer delete refused /api/v1/resources/services/shop/web: 403 forbidden"),
            "  get refused /api/v1/proxies: 401 unauthenticated".to_owned(),
            "first-operator admin delete refused /api/v1/resources/filters/weft-system/authz: 403 forbidden".to_owned(),
            "first-operator admin post refused /api/v1/tokens: 409 conflict".to_owned(),
            "first-operator admin post refused /api/v1/filters: 403 forbidden".to_owned(),
        ]
    );
    assert_eq!(told[1]["actor"], "unknown");
    let detail = told[0]["detail"].as_str().unwrap();
    assert!(detail.contains("needs the role operator or admin; the token has viewer"), "{detail}");
}
