//! Frames, settings and integers as pure functions; every test goes through every way of splitting its bytes in two.

use bytes::{Bytes, BytesMut};

use super::super::Code;
use super::super::frame::{
    Bounds, Decoder, Event, Place, Role, Settings, Violation, decode, read_varint, write_goaway, write_varint,
};
use super::{frame, hex};

/// Decodes in pieces, joining the DATA that a split divides.
fn decode_pieces(pieces: &[&[u8]], role: Role, place: Place, bounds: Bounds) -> Result<Vec<Event>, Violation> {
    let mut decoder = Decoder::new(role, place, bounds);
    let mut events: Vec<Event> = Vec::new();
    for piece in pieces {
        decoder.push(Bytes::copy_from_slice(piece));
        while let Some(event) = decoder.next()? {
            match (events.last_mut(), event) {
                (Some(Event::Data(before)), Event::Data(more)) => *before = [&before[..], &more[..]].concat().into(),
                (_, event) => events.push(event),
            }
        }
    }
    decoder.finish()?;
    Ok(events)
}

fn tell(result: Result<Vec<Event>, Violation>) -> String {
    let tell_event = |event: &Event| match event {
        Event::Data(data) => format!("data {}", String::from_utf8_lossy(data)),
        Event::Headers(section) => format!("headers {}", section.len()),
        Event::Oversize => "oversize".to_owned(),
        Event::Settings(settings) => {
            format!("settings {:?} {} {}", settings.max_field_section_size, settings.connect_protocol, settings.aborts)
        }
        Event::GoAway(id) => format!("goaway {id}"),
        Event::CancelPush(id) => format!("cancel {id}"),
        Event::MaxPushId(id) => format!("max {id}"),
        Event::Abort(code) => format!("abort {code:#x}"),
    };
    match result {
        Ok(events) => events.iter().map(tell_event).collect::<Vec<_>>().join("; "),
        Err(violation) => Code::name(violation.code).to_owned(),
    }
}

const SMALL: Bounds = Bounds { headers: 8, settings: 64, unknown: 8, idle_frames: 3 };

fn check(role: Role, place: Place, bytes: &[u8], expect: &str) {
    assert_eq!(tell(decode_pieces(&[bytes], role, place, SMALL)), expect, "{bytes:x?}");
    for cut in 0..=bytes.len() {
        let (head, tail) = bytes.split_at(cut);
        assert_eq!(tell(decode_pieces(&[head, tail], role, place, SMALL)), expect, "{bytes:x?} cut at {cut}");
    }
    let octets: Vec<&[u8]> = bytes.chunks(1).collect();
    assert_eq!(tell(decode_pieces(&octets, role, place, SMALL)), expect, "{bytes:x?} one by one");
}

#[test]
fn request_streams() {
    for (bytes, expect) in [
        ("", ""),
        ("00 03 616263", "data abc"),
        ("00 00", ""),
        ("00 01 61 00 02 6263", "data abc"),
        ("01 02 0000 00 01 61", "headers 2; data a"),
        ("01 02 0000 00 01 61 01 03 000000", "headers 2; data a; headers 3"),
        // Non-minimal integers.
        ("4000 8000000161", "data a"),
        ("01 c000000000000002 0000", "headers 2"),
        // Unknown and reserved-for-greasing types are skipped.
        ("21 03 616263 00 01 61", "data a"),
        ("4040 00 01 02 0000", "headers 2"),
        ("c0000000deadbeef 01 ff 00 01 61", "data a"),
        // Above the limit for a field section.
        ("01 09 000000000000000000 00 01 61", "oversize; data a"),
        // Above the limit for an unknown frame, and for frames that carry nothing.
        ("21 09", "H3_EXCESSIVE_LOAD"),
        ("0000 0000 0000 0000", "H3_EXCESSIVE_LOAD"),
        ("2100 0000 2100 2100", "H3_EXCESSIVE_LOAD"),
        ("0000 0000 0000 000161 0000 0000 0000", "data a"),
        // Cut off.
        ("00", "H3_FRAME_ERROR"),
        ("00 02 61", "H3_FRAME_ERROR"),
        ("01 02 00", "H3_FRAME_ERROR"),
        ("21 01", "H3_FRAME_ERROR"),
        ("40", "H3_FRAME_ERROR"),
        // Not here.
        ("04 00", "H3_FRAME_UNEXPECTED"),
        ("03 01 00", "H3_FRAME_UNEXPECTED"),
        ("07 01 00", "H3_FRAME_UNEXPECTED"),
        ("0d 01 00", "H3_FRAME_UNEXPECTED"),
        ("02 00", "H3_FRAME_UNEXPECTED"),
        ("06 00", "H3_FRAME_UNEXPECTED"),
        ("08 00", "H3_FRAME_UNEXPECTED"),
        ("09 00", "H3_FRAME_UNEXPECTED"),
    ] {
        check(Role::Server, Place::Request, &hex(bytes), expect);
        check(Role::Client, Place::Request, &hex(bytes), expect);
    }
    check(Role::Server, Place::Request, &hex("05 01 00"), "H3_FRAME_UNEXPECTED");
    check(Role::Client, Place::Request, &hex("05 01 00"), "H3_ID_ERROR");
}

#[test]
fn control_streams() {
    for (bytes, expect) in [
        ("04 00", "settings None false false"),
        ("04 08 06 4400 08 01 33 01 09", "H3_FRAME_ERROR"),
        ("04 07 06 4400 08 01 33 01", "settings Some(1024) true false"),
        ("04 0a 06 4400 08 01 a5776567 01", "settings Some(1024) true true"),
        ("04 00 07 01 04", "settings None false false; goaway 4"),
        ("04 00 03 02 4005", "settings None false false; cancel 5"),
        ("04 00 21 01 00 07 01 00", "settings None false false; goaway 0"),
        // Settings that are unknown are ignored.
        ("04 05 21 05 07 4000", "settings None false false"),
        ("04 02 21 05", "settings None false false"),
        ("00 00", "H3_MISSING_SETTINGS"),
        ("21 00", "H3_MISSING_SETTINGS"),
        ("07 01 00", "H3_MISSING_SETTINGS"),
        ("04 00 04 00", "H3_FRAME_UNEXPECTED"),
        ("04 00 00 00", "H3_FRAME_UNEXPECTED"),
        ("04 00 01 00", "H3_FRAME_UNEXPECTED"),
        ("04 00 05 00", "H3_FRAME_UNEXPECTED"),
        ("04 00 02 00", "H3_FRAME_UNEXPECTED"),
        ("04 00 06 00", "H3_FRAME_UNEXPECTED"),
        ("04 00 08 00", "H3_FRAME_UNEXPECTED"),
        ("04 00 09 00", "H3_FRAME_UNEXPECTED"),
        ("04 00 07 00", "H3_FRAME_ERROR"),
        ("04 00 07 02 0400", "H3_FRAME_ERROR"),
        ("04 00 07 09", "H3_FRAME_ERROR"),
        ("04 00 07 01 40", "H3_FRAME_ERROR"),
        ("04 4041", "H3_EXCESSIVE_LOAD"),
        ("04 04 06 01 06 01", "H3_SETTINGS_ERROR"),
        ("04 02 00 00", "H3_SETTINGS_ERROR"),
        ("04 02 02 01", "H3_SETTINGS_ERROR"),
        ("04 02 03 01", "H3_SETTINGS_ERROR"),
        ("04 02 04 01", "H3_SETTINGS_ERROR"),
        ("04 02 05 01", "H3_SETTINGS_ERROR"),
        ("04 02 08 02", "H3_SETTINGS_ERROR"),
        ("04 02 33 02", "H3_SETTINGS_ERROR"),
        ("04 01 06", "H3_FRAME_ERROR"),
    ] {
        check(Role::Client, Place::Control, &hex(bytes), expect);
        check(Role::Server, Place::Control, &hex(bytes), expect);
    }
    check(Role::Server, Place::Control, &hex("04 00 0d 01 07"), "settings None false false; max 7");
    check(Role::Client, Place::Control, &hex("04 00 0d 01 07"), "H3_FRAME_UNEXPECTED");
}

#[test]
fn too_many_settings() {
    let mut payload = BytesMut::new();
    for id in 0..65 {
        write_varint(&mut payload, 0x1000 + id);
        write_varint(&mut payload, 0);
    }
    assert_eq!(Settings::decode(&payload).unwrap_err().code, Code::EXCESSIVE_LOAD);
    assert!(Settings::decode(&payload[..64 * 3]).is_ok());
}

#[test]
fn integers() {
    // RFC 9000 appendix A.1.
    for (bytes, value) in [
        ("c2197c5eff14e88c", 151_288_809_941_952_652),
        ("9d7f3e7d", 494_878_333),
        ("7bbd", 15_293),
        ("25", 37),
        ("3f", 63),
        ("4040", 64),
        ("7fff", 16_383),
        ("80004000", 16_384),
        ("bfffffff", (1 << 30) - 1),
        ("c000000040000000", 1 << 30),
        ("ffffffffffffffff", (1 << 62) - 1),
    ] {
        let bytes = hex(bytes);
        let mut out = BytesMut::new();
        write_varint(&mut out, value);
        assert_eq!(out[..], bytes[..]);
        assert_eq!(read_varint(&bytes), Some((value, bytes.len())));
        for cut in 0..bytes.len() {
            assert_eq!(read_varint(&bytes[..cut]), None);
        }
    }
    assert_eq!(read_varint(&hex("4025")), Some((37, 2)));
}

#[test]
fn what_is_written_decodes() {
    let settings = Settings { max_field_section_size: Some(65_536), connect_protocol: true, aborts: true };
    let mut out = BytesMut::new();
    settings.encode(&mut out);
    write_goaway(&mut out, 400);
    let events = decode(&out, Role::Client, Place::Control, Bounds::default()).unwrap();
    assert_eq!(events, [Event::Settings(settings), Event::GoAway(400)]);
}

#[test]
fn data_is_handed_on_without_copying() {
    let bytes = Bytes::from(frame(0, b"abcdef"));
    let mut decoder = Decoder::new(Role::Client, Place::Request, Bounds::default());
    decoder.push(bytes.clone());
    let Some(Event::Data(data)) = decoder.next().unwrap() else { panic!("no data") };
    assert_eq!(data.as_ptr(), bytes[2..].as_ptr());
}

#[test]
fn the_abort_frame_is_ours_alone() {
    for number in [super::super::frame::ABORT, super::super::frame::ABORTS] {
        assert!(number > 0x40 && (number - 0x21) % 0x1f != 0, "{number:#x} is reserved");
    }
    let mut out = BytesMut::new();
    super::super::frame::write_abort(&mut out, 0x10c);
    let abort = out.to_vec();
    check(Role::Client, Place::Request, &abort, "abort 0x10c");
    check(Role::Server, Place::Request, &[frame(0, b"ab"), abort.clone()].concat(), "data ab; abort 0x10c");
    check(Role::Server, Place::Control, &[hex("0400"), abort.clone()].concat(), "H3_FRAME_UNEXPECTED");
    check(Role::Server, Place::Request, &abort[..abort.len() - 1], "H3_FRAME_ERROR");
    let kind = super::super::frame::ABORT;
    check(Role::Server, Place::Request, &frame(kind, b""), "H3_FRAME_ERROR");
    check(Role::Server, Place::Request, &frame(kind, b"\x01\x01"), "H3_FRAME_ERROR");
    check(Role::Server, Place::Request, &frame(kind, &[0; 9]), "H3_FRAME_ERROR");
}
