//! Any text as a manifest: an error that names file and line, or resources that survive being written and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_policy::manifest::{parse, to_yaml};

fuzz_target!(|input: &[u8]| {
    let Ok(text) = std::str::from_utf8(input) else { return };
    match parse("fuzz.yaml", text) {
        Ok(documents) => {
            for document in documents {
                let written = to_yaml(&document.resource);
                let again = parse("again.yaml", &written).unwrap_or_else(|error| panic!("{error:?}\n{written}"));
                assert_eq!(again.len(), 1, "one resource is one document");
                assert_eq!(again[0].resource, document.resource);
            }
        }
        Err(errors) => assert!(errors.iter().all(|error| error.file == "fuzz.yaml")),
    }
});
