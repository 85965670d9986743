//! Any bytes as the head of an HTTP/1 message: refused, or read within the limits; what is read is written as a message that
//! is read as the same; and no prefix of it was taken for a whole one.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_transport::h1::heads;
use weft_transport::http::HttpLimits;

fuzz_target!(|input: &[u8]| {
    let limits = HttpLimits { head_bytes: 4096, fields: 32, target_bytes: 512, ..HttpLimits::default() };
    if let Ok(Some((head, consumed))) = heads::request(input, &limits) {
        assert!(consumed <= input.len() && consumed <= limits.head_bytes && head.headers.len() <= limits.fields + 1);
        for end in 0..consumed.min(256) {
            assert!(
                !matches!(heads::request(&input[..end], &limits), Ok(Some(_))),
                "a prefix of {end} is a whole head"
            );
        }
        if let Ok(bytes) = heads::request_bytes(&head) {
            let (again, whole) = heads::request(&bytes, &HttpLimits::default()).expect("legal").expect("complete");
            assert_eq!(whole, bytes.len(), "nothing is left behind a head that was written");
            assert_eq!((again.method, again.path, again.authority), (head.method, head.path, head.authority));
            assert_eq!(again.protocol, head.protocol);
        }
    }
    for head_request in [false, true] {
        if let Ok(Some((_, consumed))) = heads::response(input, head_request, &limits) {
            assert!(consumed <= input.len() && consumed <= limits.head_bytes);
        }
    }
});
