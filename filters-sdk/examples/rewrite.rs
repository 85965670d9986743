//! Sends requests below one path to another: the first rule counts whose prefix the path has, as whole segments, and whose
//! header the request has. The query stays.

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
    /// Requests that it is for. Default: all.
    when: Option<When>,
}

/// A header by name, and the value that it has.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct When {
    header: String,
    value: String,
}

#[derive(Debug)]
pub struct Rewrite {
    /// Each with where its header is told.
    rules: Vec<(Rule, Option<Value<hook::RequestHead>>)>,
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
        let mut asked = Vec::new();
        for (index, rule) in config.rules.into_iter().enumerate() {
            let header = match &rule.when {
                Some(When { header, .. }) => {
                    rules::header_name(header).map_err(|error| format!("rules[{index}].when.header: {error}"))?;
                    Some(head.header(header))
                }
                None => None,
            };
            asked.push((rule, header));
        }
        Ok(Self { rules: asked, path: head.path(), query: head.query() })
    }

    fn request_head(&mut self, request: &Request<'_>, _: &mut ()) -> Outcome {
        let Some(path) = request.text(self.path) else { return Outcome::pass() };
        let is_for = |rule: &Rule, header: &Option<Value<hook::RequestHead>>| match (&rule.when, header) {
            (Some(when), Some(header)) => request.all(*header).any(|value| value == when.value.as_bytes()),
            (None, _) | (_, None) => true,
        };
        let mut rules = self.rules.iter().filter(|(rule, header)| is_for(rule, header));
        let Some(new) = rules.find_map(|(rule, _)| rule.apply(path)) else { return Outcome::pass() };
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
