//! The configuration of the shipped filter `expr`, written (`Config<String>`) and compiled (`Config<Compiled>`), and
//! what its rules make of a request. The filter wraps this in the sandbox.

use std::collections::BTreeMap;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::evaluate::{EvalError, Evaluation, Told};
use super::expression::Expr;
use super::travel::Tree;
use super::value::Value;

/// Rules of one configuration.
const MAX_RULES: usize = 32;
/// Edits of all rules, and headers of one answer.
const MAX_EDITS: usize = 64;
/// Values that the host tells.
const MAX_TOLD: usize = 64;
/// Bytes of a rule's name.
#[cfg_attr(not(feature = "manifest"), expect(dead_code, reason = "the compiler alone reads it"))]
pub(super) const MAX_NAME: usize = 64;
/// Bytes of a header's value, or of the body of an answer, that an expression makes.
const MAX_MADE: usize = 64 << 10;

/// Rules are asked in order, about the request as it came.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config<E> {
    pub rules: Vec<Rule<E>>,
    /// What becomes of a request on which no rule has the last word.
    #[serde(default)]
    pub default: Otherwise,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Otherwise {
    #[default]
    Continue,
    Deny,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule<E> {
    pub name: String,
    pub when: E,
    pub then: Then<E>,
    #[serde(default)]
    pub on_error: OnError,
}

/// What an expression of a rule without a value means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnError {
    #[default]
    Deny,
    /// The rule is passed over.
    Skip,
}

/// Either `deny` or `respond`, or one or more of the others.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Then<E> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deny: Option<Deny>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub respond: Option<Respond<E>>,
    /// Headers by name, in this order: removed, set, added.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<String>,
    #[serde(default = "BTreeMap::new", skip_serializing_if = "BTreeMap::is_empty")]
    pub set: BTreeMap<String, E>,
    #[serde(default = "BTreeMap::new", skip_serializing_if = "BTreeMap::is_empty")]
    pub add: BTreeMap<String, E>,
    /// The request goes on, and no further rule is asked.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pass: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deny {
    /// 400 to 599.
    #[serde(default = "forbidden")]
    pub status: u16,
    #[serde(default)]
    pub body: String,
}

fn forbidden() -> u16 {
    403
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Respond<E> {
    /// 200 to 599.
    #[serde(default = "ok")]
    pub status: u16,
    #[serde(default = "BTreeMap::new", skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, E>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<E>,
}

fn ok() -> u16 {
    200
}

/// An expression as it travels. Its text is refused: the control plane compiles, and only one that does not know of
/// expressions sends text.
#[derive(Debug, Clone, PartialEq)]
pub struct Compiled(pub Expr);

impl Serialize for Compiled {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Compiled {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expr = Tree::deserialize(deserializer)?.into_expr().map_err(D::Error::custom)?;
        expr.measure().map_err(D::Error::custom)?;
        Ok(Compiled(expr))
    }
}

impl<E> Then<E> {
    /// Headers that it changes.
    pub(super) fn edits(&self) -> usize {
        self.remove.len() + self.set.len() + self.add.len()
    }

    /// Why its parts can't be meant together.
    pub(super) fn contradiction(&self) -> Option<&'static str> {
        let others = self.edits() > 0 || self.pass;
        match (&self.deny, &self.respond) {
            (Some(_), Some(_)) => Some("either deny or respond"),
            (Some(_), None) | (None, Some(_)) if others => {
                Some("where a request is answered, its headers are changed for nobody and no rule follows")
            }
            (Some(_), None) | (None, Some(_)) => None,
            (None, None) if others => None,
            (None, None) => Some("one of deny, respond, set, add, remove and pass"),
        }
    }
}

/// The rules under one configuration.
#[derive(Debug)]
pub struct Rules {
    config: Config<Compiled>,
}

/// What becomes of a request.
#[derive(Debug, PartialEq, Eq)]
pub struct Decision<'a> {
    pub end: End<'a>,
    /// In order; of no effect where the request is answered.
    pub edits: Vec<HeaderEdit<'a>>,
    /// The rules that held.
    pub held: Vec<&'a str>,
    /// Rules of which an expression had no value, and why.
    pub failed: Vec<(&'a str, EvalError)>,
}

#[derive(Debug, PartialEq, Eq)]
pub enum End<'a> {
    Pass,
    /// By a rule, or by `default: deny`.
    Deny {
        rule: Option<&'a str>,
        status: u16,
        body: &'a str,
    },
    Respond {
        rule: &'a str,
        status: u16,
        headers: Vec<(&'a str, String)>,
        body: String,
    },
    /// An expression of this rule had no value.
    Failed {
        rule: &'a str,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeaderEdit<'a> {
    Remove(&'a str),
    Set(&'a str, String),
    Add(&'a str, String),
}

impl Rules {
    /// # Errors
    /// More of something than is taken, or actions that can't be meant together, with the path.
    pub fn new(config: Config<Compiled>) -> Result<Self, String> {
        if config.rules.len() > MAX_RULES {
            return Err(format!("rules: {} of them, at most {MAX_RULES}", config.rules.len()));
        }
        for (index, rule) in config.rules.iter().enumerate() {
            if let Some(why) = rule.then.contradiction() {
                return Err(format!("rules[{index}].then: {why}"));
            }
        }
        let edits: usize = config.rules.iter().map(|rule| rule.then.edits()).sum();
        if edits > MAX_EDITS {
            return Err(format!("rules: {edits} edits of headers, at most {MAX_EDITS}"));
        }
        let rules = Self { config };
        let told = rules.told().len();
        match told > MAX_TOLD {
            true => Err(format!("rules: they read {told} values, at most {MAX_TOLD}")),
            false => Ok(rules),
        }
    }

    /// The configuration that they are under.
    #[cfg(feature = "manifest")]
    pub(super) fn into_config(self) -> Config<Compiled> {
        self.config
    }

    /// The names of all values that the expressions read, each once, in their order.
    #[must_use]
    pub fn told(&self) -> Vec<&str> {
        let mut names = Vec::new();
        for rule in &self.config.rules {
            for expression in expressions(rule) {
                names.extend(expression.0.told());
            }
        }
        names.sort_unstable();
        names.dedup();
        names
    }

    /// The headers that the rules change, and those of their answers.
    #[must_use]
    pub fn headers(&self) -> Vec<&str> {
        self.config.rules.iter().flat_map(|rule| headers(&rule.then)).collect()
    }

    /// What becomes of a request.
    #[must_use]
    pub fn decide(&self, told: &dyn Told) -> Decision<'_> {
        let mut asked = Asked { evaluation: Evaluation::new(told), edits: Vec::new() };
        let (mut held, mut failed) = (Vec::new(), Vec::new());
        for rule in &self.config.rules {
            let kept = asked.edits.len();
            let end = match asked.rule(rule) {
                Ok(None) => continue,
                Ok(Some(end)) => {
                    held.push(rule.name.as_str());
                    end
                }
                Err(error) => {
                    // Of a rule that is passed over nothing stays.
                    asked.edits.truncate(kept);
                    failed.push((rule.name.as_str(), error));
                    match rule.on_error {
                        OnError::Skip => continue,
                        OnError::Deny => Some(End::Failed { rule: &rule.name }),
                    }
                }
            };
            if let Some(end) = end {
                return Decision { end, edits: asked.edits, held, failed };
            }
        }
        let end = match self.config.default {
            Otherwise::Continue => End::Pass,
            Otherwise::Deny => End::Deny { rule: None, status: forbidden(), body: "" },
        };
        Decision { end, edits: asked.edits, held, failed }
    }
}

/// All headers that a rule names, with their spelling.
fn headers<E>(then: &Then<E>) -> impl Iterator<Item = &str> {
    let answered = then.respond.iter().flat_map(|respond| respond.headers.keys());
    then.remove.iter().chain(then.set.keys()).chain(then.add.keys()).chain(answered).map(String::as_str)
}

fn expressions<E>(rule: &Rule<E>) -> Vec<&E> {
    let Then { respond, set, add, .. } = &rule.then;
    let mut all = vec![&rule.when];
    all.extend(set.values());
    all.extend(add.values());
    if let Some(Respond { headers, body, .. }) = respond {
        all.extend(headers.values());
        all.extend(body);
    }
    all
}

/// A request that is being judged: `'c` is the configuration's time.
struct Asked<'c, 't> {
    evaluation: Evaluation<'c, 't>,
    edits: Vec<HeaderEdit<'c>>,
}

impl<'c> Asked<'c, '_> {
    /// `None`: the rule does not hold. `Some(None)`: it holds, and the next is asked.
    fn rule(&mut self, rule: &'c Rule<Compiled>) -> Result<Option<Option<End<'c>>>, EvalError> {
        if !self.evaluation.holds(&rule.when.0)? {
            return Ok(None);
        }
        let name = rule.name.as_str();
        let then = &rule.then;
        if let Some(Deny { status, body }) = &then.deny {
            return Ok(Some(Some(End::Deny { rule: Some(name), status: *status, body: body.as_str() })));
        }
        if let Some(respond) = &then.respond {
            let mut headers = Vec::with_capacity(respond.headers.len());
            for (header, value) in &respond.headers {
                headers.push((header.as_str(), self.field(value)?));
            }
            let body = respond.body.as_ref().map(|body| self.text(body)).transpose()?.unwrap_or_default();
            return Ok(Some(Some(End::Respond { rule: name, status: respond.status, headers, body })));
        }
        self.edits.extend(then.remove.iter().map(|header| HeaderEdit::Remove(header)));
        for (header, value) in &then.set {
            let value = self.field(value)?;
            self.edits.push(HeaderEdit::Set(header, value));
        }
        for (header, value) in &then.add {
            let value = self.field(value)?;
            self.edits.push(HeaderEdit::Add(header, value));
        }
        Ok(Some(then.pass.then_some(End::Pass)))
    }

    fn text(&mut self, expr: &'c Compiled) -> Result<String, EvalError> {
        match self.evaluation.evaluate(&expr.0)? {
            Value::Text(text) if text.len() > MAX_MADE => Err(EvalError::Bytes),
            Value::Text(text) => Ok(text.to_string()),
            Value::Null
            | Value::Bool(_)
            | Value::Int(_)
            | Value::Uint(_)
            | Value::Double(_)
            | Value::Bytes(_)
            | Value::List(_)
            | Value::Map(_) => Err(EvalError::NoText),
        }
    }

    /// Text that a header can carry.
    fn field(&mut self, expr: &'c Compiled) -> Result<String, EvalError> {
        let text = self.text(expr)?;
        match text.bytes().all(|byte| (byte >= b' ' && byte != 0x7f) || byte == b'\t') {
            true => Ok(text),
            false => Err(EvalError::NoField),
        }
    }
}
