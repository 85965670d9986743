//! Envoy's `envoy.service.auth.v3.Authorization/Check` as a callout: what the service is told of a request, and what
//! its answer means. An answer that asks for what can't be done is none.

use std::collections::BTreeMap;
use std::time::Duration;

use weft_filters_sdk::{
    Answer, Ask, Edit, Field as Header, Outcome, Prefixed, Reply, Request, Value, callouts, hook, rules,
};

use crate::wire::{Broken, Field, Message, fields};

const PATH: &str = "/envoy.service.auth.v3.Authorization/Check";
/// Bytes of the cookie that carries headers for the answer.
const CARRIED: usize = rules::COOKIE;
/// Bytes of a service's words that the log repeats.
const WORDS: usize = 200;

/// What the service is told of a request.
#[derive(Debug)]
pub(crate) struct Asked {
    id: Value<hook::RequestHead>,
    time: Value<hook::RequestHead>,
    method: Value<hook::RequestHead>,
    path: Value<hook::RequestHead>,
    query: Value<hook::RequestHead>,
    authority: Value<hook::RequestHead>,
    headers: Shown,
    principal: Value<hook::RequestHead>,
    address: Value<hook::RequestHead>,
    service: Value<hook::RequestHead>,
    port: Value<hook::RequestHead>,
}

/// The headers that it is shown.
#[derive(Debug)]
enum Shown {
    All(Prefixed<hook::RequestHead>),
    These(Vec<(String, Value<hook::RequestHead>)>),
}

impl Asked {
    /// `forward`: headers that the service is shown; `None`: all.
    pub(crate) fn new(head: &mut Ask<'_, hook::RequestHead>, forward: Option<Vec<String>>) -> Self {
        let headers = match forward {
            None => Shown::All(head.headers("")),
            Some(names) => {
                let named = |name: String| {
                    let value = head.header(&name);
                    (name.to_ascii_lowercase(), value)
                };
                Shown::These(names.into_iter().map(named).collect())
            }
        };
        Self {
            id: head.value("request.id"),
            time: head.time(),
            method: head.method(),
            path: head.path(),
            query: head.query(),
            authority: head.authority(),
            headers,
            principal: head.principal(),
            address: head.source_address(),
            service: head.destination_service(),
            port: head.destination_port(),
        }
    }

    pub(crate) fn question(&self, request: &Request<'_>, service: &str, timeout: Duration) -> callouts::Request {
        let message = self.check(request);
        let message = message.as_bytes();
        // What is longer than this can say is longer than any callout, and refused.
        let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
        callouts::Request::new(service, "POST", PATH)
            .timeout(timeout)
            .header("content-type", "application/grpc")
            .header("grpc-timeout", format!("{}m", timeout.as_millis()))
            .body([&[0][..], &length.to_be_bytes(), message].concat())
    }

    /// A `CheckRequest`.
    fn check(&self, request: &Request<'_>) -> Message {
        let socket = |address: Option<&str>, port: u64| {
            let socket = Message::default().text(2, address).number(3, port);
            Message::default().message(1, &socket)
        };
        let source =
            Message::default().message(1, &socket(request.text(self.address), 0)).text(4, request.text(self.principal));
        let port = request.number(self.port).unwrap_or_default();
        let destination = Message::default().message(1, &socket(None, port)).text(2, request.text(self.service));
        let path = request.text(self.path).unwrap_or("/");
        let target = match request.text(self.query) {
            Some(query) => format!("{path}?{query}"),
            None => path.to_owned(),
        };
        let mut http = Message::default().text(1, request.text(self.id)).text(2, request.text(self.method));
        for (name, value) in self.shown(request) {
            http = http.entry(3, name, &value);
        }
        http = http.text(4, Some(&target)).text(5, request.text(self.authority));
        // The size is not known: -1.
        http = http.number(9, u64::MAX);
        let time = request.number(self.time).unwrap_or_default();
        let time = Message::default().number(1, time / 1_000).number(2, time % 1_000 * 1_000_000);
        let asked = Message::default().message(1, &time).message(2, &http);
        let attributes = Message::default().message(1, &source).message(2, &destination).message(4, &asked);
        Message::default().message(1, &attributes)
    }

    /// A header that came several times has its values with commas between, as it may be read; a cookie can't.
    //= rfc9113#section-8.2.3
    fn shown<'a>(&'a self, request: &Request<'a>) -> BTreeMap<&'a str, String> {
        let mut shown = BTreeMap::<&str, String>::new();
        let mut show = |name: &'a str, value: &[u8]| {
            let value = String::from_utf8_lossy(value);
            let between = if name.eq_ignore_ascii_case("cookie") { "; " } else { "," };
            let known = shown.entry(name).and_modify(|known| known.push_str(between)).or_default();
            known.push_str(&value);
        };
        match &self.headers {
            Shown::All(all) => request.prefixed(*all).for_each(|(name, value)| show(name, value)),
            Shown::These(names) => {
                for (name, value) in names {
                    request.all(*value).for_each(|value| show(name.as_str(), value));
                }
            }
        }
        shown
    }
}

/// What a service decided.
#[derive(Debug)]
pub(crate) enum Decision {
    /// `carried`: what [`over_the_answer`] does to the app's answer.
    Allow {
        edits: Vec<Edit>,
        carried: Vec<u8>,
    },
    Refuse(Reply),
}

/// The decision that an answer is, or why it is none.
pub(crate) fn decision(answer: &Answer) -> Result<Decision, String> {
    let message = message_of(answer)?;
    let (mut code, mut denied, mut allowed) = (None, None, None);
    for field in fields(message) {
        match field.map_err(no_message)? {
            (1, Field::Bytes(status)) => code = Some(number_of(status).map_err(no_message)?),
            (2, Field::Bytes(response)) => denied = Some(response),
            (3, Field::Bytes(response)) => allowed = Some(response),
            // Metadata for filters of Envoy, and what later releases of it say.
            (_, Field::Number(_) | Field::Bytes(_) | Field::Fixed) => {}
        }
    }
    match (code, denied, allowed) {
        (None, None, None) => Err("its answer has neither a status nor a response".to_owned()),
        // One that has a response and no status has the status 0.
        (None | Some(0), None, allowed) => allow(allowed.unwrap_or_default()),
        (None | Some(0), Some(_), _) => Err("its answer allows and denies".to_owned()),
        (Some(_), denied, _) => refuse(denied.unwrap_or_default()).map(Decision::Refuse).map_err(no_message),
    }
}

fn no_message(_: Broken) -> String {
    "its answer is no CheckResponse".to_owned()
}

/// The one message of a call that was answered.
fn message_of(answer: &Answer) -> Result<&[u8], String> {
    let all = |name: &'static str| {
        let named = answer.headers.iter().filter(move |field| field.name.eq_ignore_ascii_case(name));
        named.map(|field| field.value.as_slice())
    };
    if answer.status != 200 {
        return Err(format!("an answer with status {}", answer.status));
    }
    if !all("content-type").all(|kind| kind.starts_with(b"application/grpc")) || all("content-type").next().is_none() {
        return Err("an answer that is not gRPC".to_owned());
    }
    // It stands in the trailers, which the host puts behind the headers; an answer without a body has it in its head.
    match all("grpc-status").find(|status| *status != b"0") {
        None if all("grpc-status").next().is_some() => {}
        None => return Err("an answer without grpc-status".to_owned()),
        Some(status) => {
            let words = all("grpc-message").next().unwrap_or_default();
            let told = [status, b" ", &words[..words.len().min(WORDS)]].concat();
            return Err(format!("grpc-status {}", String::from_utf8_lossy(&told).trim_end()));
        }
    }
    let (frame, message) = answer.body.split_first_chunk::<5>().ok_or("an answer without a message")?;
    let [compressed, length @ ..] = *frame;
    if compressed != 0 {
        return Err("a compressed answer, which was not asked for".to_owned());
    }
    if usize::try_from(u32::from_be_bytes(length)) != Ok(message.len()) {
        return Err("an answer that is not one whole message".to_owned());
    }
    Ok(message)
}

/// The first field of a message, which is a number: the code of a `Status` and an `HttpStatus`, a `BoolValue`.
fn number_of(message: &[u8]) -> Result<u64, Broken> {
    let mut number = 0;
    for field in fields(message) {
        if let (1, Field::Number(found)) = field? {
            number = found;
        }
    }
    Ok(number)
}

/// A `HeaderValueOption`.
#[derive(Debug, Default)]
struct Wanted<'a> {
    name: &'a str,
    value: &'a [u8],
    append: bool,
    action: u64,
}

impl<'a> Wanted<'a> {
    fn read(option: &'a [u8]) -> Result<Self, Broken> {
        let mut wanted = Self::default();
        for field in fields(option) {
            match field? {
                (1, Field::Bytes(header)) => {
                    for field in fields(header) {
                        match field? {
                            (1, Field::Bytes(name)) => wanted.name = std::str::from_utf8(name).map_err(|_| Broken)?,
                            // As text, or as octets.
                            (2 | 3, Field::Bytes(value)) if !value.is_empty() => wanted.value = value,
                            (_, Field::Number(_) | Field::Bytes(_) | Field::Fixed) => {}
                        }
                    }
                }
                (2, Field::Bytes(append)) => wanted.append = number_of(append)? != 0,
                (3, Field::Number(action)) => wanted.action = action,
                (_, Field::Number(_) | Field::Bytes(_) | Field::Fixed) => {}
            }
        }
        Ok(wanted)
    }

    fn header(&self) -> Result<Header, String> {
        rules::header_name(self.name)?;
        rules::header_value(self.value)?;
        Ok(Header { name: self.name.to_owned(), value: self.value.to_owned() })
    }

    /// It replaces what is there unless it says that it is added, as Envoy has it here.
    fn edit(&self) -> Result<Edit, String> {
        let header = self.header()?;
        match (self.append, self.action) {
            (true, _) => Ok(Edit::Add(header)),
            (false, 0 | 2) => Ok(Edit::Set(header)),
            (false, action) => Err(format!("append_action {action} of {}, which is not known here", self.name)),
        }
    }
}

/// An `OkHttpResponse`.
fn allow(response: &[u8]) -> Result<Decision, String> {
    let (mut edits, mut removed, mut carried) = (Vec::new(), Vec::new(), Message::default());
    for field in fields(response) {
        match field.map_err(no_message)? {
            (2, Field::Bytes(option)) => edits.push(Wanted::read(option).map_err(no_message)?.edit()?),
            (5, Field::Bytes(name)) => {
                let name = std::str::from_utf8(name).map_err(|_| no_message(Broken))?;
                rules::header_name(name)?;
                removed.push(Edit::Remove(name.to_owned()));
            }
            (6, Field::Bytes(option)) => {
                Wanted::read(option).map_err(no_message)?.edit()?;
                carried = carried.part(option);
            }
            (7 | 8, Field::Bytes(_)) => return Err("it changes the query, which is not known here".to_owned()),
            (_, Field::Number(_) | Field::Bytes(_) | Field::Fixed) => {}
        }
    }
    if carried.as_bytes().len() > CARRIED {
        return Err(format!("headers for the answer of more than {CARRIED} bytes"));
    }
    edits.append(&mut removed);
    Ok(Decision::Allow { edits, carried: carried.as_bytes().to_vec() })
}

/// What the service that let a request pass has for the app's answer.
pub(crate) fn over_the_answer(carried: &[u8]) -> Outcome {
    let options = fields(carried).filter_map(|field| match field {
        Ok((_, Field::Bytes(option))) => Wanted::read(option).ok()?.edit().ok(),
        Ok((_, Field::Number(_) | Field::Fixed)) | Err(Broken) => None,
    });
    options.fold(Outcome::pass(), Outcome::edit)
}

/// A `DeniedHttpResponse`. Headers that no answer can have are left out.
fn refuse(response: &[u8]) -> Result<Reply, Broken> {
    let mut reply = Reply::new(403, "extauth_refused", "");
    for field in fields(response) {
        match field? {
            (1, Field::Bytes(status)) => {
                let code = u16::try_from(number_of(status)?).ok().filter(|code| rules::status(*code).is_ok());
                reply.status = code.unwrap_or(403);
            }
            (2, Field::Bytes(option)) if reply.headers.len() < rules::EDITS => {
                reply.headers.extend(Wanted::read(option)?.header());
            }
            (3, Field::Bytes(body)) => reply.body = body.to_vec(),
            (_, Field::Number(_) | Field::Bytes(_) | Field::Fixed) => {}
        }
    }
    Ok(reply)
}
