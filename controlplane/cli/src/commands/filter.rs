//! `weft filter`: keys, signing and publishing of filter binaries, and what the control plane holds of them.

mod inspect;
mod keys;

use std::path::{Path, PathBuf};

use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use weft_api::{FilterVersion, FilterVersions, Filters, PublishQuery};

use super::ListArgs;
use crate::access::AccessArgs;
use crate::answer::{Answer, Outcome};
use crate::api::{Told, segment};
use crate::output::{self, Format, OutputArgs, Table, cell};
use crate::values;

const EXAMPLE: &str = "Examples:
  weft filter keygen --out publisher.key
  weft filter publish target/wasm32-unknown-unknown/wasm/mine.wasm --name mine --version 1.0.0 --key publisher.key
  weft filter list";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(crate) struct FilterArgs {
    #[command(subcommand)]
    command: FilterCommand,
}

#[derive(Debug, clap::Subcommand)]
enum FilterCommand {
    /// Make an ed25519 key pair: the private key to sign with, the public key beside it (.pub).
    #[command(after_help = "Example:\n  weft filter keygen --out publisher.key")]
    Keygen(KeygenArgs),
    /// Sign a filter's binary and give it to the control plane, which verifies it again.
    #[command(after_help = "Example:\n  weft filter publish mine.wasm --name mine --version 1.0.0 --key publisher.key")]
    Publish(PublishArgs),
    /// The filters that the control plane holds.
    #[command(after_help = "Example:\n  weft filter list -o wide")]
    List(ListArgs),
    /// One filter with its versions, digests and signers.
    #[command(after_help = "Example:\n  weft filter show authz")]
    Show(ShowArgs),
    /// Kind, imports and exports of a binary; needs no server.
    #[command(after_help = "Example:\n  weft filter inspect mine.wasm")]
    Inspect(InspectArgs),
}

#[derive(Debug, clap::Args)]
struct KeygenArgs {
    /// File for the private key (PKCS #8 PEM, 0600); an existing file is never overwritten.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

#[derive(Debug, clap::Args)]
struct PublishArgs {
    /// The WebAssembly component.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[arg(long, value_parser = values::name)]
    name: String,
    /// Version of the filter, MAJOR.MINOR.PATCH.
    #[arg(long, value_parser = values::version)]
    version: String,
    /// Private key to sign with, from `weft filter keygen`.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Accept another key than the filter's first one (role admin).
    #[arg(long)]
    accept_new_key: bool,
    /// Let policies that name no version run it, also where a newer version was published: the way back.
    #[arg(long)]
    make_current: bool,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    access: AccessArgs,
}

#[derive(Debug, clap::Args)]
struct ShowArgs {
    name: String,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    access: AccessArgs,
}

#[derive(Debug, clap::Args)]
struct InspectArgs {
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    output: OutputArgs,
}

pub(crate) async fn run(args: FilterArgs) -> Outcome {
    match args.command {
        FilterCommand::Keygen(args) => keygen(&args),
        FilterCommand::Publish(args) => publish(args).await,
        FilterCommand::List(args) => list(args).await,
        FilterCommand::Show(args) => show(args).await,
        FilterCommand::Inspect(args) => inspect(&args),
    }
}

fn keygen(args: &KeygenArgs) -> Outcome {
    let public = keys::generate(&args.out)?;
    output::say(&format!("private key: {}\npublic key:  {}", args.out.display(), public.display()));
    Ok(Answer::Yes)
}

async fn publish(args: PublishArgs) -> Outcome {
    let wasm = binary(&args.file)?;
    let key = keys::read(&args.key)?;
    inspect::require_component(&wasm).with_context(|| format!("{} can't be published", args.file.display()))?;
    let digest = keys::digest(&wasm);
    let headers = [
        ("content-type", "application/wasm".to_owned()),
        ("weft-signature", STANDARD.encode(keys::sign(&key, &digest))),
        ("weft-public-key", STANDARD.encode(keys::public_pem(&key)?)),
    ];
    let query = PublishQuery {
        name: args.name.clone(),
        version: args.version.clone(),
        accept_new_key: args.accept_new_key,
        make_current: args.make_current,
    };
    let answer: Told<FilterVersion> = args.access.client()?.upload("/filters", &query, &headers, wasm).await?;
    let text = output::structured(args.output.format, &answer)?;
    let name = format!("{}@{}", args.name, args.version);
    output::print(&text.unwrap_or_else(|| format!("{name} published as {}\n", answer.digest)));
    if !answer.current {
        output::complain(&format!(
            "a newer version of {} is current: policies run {name} where they name it, or after --make-current",
            args.name
        ));
    }
    Ok(Answer::Yes)
}

async fn list(args: ListArgs) -> Outcome {
    let answer: Told<Filters> = args.access.client()?.fetch("/filters").await?;
    let text = output::structured(args.output.format, &answer)?;
    output::print(&text.unwrap_or_else(|| table(&answer, args.output.format == Format::Wide)));
    Ok(Answer::Yes)
}

async fn show(args: ShowArgs) -> Outcome {
    let path = format!("/filters/{}", segment(&args.name));
    let answer: Told<FilterVersions> = args.access.client()?.fetch(&path).await?;
    let text = output::structured(args.output.format, &answer)?;
    output::print(&text.map_or_else(|| output::yaml(&answer), Ok)?);
    Ok(Answer::Yes)
}

fn inspect(args: &InspectArgs) -> Outcome {
    let report = inspect::report(&binary(&args.file)?).with_context(|| args.file.display().to_string())?;
    let text = output::structured(args.output.format, &report)?;
    output::print(&text.map_or_else(|| output::yaml(&report), Ok)?);
    Ok(Answer::Yes)
}

fn binary(path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// As many characters of a digest as tell versions apart; all of them with `-o wide`.
const SHORT_DIGEST: usize = 19;

fn table(answer: &Filters, wide: bool) -> String {
    let mut table = Table::new(["NAME", "VERSION", "CURRENT", "SIZE", "DIGEST"]);
    for filter in &answer.filters {
        let current = if filter.current { "yes" } else { "no" };
        let size = filter.size_bytes.to_string();
        let digest = cell(&filter.digest);
        let digest = if wide { digest } else { digest.chars().take(SHORT_DIGEST).collect() };
        table.row([cell(&filter.name), cell(&filter.version), current.to_owned(), size, digest]);
    }
    if table.is_empty() { "no filter is published\n".to_owned() } else { table.render() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_current_version_is_marked() {
        let version = |version: &str, current| FilterVersion {
            name: "authz".to_owned(),
            version: version.to_owned(),
            current,
            digest: format!("sha256:{}", "a".repeat(64)),
            ..FilterVersion::default()
        };
        let answer = Filters { filters: vec![version("0.1.0", false), version("0.2.0", true)] };
        let text = table(&answer, false);
        assert!(text.lines().all(|line| line.len() <= 80), "{text}");
        assert!(table(&answer, true).contains(&answer.filters[0].digest));
        assert!(text.contains("authz  0.1.0    no") && text.contains("authz  0.2.0    yes"), "{text}");
        assert_eq!(table(&Filters::default(), false), "no filter is published\n");
    }
}
