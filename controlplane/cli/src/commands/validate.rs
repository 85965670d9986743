//! `weft validate`: the parser and the linter of the control plane, run here over some files; needs no server. Status 1 for
//! mistakes and for what an apply would refuse.

use serde_json::json;
use weft_policy::manifest::ManifestError;

use crate::answer::{Answer, Outcome};
use crate::findings::{self, FindingsArgs, FindingsFormat, Located};
use crate::manifests::{self, FileArgs, Unusable};

const EXAMPLE: &str = "Examples:
  weft validate -f manifests/ -R
  weft validate -f shop.yaml --strict -o sarif > shop.sarif";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(crate) struct ValidateArgs {
    #[command(flatten)]
    files: FileArgs,
    #[command(flatten)]
    findings: FindingsArgs,
}

pub(crate) fn run(args: &ValidateArgs) -> Outcome {
    match manifests::read(&args.files) {
        Ok(manifests) => {
            let (documents, files) = (manifests.documents.len(), manifests.files());
            let also = json!({"documents": documents, "files": files});
            let all_well = format!("valid: {documents} documents in {files} files");
            findings::conclude(&args.findings, findings::of_files(&manifests), also, &all_well)
        }
        Err(Unusable::Wrong { errors, .. }) if args.findings.format != FindingsFormat::Text => {
            let describe = |error: &ManifestError| {
                let ManifestError { file, line, column, key, message } = error;
                json!({"file": file, "line": line, "column": column, "key": key, "message": message})
            };
            let also = json!({"errors": errors.iter().map(describe).collect::<Vec<_>>()});
            let located = errors.iter().map(Located::from).collect();
            findings::conclude(&args.findings, located, also, "").map(|_| Answer::No)
        }
        Err(unusable) => Err(unusable.into()),
    }
}
