//! Asks a service whether a request may pass, by a callout of the mesh. Over HTTP an answer of 2xx lets it pass and any
//! other is the caller's answer; over gRPC the answer says which. Where no answer comes, nothing passes.

mod grpc;
mod wire;

use std::time::Duration;

use serde::Deserialize;
use weft_filters_sdk::callouts;
use weft_filters_sdk::hook;
use weft_filters_sdk::{Answer, Counter, Filter, Interest, Outcome, Reply, Request, Response, Value, Values, rules};

use grpc::Decision;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The service, as the FilterPolicy's capability `callout` names it.
    service: String,
    /// What the service speaks. Default: HTTP.
    #[serde(default)]
    protocol: Protocol,
    /// Stands before the path that is asked about. Default: nothing.
    #[serde(default)]
    path_prefix: String,
    /// Method of the question. Default: the request's own.
    method: Option<String>,
    /// Headers of the request that the service is shown. Default: `authorization` and `cookie`, over gRPC all.
    forward: Option<Vec<String>>,
    /// The header in which the service is shown the caller's SPIFFE ID. Default: it isn't.
    identity_header: Option<String>,
    /// Headers of a good answer that the request goes on with; over gRPC the answer says which. What the caller sends
    /// under these names never passes.
    #[serde(default)]
    allowed_headers: Vec<String>,
    /// Headers of a refusal that the caller is shown.
    refused_headers: Option<Vec<String>>,
    /// 1 to 60,000. Default 1,000.
    #[serde(default = "default_timeout")]
    timeout_ms: u32,
}

/// `path_prefix`, `method`, `identity_header` and `refused_headers` are of HTTP alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Protocol {
    #[default]
    Http,
    /// Envoy's `envoy.service.auth.v3.Authorization/Check`.
    Grpc,
}

fn default_forwarded() -> Vec<String> {
    ["authorization", "cookie"].map(str::to_owned).to_vec()
}

fn default_refusal() -> Vec<String> {
    ["content-type", "location", "set-cookie", "www-authenticate"].map(str::to_owned).to_vec()
}

fn default_timeout() -> u32 {
    1_000
}

const TIMEOUT_MS: u32 = 60_000;
/// Headers of each list.
const HEADERS: usize = 32;
/// Bytes of an answer's body: as many as a reply may have.
const ANSWER: u32 = 64 << 10;
/// Headers that a question over HTTP says itself.
const OWN: [&str; 3] = ["x-forwarded-method", "x-forwarded-uri", "x-forwarded-host"];
/// The host answers a callout in its own time; the wait ends later, so that its answer is heard.
const GRACE: Duration = Duration::from_secs(1);

/// The question under one configuration.
#[derive(Debug)]
pub struct ExtAuth {
    service: String,
    path_prefix: String,
    method: Option<String>,
    asked: Asked,
    identity_header: Option<String>,
    allowed_headers: Vec<String>,
    refused_headers: Vec<String>,
    timeout: Duration,
    decisions: Counter,
}

/// What it is told of a request.
#[derive(Debug)]
enum Asked {
    Http(AskedHttp),
    Grpc(grpc::Asked),
}

#[derive(Debug)]
struct AskedHttp {
    forward: Vec<(String, Value<hook::RequestHead>)>,
    method: Value<hook::RequestHead>,
    path: Value<hook::RequestHead>,
    query: Value<hook::RequestHead>,
    authority: Value<hook::RequestHead>,
    principal: Value<hook::RequestHead>,
}

impl Filter for ExtAuth {
    type Config = Config;
    /// What is done to the app's answer; empty but over gRPC.
    type State = Vec<u8>;

    fn configure(config: Config, ask: &mut Interest) -> Result<Self, String> {
        config.check()?;
        ask.callout();
        ask.tick();
        if config.protocol == Protocol::Grpc {
            ask.response_head();
        }
        let mut head = ask.request_head();
        let asked = match config.protocol {
            Protocol::Grpc => Asked::Grpc(grpc::Asked::new(&mut head, config.forward)),
            Protocol::Http => {
                let forward = config.forward.unwrap_or_else(default_forwarded).into_iter().map(|name| {
                    let value = head.header(&name);
                    (name, value)
                });
                let forward = forward.collect();
                Asked::Http(AskedHttp {
                    forward,
                    method: head.method(),
                    path: head.path(),
                    query: head.query(),
                    authority: head.authority(),
                    principal: head.principal(),
                })
            }
        };
        Ok(Self {
            service: config.service,
            path_prefix: config.path_prefix,
            method: config.method,
            asked,
            identity_header: config.identity_header,
            allowed_headers: config.allowed_headers,
            refused_headers: config.refused_headers.unwrap_or_else(default_refusal),
            timeout: Duration::from_millis(u64::from(config.timeout_ms)),
            decisions: Counter::define("extauth_decisions_total", &["decision"])?,
        })
    }

    fn request_head(&mut self, request: &Request<'_>, _: &mut Vec<u8>) -> Outcome {
        let question = match &self.asked {
            Asked::Http(asked) => self.question(asked, request),
            Asked::Grpc(asked) => asked.question(request, &self.service, self.timeout),
        };
        match question.answer_bytes(ANSWER).send() {
            Ok(_) => Outcome::wait(self.timeout + GRACE),
            Err(error) => self.unavailable(&error.to_string()),
        }
    }

    fn callout(
        &mut self,
        _: &Values<'_, hook::Callout>,
        _: u32,
        answer: Result<&Answer, &str>,
        state: &mut Vec<u8>,
    ) -> Outcome {
        match (answer, &self.asked) {
            (Ok(answer), Asked::Grpc(_)) => self.decided(answer, state),
            (Ok(answer), Asked::Http(_)) if (200..300).contains(&answer.status) => self.allow(answer),
            (Ok(answer), Asked::Http(_)) if (300..600).contains(&answer.status) => self.refuse(answer),
            (Ok(answer), Asked::Http(_)) => self.unavailable(&format!("an answer with status {}", answer.status)),
            (Err(why), Asked::Http(_) | Asked::Grpc(_)) => self.unavailable(why),
        }
    }

    fn tick(&mut self, _: &Values<'_, hook::Tick>, _: &mut Vec<u8>) -> Outcome {
        self.unavailable("no answer in time")
    }

    fn response_head(&mut self, _: &Response<'_>, state: &mut Vec<u8>) -> Outcome {
        grpc::over_the_answer(state)
    }
}

impl ExtAuth {
    fn question(&self, asked: &AskedHttp, request: &Request<'_>) -> callouts::Request {
        let own_method = request.text(asked.method).unwrap_or("GET");
        // The path of `OPTIONS *` is none that can stand behind a prefix.
        let own_path = request.text(asked.path).filter(|path| path.starts_with('/')).unwrap_or("/");
        let target = match request.text(asked.query) {
            Some(query) => format!("{own_path}?{query}"),
            None => own_path.to_owned(),
        };
        let path = format!("{}{target}", self.path_prefix);
        let method = self.method.as_deref().unwrap_or(own_method);
        let mut question = callouts::Request::new(&self.service, method, &path)
            .timeout(self.timeout)
            .header("x-forwarded-method", own_method)
            .header("x-forwarded-uri", target);
        if let Some(authority) = request.get(asked.authority) {
            question = question.header("x-forwarded-host", authority);
        }
        if let (Some(name), Some(principal)) = (&self.identity_header, request.get(asked.principal)) {
            question = question.header(name, principal);
        }
        for (name, value) in &asked.forward {
            for value in request.all(*value) {
                question = question.header(name, value);
            }
        }
        question
    }

    /// What becomes of an answer over gRPC. More edits than the host takes let nothing pass: the host would count the filter
    /// as failed, and a policy may let requests pass a failed filter.
    fn decided(&self, answer: &Answer, state: &mut Vec<u8>) -> Outcome {
        match grpc::decision(answer) {
            Ok(Decision::Allow { edits, .. }) if edits.len() + self.allowed_headers.len() > rules::EDITS => {
                self.unavailable(&format!("an answer with {} changes of headers", edits.len()))
            }
            Ok(Decision::Allow { edits, carried }) => {
                self.decisions.add(&["allowed"], 1);
                *state = carried;
                let stripped =
                    self.allowed_headers.iter().fold(Outcome::pass(), |outcome, name| outcome.remove_header(name));
                edits.into_iter().fold(stripped, Outcome::edit)
            }
            Ok(Decision::Refuse(reply)) => {
                self.decisions.add(&["refused"], 1);
                Outcome::respond(reply)
            }
            Err(why) => self.unavailable(&why),
        }
    }

    /// Lets a request pass that was answered 2xx over HTTP, unless that makes more edits than the host takes.
    fn allow(&self, answer: &Answer) -> Outcome {
        let mut outcome = Outcome::pass();
        for name in &self.allowed_headers {
            outcome = outcome.remove_header(name);
            for value in values(answer, name) {
                outcome = outcome.add_header(name, value);
            }
        }
        if outcome.edits.len() > rules::EDITS {
            return self.unavailable(&format!("an answer with {} changes of headers", outcome.edits.len()));
        }
        self.decisions.add(&["allowed"], 1);
        outcome
    }

    fn refuse(&self, answer: &Answer) -> Outcome {
        self.decisions.add(&["refused"], 1);
        let mut reply = Reply::new(answer.status, "extauth_refused", answer.body.as_slice());
        for name in &self.refused_headers {
            for value in values(answer, name) {
                reply = reply.header(name, value);
            }
        }
        // With more headers than the host takes the filter would have failed.
        reply.headers.truncate(rules::EDITS);
        Outcome::respond(reply)
    }

    fn unavailable(&self, why: &str) -> Outcome {
        self.decisions.add(&["unavailable"], 1);
        weft_filters_sdk::log::warn(&format!("no decision of {}: {why}", self.service));
        Outcome::respond(Reply::text(503, "extauth_unavailable", "the authorization service gave no decision\n"))
    }
}

/// The values of a header of an answer, but for those that no header can carry on.
fn values<'a>(answer: &'a Answer, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    let fields = answer.headers.iter().filter(move |field| field.name.eq_ignore_ascii_case(name));
    fields.map(|field| field.value.as_slice()).filter(|value| rules::header_value(value).is_ok()).take(HEADERS)
}

impl Config {
    fn check(&self) -> Result<(), String> {
        if self.service.is_empty() {
            return Err("service: it is empty".to_owned());
        }
        if !self.path_prefix.is_empty() {
            rules::path(&self.path_prefix).map_err(|error| format!("path_prefix: {error}"))?;
            if self.path_prefix.ends_with('/') || self.path_prefix.contains('?') {
                return Err("path_prefix: a path follows it, so it has no query and no slash at its end".to_owned());
            }
        }
        if self.method.as_ref().is_some_and(|method| !method.bytes().all(|byte| byte.is_ascii_alphabetic())) {
            return Err("method: it is no method".to_owned());
        }
        if !(1..=TIMEOUT_MS).contains(&self.timeout_ms) {
            return Err(format!("timeout_ms: {} is not between 1 and {TIMEOUT_MS}", self.timeout_ms));
        }
        self.check_protocol()?;
        self.check_forward()?;
        let lists = [
            ("forward", self.forward.as_deref().unwrap_or_default()),
            ("allowed_headers", self.allowed_headers.as_slice()),
            ("refused_headers", self.refused_headers.as_deref().unwrap_or_default()),
            ("identity_header", self.identity_header.as_slice()),
        ];
        for (key, names) in lists {
            if names.len() > HEADERS {
                return Err(format!("{key}: {} headers, at most {HEADERS}", names.len()));
            }
            for (index, name) in names.iter().enumerate() {
                rules::header_name(name).map_err(|error| format!("{key}[{index}]: {error}"))?;
            }
        }
        Ok(())
    }

    /// No header of the caller's stands beside one of the same name that the question itself has. Over gRPC it has none.
    fn check_forward(&self) -> Result<(), String> {
        let own: Vec<String> = OWN.into_iter().chain(self.identity_header.as_deref()).map(folded).collect();
        let mut forward = self.forward.iter().flatten().enumerate();
        match forward.find(|(_, name)| self.protocol == Protocol::Http && own.contains(&folded(name))) {
            Some((index, name)) => Err(format!("forward[{index}]: {name} is what the question says itself")),
            None => Ok(()),
        }
    }

    /// What a question over gRPC has no place for.
    fn check_protocol(&self) -> Result<(), String> {
        let of_http = [
            ("path_prefix", !self.path_prefix.is_empty()),
            ("method", self.method.is_some()),
            ("identity_header", self.identity_header.is_some()),
            ("refused_headers", self.refused_headers.is_some()),
        ];
        match of_http.iter().find(|(_, is_there)| *is_there && self.protocol == Protocol::Grpc) {
            Some((key, _)) => Err(format!("{key}: it has no meaning with protocol grpc")),
            None => Ok(()),
        }
    }
}

/// A header's name as servers read it that fold `_` into `-`.
fn folded(name: &str) -> String {
    name.to_ascii_lowercase().replace('_', "-")
}

weft_filters_sdk::export!(ExtAuth);

#[cfg(test)]
mod tests;
