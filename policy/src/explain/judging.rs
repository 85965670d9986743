//! What the rules of a workload say of a request, from each address that its caller may have.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::told::EndpointExplanation;
use super::{Asked, Query, What, workloads_of};
use crate::authz::{Engine, Request};
use crate::bundle::WorkloadPort;
use crate::identity::SpiffeId;
use crate::plan::World;

/// So many addresses of one account are looked at.
const ADDRESSES: usize = 64;

/// The addresses of the workloads that have an account, in order; `None` alone: nobody has it, and none is known.
pub(super) fn addresses_of(world: &World, caller: &SpiffeId) -> Vec<Option<IpAddr>> {
    let own = workloads_of(world, caller.namespace(), caller.service_account());
    let addresses: BTreeSet<IpAddr> = own.map(|workload| workload.spec.address.to_canonical()).collect();
    if addresses.is_empty() {
        return vec![None];
    }
    addresses.into_iter().take(ADDRESSES).map(Some).collect()
}

/// What the token of a question says, each member of a list by itself.
pub(super) fn claims_of(query: &Query) -> impl Iterator<Item = (&str, &str)> {
    query.claims.iter().flat_map(|(name, members)| members.iter().map(|member| (name.as_str(), member.as_str())))
}

impl Asked<'_> {
    /// Allowed where it is allowed from every address that the rules tell apart; the first refusal tells why.
    pub(super) fn judge(&self, engine: &Engine, to: &WorkloadPort, explanation: &mut EndpointExplanation) {
        self.judge_from_all(engine, to, explanation);
        let is_judged = matches!(self.what, What::Request { .. }) && explanation.status != Some(400);
        if let (true, false, []) = (is_judged, engine.needed_claims().is_empty(), self.claims) {
            let claims = engine.needed_claims().join(", ");
            explanation.reason =
                format!("{}, for a caller without a token (rules read its {claims})", explanation.reason);
        }
    }

    fn judge_from_all(&self, engine: &Engine, to: &WorkloadPort, explanation: &mut EndpointExplanation) {
        if !engine.needs_address() {
            return self.judge_from(None, engine, to, explanation);
        }
        for address in self.addresses {
            self.judge_from(*address, engine, to, explanation);
            if !explanation.allowed {
                let from = address.map_or_else(|| "an address that is not known".to_owned(), |it| it.to_string());
                explanation.reason = format!("{}, from {from}", explanation.reason);
                return;
            }
        }
    }

    fn judge_from(
        &self,
        address: Option<IpAddr>,
        engine: &Engine,
        to: &WorkloadPort,
        explanation: &mut EndpointExplanation,
    ) {
        let connection = Request { address, ..Request::connection(Some(self.principal.as_str()), to.port) };
        let What::Request { method, path, host, headers } = &self.what else {
            match to.takes_tunnels() {
                Ok(()) => explanation.take(&engine.decide(&connection)),
                Err(refused) => explanation.refuse(400, refused.to_string()),
            }
            return;
        };
        let readings = match path.readings(&to.path_reading) {
            Ok(readings) => readings,
            Err(ambiguous) => return explanation.refuse(400, ambiguous.to_string()),
        };
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        let authority = Some(*host);
        // Allowed where every reading is allowed; the first refusal tells why.
        for reading in readings.iter() {
            let claims = self.claims;
            let request =
                Request { l4: false, method, path: reading, authority, headers: &headers, claims, ..connection };
            explanation.take(&engine.decide(&request));
            if !explanation.allowed {
                explanation.reading = (!readings.is_single()).then(|| reading.to_owned());
                return;
            }
        }
    }
}
