//! Access to the admin door. It listens on loopback, where a browser brings any web site's calls and every application
//! of the machine can connect: reading takes an address of the door itself, changing takes the token besides.

use http::header::{AUTHORIZATION, HOST, ORIGIN};
use http::{HeaderMap, HeaderName, Method, StatusCode};

/// Header in which browsers tell where a call comes from (Fetch Metadata).
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Why a call is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CallRefused {
    /// The name is another's, or none: a site may have had its own name lead here (DNS rebinding).
    Host,
    /// A page of another origin makes the call.
    Origin,
    Token,
    Method,
}

impl CallRefused {
    pub(super) fn status(self) -> StatusCode {
        match self {
            CallRefused::Host => StatusCode::MISDIRECTED_REQUEST,
            CallRefused::Origin => StatusCode::FORBIDDEN,
            CallRefused::Token => StatusCode::UNAUTHORIZED,
            CallRefused::Method => StatusCode::METHOD_NOT_ALLOWED,
        }
    }

    pub(super) fn reason(self) -> &'static str {
        match self {
            CallRefused::Host => "the Host must be localhost or a loopback address",
            CallRefused::Origin => "calls from web pages of another origin are refused",
            CallRefused::Token => {
                "authorization: Bearer TOKEN is needed, with the token in admin.token of the state directory"
            }
            CallRefused::Method => "GET shows, POST changes",
        }
    }
}

/// Judges a call by what it says.
pub(super) fn check(method: &Method, headers: &HeaderMap, token: &str) -> Result<(), CallRefused> {
    let mut hosts = headers.get_all(HOST).iter();
    let host = hosts.next().and_then(|host| host.to_str().ok()).filter(|host| is_loopback(host));
    let (Some(host), None) = (host, hosts.next()) else { return Err(CallRefused::Host) };
    let own = format!("http://{host}");
    let foreign_site = headers.get(&SEC_FETCH_SITE).is_some_and(|site| site != "same-origin" && site != "none");
    if foreign_site
        || headers.get_all(ORIGIN).iter().any(|origin| !origin.as_bytes().eq_ignore_ascii_case(own.as_bytes()))
    {
        return Err(CallRefused::Origin);
    }
    match *method {
        Method::GET | Method::HEAD => Ok(()),
        Method::POST => match headers.get(AUTHORIZATION).and_then(|value| bearer(value.as_bytes())) {
            Some(told) if is_equal(told, token.as_bytes()) => Ok(()),
            _ => Err(CallRefused::Token),
        },
        _ => Err(CallRefused::Method),
    }
}

/// `localhost` or a loopback address, with a port or without.
fn is_loopback(host: &str) -> bool {
    let Ok(authority) = host.parse::<http::uri::Authority>() else { return false };
    if host.contains('@') {
        return false;
    }
    let name = authority.host().trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, told) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| told.trim_ascii())
}

/// Takes as long for every text of the right length.
fn is_equal(told: &[u8], token: &[u8]) -> bool {
    told.len() == token.len() && told.iter().zip(token).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const TOKEN: &str = "5f0c";

    fn judge(method: Method, fields: &[(&'static str, &'static str)]) -> Result<(), CallRefused> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        check(&method, &headers, TOKEN)
    }

    #[test]
    fn only_names_of_this_machine_are_answered() {
        for host in ["127.0.0.11:15000", "127.0.0.1", "localhost:15000", "LOCALHOST", "[::1]:15000"] {
            assert_eq!(judge(Method::GET, &[("host", host)]), Ok(()), "{host}");
        }
        for host in
            ["evil.example:15000", "127.0.0.1.nip.io:15000", "localhost.evil.example", "10.0.0.1", "a@127.0.0.1", ""]
        {
            assert_eq!(judge(Method::GET, &[("host", host)]), Err(CallRefused::Host), "{host}");
        }
        assert_eq!(judge(Method::GET, &[]), Err(CallRefused::Host));
        assert_eq!(judge(Method::GET, &[("host", "localhost"), ("host", "evil")]), Err(CallRefused::Host));
    }

    #[test]
    fn pages_of_other_origins_neither_read_nor_change() {
        let host = ("host", "127.0.0.1:15000");
        for (name, value) in [
            ("origin", "http://evil.example"),
            ("origin", "null"),
            ("origin", "http://127.0.0.1:8080"),
            ("sec-fetch-site", "cross-site"),
        ] {
            assert_eq!(judge(Method::GET, &[host, (name, value)]), Err(CallRefused::Origin), "{value}");
            let known = ("authorization", "Bearer 5f0c");
            assert_eq!(judge(Method::POST, &[host, (name, value), known]), Err(CallRefused::Origin), "{value}");
        }
        assert_eq!(judge(Method::GET, &[host, ("origin", "http://127.0.0.1:15000")]), Ok(()));
        assert_eq!(judge(Method::GET, &[host, ("sec-fetch-site", "none")]), Ok(()));
    }

    #[test]
    fn changes_take_the_token() {
        let host = ("host", "127.0.0.1:15000");
        assert_eq!(judge(Method::POST, &[host]), Err(CallRefused::Token));
        for wrong in ["Bearer", "Bearer ", "Bearer 5f0d", "Bearer 5f0c0", "Basic 5f0c", "5f0c"] {
            assert_eq!(judge(Method::POST, &[host, ("authorization", wrong)]), Err(CallRefused::Token), "{wrong}");
        }
        assert_eq!(judge(Method::POST, &[host, ("authorization", "bearer 5f0c")]), Ok(()));
        assert_eq!(judge(Method::DELETE, &[host]), Err(CallRefused::Method));
    }
}
