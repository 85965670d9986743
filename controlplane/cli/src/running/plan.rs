//! What is run: the component, and the policy that it runs under.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde_json::{Map, Value, json};

use super::mesh::{NAMESPACE, SERVICE};
use crate::commands::filter::{RunArgs, component};
use crate::values;

/// The `spec` of a FilterPolicy without what it is for and which version it runs.
pub(super) type Spec = Map<String, Value>;

/// What a policy grants where none is given: all that needs no service.
const GRANTED: [&str; 4] = ["token-bucket", "crypto", "kv", "wasi"];

pub(super) struct Plan {
    what: PathBuf,
    name: String,
    config: Option<PathBuf>,
    policy: Option<PathBuf>,
}

impl Plan {
    pub(super) fn new(args: &RunArgs) -> anyhow::Result<Self> {
        let whole = args.what.canonicalize().with_context(|| format!("cannot find {}", args.what.display()))?;
        let stem = if whole.is_dir() { whole.file_name() } else { whole.file_stem() };
        let name = stem.and_then(|name| name.to_str()).and_then(|name| values::name(name).ok());
        let name = name.unwrap_or_else(|| "filter".to_owned());
        let plan = Self { what: args.what.clone(), name, config: args.config.clone(), policy: args.policy.clone() };
        plan.spec()?;
        Ok(plan)
    }

    /// The filter's name: its folder's or its file's, where that can be one.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn what(&self) -> &Path {
        &self.what
    }

    /// Files and folders that decide what runs.
    pub(super) fn roots(&self) -> Vec<PathBuf> {
        [Some(&self.what), self.config.as_ref(), self.policy.as_ref()].into_iter().flatten().cloned().collect()
    }

    /// Builds what is a folder, and reads the component.
    pub(super) async fn component(&self) -> anyhow::Result<Vec<u8>> {
        let what = self.what.clone();
        tokio::task::spawn_blocking(move || component(&what)).await.context("the build ended early")?
    }

    /// The policy as its files say now.
    pub(super) fn spec(&self) -> anyhow::Result<Spec> {
        let mut spec = match &self.policy {
            Some(file) => of_policy(&parsed(file)?).with_context(|| file.display().to_string())?,
            None => {
                Map::from_iter([("onFailure".to_owned(), json!("Deny")), ("capabilities".to_owned(), json!(GRANTED))])
            }
        };
        if let Some(file) = &self.config {
            spec.insert("config".to_owned(), parsed(file)?);
        }
        Ok(spec)
    }

    /// The FilterPolicy that has a version run.
    pub(super) fn manifest(&self, spec: &Spec, version: &str) -> Value {
        let mut spec = spec.clone();
        spec.insert("targetRefs".to_owned(), json!([{"kind": "Service", "name": SERVICE}]));
        spec.insert("filter".to_owned(), json!({"name": self.name, "version": version}));
        json!({
            "apiVersion": "weft.dev/v1alpha1",
            "kind": "FilterPolicy",
            "metadata": {"name": self.name, "namespace": NAMESPACE},
            "spec": spec,
        })
    }
}

fn parsed(file: &Path) -> anyhow::Result<Value> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    serde_saphyr::from_str(&text).map_err(|error| anyhow::anyhow!("{}: {error}", file.display()))
}

/// What a FilterPolicy says but for its target and its filter's version, which are ours.
fn of_policy(policy: &Value) -> anyhow::Result<Spec> {
    let (kind, spec) = (policy["kind"].as_str(), policy["spec"].as_object());
    let (Some("FilterPolicy"), Some(spec)) = (kind, spec) else { bail!("a FilterPolicy with its spec is wanted") };
    if spec.get("direction").is_some_and(|direction| direction != "Inbound") {
        bail!("spec.direction: only what comes to the app is run here");
    }
    if spec.get("capabilities").and_then(Value::as_array).into_iter().flatten().any(grants_secrets) {
        bail!("spec.capabilities: no Secret is here whose values could be granted; cases have `secrets` and `keys`");
    }
    let mut spec = spec.clone();
    for ours in ["targetRefs", "filter"] {
        spec.remove(ours);
    }
    Ok(spec)
}

/// True for a capability whose parameters name values of Secrets.
fn grants_secrets(capability: &Value) -> bool {
    ["secret", "crypto"].iter().any(|word| capability.get(word).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(folder: &Path, policy: Option<&str>, config: Option<&str>) -> Plan {
        let file = |name: &str, text: Option<&str>| {
            text.map(|text| {
                let path = folder.join(name);
                std::fs::write(&path, text).unwrap();
                path
            })
        };
        let (policy, config) = (file("policy.yaml", policy), file("config.yaml", config));
        Plan { what: folder.join("mine.wasm"), name: "mine".to_owned(), config, policy }
    }

    #[test]
    fn a_policy_is_taken_but_for_its_target_and_version() {
        let folder = tempfile::tempdir().unwrap();
        let text = "{kind: FilterPolicy, spec: {targetRefs: [{kind: Service, name: reviews}], filter: {name: other},
            limits: {callTimeoutMs: 50}, onFailure: Allow, config: {refused: [ada]}}}";
        let given = plan(folder.path(), Some(text), Some("refused: [eve]"));
        let manifest = given.manifest(&given.spec().unwrap(), "0.0.3");
        let expected = json!({
            "targetRefs": [{"kind": "Service", "name": "app"}],
            "filter": {"name": "mine", "version": "0.0.3"},
            "limits": {"callTimeoutMs": 50},
            "onFailure": "Allow",
            "config": {"refused": ["eve"]},
        });
        assert_eq!(manifest["spec"], expected);
        assert_eq!(given.roots().len(), 3);
        let text = manifest.to_string();
        assert!(weft_policy::manifest::parse("it", &text).is_ok_and(|documents| documents.len() == 1), "{text}");
    }

    #[test]
    fn without_one_everything_is_granted_that_needs_no_service() {
        let folder = tempfile::tempdir().unwrap();
        let given = plan(folder.path(), None, None);
        let manifest = given.manifest(&given.spec().unwrap(), "0.0.1");
        assert_eq!(manifest["spec"]["capabilities"], json!(GRANTED));
        assert_eq!(manifest["spec"]["onFailure"], "Deny");
        assert!(weft_policy::manifest::parse("it", &manifest.to_string()).is_ok());
    }

    #[test]
    fn what_is_no_policy_is_refused() {
        for (text, expect) in [
            ("{kind: Service, spec: {}}", "a FilterPolicy with its spec"),
            ("{kind: FilterPolicy, spec: {direction: Outbound}}", "spec.direction"),
            ("{kind: FilterPolicy, spec: {capabilities: [kv, {secret: {values: []}}]}}", "no Secret is here"),
            ("{kind: FilterPolicy, spec: {capabilities: [{crypto: {keys: []}}]}}", "no Secret is here"),
            ("{", "policy.yaml"),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let error = format!("{:#}", plan(folder.path(), Some(text), None).spec().unwrap_err());
            assert!(error.contains(expect), "{error}");
        }
    }
}
