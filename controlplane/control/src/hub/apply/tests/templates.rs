//! Templates that policies use.

use super::*;

const TEMPLATE: &str = "{apiVersion: weft.dev/v1alpha1, kind: PolicyTemplate, metadata: {name: critical}, spec: {tier: critical, \
                        parameters: [{name: patience, type: Duration, default: 2s, max: 1m}], trafficPolicy: {timeouts: {request: \
                        '${patience}'}}}}\n";
const POLICY: &str = "{apiVersion: weft.dev/v1alpha1, kind: TrafficPolicy, metadata: {name: web, namespace: shop}, spec: {targetRefs: \
                      [{kind: Service, name: web}], limits: {maxActiveRequests: 7}, template: {name: critical, parameters: \
                      {patience: 5s}}}}\n";

fn key() -> ObjectKey {
    ObjectKey::new(Kind::PolicyTemplate, "", "critical")
}

/// What is said of the service, each with who says it.
fn said(hub: &Hub) -> Vec<String> {
    let settings = weft_policy::plan::effective(&hub.published().world, &ObjectName::new("shop", "web")).into_iter();
    settings.filter_map(|it| Some(format!("{}: {} ({})", it.setting, it.value, it.by?))).collect()
}

const LIMITS: &str = "limits: 7 active requests of each proxy (TrafficPolicy shop/web)";
const REQUEST: &str = "timeouts.request: 5s (TrafficPolicy shop/web by PolicyTemplate critical)";

#[tokio::test]
async fn a_template_that_is_used_is_neither_broken_nor_taken_away() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub_in(dir.path(), |_| {});
    hub.apply("me", resources(SHOP), How::Safely).await.unwrap();
    let refused = async |text: &str| {
        let refused = hub.apply("me", resources(text), How::Forced).await.unwrap_err().to_string();
        refused
            .strip_prefix("the world would not be sound: TrafficPolicy shop/web: spec.")
            .unwrap_or(&refused)
            .to_owned()
    };
    assert_eq!(refused(POLICY).await, "template.name: PolicyTemplate critical does not exist [WEFT501]");
    hub.apply("me", resources(&format!("{TEMPLATE}---\n{POLICY}")), How::Safely).await.unwrap();
    assert_eq!(said(&hub), [LIMITS, REQUEST]);
    let value = "template.parameters.patience: ";
    let told = refused(&POLICY.replace("5s", "2m")).await;
    assert_eq!(told, format!("{value}2m is out of range: 1m at most [WEFT502]"));
    // The template's change is refused for the policy that it would break.
    let told = refused(&TEMPLATE.replace("max: 1m", "max: 4s")).await;
    assert_eq!(told, format!("{value}5s is out of range: 4s at most [WEFT502]"));
    let told = refused(&TEMPLATE.replace("patience", "waiting")).await;
    assert_eq!(told, format!("{value}is not a parameter of the template: waiting [WEFT502]"));
    let told = refused(&TEMPLATE.replace("{tier", "{namespaces: [bank], tier")).await;
    assert_eq!(told, "template.name: PolicyTemplate critical is not for namespace shop [WEFT502]");
    let told = hub.delete("me", key(), How::Forced).await.unwrap_err().to_string();
    assert!(
        told.contains("TrafficPolicy shop/web: spec.template.name: PolicyTemplate critical does not exist"),
        "{told}"
    );
    assert_eq!(said(&hub), [LIMITS, REQUEST], "all is as it was");
    // Together with the policy it may change.
    let both = format!("{}---\n{}", TEMPLATE.replace("max: 1m", "max: 4s"), POLICY.replace("5s", "3s"));
    hub.apply("me", resources(&both), How::Safely).await.unwrap();
    hub.delete("me", ObjectKey::new(Kind::TrafficPolicy, "shop", "web"), How::Safely).await.unwrap();
    hub.delete("me", key(), How::Safely).await.unwrap();
}

#[tokio::test]
async fn of_a_policy_whose_template_cannot_be_read_holds_what_it_says_itself() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub_in(dir.path(), |_| {});
    let all = format!("{SHOP}---\n{TEMPLATE}---\n{POLICY}");
    hub.apply("me", resources(&all), How::Safely).await.unwrap();
    drop(hub);
    tamper(dir.path(), &[("policytemplates//critical", "{")]);
    let hub = hub_in(dir.path(), |_| {});
    assert_eq!(said(&hub), [LIMITS]);
    let namespace = "{apiVersion: v1, kind: Namespace, metadata: {name: shop}}";
    hub.apply("me", resources(namespace), How::Safely).await.unwrap();
    hub.apply("me", resources(TEMPLATE), How::Safely).await.unwrap();
    assert_eq!(said(&hub), [LIMITS, REQUEST], "put right it is as before");
}
