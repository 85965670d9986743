//! The commands that ask the operator API.

use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use crate::control::{Control, Ran, weft};

const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: reviews, namespace: shop}\nspec:\n  selector: {app: reviews}\n  ports: [{port: 80, targetPort: 9080}]\n";

fn applied(problems: &Value) -> Value {
    json!({"revision": 7, "problems": problems, "changes": [
        {"action": "changed", "kind": "Service", "namespace": "shop", "name": "reviews", "diff": "-  port: 80\n+  port: 81\n"}]})
}

fn proxy(name: &str, state: &str, revision: u64, reason: &str) -> Value {
    json!({"name": name, "identity": "spiffe://c/ns/shop/sa/a", "state": state, "revision": revision,
        "reason": reason, "held": []})
}

#[test]
fn apply_sends_the_documents_with_the_token() {
    let control = Control::start(&[("POST /api/v1/apply", 200, applied(&json!([])))]);
    let file = control.file("reviews.yaml", SERVICE);
    let ran = control.run(&["apply", "-f", file.to_str().unwrap()]);
    assert_eq!((ran.status, ran.out.as_str()), (0, "Service shop/reviews changed\nrevision 7\n"), "{}", ran.err);
    let seen = &control.seen()[0];
    assert_eq!(seen.header("authorization"), Some("Bearer secret-token"));
    let body = seen.json();
    assert_eq!((&body["dry_run"], &body["documents"][0]["kind"]), (&json!(false), &json!("Service")));
    assert_eq!(body["documents"][0]["spec"]["ports"][0]["targetPort"], 9080);
}

#[test]
fn apply_if_unchanged_tells_the_revision_that_was_read() {
    let stale = json!({"error": {"code": "conflict", "message": "Service shop/reviews was changed meanwhile", "details": [
        {"file": "documents[0]", "line": 0, "document": 0, "key": "metadata.revision", "message": "it is of revision 9, not 3",
            "object": {"kind": "Service", "namespace": "shop", "name": "reviews"}}]}});
    let control = Control::start(&[("POST /api/v1/apply", 409, stale)]);
    let text = SERVICE.replace("namespace: shop}", "namespace: shop, revision: 3, uid: u}");
    let list = format!(
        "{text}---\napiVersion: v1\nkind: List\nitems:\n- {{apiVersion: v1, kind: Namespace, metadata: {{name: a, revision: 4}}}}\n- {{apiVersion: v1, kind: Namespace, metadata: {{name: b}}}}\n"
    );
    let file = control.file("reviews.yaml", &list);
    let ran = control.run(&["apply", "-f", file.to_str().unwrap(), "--if-unchanged"]);
    assert_eq!(ran.status, 1, "{}", ran.err);
    assert!(ran.err.contains("reviews.yaml:3:54: metadata.revision: it is of revision 9, not 3"), "{}", ran.err);
    let body = control.seen()[0].json();
    let sent = |number: usize| &body["documents"][number]["metadata"]["revision"];
    assert_eq!((&body["if_unchanged"], sent(0), sent(1), sent(2)), (&json!(true), &json!(3), &json!(4), &Value::Null));
    control.run(&["apply", "-f", file.to_str().unwrap()]);
    assert_eq!(control.seen()[1].json().get("if_unchanged"), None, "an older control plane doesn't know it");
}

#[test]
fn apply_with_wait_tells_who_refused_and_why() {
    let status = json!({"revision": 7, "complete": false, "proxies": [
        proxy("a", "synced", 7, ""), proxy("b", "refused", 6, "filter authz: trap")]});
    let answers = [("POST /api/v1/apply", 200, applied(&json!([]))), ("GET /api/v1/revisions/7/status", 200, status)];
    let control = Control::start(&answers);
    let file = control.file("reviews.yaml", SERVICE);
    let ran = control.run(&["apply", "-f", file.to_str().unwrap(), "--wait", "5s"]);
    assert_eq!(ran.status, 1);
    assert!(ran.err.contains("b is refused at revision 6: filter authz: trap"), "{}", ran.err);
}

#[test]
fn apply_with_wait_gives_up_at_its_time() {
    let status = json!({"revision": 7, "complete": false, "proxies": [proxy("b", "behind", 6, "")]});
    let answers = [("POST /api/v1/apply", 200, applied(&json!([]))), ("GET /api/v1/revisions/7/status", 200, status)];
    let control = Control::start(&answers);
    let file = control.file("reviews.yaml", SERVICE);
    let ran = control.run(&["apply", "-f", file.to_str().unwrap(), "--wait", "50ms"]);
    assert_eq!(ran.status, 1);
    assert!(ran.err.contains("b is behind at revision 6"), "{}", ran.err);
}

#[test]
fn a_mistake_in_a_manifest_is_told_before_anything_is_sent() {
    let control = Control::start(&[]);
    let file = control.file("wrong.yaml", &SERVICE.replace("targetPort", "targetPrt"));
    for command in ["apply", "validate", "diff"] {
        let ran = control.run(&[command, "-f", file.to_str().unwrap()]);
        assert_eq!(ran.status, 1, "{command}: {}", ran.err);
        assert!(ran.err.contains("wrong.yaml:6:") && ran.err.contains("targetPrt"), "{command}: {}", ran.err);
    }
    assert!(control.seen().is_empty());
    let ran = control.run(&["validate", "-f", file.to_str().unwrap(), "-o", "json"]);
    let report: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((ran.status, &report["valid"], &report["errors"][0]["line"]), (1, &json!(false), &json!(6)));
}

#[test]
fn problems_found_by_the_server_are_an_answer_of_no() {
    let refusal = json!({"error": {"code": "refused", "message": "1 problem", "details": [
        {"file": "", "line": 0, "key": "HTTPRoute shop/reviews", "message": "no such service"}]}});
    let control = Control::start(&[("POST /api/v1/apply", 422, refusal)]);
    let file = control.file("reviews.yaml", SERVICE);
    let ran = control.run(&["apply", "-f", file.to_str().unwrap()]);
    assert_eq!(ran.status, 1);
    assert!(
        ran.err.contains("1 problem") && ran.err.contains("HTTPRoute shop/reviews: no such service"),
        "{}",
        ran.err
    );
}

#[test]
fn what_is_applied_with_a_warning_is_applied() {
    let warning = json!([{"code": "WEFT302", "kind": "Service", "namespace": "shop", "name": "reviews",
        "key": "spec.selector", "message": "no workload has these labels", "severity": "warning"}]);
    let control = Control::start(&[("POST /api/v1/apply", 200, applied(&warning))]);
    let file = control.file("reviews.yaml", SERVICE);
    let ran = control.run(&["apply", "-f", file.to_str().unwrap()]);
    assert_eq!(ran.status, 0, "{}", ran.err);
    assert!(ran.out.contains("Service shop/reviews") && ran.out.contains("revision 7"), "{}", ran.out);
    let told = "warning WEFT302: Service shop/reviews: spec.selector: no workload has these labels";
    assert_eq!(ran.err, format!("{}:5:3: {told}\n", file.display()));
}

#[test]
fn diff_has_status_1_where_something_would_change() {
    let control = Control::start(&[("POST /api/v1/apply", 200, applied(&json!([])))]);
    let file = control.file("reviews.yaml", SERVICE);
    let ran = control.run(&["diff", "-f", file.to_str().unwrap()]);
    assert_eq!(
        (ran.status, ran.out.as_str()),
        (1, "Service shop/reviews would be changed\n-  port: 80\n+  port: 81\n")
    );
    assert_eq!(control.seen()[0].json()["dry_run"], true);
    let same = Control::start(&[("POST /api/v1/apply", 200, json!({"revision": 7, "changes": [], "problems": []}))]);
    let file = same.file("reviews.yaml", SERVICE);
    assert_eq!(same.run(&["diff", "-f", file.to_str().unwrap()]).status, 0);
}

#[test]
fn what_the_control_plane_refuses_is_shown_in_the_file() {
    let detail = json!({"file": "documents[0]", "line": 0, "document": 0, "object": {"kind": "Service", "namespace": "shop", "name": "reviews"},
        "key": "spec.ports[0].port", "message": "is somebody else's"});
    let refusal = json!({"error": {"code": "refused", "message": "the world would not be sound; nothing was applied", "details": [detail]}});
    let control = Control::start(&[("POST /api/v1/apply", 422, refusal)]);
    let file = control.file("reviews.yaml", SERVICE);
    let ran = control.run(&["apply", "-f", file.to_str().unwrap()]);
    assert_eq!(ran.status, 1);
    let place = format!("{}:", file.display());
    assert!(ran.err.contains("the world would not be sound"), "{}", ran.err);
    assert!(ran.err.contains(&place) && ran.err.contains("spec.ports[0].port: is somebody else's\n"), "{}", ran.err);
    assert!(ran.err.trim_end().ends_with('^'), "{}", ran.err);
}

#[test]
fn errors_are_json_where_answers_are() {
    let refused = json!({"error": {"code": "refused", "message": "it is not sound", "details": [
        {"file": "documents[0]", "line": 0, "document": 0, "key": "spec.ports", "message": "is taken"}
    ]}});
    let control = Control::start(&[("POST /api/v1/apply", 422, refused)]);
    let told = |ran: &Ran| -> Value { serde_json::from_str(&ran.err).expect(&ran.err) };
    let file = control.file("shop.yaml", SERVICE);
    let file = file.to_str().unwrap();
    for form in ["json", "yaml"] {
        let ran = control.run(&["apply", "-f", file, "-o", form]);
        let error = &told(&ran)["error"];
        assert_eq!((ran.status, &error["code"], &error["message"]), (1, &json!("refused"), &json!("it is not sound")));
        let place = &error["details"][0];
        assert!(
            place["file"].as_str().unwrap().ends_with("shop.yaml") && place["line"].as_u64().unwrap() > 0,
            "{place}"
        );
    }
    let ran = control.run(&["get", "services", "-o", "json"]);
    assert_eq!((ran.status, &told(&ran)["error"]["message"].is_string()), (1, &true));
    let ran = control.run(&["get", "-o", "json", "--nonsense"]);
    assert_eq!((ran.status, &told(&ran)["error"]["code"]), (2, &json!("usage")));
    let ran = control.run(&["get", "services", "--server", "https://127.0.0.1:1", "-o", "json"]);
    assert_eq!((ran.status, &told(&ran)["error"]["code"]), (2, &json!("unable")));
    let ran = control.run(&["apply", "-f", "absent.yaml"]);
    assert!(ran.err.starts_with("error: "), "people are told in words: {}", ran.err);
}

#[test]
fn get_prints_tables_and_documents() {
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "shop", "name": "reviews", "uid": "u", "generation": 1, "revision": 3, "creationRevision": 2},
        "spec": {"selector": {"app": "reviews"}, "ports": [{"port": 80, "targetPort": 9080}]}});
    let control = Control::start(&[
        ("GET /api/v1/resources/services", 200, json!({"revision": 3, "items": [service.clone()]})),
        ("GET /api/v1/resources/services/shop/reviews", 200, service),
        ("GET /api/v1/resources/workloads", 200, json!({"revision": 3, "items": []})),
    ]);
    let ran = control.run(&["get", "svc", "-n", "shop"]);
    assert_eq!(ran.status, 0, "{}", ran.err);
    assert!(ran.out.starts_with("NAMESPACE  NAME     PORTS"), "{}", ran.out);
    assert!(control.seen()[0].line.contains("?namespace=shop"));
    let ran = control.run(&["get", "service", "reviews", "-n", "shop", "-o", "yaml"]);
    assert!(ran.out.contains("kind: Service\n") && ran.out.contains("targetPort: 9080"), "{}", ran.out);
    // The printed manifest can be validated, and so applied, as it is.
    let file = control.file("again.yaml", &ran.out);
    assert_eq!(control.run(&["validate", "-f", file.to_str().unwrap()]).status, 0);
    let ran = control.run(&["get", "service", "absent", "-n", "shop"]);
    assert_eq!((ran.status, ran.err.as_str()), (1, "error: Service shop/absent does not exist\n"));
    // Who forgot the namespace is told where there is one.
    let ran = control.run(&["get", "service", "reviews"]);
    let told = "error: Service default/reviews does not exist; there is one in namespace shop (-n shop)\n";
    assert_eq!((ran.status, ran.err.as_str()), (1, told));
    let ran = control.run(&["get", "workloads"]);
    assert_eq!((ran.status, ran.out.as_str()), (0, "no workloads in namespace default (-A: in all)\n"), "{}", ran.err);
}

#[test]
fn delete_names_what_is_not_there() {
    let control = Control::start(&[("DELETE /api/v1/resources/services/shop/reviews", 200, json!({"revision": 8}))]);
    let ran = control.run(&["delete", "service", "reviews", "absent", "-n", "shop"]);
    assert_eq!((ran.status, ran.out.as_str()), (1, "Service shop/reviews deleted (revision 8)\n"));
    assert!(ran.err.contains("Service shop/absent does not exist"), "{}", ran.err);
    assert_eq!(control.run(&["delete", "service", "absent", "-n", "shop", "--ignore-not-found"]).status, 0);
}

#[test]
fn a_denied_request_has_status_1_and_names_its_rule() {
    let answer = json!({"allowed": false, "rule": "shop/no-admin#admin-paths", "status": 403, "reason": "denied",
        "principal": "spiffe://c/ns/shop/sa/partner", "service": "shop/reviews", "port": 80, "path": "/admin",
        "backends": []});
    let control = Control::start(&[("POST /api/v1/explain", 200, answer)]);
    let arguments = ["explain", "--from", "shop/partner", "--to", "reviews.shop", "--path", "/admin", "-H", "X-A: b"];
    let ran = control.run(&arguments);
    assert_eq!(ran.status, 1, "{}", ran.err);
    assert!(ran.out.starts_with("DENIED") && ran.out.contains("shop/no-admin#admin-paths"), "{}", ran.out);
    assert_eq!(control.seen()[0].json()["headers"]["x-a"], "b");
}

#[test]
fn a_token_is_printed_alone() {
    let control = Control::start(&[(
        "POST /api/v1/tokens",
        200,
        json!({"token": "abc", "id": "ab", "name": "ab", "expires_unix": 9}),
    )]);
    let ran = control.run(&["token", "create", "--service-account", "shop/reviews", "--ttl", "10m"]);
    assert_eq!((ran.status, ran.out.as_str()), (0, "abc\n"), "{}", ran.err);
    let body = control.seen()[0].json();
    assert_eq!((&body["kind"], &body["ttl_seconds"], &body["uses"]), (&json!("join"), &json!(600), &json!(1)));
    let ran = control.run(&["token", "create"]);
    assert_eq!(ran.status, 2);
    assert!(ran.err.contains("--service-account") && ran.err.contains("--role"), "{}", ran.err);
}

#[test]
fn login_is_kept_for_its_owner_alone() {
    let answers = [
        ("GET /api/v1/version", 200, json!({"name": "weft-control", "version": "0.1.0", "api": "v1"})),
        ("GET /api/v1/proxies", 200, json!({"proxies": []})),
    ];
    let control = Control::start(&answers);
    let folder = control.folder.path();
    let (token, ca) = (folder.join("token"), folder.join("ca.pem"));
    let server = control.server();
    let arguments =
        ["login", "--server", &server, "--token-file", token.to_str().unwrap(), "--ca-file", ca.to_str().unwrap()];
    let ran = Ran::of(weft(&arguments).env("HOME", folder).output().unwrap());
    assert_eq!(ran.status, 0, "{}", ran.err);
    let kept = folder.join(".config/weft/config.yaml");
    assert_eq!(std::fs::metadata(&kept).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!std::fs::read_to_string(&kept).unwrap().contains("secret-token"));
    let ran = Ran::of(weft(&["proxies"]).env("HOME", folder).output().unwrap());
    assert_eq!((ran.status, ran.out.as_str()), (0, "no proxy has connected yet\n"), "{}", ran.err);
}

#[test]
fn who_cannot_be_reached_or_trusted_is_named_with_status_2() {
    let control = Control::start(&[]);
    let mut closed = control.command(&["proxies"]);
    closed.env("WEFT_SERVER", "https://127.0.0.1:9");
    let ran = Ran::of(closed.output().unwrap());
    assert_eq!(ran.status, 2);
    assert!(ran.err.contains("https://127.0.0.1:9") && ran.err.contains("refused"), "{}", ran.err);
    let other = Control::start(&[]);
    let mut untrusted = control.command(&["proxies"]);
    untrusted.env("WEFT_CA_FILE", other.folder.path().join("ca.pem"));
    let ran = Ran::of(untrusted.output().unwrap());
    assert_eq!(ran.status, 2);
    assert!(ran.err.contains("certificate"), "{}", ran.err);
}

#[test]
fn a_refused_token_says_where_tokens_come_from() {
    let refusal = json!({"error": {"code": "unauthenticated", "message": "the token is not known", "details": []}});
    let control = Control::start(&[("GET /api/v1/proxies", 401, refusal)]);
    let ran = control.run(&["proxies"]);
    assert_eq!(ran.status, 1);
    assert!(ran.err.contains("the token is not known") && ran.err.contains("--token-file"), "{}", ran.err);
}

#[test]
fn a_filter_is_signed_and_uploaded() {
    let published = json!({"name": "mine", "version": "1.0.0", "digest": "sha256:00", "signature": "s", "abi": "0.1.0",
        "public_key_pem": "k", "capabilities": [], "size_bytes": 8, "published_unix": 0, "published_by": "p", "current": true});
    let control = Control::start(&[("POST /api/v1/filters", 200, published)]);
    let key = control.folder.path().join("publisher.key");
    assert_eq!(control.run(&["filter", "keygen", "--out", key.to_str().unwrap()]).status, 0);
    let wasm = control.folder.path().join("mine.wasm");
    std::fs::write(&wasm, FILTER).unwrap();
    let arguments = [
        "filter",
        "publish",
        wasm.to_str().unwrap(),
        "--name",
        "mine",
        "--version",
        "1.0.0",
        "--key",
        key.to_str().unwrap(),
    ];
    let ran = control.run(&arguments);
    assert_eq!((ran.status, ran.out.as_str()), (0, "mine@1.0.0 published as sha256:00\n"), "{}", ran.err);
    let seen = &control.seen()[0];
    assert_eq!(
        (seen.line.as_str(), seen.body.len()),
        ("POST /api/v1/filters?name=mine&version=1.0.0 HTTP/1.1", FILTER.len())
    );
    assert!(seen.header("weft-signature").is_some() && seen.header("weft-public-key").is_some());
    assert!(seen.header("weft-statement").is_some() && seen.header("weft-statement-signature").is_some());
    std::fs::write(&wasm, b"\0asm\x01\0\0\0").unwrap();
    let ran = control.run(&arguments);
    assert_eq!((ran.status, control.seen().len()), (2, 1));
    assert!(ran.err.contains("core WebAssembly module"), "{}", ran.err);
}

/// The smallest component that is a filter: it exports an empty interface.
const FILTER: &[u8] =
    b"\0asm\x0d\0\x01\0\x05\x03\x01\x01\x00\x0b\x25\x01\x00\x1fweft:filter/configuration@0.2.0\x05\x00\x00";

#[test]
fn a_filter_that_is_published_is_promoted_rolled_back_yanked_and_deleted() {
    let moved = json!({"name": "mine", "channel": "beta", "from": "1.0.0", "to": "1.1.0"});
    let version = json!({"name": "mine", "version": "1.0.0", "digest": "sha256:00", "signature": "s", "abi": "0.1.0",
        "public_key_pem": "k", "capabilities": [], "size_bytes": 8, "published_unix": 0, "published_by": "p",
        "current": false, "used_by": ["shop/f"]});
    let control = Control::start(&[
        ("POST /api/v1/filters/mine/promote", 200, moved.clone()),
        ("POST /api/v1/filters/mine/rollback", 200, moved),
        ("POST /api/v1/filters/mine/yank", 200, version.clone()),
        ("DELETE /api/v1/filters/mine", 200, version),
    ]);
    for (arguments, line, out) in [
        (
            &["filter", "promote", "mine@1.1.0", "--channel", "beta"][..],
            "POST /api/v1/filters/mine/promote?version=1.1.0&channel=beta HTTP/1.1",
            "channel beta of mine stands for 1.1.0, before 1.0.0\n",
        ),
        (
            &["filter", "rollback", "mine", "--to", "1.0.0"][..],
            "POST /api/v1/filters/mine/rollback?channel=stable&to=1.0.0 HTTP/1.1",
            "channel beta of mine stands for 1.1.0, before 1.0.0\n",
        ),
        (
            &["filter", "yank", "mine@1.0.0"][..],
            "POST /api/v1/filters/mine/yank?version=1.0.0 HTTP/1.1",
            "mine@1.0.0 was yanked\n",
        ),
        (
            &["filter", "delete", "mine@1.0.0"][..],
            "DELETE /api/v1/filters/mine?version=1.0.0 HTTP/1.1",
            "mine@1.0.0 deleted\n",
        ),
    ] {
        let ran = control.run(arguments);
        assert_eq!((ran.status, ran.out.as_str()), (0, out), "{}", ran.err);
        assert_eq!(control.seen().last().unwrap().line, line);
        assert_eq!(ran.err.contains("keep it: shop/f"), arguments[1] == "yank", "{}", ran.err);
    }
    let ran = control.run(&["filter", "promote", "mine"]);
    assert!(ran.status != 0 && ran.err.contains("NAME@VERSION"), "{}", ran.err);
}

/// A deny that never denies, and a route to what is not in the file.
const UNSAFE: &str = "apiVersion: weft.dev/v1alpha1
kind: AccessPolicy
metadata: {name: p, namespace: shop}
spec:
  action: Deny
  rules:
    - to:
        - methods: ['*']
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r, namespace: shop}
spec:
  parentRefs: [{group: '', kind: Service, name: reviews}]
  rules:
    - backendRefs: [{name: reviews, port: 80}]
";

#[test]
fn validate_tells_what_an_apply_would_refuse_and_what_depends_on_others() {
    let control = Control::start(&[]);
    let file = control.file("unsafe.yaml", UNSAFE);
    let file = file.to_str().unwrap();
    let ran = control.run(&["validate", "-f", file]);
    assert_eq!(ran.status, 1, "{}", ran.err);
    let lines: Vec<&str> = ran.out.lines().collect();
    let error =
        format!("{file}:8:21: error WEFT201: AccessPolicy shop/p: spec.rules[0].to[0].methods[0]: no request has");
    assert!(lines.iter().any(|line| line.starts_with(&error)), "{}", ran.out);
    let note =
        format!("{file}:16:21: note WEFT103: HTTPRoute shop/r: spec.rules[0].backendRefs[0]: Service shop/reviews");
    assert!(lines.iter().any(|line| line.starts_with(&note)), "{}", ran.out);
    assert_eq!(*lines.last().unwrap(), "1 error, 2 notes");

    let ran = control.run(&["validate", "-f", file, "-o", "sarif"]);
    let log: Value = serde_json::from_str(&ran.out).unwrap();
    let result = &log["runs"][0]["results"][0];
    assert_eq!((ran.status, &result["ruleId"], &result["level"]), (1, &json!("WEFT201"), &json!("error")));
    assert_eq!(result["locations"][0]["physicalLocation"]["region"]["startLine"], 8);

    let fine = control.file("fine.yaml", SERVICE);
    let ran = control.run(&["validate", "-f", fine.to_str().unwrap(), "--strict"]);
    assert_eq!((ran.status, ran.out.as_str()), (0, "valid: 1 documents in 1 files\n"), "{}", ran.err);
    let broken = control.file("broken.yaml", &SERVICE.replace("targetPort", "targetPrt"));
    let ran = control.run(&["validate", "-f", broken.to_str().unwrap(), "-o", "sarif"]);
    let log: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((ran.status, &log["runs"][0]["results"][0]["ruleId"]), (1, &json!("WEFT001")));
}

#[test]
fn lint_asks_about_the_mesh_and_explains_codes() {
    let finding = |severity: &str| {
        json!({"revision": 7, "findings": [{"code": "WEFT302", "severity": severity, "kind": "Service", "namespace": "shop",
            "name": "reviews", "key": "spec.selector", "message": "nobody"}]})
    };
    let control =
        Control::start(&[("GET /api/v1/lint", 200, finding("warning")), ("POST /api/v1/lint", 200, finding("error"))]);
    let ran = control.run(&["lint"]);
    let told =
        "warning WEFT302: Service shop/reviews: spec.selector: nobody\nnothing that refuses an apply; 1 warning\n";
    assert_eq!((ran.status, ran.out.as_str()), (0, told), "{}", ran.err);
    assert_eq!(control.run(&["lint", "--strict"]).status, 1);
    let ran = control.run(&["lint", "--namespace", "other", "--strict"]);
    assert_eq!((ran.status, ran.out.as_str()), (0, "nothing found\n"), "{}", ran.err);

    let file = control.file("reviews.yaml", SERVICE);
    let ran = control.run(&["lint", "-f", file.to_str().unwrap()]);
    let told = format!("{}:5:3: error WEFT302: Service shop/reviews: spec.selector: nobody\n1 error\n", file.display());
    assert_eq!((ran.status, ran.out), (1, told), "{}", ran.err);
    assert_eq!(control.seen().last().unwrap().json()["documents"][0]["kind"], "Service");

    let ran = control.run(&["lint", "weft204"]);
    assert!(ran.status == 0 && ran.out.starts_with("WEFT204 (error): "), "{}", ran.out);
    assert!(control.run(&["lint", "--codes"]).out.starts_with("# What lint finds"));
    assert_eq!(control.run(&["lint", "WEFT999"]).status, 2);
}

#[test]
fn answers_of_other_releases_are_understood_as_far_as_they_can_be() {
    let service = json!({"apiVersion": "v1", "kind": "Service", "later": 1, "status": {"later": {"x": 1}}, "spec": {"later": 1},
        "metadata": {"namespace": "shop", "name": "reviews", "uid": "u", "generation": 1, "revision": 3,
            "creationRevision": 2, "later": "l"}});
    let later = json!({"name": "a", "identity": "spiffe://c/ns/shop/sa/a", "state": "dreaming", "revision": 7, "reason": "",
        "held": [], "later": {}});
    let control = Control::start(&[
        ("GET /api/v1/resources/services/shop/reviews", 200, service.clone()),
        ("GET /api/v1/resources/services", 200, json!({"revision": 3, "items": [service.clone()], "later": 1})),
        ("POST /api/v1/apply", 200, applied(&json!([]))),
        ("GET /api/v1/revisions/7/status", 200, json!({"revision": 7, "complete": false, "proxies": [later]})),
        ("GET /api/v1/bans", 200, json!({"bans": [{"identity": "i"}]})),
    ]);
    // What a program reads is what the control plane said.
    let ran = control.run(&["get", "service", "reviews", "-n", "shop", "-o", "json"]);
    assert_eq!(serde_json::from_str::<Value>(&ran.out).unwrap(), service, "{}", ran.err);
    let ran = control.run(&["get", "services", "-n", "shop", "-o", "json"]);
    assert_eq!(serde_json::from_str::<Value>(&ran.out).unwrap()["items"][0], service, "{}", ran.err);
    let file = control.file("reviews.yaml", SERVICE);
    let ran = control.run(&["apply", "-f", file.to_str().unwrap(), "--wait", "50ms"]);
    assert!(ran.err.contains("a is dreaming at revision 7"), "{}", ran.err);
    // What an answer lacks is named.
    let ran = control.run(&["proxy", "bans"]);
    assert_eq!(ran.status, 2);
    assert!(ran.err.contains("this release of weft does not understand: missing field `reason`"), "{}", ran.err);
}
