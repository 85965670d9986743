//! `weft filter`: what authors need from an empty folder on, keys, signing and publishing of filter binaries, what the
//! control plane holds of them, and which version of one a channel stands for.

mod build;
mod cases;
mod compilers;
mod inspect;
mod keys;
mod language;
mod new;
mod run_args;
mod tried;
mod versions;

use std::path::{Path, PathBuf};

use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::SigningKey;
use weft_api::{FilterVersion, FilterVersions, Filters, PublishQuery};
use weft_policy::statement::{Statement, signed_bytes};

use super::ListArgs;
use crate::access::AccessArgs;
use crate::answer::{Answer, Failure, Outcome};
use crate::api::{Client, Told, segment};
use crate::output::{self, Format, OutputArgs, Table, cell};
use crate::values;
pub(crate) use run_args::RunArgs;

const EXAMPLE: &str = "Examples:
  weft filter new mine --sdk ../weft/filters-sdk
  weft filter test mine
  weft filter run mine --to 127.0.0.1:8080
  weft filter keygen --out publisher.key
  weft filter publish mine.wasm --name mine --version 1.1.0 --key publisher.key
  weft filter promote mine@1.1.0 --channel stable
  weft filter rollback mine
  weft filter list";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(crate) struct FilterArgs {
    #[command(subcommand)]
    command: FilterCommand,
}

#[derive(Debug, clap::Subcommand)]
enum FilterCommand {
    /// Make a folder with a filter in Rust, C, JavaScript or Python, its configuration and its cases.
    #[command(after_help = new::EXAMPLE)]
    New(new::NewArgs),
    /// Build what a folder holds to a component that carries its cases and the schema of its configuration.
    #[command(after_help = build::EXAMPLE)]
    Build(build::BuildArgs),
    /// Run a filter's cases in the sandbox, as proxies would run it; status 1 where one does not hold.
    #[command(after_help = tried::TEST_EXAMPLE)]
    Test(tried::TestArgs),
    /// Run a filter before an app of this machine, in a mesh of its own, and again with each change of its source.
    #[command(after_help = run_args::EXAMPLE)]
    Run(RunArgs),
    /// Measure what a request through a filter costs, beside another binary if wanted.
    #[command(after_help = tried::BENCH_EXAMPLE)]
    Bench(tried::BenchArgs),
    /// Make an ed25519 key pair: the private key to sign with, the public key beside it (.pub).
    #[command(after_help = "Example:\n  weft filter keygen --out publisher.key")]
    Keygen(KeygenArgs),
    /// Sign a filter's binary and give it to the control plane as a version beside the others; no policy runs it by that.
    #[command(after_help = "Example:\n  weft filter publish mine.wasm --name mine --version 1.0.0 --key publisher.key")]
    Publish(PublishArgs),
    /// The filters that the control plane holds.
    #[command(after_help = "Example:\n  weft filter list -o wide")]
    List(ListArgs),
    /// One filter with its versions, digests and signers.
    #[command(after_help = "Example:\n  weft filter show authz")]
    Show(ShowArgs),
    /// Have a channel stand for a version: policies of the channel run it from now on.
    #[command(after_help = "Example:\n  weft filter promote mine@1.1.0 --channel stable")]
    Promote(versions::PromoteArgs),
    /// Have a channel stand for the version before, or an older one that is named.
    #[command(after_help = "Example:\n  weft filter rollback mine --channel stable")]
    Rollback(versions::RollbackArgs),
    /// Have nobody take a version up any more; policies that name this very version keep it.
    #[command(after_help = "Example:\n  weft filter yank mine@1.1.0")]
    Yank(versions::YankArgs),
    /// Delete a version that no policy runs and no channel stands for.
    #[command(after_help = "Example:\n  weft filter delete mine@1.0.0")]
    Delete(versions::DeleteArgs),
    /// Kind, imports and exports of a binary, and whether proxies would run it; needs no server.
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
    /// Name of the filter.
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
    /// Have this channel stand for it at once, where that stands for nothing newer.
    #[arg(long, value_parser = values::name)]
    channel: Option<String>,
    /// As `--channel stable`.
    #[arg(long, conflicts_with = "channel")]
    make_current: bool,
    /// Sign it and have the control plane check everything, and publish nothing.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    access: AccessArgs,
}

#[derive(Debug, clap::Args)]
struct ShowArgs {
    /// Name of the filter.
    name: String,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    access: AccessArgs,
}

#[derive(Debug, clap::Args)]
struct InspectArgs {
    /// The WebAssembly component.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    output: OutputArgs,
}

/// `run_one` carries out `weft filter run`, which starts a mesh of its own and is no command of the API alone.
pub(crate) async fn run<F: Future<Output = Outcome>>(args: FilterArgs, run_one: impl FnOnce(RunArgs) -> F) -> Outcome {
    match args.command {
        FilterCommand::New(args) => new::run(&args),
        FilterCommand::Build(args) => build::run(&args),
        FilterCommand::Test(args) => tried::test(&args),
        FilterCommand::Run(args) => run_one(args).await,
        FilterCommand::Bench(args) => tried::bench(&args),
        FilterCommand::Keygen(args) => keygen(&args),
        FilterCommand::Publish(args) => publish(args).await,
        FilterCommand::List(args) => list(args).await,
        FilterCommand::Show(args) => show(args).await,
        FilterCommand::Promote(args) => versions::promote(args).await,
        FilterCommand::Rollback(args) => versions::roll_back(args).await,
        FilterCommand::Yank(args) => versions::yank(args).await,
        FilterCommand::Delete(args) => versions::delete(args).await,
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
    let query = PublishQuery {
        name: args.name.clone(),
        version: args.version.clone(),
        accept_new_key: args.accept_new_key,
        make_current: args.make_current,
        channel: args.channel.clone(),
        dry_run: args.dry_run,
    };
    let answer = Box::pin(upload(&args.access.client()?, &args.file, wasm, &key, &query)).await?;
    let text = output::structured(args.output.format, &answer)?;
    let name = format!("{}@{}", args.name, args.version);
    let done = if args.dry_run { "could be published" } else { "published" };
    output::print(&text.unwrap_or_else(|| format!("{name} {done} as {}\n", answer.digest)));
    if !args.dry_run && !answer.current && answer.channels.is_empty() {
        output::complain(&format!(
            "no channel stands for {name}: policies run it where they name it, or after weft filter promote {name}"
        ));
    }
    Ok(Answer::Yes)
}

/// Signs a binary, which came from `file`, and has the control plane publish it.
pub(crate) async fn upload(
    client: &Client,
    file: &Path,
    wasm: Vec<u8>,
    key: &SigningKey,
    query: &PublishQuery,
) -> Result<Told<FilterVersion>, Failure> {
    let unfit = || format!("{} can't be published", file.display());
    let (shape, schema) = inspect::publishable(&wasm).with_context(unfit)?;
    let digest = keys::digest(&wasm);
    let statement = Statement {
        name: query.name.clone(),
        version: query.version.clone(),
        abi: shape.abi,
        digest: keys::digest_text(&digest),
        schema: schema.map(|text| keys::digest_text(&keys::digest(text.as_bytes()))),
        publisher: keys::id(key),
    };
    let statement = statement.to_string();
    let headers = [
        ("content-type", "application/wasm".to_owned()),
        ("weft-signature", STANDARD.encode(keys::sign(key, &digest))),
        ("weft-public-key", STANDARD.encode(keys::public_pem(key)?)),
        ("weft-statement-signature", STANDARD.encode(keys::sign(key, &signed_bytes(&statement)))),
        ("weft-statement", STANDARD.encode(statement)),
    ];
    Ok(client.upload("/filters", query, &headers, wasm).await?)
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

/// Builds what is a folder; reads the component.
pub(crate) fn component(what: &Path) -> anyhow::Result<Vec<u8>> {
    if what.is_dir() { binary(&build::of_folder(what)?) } else { binary(what) }
}

/// Makes a key to sign with, which is kept in a file.
pub(crate) fn new_key(path: &Path) -> anyhow::Result<SigningKey> {
    keys::generate(path)?;
    keys::read(path)
}

fn binary(path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// As many characters of a digest as tell versions apart; all of them with `-o wide`.
const SHORT_DIGEST: usize = 19;

fn table(answer: &Filters, wide: bool) -> String {
    let mut table = Table::new(["NAME", "VERSION", "CHANNELS", "SIZE", "DIGEST"]);
    for filter in &answer.filters {
        let size = filter.size_bytes.to_string();
        let digest = cell(&filter.digest);
        let digest = if wide { digest } else { digest.chars().take(SHORT_DIGEST).collect() };
        table.row([cell(&filter.name), cell(&filter.version), channels(filter), size, digest]);
    }
    if table.is_empty() { "no filter is published\n".to_owned() } else { table.render() }
}

/// The channels that stand for a version. An older control plane tells of one alone.
fn channels(filter: &FilterVersion) -> String {
    match (filter.yanked, filter.channels.is_empty(), filter.current) {
        (true, ..) => "yanked".to_owned(),
        (false, false, _) => cell(&filter.channels.join(",")),
        (false, true, true) => "stable".to_owned(),
        (false, true, false) => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_channels_stand_for_is_shown() {
        let version = |version: &str, channels: &[&str]| FilterVersion {
            name: "authz".to_owned(),
            version: version.to_owned(),
            channels: channels.iter().map(|channel| (*channel).to_owned()).collect(),
            digest: format!("sha256:{}", "a".repeat(64)),
            ..FilterVersion::default()
        };
        let yanked = FilterVersion { yanked: true, ..version("0.3.0", &[]) };
        let of_older = FilterVersion { current: true, ..version("0.4.0", &[]) };
        let filters = vec![version("0.1.0", &[]), version("0.2.0", &["beta", "stable"]), yanked, of_older];
        let answer = Filters { filters };
        let text = table(&answer, false);
        assert!(text.lines().all(|line| line.len() <= 80), "{text}");
        assert!(table(&answer, true).contains(&answer.filters[0].digest));
        for (version, expect) in [("0.1.0", "-"), ("0.2.0", "beta,stable"), ("0.3.0", "yanked"), ("0.4.0", "stable")] {
            assert!(text.contains(&format!("authz  {version}    {expect}")), "{text}");
        }
        assert_eq!(table(&Filters::default(), false), "no filter is published\n");
    }
}
