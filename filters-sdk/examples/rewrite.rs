//! Sends requests below one path to another: the first rule whose prefix the path has, as whole segments, counts. The
//! query stays.

use serde::Deserialize;
use weft_filters_sdk::{Filter, Interest, Outcome, Request, Value, hook, rules};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    rules: Vec<Rule>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    /// As `/old`, without a slash at its end.
    prefix: String,
    /// Stands in its place. `/` takes it away.
    to: String,
}

#[derive(Debug)]
pub struct Rewrite {
    rules: Vec<Rule>,
    path: Value<hook::RequestHead>,
    query: Value<hook::RequestHead>,
}

impl Filter for Rewrite {
    type Config = Config;
    type State = ();

    fn configure(config: Config, ask: &mut Interest) -> Result<Self, String> {
        for (index, rule) in config.rules.iter().enumerate() {
            for (key, path) in [("prefix", &rule.prefix), ("to", &rule.to)] {
                rules::path(path).map_err(|error| format!("rules[{index}].{key}: {error}"))?;
                if path.contains('?') || (path.len() > 1 && path.ends_with('/')) {
                    return Err(format!("rules[{index}].{key}: a path without query and slash at its end is wanted"));
                }
            }
        }
        let mut head = ask.request_head();
        Ok(Self { rules: config.rules, path: head.path(), query: head.query() })
    }

    fn request_head(&mut self, request: &Request<'_>, _: &mut ()) -> Outcome {
        let Some(path) = request.text(self.path) else { return Outcome::pass() };
        let Some(new) = self.rules.iter().find_map(|rule| rule.apply(path)) else { return Outcome::pass() };
        Outcome::pass().set_path(match request.text(self.query) {
            Some(query) => format!("{new}?{query}"),
            None => new,
        })
    }
}

impl Rule {
    fn apply(&self, path: &str) -> Option<String> {
        let rest = path.strip_prefix(self.prefix.trim_end_matches('/'))?;
        if !rest.is_empty() && !rest.starts_with('/') {
            return None;
        }
        let new = format!("{}{rest}", self.to.trim_end_matches('/'));
        Some(if new.is_empty() { "/".to_owned() } else { new })
    }
}

weft_filters_sdk::export!(Rewrite);
