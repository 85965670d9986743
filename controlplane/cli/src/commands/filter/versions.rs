//! What becomes of versions that are published: `weft filter promote`, `rollback`, `yank` and `delete`.

use weft_api::{FilterMoved, FilterVersion, PromoteQuery, RollbackQuery, VersionQuery, YankQuery};

use crate::access::AccessArgs;
use crate::answer::{Answer, Outcome};
use crate::api::{Told, segment};
use crate::output::{self, OutputArgs};
use crate::values;

#[derive(Debug, clap::Args)]
pub(super) struct PromoteArgs {
    /// The filter and its version.
    #[arg(value_name = "NAME@VERSION", value_parser = values::versioned)]
    filter: (String, String),
    /// The channel.
    #[arg(long, value_parser = values::name, default_value = "stable")]
    channel: String,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    access: AccessArgs,
}

#[derive(Debug, clap::Args)]
pub(super) struct RollbackArgs {
    /// Name of the filter.
    #[arg(value_parser = values::name)]
    name: String,
    /// The channel.
    #[arg(long, value_parser = values::name, default_value = "stable")]
    channel: String,
    /// The older version to go back to; the one before where it is left out.
    #[arg(long, value_name = "VERSION", value_parser = values::version)]
    to: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    access: AccessArgs,
}

#[derive(Debug, clap::Args)]
pub(super) struct YankArgs {
    /// The filter and its version.
    #[arg(value_name = "NAME@VERSION", value_parser = values::versioned)]
    filter: (String, String),
    /// Let it be taken up again.
    #[arg(long)]
    undo: bool,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    access: AccessArgs,
}

#[derive(Debug, clap::Args)]
pub(super) struct DeleteArgs {
    /// The filter and its version.
    #[arg(value_name = "NAME@VERSION", value_parser = values::versioned)]
    filter: (String, String),
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    access: AccessArgs,
}

pub(super) async fn promote(args: PromoteArgs) -> Outcome {
    let (name, version) = args.filter;
    let query = PromoteQuery { version, channel: Some(args.channel) };
    moved(&args.access, &format!("/filters/{}/promote", segment(&name)), &query, &args.output).await
}

pub(super) async fn roll_back(args: RollbackArgs) -> Outcome {
    let query = RollbackQuery { channel: Some(args.channel), to: args.to };
    moved(&args.access, &format!("/filters/{}/rollback", segment(&args.name)), &query, &args.output).await
}

async fn moved(access: &AccessArgs, path: &str, query: &impl serde::Serialize, output: &OutputArgs) -> Outcome {
    let answer: Told<FilterMoved> = access.client()?.command_with(path, query).await?;
    let text = output::structured(output.format, &answer)?;
    let FilterMoved { name, channel, from, to } = &*answer;
    let before = from.as_ref().map(|from| format!(", before {from}")).unwrap_or_default();
    output::print(&text.unwrap_or_else(|| format!("channel {channel} of {name} stands for {to}{before}\n")));
    Ok(Answer::Yes)
}

pub(super) async fn yank(args: YankArgs) -> Outcome {
    let (name, version) = args.filter;
    let query = YankQuery { version, undo: args.undo };
    let path = format!("/filters/{}/yank", segment(&name));
    let answer: Told<FilterVersion> = args.access.client()?.command_with(&path, &query).await?;
    let text = output::structured(args.output.format, &answer)?;
    let done = if args.undo { "may be taken up again" } else { "was yanked" };
    output::print(&text.unwrap_or_else(|| format!("{name}@{} {done}\n", answer.version)));
    if !args.undo && !answer.used_by.is_empty() {
        output::complain(&format!("these policies name it and keep it: {}", answer.used_by.join(", ")));
    }
    Ok(Answer::Yes)
}

pub(super) async fn delete(args: DeleteArgs) -> Outcome {
    let (name, version) = args.filter;
    let path = format!("/filters/{}", segment(&name));
    let answer: Told<FilterVersion> = args.access.client()?.delete(&path, &VersionQuery { version }).await?;
    let text = output::structured(args.output.format, &answer)?;
    output::print(&text.unwrap_or_else(|| format!("{name}@{} deleted\n", answer.version)));
    Ok(Answer::Yes)
}
