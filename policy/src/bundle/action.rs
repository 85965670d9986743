//! What a route's rule does to the requests that it takes, and a backend to those that it gets.

use serde::{Deserialize, Serialize};

use super::{Cors, Mirror, Persistence, Retry};

/// Something that a rule does to the requests that it takes, or a backend to those that it gets. A proxy that does not know
/// an action refuses the route by its key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RouteAction {
    /// Changes the header of each attempt.
    RequestHeaders(HeaderModifier),
    /// Changes the header of the answer.
    ResponseHeaders(HeaderModifier),
    /// Sends another host or path. A backend's takes the place of its rule's.
    Rewrite(Rewrite),
    /// Answers with another address, and reaches no backend; of a backend only to a proxy with the capability
    /// `backend-answers`, as the next.
    Redirect(Redirect),
    /// Answers preflights, and says of other answers which origin may read them. A backend's takes the place of its
    /// rule's.
    Cors(Cors),
    /// Sends copies to another service. A backend's come beside its rule's.
    Mirror(Mirror),
    /// `timeouts.request` of a rule: for the whole exchange, in place of the mesh's. 0: no deadline.
    RequestTimeoutMs(u64),
    /// `timeouts.backendRequest` of a rule: for each attempt. 0: no deadline. Only to a proxy with the capability
    /// `route-retries`, as the next.
    AttemptTimeoutMs(u64),
    /// Of a rule: what is sent again although somebody may have acted on it.
    Retry(Retry),
    /// Of a rule: keeps the requests of a session at one endpoint. Only to a proxy with the capability
    /// `session-persistence`.
    Persistence(Persistence),
}

impl RouteAction {
    /// True where a proxy that can't do it serves as if the rule did not ask for it.
    pub(crate) fn is_preference(&self) -> bool {
        match self {
            Self::Mirror(_) | Self::AttemptTimeoutMs(_) | Self::Retry(_) | Self::Persistence(_) => true,
            Self::RequestHeaders(_)
            | Self::ResponseHeaders(_)
            | Self::Rewrite(_)
            | Self::Redirect(_)
            | Self::Cors(_)
            | Self::RequestTimeoutMs(_) => false,
        }
    }
}

/// Another target for what is sent.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rewrite {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathChange>,
}

/// Another address for the caller; what is not said stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheme: Option<Scheme>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathChange>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    Http,
    Https,
}

impl Scheme {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    pub fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PathChange {
    Full(String),
    /// `to` in the place of the prefix by which the rule matched.
    Prefix {
        matched: String,
        to: String,
    },
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeaderModifier {
    pub set: Vec<(String, String)>,
    pub add: Vec<(String, String)>,
    pub remove: Vec<String>,
}
