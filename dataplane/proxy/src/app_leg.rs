//! The leg towards an application (or an address outside the mesh): checks out a connection, carries the exchange, gives the
//! connection back. What the app provably did not process is sent again, and so is an idempotent request that died on a
//! kept connection before a byte of its answer.

#[cfg(test)]
mod tests;

use std::pin::pin;
use std::time::{Duration, Instant};

use http::Version;
use weft_filter_host::Permit;
use weft_policy::bundle::is_idempotent;
use weft_transport::http::{ResponseRecv, SendBody};

use crate::apps::{AppConn, AppPool, Conn};
use crate::budget::{Budget, Counted};
use crate::call::{Call, Failed};
use crate::filtering::Filtered;
use crate::record::Unanswered;
use crate::relay::{self, ClientGone, Idle, Terms};
use crate::reply::{Failure, Party};
use crate::room::Room;
use crate::sockets::PlainSocket;
use crate::telemetry::counters::{Counters, Limited};
use crate::trial::Trial;

/// The pause after an app's second refusal of a request; it doubles up to [`MAX_PAUSE`]. Not in the configuration: short
/// enough for nobody to notice, long enough for an app that renews its connection.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const MAX_PAUSE: Duration = Duration::from_millis(250);

/// Parts and settings that a leg to an app works with.
#[derive(Clone, Copy)]
pub struct AppLeg<'a> {
    pub apps: &'a AppPool,
    pub counters: &'a Counters,
    /// Of requests that died on kept connections.
    pub budget: &'a Budget,
    /// When the worker's clock began.
    pub start: Instant,
    pub connect_timeout: Duration,
    /// Times that a request is sent again after the app refused it unprocessed. An app that ends its connections by GOAWAY
    /// refuses what was sent too soon each time, so a crowd needs several.
    pub resends: u32,
    pub idle: Idle<'a>,
}

impl AppLeg<'_> {
    /// Sends the request to one of `sockets` in `version`, and its answer back.
    pub async fn carry(
        &self,
        sockets: &[PlainSocket],
        version: Version,
        mut permit: Permit,
        filtered: &mut Filtered<'_>,
        call: &mut Call<'_, '_>,
    ) -> Result<(), Failed> {
        let _counted = Counted::of(self.budget);
        let (mut refusals, mut new) = (0, false);
        loop {
            match self.attempt(sockets, version, new, permit, filtered, call).await {
                Err(Failed::Unprocessed(failure, again))
                    if failure.is_refusal() && refusals < self.resends && call.rewind() =>
                {
                    permit = again;
                    refusals += 1;
                    if refusals > 1 {
                        let pause = FIRST_PAUSE.saturating_mul(1 << (refusals - 2).min(8));
                        tokio::time::sleep(pause.min(MAX_PAUSE)).await;
                    }
                }
                Err(Failed::Unanswered(failure, again)) => {
                    let repeatable = !new && is_idempotent(call.head.method.as_str()) && call.rewind();
                    if !repeatable || !self.budget.withdraw(self.start.elapsed()) {
                        return Err(Failed::Unfinished(failure, again));
                    }
                    permit = again;
                    new = true;
                }
                ended => {
                    if refusals > 0 && refusals == self.resends && ended.is_err() {
                        Limited::AppResends.hit();
                    }
                    return ended;
                }
            }
            self.counters.retries.increment(1);
        }
    }

    async fn attempt(
        &self,
        sockets: &[PlainSocket],
        version: Version,
        new: bool,
        permit: Permit,
        filtered: &mut Filtered<'_>,
        call: &mut Call<'_, '_>,
    ) -> Result<(), Failed> {
        let mut conn = self.connection(sockets, version, new, permit, call).await?;
        match self.carry_over(&mut conn.conn, filtered, call).await {
            Ok(()) => {
                self.apps.put_back(conn);
                Ok(())
            }
            Err(unanswered) => Err(failed(conn, unanswered)),
        }
    }

    /// A kept connection, where that may be one and there is one.
    async fn connection(
        &self,
        sockets: &[PlainSocket],
        version: Version,
        new: bool,
        permit: Permit,
        call: &mut Call<'_, '_>,
    ) -> Result<AppConn, Failed> {
        let kept = match new {
            true => Err(permit),
            false => self.apps.checkout_kept(sockets, version, call.holder, permit),
        };
        match kept {
            Ok(conn) => Ok(conn),
            // Boxed: rare, and larger than all the rest of a request's leg to its app.
            Err(permit) => Box::pin(self.connect(sockets, version, permit, call)).await,
        }
    }

    /// Carries the exchange over a connection.
    async fn carry_over(
        &self,
        conn: &mut Conn,
        filtered: &mut Filtered<'_>,
        call: &mut Call<'_, '_>,
    ) -> Result<(), Unanswered> {
        let end = call.body.is_end();
        let unsent = |error| Unanswered::new(Party::App, error);
        match conn {
            Conn::H1(h1) => {
                let streams = h1.send(call.head, end).await.map_err(unsent)?;
                exchange(streams, self.idle, filtered, call, Party::App).await
            }
            Conn::H2(h2) => {
                let (mut send, mut receive) = h2.slot.send(call.head, end).await.map_err(unsent)?;
                let streams = (SendBody::H2(&mut send), ResponseRecv::H2(&mut receive));
                exchange(streams, self.idle, filtered, call, Party::App).await
            }
        }
    }

    /// A new connection, as long as the client waits for it.
    async fn connect(
        &self,
        sockets: &[PlainSocket],
        version: Version,
        permit: Permit,
        call: &mut Call<'_, '_>,
    ) -> Result<AppConn, Failed> {
        let connecting = pin!(self.apps.checkout_new(sockets, version, self.connect_timeout, call.holder, permit));
        // A connection of HTTP/2 is made for all who wait for it: it does not end with one client.
        let client = if version == Version::HTTP_2 { None } else { call.responder.as_mut() };
        let connected = relay::unless_gone(connecting, client).await;
        let connected = connected.map_err(|ClientGone| Failed::Final(Failure::ClientGone))?;
        connected.map_err(|(failure, permit)| Failed::Unprocessed(failure, permit))
    }
}

fn failed(conn: AppConn, unanswered: Unanswered) -> Failed {
    let Unanswered { failure, unprocessed, lost } = unanswered;
    match (unprocessed, lost && conn.reused) {
        (true, _) => Failed::Unprocessed(failure, conn.into_permit()),
        (false, true) => Failed::Unanswered(failure, conn.into_permit()),
        (false, false) => Failed::Unfinished(failure, conn.into_permit()),
    }
}

/// Carries an exchange over streams that are open, response filters included, and notes how it went.
///
/// # Errors
/// The client was not answered. What broke off behind a final head is in the record.
pub async fn exchange(
    streams: (SendBody<'_>, ResponseRecv<'_>),
    idle: Idle<'_>,
    filtered: &mut Filtered<'_>,
    call: &mut Call<'_, '_>,
    to: Party,
) -> Result<(), Unanswered> {
    let terms = Terms {
        filtered: &mut *filtered,
        status: &call.record.answer,
        from_peer: to == Party::Peer,
        grpc: call.record.is_grpc(),
        upgrade: call.head.protocol.is_some(),
        expects: call.head.expects_continue(),
        again: Trial::again(call.trial),
        received: Trial::received(call.trial),
        begun: Trial::begun(call.trial),
        ends: Trial::ends(call.trial),
        flow: Trial::flow(call.trial),
        idle,
    };
    let accounts = (&call.record.sent, &call.record.received);
    // The two pumps are most of a request's future, and everything above would carry them along.
    let exchange = || relay::exchange((&mut *call.body, &mut *call.responder), streams, terms, accounts);
    let result = Room::take().run(exchange).await;
    if let Some(answered) = call.record.answer.get() {
        call.record.answered(answered.sent);
    }
    match result {
        Ok(()) => Ok(()),
        Err(error) => match call.record.ended(error, to) {
            Some(unanswered) => Err(unanswered),
            None => Ok(()),
        },
    }
}
