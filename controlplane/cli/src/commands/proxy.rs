//! `weft proxy`: keeping an identity out of the mesh, taking a proxy's endpoints out of discovery, and what accounts were
//! granted beside their own services.

use weft_api::{BanRequest, Banned, Bans, Evicted, GrantList, SilentReplica, Unbanned, WithdrawRequest, Withdrawn};

use super::ListArgs;
use crate::access::AccessArgs;
use crate::answer::{Answer, Outcome};
use crate::api::{Told, segment};
use crate::output::{self, Table, cell, cells};
use crate::values;

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
    /// List the services, labels and addresses that join tokens granted to accounts.
    #[command(after_help = "Example:\n  weft proxy grants -o yaml")]
    Grants(ListArgs),
    /// Take grants away from an account: its workloads that stand by them leave their services.
    #[command(
        after_help = "Examples:\n  weft proxy withdraw shop/reviews-v2 --service reviews\n  weft proxy withdraw reviews-11 --all"
    )]
    Withdraw(WithdrawArgs),
}

#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(true))]
struct WithdrawArgs {
    /// Name of a proxy, whose identity is meant, or the identity: NS/SA or spiffe://...
    #[arg(value_name = "PROXY|NS/SA|SPIFFE-ID")]
    proxy: String,
    /// A service that its workloads may not stand behind any longer; may be repeated.
    #[arg(long = "service", value_name = "NAME", group = "what")]
    services: Vec<String>,
    /// A label by which services may not select its workloads any longer; may be repeated.
    #[arg(long = "label", value_name = "K=V", value_parser = values::label, group = "what")]
    labels: Vec<(String, String)>,
    /// Addresses, as they were granted, that its workloads may not have any longer; may be repeated.
    #[arg(long = "address", value_name = "CIDR", group = "what")]
    addresses: Vec<String>,
    /// Everything that it was granted.
    #[arg(long, group = "what", conflicts_with_all = ["services", "labels", "addresses"])]
    all: bool,
    #[command(flatten)]
    access: AccessArgs,
}

#[derive(Debug, clap::Args)]
struct BanArgs {
    /// Name of a proxy, whose identity is meant, or the identity: NS/SA or spiffe://...
    #[arg(value_name = "PROXY|NS/SA|SPIFFE-ID")]
    proxy: String,
    /// Why; shown to whoever asks, and in the audit log.
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,
    #[command(flatten)]
    access: AccessArgs,
}

#[derive(Debug, clap::Args)]
struct NamedArgs {
    /// Name of a proxy, whose identity is meant, or the identity: NS/SA or spiffe://...
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
            for silent in &answer.silent {
                let SilentReplica { replica, reason, .. } = silent;
                output::complain(&format!(
                    "control plane {} did not hear of it ({reason}): proxies there keep their connections with it",
                    cell(replica)
                ));
            }
            if !answer.silent.is_empty() {
                return Ok(Answer::No);
            }
        }
        ProxyCommand::Bans(args) => {
            let answer: Told<Bans> = args.access.client()?.fetch("/bans").await?;
            let text = output::structured(args.output.format, &answer)?;
            output::print(&text.unwrap_or_else(|| table(&answer)));
        }
        ProxyCommand::Grants(args) => {
            let answer: Told<GrantList> = args.access.client()?.fetch("/grants").await?;
            let text = output::structured(args.output.format, &answer)?;
            output::print(&text.unwrap_or_else(|| grants(&answer)));
        }
        ProxyCommand::Withdraw(args) => {
            let WithdrawArgs { proxy, services, labels, addresses, all, access } = args;
            let labels = super::token::granted(&labels);
            let request = WithdrawRequest { proxy, all, services, labels, addresses };
            let answer: Withdrawn = access.client()?.post("/grants/withdraw", &request).await?;
            output::print(&withdrawn(&answer));
        }
    }
    Ok(Answer::Yes)
}

fn grants(answer: &GrantList) -> String {
    let mut table = Table::new(["IDENTITY", "SERVICES", "LABELS", "ADDRESSES"]);
    for account in &answer.grants {
        let identity = cell(&account.identity);
        table.row([identity, cells(&account.services), cells(&account.labels), cells(&account.addresses)]);
    }
    if table.is_empty() {
        "no account was granted anything beside its own services\n".to_owned()
    } else {
        table.render()
    }
}

/// The consequences, and what would undo them.
fn withdrawn(answer: &Withdrawn) -> String {
    let own = &answer.withdrawn;
    let words = super::token::words(&own.services, &own.labels, &own.addresses);
    let mut text = format!("{} has no longer {}\n", own.identity, words.join(" "));
    for left in &answer.left {
        text.push_str(&format!("{} left: {}\n", left.workload, left.reason));
    }
    for token in &answer.tokens {
        text.push_str(&format!("token {token} would grant it again: weft token revoke {token}\n"));
    }
    text
}

/// The proxies that are kept out now: an account may have more of them than the one that was named.
fn banned(answer: &Banned) -> String {
    let identity = &answer.ban.identity;
    let told = match answer.proxies.as_slice() {
        [] => format!("{identity} is kept out of the mesh"),
        proxies => format!("{identity} is kept out of the mesh; proxies with it: {}", proxies.join(", ")),
    };
    match answer.durable {
        true => told,
        false => format!(
            "{told}. This could not be written (weft check says why): it holds at once, and ends with the control plane's \
             process unless its disk takes it before"
        ),
    }
}

fn table(answer: &Bans) -> String {
    let mut table = Table::new(["IDENTITY", "SINCE", "BY", "REASON"]);
    for ban in &answer.bans {
        let by = super::token::maker(&ban.by, &ban.by_name);
        table.row([cell(&ban.identity), output::moment(ban.since_unix), by, cell(&ban.reason)]);
    }
    if table.is_empty() { "nobody is kept out\n".to_owned() } else { table.render() }
}

#[cfg(test)]
mod tests {
    use weft_api::{AccountGrants, Ban, LeftWorkload};

    use super::*;

    #[test]
    fn a_withdrawal_says_what_left_and_what_would_undo_it() {
        let own = AccountGrants {
            identity: "spiffe://c/ns/a/sa/b".to_owned(),
            services: vec!["web".to_owned()],
            ..AccountGrants::default()
        };
        let table = grants(&GrantList { grants: vec![own.clone()] });
        assert!(table.contains("spiffe://c/ns/a/sa/b  web       -       -"), "{table}");
        let left = LeftWorkload { workload: "a/w".to_owned(), reason: "why".to_owned() };
        let answer = Withdrawn { withdrawn: own, left: vec![left], tokens: vec!["t".to_owned()] };
        assert_eq!(
            withdrawn(&answer),
            "spiffe://c/ns/a/sa/b has no longer service=web\na/w left: why\n\
             token t would grant it again: weft token revoke t\n"
        );
    }

    #[test]
    fn a_ban_says_whom_it_takes() {
        let ban = Ban { identity: "spiffe://c/ns/a/sa/b".to_owned(), by: "x".to_owned(), ..Ban::default() };
        let answer = Banned { ban: ban.clone(), proxies: vec!["b-1".to_owned(), "b-2".to_owned()], durable: true };
        assert_eq!(banned(&answer), "spiffe://c/ns/a/sa/b is kept out of the mesh; proxies with it: b-1, b-2");
        let told = banned(&Banned { durable: false, ..answer });
        assert!(told.contains("This could not be written") && told.contains("it holds at once"), "{told}");
        let text = table(&Bans { bans: vec![ban] });
        assert!(text.contains("1970-01-01T00:00:00Z"), "{text}");
        assert_eq!(table(&Bans::default()), "nobody is kept out\n");
    }
}
