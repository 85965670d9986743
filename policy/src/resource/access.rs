//! `AccessPolicy`: who may ask what of a workload. Parsed by compiling it: what parses, the engine takes.

use serde::{Deserialize, Serialize};

use super::filter::PolicyMode;
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
    /// Absent, an older release can read it.
    #[serde(default, skip_serializing_if = "value::is_default")]
    pub mode: PolicyMode,
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
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ip_blocks: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_ip_blocks: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub claims: Vec<authz::ValueCondition>,
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
    pub headers: Vec<authz::ValueCondition>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_hosts: Vec<String>,
}

impl<'a> From<&'a OperationSpec> for authz::Conditions<'a> {
    fn from(operation: &'a OperationSpec) -> Self {
        let OperationSpec { methods, not_methods, paths, not_paths, ports, not_ports, headers, hosts, not_hosts } =
            operation;
        let lists = [methods, not_methods, paths, not_paths, hosts, not_hosts].map(Vec::as_slice);
        Self { lists, headers, ports, not_ports }
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
            ip_blocks: from.ip_blocks.clone(),
            not_ip_blocks: from.not_ip_blocks.clone(),
            claims: from.claims.clone(),
        };
        let operation = |to: &OperationSpec| authz::Operation {
            methods: to.methods.clone(),
            not_methods: to.not_methods.clone(),
            paths: to.paths.clone(),
            not_paths: to.not_paths.clone(),
            ports: to.ports.clone(),
            not_ports: to.not_ports.clone(),
            headers: to.headers.clone(),
            hosts: to.hosts.clone(),
            not_hosts: to.not_hosts.clone(),
        };
        Self {
            name: rule.name.clone(),
            from: rule.from.iter().map(source).collect(),
            to: rule.to.iter().map(operation).collect(),
        }
    }
}

impl Object<AccessPolicySpec> {
    /// Compiles the rules, each source and operation by itself, so that a mistake in one hides none in another; the
    /// errors' keys are inside `spec`.
    pub(crate) fn check(&self) -> Vec<(String, String)> {
        let mut wrong = Vec::new();
        for (i, rule) in self.spec.rules.iter().enumerate() {
            let bare = RuleSpec { name: rule.name.clone(), ..RuleSpec::default() };
            wrong.extend(self.compile(bare).map(|(key, message)| (format!("rules[{i}]{key}"), message)));
            for (j, from) in rule.from.iter().enumerate() {
                let part = RuleSpec { from: vec![from.clone()], ..RuleSpec::default() };
                let at = |key: &str| format!("rules[{i}].from[{j}]{}", key.strip_prefix(".from[0]").unwrap_or(key));
                wrong.extend(self.compile(part).map(|(key, message)| (at(&key), message)));
            }
            for (j, to) in rule.to.iter().enumerate() {
                for (k, header) in to.headers.iter().enumerate() {
                    let at = |message| (format!("rules[{i}].to[{j}].headers[{k}].name"), message);
                    let name = header.name.to_ascii_lowercase();
                    let taken = match name.as_str() {
                        "host" => Err("\"host\" never reaches a rule: a rule names it by `hosts`".to_owned()),
                        name => value::matchable_header(name),
                    };
                    wrong.extend(taken.map_err(at).err());
                }
                let part = RuleSpec { to: vec![to.clone()], ..RuleSpec::default() };
                let at = |key: &str| format!("rules[{i}].to[{j}]{}", key.strip_prefix(".to[0]").unwrap_or(key));
                wrong.extend(self.compile(part).map(|(key, message)| (at(&key), message)));
            }
        }
        wrong
    }

    /// The first mistake of a policy with this rule alone; the key is inside the rule.
    fn compile(&self, rule: RuleSpec) -> Option<(String, String)> {
        let policy = authz::Policy {
            name: self.name().to_string(),
            action: self.spec.action,
            rules: vec![authz::Rule::from(&rule)],
        };
        let config = authz::Config { policies: vec![policy], ..authz::Config::default() };
        let wrong = authz::Engine::new(&config).err()?;
        Some((wrong.key.strip_prefix("rules[0]").unwrap_or(&wrong.key).to_owned(), wrong.message))
    }
}
