//! `weft version`: of this program and of the control plane.

use serde_json::{Value, json};

use crate::access::AccessArgs;
use crate::answer::{Answer, Outcome};
use crate::output::{self, OutputArgs, Table, text_at};

const EXAMPLE: &str = "Examples:
  weft version
  weft version --client";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(crate) struct VersionArgs {
    /// Only of this program; asks nobody.
    #[arg(long)]
    client: bool,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    access: AccessArgs,
}

pub(crate) async fn run(args: VersionArgs) -> Outcome {
    let mut versions = json!({ "client": env!("CARGO_PKG_VERSION") });
    if !args.client {
        let answer: weft_api::Version = args.access.client()?.fetch("/version").await?;
        versions["server"] = answer.version.into();
    }
    let text = output::structured(args.output.format, &versions)?;
    output::print(&text.unwrap_or_else(|| table(&versions)));
    Ok(Answer::Yes)
}

fn table(versions: &Value) -> String {
    let mut table = Table::new(["Client:".to_owned(), text_at(versions, &["client"])]);
    if let Some(server) = versions["server"].as_str() {
        table.row(["Server:", server]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_are_told() {
        assert_eq!(table(&json!({"client": "1.0.0"})), "Client:  1.0.0\n");
        assert_eq!(table(&json!({"client": "1.0.0", "server": "1.1.0"})), "Client:  1.0.0\nServer:  1.1.0\n");
    }
}
