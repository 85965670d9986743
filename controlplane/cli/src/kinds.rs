//! Objects by kind and name, as the command line and the API's paths write them.

use std::fmt;

use anyhow::Context as _;
use serde_json::Value;
use weft_policy::bundle::Revision;
use weft_policy::manifest::Document;
use weft_policy::plan::Entry;
use weft_policy::resource::{Kind, ObjectKey, Resource};

use crate::api::segment;

pub(crate) fn parse(text: &str) -> anyhow::Result<Kind> {
    text.parse::<Kind>().map_err(|error| anyhow::anyhow!("{error}"))
}

/// One object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target(ObjectKey);

impl Target {
    pub(crate) fn new(kind: Kind, namespace: &str, name: &str) -> Self {
        Self(ObjectKey::new(kind, namespace, name))
    }

    pub(crate) fn of(document: &Document) -> Self {
        Self(document.resource.key())
    }

    pub(crate) fn kind(&self) -> Kind {
        self.0.kind
    }

    pub(crate) fn name(&self) -> &str {
        &self.0.name
    }

    /// Its path below `/api/v1`.
    pub(crate) fn path(&self) -> String {
        let namespace = if self.0.kind.is_namespaced() { segment(&self.0.namespace) } else { "_".to_owned() };
        format!("/resources/{}/{namespace}/{}", self.0.kind.plural(), segment(&self.0.name))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An object as the control plane printed it.
pub(crate) fn entry(item: &Value) -> anyhow::Result<Entry> {
    let resource: Resource = serde_json::from_value(item.clone()).with_context(|| {
        let (kind, name) = (&item["kind"], &item["metadata"]["name"]);
        format!("the control plane's {kind} {name} can't be read here: is this `weft` older than it?")
    })?;
    // Age decides between policies.
    let created = Revision(item["metadata"]["creationRevision"].as_u64().unwrap_or(1));
    Ok(Entry::applied(resource, created, String::new()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_objects() {
        let route = Target::new(parse("route").unwrap(), "shop", "reviews");
        assert_eq!(
            (route.path().as_str(), route.to_string().as_str()),
            ("/resources/httproutes/shop/reviews", "HTTPRoute shop/reviews")
        );
        assert_eq!(Target::new(parse("Mesh").unwrap(), "shop", "mesh").path(), "/resources/meshes/_/mesh");
    }

    #[test]
    fn an_unknown_kind_is_told_with_the_known_ones() {
        let error = parse("gadget").unwrap_err().to_string();
        assert!(error.contains("gadget") && error.contains("HTTPRoute"), "{error}");
    }
}
