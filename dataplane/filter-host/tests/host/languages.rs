//! The same filter in other languages, compiled by their own tools with all that these import of WASI, as
//! docs/filters/languages.md shows it. What each costs is said on the output.

mod long {
    use std::path::{Path, PathBuf};
    use std::process::Command;
    use std::time::{Duration, Instant};

    use weft_filter_host::{Chain, FilterSpec, Host, HostConfig, Worker};

    use crate::support::{Head, ask, spec};

    const MEMORY_BYTES: usize = 128 << 20;

    /// The folder into which `cargo xtask test --long languages` has installed compilers.
    fn compilers() -> PathBuf {
        let folder = std::env::var_os("WEFT_LANGUAGES");
        folder.expect("`cargo xtask test --long languages` installs the compilers and says where").into()
    }

    /// A folder with the sources, and the contract beside the world that they implement.
    fn sources() -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        let own = Path::new(env!("CARGO_MANIFEST_DIR"));
        let wit = folder.path().join("wit");
        let contract = wit.join("deps/filter");
        std::fs::create_dir_all(&contract).expect("ours");
        for (from, to) in [
            ("tests/languages/stamp.js", folder.path().join("stamp.js")),
            ("tests/languages/stamp.py", folder.path().join("stamp.py")),
            ("tests/languages/world.wit", wit.join("world.wit")),
            ("../../filters-sdk/wit/0.2/filter.wit", contract.join("filter.wit")),
        ] {
            std::fs::copy(own.join(from), &to).unwrap_or_else(|error| panic!("{from}: {error}"));
        }
        folder
    }

    /// Runs a compiler among the sources, and gives what it has made.
    fn compiled(command: &mut Command, folder: &Path) -> Vec<u8> {
        let output = command.current_dir(folder).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let said = [output.stdout, output.stderr].concat();
        assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&said));
        std::fs::read(folder.join("out.wasm")).expect("it says that it has made one")
    }

    fn stamp(wasm: &[u8], config: &str) -> FilterSpec {
        let mut spec = spec("stamp", wasm, config);
        spec.capabilities = vec!["wasi".to_owned()];
        spec.memory_bytes = MEMORY_BYTES as u64;
        spec.call_timeout = Duration::from_secs(1);
        spec
    }

    fn check(language: &str, wasm: &[u8]) {
        let config =
            HostConfig { max_instances: 4, max_memory_bytes: MEMORY_BYTES, spares: 0, ..HostConfig::default() };
        let host = Host::new(config).expect("a host");
        let began = Instant::now();
        let filter = host.prepare(&stamp(wasm, r#"{"word": "seen"}"#), wasm);
        let filter = filter.unwrap_or_else(|error| panic!("{language}: {error}"));
        let prepared = began.elapsed();
        let (chain, mut worker) = (Chain::new(vec![filter]), Worker::new(&host));
        let mut send = |stream| ask(&mut worker, &chain, stream, Head::get("/a/b?c")).expect("it goes on");
        assert_eq!(send(1).header("x-stamp"), Some("seen /a/b 20"), "{language}");
        let began = Instant::now();
        (2..=501).for_each(|stream| drop(send(stream)));
        let call = began.elapsed() / 500;
        let memory = host.stats().pop().expect("one filter").program.memory_bytes.value();
        eprintln!(
            "{language}: {} KiB, ready after {} ms, {} KiB of memory, {} us a call",
            wasm.len() >> 10,
            prepared.as_millis(),
            memory >> 10,
            call.as_micros()
        );
        for config in [r#"{"word": 7}"#, "{}"] {
            let error = host.prepare(&stamp(wasm, config), wasm).expect_err("no word").to_string();
            assert!(error.contains("refuses its configuration: word: a text is wanted"), "{language}: {error}");
        }
    }

    #[test]
    #[ignore = "installs compilers and runs for a minute: cargo xtask test --long languages"]
    fn a_filter_in_javascript_on_spidermonkey() {
        let (compilers, folder) = (compilers(), sources());
        // Modules are looked for from where the program lies.
        let program = compilers.join("componentize.mjs");
        std::fs::write(&program, include_str!("../languages/componentize.mjs")).expect("ours");
        let mut node = Command::new("node");
        node.arg(program).args(["stamp.js", "wit", "stamp", "out.wasm"]);
        check("JavaScript on SpiderMonkey", &compiled(&mut node, folder.path()));
    }

    #[test]
    #[ignore = "installs compilers and runs for a minute: cargo xtask test --long languages"]
    fn a_filter_in_javascript_on_quickjs() {
        let (compilers, folder) = (compilers(), sources());
        let mut quickjs = Command::new(compilers.join("node_modules/.bin/componentize-qjs"));
        quickjs.args(["--sync", "--wit", "wit", "--world", "stamp", "--js", "stamp.js", "--output", "out.wasm"]);
        check("JavaScript on QuickJS", &compiled(&mut quickjs, folder.path()));
    }

    #[test]
    #[ignore = "installs compilers and runs for a minute: cargo xtask test --long languages"]
    fn a_filter_in_python() {
        let (compilers, folder) = (compilers(), sources());
        let mut python = Command::new(compilers.join("python/bin/componentize-py"));
        python.args(["-d", "wit", "-w", "stamp", "componentize", "stamp", "-o", "out.wasm"]);
        check("Python", &compiled(&mut python, folder.path()));
    }
}
