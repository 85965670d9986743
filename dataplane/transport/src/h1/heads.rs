//! Heads on their own, without a connection: for tools and fuzzing.

use bytes::{Bytes, BytesMut};

use super::parse::{self, Asked};
use super::{Refusal, encode};
use crate::http::{HttpLimits, RequestHead, ResponseHead, StreamError};

/// Reads a request head and how many bytes it has; `None` when more are needed.
pub fn request(bytes: &[u8], limits: &HttpLimits) -> Result<Option<(RequestHead, usize)>, Refusal> {
    let parsed = parse::request(bytes, limits).map_err(|rejection| rejection.refusal)?;
    Ok(parsed.map(|parsed| (parsed.head, parsed.consumed)))
}

/// Reads a response head; `to_head`: the request was HEAD. The error says what the server did wrong.
pub fn response(
    bytes: &[u8],
    to_head: bool,
    limits: &HttpLimits,
) -> Result<Option<(ResponseHead, usize)>, &'static str> {
    let asked = if to_head { Asked::Head } else { Asked::Other };
    Ok(parse::response(bytes, &asked, limits)?.map(|parsed| (parsed.head, parsed.consumed)))
}

/// Writes a request head as an application is sent it.
pub fn request_bytes(head: &RequestHead) -> Result<Bytes, StreamError> {
    let mut out = BytesMut::new();
    encode::request(&mut out, head, false)?;
    Ok(out.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks that an accepted head, written again, is read as the same head, to its last byte.
    fn check(bytes: &[u8]) {
        let limits = HttpLimits::default();
        let Ok(Some((head, consumed))) = request(bytes, &limits) else { return };
        assert!(consumed <= bytes.len());
        let Ok(written) = request_bytes(&head) else { return };
        let (again, whole) = request(&written, &limits).expect("legal").expect("complete");
        assert_eq!(whole, written.len(), "{:?}", String::from_utf8_lossy(bytes));
        let parts = |head: RequestHead| (head.method, head.path, head.authority, head.protocol);
        assert_eq!(parts(again), parts(head));
        let _ = response(bytes, false, &limits);
    }

    #[test]
    fn a_head_with_any_byte_replaced_is_refused_or_passes_whole() {
        let texts = [
            "GET /a?b#c HTTP/1.1\r\nHost: a:80\r\nConnection: upgrade, x\r\nUpgrade: w/1\r\nX: y\r\n\r\n",
            "POST http://a/b HTTP/1.0\r\nContent-Length: 5\r\nCookie: a\r\nTE: trailers\r\n\r\nhello",
            "PUT /<\"> HTTP/1.1\r\nHost:\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nUpgrade: a\r\n\r\n",
        ];
        for text in texts {
            check(text.as_bytes());
            for position in 0..text.len() {
                for byte in 0..=255u8 {
                    let mut bytes = text.as_bytes().to_vec();
                    bytes[position] = byte;
                    check(&bytes);
                }
                check(&text.as_bytes()[position..]);
            }
        }
    }
}
