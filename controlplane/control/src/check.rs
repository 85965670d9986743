//! `weft-control --check`: tries what a start would try, and says all that is wrong at once. Invariant: nothing is changed;
//! what is bound is let go of, and what a store would be written is forgotten.

#[cfg(test)]
mod tests;

use std::io::ErrorKind;
use std::net::TcpListener;

use weft_policy::identity::TrustDomain;

use crate::ca::{self, Authority, AuthorityError, Keys, Line};
use crate::config::{Config, StoreKind};
use crate::hub::{another_trust_domain, unreadable_records};
use crate::seal::SALT;
use crate::state;
use crate::store::{ROOTS, Store, StoreError, read_record};

/// Advice where an address can't be bound.
const CURES: [(ErrorKind, &str); 3] = [
    (ErrorKind::AddrInUse, "; a program listens there already, which ss -ltnp names"),
    (ErrorKind::AddrNotAvailable, "; `bind` is no address of this machine"),
    (ErrorKind::PermissionDenied, "; a port below 1024 takes CAP_NET_BIND_SERVICE"),
];

/// The findings, one sentence each.
#[derive(Debug, Default)]
pub struct Findings {
    /// A start would end with them, or begin with less than there was.
    pub faults: Vec<String>,
    /// Worth knowing, and no fault.
    pub notes: Vec<String>,
}

/// Looks at the configuration, its files, the state folder, the store and the listeners.
pub fn findings(config: &Config) -> Findings {
    let mut found = Findings::default();
    if let Err(error) = config.validate() {
        found.faults.extend(error.to_string().lines().map(str::to_owned));
    }
    let fault = state::fault(&config.state);
    let is_usable = fault.is_none();
    found.faults.extend(fault);
    if is_usable {
        found.notes.extend(state::remark(&config.state));
        found.faults.extend(state::exposed(&config.state));
    }
    // Without its secret nothing can be said of the authority: that is a fault of the configuration.
    let keys = config.keys().ok().filter(|_| is_usable);
    if let Some(keys) = &keys {
        let faults = ca::faults(&config.state, keys);
        found.faults.extend(faults.iter().map(|error| crate::chain(error)));
    }
    let is_running = match config.store_kind() {
        Ok(StoreKind::Redb) => is_usable && found.look_at_file(config, keys.as_ref()),
        Ok(StoreKind::Etcd(_)) => {
            found.look_at_etcd(config, keys.as_ref());
            false
        }
        Err(_) => false,
    };
    if !is_running {
        found.try_listeners(config);
    }
    found
}

impl Findings {
    /// True where a control plane runs on the store.
    fn look_at_file(&mut self, config: &Config, keys: Option<&Keys>) -> bool {
        let path = config.state.join("weft.redb");
        if !path.exists() {
            if ca::is_there(&config.state) {
                self.faults.push(format!(
                    "{} is not there, and the authority beside it is: the store was lost. A start would make an empty one, which \
                     leads no proxy until weft store accept; restore a backup of the whole folder first",
                    path.display()
                ));
            }
            return false;
        }
        match Store::look(&path) {
            Ok(store) => self.look_into(&store, config, keys),
            Err(StoreError::Rows(weft_store::Error::InUse(_))) => {
                // It says what it finds in its store: `weft check`.
                let path = path.display();
                self.notes.push(format!(
                    "running already: {path} is in use, so its records and the listeners were not tried"
                ));
                return true;
            }
            Err(error) => self.faults.push(crate::chain(&error)),
        }
        false
    }

    fn look_at_etcd(&mut self, config: &Config, keys: Option<&Keys>) {
        let unread = config.etcd.files().filter_map(|(key, path)| {
            let error = std::fs::read_to_string(path).err()?;
            Some(format!("{key}: {} can't be read: {error}", path.display()))
        });
        let unread: Vec<_> = unread.collect();
        let is_complete = unread.is_empty() && config.validate().is_ok();
        self.faults.extend(unread);
        let Ok(StoreKind::Etcd(location)) = config.store_kind() else { return };
        let Some(options) = config.etcd_options(location).ok().filter(|_| is_complete) else { return };
        match Store::look_at(options) {
            Ok(store) => self.look_into(&store, config, keys),
            Err(error) => self.faults.push(format!("store {}: {}", config.store, crate::chain(&error))),
        }
    }

    /// Records that can't be read, and whether the store is of the authority that is there.
    fn look_into(&mut self, store: &Store, config: &Config, keys: Option<&Keys>) {
        let foreign = keys.and_then(|keys| authority_fault(store, config, keys));
        let foreign = foreign.map(|error| crate::chain(&error));
        // One whose key can't be read is told already.
        self.faults.extend(foreign.into_iter().filter(|error| !self.faults.contains(error)).collect::<Vec<_>>());
        if config.trust_domain.parse::<TrustDomain>().is_ok() {
            let other = another_trust_domain(store, &config.trust_domain);
            self.faults.extend(other.map(|error| format!("trust_domain: {error}")));
        }
        let place = match config.store_kind() {
            Ok(StoreKind::Redb) => config.state.join("weft.redb").display().to_string(),
            _ => config.store.clone(),
        };
        match unreadable_records(store) {
            Ok(records) => {
                let told = |record: crate::store::Unreadable| {
                    format!(
                        "{place}: record {} {} can't be read and would be left aside: {}",
                        record.table, record.key, record.reason
                    )
                };
                self.faults.extend(records.into_iter().map(told));
            }
            Err(error) => self.faults.push(crate::chain(&error)),
        }
        match keys.map_or(Ok(Vec::new()), |keys| unopened(store, keys)) {
            Ok(secrets) if secrets.is_empty() => {}
            Ok(secrets) => self.faults.push(format!(
                "{place}: values of {} are encrypted with another secret than that of ca_secret_file, or damaged: filters \
                 would not be handed them; name the file that they were written with, or apply these Secrets anew",
                secrets.join(", ")
            )),
            Err(error) => self.faults.push(crate::chain(&error)),
        }
    }

    /// Binds all at a time, as a start does, and lets go of them.
    fn try_listeners(&mut self, config: &Config) {
        let mut bound = Vec::new();
        // Those of one port are told already, and no other program is to blame.
        let told = config.collisions();
        let alone = config.listeners().into_iter().filter(|(key, _)| told.iter().all(|(other, _)| other != key));
        for (key, address) in alone {
            let error = match TcpListener::bind(address) {
                Ok(listener) => {
                    bound.push(listener);
                    continue;
                }
                Err(error) => error,
            };
            let cure = CURES.iter().find(|(kind, _)| *kind == error.kind()).map_or("", |(_, cure)| cure);
            self.faults.push(format!("{key}: {address} can't be opened: {error}{cure}"));
        }
    }
}

/// The store's Secrets whose values a start could not open.
fn unopened(store: &Store, keys: &Keys) -> Result<Vec<String>, StoreError> {
    let encrypted = store.unopened(None)?;
    if encrypted.is_empty() {
        return Ok(encrypted);
    }
    match store.meta(SALT)?.and_then(|salt| keys.seal_of(&salt)) {
        Some(seal) => store.unopened(Some(&seal)),
        None => Ok(encrypted),
    }
}

/// Why the folder's authority is none that the store leads to its own.
pub(crate) fn authority_fault(store: &Store, config: &Config, keys: &Keys) -> Option<AuthorityError> {
    let require = |root: &str| Authority::require_with(&config.state, keys, root).err();
    let record = if store.is_shared() { store.meta(ROOTS).ok().flatten() } else { None };
    let line: Option<Line> = record.and_then(|record| read_record(&record).ok());
    // One that was away while its root was replaced follows when it starts.
    if line.is_some_and(|line| line.fingerprints().any(|root| require(root).is_none())) {
        return None;
    }
    store.root().ok().flatten().and_then(|root| require(&root))
}
