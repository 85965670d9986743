//! `weft delete`: objects by kind and name, or those that a manifest names.

use weft_api::{DeleteQuery, Deleted};

use crate::access::AccessArgs;
use crate::answer::{Answer, Failure, Outcome};
use crate::api::Client;
use crate::findings;
use crate::kinds::{self, Target};
use crate::manifests::{self, FileArgs};
use crate::output::{self, Paint};
use crate::values;

const EXAMPLE: &str = "Examples:
  weft delete httproute reviews-canary --namespace shop
  weft delete -f shop.yaml --ignore-not-found";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(crate) struct DeleteArgs {
    /// Kind of the objects, such as service, httproute or accesspolicy.
    #[arg(value_name = "KIND", required_unless_present = "files", conflicts_with = "files")]
    kind: Option<String>,
    /// Names of the objects.
    #[arg(value_name = "NAME", required_unless_present = "files")]
    names: Vec<String>,
    /// Their namespace.
    #[arg(short, long, default_value = "default", value_parser = values::name)]
    namespace: String,
    /// Delete what these manifests name instead; - for stdin.
    #[arg(short = 'f', long = "filename", value_name = "FILE|DIR|-")]
    files: Vec<std::path::PathBuf>,
    /// Folders with their subfolders.
    #[arg(short = 'R', long)]
    recursive: bool,
    /// Count an object that does not exist as deleted.
    #[arg(long)]
    ignore_not_found: bool,
    /// Delete also what a policy needs to protect a workload; the audit log says so.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    access: AccessArgs,
}

pub(crate) async fn run(args: DeleteArgs) -> Outcome {
    let targets = targets(&args)?;
    let client = args.access.client()?;
    let mut answer = Answer::Yes;
    for target in targets {
        match delete(&client, &target, args.force).await {
            Ok(Some(deleted)) => {
                output::say(&format!("{target} deleted (revision {})", deleted.revision));
                for found in findings::told(&deleted.problems, None) {
                    output::complain(&found.line(&Paint::plain()));
                }
            }
            Ok(None) if args.ignore_not_found => output::say(&format!("{target} is not there")),
            Ok(None) => {
                output::complain(&format!("error: {target} does not exist"));
                answer = Answer::No;
            }
            Err(failure) => return Err(failure),
        }
    }
    Ok(answer)
}

fn targets(args: &DeleteArgs) -> Result<Vec<Target>, Failure> {
    if !args.files.is_empty() {
        let files = FileArgs { files: args.files.clone(), recursive: args.recursive };
        // The other way round than they were made: what refers goes before what it refers to.
        return Ok(manifests::read(&files)?.documents.iter().rev().map(Target::of).collect());
    }
    let Some(kind) = &args.kind else {
        return Err(anyhow::anyhow!("a KIND and a NAME, or -f FILE, are needed").into());
    };
    let kind = kinds::parse(kind)?;
    Ok(args.names.iter().map(|name| Target::new(kind, &args.namespace, name)).collect())
}

/// `None` where there is no such object.
async fn delete(client: &Client, target: &Target, force: bool) -> Result<Option<Deleted>, Failure> {
    match client.delete(&target.path(), &DeleteQuery { force }).await {
        Ok(deleted) => Ok(Some(deleted)),
        Err(crate::api::Error::Refused(refusal)) if refusal.status == 404 => Ok(None),
        Err(error) => Err(error.into()),
    }
}
