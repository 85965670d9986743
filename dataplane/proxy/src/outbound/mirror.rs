//! Copies of requests to the services that a route mirrors to, beside the request itself, which waits for none of them and
//! fails with none of them. Each is sent once to one endpoint, judged there as any request; its answer is read and dropped.

mod exchange;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use http::{HeaderValue, StatusCode};
use weft_filter_host::Permit;
use weft_policy::route;
use weft_transport::http::{RequestHead, ResponseRecv, SendBody};

use self::exchange::{Broken, Moved};
use super::attempts::{Attempts, Goal, Once};
use crate::apps::{Conn, Holder};
use crate::call::Call;
use crate::copying::{Copied, Cut, Place, tapped};
use crate::mesh::{self, Stamp};
use crate::record::Unanswered;
use crate::reply::{Failure, Flag, Party};
use crate::snapshot::{Served, Snapshot};
use crate::sockets::PlainSocket;
use crate::telemetry::access_log::Logged;
use crate::telemetry::counters::Mirrored;
use crate::telemetry::series::RequestEnd;
use crate::worker::Worker;

/// The copies of one request that are to be sent. They hold nothing of the configuration.
#[derive(Default)]
pub(super) struct Mirrors(Option<Box<[(Once, Permit)]>>);

impl Mirrors {
    /// Those that the route and the dice want of a request. A stream after an upgrade has no copy.
    pub(super) fn of(
        worker: &Rc<Worker>,
        snapshot: &Snapshot,
        from: &Served,
        (plan, head): (&route::Plan<'_>, &RequestHead),
        permit: &Permit,
    ) -> Self {
        if !plan.has_mirrors() || head.protocol.is_some() {
            return Self::default();
        }
        let copies = plan.copies(&snapshot.routes, || worker.dice()).into_iter();
        let resolved = copies.filter_map(|copied| {
            if copied.to.is_none() {
                Mirrored::Unresolved.count();
            }
            copied.to
        });
        let once = |(service, target)| {
            let goal = Goal { service, target, direct: None, outside: false };
            (Attempts::new(worker, snapshot, from, goal, Some(&head.headers)).once(), permit.of_copy())
        };
        Self(Some(resolved.map(once).collect()))
    }

    /// Sends them, once the request has an endpoint; later calls do nothing.
    pub(super) fn start(&mut self, worker: &Rc<Worker>, from: &Served, call: &mut Call<'_, '_>) {
        for (once, permit) in self.0.take().into_iter().flatten() {
            let Some(place) = worker.copies.enter() else {
                Mirrored::Full.count();
                continue;
            };
            let body = (!call.body.is_end()).then(|| {
                let (tap, copied) = tapped(worker.shared.config.limits.mirror_buffer_bytes);
                call.body.copy_to(tap);
                copied
            });
            let mirror = Mirror {
                worker: Rc::clone(worker),
                head: call.head.clone(),
                body,
                source: from.source.clone(),
                holder: call.holder.clone(),
                log: call.record.log_of_copy(call.head),
                moved: Moved::default(),
                _place: place,
            };
            // A drain does not wait for it: it ends by itself, or with the process.
            tokio::task::spawn_local(mirror.run(once, permit));
        }
    }
}

/// How a copy ended.
#[derive(Debug)]
enum End {
    /// Its answer's head came.
    Answered(StatusCode, Instant),
    Failed(Failure),
    /// By a kept connection that ended meanwhile, as its app may have it.
    Lost(Failure),
    Cut(Cut),
    Late,
}

/// One copy on its way.
struct Mirror {
    worker: Rc<Worker>,
    head: RequestHead,
    /// `None`: there is none.
    body: Option<Copied>,
    source: HeaderValue,
    holder: Holder,
    /// Where the access log is on.
    log: Option<Box<Logged>>,
    moved: Moved,
    _place: Place,
}

impl Mirror {
    async fn run(mut self, once: Once, permit: Permit) {
        let begun = Instant::now();
        let limit = Duration::from_millis(self.worker.shared.config.limits.mirror_timeout_ms);
        let end = tokio::time::timeout(limit, Box::pin(self.send(once, permit))).await.unwrap_or(End::Late);
        end.counted().count();
        if let Some(mut log) = self.log.take() {
            end.note(&mut log);
            self.worker.ledger.copied(&log, &end.told(&self.moved, begun.elapsed()));
        }
    }

    async fn send(&mut self, once: Once, permit: Permit) -> End {
        let worker = Rc::clone(&self.worker);
        let attempts = Attempts::again(&worker, once);
        let _place = match attempts.gate() {
            // Never in front of a request that waits.
            Some((gate, service)) => match gate.enter_at_once() {
                Ok(place) => Some(place),
                Err(full) => return End::Failed(Failure::DestinationFull { service: service.to_string(), full }),
            },
            None => None,
        };
        let attempt = match attempts.pick() {
            Ok(attempt) => attempt,
            Err(failure) => return End::Failed(failure),
        };
        let destination = Rc::clone(&attempt.destination);
        let socket = destination.socket(attempt.port);
        if let Some(log) = &mut self.log {
            log.upstream = socket.to_str().ok().map(str::to_owned);
        }
        let end = if let Some(peer) = destination.peer() {
            match attempt.connect(peer, permit).await {
                Ok(conn) => {
                    if let Some(log) = &mut self.log {
                        // Proved by TLS just now.
                        log.destination = Some(peer.destination().to_string());
                    }
                    self.head.headers.insert(mesh::WEFT_MIRRORED, HeaderValue::from_static("1"));
                    let stamp = Stamp::new(&self.head, &socket, &self.source, 0);
                    match conn.open(&self.head, &stamp.added(), self.body.is_none()).await {
                        Ok(mut stream) => self.exchange(stream.exchange(), Party::Peer).await,
                        Err(failure) => End::Failed(failure),
                    }
                }
                Err((failure, _)) => End::Failed(failure),
            }
        } else {
            let address = SocketAddr::new(destination.endpoint.address, attempt.port);
            match worker.shared.guard.outside(address, address.ip()) {
                Ok(outside) => self.plainly(PlainSocket::Outside(outside), attempt.connect_timeout, permit).await,
                Err(failure) => End::Failed(failure),
            }
        };
        match end {
            End::Answered(status, at) => {
                attempt.answered(Some((status, false)), Some(at));
                End::Answered(status, at)
            }
            End::Failed(failure) => End::Failed(attempt.ended(failure)),
            // None of them says anything of the endpoint.
            end @ (End::Lost(_) | End::Cut(_) | End::Late) => end,
        }
    }

    /// To an endpoint that has no proxy.
    async fn plainly(&mut self, socket: PlainSocket, timeout: Duration, permit: Permit) -> End {
        let worker = Rc::clone(&self.worker);
        let (version, is_end) = (self.head.version, self.body.is_none());
        let mut conn = match worker.apps.checkout_kept(&[socket], version, &self.holder, permit) {
            Ok(conn) => conn,
            Err(permit) => {
                match Box::pin(worker.apps.checkout_new(&[socket], version, timeout, &self.holder, permit)).await {
                    Ok(conn) => conn,
                    Err((failure, _)) => return End::Failed(failure),
                }
            }
        };
        let failed = |error| End::Failed(Unanswered::new(Party::App, error).failure);
        let end = match &mut conn.conn {
            Conn::H1(h1) => match h1.send(&self.head, is_end).await {
                Ok(streams) => self.exchange(streams, Party::App).await,
                Err(error) => failed(error),
            },
            Conn::H2(h2) => match h2.slot.send(&self.head, is_end).await {
                Ok((mut send, mut receive)) => {
                    let streams = (SendBody::H2(&mut send), ResponseRecv::H2(&mut receive));
                    self.exchange(streams, Party::App).await
                }
                Err(error) => failed(error),
            },
        };
        match end {
            End::Answered(..) => worker.apps.put_back(conn),
            End::Failed(failure) if conn.reused => return End::Lost(failure),
            End::Failed(_) | End::Lost(_) | End::Cut(_) | End::Late => {}
        }
        end
    }

    async fn exchange(&self, streams: (SendBody<'_>, ResponseRecv<'_>), party: Party) -> End {
        match exchange::carry(streams, party, self.body.as_ref(), &self.moved).await {
            Ok((status, at)) => End::Answered(status, at),
            Err(Broken::Cut(cut)) => End::Cut(cut),
            Err(Broken::Unanswered(error)) => End::Failed(Unanswered::new(party, error).failure),
            Err(Broken::Unserved(told)) => End::Failed(Failure::PeerUnserved { told }),
        }
    }
}

impl End {
    fn counted(&self) -> Mirrored {
        match self {
            Self::Answered(..) => Mirrored::Answered,
            Self::Failed(_) | Self::Lost(_) => Mirrored::Failed,
            Self::Cut(Cut::Behind) => Mirrored::Behind,
            Self::Cut(Cut::Abandoned) => Mirrored::Abandoned,
            Self::Late => Mirrored::Late,
        }
    }

    /// Notes why there was no answer.
    fn note(&self, log: &mut Logged) {
        match self {
            Self::Answered(..) => {}
            Self::Failed(failure) | Self::Lost(failure) => log.failed(failure),
            Self::Cut(_) | Self::Late => log.reason = Some(self.counted().as_str()),
        }
    }

    fn told(&self, moved: &Moved, duration: Duration) -> RequestEnd {
        let (code, flag) = match self {
            Self::Answered(status, _) => (status.as_u16(), Flag::None),
            Self::Failed(failure) | Self::Lost(failure) => (0, failure.verdict().flag),
            Self::Cut(Cut::Behind) => (0, Flag::Overload),
            Self::Cut(Cut::Abandoned) => (0, Flag::Downstream),
            Self::Late => (0, Flag::Timeout),
        };
        let (request_bytes, response_bytes) = (moved.up.get(), moved.down.get());
        RequestEnd { code, grpc: false, grpc_status: None, flag, duration, request_bytes, response_bytes }
    }
}
