//! Authentication of API calls: a bearer token, looked up by its hash, with a role that has the endpoint's permission.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::header;

use super::ApiError;
use crate::hub::Hub;
use crate::token::{Grant, Permission, Role, TokenHash};

/// The holder of a valid operator token; handlers take it from the request's extensions.
#[derive(Debug, Clone)]
pub struct Caller {
    pub token_id: String,
    pub role: Role,
}

impl Caller {
    /// As the audit log names it.
    pub fn actor(&self) -> String {
        format!("operator:{}", self.token_id)
    }

    /// For endpoints where what is needed depends on the request.
    pub fn require(&self, permission: Permission) -> Result<(), ApiError> {
        if self.role.allows(permission) {
            return Ok(());
        }
        Err(ApiError::forbidden(format!("this needs the role {}; the token has {}", permission.needs(), self.role)))
    }
}

pub(super) async fn authorize(
    State((hub, permission)): State<(Arc<Hub>, Permission)>,
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let caller = authenticate(&hub, request.headers()).await?;
    hub.take_call(&caller.token_id).map_err(|seconds| {
        let limit = hub.config().limits.max_api_calls_per_minute;
        ApiError::too_many(format!("this token has made more than {limit} calls a minute: wait {seconds} s"), seconds)
    })?;
    caller.require(permission)?;
    request.extensions_mut().insert(caller);
    Ok(next.run(request).await)
}

//= rfc6750#section-2.1
async fn authenticate(hub: &Arc<Hub>, headers: &http::HeaderMap) -> Result<Caller, ApiError> {
    let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let Some((scheme, token)) = value.and_then(|value| value.split_once(' ')) else {
        return Err(ApiError::unauthenticated("a bearer token is needed: authorization: Bearer TOKEN"));
    };
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(ApiError::unauthenticated(format!("authorization scheme {scheme:?} is not Bearer")));
    }
    let record = hub.token(TokenHash::of(token)).await?;
    let Some(record) = record else {
        return Err(ApiError::unauthenticated("this token is not known here"));
    };
    if record.is_expired(crate::now_unix()) {
        return Err(ApiError::unauthenticated("this token has expired"));
    }
    match record.grant {
        Grant::Operator { role } => Ok(Caller { token_id: record.id, role }),
        Grant::Join { .. } => Err(ApiError::unauthenticated("this is a join token: it is for proxies only")),
    }
}
