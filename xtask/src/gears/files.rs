//! One file at a time: its header, its size, its functions, its name, where its tests live (STYLE 4 to 7 and 14).

use super::Fault;
use super::source;

const FILE: usize = 700;
const FUNCTION: usize = 70;
const MAIN: usize = 150;
const INLINE_TESTS: usize = 100;
const HEADER: usize = 4;
/// The root of a library is also its front page in the generated documentation.
const FRONT_PAGE: usize = 40;

pub(super) fn judge(path: &str, text: &str) -> Vec<Fault> {
    let mut faults = Vec::new();
    header(path, text, &mut faults);
    if path.ends_with("/mod.rs") {
        faults.push(Fault::new(path, "modules are foo.rs beside foo/, never mod.rs"));
    }
    let blanked = source::blank(text);
    let (production, tests) = source::split(&blanked);
    size(path, production, tests, &mut faults);
    if !is_test(path) {
        for function in
            source::functions(&source::production(&blanked)).iter().filter(|function| function.lines > FUNCTION)
        {
            let place = format!("{path}:{}", function.line);
            faults.push(Fault::new(
                place,
                format!("fn {} has {} lines, at most {FUNCTION}", function.name, function.lines),
            ));
        }
    }
    faults
}

fn header(path: &str, text: &str, faults: &mut Vec<Fault>) {
    let lines = text.lines().take_while(|line| line.starts_with("//!")).count();
    let says_nothing = text.lines().next().is_some_and(|line| line.trim() == "//! stub");
    if lines == 0 || says_nothing {
        faults.push(Fault::new(path, "opens with no //! header that says what it owns"));
    }
    let most = if path.ends_with("src/lib.rs") { FRONT_PAGE } else { HEADER };
    if lines > most {
        faults.push(Fault::new(path, format!("a header of {lines} lines, at most {most}")));
    }
}

fn size(path: &str, production: usize, tests: usize, faults: &mut Vec<Fault>) {
    let most = if path.ends_with("src/main.rs") { MAIN } else { FILE };
    if production > most {
        faults.push(Fault::new(path, format!("{production} lines of production code, at most {most}")));
    }
    if tests > INLINE_TESTS && !is_test(path) {
        faults.push(Fault::new(
            path,
            format!("{tests} lines of tests inside; over {INLINE_TESTS} they move to a file of their own"),
        ));
    }
}

/// Files that hold nothing but tests: functions there may tell a long story.
fn is_test(path: &str) -> bool {
    path.starts_with("tests/tests/") || path.ends_with("/tests.rs") || path.contains("/tests/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, text: &str, expect: &[&str]) {
        let faults = judge(path, text);
        let words: Vec<&str> = faults.iter().map(|fault| fault.what.as_str()).collect();
        assert_eq!(words.len(), expect.len(), "{words:?}");
        for (word, expect) in words.iter().zip(expect) {
            assert!(word.contains(expect), "{word} does not say {expect}");
        }
    }

    #[test]
    fn a_good_file_passes() {
        check("policy/src/path.rs", "//! Owns paths.\n\nfn a() {}\n", &[]);
    }

    #[test]
    fn a_file_without_header_slips() {
        check("policy/src/path.rs", "fn a() {}\n", &["no //! header"]);
        check("policy/src/path.rs", "//! stub\nfn a() {}\n", &["no //! header"]);
        check("policy/src/path.rs", &"//! More.\n".repeat(5), &["header of 5 lines"]);
    }

    #[test]
    fn a_long_file_slips() {
        let text = format!("//! Owns much.\n{}", "const A: u8 = 0;\n".repeat(700));
        check("policy/src/path.rs", &text, &["701 lines of production code"]);
    }

    #[test]
    fn a_long_main_slips() {
        let text = format!("//! Starts.\n{}", "const A: u8 = 0;\n".repeat(150));
        check("dataplane/proxy/src/main.rs", &text, &["151 lines of production code, at most 150"]);
    }

    #[test]
    fn a_long_function_slips() {
        let text = format!("//! Owns one.\nfn long() {{\n{}}}\n", "    one();\n".repeat(71));
        check("policy/src/path.rs", &text, &["fn long has 71 lines"]);
    }

    #[test]
    fn long_tests_move_out() {
        let text = format!("//! Owns one.\n#[cfg(test)]\nmod tests {{\n{}}}\n", "    const A: u8 = 0;\n".repeat(100));
        check("policy/src/path.rs", &text, &["103 lines of tests inside"]);
    }

    #[test]
    fn mod_rs_slips() {
        check("policy/src/path/mod.rs", "//! Owns one.\n", &["never mod.rs"]);
    }
}
