//! Facts of a component, read by the format's own parser. What is nested counts for instances, memories and tables; names
//! are those of the outermost level.

use wasmparser::{
    ComponentExternalKind, ComponentTypeRef, Encoding, Instance, Parser, Payload, Validator, WasmFeatures,
};

use super::{ComponentFault, Facts, MAX_SCHEMA, SCHEMA_SECTION, Shape, judge};

/// Reads, validates and judges a binary.
///
/// # Errors
/// It is no filter that this release runs.
pub fn inspect(wasm: &[u8]) -> Result<(Facts, Shape), ComponentFault> {
    let facts = read(wasm)?;
    let shape = judge(&facts)?;
    Validator::new_with_features(WasmFeatures::default()).validate_all(wasm).map_err(invalid)?;
    Ok((facts, shape))
}

fn invalid(error: wasmparser::BinaryReaderError) -> ComponentFault {
    ComponentFault::Invalid(error.to_string())
}

/// What is found in a binary, component or not.
///
/// # Errors
/// It is damaged, or no WebAssembly at all.
#[expect(clippy::wildcard_enum_match_arm, reason = "a component has many kinds of sections; few tell what it is")]
pub fn read(wasm: &[u8]) -> Result<Facts, ComponentFault> {
    if !wasm.starts_with(b"\0asm") {
        return Err(ComponentFault::NoWasm);
    }
    let mut facts = Facts { bytes: wasm.len(), ..Facts::default() };
    let mut depth = 0_u32;
    for payload in Parser::new(0).parse_all(wasm) {
        match payload.map_err(invalid)? {
            Payload::Version { encoding, .. } => {
                if depth == 0 {
                    facts.is_component = encoding == Encoding::Component;
                }
                depth += 1;
            }
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::InstanceSection(section) => {
                for instance in section {
                    // What only gathers exports takes no place.
                    if matches!(instance.map_err(invalid)?, Instance::Instantiate { .. }) {
                        facts.core_instances += 1;
                    }
                }
            }
            Payload::MemorySection(section) => facts.memories = facts.memories.saturating_add(section.count()),
            Payload::TableSection(section) => facts.tables = facts.tables.saturating_add(section.count()),
            Payload::ComponentImportSection(section) if depth == 1 => {
                for import in section {
                    let import = import.map_err(invalid)?;
                    if !matches!(import.ty, ComponentTypeRef::Type(_)) {
                        facts.imports.push(import.name.name.to_owned());
                    }
                }
            }
            Payload::ComponentExportSection(section) if depth == 1 => {
                for export in section {
                    let export = export.map_err(invalid)?;
                    match export.kind {
                        ComponentExternalKind::Func => facts.functions.push(export.name.name.to_owned()),
                        ComponentExternalKind::Instance => facts.interfaces.push(export.name.name.to_owned()),
                        ComponentExternalKind::Module
                        | ComponentExternalKind::Value
                        | ComponentExternalKind::Type
                        | ComponentExternalKind::Component => {}
                    }
                }
            }
            Payload::CustomSection(section) if depth == 1 && section.name() == SCHEMA_SECTION => {
                schema(section.data(), &mut facts)?;
            }
            _ => {}
        }
    }
    Ok(facts)
}

fn schema(data: &[u8], facts: &mut Facts) -> Result<(), ComponentFault> {
    if facts.schema.is_some() {
        return Err(ComponentFault::Schema("is there twice"));
    }
    if data.len() > MAX_SCHEMA {
        return Err(ComponentFault::Schema("has more than 64 KiB"));
    }
    let text = std::str::from_utf8(data).map_err(|_| ComponentFault::Schema("is not UTF-8"))?;
    facts.schema = Some(text.to_owned());
    Ok(())
}
