//! A token: its three parts, which key it is checked with, and what it claims. Nothing of it counts before its signature
//! holds.

use serde::Deserialize;
use serde_json::{Map, Value};
use weft_filters_sdk::{CallError, crypto};

use crate::base64url;
use crate::jwks::Jwks;
use crate::key::{self, Key};

/// Longer ones are refused unread.
const TOKEN: usize = 16 << 10;

/// Why a token does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Missing,
    Malformed,
    UnknownKey,
    BadSignature,
    Expired,
    NotYetValid,
    WrongIssuer,
    WrongAudience,
    /// The host's crypto can't be asked.
    Unverifiable,
    /// Its issuer's keys could not be fetched, or not for too long.
    KeysUnavailable,
}

impl Fault {
    /// The short word of metrics, logs and replies.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Fault::Missing => "jwt_missing",
            Fault::Malformed => "jwt_malformed",
            Fault::UnknownKey => "jwt_unknown_key",
            Fault::BadSignature => "jwt_bad_signature",
            Fault::Expired => "jwt_expired",
            Fault::NotYetValid => "jwt_not_yet_valid",
            Fault::WrongIssuer => "jwt_wrong_issuer",
            Fault::WrongAudience => "jwt_wrong_audience",
            Fault::Unverifiable => "jwt_unverifiable",
            Fault::KeysUnavailable => "jwt_keys_unavailable",
        }
    }
}

/// What the tokens of an issuer are checked with.
#[derive(Debug)]
pub(crate) enum Keys {
    /// At least one.
    Given(Vec<Key>),
    Fetched(Box<Jwks>),
}

/// Issuers with the keys of their tokens.
#[derive(Debug)]
pub(crate) struct Provider {
    pub(crate) keys: Keys,
    pub(crate) issuers: Vec<String>,
    /// Empty: any.
    pub(crate) audiences: Vec<String>,
}

/// What tokens are judged by.
#[derive(Debug)]
pub(crate) struct Rules {
    /// At least one.
    pub(crate) providers: Vec<Provider>,
    /// Seconds that clocks may differ by.
    pub(crate) leeway: f64,
    pub(crate) needs_end: bool,
}

#[derive(Debug, Deserialize)]
struct Head {
    alg: String,
    kid: Option<String>,
    crit: Option<Value>,
}

/// The parts of a token, none of which counts yet.
#[derive(Debug)]
pub(crate) struct Token<'a> {
    head: Head,
    /// What is signed.
    message: &'a str,
    claims: Vec<u8>,
    signature: Vec<u8>,
}

impl<'a> Token<'a> {
    pub(crate) fn read(token: &'a str) -> Result<Self, Fault> {
        if token.len() > TOKEN {
            return Err(Fault::Malformed);
        }
        let (message, signature) = token.rsplit_once('.').ok_or(Fault::Malformed)?;
        let (head, claims) = message.split_once('.').ok_or(Fault::Malformed)?;
        let part = |text: &str| base64url::decode(text).ok_or(Fault::Malformed);
        let (head, claims, signature) = (part(head)?, part(claims)?, part(signature)?);
        let head: Head = serde_json::from_slice(&head).map_err(|_| Fault::Malformed)?;
        // What must be understood and isn't makes the whole not understood.
        //= rfc7515#section-4.1.11
        if head.crit.is_some() {
            return Err(Fault::Malformed);
        }
        Ok(Self { head, message, claims, signature })
    }

    fn claims(&self) -> Result<Map<String, Value>, Fault> {
        serde_json::from_slice(&self.claims).map_err(|_| Fault::Malformed)
    }
}

impl Rules {
    /// Whose keys a token is checked with. The issuer that it names chooses them: those of another make no token of
    /// his, whatever it says.
    pub(crate) fn provider_of(&self, token: &Token<'_>) -> Result<usize, Fault> {
        if self.providers.len() == 1 {
            return Ok(0);
        }
        let claims = token.claims()?;
        self.providers.iter().position(|provider| provider.issues(&claims)).ok_or(Fault::WrongIssuer)
    }

    /// The keys of a provider that are fetched.
    pub(crate) fn jwks(&mut self, provider: usize) -> Option<&mut Jwks> {
        match &mut self.providers.get_mut(provider)?.keys {
            Keys::Given(_) => None,
            Keys::Fetched(jwks) => Some(jwks),
        }
    }

    /// The claims of a token that counts at `now`, in milliseconds since the Unix epoch.
    pub(crate) fn judge(&self, token: &Token<'_>, provider: usize, now: u64) -> Result<Map<String, Value>, Fault> {
        let provider = self.providers.get(provider).ok_or(Fault::WrongIssuer)?;
        let keys: &[Key] = match &provider.keys {
            Keys::Given(keys) => keys,
            Keys::Fetched(jwks) => jwks.keys(now).ok_or(Fault::KeysUnavailable)?,
        };
        check(keys, token)?;
        let claims = token.claims()?;
        // Milliseconds of this time are far below 2^53.
        #[expect(clippy::cast_precision_loss, reason = "exact for 200,000 years")]
        let now = now as f64 / 1_000.0;
        let time = |name: &str| match claims.get(name) {
            None => Ok(None),
            Some(value) => value.as_f64().map(Some).ok_or(Fault::Malformed),
        };
        match time("exp")? {
            None if self.needs_end => return Err(Fault::Malformed),
            Some(end) if now >= end + self.leeway => return Err(Fault::Expired),
            None | Some(_) => {}
        }
        if time("nbf")?.is_some_and(|start| now + self.leeway < start) {
            return Err(Fault::NotYetValid);
        }
        if !provider.issues(&claims) {
            return Err(Fault::WrongIssuer);
        }
        if !provider.audiences.is_empty() && !provider.is_meant(claims.get("aud")) {
            return Err(Fault::WrongAudience);
        }
        Ok(claims)
    }
}

impl Keys {
    /// How many were given.
    pub(crate) fn given(&self) -> usize {
        match self {
            Self::Given(keys) => keys.len(),
            Self::Fetched(_) => 0,
        }
    }
}

impl Provider {
    fn issues(&self, claims: &Map<String, Value>) -> bool {
        let issuer = claims.get("iss").and_then(Value::as_str);
        issuer.is_some_and(|issuer| self.issuers.iter().any(|known| known == issuer))
    }

    /// One text, or a list of which any will do.
    //= rfc7519#section-4.1.3
    fn is_meant(&self, audience: Option<&Value>) -> bool {
        let is_ours = |value: &Value| value.as_str().is_some_and(|value| self.audiences.iter().any(|own| own == value));
        match audience {
            Some(Value::Array(list)) => list.iter().any(is_ours),
            Some(value) => is_ours(value),
            None => false,
        }
    }
}

/// The keys that the token may be of: those with its algorithm and, where both have one, its key's id.
fn check(keys: &[Key], token: &Token<'_>) -> Result<(), Fault> {
    let Token { head, message, signature, .. } = token;
    let is_for = |key: &&Key| {
        let ids = key.id.as_ref().zip(head.kid.as_ref());
        key::name(key.algorithm) == head.alg && ids.is_none_or(|(own, asked)| own == asked)
    };
    let mut fault = Fault::UnknownKey;
    for key in keys.iter().filter(is_for) {
        match crypto::verify(key.algorithm, &key.bytes, message.as_bytes(), signature) {
            Ok(true) => return Ok(()),
            // A signature of the wrong length is as bad as another.
            Ok(false) | Err(CallError::Invalid(_)) => fault = Fault::BadSignature,
            Err(CallError::Denied(_) | CallError::Full(_) | CallError::Changed | CallError::Other(_)) => {
                return Err(Fault::Unverifiable);
            }
        }
    }
    Err(fault)
}
