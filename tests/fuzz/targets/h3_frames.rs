//! Any bytes on any HTTP/3 stream, cut anywhere: the decoder neither panics nor depends on where they were cut.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use weft_transport::h3::frame::{Bounds, Decoder, Event, Place, Role, decode};

fuzz_target!(|input: &[u8]| {
    let [choice, cut, stream @ ..] = input else { return };
    let role = if choice & 1 == 0 { Role::Server } else { Role::Client };
    let place = if choice & 2 == 0 { Place::Request } else { Place::Control };
    let bounds = Bounds { headers: 512, settings: 128, unknown: 256, idle_frames: 16 };
    let whole = decode(stream, role, place, bounds).map(joined);

    let mut decoder = Decoder::new(role, place, bounds);
    let mut events = Vec::new();
    let pieces = stream.chunks(usize::from(*cut).max(1));
    let result = pieces.into_iter().try_for_each(|piece| {
        decoder.push(Bytes::copy_from_slice(piece));
        while let Some(event) = decoder.next()? {
            events.push(event);
        }
        Ok(())
    });
    let cut = result.and_then(|()| decoder.finish()).map(|()| joined(events));
    assert_eq!(whole.is_ok(), cut.is_ok(), "refused only when cut, or only when whole");
    if let (Ok(whole), Ok(cut)) = (whole, cut) {
        assert_eq!(whole, cut);
    }
});

/// DATA arrives in as many parts as the bytes did: joined before it is compared.
fn joined(events: Vec<Event>) -> Vec<Event> {
    let mut out: Vec<Event> = Vec::new();
    for event in events {
        match (out.last_mut(), event) {
            (Some(Event::Data(before)), Event::Data(more)) => *before = [&before[..], &more[..]].concat().into(),
            (_, event) => out.push(event),
        }
    }
    out
}
