//! Policies of the shipped filter `expr`: their expressions are checked where a policy is taken, and compiled where
//! proxies are told, so that the filter evaluates and does nothing else.

use crate::cel::{ConfigFault, compile_config};
use crate::resource::filter::FilterRef;
use crate::resource::{FilterPolicySpec, ROOT_NAMESPACE};

use super::modifier::uneditable;

const FILTER: &str = "expr";

fn is_expr(filter: &FilterRef) -> bool {
    (filter.namespace.as_str(), filter.name.as_str()) == (ROOT_NAMESPACE, FILTER)
}

/// What is wrong with the expressions of a policy; nothing where it has none.
pub(crate) fn unfit_expressions(spec: &FilterPolicySpec) -> Vec<ConfigFault> {
    match is_expr(&spec.filter) {
        true => compile_config(&spec.config, uneditable).err().unwrap_or_default(),
        false => Vec::new(),
    }
}

/// The configuration that a policy's filter is given. One that can't be compiled, of a policy that an earlier release
/// took, goes as it is: the filter refuses text, and the policy fails closed with a reason.
pub(super) fn config_of(spec: &FilterPolicySpec) -> String {
    if !is_expr(&spec.filter) {
        return spec.config.to_string();
    }
    match compile_config(&spec.config, uneditable) {
        Ok(config) => serde_json::to_string(&config).expect("a configuration has string keys only"),
        Err(_) => spec.config.to_string(),
    }
}
