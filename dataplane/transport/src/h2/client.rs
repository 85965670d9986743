//! The client role of HTTP/2: one connection, shared by clones, with its driver as a local task.

use std::cell::Cell;
use std::rc::Rc;

use bytes::Bytes;
use h2::client::SendRequest;
use http::uri::{self, Uri};
use http::{Method, Request, Version};
use tokio::io::{AsyncRead, AsyncWrite};

use super::stream::end_to_end;
use super::{Limits, RecvStream, SendStream, is_unprocessed, stream_error};
use crate::http::{RequestHead, SendError, StreamError};

/// A connection to a server; clones share it. It ends when the last clone and the last stream are gone.
#[derive(Debug, Clone)]
pub struct ClientConn {
    requests: SendRequest<Bytes>,
    closed: Rc<Cell<bool>>,
    fields: usize,
}

impl ClientConn {
    /// Exchanges the prefaces and spawns the connection's driver on the current `LocalSet`; the driver ends with the
    /// connection.
    pub async fn connect<T>(io: T, limits: &Limits) -> Result<Self, StreamError>
    where
        T: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let (requests, connection) = h2::client::Builder::new()
            .enable_push(false)
            .initial_window_size(limits.stream_window)
            .initial_connection_window_size(limits.connection_window)
            .max_header_list_size(limits.header_list_bytes)
            .max_send_buffer_size(limits.send_buffer)
            .handshake(io)
            .await
            .map_err(|error| stream_error(&error))?;
        let closed = Rc::new(Cell::new(false));
        let ended = Rc::clone(&closed);
        tokio::task::spawn_local(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "HTTP/2 connection ended");
            }
            ended.set(true);
        });
        Ok(Self { requests, closed, fields: limits.fields })
    }

    /// Sends a request head, waiting for a free stream. After a GOAWAY the error says `unprocessed`.
    pub async fn send(&self, head: &RequestHead, end: bool) -> Result<(SendStream, RecvStream), SendError> {
        let request = request(head).map_err(|error| SendError { error, unprocessed: true })?;
        let not_sent = |error: h2::Error| {
            self.closed.set(true);
            SendError { error: stream_error(&error), unprocessed: true }
        };
        let mut requests = self.requests.clone().ready().await.map_err(not_sent)?;
        let (response, body) = requests.send_request(request, end).map_err(|error| SendError {
            unprocessed: is_unprocessed(&error) || error.is_go_away() || !error.is_reset(),
            error: stream_error(&error),
        })?;
        Ok((SendStream::request(body, end), RecvStream::response(response, self.fields)))
    }

    /// True once the connection takes no further request: closed, failed or going away.
    pub fn is_closed(&self) -> bool {
        self.closed.get()
    }
}

fn request(head: &RequestHead) -> Result<Request<()>, StreamError> {
    let mut parts = uri::Parts::default();
    parts.authority = head.authority.clone();
    let mut version = Version::HTTP_2;
    if head.method != Method::CONNECT {
        parts.path_and_query = head.path.clone();
        match parts.authority {
            Some(_) => parts.scheme = Some(uri::Scheme::HTTP),
            // The crate takes a request without an authority only as one that came by HTTP/1.
            None => version = Version::HTTP_11,
        }
    }
    let mut request = Request::new(());
    *request.uri_mut() = Uri::from_parts(parts).map_err(|_| StreamError::Protocol("request without a target"))?;
    *request.method_mut() = head.method.clone();
    *request.version_mut() = version;
    *request.headers_mut() = end_to_end(&head.headers);
    Ok(request)
}
