//! The shipped filters as components: that the sandbox changes nothing of what their native tests show.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use weft_filter_host::{Chain, Event, Host, Outcome, Position, Worker};

use crate::support::{Head, ask, host, spec, wasm};

fn chain(host: &Host, name: &str, config: &str) -> Chain {
    let bytes = wasm(name);
    let mut spec = spec(name, &bytes, config);
    spec.authorization = name == "authz";
    spec.capabilities.push("crypto".to_owned());
    Chain::new(vec![host.prepare(&spec, &bytes).expect("a sound filter")])
}

const RULES: &str = r#"{"policies": [
    {"name": "shop/no-admin", "action": "Deny", "rules": [{"name": "admin", "to": [{"paths": ["/admin/*"]}]}]},
    {"name": "shop/readers", "action": "Allow", "rules": [
        {"name": "get", "from": [{"namespaces": ["web"]}], "to": [{"methods": ["GET"], "ports": [80]}]}]}]}"#;

#[test]
fn authz_denies_by_name() {
    let host = host();
    let chain = chain(&host, "authz", RULES);
    let mut worker = Worker::new(&host);
    ask(&mut worker, &chain, 1, Head::get("/books")).expect("allowed");
    let reply = ask(&mut worker, &chain, 2, Head::get("/admin/x")).expect_err("denied");
    assert_eq!((reply.status.as_u16(), reply.rule.as_deref()), (403, Some("shop/no-admin#admin")));
    let mut stranger = Head::get("/books");
    stranger.principal = None;
    let reply = ask(&mut worker, &chain, 3, stranger).expect_err("denied");
    assert_eq!(reply.rule.as_deref(), Some("shop/readers#no-match"));
}

/// Servers take `_` for `-` in any place of a name. The filter asks for two spellings, and is handed every mixture of them.
#[test]
fn authz_sees_each_spelling_of_a_header() {
    let host = host();
    let rules = r#"{"policies": [{"name": "shop/roles", "action": "Deny", "rules": [
        {"name": "evil", "to": [{"headers": [{"name": "X-My-Role", "exact": "evil"}]}]}]}]}"#;
    let chain = chain(&host, "authz", rules);
    let mut worker = Worker::new(&host);
    for spelling in ["x-my-role", "x_my_role", "x_my-role", "x-my_role"] {
        let asked = Head::get("/books").with("x-my-role", "good").with(spelling, "evil");
        let reply = ask(&mut worker, &chain, 1, asked).expect_err(spelling);
        assert_eq!((reply.status.as_u16(), reply.rule.as_deref()), (403, Some("shop/roles#evil")), "{spelling}");
    }
    for other in ["x-my-roles", "xxmy-role", "x-my-rol"] {
        ask(&mut worker, &chain, 2, Head::get("/books").with(other, "evil")).expect(other);
    }
}

#[test]
fn authz_decides_on_streams() {
    let host = host();
    let rules = r#"{"policies": [{"name": "d/db", "action": "Allow", "rules": [{"to": [{"ports": [5432]}]}]}]}"#;
    let chain = chain(&host, "authz", rules);
    let mut worker = Worker::new(&host);
    let mut head = Head::get("/");
    head.port = 5432;
    assert!(matches!(
        worker.connection(&chain, Position::START, Event::Go, 1, &head.attributes()),
        Outcome::Permitted(_)
    ));
    head.port = 5433;
    assert!(matches!(
        worker.connection(&chain, Position::START, Event::Go, 2, &head.attributes()),
        Outcome::Respond(_)
    ));
}

#[test]
fn authz_refuses_a_rule_that_can_t_be_meant() {
    let host = host();
    let bytes = wasm("authz");
    let config = r#"{"policies": [{"name": "a/b", "action": "Deny", "rules": [{"to": [{"paths": ["no-slash"]}]}]}]}"#;
    let error = host.prepare(&spec("authz", &bytes, config), &bytes).expect_err("refused").to_string();
    assert!(error.contains("a/b") && error.contains("paths[0]"), "{error}");
}

#[test]
fn fault_strikes_its_share() {
    let host = host();
    let chain = chain(&host, "fault", r#"{"abort": {"status": 503, "percentage": 30}}"#);
    let mut worker = Worker::new(&host);
    let struck = (0..5_000).filter(|stream| ask(&mut worker, &chain, *stream, Head::get("/")).is_err()).count();
    // 1,500 expected; 8 standard deviations are 260.
    assert!((1_240..1_760).contains(&struck), "{struck} of 5,000");
}

#[test]
fn ratelimit_is_exact_over_four_workers() {
    let host = host();
    let config = r#"{"limits": [{"key": "identity", "requests": 500, "per_seconds": 86400}]}"#;
    let chain = chain(&host, "ratelimit", config);
    let passed = AtomicU32::new(0);
    let count = |chain: &Chain| {
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut worker = Worker::new(&host);
                    for stream in 0..400 {
                        match ask(&mut worker, chain, stream, Head::get("/")) {
                            Ok(_) => drop(passed.fetch_add(1, Relaxed)),
                            Err(reply) => assert_eq!(reply.status.as_u16(), 429),
                        }
                    }
                });
            }
        });
    };
    count(&chain);
    assert_eq!(passed.load(Relaxed), 500);
    // A new configuration with the same limit finds the same empty buckets.
    let again = self::chain(&host, "ratelimit", config);
    drop(chain);
    count(&again);
    assert_eq!(passed.load(Relaxed), 500);
}

#[test]
fn header_edit_edits_with_what_it_is_told() {
    let host = host();
    let config = r#"{"request": {"set": [{"name": "x-caller", "from": "source.principal"}], "remove": ["x-debug"]}}"#;
    let chain = chain(&host, "header-edit", config);
    let mut worker = Worker::new(&host);
    let asked = Head::get("/").with("x-debug", "1").with("x-caller", "forged");
    let head = ask(&mut worker, &chain, 1, asked).expect("it passes");
    assert_eq!((head.header("x-caller"), head.header("x-debug")), (Some(crate::support::CALLER), None));
}

/// Signatures made by OpenSSL, checked by the host's own crypto.
#[test]
fn jwt_takes_tokens_of_every_algorithm_and_no_forged_ones() {
    let vectors: serde_json::Value =
        serde_json::from_str(include_str!("../../../../filters/jwt/vectors.json")).expect("JSON");
    let host = host();
    let chain = chain(&host, "jwt", &vectors["config"].to_string());
    let mut worker = Worker::new(&host);
    for (name, token) in vectors["tokens"].as_object().expect("an object") {
        let token = token.as_str().expect("text");
        let bearing = |token: &str| {
            let mut head = Head::get("/");
            head.headers.insert("authorization", format!("Bearer {token}").parse().expect("a value"));
            head
        };
        let head =
            ask(&mut worker, &chain, 1, bearing(token)).unwrap_or_else(|reply| panic!("{name}: {}", reply.reason));
        assert_eq!(head.header("x-user"), Some("ada"), "{name}");
        let forged = bearing(&token.replacen("eyJpc3Mi", "eyJpc3Nn", 1));
        let reply = ask(&mut worker, &chain, 2, forged).expect_err(name);
        assert_eq!((reply.status.as_u16(), reply.reason.as_str()), (401, "jwt_bad_signature"), "{name}");
    }
}

/// As the control plane compiles `request.path.startsWith('/admin') && !('x-team' in request.headers)`, and
/// `string(destination.port)`: the form is part of what releases have in common.
#[test]
fn expr_decides_by_what_was_compiled() {
    let bytes = wasm("expr");
    assert!(bytes.len() <= 256 << 10, "{} bytes", bytes.len());
    let host = host();
    let config = r#"{"rules": [
        {"name": "admin", "then": {"deny": {"status": 404}}, "when": {"&": [
            {"f": ["starts_with", [{"v": "request.path"}, {"s": "/admin"}]]},
            {"f": ["not", [{"h": "request.header.x-team"}]]}]}},
        {"name": "tell", "when": {"b": true}, "then": {"set": {"x-port": {"f": ["text", [{"v": "destination.port"}]]}}}}]}"#;
    let chain = chain(&host, "expr", config);
    let mut worker = Worker::new(&host);
    let reply = ask(&mut worker, &chain, 1, Head::get("/admin/x")).expect_err("denied");
    let told = (reply.status.as_u16(), reply.rule.as_deref(), reply.reason.as_str());
    assert_eq!(told, (404, Some("admin"), "expr_denied"));
    let head = ask(&mut worker, &chain, 2, Head::get("/admin").with("x-team", "a")).expect("it passes");
    assert_eq!(head.header("x-port"), Some("80"));
    let text = r#"{"rules": [{"name": "r", "when": "true", "then": {"pass": true}}]}"#;
    let error = host.prepare(&spec("expr", &bytes, text), &bytes).expect_err("text").to_string();
    assert!(error.contains("rules[0].when"), "{error}");
}

/// A proxy that evaluates expressions holds little for it: the language is parsed and checked in the control plane.
#[test]
fn the_evaluator_of_expressions_is_small() {
    let bytes = wasm("expr").len();
    assert!(bytes <= 200_000, "{bytes} bytes");
}
