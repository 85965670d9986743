//! Facts that make a filter, and those that don't.

use super::*;

fn facts(imports: &[&str], functions: &[&str], interfaces: &[&str]) -> Facts {
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    Facts {
        bytes: 100,
        is_component: true,
        imports: owned(imports),
        functions: owned(functions),
        interfaces: owned(interfaces),
        core_instances: 3,
        memories: 1,
        tables: 2,
        schema: None,
        cases: None,
    }
}

fn check(facts: &Facts, expect: &str) {
    let shown = match judge(facts) {
        Ok(shape) => format!("{} {:?}", shape.abi, shape.capabilities),
        Err(fault) => fault.to_string(),
    };
    assert!(shown.contains(expect), "{shown}");
}

#[test]
fn each_world_has_its_filters() {
    let configuration = "weft:filter/configuration@0.2.3";
    check(&facts(&[], &HOOKS_01, &[]), "weft:filter@0.1.0 []");
    check(&facts(&["weft:filter/token-bucket@0.1.3"], &HOOKS_01, &[]), "weft:filter@0.1.3 [\"token-bucket\"]");
    check(&facts(&[], &[], &[configuration]), "weft:filter@0.2.3 []");
    let imports = ["types", "log", "kv", "callouts", "secrets"].map(|name| format!("weft:filter/{name}@0.2.0"));
    let imports: Vec<&str> = imports.iter().map(String::as_str).collect();
    check(
        &facts(&imports, &[], &[configuration, "weft:filter/tick@0.2.0", "other:package/it@1.0.0"]),
        "weft:filter@0.2.3 [\"callout\", \"kv\", \"secret\"]",
    );
}

#[test]
fn what_is_no_filter_is_told_why() {
    let (configuration, log) = ("weft:filter/configuration@0.2.0", "weft:filter/log@0.1.0");
    check(&facts(&[], &[], &[]), "does not export \"configuration\"");
    check(&facts(&[log], &HOOKS_01[..4], &[]), "does not export \"on-done\"");
    check(&facts(&["wasi:sockets/tcp@0.2.0"], &HOOKS_01, &[]), "imports \"wasi:sockets/tcp@0.2.0\"");
    check(&facts(&["weft:filter/kv@0.1.0"], &HOOKS_01, &[]), "\"weft:filter/kv@0.1.0\", which the world 0.1");
    check(&facts(&["weft:filter/log@0.3.0"], &HOOKS_01, &[]), "made for weft:filter/*@0.3.0");
    check(&facts(&["weft:filter/log"], &HOOKS_01, &[]), "made for weft:filter/*@?");
    check(&facts(&[log], &[], &[configuration]), "one component is of one world");
    check(&facts(&[], &[], &[configuration, "weft:filter/body@0.2.0"]), "exports \"weft:filter/body@0.2.0\"");
    check(&facts(&[], &[], &[configuration, "weft:filter/tick@0.3.0"]), "made for weft:filter/*@0.3.0");
    check(&Facts { is_component: false, ..facts(&[], &[], &[]) }, "wasm-tools component new");
    let sound = facts(&[], &HOOKS_01, &[]);
    check(&Facts { core_instances: 49, ..sound.clone() }, "49 core instances, and at most 48");
    check(&Facts { memories: 5, ..sound.clone() }, "5 memories, and at most 4");
    check(&Facts { tables: 17, ..sound.clone() }, "17 tables, and at most 16");
    check(&Facts { bytes: MAX_BYTES + 1, ..sound.clone() }, "bytes, and at most");
    check(&Facts { imports: vec![log.to_owned(); MAX_NAMES], ..sound }, "imports and exports, and at most 256");
}

/// What compilers of other languages import is taken, and asks for a grant where it brings something in.
#[test]
fn wasi_0_2_is_taken_in_the_world_0_2() {
    let configuration = &["weft:filter/configuration@0.2.0"];
    let with = |imports: &[&str], expect: &str| check(&facts(imports, &[], configuration), expect);
    let quiet = ["wasi:cli/environment@0.2.3", "wasi:io/streams@0.2.12", "wasi:filesystem/types@0.2.0"];
    with(&quiet, "weft:filter@0.2.0 []");
    for import in ["wasi:clocks/wall-clock@0.2.0", "wasi:random/insecure-seed@0.2.3"] {
        with(&[quiet[0], import], "weft:filter@0.2.0 [\"wasi\"]");
    }
    for import in [
        "wasi:http/types@0.2.0",
        "wasi:clocks/wall-clock@0.3.0",
        "wasi:clocks/wall-clock@0.2.0-rc-2023-11-10",
        "wasi:clocks/wall-clock@0.2.",
        "wasi:clocks/wall-clock",
        "wasi:clocks@0.2.0",
    ] {
        with(&[import], &format!("imports {import:?}"));
        assert_eq!(wasi_interface(import), None);
    }
    assert_eq!(wasi_interface(quiet[1]), Some("wasi:io/streams"));
}
