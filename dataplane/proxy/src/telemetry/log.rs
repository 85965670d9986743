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

fn parse(filter: &str) -> Result<EnvFilter, String> {
    EnvFilter::builder().parse(filter).map_err(|error| error.to_string())
}
