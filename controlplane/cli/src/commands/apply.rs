//! `weft apply`: documents to the control plane, whole or not at all; with `--wait` to the proxies.

use std::time::Duration;

use weft_api::{Applied, ApplyRequest};

use super::wait;
use crate::access::AccessArgs;
use crate::answer::{Answer, Failure, Outcome};
use crate::api::{Client, Error, Told};
use crate::findings::{self, Level, Located};
use crate::manifests::{self, FileArgs, Manifests};
use crate::output::{self, OutputArgs, Paint};
use crate::values;

const EXAMPLE: &str = "Examples:
  weft apply -f shop.yaml --wait 30s
  cat route.yaml | weft apply -f -
  weft get httproute reviews -n shop -o yaml > r.yaml; $EDITOR r.yaml; weft apply -f r.yaml --if-unchanged";

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
    /// Apply only where nobody has changed an object since it was read, which its metadata.revision tells, as `weft get`
    /// prints it.
    #[arg(long)]
    if_unchanged: bool,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    access: AccessArgs,
}

pub(crate) async fn run(args: ApplyArgs) -> Outcome {
    let manifests = manifests::read(&args.files)?;
    let client = args.access.client()?;
    let answer =
        submit(&client, &manifests, Submit { force: args.force, if_unchanged: args.if_unchanged, ..Submit::default() })
            .await?;
    let text = output::structured(args.output.format, &answer)?;
    output::print(&text.unwrap_or_else(|| summary(&answer)));
    match args.wait {
        Some(patience) => wait::until_synced(&client, answer.revision, patience, &names(&answer)).await,
        None => Ok(Answer::Yes),
    }
}

/// How documents are applied.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Submit {
    /// Only the plan of it.
    pub(crate) dry_run: bool,
    pub(crate) force: bool,
    /// Only where each object is of the revision that its document tells.
    pub(crate) if_unchanged: bool,
}

/// One apply or only its plan. What works, but perhaps not as meant, is told on stderr; a refusal with its places in the
/// manifests.
pub(crate) async fn submit(client: &Client, manifests: &Manifests, how: Submit) -> Result<Told<Applied>, Failure> {
    let Submit { dry_run, force, if_unchanged } = how;
    let request = ApplyRequest { documents: manifests.to_json()?, dry_run, force, if_unchanged };
    let answer: Told<Applied> = match client.post("/apply", &request).await {
        Err(Error::Refused(refusal)) => {
            let (text, told) = (manifests.describe_refusal(&refusal), Box::new(manifests.placed(refusal.told)));
            return Err(Failure::Told { text, told });
        }
        answer => answer?,
    };
    warnings(&answer, manifests).for_each(|warning| output::complain(&warning));
    Ok(answer)
}

/// What others become by an apply: a publisher who is not trusted any more, a secret that is missing.
const CONSEQUENCES: [&str; 2] = ["WEFT412", "WEFT423"];

/// Of the objects that were given, what would be refused, and what others lose by it; else others' are told where they are
/// given. Notes are for `weft lint`.
fn warnings(answer: &Applied, manifests: &Manifests) -> impl Iterator<Item = String> {
    let given: Vec<String> = answer.changes.iter().map(|change| change.object().to_string()).collect();
    let told = findings::told(&answer.problems, Some(manifests)).into_iter();
    let is_told = move |finding: &Located| match finding.severity {
        Level::Error => true,
        Level::Warning => given.contains(&finding.object) || CONSEQUENCES.contains(&finding.code.as_str()),
        Level::Note => false,
    };
    told.filter(is_told).map(|finding| {
        let line = finding.line(&Paint::plain());
        if finding.severity == Level::Error { format!("{line} (weft apply refuses it without --force)") } else { line }
    })
}

/// The objects that an apply was given, changed or not, as `namespace/name`.
pub(crate) fn names(answer: &Applied) -> Vec<String> {
    answer.changes.iter().map(|change| format!("{}/{}", output::cell(&change.namespace), change.name)).collect()
}

fn summary(answer: &Applied) -> String {
    let mut text = String::new();
    for change in &answer.changes {
        text.push_str(&format!("{} {}\n", change.object(), change.action));
    }
    text.push_str(&format!("revision {}\n", answer.revision));
    text
}

#[cfg(test)]
mod tests {
    use weft_api::{Action, Change, Finding, Severity};

    use super::*;

    fn change(action: Action, kind: &str, namespace: &str, name: &str) -> Change {
        let [kind, namespace, name] = [kind, namespace, name].map(str::to_owned);
        Change { action, kind, namespace, name, diff: String::new() }
    }

    #[test]
    fn the_summary_names_each_object_and_the_revision() {
        let changes = vec![
            change(Action::Created, "Service", "shop", "reviews"),
            change(Action::Unchanged, "Mesh", "", "mesh"),
            change(Action::Other("renamed".to_owned()), "Mesh", "", "old"),
        ];
        let answer = Applied { revision: 7, changes, problems: Vec::new() };
        assert_eq!(
            summary(&answer),
            "Service shop/reviews created\nMesh mesh unchanged\nMesh old renamed\nrevision 7\n"
        );
    }

    #[test]
    fn warnings_are_told_of_what_was_given() {
        let problem = |name: &str, severity: Severity| {
            let [code, kind, namespace, key, message] =
                ["WEFT103", "HTTPRoute", "a", "spec.rules", "no such service"].map(str::to_owned);
            Finding { code, severity, kind, namespace, name: name.to_owned(), key, message }
        };
        let answer = Applied {
            revision: 1,
            changes: vec![change(Action::Created, "HTTPRoute", "a", "b")],
            problems: vec![
                problem("b", Severity::Warning),
                problem("b", Severity::Note),
                problem("other", Severity::Warning),
                problem("c", Severity::Error),
                Finding { code: "WEFT412".to_owned(), ..problem("other", Severity::Warning) },
            ],
        };
        let manifests = Manifests::none();
        let told: Vec<_> = warnings(&answer, &manifests).collect();
        assert_eq!(
            told,
            [
                "warning WEFT103: HTTPRoute a/b: spec.rules: no such service",
                "error WEFT103: HTTPRoute a/c: spec.rules: no such service (weft apply refuses it without --force)",
                "warning WEFT412: HTTPRoute a/other: spec.rules: no such service"
            ]
        );
        assert_eq!(names(&answer), ["a/b"]);
    }
}
