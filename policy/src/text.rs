//! Text told by somebody else, made fit to be logged, stored and shown: on one line, of bounded length, with nothing in it
//! that steers a terminal or hides what it says.

use std::borrow::Cow;
use std::io::{self, Write};

/// The most that is shown of one told text, in characters.
pub const SHOWN: usize = 512;

/// `text` with every control character, line separator and direction mark written as an escape, cut after [`SHOWN`]
/// characters.
#[must_use]
pub fn printable(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(SHOWN) {
        None => escaped(text, |_| false),
        Some((end, _)) => Cow::Owned(escaped(&text[..end], |_| false).into_owned() + "..."),
    }
}

/// The same without a bound, but for characters that `keep` wants as they are.
#[must_use]
pub fn escaped(text: &str, keep: impl Fn(char) -> bool) -> Cow<'_, str> {
    let hidden = |character: char| hides(character) && !keep(character);
    if !text.contains(hidden) {
        return Cow::Borrowed(text);
    }
    let mut clean = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        match hidden(character) {
            true => clean.extend(character.escape_default()),
            false => clean.push(character),
        }
    }
    Cow::Owned(clean)
}

/// Which of `known` is so near that a slip of the hand or of memory makes the difference.
#[must_use]
pub fn nearest<'k>(written: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let plain = written.to_ascii_lowercase();
    let distance = |known: &'k str| {
        let lower = known.to_ascii_lowercase();
        let is_part = plain.len() > 4 && (lower.starts_with(&plain) || lower.ends_with(&plain));
        let bound = (plain.len().max(lower.len()) / 3).clamp(1, 3);
        let distance = if is_part { 1 } else { edits(&plain, &lower) };
        (distance <= bound).then_some((distance, known))
    };
    let others = known.into_iter().filter(|known| *known != written);
    others.filter_map(distance).min_by_key(|(distance, _)| *distance).map(|(_, known)| known)
}

/// `; did you mean x?` where one of `known` is near, else nothing.
#[must_use]
pub fn did_you_mean<'k>(written: &str, known: impl IntoIterator<Item = &'k str>) -> String {
    nearest(written, known).map(|known| format!("; did you mean `{known}`?")).unwrap_or_default()
}

/// A part of a log filter that stands alone and is no level: `tracing` would take it for a target, and everything else
/// would fall silent.
#[must_use]
pub fn mistyped_level(filter: &str) -> Option<&str> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    filter.split(',').map(str::trim).find(|part| {
        let is_plain = part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        let is_level =
            LEVELS.iter().any(|level| part.eq_ignore_ascii_case(level)) || matches!(part.as_bytes(), [b'0'..=b'5']);
        is_plain && !is_level
    })
}

/// The complaint about a part of a log filter that is no level.
#[must_use]
pub fn no_level(word: &str) -> String {
    format!("'{word}' is no level; levels are off, error, warn, info, debug, trace, or TARGET=LEVEL")
}

/// More edits than anybody asks for.
const FAR: usize = usize::MAX / 2;

/// Characters to insert, drop, replace or swap with their neighbours to make one text of the other (optimal string
/// alignment); more than three are told as some larger number, since only the cells near the diagonal are computed.
fn edits(one: &str, other: &str) -> usize {
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    if one.len().abs_diff(other.len()) > 3 {
        return usize::MAX;
    }
    let mut rows = vec![(0..=other.len()).collect::<Vec<usize>>()];
    for i in 1..=one.len() {
        let mut row = vec![FAR; other.len() + 1];
        row[0] = i;
        for j in i.saturating_sub(4).max(1)..=(i + 4).min(other.len()) {
            let replaced = rows[i - 1][j - 1] + usize::from(one[i - 1] != other[j - 1]);
            let mut least = replaced.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && one[i - 1] == other[j - 2] && one[i - 2] == other[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row[j] = least;
        }
        rows.push(row);
    }
    rows[one.len()][other.len()]
}

/// Writes each record of a log on one line, whatever it quotes: nobody forges a record or steers a terminal by what he says.
#[derive(Debug)]
pub struct OneLine<W>(pub W);

impl<W: Write> Write for OneLine<W> {
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(record);
        let text = escaped(text.trim_end_matches('\n'), |_| false);
        self.0.write_all(format!("{text}\n").as_bytes())?;
        Ok(record.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// C0, DEL and C1; line and paragraph separators; marks that change the direction of what follows; the invisible.
fn hides(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_told_steers_a_terminal() {
        for (told, shown) in [
            ("plain, \"quoted\", grüße", "plain, \"quoted\", grüße"),
            ("one\nINFO forged\r", "one\\nINFO forged\\r"),
            ("\u{1b}[2J\u{9b}31m\u{7f}", "\\u{1b}[2J\\u{9b}31m\\u{7f}"),
            ("a\u{202e}b\u{2028}c", "a\\u{202e}b\\u{2028}c"),
        ] {
            assert_eq!(printable(told), shown);
            assert_eq!(printable(shown), shown, "what is clean stays");
        }
        assert_eq!(escaped("a\nb\u{1b}", |character| character == '\n'), "a\nb\\u{1b}");
    }

    #[test]
    fn slips_of_the_hand_are_recognised() {
        let fields = ["port", "ports", "protocol", "selector", "sessionAffinity", "ingress", "egress"];
        for (written, meant) in [
            ("prots", "; did you mean `ports`?"),
            ("Selector", "; did you mean `selector`?"),
            ("sesionAfinity", "; did you mean `sessionAffinity`?"),
            ("protocl", "; did you mean `protocol`?"),
            ("egres", "; did you mean `egress`?"),
            ("affinity", "; did you mean `sessionAffinity`?"),
            ("image", ""),
            ("ports", "; did you mean `port`?"),
            ("x", ""),
            ("", ""),
        ] {
            assert_eq!(did_you_mean(written, fields), meant, "{written}");
        }
        assert_eq!(did_you_mean(&"a".repeat(100_000), fields), "");
    }

    #[test]
    fn the_length_is_bounded_between_characters() {
        let long = "ü".repeat(SHOWN + 1);
        assert_eq!(printable(&long), "ü".repeat(SHOWN) + "...");
        assert_eq!(printable(&"ü".repeat(SHOWN)), "ü".repeat(SHOWN));
    }
}
