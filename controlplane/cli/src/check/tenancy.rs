//! Whether the namespaces of a mesh are apart: its objects are fetched and planned here, with and without each namespace's.

use weft_policy::plan::{World, intrusions};
use weft_policy::resource::Kind;

use super::Finding;
use crate::access::AccessArgs;
use crate::api::Client;
use crate::commands::get;
use crate::kinds;

/// One finding for each object that reaches into another namespace.
pub(super) async fn findings(args: &AccessArgs) -> anyhow::Result<Vec<Finding>> {
    let client = Client::new(&args.resolve()?)?;
    let mut world = World::default();
    for kind in Kind::ALL {
        for item in get::list(&client, kind, None).await? {
            world.insert(kinds::entry(&serde_json::to_value(&item)?)?);
        }
    }
    Ok(judged(&world))
}

fn judged(world: &World) -> Vec<Finding> {
    let advice = "an object of one namespace acts in another: change it, or move it to where it acts";
    let intrusion = |found: weft_policy::plan::Intrusion| Finding::fail("tenancy", found.to_string(), advice);
    let found: Vec<_> = intrusions(world).into_iter().map(intrusion).collect();
    if !found.is_empty() {
        return found;
    }
    let namespaces: std::collections::BTreeSet<_> = world.workloads().map(|it| &it.metadata.namespace).collect();
    let seen =
        format!("{} objects, {} namespaces with workloads: none reaches into another", world.len(), namespaces.len());
    vec![Finding::ok("tenancy", seen)]
}

#[cfg(test)]
mod tests {
    use weft_policy::manifest;

    use super::*;

    #[test]
    fn an_object_that_acts_elsewhere_fails_the_check() {
        let own = |namespace: &str, address: &str| {
            format!(
                "{{apiVersion: weft.dev/v1alpha1, kind: Workload, metadata: {{name: web, namespace: {namespace}, labels: \
                 {{app: web}}}}, spec: {{address: {address}, ports: [{{port: 80}}]}}}}\n---\n{{apiVersion: v1, kind: \
                 Service, metadata: {{name: web, namespace: {namespace}}}, spec: {{selector: {{app: web}}, clusterIP: \
                 10.96.0.1, ports: [{{port: 80}}]}}}}\n---\n"
            )
        };
        let world = |text: &str| {
            let mut world = World::default();
            for document in manifest::parse("test", text).unwrap() {
                let printed = serde_json::to_value(&document.resource).unwrap();
                world.insert(kinds::entry(&printed).unwrap());
            }
            world
        };
        let apart = judged(&world(&own("shop", "10.0.0.1")));
        assert_eq!(apart[0].seen, "2 objects, 1 namespaces with workloads: none reaches into another");
        let found = judged(&world(&(own("shop", "10.0.0.1") + &own("bank", "10.0.0.2"))));
        assert!(
            found[0].seen.starts_with("Service bank/web changes what proxies in shop hold: the way to"),
            "{found:?}"
        );
    }
}
