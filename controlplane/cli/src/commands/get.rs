//! `weft get`: objects of one kind, in tables with the columns that matter for it, or as they are.

use std::collections::BTreeMap;
use std::ops::Deref;

use serde_json::{Value, json};
use weft_api::{ListQuery, Resource, ResourceList, UnreadableList};
use weft_policy::resource::Kind;

use crate::access::AccessArgs;
use crate::answer::{Answer, Failure, Outcome};
use crate::api::{Client, Error, Told};
use crate::kinds::{self, Target};
use crate::output::{self, Format, OutputArgs, Table, age, cell, now, scalar, text_at};
use crate::values::{self, Selector};

const EXAMPLE: &str = "Examples:
  weft get services --namespace shop
  weft get httproute reviews -n shop -o yaml
  weft get accesspolicies -A -o wide
  weft get workloads -A -l app=reviews,version!=v1 --watch
  weft get --unreadable";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(crate) struct GetArgs {
    /// Kind of the objects, such as services, httproutes or accesspolicies.
    #[arg(required_unless_present = "unreadable")]
    kind: Option<String>,
    /// Only this object.
    name: Option<String>,
    /// Of this namespace.
    #[arg(short, long, default_value = "default", value_parser = values::name)]
    namespace: String,
    /// Objects of all namespaces.
    #[arg(short = 'A', long, conflicts_with_all = ["namespace", "name"])]
    all_namespaces: bool,
    /// Only objects with these labels: KEY=VALUE, KEY!=VALUE, KEY or !KEY, all of them where several are given.
    #[arg(short = 'l', long, value_name = "LABELS", conflicts_with = "name", value_parser = Selector::parse)]
    selector: Option<Selector>,
    /// Show them again whenever something has changed.
    #[arg(short, long, conflicts_with = "unreadable")]
    watch: bool,
    /// Records of the control plane's store that can't be read, as they are.
    #[arg(long, conflicts_with_all = ["kind", "name", "namespace", "all_namespaces"])]
    unreadable: bool,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    access: AccessArgs,
}

pub(crate) async fn run(args: GetArgs) -> Outcome {
    let Some(kind) = &args.kind else { return unreadable(&args).await };
    let kind = kinds::parse(kind)?;
    let client = args.access.client()?;
    if let Some(name) = args.name.as_ref().filter(|_| !args.watch) {
        let object = one(&client, &Target::new(kind, &args.namespace, name)).await?;
        let text = output::structured(args.output.format, &object)?;
        output::print(&text.unwrap_or_else(|| table(kind, &[object], args.output.format == Format::Wide, now())));
        return Ok(Answer::Yes);
    }
    if !args.watch {
        output::print(&shown(&args, kind, &several(&args, &client, kind).await?)?);
        return Ok(Answer::Yes);
    }
    let shown = async |seen: &mut Option<Vec<Told<Resource>>>| {
        let items = several(&args, &client, kind).await?;
        let is_news = seen.as_ref() != Some(&items);
        let text = is_news.then(|| shown(&args, kind, &items)).transpose();
        *seen = Some(items);
        text
    };
    output::watch(shown).await
}

/// The objects that are asked for.
async fn several(args: &GetArgs, client: &Client, kind: Kind) -> Result<Vec<Told<Resource>>, Failure> {
    let namespace = (!args.all_namespaces).then_some(args.namespace.as_str());
    let mut items = list(client, kind, namespace).await?;
    if let Some(selector) = &args.selector {
        items.retain(|item| selector.chooses(&item.metadata.labels));
    }
    Ok(items)
}

fn shown(args: &GetArgs, kind: Kind, items: &[Told<Resource>]) -> Result<String, Failure> {
    if args.output.format == Format::Yaml {
        return documents(items);
    }
    let text = output::structured(args.output.format, &json!({"items": items}))?;
    if text.is_none() && items.is_empty() && kind.is_namespaced() && !args.all_namespaces {
        return Ok(format!("no {} in namespace {} (-A: in all)\n", kind.plural(), args.namespace));
    }
    Ok(text.unwrap_or_else(|| table(kind, items, args.output.format == Format::Wide, now())))
}

async fn unreadable(args: &GetArgs) -> Outcome {
    let answer: Told<UnreadableList> = args.access.client()?.fetch("/unreadable").await?;
    if let Some(text) = output::structured(args.output.format, &answer)? {
        output::print(&text);
        return Ok(Answer::Yes);
    }
    let mut table = Table::new(["TABLE", "KEY", "REASON"]);
    for item in &answer.items {
        table.row([&item.table, &item.key, &item.reason].map(|text| cell(text)));
    }
    output::print(&if table.is_empty() { "every record can be read\n".to_owned() } else { table.render() });
    Ok(Answer::Yes)
}

/// One object as the API gives it; an answer of no where there is none.
pub(crate) async fn one(client: &Client, target: &Target) -> Result<Told<Resource>, Failure> {
    match client.fetch(&target.path()).await {
        Ok(object) => Ok(object),
        Err(Error::Refused(refusal)) if refusal.status == 404 => {
            Err(Failure::Refused(Box::pin(absent(client, target)).await))
        }
        Err(error) => Err(error.into()),
    }
}

/// Says that an object does not exist, and in which namespaces one of its name does: a forgotten `--namespace` is the usual
/// reason.
async fn absent(client: &Client, target: &Target) -> String {
    let told = format!("{target} does not exist");
    if !target.kind().is_namespaced() {
        return told;
    }
    // Who may not see the others is told of none.
    let others = list(client, target.kind(), None).await.unwrap_or_default();
    let named = others.iter().filter(|other| other.metadata.name == target.name());
    let others: Vec<String> = named.map(|other| cell(&other.metadata.namespace)).collect();
    match others.as_slice() {
        [] => told,
        [one] => format!("{told}; there is one in namespace {one} (-n {one})"),
        several => format!(
            "{told}; there is one in the namespaces {}",
            output::first_of(&several[..several.len().min(3)], several.len())
        ),
    }
}

/// All of a kind; in one namespace where it has any.
pub(crate) async fn list(client: &Client, kind: Kind, namespace: Option<&str>) -> Result<Vec<Told<Resource>>, Failure> {
    let namespace = namespace.filter(|_| kind.is_namespaced()).map(str::to_owned);
    let query = ListQuery { namespace, ..ListQuery::default() };
    let answer: Told<ResourceList> = client.ask(&format!("/resources/{}", kind.plural()), &query).await?;
    Ok(answer.each("items", |list| list.items))
}

/// A stream of documents that `weft apply -f -` takes.
fn documents(items: &[Told<Resource>]) -> Result<String, Failure> {
    let texts: Result<Vec<String>, Failure> = items.iter().map(output::yaml).collect();
    Ok(texts?.join("---\n"))
}

type Column = (&'static str, fn(&Resource) -> String);

/// The columns of a kind. All but the wide table fit 80 columns where names are of usual length.
fn columns(kind: Kind, wide: bool) -> Vec<Column> {
    match kind {
        Kind::Namespace => vec![],
        Kind::Mesh => vec![
            ("TRUST-DOMAIN", |item| text_at(&item.spec, &["trustDomain"])),
            ("MTLS", |item| text_at(&item.spec, &["mtls", "mode"])),
            ("ACCESS-LOG", |item| text_at(&item.spec, &["telemetry", "accessLog"])),
        ],
        Kind::Service => vec![
            ("PORTS", |item| each(&item.spec["ports"], service_port)),
            ("SELECTOR", |item| text_at(&item.spec, &["selector"])),
            ("CLUSTER-IP", |item| text_at(&item.spec, &["clusterIP"])),
        ],
        Kind::Workload => vec![
            ("ADDRESS", |item| text_at(&item.spec, &["address"])),
            ("PORTS", |item| {
                each(&item.spec["ports"], |port| {
                    format!("{}/{}", text_at(port, &["port"]), text_at(port, &["protocol"]))
                })
            }),
            ("ACCOUNT", |item| text_at(&item.spec, &["serviceAccount"])),
            ("LABELS", |item| labels(&item.metadata.labels)),
        ],
        Kind::ReferenceGrant => columns_of_grants(),
        Kind::HttpRoute | Kind::GrpcRoute | Kind::TlsRoute | Kind::TcpRoute => columns_of_routes(wide),
        Kind::Filter => vec![
            ("VERSION", |item| text_at(&item.spec, &["version"])),
            ("DIGEST", |item| text_at(&item.spec, &["digest"]).chars().take(19).collect()),
            ("SIZE", |item| text_at(&item.spec, &["size"])),
        ],
        Kind::FilterPublisher => vec![("FILTERS", |item| each(&item.spec["filters"], scalar))],
        Kind::Secret => vec![("VALUES", secret_values)],
        Kind::FilterPolicy => vec![
            ("FILTER", filter_of),
            ("DIRECTION", |item| text_at(&item.spec, &["direction"])),
            ("MODE", |item| text_at(&item.spec, &["mode"])),
            ("ON-FAILURE", |item| text_at(&item.spec, &["onFailure"])),
            ("TARGETS", targets),
        ],
        Kind::RateLimitPolicy => typed(vec![("LIMITS", |item| each(&item.spec["limits"], rate_limit))]),
        Kind::FaultPolicy => typed(vec![
            ("DELAY", |item| fault(&item.spec["delay"], &["fixed", "exponential"])),
            ("ABORT", |item| fault(&item.spec["abort"], &["httpStatus", "grpcStatus", "reset"])),
        ]),
        Kind::JwtPolicy => typed(vec![("ISSUERS", issuers)]),
        Kind::AccessPolicy => vec![
            ("ACTION", |item| text_at(&item.spec, &["action"])),
            ("MODE", |item| item.spec["mode"].as_str().unwrap_or("Enforce").to_owned()),
            ("RULES", |item| item.spec["rules"].as_array().map_or(0, Vec::len).to_string()),
            ("TARGETS", targets),
        ],
        Kind::PolicyTemplate => vec![
            ("TIER", |item| text_at(&item.spec, &["tier"])),
            ("PARAMETERS", |item| each(&item.spec["parameters"], |parameter| text_at(parameter, &["name"]))),
        ],
        Kind::ExternalService => vec![
            ("HOSTS", |item| shortened(item.spec["hosts"].as_array().into_iter().flatten().map(scalar))),
            ("PORTS", |item| each(&item.spec["ports"], external_port)),
            ("TLS", |item| text_at(&item.spec, &["tls", "mode"])),
            ("VISIBLE", |item| text_at(&item.spec, &["visibility"])),
            ("ACCEPTED", |item| condition(item, "Accepted")),
        ],
        Kind::TrafficPolicy => vec![
            ("ALGORITHM", |item| text_at(&item.spec, &["loadBalancing", "algorithm"])),
            ("TARGETS", targets),
            ("ACCEPTED", |item| condition(item, "Accepted")),
        ],
    }
}

/// The names of a Secret's values, each with what is shown of it: its length and the beginning of its hash.
fn secret_values(item: &Resource) -> String {
    let values = item.spec["data"].as_object().into_iter().flatten();
    shortened(values.map(|(key, shown)| {
        let shown = scalar(shown);
        format!("{key} {}", shown.strip_prefix("redacted ").unwrap_or(&shown))
    }))
}

/// The filter of a FilterPolicy with the version that it runs, as far as the control plane tells of that.
fn filter_of(item: &Resource) -> String {
    let name = text_at(&item.spec, &["filter", "name"]);
    match item.status.as_ref().and_then(|status| status.filter_version.as_deref()) {
        Some(version) => format!("{name}@{}", cell(version)),
        None => name,
    }
}

/// What a typed policy wants, and what all of them have.
fn typed(mut wanted: Vec<Column>) -> Vec<Column> {
    let common: [Column; 2] = [("MODE", |item| text_at(&item.spec, &["mode"])), ("TARGETS", targets)];
    wanted.extend(common);
    wanted
}

fn issuers(item: &Resource) -> String {
    let issuers = item.spec["issuers"].as_array().into_iter().flatten();
    shortened(issuers.map(|issuer| text_at(issuer, &["issuer"])))
}

/// `100/1m` of a rate limit.
fn rate_limit(limit: &Value) -> String {
    format!("{}/{}", text_at(limit, &["requests"]), limit["per"].as_str().unwrap_or("1s"))
}

/// `fixed 10%` of a fault: what it is, and of how many requests.
fn fault(fault: &Value, kinds: &[&str]) -> String {
    let given = kinds.iter().filter(|kind| !fault[**kind].is_null());
    let told = given.map(|kind| format!("{kind} {}%", text_at(fault, &["percentage"])));
    told.reduce(|told, next| told + "," + &next).unwrap_or_else(|| "-".to_owned())
}

/// The wide table has what stands behind `STATUS`.
fn columns_of_routes(wide: bool) -> Vec<Column> {
    if !wide {
        return vec![
            ("PARENTS", |item| each(&item.spec["parentRefs"], |parent| text_at(parent, &["name"]))),
            ("BACKENDS", |item| shortened(backends(item))),
            ("STATUS", standing),
        ];
    }
    vec![
        ("PARENTS", |item| each(&item.spec["parentRefs"], |parent| text_at(parent, &["name"]))),
        ("BACKENDS", |item| each(&item.spec["rules"], |rule| each(&rule["backendRefs"], backend))),
        ("ACCEPTED", |item| condition(item, "Accepted")),
        ("RESOLVED", |item| condition(item, "ResolvedRefs")),
        ("PROGRAMMED", |item| condition(item, "Programmed")),
    ]
}

fn columns_of_grants() -> Vec<Column> {
    vec![
        ("FROM", |item| {
            each(&item.spec["from"], |from| format!("{}/{}", text_at(from, &["namespace"]), text_at(from, &["kind"])))
        }),
        ("TO", |item| {
            each(&item.spec["to"], |to| match to["name"].as_str() {
                Some(_) => format!("{}/{}", text_at(to, &["kind"]), text_at(to, &["name"])),
                None => text_at(to, &["kind"]),
            })
        }),
    ]
}

fn table<R: Deref<Target = Resource>>(kind: Kind, items: &[R], wide: bool, now: i64) -> String {
    if items.is_empty() {
        return format!("no {}\n", kind.plural());
    }
    let columns = columns(kind, wide);
    let mut headings = if kind.is_namespaced() { vec!["NAMESPACE", "NAME"] } else { vec!["NAME"] };
    headings.extend(columns.iter().map(|(heading, _)| *heading));
    headings.push("AGE");
    if wide {
        headings.extend(["GENERATION", "REVISION", "UID"]);
    }
    let mut table = Table::new(headings);
    for item in items {
        let metadata = &item.metadata;
        let mut row = Vec::new();
        if kind.is_namespaced() {
            row.push(cell(&metadata.namespace));
        }
        row.push(cell(&metadata.name));
        row.extend(columns.iter().map(|(_, cell)| cell(item)));
        row.push(age(metadata.creation_timestamp.as_deref(), now));
        if wide {
            row.extend([metadata.generation.to_string(), metadata.revision.to_string(), cell(&metadata.uid)]);
        }
        table.row(row);
    }
    table.render()
}

fn each(list: &Value, show: fn(&Value) -> String) -> String {
    let cells: Vec<String> = list.as_array().into_iter().flatten().map(show).collect();
    if cells.is_empty() { "-".to_owned() } else { cells.join(",") }
}

/// `80->9080/http`
fn service_port(port: &Value) -> String {
    let target = port.get("targetPort").map(|target| format!("->{}", scalar(target))).unwrap_or_default();
    let protocol = port["appProtocol"].as_str().map(|protocol| format!("/{protocol}")).unwrap_or_default();
    format!("{}{target}{protocol}", text_at(port, &["port"]))
}

/// `80->443/http`
fn external_port(port: &Value) -> String {
    let [number, protocol] = ["port", "protocol"].map(|key| text_at(port, &[key]));
    match port.get("targetPort").map(scalar) {
        Some(target) if target != number => format!("{number}->{target}/{protocol}"),
        Some(_) | None => format!("{number}/{protocol}"),
    }
}

/// `reviews-v1:80 (90)`
fn backend(backend: &Value) -> String {
    let weight = backend.get("weight").map_or_else(|| "1".to_owned(), scalar);
    format!("{}:{}({weight})", text_at(backend, &["name"]), text_at(backend, &["port"]))
}

/// Name and weight of each backend of a route.
fn backends(item: &Resource) -> impl Iterator<Item = String> {
    let rules = item.spec["rules"].as_array().into_iter().flatten();
    let backends = rules.flat_map(|rule| rule["backendRefs"].as_array().into_iter().flatten());
    backends.map(|backend| {
        let weight = backend.get("weight").map(|weight| format!("({})", scalar(weight))).unwrap_or_default();
        format!("{}{weight}", text_at(backend, &["name"]))
    })
}

/// Characters of a cell that has room for so much.
const ROOM: usize = 26;

/// The first ones, as far as there is room, and how many more there are.
fn shortened(cells: impl Iterator<Item = String>) -> String {
    let (mut text, mut more) = (String::new(), 0);
    for cell in cells {
        if more > 0 || (!text.is_empty() && text.len() + cell.len() >= ROOM) {
            more += 1;
        } else {
            text = if text.is_empty() { cell } else { format!("{text},{cell}") };
        }
    }
    match (text.is_empty(), more) {
        (true, _) => "-".to_owned(),
        (false, 0) => text,
        (false, more) => format!("{text} +{more}"),
    }
}

/// How far a route is: the reason of the first condition that does not hold, else that it is programmed.
fn standing(item: &Resource) -> String {
    let conditions = ["Accepted", "ResolvedRefs", "Programmed"].map(|name| condition(item, name));
    let told = conditions.iter().find(|told| told.as_str() != "True");
    told.cloned().unwrap_or_else(|| "Programmed".to_owned())
}

fn targets(item: &Resource) -> String {
    let text = each(&item.spec["targetRefs"], |target| {
        format!("{}/{}", text_at(target, &["kind"]), text_at(target, &["name"]))
    });
    if text == "-" { "all".to_owned() } else { text }
}

/// `app=reviews,version=v2`
fn labels(labels: &BTreeMap<String, String>) -> String {
    cell(&labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(","))
}

/// The status of a condition: of all parents together where there are several.
fn condition(item: &Resource, name: &str) -> String {
    let of_parents = item.status.iter().flat_map(|status| &status.parents).flat_map(|parent| &parent.conditions);
    let own = item.status.iter().flat_map(|status| &status.conditions);
    let of_name = of_parents.chain(own).filter(|condition| condition.kind == name);
    let statuses: Vec<_> = of_name.map(|it| if it.holds() { "True" } else { it.reason.as_str() }).collect();
    let told = statuses.iter().find(|status| **status != "True").or(statuses.first());
    cell(told.copied().unwrap_or_default())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A resource of which only what matters is given.
    pub(in crate::commands) fn resource(mut given: Value) -> Resource {
        let record = json!({"name": "n", "uid": "u", "generation": 1, "revision": 1, "creationRevision": 1});
        for (key, value) in [("apiVersion", json!("v1")), ("kind", json!("Service")), ("metadata", json!({}))] {
            if given.get(key).is_none() {
                given[key] = value;
            }
        }
        for (key, value) in record.as_object().unwrap() {
            if given["metadata"].get(key).is_none() {
                given["metadata"][key] = value.clone();
            }
        }
        serde_json::from_value(given).unwrap()
    }

    #[test]
    fn a_route_shows_its_weights_and_conditions() {
        let item = resource(json!({
            "metadata": {"namespace": "shop", "name": "reviews", "revision": 4, "generation": 2, "uid": "u1",
                "creationTimestamp": "1970-01-01T00:00:00Z"},
            "spec": {"parentRefs": [{"name": "reviews"}], "rules": [{"backendRefs": [
                {"name": "reviews-v1", "port": 80, "weight": 90}, {"name": "reviews-v2", "port": 80}]}]},
            "status": {"parents": [{"parentRef": {}, "controllerName": "c", "conditions": [
                condition("Accepted", "True", "Accepted"), condition("ResolvedRefs", "False", "BackendNotFound"),
                condition("Programmed", "False", "Pending")]}]},
        }));
        let text = table(Kind::HttpRoute, &[&item], true, 75);
        let row: Vec<&str> = text.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(
            row,
            [
                "shop",
                "reviews",
                "reviews",
                "reviews-v1:80(90),reviews-v2:80(1)",
                "True",
                "BackendNotFound",
                "Pending",
                "1m15s",
                "2",
                "4",
                "u1"
            ]
        );
    }

    #[test]
    fn routes_fit_eighty_columns() {
        let backend = |name: &str, weight: u32| json!({"name": name, "port": 80, "weight": weight});
        let route = |rules: Value, programmed: &str| {
            resource(json!({
                "metadata": {"namespace": "shop", "name": "reviews-canary", "creationTimestamp": "1970-01-01T00:00:00Z"},
                "spec": {"parentRefs": [{"name": "reviews"}], "rules": rules},
                "status": {"parents": [{"parentRef": {}, "controllerName": "c", "conditions": [
                    condition("Accepted", "True", "Accepted"), condition("ResolvedRefs", "True", "ResolvedRefs"),
                    condition("Programmed", programmed, "Pending")]}]},
            }))
        };
        let several = json!([
            {"backendRefs": [backend("reviews-v1", 90), backend("reviews-v2", 10)]},
            {"backendRefs": [backend("reviews-v3", 1)]}, {}]);
        let text = table(Kind::HttpRoute, &[&route(several, "True"), &route(json!([]), "False")], false, 75);
        assert!(text.lines().all(|line| line.len() <= 80), "{text}");
        let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows[0], ["NAMESPACE", "NAME", "PARENTS", "BACKENDS", "STATUS", "AGE"]);
        assert_eq!(rows[1], ["shop", "reviews-canary", "reviews", "reviews-v1(90)", "+2", "Programmed", "1m15s"]);
        assert_eq!(rows[2], ["shop", "reviews-canary", "reviews", "-", "Pending", "1m15s"]);
    }

    fn condition(kind: &str, status: &str, reason: &str) -> Value {
        json!({"type": kind, "status": status, "reason": reason, "message": "m", "observedGeneration": 1})
    }

    #[test]
    fn services_show_ports_and_selectors() {
        let item = resource(json!({"metadata": {"namespace": "a", "name": "b"}, "spec": {
            "selector": {"app": "b"}, "ports": [{"port": 80, "targetPort": 9080, "appProtocol": "http"}]}}));
        let text = table(Kind::Service, &[&item], false, 0);
        assert!(text.contains("80->9080/http") && text.contains("app=b"), "{text}");
        // A release that kept no time made it.
        assert!(text.ends_with("  -\n"), "{text}");
        assert_eq!(table::<&Resource>(Kind::Service, &[], false, 0), "no services\n");
    }
}
