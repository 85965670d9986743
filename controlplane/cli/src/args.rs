//! The command line as a whole: each command's arguments live with the command.

use std::ffi::OsString;

use clap::{ArgMatches, CommandFactory, FromArgMatches as _, Parser, Subcommand};

use crate::answer::Outcome;
use crate::commands::{
    apply, ca, delete, describe, diff, events, explain, filter, get, lint, proxies, proxy, shell, snapshot, store,
    token, validate, version,
};
use crate::{access, check, demo, run, running};

const EXAMPLE: &str = "Examples:
  weft demo --once
  weft login --server https://127.0.0.1:15013 --token-file operator.token --ca-file ca.pem
  weft run --service reviews --port 9080 -- ./reviews
  weft apply -f route.yaml --wait 30s
  weft explain --from default/frontend --to reviews --path /admin

Exit status: 0 done; 1 the answer is no (refused, different, denied, a failed check); 2 bad usage or no answer.";

/// Weft: a service mesh over HTTP/3 with sandboxed filters.
#[derive(Debug, Parser)]
#[command(name = "weft", version, after_help = EXAMPLE, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a command with a sidecar of its own.
    Run(run::RunArgs),
    /// Apply manifests, whole or not at all.
    Apply(apply::ApplyArgs),
    /// List objects, or show one.
    Get(get::GetArgs),
    /// Show one object in full and what belongs to it.
    Describe(describe::DescribeArgs),
    /// Delete objects.
    Delete(delete::DeleteArgs),
    /// Show what an apply would change.
    Diff(diff::DiffArgs),
    /// Check manifests without a server.
    Validate(validate::ValidateArgs),
    /// Find what works, but perhaps not as meant, in the whole mesh.
    Lint(lint::LintArgs),
    /// Show each proxy: version, identity, revision, filters, certificate.
    Proxies(proxies::ProxiesArgs),
    /// Show what would become of a request, and why.
    Explain(explain::ExplainArgs),
    /// Keep a proxy's identity out of the mesh, or take its endpoints out of discovery.
    Proxy(proxy::ProxyArgs),
    /// Show the control plane's store, and let it lead after one was lost or set back.
    Store(store::StoreArgs),
    /// Show the roots that the mesh trusts, and replace them while it goes on.
    Ca(ca::CaArgs),
    /// Show who did what, from where, what it changed, and what was refused.
    Events(events::EventsArgs),
    /// Save the whole control plane as one encrypted file, and restore it.
    Snapshot(snapshot::SnapshotArgs),
    /// Make, list and revoke tokens for proxies and people.
    Token(token::TokenArgs),
    /// Start, build, test, measure, sign and publish filters.
    Filter(filter::FilterArgs),
    /// Keep the control plane's address, token and CA for later commands.
    Login(access::LoginArgs),
    /// Check this machine, the control plane or a sidecar.
    Check(check::CheckArgs),
    /// Run a mesh with a small shop on this machine.
    Demo(demo::DemoArgs),
    /// Show the version of this program and of the control plane.
    Version(version::VersionArgs),
    /// Print what a shell needs to complete these commands.
    Completions(shell::CompletionsArgs),
    /// Write man pages into a folder.
    Man(shell::ManArgs),
}

/// The command line, and whether the answer is to be for programs.
pub(crate) fn parse() -> Result<(Cli, bool), (clap::Error, bool)> {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let told = |error: clap::Error| (error, asks_for_structure(&arguments));
    let matches = Cli::command().try_get_matches_from(&arguments).map_err(told)?;
    let cli = Cli::from_arg_matches(&matches).map_err(told)?;
    Ok((cli, is_structured(&matches)))
}

/// The forms that programs read.
const STRUCTURED: [&str; 3] = ["json", "yaml", "sarif"];

/// Whatever command it is, its form is called `format`.
fn is_structured(matches: &ArgMatches) -> bool {
    let mut raw = matches.try_get_raw("format").ok().flatten().into_iter().flatten();
    let own = raw.next().and_then(|form| form.to_str());
    match (own, matches.subcommand()) {
        (Some(form), _) => STRUCTURED.contains(&form),
        (None, Some((_, matches))) => is_structured(matches),
        (None, None) => false,
    }
}

/// The same of a command line that can't be parsed.
fn asks_for_structure(arguments: &[OsString]) -> bool {
    let words: Vec<_> = arguments.iter().map(|it| it.to_string_lossy()).take_while(|word| word != "--").collect();
    let joined = words.iter().any(|word| {
        let form = word.strip_prefix("--output=").or_else(|| word.strip_prefix("-o"));
        form.is_some_and(|form| STRUCTURED.contains(&form.trim_start_matches('=')))
    });
    let apart = words.windows(2).any(|pair| {
        let [option, form] = pair else { return false };
        matches!(option.as_ref(), "-o" | "--output") && STRUCTURED.contains(&form.as_ref())
    });
    joined || apart
}

impl Cli {
    pub(crate) async fn execute(self) -> Outcome {
        match self.command {
            Command::Run(args) => Box::pin(run::run(args)).await,
            Command::Apply(args) => apply::run(args).await,
            Command::Get(args) => get::run(args).await,
            Command::Describe(args) => describe::run(args).await,
            Command::Delete(args) => delete::run(args).await,
            Command::Diff(args) => diff::run(args).await,
            Command::Validate(args) => validate::run(&args),
            Command::Lint(args) => lint::run(args).await,
            Command::Proxies(args) => proxies::run(args).await,
            Command::Explain(args) => explain::run(args).await,
            Command::Proxy(args) => proxy::run(args).await,
            Command::Store(args) => store::run(args).await,
            Command::Events(args) => events::run(args).await,
            Command::Ca(args) => ca::run(args).await,
            Command::Snapshot(args) => snapshot::run(args).await,
            Command::Token(args) => token::run(args).await,
            Command::Filter(args) => filter::run(args, |it| Box::pin(running::run(it))).await,
            Command::Login(args) => access::login(args).await,
            Command::Check(args) => check::run(args).await,
            Command::Demo(args) => Box::pin(demo::run(args)).await,
            Command::Version(args) => version::run(args).await,
            Command::Completions(args) => shell::completions(&args, Self::command()),
            Command::Man(args) => shell::man(&args, Self::command()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_is_found_whatever_the_command_is() {
        let check = |line: &str, expect: bool| {
            let arguments: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            let matches = Cli::command().try_get_matches_from(&arguments).unwrap();
            assert_eq!((is_structured(&matches), asks_for_structure(&arguments)), (expect, expect), "{line}");
        };
        check("weft get services -o json", true);
        check("weft proxy bans -oyaml", true);
        check("weft token list --output=json", true);
        check("weft lint -o sarif", true);
        check("weft get services -o wide", false);
        check("weft delete service x", false);
        check("weft run --service a --port 1 -- tool -o json", false);
    }

    #[test]
    fn the_definition_holds() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_shows_an_example() {
        fn check(command: &clap::Command) {
            if command.has_subcommands() {
                command.get_subcommands().for_each(check);
            } else {
                let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(
                    help.contains(&format!("weft {}", command.get_name()))
                        || help.contains(&format!(" {} ", command.get_name())),
                    "{}",
                    command.get_name()
                );
            }
        }
        check(&Cli::command());
    }

    #[test]
    fn every_command_and_argument_is_described() {
        fn check(command: &clap::Command) {
            assert!(command.get_about().is_some(), "{}", command.get_name());
            for argument in command.get_arguments().filter(|argument| !argument.is_hide_set()) {
                let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
                assert!(!help.is_empty(), "{} of {}", argument.get_id(), command.get_name());
            }
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }
}
