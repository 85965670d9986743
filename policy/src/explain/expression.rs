//! What rules of expressions make of a request, as far as it follows from what was asked: the same engine that the
//! filter `expr` wraps.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::bundle::{FilterAttachment, FilterMode};
use crate::cel::{Compiled, Config, End, Rules, Told};
use crate::identity::SpiffeId;
use crate::path::NormalPath;

/// A request as it reaches a workload, before any filter has changed it.
pub(super) struct Head<'a> {
    pub(super) principal: &'a SpiffeId,
    pub(super) method: &'a str,
    pub(super) path: &'a NormalPath,
    pub(super) port: u16,
    /// Names in lower case.
    pub(super) headers: &'a BTreeMap<String, &'a str>,
}

const HEADER: &str = "request.header.";

impl Told for Head<'_> {
    fn value(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        if let Some(header) = name.strip_prefix(HEADER) {
            return self.headers.get(header).map(|value| Cow::Borrowed(value.as_bytes()));
        }
        let text = match name {
            "request.method" => Cow::Borrowed(self.method),
            "request.path" => self.path.standard(),
            "source.principal" => Cow::Borrowed(self.principal.as_str()),
            "source.namespace" => Cow::Borrowed(self.principal.namespace()),
            "source.service-account" => Cow::Borrowed(self.principal.service_account()),
            "destination.port" => Cow::Owned(self.port.to_string()),
            "request.query" => self.path.query_text()?,
            "request.path.ambiguous" => Cow::Borrowed(if self.path.is_ambiguous() { "true" } else { "false" }),
            "direction" => Cow::Borrowed("inbound"),
            _ => return None,
        };
        Some(match text {
            Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
            Cow::Owned(text) => Cow::Owned(text.into_bytes()),
        })
    }
}

/// Names of values that a question says nothing of.
fn unknown<'r>(rules: &'r Rules, head: &Head<'_>) -> Vec<&'r str> {
    // Of headers and a query it is known that there are none.
    let is_known = |name: &str| name.starts_with(HEADER) || name == "request.query" || head.value(name).is_some();
    rules.told().into_iter().filter(|name| !is_known(name)).collect()
}

/// The name of a filter, of rules of expressions with what they make of the request; true where it answers in the place of
/// the app.
pub(super) fn told(filter: &FilterAttachment, head: Option<&Head<'_>>) -> (String, bool) {
    let words = head.filter(|_| filter.filter == "expr").and_then(|head| words(filter, head));
    match (words, filter.mode) {
        (None, _) => (filter.name.clone(), false),
        (Some((words, answers)), FilterMode::Enforce) => (format!("{} ({words})", filter.name), answers),
        (Some((words, _)), FilterMode::Audit) => (format!("{} (audit: {words})", filter.name), false),
    }
}

/// What rules make of the request, and whether they answer it.
fn words(filter: &FilterAttachment, head: &Head<'_>) -> Option<(String, bool)> {
    let config: Config<Compiled> = serde_json::from_str(&filter.config.0).ok()?;
    let rules = Rules::new(config).ok()?;
    let unknown = unknown(&rules, head);
    if !unknown.is_empty() {
        return Some((format!("not asked here: it reads {}", unknown.join(", ")), false));
    }
    let decision = rules.decide(head);
    let words = match &decision.end {
        End::Pass if decision.edits.is_empty() => "lets it pass".to_owned(),
        End::Pass => format!("lets it pass, with headers changed by {}", decision.held.join(", ")),
        End::Deny { rule, status, .. } => {
            format!(
                "denied by {}: {status}",
                rule.map_or_else(|| "default".to_owned(), |rule| format!("its rule {rule}"))
            )
        }
        End::Respond { rule, status, .. } => format!("answered by its rule {rule}: {status}"),
        End::Failed { rule } => format!("denied: its rule {rule} can't be evaluated"),
    };
    Some((words, !matches!(decision.end, End::Pass)))
}
