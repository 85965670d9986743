//! Components of released contracts run for ever: each is loaded as it was built then, and judges requests.

use std::path::Path;

use weft_filter_host::{Chain, Host, Worker};

use crate::support::{Head, ask, host, spec};

/// The bytes of a component that was released with this version of the contract: one that ships, as the control plane
/// keeps it for proxies of that time, or the one for tests.
pub(crate) fn released(contract: &str, name: &str) -> Vec<u8> {
    let folder = if name == "hostile" { "tests/released" } else { "../../controlplane/control/builtin" };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder).join(contract);
    let path = folder.join(format!("{name}.wasm"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn chain(host: &Host, contract: &str, name: &str, config: &str) -> Chain {
    let wasm = released(contract, name);
    let mut spec = spec(name, &wasm, config);
    spec.authorization = name == "authz";
    Chain::new(vec![host.prepare(&spec, &wasm).unwrap_or_else(|error| panic!("{contract} {name}: {error}"))])
}

/// A rule that the engine of 0.1 can't read is no rule that it leaves aside.
#[test]
fn authz_of_0_1_takes_no_addresses_and_hosts() {
    let (host, wasm) = (host(), released("0.1", "authz"));
    for (rule, field) in
        [(r#""from": [{"ip_blocks": ["10.0.0.0/8"]}]"#, "ip_blocks"), (r#""to": [{"hosts": ["a.example"]}]"#, "hosts")]
    {
        let config = format!(r#"{{"policies": [{{"name": "a/b", "action": "Deny", "rules": [{{{rule}}}]}}]}}"#);
        let error = host.prepare(&spec("authz", &wasm, &config), &wasm).expect_err(field).to_string();
        assert!(error.contains(field), "{error}");
    }
}

#[test]
fn components_of_0_1_judge_requests() {
    let deny =
        r#"{"policies": [{"name": "a/b", "action": "Deny", "rules": [{"name": "no", "to": [{"paths": ["/no"]}]}]}]}"#;
    let abort = r#"{"abort": {"status": 418, "headers": [{"name": "x-do", "exact": "no"}]}}"#;
    let limit = r#"{"limits": [{"name": "one", "key": "header:x-do", "requests": 1, "per_seconds": 3600}]}"#;
    let host = host();
    for (name, config, refused, expect) in [
        ("authz", deny, Head::get("/no"), (403, Some("a/b#no"))),
        ("fault", abort, Head::told("no"), (418, Some("abort"))),
        ("ratelimit", limit, Head::told("no"), (429, Some("one"))),
        ("hostile", "", Head::told("teapot"), (418, Some("pot"))),
    ] {
        let chain = chain(&host, "0.1", name, config);
        let mut worker = Worker::new(&host);
        ask(&mut worker, &chain, 1, Head::get("/")).unwrap_or_else(|reply| panic!("{name}: {}", reply.reason));
        if name == "ratelimit" {
            ask(&mut worker, &chain, 2, refused.clone()).expect("the first of its key");
        }
        let reply = ask(&mut worker, &chain, 3, refused).expect_err(name);
        assert_eq!((reply.status.as_u16(), reply.rule.as_deref()), expect, "{name}");
    }
}
