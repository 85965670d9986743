//! Which route a connection meets whose bytes are not looked into: a TLSRoute by the server name that its ClientHello asks
//! for, else a TCPRoute. The names of a ClientHello are the outer ones: where it is encrypted (ECH) they are the front's.

use std::cmp::Reverse;
use std::fmt;

use super::matching::layer;
use super::routed::{CompiledRoute, Routed};
use super::{Choice, MetRule, Plan, Resolved, RouteRefusal, RouteTable, pick_backend, plan_connection};
use crate::bundle::{Route, RouteKind};
use crate::host::is_below;

/// What the first bytes of a connection are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hello<'a> {
    /// Nobody looked, or they are no ClientHello.
    Other,
    /// A ClientHello, with the server name that it asks for: in lower case, without a dot at its end. One that is malformed
    /// asks for none.
    Tls(Option<&'a str>),
}

impl<'a> Hello<'a> {
    /// The server name that is asked for.
    fn name(self) -> Option<&'a str> {
        match self {
            Self::Other => None,
            Self::Tls(name) => name,
        }
    }
}

impl fmt::Display for Hello<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Other => f.write_str("what begins with no ClientHello"),
            Self::Tls(None) => f.write_str("a ClientHello without a server name"),
            Self::Tls(Some(name)) => write!(f, "the server name {name}"),
        }
    }
}

/// The routes of a service's connections in order of precedence: the first that holds decides.
#[derive(Debug, Default)]
pub(super) struct Streams(Vec<Stream>);

/// A route, for one of its names.
#[derive(Debug)]
struct Stream {
    /// Index into `Routed::routes`.
    route: usize,
    name: Name,
}

/// The names that a route is for; the more it says, the greater.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Name {
    /// Any, or none.
    Any,
    /// All below another: its length, and it with the dot before it. The longer says more.
    Below(usize, String),
    Exact(String),
}

impl Name {
    fn of(text: &str) -> Self {
        match text.strip_prefix('*') {
            Some(parent) => Self::Below(parent.len(), parent.to_owned()),
            None => Self::Exact(text.to_owned()),
        }
    }

    fn holds(&self, asked: Option<&str>) -> bool {
        match self {
            Self::Any => true,
            Self::Below(_, parent) => asked.is_some_and(|asked| is_below(asked, parent)),
            Self::Exact(name) => asked == Some(name.as_str()),
        }
    }
}

impl Streams {
    /// Each route with its index. The layer of the route; an exact name before the longest wildcard, that before none; then
    /// the oldest route, then its name.
    pub(super) fn of(routes: &[(usize, &Route)]) -> Self {
        let mut streams = Vec::new();
        for (number, route) in routes {
            let names = route.hostnames.iter().map(|name| Name::of(name));
            let any = route.hostnames.is_empty().then_some(Name::Any);
            streams.extend(names.chain(any).map(|name| (*route, Stream { route: *number, name })));
        }
        streams.sort_by_cached_key(|(route, stream)| {
            (layer(route), Reverse(stream.name.clone()), route.created, route.name.clone())
        });
        Self(streams.into_iter().map(|(_, stream)| stream).collect())
    }
}

impl RouteTable {
    /// Those that hold for this caller and port, all of one layer.
    fn streams<'t>(
        &'t self,
        to: &Resolved<'_>,
        from_namespace: &str,
    ) -> impl Iterator<Item = (&'t CompiledRoute, &'t Name)> {
        let of =
            |routed: &'t Routed| routed.streams.0.iter().map(|stream| (&routed.routes[stream.route], &stream.name));
        let all = self.routed(to).into_iter().flat_map(of);
        let port = to.port;
        let mut held = all.filter(move |(compiled, _)| compiled.is_for(port, from_namespace)).peekable();
        let first = held.peek().map(|(compiled, _)| layer(&compiled.route));
        held.take_while(move |(compiled, _)| Some(layer(&compiled.route)) == first)
    }
}

/// The kind of the routes that decide about this caller's connections to a port. `None`: no route is attached.
pub fn stream_kind(table: &RouteTable, to: &Resolved<'_>, from_namespace: &str) -> Option<RouteKind> {
    table.streams(to, from_namespace).next().map(|(compiled, _)| compiled.route.kind)
}

/// The rule that a connection meets.
///
/// # Errors
/// Routes are attached, and none is for it.
pub fn choose_stream<'t>(
    table: &'t RouteTable,
    to: &Resolved<'t>,
    from_namespace: &str,
    hello: Hello<'_>,
) -> Result<Choice<'t>, RouteRefusal> {
    let mut kind = None;
    for (CompiledRoute { route, rules }, name) in table.streams(to, from_namespace) {
        kind = Some(route.kind);
        let is_for_it = match (route.kind, hello) {
            (RouteKind::Tls, Hello::Tls(asked)) => name.holds(asked),
            (RouteKind::Tls, Hello::Other) => false,
            (RouteKind::Grpc | RouteKind::Http | RouteKind::Tcp, _) => true,
        };
        if let Some((rule, (actions, mirrors))) = route.rules.first().zip(rules.first()).filter(|_| is_for_it) {
            return Ok(Choice::Rule(MetRule { route, index: 0, rule, actions, mirrors }));
        }
    }
    match kind {
        None => Ok(Choice::Direct(*to)),
        Some(kind) => {
            Err(RouteRefusal::NoStreamMatched { service: to.service.name.clone(), kind, hello: hello.to_string() })
        }
    }
}

/// Plans the way of a connection that is not looked into, beyond its first bytes. `dice`: uniform over all of `u64`, chooses
/// among backends by weight.
///
/// # Errors
/// The connection goes nowhere.
pub fn plan_stream<'t>(
    table: &'t RouteTable,
    to: &Resolved<'t>,
    from_namespace: &str,
    hello: Hello<'_>,
    dice: u64,
) -> Result<Plan<'t>, RouteRefusal> {
    match choose_stream(table, to, from_namespace, hello)? {
        Choice::Direct(to) => plan_connection(&to),
        Choice::Rule(met) => {
            let backend = pick_backend(met.rule, dice);
            let backend = backend.ok_or_else(|| RouteRefusal::NoBackend { route: met.route.name.clone() });
            to_backend_of_bytes(table, &met, backend?, hello)
        }
    }
}

/// The way of a connection to one backend of a rule, by its place there. Whether an ExternalService takes what begins so is its
/// way's to say.
pub(crate) fn to_backend_of_bytes<'t>(
    table: &'t RouteTable,
    met: &MetRule<'t>,
    backend: usize,
    hello: Hello<'_>,
) -> Result<Plan<'t>, RouteRefusal> {
    let backend = &met.rule.backends[backend];
    let unknown = || RouteRefusal::BackendNotFound { route: met.route.name.clone() };
    let name = backend.service.as_ref().ok_or_else(unknown)?;
    let exit = match backend.outside {
        true => Some(table.led_out(name, backend.port, hello.name()).ok_or_else(unknown)?),
        false => None,
    };
    let to = match &exit {
        Some(exit) => exit.resolved(),
        None => {
            let service = table.bundle.services.get(name).ok_or_else(unknown)?;
            Resolved { service, port: backend.port, endpoint: None, outside: false }
        }
    };
    let mut plan = plan_connection(&to)?;
    (plan.route, plan.exit) = (Some(met.route), exit);
    Ok(plan)
}
