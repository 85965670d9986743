//! How a request reaches the service that it was resolved to: the rule of the routes, a backend, its port, its deadline.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::action::{Actions, AnswerEdits, Setting, deadline};
use super::cors::{self, Preflight, Sharing};
use super::matching::Read;
use super::rewrite;
use super::{HeadView, MetRule, QueryReading, Resolved, RouteDecision, RouteTable, WayOut, pick_backend};
use crate::bundle::{
    Backend, Cors, MeshSettings, Mirror, ObjectName, Persistence, Retry, Route, RouteKind, RouteName, RouteRule,
    Service, ServicePort, Traffic,
};
use crate::path::{self, NormalPath};

/// The way of one request. Nothing of it is applied yet: what is sent is made per attempt from the head and this.
#[derive(Debug, Clone)]
pub struct Plan<'t> {
    /// For the log. `None`: no route is attached, or one endpoint was addressed.
    pub route: Option<&'t Route>,
    /// The place of the rule in its route.
    pub rule_index: usize,
    /// The service whose endpoints may take it; with `exit` an ExternalService as [`WayOut::resolved`] has it.
    pub service: &'t Service,
    /// Out of the mesh, by this way.
    pub exit: Option<WayOut<'t>>,
    /// The port at the endpoints.
    pub target: Target<'t>,
    /// Only this endpoint may take it.
    pub direct: Option<&'t ObjectName>,
    /// For the whole exchange. `None`: no deadline.
    pub timeout: Option<Duration>,
    /// For each attempt. `None`: no deadline of its own.
    pub attempt_timeout: Option<Duration>,
    /// What is sent again although somebody may have acted on it. `None`: nothing.
    pub retry: Option<&'t Retry>,
    /// What keeps it at one endpoint together with others. `None`: nothing.
    pub persistence: Option<&'t Persistence>,
    /// The rule's, then its backend's.
    actions: [Option<&'t Actions>; 2],
    sharing: Option<Sharing>,
    /// The rule's, then its backend's.
    pub(super) mirrors: [&'t [Mirror]; 2],
    /// In the place of the request's own, where the rule or its backend puts another.
    pub host: Option<&'t str>,
    pub path: Option<NormalPath>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SaidBy {
    Rule,
    Policy,
    Mesh,
}

/// The port at which endpoints are reached.
#[derive(Debug, Clone, Copy)]
pub struct Target<'t> {
    /// At most of them.
    number: u16,
    /// `None`: one endpoint was addressed by its own port.
    port: Option<&'t ServicePort>,
}

impl<'t> Target<'t> {
    /// The port at one endpoint. `None`: it is none of this port's.
    #[must_use]
    pub fn at(&self, workload: &ObjectName) -> Option<u16> {
        self.port.map_or(Some(self.number), |port| port.target_of(workload))
    }

    /// The same without the configuration that says its number.
    #[must_use]
    pub fn keep(&self) -> KeptTarget {
        self.port.map_or(KeptTarget::Number(self.number), |port| KeptTarget::Of(port.port))
    }

    /// The service's port, where not every endpoint of the service is one of it.
    #[must_use]
    pub fn partial(&self) -> Option<&'t ServicePort> {
        self.port.filter(|port| port.is_partial())
    }
}

/// A [`Target`] that outlives the configuration that it is of: endpoints come and go while a request is under way.
#[derive(Debug, Clone, Copy)]
pub enum KeptTarget {
    /// Whatever the endpoint has behind this port of the service.
    Of(u16),
    /// The endpoint's own port.
    Number(u16),
}

impl Plan<'_> {
    /// Changes the header of one attempt as the rule and its backend say.
    pub fn modify(&self, headers: &mut http::HeaderMap) {
        self.actions.into_iter().flatten().for_each(|actions| actions.edit(headers));
    }

    /// False where sending the head as it is does the same as [`Plan::modify`].
    pub fn modifies(&self) -> bool {
        self.actions.into_iter().flatten().any(Actions::edits)
    }

    /// The same of fields that are held by name.
    pub(crate) fn changed(&self, fields: &BTreeMap<String, &str>) -> BTreeMap<String, String> {
        let parsed = |(name, value): (&String, &&str)| Some((name.parse().ok()?, value.parse().ok()?));
        let mut headers: http::HeaderMap = fields.iter().filter_map(parsed).collect();
        self.modify(&mut headers);
        let text = |name: &http::HeaderName| {
            let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
            (name.as_str().to_owned(), values.collect::<Vec<_>>().join(","))
        };
        headers.keys().map(text).collect()
    }

    /// How long a stream may take, from the beginning of its request, as its service's TrafficPolicy says. `None`: no deadline.
    #[must_use]
    pub fn stream_timeout(&self) -> Option<Duration> {
        deadline(self.service.traffic.as_deref()?.stream_timeout_ms)
    }

    /// Who says what is kept of a setting.
    pub(crate) fn says(&self, setting: Setting) -> SaidBy {
        let rule = self.actions[0].is_some_and(|rule| rule.sets(setting));
        let by_policy = |traffic: &Traffic| match setting {
            Setting::RequestTimeout => traffic.request_timeout_ms.is_some(),
            Setting::AttemptTimeout => traffic.attempt_timeout_ms.is_some(),
            Setting::Retry => traffic.retry.is_some(),
        };
        match (rule, self.service.traffic.as_deref().is_some_and(by_policy)) {
            (true, _) => SaidBy::Rule,
            (false, true) => SaidBy::Policy,
            (false, false) => SaidBy::Mesh,
        }
    }

    /// What the rule and its backend change of the answer.
    pub fn answer_edits(&self) -> AnswerEdits {
        AnswerEdits::of(self.actions, self.sharing.clone())
    }
}

/// Why a request to a service goes nowhere.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteRefusal {
    #[error("no rule of the routes of {service} matches")]
    NoRuleMatched { service: ObjectName },
    #[error("no {} of {service} is for {hello}", kind.as_str())]
    NoStreamMatched { service: ObjectName, kind: RouteKind, hello: String },
    #[error("{} has no backend with weight", RouteName::of(route))]
    NoBackend { route: ObjectName },
    #[error(
        "a backend of {} is not there or needs a ReferenceGrant, or the route asks for what can't be done: its status says which",
        RouteName::of(route)
    )]
    BackendNotFound { route: ObjectName },
    #[error("{service} serves nothing at port {port}")]
    NoSuchPort { service: ObjectName, port: u16 },
    #[error("path can be read as {other:?}, which meets another rule of {}", RouteName::of(route))]
    AmbiguousPath { route: ObjectName, other: String },
    #[error("servers read the query in several ways, and one of them meets another rule of {}", RouteName::of(route))]
    AmbiguousQuery { route: ObjectName },
    #[error(
        "servers read the method or the fields in several ways, and one of them meets another rule of {}",
        RouteName::of(route)
    )]
    AmbiguousHead { route: ObjectName },
    #[error("to {location}, by {}", RouteName::of(route))]
    Redirect { route: ObjectName, status: u16, location: String },
    #[error("{} replaces a prefix that the path does not have as it was sent", RouteName::of(route))]
    Rewrite { route: ObjectName },
    #[error(
        "the preflight of {} is answered by {}, which {} it", .preflight.origin, RouteName::of(route), preflight_verb(.preflight)
    )]
    Preflight { route: ObjectName, preflight: Box<Preflight> },
    #[error("{0}")]
    TooManyReadings(#[from] path::Ambiguous),
}

impl RouteRefusal {
    /// The status of the answer.
    pub fn status(&self) -> u16 {
        match self {
            Self::AmbiguousPath { .. }
            | Self::AmbiguousQuery { .. }
            | Self::AmbiguousHead { .. }
            | Self::TooManyReadings(_) => 400,
            Self::NoRuleMatched { .. } | Self::NoStreamMatched { .. } | Self::NoSuchPort { .. } => 404,
            Self::NoBackend { .. } | Self::BackendNotFound { .. } | Self::Rewrite { .. } => 500,
            Self::Redirect { status, .. } => *status,
            Self::Preflight { preflight, .. } if preflight.allowed.is_some() => 200,
            Self::Preflight { .. } => 403,
        }
    }

    /// The route that decided, where one did.
    pub fn route(&self) -> Option<&ObjectName> {
        match self {
            Self::NoBackend { route }
            | Self::BackendNotFound { route }
            | Self::AmbiguousPath { route, .. }
            | Self::AmbiguousQuery { route }
            | Self::AmbiguousHead { route }
            | Self::Redirect { route, .. }
            | Self::Preflight { route, .. }
            | Self::Rewrite { route } => Some(route),
            Self::NoRuleMatched { .. }
            | Self::NoStreamMatched { .. }
            | Self::NoSuchPort { .. }
            | Self::TooManyReadings(_) => None,
        }
    }
}

fn preflight_verb(preflight: &Preflight) -> &'static str {
    if preflight.allowed.is_some() { "allows" } else { "does not allow" }
}

/// Decision of the routes, before the dice choose among backends.
#[derive(Debug, Clone, Copy)]
pub enum Choice<'t> {
    /// To the service itself.
    Direct(Resolved<'t>),
    Rule(MetRule<'t>),
}

/// Plans the way of a request. `dice`: uniform over all of `u64`, chooses among backends by weight.
///
/// # Errors
/// The request goes nowhere.
pub fn plan<'t>(
    table: &'t RouteTable,
    to: &Resolved<'t>,
    from_namespace: &str,
    head: &HeadView<'_>,
    dice: u64,
    mesh: &MeshSettings,
) -> Result<Plan<'t>, RouteRefusal> {
    plan_kept(table, to, from_namespace, head, (dice, |_, _| None), mesh)
}

/// The same of a request that its session may keep at a backend: `kept` gives the place of that backend among those of
/// the rule, whose weights are then not asked, not even one of 0.
///
/// # Errors
/// The request goes nowhere.
pub fn plan_kept<'t>(
    table: &'t RouteTable,
    to: &Resolved<'t>,
    from_namespace: &str,
    head: &HeadView<'_>,
    (dice, kept): (u64, impl FnOnce(&'t Persistence, &'t RouteRule) -> Option<usize>),
    mesh: &MeshSettings,
) -> Result<Plan<'t>, RouteRefusal> {
    match choose(table, to, from_namespace, head)? {
        Choice::Direct(to) => directly(&to, mesh),
        Choice::Rule(met) => {
            let kept = met.actions.rule.persistence.as_ref().and_then(|persistence| kept(persistence, met.rule));
            let kept = kept.filter(|place| *place < met.rule.backends.len());
            let backend = kept.or_else(|| pick_backend(met.rule, dice));
            by_rule(table, met, backend, to, head, mesh)
        }
    }
}

/// The same of a request to an ExternalService.
///
/// # Errors
/// The request goes nowhere.
pub fn plan_outside<'t>(
    table: &'t RouteTable,
    way: &WayOut<'t>,
    from_namespace: &str,
    head: &HeadView<'_>,
    dice: u64,
    mesh: &MeshSettings,
) -> Result<Plan<'t>, RouteRefusal> {
    let to = way.resolved();
    match choose(table, &to, from_namespace, head)? {
        Choice::Direct(to) => directly_outside(way, &to, mesh),
        Choice::Rule(met) => {
            let backend = pick_backend(met.rule, dice);
            by_rule(table, met, backend, &to, head, mesh)
        }
    }
}

fn by_rule<'t>(
    table: &'t RouteTable,
    met: MetRule<'t>,
    backend: Option<usize>,
    to: &Resolved<'t>,
    head: &HeadView<'_>,
    mesh: &MeshSettings,
) -> Result<Plan<'t>, RouteRefusal> {
    own_answer(&met, backend, to, head)?;
    let backend = backend.ok_or_else(|| RouteRefusal::NoBackend { route: met.route.name.clone() });
    to_backend(table, met, backend?, head, mesh)
}

/// Out of the mesh, where no rule holds.
///
/// # Errors
/// The ExternalService has no such port.
pub(crate) fn directly_outside<'t>(
    way: &WayOut<'t>,
    to: &Resolved<'t>,
    mesh: &MeshSettings,
) -> Result<Plan<'t>, RouteRefusal> {
    Ok(Plan { exit: Some(way.clone()), ..directly(to, mesh)? })
}

/// Plans the way of a connection for which no route holds, and that is not looked into.
///
/// # Errors
/// The service has no such port.
pub fn plan_connection<'t>(to: &Resolved<'t>) -> Result<Plan<'t>, RouteRefusal> {
    let Resolved { service, port, endpoint, outside: _ } = *to;
    // An endpoint addressed by its own IP was addressed by its own port.
    let target = if endpoint.is_some() { Target { number: port, port: None } } else { target(service, port)? };
    let actions = [None, None];
    Ok(Plan {
        route: None,
        rule_index: 0,
        service,
        exit: None,
        target,
        direct: endpoint,
        timeout: None,
        attempt_timeout: None,
        retry: None,
        persistence: None,
        actions,
        sharing: None,
        mirrors: [&[]; 2],
        host: None,
        path: None,
    })
}

/// The way of a request for which no rule holds: as its service says, else as the mesh.
///
/// # Errors
/// The service has no such port.
pub(crate) fn directly<'t>(to: &Resolved<'t>, mesh: &MeshSettings) -> Result<Plan<'t>, RouteRefusal> {
    let traffic = to.service.traffic.as_deref();
    Ok(Plan {
        timeout: deadline(request_timeout_ms(traffic, mesh)),
        attempt_timeout: deadline(traffic.and_then(|traffic| traffic.attempt_timeout_ms)),
        retry: traffic.and_then(|traffic| traffic.retry.as_ref()),
        ..plan_connection(to)?
    })
}

fn request_timeout_ms(traffic: Option<&Traffic>, mesh: &MeshSettings) -> Option<u64> {
    traffic.and_then(|traffic| traffic.request_timeout_ms).or(mesh.request_timeout_ms)
}

/// The rule that a request meets. Its path is taken as it is sent; readings that would meet a rule which treats requests
/// differently make it ambiguous.
///
/// # Errors
/// No rule holds, or it can't be told which.
pub fn choose<'t>(
    table: &'t RouteTable,
    to: &Resolved<'t>,
    from_namespace: &str,
    head: &HeadView<'_>,
) -> Result<Choice<'t>, RouteRefusal> {
    let Some(routed) = table.routed(to) else { return Ok(Choice::Direct(*to)) };
    let decide = |head: &HeadView<'_>, path: &str, query| {
        routed.decide(to.port, from_namespace, &Read { head, path: &path::decode(path), query })
    };
    let standard = head.path.standard();
    let met = match decide(head, &standard, QueryReading::STANDARD) {
        RouteDecision::Default => return Ok(Choice::Direct(*to)),
        RouteDecision::NoMatch => return Err(RouteRefusal::NoRuleMatched { service: to.service.name.clone() }),
        RouteDecision::Rule(met) => met,
    };
    let differs = |head: &HeadView<'_>, path: &str, query| match decide(head, path, query) {
        RouteDecision::Rule(other) => {
            !met.actions.treats_alike(other.actions)
                || !table.rule_filters.are_alike(&met, &other)
                || !restricts_alike(table, &met, &other)
        }
        RouteDecision::Default | RouteDecision::NoMatch => false,
    };
    let others = routed.query_readings(head);
    let queries = || std::iter::once(QueryReading::STANDARD).chain(others.iter().copied());
    if head.path.is_ambiguous() {
        for path in head.path.readings(&to.service.path_reading)?.iter() {
            if queries().any(|query| differs(head, path, query)) {
                return Err(RouteRefusal::AmbiguousPath { route: met.route.name.clone(), other: path.to_owned() });
            }
        }
    }
    if others.iter().any(|query| differs(head, &standard, *query)) {
        return Err(RouteRefusal::AmbiguousQuery { route: met.route.name.clone() });
    }
    let heads = routed.head_readings(head);
    if !heads.is_empty() {
        let readings = head.path.readings(&to.service.path_reading)?;
        let paths: Vec<&str> = std::iter::once(&*standard).chain(readings.iter()).collect();
        let is_other = |head: &HeadView<'_>| paths.iter().any(|path| queries().any(|query| differs(head, path, query)));
        if heads.len() * paths.len() * (1 + others.len()) > MAX_READINGS || heads.iter().any(is_other) {
            return Err(RouteRefusal::AmbiguousHead { route: met.route.name.clone() });
        }
    }
    Ok(Choice::Rule(met))
}

/// True where the services behind two rules bound what is sent to them alike.
fn restricts_alike(table: &RouteTable, one: &MetRule<'_>, other: &MetRule<'_>) -> bool {
    let bounds = |backend: &Backend| {
        let service = match (backend.service.as_ref()?, backend.outside) {
            (name, false) => table.bundle.services.get(name)?,
            (name, true) => table.led_out(name, backend.port, None)?.resolved().service,
        };
        let traffic = service.traffic.as_deref()?;
        let times = (traffic.request_timeout_ms, traffic.attempt_timeout_ms, traffic.stream_timeout_ms);
        (traffic.limits.is_some() || times != (None, None, None)).then_some((traffic.limits.as_ref(), times))
    };
    if std::ptr::eq(one.rule, other.rule) {
        return true;
    }
    let [one, other] = [one, other].map(|met| {
        let led = met.rule.backends.iter().filter(|backend| backend.weight > 0);
        led.map(bounds).collect::<Vec<_>>()
    });
    let within = |a: &[_], b: &[_]| a.iter().all(|of| b.contains(of));
    within(&one, &other) && within(&other, &one)
}

/// Readings of a whole request that are judged; a request that has more is refused.
const MAX_READINGS: usize = 512;

impl<'t> MetRule<'t> {
    /// The actions of a backend, by its place. One that doesn't resolve does nothing.
    fn of_backend(&self, backend: usize) -> Option<&'t Actions> {
        let resolves = self.rule.backends.get(backend).is_some_and(|backend| backend.service.is_some());
        self.actions.backends.get(backend).filter(|_| resolves)
    }

    /// What is said to other origins: as the backend has it, else as the rule.
    fn cors(&self, backend: Option<usize>) -> Option<&'t Arc<Cors>> {
        let own = backend.and_then(|backend| self.of_backend(backend)?.cors.as_ref());
        own.or(self.actions.rule.cors.as_ref())
    }
}

/// Answers what a rule answers itself, or the `backend` to which it would lead the request.
///
/// # Errors
/// One of them redirects, or the request is a preflight that one of them is asked about.
pub(crate) fn own_answer(
    met: &MetRule<'_>,
    backend: Option<usize>,
    to: &Resolved<'_>,
    head: &HeadView<'_>,
) -> Result<(), RouteRefusal> {
    let preflight = met.cors(backend).and_then(|cors| cors::preflight(cors, head));
    if let Some(preflight) = preflight.map(Box::new) {
        return Err(RouteRefusal::Preflight { route: met.route.name.clone(), preflight });
    }
    let of_backend = || met.of_backend(backend?)?.redirect.as_ref();
    let Some(redirect) = met.actions.rule.redirect.as_ref().or_else(of_backend) else { return Ok(()) };
    let route = met.route.name.clone();
    Err(match rewrite::location(redirect, to, head) {
        Some(location) => RouteRefusal::Redirect { route, status: redirect.status, location },
        None => RouteRefusal::Rewrite { route },
    })
}

/// True where pages of the origin that the request has may read its answer; `None` where neither the rule nor the
/// backend says anything of it.
#[cfg(feature = "manifest")]
pub(crate) fn is_shared(met: &MetRule<'_>, backend: Option<usize>, head: &HeadView<'_>) -> Option<bool> {
    let cors = met.cors(backend)?;
    (head.headers)("origin").map(|_| Sharing::of(cors, head).is_allowed())
}

/// The way to one backend of a rule, by its place there.
pub(crate) fn to_backend<'t>(
    table: &'t RouteTable,
    met: MetRule<'t>,
    backend: usize,
    head: &HeadView<'_>,
    mesh: &MeshSettings,
) -> Result<Plan<'t>, RouteRefusal> {
    let sharing = met.cors(Some(backend)).map(|cors| Sharing::of(cors, head));
    let MetRule { route, index: rule_index, rule, actions, mirrors } = met;
    let mirrors = [&mirrors.rule[..], &mirrors.backends[backend]];
    let (backend, own) = (&rule.backends[backend], &actions.backends[backend]);
    let unknown = || RouteRefusal::BackendNotFound { route: route.name.clone() };
    let name = backend.service.as_ref().ok_or_else(unknown)?;
    let exit = match backend.outside {
        true => Some(table.led_out(name, backend.port, head.host).ok_or_else(unknown)?),
        false => None,
    };
    let service = match &exit {
        Some(exit) => exit.resolved().service,
        None => table.bundle.services.get(name).ok_or_else(unknown)?,
    };
    let instead = exit.as_ref().and_then(|exit| exit.host_instead(head.host));
    let (own_rewrite, rules) = (&own.rewrite, &actions.rule.rewrite);
    let change = own_rewrite.path.as_ref().or(rules.path.as_ref());
    let unfit = || RouteRefusal::Rewrite { route: route.name.clone() };
    let traffic = service.traffic.as_deref();
    Ok(Plan {
        host: own_rewrite.host.as_deref().or(rules.host.as_deref()).or(instead),
        path: change.map(|change| rewrite::changed(head.path, change).ok_or_else(unfit)).transpose()?,
        route: Some(route),
        rule_index,
        service,
        exit,
        target: target(service, backend.port)?,
        direct: None,
        timeout: actions.rule.timeout(request_timeout_ms(traffic, mesh)),
        attempt_timeout: actions.rule.attempt_timeout(traffic.and_then(|traffic| traffic.attempt_timeout_ms)),
        retry: actions.rule.retry.as_ref().or(traffic.and_then(|traffic| traffic.retry.as_ref())),
        persistence: actions.rule.persistence.as_ref(),
        actions: [Some(&actions.rule), Some(own)],
        mirrors,
        sharing,
    })
}

pub(super) fn target(service: &Service, port: u16) -> Result<Target<'_>, RouteRefusal> {
    let known = service.ports.iter().find(|known| known.port == port);
    let known = known.ok_or_else(|| RouteRefusal::NoSuchPort { service: service.name.clone(), port })?;
    Ok(Target { number: known.target_port, port: Some(known) })
}
