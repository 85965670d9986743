//! What an attachment is granted, checked once: who made the grants is another program, perhaps of another release.

use weft_policy::bundle::{
    CalloutGrant, CalloutService, Grant, KvGrant, MAX_CALLOUT_SERVICES, MAX_KV_BYTES, MAX_KV_ENTRIES,
};

/// Everything that a filter may do beyond logging and counting.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Grants {
    pub(crate) token_bucket: bool,
    pub(crate) crypto: bool,
    pub(crate) wasi: bool,
    pub(crate) kv: Option<KvGrant>,
    pub(crate) callouts: Vec<CalloutService>,
}

/// Why there are no such grants.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum GrantError {
    #[error("{0:?} is no capability")]
    Unknown(String),
    #[error("{0} is granted twice")]
    Twice(&'static str),
    #[error("{entries} entries of {bytes} bytes can't be kept: at most {MAX_KV_ENTRIES} and {MAX_KV_BYTES}")]
    Kv { entries: u64, bytes: u64 },
    #[error("{0} services can't be called: at most {MAX_CALLOUT_SERVICES}")]
    Callouts(usize),
}

impl Grants {
    pub(crate) fn new(words: &[String], grants: &[Grant]) -> Result<Self, GrantError> {
        let mut granted = Self::default();
        for word in words {
            match word.as_str() {
                "log" | "metrics" => {}
                "token-bucket" => granted.token_bucket = true,
                "crypto" => granted.crypto = true,
                "wasi" => granted.wasi = true,
                _ => return Err(GrantError::Unknown(word.clone())),
            }
        }
        for grant in grants {
            match grant {
                Grant::Kv(kv) => granted.take_kv(*kv)?,
                Grant::Callout(callout) => granted.take_callouts(callout)?,
            }
        }
        Ok(granted)
    }

    fn take_kv(&mut self, kv: KvGrant) -> Result<(), GrantError> {
        let KvGrant { entries, bytes, .. } = kv;
        if !(1..=MAX_KV_ENTRIES).contains(&entries) || !(1..=MAX_KV_BYTES).contains(&bytes) {
            return Err(GrantError::Kv { entries, bytes });
        }
        match self.kv.replace(kv) {
            None => Ok(()),
            Some(_) => Err(GrantError::Twice("kv")),
        }
    }

    fn take_callouts(&mut self, callout: &CalloutGrant) -> Result<(), GrantError> {
        if callout.services.len() > MAX_CALLOUT_SERVICES {
            return Err(GrantError::Callouts(callout.services.len()));
        }
        if !self.callouts.is_empty() {
            return Err(GrantError::Twice("callout"));
        }
        self.callouts.clone_from(&callout.services);
        Ok(())
    }

    /// The service that a filter calls by this name.
    pub(crate) fn service(&self, name: &str) -> Option<&CalloutService> {
        self.callouts.iter().find(|service| service.name == name)
    }
}

#[cfg(test)]
mod tests {
    use weft_policy::bundle::KvScope;

    use super::*;

    #[test]
    fn what_can_not_be_granted_is_refused() {
        let kv = |entries, bytes| Grant::Kv(KvGrant { entries, bytes, scope: KvScope::Policy });
        let callout = |count| {
            let service = |n: usize| CalloutService { name: format!("s{n}"), authority: None };
            Grant::Callout(CalloutGrant { services: (0..count).map(service).collect() })
        };
        let check = |words: &[&str], grants: &[Grant], expect: Result<(), GrantError>| {
            let words: Vec<_> = words.iter().map(|word| (*word).to_owned()).collect();
            assert_eq!(Grants::new(&words, grants).map(drop), expect, "{words:?} {grants:?}");
        };
        check(&["log", "metrics", "token-bucket", "crypto", "wasi"], &[kv(1, 1), callout(16)], Ok(()));
        check(&["sockets"], &[], Err(GrantError::Unknown("sockets".to_owned())));
        check(&["kv"], &[], Err(GrantError::Unknown("kv".to_owned())));
        for (entries, bytes) in [(0, 1), (1, 0), (MAX_KV_ENTRIES + 1, 1), (1, MAX_KV_BYTES + 1)] {
            check(&[], &[kv(entries, bytes)], Err(GrantError::Kv { entries, bytes }));
        }
        check(&[], &[kv(1, 1), kv(1, 1)], Err(GrantError::Twice("kv")));
        check(&[], &[callout(1), callout(1)], Err(GrantError::Twice("callout")));
        check(&[], &[callout(17)], Err(GrantError::Callouts(17)));
        let granted = Grants::new(&[], &[callout(2)]).expect("sound");
        assert_eq!(granted.service("s1").map(|service| service.name.as_str()), Some("s1"));
        assert_eq!(granted.service("s2"), None);
    }
}
