//! Requests carry a JSON Web Token that counts, or are answered 401: signature by one of its issuer's keys, issuer,
//! audience and times. Its claims become attributes for the filters behind and headers for the app. Keys that the
//! configuration does not have are fetched from the issuer, while a request waits.

mod base64url;
mod config;
mod jwks;
mod key;
mod token;
mod waiting;

use std::time::Duration;

use serde_json::{Map, Value as Json};
use weft_filters_sdk::hook::{self, Hook};
use weft_filters_sdk::{Answer, Ask, Counter, Filter, Interest, Outcome, Reply, Request, Value, Values, log, rules};

use config::Claim;
pub use config::Config;
use jwks::{Purpose, Turn};
use token::{Fault, Keys, Rules, Token};
use waiting::For;
pub use waiting::Waiting;

/// How often a request looks whether the keys are there that another one fetches. A stream may wait 64 times.
const LOOKS: u32 = 32;
const LOOK: Duration = Duration::from_millis(25);

/// The rules under one configuration.
#[derive(Debug)]
pub struct Jwt {
    rules: Rules,
    asked: Asked<hook::RequestHead>,
    waits: Option<Waits>,
    header_name: String,
    /// The token stands behind this word.
    bearer: bool,
    optional: bool,
    remove: bool,
    claims: Vec<Claim>,
    refused: Counter,
    fetches: Counter,
    skipped: Counter,
}

/// What it is told at a hook.
#[derive(Debug)]
struct Asked<H> {
    header: Value<H>,
    time: Value<H>,
}

/// The same at the hooks that are called where keys are fetched.
#[derive(Debug)]
struct Waits {
    answer: Asked<hook::Callout>,
    tick: Asked<hook::Tick>,
}

/// What becomes of a token.
enum Step {
    Judged(Result<Map<String, Json>, Fault>),
    /// It is this request that fetches the keys.
    Fetch {
        provider: usize,
        purpose: Purpose,
    },
    /// Another one does, for so long at the most.
    Others(Duration),
}

fn asked<H: Hook>(mut ask: Ask<'_, H>, header: &str) -> Asked<H> {
    Asked { header: ask.request_header(header), time: ask.time() }
}

/// Without a time nothing is valid any more.
fn now<H: Hook>(values: &Values<'_, H>, asked: &Asked<H>) -> u64 {
    values.number(asked.time).unwrap_or(u64::MAX)
}

impl Filter for Jwt {
    type Config = Config;
    type State = Waiting;

    fn configure(mut config: Config, ask: &mut Interest) -> Result<Self, String> {
        let (claims, leeway) = (config.take_claims()?, config.leeway()?);
        let providers = config.take_providers()?;
        let is_fetched = providers.iter().any(|provider| matches!(provider.keys, Keys::Fetched(_)));
        let rules = Rules { providers, leeway, needs_end: !config.allow_without_exp };
        let bearer = config.header.is_none();
        let header_name = config.header.unwrap_or_else(|| "authorization".to_owned()).to_ascii_lowercase();
        rules::header_name(&header_name).map_err(|error| format!("header: {error}"))?;
        let waits = is_fetched.then(|| {
            ask.done();
            Waits { answer: asked(ask.callout(), &header_name), tick: asked(ask.tick(), &header_name) }
        });
        Ok(Self {
            rules,
            asked: asked(ask.request_head(), &header_name),
            waits,
            header_name,
            bearer,
            optional: config.optional,
            remove: config.remove,
            claims,
            refused: Counter::define("tokens_refused_total", &["reason"])?,
            fetches: Counter::define("jwks_fetches_total", &["outcome"])?,
            skipped: Counter::define("jwks_keys_skipped_total", &[])?,
        })
    }

    fn request_head(&mut self, request: &Request<'_>, state: &mut Waiting) -> Outcome {
        let at = now(request, &self.asked);
        self.judge(request.all(self.asked.header), at, true, state)
    }

    fn callout(
        &mut self,
        values: &Values<'_, hook::Callout>,
        _: u32,
        answer: Result<&Answer, &str>,
        state: &mut Waiting,
    ) -> Outcome {
        let Some(Waits { answer: asked, .. }) = &self.waits else { return self.refuse(Fault::KeysUnavailable) };
        let (values, at) = (values.all(asked.header), now(values, asked));
        self.settle(state, at, answer);
        self.judge(values, at, false, state)
    }

    fn tick(&mut self, values: &Values<'_, hook::Tick>, state: &mut Waiting) -> Outcome {
        let Some(Waits { tick: asked, .. }) = &self.waits else { return self.refuse(Fault::KeysUnavailable) };
        let (values, at) = (values.all(asked.header), now(values, asked));
        self.settle(state, at, Err("no answer in time"));
        let may_ask = match state.0 {
            For::Nothing | For::Own { .. } => false,
            For::Others { until } => at < until,
        };
        self.judge(values, at, may_ask, state)
    }

    /// A request that ends while it fetches leaves that to those that wait.
    fn done(&mut self, _: &Values<'_, hook::Done>, state: &mut Waiting) {
        if let For::Own { provider, purpose } = state.0
            && let Some(jwks) = self.rules.jwks(provider.into())
        {
            jwks.leave(purpose);
        }
    }
}

impl Jwt {
    /// `may_ask`: keys may be fetched, or waited for. `values`: of the header that holds the token.
    fn judge<'a>(
        &mut self,
        values: impl Iterator<Item = &'a [u8]>,
        now: u64,
        may_ask: bool,
        state: &mut Waiting,
    ) -> Outcome {
        let waited = std::mem::take(state).0;
        let token = match self.token(values).and_then(|token| token.map(Token::read).transpose()) {
            Ok(Some(token)) => token,
            Ok(None) if self.optional => return self.tell(&Map::new()),
            Ok(None) => return self.refuse(Fault::Missing),
            Err(fault) => return self.refuse(fault),
        };
        let mut step = self.decide(&token, now, may_ask);
        if let Step::Fetch { provider, purpose } = step {
            *state = Waiting(For::Own { provider: u8::try_from(provider).unwrap_or(u8::MAX), purpose });
            let sent = self.rules.jwks(provider).map(|jwks| (jwks.question().send(), jwks.patience()));
            match sent {
                Some((Ok(_), patience)) => return Outcome::wait(patience),
                Some((Err(error), _)) => self.settle(state, now, Err(&error.to_string())),
                None => *state = Waiting::default(),
            }
            step = self.decide(&token, now, false);
        }
        match step {
            Step::Judged(Ok(claims)) => self.tell(&claims),
            Step::Judged(Err(fault)) => self.refuse(fault),
            Step::Fetch { .. } => self.refuse(Fault::KeysUnavailable),
            Step::Others(patience) => {
                let until = match waited {
                    For::Others { until } => until,
                    For::Nothing | For::Own { .. } => now.saturating_add(jwks::millis(patience)),
                };
                *state = Waiting(For::Others { until });
                Outcome::wait((patience / LOOKS).max(LOOK))
            }
        }
    }

    fn decide(&mut self, token: &Token<'_>, now: u64, may_ask: bool) -> Step {
        let provider = match self.rules.provider_of(token) {
            Ok(provider) => provider,
            Err(fault) => return Step::Judged(Err(fault)),
        };
        let first = self.rules.judge(token, provider, now);
        let Some(jwks) = self.rules.jwks(provider).filter(|_| may_ask) else { return Step::Judged(first) };
        // Only a token that counts has keys fetched anew while there are some: a caller without one could take the turn
        // and break off, again and again, and no fetch would ever end.
        let purpose = match &first {
            Ok(_) if jwks.is_due(now) => Purpose::Refresh,
            Err(Fault::KeysUnavailable) => Purpose::Refresh,
            Err(Fault::UnknownKey) => Purpose::Unknown,
            Ok(_) | Err(_) => return Step::Judged(first),
        };
        match jwks.turn(purpose, now) {
            Ok(Turn::Mine) => {
                let is_due = jwks.is_due(now);
                let again = self.rules.judge(token, provider, now);
                let is_wanting = matches!(again, Err(Fault::UnknownKey | Fault::KeysUnavailable));
                if is_wanting || is_due {
                    return Step::Fetch { provider, purpose };
                }
                // Another worker has fetched them meanwhile.
                if let Some(jwks) = self.rules.jwks(provider) {
                    jwks.give_back(purpose);
                }
                Step::Judged(again)
            }
            Ok(Turn::UnderWay) if first.is_err() => Step::Others(jwks.patience()),
            Ok(Turn::Over { news: true }) => Step::Judged(self.rules.judge(token, provider, now)),
            Ok(Turn::UnderWay | Turn::Over { news: false }) => Step::Judged(first),
            Err(error) => {
                log::warn(&format!("no keys can be fetched: {error}"));
                Step::Judged(first)
            }
        }
    }

    /// Where the stream waits for its own question, that has ended.
    fn settle(&mut self, state: &mut Waiting, now: u64, answer: Result<&Answer, &str>) {
        let For::Own { provider, purpose } = state.0 else { return };
        *state = Waiting::default();
        let Some(jwks) = self.rules.jwks(provider.into()) else { return };
        let (outcome, skipped) = jwks.settle(purpose, now, answer);
        self.fetches.add(&[outcome], 1);
        if skipped > 0 {
            self.skipped.add(&[], skipped);
        }
    }

    /// The one token that a request carries. Two of them are none that all servers agree on.
    fn token<'a>(&self, mut values: impl Iterator<Item = &'a [u8]>) -> Result<Option<&'a str>, Fault> {
        let Some(value) = values.next() else { return Ok(None) };
        if values.next().is_some() {
            return Err(Fault::Malformed);
        }
        let value = std::str::from_utf8(value).map_err(|_| Fault::Malformed)?.trim();
        if self.bearer { bearer(value) } else { Ok(Some(value)) }
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
            if let Some(members) = found.get(&claim.name).and_then(members) {
                outcome = outcome.set_attribute(&claim.list, members);
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
            Fault::KeysUnavailable => {
                return Outcome::respond(Reply::text(503, reason, "the keys of the token's issuer can't be had\n"));
            }
        };
        let reply = Reply::text(401, reason, &format!("token refused: {reason}\n"));
        Outcome::respond(reply.header("www-authenticate", challenge))
    }
}

/// The token behind `Bearer`. Credentials of another kind are no token, and no bad one.
//= rfc9110#section-11.4
fn bearer(credentials: &str) -> Result<Option<&str>, Fault> {
    let is_outside = |c: char| !c.is_ascii_alphanumeric() && !"!#$%&'*+-.^_`|~".contains(c);
    let end = credentials.find(is_outside).unwrap_or(credentials.len());
    let (scheme, rest) = credentials.split_at(end);
    match rest.strip_prefix(' ') {
        // An app may read these as a token, as many part at a tab; where tokens are optional it would pass unjudged.
        None if scheme.eq_ignore_ascii_case("bearer") || (scheme.is_empty() && !rest.is_empty()) => {
            Err(Fault::Malformed)
        }
        Some(token) if scheme.eq_ignore_ascii_case("bearer") => Ok(Some(token.trim_start())),
        None | Some(_) => Ok(None),
    }
}

/// A claim as text that a header can carry: text, a number, a truth value, or a list of those with commas between.
fn text(claim: &Json) -> Option<String> {
    let fits = |text: &String| rules::header_value(text.as_bytes()).is_ok();
    let text = match claim {
        Json::Array(list) => {
            let items: Option<Vec<String>> = list.iter().map(|item| one(item).filter(fits)).collect();
            items?.join(",")
        }
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) | Json::Object(_) => one(claim)?,
    };
    Some(text).filter(fits)
}

/// What a claim says, each member of a list as a text of its own, whatever it is: a comma in one is no comma between them, and
/// one that no header can carry hides no other. What is neither text, number nor truth value is an empty one.
fn members(claim: &Json) -> Option<String> {
    let members: Vec<String> = match claim {
        Json::Null => return None,
        Json::Array(list) => list.iter().map(|member| one(member).unwrap_or_default()).collect(),
        Json::String(_) | Json::Number(_) | Json::Bool(_) | Json::Object(_) => vec![one(claim).unwrap_or_default()],
    };
    serde_json::to_string(&members).ok()
}

/// A text, a number or a truth value as text.
fn one(claim: &Json) -> Option<String> {
    match claim {
        Json::String(text) => Some(text.clone()),
        Json::Number(number) => Some(number.to_string()),
        Json::Bool(value) => Some(value.to_string()),
        Json::Null | Json::Object(_) | Json::Array(_) => None,
    }
}

weft_filters_sdk::export!(Jwt);

#[cfg(test)]
mod tests;
