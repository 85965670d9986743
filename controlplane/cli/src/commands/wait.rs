//! Waiting until every proxy concerned runs a revision: long polls, progress on stderr, and at the end who has not and why.

use std::time::Duration;

use tokio::time::Instant;
use weft_api::{ProxyRevision, RevisionStatus, StatusQuery, SyncState};

use crate::answer::{Answer, Failure, Outcome};
use crate::api::Client;
use crate::output::{self, cell};

/// One long poll; short enough that progress is told.
const POLL: Duration = Duration::from_secs(2);

/// How a wait ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Everywhere {
        proxies: usize,
        /// A line for each object that a proxy refused and still does without, and for each filter that it runs without.
        held: Vec<String>,
        /// A line for each proxy that is not waited for.
        away: Vec<String>,
    },
    /// A line for each proxy that has not got the revision, with the reason.
    NotEverywhere(String),
}

/// `--wait` of a command that was given `objects` (`namespace/name`): told on stderr, status 1 where a proxy has not got
/// the revision, or has refused one of them before and does without it.
pub(crate) async fn until_synced(client: &Client, revision: u64, patience: Duration, objects: &[String]) -> Outcome {
    let started = Instant::now();
    match watch(client, revision, patience, &|progress| output::complain(&progress)).await? {
        Verdict::Everywhere { held, away, .. } if held.iter().any(|held| is_of(held, objects)) => {
            away.iter().for_each(|line| output::complain(line));
            let ours: Vec<_> = held.into_iter().filter(|held| is_of(held, objects)).collect();
            output::complain(&format!("revision {revision} is not everywhere:\n{}", ours.join("\n")));
            Ok(Answer::No)
        }
        Verdict::Everywhere { proxies, away, held } => {
            held.iter().chain(&away).for_each(|line| output::complain(line));
            let waited = output::duration(started.elapsed());
            output::complain(&match proxies {
                0 => format!("revision {revision} concerns no connected proxy"),
                _ => format!("revision {revision} is at all {proxies} proxies concerned (after {waited})"),
            });
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
        let query = StatusQuery { wait_ms: u64::try_from(wait.as_millis()).ok() };
        let status: RevisionStatus = client.poll(&format!("/revisions/{revision}/status"), &query, wait).await?;
        if status.complete {
            let has = |proxy: &&ProxyRevision| proxy.state == SyncState::Synced;
            let proxies = status.proxies.iter().filter(has).count();
            return Ok(Verdict::Everywhere { proxies, held: held(&status), away: away(&status) });
        }
        let waiting = unsynced(&status);
        if left.is_zero() || nothing_to_wait_for(&status) {
            super::proxies::complain_of(&status.silent);
            away(&status).iter().for_each(|line| output::complain(line));
            return Ok(Verdict::NotEverywhere(lines(&waiting)));
        }
        tell(format!("waiting for {} of revision {revision}", summary(&waiting)));
    }
}

/// A line for each object that a proxy refused earlier and does without.
fn held(status: &RevisionStatus) -> Vec<String> {
    let of = |proxy: &ProxyRevision| {
        let refuses = proxy.held.iter().map(|text| format!("  {} refuses {text}", proxy.name));
        let without = proxy.without.iter().map(|text| format!("  {} runs without {text}", proxy.name));
        refuses.chain(without).collect::<Vec<_>>()
    };
    status.proxies.iter().flat_map(of).collect()
}

/// A line for each proxy that went without a word: it gets the change when it is back.
fn away(status: &RevisionStatus) -> Vec<String> {
    let line = |proxy: &ProxyRevision| format!("not waited for: {}, its stream is closed", heard(proxy));
    status.away.iter().map(line).collect()
}

fn heard(proxy: &ProxyRevision) -> String {
    format!("{} (last heard {} ago)", cell(&proxy.name), output::duration(Duration::from_millis(proxy.heard_ms)))
}

/// True where what is held is one of `objects`.
fn is_of(held: &str, objects: &[String]) -> bool {
    objects.iter().any(|object| held.split([' ', ':']).any(|word| word == object))
}

/// Proxies that have not acknowledged it.
fn unsynced(status: &RevisionStatus) -> Vec<&ProxyRevision> {
    status.proxies.iter().filter(|proxy| proxy.state != SyncState::Synced).collect()
}

/// A refusal stands until the next change: when only refusals are left there is nothing to wait for.
fn nothing_to_wait_for(status: &RevisionStatus) -> bool {
    let waiting = unsynced(status);
    !waiting.is_empty() && waiting.iter().all(|proxy| proxy.state == SyncState::Refused)
}

fn summary(waiting: &[&ProxyRevision]) -> String {
    let names: Vec<_> = waiting.iter().take(5).map(|proxy| heard(proxy)).collect();
    output::first_of(&names, waiting.len())
}

fn lines(waiting: &[&ProxyRevision]) -> String {
    let line = |proxy: &&ProxyRevision| {
        let ProxyRevision { name, state, revision, reason, .. } = proxy;
        let reason = if reason.is_empty() { String::new() } else { format!(": {reason}") };
        format!("  {name} is {state} at revision {revision}{reason}")
    };
    waiting.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy(name: &str, state: SyncState, revision: u64, reason: &str, held: &[&str]) -> ProxyRevision {
        let held = held.iter().map(|text| (*text).to_owned()).collect();
        let (name, reason) = (name.to_owned(), reason.to_owned());
        let (identity, without) = (String::new(), Vec::new());
        ProxyRevision { name, identity, state, revision, reason, heard_ms: 3_000, held, without }
    }

    fn status(proxies: Vec<ProxyRevision>) -> RevisionStatus {
        RevisionStatus { proxies, ..RevisionStatus::default() }
    }

    #[test]
    fn what_was_refused_before_is_not_there_either() {
        let held = held(&status(vec![proxy("a", SyncState::Synced, 4, "", &["filter default/f: bad config"])]));
        assert_eq!(held, ["  a refuses filter default/f: bad config"]);
        assert!(is_of(&held[0], &["default/f".to_owned()]) && !is_of(&held[0], &["default/g".to_owned()]));
    }

    /// With `onFailure: Allow` the revision is everywhere, and the filter nowhere.
    #[test]
    fn a_filter_that_is_skipped_is_not_there() {
        let without = vec!["filter shop/guard: skipped: too large".to_owned()];
        let skipped = ProxyRevision { without, ..proxy("a", SyncState::Synced, 4, "", &[]) };
        let held = held(&status(vec![skipped]));
        assert_eq!(held, ["  a runs without filter shop/guard: skipped: too large"]);
        assert!(is_of(&held[0], &["shop/guard".to_owned()]) && !is_of(&held[0], &["shop/web".to_owned()]));
    }

    #[test]
    fn refusals_alone_end_the_wait() {
        let refused = proxy("b", SyncState::Refused, 3, "filter authz: bad config", &[]);
        let waiting = status(vec![proxy("a", SyncState::Synced, 4, "", &[]), refused]);
        assert!(nothing_to_wait_for(&waiting));
        assert_eq!(lines(&unsynced(&waiting)), "  b is refused at revision 3: filter authz: bad config");
        let waiting = status(vec![proxy("b", SyncState::Behind, 3, "", &[])]);
        assert!(!nothing_to_wait_for(&waiting));
        assert_eq!(summary(&unsynced(&waiting)), "b (last heard 3s ago)");
        let gone = RevisionStatus { away: vec![proxy("c", SyncState::Disconnected, 3, "", &[])], ..waiting };
        assert_eq!(away(&gone), ["not waited for: c (last heard 3s ago), its stream is closed"]);
    }
}
