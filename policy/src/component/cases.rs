//! Cases of a filter: what it does with requests, as its author says. They are written beside the filter, travel in its
//! binary, and are run in the sandbox by `weft filter test` and by the control plane before it takes the binary.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;

use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::{Number, Value};

/// Cases of one filter.
pub const MOST: usize = 64;
/// Requests of one case.
pub const MAX_REPEAT: u32 = 1_000;
const MAX_NAME: usize = 200;

/// Every case of a filter.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cases {
    /// Of each case that has none of its own.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub config: Value,
    pub cases: Vec<Case>,
}

/// One request, or the same one several times, and what becomes of the last.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<Value>,
    /// What is granted. Default: everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<BTreeSet<Capability>>,
    /// The caller's SPIFFE ID. Default: it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caller: Option<String>,
    /// Milliseconds since the Unix epoch, which stand still. Default: they go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<u64>,
    /// The random bits of each call. Default: others at each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dice: Option<u64>,
    /// What is kept already.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub kv: BTreeMap<String, String>,
    /// Values of Secrets by the names that the filter knows them by.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, String>,
    /// Keys of `crypto` that it uses by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub keys: BTreeMap<String, String>,
    #[serde(default)]
    pub request: CaseRequest,
    /// How often the request is sent. Default: once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repeat: Option<u32>,
    /// Services as each request finds them: in this order, where one is asked several times.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub callouts: Vec<CaseCallout>,
    /// The app's answer to what is let pass. Default: none comes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response: Option<CaseResponse>,
    pub expect: Expect,
}

/// What a filter may be granted beyond the log and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Capability {
    TokenBucket,
    Crypto,
    Kv,
    /// For the services of the case's `callouts`.
    Callout,
    /// For the case's `secrets`.
    Secret,
    /// Clocks and randomness of WASI, which runtimes of other languages begin with.
    Wasi,
}

impl Capability {
    pub const ALL: [Capability; 6] =
        [Self::TokenBucket, Self::Crypto, Self::Kv, Self::Callout, Self::Secret, Self::Wasi];
}

/// One text, or several: values of a header, chunks of a body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Texts {
    One(String),
    Many(Vec<String>),
}

impl Default for Texts {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = Texts;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or a list of texts; numbers stand in quotes")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Texts, E> {
                Ok(Texts::One(text.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Texts, A::Error> {
                let mut texts = Vec::new();
                while let Some(text) = list.next_element()? {
                    texts.push(text);
                }
                Ok(Texts::Many(texts))
            }
        }

        deserializer.deserialize_any(Either)
    }
}

impl Texts {
    #[must_use]
    pub fn as_slice(&self) -> &[String] {
        match self {
            Self::One(text) => std::slice::from_ref(text),
            Self::Many(texts) => texts,
        }
    }

    fn is_empty(&self) -> bool {
        self.as_slice().is_empty()
    }
}

pub type Fields = BTreeMap<String, Texts>;
/// `null`: it is not there.
pub type ExpectedFields = BTreeMap<String, Option<Texts>>;

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaseRequest {
    /// Default: GET.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// With its query. Default: `/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Default: `app.test`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: Fields,
    #[serde(default, skip_serializing_if = "Texts::is_empty")]
    pub body: Texts,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaseResponse {
    /// Default: 200.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: Fields,
    #[serde(default, skip_serializing_if = "Texts::is_empty")]
    pub body: Texts,
}

/// A question to a service, and its answer. What is said of the question must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaseCallout {
    /// By the name that the filter calls it by.
    pub service: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: ExpectedFields,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<CaseResponse>,
    /// Why there is no answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What becomes of the last request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CaseVerdict {
    /// It went on, and so did the answer where the case has one.
    #[default]
    Pass,
    /// The filter answered.
    Respond,
    /// The filter ended the stream.
    Reset,
    /// The filter failed: a trap, a call too long, an outcome that the contract forbids.
    Fail,
    /// The configuration was refused.
    Refuse,
}

impl CaseVerdict {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Respond => "respond",
            Self::Reset => "reset",
            Self::Fail => "fail",
            Self::Refuse => "refuse",
        }
    }
}

/// What is to be seen. What is absent may be anything.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    pub verdict: CaseVerdict,
    /// Of the filter's answer, as are `rule`, `headers`, `body` and `contains`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Of an answer, a reset or a failure; part of it where a configuration is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: ExpectedFields,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// Part of the body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contains: Option<String>,
    /// For how long the filter had the stream held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<u64>,
    /// What the app is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<ExpectRequest>,
    /// What the caller is sent of the app's answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response: Option<ExpectResponse>,
    /// `filter.NAME` with its value.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: ExpectedFields,
    /// What is kept after it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub kv: BTreeMap<String, Option<String>>,
    /// Counters and gauges by `NAME` or `NAME{VALUE,VALUE}`, the values of the labels in order.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metrics: BTreeMap<String, Number>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpectRequest {
    /// With its query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: ExpectedFields,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpectResponse {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: ExpectedFields,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
}

/// Why these are no cases.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CasesError {
    #[error("the cases can't be read: {0}")]
    Text(String),
    #[error("{0} cases: 1 to {MOST} are taken")]
    Count(usize),
    #[error("cases[{0}]: a name has 1 to {MAX_NAME} bytes")]
    Name(usize),
    #[error("cases[{position}]: there is another case {name:?}")]
    Twice { position: usize, name: String },
    #[error("cases[{position}].repeat: {repeat} is not between 1 and {MAX_REPEAT}")]
    Repeat { position: usize, repeat: u32 },
    #[error("cases[{position}].callouts[{callout}]: it has both an answer and an error")]
    Both { position: usize, callout: usize },
}

impl Cases {
    /// Reads the section of a binary.
    ///
    /// # Errors
    /// They are no cases.
    pub fn parse(json: &str) -> Result<Self, CasesError> {
        serde_json::from_str::<Self>(json).map_err(|error| CasesError::Text(error.to_string()))?.checked()
    }

    /// The same cases, if they can be run.
    ///
    /// # Errors
    /// There are none or too many, or one can't be meant so.
    pub fn checked(self) -> Result<Self, CasesError> {
        if !(1..=MOST).contains(&self.cases.len()) {
            return Err(CasesError::Count(self.cases.len()));
        }
        let mut names = BTreeSet::new();
        for (position, case) in self.cases.iter().enumerate() {
            if !(1..=MAX_NAME).contains(&case.name.len()) {
                return Err(CasesError::Name(position));
            }
            if !names.insert(&case.name) {
                return Err(CasesError::Twice { position, name: case.name.clone() });
            }
            if let Some(repeat) = case.repeat.filter(|repeat| !(1..=MAX_REPEAT).contains(repeat)) {
                return Err(CasesError::Repeat { position, repeat });
            }
            let both = |callout: &CaseCallout| callout.answer.is_some() && callout.error.is_some();
            if let Some(callout) = case.callouts.iter().position(both) {
                return Err(CasesError::Both { position, callout });
            }
        }
        Ok(self)
    }
}

/// What one case showed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaseReport {
    pub name: String,
    /// What was not as expected; none where the case holds.
    pub faults: Vec<String>,
}

/// What one filter costs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BenchReport {
    pub file: PathBuf,
    pub bytes: u64,
    pub compile_ms: u64,
    /// Requests that were sent.
    pub requests: u64,
    /// Of one request through all its hooks.
    pub p50_ns: u64,
    pub p99_ns: u64,
    /// Linear memory of the instance after all of them.
    pub memory_bytes: u64,
}

/// The argument by which a program with the sandbox is told to do one [`Job`], which comes on its stdin, and nothing else.
pub const TRY: &str = "try-filter";

/// What a process is asked that tries a filter for its author.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Job {
    Test {
        file: PathBuf,
        cases: Cases,
    },
    /// Measures the first case, with each file by itself.
    Bench {
        files: Vec<PathBuf>,
        cases: Cases,
        requests: u32,
    },
}

/// What it answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Done {
    Tested(Vec<CaseReport>),
    Measured(Vec<BenchReport>),
}

#[cfg(test)]
mod tests;
