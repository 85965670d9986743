//! Differences by kind: one line for many cases, with an example of each. Known kinds are allowed to fail for a reason;
//! a known kind that fails no more has to go.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use weft_tests::exchange::seen::Seen;

use super::allowed::{Context, RULES};
use super::cases::Case;
use super::ground::Way;
use super::known;
use super::run::Saw;

/// One case that differs by one way.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    pub(super) family: &'static str,
    pub(super) case: String,
    pub(super) way: &'static str,
    pub(super) kinds: BTreeSet<String>,
    detail: String,
}

/// The differences of one exchange, once everything allowed has been made equal.
pub(super) fn compare(case: &Case, way: Way, direct: &Saw, meshed: &Saw) -> Option<Failure> {
    let (mut one, mut other) = (direct.clone(), meshed.clone());
    for rule in RULES {
        (rule.make_equal)(&Context { case, way }, &mut one, &mut other);
    }
    let mut kinds = differences("client", &one.client, &other.client);
    kinds.extend(differences("origin", &one.origin, &other.origin));
    if kinds.is_empty() {
        return None;
    }
    let mut detail = String::new();
    for (side, direct, meshed) in [("client", &one.client, &other.client), ("origin", &one.origin, &other.origin)] {
        if direct != meshed {
            _ = write!(detail, "    {side}, direct\n{direct}    {side}, {}\n{meshed}", way.name());
        }
    }
    Some(Failure { family: case.family, case: case.name.clone(), way: way.name(), kinds, detail })
}

fn differences(side: &str, direct: &Seen, meshed: &Seen) -> BTreeSet<String> {
    if direct == meshed {
        return BTreeSet::new();
    }
    if meshed.0.is_empty() {
        return BTreeSet::from([format!("{side}: saw nothing")]);
    }
    let values = |seen: &Seen| {
        let mut all = BTreeMap::<String, Vec<String>>::new();
        for (key, value) in &seen.0 {
            all.entry(key.clone()).or_default().push(value.clone());
        }
        all
    };
    let (one, other) = (values(direct), values(meshed));
    let mut kinds = BTreeSet::new();
    for key in one.keys().chain(other.keys()) {
        let (before, after) = (one.get(key), other.get(key));
        if before == after {
            continue;
        }
        // Another start line makes everything else another message: the rest would only repeat it.
        if key.ends_with(".line") || key == "line" || key.ends_with(".answer") {
            let number = key.split('.').next().unwrap_or_default();
            let instead = |all: &BTreeMap<String, Vec<String>>| {
                all.get(&format!("{number}.answer")).map_or("none".to_owned(), |values| values[0].clone())
            };
            let (was, is) = (
                before.map_or_else(|| instead(&one), |values| start(side, &values[0])),
                after.map_or_else(|| instead(&other), |values| start(side, &values[0])),
            );
            let what = if was == is { format!("the rest of {was} is another") } else { format!("{was} becomes {is}") };
            return BTreeSet::from([format!("{side} {number}: {what}")]);
        }
        let shown = |values: Option<&Vec<String>>| values.map_or("nothing".to_owned(), |values| values.join(" | "));
        let what = match (before, after) {
            (_, None) => "lost".to_owned(),
            (None, _) => "added".to_owned(),
            _ if key.contains("body") || key.ends_with("raw") => "differs".to_owned(),
            _ if key.contains("field.") => "changed".to_owned(),
            _ => format!("{} becomes {}", shown(before), shown(after)),
        };
        kinds.insert(format!("{side} {key}: {what}"));
    }
    if kinds.is_empty() {
        kinds.insert(format!("{side}: the same in another order"));
    }
    kinds
}

/// A start line by what it says in general: a status, or that a target was changed.
fn start(side: &str, line: &str) -> String {
    let mut words = line.split(' ');
    let first = words.next().unwrap_or_default();
    match side {
        "client" if first.starts_with("HTTP/") => words.next().unwrap_or_default().to_owned(),
        "client" => line.to_owned(),
        _ => format!("{first} .."),
    }
}

/// Prints what fails, writes it beside the binaries, and panics where it isn't known.
pub(super) fn judge(ground: &str, cases: &[Case], failures: Vec<Failure>) {
    let ways: BTreeSet<&str> = failures.iter().map(|failure| failure.way).collect();
    let text = grouped(&failures);
    let own = std::env::current_exe().expect("a running program has a path");
    let folder = own.parent().expect("a program lies in a folder");
    let file = folder.join(format!("differential-{ground}.txt"));
    let details: String = failures
        .iter()
        .map(|failure| {
            format!("{}: {}, {}: {:?}\n{}\n", failure.family, failure.case, failure.way, failure.kinds, failure.detail)
        })
        .collect();
    std::fs::write(&file, format!("{text}\n{details}")).expect("the folder of the binaries is writable");
    eprintln!("{} cases, {} differ by {ways:?}; all of it in {}\n{text}", cases.len(), failures.len(), file.display());
    if std::env::var_os("WEFT_DIFFERENTIAL_ONLY").is_some() {
        return;
    }
    let known = known::read();
    let unknown: Vec<_> =
        failures.iter().filter(|failure| !known.iter().any(|known| known.covers(failure))).cloned().collect();
    assert!(unknown.is_empty(), "{} exchanges differ and nobody knows why:\n{}", unknown.len(), grouped(&unknown));
    let met: Vec<_> = known.iter().filter(|known| known.ground == ground).collect();
    let mended = met.iter().filter(|known| !failures.iter().any(|failure| known.covers(failure)));
    let mended: Vec<_> = mended.map(|known| format!("{}: {}", known.family, known.case)).collect();
    assert!(mended.is_empty(), "these are the same now: take them out of known.rs: {mended:#?}");
}

/// One paragraph for each family and kind.
fn grouped(failures: &[Failure]) -> String {
    let mut groups = BTreeMap::<(&str, String), Vec<&Failure>>::new();
    for failure in failures {
        let kinds: Vec<_> = failure.kinds.iter().take(4).cloned().collect();
        groups.entry((failure.family, kinds.join("; "))).or_default().push(failure);
    }
    let mut text = String::new();
    for ((family, kinds), failures) in groups {
        let ways: BTreeSet<_> = failures.iter().map(|failure| failure.way).collect();
        let names: BTreeSet<_> = failures.iter().map(|failure| failure.case.as_str()).collect();
        let some: Vec<_> = names.iter().take(4).copied().collect();
        let more = names.len().saturating_sub(some.len());
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        _ = writeln!(text, "{family} [{} x, {ways:?}]: {kinds}\n    {}{more}", failures.len(), some.join(" / "));
    }
    text
}
