//! Publishing filters, listing what is published, and what becomes of versions and channels.

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::{Extension, Json};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use utoipa::openapi::Required;
use weft_api::{
    FilterMoved, FilterVersions, Filters, PromoteQuery, PublishQuery, RollbackQuery, VersionQuery, YankQuery,
};
use weft_policy::bundle::ObjectName;
use weft_policy::resource::ROOT_NAMESPACE;
use weft_policy::resource::filter::STABLE;
use weft_policy::statement::SignedStatement;

use super::{Access, ApiError, Caller, Endpoint, Query};
use crate::access::{Thing, Verb};
use crate::artifact::Artifact;
use crate::hub::{FilterVersion, Hub, Moved, Publication, PublishError, SYSTEM};
use crate::token::Role;

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::post(
            "/api/v1/filters",
            Access::Mesh(Verb::Change, Thing::Filter),
            "Publishes a filter binary as a version beside the others; the headers carry what its publisher has signed",
            // The handler has its own limit, which is that of a filter.
            axum::routing::post(publish).layer(DefaultBodyLimit::disable()),
        )
        .described(|it| {
            it.query::<PublishQuery>()
                .header("weft-signature", "ed25519 over the binary's sha256, base64", Required::True)
                .header("weft-public-key", "the public key, PEM in base64", Required::True)
                .header(
                    "weft-statement",
                    "the statement's text, base64; what is published anew needs one",
                    Required::False,
                )
                .header(
                    "weft-statement-signature",
                    "ed25519 over the statement as DSSE encodes it, base64",
                    Required::False,
                )
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
        Endpoint::delete(
            "/api/v1/filters/{name}",
            Access::Mesh(Verb::Change, Thing::Filter),
            "Deletes a version that no policy runs and no channel stands for; with the last one goes the filter",
            axum::routing::delete(delete),
        )
        .described(|it| it.query::<VersionQuery>().answers::<weft_api::FilterVersion>()),
        Endpoint::post(
            "/api/v1/filters/{name}/promote",
            Access::Mesh(Verb::Change, Thing::Filter),
            "Has a channel stand for a version that is newer than the one before",
            axum::routing::post(promote),
        )
        .described(|it| it.query::<PromoteQuery>().answers::<FilterMoved>()),
        Endpoint::post(
            "/api/v1/filters/{name}/rollback",
            Access::Mesh(Verb::Change, Thing::Filter),
            "Has a channel stand for an older version again",
            axum::routing::post(roll_back),
        )
        .described(|it| it.query::<RollbackQuery>().answers::<FilterMoved>()),
        Endpoint::post(
            "/api/v1/filters/{name}/yank",
            Access::Mesh(Verb::Change, Thing::Filter),
            "Has nobody take a version up any more but those that name it",
            axum::routing::post(yank),
        )
        .described(|it| it.query::<YankQuery>().answers::<weft_api::FilterVersion>()),
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
    let statement = statement(request.headers())?;
    let bytes = binary(request, hub.config().limits.max_filter_bytes).await?;
    let verified = tokio::task::spawn_blocking(move || Artifact::verify(bytes, &signature, &key)).await;
    let verified = verified.map_err(|_| ApiError::internal("the binary could not be inspected"))?;
    let artifact = verified.map_err(|e| ApiError::refused(e.to_string()))?;
    let PublishQuery { name, version, accept_new_key, make_current, channel, dry_run } = query;
    let channel = channel.or_else(|| make_current.then(|| STABLE.to_owned()));
    let publication = Publication { name, version, artifact, statement, accept_new_key, channel, dry_run };
    let published = hub.publish_filter(caller.actor(), publication).await?;
    Ok(Json(describe(&hub, Some(&caller), &published)))
}

/// What the publisher has signed, where the request carries it.
fn statement(headers: &HeaderMap) -> Result<Option<SignedStatement>, ApiError> {
    if !headers.contains_key("weft-statement") {
        return Ok(None);
    }
    let text = STANDARD.decode(header(headers, "weft-statement")?.trim()).ok();
    let text = text.and_then(|bytes| String::from_utf8(bytes).ok());
    let text = text.ok_or_else(|| ApiError::invalid("header weft-statement is not a text in base64"))?;
    Ok(Some(SignedStatement { text, signature: header(headers, "weft-statement-signature")? }))
}

async fn promote(
    State(hub): State<Arc<Hub>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    Query(PromoteQuery { version, channel }): Query<PromoteQuery>,
) -> Result<Json<FilterMoved>, ApiError> {
    let channel = channel.as_deref().unwrap_or(STABLE);
    let moved = hub.promote_filter(caller.actor(), &name, &version, channel).await?;
    Ok(Json(moved_as_told(name, moved)))
}

async fn roll_back(
    State(hub): State<Arc<Hub>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    Query(RollbackQuery { channel, to }): Query<RollbackQuery>,
) -> Result<Json<FilterMoved>, ApiError> {
    let channel = channel.as_deref().unwrap_or(STABLE);
    let moved = hub.roll_back_filter(caller.actor(), &name, channel, to.as_deref()).await?;
    Ok(Json(moved_as_told(name, moved)))
}

fn moved_as_told(name: String, Moved { channel, from, to }: Moved) -> FilterMoved {
    FilterMoved { name, channel, from, to }
}

async fn yank(
    State(hub): State<Arc<Hub>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    Query(YankQuery { version, undo }): Query<YankQuery>,
) -> Result<Json<weft_api::FilterVersion>, ApiError> {
    let yanked = hub.yank_filter(caller.actor(), &name, &version, undo).await?;
    Ok(Json(describe(&hub, Some(&caller), &yanked)))
}

async fn delete(
    State(hub): State<Arc<Hub>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    Query(VersionQuery { version }): Query<VersionQuery>,
) -> Result<Json<weft_api::FilterVersion>, ApiError> {
    let deleted = hub.delete_filter_version(caller.actor(), &name, &version).await?;
    Ok(Json(describe(&hub, Some(&caller), &deleted)))
}

async fn binary(request: Request, limit: usize) -> Result<Vec<u8>, ApiError> {
    let declared =
        request.headers().get(http::header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let too_large = || {
        ApiError::too_large(format!(
            "a filter may have at most {limit} bytes, as the control plane's limits.max_filter_bytes says"
        ))
    };
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
    Ok(Json(Filters { filters: versions.iter().map(|version| describe(&hub, None, version)).collect() }))
}

async fn show(
    State(hub): State<Arc<Hub>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<Json<FilterVersions>, ApiError> {
    let mut versions = hub.filter_versions().await.map_err(ApiError::unread)?;
    versions.retain(|version| version.name == name);
    if versions.is_empty() {
        return Err(ApiError::not_found(format!("no filter {name:?} is published")));
    }
    let versions = versions.iter().map(|version| describe(&hub, Some(&caller), version)).collect();
    Ok(Json(FilterVersions { name, versions }))
}

/// A version with what it is to the mesh, and for a reader who runs it.
fn describe(hub: &Hub, reader: Option<&Caller>, record: &FilterVersion) -> weft_api::FilterVersion {
    let world = hub.published().world.clone();
    let filter = ObjectName::new(ROOT_NAMESPACE, &record.name);
    let used_by = reader.map(|reader| {
        let users = world.users(&filter, Some(record.version.as_str()));
        let seen = users.filter(|policy| reader.sees(Thing::Object(policy.kind), &policy.metadata.namespace));
        seen.map(|policy| policy.attachment()).collect()
    });
    let used_by = used_by.unwrap_or_default();
    let channels = world.channels_of(&filter, &record.version);
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
        statement,
        config_schema: _,
        yanked,
        deleted: _,
        channels: _,
    } = record.clone();
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
        legacy: statement.is_none() && published_by != SYSTEM,
        published_by,
        current: channels.iter().any(|channel| channel == STABLE),
        channels,
        yanked,
        statement: statement.map(|signed| signed.text),
        used_by,
    }
}

impl From<PublishError> for ApiError {
    fn from(error: PublishError) -> Self {
        match error {
            PublishError::Name(_) | PublishError::Version(_) | PublishError::Channel(_) => {
                Self::invalid(error.to_string())
            }
            PublishError::Own(_) => Self::forbidden(error.to_string()),
            PublishError::Unknown(_) => Self::not_found(error.to_string()),
            PublishError::Untrusted(_)
            | PublishError::Unstated(_)
            | PublishError::Cases { .. }
            | PublishError::Misstated(_) => Self::refused(error.to_string()),
            PublishError::Unsound(error) => error.into(),
            PublishError::Exists { .. }
            | PublishError::OtherKey(_)
            | PublishError::Older { .. }
            | PublishError::Yanked { .. }
            | PublishError::InUse(_) => Self::conflict(error.to_string()),
            PublishError::Owned(_) => Self::conflict(error.to_string()),
            PublishError::Store(error) => error.into(),
        }
    }
}
