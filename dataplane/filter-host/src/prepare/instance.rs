//! An instance and the configurations that it has been given, each once.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::Prepared;
use crate::failure::{Failure, FailureKind};
use crate::guest::{Guest, StartError};
use crate::state::ConfigShared;

/// One instance of a program, for as many configurations as call it.
#[derive(Debug)]
pub(crate) struct Instance {
    pub(crate) guest: Box<dyn Guest>,
    given: Vec<Given>,
    next: u32,
    /// Bytes of memory after it was last given a configuration: what it needs at least.
    floor: u64,
}

#[derive(Debug)]
struct Given {
    /// `Prepared::id`.
    prepared: u64,
    /// Dangling until the filter is prepared, for an instance that was made ahead.
    living: Weak<Prepared>,
    shared: Arc<ConfigShared>,
    config: u32,
}

impl Instance {
    pub(crate) fn new(guest: Box<dyn Guest>) -> Self {
        Self { guest, given: Vec::new(), next: 0, floor: 0 }
    }

    /// Notes a configuration that the guest has taken under the id that [`Instance::next_id`] named.
    pub(super) fn note(&mut self, prepared: u64, living: Weak<Prepared>, shared: &Arc<ConfigShared>) {
        self.given.push(Given { prepared, living, shared: shared.clone(), config: self.next });
        self.next += 1;
        self.floor = self.guest.memory();
    }

    pub(super) const fn next_id(&self) -> u32 {
        self.next
    }

    /// The id by which the instance knows the filter's configuration. `None`: it was not given that.
    pub(crate) fn config_of(&mut self, filter: &Arc<Prepared>) -> Option<u32> {
        let given = self.given.iter_mut().find(|given| given.prepared == filter.id)?;
        if given.living.strong_count() == 0 {
            given.living = Arc::downgrade(filter);
        }
        Some(given.config)
    }

    /// True where it has any configuration.
    pub(crate) fn is_given(&self) -> bool {
        !self.given.is_empty()
    }

    /// True where it was given the configuration of this filter, by its id.
    pub(super) fn has(&self, filter: u64) -> bool {
        self.given.iter().any(|given| given.prepared == filter)
    }

    /// Gives it a configuration that it has not, within a time.
    ///
    /// # Errors
    /// It does not take it, though another instance did; it can't be called again.
    pub(crate) fn give(&mut self, filter: &Arc<Prepared>, within: Duration) -> Result<u32, StartError> {
        let config = self.next;
        self.guest.configure(config, &filter.setup, within)?;
        self.note(filter.id, Arc::downgrade(filter), &filter.setup.shared);
        Ok(config)
    }

    /// Forgets configurations of filters that are no more.
    ///
    /// # Errors
    /// It failed meanwhile and can't be called again.
    pub(crate) fn forget_dead(&mut self) -> Result<(), Failure> {
        let Self { guest, given, .. } = self;
        let mut result = Ok(());
        given.retain(|given| {
            let lives = given.living.strong_count() > 0;
            if !lives && result.is_ok() {
                result = guest.forget(given.config, &given.shared);
            }
            lives
        });
        result
    }

    /// True where calls have made its memory grow past three quarters of `most`: a new one starts small.
    pub(crate) fn is_swollen(&self, most: usize) -> bool {
        let memory = self.guest.memory();
        memory > self.floor && memory > most as u64 / 4 * 3
    }
}

/// Why an instance of a filter that was prepared does not take its configuration.
fn again(error: StartError) -> Failure {
    let detail = match error {
        StartError::Instantiate(reason) | StartError::Memory(reason) => {
            return Failure::new(FailureKind::NoInstance, reason);
        }
        StartError::WrongWorld(reason) | StartError::Interest(reason) => reason,
        StartError::Configure(failure) => failure.to_string(),
        StartError::Refused(reason) => format!("it refuses its configuration: {reason}"),
    };
    Failure::new(FailureKind::NoInstance, format!("while it was configured: {detail}"))
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        again(error)
    }
}
