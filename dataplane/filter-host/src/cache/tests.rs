//! What is kept, for how long, and what is no longer.

use super::*;

/// A component without anything.
const EMPTY: &[u8] = b"\0asm\x0d\0\x01\0";
const HOUR: Duration = Duration::from_secs(3_600);

/// A cache in a new folder.
fn cache(limits: CacheLimits) -> (tempfile::TempDir, Cache) {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::open(&folder.path().join("cache"), &Engine::default(), limits).unwrap();
    (folder, cache)
}

/// A file that was used so long before `now`.
fn file(cache: &Cache, name: &str, bytes: usize, now: SystemTime, unused: Duration) {
    let path = cache.directory.join(name);
    fs::write(&path, vec![0; bytes]).unwrap();
    fs::File::options().write(true).open(path).unwrap().set_modified(now - unused).unwrap();
}

fn names(cache: &Cache) -> Vec<String> {
    let name = |entry: Entry| entry.path.file_name().unwrap().to_str().unwrap().to_owned();
    let mut names: Vec<_> = cache.entries().into_iter().map(name).collect();
    names.sort();
    names
}

#[test]
fn what_was_used_least_lately_goes_first() {
    for limits in [CacheLimits { bytes: 250, entries: 9 }, CacheLimits { bytes: 1_000, entries: 2 }] {
        let (_folder, cache) = cache(limits);
        let (now, own) = (SystemTime::now(), |name: &str| format!("{name}-{}{SUFFIX}", cache.engine));
        for (name, hours) in [("old", 72), ("older", 96), ("new", 0), ("young", 1)] {
            file(&cache, &own(name), 100, now, HOUR * hours);
        }
        cache.tidy(None, now);
        assert_eq!(names(&cache), [own("new"), own("young")], "{limits:?}");
        let stats = cache.stats();
        assert_eq!((stats.bytes, stats.entries, stats.evicted), (200, 2, 2), "{limits:?}");
    }
}

#[test]
fn what_was_stored_just_now_stays_whatever_its_size() {
    let (_folder, cache) = cache(CacheLimits { bytes: 10, entries: 1 });
    let (engine, code) = (Engine::default(), |text: &str| Digest::of(text.as_bytes()));
    let machine_code = engine.precompile_component(EMPTY).unwrap();
    for text in ["one", "two"] {
        assert!(cache.store(&code(text), &machine_code, &engine).is_some());
        let path = cache.path(&code(text));
        assert_eq!(cache.entries().into_iter().map(|entry| entry.path).collect::<Vec<_>>(), [path]);
    }
}

#[test]
fn leftovers_of_other_engines_go_after_a_day_and_what_was_begun_after_an_hour() {
    let (_folder, cache) = cache(CacheLimits::default());
    let (now, own) = (SystemTime::now(), format!("a-{}{SUFFIX}", cache.engine));
    file(&cache, &own, 1, now, HOUR * 1_000);
    for (name, hours) in
        [("b-0123456789abcdef.mapped", 23), ("c-0123456789abcdef.cwasm", 25), ("d-x.7.tmp", 0), ("e-x.8.tmp", 2)]
    {
        file(&cache, name, 1, now, HOUR * hours);
    }
    // Of an earlier release.
    let earlier = format!("f-{}.cwasm", cache.engine);
    file(&cache, &earlier, 1, now, HOUR * 23);
    cache.tidy(None, now);
    assert_eq!(names(&cache), [own.as_str(), "b-0123456789abcdef.mapped", "d-x.7.tmp", &*earlier]);
}

#[test]
fn what_does_not_load_is_removed() {
    let (_folder, cache) = cache(CacheLimits::default());
    let (engine, digest) = (Engine::default(), Digest::of(b"filter"));
    assert!(cache.load(&digest, &engine).is_none());
    // Whole, and no machine code.
    assert!(cache.store(&digest, b"nonsense", &engine).is_none() && !cache.contains(&digest));
    cache.write(&cache.path(&digest), b"nonsense").unwrap();
    assert!(cache.contains(&digest) && cache.load(&digest, &engine).is_none() && !cache.contains(&digest));
    // A bit of it is another one.
    let code = engine.precompile_component(EMPTY).unwrap();
    assert!(cache.store(&digest, &code, &engine).is_some() && cache.load(&digest, &engine).is_some());
    for at in [0, code.len() / 2, code.len() - 1, code.len(), code.len() + TRAILER - 1] {
        let path = cache.path(&digest);
        let mut bytes = fs::read(&path).unwrap();
        bytes[at] ^= 1;
        // As an editor does it: the mapped file stays what it was.
        fs::remove_file(&path).unwrap();
        fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).unwrap().write_all(&bytes).unwrap();
        assert!(cache.load(&digest, &engine).is_none() && !cache.contains(&digest), "byte {at}");
        assert!(cache.store(&digest, &code, &engine).is_some());
    }
    // Another's file, by a link.
    let elsewhere = cache.directory.join("elsewhere");
    fs::rename(cache.path(&digest), &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, cache.path(&digest)).unwrap();
    assert!(cache.load(&digest, &engine).is_none());
    assert!(
        fs::symlink_metadata(cache.path(&digest)).is_err() && elsewhere.exists(),
        "the link is gone, and nothing else"
    );
    file(&cache, cache.path(&digest).file_name().unwrap().to_str().unwrap(), 100, SystemTime::now(), HOUR);
    assert!(cache.load(&digest, &engine).is_none() && !cache.contains(&digest));
    let stats = cache.stats();
    assert_eq!((stats.hits, stats.misses, stats.damaged), (1, 1, 8));
}

#[test]
fn what_cannot_be_mapped_is_copied() {
    let (_folder, cache) = cache(CacheLimits::default());
    let (engine, digest) = (Engine::default(), Digest::of(b"filter"));
    let code = engine.precompile_component(EMPTY).unwrap();
    cache.write(&cache.path(&digest), &code).unwrap();
    let mut file = fs::File::open(cache.path(&digest)).unwrap();
    let bytes = file.metadata().unwrap().len();
    assert!(is_sound(&mut file, bytes).unwrap());
    assert!(copied(&engine, &mut file, bytes).is_ok());
}
