//! Protection that a change would take away, and what can't be read.

use super::*;

/// Protection that the change from one world to the other takes away.
fn lost(before: &str, after: &str) -> Vec<String> {
    losses(&world(before), &world(after)).iter().map(ToString::to_string).collect()
}

const PROTECTED: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: hello}
spec: {selector: {app: hello}, ports: [{port: 80}]}
---
apiVersion: weft.dev/v1alpha1
kind: Workload
metadata: {name: hello-1, labels: {app: hello}}
spec: {address: 10.0.0.1, ports: [{port: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: other}
spec: {selector: {app: other}, ports: [{port: 80}]}
---
apiVersion: weft.dev/v1alpha1
kind: AccessPolicy
metadata: {name: guard}
spec: {targetRefs: [{kind: Service, name: hello}], action: Allow, rules: []}
"#;

#[test]
fn protection_is_not_taken_away_in_passing() {
    let opened = "Workload default/hello-1 would no longer be protected by AccessPolicy default/guard: its target Service \
                  default/hello";
    let gone = PROTECTED.replacen("metadata: {name: hello}", "metadata: {name: renamed}", 1);
    assert_eq!(lost(PROTECTED, &gone), [format!("{opened} does not exist")]);
    let selector = PROTECTED.replace("spec: {selector: {app: hello}", "spec: {selector: {app: helo}");
    assert_eq!(lost(PROTECTED, &selector), [format!("{opened} does not select it any more")]);
    let relabelled = PROTECTED.replace("labels: {app: hello}", "labels: {app: helo}");
    assert_eq!(lost(PROTECTED, &relabelled), [format!("{opened} does not select it any more")]);
    let mistyped = PROTECTED.replace("{kind: Service, name: hello}", "{kind: Service, name: helo}");
    let expect = opened.replace("default/hello", "default/helo").replacen("default/helo-1", "default/hello-1", 1);
    assert_eq!(lost(PROTECTED, &mistyped), [format!("{expect} does not exist")]);
    // A change of the policy itself, or the removal of a whole object, is meant so and no loss.
    assert_eq!(
        lost(PROTECTED, &PROTECTED.replace("{kind: Service, name: hello}", "{kind: Service, name: other}")),
        [""; 0]
    );
    assert_eq!(
        lost(PROTECTED, PROTECTED.split("---\napiVersion: weft.dev/v1alpha1\nkind: AccessPolicy").next().unwrap()),
        [""; 0]
    );
    assert_eq!(lost(PROTECTED, PROTECTED), [""; 0]);
}

#[test]
fn no_other_change_takes_protection_away_in_passing() {
    let check = |before: &[(&str, &str)], after: &[(&str, &str)], expect: &[&str]| {
        let with = |text: &str, changes: &[(&str, &str)]| {
            changes.iter().fold(text.to_owned(), |text, (old, new)| {
                assert!(text.contains(old), "{old}");
                text.replace(old, new)
            })
        };
        let before = with(PROTECTED, before);
        assert_eq!(lost(&before, &with(&before, after)), expect, "{after:?}");
    };
    let (targets, mistyped) =
        ("targetRefs: [{kind: Service, name: hello}], ", "targetRefs: [{kind: Service, name: helo}], ");
    let opened = "Workload default/hello-1 would no longer be protected by AccessPolicy default/guard: ";
    let by = |why: &str| format!("{opened}{why}");
    // One without targets is given a mistyped one, and one that does not select the workload: the second is meant.
    check(
        &[(targets, "")],
        &[("spec: {action", &format!("spec: {{{mistyped}action"))],
        &[&by("its target Service default/helo does not exist")],
    );
    check(&[(targets, "")], &[("spec: {action", "spec: {targetRefs: [{kind: Service, name: other}], action")], &[]);
    // Another target does not excuse that the first one is lost.
    let both = "targetRefs: [{kind: Service, name: hello}, {kind: Service, name: other}], ";
    let not_selected = by("its target Service default/hello does not select it any more");
    check(&[], &[(targets, both), ("labels: {app: hello}", "labels: {app: helo}")], &[&not_selected]);
    // A namespace in which there is nothing is none.
    let root = (
        "metadata: {name: guard}\nspec: {targetRefs: [{kind: Service, name: hello}]",
        "metadata: {name: guard, namespace: weft-system}\nspec: {targetRefs: [{kind: Namespace, name: default}]",
    );
    let nowhere = "Workload default/hello-1 would no longer be protected by AccessPolicy weft-system/guard: its target Namespace defualt does not exist";
    check(&[root], &[("{kind: Namespace, name: default}", "{kind: Namespace, name: defualt}")], &[nowhere]);
    // Ports that no rule is for.
    let deny = ("action: Allow, rules: []", "action: Deny, rules: [{to: [{ports: [8080]}]}]");
    check(
        &[deny],
        &[("ports: [{port: 8080}]", "ports: [{port: 9090}]")],
        &[&by("it guards port 8080, and the workload has 9090 now")],
    );
    check(&[deny], &[("[{to: [{ports: [8080]}]}]", "[{to: [{ports: [9090]}]}]")], &[]);
    // A protocol that a filter does not look into.
    let filter = (
        "kind: AccessPolicy\nmetadata: {name: guard}\nspec: {targetRefs: [{kind: Service, name: hello}], action: Allow, rules: []}",
        "kind: FilterPolicy\nmetadata: {name: guard}\nspec: {targetRefs: [{kind: Service, name: hello}], filter: {name: fault}}",
    );
    let blind = "Workload default/hello-1 would no longer be protected by FilterPolicy default/guard: port 8080 speaks tcp now, which its filter does not look into";
    let declared = (
        "spec: {selector: {app: hello}, ports: [{port: 80}]}",
        "spec: {selector: {app: hello}, ports: [{port: 80, targetPort: 8080, appProtocol: http}]}",
    );
    check(&[filter, declared], &[("appProtocol: http", "appProtocol: tcp")], &[blind]);
    // The same socket under another name.
    let named = ("{kind: Service, name: hello}", "{kind: Workload, name: hello-1}");
    let heir = "Workload default/hello-2 would no longer be protected by AccessPolicy default/guard: its target Workload default/hello-1 does not exist";
    check(&[named], &[("metadata: {name: hello-1,", "metadata: {name: hello-2,")], &[heir]);
}

/// What the change of policies from one world to the other opens.
fn opened(before: &str, after: &str) -> Vec<String> {
    openings(&world(before), &world(after)).iter().map(ToString::to_string).collect()
}

#[test]
fn what_the_owner_of_a_policy_opens_is_told() {
    let with = |policy: &str| {
        let rest = PROTECTED.rsplit_once("---").unwrap().0;
        let meta = "apiVersion: weft.dev/v1alpha1\nkind: AccessPolicy\nmetadata: {name: guard}\nspec: ";
        format!("{rest}---\n{meta}{policy}\n")
    };
    let check = |before: &str, after: &str, expect: &[&str]| {
        let expect: Vec<_> = expect
            .iter()
            .map(|what| format!("Workload default/hello-1 opens: {what} would be let in, and is not now"))
            .collect();
        assert_eq!(opened(&with(before), &with(after)), expect, "{before} -> {after}");
    };
    let anybody = "a connection to port 8080 by spiffe://cluster.local/ns/any/sa/any";
    let (none, all) = ("{action: Allow, rules: []}", "{action: Allow, rules: [{}]}");
    check(none, all, &[anybody]);
    check(all, none, &[]);
    check(none, none, &[]);
    check("{action: Deny, rules: []}", "{action: Allow, rules: [{name: x}]}", &[anybody]);
    let shop = "{action: Allow, rules: [{from: [{namespaces: [shop]}]}]}";
    check(none, shop, &["a connection to port 8080 by spiffe://cluster.local/ns/shop/sa/any"]);
    check(shop, "{action: Allow, rules: [{from: [{serviceAccounts: [shop/web]}]}]}", &[]);
    let admin = "{action: Deny, rules: [{to: [{paths: [/admin/*, '/x/{id}']}]}]}";
    let by = "by spiffe://cluster.local/ns/any/sa/any";
    check(admin, "{action: Deny, rules: [{to: [{paths: [/admin/*]}]}]}", &[&format!("GET /x/any at port 8080 {by}")]);
    check(
        "{action: Deny, rules: [{to: [{notPaths: [/open]}]}]}",
        "{action: Deny, rules: [{to: [{notPaths: [/open, /b]}]}]}",
        &[&format!("GET /b at port 8080 {by}")],
    );
    let header = "{action: Allow, rules: [{to: [{methods: [POST], headers: [{name: X-A, exact: '1'}]}]}]}";
    check(none, header, &[&format!("POST /any at port 8080 with x-a: 1 {by}")]);
    let office = "{action: Allow, rules: [{from: [{namespaces: [shop], ipBlocks: [10.1.0.0/16]}]}]}";
    let shop_from = "a connection to port 8080 by spiffe://cluster.local/ns/shop/sa/any";
    check(none, office, &[&format!("{shop_from} from 10.1.0.0")]);
    check(office, shop, &[shop_from]);
    check(shop, office, &[]);
    let hosts = "{action: Deny, rules: [{to: [{hosts: [a.example, b.example]}]}]}";
    let fewer = "{action: Deny, rules: [{to: [{hosts: [a.example]}]}]}";
    check(hosts, fewer, &[&format!("GET /any at port 8080 of host b.example {by}")]);
    // The last rule that denies, and the policy as a whole.
    let gone = PROTECTED.rsplit_once("---").unwrap().0;
    let expect = format!("Workload default/hello-1 opens: {anybody} would be let in, and is not now");
    assert_eq!(opened(&with(none), gone), std::slice::from_ref(&expect));
    assert_eq!(opened(gone, &with(all)), [""; 0]);
    // Another target than before is meant so, and opens.
    let elsewhere = "{targetRefs: [{kind: Service, name: other}], action: Allow, rules: []}";
    assert_eq!(opened(&with(none), &with(elsewhere)), [expect]);
    // What another policy still denies stays closed.
    let mesh = "---\napiVersion: weft.dev/v1alpha1\nkind: AccessPolicy\nmetadata: {name: m, namespace: weft-system}\nspec: {action: Deny, rules: []}\n";
    assert_eq!(opened(&(with(none) + mesh), &(with(all) + mesh)), [""; 0]);
    // A filter that is only watched from now on.
    let filter = |mode: &str| {
        format!(
            "{gone}---\napiVersion: weft.dev/v1alpha1\nkind: FilterPolicy\nmetadata: {{name: f}}\nspec: {{mode: {mode}, targetRefs: [{{kind: Service, name: hello}}], filter: {{name: fault}}}}\n"
        )
    };
    let expect = ["Workload default/hello-1 opens: its filter is enforced no longer"];
    assert_eq!(opened(&filter("Enforce"), &filter("Audit")), expect);
    assert_eq!(opened(&filter("Audit"), &filter("Enforce")), [""; 0]);
    assert_eq!(opened(&filter("Enforce"), gone), expect);
}

#[test]
fn what_restricts_by_something_unreadable_fails_closed() {
    let mut world = world(&PROTECTED.replacen("metadata: {name: hello}", "metadata: {name: renamed}", 1));
    let workload = world.workload(&name("default/hello-1")).unwrap().clone();
    assert!(access_config(&world, &workload).is_none());
    let status = |world: &World| {
        let policy = world.get(&ObjectKey::new(Kind::AccessPolicy, "default", "guard")).unwrap();
        policy_status(world, Kind::AccessPolicy, policy.resource.metadata()).remove(0)
    };
    assert_eq!((status(&world).status, status(&world).reason), (false, "TargetNotFound"));
    world.note_unreadable(ObjectKey::new(Kind::Service, "default", "hello"));
    assert!(access_config(&world, &workload).is_some(), "it may be one of those that the service selects");
    assert!(status(&world).status);
    let readable = manifest::parse("", PROTECTED).unwrap().remove(0).resource;
    world.put(&Owner::Applied, readable, Revision(9), "uid").unwrap();
    world.remove(&ObjectKey::new(Kind::Service, "default", "hello"));
    assert!(access_config(&world, &workload).is_none(), "another took its place");
}
