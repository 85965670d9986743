//! Requests carry a JSON Web Token that counts, or are answered 401: signature by one of the keys in the configuration,
//! issuer, audience and times. Its claims become attributes for the filters behind and headers for the app.

mod base64url;
mod key;
mod token;

use serde::Deserialize;
use serde_json::{Map, Value as Json};
use weft_filters_sdk::{Counter, Filter, Interest, Outcome, Reply, Request, Value, hook, rules};

use key::Jwk;
use token::{Fault, Provider, Rules};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The keys of a JWKS: RS256, ES256, EdDSA (Ed25519) and HS256. At most 32.
    #[serde(default)]
    keys: Vec<Jwk>,
    /// Issuers whose tokens count, by any of the keys.
    #[serde(default)]
    issuers: Vec<String>,
    /// Of which a token must name one. Default: any will do, none too.
    #[serde(default)]
    audiences: Vec<String>,
    /// In the place of those three: issuers with keys and audiences of their own.
    providers: Option<Vec<ProviderConfig>>,
    /// Seconds that clocks may differ by. Default 60, at most 3,600.
    #[serde(default = "default_leeway")]
    leeway_seconds: u32,
    /// Tokens without `exp` count. Default: they don't.
    #[serde(default)]
    allow_without_exp: bool,
    /// The header that holds the token. Default `authorization`, where it stands behind `Bearer`.
    header: Option<String>,
    /// Requests without a token pass, without claims. Default: they are answered 401. A bad token never passes.
    #[serde(default)]
    optional: bool,
    /// The header goes no further. Default: it does.
    #[serde(default)]
    remove: bool,
    #[serde(default)]
    claims: Vec<ClaimConfig>,
}

/// An issuer, whose tokens count by its own keys only.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ProviderConfig {
    issuer: String,
    #[serde(default)]
    audiences: Vec<String>,
    keys: Vec<Jwk>,
}

/// A claim that is told as the attribute `filter.jwt.CLAIM`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ClaimConfig {
    claim: String,
    /// Tells the app too; a header that the caller sends under this name never passes.
    header: Option<String>,
}

fn default_leeway() -> u32 {
    60
}

const KEYS: usize = 32;
const CLAIMS: usize = 16;
const LEEWAY: u32 = 3_600;

/// The rules under one configuration.
#[derive(Debug)]
pub struct Jwt {
    rules: Rules,
    header: Value<hook::RequestHead>,
    header_name: String,
    /// The token stands behind this word.
    bearer: bool,
    time: Value<hook::RequestHead>,
    optional: bool,
    remove: bool,
    claims: Vec<Claim>,
    refused: Counter,
}

#[derive(Debug)]
struct Claim {
    name: String,
    attribute: String,
    header: Option<String>,
}

impl Filter for Jwt {
    type Config = Config;
    type State = ();

    fn configure(config: Config, ask: &mut Interest) -> Result<Self, String> {
        let claims = claims(config.claims)?;
        if config.leeway_seconds > LEEWAY {
            return Err(format!("leeway_seconds: {}, at most {LEEWAY}", config.leeway_seconds));
        }
        let providers = match config.providers {
            Some(_) if !(config.keys.is_empty() && config.issuers.is_empty() && config.audiences.is_empty()) => {
                return Err("providers: each has keys, issuer and audiences of its own".to_owned());
            }
            Some(providers) => providers_of(providers)?,
            None => vec![provider(config.keys, config.issuers, config.audiences)?],
        };
        let (leeway, needs_end) = (f64::from(config.leeway_seconds), !config.allow_without_exp);
        let rules = Rules { providers, leeway, needs_end };
        let bearer = config.header.is_none();
        let header_name = config.header.unwrap_or_else(|| "authorization".to_owned()).to_ascii_lowercase();
        rules::header_name(&header_name).map_err(|error| format!("header: {error}"))?;
        let mut head = ask.request_head();
        let (header, time) = (head.header(&header_name), head.time());
        let refused = Counter::define("tokens_refused_total", &["reason"])?;
        let (optional, remove) = (config.optional, config.remove);
        Ok(Self { rules, header, header_name, bearer, time, optional, remove, claims, refused })
    }

    fn request_head(&mut self, request: &Request<'_>, _: &mut ()) -> Outcome {
        // Milliseconds of this time are far below 2^53.
        #[expect(clippy::cast_precision_loss, reason = "exact for 200,000 years")]
        let now = request.number(self.time).unwrap_or(u64::MAX) as f64 / 1_000.0;
        let judged = self.token(request).and_then(|token| match token {
            None => Ok(None),
            Some(token) => self.rules.judge(token, now).map(Some),
        });
        match judged {
            Ok(None) if !self.optional => self.refuse(Fault::Missing),
            Ok(claims) => self.tell(&claims.unwrap_or_default()),
            Err(fault) => self.refuse(fault),
        }
    }
}

impl Jwt {
    /// The one token that a request carries. Two of them are none that all servers agree on.
    fn token<'a>(&self, request: &Request<'a>) -> Result<Option<&'a str>, Fault> {
        let mut values = request.all(self.header);
        let Some(value) = values.next() else { return Ok(None) };
        if values.next().is_some() {
            return Err(Fault::Malformed);
        }
        let value = std::str::from_utf8(value).map_err(|_| Fault::Malformed)?.trim();
        if !self.bearer {
            return Ok(Some(value));
        }
        match value.split_once(' ') {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Ok(Some(token.trim_start())),
            // Credentials of another kind are no token, and no bad one.
            None | Some(_) => Ok(None),
        }
    }

    fn tell(&self, found: &Map<String, Json>) -> Outcome {
        let mut outcome = Outcome::pass();
        if self.remove {
            outcome = outcome.remove_header(&self.header_name);
        }
        for claim in &self.claims {
            let value = found.get(&claim.name).and_then(text);
            if let Some(value) = &value {
                outcome = outcome.set_attribute(&claim.attribute, value.as_str());
            }
            outcome = match (&claim.header, value) {
                (None, _) => outcome,
                (Some(header), Some(value)) => outcome.set_header(header, value),
                (Some(header), None) => outcome.remove_header(header),
            };
        }
        outcome
    }

    fn refuse(&self, fault: Fault) -> Outcome {
        let reason = fault.as_str();
        self.refused.add(&[reason], 1);
        let challenge = match fault {
            //= rfc6750#section-3
            Fault::Missing => "Bearer",
            Fault::Malformed
            | Fault::UnknownKey
            | Fault::BadSignature
            | Fault::Expired
            | Fault::NotYetValid
            | Fault::WrongIssuer
            | Fault::WrongAudience => r#"Bearer error="invalid_token""#,
            Fault::Unverifiable => {
                return Outcome::respond(Reply::text(503, reason, "the token can't be checked\n"));
            }
        };
        let reply = Reply::text(401, reason, &format!("token refused: {reason}\n"));
        Outcome::respond(reply.header("www-authenticate", challenge))
    }
}

/// A claim as text that a header can carry: text, a number, a truth value, or a list of those with commas between.
fn text(claim: &Json) -> Option<String> {
    let text = match claim {
        Json::String(text) => text.clone(),
        Json::Number(number) => number.to_string(),
        Json::Bool(value) => value.to_string(),
        Json::Array(list) if list.iter().all(|item| !item.is_array()) => {
            let items: Option<Vec<String>> = list.iter().map(text).collect();
            items?.join(",")
        }
        Json::Null | Json::Object(_) | Json::Array(_) => return None,
    };
    rules::header_value(text.as_bytes()).is_ok().then_some(text)
}

fn provider(keys: Vec<Jwk>, issuers: Vec<String>, audiences: Vec<String>) -> Result<Provider, String> {
    if keys.is_empty() || keys.len() > KEYS {
        return Err(format!("keys: {} of them, 1 to {KEYS}", keys.len()));
    }
    if issuers.is_empty() {
        return Err("issuers: at least one is needed".to_owned());
    }
    let key = |(index, key): (usize, Jwk)| key.key().map_err(|error| format!("keys[{index}].{error}"));
    let keys = keys.into_iter().enumerate().map(key).collect::<Result<Vec<_>, _>>()?;
    Ok(Provider { keys, issuers, audiences })
}

fn providers_of(config: Vec<ProviderConfig>) -> Result<Vec<Provider>, String> {
    let mut providers: Vec<Provider> = Vec::with_capacity(config.len());
    for (index, ProviderConfig { issuer, audiences, keys }) in config.into_iter().enumerate() {
        if providers.iter().any(|known| known.issuers.contains(&issuer)) {
            return Err(format!("providers[{index}].issuer: {issuer:?} is that of an earlier one"));
        }
        let made = provider(keys, vec![issuer], audiences);
        providers.push(made.map_err(|error| format!("providers[{index}].{error}"))?);
    }
    let keys: usize = providers.iter().map(|provider| provider.keys.len()).sum();
    if keys == 0 || keys > KEYS {
        return Err(format!("providers: {keys} keys in all, 1 to {KEYS}"));
    }
    Ok(providers)
}

fn claims(config: Vec<ClaimConfig>) -> Result<Vec<Claim>, String> {
    if config.len() > CLAIMS {
        return Err(format!("claims: {} of them, at most {CLAIMS}", config.len()));
    }
    let mut claims = Vec::with_capacity(config.len());
    for (index, ClaimConfig { claim: name, header }) in config.into_iter().enumerate() {
        let attribute = format!("filter.jwt.{}", name.to_ascii_lowercase());
        rules::attribute_name(&attribute).map_err(|error| format!("claims[{index}].claim: {error}"))?;
        if let Some(header) = &header {
            rules::header_name(header).map_err(|error| format!("claims[{index}].header: {error}"))?;
        }
        claims.push(Claim { name, attribute, header });
    }
    Ok(claims)
}

weft_filters_sdk::export!(Jwt);

#[cfg(test)]
mod tests;
