//! Reading of configurations: JSON text to the filter's own type, with the path of what is wrong.

use serde::Deserialize;
use serde::de::DeserializeOwned;

/// The configuration of a filter that takes none.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoConfig {}

/// A policy without a configuration has an empty object.
pub(crate) fn parse<C: DeserializeOwned>(text: &str) -> Result<C, String> {
    let text = match text.trim() {
        "" | "null" => "{}",
        text => text,
    };
    let mut json = serde_json::Deserializer::from_str(text);
    let config = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner();
        if matches!(path.as_str(), "." | "?") {
            inner.to_string()
        } else {
            format!("{path}: {}", without_position(&inner))
        }
    })?;
    json.end().map_err(|error| error.to_string())?;
    Ok(config)
}

/// The author of a policy never sees the text that a position would be of.
fn without_position(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let position = format!(" at line {} column {}", error.line(), error.column());
    text.strip_suffix(&position).unwrap_or(&text).to_owned()
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
        assert_eq!(parse::<Config>(r#"{"limits": [{"requests": 1}]}"#).expect("sound").limits.len(), 1);
        for (text, words) in [
            (r#"{"limits": [{"requests": 1}, {"requests": "2"}]}"#, ["limits[1].requests:", "expected u32"]),
            (r#"{"limits": [{}]}"#, ["limits[0]:", "missing field `requests`"]),
            (r#"{"limit": []}"#, ["limit:", "unknown field"]),
            (r#"{"limits": []} x"#, ["trailing characters", "line 1"]),
            ("{", ["EOF", "line 1"]),
            ("", ["missing field", "limits"]),
        ] {
            let error = parse::<Config>(text).expect_err(text);
            assert!(words.iter().all(|word| error.contains(word)), "{text}: {error}");
        }
        let absent = parse::<Config>(r#"{"limits": [{}]}"#).expect_err("no number of requests");
        assert_eq!(absent, "limits[0]: missing field `requests`", "the path is the place");
        for text in ["", "null", " {} "] {
            parse::<NoConfig>(text).expect(text);
        }
        assert!(parse::<NoConfig>(r#"{"a": 1}"#).expect_err("unknown").contains("unknown field `a`"));
    }
}
