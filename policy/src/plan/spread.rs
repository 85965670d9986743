//! Which endpoints of a service come first: as its policies say, else the Service itself.

use crate::bundle::{Locality, Prefer, Spread};
use crate::resource::traffic::LoadBalancingSpec;
use crate::resource::{Object, ServiceSpec, TrafficPolicySpec};

/// The settings of a service for which policies say this. `None`: all are as by default.
pub(super) fn settings(said: &TrafficPolicySpec, service: &Object<ServiceSpec>) -> Option<Spread> {
    let spec = said.load_balancing.as_ref();
    let mut spread = spec.map(LoadBalancingSpec::spread).unwrap_or_default();
    if spec.is_none_or(|spec| spec.locality.is_none()) {
        spread.locality = of_service(service);
    }
    (spread != Spread::default()).then_some(spread)
}

/// What a Service says of it by its `trafficDistribution`.
pub(super) fn of_service(service: &Object<ServiceSpec>) -> Option<Locality> {
    service.spec.prefers_zone().then(|| Locality::preferring(Prefer::Zone))
}

/// What a policy says of each setting, in words. `None`: nothing.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) locality: Option<String>,
    pub(super) slow_start: Option<String>,
    pub(super) panic: Option<String>,
}

/// What holds where nobody says anything else.
pub(super) const NOBODY_FIRST: &str = "None: all endpoints are as near";
pub(super) const AT_ONCE: &str = "none";
pub(super) const NEVER: &str = "0";

pub(super) fn told(spec: &LoadBalancingSpec) -> Told {
    let Spread { locality, slow_start, panic_percent, shares } = spec.spread();
    let shares: Vec<_> = shares.iter().map(ToString::to_string).collect();
    let locality = locality.map(|it| it.to_string()).or_else(|| (!shares.is_empty()).then(|| shares.join("; ")));
    let or = |text: Option<String>, default: &str| text.unwrap_or_else(|| default.to_owned());
    Told {
        locality: spec.locality.as_ref().map(|_| or(locality, NOBODY_FIRST)),
        slow_start: spec.slow_start.as_ref().map(|_| or(slow_start.map(|it| it.to_string()), AT_ONCE)),
        panic: (panic_percent > 0).then(|| panic_percent.to_string()),
    }
}
