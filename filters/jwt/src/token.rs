//! A token: its three parts, which key it is checked with, and what it claims. Nothing of it counts before its signature
//! holds.

use serde::Deserialize;
use serde_json::{Map, Value};
use weft_filters_sdk::{CallError, crypto};

use crate::base64url;
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
        }
    }
}

/// Issuers with the keys of their tokens.
#[derive(Debug)]
pub(crate) struct Provider {
    pub(crate) keys: Vec<Key>,
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

impl Rules {
    /// The claims of a token that counts at `now`, in seconds since the Unix epoch.
    pub(crate) fn judge(&self, token: &str, now: f64) -> Result<Map<String, Value>, Fault> {
        let (provider, claims) = self.verify(token)?;
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

    /// The claims of a token whose signature holds, and by whose keys it does.
    fn verify(&self, token: &str) -> Result<(&Provider, Map<String, Value>), Fault> {
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
        let claims = || serde_json::from_slice::<Map<String, Value>>(&claims).map_err(|_| Fault::Malformed);
        if let [provider] = self.providers.as_slice() {
            provider.check(&head, message, &signature)?;
            return Ok((provider, claims()?));
        }
        // The issuer that it names chooses the keys: those of another make no token of his, whatever it says.
        let claims = claims()?;
        let provider = self.providers.iter().find(|provider| provider.issues(&claims)).ok_or(Fault::WrongIssuer)?;
        provider.check(&head, message, &signature)?;
        Ok((provider, claims))
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

    /// The keys that the token may be of: those with its algorithm and, where both have one, its key's id.
    fn check(&self, head: &Head, message: &str, signature: &[u8]) -> Result<(), Fault> {
        let is_for = |key: &&Key| {
            let ids = key.id.as_ref().zip(head.kid.as_ref());
            key::name(key.algorithm) == head.alg && ids.is_none_or(|(own, asked)| own == asked)
        };
        let mut fault = Fault::UnknownKey;
        for key in self.keys.iter().filter(is_for) {
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
}
