//! The leg towards an application (or a plain destination): checks out a connection, carries the exchange, gives the
//! connection back. Both sides of the proxy end here or at a peer.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;

use http::{StatusCode, Version};
use weft_transport::http::{ResponseRecv, SendBody};

use crate::apps::AppConn;
use crate::filtering::Filtered;
use crate::outbound::Call;
use crate::relay::{self, Terms};
use crate::reply::Failure;
use crate::worker::Worker;

/// Sends the request to the application at `address` and its answer back. The flag of an error says whether the
/// request provably was not processed.
pub async fn carry(
    worker: &Rc<Worker>,
    address: SocketAddr,
    version: Version,
    filtered: &mut Filtered<'_>,
    call: &mut Call<'_, '_>,
) -> Result<(), (Failure, bool)> {
    let connected = worker.apps.checkout(address, version).await;
    let mut conn = connected
        .map_err(|error| (Failure::AppConnect { address: error.address.to_string(), reason: error.reason }, true))?;
    let end = call.body.is_end();
    let result = match &mut conn {
        AppConn::H1(conn) => match conn.send(call.head, end).await {
            Ok(streams) => exchange(streams, filtered, call, "the app").await,
            Err(error) => Err(not_sent(error)),
        },
        AppConn::H2(conn) => match conn.send(call.head, end).await {
            Ok((mut send, mut receive)) => {
                let streams = (SendBody::H2(&mut send), ResponseRecv::H2(&mut receive));
                exchange(streams, filtered, call, "the app").await
            }
            Err(error) => Err(not_sent(error)),
        },
    };
    worker.apps.put_back(address, conn);
    result
}

fn not_sent(error: weft_transport::http::SendError) -> (Failure, bool) {
    let unprocessed = error.unprocessed;
    let error = error.error;
    let to = "the app";
    (if unprocessed { Failure::Unprocessed { to, error } } else { Failure::NoAnswer { to, error } }, unprocessed)
}

/// Carries an exchange over streams that are open, response filters included, and notes how it went.
pub async fn exchange(
    streams: (SendBody<'_>, ResponseRecv<'_>),
    filtered: &mut Filtered<'_>,
    call: &mut Call<'_, '_>,
    to: &'static str,
) -> Result<(), (Failure, bool)> {
    let status = Cell::new(None::<StatusCode>);
    let terms = Terms { filtered, status: &status, grpc: call.record.grpc };
    let accounts = (&call.record.sent, &call.record.received);
    // Boxed: the two pumps are most of a request's future, and everything above carries them along.
    let result = Box::pin(relay::exchange((call.body, call.responder), streams, terms, accounts)).await;
    if let Some(status) = status.get() {
        call.record.answered(status);
    }
    match result {
        Ok(()) => Ok(()),
        Err(error) => match call.record.ended(error, to) {
            Some(unanswered) => Err(unanswered),
            None => Ok(()),
        },
    }
}
