//! The header fields that two Weft proxies say to each other on a request, and their stripping at both ends: nothing an
//! app sends under these names reaches a peer, nothing a peer sends under them reaches an app.

use std::net::SocketAddr;

use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, Version};
use smallvec::SmallVec;
use tokio::time::Instant;
use weft_flow::WHOLE_RETRY;
use weft_policy::authz::{is_alike, is_of_mesh};
use weft_policy::bundle::ServedWorkload;
use weft_policy::identity::SpiffeId;
use weft_transport::between::{WEFT_DST, WEFT_SOURCE, WEFT_VERSION};
use weft_transport::http::{Added, RequestHead, WEFT_OFFERS, WEFT_REASON};

use crate::deadline::{self, Until};
use crate::telemetry::series::Peer;
use crate::telemetry::sources;

/// Identity of the caller, as the app is told (Envoy's field; sanitised on every hop).
pub const X_FORWARDED_CLIENT_CERT: HeaderName = HeaderName::from_static(CLIENT_CERT);
pub(crate) const CLIENT_CERT: &str = "x-forwarded-client-cert";

/// On a copy of a request that a route mirrors, for the callee's metrics and access log.
pub const WEFT_MIRRORED: HeaderName = HeaderName::from_static("weft-mirrored");

/// On a request that a filter has sent to a service: it is refused where a filter that judges it there would ask a service, too.
/// The caller's proxy puts it there, after it took off what its app said. Whoever else has an identity of the mesh can put it on
/// a request of its own, which is judged no more loosely for it.
pub const WEFT_CALLOUT: HeaderName = HeaderName::from_static("weft-callout");

/// Removes everything that only proxies may say.
pub fn strip(headers: &mut HeaderMap) {
    if !headers.keys().any(is_internal) {
        return;
    }
    let names: SmallVec<[HeaderName; USUAL_FIELDS]> =
        headers.keys().filter(|name| is_internal(name)).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

/// True for what only proxies may say, also in a spelling that servers fold into it (`_` is `-` in CGI and WSGI).
fn is_internal(name: &HeaderName) -> bool {
    is_of_mesh(name.as_str()) || is_alike(name.as_str(), CLIENT_CERT)
}

/// Removes from a response what only proxies may say to each other. What HTTP/1 alone can say of an answer stays for a
/// client that speaks it (`http1`), or for the proxy of one.
pub fn strip_response(headers: &mut HeaderMap, http1: bool) {
    let internal =
        |name: &HeaderName| is_of_mesh(name.as_str()) && !(http1 && (*name == WEFT_REASON || *name == WEFT_OFFERS));
    let names: Vec<HeaderName> = headers.keys().filter(|name| internal(name)).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

/// The value of `weft-source` for a workload. Labels are refused elsewhere if they hold anything but letters, digits, `-`,
/// `_` and `.`; one that does all the same, of an older store, costs neither the workload's name nor the other label.
pub fn source_value(workload: &ServedWorkload) -> HeaderValue {
    let fit = |char: char| if char.is_ascii_alphanumeric() || matches!(char, '-' | '_' | '.') { char } else { '_' };
    let label = |name: &str| workload.labels.get(name).map(|text| text.chars().map(fit).collect()).unwrap_or_default();
    let (app, version): (String, String) = (label("app"), label("version"));
    let text = format!("{};{app};{version}", workload.name.name);
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(";;"))
}

/// Says that a request came without an authority (HTTP/1.0 without Host): the app is sent none either.
pub const WEFT_NO_HOST: HeaderName = HeaderName::from_static("weft-no-host");

/// Counts the attempts of a request that is sent again although somebody may have acted on it, for the app: from 2.
pub const WEFT_ATTEMPT: HeaderName = HeaderName::from_static("weft-attempt");

/// Says which part of the requests that this one may have come of were retries, in ten thousandths, where it is none itself. An
/// older proxy does not look at it.
pub const WEFT_BEHIND: HeaderName = HeaderName::from_static("weft-behind");

/// Fields that are stamped and stripped without an allocation: those of a request whose time ends, and that is no gRPC call.
const USUAL_FIELDS: usize = 4;

/// Fields and authority that the outbound side sends to one endpoint's proxy beside the stripped head of a request.
pub struct Stamp {
    fields: SmallVec<[(HeaderName, HeaderValue); USUAL_FIELDS]>,
    authority: Option<Authority>,
}

impl Stamp {
    /// `repeat`: how often the request was sent before, to those who may have acted on it.
    pub fn new(head: &RequestHead, destination: &HeaderValue, source: &HeaderValue, repeat: u32) -> Self {
        let version = match head.version {
            Version::HTTP_2 | Version::HTTP_3 => "2",
            Version::HTTP_10 | Version::HTTP_09 => "1.0",
            _ => "1.1",
        };
        let made_up = || destination.to_str().ok().and_then(|text| text.parse().ok());
        let authority: Option<Authority> = if head.authority.is_none() { made_up() } else { None };
        let mut fields = SmallVec::new();
        fields.push((WEFT_DST, destination.clone()));
        fields.push((WEFT_SOURCE, source.clone()));
        fields.push((WEFT_VERSION, HeaderValue::from_static(version)));
        if repeat > 0 {
            fields.push((WEFT_ATTEMPT, HeaderValue::from(repeat.saturating_add(1))));
        }
        if authority.is_some() {
            fields.push((WEFT_NO_HOST, HeaderValue::from_static("1")));
        }
        Self { fields, authority }
    }

    /// Tells how much of a retry a first attempt stands for, too.
    pub fn behind(mut self, parts: u64) -> Self {
        if parts > 0 && !self.fields.iter().any(|(name, _)| *name == WEFT_ATTEMPT) {
            self.fields.push((WEFT_BEHIND, HeaderValue::from(parts)));
        }
        self
    }

    /// Tells what is left of the request's time, too.
    pub fn telling(mut self, until: &Until) -> Self {
        self.fields.extend(until.to_proxy(Instant::now()));
        self
    }

    pub fn added(&self) -> Added<'_> {
        Added { authority: self.authority.as_ref(), fields: &self.fields }
    }
}

/// Fields in which a peer's proxy describes a request, taken off its head.
#[derive(Debug, Clone)]
pub struct Said {
    pub destination: Option<SocketAddr>,
    pub source: Option<HeaderValue>,
    pub version: Version,
    /// It is a copy of a request that its caller's route mirrors.
    pub mirrored: bool,
    /// A filter of its caller has sent it.
    pub is_callout: bool,
    /// Parts of a retry that it stands for: all where its caller's proxy has sent it before, to somebody who may have acted on
    /// it; else as many as that proxy was told of.
    pub retried: u64,
    /// How long its caller waits.
    pub deadline: deadline::Said,
}

/// Takes the fields of the outbound side off `head` and strips the rest.
pub fn take(head: &mut RequestHead) -> Said {
    let text = |name: &HeaderName| head.headers.get(name).and_then(|value| value.to_str().ok());
    // Named twice it names nothing: which of the two was meant is not ours to guess.
    let once = head.headers.get_all(&WEFT_DST).iter().count() == 1;
    let destination = text(&WEFT_DST).filter(|_| once).and_then(|value| value.parse().ok());
    let version = match text(&WEFT_VERSION) {
        Some("2") => Version::HTTP_2,
        Some("1.0") => Version::HTTP_10,
        _ => Version::HTTP_11,
    };
    let (source, mirrored) = (head.headers.get(&WEFT_SOURCE).cloned(), head.headers.contains_key(&WEFT_MIRRORED));
    let is_callout = head.headers.contains_key(&WEFT_CALLOUT);
    if head.headers.contains_key(&WEFT_NO_HOST) {
        head.authority = None;
    }
    let deadline = deadline::Said::read_of_proxy(&head.headers);
    let attempt = text(&WEFT_ATTEMPT).and_then(|value| value.parse::<u16>().ok());
    let behind = || text(&WEFT_BEHIND)?.parse().ok();
    let retried = if attempt.is_some_and(|attempt| attempt > 1) { WHOLE_RETRY } else { behind().unwrap_or_default() };
    strip(&mut head.headers);
    if let Some(attempt) = attempt {
        head.headers.insert(WEFT_ATTEMPT, HeaderValue::from(attempt));
    }
    Said { destination, source, version, mirrored, is_callout, retried, deadline }
}

/// The caller as metrics name it: identity from TLS, the rest as its proxy says, as far as it is fit for a label.
pub fn source_peer(principal: &SpiffeId, said: Option<&HeaderValue>) -> Peer {
    let text = said.and_then(|value| value.to_str().ok()).unwrap_or("");
    let mut parts = text.splitn(3, ';').map(|part| sources::label(part).to_owned());
    let mut next = || parts.next().unwrap_or_default();
    Peer {
        workload: next(),
        app: next(),
        version: next(),
        namespace: principal.namespace().to_owned(),
        principal: principal.as_str().to_owned(),
    }
}

/// The value of `x-forwarded-client-cert` that tells the app who called.
pub fn client_cert(own: &SpiffeId, caller: &SpiffeId) -> HeaderValue {
    HeaderValue::try_from(format!("By={own};URI={caller}")).expect("a SPIFFE ID is printable ASCII")
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    fn head(fields: &[(&str, &str)]) -> RequestHead {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::try_from(*name).unwrap(), HeaderValue::from_str(value).unwrap());
        }
        RequestHead {
            method: Method::GET,
            authority: None,
            path: Some("/".parse().unwrap()),
            protocol: None,
            headers,
            version: Version::HTTP_10,
        }
    }

    #[test]
    fn odd_labels_cost_no_name() {
        let labels = [("app", "web\n; forged"), ("version", "grün")];
        let workload = ServedWorkload {
            name: "shop/web-1".parse().unwrap(),
            identity: "spiffe://cluster.local/ns/shop/sa/web".parse().unwrap(),
            address: [10, 0, 0, 1].into(),
            addresses: Vec::new(),
            ports: Vec::new(),
            labels: labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            service: None,
            outbound_closed: None,
        };
        let source = source_value(&workload);
        assert_eq!(source, "web-1;web___forged;gr_n");
        let peer = source_peer(&workload.identity, Some(&source));
        assert_eq!(
            (peer.workload.as_str(), peer.app.as_str(), peer.version.as_str()),
            ("web-1", "web___forged", "gr_n")
        );
    }

    #[test]
    fn what_is_stamped_is_taken() {
        let mut head = head(&[("weft-dst", "6.6.6.6:6"), ("weft-evil", "1"), ("accept", "*/*")]);
        strip(&mut head.headers);
        let (socket, source) = (HeaderValue::from_static("[::1]:8080"), HeaderValue::from_static("web-1;web;v2"));
        let stamp = Stamp::new(&head, &socket, &source, 2).behind(1_700);
        let added = stamp.added();
        head.authority = added.authority.cloned();
        head.headers.extend(added.fields.iter().cloned());
        assert_eq!(head.authority.as_ref().map(Authority::as_str), Some("[::1]:8080"));
        let said = take(&mut head);
        assert_eq!(head.authority, None);
        assert_eq!(said.destination, Some("[::1]:8080".parse().unwrap()));
        assert_eq!(said.version, Version::HTTP_10);
        assert_eq!((head.headers.len(), &head.headers["weft-attempt"]), (2, &HeaderValue::from_static("3")));
        assert_eq!(said.retried, WHOLE_RETRY, "it is a retry itself");
        head.headers.extend(Stamp::new(&head, &socket, &source, 0).behind(1_700).added().fields.iter().cloned());
        head.headers.remove("weft-attempt");
        assert_eq!((take(&mut head).retried, head.headers.len()), (1_700, 1), "the app is not told");
        let caller: SpiffeId = "spiffe://cluster.local/ns/shop/sa/web".parse().unwrap();
        let peer = source_peer(&caller, said.source.as_ref());
        assert_eq!((peer.workload.as_str(), peer.app.as_str(), peer.version.as_str()), ("web-1", "web", "v2"));
        assert_eq!(peer.namespace, "shop");
    }

    #[test]
    fn an_app_cannot_answer_as_a_proxy() {
        let answer =
            || head(&[("weft-status", "200"), ("weft-reply", "x"), ("a", "b"), ("weft-reason", "Fine")]).headers;
        let mut to_http1 = answer();
        strip_response(&mut to_http1, true);
        let mut left: Vec<_> = to_http1.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["a", "weft-reason"]);
        let mut to_http2 = answer();
        strip_response(&mut to_http2, false);
        assert_eq!(to_http2.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["a"]);
    }

    #[test]
    fn an_app_cannot_speak_as_a_proxy() {
        let mut head = head(&[
            ("weft-source", "x"),
            ("Weft-Anything", "y"),
            ("x-forwarded-client-cert", "URI=admin"),
            ("X_Forwarded_Client-Cert", "URI=admin"),
            ("weft-callout", "1"),
            ("Weft_Callout", "1"),
            ("weft_", ""),
        ]);
        strip(&mut head.headers);
        assert!(head.headers.is_empty());
    }
}
