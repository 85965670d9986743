//! Publications good and bad; the components are assembled here, as small as the format allows.

use ed25519_dalek::{Signer as _, SigningKey};
use wasm_encoder::{
    CodeSection, ComponentBuilder, ComponentExportKind, ComponentTypeRef, ExportKind, ExportSection, Function,
    FunctionSection, InstanceType, Module, ModuleArg, TypeSection,
};

use super::*;

/// A component with these imports and exports, none of which does anything.
pub(crate) fn component(imports: &[&str], exports: &[&str]) -> Vec<u8> {
    let mut module = Module::new();
    let mut types = TypeSection::new();
    types.ty().function([], []);
    let mut functions = FunctionSection::new();
    functions.function(0);
    let mut core_exports = ExportSection::new();
    core_exports.export("f", ExportKind::Func, 0);
    let mut code = CodeSection::new();
    let mut body = Function::new([]);
    body.instructions().end();
    code.function(&body);
    module.section(&types).section(&functions).section(&core_exports).section(&code);

    let mut builder = ComponentBuilder::default();
    for name in imports {
        let ty = builder.type_instance(None, &InstanceType::new());
        builder.import(*name, ComponentTypeRef::Instance(ty));
    }
    let core = builder.core_module(None, &module);
    let instance = builder.core_instantiate(None, core, Vec::<(&str, ModuleArg)>::new());
    let core_func = builder.core_alias_export(None, instance, "f", ExportKind::Func);
    let (ty, mut encoder) = builder.type_function(None);
    encoder.params(Vec::<(&str, wasm_encoder::ComponentValType)>::new()).result(None);
    let func = builder.lift_func(None, core_func, ty, []);
    for name in exports {
        builder.export(*name, ComponentExportKind::Func, func, None);
    }
    builder.finish()
}

/// A filter with this import, signed, in which there is nothing to run.
pub(crate) fn artifact(import: &str) -> Artifact {
    let exports = ["configure", "on-connection", "on-request-head", "on-response-head", "on-done"];
    let bytes = component(&[import], &exports);
    let (signature, key) = sign(&bytes, 1);
    Artifact::verify(bytes, &signature, &key).unwrap()
}

/// Signature and key headers for `bytes`.
pub(crate) fn sign(bytes: &[u8], seed: u8) -> (String, String) {
    let key = SigningKey::from_bytes(&[seed; 32]);
    let signature = key.sign(&Sha256::digest(bytes));
    let der = key.verifying_key().to_public_key_der().unwrap();
    (STANDARD.encode(signature.to_bytes()), STANDARD.encode(der.as_bytes()))
}

fn check(bytes: Vec<u8>, expect: &str) {
    let (signature, key) = sign(&bytes, 1);
    let shown = match Artifact::verify(bytes, &signature, &key) {
        Ok(artifact) => format!("{} {:?}", artifact.shape.abi, artifact.shape.capabilities),
        Err(error) => error.to_string(),
    };
    assert!(shown.contains(expect), "{shown}");
}

#[test]
fn a_filter_is_a_component_of_the_world_and_nothing_else() {
    let log = "weft:filter/log@0.1.0";
    check(component(&[log, "weft:filter/types@0.1.0"], &EXPORTS), "weft:filter@0.1.0 []");
    check(component(&["weft:filter/token-bucket@0.1.3"], &EXPORTS), "weft:filter@0.1.3 [\"token-bucket\"]");
    check(component(&[log, "wasi:filesystem/types@0.2.0"], &EXPORTS), "imports \"wasi:filesystem/types@0.2.0\"");
    check(component(&["weft:filter/sockets@0.1.0"], &EXPORTS), "does not know");
    check(component(&["weft:filter/log@0.2.0"], &EXPORTS), "made for weft:filter/*@0.2.0");
    check(component(&[log], &EXPORTS[..4]), "does not export \"on-done\"");
    check(Module::new().finish(), "core WebAssembly module");
    check(b"\x7fELF and so on".to_vec(), "not a valid WebAssembly component");
    let mut cut = component(&[log], &EXPORTS);
    cut.truncate(cut.len() - 3);
    check(cut, "not a valid WebAssembly component");
    check(Vec::new(), "empty");
}

#[test]
fn signature_and_key_are_checked() {
    let bytes = component(&[], &EXPORTS);
    let (signature, key) = sign(&bytes, 1);
    let artifact = Artifact::verify(bytes.clone(), &signature, &key).unwrap();
    assert!(artifact.digest.starts_with("sha256:") && artifact.digest.len() == 71);
    let pem = artifact.public_key_pem;
    for form in [pem.clone(), STANDARD.encode(&pem), STANDARD.encode(SigningKey::from_bytes(&[1; 32]).verifying_key())]
    {
        Artifact::verify(bytes.clone(), &signature, &form).unwrap();
    }
    let (_, other_key) = sign(&bytes, 2);
    let (other_signature, _) = sign(b"something else", 1);
    for (signature, key, expect) in [
        (signature.as_str(), other_key.as_str(), "does not hold"),
        (other_signature.as_str(), key.as_str(), "does not hold"),
        ("", key.as_str(), "64 bytes"),
        ("%%%", key.as_str(), "64 bytes"),
        (signature.as_str(), "", "ed25519"),
        (signature.as_str(), "AAAA", "ed25519"),
    ] {
        let error = Artifact::verify(bytes.clone(), signature, key).unwrap_err().to_string();
        assert!(error.contains(expect), "{error}");
    }
}
