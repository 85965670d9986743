//! Imports of contract 0.2: everything is linked, and what is not granted answers `denied`.

use std::collections::BTreeMap;
use std::sync::Arc;

use wasmtime::component::{HasSelf, Linker};
use weft_policy::secret::SecretBytes;

use super::{Level, LimitFault, millis};
use crate::bindings::v02::weft::filter::types::Error;
use crate::bindings::v02::weft::filter::{callouts, crypto, kv, log, metrics, secrets, token_bucket, types};
use crate::bucket::Limit;
use crate::callouts::{CalloutFault, Wanted};
use crate::crypto::{Algorithm, CryptoFault};
use crate::grants::Grants;
use crate::kv::{KvError, KvLimits, KvStore, Write};
use crate::metrics::CustomKind;
use crate::state::{ConfigShared, MAX_CALLOUTS, State};

pub(crate) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    types::add_to_linker::<_, HasSelf<_>>(linker, |state| state)?;
    log::add_to_linker::<_, HasSelf<_>>(linker, |state| state)?;
    metrics::add_to_linker::<_, HasSelf<_>>(linker, |state| state)?;
    token_bucket::add_to_linker::<_, HasSelf<_>>(linker, |state| state)?;
    kv::add_to_linker::<_, HasSelf<_>>(linker, |state| state)?;
    callouts::add_to_linker::<_, HasSelf<_>>(linker, |state| state)?;
    secrets::add_to_linker::<_, HasSelf<_>>(linker, |state| state)?;
    crypto::add_to_linker::<_, HasSelf<_>>(linker, |state| state)
}

impl State {
    /// Denies what is not granted to the configuration at hand, and notes it.
    fn granted(&self, capability: &'static str, is_granted: fn(&Grants) -> bool) -> Result<&Arc<ConfigShared>, Error> {
        let config = self.config().ok_or(Error::Denied)?;
        if !is_granted(&config.grants) {
            config.note_denial(capability);
            return Err(Error::Denied);
        }
        Ok(config)
    }

    fn kv(&self) -> Result<(&ConfigShared, &KvStore), Error> {
        let config = self.granted("kv", |grants| grants.kv.is_some())?;
        let store = config.kv.as_ref().ok_or(Error::Denied)?;
        Ok((&**config, &**store))
    }

    /// The same for a write, with what may be there after it.
    fn kv_write(&self, ttl_ms: u64) -> Result<(&ConfigShared, &KvStore, Write), Error> {
        let (config, store) = self.kv()?;
        let limits: KvLimits = config.grants.kv.ok_or(Error::Denied)?.into();
        Ok((config, store, Write { now: self.now(), ttl_ms, limits }))
    }
}

impl From<KvError> for Error {
    fn from(error: KvError) -> Self {
        match error {
            KvError::Full(reason) => Self::Full(reason),
            KvError::Invalid(reason) => Self::Invalid(reason),
            KvError::Changed => Self::Changed,
        }
    }
}

impl From<LimitFault> for Error {
    fn from(fault: LimitFault) -> Self {
        match fault {
            LimitFault::Full(reason) => Self::Full(reason),
            LimitFault::Invalid(reason) => Self::Invalid(reason),
        }
    }
}

impl From<CryptoFault> for Error {
    fn from(CryptoFault(reason): CryptoFault) -> Self {
        Self::Invalid(reason)
    }
}

impl types::Host for State {}

impl log::Host for State {
    fn write(&mut self, level: log::Level, message: String) {
        let level = match level {
            log::Level::Debug => Level::Debug,
            log::Level::Info => Level::Info,
            log::Level::Warn => Level::Warn,
            log::Level::Error => Level::Error,
        };
        self.log(level, message);
    }
}

impl metrics::Host for State {
    fn define(&mut self, kind: metrics::Kind, name: String, labels: Vec<String>) -> Result<u32, String> {
        let kind = match kind {
            metrics::Kind::Counter => CustomKind::Counter,
            metrics::Kind::Gauge => CustomKind::Gauge,
            metrics::Kind::Histogram => CustomKind::Histogram,
        };
        self.define_metric(kind, &name, labels)
    }

    fn add(&mut self, metric: u32, labels: Vec<String>, delta: u64) {
        self.add_to_metric(metric, labels, delta);
    }

    fn set(&mut self, metric: u32, labels: Vec<String>, value: f64) {
        self.set_metric(metric, labels, value);
    }

    fn observe(&mut self, metric: u32, labels: Vec<String>, value: f64) {
        self.observe_metric(metric, labels, value);
    }
}

const TOKEN_BUCKET: &str = "token-bucket";

impl token_bucket::Host for State {
    fn define(&mut self, limit: token_bucket::Limit) -> Result<u32, Error> {
        self.granted(TOKEN_BUCKET, |grants| grants.token_bucket)?;
        let token_bucket::Limit { name, tokens, period_ms, burst } = limit;
        Ok(self.define_limit(Limit { name, tokens, period_ms, burst })?)
    }

    fn take(&mut self, limit: u32, key: Vec<u8>, tokens: u32) -> Result<token_bucket::Taken, u64> {
        if self.granted(TOKEN_BUCKET, |grants| grants.token_bucket).is_err() {
            return Err(u64::MAX);
        }
        let left = self.take_tokens(limit, &key, tokens)?;
        Ok(token_bucket::Taken { remaining: left.remaining, reset_ms: millis(left.reset) })
    }

    fn give_back(&mut self, limit: u32, key: Vec<u8>, tokens: u32) {
        if self.granted(TOKEN_BUCKET, |grants| grants.token_bucket).is_ok() {
            self.give_tokens_back(limit, &key, tokens);
        }
    }
}

impl kv::Host for State {
    fn get(&mut self, key: Vec<u8>) -> Result<Option<Vec<u8>>, Error> {
        let (_, store) = self.kv()?;
        Ok(store.get(&key, self.now())?.map(|value| value.to_vec()))
    }

    fn set(&mut self, key: Vec<u8>, value: Vec<u8>, ttl_ms: u64) -> Result<(), Error> {
        let (config, store, write) = self.kv_write(ttl_ms)?;
        config.stats.kv_evictions.add(store.set(&key, &value, write)?);
        Ok(())
    }

    fn add(&mut self, key: Vec<u8>, delta: i64, ttl_ms: u64) -> Result<i64, Error> {
        let (config, store, write) = self.kv_write(ttl_ms)?;
        let (sum, evicted) = store.add(&key, delta, write)?;
        config.stats.kv_evictions.add(evicted);
        Ok(sum)
    }

    fn compare_and_swap(
        &mut self,
        key: Vec<u8>,
        expected: Option<Vec<u8>>,
        value: Vec<u8>,
        ttl_ms: u64,
    ) -> Result<(), Error> {
        let (config, store, write) = self.kv_write(ttl_ms)?;
        config.stats.kv_evictions.add(store.compare_and_swap(&key, expected.as_deref(), &value, write)?);
        Ok(())
    }

    fn remove(&mut self, key: Vec<u8>) -> Result<(), Error> {
        let (_, store) = self.kv()?;
        Ok(store.remove(&key)?)
    }
}

impl callouts::Host for State {
    fn send(&mut self, request: callouts::Request) -> Result<u32, Error> {
        let config = self.granted("callout", |grants| !grants.callouts.is_empty())?;
        if !self.takes_callout() {
            return Err(Error::Full(format!("at most {MAX_CALLOUTS} callouts for one wait")));
        }
        let callouts::Request { service, method, path, headers, body, timeout_ms, answer_bytes } = request;
        let headers = headers.into_iter().map(|field| (field.name, field.value)).collect();
        let wanted = Wanted { service, method, path, headers, body, timeout_ms, answer_bytes };
        let id = self.callout_id();
        let callout = wanted.checked(&config.grants, id).map_err(|fault| match fault {
            CalloutFault::Denied => {
                config.note_denial("callout");
                Error::Denied
            }
            CalloutFault::Nowhere(name) => Error::Other(format!("unresolved: there is no service or port for {name}")),
            CalloutFault::Invalid(reason) => Error::Invalid(reason),
        })?;
        self.push_callout(callout);
        Ok(id)
    }
}

const SECRET: &str = "secret";

impl secrets::Host for State {
    fn get(&mut self, name: String) -> Result<Vec<u8>, Error> {
        let config = self.granted(SECRET, |grants| !grants.secrets.is_empty())?;
        let value = named(config, &config.grants.secrets, &name, SECRET)?;
        Ok(value.reveal().to_vec())
    }
}

/// A value of this name; one that the grant does not name is denied, and noted.
fn named<'c>(
    config: &ConfigShared,
    values: &'c BTreeMap<String, SecretBytes>,
    name: &str,
    capability: &'static str,
) -> Result<&'c SecretBytes, Error> {
    values.get(name).ok_or_else(|| {
        config.note_denial(capability);
        Error::Denied
    })
}

const CRYPTO: &str = "crypto";

impl From<crypto::Algorithm> for Algorithm {
    fn from(algorithm: crypto::Algorithm) -> Self {
        match algorithm {
            crypto::Algorithm::Hs256 => Self::Hs256,
            crypto::Algorithm::Rs256 => Self::Rs256,
            crypto::Algorithm::Es256 => Self::Es256,
            crypto::Algorithm::Ed25519 => Self::Ed25519,
        }
    }
}

impl crypto::Host for State {
    fn sha256(&mut self, data: Vec<u8>) -> Result<Vec<u8>, Error> {
        self.granted(CRYPTO, |grants| grants.crypto)?;
        Ok(crate::crypto::sha256(&data)?)
    }

    fn verify(
        &mut self,
        algorithm: crypto::Algorithm,
        key: Vec<u8>,
        message: Vec<u8>,
        signature: Vec<u8>,
    ) -> Result<bool, Error> {
        self.granted(CRYPTO, |grants| grants.crypto)?;
        Ok(crate::crypto::verify(algorithm.into(), &key, &message, &signature)?)
    }

    fn verify_with(
        &mut self,
        algorithm: crypto::Algorithm,
        key: String,
        message: Vec<u8>,
        signature: Vec<u8>,
    ) -> Result<bool, Error> {
        let config = self.granted(CRYPTO, |grants| grants.crypto)?;
        let key = named(config, &config.grants.keys, &key, CRYPTO)?;
        Ok(crate::crypto::verify(algorithm.into(), key.reveal(), &message, &signature)?)
    }

    fn sign(&mut self, key: Vec<u8>, message: Vec<u8>) -> Result<Vec<u8>, Error> {
        self.granted(CRYPTO, |grants| grants.crypto)?;
        Ok(crate::crypto::sign(&key, &message)?)
    }

    fn sign_with(&mut self, key: String, message: Vec<u8>) -> Result<Vec<u8>, Error> {
        let config = self.granted(CRYPTO, |grants| grants.crypto)?;
        let key = named(config, &config.grants.keys, &key, CRYPTO)?;
        Ok(crate::crypto::sign(key.reveal(), &message)?)
    }

    fn random(&mut self, bytes: u32) -> Result<Vec<u8>, Error> {
        self.granted(CRYPTO, |grants| grants.crypto)?;
        Ok(crate::crypto::random(bytes)?)
    }
}
