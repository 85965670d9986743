//! What a filter asked for when it was configured: it gets this and nothing else. Invariant: a hook of an interest is
//! exported, and each of its values can be given there.

use http::header::HeaderName;

use crate::bindings::v01::weft::filter::types::{self, Wants};
use crate::chain::Hooks;
use crate::failure::shown;
use crate::hook::Hook;
use crate::values::{MAX_VALUES, Value};

/// Header names of one list of contract 0.1 at the most.
const MAX_HEADERS: usize = 64;
/// Values of one hook of an authorization filter: each header that its rules name in two spellings, and what else it asks.
const MAX_AUTHORIZATION_VALUES: usize = 2 * MAX_HEADERS + MAX_VALUES;
/// Mistakes that are told at once.
const MAX_MISTAKES: usize = 16;

/// Hooks that a filter is called at, and what it is told there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interest {
    pub hooks: Hooks,
    pub(crate) asked: Asked,
    pub(crate) request_body: BodyMode,
    pub(crate) response_body: BodyMode,
}

/// By contract.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Asked {
    /// 0.1: a fixed set, and headers by name.
    Fixed(Fixed),
    /// 0.2: values by name, in the order of [`Hook::ALL`].
    Named(Vec<Vec<Value>>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fixed {
    pub(crate) wants: Wants,
    pub(crate) request_headers: Vec<HeaderName>,
    pub(crate) response_headers: Vec<HeaderName>,
}

/// How a filter is given a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum BodyMode {
    /// In chunks, as they come; or not at all, as its hooks say.
    #[default]
    Chunks,
    /// One message of gRPC a chunk.
    Messages,
    /// At once, of so many bytes at the most, while the head waits.
    Whole(usize),
}

/// A hook, as a filter of contract 0.2 asks for it.
#[derive(Debug, Clone, Default)]
pub(crate) struct AskedHook {
    pub(crate) name: String,
    /// Names of values, and whether they may lack.
    pub(crate) values: Vec<(String, bool)>,
    pub(crate) options: Vec<(String, Vec<u8>)>,
}

/// Bounds that a configuration is read with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) authorization: bool,
    /// Bytes of the longest body that is gathered, whatever the filter asks for.
    pub(crate) body_bytes: usize,
}

impl Interest {
    /// True for a filter that may keep something for a stream from one hook to a later one in its instance, where it
    /// ends with it. Later contracts keep it in cookies.
    pub(crate) fn keeps_state(&self) -> bool {
        let hooks = [self.hooks.connection || self.hooks.request_head, self.hooks.response_head, self.hooks.done];
        matches!(self.asked, Asked::Fixed(_)) && hooks.into_iter().filter(|hook| *hook).count() > 1
    }

    /// How it is given a body: a request's, or an answer's.
    pub(crate) const fn body(&self, of_request: bool) -> BodyMode {
        if of_request { self.request_body } else { self.response_body }
    }

    /// Reads what a filter of contract 0.1 asks for.
    ///
    /// # Errors
    /// It asks for what it can't have.
    pub(crate) fn fixed(asked: types::Interest, bounds: Bounds) -> Result<Self, String> {
        // Each name that a rule has may be there in another spelling.
        let most = if bounds.authorization { 2 * MAX_HEADERS } else { MAX_HEADERS };
        let hooks = Hooks {
            connection: asked.hooks.contains(types::Hooks::CONNECTION),
            request_head: asked.hooks.contains(types::Hooks::REQUEST_HEAD),
            response_head: asked.hooks.contains(types::Hooks::RESPONSE_HEAD),
            done: asked.hooks.contains(types::Hooks::DONE),
            ..Hooks::default()
        };
        check_authorization(hooks, bounds)?;
        let fixed = Fixed {
            wants: asked.wants,
            request_headers: header_names(&asked.request_headers, most)?,
            response_headers: header_names(&asked.response_headers, most)?,
        };
        let (request_body, response_body) = (BodyMode::Chunks, BodyMode::Chunks);
        Ok(Self { hooks, asked: Asked::Fixed(fixed), request_body, response_body })
    }

    /// Reads what a filter of contract 0.2 asks for. `exports`: it has the hook.
    ///
    /// # Errors
    /// All that it can't have, at once.
    pub(crate) fn named(asked: &[AskedHook], exports: impl Fn(Hook) -> bool, bounds: Bounds) -> Result<Self, String> {
        let mut mistakes = Vec::new();
        let mut interest = Self {
            hooks: Hooks::default(),
            asked: Asked::Fixed(Fixed { wants: Wants::empty(), request_headers: vec![], response_headers: vec![] }),
            request_body: BodyMode::Chunks,
            response_body: BodyMode::Chunks,
        };
        let mut named = vec![None; Hook::COUNT];
        for hook in asked {
            let shown = shown(&hook.name);
            let Some(known) = Hook::named(&hook.name) else {
                mistakes.push(format!("{shown:?} is no hook"));
                continue;
            };
            if !exports(known) {
                mistakes.push(format!("{shown} is not exported"));
            }
            if named[known.index()].is_some() {
                mistakes.push(format!("{shown} is asked for twice"));
            }
            let mode = body_mode(hook, known, bounds, &mut mistakes);
            named[known.index()] = Some(read_values(hook, known, (mode, bounds), &mut mistakes));
            interest.add(known, mode);
        }
        if let Err(mistake) = check_authorization(interest.hooks, bounds) {
            mistakes.push(mistake);
        }
        if !mistakes.is_empty() {
            let more = mistakes.len().saturating_sub(MAX_MISTAKES);
            mistakes.truncate(MAX_MISTAKES);
            if more > 0 {
                mistakes.push(format!("and {more} more"));
            }
            return Err(mistakes.join("; "));
        }
        interest.asked = Asked::Named(named.into_iter().map(Option::unwrap_or_default).collect());
        Ok(interest)
    }

    fn add(&mut self, hook: Hook, mode: BodyMode) {
        let whole = matches!(mode, BodyMode::Whole(_));
        let hooks = &mut self.hooks;
        match hook {
            Hook::Connection => hooks.connection = true,
            Hook::RequestHead => hooks.request_head = true,
            Hook::RequestBody => {
                self.request_body = mode;
                *(if whole { &mut hooks.whole_request } else { &mut hooks.request_body }) = true;
            }
            Hook::RequestTrailers => hooks.request_trailers = true,
            Hook::ResponseHead => hooks.response_head = true,
            Hook::ResponseBody => {
                self.response_body = mode;
                *(if whole { &mut hooks.whole_response } else { &mut hooks.response_body }) = true;
            }
            Hook::ResponseTrailers => hooks.response_trailers = true,
            Hook::ReplyBody => hooks.reply_body = true,
            Hook::StreamData => hooks.stream_data = true,
            Hook::Callout => hooks.callout = true,
            Hook::Tick => hooks.tick = true,
            Hook::Done => hooks.done = true,
        }
    }
}

fn check_authorization(hooks: Hooks, bounds: Bounds) -> Result<(), String> {
    if bounds.authorization && !(hooks.connection && hooks.request_head) {
        return Err("an authorization filter must ask for the hooks connection and request-head".to_owned());
    }
    if bounds.authorization && hooks.reply_body {
        return Err("an authorization filter can't ask for the hook reply-body: its answers are whole".to_owned());
    }
    Ok(())
}

fn header_names(list: &[String], most: usize) -> Result<Vec<HeaderName>, String> {
    if list.len() > most {
        return Err(format!("{} header names, at most {most} are possible", list.len()));
    }
    let parse = |name: &String| {
        HeaderName::from_lowercase(name.as_bytes())
            .map_err(|_| format!("{:?} is not a header name in lower case", shown(name)))
    };
    list.iter().map(parse).collect()
}

fn body_mode(asked: &AskedHook, hook: Hook, bounds: Bounds, mistakes: &mut Vec<String>) -> BodyMode {
    let mut mode = BodyMode::Chunks;
    for (name, value) in &asked.options {
        let text = std::str::from_utf8(value).unwrap_or_default();
        let read = match name.as_str() {
            "buffer" | "frames" if !hook.is_body() => Err("is an option of body hooks"),
            "buffer" => match text.parse::<usize>() {
                Ok(0) => Ok(BodyMode::Chunks),
                Ok(bytes) => Ok(BodyMode::Whole(bytes.min(bounds.body_bytes))),
                Err(_) => Err("wants a number of bytes"),
            },
            "frames" if text == "grpc" => Ok(BodyMode::Messages),
            "frames" => Err("knows `grpc` only"),
            _ => Err("is no option"),
        };
        match read {
            Ok(BodyMode::Chunks) => {}
            Ok(_) if mode != BodyMode::Chunks => {
                mistakes.push(format!("{}: a body comes whole or in messages, not both", hook.name()));
            }
            Ok(read) => mode = read,
            Err(why) => {
                let shown = shown(name);
                mistakes.push(format!("{}: {shown:?} {why}", hook.name()));
            }
        }
    }
    mode
}

fn read_values(
    asked: &AskedHook,
    hook: Hook,
    (mode, bounds): (BodyMode, Bounds),
    mistakes: &mut Vec<String>,
) -> Vec<Value> {
    let most = if bounds.authorization { MAX_AUTHORIZATION_VALUES } else { MAX_VALUES };
    if asked.values.len() > most {
        mistakes.push(format!("{}: {} values, at most {most} are possible", hook.name(), asked.values.len()));
        return Vec::new();
    }
    let whole = matches!(mode, BodyMode::Whole(_));
    let mut values = Vec::with_capacity(asked.values.len());
    for (name, optional) in &asked.values {
        match Value::parse(name, *optional, hook, whole) {
            Ok(value) => values.push(value),
            Err(mistake) => mistakes.push(format!("{}: {mistake}", hook.name())),
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { authorization: false, body_bytes: 1 << 20 };

    fn hook(name: &str, values: &[&str], options: &[(&str, &str)]) -> AskedHook {
        AskedHook {
            name: name.to_owned(),
            values: values.iter().map(|name| ((*name).to_owned(), false)).collect(),
            options: options.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect(),
        }
    }

    #[test]
    fn hooks_come_with_their_values_and_options() {
        let asked = [
            hook("request-head", &["request.path", "request.header.x-a"], &[]),
            hook("request-body", &["source.principal"], &[("buffer", "99999999")]),
            hook("response-body", &["time"], &[("frames", "grpc")]),
            hook("done", &[], &[]),
        ];
        let interest = Interest::named(&asked, |_| true, BOUNDS).expect("sound");
        let hooks = interest.hooks;
        assert!(hooks.request_head && hooks.whole_request && !hooks.request_body && hooks.response_body && hooks.done);
        assert_eq!(interest.request_body, BodyMode::Whole(1 << 20), "the policy's limit");
        assert_eq!(interest.response_body, BodyMode::Messages);
        assert!(!interest.keeps_state());
        let Asked::Named(values) = interest.asked else { panic!("of contract 0.2") };
        assert_eq!(values[Hook::RequestHead.index()].len(), 2);
        assert!(values[Hook::Tick.index()].is_empty());
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        let asked = [
            hook("request-haed", &[], &[]),
            hook("tick", &[], &[]),
            hook("done", &["request.path", "nonsense"], &[]),
            hook("done", &[], &[]),
            hook("request-head", &[], &[("buffer", "1"), ("color", "red")]),
            hook("request-body", &["source.principal"], &[("buffer", "1 MiB")]),
            hook("response-body", &[], &[("buffer", "1"), ("frames", "grpc")]),
        ];
        let heads = [hook("connection", &[], &[]), hook("request-head", &[], &[]), hook("reply-body", &[], &[])];
        let error = Interest::named(&heads, |_| true, Bounds { authorization: true, ..BOUNDS }).expect_err("parts");
        assert!(error.contains("can't ask for the hook reply-body"), "{error}");
        let bounds = Bounds { authorization: true, ..BOUNDS };
        let error = Interest::named(&asked, |hook| hook != Hook::Tick, bounds).expect_err("mistakes");
        for part in [
            "\"request-haed\" is no hook",
            "tick is not exported",
            "done: \"request.path\" is not known at done",
            "done: \"nonsense\" is no value",
            "done is asked for twice",
            "request-head: \"buffer\" is an option of body hooks",
            "request-head: \"color\" is no option",
            "request-body: \"buffer\" wants a number of bytes",
            "but with the option buffer",
            "response-body: a body comes whole or in messages, not both",
            "must ask for the hooks connection and request-head",
        ] {
            assert!(error.contains(part), "{part}: {error}");
        }
        let many: Vec<_> = (0..30).map(|_| hook("nothing", &[], &[])).collect();
        assert!(Interest::named(&many, |_| true, BOUNDS).expect_err("mistakes").ends_with("and 14 more"));
        let values = vec!["time"; 65];
        let error = Interest::named(&[hook("done", &values, &[])], |_| true, BOUNDS).expect_err("too many");
        assert_eq!(error, "done: 65 values, at most 64 are possible");
    }
}
