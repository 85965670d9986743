//! Loading of filters: which are refused, and why; which compiled code is kept, and when it is not trusted.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;

use weft_filter_host::{Chain, FilterSpec, Host, HostConfig, HostError, PrepareError, VerifyError, Worker};

use crate::support::{Head, ask, host, hostile, spec, wasm};

fn refusal(wasm: &[u8], change: impl FnOnce(&mut FilterSpec)) -> PrepareError {
    let mut spec = spec("filter", wasm, "");
    change(&mut spec);
    host().prepare(&spec, wasm).expect_err("not loaded")
}

#[test]
fn a_binary_that_is_not_the_published_one() {
    let wasm = wasm("hostile");
    let error = refusal(&wasm, |spec| spec.digest = weft_filter_host::Digest::of(b"another"));
    assert!(matches!(error, PrepareError::Verify { source: VerifyError::Digest { .. }, .. }), "{error}");
    let error = refusal(&wasm, |spec| spec.signature[5] ^= 1);
    assert!(matches!(error, PrepareError::Verify { source: VerifyError::Signature, .. }), "{error}");
    let error = refusal(&wasm, |spec| spec.signature.truncate(63));
    assert!(matches!(error, PrepareError::Verify { source: VerifyError::SignatureLength, .. }), "{error}");
    let error = refusal(&wasm, |spec| spec.public_key_pem = "not a key".to_owned());
    assert!(matches!(error, PrepareError::Verify { source: VerifyError::Key, .. }), "{error}");
}

#[test]
fn a_binary_of_another_world() {
    let error = refusal(b"\0asm\x0d\0\x01\0", |_| ());
    assert!(matches!(error, PrepareError::WrongWorld { .. }), "a component without exports: {error}");
    for (bytes, what) in [(&b"\0asm\x01\0\0\0"[..], "a core module"), (&b"no wasm"[..], "no wasm")] {
        let error = refusal(bytes, |_| ());
        assert!(matches!(error, PrepareError::WrongWorld { .. }), "{what}: {error}");
    }
}

#[test]
fn a_capability_that_is_not_granted() {
    let wasm = crate::released::released("0.1", "ratelimit");
    let error = refusal(&wasm, |spec| spec.capabilities.clear());
    assert!(matches!(&error, PrepareError::NotGranted { capability, .. } if capability == "token-bucket"), "{error}");
    let error = refusal(&wasm, |spec| spec.capabilities.push("sockets".to_owned()));
    assert!(matches!(&error, PrepareError::UnknownCapability { capability, .. } if capability == "sockets"), "{error}");
}

#[test]
fn a_configuration_that_fails() {
    let wasm = wasm("hostile");
    let with = |config: &str| refusal(&wasm, |spec| spec.config_json = config.to_owned()).to_string();
    assert!(with("refuse").contains("this configuration is refused"));
    assert!(with("trap").contains("failed while it was configured"));
    assert!(with("loop").contains("failed while it was configured"));
    assert!(with("header").contains("Not A Header"));
    let blind = refusal(&wasm, |spec| {
        spec.config_json = "blind".to_owned();
        spec.authorization = true;
    });
    assert!(blind.to_string().contains("must ask for the hooks"), "{blind}");
}

#[test]
fn more_memory_than_the_proxy_allows() {
    let error = refusal(&wasm("hostile"), |spec| spec.memory_bytes = 65 << 20);
    assert!(matches!(error, PrepareError::Memory { .. }), "{error}");
    let error = refusal(&wasm("hostile"), |spec| spec.memory_bytes = 65_536);
    assert!(matches!(error, PrepareError::MemoryToStart { bytes: 65_536, .. }), "{error}");
}

#[test]
fn compiled_code_is_kept_and_a_damaged_copy_compiled_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let cache_dir = folder.path().join("cache");
    let start = || {
        let config = HostConfig { cache_dir: Some(cache_dir.clone()), max_instances: 16, ..HostConfig::default() };
        Host::new(config).expect("a host")
    };
    let digest = weft_filter_host::Digest::of(&wasm("hostile"));
    let first = start();
    assert!(!first.is_cached(&digest));
    drop(hostile(&first, |_| ()));
    assert!(start().is_cached(&digest), "on disk for the next process");
    let file = std::fs::read_dir(&cache_dir).expect("there").next().expect("one file").expect("readable").path();
    let sound = std::fs::read(&file).expect("readable");
    let mut damaged = sound.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    for bytes in [&damaged[..], &sound[..100], b""] {
        // Never in its place: a thread of the host before may run from it still.
        std::fs::remove_file(&file).expect("there");
        std::fs::write(&file, bytes).expect("writable");
        let host = start();
        let filter = hostile(&host, |_| ());
        let mut worker = Worker::new(&host);
        ask(&mut worker, &Chain::new(vec![filter]), 1, Head::get("/")).expect("it works all the same");
        assert_eq!(std::fs::read(&file).expect("readable").len(), sound.len(), "written again");
    }
    std::fs::set_permissions(&cache_dir, Permissions::from_mode(0o777)).expect("ours");
    let config = HostConfig { cache_dir: Some(cache_dir), max_instances: 16, ..HostConfig::default() };
    assert!(matches!(Host::new(config), Err(HostError::Cache(_))), "others may write there");
}

#[test]
fn the_pool_is_bounded() {
    let host = Host::new(HostConfig { max_instances: 2, ..HostConfig::default() }).expect("a host");
    let wasm = wasm("hostile");
    let prepare = || host.prepare(&spec("hostile", &wasm, ""), &wasm);
    let (_first, _second) = (prepare().expect("room"), prepare().expect("room"));
    assert!(matches!(prepare(), Err(PrepareError::Instantiate { .. })));
}
