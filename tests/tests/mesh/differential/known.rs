//! Exchanges that still differ, each with the reason: `known.txt` beside this file. The list only shrinks: what has become the same
//! has to be taken out, and the goal is that there is nothing in it.

use std::path::Path;

use super::report::Failure;

/// A set of cases that fail for one reason.
pub(super) struct Known {
    /// `loopback` or `captured`.
    pub(super) ground: String,
    pub(super) family: String,
    /// Text that the case's name contains.
    pub(super) case: String,
    /// Text that a kind of the failure contains.
    kind: String,
}

impl Known {
    pub(super) fn covers(&self, failure: &Failure) -> bool {
        let ground = if failure.way == "captured" { "captured" } else { "loopback" };
        ground == self.ground
            && failure.family == self.family
            && failure.case.contains(&self.case)
            && failure.kinds.iter().any(|kind| kind.contains(&self.kind))
    }
}

/// Lines of `ground | family | case | kind | reason`; `#` starts a comment.
///
/// # Panics
/// When a line has another shape, or no reason.
pub(super) fn read() -> Vec<Known> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mesh/differential/known.txt");
    parse(&std::fs::read_to_string(file).expect("known.txt can be read"))
}

fn parse(text: &str) -> Vec<Known> {
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let parts: Vec<_> = line.split(" | ").map(|part| part.trim().to_owned()).collect();
            let [ground, family, case, kind, reason] =
                parts.try_into().unwrap_or_else(|_| panic!("not five parts: {line}"));
            assert!(reason.len() > 10, "no reason: {line}");
            Known { ground, family, case: case.trim_matches('*').to_owned(), kind }
        })
        .collect()
}

#[test]
fn every_known_difference_has_its_reason() {
    drop(read());
    let without = std::panic::catch_unwind(|| parse("loopback | upgrade | * | client 1 | "));
    assert!(without.is_err(), "a line without a reason is refused");
}
