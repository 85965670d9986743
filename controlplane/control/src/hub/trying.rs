//! Filters are tried with their configuration before anything is changed: what no proxy could run is refused where it is
//! written, and not by each proxy on its own, of which the new ones would never become ready.

use std::collections::BTreeMap;

use weft_policy::bundle::FilterAttachment;
use weft_policy::lint::{Code, Finding, Severity};
use weft_policy::plan::{Action, Change, Entry, World, attachment};
use weft_policy::resource::{FilterPolicySpec, Kind, ObjectKey, Spec as _};

use super::{ApplyError, Hub};
use crate::trial::Outcome;

/// A configuration of more bytes is refused: every proxy that it holds for is sent it.
const MAX_CONFIG: usize = 256 << 10;

/// Policies with the filter that each of them asks for.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Asked(BTreeMap<ObjectKey, FilterAttachment>);

impl Asked {
    /// The filters that policies ask for after `changes`, and did not before.
    pub(super) fn between(before: &World, after: &World, changes: &[Change]) -> Self {
        let made = changes.iter().filter(|change| !matches!(change.action, Action::Unchanged | Action::Deleted));
        let mut policies = Vec::new();
        for key in made.map(|change| &change.object) {
            match key.kind {
                Kind::FilterPolicy | Kind::RateLimitPolicy | Kind::FaultPolicy | Kind::JwtPolicy => {
                    policies.push(key.clone());
                }
                Kind::Filter => policies.extend(of_filter(after, key)),
                Kind::Secret => policies.extend(of_secret(after, key)),
                Kind::Namespace
                | Kind::Mesh
                | Kind::FilterPublisher
                | Kind::Service
                | Kind::Workload
                | Kind::ReferenceGrant
                | Kind::HttpRoute
                | Kind::GrpcRoute
                | Kind::TlsRoute
                | Kind::TcpRoute
                | Kind::AccessPolicy
                | Kind::PolicyTemplate
                | Kind::ExternalService
                | Kind::TrafficPolicy => {}
            }
        }
        let with = |key: ObjectKey| attachment(after, &key).map(|asked| (key, asked));
        let new = |(key, asked): &(ObjectKey, FilterAttachment)| attachment(before, key).as_ref() != Some(asked);
        Self(policies.into_iter().filter_map(with).filter(new).collect())
    }

    /// Those policies as they are in a world.
    fn in_world(&self, world: &World) -> Self {
        Self(self.0.keys().filter_map(|key| Some((key.clone(), attachment(world, key)?))).collect())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// True where all of this was asked in `other`.
    pub(super) fn is_within(&self, other: &Self) -> bool {
        self.0.iter().all(|(key, asked)| other.0.get(key) == Some(asked))
    }
}

/// The policies that run whatever a Filter stands for.
fn of_filter(world: &World, filter: &ObjectKey) -> Vec<ObjectKey> {
    world.users(&filter.object_name(), None).map(|policy| policy.key()).collect()
}

/// The policies whose filters are handed values of a Secret.
fn of_secret<'w>(world: &'w World, secret: &ObjectKey) -> impl Iterator<Item = ObjectKey> + 'w {
    let name = secret.name.clone();
    let near = world.within(Kind::FilterPolicy, &secret.namespace);
    let is_user = move |entry: &Entry| {
        FilterPolicySpec::of(&entry.resource).is_some_and(|policy| policy.spec.names_secret(&name))
    };
    near.filter(move |(_, entry)| is_user(entry)).map(|(key, _)| key.clone())
}

impl Hub {
    /// Tries them; gives what is worth saying, refusals as errors. With `known_only` nothing is run: what is not known yet
    /// is left out.
    pub(super) async fn tried(&self, asked: &Asked, known_only: bool) -> Result<Vec<Finding>, ApplyError> {
        let mut problems = Vec::new();
        let mut by_digest = BTreeMap::<&str, Vec<(&ObjectKey, &FilterAttachment)>>::new();
        for (object, attachment) in &asked.0 {
            if attachment.config.0.len() > MAX_CONFIG {
                let reason = format!("{} bytes; at most {MAX_CONFIG} are taken", attachment.config.0.len());
                problems.extend(problem(object, Outcome::Refused { key: "spec.config", reason }));
            } else {
                by_digest.entry(&attachment.digest).or_default().push((object, attachment));
            }
        }
        if !self.config().try_filters {
            return Ok(problems);
        }
        for (digest, group) in by_digest {
            let known = group.iter().map(|(_, attachment)| self.trials.known(attachment));
            let mut found: Vec<Option<Outcome>> = known.collect();
            if !known_only && found.iter().any(Option::is_none) {
                // A filter that is not published is a problem that the planner names.
                let Some(wasm) = self.artifact(digest.to_owned()).await? else { continue };
                let attachments = group.iter().map(|(_, attachment)| (*attachment).clone()).collect();
                let tried = self.trials.attempt(attachments, wasm, self.config().request_timeout()).await;
                found = tried.ok_or(ApplyError::Trying)?.into_iter().map(Some).collect();
            }
            let told = group.iter().zip(found).filter_map(|((object, _), finding)| problem(object, finding?));
            problems.extend(told);
        }
        Ok(problems)
    }

    /// As `tried`; what was refused already, as the world was `before`, is no reason to refuse a change now.
    pub(super) async fn tried_against(&self, asked: &Asked, before: &World) -> Result<Vec<Finding>, ApplyError> {
        let mut problems = self.tried(asked, false).await?;
        if problems.iter().any(is_error) {
            let earlier = self.tried(&asked.in_world(before), false).await?;
            for problem in problems.iter_mut().filter(|problem| is_error(problem)) {
                if earlier.iter().any(|was| is_error(was) && was.object == problem.object) {
                    problem.severity = Severity::Warning;
                }
            }
        }
        Ok(problems)
    }
}

/// Refuses what holds an error; otherwise gives what else is worth saying.
pub(super) fn unless_refused(problems: Vec<Finding>) -> Result<Vec<Finding>, ApplyError> {
    let (errors, rest): (Vec<_>, Vec<_>) = problems.into_iter().partition(is_error);
    if errors.is_empty() { Ok(rest) } else { Err(ApplyError::Unsound(errors)) }
}

fn is_error(problem: &Finding) -> bool {
    problem.severity == Severity::Error
}

fn problem(object: &ObjectKey, outcome: Outcome) -> Option<Finding> {
    let (code, severity, key, message) = match outcome {
        Outcome::Fine => return None,
        Outcome::Refused { key, reason } => (Code::PolicyRefused, Severity::Error, key, reason),
        Outcome::Untried(reason) => (Code::PolicyUntried, Severity::Note, "spec.config", reason),
    };
    // A typed policy does not write what its filter is told.
    let key = if object.kind == Kind::FilterPolicy { key } else { "spec" };
    Some(Finding { code, severity, object: object.clone(), key: key.to_owned(), message })
}
