//! Findings about the objects as they are, and as they would be with more. Only reads; the writer is never waited for.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, Json};
use weft_api::{Lint, LintQuery, LintRequest};
use weft_policy::bundle::Revision;
use weft_policy::lint::{Finding, Scope, check};
use weft_policy::plan::{Owner, World, losses};
use weft_policy::resource::{Kind, ObjectKey};

use super::objects::{OBJECT, bounded, parse_documents, within_reach};
use super::{Access, ApiError, Body, Caller, Endpoint, Query};
use crate::access::Verb;
use crate::hub::{ApplyError, Hub, unprotects};

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::get(
            "/api/v1/lint",
            Access::Each(Verb::Read, OBJECT),
            "Findings about all objects, or about one",
            axum::routing::get(lint),
        )
        .described(|it| it.query::<LintQuery>().answers::<Lint>()),
        Endpoint::post(
            "/api/v1/lint",
            Access::Each(Verb::Read, OBJECT),
            "Findings about all objects as they would be with these documents",
            axum::routing::post(lint_with),
        )
        .described(|it| it.takes::<LintRequest>().answers::<Lint>()),
    ]
}

async fn lint(
    State(hub): State<Arc<Hub>>,
    Extension(caller): Extension<Caller>,
    Query(query): Query<LintQuery>,
) -> Result<Json<Lint>, ApiError> {
    let kind = query.kind.map(|text| text.parse::<Kind>()).transpose();
    let kind = kind.map_err(|error| ApiError::invalid(format!("kind: {error}")))?;
    let asking = caller.clone();
    let (revision, findings) =
        hub.plan(&caller.token_id, move |published| (published.revision, findings(&asking, &published.world))).await?;
    let is_meant = |finding: &&Finding| {
        let ObjectKey { kind: of, namespace, name } = &finding.object;
        kind.is_none_or(|kind| kind == *of)
            && query.namespace.as_ref().is_none_or(|wanted| wanted == namespace)
            && query.name.as_ref().is_none_or(|wanted| wanted == name)
    };
    Ok(Json(report(&caller, revision, findings.iter().filter(is_meant))))
}

async fn lint_with(
    State(hub): State<Arc<Hub>>,
    Extension(caller): Extension<Caller>,
    Body(request): Body<LintRequest>,
) -> Result<Json<Lint>, ApiError> {
    let documents = bounded(&hub, request.documents)?;
    let given = hub.plan(&caller.token_id, |_| parse_documents(documents)).await??;
    within_reach(&caller, Verb::Read, &given.documents)?;
    let asking = caller.clone();
    let planned = hub.plan(&caller.token_id, move |published| {
        let mut after = World::clone(&published.world);
        for resource in given.resources {
            after.put(&Owner::Applied, resource, Revision(published.revision.0 + 1), "")?;
        }
        let mut findings = findings(&asking, &after);
        findings.extend(losses(&published.world, &after).iter().map(unprotects));
        Ok::<_, ApplyError>((published.revision, findings))
    });
    let (revision, findings) = planned.await??;
    Ok(Json(report(&caller, revision, findings.iter())))
}

/// Findings about a world, by what the caller may read of it.
fn findings(caller: &Caller, world: &World) -> Vec<Finding> {
    match caller.part_of(world) {
        None => check(world, Scope::Whole),
        Some(part) => check(&part, Scope::Part),
    }
}

/// Findings about objects that the caller may read.
fn report<'f>(caller: &Caller, revision: Revision, findings: impl Iterator<Item = &'f Finding>) -> Lint {
    let is_seen = |finding: &&Finding| caller.rights.may_object(Verb::Read, &finding.object).is_ok();
    Lint { revision: revision.0, findings: findings.filter(is_seen).map(Into::into).collect() }
}
