//! Rules of expressions: deny, answer or change the headers of requests. The engine of `weft-policy` in the sandbox;
//! its configuration is a `cel::Config` that the control plane compiled from a policy's text, and what the expressions
//! name is what it asks for.

use std::borrow::Cow;

use weft_filters_sdk::{Counter, Filter, Interest, Outcome, Reply, Request, Value, hook, log, rules as limits};
use weft_policy::cel::{Compiled, Config, Decision, End, HeaderEdit, Rules, Told};

/// The rules under one configuration.
#[derive(Debug)]
pub struct Expressions {
    rules: Rules,
    /// What the host tells, in the order of the names.
    told: Vec<(String, Value<hook::RequestHead>)>,
    held: Counter,
    failed: Counter,
}

impl Filter for Expressions {
    type Config = Config<Compiled>;
    type State = ();

    fn configure(config: Self::Config, ask: &mut Interest) -> Result<Self, String> {
        let rules = Rules::new(config)?;
        for name in rules.headers() {
            limits::header_name(name).map_err(|error| format!("rules: {error}"))?;
        }
        let mut head = ask.request_head();
        let told = rules.told().into_iter().map(|name| (name.to_owned(), head.value(name))).collect();
        let held = Counter::define("rules_held_total", &["rule"])?;
        let failed = Counter::define("rules_failed_total", &["rule"])?;
        Ok(Self { rules, told, held, failed })
    }

    fn request_head(&mut self, request: &Request<'_>, _: &mut ()) -> Outcome {
        let decision = self.rules.decide(&Head { told: &self.told, request });
        for &rule in &decision.held {
            self.held.add(&[rule], 1);
        }
        for &(rule, ref error) in &decision.failed {
            self.failed.add(&[rule], 1);
            log::info(&format!("rule {rule}: {error}"));
        }
        outcome(decision)
    }
}

/// A request, by the names that the expressions have for what is told of it.
struct Head<'c, 'r> {
    told: &'c [(String, Value<hook::RequestHead>)],
    request: &'r Request<'r>,
}

impl Told for Head<'_, '_> {
    fn value(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        let position = self.told.binary_search_by(|(known, _)| known.as_str().cmp(name)).ok()?;
        let mut values = self.request.all(self.told[position].1);
        let first = values.next()?;
        let Some(second) = values.next() else { return Some(Cow::Borrowed(first)) };
        // Several fields of a name are one, joined as their receivers would.
        //= rfc9110#section-5.3
        //= rfc9113#section-8.2.3
        let between: &[u8] = if name == "request.header.cookie" { b"; " } else { b"," };
        let mut joined = first.to_vec();
        for value in std::iter::once(second).chain(values) {
            joined.extend_from_slice(between);
            joined.extend_from_slice(value);
        }
        Some(Cow::Owned(joined))
    }
}

fn outcome(decision: Decision<'_>) -> Outcome {
    match decision.end {
        End::Pass => decision.edits.into_iter().fold(Outcome::pass(), |outcome, edit| match edit {
            HeaderEdit::Remove(name) => outcome.remove_header(name),
            HeaderEdit::Set(name, value) => outcome.set_header(name, value),
            HeaderEdit::Add(name, value) => outcome.add_header(name, value),
        }),
        End::Deny { rule: Some(rule), status, body } => {
            let own = format!("denied by the rule {rule}\n");
            let body = if body.is_empty() { own.as_str() } else { body };
            Outcome::respond(Reply::text(status, "expr_denied", body).rule(rule))
        }
        End::Deny { rule: None, status, .. } => {
            Outcome::respond(Reply::text(status, "expr_no_rule_passed", "denied: no rule lets it pass\n"))
        }
        End::Respond { rule, status, headers, body } => {
            let reply = Reply::new(status, "expr_answered", body).rule(rule);
            Outcome::respond(headers.into_iter().fold(reply, |reply, (name, value)| reply.header(name, value)))
        }
        End::Failed { rule } => {
            let body = format!("denied: the rule {rule} can't be evaluated\n");
            Outcome::respond(Reply::text(403, "expr_failed", &body).rule(rule))
        }
    }
}

weft_filters_sdk::export!(Expressions);

#[cfg(test)]
mod tests;
