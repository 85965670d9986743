//! Clients of the applications' side: HTTP/1.1 through the explicit proxy in absolute form, and anything through its CONNECT.
//! Reads and writes what it is told; interprets nothing.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Version};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::Frame;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A body of any origin.
pub type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: StatusCode,
    pub version: Version,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub trailers: Option<HeaderMap>,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A header of the answer, or the empty string.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

pub fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// A body with trailers behind it.
///
/// # Panics
/// When one of them is none.
pub fn with_trailers(bytes: impl Into<Bytes>, trailers: &[(&str, &str)]) -> Body {
    let field = |(name, value): &(&str, &str)| {
        (HeaderName::from_bytes(name.as_bytes()).expect("a name"), HeaderValue::from_str(value).expect("a value"))
    };
    let trailers = Frame::trailers(trailers.iter().map(field).collect());
    StreamBody::new(futures_util::stream::iter([Ok(Frame::data(bytes.into())), Ok(trailers)])).boxed_unsync()
}

pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

enum Sender {
    H1(http1::SendRequest<Body>),
    H2(http2::SendRequest<Body>),
}

/// One connection.
pub struct Client {
    sender: Sender,
    /// Put in front of paths: absolute form for a forward proxy, `http://host` for HTTP/2, nothing for a server.
    base: String,
    host: String,
}

/// Why a call had no answer.
#[derive(Debug)]
pub struct CallError(pub String);

impl Client {
    /// Straight to a server.
    ///
    /// # Panics
    /// When it can't be reached.
    pub async fn direct(address: SocketAddr) -> Self {
        let sender = h1(tcp(address).await).await;
        Self { sender, base: String::new(), host: address.to_string() }
    }

    /// HTTP/1.1 to `host` by the forward proxy at `proxy`.
    ///
    /// # Panics
    /// When the proxy can't be reached.
    pub async fn through(proxy: SocketAddr, host: &str) -> Self {
        Self::over(tcp(proxy).await, host).await
    }

    /// The same over a connection that is there already.
    pub async fn over(stream: TcpStream, host: &str) -> Self {
        Self { sender: h1(stream).await, base: format!("http://{host}"), host: host.to_owned() }
    }

    /// HTTP/1.1 inside a CONNECT tunnel.
    ///
    /// # Panics
    /// When the tunnel is refused.
    pub async fn h1_in_tunnel(proxy: SocketAddr, authority: &str) -> Self {
        let sender = h1(tunnel(proxy, authority).await).await;
        Self { sender, base: String::new(), host: authority.to_owned() }
    }

    /// HTTP/2 with prior knowledge inside a CONNECT tunnel, as gRPC does it.
    ///
    /// # Panics
    /// When the tunnel or the handshake is refused.
    pub async fn h2_in_tunnel(proxy: SocketAddr, authority: &str) -> Self {
        Self::h2_over(tunnel(proxy, authority).await, authority).await
    }

    /// HTTP/2 with prior knowledge to `host` by the forward proxy at `proxy`.
    ///
    /// # Panics
    /// When the proxy can't be reached, or refuses the handshake.
    pub async fn h2_through(proxy: SocketAddr, host: &str) -> Self {
        Self::h2_over(tcp(proxy).await, host).await
    }

    /// HTTP/2 with prior knowledge over a connection that is there already.
    ///
    /// # Panics
    /// When the handshake is refused.
    pub async fn h2_over(stream: TcpStream, authority: &str) -> Self {
        let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
        let (sender, connection) = handshake.expect("an HTTP/2 handshake");
        tokio::spawn(connection);
        Self { sender: Sender::H2(sender), base: format!("http://{authority}"), host: authority.to_owned() }
    }

    /// # Panics
    /// When there is no answer.
    pub async fn get(&mut self, path: &str) -> Answer {
        self.call(Method::GET, path, &[], empty()).await.expect("an answer")
    }

    /// # Panics
    /// When there is no answer.
    pub async fn post(&mut self, path: &str, body: impl Into<Bytes>) -> Answer {
        self.call(Method::POST, path, &[], full(body)).await.expect("an answer")
    }

    /// # Panics
    /// When there is no answer.
    pub async fn get_with(&mut self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.call(Method::GET, path, headers, empty()).await.expect("an answer")
    }

    /// Sends one request and reads the whole answer.
    ///
    /// # Errors
    /// The connection or the stream broke.
    pub async fn call(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Body,
    ) -> Result<Answer, CallError> {
        let mut response = self.start(method, path, headers, body).await?;
        let (status, version, headers) = (response.status(), response.version(), response.headers().clone());
        let collected = response.body_mut().collect().await.map_err(|error| CallError(format!("body: {error}")))?;
        let trailers = collected.trailers().cloned();
        Ok(Answer { status, version, headers, body: collected.to_bytes(), trailers })
    }

    /// Sends one request and gives the answer with its body still to come.
    ///
    /// # Errors
    /// The connection or the stream broke before the head.
    pub async fn start(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Body,
    ) -> Result<http::Response<hyper::body::Incoming>, CallError> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        if matches!(self.sender, Sender::H1(_)) && !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            request = request.header("host", &self.host);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body).map_err(|error| CallError(error.to_string()))?;
        let broken = |error: hyper::Error| CallError(format!("{error:?}"));
        match &mut self.sender {
            Sender::H1(sender) => {
                sender.ready().await.map_err(broken)?;
                sender.send_request(request).await.map_err(broken)
            }
            Sender::H2(sender) => {
                sender.ready().await.map_err(broken)?;
                sender.send_request(request).await.map_err(broken)
            }
        }
    }
}

async fn h1(stream: TcpStream) -> Sender {
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("HTTP/1 needs no handshake");
    tokio::spawn(connection.with_upgrades());
    Sender::H1(sender)
}

async fn tcp(address: SocketAddr) -> TcpStream {
    let stream =
        TcpStream::connect(address).await.unwrap_or_else(|error| panic!("cannot connect to {address}: {error}"));
    stream.set_nodelay(true).expect("nodelay");
    stream
}

/// A CONNECT tunnel by the explicit proxy.
///
/// # Panics
/// When the proxy refuses it.
pub async fn tunnel(proxy: SocketAddr, authority: &str) -> TcpStream {
    let (stream, head) = try_tunnel(proxy, authority).await;
    assert!(head.starts_with("HTTP/1.1 200"), "CONNECT {authority}: {head}");
    stream
}

/// CONNECT with whatever the proxy answers: the stream behind the head, and the head.
///
/// # Panics
/// When the proxy can't be reached or says nothing.
pub async fn try_tunnel(proxy: SocketAddr, authority: &str) -> (TcpStream, String) {
    tunnel_over(tcp(proxy).await, authority).await
}

/// The same over a connection to the proxy that is there already.
///
/// # Panics
/// When the proxy says nothing.
pub async fn tunnel_over(mut stream: TcpStream, authority: &str) -> (TcpStream, String) {
    let request = format!("CONNECT {authority} HTTP/1.1\r\nhost: {authority}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("the proxy reads");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let byte = stream.read_u8().await.expect("the proxy answers with a head");
        head.push(byte);
    }
    (stream, String::from_utf8_lossy(&head).into_owned())
}

/// Sends bytes as they are and reads until the other side closes.
///
/// # Panics
/// When the address can't be reached.
pub async fn raw(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = tcp(address).await;
    stream.write_all(bytes).await.expect("the other side reads");
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    let closed = tokio::time::timeout(crate::wait::LIMIT, read).await.is_ok();
    assert!(closed, "{address} does not close after {:?}", String::from_utf8_lossy(bytes));
    String::from_utf8_lossy(&answer).into_owned()
}
