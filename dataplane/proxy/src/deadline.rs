//! How long the caller of a request waits: read from its fields, told on as what is left of it, and held. It shortens what the
//! operator set and lengthens nothing, so that nobody has to be believed.

use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::time::Instant;
use weft_transport::http::RequestHead;

use crate::reply::Failure;
use crate::trial::End;

/// Milliseconds that the caller waits still, in any request: an app may say it, and is told it.
pub const WEFT_TIMEOUT_MS: HeaderName = HeaderName::from_static("weft-timeout-ms");
/// The same of a gRPC call (PROTOCOL-HTTP2.md of gRPC, `Timeout`).
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// The proxy of a callee holds a deadline so much longer than that of the caller, which is to end the request: its answer says
/// whose time was over. Not in the configuration: nobody waits for it.
const BEHIND: Duration = Duration::from_millis(50);

/// What the fields of a request said when it came.
#[derive(Debug, Clone, Copy)]
pub struct Said {
    /// By `weft-timeout-ms`.
    plain: Option<End>,
    came: Instant,
}

impl Said {
    /// Reads what only proxies pass on, before that is taken off. What can't be meant says nothing; of several values the least
    /// counts.
    pub fn read(headers: &HeaderMap) -> Self {
        let plain = least(headers, &WEFT_TIMEOUT_MS, weft_flow::timeout_ms);
        Self { plain: plain.map(End::told), came: Instant::now() }
    }

    /// Takes what a gRPC call says of it off the head, and puts both together. An upgraded request has no deadline.
    pub fn take(self, head: &mut RequestHead) -> Until {
        let headers = &mut head.headers;
        if head.protocol.is_some() {
            return Until::default();
        }
        let is_grpc = headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
        let grpc = is_grpc.then(|| least(headers, &GRPC_TIMEOUT, weft_flow::grpc_timeout)).flatten();
        if grpc.is_some() {
            headers.remove(GRPC_TIMEOUT);
        }
        let told = grpc.map(|wait| End::told(wait.saturating_sub(self.came.elapsed())));
        Until { end: End::earlier(self.plain, told), in_grpc: grpc.is_some() }
    }
}

/// The least of what the values of a field mean.
fn least(headers: &HeaderMap, name: &HeaderName, read: fn(&[u8]) -> Option<Duration>) -> Option<Duration> {
    headers.get_all(name).iter().filter_map(|value| read(value.as_bytes())).min()
}

/// The end of a request's time, and how its callee is told of it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Until {
    end: Option<End>,
    /// It was said by `grpc-timeout`, too.
    in_grpc: bool,
}

impl Until {
    /// The earlier of this and of what the operator set.
    #[must_use]
    pub fn and(self, limit: Option<Duration>) -> Self {
        Self { end: End::earlier(limit.and_then(End::after), self.end), ..self }
    }

    pub fn end(&self) -> Option<End> {
        self.end
    }

    /// The end for who only stands behind the one that holds it.
    pub fn end_behind(&self) -> Option<End> {
        self.end.map(|end| end.later(BEHIND))
    }

    /// An error where nothing is left: the request is not sent.
    ///
    /// # Errors
    /// Its time is over.
    pub fn check(&self) -> Result<(), Failure> {
        match self.end {
            Some(end) if end.left().is_zero() => Err(end.unsent()),
            Some(_) | None => Ok(()),
        }
    }

    /// The fields that tell what is left now.
    pub fn fields(&self) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
        let left = self.end.map(End::left);
        let plain = left.map(|left| (WEFT_TIMEOUT_MS, HeaderValue::from(weft_flow::timeout_ms_number(left))));
        plain.into_iter().chain(left.and_then(|left| self.grpc_field(left)))
    }

    /// Those of them that a callee without a proxy knows.
    pub fn plain_fields(&self) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
        self.end.and_then(|end| self.grpc_field(end.left())).into_iter()
    }

    fn grpc_field(&self, left: Duration) -> Option<(HeaderName, HeaderValue)> {
        let text = self.in_grpc.then(|| weft_flow::grpc_timeout_text(left))?;
        Some((GRPC_TIMEOUT, HeaderValue::try_from(text).expect("digits and a letter")))
    }
}

#[cfg(test)]
mod tests {
    use http::{Method, Version};
    use weft_transport::http::UpgradeToken;

    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let fields = fields.iter();
        fields.map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    fn head(fields: &[(&'static str, &'static str)]) -> RequestHead {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let path = Some("/".parse().unwrap());
        RequestHead { method: Method::POST, authority: None, path, protocol: None, headers, version: Version::HTTP_2 }
    }

    fn taken(fields: &[(&'static str, &'static str)], limit: Option<u64>) -> (Until, HeaderMap) {
        let mut head = head(fields);
        let until = Said::read(&head.headers).take(&mut head);
        (until.and(limit.map(Duration::from_millis)), head.headers)
    }

    const GRPC: (&str, &str) = ("content-type", "application/grpc+proto");

    /// What is told on; the clock stands still.
    #[tokio::test(start_paused = true)]
    async fn the_least_of_what_is_said_and_set_is_told_on() {
        fn check(fields: &[(&'static str, &'static str)], limit: Option<u64>, expect: &[(&'static str, &'static str)]) {
            let until = taken(fields, limit).0;
            assert_eq!(until.fields().collect::<HeaderMap>(), headers(expect), "{fields:?} within {limit:?}");
        }
        check(&[], None, &[]);
        check(&[], Some(10_000), &[("weft-timeout-ms", "10000")]);
        check(&[("weft-timeout-ms", "250")], None, &[("weft-timeout-ms", "250")]);
        check(&[("weft-timeout-ms", "250")], Some(10_000), &[("weft-timeout-ms", "250")]);
        // Nobody lengthens what the operator set.
        check(&[("weft-timeout-ms", "20000")], Some(10_000), &[("weft-timeout-ms", "10000")]);
        check(&[("weft-timeout-ms", "99999999999999")], Some(10_000), &[("weft-timeout-ms", "10000")]);
        check(&[("weft-timeout-ms", "soon")], None, &[]);
        check(&[("weft-timeout-ms", "900"), ("weft-timeout-ms", "70")], None, &[("weft-timeout-ms", "70")]);
        let both = [("weft-timeout-ms", "5000"), ("grpc-timeout", "5000000u")];
        check(&[GRPC, ("grpc-timeout", "5S")], None, &both);
        check(&[GRPC, ("grpc-timeout", "5S")], Some(6_000), &both);
        let both = [("weft-timeout-ms", "70"), ("grpc-timeout", "70000000n")];
        check(&[GRPC, ("grpc-timeout", "5S"), ("weft-timeout-ms", "70")], None, &both);
        check(&[GRPC, ("grpc-timeout", "5S"), ("grpc-timeout", "70m")], Some(200), &both);
        // Of what is no gRPC call it is a field as any other.
        check(&[("grpc-timeout", "5S")], None, &[]);
    }

    #[test]
    fn a_grpc_timeout_that_means_nothing_is_the_apps() {
        for value in ["5s", "", "99999999H", "123456789m"] {
            let (until, left) = taken(&[GRPC, ("grpc-timeout", value)], None);
            assert!(until.end().is_none() && left["grpc-timeout"] == value, "{value:?}");
        }
        assert_eq!(taken(&[GRPC, ("grpc-timeout", "5S")], None).1, headers(&[GRPC]), "it is told as what is left");
        let plain = [("content-type", "text/plain"), ("grpc-timeout", "5S")];
        assert_eq!(taken(&plain, None).1, headers(&plain));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_left_shrinks_to_nothing() {
        let (until, _) = taken(&[GRPC, ("grpc-timeout", "100m")], Some(500));
        let told = || until.fields().map(|(_, value)| value.to_str().unwrap().to_owned()).collect::<Vec<_>>();
        assert_eq!(told(), ["100", "100000u"]);
        assert_eq!(until.plain_fields().count(), 1);
        tokio::time::advance(Duration::from_millis(60)).await;
        assert_eq!(told(), ["40", "40000000n"]);
        assert!(until.check().is_ok());
        tokio::time::advance(Duration::from_millis(40)).await;
        assert_eq!(told(), ["0", "0n"]);
        assert!(matches!(until.check(), Err(Failure::NoTimeLeft)));
        assert_eq!(until.end_behind().unwrap().left(), BEHIND);
        // The operator's own is told as it always was.
        let (own, _) = taken(&[], Some(5));
        tokio::time::advance(Duration::from_millis(5)).await;
        assert!(matches!(own.check(), Err(Failure::Timeout(5))));
        // Time that went by before the fields were read counts.
        let mut late = head(&[GRPC, ("grpc-timeout", "100m")]);
        let said = Said::read(&late.headers);
        tokio::time::advance(Duration::from_millis(70)).await;
        assert_eq!(said.take(&mut late).end().unwrap().left(), Duration::from_millis(30));
        assert!(taken(&[("weft-timeout-ms", "0")], None).0.check().is_err());
    }

    #[test]
    fn an_upgraded_request_has_none() {
        let upgraded = head(&[("weft-timeout-ms", "5")]);
        let mut upgraded = RequestHead { protocol: UpgradeToken::new("websocket"), ..upgraded };
        assert!(Said::read(&upgraded.headers).take(&mut upgraded).end().is_none());
    }
}
