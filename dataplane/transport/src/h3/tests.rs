//! The HTTP/3 layer alone, against itself, against an independent implementation and against peers that misbehave.

mod cancels;
mod ends;
mod frames;
mod loopback;
mod malformed;
mod messages;
mod peers;
mod upgrades;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};

use super::{Client, Incoming, Limits, RecvStream, SendStream, Server};
use crate::http::{RequestHead, ResponseHead, StreamError};

/// Far longer than anything here takes: a wait that ends by it has failed.
const PATIENCE: Duration = Duration::from_secs(20);

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("in time")
}

/// Waits for a condition, giving other tasks their turn.
async fn until(mut condition: impl FnMut() -> bool) {
    soon(async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

/// Reads the head of a request; the halves with it.
async fn read(mut incoming: Incoming) -> Result<(RequestHead, RecvStream, SendStream), StreamError> {
    let head = incoming.head().await?;
    let (recv, send) = incoming.into_streams();
    Ok((head, recv, send))
}

fn hex(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

/// Both ends of one QUIC connection on loopback.
struct Pair {
    client: quinn::Connection,
    server: quinn::Connection,
    _endpoints: [quinn::Endpoint; 2],
}

impl Pair {
    async fn new() -> Pair {
        Pair::with(quinn::TransportConfig::default()).await
    }

    /// Both ends with the same transport settings.
    async fn with(transport: quinn::TransportConfig) -> Pair {
        let transport = Arc::new(transport);
        let certified = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let certificate = certified.cert.der().clone();
        let key = rustls_pki_types::PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
        let mut tls = rustls::ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key.into())
            .unwrap();
        tls.alpn_protocols = vec![b"h3".to_vec()];
        let mut config = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()));
        config.transport_config(transport.clone());
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let listening = quinn::Endpoint::server(config, any).unwrap();

        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificate).unwrap();
        let mut tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![b"h3".to_vec()];
        let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
        config.transport_config(transport);
        let dialing = quinn::Endpoint::client(any).unwrap();
        let connecting = dialing.connect_with(config, listening.local_addr().unwrap(), "localhost").unwrap();
        let (client, server) = tokio::join!(connecting, async { listening.accept().await.unwrap().await });
        Pair { client: client.unwrap(), server: server.unwrap(), _endpoints: [listening, dialing] }
    }

    fn start_client(&self, limits: Limits) -> Client {
        let (client, driver) = super::connect(self.client.clone(), limits);
        tokio::spawn(driver);
        client
    }

    fn start_server(&self, limits: Limits) -> Server {
        let (server, driver) = super::accept(self.server.clone(), limits);
        tokio::spawn(driver);
        server
    }

    fn start(&self) -> (Client, Server) {
        (self.start_client(Limits::default()), self.start_server(Limits::default()))
    }
}

fn headers(fields: &[(&str, &str)]) -> HeaderMap {
    let field = |(name, value): &(&str, &str)| {
        (HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap())
    };
    fields.iter().map(field).collect()
}

fn request(method: Method, path: &str, fields: &[(&str, &str)]) -> RequestHead {
    RequestHead {
        method,
        authority: Some("shop.test".parse().unwrap()),
        path: Some(path.parse().unwrap()),
        protocol: None,
        headers: headers(fields),
        version: Version::HTTP_3,
    }
}

fn connect_to(authority: &str) -> RequestHead {
    let authority = Some(authority.parse().unwrap());
    RequestHead { method: Method::CONNECT, authority, path: None, ..request(Method::GET, "/", &[]) }
}

fn response(status: u16, fields: &[(&str, &str)]) -> ResponseHead {
    ResponseHead { status: StatusCode::from_u16(status).unwrap(), headers: headers(fields) }
}

/// A HEADERS frame with these fields, whether they are allowed or not.
fn headers_frame(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut section = vec![0, 0];
    for (name, value) in fields {
        match u8::try_from(name.len()).unwrap() {
            short @ 0..7 => section.push(0x20 | short),
            long => section.extend([0x27, long - 7]),
        }
        section.extend(name.as_bytes());
        section.push(u8::try_from(value.len()).unwrap());
        section.extend(value.as_bytes());
    }
    frame(1, &section)
}

/// Any frame.
fn frame(kind: u64, payload: &[u8]) -> Vec<u8> {
    let mut out = bytes::BytesMut::new();
    super::frame::write_varint(&mut out, kind);
    super::frame::write_varint(&mut out, payload.len() as u64);
    out.extend_from_slice(payload);
    out.to_vec()
}

fn data(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}
