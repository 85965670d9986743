//! Snapshots: everything that the control plane is, as a file, and the way back.

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, Request, State};
use axum::{Extension, Json};
use http::{HeaderName, HeaderValue, header};
use weft_api::{RestoreQuery, Restored, SnapshotAbout};

use super::{Access, ApiError, Caller, Endpoint, Query};
use crate::access::{Thing, Verb};
use crate::hub::Hub;
use crate::snapshot::archive::ArchiveError;
use crate::snapshot::{About, SnapshotError};

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::get(
            "/api/v1/snapshot",
            Access::Mesh(Verb::Read, Thing::Snapshot),
            "The store, the authority's keys and the tokens as one archive: whoever has it is this control plane",
            axum::routing::get(save),
        )
        .described(|it| it.answers_bytes("application/octet-stream")),
        Endpoint::post(
            "/api/v1/snapshot",
            Access::Mesh(Verb::Change, Thing::Snapshot),
            "Restores an archive that is whole, raises the epoch so that proxies follow, and starts the control plane again",
            // The handler has its own limit, which is that of a snapshot.
            axum::routing::post(restore).layer(DefaultBodyLimit::disable()),
        )
        .described(|it| {
            it.query::<RestoreQuery>().takes_bytes("application/octet-stream").answers::<Restored>()
        }),
    ]
}

type Download = ([(HeaderName, HeaderValue); 1], Vec<u8>);

async fn save(State(hub): State<Arc<Hub>>, Extension(caller): Extension<Caller>) -> Result<Download, ApiError> {
    let bytes = hub.save_snapshot(caller.actor()).await?;
    Ok(([(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"))], bytes))
}

async fn restore(
    State(hub): State<Arc<Hub>>,
    Extension(caller): Extension<Caller>,
    Query(query): Query<RestoreQuery>,
    request: Request,
) -> Result<Json<Restored>, ApiError> {
    let limit = hub.config().limits.max_snapshot_bytes;
    let bytes = axum::body::to_bytes(request.into_body(), limit).await.map_err(|error| {
        let reason = crate::chain(&error);
        if reason.contains("length limit") {
            ApiError::too_large(format!("a snapshot may have at most {limit} bytes: limits.max_snapshot_bytes"))
        } else {
            ApiError::invalid(format!("the body could not be read: {reason}"))
        }
    })?;
    let (about, lineage) = hub.restore_snapshot(caller.actor(), bytes.into(), query.replace_authority).await?;
    let About { version, trust_domain, store, epoch, revision, root, created_unix } = about;
    let restored = SnapshotAbout { version, trust_domain, store, epoch, revision, root, created_unix };
    Ok(Json(Restored { restored, store: lineage.store, epoch: lineage.epoch, restarts: true }))
}

impl From<SnapshotError> for ApiError {
    fn from(error: SnapshotError) -> Self {
        let reason = format!("{}; nothing was changed", crate::chain(&error));
        match error {
            SnapshotError::Archive(ArchiveError::TooLarge(_)) => Self::too_large(reason),
            SnapshotError::Archive(_) | SnapshotError::Missing(_) | SnapshotError::Strange(_) => Self::invalid(reason),
            SnapshotError::TrustDomain { .. }
            | SnapshotError::OtherAuthority { .. }
            | SnapshotError::Authority(_)
            | SnapshotError::Shared
            | SnapshotError::WouldNotStart(_) => Self::refused(reason),
            SnapshotError::Underway | SnapshotError::Changing | SnapshotError::KeyElsewhere { .. } => {
                Self::conflict(reason)
            }
            SnapshotError::File { .. } | SnapshotError::Store(_) => Self::unavailable(reason),
        }
    }
}
