//! Authorization: the engine of `weft-policy` in the sandbox. Its configuration is an `authz::Config`; what it allows
//! passes unchanged, what it denies is answered 403 and names the rule. The same engine answers `weft explain`.

use weft_filters_sdk::{Connection, Filter, Interest, Outcome, Reply, Request, Value, hook};
use weft_policy::authz::{Config, Decision, Engine, Request as Asked};

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
}

/// What it is told of a request.
#[derive(Debug)]
struct Head {
    principal: Value<hook::RequestHead>,
    port: Value<hook::RequestHead>,
    method: Value<hook::RequestHead>,
    path: Value<hook::RequestHead>,
    /// In the order of the engine's `needed_headers`.
    headers: Vec<Value<hook::RequestHead>>,
}

impl Filter for Authz {
    type Config = Config;
    type State = ();

    fn configure(config: Config, ask: &mut Interest) -> Result<Self, String> {
        let engine = Engine::new(&config).map_err(|error| error.to_string())?;
        let mut connection = ask.connection();
        let stream = Stream { principal: connection.principal(), port: connection.destination_port() };
        let mut asked = ask.request_head();
        let head = Head {
            principal: asked.principal(),
            port: asked.destination_port(),
            method: asked.method(),
            path: asked.path(),
            headers: engine.needed_headers().iter().map(|name| asked.header(name)).collect(),
        };
        Ok(Self { engine, stream, head })
    }

    fn connection(&mut self, connection: &Connection<'_>, _: &mut ()) -> Outcome {
        let port = port(connection.number(self.stream.port));
        outcome(&self.engine.decide(&Asked::connection(connection.text(self.stream.principal), port)))
    }

    fn request_head(&mut self, request: &Request<'_>, _: &mut ()) -> Outcome {
        let mut headers = Vec::with_capacity(self.head.headers.len());
        for (name, header) in self.engine.needed_headers().iter().zip(&self.head.headers) {
            for value in request.all(*header) {
                // A rule is text. A value that isn't text could slip past a deny rule, so nobody may send one where a rule
                // looks.
                let Ok(value) = std::str::from_utf8(value) else {
                    return unreadable(name);
                };
                headers.push((name.as_str(), value));
            }
        }
        let asked = Asked {
            principal: request.text(self.head.principal),
            l4: false,
            method: request.text(self.head.method).unwrap_or_default(),
            path: request.text(self.head.path).unwrap_or_default(),
            port: port(request.number(self.head.port)),
            headers: &headers,
        };
        outcome(&self.engine.decide(&asked))
    }
}

/// No port is 0, which no rule names.
fn port(number: Option<u64>) -> u16 {
    number.and_then(|number| u16::try_from(number).ok()).unwrap_or_default()
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

fn unreadable(name: &str) -> Outcome {
    let body = format!("RBAC: access denied: the header {name} is not text\n");
    Outcome::respond(Reply::text(403, "header_not_text", &body))
}

weft_filters_sdk::export!(Authz);

#[cfg(test)]
mod tests;
