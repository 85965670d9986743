//! Error answers of the operator API, all of one shape: `{"error":{"code","message","details"}}`.

use std::collections::BTreeMap;

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use weft_api::{Detail, ErrorBody, ErrorInner, ObjectRef};
use weft_policy::resource::ObjectKey;

use crate::access::Denied;
use crate::hub::{Busy, TokenError, TooManyCalls};
use crate::rate::Spent;
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
    /// The objects that the call was to change, for the audit log; no part of the answer.
    pub(super) objects: Vec<ObjectKey>,
}

/// Something wrong in a document of the request.
pub(super) fn of_document(number: usize, key: impl Into<String>, message: impl Into<String>) -> Detail {
    let file = format!("documents[{number}]");
    Detail { file, document: Some(number), key: key.into(), message: message.into(), ..Detail::default() }
}

/// Something wrong with an object, wherever it is.
pub(super) fn of_object(object: &ObjectKey, key: impl Into<String>, message: impl Into<String>) -> Detail {
    Detail { object: Some(object.into()), key: key.into(), message: message.into(), ..Detail::default() }
}

impl ApiError {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), details: Vec::new(), retry_after: None, objects: Vec::new() }
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

    /// Something that only the store knows could not be read.
    pub(super) fn unread(error: StoreError) -> Self {
        if !error.is_unreachable() {
            return error.into();
        }
        let reason = crate::chain(&error);
        tracing::warn!(error = reason, "what is only in the store could not be read");
        Self::unavailable(format!(
            "{reason}; what you ask for is only in the store. Once etcd answers again, so does this server; what is kept in \
             memory, such as objects, proxies and bans, is told meanwhile"
        ))
    }

    pub fn with_details(mut self, details: Vec<Detail>) -> Self {
        self.details = details;
        self
    }

    /// Names the objects that the refused call was about.
    pub(super) fn about<'k>(self, objects: impl IntoIterator<Item = &'k ObjectKey>) -> Self {
        Self { objects: objects.into_iter().cloned().collect(), ..self }
    }

    /// Names the documents that the objects at fault are in.
    pub(crate) fn in_documents(mut self, documents: &BTreeMap<ObjectKey, usize>) -> Self {
        let given: BTreeMap<_, _> = documents.iter().map(|(key, number)| (ObjectRef::from(key), number)).collect();
        for detail in &mut self.details {
            if let Some(number) = detail.object.as_ref().and_then(|object| given.get(object)) {
                (detail.file, detail.document) = (format!("documents[{number}]"), Some(**number));
            }
        }
        self
    }
}

/// What an answer refused, for the audit log; it travels beside the answer.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    pub(super) code: &'static str,
    pub(super) message: String,
    /// The objects that it was about, where they are known.
    pub(super) objects: Vec<ObjectKey>,
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let inner = ErrorInner { code: self.code.to_owned(), message: self.message.clone(), details: self.details };
        let mut response = (self.status, Json(ErrorBody { error: inner })).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            //= rfc6750#section-3
            let challenge = http::HeaderValue::from_static("Bearer realm=\"weft\"");
            response.headers_mut().insert(http::header::WWW_AUTHENTICATE, challenge);
        }
        response.extensions_mut().insert(Refusal { code: self.code, message: self.message, objects: self.objects });
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

impl From<Spent> for ApiError {
    fn from(spent: Spent) -> Self {
        match spent {
            Spent::TooMuch { share } => Self::too_large(format!(
                "the request body would take more memory than the {share} bytes that one token may have \
                 (limits.max_open_body_bytes): send fewer documents at a time"
            )),
            Spent::Now => Self::too_many("the bodies of other calls take all memory that there is for them", 1),
        }
    }
}

impl From<TokenError> for ApiError {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Store(error) => error.into(),
            TokenError::TooMany { .. } => Self::refused(format!("{error} (limits.max_tokens)")),
            TokenError::TooLarge(_) => Self::invalid(error.to_string()),
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        tracing::error!(error = %crate::chain(&error), "store failed");
        let reason = crate::chain(&error);
        let Some(rows) = error.rows() else { return Self::internal(reason) };
        if let weft_store::Error::TooLarge { .. } = rows {
            return Self::too_large(format!("{reason}; nothing was changed"));
        }
        Self::unavailable(format!("{reason}; {}", outlook(rows)))
    }
}

/// What is known of a change that a store did not take, and what there is to do.
fn outlook(error: &weft_store::Error) -> &'static str {
    if let weft_store::Error::Conflict = error {
        return "other control planes came first again and again, and nothing was changed: try again";
    }
    if let weft_store::Error::Unreachable(_) = error {
        return "a change that was on its way may have been made: look before you make it again. Reads and proxies are served. \
                Once etcd takes writes again, so does this server";
    }
    if let weft_store::Error::Refused(_) = error {
        return "nothing was changed. It is etcd that has to be mended, then this server goes on by itself";
    }
    "nothing was changed. Once the disk of the state folder takes writes again, so does this server"
}
