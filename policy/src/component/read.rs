//! Facts of a component, read by the format's own parser. What is nested counts for instances, memories and tables; names
//! are those of the outermost level.

use wasmparser::{
    ComponentExternalKind, ComponentTypeRef, Encoding, Instance, Parser, Payload, Validator, WasmFeatures,
};

use super::{CASES_SECTION, ComponentFault, Facts, MAX_CASES, MAX_SCHEMA, SCHEMA_SECTION, Shape, judge};

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
                facts.schema =
                    Some(text(section.data(), MAX_SCHEMA, facts.schema.is_some()).map_err(ComponentFault::Schema)?);
            }
            Payload::CustomSection(section) if depth == 1 && section.name() == CASES_SECTION => {
                facts.cases =
                    Some(text(section.data(), MAX_CASES, facts.cases.is_some()).map_err(ComponentFault::Cases)?);
            }
            _ => {}
        }
    }
    Ok(facts)
}

/// The text of a section that may be there once.
fn text(data: &[u8], most: usize, is_there: bool) -> Result<String, &'static str> {
    if is_there {
        return Err("is there twice");
    }
    if data.len() > most {
        return Err(if most == MAX_SCHEMA { "has more than 64 KiB" } else { "has more than 256 KiB" });
    }
    std::str::from_utf8(data).map(str::to_owned).map_err(|_| "is not UTF-8")
}

/// The binary with one more custom section at its end, where every reader of components takes one.
#[must_use]
pub fn with_section(mut wasm: Vec<u8>, name: &str, data: &[u8]) -> Vec<u8> {
    let mut section = Vec::with_capacity(name.len() + data.len() + 5);
    put_length(&mut section, name.len());
    section.extend_from_slice(name.as_bytes());
    section.extend_from_slice(data);
    // The id of custom sections.
    wasm.push(0);
    put_length(&mut wasm, section.len());
    wasm.extend_from_slice(&section);
    wasm
}

/// LEB128, as the format has its lengths.
fn put_length(out: &mut Vec<u8>, mut length: usize) {
    loop {
        let byte = u8::try_from(length & 0x7f).unwrap_or_default();
        length >>= 7;
        if length == 0 {
            out.push(byte);
            return;
        }
        out.push(byte | 0x80);
    }
}
