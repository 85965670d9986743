//! `weft ca`: the roots that the mesh trusts, and their replacement while it goes on.

use std::path::PathBuf;

use anyhow::Context as _;
use weft_api::{
    Authority, AuthorityReplica, FinishRequest, InstallRequest, Root, RotateRequest, Signer, SigningRequest,
};

use crate::access::AccessArgs;
use crate::answer::{Answer, Outcome};
use crate::api::Told;
use crate::output::{self, OutputArgs, Table, cell};

#[derive(Debug, clap::Args)]
pub(crate) struct CaArgs {
    #[command(subcommand)]
    command: CaCommand,
}

#[derive(Debug, clap::Subcommand)]
enum CaCommand {
    /// Show the roots, and what still needs one that is being replaced.
    #[command(after_help = "Example:\n  weft ca show -o json")]
    Show(ShowArgs),
    /// Replace the root: the old one is trusted on until nothing needs it, and nobody is cut off.
    #[command(after_help = "Examples:\n  weft ca rotate\n  weft ca rotate --intermediate")]
    Rotate(RotateArgs),
    /// Trust the old root no more; the control plane does that by itself once nothing needs it.
    #[command(after_help = "Example:\n  weft ca finish --force    # its key was stolen")]
    Finish(FinishArgs),
    /// Print a signing request for the next intermediate, to be signed by a root of your own that lies elsewhere.
    #[command(after_help = "Example:\n  weft ca request > intermediate.csr")]
    Request(RequestArgs),
    /// Take the intermediate that was asked for, as your own root signed it: that root takes over.
    #[command(after_help = "Example:\n  cat intermediate.pem root.pem > chain.pem && weft ca install chain.pem")]
    Install(InstallArgs),
}

#[derive(Debug, clap::Args)]
struct ShowArgs {
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    access: AccessArgs,
}

#[derive(Debug, clap::Args)]
struct RotateArgs {
    /// Replace the intermediate only, which signs the workloads' certificates.
    #[arg(long)]
    intermediate: bool,
    #[command(flatten)]
    access: AccessArgs,
}

#[derive(Debug, clap::Args)]
struct FinishArgs {
    /// Also where something needs the old root: connections that began with its certificates are closed, and whoever has
    /// no newer certificate needs a new join token.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    access: AccessArgs,
}

#[derive(Debug, clap::Args)]
struct RequestArgs {
    #[command(flatten)]
    access: AccessArgs,
}

#[derive(Debug, clap::Args)]
struct InstallArgs {
    /// PEM: the intermediate's certificate, those between it and the root, and the root's last.
    #[arg(value_name = "FILE")]
    chain: PathBuf,
    #[command(flatten)]
    access: AccessArgs,
}

pub(crate) async fn run(args: CaArgs) -> Outcome {
    match args.command {
        CaCommand::Show(args) => {
            let answer: Told<Authority> = args.access.client()?.fetch("/authority").await?;
            let text = output::structured(args.output.format, &answer)?;
            output::print(&text.unwrap_or_else(|| details(&answer)));
        }
        CaCommand::Rotate(args) => {
            let signer = if args.intermediate { Signer::Intermediate } else { Signer::Root };
            let answer: Authority = args.access.client()?.post("/authority/rotate", &RotateRequest { signer }).await?;
            match signer {
                Signer::Root => {
                    output::say("a new root signs; both are trusted until nothing needs the old one (weft ca show)");
                    output::say(
                        "give the control plane's new ca.pem to whoever has a copy: operators' machines and new hosts",
                    );
                }
                Signer::Intermediate => output::say("a new intermediate signs"),
            }
            output::print(&details(&answer));
        }
        CaCommand::Finish(args) => {
            let request = FinishRequest { force: args.force };
            let answer: Authority = args.access.client()?.post("/authority/finish", &request).await?;
            output::say("the old root is trusted no more");
            output::print(&details(&answer));
        }
        CaCommand::Request(args) => {
            let answer: SigningRequest = args.access.client()?.command("/authority/request").await?;
            output::print(&answer.csr_pem);
        }
        CaCommand::Install(args) => {
            let chain_pem = std::fs::read_to_string(&args.chain)
                .with_context(|| format!("cannot read the chain {}", args.chain.display()))?;
            let answer: Authority =
                args.access.client()?.post("/authority/install", &InstallRequest { chain_pem }).await?;
            output::say("the intermediate is taken");
            output::print(&details(&answer));
        }
    }
    Ok(Answer::Yes)
}

fn details(answer: &Authority) -> String {
    let shown = |root: &Root| format!("{} until {}", cell(&root.fingerprint), cell(&root.not_after));
    let mut table = Table::new(["Root:".to_owned(), shown(&answer.root)]);
    if let Some(previous) = &answer.previous {
        table.row(["Trusted too:".to_owned(), shown(previous)]);
    }
    table.row(["Intermediate:".to_owned(), format!("until {}", cell(&answer.intermediate_not_after))]);
    if let Some(left) = &answer.left {
        let until = left.until.as_ref().map(|until| format!(", the last until {}", cell(until))).unwrap_or_default();
        table.row(["Old certificates:".to_owned(), format!("{}{until}", left.certificates)]);
        let names = left.waiting.iter().map(|name| cell(name)).collect::<Vec<_>>().join(", ");
        let names = if names.is_empty() { String::new() } else { format!(": {names}") };
        table.row(["Proxies without new root:".to_owned(), format!("{}{names}", left.waiting_count)]);
    }
    if let Some(reason) = &answer.left_unknown {
        table.row(["Old certificates:".to_owned(), format!("not known: {}", cell(reason))]);
    }
    for replica in &answer.replicas {
        table.row(["Control plane:".to_owned(), standing(replica, answer)]);
    }
    table.render()
}

/// A control plane, the root that it issues below, and what it lacks.
fn standing(replica: &AuthorityReplica, answer: &Authority) -> String {
    let root = match replica.root.as_str() {
        root if root == answer.root.fingerprint => "issues below the root".to_owned(),
        "" => "issues nothing".to_owned(),
        other => format!("issues below {}", cell(other)),
    };
    let key = if replica.has_key { ", has its key" } else { "" };
    let reason = if replica.reason.is_empty() { String::new() } else { format!(": {}", cell(&replica.reason)) };
    format!("{} {root}{key}{reason}", cell(&replica.replica))
}

#[cfg(test)]
mod tests {
    use weft_api::RotationLeft;

    use super::*;

    #[test]
    fn what_needs_the_old_root_is_shown() {
        let root = |fingerprint: &str| Root { fingerprint: fingerprint.to_owned(), not_after: "2036-01-01".to_owned() };
        let mut answer =
            Authority { root: root("aa"), intermediate_not_after: "2027".to_owned(), ..Default::default() };
        assert!(!details(&answer).contains("Trusted too"), "{}", details(&answer));
        answer.previous = Some(root("bb"));
        let waiting = vec!["spiffe://cluster.local/ns/shop/sa/web web-1".to_owned()];
        let until = Some("2026-12-01T00:00:00Z".to_owned());
        answer.left = Some(RotationLeft { waiting, waiting_count: 3, certificates: 2, until });
        let unknown = Authority { left: None, left_unknown: Some("etcd is away".to_owned()), ..answer.clone() };
        assert!(details(&unknown).contains("not known: etcd is away"), "{}", details(&unknown));
        let replica = |name: &str, root: &str, reason: &str| AuthorityReplica {
            replica: name.to_owned(),
            root: root.to_owned(),
            has_key: root == "aa",
            reason: reason.to_owned(),
        };
        answer.replicas = vec![replica("this one", "aa", ""), replica("10.0.0.2:15012", "bb", "it is away")];
        let text = details(&answer);
        for part in ["this one issues below the root, has its key", "10.0.0.2:15012 issues below bb: it is away"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        for part in ["bb until 2036", "2, the last until 2026-12-01", "3: spiffe://cluster.local/ns/shop/sa/web web-1"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
