//! `weft proxies`: each proxy as the control plane sees it.

use std::collections::BTreeMap;
use std::time::Duration;

use weft_api::{Ban, Bans, LoadedFilter, Proxies, Proxy, SilentReplica, SyncState};
use weft_policy::identity::SpiffeId;

use crate::access::AccessArgs;
use crate::answer::{Answer, Failure, Outcome};
use crate::api::{Client, Error, Told};
use crate::output::{self, Format, OutputArgs, Paint, Table, age, cell, cells, instant, now};

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
    let wide = args.output.format == Format::Wide;
    if args.watch {
        let shown = async |seen: &mut Option<Vec<Proxy>>| {
            let answer: Told<Proxies> = client.fetch("/proxies").await?;
            let state = Some(answer.proxies.iter().map(lasting).collect());
            let is_news = std::mem::replace(seen, state) != *seen;
            let text = match output::structured(args.output.format, &answer)? {
                Some(text) => text,
                None => table(&answer.proxies, wide, &Paint::stdout(), now()),
            };
            Ok(is_news.then_some(text))
        };
        return output::watch(shown).await;
    }
    let answer: Told<Proxies> = client.fetch("/proxies").await?;
    complain_of(&answer.silent);
    let bans = bans(&client).await?;
    let Some(name) = &args.name else {
        let text = output::structured(args.output.format, &answer)?;
        output::print(&text.unwrap_or_else(|| table(&answer.proxies, wide, &Paint::stdout(), now())));
        kept_out(&bans).iter().for_each(|line| output::complain(line));
        return Ok(Answer::Yes);
    };
    let all = answer.each("proxies", |list| list.proxies);
    let Some(proxy) = all.iter().find(|proxy| proxy.name == *name) else {
        let known: Vec<_> = all.iter().map(|proxy| proxy.name.as_str()).collect();
        let mut text = format!("no proxy {name}; known: {}", known.join(", "));
        text.extend(kept_out(&bans).map(|line| format!("; {line}")));
        return Err(Failure::Refused(text));
    };
    let text = output::structured(args.output.format, proxy)?;
    output::print(&text.unwrap_or_else(|| details(proxy, now())));
    Ok(Answer::Yes)
}

/// Names on stderr the control planes that did not say what they know.
pub(super) fn complain_of(silent: &[SilentReplica]) {
    silent.iter().map(silence).for_each(|line| output::complain(&line));
}

/// The bans that the caller may know of.
pub(super) async fn bans(client: &Client) -> Result<Vec<Ban>, Failure> {
    match client.fetch::<Bans>("/bans").await {
        Ok(bans) => Ok(bans.bans),
        Err(Error::Refused(refusal)) if matches!(refusal.status, 403 | 404) => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

/// Identities that `kept_out` names.
const SHOWN: usize = 3;

/// A line about who is banned: proxies with such an identity have no stream and are in no list.
fn kept_out(bans: &[Ban]) -> Option<String> {
    let shown: Vec<_> = bans.iter().take(SHOWN).map(banned).collect();
    let listed = output::first_of(&shown, bans.len());
    (!shown.is_empty()).then(|| format!("kept out of the mesh: {listed} (weft proxy bans)"))
}

/// Who is banned, since when and why.
pub(super) fn banned(ban: &Ban) -> String {
    let reason = if ban.reason.is_empty() { String::new() } else { format!(", {}", cell(&ban.reason)) };
    format!("{} (banned since {}{reason})", account_of(&ban.identity), output::moment(ban.since_unix))
}

fn silence(silent: &SilentReplica) -> String {
    let SilentReplica { replica, reason, proxies } = silent;
    format!("control plane {} does not say how its {proxies} proxies are: {reason}", cell(replica))
}

/// What does not change by the mere passing of time.
fn lasting(proxy: &Proxy) -> Proxy {
    Proxy { staleness_ms: 0, heard_ms: 0, ..proxy.clone() }
}

/// Fits 80 columns where names are of usual length.
fn table(proxies: &[Proxy], wide: bool, paint: &Paint, now: i64) -> String {
    let mut headings = vec!["NAME", "ACCOUNT", "STATE", "REVISION", "HEARD", "CERT", "AGE", "VERSION"];
    if wide {
        headings.extend(["BEHIND", "IDENTITY", "MESH-ADDRESS", "FROM", "TRANSPORT", "FILTERS", "REASON"]);
    }
    let mut table = Table::new(headings);
    for proxy in proxies {
        let state = cell(proxy.state.as_str());
        let painted = match proxy.state {
            SyncState::Synced => paint.good(&state),
            SyncState::Refused | SyncState::Disconnected => paint.bad(&state),
            SyncState::Degraded | SyncState::Behind | SyncState::Other(_) => paint.warn(&state),
            SyncState::Elsewhere => state,
        };
        let mut row = vec![
            cell(&proxy.name),
            account(proxy),
            painted,
            revision(proxy),
            span(proxy.heard_ms),
            expiry(proxy.certificate_not_after.as_deref(), now),
            age(proxy.connected_since.as_deref(), now),
            cell(&proxy.version),
        ];
        if wide {
            row.extend([
                span(proxy.staleness_ms),
                cell(&proxy.identity),
                cells(&proxy.mesh_addresses),
                cell(&proxy.address),
                cell(&proxy.transport),
                filters(proxy).join(","),
                cell(&proxy.reason),
            ]);
        }
        table.row(row);
    }
    if table.is_empty() {
        return "no proxy has connected yet\n".to_owned();
    }
    let mut text = table.render();
    if !wide {
        text.extend(refusals(proxies));
        text.extend(absences(proxies));
    }
    text
}

/// Reasons of refusals that are told below the table, and names beside each.
const REASONS_SHOWN: usize = 5;
const NAMES_SHOWN: usize = 3;

/// Why proxies refuse, each reason once, the one of most proxies first.
fn refusals(proxies: &[Proxy]) -> Vec<String> {
    let mut reasons: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for proxy in proxies.iter().filter(|proxy| proxy.state == SyncState::Refused && !proxy.reason.is_empty()) {
        reasons.entry(&proxy.reason).or_default().push(&proxy.name);
    }
    let mut reasons: Vec<_> = reasons.into_iter().collect();
    reasons.sort_by_key(|(_, names)| std::cmp::Reverse(names.len()));
    let more = reasons.len().saturating_sub(REASONS_SHOWN);
    let line = |(reason, names): (&str, Vec<&str>)| format!("\nrefused by {}: {}\n", first_of(&names), cell(reason));
    let mut lines: Vec<_> = reasons.into_iter().take(REASONS_SHOWN).map(line).collect();
    if more > 0 {
        lines.push(format!("\n{more} more reasons: weft proxies -o wide\n"));
    }
    lines
}

/// Filters that proxies run without or wait for, each with its state once and the proxies in which it is so.
fn absences(proxies: &[Proxy]) -> Option<String> {
    let mut absences: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for proxy in proxies.iter().filter(|proxy| proxy.state != SyncState::Disconnected) {
        for filter in proxy.filters.iter().filter(|filter| !is_loaded(&filter.state)) {
            absences.entry((&filter.name, &filter.state)).or_default().push(&proxy.name);
        }
    }
    let more = absences.len().saturating_sub(REASONS_SHOWN);
    let line = |((filter, state), names): (&(&str, &str), &Vec<&str>)| {
        format!("\nfilter {} at {}: {}\n", cell(filter), first_of(names), cell(state))
    };
    let mut lines: Vec<_> = absences.iter().take(REASONS_SHOWN).map(line).collect();
    if more > 0 {
        lines.push(format!("\n{more} more filters: weft proxies -o wide\n"));
    }
    (!lines.is_empty()).then(|| lines.concat())
}

/// How a filter is at these proxies, a line for each state.
pub(super) fn running(proxies: &[Proxy], attachment: &str) -> Vec<String> {
    let mut states: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for proxy in proxies.iter().filter(|proxy| proxy.state != SyncState::Disconnected) {
        for filter in proxy.filters.iter().filter(|filter| filter.name == attachment) {
            let state = if is_loaded(&filter.state) { "loaded" } else { filter.state.as_str() };
            states.entry(state).or_default().push(&proxy.name);
        }
    }
    let line = |(state, names): (&str, Vec<&str>)| format!("{} at {}", cell(state), first_of(&names));
    states.into_iter().map(line).collect()
}

fn first_of(names: &[&str]) -> String {
    let shown: Vec<_> = names.iter().take(NAMES_SHOWN).map(|name| cell(name)).collect();
    output::first_of(&shown, names.len())
}

fn is_loaded(state: &str) -> bool {
    matches!(state, "" | "ready" | "loaded")
}

/// `12`, or `11/12` where the proxy is behind; `-` where another control plane knows and does not tell.
fn revision(proxy: &Proxy) -> String {
    let (has, newest) = (proxy.revision, proxy.current_revision);
    if proxy.state == SyncState::Elsewhere {
        return "-".to_owned();
    }
    if has == newest { has.to_string() } else { format!("{has}/{newest}") }
}

/// `shop/reviews` of `spiffe://cluster.local/ns/shop/sa/reviews`.
fn account(proxy: &Proxy) -> String {
    account_of(&proxy.identity)
}

fn account_of(identity: &str) -> String {
    let known = identity.parse::<SpiffeId>();
    known.map_or(cell(identity), |identity| format!("{}/{}", identity.namespace(), identity.service_account()))
}

fn span(ms: u64) -> String {
    output::duration(Duration::from_millis(ms))
}

fn filters(proxy: &Proxy) -> Vec<String> {
    let describe = |filter: &LoadedFilter| {
        let LoadedFilter { name, version, state, .. } = filter;
        let tail = if is_loaded(state) { String::new() } else { format!("({state})") };
        cell(&format!("{name}@{version}{tail}"))
    };
    proxy.filters.iter().map(describe).collect()
}

/// Time left.
fn expiry(until: Option<&str>, now: i64) -> String {
    let Some(at) = until.and_then(instant) else { return "-".to_owned() };
    match u64::try_from(at - now) {
        Ok(left) => output::duration(Duration::from_secs(left)),
        Err(_) => "EXPIRED".to_owned(),
    }
}

fn details(proxy: &Proxy, now: i64) -> String {
    let mut table = Table::new(["Name:".to_owned(), cell(&proxy.name)]);
    let mut line = |key: &str, value: String| table.row([format!("{key}:"), value]);
    line("Identity", cell(&proxy.identity));
    line("Mesh address", cells(&proxy.mesh_addresses));
    line("Connects from", cell(&proxy.address));
    line("Version", cell(&proxy.version));
    line("State", cell(proxy.state.as_str()));
    line("Revision", revision(proxy));
    line("Last heard", format!("{} ago", span(proxy.heard_ms)));
    line("Behind for", span(proxy.staleness_ms));
    line("Certificate", format!("{} left", expiry(proxy.certificate_not_after.as_deref(), now)));
    line("Transport", cell(&proxy.transport));
    line("Connected since", cell(proxy.connected_since.as_deref().unwrap_or_default()));
    if !proxy.reason.is_empty() {
        line("Reason", proxy.reason.clone());
    }
    for (at, filter) in filters(proxy).into_iter().enumerate() {
        table.row([if at == 0 { "Filters:" } else { "" }.to_owned(), filter]);
    }
    table.render()
}

#[cfg(test)]
mod tests;
