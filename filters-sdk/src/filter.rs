//! The trait of a filter. Each hook has a default: implement those that `configure` asks for.

use serde::de::DeserializeOwned;

use crate::ask::Interest;
use crate::bindings::exports::weft::filter::callout_answer::Answer;
use crate::bindings::weft::filter::types::Outcome;
use crate::cookie::Cookie;
use crate::hook;
use crate::values::Values;

pub type Connection<'a> = Values<'a, hook::Connection>;
pub type Request<'a> = Values<'a, hook::RequestHead>;
pub type RequestBody<'a> = Values<'a, hook::RequestBody>;
pub type Response<'a> = Values<'a, hook::ResponseHead>;
pub type ResponseBody<'a> = Values<'a, hook::ResponseBody>;

/// Part of a body, or all of it where the hook was asked for with `buffer`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk<'a> {
    pub bytes: &'a [u8],
    /// Nothing follows.
    pub end: bool,
}

/// A filter under one configuration. A worker thread has one of it; its calls never overlap. What belongs to a stream is
/// no field of it but `State`, which the host keeps: an instance may be replaced between any two calls.
pub trait Filter: Sized + 'static {
    /// Read from the FilterPolicy's `config`; [`NoConfig`](crate::NoConfig) where there is none.
    type Config: DeserializeOwned;

    /// What is remembered of a stream; `()` where nothing is.
    type State: Cookie;

    /// Makes the filter and asks for what it wants to be called for and told. An error refuses the configuration and
    /// tells the operator why: begin it with the field's path.
    fn configure(config: Self::Config, ask: &mut Interest) -> Result<Self, String>;

    /// An opaque byte stream (TCP) is about to be opened.
    fn connection(&mut self, connection: &Connection<'_>, state: &mut Self::State) -> Outcome {
        let _ = (connection, state);
        Outcome::pass()
    }

    fn request_head(&mut self, request: &Request<'_>, state: &mut Self::State) -> Outcome {
        let _ = (request, state);
        Outcome::pass()
    }

    /// With `buffer` the head may still be edited; chunks come after it was sent.
    fn request_body(&mut self, request: &RequestBody<'_>, chunk: Chunk<'_>, state: &mut Self::State) -> Outcome {
        let _ = (request, chunk, state);
        Outcome::pass()
    }

    fn request_trailers(&mut self, request: &Values<'_, hook::RequestTrailers>, state: &mut Self::State) -> Outcome {
        let _ = (request, state);
        Outcome::pass()
    }

    /// Called in the reverse order of the requests', also over answers that a filter gave.
    fn response_head(&mut self, response: &Response<'_>, state: &mut Self::State) -> Outcome {
        let _ = (response, state);
        Outcome::pass()
    }

    fn response_body(&mut self, response: &ResponseBody<'_>, chunk: Chunk<'_>, state: &mut Self::State) -> Outcome {
        let _ = (response, chunk, state);
        Outcome::pass()
    }

    fn response_trailers(&mut self, response: &Values<'_, hook::ResponseTrailers>, state: &mut Self::State) -> Outcome {
        let _ = (response, state);
        Outcome::pass()
    }

    /// More of an answer that this filter gave at a hook of the request, once the caller has taken what came before. A part is
    /// [`Outcome::part`]; [`Outcome::pass`] ends the answer, and `wait` waits for what a part is made of.
    fn reply_body(&mut self, answer: &Values<'_, hook::ReplyBody>, state: &mut Self::State) -> Outcome {
        let _ = (answer, state);
        Outcome::pass()
    }

    fn stream_data(
        &mut self,
        stream: &Values<'_, hook::StreamData>,
        chunk: Chunk<'_>,
        state: &mut Self::State,
    ) -> Outcome {
        let _ = (stream, chunk, state);
        Outcome::pass()
    }

    /// The answer to the callout `id`, or why there is none. The outcome goes for the hook that waits.
    fn callout(
        &mut self,
        values: &Values<'_, hook::Callout>,
        id: u32,
        answer: Result<&Answer, &str>,
        state: &mut Self::State,
    ) -> Outcome {
        let _ = (values, id, answer, state);
        Outcome::pass()
    }

    /// The time of the wait is up. The outcome goes for the hook that waits.
    fn tick(&mut self, values: &Values<'_, hook::Tick>, state: &mut Self::State) -> Outcome {
        let _ = (values, state);
        Outcome::pass()
    }

    /// The stream is over.
    fn done(&mut self, values: &Values<'_, hook::Done>, state: &mut Self::State) {
        let _ = (values, state);
    }
}
