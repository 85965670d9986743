//! `weft describe`: one object in full and what belongs to it: the endpoints of a service, the routes on it, the
//! policies that hold for it.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use serde_json::Value;
use weft_api::{Ban, Metadata, Resource};
use weft_policy::bundle::ObjectName;
use weft_policy::identity::SpiffeId;
use weft_policy::plan::World;
use weft_policy::resource::{self as policy, Kind, ROOT_NAMESPACE};

use super::{get, lint, proxies};
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
    let object = match get::one(&client, &Target::new(kind, &args.namespace, &args.name)).await {
        // The workload of a proxy leaves with its ban.
        Err(Failure::Refused(text)) if kind == Kind::Workload => {
            let bans = proxies::bans(&client).await?;
            return Err(Failure::Refused(text + &kept_out_of(&args.namespace, &bans)));
        }
        object => object?,
    };
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
    let bans = proxies::bans(client).await?;
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
        let workloads = workloads.iter().map(|workload| &**workload);
        let chosen: Vec<&Resource> = workloads.filter(|it| selects(object, &it.metadata.labels)).collect();
        section("Endpoints", chosen.iter().map(|workload| endpoint(workload, &bans)).collect());
        let gone = gone(namespace, &chosen, &bans);
        if !gone.is_empty() {
            section(&format!("Kept out of namespace {}, without endpoints", cell(namespace)), gone);
        }
        // A producer's or a consumer's route: any namespace may have one.
        let routes = get::list(client, Kind::HttpRoute, None).await?;
        section("Routes", routes.iter().filter(|route| is_attached(route, object)).map(|it| named(it)).collect());
    } else {
        let services = get::list(client, Kind::Service, Some(namespace)).await?;
        let choosing = services.iter().filter(|service| selects(service, &object.metadata.labels));
        section("Services", choosing.map(|it| named(it)).collect());
        if let Some(ban) = ban_of(object, &bans) {
            section(
                "Kept out",
                vec![proxies::banned(ban), "nobody connects to it: weft proxy unban lifts that".to_owned()],
            );
        }
    }
    let world = around(client, namespace).await?;
    let name = ObjectName::new(namespace.clone(), object.metadata.name.clone());
    for (policies, title) in [(Kind::AccessPolicy, "Access policies"), (Kind::FilterPolicy, "Filter policies")] {
        section(title, holding(&world, kind, &name, policies));
    }
    Ok(text)
}

/// What decides on the policies of a namespace's objects.
async fn around(client: &Client, namespace: &str) -> Result<World, Failure> {
    let mut world = World::default();
    for kind in [Kind::Service, Kind::Workload, Kind::AccessPolicy, Kind::FilterPolicy] {
        let is_policy = matches!(kind, Kind::AccessPolicy | Kind::FilterPolicy);
        let root = (is_policy && namespace != ROOT_NAMESPACE).then_some(ROOT_NAMESPACE);
        for namespace in [Some(namespace), root].into_iter().flatten() {
            for item in get::list(client, kind, Some(namespace)).await? {
                world.insert(kinds::entry(&serde_json::to_value(&item).context("an object can't be read")?)?);
            }
        }
    }
    Ok(world)
}

/// The policies that hold for a workload, or for any that stands behind a service.
fn holding(world: &World, kind: Kind, name: &ObjectName, policies: Kind) -> Vec<String> {
    let workloads: Vec<_> = if kind == Kind::Service {
        world.service(name).into_iter().flat_map(|it| world.standing_behind(it)).collect()
    } else {
        world.workload(name).into_iter().collect()
    };
    let held = workloads.into_iter().flat_map(|workload| world.policies_of(workload)).map(policy::Resource::key);
    let held: BTreeSet<_> = held.filter(|key| key.kind == policies).collect();
    held.into_iter().map(|key| key.object_name().to_string()).collect()
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

fn endpoint(workload: &Resource, bans: &[Ban]) -> String {
    let [address, account] = ["address", "serviceAccount"].map(|key| text_at(&workload.spec, &[key]));
    let kept_out =
        ban_of(workload, bans).map(|ban| format!(", kept out: {}", proxies::banned(ban))).unwrap_or_default();
    format!("{} at {address} as {account}{kept_out}", cell(&workload.metadata.name))
}

/// Who is banned in a namespace.
fn banned_in<'b>(namespace: &str, bans: &'b [Ban]) -> impl Iterator<Item = (SpiffeId, &'b Ban)> {
    let known = bans.iter().filter_map(|ban| Some((ban.identity.parse::<SpiffeId>().ok()?, ban)));
    known.filter(move |(identity, _)| identity.namespace() == namespace)
}

/// Who is banned in the namespace and has none of these endpoints: those that proxies registered left with the ban, and
/// which services they stood behind is known to nobody any longer.
fn gone(namespace: &str, endpoints: &[&Resource], bans: &[Ban]) -> Vec<String> {
    let accounts: BTreeSet<_> = endpoints.iter().map(|it| account_of(it)).collect();
    let gone = banned_in(namespace, bans).filter(|(identity, _)| !accounts.contains(identity.service_account()));
    gone.map(|(_, ban)| proxies::banned(ban)).collect()
}

/// What is said beside a workload that is not there.
fn kept_out_of(namespace: &str, bans: &[Ban]) -> String {
    let banned: Vec<_> = banned_in(namespace, bans).map(|(_, ban)| proxies::banned(ban)).collect();
    match banned.is_empty() {
        true => String::new(),
        false => format!("; kept out of {namespace}, without workloads of theirs: {}", banned.join(", ")),
    }
}

/// The service account of a workload.
fn account_of(workload: &Resource) -> &str {
    workload.spec["serviceAccount"].as_str().unwrap_or("default")
}

/// The ban of a workload's identity.
fn ban_of<'b>(workload: &Resource, bans: &'b [Ban]) -> Option<&'b Ban> {
    let account = account_of(workload);
    let is_its = |ban: &&Ban| {
        let identity = ban.identity.parse::<SpiffeId>();
        identity.is_ok_and(|it| it.namespace() == workload.metadata.namespace && it.service_account() == account)
    };
    bans.iter().find(is_its)
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
    }

    #[test]
    fn an_endpoint_that_is_kept_out_says_so() {
        let spec = json!({"address": "10.0.0.1", "serviceAccount": "web"});
        let workload = resource(json!({"metadata": {"namespace": "shop", "name": "web-1"}, "spec": spec}));
        let ban = |account: &str| Ban { identity: format!("spiffe://c/ns/shop/sa/{account}"), ..Ban::default() };
        assert_eq!(endpoint(&workload, &[ban("api")]), "web-1 at 10.0.0.1 as web");
        assert_eq!(
            endpoint(&workload, &[ban("api"), ban("web")]),
            "web-1 at 10.0.0.1 as web, kept out: shop/web (banned since 1970-01-01T00:00:00Z)"
        );
    }

    #[test]
    fn whose_endpoints_left_with_a_ban_is_named() {
        let workload = |account: &str| {
            let spec = json!({"address": "10.0.0.1", "serviceAccount": account});
            resource(json!({"metadata": {"namespace": "shop", "name": account}, "spec": spec}))
        };
        let ban = |account: &str| Ban { identity: format!("spiffe://c/ns/{account}"), ..Ban::default() };
        let bans = [ban("shop/sa/web"), ban("shop/sa/api"), ban("bank/sa/web")];
        let (web, api) = (workload("web"), workload("api"));
        let since = "(banned since 1970-01-01T00:00:00Z)";
        // Its endpoint says so itself.
        assert_eq!(gone("shop", &[&web], &bans), [format!("shop/api {since}")]);
        assert!(gone("shop", &[&web, &api], &bans).is_empty() && gone("other", &[], &bans).is_empty());
        let text = kept_out_of("shop", &bans);
        assert_eq!(
            text,
            format!("; kept out of shop, without workloads of theirs: shop/web {since}, shop/api {since}")
        );
        assert_eq!(kept_out_of("shop", &bans[2..]), "");
    }

    #[test]
    fn the_policies_of_an_object_are_those_that_the_planner_finds() {
        let text = "{apiVersion: v1, kind: Service, metadata: {name: web, namespace: shop}, spec: {selector: {app: web}, ports: \
                    [{port: 80}]}}\n---\n{apiVersion: v1, kind: Service, metadata: {name: all, namespace: shop}, spec: {selector: \
                    {tier: front}, ports: [{port: 80}]}}\n---\n{apiVersion: weft.dev/v1alpha1, kind: Workload, metadata: {name: \
                    web-1, namespace: shop, labels: {app: web, tier: front}}, spec: {address: 10.0.0.1}}\n---\n{apiVersion: \
                    weft.dev/v1alpha1, kind: AccessPolicy, metadata: {name: by-service, namespace: shop}, spec: {targetRefs: \
                    [{kind: Service, name: all}], rules: []}}\n---\n{apiVersion: weft.dev/v1alpha1, kind: AccessPolicy, metadata: \
                    {name: everywhere, namespace: weft-system}, spec: {rules: []}}\n---\n{apiVersion: weft.dev/v1alpha1, kind: \
                    AccessPolicy, metadata: {name: other, namespace: shop}, spec: {targetRefs: [{kind: Service, name: no}], rules: []}}";
        let mut world = World::default();
        for document in weft_policy::manifest::parse("test", text).unwrap() {
            world.insert(kinds::entry(&serde_json::to_value(&document.resource).unwrap()).unwrap());
        }
        for (kind, name) in [(Kind::Service, "web"), (Kind::Service, "all"), (Kind::Workload, "web-1")] {
            let held = holding(&world, kind, &ObjectName::new("shop", name), Kind::AccessPolicy);
            assert_eq!(held, ["shop/by-service", "weft-system/everywhere"], "{name}");
        }
    }
}
