//! The filter chain as a request meets it: the head and, where a filter judges that, the body before routing or delivery,
//! the answer on its way back, the end. Filter calls never wait; what a verdict waits for is waited for here: a delay, a
//! body, answers of services.

mod answer;
mod callouts;
mod hooks;
mod judging;
mod parts;

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::SET_COOKIE;
use http::{HeaderName, HeaderValue, Version};
use smallvec::SmallVec;
use weft_filter_host::{Chain, Host, LocalReply, Permit, Summary};
use weft_policy::bundle::{Direction, ObjectName};
use weft_policy::path::{NormalPath, PathReading};
use weft_policy::route::AnswerEdits;
use weft_transport::http::{RequestHead, ResponseHead, Target};

pub use self::answer::Unjudged;
pub use self::callouts::SendCallout;
pub use self::judging::Rest;

use self::judging::Judging;
use crate::quota::DividedQuota;
use crate::reply::{Failure, FilterReply};
use crate::snapshot::Served;

/// The filter instances of one worker, as everything that runs on its thread reaches them.
type Instances = Rc<RefCell<weft_filter_host::Worker>>;

/// The filter instances of one worker, and the ids by which they know its streams.
pub struct Filters {
    instances: Instances,
    streams: Cell<u64>,
    bodies: Bodies,
    /// Who sends what filters ask of services; nobody where it was not said.
    sender: RefCell<Option<Weak<dyn SendCallout>>>,
}

/// How much of bodies is gathered for filters at a time, and how long one may take.
#[derive(Debug, Clone)]
pub struct Bodies {
    pub budget: Arc<DividedQuota>,
    pub wait: Duration,
}

#[cfg(test)]
impl Bodies {
    /// More than any test gathers.
    pub(crate) fn of_tests() -> Self {
        Self { budget: Arc::new(DividedQuota::new(1 << 20)), wait: Duration::from_secs(30) }
    }
}

impl Filters {
    pub fn new(host: &Host, bodies: Bodies) -> Self {
        Self {
            instances: Rc::new(RefCell::new(weft_filter_host::Worker::new(host))),
            streams: Cell::new(0),
            bodies,
            sender: RefCell::default(),
        }
    }

    /// Has `sender` send what filters ask of services.
    pub fn ask_by(&self, sender: Weak<dyn SendCallout>) {
        *self.sender.borrow_mut() = Some(sender);
    }

    /// An id for one request in its filters; never 0, unique on this worker.
    fn next_stream(&self) -> u64 {
        self.streams.set(self.streams.get() + 1);
        self.streams.get()
    }

    /// Frees the instances of filters that no snapshot holds any more.
    pub fn retire(&self) {
        self.instances.borrow_mut().retire();
    }
}

/// Direction, caller and destination of a request, as its filters are told.
pub struct Place<'a> {
    pub direction: Direction,
    /// The caller's identity as TLS proved it (inbound), or our own workload's (outbound).
    pub principal: Option<&'a str>,
    pub source: IpAddr,
    pub destination_port: u16,
    /// The service that is called; `None`: what is called is none.
    pub service: Option<&'a ObjectName>,
    /// The rule of a route that the request took, once it took one.
    pub route: Option<&'a str>,
    /// The caller's connection is encrypted, and its identity proved.
    pub is_tls: bool,
    /// The protocol that the calling app speaks.
    pub protocol: &'static str,
    /// How the app at the destination says it reads paths.
    pub path_reading: PathReading,
    /// The address of the workload of ours that this concerns: what its filters ask of services is asked as this workload.
    pub workload: IpAddr,
    /// Its filters may ask services. Not where it is such a question itself: two could ask each other for ever.
    pub may_ask: bool,
}

/// What a byte stream speaks, as filters are told.
const BYTES: &str = "tcp";

#[cfg(test)]
impl Place<'static> {
    /// On the way out, of nobody.
    pub(crate) fn of_nobody() -> Self {
        Self {
            direction: Direction::Outbound,
            principal: None,
            source: [127, 0, 0, 1].into(),
            destination_port: 80,
            service: None,
            route: None,
            is_tls: false,
            protocol: BYTES,
            path_reading: PathReading::default(),
            workload: [127, 0, 0, 1].into(),
            may_ask: true,
        }
    }
}

impl<'a> Place<'a> {
    /// On the way out, for an app of `from` that calls from `source`.
    pub fn outbound(source: IpAddr, port: u16, from: &'a Served) -> Self {
        Self {
            direction: Direction::Outbound,
            principal: Some(from.workload.identity.as_str()),
            source,
            destination_port: port,
            service: None,
            route: None,
            is_tls: false,
            protocol: BYTES,
            path_reading: PathReading::default(),
            workload: from.workload.address,
            may_ask: true,
        }
    }

    /// On the way in, from a peer with this identity, to the app at the socket.
    pub fn inbound(principal: &'a str, source: IpAddr, (workload, port): (IpAddr, u16)) -> Self {
        Self {
            direction: Direction::Inbound,
            principal: Some(principal),
            source,
            destination_port: port,
            service: None,
            route: None,
            is_tls: true,
            protocol: BYTES,
            path_reading: PathReading::default(),
            workload,
            may_ask: true,
        }
    }

    /// Whose share of what is bounded for each caller it takes.
    fn caller(&self) -> Cow<'a, str> {
        self.principal.map_or_else(|| Cow::Owned(self.source.to_string()), Cow::Borrowed)
    }

    /// The same, of a request of an app that speaks this version.
    #[must_use]
    pub fn speaking(self, version: Version) -> Self {
        let protocol = match version {
            Version::HTTP_10 => "HTTP/1.0",
            Version::HTTP_2 => "HTTP/2",
            Version::HTTP_3 => "HTTP/3",
            _ => "HTTP/1.1",
        };
        Self { protocol, ..self }
    }
}

/// What the filter `jwt` tells rules once more of what it tells everybody.
const FOR_RULES: &str = "filter.jwt-list.";

/// Names a request in its filters.
#[derive(Debug, Clone, Copy)]
pub struct StreamOf(u64);

/// A chain that a stream runs through, and its id there.
struct Link<'a> {
    /// Borrowed from the workload of a request; a connection outlives snapshots and has its own.
    chain: Cow<'a, Chain>,
    stream: u64,
}

/// A request in its filters: what they let pass, and what they still want to see of it.
pub struct Filtered<'a> {
    filters: &'a Filters,
    /// In the order of the request: the workload's, then those of the rule that it took.
    links: SmallVec<[Link<'a>; 1]>,
    /// Of a request: its path as they left it.
    path: Option<NormalPath>,
    /// What the route changes of the answer, before the filters see it.
    edits: AnswerEdits,
    /// The field by which the answer says of which session it is.
    session: Option<(HeaderName, HeaderValue)>,
    /// The workload that its filters ask as; `None`: they may ask nobody.
    asks_as: Option<IpAddr>,
    /// Who sent it, where its answer may be gathered.
    caller: Option<Box<str>>,
    /// Its answer has met the filters.
    is_answered: bool,
    start: Instant,
    status: u16,
    /// Body bytes of the request and of its answer, told to the filters at the end.
    bytes: (u64, u64),
}

/// Judges a request once more, by a chain whose filters are told what those before have told of it.
///
/// # Errors
/// As of [`Filtered::request`].
pub async fn again(
    filters: &Filters,
    (chain, of): (&Chain, StreamOf),
    place: &Place<'_>,
    mut head: RequestHead,
) -> Result<(), Failure> {
    let mut filtered = Filtered::new(filters, chain, Instant::now());
    filters.instances.borrow_mut().inherit(of.0, filtered.links[0].stream);
    filtered.request(place, &mut head, None).await.map(drop)
}

/// Runs the request hooks of `chain`.
///
/// # Errors
/// As of [`Filtered::request`].
#[cfg(test)]
pub async fn request<'a>(
    filters: &'a Filters,
    chain: &'a Chain,
    place: &Place<'_>,
    head: &mut RequestHead,
    rest: Option<Rest<'_, '_>>,
) -> Result<(Filtered<'a>, Permit), Failure> {
    let mut filtered = Filtered::new(filters, chain, Instant::now());
    let permit = filtered.request(place, head, rest).await?;
    Ok((filtered, permit))
}

/// The path of a head in the one form that filters, routes and the application are given.
///
/// # Errors
/// No server may be sent such a path.
pub fn normal_path(head: &RequestHead) -> Result<Option<NormalPath>, Failure> {
    let Some(path) = &head.path else { return Ok(None) };
    let path = NormalPath::new(path.to_bytes());
    path.map(Some).map_err(|error| Failure::BadRequest(Cow::Owned(format!("path: {error}"))))
}

fn put_path(head: &mut RequestHead, path: Option<&NormalPath>) -> Result<(), Failure> {
    if head.path.as_ref().map(Target::as_bytes) == path.map(|path| &path.as_bytes()[..]) {
        return Ok(());
    }
    let put = path.map(|path| Target::from_shared(path.as_bytes().clone())).transpose();
    head.path = put.map_err(|_| Failure::BadRequest("path: not a path".into()))?;
    Ok(())
}

/// Runs the connection hooks of `chain` for a TCP connection, which may outlive the snapshot that the chain belongs to.
///
/// # Errors
/// A filter refused the connection.
pub async fn connection<'a>(
    filters: &'a Filters,
    chain: &Chain,
    place: &Place<'_>,
) -> Result<(Filtered<'a>, Permit), Failure> {
    let mut filtered = Filtered::of(filters, Cow::Owned(chain.clone()), Instant::now());
    filtered.asks_as = place.may_ask.then_some(place.workload);
    let judging = Judging { filters, link: &filtered.links[0], place, asks_as: filtered.asks_as };
    let permit = judging.connection().await?;
    Ok((filtered, permit))
}

fn failure(reply: LocalReply) -> Failure {
    Failure::Filter(Box::new(FilterReply {
        status: reply.status,
        headers: reply.headers,
        body: reply.body,
        filter: reply.filter,
        cause: reply.cause,
        rule: reply.rule,
        reason: reply.reason,
        more: reply.more,
    }))
}

impl<'a> Filtered<'a> {
    /// A request that is to run through `chain`. `start`: when it came.
    pub fn new(filters: &'a Filters, chain: &'a Chain, start: Instant) -> Self {
        Self::of(filters, Cow::Borrowed(chain), start)
    }

    fn of(filters: &'a Filters, chain: Cow<'a, Chain>, start: Instant) -> Self {
        let mut links = SmallVec::new();
        links.push(Link { chain, stream: filters.next_stream() });
        Self {
            filters,
            links,
            path: None,
            edits: AnswerEdits::default(),
            session: None,
            asks_as: None,
            caller: None,
            is_answered: false,
            start,
            status: 0,
            bytes: (0, 0),
        }
    }

    /// Runs the request hooks, and waits for what their verdicts want: a delay, the whole body of `rest`, answers of services.
    ///
    /// # Errors
    /// A filter answered the request itself or ended it, or failed with onFailure Deny; its body could not be gathered; or its
    /// client left meanwhile.
    pub async fn request(
        &mut self,
        place: &Place<'_>,
        head: &mut RequestHead,
        rest: Option<Rest<'_, '_>>,
    ) -> Result<Permit, Failure> {
        self.path = normal_path(head)?;
        self.asks_as = place.may_ask.then_some(place.workload);
        self.judge(place, head, rest).await
    }

    /// Of what its filters told, as long as it is under way.
    pub fn stream(&self) -> StreamOf {
        StreamOf(self.links[0].stream)
    }

    /// Runs the request hooks of the rule that the request took, where it has filters, by the rule's name. The permit for all of
    /// it then comes of them. The head that the route was chosen by stays: a change of path or authority is refused.
    ///
    /// # Errors
    /// As of [`Filtered::request`].
    pub async fn take_rule(
        &mut self,
        rule: Option<(&'a Chain, String)>,
        permit: Permit,
        place: Place<'_>,
        head: &mut RequestHead,
        rest: Rest<'_, '_>,
    ) -> Result<Permit, Failure> {
        let Some((chain, name)) = rule else { return Ok(permit) };
        self.links.push(Link { chain: Cow::Borrowed(chain), stream: self.filters.next_stream() });
        let place = Place { route: Some(&name), ..place };
        let (authority, path) = (head.authority.clone(), self.path.clone());
        // Boxed: rare.
        let permit = Box::pin(self.judge(&place, head, Some(rest))).await?;
        if head.authority != authority || self.path != path {
            return Err(Failure::FilterRerouted);
        }
        Ok(permit)
    }

    async fn judge(
        &mut self,
        place: &Place<'_>,
        head: &mut RequestHead,
        rest: Option<Rest<'_, '_>>,
    ) -> Result<Permit, Failure> {
        let link = self.links.last().expect("a request has a chain");
        if link.chain.hooks().gathers_answers() {
            self.caller.get_or_insert_with(|| place.caller().into());
        }
        let judging = Judging { filters: self.filters, link, place, asks_as: self.asks_as };
        let judged = judging.request(&mut self.path, head, rest).await;
        match &judged {
            Ok(_) => put_path(head, self.path.as_ref())?,
            // Nothing is sent to it.
            Err(Failure::ClientGone) => {}
            Err(failure) => self.status = failure.verdict().status.as_u16(),
        }
        judged
    }

    /// The path of the request as the filters left it.
    pub fn path(&self) -> Option<&NormalPath> {
        self.path.as_ref()
    }

    /// Has the answer changed by the route that the request took.
    pub fn edit_answer(&mut self, edits: AnswerEdits) {
        self.edits = edits;
    }

    /// Has the answer say of which session it is, in the place of what was to be said before.
    pub fn in_session(&mut self, field: Option<(HeaderName, HeaderValue)>) {
        self.session = field;
    }

    /// Changes the answer as the route says.
    pub fn edit(&mut self, head: &mut ResponseHead) {
        self.edits.apply(&mut head.headers);
        self.tell_session(head);
        self.status = head.status.as_u16();
    }

    /// What the filters have noted of it for its record, by name.
    pub fn attributes(&self) -> Vec<(String, String)> {
        let worker = self.filters.instances.borrow();
        let noted = self.links.iter().flat_map(|link| worker.attributes(link.stream));
        let noted = noted.filter(|(name, _)| !name.starts_with(FOR_RULES));
        noted.map(|(name, value)| (name.to_owned(), String::from_utf8_lossy(value).into_owned())).collect()
    }

    /// Notes how many body bytes went up and came down, for the end.
    pub fn moved(&mut self, up: u64, down: u64) {
        self.bytes = (up, down);
    }

    /// No session begins at an endpoint that fails.
    fn tell_session(&mut self, head: &mut ResponseHead) {
        let Some((name, value)) = self.session.take().filter(|_| !head.status.is_server_error()) else { return };
        if name == SET_COOKIE {
            head.headers.append(name, value);
        } else {
            head.headers.insert(name, value);
        }
    }
}

impl Drop for Filtered<'_> {
    fn drop(&mut self) {
        if self.links.iter().all(|link| link.chain.is_empty()) {
            return;
        }
        let summary = Summary {
            status: self.status,
            duration: self.start.elapsed(),
            request_bytes: self.bytes.0,
            response_bytes: self.bytes.1,
        };
        for link in self.links.iter().rev().filter(|link| !link.chain.is_empty()) {
            self.filters.instances.borrow_mut().done(&link.chain, link.stream, &summary);
        }
    }
}
