//! A delta in several messages: no message grows with the mesh. The parts come one after the other, each but the last with
//! `more`, and are taken together or not at all.

use prost::Message as _;

use super::{WireError, v1};

/// Bytes of objects that one message carries; a larger object travels alone.
const PART: usize = 2 << 20;
/// Bytes of a delta's objects altogether.
const WHOLE: usize = 256 << 20;

/// The messages that a delta travels in, at least one.
pub fn split(delta: v1::Delta) -> Vec<v1::Delta> {
    split_at(delta, PART)
}

fn split_at(mut delta: v1::Delta, most: usize) -> Vec<v1::Delta> {
    let (mut parts, mut objects, mut size) = (Vec::new(), Vec::new(), 0);
    for object in std::mem::take(&mut delta.upserts) {
        let bytes = object.encoded_len();
        if size + bytes > most && !objects.is_empty() {
            parts.push(v1::Delta {
                revision: delta.revision,
                upserts: std::mem::take(&mut objects),
                more: true,
                ..v1::Delta::default()
            });
            size = 0;
        }
        size += bytes;
        objects.push(object);
    }
    parts.push(v1::Delta { upserts: objects, more: false, ..delta });
    parts
}

/// The parts that came so far.
#[derive(Debug, Default)]
pub struct Parts {
    revision: u64,
    objects: Vec<v1::Object>,
    size: usize,
}

impl Parts {
    /// Takes the next message of a stream; gives it on where it is whole, or is the last part of one.
    ///
    /// # Errors
    /// Parts that don't belong together, or more of them than are held.
    pub fn take(&mut self, message: v1::ControlMessage) -> Result<Option<v1::ControlMessage>, WireError> {
        use v1::control_message::Message;
        let mut delta = match message.message {
            Some(Message::Delta(delta)) => delta,
            message => return Ok(Some(v1::ControlMessage { message })),
        };
        let fault = |message: String| Err(WireError { field: "delta".to_owned(), message });
        if !self.objects.is_empty() && (delta.revision != self.revision || delta.subtractive) {
            return fault(format!("a part of revision {} comes within revision {}", delta.revision, self.revision));
        }
        self.size += delta.upserts.iter().map(prost::Message::encoded_len).sum::<usize>();
        if self.size > WHOLE {
            return fault(format!("{} bytes of objects; at most {WHOLE} are taken", self.size));
        }
        self.revision = delta.revision;
        self.objects.append(&mut delta.upserts);
        if delta.more {
            return Ok(None);
        }
        let Self { objects, .. } = std::mem::take(self);
        delta.upserts = objects;
        Ok(Some(v1::ControlMessage { message: Some(Message::Delta(delta)) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delta(objects: usize) -> v1::Delta {
        let object = |number: usize| {
            let version = u64::try_from(number).unwrap();
            v1::Object { version, payload: vec![0; 100].into(), ..v1::Object::default() }
        };
        let removals = vec![v1::Key::default()];
        v1::Delta {
            revision: 7,
            upserts: (0..objects).map(object).collect(),
            removals,
            full: true,
            ..v1::Delta::default()
        }
    }

    fn message(delta: v1::Delta) -> v1::ControlMessage {
        v1::ControlMessage { message: Some(v1::control_message::Message::Delta(delta)) }
    }

    #[test]
    fn parts_together_are_the_delta() {
        for (objects, expect) in [(0, 1), (1, 1), (4, 2), (9, 5)] {
            let parts = split_at(delta(objects), 250);
            assert_eq!(parts.len(), expect, "{objects}");
            let mut taken = Parts::default();
            let (last, earlier) = parts.split_last().unwrap();
            for part in earlier {
                assert!(part.more && part.upserts.len() == 2 && part.removals.is_empty(), "{part:?}");
                assert_eq!(taken.take(message(part.clone())), Ok(None));
            }
            assert_eq!(taken.take(message(last.clone())), Ok(Some(message(delta(objects)))));
            let notice = v1::ControlMessage::default();
            assert_eq!(taken.take(notice.clone()), Ok(Some(notice)));
        }
        assert_eq!(split_at(delta(3), 1).len(), 3, "an object that is larger travels alone");
    }

    #[test]
    fn parts_of_different_deltas_are_no_delta() {
        let part = || message(v1::Delta { more: true, ..delta(1) });
        let mut taken = Parts::default();
        assert_eq!(taken.take(part()), Ok(None));
        let error = taken.take(message(v1::Delta { revision: 8, ..delta(1) })).unwrap_err();
        assert_eq!(error.to_string(), "delta: a part of revision 8 comes within revision 7");
        let mut taken = Parts { size: WHOLE, ..Parts::default() };
        assert!(taken.take(part()).unwrap_err().to_string().contains("bytes of objects; at most"));
    }
}
