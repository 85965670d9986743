//! Contract 0.2: its exports, each of which a component may lack but `configuration`, and what they are told: one
//! packed buffer. A patch version is as good as another: names are looked up as `0.2`, whatever comes behind.

use std::sync::Arc;
use std::time::{Duration, Instant};

use wasmtime::Store;
use wasmtime::component::{Component, InstancePre, Linker};

use super::{Guest, Setup, Source, StartError, Whom, arm, called, instantiated, store};
use crate::bindings::v02::exports::weft::filter as exports;
use crate::bindings::v02::weft::filter::types;
use crate::chain::CalloutAnswer;
use crate::deadline::FORGET_TIMEOUT;
use crate::failure::Failure;
use crate::hook::{self, Edit, Hook, Reply, Said, Told, Verdict};
use crate::interest::{Asked, AskedHook, Interest};
use crate::state::{ConfigShared, Shared, State};
use crate::values;

/// A linked component, and where its exports are.
pub(crate) struct Linked {
    pre: InstancePre<State>,
    indices: Indices,
    shared: Arc<Shared>,
}

struct Instance {
    store: Store<State>,
    exports: Exports,
}

/// Declares the places of the exports before and after instantiation: `configuration`, and the hooks.
macro_rules! exports {
    ($($hook:ident),* $(,)?) => {
        struct Indices {
            configuration: exports::configuration::GuestIndices,
            $($hook: Option<exports::$hook::GuestIndices>,)*
        }

        struct Exports {
            configuration: exports::configuration::Guest,
            $($hook: Option<exports::$hook::Guest>,)*
        }

        impl Indices {
            fn of(pre: &InstancePre<State>) -> wasmtime::Result<Self> {
                Ok(Self {
                    configuration: exports::configuration::GuestIndices::new(pre)?,
                    $($hook: exports::$hook::GuestIndices::new(pre).ok(),)*
                })
            }

            /// Checks the type of each export that is there.
            fn load(
                &self,
                store: &mut Store<State>,
                instance: &wasmtime::component::Instance,
            ) -> wasmtime::Result<Exports> {
                Ok(Exports {
                    configuration: self.configuration.load(&mut *store, instance)?,
                    $($hook: match &self.$hook {
                        Some(indices) => Some(indices.load(&mut *store, instance)?),
                        None => None,
                    },)*
                })
            }
        }
    };
}

exports! {
    connection,
    request_head,
    request_body,
    request_trailers,
    response_head,
    response_body,
    response_trailers,
    reply_body,
    stream_data,
    callout_answer,
    tick,
    done,
}

impl Exports {
    fn has(&self, hook: Hook) -> bool {
        match hook {
            Hook::Connection => self.connection.is_some(),
            Hook::RequestHead => self.request_head.is_some(),
            Hook::RequestBody => self.request_body.is_some(),
            Hook::RequestTrailers => self.request_trailers.is_some(),
            Hook::ResponseHead => self.response_head.is_some(),
            Hook::ResponseBody => self.response_body.is_some(),
            Hook::ResponseTrailers => self.response_trailers.is_some(),
            Hook::ReplyBody => self.reply_body.is_some(),
            Hook::StreamData => self.stream_data.is_some(),
            Hook::Callout => self.callout_answer.is_some(),
            Hook::Tick => self.tick.is_some(),
            Hook::Done => self.done.is_some(),
        }
    }
}

/// True for a component of this contract: it exports what every such component must.
pub(crate) fn is_contract_of(component: &Component) -> bool {
    component.get_export_index(None, "weft:filter/configuration@0.2.0").is_some()
}

impl Linked {
    pub(crate) fn new(component: &Component, linker: &Linker<State>, shared: Arc<Shared>) -> wasmtime::Result<Self> {
        let pre = linker.instantiate_pre(component)?;
        let indices = Indices::of(&pre)?;
        Ok(Self { pre, indices, shared })
    }
}

impl std::fmt::Debug for Linked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("v02::Linked")
    }
}

impl std::fmt::Debug for Instance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("v02::Instance")
    }
}

impl Source for Linked {
    fn start(&self, setup: &Setup, within: Duration) -> Result<Box<dyn Guest>, StartError> {
        let mut store = store(self.pre.engine(), &self.shared, setup, within);
        let instance = instantiated(&mut store, |store| self.pre.instantiate(store))?;
        let exports = self.indices.load(&mut store, &instance);
        let exports = exports.map_err(|error| StartError::WrongWorld(format!("{error:#}")))?;
        Ok(Box::new(Instance { store, exports }))
    }
}

impl Instance {
    fn try_configure(&mut self, id: u32, setup: &Setup, within: Duration) -> Result<Interest, StartError> {
        let Self { store, exports } = self;
        let configuration = &exports.configuration;
        let asked = called(store, &setup.shared, (within, Instant::now()), |store| {
            configuration.call_configure(store, id, &setup.json)
        });
        let asked = asked.map_err(StartError::Configure)?.map_err(StartError::Refused)?;
        let asked: Vec<AskedHook> = asked.hooks.into_iter().map(asked_hook).collect();
        Interest::named(&asked, |hook| exports.has(hook), setup.bounds).map_err(StartError::Interest)
    }
}

impl Guest for Instance {
    fn configure(&mut self, id: u32, setup: &Setup, within: Duration) -> Result<Interest, StartError> {
        let asked = self.try_configure(id, setup, within);
        if asked.is_err() {
            // An instance that goes on for others keeps nothing of what it defined.
            self.store.data_mut().forget(&setup.shared);
        }
        asked
    }

    fn call(
        &mut self,
        whom: Whom<'_>,
        told: &Told<'_>,
        cookie: &mut Vec<u8>,
        buffer: &mut Vec<u8>,
    ) -> Result<Said, Failure> {
        let Asked::Named(asked) = &whom.interest.asked else {
            return Err(Failure::invalid("an interest of another contract"));
        };
        let asked = asked.get(told.hook.index()).map_or(&[][..], Vec::as_slice);
        values::pack(asked, told, whom.setup.bounds.authorization, buffer);
        let call = types::Call { config: whom.id, stream: told.stream, cookie: std::mem::take(cookie) };
        let Self { store, exports } = self;
        let Setup { shared, call_timeout, .. } = whom.setup;
        let result =
            called(store, shared, (*call_timeout, whom.start), |store| exports.dispatch(store, &call, told, buffer));
        *cookie = call.cookie;
        let outcome = result?;
        let callouts = store.data_mut().take_callouts();
        Ok(outcome.map_or_else(Said::default, |outcome| Said { callouts, ..said(outcome) }))
    }

    fn forget(&mut self, id: u32, shared: &Arc<ConfigShared>) -> Result<(), Failure> {
        arm(&mut self.store, shared, (FORGET_TIMEOUT, Instant::now()));
        let result = self.exports.configuration.call_forget(&mut self.store, id);
        self.store.data_mut().forget(shared);
        result.map_err(|error| Failure::of_call(&error, false))
    }

    fn memory(&self) -> u64 {
        self.store.data().memory()
    }
}

impl Exports {
    /// Calls the hook. `None`: it has no outcome, or the component has no such hook, which no interest asks for then.
    fn dispatch(
        &self,
        store: &mut Store<State>,
        call: &types::Call,
        told: &Told<'_>,
        values: &Vec<u8>,
    ) -> wasmtime::Result<Option<types::Outcome>> {
        let (chunk, end) = (told.chunk, told.end);
        let outcome = match told.hook {
            Hook::Connection => self.connection.as_ref().map(|it| it.call_on_connection(store, call, values)),
            Hook::RequestHead => self.request_head.as_ref().map(|it| it.call_on_request_head(store, call, values)),
            Hook::RequestBody => {
                self.request_body.as_ref().map(|it| it.call_on_request_body(store, call, values, chunk, end))
            }
            Hook::RequestTrailers => {
                self.request_trailers.as_ref().map(|it| it.call_on_request_trailers(store, call, values))
            }
            Hook::ResponseHead => self.response_head.as_ref().map(|it| it.call_on_response_head(store, call, values)),
            Hook::ResponseBody => {
                self.response_body.as_ref().map(|it| it.call_on_response_body(store, call, values, chunk, end))
            }
            Hook::ResponseTrailers => {
                self.response_trailers.as_ref().map(|it| it.call_on_response_trailers(store, call, values))
            }
            Hook::ReplyBody => self.reply_body.as_ref().map(|it| it.call_on_reply_body(store, call, values)),
            Hook::StreamData => {
                self.stream_data.as_ref().map(|it| it.call_on_stream_data(store, call, values, chunk, end))
            }
            Hook::Tick => self.tick.as_ref().map(|it| it.call_on_tick(store, call, values)),
            Hook::Callout => {
                let Some((export, (id, answer))) = self.callout_answer.as_ref().zip(told.answer) else {
                    return Ok(None);
                };
                let answer = answer.map(answer_of);
                let answer = answer.as_ref().map_err(|why| *why);
                Some(export.call_on_callout(store, call, values, id, answer))
            }
            Hook::Done => {
                if let Some(export) = &self.done {
                    export.call_on_done(store, call, values)?;
                }
                None
            }
        };
        outcome.transpose()
    }
}

fn answer_of(answer: &CalloutAnswer) -> exports::callout_answer::Answer {
    let field = |(name, value): (&http::HeaderName, &http::HeaderValue)| types::Field {
        name: name.as_str().to_owned(),
        value: value.as_bytes().to_vec(),
    };
    exports::callout_answer::Answer {
        status: answer.status.as_u16(),
        headers: answer.headers.iter().map(field).collect(),
        body: answer.body.to_vec(),
    }
}

fn asked_hook(hook: types::Hook) -> AskedHook {
    AskedHook {
        name: hook.name,
        values: hook.values.into_iter().map(|value| (value.name, value.optional)).collect(),
        options: hook.options.into_iter().map(|option| (option.name, option.value)).collect(),
    }
}

fn said(outcome: types::Outcome) -> Said {
    let verdict = match outcome.verdict {
        types::Verdict::Continue => Verdict::Continue,
        types::Verdict::ContinueAfter(ms) => Verdict::ContinueAfter(ms),
        types::Verdict::Wait(ms) => Verdict::Wait(ms),
        types::Verdict::Respond(reply) => Verdict::Respond(Reply {
            status: reply.status,
            headers: reply.headers.into_iter().map(field).collect(),
            body: reply.body,
            rule: reply.rule,
            reason: reply.reason,
            after_ms: reply.after_ms,
        }),
        types::Verdict::Reset(reason) => Verdict::Reset(reason),
        types::Verdict::Close(reason) => Verdict::Close(reason),
        types::Verdict::Other(other) => Verdict::Unknown(other.name),
    };
    let edit = |edit| match edit {
        types::Edit::Set(it) => Edit::Set(field(it)),
        types::Edit::Add(it) => Edit::Add(field(it)),
        types::Edit::Remove(name) => Edit::Remove(name),
        types::Edit::Path(path) => Edit::Path(path),
        types::Edit::Authority(authority) => Edit::Authority(authority),
        types::Edit::Status(status) => Edit::Status(status),
        types::Edit::Body(bytes) => Edit::Body(bytes),
        types::Edit::Attribute(it) => Edit::Attribute(field(it)),
        types::Edit::Other(other) => Edit::Unknown(other.name),
    };
    let edits = outcome.edits.into_iter().map(edit).collect();
    Said { verdict, edits, cookie: outcome.cookie, ..Said::default() }
}

fn field(types::Field { name, value }: types::Field) -> hook::Field {
    hook::Field { name, value }
}
