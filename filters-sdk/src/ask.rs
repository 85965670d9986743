//! What a configuration asks for: hooks, the values of each, and its options. To touch a hook is to ask for it.

use std::marker::PhantomData;

use crate::bindings::weft::filter::types;
use crate::hook::{self, Hook};
use crate::values::{Prefixed, Value};

/// What a filter wants to be called for and told; `configure` fills it.
#[derive(Debug, Clone)]
pub struct Interest(types::Interest);

/// One hook that is asked for. A value that the host does not know at this hook refuses the configuration, unless it was
/// asked for as optional.
#[derive(Debug)]
pub struct Ask<'a, H> {
    hook: &'a mut types::Hook,
    of: PhantomData<H>,
}

impl Interest {
    pub(crate) fn new() -> Self {
        Self(types::Interest { hooks: Vec::new() })
    }

    pub(crate) fn into_contract(self) -> types::Interest {
        self.0
    }

    pub fn connection(&mut self) -> Ask<'_, hook::Connection> {
        self.hook()
    }

    pub fn request_head(&mut self) -> Ask<'_, hook::RequestHead> {
        self.hook()
    }

    pub fn request_body(&mut self) -> Ask<'_, hook::RequestBody> {
        self.hook()
    }

    pub fn request_trailers(&mut self) -> Ask<'_, hook::RequestTrailers> {
        self.hook()
    }

    pub fn response_head(&mut self) -> Ask<'_, hook::ResponseHead> {
        self.hook()
    }

    pub fn response_body(&mut self) -> Ask<'_, hook::ResponseBody> {
        self.hook()
    }

    pub fn response_trailers(&mut self) -> Ask<'_, hook::ResponseTrailers> {
        self.hook()
    }

    /// To stream the answers that the filter gives to requests. Its component is then made by `export!(MyFilter, replies)`.
    pub fn reply_body(&mut self) -> Ask<'_, hook::ReplyBody> {
        self.hook()
    }

    pub fn stream_data(&mut self) -> Ask<'_, hook::StreamData> {
        self.hook()
    }

    pub fn callout(&mut self) -> Ask<'_, hook::Callout> {
        self.hook()
    }

    pub fn tick(&mut self) -> Ask<'_, hook::Tick> {
        self.hook()
    }

    pub fn done(&mut self) -> Ask<'_, hook::Done> {
        self.hook()
    }

    /// The same by type.
    pub fn hook<H: Hook>(&mut self) -> Ask<'_, H> {
        let hooks = &mut self.0.hooks;
        let position = hooks.iter().position(|hook| hook.name == H::NAME).unwrap_or_else(|| {
            hooks.push(types::Hook { name: H::NAME.to_owned(), values: Vec::new(), options: Vec::new() });
            hooks.len() - 1
        });
        Ask { hook: &mut hooks[position], of: PhantomData }
    }
}

impl<H: Hook> Ask<'_, H> {
    /// A value by its name, as docs/filters/values.md lists them.
    pub fn value(&mut self, name: &str) -> Value<H> {
        Value::at(self.position(name, false))
    }

    /// A value that is never there where the host does not know it.
    pub fn optional(&mut self, name: &str) -> Value<H> {
        Value::at(self.position(name, true))
    }

    /// What an earlier filter told under this name, which starts with `filter.`.
    pub fn attribute(&mut self, name: &str) -> Value<H> {
        self.value(name)
    }

    /// All that earlier filters told under names that start so, which is `filter.` and more.
    pub fn attributes(&mut self, prefix: &str) -> Prefixed<H> {
        Prefixed::at(self.position(&format!("{prefix}*"), false))
    }

    /// The SPIFFE ID of the caller, as TLS proved it.
    pub fn principal(&mut self) -> Value<H> {
        self.value("source.principal")
    }

    pub fn source_namespace(&mut self) -> Value<H> {
        self.value("source.namespace")
    }

    pub fn source_service_account(&mut self) -> Value<H> {
        self.value("source.service-account")
    }

    pub fn source_address(&mut self) -> Value<H> {
        self.value("source.address")
    }

    pub fn destination_port(&mut self) -> Value<H> {
        self.value("destination.port")
    }

    /// `namespace/name` of the service that is called.
    pub fn destination_service(&mut self) -> Value<H> {
        self.value("destination.service")
    }

    /// `inbound` or `outbound`.
    pub fn direction(&mut self) -> Value<H> {
        self.value("direction")
    }

    /// The route that was chosen, where one was.
    pub fn route(&mut self) -> Value<H> {
        self.value("route.name")
    }

    /// Wall time in milliseconds since the Unix epoch.
    pub fn time(&mut self) -> Value<H> {
        self.value("time")
    }

    /// 64 random bits for each call, as a number; not for secrets.
    pub fn dice(&mut self) -> Value<H> {
        self.value("dice")
    }

    pub fn method(&mut self) -> Value<H> {
        self.value("request.method")
    }

    /// The path without its query, normalised: what the app is sent.
    pub fn path(&mut self) -> Value<H> {
        self.value("request.path")
    }

    pub fn query(&mut self) -> Value<H> {
        self.value("request.query")
    }

    pub fn authority(&mut self) -> Value<H> {
        self.value("request.authority")
    }

    pub fn request_header(&mut self, name: &str) -> Value<H> {
        self.value(&format!("request.header.{}", name.to_ascii_lowercase()))
    }

    /// All request headers whose names start so.
    pub fn request_headers(&mut self, prefix: &str) -> Prefixed<H> {
        let name = format!("request.header.{}*", prefix.to_ascii_lowercase());
        Prefixed::at(self.position(&name, false))
    }

    pub fn status(&mut self) -> Value<H> {
        self.value("response.status")
    }

    pub fn response_header(&mut self, name: &str) -> Value<H> {
        self.value(&format!("response.header.{}", name.to_ascii_lowercase()))
    }

    /// All response headers whose names start so.
    pub fn response_headers(&mut self, prefix: &str) -> Prefixed<H> {
        let name = format!("response.header.{}*", prefix.to_ascii_lowercase());
        Prefixed::at(self.position(&name, false))
    }

    fn position(&mut self, name: &str, optional: bool) -> u16 {
        let values = &mut self.hook.values;
        let position = match values.iter().position(|value| value.name == name) {
            Some(position) => {
                values[position].optional &= optional;
                position
            }
            None => {
                values.push(types::ValueName { name: name.to_owned(), optional });
                values.len() - 1
            }
        };
        // The host takes 64 values at the most and refuses more; this position is never looked up.
        u16::try_from(position).unwrap_or(u16::MAX)
    }

    fn option(&mut self, name: &str, value: String) {
        self.hook.options.retain(|option| option.name != name);
        self.hook.options.push(types::Field { name: name.to_owned(), value: value.into_bytes() });
    }
}

impl Ask<'_, hook::RequestHead> {
    /// A header of this head; any case.
    pub fn header(&mut self, name: &str) -> Value<hook::RequestHead> {
        self.request_header(name)
    }

    /// All headers of this head whose names start so.
    pub fn headers(&mut self, prefix: &str) -> Prefixed<hook::RequestHead> {
        self.request_headers(prefix)
    }
}

impl Ask<'_, hook::ResponseHead> {
    /// A header of this head; any case.
    pub fn header(&mut self, name: &str) -> Value<hook::ResponseHead> {
        self.response_header(name)
    }

    /// All headers of this head whose names start so.
    pub fn headers(&mut self, prefix: &str) -> Prefixed<hook::ResponseHead> {
        self.response_headers(prefix)
    }
}

impl Ask<'_, hook::RequestTrailers> {
    /// A trailer; any case.
    pub fn trailer(&mut self, name: &str) -> Value<hook::RequestTrailers> {
        self.value(&format!("request.trailer.{}", name.to_ascii_lowercase()))
    }
}

impl Ask<'_, hook::ResponseTrailers> {
    /// A trailer; any case.
    pub fn trailer(&mut self, name: &str) -> Value<hook::ResponseTrailers> {
        self.value(&format!("response.trailer.{}", name.to_ascii_lowercase()))
    }
}

impl Ask<'_, hook::StreamData> {
    /// `caller` or `destination`: which side the bytes come from.
    pub fn from(&mut self) -> Value<hook::StreamData> {
        self.value("stream.from")
    }
}

impl Ask<'_, hook::Done> {
    pub fn duration_ms(&mut self) -> Value<hook::Done> {
        self.value("stream.duration-ms")
    }

    /// Bytes of the request's body, or from the caller.
    pub fn request_bytes(&mut self) -> Value<hook::Done> {
        self.value("request.bytes")
    }

    /// Bytes of the answer's body, or to the caller.
    pub fn response_bytes(&mut self) -> Value<hook::Done> {
        self.value("response.bytes")
    }
}

impl Ask<'_, hook::RequestBody> {
    /// Holds the head back and gives the whole body at once, of so many bytes at the most. A longer one is answered 413,
    /// or passes unseen, as the FilterPolicy says.
    pub fn buffer(&mut self, most: u64) -> &mut Self {
        self.option("buffer", most.to_string());
        self
    }

    /// One gRPC message a chunk, without its framing.
    pub fn grpc_messages(&mut self) -> &mut Self {
        self.option("frames", "grpc".to_owned());
        self
    }
}

impl Ask<'_, hook::ResponseBody> {
    /// Holds the head back and gives the whole body at once, of so many bytes at the most.
    pub fn buffer(&mut self, most: u64) -> &mut Self {
        self.option("buffer", most.to_string());
        self
    }

    /// One gRPC message a chunk, without its framing.
    pub fn grpc_messages(&mut self) -> &mut Self {
        self.option("frames", "grpc".to_owned());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_touched_is_asked_for_once() {
        let mut ask = Interest::new();
        let first = ask.request_head().header("X-Team");
        let port = ask.request_head().destination_port();
        assert_eq!(ask.request_head().optional("request.header.x-team"), first);
        assert_ne!(first, port);
        ask.request_body().buffer(10).buffer(20).grpc_messages();
        ask.done();
        let hooks = ask.into_contract().hooks;
        let names: Vec<_> = hooks.iter().map(|hook| hook.name.as_str()).collect();
        assert_eq!(names, ["request-head", "request-body", "done"]);
        let values: Vec<_> = hooks[0].values.iter().map(|value| (value.name.as_str(), value.optional)).collect();
        assert_eq!(values, [("request.header.x-team", false), ("destination.port", false)]);
        let options: Vec<_> =
            hooks[1].options.iter().map(|option| (option.name.as_str(), option.value.as_slice())).collect();
        assert_eq!(options, [("buffer", &b"20"[..]), ("frames", &b"grpc"[..])]);
    }
}
