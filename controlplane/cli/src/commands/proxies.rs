//! `weft proxies`: each proxy as the control plane sees it.

use std::time::Duration;

use serde_json::Value;
use time::OffsetDateTime;

use crate::access::AccessArgs;
use crate::answer::{Answer, Failure, Outcome};
use crate::output::{self, Format, OutputArgs, Paint, Table, text_at};

const EXAMPLE: &str = "Examples:
  weft proxies
  weft proxies reviews-11 -o yaml";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(crate) struct ProxiesArgs {
    /// Only this proxy, in full; status 1 where there is none of this name.
    name: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    access: AccessArgs,
}

pub(crate) async fn run(args: ProxiesArgs) -> Outcome {
    let answer = args.access.client()?.fetch("/proxies").await?;
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

fn table(proxies: &[Value], wide: bool, paint: &Paint, now: i64) -> String {
    let mut headings =
        vec!["NAME", "IDENTITY", "STATE", "REVISION", "STALENESS", "CERTIFICATE", "TRANSPORT", "VERSION"];
    if wide {
        headings.extend(["ADDRESS", "FILTERS", "REASON"]);
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
            text_at(proxy, &["identity"]),
            painted,
            revision(proxy),
            staleness(proxy),
            expiry(&proxy["certificate_not_after"], now),
            text_at(proxy, &["transport"]),
            text_at(proxy, &["version"]),
        ];
        if wide {
            row.extend([text_at(proxy, &["address"]), filters(proxy).join(","), text_at(proxy, &["reason"])]);
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

fn staleness(proxy: &Value) -> String {
    proxy["staleness_ms"].as_u64().map_or_else(|| "-".to_owned(), |ms| output::duration(Duration::from_millis(ms)))
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

/// Time left; the API gives seconds since the epoch or RFC 3339.
fn expiry(value: &Value, now: i64) -> String {
    let format = &time::format_description::well_known::Rfc3339;
    let parsed = |text: &str| OffsetDateTime::parse(text, format).ok().map(OffsetDateTime::unix_timestamp);
    let Some(at) = value.as_i64().or_else(|| value.as_str().and_then(parsed)) else { return "-".to_owned() };
    match u64::try_from(at - now) {
        Ok(left) => format!("{} left", output::duration(Duration::from_secs(left))),
        Err(_) => "EXPIRED".to_owned(),
    }
}

fn details(proxy: &Value, now: i64) -> String {
    let mut table = Table::new(["Name:".to_owned(), text_at(proxy, &["name"])]);
    let mut line = |key: &str, value: String| table.row([format!("{key}:"), value]);
    line("Identity", text_at(proxy, &["identity"]));
    line("Address", text_at(proxy, &["address"]));
    line("Version", text_at(proxy, &["version"]));
    line("State", text_at(proxy, &["state"]));
    line("Revision", revision(proxy));
    line("Staleness", staleness(proxy));
    line("Certificate", expiry(&proxy["certificate_not_after"], now));
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

    #[test]
    fn a_proxy_that_is_behind_shows_both_revisions() {
        let proxies = [json!({
            "name": "reviews-11", "identity": "spiffe://cluster.local/ns/shop/sa/reviews", "state": "behind",
            "revision": 3, "current_revision": 4, "staleness_ms": 75_000, "certificate_not_after": 90_000,
            "transport": "quic", "version": "0.1.0", "address": "127.0.0.11",
            "filters": [{"name": "authz", "version": "0.1.0", "state": "preparing"}],
        })];
        let text = table(&proxies, true, &Paint::plain(), 0);
        for part in ["behind", "3/4", "1m15s", "1d1h left", "authz@0.1.0(preparing)", "127.0.0.11"] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(table(&[], false, &Paint::plain(), 0).contains("no proxy"));
    }

    #[test]
    fn certificates_expire() {
        assert_eq!(expiry(&json!(10), 20), "EXPIRED");
        assert_eq!(expiry(&json!("1970-01-01T00:01:00Z"), 0), "1m0s left");
        assert_eq!(expiry(&Value::Null, 0), "-");
    }
}
