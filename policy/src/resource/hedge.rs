//! `hedge` of a TrafficPolicy: another attempt beside one whose answer is slow.

use serde::{Deserialize, Serialize};

use super::retry::RetriedMethods;
use super::value;
use crate::bundle::Hedge;

/// Who waits longer than this has a timeout to set, not a hedge.
const MAX_AFTER_MS: u64 = 60_000;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct HedgeSpec {
    #[serde(
        rename = "after",
        deserialize_with = "value::duration_ms",
        serialize_with = "value::serialize_duration",
        skip_serializing_if = "Option::is_none"
    )]
    pub after_ms: Option<u64>,
    pub max_extra: u32,
    pub methods: RetriedMethods,
}

impl Default for HedgeSpec {
    fn default() -> Self {
        Self { after_ms: None, max_extra: 1, methods: RetriedMethods::default() }
    }
}

impl HedgeSpec {
    /// Everything that is wrong; keys are inside `hedge`.
    pub(crate) fn check(&self) -> Vec<(&'static str, String)> {
        let mut wrong = Vec::new();
        match self.after_ms {
            None => {
                wrong.push(("after", "is expected: how long the first attempt has for itself, such as 95ms".to_owned()))
            }
            Some(ms) if !(1..=MAX_AFTER_MS).contains(&ms) => {
                wrong.push(("after", format!("{} is out of range: 1ms to 1m", value::duration_text(ms))));
            }
            Some(_) => {}
        }
        if self.max_extra != 1 {
            wrong.push(("maxExtra", format!("{} is not built: there is one attempt beside the first", self.max_extra)));
        }
        wrong
    }

    /// As proxies are told it. What is not fit is as if it were not there.
    pub(crate) fn hedge(&self) -> Option<Hedge> {
        let after_ms = self.after_ms.filter(|_| self.check().is_empty())?;
        Some(Hedge { after_ms, any_method: self.methods == RetriedMethods::Any })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_further_attempt_after_a_time() {
        fn check(text: &str, wrong: &[&str], told: Option<&str>) {
            let spec: HedgeSpec = serde_saphyr::from_str(text).unwrap();
            let keys: Vec<_> = spec.check().into_iter().map(|(key, _)| key).collect();
            assert_eq!(keys, wrong, "{text}");
            assert_eq!(spec.hedge().map(|hedge| hedge.to_string()).as_deref(), told, "{text}");
        }
        check("{after: 95ms}", &[], Some("another attempt beside it after 95ms, of idempotent methods"));
        check(
            "{after: 1s, maxExtra: 1, methods: Any}",
            &[],
            Some("another attempt beside it after 1s, whatever the method"),
        );
        check("{}", &["after"], None);
        check("{after: 0s}", &["after"], None);
        check("{after: 61s}", &["after"], None);
        check("{after: 1s, maxExtra: 2}", &["maxExtra"], None);
        check("{after: 1s, maxExtra: 0}", &["maxExtra"], None);
    }
}
