//! `weft apply`: documents to the control plane, whole or not at all; with `--wait` to the proxies.

use std::time::Duration;

use serde_json::{Value, json};

use super::wait;
use crate::access::AccessArgs;
use crate::answer::{Answer, Failure, Outcome};
use crate::api::Client;
use crate::manifests::{self, FileArgs};
use crate::output::{self, OutputArgs, text_at};
use crate::values;

const EXAMPLE: &str = "Examples:
  weft apply -f shop.yaml --wait 30s
  cat route.yaml | weft apply -f -";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(crate) struct ApplyArgs {
    #[command(flatten)]
    files: FileArgs,
    /// Return when every proxy concerned has it, or say which has not and why (status 1).
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    wait: Option<Duration>,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    access: AccessArgs,
}

pub(crate) async fn run(args: ApplyArgs) -> Outcome {
    let manifests = manifests::read(&args.files)?;
    let client = args.access.client()?;
    let answer = submit(&client, manifests.to_json()?, false).await?;
    let text = output::structured(args.output.format, &answer)?;
    output::print(&text.unwrap_or_else(|| summary(&answer)));
    match args.wait {
        Some(patience) => wait::until_synced(&client, revision(&answer)?, patience).await,
        None => Ok(Answer::Yes),
    }
}

/// One apply or, with `dry_run`, only its plan. A plan with problems is an answer of no.
pub(crate) async fn submit(client: &Client, documents: Vec<Value>, dry_run: bool) -> Result<Value, Failure> {
    let answer = client.post("/apply", &json!({"documents": documents, "dry_run": dry_run})).await?;
    let problems: Vec<String> = answer["problems"].as_array().into_iter().flatten().map(problem).collect();
    if problems.is_empty() {
        return Ok(answer);
    }
    Err(Failure::Refused(format!("nothing was applied:\n  {}", problems.join("\n  "))))
}

pub(crate) fn revision(answer: &Value) -> anyhow::Result<u64> {
    answer["revision"].as_u64().ok_or_else(|| anyhow::anyhow!("the control plane's answer names no revision"))
}

/// `kind/namespace/name` as commands take it.
pub(crate) fn object(change: &Value) -> String {
    let namespace = change["namespace"].as_str().unwrap_or_default();
    let place = if namespace.is_empty() { String::new() } else { format!("{namespace}/") };
    format!("{} {place}{}", text_at(change, &["kind"]), text_at(change, &["name"]))
}

fn summary(answer: &Value) -> String {
    let mut text = String::new();
    for change in answer["changes"].as_array().into_iter().flatten() {
        text.push_str(&format!("{} {}\n", object(change), text_at(change, &["action"])));
    }
    text.push_str(&format!("revision {}\n", text_at(answer, &["revision"])));
    text
}

fn problem(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Object(map) => {
            let part = |key: &str| map.get(key).and_then(Value::as_str).unwrap_or_default();
            let place = [part("kind"), part("namespace"), part("name"), part("key")];
            let place: Vec<&str> = place.into_iter().filter(|text| !text.is_empty()).collect();
            format!("{}: {}", place.join(" "), part("message"))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_names_each_object_and_the_revision() {
        let answer = json!({"revision": 7, "changes": [
            {"action": "created", "kind": "Service", "namespace": "shop", "name": "reviews"},
            {"action": "unchanged", "kind": "Mesh", "namespace": "", "name": "mesh"},
        ]});
        assert_eq!(summary(&answer), "Service shop/reviews created\nMesh mesh unchanged\nrevision 7\n");
    }

    #[test]
    fn problems_are_told_in_words() {
        let value = json!({"kind": "HTTPRoute", "namespace": "a", "name": "b", "key": "spec.rules", "message": "no such service"});
        assert_eq!(problem(&value), "HTTPRoute a b spec.rules: no such service");
        assert_eq!(problem(&json!("plain")), "plain");
    }
}
