//! The matches of a service's routes, decoded and compiled, in the order in which they are asked: the first that holds decides.

use std::cmp::Reverse;
use std::sync::Arc;

use super::index::Place;
use super::pattern::{Pattern, Patterns};
use super::query::QueryReading;
use super::{HOST, HeadView};
use crate::bundle::{FieldMatch, PathMatch, Route, RouteKind, RouteMatch, RpcMatch};
use crate::host::plain;
use crate::path;

/// One match of one rule of one route.
#[derive(Debug)]
pub(super) struct Candidate {
    /// Indexes into the routes of the service, its rules, and the rule's matches.
    pub(super) route: usize,
    pub(super) rule: usize,
    /// `None`: the rule has no matches and holds for all.
    matching: Option<usize>,
    path: PathTest,
    method: Option<String>,
    headers: Vec<(String, TextTest)>,
    /// Of the host that is asked for, without a port, in lower case and without a dot at its end.
    host: Option<TextTest>,
    query: Vec<(String, TextTest)>,
}

/// A request as one server may read it.
#[derive(Clone, Copy)]
pub(super) struct Read<'r, 'h> {
    pub(super) head: &'r HeadView<'h>,
    /// Decoded.
    pub(super) path: &'r [u8],
    pub(super) query: QueryReading,
}

/// A `PathMatch`, decoded as the readings are that it is compared with.
#[derive(Debug)]
enum PathTest {
    Any,
    Exact(Vec<u8>),
    /// Without the slash at its end.
    Prefix(Vec<u8>),
    Regex(Arc<Pattern>),
    /// The service and the method of a call.
    Rpc(Option<TextTest>, Option<TextTest>),
}

#[derive(Debug)]
enum TextTest {
    Exact(String),
    Regex(Arc<Pattern>),
}

impl Candidate {
    /// All of one route, in the order written.
    pub(super) fn all(number: usize, route: &Route, patterns: &mut Patterns) -> Vec<Self> {
        let mut all = Vec::new();
        for (index, rule) in route.rules.iter().enumerate() {
            if rule.matches.is_empty() {
                all.push(Self::new(number, index, None, patterns));
            }
            for matching in rule.matches.iter().enumerate() {
                all.push(Self::new(number, index, Some(matching), patterns));
            }
        }
        all
    }

    fn new(route: usize, rule: usize, matching: Option<(usize, &RouteMatch)>, patterns: &mut Patterns) -> Self {
        let spec = matching.map(|(_, spec)| spec);
        let path = PathTest::of(spec.and_then(|spec| spec.path.as_ref()), patterns);
        let mut tests = |fields: &[FieldMatch]| -> Vec<_> {
            fields.iter().map(|it| (it.name.clone(), TextTest::of(it, patterns))).collect()
        };
        let mut headers = spec.map(|spec| tests(&spec.headers)).unwrap_or_default();
        let host = headers.iter().position(|(name, _)| name == HOST).map(|at| headers.remove(at).1);
        Self {
            route,
            rule,
            matching: matching.map(|(index, _)| index),
            path,
            method: spec.and_then(|spec| spec.method.clone()),
            headers,
            host,
            query: spec.map(|spec| tests(&spec.query)).unwrap_or_default(),
        }
    }

    pub(super) fn holds(&self, read: &Read<'_, '_>) -> bool {
        let Read { head, path, query } = *read;
        self.path.holds(path)
            && self.method.as_ref().is_none_or(|method| method == head.method)
            && self.headers.iter().all(|(name, test)| (head.headers)(name).is_some_and(|it| test.holds(it.as_bytes())))
            && self.host.as_ref().is_none_or(|test| head.host.is_some_and(|it| test.holds(plain(it).as_bytes())))
            && self.query.iter().all(|(name, test)| {
                let value = head.path.query().and_then(|text| query.value(text, name));
                value.is_some_and(|value| test.holds(&value))
            })
    }

    pub(super) fn looks_at_query(&self) -> bool {
        !self.query.is_empty()
    }

    pub(super) fn looks_at_fields(&self) -> bool {
        !self.headers.is_empty()
    }

    pub(super) fn looks_at_method(&self) -> bool {
        self.method.is_some()
    }

    /// The paths for which it may hold, or more.
    pub(super) fn place(&self) -> Place<'_> {
        self.path.place()
    }

    /// Smaller comes first. The layer of the route; exact path, regular expression, longest prefix, or longest service and
    /// method of a call; method, number of headers, of query parameters; then the oldest route, then its name, then the order
    /// written.
    pub(super) fn precedence(&self, route: &Route) -> impl Ord + use<> {
        let length = |test: &Option<TextTest>| test.as_ref().map_or(0, TextTest::len);
        let path = match &self.path {
            PathTest::Exact(_) => (2, 0, 0),
            // The standard leaves it open: an expression says more than a prefix.
            PathTest::Regex(pattern) => (1, pattern.len(), 0),
            PathTest::Prefix(prefix) => (0, prefix.len(), 0),
            PathTest::Rpc(service, method) => (0, length(service), length(method)),
            PathTest::Any => (0, 0, 0),
        };
        let headers = self.headers.len() + usize::from(self.host.is_some());
        let conditions = (path, self.method.is_some(), headers, self.query.len());
        (layer(route), Reverse(conditions), (route.created, route.name.clone()), (self.rule, self.matching))
    }
}

/// Routes that hold for one request are all of one layer: the smallest that there is. A consumer's come instead of the
/// producer's, and those of one kind instead of the others.
pub(super) fn layer(route: &Route) -> (bool, RouteKind) {
    (route.consumer_namespace.is_none(), route.kind)
}

impl PathTest {
    fn of(path: Option<&PathMatch>, patterns: &mut Patterns) -> Self {
        let decode = |text: &str| path::decode(text).into_owned();
        match path {
            None => Self::Any,
            Some(PathMatch::Exact(path)) => Self::Exact(decode(path)),
            Some(PathMatch::Prefix(prefix)) => Self::Prefix(decode(prefix.trim_end_matches('/'))),
            Some(PathMatch::Regex(text)) => Self::Regex(patterns.of(text)),
            Some(PathMatch::Rpc(RpcMatch { service, method, regex })) => {
                let mut test = |text: &Option<String>| text.as_ref().map(|text| TextTest::new(text, *regex, patterns));
                Self::Rpc(test(service), test(method))
            }
        }
    }

    fn place(&self) -> Place<'_> {
        let text = |test: &TextTest| match test {
            TextTest::Exact(text) => Some([b"/".as_slice(), text.as_bytes()].concat()),
            TextTest::Regex(_) => None,
        };
        match self {
            Self::Any | Self::Rpc(None, None) => Place::All,
            Self::Exact(path) => Place::Exact(path.as_slice().into()),
            Self::Prefix(path) => Place::Under(path.as_slice().into()),
            Self::Regex(_) | Self::Rpc(None, Some(_)) => Place::Unknown,
            Self::Rpc(Some(service), method) => match (text(service), method.as_ref().and_then(text)) {
                (Some(service), Some(method)) => Place::Exact([service, method].concat().into()),
                (Some(service), None) => Place::Under(service.into()),
                (None, _) => Place::Unknown,
            },
        }
    }

    fn holds(&self, path: &[u8]) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(exact) => exact == path,
            Self::Prefix(prefix) => {
                path.strip_prefix(prefix.as_slice()).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
            }
            Self::Regex(pattern) => pattern.holds(path),
            Self::Rpc(service, method) => {
                let holds = |test: &Option<TextTest>, text: &[u8]| test.as_ref().is_none_or(|test| test.holds(text));
                call(path).is_some_and(|(own, called)| holds(service, own) && holds(method, called))
            }
        }
    }
}

/// The service and the method that a path calls, where it has the two elements that gRPC gives it.
fn call(path: &[u8]) -> Option<(&[u8], &[u8])> {
    let path = path.strip_prefix(b"/")?;
    let (service, method) = path.split_at(path.iter().position(|byte| *byte == b'/')?);
    let method = &method[1..];
    (!service.is_empty() && !method.is_empty() && !method.contains(&b'/')).then_some((service, method))
}

impl TextTest {
    fn of(field: &FieldMatch, patterns: &mut Patterns) -> Self {
        Self::new(&field.value, field.regex, patterns)
    }

    fn new(text: &str, is_regex: bool, patterns: &mut Patterns) -> Self {
        if is_regex { Self::Regex(patterns.of(text)) } else { Self::Exact(text.to_owned()) }
    }

    fn len(&self) -> usize {
        match self {
            Self::Exact(text) => text.len(),
            Self::Regex(pattern) => pattern.len(),
        }
    }

    fn holds(&self, value: &[u8]) -> bool {
        match self {
            Self::Exact(exact) => exact.as_bytes() == value,
            Self::Regex(pattern) => pattern.holds(value),
        }
    }
}
