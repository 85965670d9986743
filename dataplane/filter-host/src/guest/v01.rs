//! Contract 0.1: its exports, and what they are told. A component of it exports every hook, takes one configuration,
//! and keeps in its memory what it wants to know of a stream later.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderMap;
use http::header::HeaderName;
use smallvec::SmallVec;
use wasmtime::Store;
use wasmtime::component::{Component, Linker};

use super::{Guest, Setup, Source, StartError, Whom, called, instantiated, store};
use crate::bindings::v01::weft::filter::types::{self, Wants};
use crate::bindings::v01::{Filter, FilterPre};
use crate::failure::Failure;
use crate::hook::{self, Edit, Hook, Reply, Said, Told, Verdict};
use crate::interest::{Asked, Fixed, Interest};
use crate::state::{ConfigShared, Shared, State};
use crate::values::unix_millis;

/// A linked component.
pub(crate) struct Linked {
    pre: FilterPre<State>,
    shared: Arc<Shared>,
}

struct Instance {
    store: Store<State>,
    filter: Filter,
}

impl Linked {
    pub(crate) fn new(component: &Component, linker: &Linker<State>, shared: Arc<Shared>) -> wasmtime::Result<Self> {
        let pre = linker.instantiate_pre(component).and_then(FilterPre::new)?;
        Ok(Self { pre, shared })
    }
}

impl std::fmt::Debug for Linked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("v01::Linked")
    }
}

impl std::fmt::Debug for Instance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("v01::Instance")
    }
}

impl Source for Linked {
    fn start(&self, setup: &Setup, within: Duration) -> Result<Box<dyn Guest>, StartError> {
        let mut store = store(self.pre.engine(), &self.shared, setup, within);
        let filter = instantiated(&mut store, |store| self.pre.instantiate(store))?;
        Ok(Box::new(Instance { store, filter }))
    }
}

impl Guest for Instance {
    fn configure(&mut self, _id: u32, setup: &Setup, within: Duration) -> Result<Interest, StartError> {
        let Self { store, filter } = self;
        let asked =
            called(store, &setup.shared, (within, Instant::now()), |store| filter.call_configure(store, &setup.json));
        let asked = asked.map_err(StartError::Configure)?.map_err(StartError::Refused)?;
        Interest::fixed(asked, setup.bounds).map_err(StartError::Interest)
    }

    fn call(
        &mut self,
        whom: Whom<'_>,
        told: &Told<'_>,
        _cookie: &mut Vec<u8>,
        _buffer: &mut Vec<u8>,
    ) -> Result<Said, Failure> {
        let Asked::Fixed(asked) = &whom.interest.asked else {
            return Err(Failure::invalid("an interest of another contract"));
        };
        let Self { store, filter } = self;
        let Setup { shared, call_timeout, bounds, .. } = whom.setup;
        called(store, shared, (*call_timeout, whom.start), |store| {
            dispatch(filter, store, asked, bounds.authorization, told)
        })
    }

    fn forget(&mut self, _id: u32, _shared: &Arc<ConfigShared>) -> Result<(), Failure> {
        Ok(())
    }

    fn memory(&self) -> u64 {
        self.store.data().memory()
    }
}

fn dispatch(
    filter: &Filter,
    store: &mut Store<State>,
    asked: &Fixed,
    alike: bool,
    told: &Told<'_>,
) -> wasmtime::Result<Said> {
    let mut address = AddressText([0; 48]);
    match told.hook {
        Hook::Connection => {
            let attributes = visible(asked.wants, told, &mut address);
            filter.call_on_connection(store, told.stream, attributes).map(said)
        }
        Hook::RequestHead => request_head(filter, store, asked, alike, told),
        Hook::ResponseHead => {
            let Some((status, headers)) = told.response else { return Ok(Said::default()) };
            let headers = visible_headers(&asked.response_headers, headers);
            let head = types::ResponseHead { status: status.as_u16(), headers: &headers };
            filter.call_on_response_head(store, told.stream, head).map(said)
        }
        Hook::Done => {
            let summary = told.summary.copied().unwrap_or_default();
            let summary = types::Summary {
                status: summary.status,
                duration_us: u64::try_from(summary.duration.as_micros()).unwrap_or(u64::MAX),
                request_bytes: summary.request_bytes,
                response_bytes: summary.response_bytes,
            };
            filter.call_on_done(store, told.stream, summary).map(|()| Said::default())
        }
        // This contract has no such hooks, so no interest asks for one.
        Hook::RequestBody
        | Hook::RequestTrailers
        | Hook::ResponseBody
        | Hook::ResponseTrailers
        | Hook::ReplyBody
        | Hook::StreamData
        | Hook::Callout
        | Hook::Tick => Ok(Said::default()),
    }
}

fn request_head(
    filter: &Filter,
    store: &mut Store<State>,
    asked: &Fixed,
    alike: bool,
    told: &Told<'_>,
) -> wasmtime::Result<Said> {
    let Some(request) = told.request else { return Ok(Said::default()) };
    let wants = asked.wants;
    let mut headers = visible_headers(&asked.request_headers, request.headers);
    if alike {
        add_alike(&mut headers, &asked.request_headers, request.headers);
    }
    let path = request.path.filter(|_| wants.contains(Wants::PATH)).map(|path| match request.reading {
        Some(reading) => Cow::Borrowed(reading),
        None => path.standard(),
    });
    let query = request.path.filter(|_| wants.contains(Wants::QUERY)).and_then(|path| path.query_text());
    let head = types::RequestHead {
        method: wants.contains(Wants::METHOD).then_some(request.method.as_str()),
        path: path.as_deref(),
        query: query.as_deref(),
        authority: request.authority.filter(|_| wants.contains(Wants::AUTHORITY)).map(|it| it.as_str()),
        headers: &headers,
    };
    let mut address = AddressText([0; 48]);
    let attributes = visible(wants, told, &mut address);
    filter.call_on_request_head(store, told.stream, head, attributes).map(said)
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
fn visible<'a>(wants: Wants, told: &Told<'a>, address: &'a mut AddressText) -> types::Attributes<'a> {
    let attributes = told.attributes;
    let source = attributes.and_then(|it| it.source).filter(|_| wants.contains(Wants::SOURCE_ADDRESS));
    let direction = attributes.map(|it| match it.direction {
        weft_policy::bundle::Direction::Inbound => types::Direction::Inbound,
        weft_policy::bundle::Direction::Outbound => types::Direction::Outbound,
    });
    types::Attributes {
        principal: attributes.and_then(|it| it.principal).filter(|_| wants.contains(Wants::PRINCIPAL)),
        source_address: source.and_then(|source| address.format(source)),
        destination_port: attributes.map(|it| it.destination_port).filter(|_| wants.contains(Wants::DESTINATION_PORT)),
        direction: direction.filter(|_| wants.contains(Wants::DIRECTION)),
        now: wants.contains(Wants::NOW).then(|| told.time.unwrap_or_else(unix_millis)),
        dice: wants.contains(Wants::DICE).then_some(told.dice),
    }
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

fn said(outcome: types::Outcome) -> Said {
    let verdict = match outcome.verdict {
        types::Verdict::Continue => Verdict::Continue,
        types::Verdict::ContinueAfter(ms) => Verdict::ContinueAfter(ms),
        types::Verdict::Respond(reply) => Verdict::Respond(Reply {
            status: reply.status,
            headers: reply.headers.into_iter().map(field).collect(),
            body: reply.body,
            rule: reply.rule,
            reason: reply.reason,
            after_ms: reply.after_ms,
        }),
    };
    let edit = |edit| match edit {
        types::Edit::Set(it) => Edit::Set(field(it)),
        types::Edit::Add(it) => Edit::Add(field(it)),
        types::Edit::Remove(name) => Edit::Remove(name),
        types::Edit::Path(path) => Edit::Path(path),
        types::Edit::Authority(authority) => Edit::Authority(authority),
    };
    Said { verdict, edits: outcome.edits.into_iter().map(edit).collect(), ..Said::default() }
}

fn field(types::Field { name, value }: types::Field) -> hook::Field {
    hook::Field { name, value }
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
