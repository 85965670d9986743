//! Waiting until every proxy concerned runs a revision: long polls, progress on stderr, and at the end who has not and why.

use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use crate::answer::{Answer, Failure, Outcome};
use crate::api::Client;
use crate::output::{self, text_at};

/// One long poll; short enough that progress is told.
const POLL: Duration = Duration::from_secs(2);

/// How a wait ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Everywhere {
        proxies: usize,
        /// A line for each object that a proxy refused and still does without.
        held: Vec<String>,
    },
    /// A line for each proxy that has not got the revision, with the reason.
    NotEverywhere(String),
}

/// `--wait` of a command that was given `objects` (`namespace/name`): told on stderr, status 1 where a proxy has not got
/// the revision, or has refused one of them before and does without it.
pub(crate) async fn until_synced(client: &Client, revision: u64, patience: Duration, objects: &[String]) -> Outcome {
    let started = Instant::now();
    match watch(client, revision, patience, &|progress| output::complain(&progress)).await? {
        Verdict::Everywhere { held, .. } if held.iter().any(|held| is_of(held, objects)) => {
            let ours: Vec<_> = held.into_iter().filter(|held| is_of(held, objects)).collect();
            output::complain(&format!("revision {revision} is not everywhere:\n{}", ours.join("\n")));
            Ok(Answer::No)
        }
        Verdict::Everywhere { proxies, .. } => {
            let waited = output::duration(started.elapsed());
            output::complain(&format!("revision {revision} is at all {proxies} proxies concerned (after {waited})"));
            Ok(Answer::Yes)
        }
        Verdict::NotEverywhere(lines) => {
            output::complain(&format!("revision {revision} is not everywhere:\n{lines}"));
            Ok(Answer::No)
        }
    }
}

pub(crate) async fn watch(
    client: &Client,
    revision: u64,
    patience: Duration,
    tell: &dyn Fn(String),
) -> Result<Verdict, Failure> {
    let started = Instant::now();
    loop {
        let left = patience.saturating_sub(started.elapsed());
        let wait = left.min(POLL);
        let path = format!("/revisions/{revision}/status?wait_ms={}", wait.as_millis());
        let status = client.poll(&path, wait).await?;
        if status["complete"].as_bool() == Some(true) {
            let has = |proxy: &&Value| proxy["state"] == "synced";
            return Ok(Verdict::Everywhere {
                proxies: status["proxies"].as_array().into_iter().flatten().filter(has).count(),
                held: held(&status),
            });
        }
        let waiting = unsynced(&status);
        if left.is_zero() || nothing_to_wait_for(&status) {
            return Ok(Verdict::NotEverywhere(lines(&waiting)));
        }
        tell(format!("waiting for {} of revision {revision}", summary(&waiting)));
    }
}

/// A line for each object that a proxy refused earlier and does without.
fn held(status: &Value) -> Vec<String> {
    let of = |proxy: &Value| {
        let name = text_at(proxy, &["name"]);
        let texts: Vec<String> = proxy["held"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(|text| format!("  {name} refuses {text}"))
            .collect();
        texts
    };
    status["proxies"].as_array().into_iter().flatten().flat_map(of).collect()
}

/// True where what is held is one of `objects`.
fn is_of(held: &str, objects: &[String]) -> bool {
    objects.iter().any(|object| held.split([' ', ':']).any(|word| word == object))
}

/// Proxies that have not acknowledged it.
fn unsynced(status: &Value) -> Vec<&Value> {
    status["proxies"].as_array().into_iter().flatten().filter(|proxy| proxy["state"] != "synced").collect()
}

/// A refusal stands until the next change: when only refusals are left there is nothing to wait for.
fn nothing_to_wait_for(status: &Value) -> bool {
    let waiting = unsynced(status);
    !waiting.is_empty() && waiting.iter().all(|proxy| proxy["state"] == "refused")
}

fn summary(waiting: &[&Value]) -> String {
    let names: Vec<String> = waiting.iter().take(5).map(|proxy| text_at(proxy, &["name"])).collect();
    let more = waiting.len().saturating_sub(names.len());
    let tail = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{tail}", names.join(", "))
}

fn lines(waiting: &[&Value]) -> String {
    let line = |proxy: &&Value| {
        let reason = text_at(proxy, &["reason"]);
        let reason = if reason == "-" { String::new() } else { format!(": {reason}") };
        let (name, state, at) = (text_at(proxy, &["name"]), text_at(proxy, &["state"]), text_at(proxy, &["revision"]));
        format!("  {name} is {state} at revision {at}{reason}")
    };
    waiting.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_was_refused_before_is_not_there_either() {
        let status = json!({"proxies": [{"name": "a", "state": "synced", "held": ["filter default/f: bad config"]}]});
        let held = held(&status);
        assert_eq!(held, ["  a refuses filter default/f: bad config"]);
        assert!(is_of(&held[0], &["default/f".to_owned()]) && !is_of(&held[0], &["default/g".to_owned()]));
    }

    #[test]
    fn refusals_alone_end_the_wait() {
        let status = json!({"proxies": [
            {"name": "a", "state": "synced", "revision": 4},
            {"name": "b", "state": "refused", "revision": 3, "reason": "filter authz: bad config"},
        ]});
        assert!(nothing_to_wait_for(&status));
        assert_eq!(lines(&unsynced(&status)), "  b is refused at revision 3: filter authz: bad config");
        let status = json!({"proxies": [{"name": "b", "state": "behind", "revision": 3}]});
        assert!(!nothing_to_wait_for(&status));
        assert_eq!(summary(&unsynced(&status)), "b");
    }
}
