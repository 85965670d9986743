//! `weft apply`: documents to the control plane, whole or not at all; with `--wait` to the proxies.

use std::time::Duration;

use serde_json::{Value, json};

use super::wait;
use crate::access::AccessArgs;
use crate::answer::{Answer, Failure, Outcome};
use crate::api::{Client, Error};
use crate::findings::{self, Level, Located};
use crate::manifests::{self, FileArgs, Manifests};
use crate::output::{self, OutputArgs, Paint, text_at};
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
    /// Apply also what takes protection away from a workload; the audit log says so.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    access: AccessArgs,
}

pub(crate) async fn run(args: ApplyArgs) -> Outcome {
    let manifests = manifests::read(&args.files)?;
    let client = args.access.client()?;
    let answer = submit(&client, &manifests, Submit { force: args.force, ..Submit::default() }).await?;
    let text = output::structured(args.output.format, &answer)?;
    output::print(&text.unwrap_or_else(|| summary(&answer)));
    match args.wait {
        Some(patience) => wait::until_synced(&client, revision(&answer)?, patience, &names(&answer)).await,
        None => Ok(Answer::Yes),
    }
}

/// How documents are applied.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Submit {
    /// Only the plan of it.
    pub(crate) dry_run: bool,
    pub(crate) force: bool,
}

/// One apply or only its plan. What works, but perhaps not as meant, is told on stderr; a refusal with its places in the
/// manifests.
pub(crate) async fn submit(client: &Client, manifests: &Manifests, how: Submit) -> Result<Value, Failure> {
    let mut request = json!({"documents": manifests.to_json()?, "dry_run": how.dry_run});
    // A control plane of an older release doesn't know it.
    if how.force {
        request["force"] = json!(true);
    }
    let answer = match client.post("/apply", &request).await {
        Err(Error::Refused(refusal)) => return Err(Failure::Refused(manifests.describe_refusal(&refusal))),
        answer => answer?,
    };
    warnings(&answer, manifests).for_each(|warning| output::complain(&warning));
    Ok(answer)
}

/// Of the objects that were given, and what would be refused; others' are told where they are given. Notes are for
/// `weft lint`.
fn warnings(answer: &Value, manifests: &Manifests) -> impl Iterator<Item = String> {
    let changes = answer["changes"].as_array().into_iter().flatten();
    let given: Vec<String> = changes.map(object).collect();
    let told = findings::in_answer(answer, "problems", Some(manifests)).into_iter();
    let is_told = move |finding: &Located| match finding.severity {
        Level::Error => true,
        Level::Warning => given.contains(&finding.object),
        Level::Note => false,
    };
    told.filter(is_told).map(|finding| {
        let line = finding.line(&Paint::plain());
        if finding.severity == Level::Error { format!("{line} (refused without --force)") } else { line }
    })
}

/// The objects that an apply was given, changed or not, as `namespace/name`.
pub(crate) fn names(answer: &Value) -> Vec<String> {
    let changes = answer["changes"].as_array().into_iter().flatten();
    changes.map(|change| format!("{}/{}", text_at(change, &["namespace"]), text_at(change, &["name"]))).collect()
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
    fn warnings_are_told_of_what_was_given() {
        let problem = |name: &str, severity: &str| {
            json!({"code": "WEFT103", "severity": severity, "kind": "HTTPRoute", "namespace": "a", "name": name,
                "key": "spec.rules", "message": "no such service"})
        };
        let answer = json!({
            "changes": [{"action": "created", "kind": "HTTPRoute", "namespace": "a", "name": "b"}],
            "problems": [problem("b", "warning"), problem("b", "note"), problem("other", "warning"), problem("c", "error")],
        });
        let manifests = Manifests::none();
        let told: Vec<_> = warnings(&answer, &manifests).collect();
        assert_eq!(
            told,
            [
                "warning WEFT103: HTTPRoute a/b: spec.rules: no such service",
                "error WEFT103: HTTPRoute a/c: spec.rules: no such service (refused without --force)"
            ]
        );
        assert_eq!(names(&answer), ["a/b"]);
    }
}
