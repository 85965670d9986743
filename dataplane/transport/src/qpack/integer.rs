//! Prefixed integers (RFC 9204 section 4.1.1, RFC 7541 section 5.1), bounded to 62 bits.

use bytes::{BufMut, BytesMut};

/// Result of reading an integer at the start of some bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Int {
    /// The value and how many octets it took.
    Value(u64, usize),
    /// The bytes end before the integer does.
    Incomplete,
    /// More than 62 bits.
    Overflow,
}

const MAX: u64 = (1 << 62) - 1;

/// Reads an integer that starts in the low `prefix` (1 to 8) bits of the first octet.
pub(super) fn read(bytes: &[u8], prefix: u32) -> Int {
    let Some((&first, rest)) = bytes.split_first() else { return Int::Incomplete };
    let mask = (1_u64 << prefix) - 1;
    let mut value = u64::from(first) & mask;
    if value < mask {
        return Int::Value(value, 1);
    }
    let mut shift = 0_u32;
    for (index, &octet) in rest.iter().enumerate() {
        if shift > 56 {
            return Int::Overflow;
        }
        value += u64::from(octet & 0x7f) << shift;
        shift += 7;
        if octet & 0x80 == 0 {
            return if value > MAX { Int::Overflow } else { Int::Value(value, index + 2) };
        }
    }
    Int::Incomplete
}

/// Appends `value` in the low `prefix` bits of an octet whose high bits are `flags`, and as many more as it takes.
pub(super) fn write(out: &mut BytesMut, flags: u8, prefix: u32, value: usize) {
    let mask = (1_usize << prefix) - 1;
    if value < mask {
        out.put_u8(flags | low_octet(value));
        return;
    }
    out.put_u8(flags | low_octet(mask));
    let mut rest = value - mask;
    while rest >= 0x80 {
        out.put_u8(low_octet(rest) | 0x80);
        rest >>= 7;
    }
    out.put_u8(low_octet(rest));
}

fn low_octet(value: usize) -> u8 {
    value.to_le_bytes()[0]
}
