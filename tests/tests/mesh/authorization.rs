//! Authorization of callers, and how a refusal explains itself: to the caller, in the access log, in the metrics, and
//! to the operator.

use http::Method;
use tokio::io::AsyncReadExt as _;
use weft_tests::client::{empty, try_tunnel};
use weft_tests::{App, Client, Mesh, Sidecar, TcpApp, Workload, eventually};

const MESH: &str =
    "apiVersion: weft.dev/v1alpha1\nkind: Mesh\nmetadata: {name: mesh}\nspec: {telemetry: {accessLog: true}}\n";

fn policy(name: &str, action: &str, rules: &str) -> String {
    format!(
        "apiVersion: weft.dev/v1alpha1\nkind: AccessPolicy\nmetadata: {{name: {name}, namespace: default}}\nspec:\n  \
         targetRefs: [{{kind: Service, name: ledger}}]\n  action: {action}\n  rules: {rules}\n"
    )
}

struct Bank {
    mesh: Mesh,
    teller: Sidecar,
    thief: Sidecar,
    ledger: Sidecar,
    app: App,
}

async fn bank() -> Bank {
    let mesh = Mesh::start().await;
    mesh.apply(MESH);
    let workload = Workload::server("ledger", 8080, "http");
    let app = App::start("ledger", workload.ip, 8080).await;
    let ledger = mesh.sidecar(workload).await;
    let teller = mesh.sidecar(Workload::client("teller")).await;
    let thief = mesh.sidecar(Workload::client("thief")).await;
    for client in [&teller, &thief] {
        eventually("without a policy, peers of the mesh are allowed", || async {
            (Client::through(client.proxy(), "ledger").await.get("/who").await.status == 200).then_some(())
        })
        .await;
    }
    Bank { mesh, teller, thief, ledger, app }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_denial_explains_itself_everywhere() {
    let bank = bank().await;
    bank.mesh.apply(&policy(
        "books",
        "Allow",
        "[{name: tellers-read, from: [{principals: [\"spiffe://cluster.local/ns/default/sa/teller\"]}], to: [{methods: [GET], \
         paths: [\"/books/*\", \"/who\"]}]}]",
    ));
    bank.mesh.apply(&policy("no-secrets", "Deny", "[{name: secrets, to: [{paths: [\"/books/secret\"]}]}]"));
    let arrived = bank.app.served();
    let mut teller = Client::through(bank.teller.proxy(), "ledger").await;
    assert_eq!(teller.get("/books/1").await.status, 200);
    assert_eq!(bank.app.served(), arrived + 1);

    // Denied whichever way the path is written: by the same rule, or because no rule allows one of its readings.
    let (secrets, none) = ("default/no-secrets#secrets", "default/books#no-match");
    for (path, rule) in [
        ("/books/secret", secrets),
        ("/books/./secret", secrets),
        ("/books/x/../secret", secrets),
        ("/books/%73ecret", secrets),
        ("/books//secret", secrets),
        ("/books/secret;v=1", secrets),
        ("/books/x%2f..%2fsecret", secrets),
        ("/books/..;/books/secret", secrets),
        ("//books//secret", none),
    ] {
        let answer = teller.get(path).await;
        assert_eq!(answer.status, 403, "{path}: {}", answer.text());
        assert!(answer.text().contains(rule), "{path}: {}", answer.text());
    }
    let wrong_method = teller.call(Method::DELETE, "/books/1", &[], empty()).await.unwrap();
    assert_eq!(wrong_method.status, 403);
    let mut thief = Client::through(bank.thief.proxy(), "ledger").await;
    assert_eq!(thief.get("/books/1").await.status, 403);
    assert_eq!(bank.app.served(), arrived + 1, "nothing refused reaches the app");

    // The operator sees the same rule.
    let explained =
        bank.mesh.weft(&["explain", "--from", "default/teller", "--to", "ledger", "--path", "/books/secret"]);
    assert_eq!(explained.code, 1, "denied: {}{}", explained.out, explained.err);
    assert!(explained.out.contains("default/no-secrets#secrets"), "{}", explained.out);
    let explained = bank.mesh.weft(&["explain", "--from", "default/teller", "--to", "ledger", "--path", "/books/1"]);
    assert_eq!(explained.code, 0, "{}{}", explained.out, explained.err);
    assert!(explained.out.contains("default/books#tellers-read"), "{}", explained.out);

    // The access log of the side that decided says who, what and which rule.
    eventually("the access log has the denial", || async {
        let denied = |line: &serde_json::Value| {
            line["response_code"] == 403
                && line["response_flags"] == "UAEX"
                && line["rule"] == "default/no-secrets#secrets"
                && line["source_principal"] == "spiffe://cluster.local/ns/default/sa/teller"
        };
        bank.ledger.access_log().iter().any(denied).then_some(())
    })
    .await;

    // And the metrics count it, on both sides.
    let denied = [("response_code", "403"), ("response_flags", "UAEX")];
    let ledger = bank.ledger.metrics().await;
    assert_eq!(ledger.sum("istio_requests_total", &denied), 11.0, "{}", ledger.lines("403"));
    let theft = [("response_code", "403"), ("source_principal", "spiffe://cluster.local/ns/default/sa/thief")];
    assert_eq!(ledger.sum("istio_requests_total", &theft), 1.0, "{}", ledger.lines("403"));
    let teller = bank.teller.metrics().await;
    assert_eq!(teller.sum("istio_requests_total", &[("response_code", "403")]), 10.0, "{}", teller.lines("403"));
}

/// The teller's proxy connects from its workload's address, whatever a header says; the host is the one asked for.
async fn judged_by_address_and_host(bank: &Bank) {
    let own = bank.teller.workload.ip;
    let rules = format!("[{{name: away, from: [{{ipBlocks: [{own}]}}], to: [{{hosts: [ledger.default]}}]}}]");
    bank.mesh.apply(&policy("away", "Deny", &rules));
    let get = async |client: &Sidecar, host: &str| {
        let mut client = Client::through(client.proxy(), host).await;
        client.get_with("/who", &[("x-forwarded-for", "203.0.113.9")]).await
    };
    let refused = get(&bank.teller, "Ledger.Default").await;
    assert!(refused.status == 403 && refused.text().contains("default/away#away"), "{}", refused.text());
    assert_eq!(get(&bank.teller, "ledger").await.status, 200, "a host that the rule does not name");
    assert_eq!(get(&bank.thief, "ledger.default").await.status, 200, "an address that the rule does not name");
    let explained = |to: &str| bank.mesh.weft(&["explain", "--from", "default/teller", "--path", "/who", "--to", to]);
    let (denied, allowed) = (explained("ledger.default"), explained("ledger"));
    assert!(denied.code == 1 && denied.out.contains("default/away#away"), "{}{}", denied.out, denied.err);
    assert_eq!(allowed.code, 0, "{}{}", allowed.out, allowed.err);
    assert_eq!(bank.mesh.weft(&["delete", "accesspolicy", "away"]).code, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_rules_deny_all_and_removal_opens_again() {
    let bank = bank().await;
    judged_by_address_and_host(&bank).await;
    let manifest = policy("closed", "Allow", "[]");
    bank.mesh.apply(&manifest);
    let mut teller = Client::through(bank.teller.proxy(), "ledger").await;
    assert_eq!(teller.get("/who").await.status, 403);
    let removed = bank.mesh.weft(&["delete", "accesspolicy", "closed"]);
    assert_eq!(removed.code, 0, "{}", removed.err);
    eventually("it is open again", || async {
        (Client::through(bank.teller.proxy(), "ledger").await.get("/who").await.status == 200).then_some(())
    })
    .await;
    // The same policy, only watched: it refuses nobody, and counts by its rule whom it would refuse.
    bank.mesh.apply(&manifest.replace("  rules:", "  mode: Audit\n  rules:"));
    let refused = [("name", "weft-system/authz#audit"), ("rule", "default/closed#no-match")];
    eventually("what would be refused is counted", || async {
        let answer = Client::through(bank.teller.proxy(), "ledger").await.get("/who").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        (bank.ledger.metrics().await.sum("weft_filter_audited_total", &refused) >= 1.0).then_some(())
    })
    .await;
    let explained = bank.mesh.weft(&["explain", "--from", "default/teller", "--to", "ledger", "--path", "/who"]);
    assert_eq!(explained.code, 0, "{}{}", explained.out, explained.err);
    assert!(explained.out.contains("in mode Audit would refuse it: default/closed#no-match"), "{}", explained.out);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tcp_is_decided_too() {
    let mesh = Mesh::start().await;
    mesh.apply(MESH);
    let workload = Workload::server("ledger", 7000, "tcp");
    let _app = TcpApp::start(workload.ip, 7000, "ready").await;
    let ledger = mesh.sidecar(workload).await;
    let teller = mesh.sidecar(Workload::client("teller")).await;
    let thief = mesh.sidecar(Workload::client("thief")).await;
    mesh.apply(&policy(
        "tellers",
        "Allow",
        "[{name: only, from: [{principals: [\"spiffe://cluster.local/ns/default/sa/teller\"]}], to: [{ports: [7000]}]}]",
    ));
    let greeting = |client: &Sidecar| {
        let proxy = client.proxy();
        async move {
            let (mut stream, _) = try_tunnel(proxy, "ledger:7000").await;
            let mut greeting = Vec::new();
            let read = stream.read_buf(&mut greeting);
            _ = tokio::time::timeout(std::time::Duration::from_secs(5), read).await;
            greeting
        }
    };
    eventually("the teller gets through", || async { (greeting(&teller).await == b"ready").then_some(()) }).await;
    let (_, refused) = try_tunnel(thief.proxy(), "ledger:7000").await;
    assert!(refused.starts_with("HTTP/1.1 403"), "the thief's connection is refused: {refused}");
    // Judged as a request it would meet other rules than as bytes: a port that is declared tcp takes none.
    let request = Client::through(teller.proxy(), "ledger:7000").await.get("/").await;
    assert!(request.status == 400 && request.text().contains("declared tcp"), "{} {}", request.status, request.text());
    let metrics = ledger.metrics().await;
    let denied: Vec<_> = metrics.labels("istio_tcp_connections_closed_total", "response_flags");
    assert!(denied.iter().any(|flags| flags == "DENY"), "{}", metrics.lines("istio_tcp"));
    eventually("the access log says why", || async {
        let told = ["protocol", "response_flags", "stage", "rule", "source_principal"];
        let expected =
            ["TCP", "DENY", "filter", "default/tellers#no-match", "spiffe://cluster.local/ns/default/sa/thief"];
        ledger.access_log().iter().any(|line| told.map(|key| &line[key]) == expected).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fifty_updates_under_load_lose_nothing() {
    let bank = bank().await;
    let version = |n: u32| policy("books", "Deny", &format!("[{{name: v{n}, to: [{{paths: [\"/secret\"]}}]}}]"));
    bank.mesh.apply(&version(0));
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    // The lowest version that an answer may still carry: raised after each ACK.
    let floor = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
    let mut tasks = Vec::new();
    for _ in 0..8 {
        let (stop, floor, proxy) = (stop.clone(), floor.clone(), bank.teller.proxy());
        tasks.push(tokio::spawn(async move {
            let mut client = Client::through(proxy, "ledger").await;
            let mut answered = 0_u32;
            while !stop.load(std::sync::atomic::Ordering::SeqCst) {
                let at_least = floor.load(std::sync::atomic::Ordering::SeqCst);
                let answer = client.get("/secret").await;
                assert_eq!(answer.status, 403, "none slips through");
                let text = answer.text();
                let decided = text.split("default/books#v").nth(1).expect("the answer names the version that decided");
                let digits: String = decided.chars().take_while(char::is_ascii_digit).collect();
                let decided: u32 = digits.parse().expect("a version");
                assert!(decided >= at_least, "decided by {decided} after {at_least} was acknowledged");
                answered += 1;
            }
            answered
        }));
    }
    for n in 1..=50 {
        bank.mesh.apply(&version(n));
        floor.store(n, std::sync::atomic::Ordering::SeqCst);
    }
    stop.store(true, std::sync::atomic::Ordering::SeqCst);
    let mut answered = 0;
    for task in tasks {
        answered += task.await.unwrap();
    }
    assert!(answered > 500, "there was load: {answered}");
    eventually("every answer was counted", || async {
        let metrics = bank.ledger.metrics().await;
        let counted = metrics.sum("istio_requests_total", &[("response_code", "403")]);
        (counted >= f64::from(answered)).then_some(())
    })
    .await;
    let metrics = bank.ledger.metrics().await;
    let counted = metrics.sum("istio_requests_total", &[("response_code", "403")]);
    assert_eq!(counted, f64::from(answered), "none lost, none counted twice");
}
