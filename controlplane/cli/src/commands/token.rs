//! `weft token`: join tokens for proxies, and tokens for people. A token's text is shown once; the control plane keeps its
//! hash, by which it is listed and revoked.

use std::time::Duration;

use clap::ValueEnum;
use weft_api::{CreateToken, CreatedToken, Revoked, TokenKind, Tokens};

use super::ListArgs;
use crate::access::AccessArgs;
use crate::answer::{Answer, Outcome};
use crate::api::{Told, segment};
use crate::output::{self, Format, OutputArgs, Table, cell, cells};
use crate::values;

const EXAMPLE: &str = "Examples:
  weft token create --service-account shop/reviews --ttl 10m > join.token
  weft token create --service-account shop/reviews-v2 --service reviews --address 10.0.0.0/24
  weft token create --role viewer --ttl 7d
  weft token create --role operator --namespace shop --namespace till --name till-deployer";

#[derive(Debug, clap::Args)]
pub(crate) struct TokenArgs {
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(Debug, clap::Subcommand)]
enum TokenCommand {
    /// Make a token; it is printed once, alone on stdout.
    #[command(after_help = EXAMPLE)]
    Create(CreateArgs),
    /// List the tokens that are good for something, without their texts.
    #[command(after_help = "Example:\n  weft token list -o yaml")]
    List(ListArgs),
    /// End tokens at once, by name or id.
    #[command(after_help = "Examples:\n  weft token revoke ci-deployer\n  weft token revoke 0f3a9c21be77")]
    Revoke(RevokeArgs),
}

#[derive(Debug, clap::Args)]
struct RevokeArgs {
    /// Names or ids of tokens, as `weft token list` shows them.
    #[arg(value_name = "NAME|ID", required = true)]
    names: Vec<String>,
    #[command(flatten)]
    access: AccessArgs,
}

#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("for").required(true))]
struct CreateArgs {
    /// A join token: the proxy that shows it becomes this account's.
    #[arg(long, value_name = "NS/SA", group = "for", value_parser = values::namespaced)]
    service_account: Option<(String, String)>,
    /// An operator token with this role.
    #[arg(long, value_enum, group = "for")]
    role: Option<Role>,
    /// A namespace that the role is for; may be repeated [default: the whole mesh].
    #[arg(long = "namespace", value_name = "NS", value_parser = values::name, conflicts_with = "service_account")]
    namespaces: Vec<String>,
    /// A name to show in lists and to revoke it by [default: its id].
    #[arg(long)]
    name: Option<String>,
    /// A service that its proxies may stand behind beside the account's own; may be repeated.
    #[arg(long = "service", value_name = "NAME", conflicts_with = "role")]
    services: Vec<String>,
    /// A label by which services may select its workloads; may be repeated.
    #[arg(long = "label", value_name = "K=V", value_parser = values::label, conflicts_with = "role")]
    labels: Vec<(String, String)>,
    /// Addresses that its workloads may have, wherever their proxies speak from, and those that the Services and Workloads
    /// of a role for namespaces may have; may be repeated.
    #[arg(long = "address", value_name = "CIDR")]
    addresses: Vec<String>,
    /// How long it can be used [default: 10m for a join token, 24h for a role].
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    ttl: Option<Duration>,
    /// How many proxies may join by it.
    #[arg(long, value_name = "N", default_value_t = 1, conflicts_with = "role", value_parser = clap::value_parser!(u32).range(1..))]
    uses: u32,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    access: AccessArgs,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Role {
    Viewer,
    Operator,
    Publisher,
    Admin,
}

impl From<Role> for weft_api::Role {
    fn from(role: Role) -> Self {
        match role {
            Role::Viewer => Self::Viewer,
            Role::Operator => Self::Operator,
            Role::Publisher => Self::Publisher,
            Role::Admin => Self::Admin,
        }
    }
}

/// Each grant in words.
pub(super) fn words(services: &[String], labels: &[String], addresses: &[String]) -> Vec<String> {
    let lists = [("service", services), ("label", labels), ("address", addresses)];
    lists.into_iter().flat_map(|(kind, list)| list.iter().map(move |one| format!("{kind}={one}"))).collect()
}

/// `KEY=VALUE` of labels, as a request for a join token has them.
pub(crate) fn granted(labels: &[(String, String)]) -> Vec<String> {
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect()
}

pub(crate) async fn run(args: TokenArgs) -> Outcome {
    match args.command {
        TokenCommand::Create(args) => create(args).await,
        TokenCommand::List(args) => {
            let answer: Told<Tokens> = args.access.client()?.fetch("/tokens").await?;
            let text = output::structured(args.output.format, &answer)?;
            output::print(&text.unwrap_or_else(|| table(&answer, args.output.format == Format::Wide)));
            Ok(Answer::Yes)
        }
        TokenCommand::Revoke(args) => {
            let client = args.access.client()?;
            for name in &args.names {
                client.delete::<Revoked>(&format!("/tokens/{}", segment(name)), &()).await?;
                output::say(&format!("token {name} is revoked"));
            }
            Ok(Answer::Yes)
        }
    }
}

fn table(answer: &Tokens, wide: bool) -> String {
    let mut headings = vec!["NAME", "ID", "FOR", "EXPIRES", "USES", "BY"];
    headings.extend(wide.then_some("GRANTS"));
    let mut table = Table::new(headings);
    for token in &answer.tokens {
        let role = token.role.as_deref().unwrap_or_default();
        let good_for = match &token.identity {
            Some(identity) => cell(identity),
            None if token.namespaces.is_empty() => format!("role {}", cell(role)),
            None => format!("role {} for {}", cell(role), cells(&token.namespaces)),
        };
        let mut row = vec![
            cell(&token.name),
            cell(&token.id),
            good_for,
            token.expires_unix.map_or_else(|| "never".to_owned(), output::moment),
            token.uses_left.map_or_else(|| "-".to_owned(), |uses| uses.to_string()),
            maker(&token.created_by, &token.created_by_name),
        ];
        if wide {
            row.push(cells(&words(&token.services, &token.labels, &token.addresses)));
        }
        table.row(row);
    }
    table.render()
}

/// Who made something: by name, else by the id of his token, which has ended.
pub(super) fn maker(by: &str, name: &str) -> String {
    cell(if name.is_empty() { by.strip_prefix("operator:").unwrap_or(by) } else { name })
}

async fn create(args: CreateArgs) -> Outcome {
    let default = if args.role.is_some() { Duration::from_secs(24 * 3600) } else { Duration::from_secs(600) };
    let ttl = args.ttl.unwrap_or(default).as_secs();
    if ttl == 0 {
        return Err(anyhow::anyhow!("--ttl: at least 1s is expected").into());
    }
    let request = match (&args.service_account, args.role) {
        (Some((namespace, account)), _) => CreateToken {
            service_account: Some(format!("{namespace}/{account}")),
            uses: Some(args.uses),
            services: args.services,
            labels: granted(&args.labels),
            addresses: args.addresses,
            ..CreateToken::new(TokenKind::Join)
        },
        (None, Some(role)) => CreateToken {
            role: Some(role.into()),
            namespaces: args.namespaces.into_iter().collect(),
            addresses: args.addresses,
            ..CreateToken::new(TokenKind::Operator)
        },
        (None, None) => return Err(anyhow::anyhow!("--service-account or --role is needed").into()),
    };
    let request = CreateToken { name: args.name, ttl_seconds: Some(ttl), ..request };
    let answer: Told<CreatedToken> = args.access.client()?.post("/tokens", &request).await?;
    let text = output::structured(args.output.format, &answer)?;
    output::print(&text.unwrap_or_else(|| format!("{}\n", answer.token)));
    Ok(Answer::Yes)
}

#[cfg(test)]
mod tests {
    use weft_api::Token;

    use super::*;

    #[test]
    fn tokens_are_listed_by_what_they_are_good_for() {
        let token = |name: &str| Token { name: name.to_owned(), id: "ab".to_owned(), ..Token::default() };
        let first = Token { role: Some("admin".to_owned()), expires_unix: Some(0), ..token("first-operator") };
        let namespaces = ["shop", "till"].map(str::to_owned).into();
        let (created_by, created_by_name) = ("operator:0f3a".to_owned(), "anna".to_owned());
        let till =
            Token { role: Some("operator".to_owned()), namespaces, created_by, created_by_name, ..token("till") };
        let join = Token {
            identity: Some("spiffe://c/ns/a/sa/b".to_owned()),
            uses_left: Some(3),
            services: vec!["x".to_owned()],
            ..token("cd")
        };
        let answer = Tokens { tokens: vec![first, till, join] };
        let text = table(&answer, true);
        assert!(text.contains(" anna") && !text.contains("0f3a"), "{text}");
        assert_eq!((maker("operator:0f3a", "").as_str(), maker("system", "").as_str()), ("0f3a", "system"));
        for part in [
            "first-operator",
            "role admin",
            "role operator for shop,till",
            "1970-01-01T00:00:00Z",
            "spiffe://c/ns/a/sa/b",
            "never",
            "service=x",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
