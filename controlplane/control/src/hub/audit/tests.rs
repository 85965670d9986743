//! The audit log: what is kept of a change and of attempts, and what no flood can push out.

use super::super::tests::{SHOP, hub_in, resources};
use super::super::{How, Hub};
use super::*;

fn attempt(actor: &str, from: &str) -> AuditEntry {
    let actor = Actor { from: Some(from.parse().unwrap()), ..actor.into() };
    let mut entry = AuditEntry::new(&actor, "get /api/v1/proxies", String::new(), "no".to_owned());
    entry.refused = "401 unauthenticated".to_owned();
    entry
}

async fn settled(hub: &Hub) {
    hub.write_attempts().await;
}

#[tokio::test]
async fn an_apply_is_kept_with_who_where_and_what() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub_in(dir.path(), |_| {});
    let anna = Actor {
        id: "operator:ab".to_owned(),
        name: "anna".to_owned(),
        role: Some(Role::Operator),
        from: Some("192.0.2.7".parse().unwrap()),
        addresses: None,
        bound: None,
    };
    hub.apply(&anna, resources(SHOP), How::Safely).await.unwrap();
    hub.apply(&anna, resources(&SHOP.replace("8080", "8081")), How::Safely).await.unwrap();
    hub.apply(&anna, resources(&SHOP.replace("8080", "8082")), How::DryRun).await.unwrap();
    let log = hub.audit(None, 10).await.unwrap();
    assert_eq!(log.len(), 2, "a dry run is no event");
    let (_, entry) = &log[0];
    assert_eq!((entry.name.as_str(), entry.role.as_str(), entry.from.as_str()), ("anna", "operator", "192.0.2.7"));
    assert_eq!((entry.object.as_str(), entry.revision), ("Service shop/web, Workload shop/web-1", 2));
    assert!(entry.diff.contains("-  - port: 8080\n+  - port: 8081"), "{}", entry.diff);
    assert_eq!((entry.namespaces.as_slice(), entry.refused.as_str()), (["shop".to_owned()].as_slice(), ""));

    // A large change is cut, at a character.
    let label = "\u{e9}".repeat(60);
    let workload = |number: usize| {
        format!(
            "---\napiVersion: weft.dev/v1alpha1\nkind: Workload\nmetadata: {{name: w{number}, namespace: shop, \
             annotations: {{note: {label}}}}}\nspec: {{address: 127.0.0.9, ports: [{{port: 8080}}], serviceAccount: w}}\n"
        )
    };
    let many: String = (0..300).map(workload).collect();
    hub.apply(&anna, resources(&many), How::Safely).await.unwrap();
    let (_, entry) = hub.audit(None, 1).await.unwrap().remove(0);
    assert!(entry.diff.len() < MAX_DIFF + 100 && entry.diff.contains("... cut, "), "{}", entry.diff.len());
    assert!(entry.object.len() < MAX_TEXT + 100);
}

#[tokio::test]
async fn no_flood_pushes_an_operators_entry_out() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub_in(dir.path(), |_| {});
    hub.apply("operator:ab", resources(SHOP), How::Safely).await.unwrap();
    for number in 0..5_000 {
        let from = format!("10.{}.{}.1", number / 250, number % 250);
        hub.note_refused(attempt(AuditEntry::UNKNOWN, &from));
        hub.note_refused(attempt("operator:evil", "192.0.2.1"));
    }
    settled(&hub).await;
    let log = hub.audit(None, 1_000).await.unwrap();
    let of = |actor: &str| log.iter().filter(|(_, entry)| entry.actor == actor).count();
    assert_eq!(of("operator:ab"), 1);
    assert_eq!(of("operator:evil"), usize::try_from(ATTEMPTS_PER_MINUTE).unwrap());
    assert_eq!(of(AuditEntry::UNKNOWN), usize::try_from(STRANGERS_PER_MINUTE).unwrap());
    assert_eq!(hub.attempts.uncounted.lock().unwrap().len(), MAX_SOURCES + 1, "sources are bounded as well");
}

#[test]
fn what_has_no_entry_is_counted_with_the_next_one() {
    let attempts = Attempts::default();
    let start = Instant::now();
    for _ in 0..ATTEMPTS_PER_MINUTE + 7 {
        attempts.take(attempt("operator:evil", "192.0.2.1"), start);
    }
    attempts.waiting.lock().unwrap().clear();
    attempts.take(attempt("operator:evil", "192.0.2.1"), start + Duration::from_secs(60));
    let waiting = attempts.waiting.lock().unwrap();
    assert_eq!(waiting[0].detail, "no; 7 more attempts before it have no entry");
}

#[tokio::test]
async fn events_are_found_by_actor_object_and_time() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub_in(dir.path(), |_| {});
    hub.apply("operator:ab", resources(SHOP), How::Safely).await.unwrap();
    let mut entry = attempt("operator:cd", "192.0.2.1");
    entry.object = "/api/v1/apply".to_owned();
    hub.note_refused(entry);
    settled(&hub).await;
    let find = async |query: AuditQuery| {
        let log = hub.events(AuditQuery { limit: 10, ..query }).await.unwrap();
        log.into_iter().map(|(_, entry)| entry.actor).collect::<Vec<_>>()
    };
    let all = || AuditQuery::default();
    assert_eq!(find(all()).await, ["operator:cd", "operator:ab"]);
    assert_eq!(find(AuditQuery { actor: Some("AB".to_owned()), ..all() }).await, ["operator:ab"]);
    assert_eq!(find(AuditQuery { object: Some("service shop/w".to_owned()), ..all() }).await, ["operator:ab"]);
    assert_eq!(find(AuditQuery { refused: Some(true), ..all() }).await, ["operator:cd"]);
    assert_eq!(find(AuditQuery { since_unix_ms: Some(i64::MAX), ..all() }).await, [""; 0]);
    assert_eq!(find(AuditQuery { after: Some(1), ..all() }).await, ["operator:cd"]);
    let within = |name: &str| Some([name.to_owned()].into());
    assert_eq!(find(AuditQuery { namespaces: within("shop"), ..all() }).await, ["operator:ab"]);
    assert_eq!(find(AuditQuery { namespaces: within("bank"), ..all() }).await, [""; 0]);
}
