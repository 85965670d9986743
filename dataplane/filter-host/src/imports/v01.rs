//! Imports of contract 0.1: a component is linked with what is granted and nothing else.

use wasmtime::component::{HasSelf, Linker};

use super::{Level, LimitFault};
use crate::bindings::v01::weft::filter::{log, metrics, token_bucket, types};
use crate::bucket::Limit;
use crate::metrics::CustomKind;
use crate::state::State;

/// The imports of the world, and the capability that each needs.
pub(crate) const IMPORTS: [(&str, Option<&str>); 4] = [
    ("weft:filter/types@0.1.0", None),
    ("weft:filter/log@0.1.0", None),
    ("weft:filter/metrics@0.1.0", None),
    ("weft:filter/token-bucket@0.1.0", Some("token-bucket")),
];

/// A linker that offers what was granted and nothing else.
pub(crate) fn link(linker: &mut Linker<State>, granted: &[String]) -> wasmtime::Result<()> {
    types::add_to_linker::<_, HasSelf<_>>(linker, |state| state)?;
    log::add_to_linker::<_, HasSelf<_>>(linker, |state| state)?;
    metrics::add_to_linker::<_, HasSelf<_>>(linker, |state| state)?;
    if granted.iter().any(|capability| capability == "token-bucket") {
        token_bucket::add_to_linker::<_, HasSelf<_>>(linker, |state| state)?;
    }
    Ok(())
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
    fn define(&mut self, kind: metrics::Kind, name: String) -> Result<u32, String> {
        let kind = match kind {
            metrics::Kind::Counter => CustomKind::Counter,
            metrics::Kind::Gauge => CustomKind::Gauge,
            metrics::Kind::Histogram => CustomKind::Histogram,
        };
        self.define_metric(kind, &name, Vec::new())
    }

    fn add(&mut self, metric: u32, delta: u64) {
        self.add_to_metric(metric, Vec::new(), delta);
    }

    fn set(&mut self, metric: u32, value: f64) {
        self.set_metric(metric, Vec::new(), value);
    }

    fn observe(&mut self, metric: u32, value: f64) {
        self.observe_metric(metric, Vec::new(), value);
    }
}

impl token_bucket::Host for State {
    fn define(&mut self, limit: token_bucket::Limit) -> Result<u32, String> {
        let token_bucket::Limit { name, tokens, period_ms, burst } = limit;
        self.define_limit(Limit { name, tokens, period_ms, burst }).map_err(|fault| match fault {
            LimitFault::Full(reason) | LimitFault::Invalid(reason) => reason,
        })
    }

    fn take(&mut self, limit: u32, key: Vec<u8>, tokens: u32) -> Result<(), u64> {
        self.take_tokens(limit, &key, tokens).map(drop)
    }

    fn give_back(&mut self, limit: u32, key: Vec<u8>, tokens: u32) {
        self.give_tokens_back(limit, &key, tokens);
    }
}
