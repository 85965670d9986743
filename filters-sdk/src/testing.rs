//! Runs a filter natively, as the host would: it is called for what it asked for and sees that alone. The host around it
//! is simulated, with a clock of its own; each test thread has its own host.

pub mod simulated;

use std::time::Duration;

use crate::bindings::weft::filter::types::{
    Attributes, Direction, Header, Hooks, Interest, Outcome, RequestHead, ResponseHead, Summary, Wants,
};
use crate::filter::{Configured, Filter};

/// A configured filter in a simulated host.
#[derive(Debug)]
pub struct Harness<F> {
    configured: Configured<F>,
    interest: Interest,
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
    pub direction: Direction,
    pub dice: u64,
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
            direction: Direction::Inbound,
            dice: 0,
        }
    }
}

impl TestRequest {
    pub fn new(method: &str, target: &str) -> Self {
        Self { method: method.to_owned(), target: target.to_owned(), ..Self::default() }
    }

    /// Adds a header; the name in lower case.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.as_bytes().to_vec()));
        self
    }

    pub fn principal(mut self, principal: &str) -> Self {
        self.principal = Some(principal.to_owned());
        self
    }

    pub fn port(mut self, port: u16) -> Self {
        self.destination_port = port;
        self
    }

    pub fn dice(mut self, dice: u64) -> Self {
        self.dice = dice;
        self
    }
}

impl<F: Filter> Harness<F> {
    /// Configures the filter; an error is its own word on its configuration.
    pub fn new(config: &str) -> Result<Self, String> {
        let (configured, interest) = Configured::new(config)?;
        Ok(Self { configured, interest })
    }

    pub fn interest(&self) -> &Interest {
        &self.interest
    }

    pub fn filter(&self) -> &F {
        &self.configured.filter
    }

    /// A byte stream from the request's caller to its port.
    pub fn connection(&mut self, stream: u64, request: &TestRequest) -> Outcome {
        if !self.interest.hooks.contains(Hooks::CONNECTION) {
            return Outcome::pass();
        }
        let attributes = self.attributes(request);
        self.configured.connection(stream, &attributes)
    }

    pub fn request(&mut self, stream: u64, request: &TestRequest) -> Outcome {
        if !self.interest.hooks.contains(Hooks::REQUEST_HEAD) {
            return Outcome::pass();
        }
        let attributes = self.attributes(request);
        let wants = self.interest.wants;
        let (path, query) = match request.target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (request.target.as_str(), None),
        };
        let head = RequestHead {
            method: wants.contains(Wants::METHOD).then(|| request.method.clone()),
            path: wants.contains(Wants::PATH).then(|| path.to_owned()),
            query: query.filter(|_| wants.contains(Wants::QUERY)).map(str::to_owned),
            authority: request.authority.clone().filter(|_| wants.contains(Wants::AUTHORITY)),
            headers: shown(&self.interest.request_headers, &request.headers),
        };
        self.configured.request_head(stream, &head, &attributes)
    }

    pub fn response(&mut self, stream: u64, status: u16, headers: &[(&str, &str)]) -> Outcome {
        if !self.interest.hooks.contains(Hooks::RESPONSE_HEAD) {
            return Outcome::pass();
        }
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), value.as_bytes().to_vec());
        let headers: Vec<_> = headers.iter().map(own).collect();
        let head = ResponseHead { status, headers: shown(&self.interest.response_headers, &headers) };
        self.configured.response_head(stream, &head)
    }

    pub fn done(&mut self, stream: u64, summary: &Summary) {
        if self.interest.hooks.contains(Hooks::DONE) {
            self.configured.done(stream, summary);
        }
    }

    fn attributes(&self, request: &TestRequest) -> Attributes {
        let wants = self.interest.wants;
        let now = u64::try_from(simulated::now().as_millis()).unwrap_or(u64::MAX);
        Attributes {
            principal: request.principal.clone().filter(|_| wants.contains(Wants::PRINCIPAL)),
            source_address: request.source_address.clone().filter(|_| wants.contains(Wants::SOURCE_ADDRESS)),
            destination_port: wants.contains(Wants::DESTINATION_PORT).then_some(request.destination_port),
            direction: wants.contains(Wants::DIRECTION).then_some(request.direction),
            now: wants.contains(Wants::NOW).then_some(now),
            dice: wants.contains(Wants::DICE).then_some(request.dice),
        }
    }
}

fn shown(names: &[String], headers: &[(String, Vec<u8>)]) -> Vec<Header> {
    let mut shown = Vec::new();
    for (name, position) in names.iter().zip(0_u16..) {
        for (_, value) in headers.iter().filter(|(known, _)| known == name) {
            shown.push(Header { name: position, value: value.clone() });
        }
    }
    shown
}

/// Lets time pass in the simulated host of this thread.
pub fn advance(by: Duration) {
    simulated::advance(by);
}

/// Lines that this thread's filters have logged so far.
pub fn logged() -> Vec<String> {
    simulated::logged()
}

/// Current value of a metric of this thread's filters: a count, a level, or the sum of what was observed.
pub fn metric(name: &str) -> Option<f64> {
    simulated::metric(name)
}
