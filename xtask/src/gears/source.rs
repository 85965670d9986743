//! Just enough of Rust's lexical rules to count: comments, strings and characters blanked out, so that every brace that
//! is left is one, and every line that is left holds code. Lines stay where they are.

/// A function's place and size.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Function {
    pub(super) name: String,
    /// One-based.
    pub(super) line: usize,
    /// Lines of code between its braces: no blank ones, no comments.
    pub(super) lines: usize,
}

/// The text with everything that isn't code replaced by spaces.
pub(super) fn blank(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let skipped = skip(rest, out.chars().next_back());
        if skipped == 0 {
            out.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            out.extend(rest[..skipped].chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
            // A literal is code: something stays of it, so that its line counts.
            if !rest.starts_with('/') && out.ends_with(' ') {
                out.pop();
                out.push('_');
            }
            rest = &rest[skipped..];
        }
    }
    out
}

/// A blanked text without its inline test module.
pub(super) fn production(blanked: &str) -> String {
    let (production, _) = split(blanked);
    blanked.lines().take(production).collect::<Vec<_>>().join("\n")
}

/// Lines before the test module, and lines of it.
pub(super) fn split(blanked: &str) -> (usize, usize) {
    let all = blanked.lines().count();
    let mut lines = blanked.lines().enumerate().peekable();
    while let Some((at, line)) = lines.next() {
        let inline = lines.peek().is_some_and(|(_, next)| next.starts_with("mod ") && next.ends_with('{'));
        if line.starts_with("#[cfg(test)]") && inline {
            return (at, all - at);
        }
    }
    (all, 0)
}

/// Bytes of the comment, string or character that `rest` starts with; 0 for code.
fn skip(rest: &str, before: Option<char>) -> usize {
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return rest.find("*/").map_or(rest.len(), |end| end + 2);
    }
    if rest.starts_with('"') {
        return quoted(rest, '"');
    }
    if rest.starts_with('r') && !before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
        let hashes = rest[1..].bytes().take_while(|byte| *byte == b'#').count();
        if rest[1 + hashes..].starts_with('"') {
            let end = format!("\"{}", "#".repeat(hashes));
            let body = 2 + hashes;
            return rest[body..].find(&end).map_or(rest.len(), |at| body + at + end.len());
        }
    }
    if rest.starts_with('\'') { character(rest) } else { 0 }
}

fn quoted(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// A character literal, or 0 for a lifetime.
fn character(rest: &str) -> usize {
    let mut chars = rest.char_indices().skip(1);
    match (chars.next(), chars.next()) {
        (Some((_, '\\')), _) => quoted(rest, '\''),
        (_, Some((at, '\''))) => at + 1,
        _ => 0,
    }
}

/// Every function with a body, outermost first.
pub(super) fn functions(blanked: &str) -> Vec<Function> {
    let mut found = Vec::new();
    for (at, _) in blanked.match_indices("fn ") {
        let starts_word = !blanked[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let name: String = blanked[at + 3..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        if !starts_word || name.is_empty() {
            continue;
        }
        if let Some(body) = body(&blanked[at..]) {
            let lines = body.lines().filter(|line| !line.trim().is_empty()).count();
            found.push(Function {
                name,
                line: blanked[..at].matches('\n').count() + 1,
                lines: lines.saturating_sub(2),
            });
        }
    }
    found
}

/// From the brace that opens the body to the one that closes it; `None` for a declaration.
fn body(from: &str) -> Option<&str> {
    let mut nested = 0_usize;
    let mut open = None;
    for (at, c) in from.char_indices() {
        match c {
            '(' | '[' if open.is_none() => nested += 1,
            ')' | ']' if open.is_none() => nested = nested.saturating_sub(1),
            ';' if open.is_none() && nested == 0 => return None,
            '{' if open.is_none() => (open, nested) = (Some(at), 1),
            '{' => nested += 1,
            '}' => {
                nested = nested.saturating_sub(1);
                if let (Some(open), 0) = (open, nested) {
                    return Some(&from[open..=at]);
                }
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn braces_in_text_are_no_braces() {
        let text = "fn a<'x>() { let s = \"}\"; let c = '}'; let r = r#\"}\"}\"#; /* } */ }\n// fn no() {}\n";
        let functions = functions(&blank(text));
        assert_eq!(functions, [Function { name: "a".to_owned(), line: 1, lines: 0 }]);
    }

    #[test]
    fn only_lines_of_code_count() {
        let text = "fn a() {\n    one();\n\n    // why\n    \"two\";\n}\ntrait T { fn declared(&self) -> [u8; 4]; }\n";
        assert_eq!(functions(&blank(text)), [Function { name: "a".to_owned(), line: 1, lines: 2 }]);
    }
}
