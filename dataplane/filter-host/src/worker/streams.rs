//! What this thread keeps of living streams: how far each has come in its chain, the cookies of its filters, and who is
//! out. It lives here and not in instances, so that an instance may be replaced between any two calls.

use bytes::Bytes;
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use crate::budget::Budget;
use crate::chain::LocalReply;
use crate::frames::Frames;
use crate::hook::SetAttribute;

/// Attributes that filters may set for one stream, and bytes of them.
const MAX_ATTRIBUTES: usize = 64;
const MAX_ATTRIBUTE_BYTES: usize = 64 << 10;

/// By stream id, which nobody outside chooses.
#[derive(Debug, Default)]
pub(super) struct Streams(FxHashMap<u64, Stream>);

#[derive(Debug, Default)]
struct Stream {
    /// Filters at the start of the chain that it has come to, and those that it has come past.
    reached: usize,
    entered: usize,
    /// An answer that is held back.
    held: Option<Box<LocalReply>>,
    set: Vec<SetAttribute>,
    /// Most have 36 bytes, and are kept in place.
    request_id: Option<SmallVec<[u8; 36]>>,
    filters: SmallVec<[OfFilter; 2]>,
}

/// What is kept for one filter.
#[derive(Debug)]
struct OfFilter {
    /// `Prepared::id`.
    id: u64,
    kept: Kept,
    /// It failed and was passed by: it is not called again for this stream.
    is_out: bool,
    waits: u32,
    frames: [Option<Box<Frames>>; 2],
}

/// What goes into a call of a filter and comes out of it.
#[derive(Debug, Default)]
pub(super) struct Kept {
    pub(super) cookie: Vec<u8>,
    pub(super) budget: Budget,
    /// The instance that first saw the stream, for filters that keep streams in their memory.
    pub(super) generation: Option<u32>,
}

impl Streams {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn of(&mut self, stream: u64) -> &mut Stream {
        self.0.entry(stream).or_default()
    }

    fn of_filter(&mut self, stream: u64, id: u64) -> &mut OfFilter {
        let filters = &mut self.of(stream).filters;
        let position = filters.iter().position(|of| of.id == id).unwrap_or_else(|| {
            filters.push(OfFilter { id, kept: Kept::default(), is_out: false, waits: 0, frames: [None, None] });
            filters.len() - 1
        });
        &mut filters[position]
    }

    fn known(&self, stream: u64, id: u64) -> Option<&OfFilter> {
        self.0.get(&stream)?.filters.iter().find(|of| of.id == id)
    }

    /// Notes that the filter at this place is about to judge the stream.
    pub(super) fn reach(&mut self, stream: u64, place: usize) {
        let of = self.of(stream);
        of.reached = of.reached.max(place + 1);
    }

    /// Notes that the stream went past the filter at this place.
    pub(super) fn enter(&mut self, stream: u64, place: usize) {
        let of = self.of(stream);
        of.entered = of.entered.max(place + 1);
    }

    /// Notes that the filter at this place has answered instead: what comes now is of those before it.
    pub(super) fn leave(&mut self, stream: u64, place: usize) {
        if let Some(of) = self.0.get_mut(&stream) {
            of.entered = of.entered.min(place);
        }
    }

    pub(super) fn reached(&self, stream: u64) -> usize {
        self.0.get(&stream).map_or(0, |of| of.reached)
    }

    pub(super) fn entered(&self, stream: u64) -> usize {
        self.0.get(&stream).map_or(0, |of| of.entered)
    }

    pub(super) fn hold(&mut self, stream: u64, reply: Box<LocalReply>) {
        self.of(stream).held = Some(reply);
    }

    pub(super) fn take_held(&mut self, stream: u64) -> Option<Box<LocalReply>> {
        self.0.get_mut(&stream)?.held.take()
    }

    pub(super) fn set(&self, stream: u64) -> &[SetAttribute] {
        self.0.get(&stream).map_or(&[][..], |of| of.set.as_slice())
    }

    /// True where all of these can be set for a stream, one after another.
    pub(super) fn has_room(&self, stream: u64, more: &[&SetAttribute]) -> bool {
        if more.is_empty() {
            return true;
        }
        let is_replaced = |name: &str, by: &[&SetAttribute]| by.iter().any(|it| *it.name == *name);
        let kept = self.set(stream).iter().filter(|it| !is_replaced(&it.name, more));
        let last = (1..).zip(more).filter(|(next, it)| !is_replaced(&it.name, &more[*next..])).map(|(_, it)| *it);
        let (count, bytes) = kept.chain(last).fold((0, 0), |(count, bytes), it| (count + 1, bytes + it.value.len()));
        count <= MAX_ATTRIBUTES && bytes <= MAX_ATTRIBUTE_BYTES
    }

    /// Sets an attribute; false where the stream has as many, or as long ones, as it may.
    pub(super) fn set_attribute(&mut self, stream: u64, attribute: SetAttribute) -> bool {
        let set = &mut self.of(stream).set;
        let bytes: usize = set.iter().filter(|it| it.name != attribute.name).map(|it| it.value.len()).sum();
        let known = set.iter().position(|it| it.name == attribute.name);
        if bytes + attribute.value.len() > MAX_ATTRIBUTE_BYTES || (known.is_none() && set.len() == MAX_ATTRIBUTES) {
            return false;
        }
        match known {
            Some(position) => set[position] = attribute,
            None => set.push(attribute),
        }
        true
    }

    pub(super) fn name(&mut self, stream: u64, request_id: Option<&str>) {
        if let Some(id) = request_id {
            self.of(stream).request_id.get_or_insert_with(|| SmallVec::from_slice(id.as_bytes()));
        }
    }

    pub(super) fn request_id(&self, stream: u64) -> Option<&str> {
        std::str::from_utf8(self.0.get(&stream)?.request_id.as_ref()?).ok()
    }

    /// Takes what a filter is handed; [`Streams::keep`] brings it back.
    pub(super) fn take(&mut self, stream: u64, id: u64) -> Kept {
        std::mem::take(&mut self.of_filter(stream, id).kept)
    }

    pub(super) fn keep(&mut self, stream: u64, id: u64, kept: Kept) {
        self.of_filter(stream, id).kept = kept;
    }

    pub(super) fn is_out(&self, stream: u64, id: u64) -> bool {
        self.known(stream, id).is_some_and(|of| of.is_out)
    }

    pub(super) fn put_out(&mut self, stream: u64, id: u64) {
        self.of_filter(stream, id).is_out = true;
    }

    /// Counts a wait: how many the filter has had for this stream.
    pub(super) fn waits(&mut self, stream: u64, id: u64) -> u32 {
        let of = self.of_filter(stream, id);
        of.waits += 1;
        of.waits
    }

    /// What it waited for was given: its waits are counted anew.
    pub(super) fn went_on(&mut self, stream: u64, id: u64) {
        self.of_filter(stream, id).waits = 0;
    }

    /// The messages of one direction.
    pub(super) fn frames(&mut self, stream: u64, id: u64, of_request: bool) -> &mut Frames {
        self.of_filter(stream, id).frames[usize::from(of_request)].get_or_insert_default()
    }

    /// Gives up what is held of messages.
    pub(super) fn flush(&mut self, stream: u64, id: u64, of_request: bool) -> Bytes {
        let frames = self.of_filter(stream, id).frames[usize::from(of_request)].take();
        frames.map(|mut frames| frames.take()).unwrap_or_default()
    }

    pub(super) fn remove(&mut self, stream: u64) {
        self.0.remove(&stream);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_bounded_and_replaced() {
        let mut streams = Streams::default();
        let attribute = |name: &str, bytes: usize| SetAttribute { name: name.into(), value: vec![b'x'; bytes] };
        assert!(streams.set_attribute(1, attribute("filter.a", MAX_ATTRIBUTE_BYTES)));
        assert!(!streams.set_attribute(1, attribute("filter.b", 1)), "no room for more bytes");
        let has_room = |streams: &Streams, more: &[SetAttribute]| streams.has_room(1, &more.iter().collect::<Vec<_>>());
        assert!(has_room(&streams, &[]) && !has_room(&streams, &[attribute("filter.b", 1)]));
        let (short, long) = (attribute("filter.a", 1), attribute("filter.a", MAX_ATTRIBUTE_BYTES));
        assert!(has_room(&streams, &[long.clone(), short.clone(), attribute("filter.b", 1)]), "the last holds");
        assert!(!has_room(&streams, &[short, long, attribute("filter.b", 1)]));
        assert!(streams.set_attribute(1, attribute("filter.a", 1)));
        for number in 1..MAX_ATTRIBUTES {
            assert!(streams.set_attribute(1, attribute(&format!("filter.{number}"), 1)));
        }
        assert!(!streams.set_attribute(1, attribute("filter.more", 1)));
        assert!(!has_room(&streams, &[attribute("filter.more", 1)]) && has_room(&streams, &[attribute("filter.1", 2)]));
        assert!(streams.set_attribute(1, attribute("filter.1", 2)), "it is replaced");
        assert_eq!((streams.set(1).len(), streams.set(2).len()), (MAX_ATTRIBUTES, 0));
        streams.remove(1);
        assert!(streams.is_empty());
    }

    #[test]
    fn a_cookie_is_the_stream_s_and_the_filter_s() {
        let mut streams = Streams::default();
        streams.keep(1, 7, Kept { cookie: b"a".to_vec(), ..Kept::default() });
        assert!(streams.take(1, 8).cookie.is_empty() && streams.take(2, 7).cookie.is_empty());
        assert_eq!(streams.take(1, 7).cookie, b"a");
        streams.put_out(1, 7);
        assert!(streams.is_out(1, 7) && !streams.is_out(1, 8) && !streams.is_out(2, 7));
    }
}
