//! Runs a filter natively, as the host would: it is called for what it asked for and sees that alone, and what the host
//! refuses fails the test that caused it. The host around it is simulated, with a clock of its own, one for each thread.

mod judge;
mod names;
pub(crate) mod simulated;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::bindings::exports::weft::filter::callout_answer::Answer;
use crate::bindings::weft::filter::callouts;
use crate::bindings::weft::filter::crypto::Algorithm;
use crate::bindings::weft::filter::types::{self, Call, Field, Outcome, Verdict};
use crate::filter::Filter;
use crate::instance::Instance;
use judge::AtHand;

/// The one configuration of a harness.
const CONFIG: u32 = 1;

/// A configured filter in a simulated host.
#[derive(Debug)]
pub struct Harness<F> {
    instance: Instance<F>,
    interest: types::Interest,
    streams: BTreeMap<u64, Stream>,
    sent: Vec<(u32, callouts::Request)>,
}

/// What the host knows of a stream.
#[derive(Debug, Clone, Default)]
struct Stream {
    cookie: Vec<u8>,
    request: TestRequest,
    response: TestResponse,
    trailers: Vec<(String, Vec<u8>)>,
    /// Attributes that filters set.
    set: Vec<(String, Vec<u8>)>,
    /// What may be changed at the hook that waits.
    waiting: Option<AtHand>,
}

/// The capabilities that the FilterPolicy grants, beyond log and metrics. `Default` grants none.
#[derive(Debug, Clone, Default)]
pub struct Grants {
    token_bucket: bool,
    crypto: bool,
    /// Entries and bytes.
    kv: Option<(usize, usize)>,
    callouts: Vec<String>,
    secrets: BTreeMap<String, Vec<u8>>,
    keys: BTreeMap<String, Vec<u8>>,
}

impl Grants {
    #[must_use]
    pub fn token_bucket(mut self) -> Self {
        self.token_bucket = true;
        self
    }

    #[must_use]
    pub fn crypto(mut self) -> Self {
        self.crypto = true;
        self
    }

    #[must_use]
    pub fn kv(mut self, entries: usize, bytes: usize) -> Self {
        self.kv = Some((entries, bytes));
        self
    }

    /// Callouts to a service, by its name in the grant.
    #[must_use]
    pub fn callout(mut self, service: &str) -> Self {
        self.callouts.push(service.to_owned());
        self
    }

    #[must_use]
    pub fn secret(mut self, name: &str, value: &[u8]) -> Self {
        self.secrets.insert(name.to_owned(), value.to_vec());
        self
    }

    /// A key of `crypto`, which the filter uses by name and never sees.
    #[must_use]
    pub fn key(mut self, name: &str, value: &[u8]) -> Self {
        self.crypto = true;
        self.keys.insert(name.to_owned(), value.to_vec());
        self
    }
}

/// Request that a test sends. `Default` is an inbound `GET /` from nobody to port 80, all dice 0.
#[derive(Debug, Clone)]
pub struct TestRequest {
    pub method: String,
    /// With or without a query.
    pub target: String,
    pub authority: Option<String>,
    pub headers: Vec<(String, Vec<u8>)>,
    pub principal: Option<String>,
    pub source_address: Option<String>,
    pub destination_port: u16,
    /// `inbound` or `outbound`.
    pub direction: String,
    pub dice: u64,
    /// Further values by name.
    pub values: BTreeMap<String, String>,
}

impl Default for TestRequest {
    fn default() -> Self {
        Self {
            method: "GET".to_owned(),
            target: "/".to_owned(),
            authority: None,
            headers: Vec::new(),
            principal: None,
            source_address: None,
            destination_port: 80,
            direction: "inbound".to_owned(),
            dice: 0,
            values: BTreeMap::new(),
        }
    }
}

impl TestRequest {
    pub fn new(method: &str, target: &str) -> Self {
        Self { method: method.to_owned(), target: target.to_owned(), ..Self::default() }
    }

    /// Adds a header; the name in lower case.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.as_bytes().to_vec()));
        self
    }

    #[must_use]
    pub fn principal(mut self, principal: &str) -> Self {
        self.principal = Some(principal.to_owned());
        self
    }

    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.destination_port = port;
        self
    }

    #[must_use]
    pub fn dice(mut self, dice: u64) -> Self {
        self.dice = dice;
        self
    }

    /// Any other value by its name, as docs/filters/values.md lists them; `filter.NAME`: told by a filter before it.
    #[must_use]
    pub fn value(mut self, name: &str, value: &str) -> Self {
        self.values.insert(name.to_owned(), value.to_owned());
        self
    }
}

/// Answer of the app that a test gives.
#[derive(Debug, Clone, Default)]
pub struct TestResponse {
    pub status: u16,
    pub headers: Vec<(String, Vec<u8>)>,
}

impl TestResponse {
    pub fn new(status: u16) -> Self {
        Self { status, headers: Vec::new() }
    }

    /// Adds a header; the name in lower case.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.as_bytes().to_vec()));
        self
    }
}

/// The answer to a callout.
pub fn answer(status: u16, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let own = |(name, value): &(&str, &str)| Field { name: (*name).to_owned(), value: value.as_bytes().to_vec() };
    Answer { status, headers: headers.iter().map(own).collect(), body: body.to_vec() }
}

impl<F: Filter> Harness<F> {
    /// Configures the filter with nothing granted; an error is its own word on its configuration, or the host's on what
    /// it asks for.
    pub fn new(config: &str) -> Result<Self, String> {
        Self::granted(config, Grants::default())
    }

    /// The same with capabilities.
    pub fn granted(config: &str, grants: Grants) -> Result<Self, String> {
        simulated::grant(grants);
        let mut instance = Instance::new();
        let interest = instance.configure(CONFIG, config)?;
        names::judge(&interest)?;
        Ok(Self { instance, interest, streams: BTreeMap::new(), sent: Vec::new() })
    }

    /// Names of the hooks that the filter asked for, in its order.
    pub fn hooks(&self) -> Vec<&str> {
        self.interest.hooks.iter().map(|hook| hook.name.as_str()).collect()
    }

    /// Names of the values that it asked for at a hook.
    pub fn asked(&self, hook: &str) -> Vec<&str> {
        let of = self.interest.hooks.iter().filter(|asked| asked.name == hook);
        of.flat_map(|hook| &hook.values).map(|value| value.name.as_str()).collect()
    }

    pub fn filter(&self) -> &F {
        self.instance.filter(CONFIG).expect("configured by the constructor")
    }

    /// A byte stream from the request's caller to its port.
    pub fn connection(&mut self, stream: u64, request: &TestRequest) -> Outcome {
        self.start(stream, request);
        self.call("connection", stream, None, |instance, call, values| instance.connection(call, values))
    }

    /// The head of a request. The stream starts anew.
    pub fn request(&mut self, stream: u64, request: &TestRequest) -> Outcome {
        self.start(stream, request);
        self.call("request-head", stream, None, |instance, call, values| instance.request_head(call, values))
    }

    /// A chunk of the request's body; the whole of it where the filter asked for that.
    pub fn request_body(&mut self, stream: u64, bytes: &[u8], end: bool) -> Outcome {
        let body = Some((bytes.len(), end));
        self.call("request-body", stream, body, |instance, call, values| {
            instance.request_body(call, values, bytes, end)
        })
    }

    pub fn request_trailers(&mut self, stream: u64, trailers: &[(&str, &str)]) -> Outcome {
        self.known(stream).trailers = fields(trailers);
        self.call("request-trailers", stream, None, |instance, call, values| instance.request_trailers(call, values))
    }

    /// The head of the answer.
    pub fn response(&mut self, stream: u64, response: &TestResponse) -> Outcome {
        self.known(stream).response = response.clone();
        self.call("response-head", stream, None, |instance, call, values| instance.response_head(call, values))
    }

    /// A chunk of the answer's body; the whole of it where the filter asked for that.
    pub fn response_body(&mut self, stream: u64, bytes: &[u8], end: bool) -> Outcome {
        let body = Some((bytes.len(), end));
        self.call("response-body", stream, body, |instance, call, values| {
            instance.response_body(call, values, bytes, end)
        })
    }

    pub fn response_trailers(&mut self, stream: u64, trailers: &[(&str, &str)]) -> Outcome {
        self.known(stream).trailers = fields(trailers);
        self.call("response-trailers", stream, None, |instance, call, values| instance.response_trailers(call, values))
    }

    /// More of an answer that the filter gave.
    pub fn reply_body(&mut self, stream: u64) -> Outcome {
        self.call("reply-body", stream, None, |instance, call, values| instance.reply_body(call, values))
    }

    /// Bytes of an opaque stream.
    pub fn stream_data(&mut self, stream: u64, bytes: &[u8], end: bool) -> Outcome {
        self.call("stream-data", stream, None, |instance, call, values| instance.stream_data(call, values, bytes, end))
    }

    /// The callouts of the last verdict to wait, with their ids.
    pub fn sent(&self) -> &[(u32, callouts::Request)] {
        &self.sent
    }

    /// The answer to one of them, or why there is none.
    ///
    /// # Panics
    /// When the stream does not wait.
    pub fn answer(&mut self, stream: u64, id: u32, answer: Result<Answer, String>) -> Outcome {
        assert!(self.known(stream).waiting.is_some(), "stream {stream} waits for no answer");
        self.call("callout", stream, None, |instance, call, values| instance.callout(call, values, id, &answer))
    }

    /// The time of the wait is up.
    ///
    /// # Panics
    /// When the stream does not wait.
    pub fn tick(&mut self, stream: u64) -> Outcome {
        assert!(self.known(stream).waiting.is_some(), "stream {stream} does not wait");
        self.call("tick", stream, None, |instance, call, values| instance.tick(call, values))
    }

    /// The stream has ended; its state goes.
    pub fn done(&mut self, stream: u64) {
        self.call("done", stream, None, |instance, call, values| {
            instance.done(call, values);
            Outcome::pass()
        });
        self.streams.remove(&stream);
    }

    fn start(&mut self, stream: u64, request: &TestRequest) {
        // What filters before it have told.
        let told = request.values.iter().filter(|(name, _)| name.starts_with("filter."));
        let set = told.map(|(name, value)| (name.clone(), value.clone().into_bytes())).collect();
        self.streams.insert(stream, Stream { request: request.clone(), set, ..Stream::default() });
    }

    fn known(&mut self, stream: u64) -> &mut Stream {
        self.streams.entry(stream).or_default()
    }

    /// `body`: the length of what is at hand, and whether it is the last of it.
    fn call(
        &mut self,
        name: &str,
        stream: u64,
        body: Option<(usize, bool)>,
        run: impl FnOnce(&mut Instance<F>, &Call, &[u8]) -> Outcome,
    ) -> Outcome {
        let Some(hook) = self.interest.hooks.iter().find(|hook| hook.name == name) else {
            return Outcome::pass();
        };
        let most = names::buffer(hook);
        if let Some((length, end)) = body.filter(|_| most > 0) {
            assert!(
                end && length <= most,
                "{name} takes a whole body of at most {most} bytes; the host answers a longer one"
            );
        }
        let known = self.streams.entry(stream).or_default();
        let at_hand = known.waiting.take().unwrap_or_else(|| AtHand::of(name, most > 0));
        let values = names::encode(&hook.values, known, at_hand);
        let call = Call { config: CONFIG, stream, cookie: known.cookie.clone() };
        let outcome = run(&mut self.instance, &call, &values);
        let sent = simulated::callouts::take();
        if let Err(what) = judge::outcome(&outcome, at_hand) {
            panic!("the host refuses the outcome of {name}: {what}");
        }
        if let Some(cookie) = &outcome.cookie {
            known.cookie.clone_from(cookie);
        }
        for edit in &outcome.edits {
            if let types::Edit::Attribute(Field { name, value }) = edit {
                known.set.retain(|(known, _)| known != name);
                known.set.push((name.clone(), value.clone()));
            }
        }
        if matches!(outcome.verdict, Verdict::Wait(_)) {
            let has = |name: &str| self.interest.hooks.iter().any(|hook| hook.name == name);
            let is_heard = has("callout") || (sent.is_empty() && has("tick"));
            assert!(is_heard, "the host refuses a wait at {name} whose end no hook is called for: callout or tick");
            known.waiting = Some(at_hand);
            self.sent = sent;
        }
        outcome
    }
}

fn fields(fields: &[(&str, &str)]) -> Vec<(String, Vec<u8>)> {
    fields.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect()
}

/// Lets time pass in the simulated host of this thread.
pub fn advance(by: Duration) {
    simulated::advance(by);
}

/// Lines that this thread's filters have logged so far.
pub fn logged() -> Vec<String> {
    simulated::logged()
}

/// Current value of a metric of this thread's filters, over all labels: a count, a level, or the sum of what was observed.
pub fn metric(name: &str) -> Option<f64> {
    simulated::metrics::value(name, None)
}

/// The same with these values of its labels.
pub fn labelled_metric(name: &str, labels: &[&str]) -> Option<f64> {
    simulated::metrics::value(name, Some(labels))
}

/// Has the simulated host take this signature of a public key (DER, SPKI) for one that holds; it takes no others. What
/// really holds only the real host knows.
pub fn signature_holds(algorithm: Algorithm, key: &[u8], message: &[u8], signature: &[u8]) {
    simulated::crypto::hold(simulated::crypto::Signed {
        algorithm,
        key: key.to_vec(),
        message: message.to_vec(),
        signature: signature.to_vec(),
    });
}
