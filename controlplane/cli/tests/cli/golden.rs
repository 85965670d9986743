//! Bad manifests with the exact words that `weft validate` has for each: `tests/golden/refused` holds both, side by side.
//! `WEFT_BLESS=1` writes the words anew.

use std::path::{Path, PathBuf};

use crate::control::{Ran, weft};

/// What is fewer is lost.
const AT_LEAST: usize = 60;

fn manifests(folder: &Path) -> Vec<PathBuf> {
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> = paths.filter(|path| path.extension().is_some_and(|end| end != "out")).collect();
    paths.sort();
    paths
}

#[test]
fn every_bad_manifest_has_its_words() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/refused");
    let manifests = manifests(&folder);
    assert!(manifests.len() >= AT_LEAST, "{}", manifests.len());
    let mut wrong = Vec::new();
    for path in &manifests {
        let name = path.file_name().unwrap().to_str().unwrap();
        let ran = Ran::of(weft(&["validate", "-f", name]).current_dir(&folder).output().unwrap());
        assert_eq!((ran.status, ran.out.as_str()), (1, ""), "{name}");
        let expected = folder.join(format!("{name}.out"));
        if std::env::var_os("WEFT_BLESS").is_some() {
            std::fs::write(&expected, &ran.err).unwrap();
        }
        match std::fs::read_to_string(&expected) {
            Ok(expect) if expect == ran.err => {}
            Ok(expect) => wrong.push(format!("{name}: expected\n{expect}\nbut it is\n{}", ran.err)),
            Err(error) => wrong.push(format!("{}: {error}", expected.display())),
        }
    }
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), manifests.len(), wrong.join("\n"));
}
