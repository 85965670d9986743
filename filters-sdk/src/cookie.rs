//! What a filter remembers of a stream: bytes that the host keeps, so that a trap and a replaced instance lose nothing.

/// The state of one stream. A stream starts with the default; what the state is after a hook, the next hook is given.
/// The host keeps at most 4 KiB of it.
pub trait Cookie: Default {
    fn to_bytes(&self) -> Vec<u8>;

    /// Reads what [`Cookie::to_bytes`] wrote, or `None`. It is never asked about nothing: that is the default.
    fn from_bytes(bytes: &[u8]) -> Option<Self>;
}

impl Cookie for () {
    fn to_bytes(&self) -> Vec<u8> {
        Vec::new()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.is_empty().then_some(())
    }
}

impl Cookie for bool {
    fn to_bytes(&self) -> Vec<u8> {
        if *self { vec![1] } else { Vec::new() }
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        (bytes == [1]).then_some(true)
    }
}

/// Little-endian without the zeros at its end: 0 is nothing.
impl Cookie for u64 {
    fn to_bytes(&self) -> Vec<u8> {
        let bytes = self.to_le_bytes();
        let length = 8 - self.leading_zeros() as usize / 8;
        bytes[..length].to_vec()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut whole = [0; 8];
        whole.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(u64::from_le_bytes(whole))
    }
}

impl Cookie for u32 {
    fn to_bytes(&self) -> Vec<u8> {
        u64::from(*self).to_bytes()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        u32::try_from(u64::from_bytes(bytes)?).ok()
    }
}

impl Cookie for Vec<u8> {
    fn to_bytes(&self) -> Vec<u8> {
        self.clone()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Some(bytes.to_vec())
    }
}

impl Cookie for String {
    fn to_bytes(&self) -> Vec<u8> {
        self.as_bytes().to_vec()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        String::from_utf8(bytes.to_vec()).ok()
    }
}

/// The length of the first, then both.
impl<A: Cookie, B: Cookie> Cookie for (A, B) {
    fn to_bytes(&self) -> Vec<u8> {
        let (first, second) = (self.0.to_bytes(), self.1.to_bytes());
        if first.is_empty() && second.is_empty() {
            return Vec::new();
        }
        // What is too long for its length is over the host's limit, which says so.
        let mut bytes = u32::try_from(first.len()).unwrap_or(u32::MAX).to_le_bytes().to_vec();
        bytes.extend_from_slice(&first);
        bytes.extend_from_slice(&second);
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let (first, second) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
        Some((read(first)?, read(second)?))
    }
}

impl<A: Cookie, B: Cookie, C: Cookie> Cookie for (A, B, C) {
    fn to_bytes(&self) -> Vec<u8> {
        let rest = Pair(&self.1, &self.2).to_bytes();
        Pair(&self.0, &rest).to_bytes()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (first, rest) = <(A, Vec<u8>)>::from_bytes(bytes)?;
        let (second, third) = read::<(B, C)>(&rest)?;
        Some((first, second, third))
    }
}

/// Two cookies that somebody else owns, written as a pair.
struct Pair<'a, A, B>(&'a A, &'a B);

impl<A: Cookie, B: Cookie> Pair<'_, A, B> {
    fn to_bytes(&self) -> Vec<u8> {
        (self.0.to_bytes(), self.1.to_bytes()).to_bytes()
    }
}

/// The state that these bytes hold; nothing is the default.
pub(crate) fn read<C: Cookie>(bytes: &[u8]) -> Option<C> {
    if bytes.is_empty() { Some(C::default()) } else { C::from_bytes(bytes) }
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use super::*;

    fn check<C: Cookie + PartialEq + Debug>(cookie: C, bytes: &[u8]) {
        assert_eq!(cookie.to_bytes(), bytes, "{cookie:?}");
        assert_eq!(read::<C>(bytes), Some(cookie));
    }

    #[test]
    fn what_was_written_is_read_and_nothing_is_the_default() {
        check((), b"");
        check(false, b"");
        check(true, &[1]);
        check(0_u64, b"");
        check(1_u64, &[1]);
        check(0x0100_u64, &[0, 1]);
        check(u64::MAX, &[0xff; 8]);
        check(7_u32, &[7]);
        check(vec![1_u8, 2], &[1, 2]);
        check("ab".to_owned(), b"ab");
        check((0_u64, String::new()), b"");
        check((5_u64, "x".to_owned()), b"\x01\0\0\0\x05x");
        check((0_u64, String::new(), false), b"");
        check((5_u64, "x".to_owned(), true), b"\x01\0\0\0\x05\x01\0\0\0x\x01");
    }

    #[test]
    fn what_is_no_cookie_of_the_type_is_none() {
        assert_eq!(read::<()>(&[1]), None);
        assert_eq!(read::<bool>(&[2]), None);
        assert_eq!(read::<u64>(&[1; 9]), None);
        assert_eq!(read::<u32>(&[1; 5]), None);
        assert_eq!(read::<String>(&[0xff]), None);
        assert_eq!(read::<(u64, u64)>(&[9, 0, 0, 0, 1]), None);
        assert_eq!(read::<(u64, u64)>(&[9]), None);
    }
}
