//! `weft proxies`: each proxy as the control plane sees it.

use std::time::Duration;

use serde_json::Value;
use time::OffsetDateTime;
use weft_policy::identity::SpiffeId;

use crate::access::AccessArgs;
use crate::answer::{Answer, Failure, Outcome};
use crate::output::{self, Format, OutputArgs, Paint, Table, text_at};

const EXAMPLE: &str = "Examples:
  weft proxies
  weft proxies --watch
  weft proxies reviews-11 -o yaml";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(crate) struct ProxiesArgs {
    /// Only this proxy, in full; status 1 where there is none of this name.
    name: Option<String>,
    /// Show them again whenever something has changed.
    #[arg(short, long, conflicts_with = "name")]
    watch: bool,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    access: AccessArgs,
}

pub(crate) async fn run(args: ProxiesArgs) -> Outcome {
    let client = args.access.client()?;
    if args.watch {
        let wide = args.output.format == Format::Wide;
        let shown = async |seen: &mut Value| {
            let answer = client.fetch("/proxies").await?;
            let all = answer["proxies"].as_array().cloned().unwrap_or_default();
            let state = Value::Array(all.iter().map(lasting).collect());
            let is_news = std::mem::replace(seen, state) != *seen;
            let text = match output::structured(args.output.format, &answer)? {
                Some(text) => text,
                None => table(&all, wide, &Paint::stdout(), now()),
            };
            Ok(is_news.then_some(text))
        };
        return output::watch(shown).await;
    }
    let answer = client.fetch("/proxies").await?;
    let all = answer["proxies"].as_array().cloned().unwrap_or_default();
    let Some(name) = &args.name else {
        let text = output::structured(args.output.format, &answer)?;
        output::print(
            &text.unwrap_or_else(|| table(&all, args.output.format == Format::Wide, &Paint::stdout(), now())),
        );
        return Ok(Answer::Yes);
    };
    let Some(proxy) = all.iter().find(|proxy| proxy["name"] == name.as_str()) else {
        let known: Vec<String> = all.iter().map(|proxy| text_at(proxy, &["name"])).collect();
        return Err(Failure::Refused(format!("no proxy {name}; known: {}", known.join(", "))));
    };
    let text = output::structured(args.output.format, proxy)?;
    output::print(&text.unwrap_or_else(|| details(proxy, now())));
    Ok(Answer::Yes)
}

fn now() -> i64 {
    OffsetDateTime::now_utc().unix_timestamp()
}

/// What does not change by the mere passing of time.
fn lasting(proxy: &Value) -> Value {
    let mut proxy = proxy.clone();
    for passing in ["staleness_ms", "heard_ms"] {
        proxy.as_object_mut().map(|fields| fields.remove(passing));
    }
    proxy
}

/// Fits 80 columns where names are of usual length.
fn table(proxies: &[Value], wide: bool, paint: &Paint, now: i64) -> String {
    let mut headings = vec!["NAME", "ACCOUNT", "STATE", "REVISION", "HEARD", "CERT", "AGE", "VERSION"];
    if wide {
        headings.extend(["BEHIND", "IDENTITY", "MESH-ADDRESS", "FROM", "TRANSPORT", "FILTERS", "REASON"]);
    }
    let mut table = Table::new(headings);
    for proxy in proxies {
        let state = text_at(proxy, &["state"]);
        let painted = match state.as_str() {
            "synced" => paint.good(&state),
            "refused" | "disconnected" => paint.bad(&state),
            _ => paint.warn(&state),
        };
        let mut row = vec![
            text_at(proxy, &["name"]),
            account(proxy),
            painted,
            revision(proxy),
            span(&proxy["heard_ms"]),
            expiry(&proxy["certificate_not_after"], now),
            age(&proxy["connected_since"], now),
            text_at(proxy, &["version"]),
        ];
        if wide {
            row.extend([
                span(&proxy["staleness_ms"]),
                text_at(proxy, &["identity"]),
                mesh_addresses(proxy),
                text_at(proxy, &["address"]),
                text_at(proxy, &["transport"]),
                filters(proxy).join(","),
                text_at(proxy, &["reason"]),
            ]);
        }
        table.row(row);
    }
    if table.is_empty() {
        return "no proxy has connected yet\n".to_owned();
    }
    table.render()
}

/// `12`, or `11/12` where the proxy is behind.
fn revision(proxy: &Value) -> String {
    let (has, newest) = (text_at(proxy, &["revision"]), text_at(proxy, &["current_revision"]));
    if has == newest || newest == "-" { has } else { format!("{has}/{newest}") }
}

/// `shop/reviews` of `spiffe://cluster.local/ns/shop/sa/reviews`.
fn account(proxy: &Value) -> String {
    let identity = text_at(proxy, &["identity"]);
    let known = identity.parse::<SpiffeId>();
    known.map_or(identity, |identity| format!("{}/{}", identity.namespace(), identity.service_account()))
}

fn mesh_addresses(proxy: &Value) -> String {
    let all: Vec<_> = proxy["mesh_addresses"].as_array().into_iter().flatten().map(output::scalar).collect();
    if all.is_empty() { "-".to_owned() } else { all.join(",") }
}

fn span(ms: &Value) -> String {
    ms.as_u64().map_or_else(|| "-".to_owned(), |ms| output::duration(Duration::from_millis(ms)))
}

fn filters(proxy: &Value) -> Vec<String> {
    let describe = |filter: &Value| {
        let state = text_at(filter, &["state"]);
        let tail =
            if matches!(state.as_str(), "-" | "ready" | "loaded") { String::new() } else { format!("({state})") };
        format!("{}@{}{tail}", text_at(filter, &["name"]), text_at(filter, &["version"]))
    };
    proxy["filters"].as_array().into_iter().flatten().map(describe).collect()
}

/// Seconds since the epoch; the API gives them so, or as RFC 3339.
fn moment(value: &Value) -> Option<i64> {
    let format = &time::format_description::well_known::Rfc3339;
    let parsed = |text: &str| OffsetDateTime::parse(text, format).ok().map(OffsetDateTime::unix_timestamp);
    value.as_i64().or_else(|| value.as_str().and_then(parsed))
}

/// Time left.
fn expiry(value: &Value, now: i64) -> String {
    let Some(at) = moment(value) else { return "-".to_owned() };
    match u64::try_from(at - now) {
        Ok(left) => output::duration(Duration::from_secs(left)),
        Err(_) => "EXPIRED".to_owned(),
    }
}

/// Time since.
fn age(value: &Value, now: i64) -> String {
    let Some(at) = moment(value) else { return "-".to_owned() };
    output::duration(Duration::from_secs(u64::try_from(now - at).unwrap_or(0)))
}

fn details(proxy: &Value, now: i64) -> String {
    let mut table = Table::new(["Name:".to_owned(), text_at(proxy, &["name"])]);
    let mut line = |key: &str, value: String| table.row([format!("{key}:"), value]);
    line("Identity", text_at(proxy, &["identity"]));
    line("Mesh address", mesh_addresses(proxy));
    line("Connects from", text_at(proxy, &["address"]));
    line("Version", text_at(proxy, &["version"]));
    line("State", text_at(proxy, &["state"]));
    line("Revision", revision(proxy));
    line("Last heard", format!("{} ago", span(&proxy["heard_ms"])));
    line("Behind for", span(&proxy["staleness_ms"]));
    line("Certificate", format!("{} left", expiry(&proxy["certificate_not_after"], now)));
    line("Transport", text_at(proxy, &["transport"]));
    line("Connected since", text_at(proxy, &["connected_since"]));
    if let Some(reason) = proxy["reason"].as_str().filter(|reason| !reason.is_empty()) {
        line("Reason", reason.to_owned());
    }
    for (at, filter) in filters(proxy).into_iter().enumerate() {
        table.row([if at == 0 { "Filters:" } else { "" }.to_owned(), filter]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn proxy() -> Value {
        json!({
            "name": "reviews-11", "identity": "spiffe://cluster.local/ns/shop/sa/reviews", "state": "disconnected",
            "revision": 1003, "current_revision": 1004, "staleness_ms": 75_000, "heard_ms": 3_000,
            "certificate_not_after": 90_000, "connected_since": "1970-01-01T00:00:00Z",
            "transport": "quic", "version": "0.1.0", "address": "127.0.0.1", "mesh_addresses": ["10.0.0.11:15008"],
            "filters": [{"name": "authz", "version": "0.1.0", "state": "preparing"}], "reason": "its stream is closed",
        })
    }

    #[test]
    fn a_proxy_that_is_behind_shows_both_revisions() {
        let proxies = [proxy()];
        let text = table(&proxies, true, &Paint::plain(), 0);
        let parts = ["disconnected", "1003/1004", "1m15s", "3s", "1d1h", "authz@0.1.0(preparing)", "10.0.0.11:15008"];
        for part in parts {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(table(&[], false, &Paint::plain(), 0).contains("no proxy"));
    }

    #[test]
    fn the_usual_table_fits_eighty_columns() {
        let text = table(&[proxy()], false, &Paint::plain(), 0);
        assert!(text.lines().all(|line| line.len() <= 80), "{text}");
        assert!(text.contains("shop/reviews"), "{text}");
    }

    #[test]
    fn what_only_ages_is_no_news() {
        let mut later = proxy();
        later["heard_ms"] = json!(4_000);
        assert_eq!(lasting(&proxy()), lasting(&later));
        later["state"] = json!("synced");
        assert_ne!(lasting(&proxy()), lasting(&later));
    }

    #[test]
    fn certificates_expire() {
        assert_eq!(expiry(&json!(10), 20), "EXPIRED");
        assert_eq!(expiry(&json!("1970-01-01T00:01:00Z"), 0), "1m0s");
        assert_eq!(expiry(&Value::Null, 0), "-");
        assert_eq!(age(&json!("1970-01-01T00:00:00Z"), 90), "1m30s");
    }
}
