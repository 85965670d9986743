//! Any bytes as a field section: refused or decoded within the limits, and what decodes as a message encodes to one that
//! decodes to the same.
#![no_main]

use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use weft_transport::h3::Limits;
use weft_transport::h3::message::{decode_request, decode_response, decode_trailers, encode_request, encode_response};
use weft_transport::http::Added;
use weft_transport::qpack::{self, Direction, Instructions};

fuzz_target!(|input: &[u8]| {
    let [choice, section @ ..] = input else { return };
    let limits = Limits { header_bytes: 4096, header_fields: 32, path_bytes: 512, ..Limits::default() };
    let huffman = choice & 1 == 1;
    if let Ok(fields) = qpack::decode(section, &qpack::Limits { size: 4096, fields: 32 }) {
        let size: usize = fields.iter().map(|(name, value)| name.len() + value.len() + 32).sum();
        assert!(size <= 4096, "{size} bytes within a limit of 4096");
    }
    let section = Bytes::copy_from_slice(section);
    if let Ok(decoded) = decode_request(&section, &limits) {
        let mut again = BytesMut::new();
        if encode_request(&mut again, &decoded.head, &Added::default(), huffman).is_ok() {
            let twice = decode_request(&again.freeze(), &Limits::default()).expect("what we encode, we decode");
            assert_eq!(twice.head.method, decoded.head.method);
            assert_eq!(twice.head.path, decoded.head.path);
            assert_eq!(twice.head.headers, decoded.head.headers);
        }
    }
    if let Ok(decoded) = decode_response(&section, &limits) {
        let mut again = BytesMut::new();
        encode_response(&mut again, &decoded.head, huffman);
        let twice = decode_response(&again.freeze(), &Limits::default()).expect("what we encode, we decode");
        assert_eq!(twice.head.status, decoded.head.status);
        assert_eq!(twice.head.headers, decoded.head.headers);
    }
    _ = decode_trailers(&section, &limits);
    let direction = if huffman { Direction::Encoder } else { Direction::Decoder };
    _ = Instructions::new(direction).push(&section);
});
