//! Publications good and bad; the components are assembled here, as small as the format allows.

use ed25519_dalek::{Signer as _, SigningKey};
use wasm_encoder::{
    CodeSection, ComponentBuilder, ComponentExportKind, ComponentTypeRef, ExportKind, ExportSection, Function,
    FunctionSection, InstanceType, Module, ModuleArg, TypeSection,
};

use super::*;
use crate::hub::Publication;

const EXPORTS: [&str; 5] = ["configure", "on-connection", "on-request-head", "on-response-head", "on-done"];

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

/// A component of the world 0.2, in which there is nothing to run.
pub(crate) fn component_of_0_2() -> Vec<u8> {
    let mut builder = ComponentBuilder::default();
    let inner = builder.component_raw(None, &component(&[], &["configure"]));
    let instance = builder.instantiate(None, inner, Vec::<(&str, ComponentExportKind, u32)>::new());
    builder.export("weft:filter/configuration@0.2.0", ComponentExportKind::Instance, instance, None);
    builder.finish()
}

/// A filter with this import, signed, in which there is nothing to run.
pub(crate) fn artifact(import: &str) -> Artifact {
    signed(component(&[import], &EXPORTS)).unwrap()
}

fn signed(bytes: Vec<u8>) -> Result<Artifact, ArtifactError> {
    let (signature, key) = sign(&bytes, 1);
    Artifact::verify(bytes, &signature, &key)
}

/// The same as [`artifact`], with these cases.
pub(crate) fn artifact_with_cases(import: &str, cases: &str) -> Result<Artifact, ArtifactError> {
    let bytes = component(&[import], &EXPORTS);
    signed(weft_policy::component::with_section(bytes, weft_policy::component::CASES_SECTION, cases.as_bytes()))
}

/// A filter with this import, as its publisher signs it under a name and a version.
pub(crate) fn publication(name: &str, version: &str, import: &str) -> Publication {
    publication_of(name, version, artifact(import))
}

/// The same of another binary.
pub(crate) fn publication_of(name: &str, version: &str, artifact: Artifact) -> Publication {
    let statement = Some(state(&artifact.statement(name, version).unwrap(), 1));
    let (name, version) = (name.to_owned(), version.to_owned());
    Publication { name, version, artifact, statement, accept_new_key: false, channel: None, dry_run: false }
}

/// A statement with its signature.
pub(crate) fn state(statement: &Statement, seed: u8) -> SignedStatement {
    let text = statement.to_string();
    let signature = SigningKey::from_bytes(&[seed; 32]).sign(&signed_bytes(&text));
    SignedStatement { text, signature: STANDARD.encode(signature.to_bytes()) }
}

/// A statement about whatever these bytes are.
pub(crate) fn state_of(bytes: &[u8], name: &str, version: &str, seed: u8) -> SignedStatement {
    let key = SigningKey::from_bytes(&[seed; 32]).verifying_key();
    let facts = weft_policy::component::read(bytes);
    let abi = facts.ok().and_then(|facts| weft_policy::component::judge(&facts).ok()).map(|shape| shape.abi);
    let statement = Statement {
        name: name.to_owned(),
        version: version.to_owned(),
        abi: abi.unwrap_or_else(|| "weft:filter@0.1.0".to_owned()),
        digest: format!("sha256:{}", hex(&Sha256::digest(bytes))),
        schema: None,
        publisher: KeyId::of(key.as_bytes()),
    };
    state(&statement, seed)
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
    check(component_of_0_2(), "weft:filter@0.2.0 []");
    check(component(&[log, "wasi:filesystem/types@0.2.0"], &EXPORTS), "imports \"wasi:filesystem/types@0.2.0\"");
    check(component(&["weft:filter/sockets@0.1.0"], &EXPORTS), "which the world 0.1 of this release does not have");
    check(component(&["weft:filter/log@0.2.0"], &EXPORTS), "one component is of one world");
    check(component(&["weft:filter/log@0.3.0"], &EXPORTS), "made for weft:filter/*@0.3.0");
    check(component(&[log], &EXPORTS[..4]), "does not export \"on-done\"");
    check(Module::new().finish(), "core WebAssembly module");
    check(b"\x7fELF and so on".to_vec(), "not a WebAssembly binary");
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

/// A custom section at the end of a component.
fn with_schema(mut bytes: Vec<u8>, schema: &str) -> Vec<u8> {
    let name = component::SCHEMA_SECTION;
    let leb = |mut number: usize| {
        let mut encoded = Vec::new();
        loop {
            let low = u8::try_from(number & 0x7f).unwrap();
            number >>= 7;
            encoded.push(if number == 0 { low } else { low | 0x80 });
            if number == 0 {
                return encoded;
            }
        }
    };
    let content = [leb(name.len()), name.as_bytes().to_vec(), schema.as_bytes().to_vec()].concat();
    bytes.push(0);
    bytes.extend(leb(content.len()));
    bytes.extend(content);
    bytes
}

#[test]
fn a_schema_is_read_from_the_component() {
    let filter = component(&[], &EXPORTS);
    let shape = inspect(&with_schema(filter.clone(), r#"{"type": "object"}"#)).unwrap();
    assert_eq!(shape.schema.unwrap().0["type"], "object");
    check(with_schema(filter.clone(), "{"), "is not JSON");
    check(with_schema(filter.clone(), r#"{"type": 1}"#), "the configuration schema is wrong at");
    check(with_schema(filter.clone(), &" ".repeat(component::MAX_SCHEMA + 1)), "has more than 64 KiB");
    check(with_schema(with_schema(filter, "{}"), "{}"), "is there twice");
}

#[test]
fn a_statement_holds_for_nothing_else() {
    let artifact = artifact("weft:filter/log@0.1.0");
    let statement = artifact.statement("mine", "1.0.0").unwrap();
    let check = |signed: &SignedStatement, name: &str, version: &str, expect: &str| {
        let told = artifact.is_stated(name, version, signed).map_or_else(|error| error.to_string(), |()| String::new());
        assert!(if expect.is_empty() { told.is_empty() } else { told.contains(expect) }, "{told}");
    };
    let signed = state(&statement, 1);
    check(&signed, "mine", "1.0.0", "");
    check(&signed, "stamp", "1.0.0", "is about name mine, and this is stamp");
    check(&signed, "mine", "3.0.0", "is about version 1.0.0, and this is 3.0.0");
    check(&state(&statement, 2), "mine", "1.0.0", "signature does not hold");
    check(
        &SignedStatement { text: signed.text.replace("mine", "your"), ..signed.clone() },
        "your",
        "1.0.0",
        "does not hold",
    );
    let other = Statement { digest: format!("sha256:{}", "0".repeat(64)), ..statement };
    check(&state(&other, 1), "mine", "1.0.0", "is about digest");
    let plain = SigningKey::from_bytes(&[1; 32]).sign(signed.text.as_bytes());
    check(
        &SignedStatement { signature: STANDARD.encode(plain.to_bytes()), ..signed },
        "mine",
        "1.0.0",
        "does not hold",
    );
}
