//! The server role of HTTP/2: requests as they come, on any number of streams.

use bytes::Bytes;
use h2::Reason;
use h2::server::{Connection, SendResponse};
use http::header::HOST;
use http::uri::Authority;
use http::{Request, Version};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Limits, RecvStream, SendStream, stream_error};
use crate::http::{RequestHead, StreamError, is_plain};
use crate::tcp::prefixed::Prefixed;

/// A connection from a client. It makes progress only while `accept` is polled, also for streams already accepted.
#[derive(Debug)]
pub struct ServerConn<T> {
    connection: Connection<Prefixed<T>, Bytes>,
    fields: usize,
}

impl<T: AsyncRead + AsyncWrite + Unpin> ServerConn<T> {
    /// Exchanges the connection prefaces; `prefix` is what was already read from the stream.
    pub async fn new(io: T, prefix: Bytes, limits: &Limits) -> Result<Self, StreamError> {
        let connection = h2::server::Builder::new()
            .initial_window_size(limits.stream_window)
            .initial_connection_window_size(limits.connection_window)
            .max_concurrent_streams(limits.concurrent_streams)
            .max_header_list_size(limits.header_list_bytes)
            .max_send_buffer_size(limits.send_buffer)
            .max_pending_accept_reset_streams(limits.pending_resets)
            .handshake(Prefixed::new(prefix, io))
            .await
            .map_err(|error| stream_error(&error))?;
        Ok(Self { connection, fields: limits.fields })
    }

    /// The next request; `None` once the connection has ended and every stream with it. Cancel safe. Malformed requests are
    /// reset here and never seen.
    pub async fn accept(&mut self) -> Option<Result<(RequestHead, RecvStream, SendStream), StreamError>> {
        loop {
            let (request, respond) = match self.connection.accept().await? {
                Ok(accepted) => accepted,
                Err(error) => return Some(Err(stream_error(&error))),
            };
            if let Some(exchange) = self.exchange(request, respond) {
                return Some(Ok(exchange));
            }
        }
    }

    fn exchange(
        &self,
        request: Request<h2::RecvStream>,
        mut respond: SendResponse<Bytes>,
    ) -> Option<(RequestHead, RecvStream, SendStream)> {
        let (parts, body) = request.into_parts();
        match request_head(parts, self.fields) {
            Ok(head) => Some((head, RecvStream::request(body, self.fields), SendStream::response_to(respond))),
            Err(reason) => {
                respond.send_reset(reason);
                None
            }
        }
    }

    /// Sends GOAWAY; streams that the client has opened until it sees it still complete, then `accept` gives `None`.
    pub fn graceful_shutdown(&mut self) {
        self.connection.graceful_shutdown();
    }
}

//= rfc9113#section-8.3.1
fn request_head(parts: http::request::Parts, fields: usize) -> Result<RequestHead, Reason> {
    let mut headers = parts.headers;
    if headers.len() > fields {
        return Err(Reason::ENHANCE_YOUR_CALM);
    }
    // Extended CONNECT is not offered in our SETTINGS.
    //= rfc8441#section-4
    if parts.extensions.get::<h2::ext::Protocol>().is_some() {
        return Err(Reason::PROTOCOL_ERROR);
    }
    let uri = parts.uri.into_parts();
    let host = sole_host(&mut headers)?;
    let authority = match (uri.authority, host) {
        (Some(authority), Some(host)) if authority != host => return Err(Reason::PROTOCOL_ERROR),
        (Some(authority), _) => Some(authority),
        (None, host) => host,
    };
    if authority.as_ref().is_some_and(|authority| !is_plain(authority)) {
        return Err(Reason::PROTOCOL_ERROR);
    }
    let connect = parts.method == http::Method::CONNECT;
    if connect && authority.as_ref().and_then(Authority::port_u16).is_none_or(|port| port == 0) {
        return Err(Reason::PROTOCOL_ERROR);
    }
    Ok(RequestHead {
        method: parts.method,
        authority,
        path: uri.path_and_query.filter(|_| !connect),
        absolute_form: false,
        target_authority: None,
        protocol: None,
        headers,
        version: Version::HTTP_2,
    })
}

fn sole_host(headers: &mut http::HeaderMap) -> Result<Option<Authority>, Reason> {
    let mut hosts = headers.get_all(HOST).iter();
    let host = hosts.next().map(|value| Authority::try_from(value.as_bytes()));
    let several = hosts.next().is_some();
    if host.is_some() {
        headers.remove(HOST);
    }
    match host.transpose() {
        Ok(host) if !several => Ok(host),
        Ok(_) | Err(_) => Err(Reason::PROTOCOL_ERROR),
    }
}
