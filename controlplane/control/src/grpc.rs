//! The proxies' port, 15012: Join (token), Renew, Connect and FetchFilter (client certificate). Who calls is read from the
//! verified certificate alone.

mod replicas;
mod status;

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use weft_policy::identity::SpiffeId;
use weft_policy::wire::v1;
use weft_policy::wire::v1::mesh_control_server::MeshControl;
use x509_parser::extensions::GeneralName;

pub use self::replicas::Replicas;
use crate::hub::{Holder, Hub, SignedIdentity};
use crate::listener::{Caller, InUse, Use};
use crate::session;

/// Bytes of one message of a filter's transfer.
const CHUNK: usize = 64 << 10;

pub struct Service {
    hub: Arc<Hub>,
    /// Ends all streams.
    stop: CancellationToken,
}

type StreamOf<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Service {
    pub fn new(hub: Arc<Hub>, stop: CancellationToken) -> Self {
        Self { hub, stop }
    }
}

/// Bounds the bodies of all requests but control streams, which live as long as their proxies.
pub fn bounded(
    most: usize,
) -> impl Fn(http::Request<tonic::body::Body>) -> http::Request<tonic::body::Body> + Clone + Send + Sync + 'static {
    move |request| {
        if request.uri().path().ends_with("/Connect") {
            return request;
        }
        request.map(|body| tonic::body::Body::new(http_body_util::Limited::new(body, most)))
    }
}

/// Counts the requests of each connection while they are under way.
#[derive(Debug, Clone)]
pub struct Counted<S>(pub S);

impl<S, R> tower::Service<http::Request<R>> for Counted<S>
where
    S: tower::Service<http::Request<R>, Response = http::Response<tonic::body::Body>>,
    S::Future: Send + 'static,
    S::Error: 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<R>) -> Self::Future {
        let counted: Option<Use> = request.extensions().get::<Caller>().map(|caller| caller.uses.begin());
        let answer = self.0.call(request);
        Box::pin(async move {
            let response = answer.await?;
            Ok(match counted {
                Some(counted) => response.map(|body| tonic::body::Body::new(InUse::new(body, counted))),
                None => response,
            })
        })
    }
}

#[tonic::async_trait]
impl MeshControl for Service {
    type ConnectStream = StreamOf<v1::ControlMessage>;
    type FetchFilterStream = StreamOf<v1::FilterChunk>;

    async fn join(&self, request: Request<v1::JoinRequest>) -> Result<Response<v1::JoinResponse>, Status> {
        let peer = peer_address(&request);
        let request = request.into_inner();
        session::may_join(&request)?;
        let signed = self.hub.join_as(&request.service_account, &request.token, &request.csr_der, peer).await?;
        let SignedIdentity { identity, issued, trust_bundle_pem } = signed;
        Ok(Response::new(v1::JoinResponse {
            certificate_chain_der: issued.chain.iter().map(|der| der.to_vec()).collect(),
            trust_bundle_pem,
            not_after_unix: issued.not_after.unix_timestamp(),
            workload_identity: identity.to_string(),
        }))
    }

    async fn renew(&self, request: Request<v1::RenewRequest>) -> Result<Response<v1::RenewResponse>, Status> {
        let holder = holder(&self.hub, &request)?;
        let signed = self.hub.renew(&holder, &request.into_inner().csr_der).await?;
        let SignedIdentity { identity, issued, trust_bundle_pem } = signed;
        Ok(Response::new(v1::RenewResponse {
            certificate_chain_der: issued.chain.iter().map(|der| der.to_vec()).collect(),
            trust_bundle_pem,
            not_after_unix: issued.not_after.unix_timestamp(),
            workload_identity: identity.to_string(),
        }))
    }

    async fn gain(&self, request: Request<v1::GainRequest>) -> Result<Response<v1::GainResponse>, Status> {
        let identity = peer_identity(&self.hub, &request)?;
        let peer = peer_address(&request).map_or_else(|| "unknown".to_owned(), |address| address.to_string());
        let granted = self.hub.gain(&identity, &request.into_inner().token, &peer).await?;
        Ok(Response::new(v1::GainResponse { granted: granted.words() }))
    }

    async fn connect(
        &self,
        request: Request<Streaming<v1::ProxyMessage>>,
    ) -> Result<Response<Self::ConnectStream>, Status> {
        let holder = let_in(&self.hub, &request)?;
        let peer = peer_address(&request).ok_or_else(|| Status::internal("the address of the peer is not known"))?;
        let leaf =
            peer_certificate(&request).ok_or_else(|| Status::unauthenticated("a client certificate is needed"))?;
        let open = self.hub.streams().open(&holder.identity, &leaf).map_err(|what| {
            self.hub.metrics().throttled(what);
            Status::resource_exhausted("too many control streams with this certificate, or of this account")
        })?;
        let (sender, receiver) = mpsc::channel(session::QUEUE);
        let (hub, stop) = (self.hub.clone(), self.stop.clone());
        let incoming = request.into_inner();
        self.hub.spawn(async move {
            Box::pin(session::serve(hub, holder, peer, incoming, sender, stop)).await;
            drop(open);
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn fetch_filter(
        &self,
        request: Request<v1::FetchFilterRequest>,
    ) -> Result<Response<Self::FetchFilterStream>, Status> {
        let identity = peer_identity(&self.hub, &request)?;
        let v1::FetchFilterRequest { digest, offset } = request.into_inner();
        if !self.hub.may_fetch(&identity, &digest) {
            return Err(Status::not_found(format!("no filter of {identity} has digest {digest:?}")));
        }
        let found = self.hub.artifact(digest.clone()).await.map_err(|error| {
            tracing::error!(error = %crate::chain(&error), digest, "filter could not be read");
            Status::unavailable("the control plane's store failed; its log says why")
        })?;
        let bytes = found.ok_or_else(|| Status::not_found(format!("no filter with digest {digest:?}")))?;
        let start = usize::try_from(offset).ok().filter(|start| *start <= bytes.len());
        let start = start.ok_or_else(|| {
            Status::out_of_range(format!("offset {offset} is beyond the end of {digest} ({} bytes)", bytes.len()))
        })?;
        self.hub.metrics().filter_bytes.increment((bytes.len() - start) as u64);
        // Chunks are cut when they are sent: one copy of the binary per transfer, however slow its reader.
        let starts = (start..bytes.len()).step_by(CHUNK);
        let chunks = starts.map(move |at| Ok(chunk_of(&bytes[at..bytes.len().min(at + CHUNK)])));
        Ok(Response::new(Box::pin(tokio_stream::iter(chunks))))
    }
}

fn chunk_of(bytes: &[u8]) -> v1::FilterChunk {
    v1::FilterChunk { data: bytes.to_vec() }
}

fn peer_address<T>(request: &Request<T>) -> Option<IpAddr> {
    let caller = request.extensions().get::<Caller>();
    let address = caller.and_then(|caller| caller.tls.get_ref().remote_addr());
    address.map(|address| address.ip().to_canonical())
}

fn peer_certificate<T>(request: &Request<T>) -> Option<CertificateDer<'static>> {
    let certificates = request.extensions().get::<Caller>().and_then(|caller| caller.tls.peer_certs());
    certificates.as_ref().and_then(|chain| chain.first().cloned())
}

/// The SPIFFE ID of the verified client certificate, which is valid now and not banned.
fn peer_identity<T>(hub: &Hub, request: &Request<T>) -> Result<SpiffeId, Status> {
    let_in(hub, request).map(|holder| holder.identity)
}

/// Whose certificate the client showed, where it is valid now and its holder not banned.
fn let_in<T>(hub: &Hub, request: &Request<T>) -> Result<Holder, Status> {
    let holder = holder(hub, request)?;
    holder.valid_at(OffsetDateTime::now_utc())?;
    match hub.banned(&holder.identity) {
        Some(reason) => Err(Status::permission_denied(reason)),
        None => Ok(holder),
    }
}

/// Whose certificate the client showed; its chain was checked at the handshake, its time was not.
fn holder<T>(hub: &Hub, request: &Request<T>) -> Result<Holder, Status> {
    let leaf = peer_certificate(request);
    let leaf = leaf.ok_or_else(|| Status::unauthenticated("a client certificate is needed: join first"))?;
    let holder = holder_of(&leaf).map_err(|reason| Status::unauthenticated(format!("client certificate: {reason}")))?;
    if holder.identity.trust_domain() != hub.trust_domain().as_str() {
        return Err(Status::permission_denied(format!("{} is not of this trust domain", holder.identity)));
    }
    Ok(holder)
}

//= spiffe-x509-svid#section-2
/// Exactly one URI name, and nothing else that could be mistaken for an identity.
fn holder_of(leaf: &CertificateDer<'_>) -> Result<Holder, String> {
    let (_, parsed) = x509_parser::parse_x509_certificate(leaf).map_err(|e| e.to_string())?;
    let names = parsed.subject_alternative_name().map_err(|e| e.to_string())?.ok_or("it has no names")?;
    let identity: SpiffeId = match names.value.general_names.as_slice() {
        [GeneralName::URI(uri)] => uri.parse().map_err(|e: weft_policy::identity::IdentityError| e.to_string())?,
        _ => return Err("it must have exactly one name, a URI".to_owned()),
    };
    Ok(Holder {
        identity,
        serial: parsed.raw_serial_as_string(),
        not_before: parsed.validity().not_before.to_datetime(),
        not_after: parsed.validity().not_after.to_datetime(),
    })
}
