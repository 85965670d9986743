//! Description of a filter binary, read from it without running it.

use anyhow::{bail, ensure};
use serde::Serialize;
use wasmparser::{Encoding, Parser, Payload};

use super::keys;

/// Report that `weft filter inspect` prints.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Report {
    pub(super) kind: &'static str,
    pub(super) bytes: usize,
    pub(super) digest: String,
    pub(super) imports: Vec<String>,
    pub(super) exports: Vec<String>,
}

/// A filter is a component; a core module is what the linker gives before it is made one.
pub(super) fn require_component(wasm: &[u8]) -> anyhow::Result<()> {
    ensure!(
        report(wasm)?.kind == "component",
        "it is a core module, not a component (`cargo xtask filters` makes components)"
    );
    Ok(())
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "sections that say nothing of imports and exports, today's and later ones"
)]
pub(super) fn report(wasm: &[u8]) -> anyhow::Result<Report> {
    if !Parser::is_component(wasm) && !Parser::is_core_wasm(wasm) {
        bail!("not a WebAssembly binary");
    }
    let digest = keys::digest_text(&keys::digest(wasm));
    let mut report = Report { kind: "module", bytes: wasm.len(), digest, imports: Vec::new(), exports: Vec::new() };
    let mut depth = 0_u32;
    for payload in Parser::new(0).parse_all(wasm) {
        match payload? {
            Payload::Version { encoding, .. } => {
                if depth == 0 && encoding == Encoding::Component {
                    report.kind = "component";
                }
                depth += 1;
            }
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 1 => {
                for import in section {
                    report.imports.push(import?.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(section) if depth == 1 => {
                for export in section {
                    report.exports.push(export?.name.name.to_owned());
                }
            }
            _ => {}
        }
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_component_is_told_apart() {
        let module = b"\0asm\x01\0\0\0";
        assert_eq!(report(module).unwrap().kind, "module");
        assert!(require_component(module).unwrap_err().to_string().contains("core module"));
        let component = b"\0asm\x0d\0\x01\0";
        assert_eq!(report(component).unwrap().kind, "component");
        require_component(component).unwrap();
        assert!(report(b"ELF").unwrap_err().to_string().contains("not a WebAssembly binary"));
        assert!(report(b"\0asm\x01\0\0\0\xff\xff").is_err());
    }
}
