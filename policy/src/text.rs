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
    fn the_length_is_bounded_between_characters() {
        let long = "ü".repeat(SHOWN + 1);
        assert_eq!(printable(&long), "ü".repeat(SHOWN) + "...");
        assert_eq!(printable(&"ü".repeat(SHOWN)), "ü".repeat(SHOWN));
    }
}
