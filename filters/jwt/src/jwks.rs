//! Keys that an issuer publishes, fetched while a request waits. What was fetched lies in the proxy's `kv`, the same to
//! all its workers; each instance has a copy of its own. A lease in `kv` says who fetches, so that requests that come
//! meanwhile cause no further fetch. No shared secret is ever taken from the network.

use std::time::Duration;

use serde::Deserialize;
use weft_filters_sdk::crypto::Algorithm;
use weft_filters_sdk::{Answer, CallError, callouts, crypto, kv, log};

use crate::key::{Jwk, Key};

/// Bytes of a document.
const DOCUMENT: u32 = 64 << 10;
/// Keys of one issuer; what is more is skipped.
const KEYS: usize = 32;
/// Bytes of a key's id, and of a key: with these, all keys together fit one value of `kv`.
const KEY_ID: usize = 256;
const KEY: usize = 1_200;
/// Between two fetches for one purpose.
const PAUSE: Duration = Duration::from_secs(10);
/// The same while no key counts, so that a provider that is back is noticed.
const SHORT_PAUSE: Duration = Duration::from_secs(1);
/// The same after a request that broke off: others wait, and a caller that always breaks off must not keep them from it.
const LEFT_PAUSE: Duration = Duration::from_millis(100);
/// What a lease says for so long.
const LEFT: &[u8] = b"left";
/// The host answers a callout in its own time; the wait ends later, so that its answer is heard.
const GRACE: Duration = Duration::from_secs(1);

/// Where the keys of an issuer are, and for how long they count.
#[derive(Debug)]
pub(crate) struct Source {
    /// As the capability `callout` names it.
    pub(crate) service: String,
    pub(crate) path: String,
    pub(crate) timeout: Duration,
    /// They are fetched anew when three quarters of this have passed.
    pub(crate) cache: Duration,
    /// For so long after that they count while no newer ones come.
    pub(crate) stale: Duration,
}

/// Why keys are fetched. Each purpose has a lease of its own: a caller that invents key ids holds up no refresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The keys are due, or there are none.
    Refresh,
    /// No key has the id that a token names.
    Unknown,
}

impl Purpose {
    pub(crate) const ALL: [Self; 2] = [Self::Refresh, Self::Unknown];

    fn word(self) -> &'static str {
        match self {
            Self::Refresh => "refresh",
            Self::Unknown => "unknown",
        }
    }
}

/// Whose turn it is to fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// This request's.
    Mine,
    /// Another request fetches, or broke off.
    UnderWay,
    /// One fetched lately. `news`: what came of it was not known here.
    Over { news: bool },
}

/// The keys of one issuer.
#[derive(Debug)]
pub(crate) struct Jwks {
    source: Source,
    issuer: String,
    /// Tells its values in `kv` from those of others. Made at the first use.
    digest: Option<Vec<u8>>,
    held: Option<Held>,
}

/// Keys that were fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Held {
    /// Milliseconds since the Unix epoch.
    at: u64,
    keys: Vec<Key>,
}

impl Jwks {
    pub(crate) fn new(issuer: &str, source: Source) -> Self {
        Self { source, issuer: issuer.to_owned(), digest: None, held: None }
    }

    /// The keys that count at `now`, milliseconds since the Unix epoch.
    pub(crate) fn keys(&self, now: u64) -> Option<&[Key]> {
        let most = millis(self.source.cache).saturating_add(millis(self.source.stale));
        let held = self.held.as_ref().filter(|held| now.saturating_sub(held.at) < most)?;
        Some(&held.keys)
    }

    /// True where it is time to fetch, before they are too old.
    pub(crate) fn is_due(&self, now: u64) -> bool {
        let cache = millis(self.source.cache);
        self.held.as_ref().is_none_or(|held| now.saturating_sub(held.at) >= cache - cache / 4)
    }

    /// How long a request waits that fetches, or that waits for one that does.
    pub(crate) fn patience(&self) -> Duration {
        self.source.timeout + GRACE
    }

    pub(crate) fn question(&self) -> callouts::Request {
        let Source { service, path, timeout, .. } = &self.source;
        let question = callouts::Request::new(service, "GET", path).timeout(*timeout).answer_bytes(DOCUMENT);
        question.header("accept", "application/json")
    }

    /// Asks for the turn to fetch. Whoever gets it calls [`Jwks::settle`], [`Jwks::give_back`] or [`Jwks::leave`].
    pub(crate) fn turn(&mut self, purpose: Purpose, now: u64) -> Result<Turn, CallError> {
        let lease = self.slot(purpose.word())?;
        match kv::compare_and_swap(&lease, None, format!("busy {now}").as_bytes(), PAUSE) {
            Ok(()) => {
                self.learn()?;
                Ok(Turn::Mine)
            }
            Err(CallError::Changed) => self.of_another(&lease, now),
            Err(error) => Err(error),
        }
    }

    fn of_another(&mut self, lease: &[u8], now: u64) -> Result<Turn, CallError> {
        let told = match kv::get(lease)? {
            Some(told) if told != LEFT => told,
            // It can be had soon, or by now.
            None | Some(_) => return Ok(Turn::UnderWay),
        };
        let told = std::str::from_utf8(&told).unwrap_or_default();
        let number = |text: &str| text.parse::<u64>().ok();
        if let Some(since) = told.strip_prefix("busy ").and_then(number) {
            let is_asking = now < since.saturating_add(millis(self.patience()));
            return Ok(if is_asking { Turn::UnderWay } else { Turn::Over { news: false } });
        }
        let news = told.strip_prefix("done ").and_then(number).is_some_and(|at| at > self.at());
        if news {
            self.learn()?;
        }
        Ok(Turn::Over { news })
    }

    /// Takes what another worker has fetched.
    fn learn(&mut self) -> Result<(), CallError> {
        let slot = self.slot("keys")?;
        let kept = kv::get(&slot)?.and_then(|bytes| Held::read(&bytes));
        if let Some(kept) = kept.filter(|kept| kept.at > self.at()) {
            self.held = Some(kept);
        }
        Ok(())
    }

    /// Takes the answer, or that there is none. Gives the outcome as the metric names it, and how many keys were
    /// skipped.
    pub(crate) fn settle(&mut self, purpose: Purpose, now: u64, answer: Result<&Answer, &str>) -> (&'static str, u64) {
        let read = match answer {
            Ok(answer) => read(answer).map_err(|why| ("unusable", why)),
            Err(why) => Err(("failed", why.to_owned())),
        };
        let told = match read {
            Ok((keys, skipped)) => {
                self.keep(Held { at: now, keys });
                ("ok", skipped)
            }
            Err((outcome, why)) => {
                log::warn(&format!("no keys of {} by {}{}: {why}", self.issuer, self.source.service, self.source.path));
                (outcome, 0)
            }
        };
        self.end(purpose, if self.keys(now).is_some() { PAUSE } else { SHORT_PAUSE });
        told
    }

    fn keep(&mut self, held: Held) {
        let life = self.source.cache + self.source.stale;
        let kept = self.slot("keys").and_then(|slot| kv::set(&slot, &held.to_bytes(), life));
        if let Err(error) = kept {
            log::warn(&format!("the keys of {} are this worker's alone: {error}", self.issuer));
        }
        self.held = Some(held);
    }

    /// There is nothing to fetch any more.
    pub(crate) fn give_back(&mut self, purpose: Purpose) {
        self.end(purpose, SHORT_PAUSE);
    }

    /// The turn passes to others, which wait for it meanwhile: anybody can break off, as often as he likes.
    pub(crate) fn leave(&mut self, purpose: Purpose) {
        self.tell(purpose, LEFT, LEFT_PAUSE);
    }

    /// The lease stays for a while, and tells which keys there are.
    fn end(&mut self, purpose: Purpose, pause: Duration) {
        let told = format!("done {}", self.at());
        self.tell(purpose, told.as_bytes(), pause);
    }

    fn tell(&mut self, purpose: Purpose, told: &[u8], pause: Duration) {
        let ended = self.slot(purpose.word()).and_then(|lease| kv::set(&lease, told, pause));
        if let Err(error) = ended {
            log::warn(&format!("the keys of {}: {error}", self.issuer));
        }
    }

    fn at(&self) -> u64 {
        self.held.as_ref().map_or(0, |held| held.at)
    }

    /// The key of a value in `kv`: no keys of one issuer, service or path are taken for those of another.
    fn slot(&mut self, what: &str) -> Result<Vec<u8>, CallError> {
        let digest = match self.digest.take() {
            Some(digest) => digest,
            None => {
                let Source { service, path, .. } = &self.source;
                crypto::sha256([&*self.issuer, service, path].join("\n").as_bytes())?
            }
        };
        let slot = [&b"jwks "[..], what.as_bytes(), b" ", &digest].concat();
        self.digest = Some(digest);
        Ok(slot)
    }
}

/// A JSON Web Key Set.
//= rfc7517#section-5
#[derive(Deserialize)]
struct Document {
    keys: Vec<serde_json::Value>,
}

/// The keys of a document that can be used, and how many can't.
fn read(answer: &Answer) -> Result<(Vec<Key>, u64), String> {
    if answer.status != 200 {
        return Err(format!("an answer with status {}", answer.status));
    }
    let document: Document =
        serde_json::from_slice(&answer.body).map_err(|error| format!("an answer that is no JWKS: {error}"))?;
    let all = document.keys.len();
    let keys: Vec<Key> = document.keys.into_iter().filter_map(public).take(KEYS).collect();
    if keys.is_empty() {
        return Err(format!("none of its {all} keys can be used"));
    }
    let skipped = all - keys.len();
    Ok((keys, skipped as u64))
}

/// A public key of an algorithm that is known.
fn public(json: serde_json::Value) -> Option<Key> {
    let key = serde_json::from_value::<Jwk>(json).ok()?.key().ok()?;
    let fits = key.bytes.len() <= KEY && key.id.as_ref().is_none_or(|id| id.len() <= KEY_ID);
    (fits && key.algorithm != Algorithm::Hs256).then_some(key)
}

/// No length of an id.
const NO_ID: u16 = u16::MAX;

impl Held {
    /// The time, then each key: its algorithm, the length of its id or that it has none, the length of its bytes, both.
    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.at.to_le_bytes().to_vec();
        for key in &self.keys {
            let id = key.id.as_deref().unwrap_or_default();
            // Longer ones were skipped.
            let length = |text: &[u8]| u16::try_from(text.len()).unwrap_or(NO_ID);
            bytes.push(mark(key.algorithm));
            bytes.extend_from_slice(&key.id.as_ref().map_or(NO_ID, |id| length(id.as_bytes())).to_le_bytes());
            bytes.extend_from_slice(&length(&key.bytes).to_le_bytes());
            bytes.extend_from_slice(id.as_bytes());
            bytes.extend_from_slice(&key.bytes);
        }
        bytes
    }

    /// `None`: it was not written by this release.
    fn read(bytes: &[u8]) -> Option<Self> {
        let (at, mut rest) = bytes.split_first_chunk::<8>()?;
        let mut keys = Vec::new();
        while let Some(([algorithm, i0, i1, k0, k1], after)) = rest.split_first_chunk::<5>() {
            let id_length = u16::from_le_bytes([*i0, *i1]);
            let (id, after) = after.split_at_checked(if id_length == NO_ID { 0 } else { usize::from(id_length) })?;
            let (key, after) = after.split_at_checked(usize::from(u16::from_le_bytes([*k0, *k1])))?;
            let id = if id_length == NO_ID { None } else { Some(String::from_utf8(id.to_vec()).ok()?) };
            keys.push(Key { id, algorithm: marked(*algorithm)?, bytes: key.to_vec() });
            rest = after;
        }
        rest.is_empty().then_some(Self { at: u64::from_le_bytes(*at), keys })
    }
}

fn mark(algorithm: Algorithm) -> u8 {
    match algorithm {
        Algorithm::Hs256 => b'H',
        Algorithm::Rs256 => b'R',
        Algorithm::Es256 => b'E',
        Algorithm::Ed25519 => b'D',
    }
}

/// No secret is among them.
fn marked(mark: u8) -> Option<Algorithm> {
    match mark {
        b'R' => Some(Algorithm::Rs256),
        b'E' => Some(Algorithm::Es256),
        b'D' => Some(Algorithm::Ed25519),
        _ => None,
    }
}

pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_is_read_and_nothing_else() {
        let key =
            |id: Option<&str>, algorithm, length| Key { id: id.map(str::to_owned), algorithm, bytes: vec![7; length] };
        let long = "i".repeat(KEY_ID);
        let mut keys = vec![key(Some(&long), Algorithm::Rs256, KEY); KEYS - 2];
        keys.extend([key(None, Algorithm::Es256, 91), key(Some(""), Algorithm::Ed25519, 44)]);
        let held = Held { at: 5, keys };
        let bytes = held.to_bytes();
        assert!(bytes.len() <= 64 << 10, "a value of kv has no more: {}", bytes.len());
        assert_eq!(Held::read(&bytes), Some(held.clone()));
        let whole = |cut: &usize| Held::read(&bytes[..*cut]).is_some_and(|read| !held.keys.starts_with(&read.keys));
        assert_eq!((0..bytes.len()).find(whole), None, "what is cut has no key that was not there");
        let secret = Held { at: 5, keys: vec![key(None, Algorithm::Hs256, 32)] };
        assert_eq!(Held::read(&secret.to_bytes()), None);
    }
}
