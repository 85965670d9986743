//! The answer to a question, as it is told: what becomes of a request, by which route, to which backends and endpoints.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::bundle::{Backend, Mirror, RouteKind, RouteName, RouteRule, TunnelRefusal};
use crate::identity::SpiffeId;
use crate::route::{self, MetRule};

/// The kind of which nobody told before there was another.
fn http_route() -> String {
    RouteKind::Http.as_str().to_owned()
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Explanation {
    /// True if every endpoint that may be picked would serve the request.
    pub allowed: bool,
    /// The status the caller would see from the mesh; absent where the app answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The rule that decided, `namespace/policy#rule`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    pub reason: String,
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub principal: SpiffeId,
    pub service: String,
    pub port: u16,
    /// The port is declared tcp: this is what becomes of a connection, whatever the request in it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub connection: bool,
    /// No rule decided: peers refuse the caller, or all that could answer it, whatever rules say.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub barred: bool,
    /// As routes see it, and as it is sent to the app unless a route replaces it.
    pub path: String,
    /// The reading of an ambiguous path that was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reading: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<RouteExplanation>,
    pub backends: Vec<BackendExplanation>,
    /// Where copies of it are sent. Nothing of them decides about the request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mirrors: Vec<MirrorExplanation>,
    /// What is worth knowing beside the answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RouteExplanation {
    /// `HTTPRoute`, `GRPCRoute`, `TLSRoute` or `TCPRoute`.
    #[serde(default = "http_route")]
    pub kind: String,
    /// `namespace/name`; at its second parent `namespace/name#1`.
    pub name: String,
    pub rule_index: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule_name: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BackendExplanation {
    /// Absent where the reference doesn't resolve: its share is answered 500.
    pub service: Option<String>,
    pub port: u16,
    pub weight: u32,
    /// How one of the endpoints is picked, and who says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub balancing: Option<String>,
    /// Which of the endpoints are passed over, or get less, and who says so. Absent: nobody asks for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<String>,
    /// How long it may take, in all and each attempt, and who says so. Absent: there is no deadline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<String>,
    /// What is sent again although somebody may have acted on it, and who says so. Absent: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<String>,
    /// How much of it each calling proxy may have under way, and who says so. Absent: there is no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<String>,
    /// What keeps it at one endpoint together with others of its session, and who says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// The host that the route sends in the place of the caller's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The path that the route sends in the place of the caller's, which the endpoints judge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    pub endpoints: Vec<EndpointExplanation>,
    /// What becomes of it where no endpoint of the mesh takes it: how it is dialled outside, or how it is answered.
    /// Told as a note.
    #[serde(skip)]
    pub(super) elsewhere: Option<String>,
}

impl RouteExplanation {
    pub(super) fn of(met: &MetRule<'_>) -> Self {
        let name = RouteName::of(&met.route.name);
        Self {
            kind: name.kind.as_str().to_owned(),
            name: name.place(),
            rule_index: met.index,
            rule_name: met.rule.name.clone(),
        }
    }
}

/// One mirror of the rule that the request meets, or of one of its backends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MirrorExplanation {
    /// Absent where the reference doesn't resolve: no copy is sent.
    pub service: Option<String>,
    pub port: u16,
    /// The part of the requests that is copied, in words.
    pub share: String,
    /// Copies are sent of what this backend is sent. Absent: of whatever meets the rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
}

impl MirrorExplanation {
    /// Those of a rule, then those of its backends.
    pub(super) fn all_of(rule: &RouteRule) -> Vec<Self> {
        let told = |mirror: &Mirror, backend: Option<String>| Self {
            service: mirror.service.as_ref().map(ToString::to_string),
            port: mirror.port,
            share: mirror.share(),
            backend,
        };
        let of_rule = route::mirrors(&rule.actions).map(|mirror| told(mirror, None));
        let of_backends = rule.backends.iter().filter(|backend| backend.weight > 0).flat_map(|backend| {
            let name = backend.service.as_ref().map(ToString::to_string);
            route::mirrors(&backend.actions).map(move |mirror| told(mirror, name.clone()))
        });
        of_rule.chain(of_backends).collect()
    }
}

impl BackendExplanation {
    /// A backend that leads to no service.
    pub(super) fn nowhere(backend: &Backend) -> Self {
        Self {
            service: None,
            port: backend.port,
            weight: backend.weight,
            balancing: None,
            health: None,
            timeouts: None,
            retry: None,
            limits: None,
            session: None,
            host: None,
            path: None,
            endpoints: Vec::new(),
            elsewhere: None,
        }
    }

    /// One that answers itself, so that nothing is led to it.
    pub(super) fn answering(backend: &Backend, answer: String) -> Self {
        Self {
            service: backend.service.as_ref().map(ToString::to_string),
            elsewhere: Some(answer),
            ..Self::nowhere(backend)
        }
    }

    /// The same where the ExternalService that it leads to does not take what was asked about.
    pub(super) fn refused(self, why: &TunnelRefusal) -> Self {
        let elsewhere = self.elsewhere.map(|words| format!("{words}; refused: {why}"));
        Self { elsewhere, ..self }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EndpointExplanation {
    pub workload: String,
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub address: SocketAddr,
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub identity: Option<SpiffeId>,
    pub allowed: bool,
    /// The status that the caller would see; absent where the app answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    pub reason: String,
    /// Peers refuse it whatever rules say; others of the backend are picked while there are any.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub barred: bool,
    /// The reading of an ambiguous path that was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reading: Option<String>,
    /// Inbound filters in the order in which they run.
    pub filters: Vec<String>,
    /// The first filter that answers in the place of the app. Told as a note.
    #[serde(skip)]
    pub(super) answered: Option<String>,
    /// The rule by which policies that are audited would refuse it. Told as a note.
    #[serde(skip)]
    pub(super) audited: Option<String>,
}
