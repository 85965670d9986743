//! Vectors of RFC 9204 and RFC 7541, truncations, limits and malformed input.

use bytes::{Bytes, BytesMut};
use http::{HeaderName, HeaderValue};

use super::integer::{self, Int};
use super::{Direction, Encoder, Error, Instructions, Limits, Pseudo, decode, huffman, table};
use crate::h3::Code;

const LIMITS: Limits = Limits { size: 64 * 1024, fields: 128 };

fn hex(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

fn check(section: &str, expect: &str) {
    let told = match decode(&hex(section), &LIMITS) {
        Ok(fields) => {
            let lines = fields.iter().map(|(name, value)| format!("{name}={}", String::from_utf8_lossy(value)));
            lines.collect::<Vec<_>>().join("; ")
        }
        Err(error) => error.to_string(),
    };
    assert_eq!(told, expect, "section {section}");
}

#[test]
fn sections() {
    // RFC 9204 appendix B.1.
    check("0000 510b 2f69 6e64 6578 2e68 746d 6c", ":path=/index.html");
    check("0000", "");
    check("0000 d1 d7 c1 c0", ":method=GET; :scheme=https; :path=/; :authority=");
    check("0000 ff23", "x-frame-options=sameorigin");
    check("0000 ff22", "x-frame-options=deny");
    // RFC 7541 C.4.1, the value Huffman coded: www.example.com
    check("0000 508c f1e3 c2e5 f23a 6ba0 ab90 f4ff", ":authority=www.example.com");
    // A literal name, plain and Huffman coded (custom-key: custom-value of RFC 7541 C.4.3).
    check("0000 2703 6375 7374 6f6d 2d6b 6579 0161", "custom-key=a");
    check("0000 2f01 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf", "custom-key=custom-value");
    // The same, never to be indexed.
    check("0000 3703 6375 7374 6f6d 2d6b 6579 0161", "custom-key=a");
}

#[test]
fn malformed_sections() {
    check("", "QPACK: truncated integer");
    check("00", "QPACK: truncated integer");
    check("0100 d1", "QPACK: refers to the dynamic table");
    check("0000 80", "QPACK: refers to the dynamic table");
    check("0000 40 00", "QPACK: refers to the dynamic table");
    check("0000 10", "QPACK: refers to the dynamic table");
    check("0000 00", "QPACK: refers to the dynamic table");
    check("0000 ff24", "QPACK: static index");
    check("0000 5f ff ff ff ff ff ff ff ff ff 7f 00", "QPACK: integer overflow");
    check("0000 50", "QPACK: truncated string");
    check("0000 5005 61", "QPACK: truncated string");
    check("0000 50ff ffff ffff ffff ffff 7f", "QPACK: integer overflow");
    check("0000 507f ffff ffff ffff ff3f", "QPACK: truncated string");
    // Huffman: padding of a whole octet, padding of zeros, EOS.
    check("0000 5082 1fff", "QPACK: Huffman padding");
    check("0000 5081 18", "QPACK: Huffman padding");
    check("0000 5084 ffff fffc", "QPACK: Huffman EOS in a string");
    check("0000 5084 ffff ffff", "QPACK: Huffman EOS in a string");
    // Fields that HTTP forbids.
    check("0000 2141 0161", "malformed message: field name");
    check("0000 2120 0161", "malformed message: field name");
    check("0000 20 0161", "malformed message: field name");
    check("0000 2161 010a", "malformed message: field value");
    check("0000 2161 0100", "malformed message: field value");
    check("0000 223a 61 0161", "malformed message: unknown pseudo-header field");
}

#[test]
fn truncation_anywhere_is_an_error_or_a_shorter_section() {
    let whole = hex(
        "0000 510b 2f69 6e64 6578 2e68 746d 6c 508c f1e3 c2e5 f23a 6ba0 ab90 f4ff ff23 2f01 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
    );
    let all = decode(&whole, &LIMITS).unwrap();
    assert_eq!(all.len(), 4);
    for cut in 0..whole.len() {
        match decode(&whole[..cut], &LIMITS) {
            Ok(fields) => assert_eq!(fields[..], all[..fields.len()], "cut at {cut}"),
            Err(error) => assert!(matches!(error, Error::Malformed(_)), "cut at {cut}: {error}"),
        }
    }
}

#[test]
fn limits_hold() {
    let field = "2161 0161";
    let section = |count: usize| hex(&format!("0000{}", field.repeat(count)));
    let limits = Limits { size: 34 * 3, fields: 2 };
    assert_eq!(decode(&section(2), &limits).unwrap().len(), 2);
    assert_eq!(decode(&section(3), &limits), Err(Error::Limit("header fields")));
    let limits = Limits { size: 34 * 3, fields: 9 };
    assert_eq!(decode(&section(3), &limits).unwrap().len(), 3);
    assert_eq!(decode(&section(4), &limits), Err(Error::Limit("header bytes")));
    // Cookie crumbs count by size only.
    let crumbs = hex(&format!("0000{}", "5501 61".repeat(100)));
    assert_eq!(decode(&crumbs, &Limits { size: 100 * 39, fields: 1 }).unwrap().len(), 100);
    assert_eq!(decode(&crumbs, &Limits { size: 100 * 39 - 1, fields: 1 }), Err(Error::Limit("header bytes")));
}

#[test]
fn integers() {
    // RFC 7541 C.1, prefix and value.
    for (prefix, value, bytes) in
        [(5, 10_usize, "0a"), (5, 1337, "1f 9a 0a"), (8, 42, "2a"), (3, 7, "07 00"), (6, 62, "3e"), (6, 63, "3f 00")]
    {
        let mut out = BytesMut::new();
        integer::write(&mut out, 0, prefix, value);
        assert_eq!(out[..], hex(bytes)[..]);
        assert_eq!(integer::read(&out, prefix), Int::Value(value as u64, out.len()));
        for cut in 0..out.len() {
            assert_eq!(integer::read(&out[..cut], prefix), Int::Incomplete);
        }
    }
    let largest = hex("ff 80 fe ff ff ff ff ff ff 3f");
    assert_eq!(integer::read(&largest, 8), Int::Value((1 << 62) - 1, 10));
    assert_eq!(integer::read(&hex("ff 81 fe ff ff ff ff ff ff 3f"), 8), Int::Overflow);
    assert_eq!(integer::read(&hex("ff 80 80 80 80 80 80 80 80 80 80 00"), 8), Int::Overflow);
}

#[test]
fn huffman_vectors() {
    for (plain, coded) in [
        ("www.example.com", "f1e3 c2e5 f23a 6ba0 ab90 f4ff"),
        ("no-cache", "a8eb 1064 9cbf"),
        ("custom-key", "25a8 49e9 5ba9 7d7f"),
        ("custom-value", "25a8 49e9 5bb8 e8b4 bf"),
        ("302", "6402"),
        ("private", "aec3 771a 4b"),
        ("Mon, 21 Oct 2013 20:13:21 GMT", "d07a be94 1054 d444 a820 0595 040b 8166 e082 a62d 1bff"),
        ("https://www.example.com", "9d29 ad17 1863 c78f 0b97 c8e9 ae82 ae43 d3"),
        (
            "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1",
            "94e7 821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07",
        ),
    ] {
        let (mut out, mut back) = (BytesMut::new(), BytesMut::new());
        huffman::encode(plain.as_bytes(), &mut out);
        assert_eq!(out[..], hex(coded)[..], "{plain}");
        assert_eq!(huffman::encoded_len(plain.as_bytes()), out.len());
        huffman::decode(&out, &mut back).unwrap();
        assert_eq!(back[..], *plain.as_bytes());
    }
}

#[test]
fn huffman_gives_back_every_pair_of_octets() {
    let (mut out, mut back) = (BytesMut::new(), BytesMut::new());
    for first in 0..=255_u8 {
        for second in 0..=255_u8 {
            out.clear();
            back.clear();
            huffman::encode(&[first, second, b'x'], &mut out);
            huffman::decode(&out, &mut back).unwrap();
            assert_eq!(back[..], [first, second, b'x']);
        }
    }
}

#[test]
fn every_row_of_the_static_table_is_found() {
    for index in 0..99_u8 {
        let (name, value) = match table::get(index.into()).unwrap() {
            table::Entry::Pseudo(name, value) => (name.as_str(), value.as_bytes()),
            table::Entry::Field(name, value) => (name.as_str(), value.as_bytes()),
        };
        assert!(matches!(table::find(name, value), table::Match::Indexed(found) if found == index), "{name}");
        assert!(matches!(table::find(name, b"\0 no such value"), table::Match::NameOnly(_)), "{name}");
    }
    assert!(table::get(99).is_none());
    assert!(matches!(table::find("x-weft", b""), table::Match::None));
}

#[test]
fn what_is_encoded_decodes() {
    let long = "v".repeat(5000);
    let fields =
        [("accept", "*/*"), ("x-weft-a", "b"), ("age", "7"), ("cookie", "a=b"), ("x-weft-long", &long), ("e", "")];
    for huffman in [false, true] {
        let mut out = BytesMut::new();
        let mut encoder = Encoder::new(&mut out, huffman);
        encoder.pseudo(Pseudo::Method, b"PATCH");
        encoder.pseudo(Pseudo::Protocol, b"websocket");
        for (name, value) in fields {
            encoder.field(&HeaderName::from_static(name), &HeaderValue::from_str(value).unwrap());
        }
        let size = encoder.size();
        let back = decode(&out, &LIMITS).unwrap();
        assert_eq!(back[0], (":method".to_owned(), Bytes::from_static(b"PATCH")));
        assert_eq!(back[1], (":protocol".to_owned(), Bytes::from_static(b"websocket")));
        for (got, (name, value)) in back[2..].iter().zip(fields) {
            assert_eq!((got.0.as_str(), &got.1[..]), (name, value.as_bytes()));
        }
        assert_eq!(size, back.iter().map(|(name, value)| name.len() + value.len() + 32).sum::<usize>());
        assert!(decode(&out, &Limits { size, fields: 128 }).is_ok());
        assert!(decode(&out, &Limits { size: size - 1, fields: 128 }).is_err());
    }
}

#[test]
fn a_secret_is_never_an_index() {
    let mut secret = HeaderValue::from_static("");
    secret.set_sensitive(true);
    let mut out = BytesMut::new();
    Encoder::new(&mut out, false).field(&http::header::AUTHORIZATION, &secret);
    // 01 N=1 T=1, index 84 in 4 bits and a continuation.
    assert_eq!(out[..], hex("0000 7f45 00")[..]);
}

#[test]
fn instructions() {
    use Direction::{Decoder, Encoder};
    let bad_encoder = Err(Code::QPACK_ENCODER_STREAM_ERROR);
    let bad_decoder = Err(Code::QPACK_DECODER_STREAM_ERROR);
    for (direction, bytes, expect) in [
        (Encoder, "", Ok(())),
        (Encoder, "20 20", Ok(())),
        (Encoder, "21", bad_encoder),
        (Encoder, "3f 00", bad_encoder),
        (Encoder, "3f ff ff ff ff ff ff ff ff ff ff", bad_encoder),
        (Encoder, "c0 01 61", bad_encoder),
        (Encoder, "41 61 01 61", bad_encoder),
        (Encoder, "00", bad_encoder),
        (Decoder, "40 44 7f 05 7f", Ok(())),
        (Decoder, "80", bad_decoder),
        (Decoder, "01", bad_decoder),
        (Decoder, "00", bad_decoder),
        (Decoder, "7f ff ff ff ff ff ff ff ff ff ff", bad_decoder),
    ] {
        let bytes = hex(bytes);
        for cut in 0..=bytes.len() {
            let mut instructions = Instructions::new(direction);
            let result = instructions.push(&bytes[..cut]).and_then(|()| instructions.push(&bytes[cut..]));
            assert_eq!(result.map_err(|violation| violation.code), expect, "{direction:?} {bytes:x?} cut at {cut}");
        }
    }
}
