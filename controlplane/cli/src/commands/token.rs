//! `weft token`: join tokens for proxies, and tokens for people. A token's text is shown once; the control plane keeps its
//! hash, by which it is listed and revoked.

use std::time::Duration;

use clap::ValueEnum;
use serde_json::{Value, json};

use super::ListArgs;
use crate::access::AccessArgs;
use crate::answer::{Answer, Outcome};
use crate::api::segment;
use crate::output::{self, OutputArgs, Table, text_at};
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

impl Role {
    fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Publisher => "publisher",
            Self::Admin => "admin",
        }
    }
}

/// Adds to a request for a token what its holders may claim.
pub(crate) fn grant(request: &mut Value, services: &[String], labels: &[(String, String)], addresses: &[String]) {
    let labels: Vec<_> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    for (key, list) in [("services", services), ("labels", &labels), ("addresses", addresses)] {
        // A control plane of an older release knows none of these.
        if !list.is_empty() {
            request[key] = json!(list);
        }
    }
}

pub(crate) async fn run(args: TokenArgs) -> Outcome {
    match args.command {
        TokenCommand::Create(args) => create(args).await,
        TokenCommand::List(args) => {
            let answer = args.access.client()?.fetch("/tokens").await?;
            let text = output::structured(args.output.format, &answer)?;
            output::print(&text.unwrap_or_else(|| table(&answer)));
            Ok(Answer::Yes)
        }
        TokenCommand::Revoke(args) => {
            let client = args.access.client()?;
            for name in &args.names {
                client.delete(&format!("/tokens/{}", segment(name))).await?;
                output::say(&format!("token {name} is revoked"));
            }
            Ok(Answer::Yes)
        }
    }
}

fn table(answer: &Value) -> String {
    let mut table = Table::new(["NAME", "ID", "FOR", "EXPIRES", "USES", "BY"]);
    for token in answer["tokens"].as_array().into_iter().flatten() {
        let good_for = match token["kind"].as_str() {
            Some("join") => text_at(token, &["identity"]),
            _ if token["namespaces"].as_array().is_some_and(|names| !names.is_empty()) => {
                format!("role {} for {}", text_at(token, &["role"]), text_at(token, &["namespaces"]))
            }
            _ => format!("role {}", text_at(token, &["role"])),
        };
        let expires =
            if token["expires_unix"].is_null() { "never".to_owned() } else { output::moment(&token["expires_unix"]) };
        table.row([
            text_at(token, &["name"]),
            text_at(token, &["id"]),
            good_for,
            expires,
            text_at(token, &["uses_left"]),
            text_at(token, &["created_by"]),
        ]);
    }
    table.render()
}

async fn create(args: CreateArgs) -> Outcome {
    let default = if args.role.is_some() { Duration::from_secs(24 * 3600) } else { Duration::from_secs(600) };
    let ttl = args.ttl.unwrap_or(default).as_secs();
    if ttl == 0 {
        return Err(anyhow::anyhow!("--ttl: at least 1s is expected").into());
    }
    let request = match (&args.service_account, args.role) {
        (Some((namespace, account)), _) => {
            let mut request = json!({
                "kind": "join",
                "service_account": format!("{namespace}/{account}"),
                "ttl_seconds": ttl,
                "uses": args.uses,
            });
            grant(&mut request, &args.services, &args.labels, &args.addresses);
            request
        }
        (None, Some(role)) => {
            let mut request = json!({"kind": "operator", "role": role.as_str(), "ttl_seconds": ttl});
            // A control plane of an older release doesn't know it, and must not give a token for everything.
            if !args.namespaces.is_empty() {
                request["namespaces"] = json!(args.namespaces);
            }
            grant(&mut request, &[], &[], &args.addresses);
            request
        }
        (None, None) => return Err(anyhow::anyhow!("--service-account or --role is needed").into()),
    };
    let request = match &args.name {
        Some(name) => {
            let mut named = request;
            named["name"] = name.as_str().into();
            named
        }
        None => request,
    };
    let answer = args.access.client()?.post("/tokens", &request).await?;
    let text = output::structured(args.output.format, &answer)?;
    output::print(&text.unwrap_or_else(|| format!("{}\n", text_at(&answer, &["token"]))));
    Ok(Answer::Yes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_listed_by_what_they_are_good_for() {
        let answer = json!({"tokens": [
            {"name": "first-operator", "id": "ab", "kind": "operator", "role": "admin", "expires_unix": 0, "created_by": "system"},
            {"name": "till", "id": "ef", "kind": "operator", "role": "operator", "namespaces": ["shop", "till"]},
            {"name": "cd", "id": "cd", "kind": "join", "identity": "spiffe://c/ns/a/sa/b", "uses_left": 3, "expires_unix": null},
        ]});
        let text = table(&answer);
        for part in [
            "first-operator",
            "role admin",
            "role operator for shop,till",
            "1970-01-01T00:00:00Z",
            "spiffe://c/ns/a/sa/b",
            "never",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
