//! What the app's sidecar says of the filter: a line for each request that was judged, and the filter's own lines.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;

use super::mesh::NAMESPACE;
use crate::output;

const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Bytes of the log that are read at a time; a longer line is cut into several.
const MOST: u64 = 1 << 20;

/// Prints what a log says from now on, until it can't be read; gives why.
pub(super) async fn follow(log: &Path, filter: &str) -> anyhow::Error {
    let mut file = match File::open(log).with_context(|| format!("cannot read {}", log.display())) {
        Ok(file) => file,
        Err(error) => return error,
    };
    let mut looks = tokio::time::interval(LOOK_EVERY);
    let mut rest = Vec::new();
    loop {
        looks.tick().await;
        if let Err(error) = file.by_ref().take(MOST).read_to_end(&mut rest) {
            return anyhow::Error::from(error).context(format!("cannot read {}", log.display()));
        }
        let whole = match rest.iter().rposition(|byte| *byte == b'\n') {
            Some(end) => end + 1,
            None if rest.len() as u64 >= MOST => rest.len(),
            None => continue,
        };
        let lines: Vec<u8> = rest.drain(..whole).collect();
        for line in String::from_utf8_lossy(&lines).lines().filter_map(|line| shown(line, filter)) {
            output::say(&line);
        }
    }
}

/// What is shown of a line of the log.
fn shown(line: &str, filter: &str) -> Option<String> {
    if line.starts_with('{') {
        return request(&serde_json::from_str(line).ok()?);
    }
    line.contains(&format!("filter=\"{NAMESPACE}/{filter}\"")).then(|| line.to_owned())
}

/// A request of the access log.
fn request(log: &Value) -> Option<String> {
    let text = |key: &str| log[key].as_str();
    let (method, path, code) = (text("method")?, text("path").unwrap_or("-"), log["response_code"].as_u64()?);
    let took = log["duration"].as_f64().unwrap_or_default();
    let mut line = format!("{method} {path} {code} in {took} ms");
    if let Some(stage) = text("stage") {
        line.push_str(&format!(", by {stage}"));
    }
    for (key, label) in [("message", ""), ("rule", "rule ")] {
        if let Some(said) = text(key) {
            line.push_str(&format!(": {label}{said}"));
        }
    }
    if let Some(attributes) = log["filter_attributes"].as_object() {
        line.push_str(&format!(" {}", Value::Object(attributes.clone())));
    }
    Some(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_the_filters_own_lines_are_shown() {
        let passed = r#"{"method":"GET","path":"/a?b","response_code":200,"duration":0.5,"side":"inbound"}"#;
        assert_eq!(shown(passed, "mine").as_deref(), Some("GET /a?b 200 in 0.5 ms"));
        let refused = r#"{"method":"GET","path":"/","response_code":403,"duration":0.13,"stage":"filter",
            "message":"caller_refused","rule":"eve","filter_attributes":{"filter.a":"b"}}"#;
        let expected = r#"GET / 403 in 0.13 ms, by filter: caller_refused: rule eve {"filter.a":"b"}"#;
        assert_eq!(shown(refused, "mine").as_deref(), Some(expected));
        let own = "2026-01-01T00:00:00Z  WARN weft_filter_host::imports: no key filter=\"dev/mine\"";
        assert_eq!(shown(own, "mine").as_deref(), Some(own));
        for other in [own.replace("mine", "other"), "configuration in force".to_owned(), "{".to_owned()] {
            assert_eq!(shown(&other, "mine"), None);
        }
    }
}
