//! `weft describe`: one object in full and what belongs to it: the endpoints of a service, the routes on it, the
//! policies that hold for it.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use serde_json::Value;
use weft_api::{Ban, ListQuery, Metadata, Proxies, Resource, ResourceList};
use weft_policy::bundle::ObjectName;
use weft_policy::identity::SpiffeId;
use weft_policy::plan::{Idle, World, effective, without_effect};
use weft_policy::resource::filter::PolicyMode;
use weft_policy::resource::{self as policy, Kind, ROOT_NAMESPACE};

use super::{get, lint, proxies};
use crate::access::AccessArgs;
use crate::answer::{Answer, Failure, Outcome};
use crate::api::{Client, Error, Told};
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
    /// Its name.
    name: String,
    /// Its namespace.
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
    if kind.attaches_filters() {
        text.push_str(&running(&client, kind, &object.metadata).await?);
    }
    text.push_str(&found(&client, kind, &object).await?);
    output::print(&text);
    Ok(Answer::Yes)
}

/// How the filter of a policy is at the proxies that may be seen.
async fn running(client: &Client, kind: Kind, policy: &Metadata) -> Result<String, Failure> {
    let attachment = policy::attachment_name(kind, &ObjectName::new(&policy.namespace, &policy.name));
    let lines = match client.fetch::<Proxies>("/proxies").await {
        Ok(told) => proxies::running(&told.proxies, &attachment),
        Err(Error::Refused(refusal)) if matches!(refusal.status, 403 | 404) => {
            vec!["not known: this token may not read proxies".to_owned()]
        }
        Err(error) => return Err(error.into()),
    };
    let lines = if lines.is_empty() { vec!["no proxy has reported it".to_owned()] } else { lines };
    Ok(format!("\nProxies:\n  {}\n", lines.join("\n  ")))
}

/// Findings about the object; nothing where there are none.
async fn found(client: &Client, kind: Kind, object: &Resource) -> Result<String, Failure> {
    let Metadata { namespace, name, .. } = &object.metadata;
    let found = match lint::of_object(client, kind.as_str(), namespace, name).await {
        Err(Error::Refused(refusal)) if refusal.status == 404 => {
            return Ok(format!("\nFindings:\n  {UNKNOWN}\n"));
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
        let further =
            [(Kind::GrpcRoute, "GRPC routes"), (Kind::TlsRoute, "TLS routes"), (Kind::TcpRoute, "TCP routes")];
        for (kind, title) in further {
            let routes = list_if_known(client, kind, None).await?.unwrap_or_default();
            let routes: Vec<_> = routes.iter().filter(|route| is_attached(route, object)).map(|it| named(it)).collect();
            if !routes.is_empty() {
                section(title, routes);
            }
        }
        let grants = list_if_known(client, Kind::ReferenceGrant, Some(namespace)).await?.unwrap_or_default();
        let granted: Vec<_> = grants.iter().filter_map(|grant| granted_by(grant, object)).collect();
        if !granted.is_empty() {
            section("Routes of other namespaces may lead to it", granted);
        }
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
    let mut world = around(client, namespace).await?;
    let name = ObjectName::new(namespace.clone(), object.metadata.name.clone());
    if kind == Kind::Service {
        let are_known = add_settings(client, namespace, &mut world).await?;
        section("Traffic", if are_known { traffic(&world, &name) } else { vec![UNKNOWN.to_owned()] });
    }
    for (policies, title, is_always_told) in POLICIES {
        let held = holding(&world, kind, &name, policies);
        if is_always_told || !held.is_empty() {
            section(title, held);
        }
    }
    Ok(text)
}

/// Kinds of policies that hold for workloads, with their titles; true for those that are told where there are none,
/// too.
const POLICIES: [(Kind, &str, bool); 5] = [
    (Kind::AccessPolicy, "Access policies", true),
    (Kind::FilterPolicy, "Filter policies", true),
    (Kind::RateLimitPolicy, "Rate limit policies", false),
    (Kind::FaultPolicy, "Fault policies", false),
    (Kind::JwtPolicy, "JWT policies", false),
];

/// What decides on the policies of a namespace's objects.
async fn around(client: &Client, namespace: &str) -> Result<World, Failure> {
    let mut world = World::default();
    let kinds = [Kind::Service, Kind::Workload, Kind::AccessPolicy];
    for kind in kinds.into_iter().chain(Kind::ATTACHING) {
        let root = (kind.is_of_workloads() && namespace != ROOT_NAMESPACE).then_some(ROOT_NAMESPACE);
        for namespace in [Some(namespace), root].into_iter().flatten() {
            for item in list_if_known(client, kind, Some(namespace)).await?.unwrap_or_default() {
                world.insert(kinds::entry(&serde_json::to_value(&item).context("an object can't be read")?)?);
            }
        }
    }
    Ok(world)
}

/// Told of what a control plane does not have yet.
const UNKNOWN: &str = "not known: the control plane is of an older release";

/// The objects of a kind that an older control plane may not know. `None`: it does not.
async fn list_if_known(
    client: &Client,
    kind: Kind,
    namespace: Option<&str>,
) -> Result<Option<Vec<Told<Resource>>>, Failure> {
    list_unless(&[404], client, kind, namespace).await
}

/// The objects of a kind. `None`: the answer is one of these statuses.
async fn list_unless(
    statuses: &[u16],
    client: &Client,
    kind: Kind,
    namespace: Option<&str>,
) -> Result<Option<Vec<Told<Resource>>>, Failure> {
    let query = ListQuery { namespace: namespace.map(str::to_owned), ..ListQuery::default() };
    match client.ask::<Told<ResourceList>>(&format!("/resources/{}", kind.plural()), &query).await {
        Err(Error::Refused(refusal)) if statuses.contains(&refusal.status) => Ok(None),
        answer => Ok(Some(answer?.each("items", |list| list.items))),
    }
}

/// Adds all that says how services of a namespace are called. False: the control plane does not know of such settings.
async fn add_settings(client: &Client, namespace: &str, world: &mut World) -> Result<bool, Failure> {
    let Some(policies) = list_if_known(client, Kind::TrafficPolicy, Some(namespace)).await? else { return Ok(false) };
    let mut all = vec![Some(policies)];
    // An older control plane has none of these for the whole mesh, or shows them to nobody of a namespace.
    let hidden = [403, 404];
    if namespace != ROOT_NAMESPACE {
        all.push(list_unless(&hidden, client, Kind::TrafficPolicy, Some(ROOT_NAMESPACE)).await?);
    }
    for kind in [Kind::PolicyTemplate, Kind::Mesh] {
        all.push(list_unless(&hidden, client, kind, None).await?);
    }
    for item in all.iter().flatten().flatten() {
        world.insert(kinds::entry(&serde_json::to_value(item).context("an object can't be read")?)?);
    }
    Ok(true)
}

/// Each setting of a service as callers keep it, and who says so; then what policies say in vain.
fn traffic(world: &World, service: &ObjectName) -> Vec<String> {
    let settings = effective(world, service).into_iter().map(|it| match it.by {
        Some(source) => format!("{}: {} ({source})", it.setting, it.value),
        None => format!("{}: {} (default)", it.setting, it.value),
    });
    let idle = without_effect(world, service).into_iter().map(|Idle { policy, settings, older }| {
        let settings = settings.join(", ");
        format!("TrafficPolicy {policy} says {settings} without effect: TrafficPolicy {older} is older")
    });
    settings.chain(idle).collect()
}

/// The policies that hold for a workload, or for any that stands behind a service.
fn holding(world: &World, kind: Kind, name: &ObjectName, policies: Kind) -> Vec<String> {
    let workloads: Vec<_> = if kind == Kind::Service {
        world.service(name).into_iter().flat_map(|it| world.standing_behind(it)).collect()
    } else {
        world.workload(name).into_iter().collect()
    };
    let held = workloads.into_iter().flat_map(|workload| world.policies_of(workload));
    let held = held.filter_map(policy::Holding::of).filter(|held| held.kind == policies);
    let told = held.map(|held| {
        let watched = match held.mode {
            PolicyMode::Enforce => "",
            PolicyMode::Audit => " (Audit)",
            PolicyMode::Off => " (Off)",
        };
        format!("{}/{}{watched}", held.metadata.namespace, held.metadata.name)
    });
    told.collect::<BTreeSet<_>>().into_iter().collect()
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

/// Whose routes a grant lets lead to the service, where it is about it.
fn granted_by(grant: &Resource, service: &Resource) -> Option<String> {
    let grant: policy::Resource = serde_json::from_value(serde_json::to_value(grant).ok()?).ok()?;
    let policy::Resource::ReferenceGrant(grant) = grant else { return None };
    grant.spec.to.iter().any(|to| to.is_service(&service.metadata.name)).then(|| {
        let from = grant.spec.from.iter().map(|from| format!("{} of {}", cell(&from.kind), cell(&from.namespace)));
        format!("{} (ReferenceGrant {})", from.collect::<Vec<_>>().join(", "), cell(&grant.metadata.name))
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
