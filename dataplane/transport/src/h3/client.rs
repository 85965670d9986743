//! The client's side of a connection: sending requests, and knowing when to stop.

use std::sync::Arc;

use bytes::Bytes;

use super::connection::{Connection, lost};
use super::recv::RequestKind;
use super::send::fits;
use super::{Code, Limits, RecvStream, SendStream, driver, frame, message};
use crate::block::assemble;
use crate::http::{Added, RequestHead, SendError, StreamError};

/// Takes over an established connection as its client. The future drives the control streams and ends with the connection.
pub fn connect(quic: quinn::Connection, limits: Limits) -> (Client, impl Future<Output = ()> + Send + 'static) {
    let connection = Arc::new(Connection::new(quic, frame::Role::Client, limits));
    (Client { connection: connection.clone() }, driver::drive(connection))
}

/// The sending side of a connection's requests; cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    connection: Arc<Connection>,
}

impl Client {
    /// Sends a request head, waiting for stream credit no longer than [`Limits::stream_wait`]. `end`: the request has no body.
    ///
    /// An extended CONNECT first waits for the server's SETTINGS. Cancel safe: a request whose future is dropped was not
    /// sent, or is reset.
    pub async fn send(&self, head: &RequestHead, end: bool) -> Result<(SendStream, RecvStream), SendError> {
        self.send_with(head, &Added::default(), end).await
    }

    /// Sends a request head with what this hop adds to it; else as `send`.
    pub async fn send_with(
        &self,
        head: &RequestHead,
        added: &Added<'_>,
        end: bool,
    ) -> Result<(SendStream, RecvStream), SendError> {
        if head.protocol.is_some() {
            self.supports_extended_connect().await?;
        }
        let huffman = self.connection.limits.huffman;
        let (headers, size) =
            assemble(|out| frame::write_headers(out, |out| message::encode_request(out, head, added, huffman)));
        let size = size.map_err(|missing| unprocessed(StreamError::Protocol(missing.0)))?;
        fits(&self.connection, size).map_err(unprocessed)?;
        let (send, recv) = self.open().await?;
        self.connection.opened();
        let mut send = SendStream::new(send, self.connection.clone(), Code::REQUEST_CANCELLED);
        let kind = RequestKind::from(head);
        let recv = RecvStream::new(recv, self.connection.clone(), kind, Code::REQUEST_CANCELLED);
        self.write_head(&mut send, headers, end).await?;
        Ok((send, recv))
    }

    async fn write_head(&self, send: &mut SendStream, headers: Bytes, end: bool) -> Result<(), SendError> {
        // A head that never left whole can't have been processed.
        send.headers(headers, 0, end).await.map_err(unprocessed)?;
        send.flush().await.map_err(unprocessed)
    }

    /// A stream, once the peer allows one. Nothing was sent where there is none in time.
    async fn open(&self) -> Result<(quinn::SendStream, quinn::RecvStream), SendError> {
        let wait = self.connection.limits.stream_wait;
        let mut late = None;
        loop {
            let changed = self.connection.changed.notified();
            if self.connection.is_draining() {
                return Err(unprocessed(StreamError::ConnectionLost("draining".to_owned())));
            }
            // Only who waits needs a clock.
            let waited = async { late.get_or_insert_with(|| Box::pin(tokio::time::sleep(wait))).await };
            tokio::select! {
                biased;
                opened = self.connection.quic.open_bi() => return opened.map_err(|error| unprocessed(lost(&error))),
                () = waited => return Err(unprocessed(StreamError::Busy(wait))),
                () = changed => {}
            }
        }
    }

    //= rfc9220#section-3
    async fn supports_extended_connect(&self) -> Result<(), SendError> {
        loop {
            let changed = self.connection.changed.notified();
            match self.connection.peer.get() {
                Some(peer) if peer.connect_protocol => return Ok(()),
                Some(_) => return Err(unprocessed(StreamError::Protocol("peer has no extended CONNECT"))),
                None if self.connection.is_closed() => {
                    return Err(unprocessed(StreamError::ConnectionLost("closed".to_owned())));
                }
                None => changed.await,
            }
        }
    }

    /// True once no new request should be sent here: GOAWAY received, retired, or the connection is gone.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.connection.is_draining()
    }

    /// True once the connection is gone.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.connection.is_closed()
    }

    /// Requests whose streams are still held.
    #[must_use]
    pub fn open_streams(&self) -> usize {
        self.connection.open_streams()
    }

    /// Takes no new request; the driver closes the connection once those in flight are done.
    pub fn retire(&self) {
        self.connection.retire();
    }

    /// Closes at once; requests in flight fail.
    pub fn close(&self) {
        self.connection.close(Code::NO_ERROR, "closed");
    }

    /// The QUIC connection under it, for its addresses, identity and statistics.
    #[must_use]
    pub fn quic(&self) -> &quinn::Connection {
        &self.connection.quic
    }
}

fn unprocessed(error: StreamError) -> SendError {
    SendError { error, unprocessed: true }
}
