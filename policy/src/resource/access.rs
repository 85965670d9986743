//! `AccessPolicy`: who may ask what of a workload. Parsed by compiling it: what parses, the engine takes.

use serde::{Deserialize, Serialize};

use super::{Object, TargetRef, value};
use crate::authz;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AccessPolicySpec {
    /// Empty: the whole namespace; in the root namespace the whole mesh.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub target_refs: Vec<TargetRef>,
    #[serde(default = "allow")]
    pub action: authz::Action,
    /// Empty: deny everything.
    #[serde(default)]
    pub rules: Vec<RuleSpec>,
}

fn allow() -> authz::Action {
    authz::Action::Allow
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RuleSpec {
    #[serde(deserialize_with = "value::label_option", skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<SourceSpec>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub to: Vec<OperationSpec>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct SourceSpec {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub principals: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_principals: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_namespaces: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub service_accounts: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_service_accounts: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct OperationSpec {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_methods: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_paths: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<u16>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_ports: Vec<u16>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<authz::HeaderCondition>,
}

impl<'a> From<&'a OperationSpec> for authz::Conditions<'a> {
    fn from(operation: &'a OperationSpec) -> Self {
        let OperationSpec { methods, not_methods, paths, not_paths, ports, not_ports, headers } = operation;
        Self { lists: [methods, not_methods, paths, not_paths], headers, ports, not_ports }
    }
}

impl From<&Object<AccessPolicySpec>> for authz::Policy {
    fn from(policy: &Object<AccessPolicySpec>) -> Self {
        Self {
            name: policy.name().to_string(),
            action: policy.spec.action,
            rules: policy.spec.rules.iter().map(Into::into).collect(),
        }
    }
}

impl From<&RuleSpec> for authz::Rule {
    fn from(rule: &RuleSpec) -> Self {
        let source = |from: &SourceSpec| authz::Source {
            principals: from.principals.clone(),
            not_principals: from.not_principals.clone(),
            namespaces: from.namespaces.clone(),
            not_namespaces: from.not_namespaces.clone(),
            service_accounts: from.service_accounts.clone(),
            not_service_accounts: from.not_service_accounts.clone(),
        };
        let operation = |to: &OperationSpec| authz::Operation {
            methods: to.methods.clone(),
            not_methods: to.not_methods.clone(),
            paths: to.paths.clone(),
            not_paths: to.not_paths.clone(),
            ports: to.ports.clone(),
            not_ports: to.not_ports.clone(),
            headers: to.headers.clone(),
        };
        Self {
            name: rule.name.clone(),
            from: rule.from.iter().map(source).collect(),
            to: rule.to.iter().map(operation).collect(),
        }
    }
}

impl Object<AccessPolicySpec> {
    /// Compiles the rules; the error's key is inside `spec`.
    pub(crate) fn check(&self) -> Result<(), (String, String)> {
        for (i, rule) in self.spec.rules.iter().enumerate() {
            for (j, to) in rule.to.iter().enumerate() {
                for (k, header) in to.headers.iter().enumerate() {
                    let at = |message| (format!("rules[{i}].to[{j}].headers[{k}].name"), message);
                    value::matchable_header(&header.name.to_ascii_lowercase()).map_err(at)?;
                }
            }
        }
        let policies = vec![authz::Policy::from(self)];
        let config = authz::Config { policies, ..authz::Config::default() };
        authz::Engine::new(&config).map(drop).map_err(|wrong| (wrong.key, wrong.message))
    }
}
