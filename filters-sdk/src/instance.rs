//! One instance of a component: the filters of all configurations that it serves. The component's exports and the test
//! harness call it alike.

use crate::ask::Interest;
use crate::bindings::exports::weft::filter::callout_answer::Answer;
use crate::bindings::weft::filter::types::{self, Call, Outcome};
use crate::config;
use crate::cookie::{self, Cookie as _};
use crate::filter::{Chunk, Filter};
use crate::values::Values;

/// The filters of one instance by the ids that the host gave their configurations, in the order of these: few, and looked up
/// by each call.
#[derive(Debug)]
pub struct Instance<F> {
    filters: Vec<(u32, F)>,
}

impl<F> Default for Instance<F> {
    fn default() -> Self {
        Self::new()
    }
}

impl<F> Instance<F> {
    pub const fn new() -> Self {
        Self { filters: Vec::new() }
    }
}

impl<F: Filter> Instance<F> {
    pub fn configure(&mut self, id: u32, config: &str) -> Result<types::Interest, String> {
        #[cfg(target_arch = "wasm32")]
        if self.filters.is_empty() {
            tell_panics();
        }
        let mut ask = Interest::new();
        let filter = F::configure(config::read(config)?, &mut ask)?;
        match self.place(id) {
            Ok(place) => self.filters[place].1 = filter,
            Err(place) => self.filters.insert(place, (id, filter)),
        }
        Ok(ask.into_contract())
    }

    pub fn forget(&mut self, id: u32) {
        if let Ok(place) = self.place(id) {
            self.filters.remove(place);
        }
    }

    pub fn filter(&self, id: u32) -> Option<&F> {
        self.place(id).ok().map(|place| &self.filters[place].1)
    }

    /// Where the filter is, or belongs.
    fn place(&self, id: u32) -> Result<usize, usize> {
        self.filters.binary_search_by_key(&id, |(known, _)| *known)
    }

    pub fn connection(&mut self, call: &Call, values: &[u8]) -> Outcome {
        self.run(call, values, |filter, values, state| filter.connection(values, state))
    }

    pub fn request_head(&mut self, call: &Call, values: &[u8]) -> Outcome {
        self.run(call, values, |filter, values, state| filter.request_head(values, state))
    }

    pub fn request_body(&mut self, call: &Call, values: &[u8], bytes: &[u8], end: bool) -> Outcome {
        self.run(call, values, |filter, values, state| filter.request_body(values, Chunk { bytes, end }, state))
    }

    pub fn request_trailers(&mut self, call: &Call, values: &[u8]) -> Outcome {
        self.run(call, values, |filter, values, state| filter.request_trailers(values, state))
    }

    pub fn response_head(&mut self, call: &Call, values: &[u8]) -> Outcome {
        self.run(call, values, |filter, values, state| filter.response_head(values, state))
    }

    pub fn response_body(&mut self, call: &Call, values: &[u8], bytes: &[u8], end: bool) -> Outcome {
        self.run(call, values, |filter, values, state| filter.response_body(values, Chunk { bytes, end }, state))
    }

    pub fn response_trailers(&mut self, call: &Call, values: &[u8]) -> Outcome {
        self.run(call, values, |filter, values, state| filter.response_trailers(values, state))
    }

    pub fn reply_body(&mut self, call: &Call, values: &[u8]) -> Outcome {
        self.run(call, values, |filter, values, state| filter.reply_body(values, state))
    }

    pub fn stream_data(&mut self, call: &Call, values: &[u8], bytes: &[u8], end: bool) -> Outcome {
        self.run(call, values, |filter, values, state| filter.stream_data(values, Chunk { bytes, end }, state))
    }

    pub fn callout(&mut self, call: &Call, values: &[u8], id: u32, answer: &Result<Answer, String>) -> Outcome {
        let answer = answer.as_ref().map_err(String::as_str);
        self.run(call, values, |filter, values, state| filter.callout(values, id, answer, state))
    }

    pub fn tick(&mut self, call: &Call, values: &[u8]) -> Outcome {
        self.run(call, values, |filter, values, state| filter.tick(values, state))
    }

    pub fn done(&mut self, call: &Call, values: &[u8]) {
        self.run(call, values, |filter, values, state| {
            filter.done(values, state);
            Outcome::pass()
        });
    }

    /// Hands a hook the state of its stream, and the host what became of it.
    fn run<H>(
        &mut self,
        call: &Call,
        values: &[u8],
        hook: impl FnOnce(&mut F, &Values<'_, H>, &mut F::State) -> Outcome,
    ) -> Outcome {
        let place = self.place(call.config).expect("the host configures before it calls");
        let filter = &mut self.filters[place].1;
        let mut state: F::State = cookie::read(&call.cookie).expect("a cookie is read as it was written");
        let mut outcome = hook(filter, &Values::new(call.stream, values), &mut state);
        let cookie = state.to_bytes();
        if cookie != call.cookie {
            outcome.cookie = Some(cookie);
        }
        outcome
    }
}

/// Has the message and place of a panic written to the log before it becomes a trap.
#[cfg(target_arch = "wasm32")]
fn tell_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let payload = panic.payload();
        let message = match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
            (Some(message), _) => *message,
            (None, Some(message)) => message.as_str(),
            (None, None) => "without a message",
        };
        let place = panic.location().map(|place| format!(" at {place}")).unwrap_or_default();
        crate::log::error(&format!("panic: {message}{place}"));
    }));
}

/// Makes a component of a [`Filter`]: put it once at the end of a filter's crate. On other targets it does nothing. One that
/// streams its answers says so, `export!(MyFilter, replies)`: proxies and control planes that do not know that refuse it.
#[macro_export]
macro_rules! export {
    ($filter:ty) => {
        $crate::export!(@component $filter, {});
    };
    ($filter:ty, replies) => {
        $crate::export!(@component $filter, {
            impl $crate::bindings::replies::exports::weft::filter::reply_body::Guest for Component {
                fn on_reply_body(call: types::Call, values: Vec<u8>) -> types::Outcome {
                    with(|instance| instance.reply_body(&call, &values))
                }
            }

            $crate::bindings::replies::export!(Component with_types_in $crate::bindings::replies);
        });
    };
    (@component $filter:ty, {$($more:tt)*}) => {
        #[cfg(target_arch = "wasm32")]
        #[allow(unsafe_code, clippy::undocumented_unsafe_blocks, reason = "generated: the component ABI is raw memory")]
        const _: () = {
            use $crate::bindings::export;
            use $crate::bindings::exports::weft::filter as hooks;
            use $crate::bindings::weft::filter::types;

            ::std::thread_local! {
                static INSTANCE: ::std::cell::RefCell<$crate::Instance<$filter>> =
                    const { ::std::cell::RefCell::new($crate::Instance::new()) };
            }

            fn with<R>(call: impl FnOnce(&mut $crate::Instance<$filter>) -> R) -> R {
                INSTANCE.with_borrow_mut(call)
            }

            struct Component;

            impl hooks::configuration::Guest for Component {
                fn configure(id: u32, config: String) -> Result<types::Interest, String> {
                    with(|instance| instance.configure(id, &config))
                }

                fn forget(id: u32) {
                    with(|instance| instance.forget(id));
                }
            }

            impl hooks::connection::Guest for Component {
                fn on_connection(call: types::Call, values: Vec<u8>) -> types::Outcome {
                    with(|instance| instance.connection(&call, &values))
                }
            }

            impl hooks::request_head::Guest for Component {
                fn on_request_head(call: types::Call, values: Vec<u8>) -> types::Outcome {
                    with(|instance| instance.request_head(&call, &values))
                }
            }

            impl hooks::request_body::Guest for Component {
                fn on_request_body(call: types::Call, values: Vec<u8>, chunk: Vec<u8>, end: bool) -> types::Outcome {
                    with(|instance| instance.request_body(&call, &values, &chunk, end))
                }
            }

            impl hooks::request_trailers::Guest for Component {
                fn on_request_trailers(call: types::Call, values: Vec<u8>) -> types::Outcome {
                    with(|instance| instance.request_trailers(&call, &values))
                }
            }

            impl hooks::response_head::Guest for Component {
                fn on_response_head(call: types::Call, values: Vec<u8>) -> types::Outcome {
                    with(|instance| instance.response_head(&call, &values))
                }
            }

            impl hooks::response_body::Guest for Component {
                fn on_response_body(call: types::Call, values: Vec<u8>, chunk: Vec<u8>, end: bool) -> types::Outcome {
                    with(|instance| instance.response_body(&call, &values, &chunk, end))
                }
            }

            impl hooks::response_trailers::Guest for Component {
                fn on_response_trailers(call: types::Call, values: Vec<u8>) -> types::Outcome {
                    with(|instance| instance.response_trailers(&call, &values))
                }
            }

            impl hooks::stream_data::Guest for Component {
                fn on_stream_data(call: types::Call, values: Vec<u8>, chunk: Vec<u8>, end: bool) -> types::Outcome {
                    with(|instance| instance.stream_data(&call, &values, &chunk, end))
                }
            }

            impl hooks::callout_answer::Guest for Component {
                fn on_callout(
                    call: types::Call,
                    values: Vec<u8>,
                    id: u32,
                    answer: Result<hooks::callout_answer::Answer, String>,
                ) -> types::Outcome {
                    with(|instance| instance.callout(&call, &values, id, &answer))
                }
            }

            impl hooks::tick::Guest for Component {
                fn on_tick(call: types::Call, values: Vec<u8>) -> types::Outcome {
                    with(|instance| instance.tick(&call, &values))
                }
            }

            impl hooks::done::Guest for Component {
                fn on_done(call: types::Call, values: Vec<u8>) {
                    with(|instance| instance.done(&call, &values));
                }
            }

            export!(Component with_types_in $crate::bindings);

            $($more)*
        };
    };
}
