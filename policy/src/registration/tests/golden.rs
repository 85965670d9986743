//! Odd registrations with the exact words that refuse each: `tests/golden/registrations` holds both, side by side.
//! `WEFT_BLESS=1` writes the words anew.

use std::path::PathBuf;

use serde_json::Value;

use super::*;

fn told(value: &Value) -> Told {
    let text = |key: &str| value[key].as_str().unwrap().to_owned();
    let number = |value: &Value| u32::try_from(value.as_u64().unwrap()).unwrap();
    let port = |port: &Value| (number(&port[0]), serde_json::from_value(port[1].clone()).unwrap());
    Told {
        namespace: text("namespace"),
        name: text("name"),
        address: text("address"),
        mesh_address: text("mesh_address"),
        ports: value["ports"].as_array().unwrap().iter().map(port).collect(),
        labels: serde_json::from_value(value["labels"].clone()).unwrap(),
        service: Some(text("service")),
        weight: number(&value["weight"]),
    }
}

#[test]
fn every_odd_registration_has_its_words() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/registrations");
    let paths = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let paths: Vec<_> = paths.filter(|path| path.extension().is_some_and(|end| end == "json")).collect();
    assert!(paths.len() >= 10, "{paths:?}");
    for path in paths {
        let value: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let faults = Registration::new(told(&value), &identity()).map(drop).unwrap_err();
        let got: String = faults.iter().map(|fault| format!("{fault}\n")).collect();
        let expected = path.with_extension("out");
        if std::env::var_os("WEFT_BLESS").is_some() {
            std::fs::write(&expected, &got).unwrap();
        }
        assert_eq!(got, std::fs::read_to_string(&expected).unwrap_or_default(), "{}", path.display());
    }
}
