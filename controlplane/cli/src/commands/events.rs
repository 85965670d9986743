//! `weft events`: the audit log, read back and followed: who did what, from where, what it changed, what was refused.

use std::ops::Deref;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;
use weft_api::{Event, EventQuery, Events};

use crate::access::AccessArgs;
use crate::answer::{Answer, Failure, Outcome};
use crate::api::{Client, Told};
use crate::output::{self, Format, OutputArgs, Table, cell};
use crate::values;

const EXAMPLE: &str = "Examples:
  weft events --since 1h
  weft events --object shop/web --diff
  weft events --refused -w
  weft events --actor ci-deployer -o json";

/// How long one call waits for the next entry.
const WAIT: Duration = Duration::from_secs(60);
/// How soon a control plane that does not answer is asked again.
const AGAIN: Duration = Duration::from_secs(1);

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(crate) struct EventsArgs {
    /// Go on with each new event as it comes.
    #[arg(short, long)]
    watch: bool,
    /// Part of the name or id of the token that did it.
    #[arg(long, value_name = "TEXT")]
    actor: Option<String>,
    /// Part of what it is about: a kind, a namespace and name, an identity, a path.
    #[arg(long, value_name = "TEXT")]
    object: Option<String>,
    /// Part of what was done, such as apply, delete, token, ban.
    #[arg(long, value_name = "TEXT")]
    action: Option<String>,
    /// Not older than this.
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    since: Option<Duration>,
    /// Only attempts that were refused.
    #[arg(long)]
    refused: bool,
    /// At most this many, the newest.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    /// Show below each event what it changed.
    #[arg(long)]
    diff: bool,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    access: AccessArgs,
}

pub(crate) async fn run(args: EventsArgs) -> Outcome {
    let client = args.access.client()?;
    let filter = args.filter();
    let limit = usize::try_from(args.limit).ok();
    let mut entries = entries(client.ask("/events", &EventQuery { limit, ..filter.clone() }).await?);
    print(&args, &entries, true)?;
    if !args.watch {
        return Ok(Answer::Yes);
    }
    let mut last = newest(&entries, 0);
    if entries.is_empty() {
        // Nothing matches yet: go on from the newest of all.
        let newest_of_all = EventQuery { limit: Some(1), ..EventQuery::default() };
        entries = self::entries(client.ask("/events", &newest_of_all).await?);
        last = newest(&entries, last);
    }
    let mut is_away = false;
    while output::is_read() {
        match next(&client, &filter, last).await {
            Ok(batch) => {
                is_away = false;
                last = newest(&batch, last);
                print(&args, &batch, false)?;
            }
            // It may start again; whoever follows goes on then.
            Err(Failure::Unable(error)) => {
                if !is_away {
                    output::complain(&format!("{error:#}; trying again"));
                }
                is_away = true;
                tokio::time::sleep(AGAIN).await;
            }
            Err(refused @ (Failure::Refused(_) | Failure::Told { .. })) => return Err(refused),
        }
    }
    Ok(Answer::Yes)
}

async fn next(client: &Client, filter: &EventQuery, last: u64) -> Result<Vec<Told<Event>>, Failure> {
    let wait_ms = u64::try_from(WAIT.as_millis()).ok();
    let query = EventQuery { after: Some(last), wait_ms, ..filter.clone() };
    Ok(entries(client.poll("/events", &query, WAIT).await?))
}

/// The entries of an answer, the oldest first.
fn entries(answer: Told<Events>) -> Vec<Told<Event>> {
    let mut entries = answer.each("entries", |events| events.entries);
    entries.reverse();
    entries
}

fn newest<E: Deref<Target = Event>>(entries: &[E], last: u64) -> u64 {
    entries.iter().map(|entry| entry.number).fold(last, u64::max)
}

impl EventsArgs {
    fn filter(&self) -> EventQuery {
        let since = |span: Duration| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            i64::try_from(now.saturating_sub(span).as_millis()).unwrap_or(i64::MAX)
        };
        EventQuery {
            actor: self.actor.clone(),
            object: self.object.clone(),
            action: self.action.clone(),
            since_unix_ms: self.since.map(since),
            refused: self.refused.then_some(true),
            ..EventQuery::default()
        }
    }
}

fn print(args: &EventsArgs, entries: &[Told<Event>], is_first: bool) -> Result<(), Failure> {
    match args.output.format {
        // One line for each event, so that a program can follow.
        Format::Json if args.watch => entries.iter().for_each(|entry| output::say(&json!(entry).to_string())),
        Format::Json | Format::Yaml if args.watch || is_first => {
            let text = output::structured(args.output.format, &json!({ "entries": entries }))?;
            output::print(&text.unwrap_or_default());
        }
        Format::Json | Format::Yaml => {}
        Format::Table | Format::Wide if entries.is_empty() => {
            if is_first && !args.watch {
                output::say("no events");
            }
        }
        Format::Table | Format::Wide => output::print(&table(entries, args.output.format, args.diff, is_first)),
    }
    Ok(())
}

fn table<E: Deref<Target = Event>>(entries: &[E], format: Format, with_diff: bool, with_heading: bool) -> String {
    let is_wide = format == Format::Wide;
    let mut headings = vec!["TIME", "WHO", "ROLE", "FROM", "ACTION", "OBJECT", "RESULT"];
    if is_wide {
        headings.extend(["REVISION", "DETAIL"]);
    }
    let mut table = Table::new(headings);
    for entry in entries {
        let who = if entry.name.is_empty() { &entry.actor } else { &entry.name };
        let result = if entry.refused.is_empty() { "done" } else { &entry.refused };
        let mut row = vec![output::moment(entry.time_unix_ms / 1000)];
        row.extend([who, &entry.role, &entry.from, &entry.action, &entry.object].map(|text| cell(text)));
        row.push(cell(result));
        if is_wide {
            row.extend([entry.revision.to_string(), cell(&entry.detail)]);
        }
        table.row(row);
    }
    let text = table.render();
    let mut lines = text.lines();
    let mut shown = String::new();
    if let Some(heading) = lines.next().filter(|_| with_heading) {
        shown.push_str(&format!("{heading}\n"));
    }
    for (line, entry) in lines.zip(entries) {
        shown.push_str(&format!("{line}\n"));
        let diff = if with_diff { entry.diff.as_str() } else { "" };
        diff.lines().for_each(|line| shown.push_str(&format!("    {line}\n")));
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_tell_who_what_and_how_it_ended() {
        let entries = json!([
            {"number": 1, "time_unix_ms": 5_000, "actor": "operator:ab", "name": "anna", "role": "operator",
                "from": "192.0.2.7", "action": "apply", "object": "Service shop/web", "revision": 3, "detail": "",
                "diff": "Service shop/web\n-port: 1\n+port: 2\n"},
            {"number": 2, "time_unix_ms": 6_000, "actor": "unknown", "from": "192.0.2.9",
                "action": "get refused", "object": "/api/v1/proxies", "revision": 0, "detail": "no\u{1b}[2J",
                "refused": "401 unauthenticated"},
        ]);
        let entries: Vec<Event> = serde_json::from_value(entries).unwrap();
        let entries: Vec<&Event> = entries.iter().collect();
        let text = table(&entries, Format::Wide, true, true);
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split("  ").map(str::trim).collect()).collect();
        let cells = |line: usize| lines[line].iter().copied().filter(|cell| !cell.is_empty()).collect::<Vec<_>>();
        assert_eq!(
            cells(1),
            ["1970-01-01T00:00:05Z", "anna", "operator", "192.0.2.7", "apply", "Service shop/web", "done", "3", "-"]
        );
        assert_eq!([cells(2), cells(3), cells(4)], [["Service shop/web"], ["-port: 1"], ["+port: 2"]]);
        assert_eq!(cells(5)[1..5], ["unknown", "-", "192.0.2.9", "get refused"]);
        assert!(!text.contains('\u{1b}'), "{text}");
        assert!(!table(&entries, Format::Table, false, false).contains("TIME"));
        assert_eq!(newest(&entries, 0), 2);
    }
}
