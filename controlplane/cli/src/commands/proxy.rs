//! `weft proxy`: keeping an identity out of the mesh, and taking a proxy's endpoints out of discovery.

use serde_json::{Value, json};

use super::ListArgs;
use crate::access::AccessArgs;
use crate::answer::{Answer, Outcome};
use crate::api::segment;
use crate::output::{self, Table, text_at};

#[derive(Debug, clap::Args)]
pub(crate) struct ProxyArgs {
    #[command(subcommand)]
    command: ProxyCommand,
}

#[derive(Debug, clap::Subcommand)]
enum ProxyCommand {
    /// Keep an identity out of the mesh until `unban`: all of its connections are closed, it gets no certificate.
    #[command(
        after_help = "Examples:\n  weft proxy ban reviews-11 --reason 'host was broken into'\n  weft proxy ban shop/reviews"
    )]
    Ban(BanArgs),
    /// Let an identity in again.
    #[command(after_help = "Example:\n  weft proxy unban shop/reviews")]
    Unban(NamedArgs),
    /// List the identities that are kept out.
    #[command(after_help = "Example:\n  weft proxy bans -o yaml")]
    Bans(ListArgs),
    /// End a proxy's session and take its endpoints out of discovery; one that still runs comes back.
    #[command(after_help = "Example:\n  weft proxy evict reviews-11")]
    Evict(NamedArgs),
}

#[derive(Debug, clap::Args)]
struct BanArgs {
    /// Name of a proxy, whose identity is meant, or the identity: NS/SA or spiffe://...
    #[arg(value_name = "PROXY|NS/SA|SPIFFE-ID")]
    proxy: String,
    /// Why; shown to whoever asks, and in the audit log.
    #[arg(long, default_value = "")]
    reason: String,
    #[command(flatten)]
    access: AccessArgs,
}

#[derive(Debug, clap::Args)]
struct NamedArgs {
    #[arg(value_name = "PROXY|NS/SA|SPIFFE-ID")]
    proxy: String,
    #[command(flatten)]
    access: AccessArgs,
}

pub(crate) async fn run(args: ProxyArgs) -> Outcome {
    match args.command {
        ProxyCommand::Ban(args) => {
            let request = json!({ "proxy": args.proxy, "reason": args.reason });
            let answer = args.access.client()?.post("/bans", &request).await?;
            output::say(&banned(&answer));
        }
        ProxyCommand::Unban(args) => {
            let answer = args.access.client()?.delete(&format!("/bans/{}", segment(&args.proxy))).await?;
            output::say(&format!("{} is let in again", text_at(&answer, &["identity"])));
        }
        ProxyCommand::Evict(args) => {
            let path = format!("/proxies/{}/evict", segment(&args.proxy));
            let answer = args.access.client()?.post(&path, &json!({})).await?;
            for evicted in answer["evicted"].as_array().into_iter().flatten() {
                output::say(&format!("{} is evicted", output::scalar(evicted)));
            }
        }
        ProxyCommand::Bans(args) => {
            let answer = args.access.client()?.fetch("/bans").await?;
            let text = output::structured(args.output.format, &answer)?;
            output::print(&text.unwrap_or_else(|| table(&answer)));
        }
    }
    Ok(Answer::Yes)
}

/// The proxies that are kept out now: an account may have more of them than the one that was named.
fn banned(answer: &Value) -> String {
    let identity = text_at(answer, &["ban", "identity"]);
    let proxies: Vec<String> = answer["proxies"].as_array().into_iter().flatten().map(output::scalar).collect();
    match proxies.as_slice() {
        [] => format!("{identity} is kept out of the mesh"),
        proxies => format!("{identity} is kept out of the mesh; proxies with it: {}", proxies.join(", ")),
    }
}

fn table(answer: &Value) -> String {
    let mut table = Table::new(["IDENTITY", "SINCE", "BY", "REASON"]);
    for ban in answer["bans"].as_array().into_iter().flatten() {
        table.row([
            text_at(ban, &["identity"]),
            output::moment(&ban["since_unix"]),
            text_at(ban, &["by"]),
            text_at(ban, &["reason"]),
        ]);
    }
    if table.is_empty() { "nobody is kept out\n".to_owned() } else { table.render() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ban_says_whom_it_takes() {
        let answer = json!({"ban": {"identity": "spiffe://c/ns/a/sa/b"}, "proxies": ["b-1", "b-2"]});
        assert_eq!(banned(&answer), "spiffe://c/ns/a/sa/b is kept out of the mesh; proxies with it: b-1, b-2");
        let bans = json!({"bans": [{"identity": "spiffe://c/ns/a/sa/b", "since_unix": 0, "by": "x", "reason": "y"}]});
        assert!(table(&bans).contains("1970-01-01T00:00:00Z"), "{}", table(&bans));
        assert_eq!(table(&json!({"bans": []})), "nobody is kept out\n");
    }
}
