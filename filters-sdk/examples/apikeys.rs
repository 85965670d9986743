//! API keys: a request passes with a key whose SHA-256 the configuration has, under its client's name. Keys themselves
//! stand nowhere. Needs the capability `crypto`.

use std::collections::BTreeMap;

use serde::Deserialize;
use weft_filters_sdk::{Filter, Interest, Outcome, Reply, Request, Value, crypto, hook, log, rules};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// SHA-256 of each client's key, in hex, by the client's name.
    clients: BTreeMap<String, String>,
    /// Default: `x-api-key`.
    #[serde(default = "default_header")]
    header: String,
}

fn default_header() -> String {
    "x-api-key".to_owned()
}

#[derive(Debug)]
pub struct ApiKeys {
    header: String,
    key: Value<hook::RequestHead>,
    /// By the hash of the key.
    clients: BTreeMap<Vec<u8>, String>,
}

impl Filter for ApiKeys {
    type Config = Config;
    type State = ();

    fn configure(config: Config, ask: &mut Interest) -> Result<Self, String> {
        rules::header_name(&config.header).map_err(|error| format!("header: {error}"))?;
        let mut clients = BTreeMap::new();
        for (client, hash) in config.clients {
            rules::header_value(client.as_bytes()).map_err(|error| format!("clients.{client}: {error}"))?;
            let hash = digest(&hash).ok_or_else(|| format!("clients.{client}: 64 hex digits are wanted"))?;
            if let Some(other) = clients.insert(hash, client.clone()) {
                return Err(format!("clients.{client}: it has the key of {other}"));
            }
        }
        let key = ask.request_head().header(&config.header);
        Ok(Self { header: config.header, key, clients })
    }

    fn request_head(&mut self, request: &Request<'_>, _: &mut ()) -> Outcome {
        let mut keys = request.all(self.key);
        let (Some(key), None) = (keys.next(), keys.next()) else {
            return Outcome::respond(Reply::text(401, "key_missing", "one API key is wanted\n"));
        };
        let hash = match crypto::sha256(key) {
            Ok(hash) => hash,
            Err(error) => {
                log::warn(&format!("no key can be checked: {error}"));
                return Outcome::respond(Reply::text(503, "key_unverifiable", "no key can be checked\n"));
            }
        };
        match self.clients.get(&hash) {
            Some(client) => Outcome::pass()
                .remove_header(&self.header)
                .set_header("x-api-client", client.as_bytes())
                .set_attribute("filter.apikeys.client", client.as_bytes()),
            None => Outcome::respond(Reply::text(401, "key_unknown", "the API key is none\n")),
        }
    }
}

fn digest(text: &str) -> Option<Vec<u8>> {
    let text = text.as_bytes();
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let byte = |pair: &[u8]| Some(digit(pair[0])? << 4 | digit(pair[1])?);
    if text.len() == 64 { text.chunks_exact(2).map(byte).collect() } else { None }
}

weft_filters_sdk::export!(ApiKeys);
