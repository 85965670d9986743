//! The process log: structured lines on standard error, filtered by a level that can be changed while running.

use tracing_subscriber::filter::{EnvFilter, filter_fn};
use tracing_subscriber::layer::Layer as _;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Registry, fmt, reload};
use weft_policy::text::{OneLine, mistyped_level, no_level};

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
        let lines = fmt::layer().with_writer(|| OneLine(std::io::stderr())).with_ansi(false);
        let lines = lines.with_filter(filter_fn(|record| !is_of_strangers(record.target(), *record.level())));
        tracing_subscriber::registry().with(layer).with(lines).try_init().map_err(|error| error.to_string())?;
        Ok(Self(handle))
    }

    /// One that changes nothing, for tests.
    #[cfg(test)]
    pub fn detached() -> Self {
        Self(reload::Layer::new(parse("info").expect("a level")).1)
    }

    pub fn set(&self, filter: &str) -> Result<(), String> {
        self.0.reload(parse(filter)?).map_err(|error| error.to_string())
    }

    pub fn current(&self) -> String {
        self.0.with_current(ToString::to_string).unwrap_or_default()
    }
}

/// True for warnings that the crate `h2` writes for each frame that it doesn't expect: an application could fill the disk
/// with them. What comes of such frames is counted and told where the connection ends.
fn is_of_strangers(target: &str, level: tracing::Level) -> bool {
    level == tracing::Level::WARN && (target == "h2" || target.starts_with("h2::"))
}

/// Checks a filter without starting anything.
///
/// # Errors
/// Says what is wrong with it.
pub fn check(filter: &str) -> Result<(), String> {
    parse(filter).map(drop)
}

fn parse(filter: &str) -> Result<EnvFilter, String> {
    if let Some(word) = mistyped_level(filter) {
        return Err(no_level(word));
    }
    EnvFilter::builder().parse(filter).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn frames_of_strangers_have_no_lines() {
        use tracing::Level;
        assert!(is_of_strangers("h2::proto::ping_pong", Level::WARN));
        assert!(!is_of_strangers("h2::proto::ping_pong", Level::ERROR));
        assert!(!is_of_strangers("h2client", Level::WARN) && !is_of_strangers("weft_proxy", Level::WARN));
    }

    #[test]
    fn a_record_stays_one_line() {
        let lines = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        #[derive(Clone)]
        struct Kept(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);
        impl Write for Kept {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.0.lock().unwrap().extend_from_slice(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let kept = Kept(std::sync::Arc::clone(&lines));
        let layer = fmt::layer().with_writer(move || OneLine(kept.clone())).with_ansi(false);
        let told = "bye\n2030-01-01T00:00:00Z  INFO all is well \x1b[2J";
        tracing::subscriber::with_default(Registry::default().with(layer), || {
            tracing::warn!(reason = %told, "closed");
        });
        let text = String::from_utf8(lines.lock().unwrap().clone()).unwrap();
        assert_eq!(text.matches('\n').count(), 1, "{text:?}");
        assert!(text.ends_with('\n') && text.contains("bye\\n2030") && !text.contains('\x1b'), "{text:?}");
    }

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
