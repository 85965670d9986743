//! How this proxy names itself in `Via` of what it forwards outside the mesh, so that a loop is noticed. A request may come
//! back to it and be no loop (an app calls its own gateway, which calls a service): so each entry says for what it was.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use http::HeaderValue;
use http::header::VIA;
use weft_transport::http::{RequestHead, Target};

/// A request that passed so often goes round, whatever it asks for each time.
const MOST_PASSES: usize = 16;

/// The name of one proxy in `Via`.
#[derive(Debug)]
pub struct Via {
    /// With the protocol before it and a dot behind it.
    own: String,
}

impl Via {
    /// `name`: differs between any two proxies.
    pub fn new(name: u64) -> Self {
        Self { own: format!("1.1 weft-{name:016x}.") }
    }

    /// Enters this proxy into the request that it sends outside.
    //= rfc9110#section-7.6.3
    pub fn enter(&self, head: &mut RequestHead) {
        let entry = format!("{}{:016x}", self.own, asked_for(head));
        head.headers.append(VIA, HeaderValue::try_from(entry).expect("hex digits are printable ASCII"));
    }

    /// True for a request that this proxy has sent outside before, for the same; or many times.
    pub fn is_loop(&self, head: &RequestHead) -> bool {
        let mut entries = head.headers.get_all(VIA).iter().peekable();
        if entries.peek().is_none() {
            return false;
        }
        let same = format!("{:016x}", asked_for(head));
        let entries = entries.flat_map(|via| via.as_bytes().split(|byte| *byte == b','));
        let ours = entries.filter_map(|entry| entry.trim_ascii().strip_prefix(self.own.as_bytes()));
        let is_same = |(nth, asked): (usize, &[u8])| asked == same.as_bytes() || nth + 1 >= MOST_PASSES;
        ours.enumerate().any(is_same)
    }
}

/// Whom and what a request asks, as one number.
fn asked_for(head: &RequestHead) -> u64 {
    let mut hasher = DefaultHasher::new();
    let authority = head.authority.as_ref().map(|authority| authority.as_str().to_ascii_lowercase());
    (head.method.as_str(), authority, head.path.as_ref().map(Target::as_bytes)).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Method, Version};

    use super::*;

    fn head(authority: &str, path: &str, via: &[&str]) -> RequestHead {
        RequestHead {
            method: Method::GET,
            authority: Some(authority.parse().unwrap()),
            path: Some(path.parse().unwrap()),
            protocol: None,
            headers: via.iter().map(|via| (VIA, via.parse().unwrap())).collect::<HeaderMap>(),
            version: Version::HTTP_11,
        }
    }

    /// What `ours` enters for a request, behind and before what others enter.
    fn passed(ours: &Via, authority: &str, path: &str) -> String {
        let mut sent = head(authority, path, &[]);
        ours.enter(&mut sent);
        format!("1.0 other, {} ,1.1 x", sent.headers[VIA].to_str().unwrap())
    }

    #[test]
    fn a_request_that_comes_back_for_the_same_is_a_loop_and_one_for_something_else_is_none() {
        let (ours, others) = (Via::new(0xff), Via::new(0xfe));
        let via = passed(&ours, "Gateway:80", "/a?b");
        assert!(ours.is_loop(&head("gateway:80", "/a?b", &[&via])));
        assert!(ours.is_loop(&head("gateway:80", "/a?b", &["1.1 y", &via])), "in a second field");
        assert!(!ours.is_loop(&head("service", "/a?b", &[&via])) && !ours.is_loop(&head("gateway:80", "/c", &[&via])));
        assert!(!others.is_loop(&head("gateway:80", "/a?b", &[&via])));
        for strange in ["", "weft-00000000000000ff.", "1.1 weft-00000000000000ff", "1.1 weft-00000000000000ff0.1", ",,"]
        {
            assert!(!ours.is_loop(&head("gateway:80", "/a?b", &[strange])), "{strange:?}");
        }
    }

    #[test]
    fn what_comes_back_again_and_again_is_a_loop_whatever_it_asks_for() {
        let ours = Via::new(1);
        let via: Vec<String> = (0..MOST_PASSES).map(|nth| passed(&ours, "a", &format!("/{nth}"))).collect();
        let via: Vec<&str> = via.iter().map(String::as_str).collect();
        assert!(!ours.is_loop(&head("a", "/last", &via[1..])));
        assert!(ours.is_loop(&head("a", "/last", &via)));
    }
}
