//! Filters that take long: compiled in a child of the proxy within its limits, and what a chain does until they are there.

use std::collections::BTreeMap;
use std::time::Duration;

use weft_filter_host::{CompileError, CompileLimits, Compiler, Host, HostConfig, PrepareError};
use weft_policy::bundle::{Direction, Protocol};
use weft_proxy::snapshot::{Awaited, Loaded, Readiness};
use weft_tests::{App, Client, process};

use super::in_process::{Filter, Of, Pair, attach, attachment, prepared, specification, wasm};

/// Lets anybody pass.
const OPEN: &str = r#"{"policies": []}"#;
/// Lets nobody pass to `/a`, or to `/b`.
const NOT_A: &str = r#"{"policies": [{"name": "default/closed", "action": "Deny", "rules": [
    {"name": "a", "to": [{"paths": ["/a"]}]}]}]}"#;
const NOT_B: &str = r#"{"policies": [{"name": "default/closed", "action": "Deny", "rules": [
    {"name": "b", "to": [{"paths": ["/b"]}]}]}]}"#;

fn authorization(config: &'static str) -> Filter {
    Filter { component: "authz", direction: Direction::Inbound, config, authorization: true }
}

/// Answers each request by a status of its own.
fn fault(config: &'static str) -> Filter {
    Filter { component: "fault", direction: Direction::Inbound, config, authorization: false }
}

/// Tells the origin's proxy of these filters, each with what runs of it.
fn tell(pair: &Pair, told: &[(Filter, Option<Filter>)]) {
    let (mut loaded, mut awaited) = (Loaded::new(), Awaited::new());
    let mut attachments = BTreeMap::new();
    for (filter, runs) in told {
        let name = filter.component.to_owned();
        attachments.insert(name.clone(), attachment(*filter));
        if let Some(runs) = runs {
            loaded.insert(name.clone(), prepared(pair, Of::Origin, *runs));
        }
        if runs.is_none_or(|runs| runs.config != filter.config) {
            awaited.insert(name, Readiness::Pending);
        }
    }
    pair.stage(Of::Origin, (&loaded, &awaited), |bundle| bundle.filters = attachments);
}

/// The status of each of these paths.
async fn statuses(client: &mut Client, paths: [&str; 3]) -> [u16; 3] {
    let mut found = [0; 3];
    for (path, found) in paths.iter().zip(&mut found) {
        *found = client.get(path).await.status.as_u16();
    }
    found
}

/// Until a filter is there, the authorization of now and that of before both have to let a request pass.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_bites_while_another_filter_is_compiled_and_nothing_is_loosened_ahead_of_it() {
    const PATHS: [&str; 3] = ["/a", "/b", "/who"];
    let pair = Pair::start(&[(8080, Protocol::Http)]);
    let _app = App::start("origin", pair.origin, 8080).await;
    let mut client = Client::through(pair.proxy(), "origin:8080").await;
    let [open, a, b] = [OPEN, NOT_A, NOT_B].map(authorization);
    let teapot = fault(r#"{"abort": {"status": 418, "percentage": 100}}"#);
    let gone = fault(r#"{"abort": {"status": 410, "percentage": 100}}"#);
    attach(&pair, Of::Origin, a);
    let [closed, plain, who] = statuses(&mut client, PATHS).await;
    assert_eq!((closed, who), (403, 200));
    tell(&pair, &[(b, Some(b)), (teapot, None)]);
    assert_eq!(statuses(&mut client, PATHS).await, [403, 403, 200], "what it was to replace goes on");
    // The next one takes the place of the one told meanwhile, not of the one before.
    tell(&pair, &[(open, Some(open)), (teapot, None)]);
    assert_eq!(statuses(&mut client, PATHS).await, [403, plain, 200]);
    tell(&pair, &[(open, Some(open)), (teapot, Some(teapot))]);
    assert_eq!(statuses(&mut client, PATHS).await, [418; 3], "nothing is left of what stood in for it");
    // Its next configuration: the one before goes on.
    tell(&pair, &[(a, Some(a)), (gone, Some(teapot))]);
    assert_eq!(statuses(&mut client, PATHS).await, [418; 3]);
    // Taken away together with the one that replaces it: it stays until that is there.
    tell(&pair, &[(b, Some(a))]);
    assert_eq!(statuses(&mut client, PATHS).await, [418; 3]);
    tell(&pair, &[(b, Some(b))]);
    assert_eq!(statuses(&mut client, PATHS).await, [plain, 403, 200]);
}

/// As the proxy compiles what it is told.
fn host(compile: CompileLimits) -> Host {
    let compiler = Compiler::Child(process::binary("weft-proxy"));
    Host::new(HostConfig { compiler, compile, max_instances: 8, ..HostConfig::default() }).expect("a host")
}

#[test]
fn a_child_compiles_within_its_limits_and_says_why_it_does_not() {
    let (filter, sound) = (authorization(OPEN), wasm("authz"));
    let prepare = |limits: CompileLimits, wasm: &[u8]| host(limits).prepare(&specification(filter, wasm), wasm);
    prepare(CompileLimits::default(), &sound).expect("it is compiled as in this process");
    let refusal = |limits: CompileLimits, wasm: &[u8]| match prepare(limits, wasm) {
        Err(PrepareError::Compile { source, .. }) => source,
        other => panic!("{other:?}"),
    };
    let no_room = refusal(CompileLimits { code_bytes: 1_000, ..CompileLimits::default() }, &sound);
    assert_eq!(no_room, CompileError::Limit("its machine code has more than 1000 bytes".to_owned()));
    let no_time = refusal(CompileLimits { wall: Duration::from_millis(1), ..CompileLimits::default() }, &sound);
    assert_eq!(no_time, CompileError::Limit("it is not done within 0 s".to_owned()));
}
