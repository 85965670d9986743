//! What a child says, how it ends, and what is remembered of that. That a child compiles is shown with the programs that
//! have one.

use super::*;

fn said(kind: u8, length: u64, rest: &[u8]) -> Vec<u8> {
    [&[kind][..], &length.to_be_bytes(), rest].concat()
}

#[test]
fn only_what_was_said_to_the_end_counts() {
    assert_eq!(parse(said(CODE, 4, b"code")), Some(Ok(b"code".to_vec())));
    let why = || "why".to_owned();
    assert_eq!(parse(said(REASON, 3, b"why")), Some(Err(CompileError::Refused(why()))));
    assert_eq!(parse(said(TROUBLE, 3, b"why")), Some(Err(CompileError::Compiler(why()))));
    let long = CompileError::Refused("x".repeat(MAX_REASON));
    assert_eq!(parse(said(REASON, 5_000, &[b'x'; 5_000])), Some(Err(long)));
    for torn in [vec![], vec![CODE], said(CODE, 4, b"cod"), said(CODE, 4, b"code!"), said(7, 4, b"code")] {
        assert_eq!(parse(torn.clone()), None, "{torn:?}");
    }
}

#[test]
fn how_a_child_ended_says_whose_fault_it_is() {
    let limits = CompileLimits::default();
    let cases = [
        (Signal::XCPU.as_raw(), "compiling it takes too much: more than 120 s on a processor"),
        (Signal::ABORT.as_raw(), "compiling it takes too much: the compiler gave up"),
        (Signal::SEGV.as_raw(), "it can't be compiled: the compiler breaks down over it"),
        (Signal::KILL.as_raw(), "the compiler does not run: it ended before it was done"),
        (1 << 8, "the compiler does not run: it ended before it was done"),
    ];
    for (wait_status, expected) in cases {
        let error = untimely(ExitStatus::from_raw(wait_status), &limits).to_string();
        assert!(error.starts_with(expected), "{wait_status}: {error}");
    }
}

/// Programs that are no compiler: one is not there, one says nothing, one goes on for ever.
#[test]
fn a_program_that_is_no_compiler_is_found_out_in_time() {
    let limits = CompileLimits { wall: Duration::from_millis(50), code_bytes: 64 << 20, ..CompileLimits::default() };
    let try_it = |program: &str| in_child(Path::new(program), &limits, &[0; 1 << 20]);
    assert!(matches!(try_it("/nowhere/weft-proxy"), Err(CompileError::Compiler(_))));
    assert!(matches!(try_it("/bin/false"), Err(CompileError::Compiler(_))));
    let endless = try_it("/usr/bin/yes");
    assert!(matches!(&endless, Err(CompileError::Limit(_))), "{endless:?}");
}

#[test]
fn what_can_not_be_compiled_is_remembered_for_a_while() {
    let (mut refusals, now) = (Refusals::default(), Instant::now());
    let (bad, sound) = (Digest::of(b"bad"), Digest::of(b"sound"));
    let refused = CompileError::Refused("no component".to_owned());
    refusals.note(sound, &CompileError::Compiler("no memory for a child".to_owned()), now);
    refusals.note(bad, &refused, now);
    assert_eq!(refusals.of(&sound, now), None, "that was not its fault");
    assert_eq!(refusals.of(&bad, now + Duration::from_secs(599)), Some(refused.clone()));
    assert_eq!(refusals.of(&bad, now + Duration::from_secs(600)), None);
    for number in 0..2 * Refusals::MOST {
        refusals.note(Digest::of(&number.to_be_bytes()), &refused, now);
    }
    assert_eq!((refusals.0.len(), refusals.of(&bad, now)), (Refusals::MOST, None));
}

/// A retry costs nothing, and says the same.
#[test]
fn what_can_not_be_compiled_is_not_compiled_again() {
    let host = crate::Host::new(crate::HostConfig { max_instances: 1, ..Default::default() }).unwrap();
    let (bytes, digest) = (b"no wasm", Digest::of(b"no wasm"));
    let refuse = || host.0.component(&digest, bytes).expect_err("it is no component");
    assert!(!host.is_decided(&digest));
    let first = refuse();
    assert!(matches!(first, CompileError::Refused(_)), "{first}");
    assert!(host.is_decided(&digest) && !host.is_cached(&digest));
    assert_eq!(refuse(), first);
    let counts = host.compile_times().map(|(result, timing)| (result, timing.count()));
    assert_eq!(counts, [("compiled", 0), ("refused", 1)]);
}
