//! `weft explain`: what would become of a request and which rule says so, by the engines that decide it. Status 1 where
//! it is denied.

use serde_json::{Map, Value, json};

use crate::access::AccessArgs;
use crate::answer::{Answer, Outcome};
use crate::output::{self, OutputArgs, Paint, Table, text_at};
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
    #[arg(long, value_name = "SERVICE[.NS]")]
    to: String,
    /// Port of the service [default: its first].
    #[arg(long)]
    port: Option<u16>,
    #[arg(long, default_value = "GET")]
    method: String,
    #[arg(long, default_value = "/")]
    path: String,
    /// A header of the request; may be repeated.
    #[arg(short = 'H', long = "header", value_name = "K:V", value_parser = values::header)]
    headers: Vec<(String, String)>,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    access: AccessArgs,
}

pub(crate) async fn run(args: ExplainArgs) -> Outcome {
    let (namespace, account) = &args.from;
    let headers: Map<String, Value> = args.headers.iter().map(|(key, value)| (key.clone(), json!(value))).collect();
    let mut query = json!({
        "from": format!("{namespace}/{account}"), "to": args.to, "method": args.method, "path": args.path, "headers": headers,
    });
    if let Some(port) = args.port {
        query["port"] = json!(port);
    }
    let answer = args.access.client()?.post("/explain", &query).await?;
    let allowed = answer["allowed"].as_bool() == Some(true);
    let text = output::structured(args.output.format, &answer)?;
    output::print(&text.unwrap_or_else(|| render(&args, &answer, &Paint::stdout())));
    Ok(if allowed { Answer::Yes } else { Answer::No })
}

/// Verdict, route and backends first; each endpoint with the filters on the way and the rule that decided there.
fn render(args: &ExplainArgs, answer: &Value, paint: &Paint) -> String {
    let is_tcp = answer["connection"] == true;
    let verdict = match verdict(answer) {
        Verdict::Allowed => paint.good("ALLOWED"),
        Verdict::Denied => paint.bad("DENIED"),
        Verdict::Unavailable => paint.warn("UNAVAILABLE"),
    };
    let (namespace, account) = &args.from;
    let asked = if is_tcp { format!("TCP {}", args.to) } else { format!("{} {}{}", args.method, args.to, args.path) };
    let mut text = format!("{verdict}  {asked} as {namespace}/{account}\n");
    let mut facts = Table::new(["REASON:".to_owned(), text_at(answer, &["reason"])]);
    for (title, path) in [
        ("RULE:", &["rule"] as &[&str]),
        ("STATUS:", &["status"]),
        ("CALLER:", &["principal"]),
        ("SERVICE:", &["service"]),
        ("PORT:", &["port"]),
        ("PATH:", &["path"]),
        ("ROUTE:", &["route", "name"]),
        ("ROUTE RULE:", &["route", "rule_name"]),
    ] {
        let value = text_at(answer, path);
        // A connection has no status and no path: it is closed.
        if value != "-" && !(is_tcp && matches!(title, "STATUS:" | "PATH:")) {
            facts.row([title.to_owned(), value]);
        }
    }
    if is_tcp {
        facts.row(["JUDGED AS:".to_owned(), "a TCP connection: method, path and headers are not seen".to_owned()]);
    }
    text.push_str(&facts.render());
    let mut endpoints = Table::new(["BACKEND", "WEIGHT", "ENDPOINT", "ADDRESS", "VERDICT", "RULE", "FILTERS"]);
    for backend in answer["backends"].as_array().into_iter().flatten() {
        let name = format!("{}:{}", text_at(backend, &["service"]), text_at(backend, &["port"]));
        let weight = text_at(backend, &["weight"]);
        let list = backend["endpoints"].as_array().filter(|list| !list.is_empty());
        for endpoint in list.into_iter().flatten() {
            let verdict = if endpoint["allowed"] == true { paint.good("allowed") } else { paint.bad("denied") };
            let cell = |key: &str| text_at(endpoint, &[key]);
            endpoints.row([
                name.clone(),
                weight.clone(),
                cell("workload"),
                cell("address"),
                verdict,
                cell("rule"),
                cell("filters"),
            ]);
        }
        if list.is_none() {
            endpoints.row([name, weight, "none".to_owned()]);
        }
    }
    if !endpoints.is_empty() {
        text.push('\n');
        text.push_str(&endpoints.render());
    }
    text
}

enum Verdict {
    Allowed,
    /// Somebody said no.
    Denied,
    /// Nobody said no, and nobody can answer.
    Unavailable,
}

fn verdict(answer: &Value) -> Verdict {
    match (answer["allowed"].as_bool(), answer["status"].as_u64()) {
        (Some(true), _) => Verdict::Allowed,
        (_, Some(500..)) => Verdict::Unavailable,
        _ => Verdict::Denied,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_endpoint_shows_its_rule() {
        let args = ExplainArgs {
            from: ("shop".into(), "partner".into()),
            to: "reviews".into(),
            port: None,
            method: "GET".into(),
            path: "/admin".into(),
            headers: Vec::new(),
            output: OutputArgs::default(),
            access: AccessArgs::default(),
        };
        let answer = json!({"allowed": false, "status": 403, "rule": "shop/no-admin#x", "reason": "denied by a rule",
            "service": "shop/reviews", "port": 80, "path": "/admin", "route": {"name": "shop/reviews", "rule_index": 0},
            "backends": [{"service": "shop/reviews-v1", "port": 80, "weight": 100, "endpoints": [
                {"workload": "shop/reviews-v1", "address": "127.0.0.12:9080", "allowed": false, "rule": "shop/no-admin#x",
                 "reason": "denied", "filters": ["fault", "authz"]}]},
                {"service": "shop/reviews-v2", "port": 80, "weight": 0, "endpoints": []}]});
        let text = render(&args, &answer, &Paint::plain());
        assert!(text.starts_with("DENIED  GET reviews/admin as shop/partner\nREASON:"), "{text}");
        for part in
            ["denied by a rule", "127.0.0.12:9080", "shop/no-admin#x", "fault,authz", "shop/reviews-v2:80", "none"]
        {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(!text.contains("ROUTE RULE") && !text.contains("JUDGED AS"), "{text}");
        let mut tcp = answer;
        tcp["connection"] = json!(true);
        let text = render(&args, &tcp, &Paint::plain());
        assert!(text.starts_with("DENIED  TCP reviews as shop/partner\n") && !text.contains("STATUS:"), "{text}");
        assert!(text.contains("JUDGED AS:  a TCP connection"));
        let nobody = json!({"allowed": false, "status": 503, "reason": "no endpoints"});
        assert!(render(&args, &nobody, &Paint::plain()).starts_with("UNAVAILABLE  GET"));
    }
}
