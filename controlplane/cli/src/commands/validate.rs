//! `weft validate`: the parser of the control plane, run here; needs no server. Status 1 where something is wrong.

use serde_json::json;
use weft_policy::manifest::ManifestError;

use crate::answer::{Answer, Outcome};
use crate::manifests::{self, FileArgs, Unusable};
use crate::output::{self, OutputArgs};

const EXAMPLE: &str = "Example:
  weft validate -f manifests/ -R";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(crate) struct ValidateArgs {
    #[command(flatten)]
    files: FileArgs,
    #[command(flatten)]
    output: OutputArgs,
}

pub(crate) fn run(args: &ValidateArgs) -> Outcome {
    let format = args.output.format;
    match manifests::read(&args.files) {
        Ok(manifests) => {
            let (documents, files) = (manifests.documents.len(), manifests.files());
            let text = output::structured(format, &json!({"valid": true, "documents": documents, "files": files}))?;
            output::print(&text.unwrap_or_else(|| format!("valid: {documents} documents in {files} files\n")));
            Ok(Answer::Yes)
        }
        Err(Unusable::Wrong { errors, .. }) if !format.is_table() => {
            let describe = |error: &ManifestError| {
                let ManifestError { file, line, column, key, message } = error;
                json!({"file": file, "line": line, "column": column, "key": key, "message": message})
            };
            let errors: Vec<_> = errors.iter().map(describe).collect();
            output::print(&output::structured(format, &json!({"valid": false, "errors": errors}))?.unwrap_or_default());
            Ok(Answer::No)
        }
        Err(unusable) => Err(unusable.into()),
    }
}
