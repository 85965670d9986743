//! Authorization: the engine of `weft-policy` in the sandbox. Its configuration is an `authz::Config`; what it allows
//! passes unchanged, what it denies is answered 403 and names the rule. The same engine answers `weft explain`.

use weft_filters_sdk::{Connection, Filter, Hooks, Interest, Outcome, Reply, Request, Wants};
use weft_policy::authz::{Config, Decision, Engine, Request as Asked};

/// The engine under one configuration.
#[derive(Debug)]
pub struct Authz {
    engine: Engine,
}

impl Filter for Authz {
    fn configure(config: &str) -> Result<(Self, Interest), String> {
        let config: Config = serde_json::from_str(config).map_err(|error| error.to_string())?;
        let engine = Engine::new(&config).map_err(|error| error.to_string())?;
        let interest = Interest {
            hooks: Hooks::CONNECTION | Hooks::REQUEST_HEAD,
            wants: Wants::PRINCIPAL | Wants::METHOD | Wants::PATH | Wants::DESTINATION_PORT,
            request_headers: engine.needed_headers().to_vec(),
            response_headers: Vec::new(),
        };
        Ok((Self { engine }, interest))
    }

    fn connection(&mut self, _stream: u64, connection: &Connection<'_>) -> Outcome {
        let attributes = connection.attributes;
        let port = attributes.destination_port.unwrap_or_default();
        let asked = Asked::connection(attributes.principal.as_deref(), port);
        outcome(&self.engine.decide(&asked))
    }

    fn request_head(&mut self, _stream: u64, request: &Request<'_>) -> Outcome {
        let mut headers = Vec::with_capacity(request.head.headers.len());
        for (name, value) in request.headers() {
            // A rule is text. A value that isn't text could slip past a deny rule, so nobody may send one where a rule looks.
            let Ok(value) = std::str::from_utf8(value) else {
                return unreadable(name);
            };
            headers.push((name, value));
        }
        let asked = Asked {
            principal: request.attributes.principal.as_deref(),
            l4: false,
            method: request.head.method.as_deref().unwrap_or_default(),
            path: request.head.path.as_deref().unwrap_or_default(),
            port: request.attributes.destination_port.unwrap_or_default(),
            headers: &headers,
        };
        outcome(&self.engine.decide(&asked))
    }
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
