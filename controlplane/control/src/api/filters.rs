//! Publishing filters and listing what is published.

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::{Extension, Json};
use http::HeaderMap;
use utoipa::openapi::Required;
use weft_api::{FilterVersions, Filters, PublishQuery};
use weft_policy::bundle::ObjectName;
use weft_policy::resource::{FilterSpec, Object, ROOT_NAMESPACE};

use super::{Access, ApiError, Caller, Endpoint, Query};
use crate::access::{Thing, Verb};
use crate::artifact::Artifact;
use crate::hub::{FilterVersion, Hub, Publication, PublishError};
use crate::token::Role;

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::post(
            "/api/v1/filters",
            Access::Mesh(Verb::Change, Thing::Filter),
            "Publishes a filter binary; headers weft-signature and weft-public-key carry ed25519 over its sha256, base64",
            // The handler has its own limit, which is that of a filter.
            axum::routing::post(publish).layer(DefaultBodyLimit::disable()),
        )
        .described(|it| {
            it.query::<PublishQuery>()
                .header("weft-signature", "ed25519 over the binary's sha256, base64", Required::True)
                .header("weft-public-key", "the public key, PEM in base64", Required::True)
                .takes_bytes("application/wasm")
                .answers::<weft_api::FilterVersion>()
        }),
        Endpoint::get(
            "/api/v1/filters",
            Access::Mesh(Verb::Read, Thing::Filter),
            "Published filters",
            axum::routing::get(list),
        )
        .described(|it| it.answers::<Filters>()),
        Endpoint::get(
            "/api/v1/filters/{name}",
            Access::Mesh(Verb::Read, Thing::Filter),
            "One filter with all of its versions",
            axum::routing::get(show),
        )
        .described(|it| it.answers::<FilterVersions>()),
    ]
}

async fn publish(
    State(hub): State<Arc<Hub>>,
    Extension(caller): Extension<Caller>,
    Query(query): Query<PublishQuery>,
    request: Request,
) -> Result<Json<weft_api::FilterVersion>, ApiError> {
    if query.accept_new_key && caller.rights.role != Role::Admin {
        return Err(ApiError::forbidden("accept_new_key needs the role admin"));
    }
    let signature = header(request.headers(), "weft-signature")?;
    let key = header(request.headers(), "weft-public-key")?;
    let bytes = binary(request, hub.config().limits.max_filter_bytes).await?;
    let verified = tokio::task::spawn_blocking(move || Artifact::verify(bytes, &signature, &key)).await;
    let verified = verified.map_err(|_| ApiError::internal("the binary could not be inspected"))?;
    let artifact = verified.map_err(|e| ApiError::refused(e.to_string()))?;
    let PublishQuery { name, version, accept_new_key, make_current } = query;
    let publication = Publication { name, version, artifact, accept_new_key, make_current };
    let published = hub.publish_filter(caller.actor(), publication).await?;
    Ok(Json(describe(&hub, &published)))
}

async fn binary(request: Request, limit: usize) -> Result<Vec<u8>, ApiError> {
    let declared =
        request.headers().get(http::header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let too_large = || ApiError::too_large(format!("a filter may have at most {limit} bytes"));
    if declared.is_some_and(|length: usize| length > limit) {
        return Err(too_large());
    }
    match axum::body::to_bytes(request.into_body(), limit).await {
        Ok(bytes) => Ok(bytes.into()),
        Err(error) if crate::chain(&error).contains("length limit") => Err(too_large()),
        Err(error) => Err(ApiError::invalid(format!("the body could not be read: {error}"))),
    }
}

fn header(headers: &HeaderMap, name: &str) -> Result<String, ApiError> {
    let value = headers.get(name).ok_or_else(|| ApiError::invalid(format!("header {name} is missing")))?;
    value.to_str().map(str::to_owned).map_err(|_| ApiError::invalid(format!("header {name} is not text")))
}

async fn list(State(hub): State<Arc<Hub>>) -> Result<Json<Filters>, ApiError> {
    let versions = hub.filter_versions().await.map_err(ApiError::unread)?;
    Ok(Json(Filters { filters: versions.iter().map(|version| describe(&hub, version)).collect() }))
}

async fn show(State(hub): State<Arc<Hub>>, Path(name): Path<String>) -> Result<Json<FilterVersions>, ApiError> {
    let mut versions = hub.filter_versions().await.map_err(ApiError::unread)?;
    versions.retain(|version| version.name == name);
    if versions.is_empty() {
        return Err(ApiError::not_found(format!("no filter {name:?} is published")));
    }
    Ok(Json(FilterVersions { name, versions: versions.iter().map(|version| describe(&hub, version)).collect() }))
}

fn is_current(hub: &Hub, version: &FilterVersion) -> bool {
    let name = ObjectName::new(ROOT_NAMESPACE, &version.name);
    let current = |filter: &Object<FilterSpec>| filter.spec.version == version.version;
    hub.published().world.filter(&name).is_some_and(current)
}

fn describe(hub: &Hub, version: &FilterVersion) -> weft_api::FilterVersion {
    let current = is_current(hub, version);
    let FilterVersion {
        name,
        version,
        digest,
        signature,
        public_key_pem,
        abi,
        capabilities,
        size_bytes,
        published_unix,
        published_by,
    } = version.clone();
    weft_api::FilterVersion {
        name,
        version,
        digest,
        signature,
        public_key_pem,
        abi,
        capabilities,
        size_bytes,
        published_unix,
        published_by,
        current,
    }
}

impl From<PublishError> for ApiError {
    fn from(error: PublishError) -> Self {
        match error {
            PublishError::Name(_) | PublishError::Version(_) => Self::invalid(error.to_string()),
            PublishError::Own(_) => Self::forbidden(error.to_string()),
            PublishError::Untrusted(_) => Self::refused(error.to_string()),
            PublishError::Unsound(error) => error.into(),
            PublishError::Exists { .. } | PublishError::OtherKey(_) => Self::conflict(error.to_string()),
            PublishError::Owned(_) => Self::conflict(error.to_string()),
            PublishError::Store(error) => error.into(),
        }
    }
}
