//! How things are printed: tables for people, JSON and YAML for programs, progress and complaints on stderr. A reader
//! that goes away (`| head`) ends the output quietly, and what shows something again and again ends with it.

use std::io::{ErrorKind, IsTerminal, Write};
use std::sync::OnceLock;
use std::time::Duration;

use clap::ValueEnum;
use serde::Serialize;
use serde_json::Value;
use weft_policy::text::escaped;

use crate::answer::{Answer, Failure, Outcome};

/// The forms of `-o`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Format {
    #[default]
    Table,
    /// The table with every column.
    Wide,
    Json,
    Yaml,
}

#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct OutputArgs {
    /// How to print the answer.
    #[arg(short = 'o', long = "output", value_enum, default_value_t)]
    pub(crate) format: Format,
}

/// Why stdout took no more, once it did.
static UNWRITTEN: OnceLock<ErrorKind> = OnceLock::new();

/// True until stdout took no more: its reader has gone, or there is no room for it.
pub(crate) fn is_read() -> bool {
    UNWRITTEN.get().is_none()
}

/// True where something is missing of what was printed although somebody may read it: a full disk, not a reader that left.
pub(crate) fn is_lost() -> bool {
    UNWRITTEN.get().is_some_and(|kind| *kind != ErrorKind::BrokenPipe)
}

/// Writes text to stdout. Nothing that somebody else told steers the terminal.
pub(crate) fn print(text: &str) {
    if !is_read() {
        return;
    }
    let mut out = std::io::stdout().lock();
    if let Err(error) = out.write_all(harmless(text).as_bytes()).and_then(|()| out.flush())
        && UNWRITTEN.set(error.kind()).is_ok()
        && error.kind() != ErrorKind::BrokenPipe
    {
        complain(&format!("error: cannot write to stdout: {error}"));
    }
}

/// Writes one line to stdout.
pub(crate) fn say(line: &str) {
    print(&format!("{line}\n"));
}

/// Writes one line to stderr.
pub(crate) fn complain(line: &str) {
    if writeln!(std::io::stderr().lock(), "{}", harmless(line)).is_err() {
        // Nobody reads stderr: nothing to do about it.
    }
}

/// A Unix time as people read it.
pub(crate) fn moment(unix: i64) -> String {
    let at = time::OffsetDateTime::from_unix_timestamp(unix).ok();
    at.and_then(|at| at.format(&time::format_description::well_known::Rfc3339).ok()).unwrap_or_else(|| "-".to_owned())
}

/// The text without control characters but line ends, tabs and the colours of [`Paint`].
fn harmless(text: &str) -> String {
    let mut parts = text.split(ESCAPE);
    let mut clean = escaped(parts.next().unwrap_or_default(), is_layout).into_owned();
    for part in parts {
        let own = part.strip_prefix('[').and_then(|code| code.split_once('m'));
        let own = own.is_some_and(|(code, _)| code == RESET || COLOURS.contains(&code));
        clean.push_str(if own { "\x1b" } else { "\\u{1b}" });
        clean.push_str(&escaped(part, is_layout));
    }
    clean
}

fn is_layout(character: char) -> bool {
    matches!(character, '\n' | '\t')
}

const ESCAPE: char = '\x1b';
const RESET: &str = "0";
const COLOURS: [&str; 4] = ["1", "31", "32", "33"];

/// A value as JSON or YAML; `None` for the tables, which the caller draws.
pub(crate) fn structured<T: Serialize>(format: Format, value: &T) -> Result<Option<String>, Failure> {
    let text = match format {
        Format::Table | Format::Wide => return Ok(None),
        Format::Json => serde_json::to_string_pretty(value).map_err(anyhow::Error::from)? + "\n",
        Format::Yaml => yaml(value)?,
    };
    Ok(Some(text))
}

/// A value as one YAML document with a final newline.
pub(crate) fn yaml<T: Serialize>(value: &T) -> Result<String, Failure> {
    let mut text = serde_saphyr::to_string(value).map_err(|error| anyhow::anyhow!("cannot write YAML: {error}"))?;
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}

/// Colours for terminals only, and never with `NO_COLOR`.
pub(crate) struct Paint(bool);

impl Paint {
    pub(crate) fn stdout() -> Self {
        Self(std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none())
    }

    pub(crate) fn plain() -> Self {
        Self(false)
    }

    pub(crate) fn good(&self, text: &str) -> String {
        self.wrap("32", text)
    }

    pub(crate) fn bad(&self, text: &str) -> String {
        self.wrap("31", text)
    }

    pub(crate) fn warn(&self, text: &str) -> String {
        self.wrap("33", text)
    }

    pub(crate) fn bold(&self, text: &str) -> String {
        self.wrap("1", text)
    }

    fn wrap(&self, code: &str, text: &str) -> String {
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Rows under headings, each column as wide as its widest cell, two spaces between.
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new<S: Into<String>>(headings: impl IntoIterator<Item = S>) -> Self {
        Self { rows: vec![headings.into_iter().map(Into::into).collect()] }
    }

    pub(crate) fn row<S: Into<String>>(&mut self, cells: impl IntoIterator<Item = S>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.len() <= 1
    }

    pub(crate) fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            self.rows.iter().filter_map(|row| row.get(column)).map(|cell| visible(cell)).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(cell);
                line.push_str(&" ".repeat(width.saturating_sub(visible(cell)) + 2));
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// Columns that a cell takes on a terminal: colour codes take none.
fn visible(cell: &str) -> usize {
    let mut count = 0;
    let mut in_escape = false;
    for character in cell.chars() {
        match character {
            '\x1b' => in_escape = true,
            'm' if in_escape => in_escape = false,
            _ if in_escape => {}
            _ => count += 1,
        }
    }
    count
}

/// How often it is looked whether something has changed.
const LOOK: Duration = Duration::from_secs(1);

/// Prints what `shown` gives, again and again: it says what is news beside what it has seen. Ends with an error, a signal, or
/// once nobody reads it.
pub(crate) async fn watch<S: Default>(
    mut shown: impl AsyncFnMut(&mut S) -> Result<Option<String>, Failure>,
) -> Outcome {
    let mut seen = S::default();
    let mut is_first = true;
    loop {
        if let Some(text) = shown(&mut seen).await? {
            let apart = if std::mem::take(&mut is_first) { "" } else { "\n" };
            print(&format!("{apart}{text}"));
        }
        if !is_read() {
            return Ok(Answer::Yes);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// `75s` -> `1m15s`: the two largest units.
pub(crate) fn duration(span: Duration) -> String {
    let seconds = span.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    if days > 0 {
        format!("{days}d{hours}h")
    } else if hours > 0 {
        format!("{hours}h{minutes}m")
    } else if minutes > 0 {
        format!("{minutes}m{}s", seconds % 60)
    } else if seconds > 0 {
        format!("{seconds}s")
    } else {
        format!("{}ms", span.as_millis())
    }
}

/// Time since a moment that is given as RFC 3339; `-` where it is none.
pub(crate) fn age(since: Option<&str>, now: i64) -> String {
    let Some(at) = since.and_then(instant) else { return "-".to_owned() };
    duration(Duration::from_secs(u64::try_from(now - at).unwrap_or(0)))
}

/// Seconds since the epoch of a moment that is given as RFC 3339.
pub(crate) fn instant(text: &str) -> Option<i64> {
    let at = time::OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339).ok()?;
    Some(at.unix_timestamp())
}

pub(crate) fn now() -> i64 {
    time::OffsetDateTime::now_utc().unix_timestamp()
}

/// The first of so many: `a, b and 3 more`.
pub(crate) fn first_of(shown: &[String], all: usize) -> String {
    let more = all.saturating_sub(shown.len());
    let tail = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{tail}", shown.join(", "))
}

/// One cell for a text: `-` where it is empty.
pub(crate) fn cell(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { escaped(text, |_| false).into_owned() }
}

/// One cell for several texts.
pub(crate) fn cells<'t>(texts: impl IntoIterator<Item = &'t String>) -> String {
    cell(&texts.into_iter().map(String::as_str).collect::<Vec<_>>().join(","))
}

/// The text at a path of keys, or `-`.
pub(crate) fn text_at(value: &Value, path: &[&str]) -> String {
    let mut here = value;
    for key in path {
        match here.get(key) {
            Some(next) => here = next,
            None => return "-".to_owned(),
        }
    }
    scalar(here)
}

/// One cell for a JSON value: lists are joined by commas, maps as k=v.
pub(crate) fn scalar(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => cell(text),
        Value::Array(items) if items.is_empty() => "-".to_owned(),
        Value::Array(items) => items.iter().map(scalar).collect::<Vec<_>>().join(","),
        Value::Object(map) if map.is_empty() => "-".to_owned(),
        Value::Object(map) => {
            map.iter().map(|(key, value)| format!("{key}={}", scalar(value))).collect::<Vec<_>>().join(",")
        }
        Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(["NAME", "PORT"]);
        table.row(["reviews", "80"]);
        table.row(["a", "\x1b[31m9080\x1b[0m"]);
        assert_eq!(table.render(), "NAME     PORT\nreviews  80\na        \x1b[31m9080\x1b[0m\n");
    }

    #[test]
    fn what_others_told_steers_no_terminal() {
        let paint = Paint(true);
        let good = format!("{}\tok\n", paint.good("ready"));
        assert_eq!(harmless(&good), good);
        assert_eq!(harmless("v1\x1b[2J\x1b]0;title\x07\r"), "v1\\u{1b}[2J\\u{1b}]0;title\\u{7}\\r");
        assert_eq!(scalar(&serde_json::json!("0.1\nforged  row\x1b[8m")), "0.1\\nforged  row\\u{1b}[8m");
    }

    #[test]
    fn durations_show_two_units() {
        let check = |seconds, expect: &str| assert_eq!(duration(Duration::from_secs(seconds)), expect);
        check(5, "5s");
        check(75, "1m15s");
        check(3700, "1h1m");
        check(90_000, "1d1h");
        assert_eq!(duration(Duration::from_millis(340)), "340ms");
    }

    #[test]
    fn structured_forms() {
        let value = serde_json::json!({"name": "reviews", "ports": [80]});
        assert_eq!(structured(Format::Table, &value).unwrap(), None);
        assert_eq!(structured(Format::Yaml, &value).unwrap().unwrap(), "name: reviews\nports:\n- 80\n");
        assert!(structured(Format::Json, &value).unwrap().unwrap().ends_with("}\n"));
    }

    #[test]
    fn cells_of_json_values() {
        assert_eq!(text_at(&serde_json::json!({"a": {"b": [1, "x"]}}), &["a", "b"]), "1,x");
        assert_eq!(text_at(&serde_json::json!({"a": 1}), &["b"]), "-");
        assert_eq!(scalar(&serde_json::json!({"app": "x"})), "app=x");
    }
}
