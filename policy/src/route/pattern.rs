//! Regular expressions of routes: what they are (those of the `regex` crate, whose time is linear in the text), how large
//! they may be, and that they are compiled once, when a request first needs them.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock, Weak};

use regex::bytes::{Regex, RegexBuilder};

/// Characters of an expression, as the standard has it.
pub(crate) const MAX_CHARS: usize = 1024;
/// Bytes of an expression that is compiled: with a text of 8 KiB it bounds what one match may cost.
const MAX_COMPILED: usize = 64 * 1024;

/// Compiles an expression that a whole text has to meet. Classes such as `\w` and `.` are of ASCII and octets: a path may hold
/// octets that are no UTF-8.
///
/// # Errors
/// It is no expression, or too large.
fn compile(text: &str) -> Result<Regex, String> {
    if text.chars().count() > MAX_CHARS {
        return Err(format!("is longer than {MAX_CHARS} characters"));
    }
    let build = |text: &str| RegexBuilder::new(text).unicode(false).size_limit(MAX_COMPILED).build();
    let told = |error: regex::Error| {
        if let regex::Error::CompiledTooBig(_) = error {
            return format!("needs more than {} KiB when it is compiled", MAX_COMPILED / 1024);
        }
        // The last line says what is wrong; those before draw where.
        let error = error.to_string();
        let last = error.lines().last().unwrap_or_default();
        format!("is no regular expression: {}", last.trim_start_matches("error: "))
    };
    build(text).map_err(told)?;
    // A comment at the end of a verbose expression would take the parenthesis with it.
    build(&format!(r"\A(?:{text})\z")).map_err(|_| "can't be taken as a whole: it ends in a comment".to_owned())
}

/// The same in a sentence that begins with the expression.
pub(crate) fn check(text: &str) -> Result<(), String> {
    compile(text).map(drop).map_err(|error| format!("{text:?} {error}"))
}

/// An expression of a route.
#[derive(Debug)]
pub(super) struct Pattern {
    text: String,
    compiled: OnceLock<Option<Regex>>,
}

impl Pattern {
    fn new(text: &str) -> Self {
        Self { text: text.to_owned(), compiled: OnceLock::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.text.len()
    }

    /// True where the whole text meets it. One that can't be compiled was refused where it came in, and meets nothing.
    pub(super) fn holds(&self, text: &[u8]) -> bool {
        self.compiled.get_or_init(|| compile(&self.text).ok()).as_ref().is_some_and(|regex| regex.is_match(text))
    }
}

/// The expressions of all routes, each once. They belong to the routes.
#[derive(Debug, Default)]
pub(super) struct Patterns(BTreeMap<String, Weak<Pattern>>);

impl Patterns {
    /// Those that some route still has, with what is compiled of them.
    pub(super) fn kept(&self) -> Self {
        let kept = self.0.iter().filter(|(_, pattern)| pattern.strong_count() > 0);
        Self(kept.map(|(text, pattern)| (text.clone(), Weak::clone(pattern))).collect())
    }

    pub(super) fn of(&mut self, text: &str) -> Arc<Pattern> {
        if let Some(known) = self.0.get(text).and_then(Weak::upgrade) {
            return known;
        }
        let pattern = Arc::new(Pattern::new(text));
        self.0.insert(text.to_owned(), Arc::downgrade(&pattern));
        pattern
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_is_met_by_whole_texts() {
        let check = |pattern: &str, text: &[u8], expect: bool| {
            assert_eq!(Pattern::new(pattern).holds(text), expect, "{pattern:?} {text:?}");
        };
        check("a|ab", b"ab", true);
        check("a|ab", b"abc", false);
        check("^a$", b"a", true);
        check("", b"", true);
        check("", b"a", false);
        check("/v[0-9]+/.*", b"/v12/x/y", true);
        check("/v[0-9]+/.*", b"/x/v12/y", false);
        check("(?i)blue", b"BLUE", true);
        check(".*", &[0xff, 0xfe], true);
        check("caf\u{e9}", "caf\u{e9}".as_bytes(), true);
        check("a.b", b"a\nb", false);
        check("(?m)^a$", b"x\na", false);
    }

    #[test]
    fn what_was_compiled_stays_so_in_the_next_table() {
        let mut before = Patterns::default();
        let known = before.of("a+");
        drop(before.of("b+"));
        assert!(known.holds(b"aa"));
        let mut after = before.kept();
        assert_eq!(after.0.keys().collect::<Vec<_>>(), ["a+"]);
        let (kept, new) = (after.of("a+"), after.of("b"));
        assert_eq!((kept.compiled.get().is_some(), new.compiled.get().is_some()), (true, false));
        assert!(Arc::ptr_eq(&kept, &known) && Arc::ptr_eq(&new, &after.of("b")));
    }

    #[test]
    fn what_is_no_expression_or_too_large_is_refused_with_the_reason() {
        let check = |pattern: &str, expect: &str| {
            let error = compile(pattern).unwrap_err();
            assert!(error.contains(expect), "{pattern:?}: {error}");
            assert!(!Pattern::new(pattern).holds(b"a"));
        };
        check("(", "is no regular expression: unclosed group");
        check("(?=a)", "look-around");
        check(r"(a)\1", "backreferences are not supported");
        check("a{100000}", "more than 64 KiB");
        check("(?x) a # end", "ends in a comment");
        check(&"a".repeat(1025), "longer than 1024 characters");
    }
}
