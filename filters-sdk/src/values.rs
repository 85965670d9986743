//! What a call was given: the packed buffer of the contract, read by the positions that `configure` was told.

use std::marker::PhantomData;

/// A value that was asked for at the hook `H`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Value<H> {
    position: u16,
    hook: PhantomData<H>,
}

/// All headers whose names start alike, asked for at the hook `H`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefixed<H> {
    position: u16,
    hook: PhantomData<H>,
}

impl<H> Value<H> {
    pub(crate) fn at(position: u16) -> Self {
        Self { position, hook: PhantomData }
    }
}

impl<H> Prefixed<H> {
    pub(crate) fn at(position: u16) -> Self {
        Self { position, hook: PhantomData }
    }
}

/// The values of one call: those that were asked for at its hook and can be given. Nothing is copied.
#[derive(Debug, Clone, Copy)]
pub struct Values<'a, H> {
    stream: u64,
    buffer: &'a [u8],
    hook: PhantomData<H>,
}

impl<'a, H> Values<'a, H> {
    pub(crate) fn new(stream: u64, buffer: &'a [u8]) -> Self {
        Self { stream, buffer, hook: PhantomData }
    }

    /// Unique among the living streams of the worker; for logs.
    pub fn stream(&self) -> u64 {
        self.stream
    }

    /// The value; of a header that came several times the first.
    pub fn get(&self, value: Value<H>) -> Option<&'a [u8]> {
        self.all(value).next()
    }

    /// The value as text; `None` too where it is none.
    pub fn text(&self, value: Value<H>) -> Option<&'a str> {
        std::str::from_utf8(self.get(value)?).ok()
    }

    /// The value as a number; `None` too where it is none.
    pub fn number(&self, value: Value<H>) -> Option<u64> {
        self.text(value)?.parse().ok()
    }

    /// Every value of a header, in order.
    pub fn all(&self, value: Value<H>) -> impl Iterator<Item = &'a [u8]> + use<'a, H> {
        entries(self.buffer).filter(move |entry| entry.position == value.position).map(|entry| entry.value)
    }

    /// Every header whose name starts as asked for, with its name in lower case, in order; or every attribute, with its whole
    /// name.
    pub fn prefixed(&self, prefix: Prefixed<H>) -> impl Iterator<Item = (&'a str, &'a [u8])> + use<'a, H> {
        entries(self.buffer).filter(move |entry| entry.position == prefix.position).filter_map(|entry| {
            let name = std::str::from_utf8(entry.name).ok()?;
            Some((name, entry.value))
        })
    }
}

struct Entry<'a> {
    position: u16,
    name: &'a [u8],
    value: &'a [u8],
}

fn entries(buffer: &[u8]) -> Entries<'_> {
    Entries(buffer)
}

struct Entries<'a>(&'a [u8]);

impl<'a> Iterator for Entries<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Entry<'a>> {
        let ([p0, p1, n0, n1, v0, v1, v2, v3], rest) = self.0.split_first_chunk::<8>()?;
        let name_length = usize::from(u16::from_le_bytes([*n0, *n1]));
        let value_length = usize::try_from(u32::from_le_bytes([*v0, *v1, *v2, *v3])).ok()?;
        let (name, rest) = rest.split_at_checked(name_length)?;
        let (value, rest) = rest.split_at_checked(value_length)?;
        self.0 = rest;
        Some(Entry { position: u16::from_le_bytes([*p0, *p1]), name, value })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hook::RequestHead;

    fn entry(buffer: &mut Vec<u8>, position: u16, name: &str, value: &[u8]) {
        buffer.extend_from_slice(&position.to_le_bytes());
        buffer.extend_from_slice(&u16::try_from(name.len()).expect("short").to_le_bytes());
        buffer.extend_from_slice(&u32::try_from(value.len()).expect("short").to_le_bytes());
        buffer.extend_from_slice(name.as_bytes());
        buffer.extend_from_slice(value);
    }

    #[test]
    fn entries_are_found_by_position_and_a_buffer_cut_short_ends() {
        let mut buffer = Vec::new();
        entry(&mut buffer, 1, "", b"a");
        entry(&mut buffer, 3, "x-team-a", b"1");
        entry(&mut buffer, 1, "", b"b");
        entry(&mut buffer, 0, "", b"");
        entry(&mut buffer, 3, "x-team-b", b"2");
        entry(&mut buffer, 4, "", b"80");
        let values = Values::<RequestHead>::new(7, &buffer);
        assert_eq!(values.all(Value::at(1)).collect::<Vec<_>>(), [b"a", b"b"]);
        assert_eq!((values.get(Value::at(0)), values.get(Value::at(2))), (Some(&b""[..]), None));
        assert_eq!((values.number(Value::at(4)), values.number(Value::at(1))), (Some(80), None));
        let named: Vec<_> = values.prefixed(Prefixed::at(3)).collect();
        assert_eq!(named, [("x-team-a", &b"1"[..]), ("x-team-b", &b"2"[..])]);
        for cut in 0..buffer.len() {
            let found = Values::<RequestHead>::new(7, &buffer[..cut]).all(Value::at(4)).count();
            assert_eq!(found, 0, "cut at {cut}");
        }
    }
}
