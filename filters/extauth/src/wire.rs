//! As much of Protocol Buffers as one question and its answer take.

/// A message that is written.
#[derive(Debug, Default)]
pub(crate) struct Message(Vec<u8>);

impl Message {
    /// Absent where it is 0.
    pub(crate) fn number(mut self, field: u64, number: u64) -> Self {
        if number != 0 {
            varint(&mut self.0, field << 3);
            varint(&mut self.0, number);
        }
        self
    }

    /// Absent where there is none, or where it is empty.
    pub(crate) fn text(self, field: u64, text: Option<&str>) -> Self {
        self.bytes(field, text.unwrap_or_default().as_bytes())
    }

    /// Absent where it is empty.
    pub(crate) fn message(self, field: u64, message: &Message) -> Self {
        self.bytes(field, &message.0)
    }

    /// Of a map of text.
    pub(crate) fn entry(self, field: u64, key: &str, value: &str) -> Self {
        self.message(field, &Message::default().text(1, Some(key)).text(2, Some(value)))
    }

    /// Something that was read elsewhere.
    pub(crate) fn part(self, bytes: &[u8]) -> Self {
        self.bytes(1, bytes)
    }

    fn bytes(mut self, field: u64, bytes: &[u8]) -> Self {
        if !bytes.is_empty() {
            varint(&mut self.0, field << 3 | 2);
            varint(&mut self.0, bytes.len() as u64);
            self.0.extend_from_slice(bytes);
        }
        self
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

fn varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    out.push(number.to_le_bytes()[0]);
}

/// The value of a field that is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Field<'a> {
    Number(u64),
    /// Text, bytes or a message.
    Bytes(&'a [u8]),
    /// Of four or eight bytes: none that is read here is one.
    Fixed,
}

/// It is no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Broken;

/// The fields of a message by their numbers, in the order in which they stand there.
pub(crate) fn fields(message: &[u8]) -> Fields<'_> {
    Fields(message)
}

pub(crate) struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Field<'a>), Broken>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field.ok_or(Broken))
    }
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Option<(u64, Field<'a>)> {
        let key = self.varint()?;
        let field = match key & 7 {
            0 => Field::Number(self.varint()?),
            1 => self.take(8).map(|_| Field::Fixed)?,
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                Field::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Field::Fixed)?,
            _ => return None,
        };
        Some((key >> 3, field))
    }

    fn varint(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = u64::from(*self.take(1)?.first()?);
            number |= (byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let inner = Message::default().text(1, Some("a")).text(2, None);
        let message =
            Message::default().number(1, 300).number(2, 0).message(3, &inner).number(16, u64::MAX).entry(4, "k", "v");
        let read: Vec<_> = fields(message.as_bytes()).collect();
        let expect = [
            (1, Field::Number(300)),
            (3, Field::Bytes(b"\x0a\x01a")),
            (16, Field::Number(u64::MAX)),
            (4, Field::Bytes(b"\x0a\x01k\x12\x01v")),
        ];
        assert_eq!(read, expect.map(Ok));
        for cut in 1..message.as_bytes().len() {
            let read: Vec<_> = fields(&message.as_bytes()[..cut]).collect();
            assert!(read.len() <= 4 && read.iter().rev().skip(1).all(Result::is_ok), "cut at {cut}: {read:?}");
        }
        let fixed: Vec<_> = fields(b"\x0d1234\x0912345678\x08\x01").collect();
        assert_eq!(fixed, [Ok((1, Field::Fixed)), Ok((1, Field::Fixed)), Ok((1, Field::Number(1)))]);
        for broken in [&b"\x0b"[..], b"\x08", b"\x0a\x05a", b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"] {
            assert_eq!(fields(broken).collect::<Vec<_>>(), [Err(Broken)], "{broken:?}");
        }
    }
}
