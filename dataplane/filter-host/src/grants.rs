//! What an attachment is granted, checked once: who made the grants is another program, perhaps of another release.

use std::collections::BTreeMap;

use weft_policy::bundle::{
    CalloutGrant, CalloutService, Grant, KvGrant, MAX_CALLOUT_SERVICES, MAX_KV_BYTES, MAX_KV_ENTRIES, MAX_SECRETS,
    SecretGrant,
};
use weft_policy::secret::SecretBytes;

/// Everything that a filter may do beyond logging and counting.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Grants {
    pub(crate) token_bucket: bool,
    pub(crate) crypto: bool,
    pub(crate) wasi: bool,
    pub(crate) kv: Option<KvGrant>,
    pub(crate) callouts: Vec<CalloutService>,
    /// Values that it reads by name.
    pub(crate) secrets: BTreeMap<String, SecretBytes>,
    /// Keys that it uses by name and never sees.
    pub(crate) keys: BTreeMap<String, SecretBytes>,
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
    #[error("{0} secrets can't be handed out: at most {MAX_SECRETS}")]
    Secrets(usize),
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
                Grant::Secret(secrets) => take_secrets(&mut granted.secrets, secrets, "secret")?,
                Grant::CryptoKeys(keys) => take_secrets(&mut granted.keys, keys, "a key")?,
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

/// Takes values whose names are all different.
fn take_secrets(
    taken: &mut BTreeMap<String, SecretBytes>,
    granted: &SecretGrant,
    what: &'static str,
) -> Result<(), GrantError> {
    if granted.values.len() > MAX_SECRETS {
        return Err(GrantError::Secrets(granted.values.len()));
    }
    for secret in &granted.values {
        if taken.insert(secret.name.clone(), secret.value.clone()).is_some() {
            return Err(GrantError::Twice(what));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use weft_policy::bundle::{GrantedSecret, KvScope};

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
        let secrets = |names: &[&str]| {
            let one = |name: &&str| GrantedSecret { name: (*name).to_owned(), value: SecretBytes::new(b"hunter22") };
            SecretGrant { values: names.iter().map(one).collect() }
        };
        let both = [Grant::Secret(secrets(&["a", "b"])), Grant::CryptoKeys(secrets(&["a"]))];
        check(&[], &both, Ok(()));
        assert!(!format!("{:?}", Grants::new(&[], &both)).contains("hunter"));
        check(&[], &[Grant::Secret(secrets(&["a", "a"]))], Err(GrantError::Twice("secret")));
        check(&[], &[Grant::CryptoKeys(secrets(&["a"])), both[1].clone()], Err(GrantError::Twice("a key")));
        check(&[], &[Grant::Secret(secrets(&["a"; 17]))], Err(GrantError::Secrets(17)));
        let granted = Grants::new(&[], &[callout(2)]).expect("sound");
        assert_eq!(granted.service("s1").map(|service| service.name.as_str()), Some("s1"));
        assert_eq!(granted.service("s2"), None);
    }
}
