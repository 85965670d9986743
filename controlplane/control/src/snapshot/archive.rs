//! The archive that a snapshot is: named entries behind a line that names the form, and the digest of it all at the end.
//! Invariant: nothing of an archive is given out before its end and its digest were seen.

use sha2::{Digest as _, Sha256};

/// What every archive begins with; the number is the form.
const MAGIC: &str = "weft snapshot ";
const FORM: &str = "1";
const ENTRY: u8 = 1;
const END: u8 = 0;
const DIGEST_BYTES: usize = 32;
/// Bytes of an entry's name.
const MAX_NAME: usize = 4_096;

/// Why something is no archive that this program reads.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArchiveError {
    #[error("this is no snapshot of Weft")]
    Foreign,
    #[error(
        "the snapshot is of form {0}, and this weft-control reads form {FORM} only: restore it with the release that made it"
    )]
    Form(String),
    #[error("the snapshot ends too early: it was cut")]
    Truncated,
    #[error("the snapshot is damaged: its digest is not that of its content")]
    Digest,
    #[error("the snapshot is damaged: {0}")]
    Damaged(&'static str),
    #[error("the snapshot would have more than {0} bytes: limits.max_snapshot_bytes")]
    TooLarge(usize),
}

/// An archive in the making.
pub struct Writer {
    bytes: Vec<u8>,
    most: usize,
}

impl Writer {
    pub fn new(most: usize) -> Self {
        Self { bytes: format!("{MAGIC}{FORM}\n").into_bytes(), most }
    }

    pub fn add(&mut self, name: &str, content: &[u8]) -> Result<(), ArchiveError> {
        let (Ok(name_length), Ok(length)) = (u16::try_from(name.len()), u64::try_from(content.len())) else {
            return Err(ArchiveError::Damaged("the name of an entry is too long"));
        };
        if name.len() > MAX_NAME {
            return Err(ArchiveError::Damaged("the name of an entry is too long"));
        }
        if self.bytes.len() + name.len() + content.len() + 64 > self.most {
            return Err(ArchiveError::TooLarge(self.most));
        }
        self.bytes.push(ENTRY);
        self.bytes.extend(name_length.to_be_bytes());
        self.bytes.extend(name.as_bytes());
        self.bytes.extend(length.to_be_bytes());
        self.bytes.extend(content);
        Ok(())
    }

    pub fn finish(mut self) -> Vec<u8> {
        self.bytes.push(END);
        let digest = Sha256::digest(&self.bytes);
        self.bytes.extend(digest);
        self.bytes
    }
}

/// Name and content of each entry.
pub type Entries<'a> = Vec<(&'a str, &'a [u8])>;

/// The entries of an archive that is whole.
pub fn read(bytes: &[u8]) -> Result<Entries<'_>, ArchiveError> {
    let body = bytes.strip_prefix(MAGIC.as_bytes()).ok_or(ArchiveError::Foreign)?;
    let end = body.iter().take(32).position(|byte| *byte == b'\n').ok_or(ArchiveError::Foreign)?;
    let form = String::from_utf8_lossy(&body[..end]);
    if form != FORM {
        return Err(ArchiveError::Form(form.into_owned()));
    }
    let mut left = Left(&body[end + 1..]);
    let mut entries = Vec::new();
    loop {
        match left.take(1)? {
            [ENTRY] => {
                let length = usize::from(u16::from_be_bytes(left.array()?));
                let name =
                    std::str::from_utf8(left.take(length)?).map_err(|_| ArchiveError::Damaged("a name is no text"));
                let length = usize::try_from(u64::from_be_bytes(left.array()?)).map_err(|_| ArchiveError::Truncated)?;
                entries.push((name?, left.take(length)?));
            }
            [END] => break,
            _ => return Err(ArchiveError::Damaged("an entry begins with an unknown mark")),
        }
    }
    if left.0.len() < DIGEST_BYTES {
        return Err(ArchiveError::Truncated);
    }
    let (content, digest) = bytes.split_at(bytes.len() - left.0.len());
    if digest.len() != DIGEST_BYTES {
        return Err(ArchiveError::Damaged("there is something behind its end"));
    }
    if Sha256::digest(content).as_slice() != digest {
        return Err(ArchiveError::Digest);
    }
    Ok(entries)
}

struct Left<'a>(&'a [u8]);

impl<'a> Left<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], ArchiveError> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(ArchiveError::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ArchiveError> {
        self.take(N)?.try_into().map_err(|_| ArchiveError::Truncated)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive() -> Vec<u8> {
        let mut writer = Writer::new(1 << 20);
        writer.add("a", b"first").unwrap();
        writer.add("b/c", b"").unwrap();
        writer.finish()
    }

    #[test]
    fn what_was_written_is_read() {
        let bytes = archive();
        assert_eq!(read(&bytes).unwrap(), [("a", b"first".as_slice()), ("b/c", b"".as_slice())]);
        let mut writer = Writer::new(100);
        assert_eq!(writer.add("a", &[0; 100]), Err(ArchiveError::TooLarge(100)));
    }

    #[test]
    fn every_cut_and_every_changed_byte_is_noticed() {
        let bytes = archive();
        for length in 0..bytes.len() {
            read(&bytes[..length]).unwrap_err();
        }
        for position in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[position] ^= 0x41;
            read(&damaged).unwrap_err();
        }
        let mut longer = bytes.clone();
        longer.push(0);
        read(&longer).unwrap_err();
        let cut = &bytes[..bytes.len() - 1];
        assert_eq!(read(cut), Err(ArchiveError::Truncated));
        let older = [b"weft snapshot 0\n".as_slice(), &bytes[16..]].concat();
        assert_eq!(read(&older), Err(ArchiveError::Form("0".to_owned())));
        assert_eq!(read(b"PK\x03\x04"), Err(ArchiveError::Foreign));
    }
}
