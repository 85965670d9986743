//! `weft token create`: a join token for a proxy, or a token for a person. Shown once; the control plane keeps its hash.

use std::time::Duration;

use clap::ValueEnum;
use serde_json::{Value, json};

use crate::access::AccessArgs;
use crate::answer::{Answer, Outcome};
use crate::output::{self, OutputArgs, text_at};
use crate::values;

const EXAMPLE: &str = "Examples:
  weft token create --service-account shop/reviews --ttl 10m > join.token
  weft token create --service-account shop/reviews-v2 --service reviews --address 10.0.0.0/24
  weft token create --role viewer --ttl 7d";

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
    /// A service that its proxies may stand behind beside the account's own; may be repeated.
    #[arg(long = "service", value_name = "NAME", conflicts_with = "role")]
    services: Vec<String>,
    /// A label by which services may select its workloads; may be repeated.
    #[arg(long = "label", value_name = "K=V", value_parser = values::label, conflicts_with = "role")]
    labels: Vec<(String, String)>,
    /// Addresses that its workloads may have, wherever their proxies speak from; may be repeated.
    #[arg(long = "address", value_name = "CIDR", conflicts_with = "role")]
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

/// Adds to a request for a join token what its proxies may claim.
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
    let TokenCommand::Create(args) = args.command;
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
        (None, Some(role)) => json!({"kind": "operator", "role": role.as_str(), "ttl_seconds": ttl}),
        (None, None) => return Err(anyhow::anyhow!("--service-account or --role is needed").into()),
    };
    let answer = args.access.client()?.post("/tokens", &request).await?;
    let text = output::structured(args.output.format, &answer)?;
    output::print(&text.unwrap_or_else(|| format!("{}\n", text_at(&answer, &["token"]))));
    Ok(Answer::Yes)
}
