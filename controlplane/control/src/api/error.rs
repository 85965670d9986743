//! Error answers of the operator API, all of one shape: `{"error":{"code","message","details"}}`.

use std::collections::BTreeMap;

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::Serialize;
use weft_policy::resource::ObjectKey;

use crate::access::Denied;
use crate::hub::{Busy, TooManyCalls};
use crate::store::StoreError;

/// An error answer. `code` is stable and for programs, `message` for people.
#[derive(Debug)]
pub struct ApiError {
    pub status: StatusCode,
    pub code: &'static str,
    pub message: String,
    pub details: Vec<Detail>,
    /// Seconds after which the same may be tried again.
    pub retry_after: Option<u64>,
}

/// Place in the input at which something is wrong, and the problem there.
#[derive(Debug, Clone, Default, Serialize, PartialEq, Eq)]
pub struct Detail {
    /// `documents[2]`; empty where it is none of the request's.
    pub file: String,
    pub line: usize,
    /// The number of the request's document, from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub document: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object: Option<ObjectKey>,
    /// `spec.rules[0].name`; empty for the whole object.
    pub key: String,
    pub message: String,
}

impl Detail {
    /// Of a document of the request.
    pub(crate) fn of_document(number: usize, key: impl Into<String>, message: impl Into<String>) -> Self {
        let file = format!("documents[{number}]");
        Self { file, document: Some(number), key: key.into(), message: message.into(), ..Self::default() }
    }

    /// Of an object, wherever it is.
    pub(crate) fn of_object(object: ObjectKey, key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { object: Some(object), key: key.into(), message: message.into(), ..Self::default() }
    }

    /// The same with the document that gives the object, if one does.
    fn given_in(self, documents: &BTreeMap<ObjectKey, usize>) -> Self {
        match self.object.as_ref().and_then(|object| documents.get(object)) {
            Some(number) => Self { file: format!("documents[{number}]"), document: Some(*number), ..self },
            None => self,
        }
    }
}

#[derive(Serialize)]
struct Body<'a> {
    error: Inner<'a>,
}

#[derive(Serialize)]
struct Inner<'a> {
    code: &'a str,
    message: &'a str,
    details: &'a [Detail],
}

impl ApiError {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), details: Vec::new(), retry_after: None }
    }

    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid", message)
    }

    pub fn unauthenticated(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthenticated", message)
    }

    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", message)
    }

    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "conflict", message)
    }

    /// Well formed, but it can't be done in this world.
    pub fn refused(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "refused", message)
    }

    pub fn too_large(message: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
    }

    /// Refused at a limit that has room again in some seconds.
    pub fn too_many(message: impl Into<String>, seconds: u64) -> Self {
        let error = Self::new(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", message);
        Self { retry_after: Some(seconds), ..error }
    }

    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message)
    }

    /// This server can't do it now; later it can.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message)
    }

    pub fn with_details(mut self, details: Vec<Detail>) -> Self {
        self.details = details;
        self
    }

    /// Names the documents that the objects at fault are in.
    pub(crate) fn in_documents(mut self, documents: &BTreeMap<ObjectKey, usize>) -> Self {
        self.details = self.details.into_iter().map(|detail| detail.given_in(documents)).collect();
        self
    }
}

/// What an answer refused, for the audit log; it travels beside the answer.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    pub(super) code: &'static str,
    pub(super) message: String,
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let inner = Inner { code: self.code, message: &self.message, details: &self.details };
        let mut response = (self.status, Json(Body { error: inner })).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            //= rfc6750#section-3
            let challenge = http::HeaderValue::from_static("Bearer realm=\"weft\"");
            response.headers_mut().insert(http::header::WWW_AUTHENTICATE, challenge);
        }
        response.extensions_mut().insert(Refusal { code: self.code, message: self.message });
        if let Some(seconds) = self.retry_after {
            //= rfc6585#section-4
            response.headers_mut().insert(http::header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

impl From<Denied> for ApiError {
    fn from(denied: Denied) -> Self {
        Self::forbidden(denied.to_string())
    }
}

impl From<TooManyCalls> for ApiError {
    fn from(many: TooManyCalls) -> Self {
        match many {
            TooManyCalls::AMinute { seconds, .. } => Self::too_many(many.to_string(), seconds),
            TooManyCalls::AtATime(_) => Self::too_many(many.to_string(), 1),
        }
    }
}

impl From<Busy> for ApiError {
    fn from(busy: Busy) -> Self {
        Self::too_many(busy.to_string(), 1)
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        tracing::error!(error = %crate::chain(&error), "store failed");
        let reason = crate::chain(&error);
        if let StoreError::Encode(_) = error {
            return Self::internal(reason);
        }
        Self::unavailable(format!(
            "{reason}; nothing was changed. Once the disk of the state folder takes writes again, so does this server"
        ))
    }
}
