//! `weft describe`: one object in full and what belongs to it: the endpoints of a service, the routes on it, the
//! policies that hold for it.

use std::collections::BTreeMap;

use serde_json::Value;
use weft_api::{Metadata, Resource};
use weft_policy::resource::Kind;

use super::{get, lint};
use crate::access::AccessArgs;
use crate::answer::{Answer, Failure, Outcome};
use crate::api::{Client, Error};
use crate::kinds::{self, Target};
use crate::output::{self, cell, text_at};
use crate::values;

const EXAMPLE: &str = "Example:
  weft describe service reviews --namespace shop";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(crate) struct DescribeArgs {
    /// Kind of the object, such as service or httproute.
    kind: String,
    name: String,
    #[arg(short, long, default_value = "default", value_parser = values::name)]
    namespace: String,
    #[command(flatten)]
    access: AccessArgs,
}

pub(crate) async fn run(args: DescribeArgs) -> Outcome {
    let kind = kinds::parse(&args.kind)?;
    let client = args.access.client()?;
    let object = get::one(&client, &Target::new(kind, &args.namespace, &args.name)).await?;
    let mut text = output::yaml(&object)?;
    if matches!(kind, Kind::Service | Kind::Workload) {
        text.push_str(&related(&client, kind, &object).await?);
    }
    text.push_str(&found(&client, kind, &object).await?);
    output::print(&text);
    Ok(Answer::Yes)
}

/// Findings about the object; nothing where there are none.
async fn found(client: &Client, kind: Kind, object: &Resource) -> Result<String, Failure> {
    let Metadata { namespace, name, .. } = &object.metadata;
    let found = match lint::of_object(client, kind.as_str(), namespace, name).await {
        Err(Error::Refused(refusal)) if refusal.status == 404 => {
            return Ok("\nFindings:\n  not known: the control plane is of an older release\n".to_owned());
        }
        found => found?,
    };
    let lines = found.iter().map(|finding| format!("  {}\n", finding.about_object()));
    let lines: String = lines.collect();
    Ok(if lines.is_empty() { lines } else { format!("\nFindings:\n{lines}") })
}

async fn related(client: &Client, kind: Kind, object: &Resource) -> Result<String, Failure> {
    let namespace = &object.metadata.namespace;
    let mut text = String::new();
    let mut section = |title: &str, lines: Vec<String>| {
        text.push_str(&format!("\n{title}:\n"));
        if lines.is_empty() {
            text.push_str("  none\n");
        }
        for line in lines {
            text.push_str(&format!("  {line}\n"));
        }
    };
    if kind == Kind::Service {
        let workloads = get::list(client, Kind::Workload, Some(namespace)).await?;
        let chosen = workloads.iter().filter(|workload| selects(object, &workload.metadata.labels));
        section("Endpoints", chosen.map(|workload| endpoint(workload)).collect());
        // A producer's or a consumer's route: any namespace may have one.
        let routes = get::list(client, Kind::HttpRoute, None).await?;
        section("Routes", routes.iter().filter(|route| is_attached(route, object)).map(|it| named(it)).collect());
    } else {
        let services = get::list(client, Kind::Service, Some(namespace)).await?;
        let choosing = services.iter().filter(|service| selects(service, &object.metadata.labels));
        section("Services", choosing.map(|it| named(it)).collect());
    }
    for (kind, title) in [(Kind::AccessPolicy, "Access policies"), (Kind::FilterPolicy, "Filter policies")] {
        let policies = get::list(client, kind, Some(namespace)).await?;
        section(title, policies.iter().filter(|policy| holds_for(policy, object)).map(|it| named(it)).collect());
    }
    Ok(text)
}

/// Every label of the service's selector is among the labels; an empty selector selects nothing.
fn selects(service: &Resource, labels: &BTreeMap<String, String>) -> bool {
    let selector = service.spec["selector"].as_object().filter(|selector| !selector.is_empty());
    let has = |(key, value): (&String, &Value)| labels.get(key).map(String::as_str) == value.as_str();
    selector.is_some_and(|selector| selector.iter().all(has))
}

fn is_attached(route: &Resource, service: &Resource) -> bool {
    route.spec["parentRefs"].as_array().into_iter().flatten().any(|parent| {
        let namespace = parent["namespace"].as_str().unwrap_or(&route.metadata.namespace);
        parent["name"] == service.metadata.name.as_str() && service.metadata.namespace == namespace
    })
}

/// Named by the policy, or in its namespace where it names nothing.
fn holds_for(policy: &Resource, object: &Resource) -> bool {
    let Some(targets) = policy.spec["targetRefs"].as_array().filter(|targets| !targets.is_empty()) else {
        return true;
    };
    let Metadata { namespace, name, .. } = &object.metadata;
    targets.iter().any(|target| {
        let is_called = |kind: &str, name: &str| target["kind"] == kind && target["name"] == name;
        is_called("Namespace", namespace) || is_called(&object.kind, name)
    })
}

fn endpoint(workload: &Resource) -> String {
    let [address, account] = ["address", "serviceAccount"].map(|key| text_at(&workload.spec, &[key]));
    format!("{} at {address} as {account}", cell(&workload.metadata.name))
}

fn named(object: &Resource) -> String {
    format!("{}/{}", cell(&object.metadata.namespace), cell(&object.metadata.name))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::get::tests::resource;
    use super::*;

    #[test]
    fn what_belongs_to_a_service() {
        let labels = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        let selecting = |selector: Value| resource(json!({"spec": {"selector": selector}}));
        assert!(selects(&selecting(json!({"app": "a"})), &labels(&[("app", "a"), ("v", "1")])));
        assert!(!selects(&selecting(json!({"app": "a"})), &labels(&[("v", "1")])));
        assert!(!selects(&selecting(json!({})), &labels(&[("v", "1")])));
        let service = resource(json!({"kind": "Service", "metadata": {"namespace": "shop", "name": "reviews"}}));
        let route =
            |parent: Value| resource(json!({"metadata": {"namespace": "shop"}, "spec": {"parentRefs": [parent]}}));
        assert!(is_attached(&route(json!({"name": "reviews"})), &service));
        assert!(!is_attached(&route(json!({"name": "reviews", "namespace": "other"})), &service));
        let policy = |targets: Value| resource(json!({"spec": {"targetRefs": targets}}));
        assert!(holds_for(&policy(json!([])), &service));
        assert!(holds_for(&policy(json!([{"kind": "Namespace", "name": "shop"}])), &service));
        assert!(!holds_for(&policy(json!([{"kind": "Service", "name": "prices"}])), &service));
    }
}
