//! `weft lint`: findings about the whole mesh, as it is or as it would be with some files, by the control plane's own
//! linter; or the explanation of a code.

use serde_json::json;
use weft_api::{Lint, LintQuery, LintRequest};
use weft_policy::lint::{self, Code};

use crate::access::AccessArgs;
use crate::answer::{Answer, Outcome};
use crate::api::{Client, Error};
use crate::findings::{self, FindingsArgs, Located};
use crate::manifests::{self, MaybeFileArgs};
use crate::output;
use crate::values;

const EXAMPLE: &str = "Examples:
  weft lint
  weft lint -f shop.yaml -o sarif     # the mesh as it would be
  weft lint WEFT204                   # what a code means, and the cure";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(crate) struct LintArgs {
    /// Explain this code instead.
    #[arg(value_name = "CODE", conflicts_with_all = ["files", "codes"])]
    code: Option<Code>,
    /// Print the page about all codes instead.
    #[arg(long, conflicts_with = "files")]
    codes: bool,
    #[command(flatten)]
    files: MaybeFileArgs,
    /// Only of objects of this namespace.
    #[arg(short, long, value_parser = values::name)]
    namespace: Option<String>,
    #[command(flatten)]
    findings: FindingsArgs,
    #[command(flatten)]
    access: AccessArgs,
}

pub(crate) async fn run(args: LintArgs) -> Outcome {
    if let Some(code) = args.code {
        output::print(&explain(code));
        return Ok(Answer::Yes);
    }
    if args.codes {
        output::print(&lint::reference());
        return Ok(Answer::Yes);
    }
    let manifests = args.files.given().map(|files| manifests::read(&files)).transpose()?;
    let client = args.access.client()?;
    let answer: Lint = match &manifests {
        Some(manifests) => client.post("/lint", &LintRequest { documents: manifests.to_json()? }).await?,
        None => client.fetch("/lint").await?,
    };
    let mut found = findings::told(&answer.findings, manifests.as_ref());
    if let Some(namespace) = &args.namespace {
        let within = format!(" {namespace}/");
        found.retain(|finding| finding.object.contains(&within));
    }
    let also = json!({"revision": answer.revision});
    let all_well = if found.is_empty() { "nothing found" } else { "nothing that refuses an apply" };
    findings::conclude(&args.findings, found, also, all_well)
}

fn explain(code: Code) -> String {
    let about = code.about();
    let mut text =
        format!("{code} ({}): {}\n\n{}\n\nCure: {}\n", about.severity.as_str(), about.title, about.means, about.cure);
    if !about.example.is_empty() {
        text.push_str(&format!("\nExample:\n{}\n", about.example));
    }
    text
}

/// What the control plane finds about one object.
///
/// # Errors
/// It can't be asked, or is too old to be.
pub(crate) async fn of_object(client: &Client, kind: &str, namespace: &str, name: &str) -> Result<Vec<Located>, Error> {
    let namespace = (!namespace.is_empty()).then(|| namespace.to_owned());
    let query = LintQuery { kind: Some(kind.to_owned()), namespace, name: Some(name.to_owned()) };
    let answer: Lint = client.ask("/lint", &query).await?;
    Ok(findings::told(&answer.findings, None))
}
