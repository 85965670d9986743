//! Import cycles inside crates: the largest ring of top-level modules that all lead to each other. Each crate has an allowed
//! size that may only shrink; a crate that the table doesn't name may have no cycle at all (STYLE 2b).

use std::collections::{BTreeMap, BTreeSet};

use super::Fault;
use super::source;

/// The largest cycle that each crate may still have, by its folder. Lower a number when the gear says so, never raise one.
const ALLOWED: &[(&str, usize)] = &[
    ("bench", 2),
    ("controlplane/cli", 2),
    ("dataplane/filter-host", 2),
    ("dataplane/proxy", 2),
    ("dataplane/transport", 6),
    ("policy", 2),
    ("tests", 2),
];

const PLACE: &str = "xtask/src/gears/cycles.rs";

/// Modules of one crate, each with those that it names.
type Imports = BTreeMap<String, BTreeSet<String>>;

pub(super) fn judge(sources: &[(String, String)]) -> Vec<Fault> {
    judge_by(ALLOWED, sources)
}

fn judge_by(allowed: &[(&str, usize)], sources: &[(String, String)]) -> Vec<Fault> {
    let crates = crates(sources);
    let mut faults = Vec::new();
    for (name, files) in &crates {
        let most = allowed.iter().find(|(known, _)| known == name).map_or(1, |(_, most)| *most);
        let imports = imports(files);
        let cycle = largest(&imports);
        if cycle.len() > most {
            let modules = cycle.join(", ");
            faults.push(Fault::new(
                *name,
                format!("an import cycle of {} modules, at most {most}: {modules}", cycle.len()),
            ));
        } else if cycle.len() < most && most > 1 {
            let lower =
                if cycle.len() > 1 { format!("lower it to {}", cycle.len()) } else { "remove the line".to_owned() };
            faults
                .push(Fault::new(PLACE, format!("{name} is allowed a cycle of {most} that it no longer has: {lower}")));
        }
    }
    for (name, _) in allowed.iter().filter(|(name, _)| !crates.contains_key(name)) {
        faults.push(Fault::new(PLACE, format!("allows {name}, which is no crate")));
    }
    faults
}

/// Production text of each crate's `src`, by folder, with paths below `src`.
fn crates(sources: &[(String, String)]) -> BTreeMap<&str, Vec<(&str, String)>> {
    let mut crates = BTreeMap::<&str, Vec<_>>::new();
    for (path, text) in sources {
        let Some((folder, below)) = path.split_once("/src/") else { continue };
        if below.starts_with("bin/") || below == "tests.rs" || below.contains("/tests") {
            continue;
        }
        crates.entry(folder).or_default().push((below, source::production(&source::blank(text))));
    }
    crates
}

fn module_of(below: &str) -> &str {
    let first = below.split('/').next().unwrap_or(below);
    first.strip_suffix(".rs").unwrap_or(first)
}

fn imports(files: &[(&str, String)]) -> Imports {
    let is_root = |below: &str| below == "lib.rs" || below == "main.rs";
    let modules: BTreeSet<&str> =
        files.iter().filter(|(below, _)| !is_root(below)).map(|(below, _)| module_of(below)).collect();
    let mut imports = Imports::new();
    for (below, text) in files.iter().filter(|(below, _)| !is_root(below)) {
        let module = module_of(below);
        let named = imports.entry(module.to_owned()).or_default();
        let depth = below.split('/').count();
        for name in names(text, depth).iter().filter(|name| name.as_str() != module) {
            if modules.contains(name.as_str()) {
                named.insert(name.clone());
            }
        }
    }
    imports
}

/// First segments of every path that starts at the crate's root: `crate::name`, `crate::{name, ..}`, and as many `super::`
/// as the file lies deep.
fn names(text: &str, depth: usize) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for root in ["crate::".to_owned(), "super::".repeat(depth)] {
        for (at, _) in text.match_indices(&root) {
            let before = text[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
                continue;
            }
            let rest = &text[at + root.len()..];
            match rest.strip_prefix('{') {
                Some(group) => names.extend(firsts(group)),
                None => names.extend(identifier(rest)),
            }
        }
    }
    names
}

/// The first identifier of each path of a braced list.
fn firsts(group: &str) -> Vec<String> {
    let mut depth = 1_usize;
    let mut start = 0;
    let mut found = Vec::new();
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => {}
            _ => continue,
        }
        if (c == ',' && depth == 1) || depth == 0 {
            found.extend(identifier(group[start..at].trim_start()));
            start = at + 1;
        }
        if depth == 0 {
            break;
        }
    }
    found
}

fn identifier(text: &str) -> Option<String> {
    let name: String = text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    (!name.is_empty()).then_some(name)
}

/// The modules of the largest cycle, in order; a single module or nothing where there is none.
fn largest(imports: &Imports) -> Vec<&str> {
    let reach: BTreeMap<&str, BTreeSet<&str>> =
        imports.keys().map(|module| (module.as_str(), reachable(imports, module))).collect();
    let ring = |module: &str| -> Vec<&str> {
        let both = reach.iter().filter(|(other, back)| reach[module].contains(*other) && back.contains(module));
        both.map(|(other, _)| *other).collect()
    };
    imports.keys().map(|module| ring(module)).max_by_key(Vec::len).unwrap_or_default()
}

fn reachable<'i>(imports: &'i Imports, from: &str) -> BTreeSet<&'i str> {
    let mut seen = BTreeSet::new();
    let mut open: Vec<&str> = vec![from];
    while let Some(module) = open.pop() {
        for next in imports.get(module).into_iter().flatten() {
            if seen.insert(next.as_str()) {
                open.push(next);
            }
        }
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(files: &[(&str, &str)]) -> Vec<(String, String)> {
        files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect()
    }

    fn ring() -> Vec<(String, String)> {
        sources(&[
            ("a/src/lib.rs", "mod one; mod two; mod three; mod leaf; use crate::one::X;"),
            ("a/src/one.rs", "use crate::{leaf, two::{Two, more}};"),
            ("a/src/two/inner.rs", "fn f() { super::super::three::g() }"),
            ("a/src/three.rs", "use super::one::X; // crate::leaf"),
            (
                "a/src/leaf.rs",
                "fn f() -> &'static str { \"crate::one\" }\n#[cfg(test)]\nmod tests {\n use crate::one; }",
            ),
        ])
    }

    #[test]
    fn a_cycle_as_allowed_passes() {
        assert_eq!(judge_by(&[("a", 3)], &ring()), []);
    }

    #[test]
    fn a_larger_cycle_slips() {
        let faults = judge_by(&[("a", 2)], &ring());
        assert_eq!(faults, [Fault::new("a", "an import cycle of 3 modules, at most 2: one, three, two")]);
        assert_eq!(judge_by(&[], &ring()).len(), 1, "a crate without a line may have none");
    }

    #[test]
    fn a_cycle_that_shrank_asks_for_a_lower_number() {
        let faults = judge_by(&[("a", 5)], &ring());
        assert_eq!(faults, [Fault::new(PLACE, "a is allowed a cycle of 5 that it no longer has: lower it to 3")]);
        let straight = sources(&[("a/src/one.rs", "use crate::two;"), ("a/src/two.rs", "")]);
        let faults = judge_by(&[("a", 2)], &straight);
        assert_eq!(faults, [Fault::new(PLACE, "a is allowed a cycle of 2 that it no longer has: remove the line")]);
    }

    #[test]
    fn a_line_for_no_crate_slips() {
        assert_eq!(judge_by(&[("b", 2)], &[]), [Fault::new(PLACE, "allows b, which is no crate")]);
    }
}
