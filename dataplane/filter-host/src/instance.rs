//! One live instance of a filter and the calls into it. Invariant: an instance whose call failed is never called again.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderMap;
use http::header::HeaderName;
use smallvec::SmallVec;
use wasmtime::{Store, Trap};

use crate::bindings::v01::weft::filter::types::{self, Wants};
use crate::bindings::v01::{Filter, FilterPre};
use crate::chain::{Attributes, RequestView, Summary};
use crate::clock::Clock;
use crate::deadline::{CONFIGURE_TIMEOUT, Deadline, thread_time};
use crate::prepare::Interest;
use crate::state::{ConfigShared, Shared, State};

/// Why a filter gave no verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    Trap,
    Timeout,
    /// A verdict or edit that the contract forbids.
    InvalidResult,
    /// No instance could be made.
    NoInstance,
    /// The instance that held this stream's state is gone.
    StateLost,
    BreakerOpen,
}

impl Failure {
    /// The short word of metrics, logs and replies.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Failure::Trap => "filter_trapped",
            Failure::Timeout => "filter_timed_out",
            Failure::InvalidResult => "filter_result_invalid",
            Failure::NoInstance => "filter_not_instantiated",
            Failure::StateLost => "filter_state_lost",
            Failure::BreakerOpen => "filter_breaker_open",
        }
    }
}

/// Why a filter did not come up.
#[derive(Debug)]
pub(crate) enum StartError {
    Instantiate(wasmtime::Error),
    /// It trapped, or did not end, while it was configured.
    Configure(wasmtime::Error),
    /// It refused its configuration, in its own words.
    Refused(String),
}

pub(crate) struct Instance {
    store: Store<State>,
    filter: Filter,
    /// Ticks of the engine's clock that a call may last.
    ticks: u64,
}

impl std::fmt::Debug for Instance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Instance").finish_non_exhaustive()
    }
}

impl Instance {
    /// Instantiates and configures; what the filter asked for comes back with it.
    pub(crate) fn start(
        pre: &FilterPre<State>,
        (shared, of): (&Arc<Shared>, &Arc<ConfigShared>),
        config: &str,
        call_timeout: Duration,
    ) -> Result<(Self, types::Interest), StartError> {
        let ticks = Clock::ticks(call_timeout);
        shared.clock.allow(ticks.max(Clock::ticks(CONFIGURE_TIMEOUT)));
        shared.clock.call();
        let mut store = Store::new(pre.engine(), State::new(shared.clone()));
        store.data_mut().enter(of);
        store.limiter(|state| state);
        store.epoch_deadline_callback(|mut store| {
            store.data().shared.clock.call();
            Ok(store.data_mut().deadline.strike(thread_time()))
        });
        store.set_epoch_deadline(Clock::ticks(CONFIGURE_TIMEOUT));
        let filter = pre.instantiate(&mut store).map_err(StartError::Instantiate)?;
        let interest = filter.call_configure(&mut store, config).map_err(StartError::Configure)?;
        let interest = interest.map_err(StartError::Refused)?;
        store.data_mut().deadline = Deadline::new(call_timeout);
        Ok((Self { store, filter, ticks }, interest))
    }

    /// Starts the clock of one call.
    fn arm(&mut self) {
        let state = self.store.data_mut();
        state.shared.clock.call();
        state.deadline.start();
        self.store.set_epoch_deadline(self.ticks);
    }

    pub(crate) fn connection(
        &mut self,
        interest: &Interest,
        stream: u64,
        attributes: &Attributes<'_>,
        dice: u64,
    ) -> Result<types::Outcome, Failure> {
        let mut address = AddressText([0; 48]);
        let attributes = visible(interest.wants, attributes, dice, &mut address);
        self.arm();
        self.filter.call_on_connection(&mut self.store, stream, attributes).map_err(failure)
    }

    /// `reading`: instead of the path as it is sent.
    pub(crate) fn request_head(
        &mut self,
        interest: &Interest,
        stream: u64,
        view: &RequestView<'_>,
        reading: Option<&str>,
        attributes: &Attributes<'_>,
        dice: u64,
    ) -> Result<types::Outcome, Failure> {
        let wants = interest.wants;
        let mut headers = visible_headers(&interest.request_headers, view.headers);
        if interest.sees_alike {
            add_alike(&mut headers, &interest.request_headers, view.headers);
        }
        let target = view.path.as_ref();
        let path = target.filter(|_| wants.contains(Wants::PATH)).map(|target| match reading {
            Some(reading) => Cow::Borrowed(reading),
            None => target.standard(),
        });
        let query = target.filter(|_| wants.contains(Wants::QUERY)).and_then(|target| target.query_text());
        let head = types::RequestHead {
            method: wants.contains(Wants::METHOD).then_some(view.method.as_str()),
            path: path.as_deref(),
            query: query.as_deref(),
            authority: view.authority.as_ref().filter(|_| wants.contains(Wants::AUTHORITY)).map(|a| a.as_str()),
            headers: &headers,
        };
        let mut address = AddressText([0; 48]);
        let attributes = visible(wants, attributes, dice, &mut address);
        self.arm();
        self.filter.call_on_request_head(&mut self.store, stream, head, attributes).map_err(failure)
    }

    pub(crate) fn response_head(
        &mut self,
        interest: &Interest,
        stream: u64,
        status: u16,
        headers: &HeaderMap,
    ) -> Result<types::Outcome, Failure> {
        let headers = visible_headers(&interest.response_headers, headers);
        let head = types::ResponseHead { status, headers: &headers };
        self.arm();
        self.filter.call_on_response_head(&mut self.store, stream, head).map_err(failure)
    }

    pub(crate) fn done(&mut self, stream: u64, summary: &Summary) -> Result<(), Failure> {
        let summary = types::Summary {
            status: summary.status,
            duration_us: u64::try_from(summary.duration.as_micros()).unwrap_or(u64::MAX),
            request_bytes: summary.request_bytes,
            response_bytes: summary.response_bytes,
        };
        self.arm();
        self.filter.call_on_done(&mut self.store, stream, summary).map_err(failure)
    }
}

/// A call that ended in an error was ended by the clock, or by the filter itself.
#[expect(clippy::needless_pass_by_value, reason = "it ends here")]
fn failure(error: wasmtime::Error) -> Failure {
    if error.downcast_ref::<Trap>() == Some(&Trap::Interrupt) {
        return Failure::Timeout;
    }
    tracing::debug!(error = format!("{error:#}"), "filter trapped");
    Failure::Trap
}

/// The longest textual address: 39 bytes for IPv6, 45 with an IPv4 tail.
struct AddressText([u8; 48]);

impl AddressText {
    fn format(&mut self, address: IpAddr) -> Option<&str> {
        use std::io::Write as _;
        let mut rest = &mut self.0[..];
        write!(rest, "{address}").ok()?;
        let len = 48 - rest.len();
        std::str::from_utf8(&self.0[..len]).ok()
    }
}

/// The attributes that a filter asked for, the others left out.
fn visible<'a>(
    wants: Wants,
    attributes: &Attributes<'a>,
    dice: u64,
    address: &'a mut AddressText,
) -> types::Attributes<'a> {
    let source = attributes.source.filter(|_| wants.contains(Wants::SOURCE_ADDRESS));
    types::Attributes {
        principal: attributes.principal.filter(|_| wants.contains(Wants::PRINCIPAL)),
        source_address: source.and_then(|source| address.format(source)),
        destination_port: wants.contains(Wants::DESTINATION_PORT).then_some(attributes.destination_port),
        direction: wants.contains(Wants::DIRECTION).then_some(match attributes.direction {
            weft_policy::bundle::Direction::Inbound => types::Direction::Inbound,
            weft_policy::bundle::Direction::Outbound => types::Direction::Outbound,
        }),
        now: wants.contains(Wants::NOW).then(unix_millis),
        dice: wants.contains(Wants::DICE).then_some(dice),
    }
}

fn unix_millis() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// The header fields that a filter asked for, by position in its list.
fn visible_headers<'a>(names: &[HeaderName], headers: &'a HeaderMap) -> SmallVec<[types::Header<'a>; 8]> {
    let mut visible = SmallVec::new();
    for (name, position) in names.iter().zip(0_u16..) {
        for value in headers.get_all(name) {
            visible.push(types::Header { name: position, value: value.as_bytes() });
        }
    }
    visible
}

/// Adds the fields whose names differ from one that was asked for only by `_` in place of `-`, which servers that hand
/// fields on as variables read as that one. They come under the last of the names that they are like.
fn add_alike<'a>(visible: &mut SmallVec<[types::Header<'a>; 8]>, names: &[HeaderName], headers: &'a HeaderMap) {
    for name in headers.keys().filter(|name| !names.contains(name)) {
        let Some(position) =
            names.iter().rposition(|asked| weft_policy::authz::is_alike(asked.as_str(), name.as_str()))
        else {
            continue;
        };
        for value in headers.get_all(name) {
            visible.push(types::Header { name: u16::try_from(position).unwrap_or(u16::MAX), value: value.as_bytes() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_that_servers_read_alike_are_shown_to_an_authorization() {
        let names = ["x-my-role", "x_my_role", "y"].map(HeaderName::from_static);
        let fields = ["x-my-role", "x_my_role", "x_my-role", "x-my_role", "x-my.role", "y", "z"];
        let headers: HeaderMap =
            fields.iter().map(|name| (HeaderName::from_static(name), http::HeaderValue::from_static(name))).collect();
        let mut visible = visible_headers(&names, &headers);
        add_alike(&mut visible, &names, &headers);
        let shown: Vec<_> =
            visible.iter().map(|it| (it.name, String::from_utf8_lossy(it.value).into_owned())).collect();
        let expect = [(0, "x-my-role"), (1, "x_my_role"), (2, "y"), (1, "x_my-role"), (1, "x-my_role")];
        assert_eq!(shown, expect.map(|(position, name)| (position, name.to_owned())));
    }
}
