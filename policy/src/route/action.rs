//! The actions of a route's rules and backends, compiled once for each snapshot.

use std::sync::Arc;
use std::time::Duration;

use http::header::{HeaderMap, HeaderName, HeaderValue};

use super::cors::Sharing;
use crate::bundle::{Cors, HeaderModifier, Persistence, Redirect, Retry, Rewrite, RouteAction, RouteRule};

/// The actions of one rule and of each of its backends.
#[derive(Debug, Default)]
pub(super) struct RuleActions {
    pub(super) rule: Actions,
    pub(super) backends: Vec<Actions>,
    refuses: Refuses,
}

/// Which of the requests that a rule holds for no backend takes: they are answered 500, where it does not redirect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Refuses {
    #[default]
    None,
    Some,
    All,
}

impl Refuses {
    fn of(rule: &RouteRule) -> Self {
        let weighed = rule.backends.iter().filter(|backend| backend.weight > 0);
        let (all, leading) =
            weighed.fold((0, 0), |(all, leading), backend| (all + 1, leading + usize::from(backend.service.is_some())));
        match leading {
            0 => Self::All,
            some if some < all => Self::Some,
            _ => Self::None,
        }
    }
}

impl RuleActions {
    pub(super) fn of(rule: &RouteRule) -> Self {
        let backends = rule.backends.iter().map(|backend| Actions::of(&backend.actions)).collect();
        Self { rule: Actions::of(&rule.actions), backends, refuses: Refuses::of(rule) }
    }

    /// True where two rules differ in nothing but where they send requests: one that refuses them is not passed by.
    pub(super) fn treats_alike(&self, other: &Self) -> bool {
        let carried = |by: &Self, actions: &Actions| *actions == Actions::default() || by.backends.contains(actions);
        let within = |a: &Self, b: &Self| a.backends.iter().all(|actions| carried(b, actions));
        self.rule == other.rule && self.refuses == other.refuses && within(self, other) && within(other, self)
    }
}

/// Actions of a rule or a backend, ready to be taken.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Actions {
    edits: Vec<HeaderEdit>,
    answer_edits: Arc<[HeaderEdit]>,
    pub(super) rewrite: Rewrite,
    pub(super) redirect: Option<Redirect>,
    pub(super) cors: Option<Arc<Cors>>,
    /// `Some(None)`: no deadline, whatever the mesh's is.
    timeout: Option<Option<Duration>>,
    /// The same for each attempt.
    attempt_timeout: Option<Option<Duration>>,
    /// `None`: as the service's.
    pub(super) retry: Option<Retry>,
    pub(super) persistence: Option<Persistence>,
}

impl Actions {
    fn of(actions: &[RouteAction]) -> Self {
        let (mut compiled, mut answer_edits) = (Self::default(), Vec::new());
        for action in actions {
            match action {
                RouteAction::RequestHeaders(modifier) => compiled.edits.push(HeaderEdit::of(modifier)),
                RouteAction::ResponseHeaders(modifier) => answer_edits.push(HeaderEdit::of(modifier)),
                RouteAction::Rewrite(rewrite) => compiled.rewrite = rewrite.clone(),
                RouteAction::Redirect(redirect) => compiled.redirect = Some(redirect.clone()),
                RouteAction::Cors(cors) => compiled.cors = Some(Arc::new(cors.clone())),
                // Nothing of them changes the request.
                RouteAction::Mirror(_) => {}
                RouteAction::RequestTimeoutMs(ms) => compiled.timeout = Some(deadline(Some(*ms))),
                RouteAction::AttemptTimeoutMs(ms) => compiled.attempt_timeout = Some(deadline(Some(*ms))),
                RouteAction::Retry(retry) => compiled.retry = Some(retry.clone()),
                RouteAction::Persistence(persistence) => compiled.persistence = Some(persistence.clone()),
            }
        }
        compiled.answer_edits = answer_edits.into();
        compiled
    }

    /// Changes the header of one attempt.
    pub(super) fn edit(&self, headers: &mut HeaderMap) {
        self.edits.iter().for_each(|edit| edit.apply(headers));
    }

    pub(super) fn edits(&self) -> bool {
        !self.edits.is_empty()
    }

    pub(super) fn answer_edits(&self) -> Arc<[HeaderEdit]> {
        Arc::clone(&self.answer_edits)
    }

    /// True where they say it.
    pub(super) fn sets(&self, setting: Setting) -> bool {
        match setting {
            Setting::RequestTimeout => self.timeout.is_some(),
            Setting::AttemptTimeout => self.attempt_timeout.is_some(),
            Setting::Retry => self.retry.is_some(),
        }
    }

    /// The deadline of an exchange, where that of others is `else_ms`.
    pub(super) fn timeout(&self, else_ms: Option<u64>) -> Option<Duration> {
        self.timeout.unwrap_or_else(|| deadline(else_ms))
    }

    /// The same of each attempt.
    pub(super) fn attempt_timeout(&self, else_ms: Option<u64>) -> Option<Duration> {
        self.attempt_timeout.unwrap_or_else(|| deadline(else_ms))
    }
}

/// A setting of a request's way that a rule, its service's TrafficPolicy or the mesh may say, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Setting {
    RequestTimeout,
    AttemptTimeout,
    Retry,
}

/// None where none is meant.
pub(super) fn deadline(ms: Option<u64>) -> Option<Duration> {
    ms.filter(|ms| *ms > 0).map(Duration::from_millis)
}

/// Changes of an answer's header, the backend's first: it is the nearer to who answered. Which origin may read it is said last.
/// They outlive the configuration that they are of.
#[derive(Debug, Clone, Default)]
pub struct AnswerEdits {
    edits: [Arc<[HeaderEdit]>; 2],
    sharing: Option<Sharing>,
}

impl AnswerEdits {
    /// Of a rule, and of the backend that was chosen.
    pub(super) fn of(actions: [Option<&Actions>; 2], sharing: Option<Sharing>) -> Self {
        Self { edits: actions.map(|actions| actions.map(Actions::answer_edits).unwrap_or_default()), sharing }
    }

    pub fn apply(&self, headers: &mut HeaderMap) {
        self.edits.iter().rev().flat_map(|edits| edits.iter()).for_each(|edit| edit.apply(headers));
        self.sharing.iter().for_each(|sharing| sharing.apply(headers));
    }
}

/// Changes of header fields: set, then add, then remove.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct HeaderEdit {
    set: Vec<(HeaderName, HeaderValue)>,
    add: Vec<(HeaderName, HeaderValue)>,
    remove: Vec<HeaderName>,
}

impl HeaderEdit {
    /// Names and values were checked where they came in; one that is not fit for a header is left out.
    fn of(modifier: &HeaderModifier) -> Self {
        let field = |(name, value): &(String, String)| {
            Some((HeaderName::try_from(name.as_str()).ok()?, HeaderValue::try_from(value.as_str()).ok()?))
        };
        Self {
            set: modifier.set.iter().filter_map(field).collect(),
            add: modifier.add.iter().filter_map(field).collect(),
            remove: modifier.remove.iter().filter_map(|name| HeaderName::try_from(name.as_str()).ok()).collect(),
        }
    }

    fn apply(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.set {
            headers.insert(name, value.clone());
        }
        for (name, value) in &self.add {
            headers.append(name, value.clone());
        }
        for name in &self.remove {
            headers.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_modifiers() {
        let pairs = |list: &[(&str, &str)]| list.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let modifier = HeaderModifier {
            set: pairs(&[("x-set", "new"), ("bad name", "x")]),
            add: pairs(&[("x-add", "2"), ("x-other", "bad\nvalue")]),
            remove: vec!["x-gone".to_owned(), "never there".to_owned()],
        };
        let mut headers = HeaderMap::new();
        for (name, value) in [("x-set", "old"), ("x-set", "older"), ("x-add", "1"), ("x-gone", "1")] {
            headers.append(name, value.parse().unwrap());
        }
        Actions::of(&[RouteAction::RequestHeaders(modifier)]).edit(&mut headers);
        let mut got: Vec<_> =
            headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        got.sort();
        assert_eq!(got, ["x-add: 1", "x-add: 2", "x-set: new"]);
    }

    #[test]
    fn answers_are_changed_by_the_backend_and_then_by_the_rule() {
        let set = |value: &str| HeaderModifier {
            set: vec![("x-by".to_owned(), value.to_owned())],
            ..HeaderModifier::default()
        };
        let add = HeaderModifier { add: vec![("x-seen".to_owned(), "1".to_owned())], ..HeaderModifier::default() };
        let rule =
            Actions::of(&[RouteAction::ResponseHeaders(set("rule")), RouteAction::RequestHeaders(set("request"))]);
        let backend = Actions::of(&[RouteAction::ResponseHeaders(set("backend")), RouteAction::ResponseHeaders(add)]);
        let check = |actions, expect: &str| {
            let mut headers = HeaderMap::new();
            AnswerEdits::of(actions, None).apply(&mut headers);
            let mut got: Vec<_> =
                headers.iter().map(|(name, value)| format!("{name}={}", value.to_str().unwrap())).collect();
            got.sort();
            assert_eq!(got.join(" "), expect);
        };
        check([Some(&rule), Some(&backend)], "x-by=rule x-seen=1");
        check([None, Some(&backend)], "x-by=backend x-seen=1");
        check([Some(&rule), None], "x-by=rule");
        check([None, None], "");
    }

    #[test]
    fn a_rules_deadline_comes_before_the_meshs() {
        let check = |actions: &[RouteAction], mesh_ms, expect| {
            assert_eq!(Actions::of(actions).timeout(mesh_ms), expect, "{actions:?}");
        };
        check(&[], None, None);
        check(&[], Some(0), None);
        check(&[], Some(7), Some(Duration::from_millis(7)));
        check(&[RouteAction::RequestTimeoutMs(5)], Some(7), Some(Duration::from_millis(5)));
        check(&[RouteAction::RequestTimeoutMs(0)], Some(7), None);
    }
}
