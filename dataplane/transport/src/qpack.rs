//! QPACK (RFC 9204) with the static table and Huffman coding, both ways; no dynamic table, so nothing here holds state
//! across sections. Bytes in, `http` types out; what the fields mean is decided in `h3`.

mod huffman;
mod instructions;
mod integer;
mod table;
#[cfg(test)]
mod tests;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderName, HeaderValue, header};

use crate::between;
use integer::Int;
use table::{Entry, Match};

pub use instructions::{Direction, Instructions};

/// Bounds on a decoded field section.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Names, values and 32 per field (RFC 9114 section 4.2.2).
    pub size: usize,
    /// Fields; cookie crumbs count towards `size` only, since they make one field.
    pub fields: usize,
}

/// Why a field section was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not QPACK, or refers to a dynamic table: the connection is beyond repair.
    #[error("QPACK: {0}")]
    Malformed(&'static str),
    /// A limit was hit: the message is refused.
    #[error("limit exceeded: {0}")]
    Limit(&'static str),
    /// A field that HTTP forbids: the message is malformed.
    #[error("malformed message: {0}")]
    Field(&'static str),
    /// A well-formed request to change to a protocol that is not known here.
    #[error("unknown protocol")]
    Protocol,
}

/// The pseudo-header fields that are defined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Pseudo {
    Authority,
    Method,
    Path,
    Protocol,
    Scheme,
    Status,
}

impl Pseudo {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Pseudo::Authority => ":authority",
            Pseudo::Method => ":method",
            Pseudo::Path => ":path",
            Pseudo::Protocol => ":protocol",
            Pseudo::Scheme => ":scheme",
            Pseudo::Status => ":status",
        }
    }

    fn parse(name: &[u8]) -> Option<Pseudo> {
        Some(match name {
            b":authority" => Pseudo::Authority,
            b":method" => Pseudo::Method,
            b":path" => Pseudo::Path,
            b":protocol" => Pseudo::Protocol,
            b":scheme" => Pseudo::Scheme,
            b":status" => Pseudo::Status,
            _ => return None,
        })
    }
}

/// Takes fields one by one, in order; an error makes the message malformed and ends decoding.
pub trait Sink {
    fn pseudo(&mut self, name: Pseudo, value: Bytes) -> Result<(), Error>;
    fn field(&mut self, name: HeaderName, value: HeaderValue) -> Result<(), Error>;
}

/// Decodes a field section into a list: the plain form, for tools and fuzzing.
pub fn decode(section: &[u8], limits: &Limits) -> Result<Vec<(String, Bytes)>, Error> {
    #[derive(Default)]
    struct List(Vec<(String, Bytes)>);
    impl Sink for List {
        fn pseudo(&mut self, name: Pseudo, value: Bytes) -> Result<(), Error> {
            self.0.push((name.as_str().to_owned(), value));
            Ok(())
        }
        fn field(&mut self, name: HeaderName, value: HeaderValue) -> Result<(), Error> {
            self.0.push((name.as_str().to_owned(), Bytes::copy_from_slice(value.as_bytes())));
            Ok(())
        }
    }
    let mut list = List::default();
    decode_into(&Bytes::copy_from_slice(section), limits, &mut list)?;
    Ok(list.0)
}

/// Decodes a field section straight into `sink`, in one pass. Values share memory with `section` where they can.
pub fn decode_into<S: Sink>(section: &Bytes, limits: &Limits, sink: &mut S) -> Result<(), Error> {
    let mut reader = Reader { section, position: 0, scratch: BytesMut::new() };
    //= rfc9204#section-4.5.1
    if reader.integer(8)? != 0 {
        return Err(Error::Malformed("refers to the dynamic table"));
    }
    reader.integer(7)?;
    let mut budget = Budget { limits, size: 0, fields: 0 };
    while let Some(&first) = section.get(reader.position) {
        match first {
            //= rfc9204#section-4.5.2
            0xc0.. => indexed(reader.integer(6)?, &mut budget, sink)?,
            //= rfc9204#section-4.5.4
            0x50..0x60 | 0x70..0x80 => {
                let entry = table::get(reader.integer(4)?).ok_or(Error::Malformed("static index"))?;
                let value = reader.string(7)?;
                name_reference(entry, value, first & 0x20 != 0, &mut budget, sink)?;
            }
            //= rfc9204#section-4.5.6
            0x20..0x40 => {
                let name = reader.string(3)?;
                let value = reader.string(7)?;
                literal(&name, value, first & 0x10 != 0, &mut budget, sink)?;
            }
            // Post-base references, and pre-base ones with the dynamic table's bit.
            _ => return Err(Error::Malformed("refers to the dynamic table")),
        }
    }
    Ok(())
}

fn indexed<S: Sink>(index: u64, budget: &mut Budget<'_>, sink: &mut S) -> Result<(), Error> {
    match table::get(index).ok_or(Error::Malformed("static index"))? {
        Entry::Pseudo(name, value) => {
            budget.spend(name.as_str().len() + value.len(), true)?;
            sink.pseudo(*name, Bytes::from_static(value.as_bytes()))
        }
        Entry::Field(name, value) => {
            budget.spend(name.as_str().len() + value.len(), name != header::COOKIE)?;
            sink.field(name.clone(), value.clone())
        }
    }
}

fn name_reference<S: Sink>(
    entry: &Entry,
    value: Bytes,
    never_indexed: bool,
    budget: &mut Budget<'_>,
    sink: &mut S,
) -> Result<(), Error> {
    match entry {
        Entry::Pseudo(name, _) => {
            budget.spend(name.as_str().len() + value.len(), true)?;
            sink.pseudo(*name, value)
        }
        Entry::Field(name, _) => {
            budget.spend(name.as_str().len() + value.len(), name != header::COOKIE)?;
            sink.field(name.clone(), field_value(value, never_indexed)?)
        }
    }
}

fn literal<S: Sink>(
    name: &[u8],
    value: Bytes,
    never_indexed: bool,
    budget: &mut Budget<'_>,
    sink: &mut S,
) -> Result<(), Error> {
    if name.first() == Some(&b':') {
        budget.spend(name.len() + value.len(), true)?;
        let name = Pseudo::parse(name).ok_or(Error::Field("unknown pseudo-header field"))?;
        return sink.pseudo(name, value);
    }
    //= rfc9114#section-4.2
    // Characters in field names MUST be lower case: `from_lowercase` refuses the others.
    let name = match between::named(name) {
        Some(known) => known,
        None => HeaderName::from_lowercase(name).map_err(|_| Error::Field("field name"))?,
    };
    budget.spend(name.as_str().len() + value.len(), name != header::COOKIE)?;
    sink.field(name, field_value(value, never_indexed)?)
}

fn field_value(value: Bytes, never_indexed: bool) -> Result<HeaderValue, Error> {
    let mut value = HeaderValue::from_maybe_shared(value).map_err(|_| Error::Field("field value"))?;
    if never_indexed {
        value.set_sensitive(true);
    }
    Ok(value)
}

/// Size and number of fields of a section so far, with their limits.
struct Budget<'a> {
    limits: &'a Limits,
    size: usize,
    fields: usize,
}

impl Budget<'_> {
    fn spend(&mut self, length: usize, counts: bool) -> Result<(), Error> {
        self.size += length + FIELD_OVERHEAD;
        self.fields += usize::from(counts);
        if self.size > self.limits.size {
            return Err(Error::Limit("header bytes"));
        }
        if self.fields > self.limits.fields {
            return Err(Error::Limit("header fields"));
        }
        Ok(())
    }
}

struct Reader<'a> {
    section: &'a Bytes,
    position: usize,
    /// Huffman strings of a section are decoded into shared blocks.
    scratch: BytesMut,
}

impl Reader<'_> {
    fn integer(&mut self, prefix: u32) -> Result<u64, Error> {
        match integer::read(&self.section[self.position..], prefix) {
            Int::Value(value, length) => {
                self.position += length;
                Ok(value)
            }
            Int::Incomplete => Err(Error::Malformed("truncated integer")),
            Int::Overflow => Err(Error::Malformed("integer overflow")),
        }
    }

    /// A string whose length has `prefix` bits, below the bit that says whether it is Huffman coded.
    fn string(&mut self, prefix: u32) -> Result<Bytes, Error> {
        let first = *self.section.get(self.position).ok_or(Error::Malformed("truncated string"))?;
        let length = usize::try_from(self.integer(prefix)?).map_err(|_| Error::Malformed("string length"))?;
        let end = self.position.checked_add(length).ok_or(Error::Malformed("string length"))?;
        if end > self.section.len() {
            return Err(Error::Malformed("truncated string"));
        }
        let raw = self.position..end;
        self.position = end;
        if first & (1 << prefix) == 0 {
            return Ok(self.section.slice(raw));
        }
        huffman::decode(&self.section[raw], &mut self.scratch)?;
        Ok(self.scratch.split().freeze())
    }
}

/// Bytes that each field adds to the size of a section besides its name and value.
const FIELD_OVERHEAD: usize = 32;

/// Writes one field section. The static table is used where it fits, Huffman coding where it is asked for and shorter.
#[derive(Debug)]
pub struct Encoder<'a> {
    out: &'a mut BytesMut,
    huffman: bool,
    size: usize,
}

impl<'a> Encoder<'a> {
    /// Starts a section at the end of `out`.
    pub fn new(out: &'a mut BytesMut, huffman: bool) -> Self {
        out.put_slice(&[0, 0]);
        Encoder { out, huffman, size: 0 }
    }

    /// The size of the section so far, as RFC 9114 section 4.2.2 counts it.
    #[must_use]
    pub fn size(&self) -> usize {
        self.size
    }

    pub fn pseudo(&mut self, name: Pseudo, value: &[u8]) {
        self.line(name.as_str(), value, false);
    }

    pub fn field(&mut self, name: &HeaderName, value: &HeaderValue) {
        self.line(name.as_str(), value.as_bytes(), value.is_sensitive());
    }

    fn line(&mut self, name: &str, value: &[u8], sensitive: bool) {
        self.size += name.len() + value.len() + FIELD_OVERHEAD;
        let never = |flag: u8| if sensitive { flag } else { 0 };
        match table::find(name, value) {
            Match::Indexed(index) if !sensitive => integer::write(self.out, 0xc0, 6, index.into()),
            Match::Indexed(index) | Match::NameOnly(index) => {
                integer::write(self.out, 0x50 | never(0x20), 4, index.into());
                self.string(0, 7, value);
            }
            Match::None => {
                self.string(0x20 | never(0x10), 3, name.as_bytes());
                self.string(0, 7, value);
            }
        }
    }

    fn string(&mut self, flags: u8, prefix: u32, plain: &[u8]) {
        if self.huffman {
            let coded = huffman::encoded_len(plain);
            if coded < plain.len() {
                integer::write(self.out, flags | (1 << prefix), prefix, coded);
                huffman::encode(plain, self.out);
                return;
            }
        }
        integer::write(self.out, flags, prefix, plain.len());
        self.out.put_slice(plain);
    }
}
