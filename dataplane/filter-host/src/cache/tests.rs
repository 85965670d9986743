//! What is kept, for how long, and what is no longer.

use super::*;

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
        let (now, own) = (SystemTime::now(), |name: &str| format!("{name}-{}.cwasm", cache.engine));
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
    let code = |text: &str| Digest::of(text.as_bytes());
    for text in ["one", "two"] {
        cache.store(&code(text), &[7; 100]);
        let path = cache.path(&code(text));
        assert_eq!(cache.entries().into_iter().map(|entry| entry.path).collect::<Vec<_>>(), [path]);
    }
}

#[test]
fn leftovers_of_other_engines_go_after_a_day_and_what_was_begun_after_an_hour() {
    let (_folder, cache) = cache(CacheLimits::default());
    let (now, own) = (SystemTime::now(), format!("a-{}.cwasm", cache.engine));
    file(&cache, &own, 1, now, HOUR * 1_000);
    for (name, hours) in
        [("b-0123456789abcdef.cwasm", 23), ("c-0123456789abcdef.cwasm", 25), ("d-x.7.tmp", 0), ("e-x.8.tmp", 2)]
    {
        file(&cache, name, 1, now, HOUR * hours);
    }
    cache.tidy(None, now);
    assert_eq!(names(&cache), [own.as_str(), "b-0123456789abcdef.cwasm", "d-x.7.tmp"]);
}

#[test]
fn what_does_not_load_is_removed() {
    let (_folder, cache) = cache(CacheLimits::default());
    let (engine, digest) = (Engine::default(), Digest::of(b"filter"));
    assert!(cache.load(&digest, &engine).is_none());
    // Whole, and no machine code.
    cache.store(&digest, b"nonsense");
    assert!(cache.contains(&digest) && cache.load(&digest, &engine).is_none() && !cache.contains(&digest));
    file(&cache, cache.path(&digest).file_name().unwrap().to_str().unwrap(), 100, SystemTime::now(), HOUR);
    assert!(cache.load(&digest, &engine).is_none() && !cache.contains(&digest));
    let stats = cache.stats();
    assert_eq!((stats.hits, stats.misses, stats.damaged), (0, 1, 2));
}
