//! What a stream waits for, as its cookie keeps it.

use weft_filters_sdk::Cookie;

use crate::jwks::Purpose;

/// Nothing, as long as no keys are fetched.
#[derive(Debug, Default)]
pub struct Waiting(pub(crate) For);

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum For {
    #[default]
    Nothing,
    /// The answer to its own question for keys.
    Own { provider: u8, purpose: Purpose },
    /// The keys that another request fetches, until this time in milliseconds since the Unix epoch.
    Others { until: u64 },
}

impl Cookie for Waiting {
    fn to_bytes(&self) -> Vec<u8> {
        match self.0 {
            For::Nothing => Vec::new(),
            For::Own { provider, purpose: Purpose::Refresh } => vec![0, provider],
            For::Own { provider, purpose: Purpose::Unknown } => vec![1, provider],
            For::Others { until } => until.to_le_bytes().to_vec(),
        }
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let waits = match *bytes {
            [] => For::Nothing,
            [purpose, provider] => For::Own { provider, purpose: *Purpose::ALL.get(usize::from(purpose))? },
            _ => For::Others { until: u64::from_le_bytes(bytes.try_into().ok()?) },
        };
        Some(Self(waits))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read() {
        let own = |purpose| For::Own { provider: 31, purpose };
        for waits in [For::Nothing, own(Purpose::Refresh), own(Purpose::Unknown), For::Others { until: u64::MAX }] {
            let read = Waiting::from_bytes(&Waiting(waits).to_bytes()).expect("a cookie");
            assert_eq!(read.0, waits);
        }
        for other in [&[2, 0][..], &[0], &[0; 9]] {
            assert!(Waiting::from_bytes(other).is_none(), "{other:?}");
        }
    }
}
