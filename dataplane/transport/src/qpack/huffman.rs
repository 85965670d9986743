//! The Huffman code of RFC 7541 Appendix B, which QPACK shares. All tables are derived at compile time from code lengths,
//! since the code is canonical.

use bytes::BytesMut;

use super::Error;

/// Code length of each octet, then of EOS.
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28,
    28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12,
    10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6,
    5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22,
    22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20,
    22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28,
    27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28,
    27, 27, 27, 27, 27, 26, 30,
];

const EOS: u16 = 256;
const MIN_BITS: usize = 5;
const MAX_BITS: usize = 30;
/// Codes up to this many bits are decoded by one table lookup.
const FAST_BITS: usize = 10;

/// The canonical code: symbols in order of code, and for each length its first code and where its symbols start.
struct Canonical {
    symbols: [u16; 257],
    first: [u32; MAX_BITS + 2],
    count: [u16; MAX_BITS + 2],
    offset: [u16; MAX_BITS + 2],
}

const CANONICAL: Canonical = canonical();
static ENCODE: [(u32, u8); 257] = encode_table();
/// Indexed by the next `FAST_BITS` bits: `(length, octet)`; length 0 where the code is longer.
static FAST: [(u8, u8); 1 << FAST_BITS] = fast_table();
static LONG: Canonical = CANONICAL;

#[expect(clippy::cast_possible_truncation, reason = "evaluated at compile time on 257 symbols")]
const fn canonical() -> Canonical {
    let mut table =
        Canonical { symbols: [0; 257], first: [0; MAX_BITS + 2], count: [0; MAX_BITS + 2], offset: [0; MAX_BITS + 2] };
    let (mut next, mut code, mut length) = (0_u16, 0_u32, 1);
    while length <= MAX_BITS {
        code <<= 1;
        table.first[length] = code;
        table.offset[length] = next;
        let mut symbol = 0;
        while symbol < LENGTHS.len() {
            if LENGTHS[symbol] as usize == length {
                table.symbols[next as usize] = symbol as u16;
                next += 1;
                code += 1;
            }
            symbol += 1;
        }
        table.count[length] = next - table.offset[length];
        length += 1;
    }
    table
}

const fn encode_table() -> [(u32, u8); 257] {
    let mut table = [(0, 0); 257];
    let mut length = MIN_BITS;
    while length <= MAX_BITS {
        let mut index = 0;
        while index < CANONICAL.count[length] {
            let symbol = CANONICAL.symbols[(CANONICAL.offset[length] + index) as usize] as usize;
            table[symbol] = (CANONICAL.first[length] + index as u32, LENGTHS[symbol]);
            index += 1;
        }
        length += 1;
    }
    table
}

#[expect(clippy::cast_possible_truncation, reason = "codes of at most 10 bits stand for single octets")]
const fn fast_table() -> [(u8, u8); 1 << FAST_BITS] {
    let codes = encode_table();
    let mut table = [(0, 0); 1 << FAST_BITS];
    let mut symbol = 0;
    while symbol < 256 {
        let (code, length) = codes[symbol];
        if length as usize <= FAST_BITS {
            let spare = FAST_BITS - length as usize;
            let mut low = 0;
            while low < 1 << spare {
                table[((code as usize) << spare) | low] = (length, symbol as u8);
                low += 1;
            }
        }
        symbol += 1;
    }
    table
}

/// Octets that `plain` takes when encoded.
pub(super) fn encoded_len(plain: &[u8]) -> usize {
    let bits: usize = plain.iter().map(|&octet| usize::from(LENGTHS[usize::from(octet)])).sum();
    bits.div_ceil(8)
}

/// Appends the encoding of `plain`, padded with the start of EOS.
pub(super) fn encode(plain: &[u8], out: &mut BytesMut) {
    let (mut bits, mut held) = (0_u64, 0_u32);
    for &octet in plain {
        let (code, length) = ENCODE[usize::from(octet)];
        bits = (bits << length) | u64::from(code);
        held += u32::from(length);
        if held >= 32 {
            held -= 32;
            let word = (bits >> held) & u64::from(u32::MAX);
            out.extend_from_slice(&word.to_be_bytes()[4..]);
        }
    }
    while held >= 8 {
        held -= 8;
        out.extend_from_slice(&[low_octet(bits >> held)]);
    }
    if held > 0 {
        let padding = 8 - held;
        out.extend_from_slice(&[low_octet((bits << padding) | ((1 << padding) - 1))]);
    }
}

fn low_octet(bits: u64) -> u8 {
    bits.to_le_bytes()[0]
}

/// Appends what `coded` stands for. At most 8/5 of its length is written.
pub(super) fn decode(coded: &[u8], out: &mut BytesMut) -> Result<(), Error> {
    let start = out.len();
    out.resize(start + coded.len() * 8 / MIN_BITS, 0);
    let written = decode_to(coded, &mut out[start..])?;
    out.truncate(start + written);
    Ok(())
}

fn decode_to(coded: &[u8], out: &mut [u8]) -> Result<usize, Error> {
    let mut source = coded.iter();
    let (mut bits, mut held, mut written) = (0_u64, 0_usize, 0);
    loop {
        while held <= 56 {
            let Some(&octet) = source.next() else { break };
            bits |= u64::from(octet) << (56 - held);
            held += 8;
        }
        let (length, octet) = FAST[top(bits, FAST_BITS)];
        let (length, octet) = if length == 0 { long_code(bits, held)? } else { (usize::from(length), octet) };
        if length > held {
            break;
        }
        let Some(slot) = out.get_mut(written) else { return Err(Error::Malformed("Huffman string too long")) };
        *slot = octet;
        written += 1;
        bits <<= length;
        held -= length;
    }
    //= rfc7541#section-5.2
    // Padding is shorter than an octet and made of the most significant bits of EOS, which are ones.
    if held >= 8 || (held > 0 && top(bits, held) != (1 << held) - 1) {
        return Err(Error::Malformed("Huffman padding"));
    }
    Ok(written)
}

/// The first `count` (1 to 32) bits.
#[expect(clippy::cast_possible_truncation, reason = "at most 32 bits are left after the shift")]
fn top(bits: u64, count: usize) -> usize {
    (bits >> (64 - count)) as usize
}

/// A code of more than `FAST_BITS`; its length exceeds `held` where only padding is left.
fn long_code(bits: u64, held: usize) -> Result<(usize, u8), Error> {
    for length in FAST_BITS + 1..=MAX_BITS {
        let code = top(bits, length);
        let first = LONG.first[length] as usize;
        if code < first + usize::from(LONG.count[length]) {
            let symbol = LONG.symbols[usize::from(LONG.offset[length]) + code - first];
            if symbol == EOS && length <= held {
                return Err(Error::Malformed("Huffman EOS in a string"));
            }
            return Ok((length, u8::try_from(symbol).unwrap_or(0)));
        }
    }
    Err(Error::Malformed("Huffman code"))
}
