//! The process log: structured lines on standard error, filtered by a level that can be changed while running.

use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Registry, fmt, reload};

/// The handle that changes the level.
#[derive(Clone)]
pub struct LogLevel(reload::Handle<EnvFilter, Registry>);

impl LogLevel {
    /// Starts the log. `WEFT_LOG` overrides `filter`.
    ///
    /// # Errors
    /// The filter cannot be parsed; the message says where.
    pub fn init(filter: &str) -> Result<Self, String> {
        let filter = std::env::var("WEFT_LOG").unwrap_or_else(|_| filter.to_owned());
        let (layer, handle) = reload::Layer::new(parse(&filter)?);
        let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(false);
        tracing_subscriber::registry().with(layer).with(lines).try_init().map_err(|error| error.to_string())?;
        Ok(Self(handle))
    }

    pub fn set(&self, filter: &str) -> Result<(), String> {
        self.0.reload(parse(filter)?).map_err(|error| error.to_string())
    }

    pub fn current(&self) -> String {
        self.0.with_current(ToString::to_string).unwrap_or_default()
    }
}

/// Checks a filter without starting anything.
///
/// # Errors
/// Says what is wrong with it.
pub fn check(filter: &str) -> Result<(), String> {
    parse(filter).map(drop)
}

/// A word that is neither a level nor `TARGET=LEVEL` is taken for a target by tracing, and everything else falls silent.
fn parse(filter: &str) -> Result<EnvFilter, String> {
    let alone = filter.split(',').map(str::trim).find(|part| {
        let plain = part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        plain && (part.is_empty() || part.parse::<tracing_subscriber::filter::LevelFilter>().is_err())
    });
    if let Some(word) = alone {
        return Err(format!("'{word}' is no level; levels are off, error, warn, info, debug, trace, or TARGET=LEVEL"));
    }
    EnvFilter::builder().parse(filter).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_level_is_refused() {
        for good in ["info", "DEBUG", "off", "weft_proxy=debug,info", "warn,weft_transport::quic=trace"] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in ["inof", "bogus=nolevel", "info,debgu", ""] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
