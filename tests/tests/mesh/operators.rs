//! People and the mesh of real processes: a snapshot and the way back, tokens for a namespace, the audit log.

use std::path::Path;

use weft_tests::{App, Client, Mesh, Sidecar, Workload, eventually};

const CLOSED: &str = "apiVersion: weft.dev/v1alpha1\nkind: AccessPolicy\nmetadata: {name: closed, namespace: default}\n\
    spec: {targetRefs: [{kind: Service, name: reviews}], action: Deny, rules: [{to: [{paths: ['/admin/*']}]}]}\n";

async fn ask(client: &Sidecar, path: &str) -> u16 {
    Client::through(client.proxy(), "reviews").await.get(path).await.status.as_u16()
}

async fn becomes(client: &Sidecar, path: &str, status: u16) {
    eventually(&format!("{path} gives {status}"), || async { (ask(client, path).await == status).then_some(()) }).await;
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A sidecar's own handshakes are looked at like those of its callers.
#[tokio::test(flavor = "multi_thread")]
async fn weft_check_tells_the_handshakes_of_both_sides() {
    let mesh = Mesh::start().await;
    let server = Workload::server("reviews", 8080, "http");
    let _app = App::start("reviews", server.ip, 8080).await;
    let client = mesh.sidecar(Workload::client("frontend")).await;
    let mut server = mesh.sidecar(server).await;
    becomes(&client, "/who", 200).await;
    let check = |sidecar: &Sidecar| {
        let ip = sidecar.workload.ip.to_string();
        mesh.weft(&["check", "--proxy", "--ip", &ip, "-o", "json"]).json()
    };
    let handshakes = |sidecar: &Sidecar, side: &str| {
        let findings = check(sidecar);
        let about = format!("{} {side} handshakes", sidecar.workload.ip);
        let found = findings.as_array().unwrap().iter().find(|finding| finding["check"] == about.as_str());
        let found = found.unwrap_or_else(|| panic!("nothing about {about}: {findings}"));
        [&found["state"], &found["seen"]].map(|text| text.as_str().unwrap().to_owned())
    };
    let [state, seen] = handshakes(&client, "outbound");
    assert!(state == "ok" && seen.starts_with("none of ") && !seen.contains("none of 0"), "{seen}");
    assert_eq!(handshakes(&client, "inbound"), ["ok", "none of 0 failed"]);
    let [state, seen] = handshakes(&server, "inbound");
    assert!(state == "ok" && !seen.contains("none of 0"), "{seen}");
    server.process.kill();
    eventually("its caller's handshakes fail", || async {
        ask(&client, "/who").await;
        let [state, seen] = handshakes(&client, "outbound");
        (state == "warn" && seen.contains("port_closed")).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_brings_a_lost_policy_back_to_every_proxy() {
    let mesh = Mesh::start().await;
    let server = Workload::server("reviews", 8080, "http");
    let _app = App::start("reviews", server.ip, 8080).await;
    let client = mesh.sidecar(Workload::client("frontend")).await;
    let _server = mesh.sidecar(server).await;
    becomes(&client, "/who", 200).await;
    mesh.apply(CLOSED);
    assert_eq!(ask(&client, "/admin/x").await, 403);

    let (file, key) = (mesh.folder().join("mesh.snapshot"), mesh.folder().join("backup.key"));
    std::fs::write(&key, [7; 32]).unwrap();
    let save = ["snapshot", "save", text(&file), "--key-file", text(&key)];
    let saved = mesh.weft(&save);
    assert_eq!(saved.code, 0, "{saved:?}");
    assert!(mesh.weft(&save).err.contains("never overwritten"));
    let sealed = std::fs::read(&file).unwrap();
    assert!(!sealed.windows(11).any(|window| window == b"PRIVATE KEY"), "it is encrypted");

    let deleted = mesh.weft(&["delete", "accesspolicy", "closed", "--force"]);
    assert_eq!(deleted.code, 0, "{deleted:?}");
    becomes(&client, "/admin/x", 200).await;

    // What is no whole snapshot, or not opened by this key, changes nothing.
    let (bad, other) = (mesh.folder().join("bad.snapshot"), mesh.folder().join("other.key"));
    std::fs::write(&other, [8; 32]).unwrap();
    std::fs::write(&bad, &sealed[..sealed.len() - 1]).unwrap();
    for (file, key, reason) in
        [(&bad, &key, "damaged or was cut"), (&file, &other, "key is wrong"), (&key, &key, "no sealed snapshot")]
    {
        let refused = mesh.weft(&["snapshot", "restore", text(file), "--key-file", text(key)]);
        assert_eq!(refused.code, 1, "{refused:?}");
        assert!(refused.err.contains(reason) && refused.err.contains("nothing was changed"), "{refused:?}");
    }
    assert_eq!(ask(&client, "/admin/x").await, 200);

    let restored = mesh.weft(&["snapshot", "restore", text(&file), "--key-file", text(&key)]);
    assert!(restored.code == 0 && restored.out.contains("the control plane is back"), "{restored:?}");
    becomes(&client, "/admin/x", 403).await;
    assert_eq!(ask(&client, "/who").await, 200);
    assert!(client.health("ready") == 200);
    mesh.apply(&CLOSED.replace("/admin/*", "/secret/*"));
    becomes(&client, "/secret/x", 403).await;
    let events = mesh.weft(&["events", "--action", "snapshot"]);
    assert!(events.out.contains("snapshot.restore") && events.out.contains("first-operator"), "{events:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_for_a_namespace_ends_at_its_border_and_every_attempt_is_told() {
    let mesh = Mesh::start().await;
    let service = |namespace: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: web, namespace: {namespace}}}\n\
             spec: {{selector: {{app: web}}, ports: [{{port: 80}}]}}\n"
        )
    };
    mesh.apply(&service("bank"));
    let made = mesh.weft(&["token", "create", "--role", "operator", "--namespace", "shop", "--name", "till"]);
    assert_eq!(made.code, 0, "{made:?}");
    let token = mesh.folder().join("till.token");
    std::fs::write(&token, made.out).unwrap();
    let till = |input: &str, arguments: &[&str]| {
        let arguments: Vec<&str> = arguments.iter().copied().chain(["--token-file", text(&token)]).collect();
        mesh.weft_reading(input, &arguments)
    };
    let own = till(&service("shop"), &["apply", "-f", "-"]);
    assert_eq!(own.code, 0, "{own:?}");
    let foreign = till(&service("bank").replace("port: 80", "port: 81"), &["apply", "-f", "-"]);
    assert_eq!(foreign.code, 1, "{foreign:?}");
    assert!(foreign.err.contains("a token for bank, or for the whole mesh, may"), "{foreign:?}");
    let seen = till("", &["get", "services", "-A"]);
    assert!(seen.out.contains("shop") && !seen.out.contains("bank"), "{seen:?}");
    let listed = mesh.weft(&["token", "list"]);
    assert!(listed.out.contains("role operator for shop"), "{listed:?}");
    let refused = || {
        let events = mesh.weft(&["events", "--actor", "till", "--refused"]);
        (events.out.contains("post refused") && events.out.contains("403 forbidden")).then_some(())
    };
    eventually("the attempt is told", || async { refused() }).await;
    let events = mesh.weft(&["events", "--actor", "till", "--diff"]);
    assert!(events.out.contains("+  name: web"), "{events:?}");
    let told = till("", &["events", "-o", "json"]).json();
    let entries = told["entries"].as_array().unwrap();
    assert!(!entries.is_empty() && entries.iter().all(|entry| entry["namespaces"] == serde_json::json!(["shop"])));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_is_withdrawn_and_given_back_by_a_new_token_file_without_a_restart() {
    let mesh = Mesh::start().await;
    let _server = mesh.sidecar(Workload::server("reviews", 8080, "http")).await;
    let claims = Workload { service: Some("reviews".to_owned()), ..Workload::server("canary", 8080, "http") };
    let canary = mesh.sidecar(claims.clone()).await;
    let stand_behind = async |count: usize| {
        let ask = || async {
            let printed = mesh.weft(&["explain", "--from", "default/frontend", "--to", "reviews", "-o", "json"]);
            let found = printed.json()["backends"][0]["endpoints"].as_array().map(Vec::len);
            (found == Some(count)).then_some(())
        };
        eventually(&format!("{count} endpoints"), ask).await;
    };
    stand_behind(2).await;
    let grants = mesh.weft(&["proxy", "grants"]);
    let of_canary = grants.out.lines().find(|line| line.contains("/sa/canary")).unwrap();
    assert!(of_canary.contains(" reviews ") && of_canary.contains(" app=canary "), "{grants:?}");
    let withdrawn = mesh.weft(&["proxy", "withdraw", "default/canary", "--service", "reviews"]);
    assert!(
        withdrawn.out.contains("default/canary left: workload default/canary may not stand behind"),
        "{withdrawn:?}"
    );
    stand_behind(1).await;
    canary.process.logs("an operator withdrew service=reviews");
    canary.process.logs("account spiffe://cluster.local/ns/default/sa/canary may not stand behind");
    std::fs::write(mesh.folder().join("canary").join("token"), mesh.token_for(&claims)).unwrap();
    stand_behind(2).await;
    canary.process.logs("granted=\"service=reviews\"");
}
