//! `weft store`: which store the control plane works with, and the word that lets it lead after one was lost or set back.

use weft_api::{Leads, Store};

use crate::access::AccessArgs;
use crate::answer::{Answer, Outcome};
use crate::api::Told;
use crate::output::{self, OutputArgs, Table};

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
            let answer: Told<Store> = args.access.client()?.fetch("/store").await?;
            let text = output::structured(args.output.format, &answer)?;
            output::print(&text.unwrap_or_else(|| details(&answer)));
            Ok(if answer.doubt.is_none() { Answer::Yes } else { Answer::No })
        }
        StoreCommand::Accept(args) => {
            let Leads { store, epoch, .. } = args.access.client()?.command("/store/accept").await?;
            output::say(&format!("store {store} leads, epoch {epoch}"));
            Ok(Answer::Yes)
        }
    }
}

fn details(answer: &Store) -> String {
    let mut table = Table::new(["Store:", &answer.store]);
    table.row(["Epoch:".to_owned(), answer.epoch.to_string()]);
    table.row(["Revision:".to_owned(), answer.revision.to_string()]);
    if let Some(doubt) = &answer.doubt {
        table.row(["Leads nobody:", doubt]);
    }
    table.render()
}
