//! One policy's settings under another's: what the nearer one leaves unsaid the farther one may say. The one place that
//! lists the settings which are merged.

use super::TrafficPolicySpec;
use crate::resource::retry::ServiceTimeouts;

impl TrafficPolicySpec {
    /// Takes each setting that `from` says and this one does not. `told` hears of each that `from` says, by its key inside
    /// `spec`, and whether it was taken.
    pub(crate) fn fill(&mut self, from: &Self, mut told: impl FnMut(&'static str, bool)) {
        let Self {
            target_refs: _,
            template: _,
            load_balancing,
            outlier_detection,
            limits,
            timeouts,
            retry,
            hedge,
            health_check,
        } = from;
        let told = &mut told;
        one("loadBalancing", &mut self.load_balancing, load_balancing.as_ref(), told);
        one("outlierDetection", &mut self.outlier_detection, outlier_detection.as_ref(), told);
        one("limits", &mut self.limits, limits.as_ref(), told);
        if let Some(ServiceTimeouts { request_ms, backend_request_ms, stream_ms }) = timeouts {
            let own = self.timeouts.get_or_insert_default();
            one("timeouts.request", &mut own.request_ms, request_ms.as_ref(), told);
            one("timeouts.backendRequest", &mut own.backend_request_ms, backend_request_ms.as_ref(), told);
            one("timeouts.stream", &mut own.stream_ms, stream_ms.as_ref(), told);
        }
        one("retry", &mut self.retry, retry.as_ref(), told);
        one("hedge", &mut self.hedge, hedge.as_ref(), told);
        one("healthCheck", &mut self.health_check, health_check.as_ref(), told);
    }

    /// The settings that it says, by their keys inside `spec`.
    pub(crate) fn said(&self) -> Vec<&'static str> {
        let mut said = Vec::new();
        Self::default().fill(self, |key, _| said.push(key));
        said
    }
}

fn one<T: Clone>(key: &'static str, own: &mut Option<T>, said: Option<&T>, told: &mut impl FnMut(&'static str, bool)) {
    let Some(said) = said else { return };
    let is_taken = own.is_none();
    if is_taken {
        *own = Some(said.clone());
    }
    told(key, is_taken);
}
