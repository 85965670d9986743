//! Fields that proxies say to each other on nearly every request. They are known by name here, so that reading them takes no
//! allocation.

use http::HeaderName;

/// The app socket at the far end.
pub const WEFT_DST: HeaderName = HeaderName::from_static("weft-dst");
/// The calling workload, for metric labels only: `name;app;version`.
pub const WEFT_SOURCE: HeaderName = HeaderName::from_static("weft-source");
/// The HTTP version that the calling app spoke: `1.0`, `1.1` or `2`.
pub const WEFT_VERSION: HeaderName = HeaderName::from_static("weft-version");
/// Milliseconds that the caller waits still, in any request: an app may say it, and is told it.
pub const WEFT_TIMEOUT_MS: HeaderName = HeaderName::from_static("weft-timeout-ms");
/// Milliseconds that are left of what only the operator set, from one proxy to another. A proxy of an earlier release takes it
/// off and holds what the caller said.
pub const WEFT_ANSWER_MS: HeaderName = HeaderName::from_static("weft-answer-ms");

/// The field whose name these bytes are.
pub(crate) fn named(name: &[u8]) -> Option<HeaderName> {
    match name {
        b"weft-dst" => Some(WEFT_DST),
        b"weft-source" => Some(WEFT_SOURCE),
        b"weft-version" => Some(WEFT_VERSION),
        b"weft-timeout-ms" => Some(WEFT_TIMEOUT_MS),
        b"weft-answer-ms" => Some(WEFT_ANSWER_MS),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_known_by_its_name() {
        for name in [WEFT_DST, WEFT_SOURCE, WEFT_VERSION, WEFT_TIMEOUT_MS, WEFT_ANSWER_MS] {
            assert_eq!(named(name.as_str().as_bytes()), Some(name));
        }
        assert_eq!([named(b"weft-"), named(b"weft-dst-2"), named(b"accept"), named(b"")], [None, None, None, None]);
    }
}
