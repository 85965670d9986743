//! `PolicyTemplate`: settings of services with parameters, for a tier of services or for TrafficPolicies that give the values.
//! A template that parses and passes `check` gives settings that pass theirs with its defaults.

mod body;
mod parameter;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use self::body::{Stand, filled, misread, stands};
pub use self::parameter::{ParameterKind, ParameterSpec};
use super::{TrafficPolicySpec, value};
use crate::bundle::ObjectName;
use crate::identity::is_label;
use crate::manifest;
use crate::text::did_you_mean;

/// The label of a Service that names its tier.
pub const TIER: &str = "weft.dev/tier";

const MAX_PARAMETERS: usize = 32;
/// Namespaces that one template may be for.
const MAX_NAMESPACES: usize = 1_024;

/// The key of the body, inside `spec`.
const BODY: &str = "trafficPolicy";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PolicyTemplateSpec {
    /// Services with this value of the label [`TIER`] get the settings, each parameter with its default.
    #[serde(default, deserialize_with = "value::label_option", skip_serializing_if = "Option::is_none")]
    pub tier: Option<String>,
    /// Those that may use it. Absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<BTreeSet<String>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parameters: Vec<ParameterSpec>,
    /// As the spec of a TrafficPolicy without its targets. A value may be `${NAME}`, as a whole.
    pub traffic_policy: Map<String, Value>,
}

/// `template` of a TrafficPolicy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TemplateRef {
    #[serde(deserialize_with = "value::object_name")]
    pub name: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<String, Value>,
}

impl TemplateRef {
    /// What is wrong without a look at the template; keys are inside `template`.
    pub(super) fn check(&self) -> Vec<(String, String)> {
        let count = self.parameters.len();
        let many = (count > MAX_PARAMETERS)
            .then(|| ("parameters".to_owned(), format!("{count} values are more than {MAX_PARAMETERS}")));
        many.into_iter().collect()
    }
}

/// A value that a template does not take, or a mistake that a value makes in its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Misfit {
    /// `None`: it is the template's own.
    pub(crate) parameter: Option<String>,
    pub(crate) message: String,
}

impl PolicyTemplateSpec {
    /// True where services and policies of a namespace may use it.
    pub(crate) fn admits(&self, namespace: &str) -> bool {
        self.namespaces.as_ref().is_none_or(|namespaces| namespaces.contains(namespace))
    }

    /// True where both may be used in some namespace.
    pub(crate) fn meets(&self, other: &Self) -> bool {
        match (&self.namespaces, &other.namespaces) {
            (Some(own), Some(others)) => !own.is_disjoint(others),
            (None, _) | (_, None) => true,
        }
    }

    /// Its settings with these values and the defaults for the rest. `None`: a value is missing or none that it takes, or the
    /// body can't be read with them. What could be read when it was applied and is refused today holds all the same.
    pub(crate) fn settings(&self, given: &BTreeMap<String, Value>) -> Option<TrafficPolicySpec> {
        let body = self.body_with(&self.values(given).ok()?);
        serde_json::from_value(body).ok()
    }

    /// Everything that is wrong with these values.
    pub(crate) fn misfits(&self, given: &BTreeMap<String, Value>) -> Vec<Misfit> {
        let values = match self.values(given) {
            Ok(values) => values,
            Err(misfits) => return misfits,
        };
        let stands = stands(&self.traffic_policy);
        let misfit = |(key, message): (String, String)| {
            let by = self.of_parameter(&stands, &key).filter(|name| given.contains_key(*name));
            Misfit { parameter: by.map(str::to_owned), message: format!("{message} ({key} of the template)") }
        };
        self.wrong_with(&values).into_iter().map(misfit).collect()
    }

    /// The value of each parameter: the one that is given, or the default.
    fn values<'v>(&'v self, given: &'v BTreeMap<String, Value>) -> Result<BTreeMap<&'v str, &'v Value>, Vec<Misfit>> {
        let misfit = |name: &str, message: String| Misfit { parameter: Some(name.to_owned()), message };
        let (mut values, mut misfits) = (BTreeMap::new(), Vec::new());
        for name in given.keys().filter(|name| self.parameter(name).is_none()) {
            let known = self.parameters.iter().map(|parameter| parameter.name.as_str());
            let known: Vec<&str> = known.collect();
            let meant = did_you_mean(name, known.iter().copied());
            let message = match known.is_empty() {
                true => "the template has no parameters".to_owned(),
                false => format!("is not a parameter of the template: {}{meant}", known.join(", ")),
            };
            misfits.push(misfit(name, message));
        }
        for parameter in &self.parameters {
            let name = parameter.name.as_str();
            match (given.get(name), &parameter.default) {
                (Some(value), _) => {
                    misfits.extend(parameter.misfit(value).map(|message| misfit(name, message)));
                    values.insert(name, value);
                }
                (None, Some(default)) => _ = values.insert(name, default),
                (None, None) => misfits.push(misfit(name, "is missing: the template has no default for it".to_owned())),
            }
        }
        if misfits.is_empty() { Ok(values) } else { Err(misfits) }
    }

    fn parameter(&self, name: &str) -> Option<&ParameterSpec> {
        self.parameters.iter().find(|parameter| parameter.name == name)
    }

    /// The body as the spec of a policy for nobody.
    fn body_with(&self, values: &BTreeMap<&str, &Value>) -> Value {
        let mut body = filled(&Value::Object(self.traffic_policy.clone()), values);
        body["targetRefs"] = Value::Array(Vec::new());
        body
    }

    /// Everything that is wrong with the body with these values; keys are inside `spec`.
    fn wrong_with(&self, values: &BTreeMap<&str, &Value>) -> Vec<(String, String)> {
        match manifest::part::<TrafficPolicySpec>(BODY, &self.body_with(values)) {
            Ok(settings) => {
                let wrong = settings.check_settings().into_iter();
                wrong.map(|(key, message)| (format!("{BODY}.{key}"), message)).collect()
            }
            Err(wrong) => wrong.into_iter().map(|wrong| (wrong.key, wrong.message)).collect(),
        }
    }

    /// The parameter that stands where a mistake is.
    fn of_parameter<'s>(&self, stands: &'s [Stand], key: &str) -> Option<&'s str> {
        let here = stands.iter().find(|stand| manifest::meet(key, &format!("{BODY}.{}", stand.at)));
        here.map(|stand| stand.parameter.as_str())
    }

    /// Everything that is wrong; keys are inside `spec`.
    pub(super) fn check(&self) -> Vec<(String, String)> {
        let mut wrong = self.check_use();
        for (index, parameter) in self.parameters.iter().enumerate() {
            let own = parameter.check().into_iter();
            wrong.extend(own.map(|(key, message)| (format!("parameters[{index}].{key}"), message)));
            if self.parameters[..index].iter().any(|other| other.name == parameter.name) {
                wrong.push((format!("parameters[{index}].name"), format!("{:?} is given twice", parameter.name)));
            }
            if self.tier.is_some() && parameter.default.is_none() {
                let message = "is missing: the services of a tier give no values".to_owned();
                wrong.push((format!("parameters[{index}].default"), message));
            }
        }
        wrong.extend(self.check_stands());
        if wrong.is_empty() { self.check_body() } else { wrong }
    }

    fn check_use(&self) -> Vec<(String, String)> {
        let mut wrong = Vec::new();
        for namespace in self.namespaces.iter().flatten().filter(|name| !is_label(name)) {
            let message = "is not a name: lower-case letters, digits and '-', at most 63";
            wrong.push(("namespaces".to_owned(), format!("{namespace:?} {message}")));
        }
        match self.namespaces.as_ref().map(BTreeSet::len) {
            Some(0) => {
                wrong.push(("namespaces".to_owned(), "nobody may use it: leave it out for all namespaces".to_owned()));
            }
            Some(count) if count > MAX_NAMESPACES => {
                wrong.push(("namespaces".to_owned(), format!("{count} are more than {MAX_NAMESPACES}")));
            }
            Some(_) | None => {}
        }
        let count = self.parameters.len();
        if count > MAX_PARAMETERS {
            wrong.push(("parameters".to_owned(), format!("{count} parameters are more than {MAX_PARAMETERS}")));
        }
        for (key, why) in [("targetRefs", "a policy says whom it is for"), ("template", "a template is of no other")] {
            if self.traffic_policy.contains_key(key) {
                wrong.push((format!("{BODY}.{key}"), format!("is not for a template: {why}")));
            }
        }
        if self.traffic_policy.is_empty() {
            wrong.push((BODY.to_owned(), "it sets nothing".to_owned()));
        }
        wrong
    }

    /// What is wrong with the places of parameters in the body.
    fn check_stands(&self) -> Vec<(String, String)> {
        let mut wrong = misread(&self.traffic_policy);
        let stands = stands(&self.traffic_policy);
        for Stand { at, parameter } in stands.iter().filter(|stand| self.parameter(&stand.parameter).is_none()) {
            let meant = did_you_mean(parameter, self.parameters.iter().map(|known| known.name.as_str()));
            wrong.push((at.clone(), format!("${{{parameter}}} is not one of the parameters{meant}")));
        }
        wrong.iter_mut().for_each(|(key, _)| *key = format!("{BODY}.{key}"));
        for (index, parameter) in self.parameters.iter().enumerate() {
            if !stands.iter().any(|stand| stand.parameter == parameter.name) {
                let message = format!("{:?} stands nowhere in {BODY}", parameter.name);
                wrong.push((format!("parameters[{index}].name"), message));
            }
        }
        wrong
    }

    /// What is wrong with the body: with the defaults all of it, and its shape alone where a value is missing.
    fn check_body(&self) -> Vec<(String, String)> {
        let stands = stands(&self.traffic_policy);
        let default = |parameter: &'_ ParameterSpec| parameter.default.is_some();
        if self.parameters.iter().all(default) {
            let values = self.parameters.iter().filter_map(|it| Some((it.name.as_str(), it.default.as_ref()?)));
            let told = |(key, message): (String, String)| match self.of_parameter(&stands, &key) {
                Some(name) => (key, format!("{message} (the default of parameter {name})")),
                None => (key, message),
            };
            return self.wrong_with(&values.collect()).into_iter().map(told).collect();
        }
        let values = self.parameters.iter().filter_map(|it| Some((it.name.as_str(), it.default.as_ref()?)));
        let shape = manifest::part::<TrafficPolicySpec>(BODY, &self.body_with(&values.collect()));
        let wrong = shape.err().unwrap_or_default().into_iter().map(|wrong| (wrong.key, wrong.message));
        // A place whose value is not known yet can't be judged.
        let is_known = |(key, _): &(String, String)| {
            let name = self.of_parameter(&stands, key);
            name.and_then(|name| self.parameter(name)).is_none_or(|parameter| parameter.default.is_some())
        };
        wrong.filter(is_known).collect()
    }
}

/// A template as others name it.
pub(crate) fn named(template: &str) -> ObjectName {
    ObjectName::new("", template)
}
