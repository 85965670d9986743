//! How a request to change protocols travels in HTTP/2 and HTTP/3 (RFC 8441, RFC 9220). In the process it is a request with
//! `protocol`, as HTTP/1 has it. A GET for `websocket` goes by its name; every other token, and every other method, only
//! between two Weft proxies.

use std::ops::Deref;

use aws_lc_rs::{digest, rand};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use smallvec::SmallVec;

/// `:protocol` of a token that has no name of its own in HTTP/2 and HTTP/3.
const ANY: &[u8] = b"weft-upgrade";
/// `:protocol` of what is not asked for by GET. A name of its own: a proxy that doesn't know it answers 501 and never takes
/// the request for a GET.
const ANY_BY_METHOD: &[u8] = b"weft-upgrade-by-method";
const WEBSOCKET: &[u8] = b"websocket";
/// The token that `weft-upgrade` stands for.
const WEFT_UPGRADE: HeaderName = HeaderName::from_static("weft-upgrade");
/// The method of `weft-upgrade-by-method`.
const WEFT_METHOD: HeaderName = HeaderName::from_static("weft-method");
/// The success of an app that answered the request and changed no protocol: on the wire a success would mean it did.
const WEFT_STATUS: HeaderName = HeaderName::from_static("weft-status");

const KEY: HeaderName = HeaderName::from_static("sec-websocket-key");
const ACCEPT: HeaderName = HeaderName::from_static("sec-websocket-accept");

/// A protocol that a request may ask to change to: `protocol-name ["/" protocol-version]` (RFC 9110 section 7.8).
///
/// None is another version of HTTP, or TLS under HTTP: the client could send requests in it that nobody has judged, and
/// the app would take them for the mesh's. Every codec makes its `protocol` here, and nothing else is sent to anybody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpgradeToken(Bytes);

/// A character of a token, as methods, names of fields and protocols are.
//= rfc9110#section-5.6.2
pub(crate) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Bytes of an upgrade token.
const MAX_TOKEN: usize = 64;

/// Beginnings, in lower case, of the names under which an app may go on with requests. All that begins so is one of them,
/// drafts and names to come included (`h2c-14`). A name of no such kind says that its protocol is the app's own.
const OF_REQUESTS: [&[u8]; 8] = [b"http", b"shttp", b"h2", b"h3", b"hq", b"tls", b"ssl", b"dtls"];

impl UpgradeToken {
    /// `None`: malformed, or a protocol of requests.
    #[must_use]
    pub fn new(token: impl Into<Bytes>) -> Option<Self> {
        let token = token.into();
        let of_token = |byte: &u8| is_token(*byte) || *byte == b'/';
        let is_named = (1..=MAX_TOKEN).contains(&token.len()) && token[0] != b'/' && token.iter().all(of_token);
        let begins = |name: &[u8]| token.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name));
        (is_named && !OF_REQUESTS.iter().any(|name| begins(name))).then_some(Self(token))
    }

    /// True for a protocol whose bytes are messages between a client and its app, and never a request.
    #[must_use]
    pub fn is_websocket(&self) -> bool {
        self.eq_ignore_ascii_case(WEBSOCKET)
    }
}

impl Deref for UpgradeToken {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

/// True for a method that may ask for another protocol: one whose answer can have content, where it is refused.
pub(crate) fn may_ask(method: &Method) -> bool {
    !matches!(*method, Method::CONNECT | Method::HEAD | Method::TRACE)
}

/// A request to change protocols on the wire.
#[derive(Debug)]
pub(crate) struct ExtendedConnect {
    pub(crate) protocol: &'static [u8],
    /// Fields that go with it between two Weft proxies. If there are none, every peer understands it.
    pub(crate) fields: SmallVec<[(HeaderName, HeaderValue); 2]>,
}

/// The extended CONNECT that asks for what HTTP/1 asks for by this method and token.
pub(crate) fn to_wire(method: &Method, token: &UpgradeToken) -> ExtendedConnect {
    let by_get = *method == Method::GET;
    let mut fields = SmallVec::new();
    if by_get && token.is_websocket() {
        return ExtendedConnect { protocol: WEBSOCKET, fields };
    }
    // A token or method that is no field value names nothing, and the peer answers so.
    fields.extend(HeaderValue::from_maybe_shared(token.0.clone()).ok().map(|value| (WEFT_UPGRADE, value)));
    if by_get {
        return ExtendedConnect { protocol: ANY, fields };
    }
    fields.extend(HeaderValue::from_str(method.as_str()).ok().map(|value| (WEFT_METHOD, value)));
    ExtendedConnect { protocol: ANY_BY_METHOD, fields }
}

/// The method and token that `:protocol` means; `None`: one that is not known here, or not carried. `ours`: the other side
/// is a proxy of a mesh, which may be told more words, but is believed no more.
pub(crate) fn from_wire(protocol: &[u8], headers: &mut HeaderMap, ours: bool) -> Option<(Method, UpgradeToken)> {
    let (token, method) = (headers.remove(WEFT_UPGRADE), headers.remove(WEFT_METHOD));
    let token = || token.and_then(|token| UpgradeToken::new(Bytes::copy_from_slice(token.as_bytes())));
    //= rfc9110#section-7.8
    // Names of protocols are compared without regard to case.
    if protocol.eq_ignore_ascii_case(WEBSOCKET) {
        return Some((Method::GET, UpgradeToken(Bytes::from_static(WEBSOCKET))));
    }
    match protocol {
        ANY if ours => Some((Method::GET, token()?)),
        ANY_BY_METHOD if ours => {
            let method = Method::from_bytes(method?.as_bytes()).ok().filter(may_ask)?;
            Some((method, token()?))
        }
        _ => None,
    }
}

/// The answer to a request to change protocols as it goes on the wire: 101 is 200, and a success that changed nothing
/// must not look like one. `ours`: the peer is a Weft proxy, which is told the app's own status.
pub(crate) fn answer_to_wire(status: StatusCode, ours: bool) -> (StatusCode, Option<(HeaderName, HeaderValue)>) {
    if status == StatusCode::SWITCHING_PROTOCOLS {
        return (StatusCode::OK, None);
    }
    if !status.is_success() {
        return (status, None);
    }
    (StatusCode::NOT_IMPLEMENTED, ours.then(|| (WEFT_STATUS, HeaderValue::from(status.as_u16()))))
}

/// The reverse of [`answer_to_wire`].
pub(crate) fn answer_from_wire(status: StatusCode, headers: &mut HeaderMap, ours: bool) -> StatusCode {
    let told = headers.remove(WEFT_STATUS).filter(|_| ours && status == StatusCode::NOT_IMPLEMENTED);
    if status.is_success() {
        return StatusCode::SWITCHING_PROTOCOLS;
    }
    let told = told.and_then(|told| StatusCode::from_bytes(told.as_bytes()).ok());
    told.filter(StatusCode::is_success).unwrap_or(status)
}

/// Puts the key on a WebSocket request that came without: HTTP/1 has a handshake where HTTP/2 has none.
//= rfc8441#section-5
pub(crate) fn add_key(headers: &mut HeaderMap) {
    let mut random = [0; 16];
    if !headers.contains_key(KEY) && rand::fill(&mut random).is_ok() {
        headers.insert(KEY, base64(&random));
    }
}

/// Takes the key off a WebSocket request; gives the `sec-websocket-accept` that its sender waits for.
pub(crate) fn take_key(headers: &mut HeaderMap) -> Option<HeaderValue> {
    headers.remove(KEY).map(|key| accept_of(key.as_bytes()))
}

/// The proof that a server read the key (RFC 6455 section 4.2.2).
fn accept_of(key: &[u8]) -> HeaderValue {
    let mut proof = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    proof.update(key);
    proof.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    base64(proof.finish().as_ref())
}

/// Completes the head of a WebSocket that was accepted without a handshake.
pub(crate) fn add_accept(headers: &mut HeaderMap, accept: HeaderValue) {
    headers.insert(ACCEPT, accept);
}

/// Removes what HTTP/2 doesn't use.
pub(crate) fn take_accept(headers: &mut HeaderMap) {
    headers.remove(ACCEPT);
}

fn base64(bytes: &[u8]) -> HeaderValue {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = Vec::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let [a, b, c] = [0, 1, 2].map(|index| u32::from(group.get(index).copied().unwrap_or(0)));
        let bits = a << 16 | b << 8 | c;
        for place in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * place) & 63) as usize];
            text.push(if place > group.len() { b'=' } else { digit });
        }
    }
    HeaderValue::try_from(text).expect("base64 is printable ASCII")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_proof_is_that_of_the_rfc() {
        // RFC 6455 section 1.3.
        assert_eq!(accept_of(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!([&b""[..], b"f", b"fo", b"foo", b"foob"].map(base64), ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg=="]);
    }

    #[test]
    fn tokens_and_methods_come_back() {
        for (method, token, protocol) in [
            ("GET", "websocket", WEBSOCKET),
            ("GET", "WebSocket", WEBSOCKET),
            ("GET", "foo/1.0", ANY),
            ("POST", "tcp", ANY_BY_METHOD),
            ("POST", "websocket", ANY_BY_METHOD),
            ("X-OWN", "SPDY/3.1", ANY_BY_METHOD),
        ] {
            let wire = to_wire(&method.parse().unwrap(), &UpgradeToken::new(token).unwrap());
            assert_eq!(wire.protocol, protocol);
            let mut headers: HeaderMap = wire.fields.into_iter().collect();
            let (by, back) = from_wire(protocol, &mut headers, true).unwrap();
            assert!(back.eq_ignore_ascii_case(token.as_bytes()) && headers.is_empty());
            assert_eq!(by.as_str(), method);
        }
        let websocket = from_wire(b"WebSocket", &mut HeaderMap::new(), false).unwrap();
        assert_eq!(websocket, (Method::GET, UpgradeToken::new("websocket").unwrap()), "in any case");
        for method in ["HEAD", "CONNECT", "TRACE", "G T", ""] {
            let said =
                [(WEFT_UPGRADE, "tcp"), (WEFT_METHOD, method)].map(|(name, value)| (name, value.parse().unwrap()));
            assert_eq!(from_wire(ANY_BY_METHOD, &mut said.into_iter().collect(), true), None, "{method}");
        }
        let mut said: HeaderMap = [(WEFT_UPGRADE, HeaderValue::from_static("foo"))].into_iter().collect();
        assert_eq!(from_wire(ANY, &mut said.clone(), false), None, "an app has no such word");
        assert_eq!(from_wire(b"connect-udp", &mut said, true), None);
        assert_eq!(from_wire(ANY, &mut HeaderMap::new(), true), None);
        let mut bad: HeaderMap = [(WEFT_UPGRADE, HeaderValue::from_static("a b"))].into_iter().collect();
        assert_eq!(from_wire(ANY, &mut bad, true), None);
    }

    /// What a peer says is judged as what an app says is.
    #[test]
    fn no_name_leads_to_another_kind_of_requests() {
        let long = "a".repeat(MAX_TOKEN + 1);
        for token in [
            "h2c",
            "H2C",
            "h2",
            "h2c-14",
            "h2c/1",
            "h3",
            "h3-29",
            "hq-interop",
            "HTTP/2.0",
            "http/1.1",
            "HTTP",
            "https",
            "SHTTP/1.3",
            "TLS/1.0",
            "tls",
            "tls1.3",
            "SSL/3",
            "DTLS/1.2",
            "",
            "/",
            "/h2c",
            "a b",
            "a,h2c",
            "a;b",
            "\u{e9}",
            &long,
        ] {
            assert_eq!(UpgradeToken::new(token.to_owned()), None, "{token:?}");
            let Ok(value) = HeaderValue::from_bytes(token.as_bytes()) else { continue };
            let mut headers: HeaderMap =
                [(WEFT_UPGRADE, value), (WEFT_METHOD, "POST".parse().unwrap())].into_iter().collect();
            assert_eq!(from_wire(ANY, &mut headers.clone(), true), None, "{token:?}");
            assert_eq!(from_wire(ANY_BY_METHOD, &mut headers, true), None, "{token:?}");
            assert_eq!(from_wire(token.as_bytes(), &mut HeaderMap::new(), true), None, "{token:?}");
        }
        for token in ["websocket", "tcp", "SPDY/3.1", "chat", "DERP", "connect-udp", "PTTH/1.0", "IRC/6.9", "x-h2c"] {
            assert_eq!(UpgradeToken::new(token).as_deref(), Some(token.as_bytes()));
        }
    }

    #[test]
    fn answers_come_back() {
        for status in [101, 200, 204, 400, 426, 501, 302].map(|status| StatusCode::from_u16(status).unwrap()) {
            let (wire, field) = answer_to_wire(status, true);
            assert_eq!(wire.is_success(), status == StatusCode::SWITCHING_PROTOCOLS);
            let mut headers: HeaderMap = field.into_iter().collect();
            assert_eq!(answer_from_wire(wire, &mut headers, true), status);
            assert!(headers.is_empty());
        }
        assert_eq!(answer_to_wire(StatusCode::OK, false), (StatusCode::NOT_IMPLEMENTED, None));
    }
}
