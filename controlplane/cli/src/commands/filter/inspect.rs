//! Description of a filter binary, read from it without running it, and the judgement that control plane and proxies
//! make as well.

use anyhow::Context;
use serde::Serialize;
use weft_policy::component::cases::Cases;
use weft_policy::component::{self, Shape};
use weft_policy::schema;

use super::keys;

/// Report that `weft filter inspect` prints.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Report {
    pub(super) kind: &'static str,
    pub(super) bytes: usize,
    pub(super) digest: String,
    pub(super) imports: Vec<String>,
    pub(super) exports: Vec<String>,
    pub(super) core_instances: u32,
    pub(super) memories: u32,
    /// It carries a schema of its configuration.
    pub(super) config_schema: bool,
    /// Keywords of that schema that nobody checks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) schema_ignores: Vec<String>,
    /// Cases that it carries, which the control plane runs before it takes it.
    pub(super) cases: usize,
    /// The contract that it is made for; absent where it is no filter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) abi: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) capabilities: Vec<String>,
    /// Why no proxy would run it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) refused: Option<String>,
}

/// A binary that may be published, with the text of its configuration schema.
pub(super) fn publishable(wasm: &[u8]) -> anyhow::Result<(Shape, Option<String>)> {
    let (facts, shape) = component::inspect(wasm)?;
    if let Some(text) = &facts.schema {
        schema::parse(text)?;
    }
    facts.cases.as_deref().map(Cases::parse).transpose()?;
    Ok((shape, facts.schema))
}

pub(super) fn report(wasm: &[u8]) -> anyhow::Result<Report> {
    let facts = component::read(wasm).context("it can't be read")?;
    let digest = keys::digest_text(&keys::digest(wasm));
    let parsed = facts.schema.as_deref().map(schema::parse).transpose();
    let cases = facts.cases.as_deref().map(Cases::parse).transpose();
    let (refused, shape) = match (component::inspect(wasm), &parsed, &cases) {
        (Err(fault), _, _) => (Some(fault.to_string()), None),
        (Ok(_), Err(error), _) => (Some(error.to_string()), None),
        (Ok(_), Ok(_), Err(error)) => (Some(error.to_string()), None),
        (Ok((_, shape)), Ok(_), Ok(_)) => (None, Some(shape)),
    };
    let cases = cases.ok().flatten().map_or(0, |cases| cases.cases.len());
    let ignored = parsed.ok().flatten().map(|(_, ignored)| ignored.into_iter().collect());
    let (abi, capabilities) = shape.map(|shape| (shape.abi, shape.capabilities)).unzip();
    Ok(Report {
        kind: if facts.is_component { "component" } else { "module" },
        bytes: wasm.len(),
        digest,
        imports: facts.imports,
        exports: [facts.functions, facts.interfaces].concat(),
        core_instances: facts.core_instances,
        memories: facts.memories,
        config_schema: facts.schema.is_some(),
        cases,
        schema_ignores: ignored.unwrap_or_default(),
        abi,
        capabilities: capabilities.unwrap_or_default(),
        refused,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_filter_is_told_apart() {
        let module = b"\0asm\x01\0\0\0";
        assert_eq!(report(module).unwrap().kind, "module");
        assert!(publishable(module).unwrap_err().to_string().contains("core WebAssembly module"));
        let component = b"\0asm\x0d\0\x01\0";
        let told = report(component).unwrap();
        assert_eq!((told.kind, told.abi), ("component", None));
        assert!(told.refused.unwrap().contains("it is not a filter"));
        assert!(format!("{:#}", report(b"ELF").unwrap_err()).contains("not a WebAssembly binary"));
        assert!(report(b"\0asm\x01\0\0\0\xff\xff").is_err());
    }
}
