//! `weft explain`: what would become of a request and which rule says so, by the engines that decide it. Status 1 where
//! it is denied.

use serde_json::{Map, Value, json};

use crate::access::AccessArgs;
use crate::answer::{Answer, Outcome};
use crate::output::{self, OutputArgs, Paint};
use crate::values;

const EXAMPLE: &str = "Example:
  weft explain --from shop/partner --to reviews.shop --path /admin/settings -H 'x-canary: yes'";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(crate) struct ExplainArgs {
    /// Who asks: namespace and service account.
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
    let text = match text {
        Some(text) => text,
        None => render(&args, &answer, allowed, &Paint::stdout())?,
    };
    output::print(&text);
    Ok(if allowed { Answer::Yes } else { Answer::No })
}

fn render(args: &ExplainArgs, answer: &Value, allowed: bool, paint: &Paint) -> Result<String, crate::answer::Failure> {
    let verdict = if allowed { paint.good("ALLOWED") } else { paint.bad("DENIED") };
    let (namespace, account) = &args.from;
    let mut details = answer.clone();
    if let Some(map) = details.as_object_mut() {
        map.remove("allowed");
        map.retain(|_, value| !value.is_null());
    }
    Ok(format!(
        "{verdict}  {} {}{} as {namespace}/{account}\n{}",
        args.method,
        args.to,
        args.path,
        output::yaml(&details)?
    ))
}
