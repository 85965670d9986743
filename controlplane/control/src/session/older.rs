//! Filters that ship with the control plane, for proxies of earlier releases: each gets the component of a contract
//! that it runs, with the configuration of today.

use std::sync::Arc;

use weft_policy::delta::Object;
use weft_policy::plan::World;

use crate::registry::Capabilities;
use crate::told::{Told, ToldSet};

/// What a proxy is told, with shipped filters that it can't run in a version that it can, where there is one.
pub(super) fn with_older_filters(mut told: ToldSet, world: &World, has: &Capabilities) -> Arc<ToldSet> {
    let older = |told: &Arc<Told>| {
        let Object::Filter(filter) = &told.object else { return None };
        let is_run = has.contains(&filter.contract);
        if is_run { None } else { world.shipped_for(filter, |contract| has.contains(contract)) }
    };
    let older: Vec<_> = told.iter().filter_map(older).collect();
    older.into_iter().for_each(|filter| told.put(Arc::new(Told::of(Object::Filter(filter)))));
    Arc::new(told)
}
