//! Connections to the control plane: gRPC over TLS 1.3, the server verified by name against its CA file, the client by
//! its current certificate (or none, to join).

use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Endpoint, Uri};
use weft_policy::wire::v1::mesh_control_client::MeshControlClient;
use weft_transport::capture;
use weft_transport::tls::{IdentityHandle, TrustError, control_client_config};

/// Filter chunks and whole bundles fit; more is refused.
const MAX_MESSAGE: usize = 32 << 20;

const CONNECT: Duration = Duration::from_secs(5);

/// A client of the control plane.
pub(super) type Client = MeshControlClient<tonic::transport::Channel>;

/// Why the control plane could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    #[error("the CA file of the control plane cannot be used")]
    Trust(#[from] TrustError),
    #[error("control.address '{0}' is not a URL with host and port")]
    Address(String),
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
        ChannelError::Status(Box::new(status))
    }
}

/// Address and name of the control plane, and the roots that its certificate is verified by.
#[derive(Debug, Clone)]
pub struct Channel {
    endpoint: Endpoint,
    host: String,
    port: u16,
    roots_pem: String,
    /// Lets our connections pass the capture rules, which are there before the first of them.
    mark: Option<u32>,
}

impl Channel {
    pub fn new(address: &str, roots_pem: String, mark: Option<u32>) -> Result<Channel, ChannelError> {
        let wrong = || ChannelError::Address(address.to_owned());
        let uri: Uri = address.parse().map_err(|_| wrong())?;
        let host = uri.host().ok_or_else(wrong)?.trim_matches(['[', ']']).to_owned();
        let port = uri.port_u16().unwrap_or(15_012);
        let endpoint = Endpoint::from_shared(format!("http://{}", uri.authority().ok_or_else(wrong)?))
            .map_err(|_| wrong())?
            .connect_timeout(CONNECT)
            .http2_keep_alive_interval(Duration::from_secs(5))
            .keep_alive_timeout(Duration::from_secs(5))
            .keep_alive_while_idle(true);
        Ok(Channel { endpoint, host, port, roots_pem, mark })
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
        let (host, port, mark) = (self.host.clone(), self.port, self.mark);
        let connector = tower::service_fn(move |_: Uri| {
            let (tls, host) = (tls.clone(), host.clone());
            async move {
                let name = rustls_pki_types::ServerName::try_from(host.clone()).map_err(std::io::Error::other)?;
                let stream = connect(&host, port, mark).await?;
                Ok::<_, std::io::Error>(TokioIo::new(tls.connect(name, stream).await?))
            }
        });
        let channel = self.endpoint.connect_with_connector_lazy(connector);
        Ok(MeshControlClient::new(channel).max_decoding_message_size(MAX_MESSAGE))
    }
}

/// The first of the host's addresses that answers.
async fn connect(host: &str, port: u16, mark: Option<u32>) -> std::io::Result<TcpStream> {
    let mut failure = std::io::Error::from(std::io::ErrorKind::NotFound);
    for address in tokio::net::lookup_host((host, port)).await? {
        match capture::connect_tcp(address, None, mark, CONNECT).await {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}
