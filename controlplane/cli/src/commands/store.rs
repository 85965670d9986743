//! `weft store`: which store the control plane works with, and the word that lets it lead after one was lost or set back.

use weft_api::{Ahead, Leads, Store};

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
    /// Show the store's id, epoch and revision; status 1 while it does not lead every connected proxy.
    #[command(after_help = "Example:\n  weft store show -o yaml")]
    Show(ShowArgs),
    /// Let this store lead also the proxies that followed another one, or a later state of it; refused where none did.
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
            Ok(if answer.doubt.is_none() && answer.ahead.is_none() { Answer::Yes } else { Answer::No })
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
    if let Some(ahead) = &answer.ahead {
        table.row(["Does not lead:".to_owned(), self::ahead(ahead)]);
        table.row(["Reason:".to_owned(), output::cell(&ahead.reason)]);
    }
    table.render()
}

/// How many proxies take nothing from the store, and the first of their names.
pub(crate) fn ahead(ahead: &Ahead) -> String {
    let Ahead { proxies, names, .. } = ahead;
    let take = if *proxies == 1 { "proxy takes" } else { "proxies take" };
    let names: Vec<_> = names.iter().map(|name| output::cell(name)).collect();
    let all = usize::try_from(*proxies).unwrap_or(usize::MAX);
    format!("{proxies} {take} nothing from it ({})", output::first_of(&names, all))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_that_are_ahead_are_named_with_the_cure() {
        let ahead = Ahead {
            proxies: 12,
            names: vec!["a".to_owned(), "b".to_owned()],
            reason: "let it lead with `weft store accept`".to_owned(),
        };
        let text = details(&Store { ahead: Some(ahead), ..Store::default() });
        for part in ["12 proxies take nothing from it (a, b and 10 more)", "weft store accept"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!details(&Store::default()).contains("lead"), "it leads all");
    }
}
