//! Proxies that leave, proxies that stay, and how many may leave at once.

use super::*;

const LEASE: Duration = Duration::from_secs(30);
const UNHEARD: Duration = Duration::from_secs(3600);
const FINE: Outlook = Outlook { connected: 10, telling: 10, suspects: 1 };

/// Checks whether a proxy that is silent for that many seconds leaves.
fn check(silent: u64, word: Word, outlook: Outlook, leaves: bool) {
    let suspect = Suspect { silent: Duration::from_secs(silent), lease: LEASE, word };
    assert_eq!(suspect.ended(outlook, UNHEARD).is_some(), leaves, "{suspect:?} {outlook:?}");
}

#[test]
fn silence_alone_removes_nobody_while_there_are_peers_to_ask() {
    check(29, Word::Unreachable, FINE, false);
    check(30, Word::Unreachable, FINE, true);
    check(30, Word::None, FINE, false);
    check(3599, Word::None, FINE, false);
    check(3600, Word::None, FINE, true);
    check(1_000_000, Word::Reached, FINE, false);
    // Proxies of an older release tell nothing.
    check(30, Word::None, Outlook { telling: 0, ..FINE }, true);
}

#[test]
fn who_hears_nobody_removes_nobody() {
    let deaf = Outlook { connected: 0, telling: 0, suspects: 10 };
    check(1_000_000, Word::None, deaf, false);
    check(1_000_000, Word::None, Outlook { suspects: 1, ..deaf }, false);
    let half_deaf = Outlook { connected: 4, telling: 4, suspects: 5 };
    check(60, Word::Unreachable, half_deaf, false);
    check(3600, Word::Unreachable, half_deaf, true);
    check(60, Word::Unreachable, Outlook { suspects: 4, ..half_deaf }, true);
}

#[test]
fn a_share_at_once_and_never_the_last() {
    let (start, web) = (Instant::now(), ObjectName::new("shop", "web"));
    for (mut endpoints, expect) in [(1, 0), (2, 1), (3, 1), (4, 2), (10, 5)] {
        let mut removals = Removals::default();
        let mut left = 0;
        while removals.allow(&[(web.clone(), endpoints)].into(), 50, start) {
            removals.add([web.clone()], start);
            (endpoints, left) = (endpoints - 1, left + 1);
        }
        assert_eq!(left, expect);
    }
    // Later it counts anew; of several services each must bear it.
    let mut removals = Removals::default();
    removals.add([web.clone()], start);
    assert!(!removals.allow(&[(web.clone(), 2)].into(), 50, start));
    assert!(!removals.allow(&[(web.clone(), 1)].into(), 50, start + AT_ONCE), "the last");
    assert!(removals.allow(&[(web.clone(), 2)].into(), 50, start + AT_ONCE));
    assert!(!removals.allow(&[(web, 4), (ObjectName::new("shop", "api"), 1)].into(), 50, start + AT_ONCE));
    assert!(removals.allow(&BTreeMap::new(), 50, start), "behind no service");
}
