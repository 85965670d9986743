//! The authority: whom the mesh trusts, and how far the replacement of a root is.

use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, Json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use weft_api::{
    Authority, AuthorityReplica, FinishRequest, InstallRequest, Root, RotateRequest, RotationLeft, Signer,
    SigningRequest,
};

use super::{Access, ApiError, Body, Caller, Endpoint};
use crate::access::{Thing, Verb};
use crate::ca::{AuthorityError, RotateError};
use crate::hub::{Hub, Left, ReplicaRoot, Rotation, RotationError};

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::get(
            "/api/v1/authority",
            Access::Mesh(Verb::Read, Thing::Authority),
            "The roots that the mesh trusts, and what still needs one that is being replaced",
            axum::routing::get(show),
        )
        .described(|it| it.answers::<Authority>()),
        Endpoint::post(
            "/api/v1/authority/rotate",
            Access::Mesh(Verb::Change, Thing::Authority),
            "Replaces the root, which is trusted on until nothing needs it, or the intermediate",
            axum::routing::post(rotate),
        )
        .described(|it| it.takes::<RotateRequest>().answers::<Authority>()),
        Endpoint::post(
            "/api/v1/authority/finish",
            Access::Mesh(Verb::Change, Thing::Authority),
            "Trusts the old root no more; with force also where something needs it, which is cut off",
            axum::routing::post(finish),
        )
        .described(|it| it.takes::<FinishRequest>().answers::<Authority>()),
        Endpoint::post(
            "/api/v1/authority/request",
            Access::Mesh(Verb::Change, Thing::Authority),
            "A signing request for the next intermediate, to be signed by a root that lies elsewhere",
            axum::routing::post(request),
        )
        .described(|it| it.answers::<SigningRequest>()),
        Endpoint::post(
            "/api/v1/authority/install",
            Access::Mesh(Verb::Change, Thing::Authority),
            "Takes the intermediate that was asked for, as it was signed, with its root: that takes over",
            axum::routing::post(install),
        )
        .described(|it| it.takes::<InstallRequest>().answers::<Authority>()),
    ]
}

async fn request(
    State(hub): State<Arc<Hub>>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<SigningRequest>, ApiError> {
    Ok(Json(SigningRequest { csr_pem: hub.request_intermediate(caller.actor()).await? }))
}

async fn install(
    State(hub): State<Arc<Hub>>,
    Extension(caller): Extension<Caller>,
    Body(request): Body<InstallRequest>,
) -> Result<Json<Authority>, ApiError> {
    Ok(Json(told(hub.install_chain(caller.actor(), request.chain_pem).await?, &caller)))
}

async fn show(State(hub): State<Arc<Hub>>, Extension(caller): Extension<Caller>) -> Result<Json<Authority>, ApiError> {
    Ok(Json(told(hub.known_rotation().await?, &caller)))
}

async fn rotate(
    State(hub): State<Arc<Hub>>,
    Extension(caller): Extension<Caller>,
    Body(request): Body<RotateRequest>,
) -> Result<Json<Authority>, ApiError> {
    let rotation = match request.signer {
        Signer::Root => hub.rotate_root(caller.actor()).await?,
        Signer::Intermediate => hub.rotate_intermediate(caller.actor()).await?,
    };
    Ok(Json(told(rotation, &caller)))
}

async fn finish(
    State(hub): State<Arc<Hub>>,
    Extension(caller): Extension<Caller>,
    Body(request): Body<FinishRequest>,
) -> Result<Json<Authority>, ApiError> {
    Ok(Json(told(hub.finish_rotation(caller.actor(), request.force).await?, &caller)))
}

fn told(rotation: Rotation, caller: &Caller) -> Authority {
    let Rotation { authorities, left, unknown, replicas } = rotation;
    let root = |(fingerprint, not_after)| Root { fingerprint, not_after: time_of(not_after) };
    Authority {
        root: root(authorities.root),
        previous: authorities.previous.map(root),
        intermediate_not_after: time_of(authorities.intermediate_not_after),
        left: left.map(|left| told_left(left, caller)),
        left_unknown: unknown,
        replicas: replicas.into_iter().map(told_replica).collect(),
    }
}

fn told_replica(replica: ReplicaRoot) -> AuthorityReplica {
    let ReplicaRoot { replica, below, has_key, reason } = replica;
    AuthorityReplica { replica, root: below, has_key, reason: reason.unwrap_or_default() }
}

fn told_left(left: Left, caller: &Caller) -> RotationLeft {
    let seen = left.waiting.iter().filter(|key| caller.sees(Thing::Proxy, key.identity.namespace()));
    let until = left.until_unix.and_then(|unix| OffsetDateTime::from_unix_timestamp(unix).ok());
    RotationLeft {
        waiting: seen.map(ToString::to_string).collect(),
        waiting_count: left.waiting.len() as u64,
        certificates: left.certificates as u64,
        until: until.map(time_of),
    }
}

fn time_of(at: OffsetDateTime) -> String {
    at.format(&Rfc3339).unwrap_or_default()
}

impl From<RotationError> for ApiError {
    fn from(error: RotationError) -> Self {
        match error {
            RotationError::Rotate(RotateError::Underway | RotateError::NotUnderway)
            | RotationError::Needed { .. }
            | RotationError::Behind(_)
            | RotationError::Early
            | RotationError::InDoubt => Self::conflict(error.to_string()),
            RotationError::Shared => Self::refused(error.to_string()),
            RotationError::Unsigned(_) | RotationError::Record(_) => Self::unavailable(error.to_string()),
            RotationError::Rotate(
                RotateError::Chain(_)
                | RotateError::RootElsewhere
                | RotateError::Authority(AuthorityError::RootElsewhere),
            ) => Self::refused(error.to_string()),
            RotationError::Rotate(RotateError::Authority(error)) => Self::unavailable(crate::chain(&error)),
            RotationError::Store(error) => error.into(),
        }
    }
}
