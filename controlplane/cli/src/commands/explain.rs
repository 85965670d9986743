//! `weft explain`: what would become of a request and which rule says so, by the engines that decide it. Status 1 where
//! it does not reach the app.

use std::collections::BTreeMap;

use anyhow::bail;
use weft_api::{BackendExplanation, ExplainQuery, Explanation, RouteExplanation};

use crate::access::AccessArgs;
use crate::answer::{Answer, Outcome};
use crate::api::Told;
use crate::output::{self, OutputArgs, Paint, Table, cell, cells};
use crate::values;

const EXAMPLE: &str = "Example:
  weft explain --from shop/partner --to reviews.shop --path /admin/settings -H 'x-canary: yes'";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(crate) struct ExplainArgs {
    /// Caller of the request: namespace and service account.
    #[arg(long, value_name = "NS/SA", value_parser = values::namespaced)]
    from: (String, String),
    /// Which service, as an app names it: in the caller's namespace where it names none.
    #[arg(long, value_name = "SERVICE[.NS][:PORT]")]
    to: String,
    /// Port of the service [default: its first].
    #[arg(long)]
    port: Option<u16>,
    /// Method of the request.
    #[arg(long, default_value = "GET")]
    method: String,
    /// Path of the request, with its query.
    #[arg(long, default_value = "/")]
    path: String,
    /// A header of the request; may be repeated.
    #[arg(short = 'H', long = "header", value_name = "K:V", value_parser = values::header)]
    headers: Vec<(String, String)>,
    /// A claim of the caller's token, by its name in lower case; may be repeated, also for the members of one list.
    #[arg(long = "claim", value_name = "K=V", value_parser = values::claim)]
    claims: Vec<(String, String)>,
    /// The server name that a TLS connection asks for: judged as a connection where bytes are carried.
    #[arg(long, value_name = "NAME")]
    sni: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    access: AccessArgs,
}

pub(crate) async fn run(args: ExplainArgs) -> Outcome {
    let (to, port) = place(&args.to, args.port)?;
    let args = ExplainArgs { to, port, ..args };
    let (namespace, account) = &args.from;
    let query = ExplainQuery {
        sni: args.sni.clone(),
        from: format!("{namespace}/{account}"),
        to: args.to.clone(),
        port: args.port,
        method: args.method.clone(),
        path: args.path.clone(),
        // Of a field that is there several times the first counts.
        headers: args.headers.iter().rev().cloned().collect(),
        claims: members(&args.claims),
    };
    let answer: Told<Explanation> = args.access.client()?.post("/explain", &query).await?;
    let text = output::structured(args.output.format, &answer)?;
    output::print(&text.unwrap_or_else(|| render(&args, &answer, &Paint::stdout())));
    Ok(if answer.allowed { Answer::Yes } else { Answer::No })
}

/// The rule that the request met: its name, or its place in the route.
fn rule_of(route: &RouteExplanation) -> String {
    route.rule_name.clone().unwrap_or_else(|| format!("rules[{}]", route.rule_index))
}

/// The members of each claim.
fn members(claims: &[(String, String)]) -> BTreeMap<String, Vec<String>> {
    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, member) in claims {
        all.entry(name.clone()).or_default().push(member.clone());
    }
    all
}

/// The name and the port that are meant: a port may stand behind the name, as in a URL.
fn place(to: &str, port: Option<u16>) -> anyhow::Result<(String, Option<u16>)> {
    let Some((name, text)) = to.rsplit_once(':').filter(|(name, _)| !name.contains(':') || name.ends_with(']')) else {
        return Ok((to.to_owned(), port));
    };
    let Ok(behind) = text.parse::<u16>() else { bail!("--to {to}: {text:?} is no port") };
    match port {
        Some(port) if port != behind => bail!("--to {to} and --port {port} are two ports"),
        _ => Ok((name.to_owned(), Some(behind))),
    }
}

/// Verdict, route and backends first; each endpoint with the filters on the way and the rule that decided there.
fn render(args: &ExplainArgs, answer: &Explanation, paint: &Paint) -> String {
    let verdict = match verdict(answer) {
        Verdict::Allowed => paint.good("ALLOWED"),
        Verdict::Denied => paint.bad("DENIED"),
        Verdict::Unavailable => paint.warn("UNAVAILABLE"),
        Verdict::Redirected => paint.warn("REDIRECTED"),
        Verdict::Answered => paint.good("ANSWERED"),
    };
    let (namespace, account) = &args.from;
    let asked = match answer.connection {
        true => format!("TCP {}", args.to),
        false => format!("{} {}{}", args.method, args.to, args.path),
    };
    let mut text = format!("{verdict}  {asked} as {namespace}/{account}\n");
    text.push_str(&facts(answer).render());
    let mut endpoints = Table::new(["BACKEND", "WEIGHT", "ENDPOINT", "ADDRESS", "VERDICT", "RULE", "FILTERS"]);
    for backend in &answer.backends {
        let name = format!("{}:{}", cell(backend.service.as_deref().unwrap_or_default()), backend.port);
        let weight = backend.weight.to_string();
        for endpoint in &backend.endpoints {
            endpoints.row([
                name.clone(),
                weight.clone(),
                cell(&endpoint.workload),
                endpoint.address.to_string(),
                match (endpoint.allowed, endpoint.barred) {
                    (true, _) => paint.good("allowed"),
                    (false, true) => paint.bad("barred"),
                    (false, false) => paint.bad("denied"),
                },
                cell(endpoint.rule.as_deref().unwrap_or_default()),
                cells(&endpoint.filters),
            ]);
        }
        if backend.endpoints.is_empty() {
            let of_mesh = !name.starts_with("ExternalService ");
            endpoints.row([name, weight, if of_mesh { "none" } else { "outside" }.to_owned()]);
        }
    }
    if !endpoints.is_empty() {
        text.push('\n');
        text.push_str(&endpoints.render());
    }
    text
}

/// The facts that decide; a connection has no status and no path: it is closed.
fn facts(answer: &Explanation) -> Table {
    let of_request = |value: String| Some(value).filter(|_| !answer.connection);
    let route = answer.route.as_ref();
    let mut facts = Table::new(["REASON:".to_owned(), cell(&answer.reason)]);
    for (title, value) in [
        ("RULE:", answer.rule.clone()),
        ("STATUS:", answer.status.map(|status| status.to_string()).and_then(of_request)),
        ("CALLER:", Some(answer.principal.to_string())),
        ("SERVICE:", Some(answer.service.clone())),
        ("PORT:", Some(answer.port.to_string())),
        ("PATH:", of_request(answer.path.clone())),
        ("ROUTE:", route.map(|route| format!("{} {}", route.kind, route.name))),
        ("ROUTE RULE:", route.map(rule_of)),
    ] {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            facts.row([title.to_owned(), cell(&value)]);
        }
    }
    if answer.connection {
        facts.row(["JUDGED AS:", "a TCP connection: method, path and headers are not seen"]);
    }
    let settings: [(&str, SettingOf); 6] = [
        ("BALANCING:", |backend| backend.balancing.as_ref()),
        ("HEALTH:", |backend| backend.health.as_ref()),
        ("TIMEOUTS:", |backend| backend.timeouts.as_ref()),
        ("RETRY:", |backend| backend.retry.as_ref()),
        ("LIMITS:", |backend| backend.limits.as_ref()),
        ("SESSION:", |backend| backend.session.as_ref()),
    ];
    for (title, setting) in settings {
        for told in of_backends(answer, setting) {
            facts.row([title.to_owned(), cell(&told)]);
        }
    }
    for backend in &answer.backends {
        let sent = [backend.host.as_deref(), backend.path.as_deref()].map(Option::unwrap_or_default).concat();
        if !sent.is_empty() {
            facts.row(["SENT AS:".to_owned(), cell(&sent)]);
        }
    }
    for mirror in &answer.mirrors {
        let to = mirror.service.as_deref().unwrap_or("nowhere, since it does not resolve");
        let of = mirror.backend.as_ref().map(|backend| format!(" of {backend}")).unwrap_or_default();
        facts.row(["MIRRORED TO:".to_owned(), cell(&format!("{to}:{}, {}{of}", mirror.port, mirror.share))]);
    }
    for note in &answer.notes {
        facts.row(["NOTE:".to_owned(), cell(note)]);
    }
    facts
}

type SettingOf = fn(&BackendExplanation) -> Option<&String>;

/// A setting of each backend; with several each says whose it is.
fn of_backends(answer: &Explanation, setting: SettingOf) -> Vec<String> {
    let told = answer.backends.iter().filter_map(|backend| {
        let (value, service) = (setting(backend)?, backend.service.as_deref().unwrap_or_default());
        Some(match answer.backends.len() {
            1 => value.clone(),
            _ => format!("{service}: {value}"),
        })
    });
    told.collect()
}

enum Verdict {
    Allowed,
    /// Somebody said no.
    Denied,
    /// Nobody said no, and nobody can answer.
    Unavailable,
    /// The route names another address.
    Redirected,
    /// The caller's proxy answers a preflight.
    Answered,
}

fn verdict(answer: &Explanation) -> Verdict {
    match (answer.allowed, answer.status) {
        (true, _) => Verdict::Allowed,
        (_, Some(500..)) if !answer.barred => Verdict::Unavailable,
        (_, Some(300..400)) => Verdict::Redirected,
        (_, Some(200..300)) => Verdict::Answered,
        _ => Verdict::Denied,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use weft_api::MirrorExplanation;

    use super::*;

    #[test]
    fn a_port_may_stand_behind_the_name() {
        let check = |to: &str, port: Option<u16>, expect: (&str, Option<u16>)| {
            let (name, port) = place(to, port).unwrap();
            assert_eq!((name.as_str(), port), expect, "{to}");
        };
        check("hello", None, ("hello", None));
        check("hello", Some(81), ("hello", Some(81)));
        check("hello.shop:81", None, ("hello.shop", Some(81)));
        check("hello:81", Some(81), ("hello", Some(81)));
        check("10.0.0.1:81", None, ("10.0.0.1", Some(81)));
        check("[fd00::1]:81", None, ("[fd00::1]", Some(81)));
        check("fd00::1", None, ("fd00::1", None));
        assert_eq!(place("hello:81", Some(80)).unwrap_err().to_string(), "--to hello:81 and --port 80 are two ports");
        assert_eq!(place("hello:http", None).unwrap_err().to_string(), "--to hello:http: \"http\" is no port");
    }

    #[test]
    fn each_endpoint_shows_its_rule() {
        let args = ExplainArgs {
            sni: None,
            from: ("shop".into(), "partner".into()),
            to: "reviews".into(),
            port: None,
            method: "GET".into(),
            path: "/admin".into(),
            headers: Vec::new(),
            claims: Vec::new(),
            output: OutputArgs::default(),
            access: AccessArgs::default(),
        };
        let answer = json!({"allowed": false, "status": 403, "rule": "shop/no-admin#x", "reason": "denied by a rule",
            "principal": "spiffe://cluster.local/ns/shop/sa/partner", "service": "shop/reviews", "port": 80, "path": "/admin", "route": {"name": "shop/reviews", "rule_index": 0},
            "backends": [{"service": "shop/reviews-v1", "port": 80, "weight": 100, "balancing": "Random, as it says", "endpoints": [
                {"workload": "shop/reviews-v1", "address": "127.0.0.12:9080", "allowed": false, "rule": "shop/no-admin#x",
                 "reason": "denied", "identity": null, "filters": ["fault", "authz"]}]},
                {"service": "shop/reviews-v2", "port": 80, "weight": 0, "endpoints": []}]});
        let answer: Explanation = serde_json::from_value(answer).unwrap();
        let text = render(&args, &answer, &Paint::plain());
        assert!(text.starts_with("DENIED  GET reviews/admin as shop/partner\nREASON:"), "{text}");
        for part in [
            "shop/reviews-v1: Random, as it says",
            "denied by a rule",
            "127.0.0.12:9080",
            "shop/no-admin#x",
            "fault,authz",
            "shop/reviews-v2:80",
            "none",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(text.contains("ROUTE RULE:  rules[0]\n") && !text.contains("JUDGED AS"), "{text}");
        let tcp = Explanation { connection: true, ..answer.clone() };
        let text = render(&args, &tcp, &Paint::plain());
        assert!(text.starts_with("DENIED  TCP reviews as shop/partner\n") && !text.contains("STATUS:"), "{text}");
        assert!(text.contains("JUDGED AS:   a TCP connection"));
        let mut sent = Explanation { status: Some(302), ..answer.clone() };
        (sent.backends[0].host, sent.backends[0].path) = (Some("v1.example".into()), Some("/x".into()));
        let text = render(&args, &sent, &Paint::plain());
        assert!(text.starts_with("REDIRECTED  GET reviews/admin") && text.contains("v1.example/x\n"), "{text}");
        let mirrors = [(Some("default/copy"), None), (None, Some("default/reviews-v1"))];
        let mirrors = mirrors.map(|(service, backend)| MirrorExplanation {
            service: service.map(str::to_owned),
            port: 80,
            share: "20 % of the requests".to_owned(),
            backend: backend.map(str::to_owned),
        });
        let text = render(&args, &Explanation { mirrors: mirrors.into(), ..answer.clone() }, &Paint::plain());
        assert!(text.contains("MIRRORED TO:  default/copy:80, 20 % of the requests\n"), "{text}");
        let nowhere = "nowhere, since it does not resolve:80, 20 % of the requests of default/reviews-v1\n";
        assert!(text.contains(nowhere), "{text}");
        let preflight = Explanation { status: Some(200), ..answer.clone() };
        assert!(render(&args, &preflight, &Paint::plain()).starts_with("ANSWERED  GET reviews/admin"));
        let noted = Explanation { notes: vec!["no workload has the account shop/partner".into()], ..answer.clone() };
        assert!(render(&args, &noted, &Paint::plain()).contains("NOTE:"), "{noted:?}");
        let nobody = Explanation { status: Some(503), ..answer };
        assert!(render(&args, &nobody, &Paint::plain()).starts_with("UNAVAILABLE  GET"));
        let mut barred = Explanation { barred: true, ..nobody };
        barred.backends[0].endpoints[0].barred = true;
        let text = render(&args, &barred, &Paint::plain());
        assert!(text.starts_with("DENIED  GET") && text.contains("  barred  "), "{text}");
    }
}
