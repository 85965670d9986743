//! `weft proxy`: keeping an identity out of the mesh, and taking a proxy's endpoints out of discovery.

use weft_api::{BanRequest, Banned, Bans, Evicted, Unbanned};

use super::ListArgs;
use crate::access::AccessArgs;
use crate::answer::{Answer, Outcome};
use crate::api::{Told, segment};
use crate::output::{self, Table, cell};

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
            let request = BanRequest { proxy: args.proxy, reason: args.reason };
            let answer: Banned = args.access.client()?.post("/bans", &request).await?;
            output::say(&banned(&answer));
        }
        ProxyCommand::Unban(args) => {
            let path = format!("/bans/{}", segment(&args.proxy));
            let Unbanned { identity } = args.access.client()?.delete(&path, &()).await?;
            output::say(&format!("{identity} is let in again"));
        }
        ProxyCommand::Evict(args) => {
            let path = format!("/proxies/{}/evict", segment(&args.proxy));
            let answer: Evicted = args.access.client()?.command(&path).await?;
            for evicted in &answer.evicted {
                output::say(&format!("{} is evicted", cell(evicted)));
            }
        }
        ProxyCommand::Bans(args) => {
            let answer: Told<Bans> = args.access.client()?.fetch("/bans").await?;
            let text = output::structured(args.output.format, &answer)?;
            output::print(&text.unwrap_or_else(|| table(&answer)));
        }
    }
    Ok(Answer::Yes)
}

/// The proxies that are kept out now: an account may have more of them than the one that was named.
fn banned(answer: &Banned) -> String {
    let identity = &answer.ban.identity;
    match answer.proxies.as_slice() {
        [] => format!("{identity} is kept out of the mesh"),
        proxies => format!("{identity} is kept out of the mesh; proxies with it: {}", proxies.join(", ")),
    }
}

fn table(answer: &Bans) -> String {
    let mut table = Table::new(["IDENTITY", "SINCE", "BY", "REASON"]);
    for ban in &answer.bans {
        table.row([cell(&ban.identity), output::moment(ban.since_unix), cell(&ban.by), cell(&ban.reason)]);
    }
    if table.is_empty() { "nobody is kept out\n".to_owned() } else { table.render() }
}

#[cfg(test)]
mod tests {
    use weft_api::Ban;

    use super::*;

    #[test]
    fn a_ban_says_whom_it_takes() {
        let ban = Ban { identity: "spiffe://c/ns/a/sa/b".to_owned(), by: "x".to_owned(), ..Ban::default() };
        let answer = Banned { ban: ban.clone(), proxies: vec!["b-1".to_owned(), "b-2".to_owned()] };
        assert_eq!(banned(&answer), "spiffe://c/ns/a/sa/b is kept out of the mesh; proxies with it: b-1, b-2");
        let text = table(&Bans { bans: vec![ban] });
        assert!(text.contains("1970-01-01T00:00:00Z"), "{text}");
        assert_eq!(table(&Bans::default()), "nobody is kept out\n");
    }
}
