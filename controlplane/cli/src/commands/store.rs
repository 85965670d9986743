//! `weft store`: which store the control plane works with, and the word that lets it lead after one was lost or set back.

use serde_json::{Value, json};

use crate::access::AccessArgs;
use crate::answer::{Answer, Outcome};
use crate::output::{self, OutputArgs, Table, text_at};

#[derive(Debug, clap::Args)]
pub(crate) struct StoreArgs {
    #[command(subcommand)]
    command: StoreCommand,
}

#[derive(Debug, clap::Subcommand)]
enum StoreCommand {
    /// Show the store's id, epoch and revision; status 1 while it leads nobody.
    #[command(after_help = "Example:\n  weft store show -o yaml")]
    Show(ShowArgs),
    /// Let this store lead also the proxies that followed another one, or a later state of it.
    #[command(after_help = "Example:\n  weft store accept --server https://10.0.0.5:15013")]
    Accept(AcceptArgs),
}

#[derive(Debug, clap::Args)]
struct ShowArgs {
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    access: AccessArgs,
}

#[derive(Debug, clap::Args)]
struct AcceptArgs {
    #[command(flatten)]
    access: AccessArgs,
}

pub(crate) async fn run(args: StoreArgs) -> Outcome {
    match args.command {
        StoreCommand::Show(args) => {
            let answer = args.access.client()?.fetch("/store").await?;
            let text = output::structured(args.output.format, &answer)?;
            output::print(&text.unwrap_or_else(|| details(&answer)));
            Ok(if answer["doubt"].is_null() { Answer::Yes } else { Answer::No })
        }
        StoreCommand::Accept(args) => {
            let answer = args.access.client()?.post("/store/accept", &json!({})).await?;
            output::say(&format!(
                "store {} leads, epoch {}",
                text_at(&answer, &["store"]),
                text_at(&answer, &["epoch"])
            ));
            Ok(Answer::Yes)
        }
    }
}

fn details(answer: &Value) -> String {
    let mut table = Table::new(["Store:".to_owned(), text_at(answer, &["store"])]);
    table.row(["Epoch:".to_owned(), text_at(answer, &["epoch"])]);
    table.row(["Revision:".to_owned(), text_at(answer, &["revision"])]);
    if let Some(doubt) = answer["doubt"].as_str() {
        table.row(["Leads nobody:".to_owned(), doubt.to_owned()]);
    }
    table.render()
}
