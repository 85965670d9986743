//! Authorization: the engine of `weft-policy` in the sandbox. Its configuration is an `authz::Config`; what it allows
//! passes unchanged, what it denies is answered 403 and names the rule. The same engine answers `weft explain`.

use std::net::IpAddr;

use weft_filters_sdk::{Connection, Filter, Interest, Outcome, Prefixed, Reply, Request, Value, hook, rules};
use weft_policy::authz::{Config, Decision, Engine, Request as Asked, is_alike};

/// The engine under one configuration.
#[derive(Debug)]
pub struct Authz {
    engine: Engine,
    stream: Stream,
    head: Head,
}

/// What it is told of a byte stream.
#[derive(Debug)]
struct Stream {
    principal: Value<hook::Connection>,
    port: Value<hook::Connection>,
    address: Option<Value<hook::Connection>>,
}

/// What it is told of a request.
#[derive(Debug)]
struct Head {
    principal: Value<hook::RequestHead>,
    port: Value<hook::RequestHead>,
    method: Value<hook::RequestHead>,
    path: Value<hook::RequestHead>,
    headers: Headers,
    address: Option<Value<hook::RequestHead>>,
    authority: Option<Value<hook::RequestHead>>,
    /// What the filter `jwt` tells.
    claims: Option<Prefixed<hook::RequestHead>>,
}

#[derive(Debug)]
enum Headers {
    /// In the order of the engine's `needed_headers`.
    Each(Vec<Value<hook::RequestHead>>),
    /// Rules read more headers than a filter may name: it is told of all, and looks at those.
    All(Prefixed<hook::RequestHead>),
}

/// Values of a request that are no headers. Address, authority and claims are asked for where a rule looks at them.
const OTHERS: usize = 7;
/// What the filter `jwt` tells of a claim, as a list in JSON, begins so.
const TOLD: &str = "filter.jwt-list.";

impl Filter for Authz {
    type Config = Config;
    type State = ();

    fn configure(config: Config, ask: &mut Interest) -> Result<Self, String> {
        let engine = Engine::new(&config).map_err(|error| error.to_string())?;
        let mut connection = ask.connection();
        let stream = Stream {
            principal: connection.principal(),
            port: connection.destination_port(),
            address: engine.needs_address().then(|| connection.source_address()),
        };
        let mut asked = ask.request_head();
        let needed = engine.needed_headers();
        let head = Head {
            principal: asked.principal(),
            port: asked.destination_port(),
            method: asked.method(),
            path: asked.path(),
            headers: if needed.len() > rules::VALUES - OTHERS {
                Headers::All(asked.headers(""))
            } else {
                Headers::Each(needed.iter().map(|name| asked.header(name)).collect())
            },
            address: engine.needs_address().then(|| asked.source_address()),
            authority: engine.needs_authority().then(|| asked.authority()),
            claims: (!engine.needed_claims().is_empty()).then(|| asked.attributes(TOLD)),
        };
        Ok(Self { engine, stream, head })
    }

    fn connection(&mut self, connection: &Connection<'_>, _: &mut ()) -> Outcome {
        let port = port(connection.number(self.stream.port));
        let address = address(self.stream.address.and_then(|address| connection.text(address)));
        let asked = Asked { address, ..Asked::connection(connection.text(self.stream.principal), port) };
        outcome(&self.engine.decide(&asked))
    }

    fn request_head(&mut self, request: &Request<'_>, _: &mut ()) -> Outcome {
        let headers = match self.headers(request) {
            Ok(headers) => headers,
            Err(name) => return unreadable("header", name),
        };
        let claims = match self.claims(request) {
            Ok(claims) => claims,
            Err(name) => return unreadable("claim", name),
        };
        let claims: Vec<(&str, &str)> = claims.iter().map(|(name, member)| (*name, member.as_str())).collect();
        let asked = Asked {
            principal: request.text(self.head.principal),
            address: address(self.head.address.and_then(|address| request.text(address))),
            l4: false,
            method: request.text(self.head.method).unwrap_or_default(),
            path: request.text(self.head.path).unwrap_or_default(),
            port: port(request.number(self.head.port)),
            authority: self.head.authority.and_then(|authority| request.text(authority)),
            headers: &headers,
            claims: &claims,
        };
        outcome(&self.engine.decide(&asked))
    }
}

impl Authz {
    /// The fields that rules look at, or the name of one whose value is no text. A rule is text: what isn't could slip past a
    /// deny rule, so nobody may send it where a rule looks.
    fn headers<'a>(&'a self, request: &Request<'a>) -> Result<Vec<(&'a str, &'a str)>, &'a str> {
        let needed = self.engine.needed_headers();
        let read = |(name, value): (&'a str, &'a [u8])| match std::str::from_utf8(value) {
            Ok(value) => Ok((name, value)),
            Err(_) => Err(name),
        };
        match &self.head.headers {
            Headers::Each(headers) => {
                let fields = needed
                    .iter()
                    .zip(headers)
                    .flat_map(|(name, header)| request.all(*header).map(move |value| (name.as_str(), value)));
                fields.map(read).collect()
            }
            Headers::All(all) => {
                let is_needed = |name: &str| needed.iter().any(|needed| is_alike(needed, name));
                request.prefixed(*all).filter(|(name, _)| is_needed(name)).map(read).collect()
            }
        }
    }

    /// The claims that rules look at, each member by itself, or the name of one that can't be read.
    fn claims<'a>(&self, request: &Request<'a>) -> Result<Vec<(&'a str, String)>, &'a str> {
        let mut all = Vec::new();
        let Some(told) = self.head.claims else { return Ok(all) };
        for (attribute, value) in request.prefixed(told) {
            let Some(name) = attribute.strip_prefix(TOLD) else { continue };
            if self.engine.needed_claims().binary_search_by(|needed| needed.as_str().cmp(name)).is_ok() {
                let members: Vec<String> = serde_json::from_slice(value).map_err(|_| name)?;
                all.extend(members.into_iter().map(|member| (name, member)));
            }
        }
        Ok(all)
    }
}

/// No port is 0, which no rule names.
fn port(number: Option<u64>) -> u16 {
    number.and_then(|number| u16::try_from(number).ok()).unwrap_or_default()
}

/// What is no address is none that is known.
fn address(text: Option<&str>) -> Option<IpAddr> {
    text.and_then(|text| text.parse().ok())
}

fn outcome(decision: &Decision<'_>) -> Outcome {
    if decision.allowed {
        return Outcome::pass();
    }
    let body = match decision.rule {
        Some(rule) => format!("RBAC: access denied by {rule}\n"),
        None => "RBAC: access denied\n".to_owned(),
    };
    let mut reply = Reply::text(403, decision.reason, &body);
    reply.rule = decision.rule.map(str::to_owned);
    Outcome::respond(reply)
}

fn unreadable(what: &str, name: &str) -> Outcome {
    let body = format!("RBAC: access denied: the {what} {name} is not text\n");
    Outcome::respond(Reply::text(403, &format!("{what}_not_text"), &body))
}

weft_filters_sdk::export!(Authz);

#[cfg(test)]
mod tests;
