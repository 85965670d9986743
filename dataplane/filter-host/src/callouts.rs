//! Requests that filters want sent to services of the mesh, checked as they are asked for. Who sends them, the proxy,
//! does so as the workload's own: this decides only whether the filter may ask.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method};
use weft_policy::path::NormalPath;

use crate::chain::Callout;
use crate::edits;
use crate::grants::Grants;

const MAX_HEADERS: usize = 64;
const MAX_HEADER_NAME: usize = 256;
const MAX_HEADER_VALUE: usize = 64 << 10;
const MAX_BODY: usize = 64 << 10;
const MAX_ANSWER: u32 = 1 << 20;
/// No stream waits longer.
const MAX_TIMEOUT_MS: u32 = 300_000;

/// A callout as a filter asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) service: String,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    pub(crate) body: Vec<u8>,
    pub(crate) timeout_ms: u32,
    pub(crate) answer_bytes: u32,
}

/// Why a callout can't be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CalloutFault {
    /// No grant names the service.
    Denied,
    /// It is granted, and there is no such service.
    Nowhere(String),
    Invalid(String),
}

impl Wanted {
    /// The callout under the number that its answer will have.
    pub(crate) fn checked(self, grants: &Grants, id: u32) -> Result<Callout, CalloutFault> {
        let invalid = |what: String| CalloutFault::Invalid(what);
        let service = grants.service(&self.service).ok_or(CalloutFault::Denied)?;
        let authority = service.authority.clone().ok_or_else(|| CalloutFault::Nowhere(service.name.clone()))?;
        let method = Method::from_bytes(self.method.as_bytes()).ok().filter(|method| *method != Method::CONNECT);
        let method = method.ok_or_else(|| invalid(format!("{:?} is no method", shown(&self.method))))?;
        let path = NormalPath::new(Bytes::from(self.path.clone())).ok();
        let path = path.ok_or_else(|| invalid(format!("{:?} is no path", shown(&self.path))))?;
        if self.body.len() > MAX_BODY {
            return Err(invalid(format!("a body of {} bytes; at most {MAX_BODY} are possible", self.body.len())));
        }
        for (what, number, most) in
            [("timeout-ms", self.timeout_ms, MAX_TIMEOUT_MS), ("answer-bytes", self.answer_bytes, MAX_ANSWER)]
        {
            if !(1..=most).contains(&number) {
                return Err(invalid(format!("{what} is {number}: 1 to {most} are possible")));
            }
        }
        Ok(Callout {
            id,
            service: authority,
            method,
            path,
            headers: headers(self.headers).map_err(CalloutFault::Invalid)?,
            body: self.body.into(),
            timeout: Duration::from_millis(self.timeout_ms.into()),
            most: usize::try_from(self.answer_bytes).unwrap_or(usize::MAX),
        })
    }
}

fn headers(given: Vec<(String, Vec<u8>)>) -> Result<HeaderMap, String> {
    if given.len() > MAX_HEADERS {
        return Err(format!("{} header fields; at most {MAX_HEADERS} are possible", given.len()));
    }
    let mut headers = HeaderMap::with_capacity(given.len());
    for (name, value) in given {
        if name.len() > MAX_HEADER_NAME || value.len() > MAX_HEADER_VALUE {
            return Err(format!("the header {:?} is too long", shown(&name)));
        }
        let field = edits::own_name(&name).zip(edits::value(value));
        let (name, value) = field.ok_or_else(|| format!("the header {:?} can't be sent", shown(&name)))?;
        headers.append(name, value);
    }
    Ok(headers)
}

/// As much of a filter's text as an error repeats.
fn shown(text: &str) -> &str {
    &text[..text.floor_char_boundary(64)]
}

#[cfg(test)]
mod tests {
    use weft_policy::bundle::CalloutService;

    use super::*;

    fn wanted() -> Wanted {
        Wanted {
            service: "quota".to_owned(),
            method: "POST".to_owned(),
            path: "/check?a=b".to_owned(),
            headers: vec![("x-team".to_owned(), b"red".to_vec()), ("x-team".to_owned(), b"blue".to_vec())],
            body: b"hello".to_vec(),
            timeout_ms: 250,
            answer_bytes: 1_024,
        }
    }

    fn grants() -> Grants {
        let service = |name: &str, authority: Option<&str>| CalloutService {
            name: name.to_owned(),
            authority: authority.map(str::to_owned),
        };
        let callouts = vec![service("quota", Some("quota.shop.svc.cluster.local:8080")), service("gone", None)];
        Grants { callouts, ..Grants::default() }
    }

    #[test]
    fn what_is_granted_is_sent_as_it_was_asked_for() {
        let callout = wanted().checked(&grants(), 7).expect("sound");
        assert_eq!((callout.id, &*callout.service), (7, "quota.shop.svc.cluster.local:8080"));
        assert_eq!((callout.method, &*callout.body, callout.most), (Method::POST, &b"hello"[..], 1_024));
        assert_eq!(callout.timeout, Duration::from_millis(250));
        let teams: Vec<_> = callout.headers.get_all("x-team").iter().map(|value| value.as_bytes()).collect();
        assert_eq!(teams, [&b"red"[..], b"blue"]);
    }

    #[test]
    fn what_can_not_be_sent_is_refused() {
        let check = |change: fn(&mut Wanted), expect: CalloutFault| {
            let mut wanted = wanted();
            change(&mut wanted);
            assert_eq!(wanted.checked(&grants(), 1), Err(expect));
        };
        let invalid = |message: &str| CalloutFault::Invalid(message.to_owned());
        check(|it| it.service = "other".to_owned(), CalloutFault::Denied);
        check(|it| it.service = "gone".to_owned(), CalloutFault::Nowhere("gone".to_owned()));
        check(|it| it.method = "CONNECT".to_owned(), invalid("\"CONNECT\" is no method"));
        check(|it| it.method = "GET /".to_owned(), invalid("\"GET /\" is no method"));
        check(|it| it.path = "check".to_owned(), invalid("\"check\" is no path"));
        check(|it| it.body = vec![0; MAX_BODY + 1], invalid("a body of 65537 bytes; at most 65536 are possible"));
        check(|it| it.timeout_ms = 0, invalid("timeout-ms is 0: 1 to 300000 are possible"));
        check(|it| it.answer_bytes = MAX_ANSWER + 1, invalid("answer-bytes is 1048577: 1 to 1048576 are possible"));
        check(
            |it| it.headers = vec![("a".to_owned(), Vec::new()); MAX_HEADERS + 1],
            invalid("65 header fields; at most 64 are possible"),
        );
        check(|it| it.headers[0].0 = "host".to_owned(), invalid("the header \"host\" can't be sent"));
        check(|it| it.headers[0].0 = "weft-peer".to_owned(), invalid("the header \"weft-peer\" can't be sent"));
        check(|it| it.headers[0].1 = b"a\nb".to_vec(), invalid("the header \"x-team\" can't be sent"));
        check(|it| it.headers[0].1 = vec![b'a'; MAX_HEADER_VALUE + 1], invalid("the header \"x-team\" is too long"));
    }
}
