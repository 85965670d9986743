//! The configuration, and what it may say.

use std::time::Duration;

use serde::Deserialize;
use weft_filters_sdk::rules;

use crate::jwks::{Jwks, Source};
use crate::key::Jwk;
use crate::token::{Keys, Provider};

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
    pub(crate) allow_without_exp: bool,
    /// The header that holds the token. Default `authorization`, where it stands behind `Bearer`.
    pub(crate) header: Option<String>,
    /// Requests without a token pass, without claims. Default: they are answered 401. A bad token never passes.
    #[serde(default)]
    pub(crate) optional: bool,
    /// The header goes no further. Default: it does.
    #[serde(default)]
    pub(crate) remove: bool,
    #[serde(default)]
    claims: Vec<ClaimConfig>,
}

/// An issuer, whose tokens count by its own keys only: `keys` or `jwks`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ProviderConfig {
    issuer: String,
    #[serde(default)]
    audiences: Vec<String>,
    #[serde(default)]
    keys: Vec<Jwk>,
    jwks: Option<JwksConfig>,
}

/// Keys that are fetched. Needs the capabilities `callout` and `kv`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct JwksConfig {
    /// The service that has them, as the policy's capability `callout` names it.
    callout: String,
    /// Of the JWKS, with or without a query.
    path: String,
    /// How long they count, 10 to 86,400; they are fetched anew before. Default 300.
    #[serde(default = "default_cache")]
    cache_seconds: u32,
    /// How long the last ones count after that while no newer ones come, 0 to 604,800. Default 3,600.
    #[serde(default = "default_stale")]
    stale_seconds: u32,
    /// 1 to 10,000. Default 1,000.
    #[serde(default = "default_timeout")]
    timeout_ms: u32,
}

/// A claim that is told as the attribute `filter.jwt.CLAIM`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ClaimConfig {
    claim: String,
    /// Tells the app too; a header that the caller sends under this name never passes.
    header: Option<String>,
}

/// A claim that is told.
#[derive(Debug)]
pub(crate) struct Claim {
    pub(crate) name: String,
    pub(crate) attribute: String,
    /// Its members, or it itself, as a list in JSON.
    pub(crate) list: String,
    pub(crate) header: Option<String>,
}

fn default_leeway() -> u32 {
    60
}

fn default_cache() -> u32 {
    300
}

fn default_stale() -> u32 {
    3_600
}

fn default_timeout() -> u32 {
    1_000
}

/// At most so many providers, and so many given keys of all providers together.
const KEYS: usize = 32;
const CLAIMS: usize = 16;
const LEEWAY: u32 = 3_600;

impl Config {
    pub(crate) fn leeway(&self) -> Result<f64, String> {
        match self.leeway_seconds {
            seconds @ 0..=LEEWAY => Ok(f64::from(seconds)),
            more => Err(format!("leeway_seconds: {more}, at most {LEEWAY}")),
        }
    }

    pub(crate) fn take_providers(&mut self) -> Result<Vec<Provider>, String> {
        let (keys, issuers) = (std::mem::take(&mut self.keys), std::mem::take(&mut self.issuers));
        let audiences = std::mem::take(&mut self.audiences);
        match self.providers.take() {
            Some(_) if !(keys.is_empty() && issuers.is_empty() && audiences.is_empty()) => {
                Err("providers: each has keys, issuer and audiences of its own".to_owned())
            }
            Some(providers) => providers_of(providers),
            None if issuers.is_empty() && !keys.is_empty() => Err("issuers: at least one is needed".to_owned()),
            None => Ok(vec![Provider { keys: given(keys)?, issuers, audiences }]),
        }
    }

    pub(crate) fn take_claims(&mut self) -> Result<Vec<Claim>, String> {
        let config = std::mem::take(&mut self.claims);
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
            let is_another = |other: &Claim| other.attribute == attribute && other.name != name;
            if let Some(other) = claims.iter().position(is_another) {
                return Err(format!("claims[{index}].claim: {attribute} is told of claims[{other}] already"));
            }
            let list = format!("filter.jwt-list.{}", name.to_ascii_lowercase());
            rules::attribute_name(&list).map_err(|error| format!("claims[{index}].claim: {error}"))?;
            claims.push(Claim { name, attribute, list, header });
        }
        Ok(claims)
    }
}

fn given(keys: Vec<Jwk>) -> Result<Keys, String> {
    if keys.is_empty() || keys.len() > KEYS {
        return Err(format!("keys: {} of them, 1 to {KEYS}", keys.len()));
    }
    let key = |(index, key): (usize, Jwk)| key.key().map_err(|error| format!("keys[{index}].{error}"));
    keys.into_iter().enumerate().map(key).collect::<Result<_, _>>().map(Keys::Given)
}

fn providers_of(config: Vec<ProviderConfig>) -> Result<Vec<Provider>, String> {
    let mut providers: Vec<Provider> = Vec::with_capacity(config.len());
    for (index, ProviderConfig { issuer, audiences, keys, jwks }) in config.into_iter().enumerate() {
        if providers.iter().any(|known| known.issuers.contains(&issuer)) {
            return Err(format!("providers[{index}].issuer: {issuer:?} is that of an earlier one"));
        }
        let keys = match jwks {
            Some(_) if !keys.is_empty() => Err("jwks: keys are given already".to_owned()),
            Some(jwks) => jwks.source().map(|source| Keys::Fetched(Box::new(Jwks::new(&issuer, source)))),
            None => given(keys),
        };
        let keys = keys.map_err(|error| format!("providers[{index}].{error}"))?;
        providers.push(Provider { keys, issuers: vec![issuer], audiences });
    }
    if providers.is_empty() || providers.len() > KEYS {
        return Err(format!("providers: {} of them, 1 to {KEYS}", providers.len()));
    }
    let keys: usize = providers.iter().map(|provider| provider.keys.given()).sum();
    if keys > KEYS {
        return Err(format!("providers: {keys} keys in all, at most {KEYS}"));
    }
    Ok(providers)
}

impl JwksConfig {
    fn source(self) -> Result<Source, String> {
        let Self { callout: service, path, cache_seconds, stale_seconds, timeout_ms } = self;
        if service.is_empty() {
            return Err("jwks.callout: it is empty".to_owned());
        }
        rules::path(&path).map_err(|error| format!("jwks.path: {error}"))?;
        for (name, number, least, most) in [
            ("cache_seconds", cache_seconds, 10, 86_400),
            ("stale_seconds", stale_seconds, 0, 604_800),
            ("timeout_ms", timeout_ms, 1, 10_000),
        ] {
            if !(least..=most).contains(&number) {
                return Err(format!("jwks.{name}: {number} is not between {least} and {most}"));
            }
        }
        let seconds = |seconds: u32| Duration::from_secs(seconds.into());
        let (cache, stale) = (seconds(cache_seconds), seconds(stale_seconds));
        Ok(Source { service, path, timeout: Duration::from_millis(timeout_ms.into()), cache, stale })
    }
}
