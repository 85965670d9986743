//! Connections to the control plane: gRPC over TLS 1.3, the server verified by name against its CA file, the client by
//! its current certificate (or none, to join).

use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio_rustls::TlsConnector;
use tonic::transport::{Endpoint, Uri};
use weft_policy::text::printable;
use weft_policy::wire::v1::mesh_control_client::MeshControlClient;
use weft_transport::tls::{IdentityHandle, TrustError, control_client_config};

use super::replicas::Replicas;
use crate::config::Addresses;

/// Filter chunks and whole bundles fit; more is refused.
const MAX_MESSAGE: usize = 32 << 20;

const CONNECT: Duration = Duration::from_secs(5);

/// How often a connection is tried, and how long the answer may take.
const PING: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(5));

/// The same where another replica could be asked. A host that is away is noticed by its kernel's silence, long before
/// this timeout, which is for a process that hangs.
const PING_OF_SEVERAL: (Duration, Duration) = (Duration::from_millis(750), Duration::from_secs(5));

/// A client of the control plane.
pub(super) type Client = MeshControlClient<tonic::transport::Channel>;

/// Why the control plane could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    #[error("the CA file of the control plane cannot be used")]
    Trust(#[from] TrustError),
    #[error("control.address '{0}' is not a URL with host and port")]
    Address(String),
    #[error(
        "what answers at control.address ({0}) is no port for proxies: weft-control's is its ports.grpc, 15012 where nothing else \
         is said; 15013 is its API, 15014 its metrics"
    )]
    NotForProxies(String),
    #[error("the control plane answered {:?}: {}", .0.code(), .0.message())]
    Status(Box<tonic::Status>),
}

impl ChannelError {
    /// True where the control plane was reached and said no.
    pub(super) fn is_refusal(&self) -> bool {
        use tonic::Code::{AlreadyExists, FailedPrecondition, InvalidArgument, PermissionDenied, Unauthenticated};
        let said_no = [AlreadyExists, FailedPrecondition, InvalidArgument, PermissionDenied, Unauthenticated];
        matches!(self, Self::Status(status) if said_no.contains(&status.code()))
    }
}

impl From<tonic::Status> for ChannelError {
    fn from(status: tonic::Status) -> Self {
        match is_of_no_grpc(&status) {
            true => ChannelError::NotForProxies(printable(status.message()).into_owned()),
            false => ChannelError::Status(Box::new(status)),
        }
    }
}

/// True where the answer was no message of gRPC, but another protocol's text: its first byte is taken for a flag.
fn is_of_no_grpc(status: &tonic::Status) -> bool {
    let flag = status.message().split_once("invalid compression flag: ").map(|(_, rest)| rest);
    let flag = flag.and_then(|rest| rest.split(' ').next()?.parse::<u8>().ok());
    status.code() == tonic::Code::Internal
        && flag.is_some_and(|flag| flag.is_ascii_graphic() || flag.is_ascii_whitespace())
}

/// The control plane's addresses, and the roots that its certificates are verified by.
#[derive(Debug, Clone)]
pub struct Channel {
    endpoint: Endpoint,
    replicas: Arc<Replicas>,
    roots_pem: String,
}

impl Channel {
    pub fn new(addresses: &Addresses, roots_pem: String, mark: Option<u32>) -> Result<Channel, ChannelError> {
        let (replicas, authority) = Replicas::new(addresses, mark)?;
        let (interval, timeout) = if replicas.are_several() { PING_OF_SEVERAL } else { PING };
        let endpoint = Endpoint::from_shared(format!("http://{authority}"))
            .map_err(|_| ChannelError::Address(authority))?
            .connect_timeout(CONNECT)
            .http2_keep_alive_interval(interval)
            .keep_alive_timeout(timeout)
            .keep_alive_while_idle(true);
        Ok(Channel { endpoint, replicas: Arc::new(replicas), roots_pem })
    }

    /// The replica that was asked last is asked last from now on.
    pub(super) fn turn(&self) {
        self.replicas.turn();
    }

    /// Without a client certificate: good for `Join` only.
    pub(super) fn anonymous(&self) -> Result<Client, ChannelError> {
        self.open(None)
    }

    /// As the workload that `identity` holds.
    pub(super) fn mutual(&self, identity: &IdentityHandle) -> Result<Client, ChannelError> {
        self.open(Some(identity))
    }

    fn open(&self, identity: Option<&IdentityHandle>) -> Result<Client, ChannelError> {
        let tls = TlsConnector::from(Arc::new(control_client_config(&self.roots_pem, identity)?));
        let replicas = Arc::clone(&self.replicas);
        let connector = tower::service_fn(move |_: Uri| {
            let (tls, replicas) = (tls.clone(), Arc::clone(&replicas));
            async move { replicas.connect(&tls).await.map(TokioIo::new) }
        });
        let channel = self.endpoint.connect_with_connector_lazy(connector);
        Ok(MeshControlClient::new(channel).max_decoding_message_size(MAX_MESSAGE))
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http_body_util::Full;
    use hyper::body::{Bytes, Incoming};
    use hyper_util::rt::TokioExecutor;
    use weft_policy::wire::v1;

    use super::*;

    /// What becomes of a join where an HTTP server answers with this text.
    async fn joined(text: &'static str) -> ChannelError {
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let answer = hyper::service::service_fn(move |_: http::Request<Incoming>| async move {
            let answer = http::Response::builder().status(404).header("content-type", "application/json");
            Ok::<_, Infallible>(answer.body(Full::new(Bytes::from_static(text.as_bytes()))).expect("a good answer"))
        });
        let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        let server = tokio::spawn(server.serve_connection(TokioIo::new(theirs), answer));
        let mut ours = Some(TokioIo::new(ours));
        let connector = tower::service_fn(move |_: Uri| {
            let ours = ours.take();
            async move { ours.ok_or_else(|| std::io::Error::other("one connection")) }
        });
        let channel = Endpoint::from_static("http://control").connect_with_connector_lazy(connector);
        let refused = MeshControlClient::new(channel).join(v1::JoinRequest::default()).await.unwrap_err();
        server.abort();
        refused.into()
    }

    #[tokio::test]
    async fn a_peer_that_is_no_port_for_proxies_is_recognised() {
        for text in ["{\"error\":\"not found\"}", "<html></html>"] {
            let error = joined(text).await;
            assert!(matches!(error, ChannelError::NotForProxies(_)), "{error}");
            assert!(
                error.to_string().contains("is no port for proxies: weft-control's is its ports.grpc, 15012"),
                "{error}"
            );
        }
        let of_control = ChannelError::from(tonic::Status::internal("the store is damaged"));
        assert!(matches!(of_control, ChannelError::Status(_)), "{of_control}");
    }
}
