//! Reading of configurations: JSON text to the filter's own type, with the path of what is wrong.

use serde::Deserialize;
use serde::de::DeserializeOwned;

/// The configuration of a filter that takes none.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoConfig {}

/// Reads a configuration; a policy without one has an empty object. An error names the path of what is wrong: by its position,
/// since to follow the path through each type is a fifth of a filter's code.
pub(crate) fn read<C: DeserializeOwned>(text: &str) -> Result<C, String> {
    let text = match text.trim() {
        "" | "null" => "{}",
        text => text,
    };
    serde_json::from_str(text).map_err(|error| told(text, &error))
}

fn told(text: &str, error: &serde_json::Error) -> String {
    let message = error.to_string();
    if !error.is_data() {
        return message;
    }
    let mut path = String::new();
    for step in steps(text, (error.line(), error.column())) {
        match step {
            Step::Index(index) => path.push_str(&format!("[{index}]")),
            Step::Key(Some(key)) if path.is_empty() => path.push_str(key),
            Step::Key(Some(key)) => path.push_str(&format!(".{key}")),
            Step::Key(None) => {}
        }
    }
    if path.is_empty() {
        return message;
    }
    // The author of a policy never sees the text that a position would be of.
    let position = format!(" at line {} column {}", error.line(), error.column());
    format!("{path}: {}", message.strip_suffix(&position).unwrap_or(&message))
}

/// A place in an object, at a key once that was read, or in a list.
enum Step<'t> {
    Key(Option<&'t str>),
    Index(usize),
}

/// The way from the whole to what was read last at a position. Up to there the text is JSON.
fn steps(text: &str, (line, column): (usize, usize)) -> Vec<Step<'_>> {
    let before: usize = text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
    let read = text.get(..before + column).unwrap_or(text);
    let (mut steps, mut at) = (Vec::new(), 0);
    while let Some(byte) = read.as_bytes().get(at) {
        at += 1;
        match byte {
            b'{' => steps.push(Step::Key(None)),
            b'[' => steps.push(Step::Index(0)),
            b'}' | b']' => drop(steps.pop()),
            b',' => match steps.last_mut() {
                Some(Step::Key(key)) => *key = None,
                Some(Step::Index(index)) => *index += 1,
                None => {}
            },
            b'"' => {
                let length = text_length(&read.as_bytes()[at..]);
                if let Some(Step::Key(key @ None)) = steps.last_mut() {
                    *key = read.get(at..at + length);
                }
                at += length + 1;
            }
            _ => {}
        }
    }
    steps
}

/// Bytes until the quote that ends a text.
fn text_length(rest: &[u8]) -> usize {
    let mut at = 0;
    while at < rest.len() && rest[at] != b'"' {
        at += if rest[at] == b'\\' { 2 } else { 1 };
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Config {
        limits: Vec<Limit>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Limit {
        requests: u32,
    }

    #[test]
    fn errors_say_where() {
        assert_eq!(read::<Config>(r#"{"limits": [{"requests": 1}]}"#).expect("sound").limits.len(), 1);
        for (text, words) in [
            (r#"{"limits": [{"requests": 1}, {"requests": "2"}]}"#, ["limits[1].requests:", "expected u32"]),
            (r#"{"limits": [{}]}"#, ["limits[0]:", "missing field `requests`"]),
            (r#"{"limit": []}"#, ["limit:", "unknown field"]),
            (
                "{\"limits\": [\n  {\"note\": \"\\\\\\\", [{\",\n  \"requests\": -1}]}",
                ["limits[0].requests:", "expected u32"],
            ),
            (r#"{"limits": []} x"#, ["trailing characters", "line 1"]),
            ("{", ["EOF", "line 1"]),
            ("", ["missing field", "limits"]),
        ] {
            let error = read::<Config>(text).expect_err(text);
            assert!(words.iter().all(|word| error.contains(word)), "{text}: {error}");
        }
        let absent = read::<Config>(r#"{"limits": [{}]}"#).expect_err("no number of requests");
        assert_eq!(absent, "limits[0]: missing field `requests`", "the path is the place");
        for text in ["", "null", " {} "] {
            read::<NoConfig>(text).expect(text);
        }
        assert!(read::<NoConfig>(r#"{"a": 1}"#).expect_err("unknown").contains("unknown field `a`"));
    }
}
