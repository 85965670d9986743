//! Requests that filters have sent to services while a stream waits: resolved, routed and authorized as if the workload's own
//! app had sent them, and by its identity. No filter of the calling side runs for them, so that none causes itself; those of
//! the callee judge them as any request, and cause no further ones. Each has its own time and its own limit on the answer.

mod answer;

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, EXPECT, TE};
use http::{HeaderValue, Version};
use weft_filter_host::{Callout, CalloutAnswer, Chain, Permit};
use weft_policy::bundle::is_idempotent;
use weft_transport::http::{RequestHead, ResponseRecv, SendBody, Target};

use self::answer::{Unanswered, answered};
use super::attempts::{Attempt, Attempts};
use super::patience::Patience;
use super::routing::{self, Way};
use super::{Origin, external, pass_alone};
use crate::apps::Conn;
use crate::call::Failed;
use crate::deadline::Until;
use crate::filtering::{self, Place, SendCallout};
use crate::life;
use crate::mesh;
use crate::quota::Part;
use crate::reply::{Failure, Party};
use crate::snapshot::HeldWorkload;
use crate::sockets::PlainSocket;
use crate::telemetry::counters::CalledOut;
use crate::trial::Begun as _;
use crate::worker::Worker;

/// The request of a callout, and how much its answer may be.
pub(super) struct Question<'q> {
    head: &'q RequestHead,
    body: &'q Bytes,
    most: usize,
    /// What answers count into.
    /// What its answer is gathered in: no service has all of it.
    room: &'q dyn Fn() -> Part,
}

/// Why a callout has no answer.
enum NoAnswer {
    Failed(Failure),
    TooLong(&'static str),
}

impl From<Failure> for NoAnswer {
    fn from(failure: Failure) -> Self {
        NoAnswer::Failed(failure)
    }
}

impl SendCallout for Worker {
    fn send(
        self: Rc<Self>,
        workload: IpAddr,
        callout: Callout,
    ) -> LocalBoxFuture<'static, Result<CalloutAnswer, String>> {
        Box::pin(async move {
            let service = callout.service.clone();
            let Some(_place) = self.shared.filter_callouts.take_one(&service) else {
                CalledOut::Full.count(&service);
                let why = "as many callouts as may be are under way: limits.filter_callouts, of which one service has three \
                           quarters at most";
                return Err(why.to_owned());
            };
            let limit = callout.timeout;
            let (result, answer) = match tokio::time::timeout(limit, Box::pin(ask(&self, workload, callout))).await {
                Ok(Ok(answer)) => (CalledOut::Answered, Ok(answer)),
                Ok(Err(NoAnswer::Failed(failure))) => (CalledOut::Failed, Err(failure.to_string())),
                Ok(Err(NoAnswer::TooLong(why))) => (CalledOut::TooLong, Err(why.to_owned())),
                Err(_) => (CalledOut::Late, Err(format!("no answer within {} ms", limit.as_millis()))),
            };
            result.count(&service);
            answer
        })
    }
}

/// The head of the request that a callout is: gRPC in HTTP/2, as it has to be, everything else in HTTP/1.1.
fn head_of(callout: &Callout) -> Result<RequestHead, Failure> {
    let bad = |what: &str| Failure::BadRequest(format!("callout: {what}").into());
    let mut headers = callout.headers.clone();
    mesh::strip(&mut headers);
    headers.insert(mesh::WEFT_CALLOUT, HeaderValue::from_static("1"));
    // The body is the callout's to say, and it is here already.
    headers.remove(CONTENT_LENGTH);
    headers.remove(EXPECT);
    if !callout.body.is_empty() {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(callout.body.len()));
    }
    let is_grpc = headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    if is_grpc {
        // Without it servers refuse the call; a filter can't say anything of one hop.
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    Ok(RequestHead {
        method: callout.method.clone(),
        authority: Some(callout.service.parse().map_err(|_| bad("the grant names no host and port"))?),
        path: Some(Target::from_shared(callout.path.as_bytes().clone()).map_err(|_| bad("no path"))?),
        protocol: None,
        headers,
        version: if is_grpc { Version::HTTP_2 } else { Version::HTTP_11 },
    })
}

async fn ask(worker: &Rc<Worker>, workload: IpAddr, callout: Callout) -> Result<CalloutAnswer, NoAnswer> {
    let mut head = head_of(&callout)?;
    let origin = Origin { peer: SocketAddr::new(workload, 0), app: workload, target: None };
    let mut snapshot = worker.snapshot().ok_or(Failure::NotReady)?;
    let mut patience = Patience::default();
    let way = loop {
        let from = origin.workload(&snapshot)?;
        match routing::resolve(&snapshot, &worker.shared.hosts, from, &origin, &head) {
            Ok(way) => break way,
            Err(failure) => snapshot = Box::pin(patience.learn(worker, &snapshot, failure)).await?,
        }
    };
    let from = snapshot.hold(origin.workload(&snapshot)?);
    let (to, led_out) = match way {
        Way::Mesh(to) => (to, None),
        Way::External(way) => (way.resolved(), Some(way)),
        // What no grant could have named.
        Way::Outside => return Err(Failure::NotServed(callout.service).into()),
    };
    to.protocol().takes_requests(to.port).map_err(Failure::RequestForbidden)?;
    let _using = (!to.outside).then(|| worker.uses.begin(&snapshot, to.service));
    let path = filtering::normal_path(&head)?;
    let (attempts, exit) = {
        let (to, chance) = ((&to, led_out.as_deref()), (worker.dice(), life::now as fn() -> u64));
        let plan = routing::route(&snapshot, &from, to, (&head, path.as_ref()), chance)?;
        plan.modify(&mut head)?;
        let exit = external::leaving(worker, &snapshot, &from, plan.exit(), &mut head)?;
        // Its own time ends it whatever the answer is.
        let until = Until::whole(callout.timeout).and(plan.timeouts().0, plan.stream_timeout());
        let attempts = Attempts::new(worker, &snapshot, &from, plan.goal, Some(&head.headers)).within(until);
        (Box::new(attempts), exit)
    };
    let nobody = Chain::default();
    let place = Place::outbound(workload, to.port, &from);
    drop(led_out);
    drop(snapshot);
    let (_filtered, permit) = filtering::connection(&worker.filters, &nobody, &place).await?;
    if let Some((gate, service)) = attempts.gate() {
        let place = Box::pin(pass_alone(&gate, attempts.wait(), service)).await?;
        attempts.hold(place);
    }
    let room = &|| worker.shared.filter_bodies.part(&callout.service);
    let Some(exit) = exit else {
        let question = Question { head: &head, body: &callout.body, most: callout.most, room };
        return Box::pin(in_the_mesh(worker, &from, *attempts, permit, &question)).await;
    };
    attempts.begin()?;
    let timeout = attempts.connect_timeout();
    let sockets = Box::pin(exit.sockets(worker, timeout, &from, workload)).await?;
    // Those outside are told nothing that only proxies say.
    mesh::strip(&mut head.headers);
    let question = Question { head: &head, body: &callout.body, most: callout.most, room };
    let by = (&sockets[..], exit.version(), timeout);
    let answer = Box::pin(plainly(worker, &origin, by, permit, &question)).await?;
    attempts.holds().begun(answer.status, Instant::now());
    Ok(answer)
}

/// Asks an endpoint; another where the first provably did not process it.
async fn in_the_mesh(
    worker: &Rc<Worker>,
    from: &HeldWorkload,
    mut attempts: Attempts<'_>,
    mut permit: Permit,
    question: &Question<'_>,
) -> Result<CalloutAnswer, NoAnswer> {
    loop {
        let attempt = attempts.pick()?;
        match Box::pin(attempted(worker, from, &attempt, permit, question)).await {
            Ok(answer) => {
                let now = Instant::now();
                attempts.holds().begun(answer.status, now);
                attempt.answered(Some((answer.status, false)), Some(now));
                return Ok(answer);
            }
            Err(Asked::Failed(Failed::Unprocessed(failure, again))) => {
                attempts.failed(attempt, failure)?;
                permit = again;
            }
            Err(Asked::Failed(failed)) => return Err(attempt.ended(failed.failure()).into()),
            // It says nothing of the endpoint.
            Err(Asked::TooLong(why)) => return Err(NoAnswer::TooLong(why)),
        }
    }
}

/// How an attempt to ask ended without an answer.
enum Asked {
    Failed(Failed),
    TooLong(&'static str),
}

impl Asked {
    fn of(unanswered: Unanswered, permit: Permit) -> Self {
        match unanswered {
            Unanswered::Failed(unanswered) => Asked::Failed(Failed::of(unanswered, permit)),
            Unanswered::TooLong(why) => Asked::TooLong(why),
        }
    }
}

impl From<Asked> for NoAnswer {
    fn from(asked: Asked) -> Self {
        match asked {
            Asked::Failed(failed) => NoAnswer::Failed(failed.failure()),
            Asked::TooLong(why) => NoAnswer::TooLong(why),
        }
    }
}

async fn attempted(
    worker: &Rc<Worker>,
    from: &HeldWorkload,
    attempt: &Attempt<'_>,
    permit: Permit,
    question: &Question<'_>,
) -> Result<CalloutAnswer, Asked> {
    let destination = &attempt.destination;
    let Some(peer) = destination.peer() else {
        let address = SocketAddr::new(destination.endpoint.address, attempt.port);
        let outside = worker.shared.guard.outside(address, address.ip());
        let sockets = [PlainSocket::Outside(outside.map_err(|failure| Asked::Failed(Failed::Final(failure)))?)];
        let origin =
            Origin { peer: SocketAddr::new(from.workload.address, 0), app: from.workload.address, target: None };
        let mut head = question.head.clone();
        mesh::strip(&mut head.headers);
        let plain = Question { head: &head, ..*question };
        let by = (&sockets[..], head.version, attempt.connect_timeout);
        return Box::pin(plainly(worker, &origin, by, permit, &plain)).await.inspect(|_| attempt.reached());
    };
    let unprocessed = |(failure, permit)| Asked::Failed(Failed::Unprocessed(failure, permit));
    let conn = attempt.connect(peer, permit).await.map_err(unprocessed)?;
    let socket = destination.socket(attempt.port);
    let stamp = attempt.stamp(question.head, &socket, &from.source);
    let started = conn.start(question.head, &stamp.added(), question.body.is_empty()).await;
    let (mut stream, permit) = started.map_err(Asked::Failed)?;
    answered(stream.exchange(), Party::Peer, question).await.map_err(|unanswered| Asked::of(unanswered, permit))
}

/// Asks who has no proxy. By a kept connection first: where that ended without an answer, what may be repeated is asked once
/// more by a new one.
async fn plainly(
    worker: &Rc<Worker>,
    origin: &Origin,
    (sockets, version, timeout): (&[PlainSocket], Version, Duration),
    permit: Permit,
    question: &Question<'_>,
) -> Result<CalloutAnswer, Asked> {
    let holder = origin.holder();
    let mut kept = worker.apps.checkout_kept(sockets, version, &holder, permit);
    loop {
        let mut conn = match kept {
            Ok(conn) => conn,
            Err(permit) => {
                let connecting = worker.apps.checkout_new(sockets, version, timeout, &holder, permit);
                let connected = Box::pin(connecting).await;
                connected.map_err(|(failure, permit)| Asked::Failed(Failed::Unprocessed(failure, permit)))?
            }
        };
        let end = question.body.is_empty();
        let asked = match &mut conn.conn {
            Conn::H1(h1) => match h1.send(question.head, end).await {
                Ok(streams) => answered(streams, Party::App, question).await,
                Err(error) => Err(Unanswered::of(Party::App, error)),
            },
            Conn::H2(h2) => match h2.slot.send(question.head, end).await {
                Ok((mut send, mut receive)) => {
                    let streams = (SendBody::H2(&mut send), ResponseRecv::H2(&mut receive));
                    answered(streams, Party::App, question).await
                }
                Err(error) => Err(Unanswered::of(Party::App, error)),
            },
        };
        match asked {
            Ok(answer) => {
                worker.apps.put_back(conn);
                return Ok(answer);
            }
            Err(unanswered) if conn.reused && unanswered.is_lost() && is_idempotent(question.head.method.as_str()) => {
                kept = Err(conn.into_permit());
            }
            Err(unanswered) => return Err(Asked::of(unanswered, conn.into_permit())),
        }
    }
}
