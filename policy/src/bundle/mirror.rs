//! A mirror of a rule or a backend, inside the route's object. A preference: a proxy that knows none of it carries the
//! requests all the same.

use serde::{Deserialize, Serialize};

use super::{ObjectName, Route, RouteAction};

/// Sends a copy of so many of so many requests to another service; nobody waits for its answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mirror {
    /// `None`: the reference does not resolve; no copy is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ObjectName>,
    pub port: u16,
    pub numerator: u32,
    pub denominator: u32,
}

impl Route {
    /// True where one of its rules or backends has a mirror.
    pub fn mirrors(&self) -> bool {
        self.actions().any(|action| matches!(action, RouteAction::Mirror(_)))
    }
}

impl Mirror {
    /// The part of the requests that is copied, in words.
    pub fn share(&self) -> String {
        match (self.numerator, self.denominator) {
            (numerator, denominator) if numerator == denominator => "every request".to_owned(),
            (0, _) => "no request".to_owned(),
            (numerator, 100) => format!("{numerator} % of the requests"),
            (numerator, denominator) => format!("{numerator} of {denominator} requests"),
        }
    }
}
