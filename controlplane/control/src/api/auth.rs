//! Authentication of API calls: a bearer token, looked up by its hash, and the rights that it gives. What is refused
//! here or by a handler goes to the audit log.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::serve::IncomingStream;
use http::{Method, StatusCode, header};
use weft_policy::plan::World;
use weft_policy::resource::ObjectKey;
use weft_policy::text::printable;

use super::{Access, ApiError, Refusal};
use crate::access::{Place, Rights, Thing, Verb};
use crate::hub::{Actor, Hub};
use crate::listener::{Connections, InUse, Proof, Uses};
use crate::rate::{self, Part};
use crate::store::AuditEntry;
use crate::token::{Grant, TokenHash};

/// The connection that a call comes by.
#[derive(Debug, Clone)]
pub struct Peer {
    from: IpAddr,
    proof: Proof,
    uses: Uses,
}

/// Counts the requests of each connection while they are under way.
pub(super) async fn count_uses(request: Request, next: Next) -> Response {
    let counted = request.extensions().get::<ConnectInfo<Peer>>().map(|ConnectInfo(peer)| peer.uses.begin());
    let response = next.run(request).await;
    match counted {
        Some(counted) => response.map(|body| axum::body::Body::new(InUse::new(body, counted))),
        None => response,
    }
}

impl Connected<IncomingStream<'_, Connections>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Connections>) -> Self {
        let io = stream.io();
        Self { from: stream.remote_addr().ip().to_canonical(), proof: io.proof(), uses: io.uses() }
    }
}

/// The holder of a valid operator token; handlers take it from the request's extensions.
#[derive(Debug, Clone)]
pub struct Caller {
    pub token_id: String,
    /// The token's name.
    pub name: String,
    pub rights: Rights,
    pub from: Option<IpAddr>,
}

impl Caller {
    /// As the audit log names it.
    pub fn actor(&self) -> Actor {
        let id = format!("operator:{}", self.token_id);
        let bound = self.rights.is_bound().then(|| self.rights.clone());
        let addresses = bound.as_ref().map(|rights| rights.addresses.clone());
        Actor { id, name: self.name.clone(), role: Some(self.rights.role), from: self.from, addresses, bound }
    }

    pub fn may(&self, verb: Verb, thing: Thing, place: Place<'_>) -> Result<(), ApiError> {
        self.rights.may(verb, thing, place).map_err(Into::into)
    }

    pub fn may_object(&self, verb: Verb, key: &ObjectKey) -> Result<(), ApiError> {
        self.rights.may_object(verb, key).map_err(Into::into)
    }

    /// The world as far as the caller may read it, where that is not all of it.
    pub fn part_of(&self, world: &World) -> Option<World> {
        self.rights.is_bound().then(|| world.part(|key| self.rights.may_object(Verb::Read, key).is_ok()))
    }

    /// True for what a list shows to the caller.
    pub fn sees(&self, thing: Thing, namespace: &str) -> bool {
        self.rights.may(Verb::Read, thing, Place::Namespace(namespace)).is_ok()
    }
}

pub(super) async fn authorize(
    State((hub, access)): State<(Arc<Hub>, Access)>,
    mut request: Request,
    next: Next,
) -> Response {
    let peer = request.extensions().get::<ConnectInfo<Peer>>().map(|ConnectInfo(peer)| peer.clone());
    let from = peer.as_ref().map(|peer| peer.from);
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let refused = |actor: Actor, response: Response| {
        if let Some(entry) = attempt(&response, &method, &path, actor) {
            hub.note_refused(entry);
        }
        response
    };
    let caller = match authenticate(&hub, request.headers(), from).await {
        Ok(caller) => caller,
        Err(error) => {
            return refused(Actor { from, ..AuditEntry::UNKNOWN.into() }, error.into_response());
        }
    };
    if let Some(peer) = peer {
        peer.proof.give();
    }
    let actor = caller.actor();
    let _place = match admit(&hub, &caller, access) {
        Ok(place) => place,
        Err(error) => return refused(actor, error.into_response()),
    };
    let body = match take_body(&hub, &caller, &request) {
        Ok(body) => Arc::new(body),
        Err(error) => return refused(actor, error.into_response()),
    };
    request.extensions_mut().insert(caller);
    request.extensions_mut().insert(body.clone());
    let response = next.run(request).await;
    drop(body);
    refused(actor, response)
}

/// Whether a call may begin: within the token's budget, and as far as its role and place can tell.
fn admit(hub: &Hub, caller: &Caller, access: Access) -> Result<rate::Place<String>, ApiError> {
    let place = hub.take_call(&caller.token_id)?;
    match access {
        Access::Public => {}
        Access::Mesh(verb, thing) => caller.may(verb, thing, Place::Mesh)?,
        Access::Each(verb, thing) => caller.rights.may_somewhere(verb, thing)?,
    }
    Ok(place)
}

/// The memory that the body of a call takes, for as long as the call is under way.
pub(super) type BodyPart = Arc<Part<String>>;

/// Takes memory for a body before any of it is read. One that does not tell its length may have the longest.
fn take_body(hub: &Hub, caller: &Caller, request: &Request) -> Result<Part<String>, ApiError> {
    use axum::body::HttpBody as _;
    let limits = &hub.config().limits;
    let most = limits.max_body_bytes.max(limits.max_filter_bytes);
    let told = request.body().size_hint().upper().and_then(|bytes| usize::try_from(bytes).ok());
    // What is longer is refused, or read to disk, by whoever takes it.
    let bytes = told.unwrap_or(most).min(most);
    Ok(hub.take_body(&caller.token_id, bytes)?)
}

/// The entry for an answer that refused something. Mistakes in what was sent are no attempts.
fn attempt(response: &Response, method: &Method, path: &str, actor: Actor) -> Option<AuditEntry> {
    let Refusal { code, message, objects } = response.extensions().get::<Refusal>()?;
    let status = response.status();
    let is_change = *method != Method::GET;
    let is_attempt = match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => true,
        StatusCode::CONFLICT | StatusCode::UNPROCESSABLE_ENTITY | StatusCode::PRECONDITION_FAILED => is_change,
        _ => false,
    };
    is_attempt.then(|| {
        let action = format!("{} refused", method.as_str().to_lowercase());
        let mut object = printable(path).into_owned();
        if !objects.is_empty() {
            let named: Vec<_> = objects.iter().map(ToString::to_string).collect();
            object = format!("{object}: {}", printable(&named.join(", ")));
        }
        let entry = AuditEntry::new(actor, &action, object, printable(message).into_owned());
        AuditEntry { refused: format!("{} {code}", status.as_u16()), ..entry }
    })
}

//= rfc6750#section-2.1
async fn authenticate(hub: &Arc<Hub>, headers: &http::HeaderMap, from: Option<IpAddr>) -> Result<Caller, ApiError> {
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
    let name = record.called().to_owned();
    match record.grant {
        Grant::Operator { role, namespaces, addresses } => {
            let rights = Rights { role, namespaces, addresses };
            Ok(Caller { token_id: record.id, name, rights, from })
        }
        Grant::Join { .. } => Err(ApiError::unauthenticated("this is a join token: it is for proxies only")),
    }
}
