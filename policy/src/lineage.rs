//! Which store a configuration comes from, and whether a proxy may follow it: decided here alone, for the proxy that
//! refuses and for the control plane that says so. A proxy is never led to an older state or to another store unless an
//! operator has said that it shall be.

use std::fmt;

use crate::bundle::Revision;

/// A store as it names itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lineage {
    /// Random, made with the store.
    pub store: String,
    /// Raised by an operator's word only: a higher one may lead back to an older revision.
    pub epoch: u64,
    /// Stores whose place this one takes, by an operator's word.
    pub supersedes: Vec<String>,
}

/// Why a proxy does not follow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Backwards {
    #[error("{}", Told { what: format!("it is of store {offered}, this proxy follows store {held}") })]
    OtherStore { held: String, offered: String },
    #[error("{}", Told { what: format!("it is of epoch {offered} of the store, this proxy has epoch {held}") })]
    OlderEpoch { held: u64, offered: u64 },
    #[error("{}", Told { what: format!("it is revision {offered}, this proxy has revision {held} of the same store") })]
    OlderRevision { held: u64, offered: u64 },
}

/// The sentence around each reason, with the cure.
struct Told {
    what: String,
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the configuration that is offered is not taken: {}. The control plane's store was lost, replaced or set \
             back: restore its newest backup, or let it lead with `weft store accept`",
            self.what
        )
    }
}

/// Judges whether a holder of `held` at its revision may be given `offered`. It may if either side has no lineage,
/// because revisions compare only within one history.
///
/// # Errors
/// It would be led backwards, or away.
pub fn follow(held: Option<(&Lineage, Revision)>, offered: Option<(&Lineage, Revision)>) -> Result<(), Backwards> {
    let (Some((held, had)), Some((offered, new))) = (held, offered) else { return Ok(()) };
    if held.store != offered.store {
        let is_superseded = offered.supersedes.contains(&held.store);
        let (held, offered) = (held.store.clone(), offered.store.clone());
        return if is_superseded { Ok(()) } else { Err(Backwards::OtherStore { held, offered }) };
    }
    if offered.epoch != held.epoch {
        let (held, offered) = (held.epoch, offered.epoch);
        return if offered > held { Ok(()) } else { Err(Backwards::OlderEpoch { held, offered }) };
    }
    if new < had {
        return Err(Backwards::OlderRevision { held: had.0, offered: new.0 });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lineage(text: &str) -> (Lineage, Revision) {
        let parts: Vec<&str> = text.split(' ').collect();
        let supersedes = parts.get(3).into_iter().flat_map(|ids| ids.split(',')).map(str::to_owned).collect();
        let lineage = Lineage { store: parts[0].to_owned(), epoch: parts[1].parse().unwrap(), supersedes };
        (lineage, Revision(parts[2].parse().unwrap()))
    }

    fn check(held: Option<&str>, offered: Option<&str>, expect: Option<&str>) {
        let (held, offered) = (held.map(lineage), offered.map(lineage));
        let as_ref = |side: &Option<(Lineage, Revision)>| side.clone();
        let (h, o) = (as_ref(&held), as_ref(&offered));
        let judged = follow(h.as_ref().map(|(l, r)| (l, *r)), o.as_ref().map(|(l, r)| (l, *r)));
        match expect {
            None => assert_eq!(judged, Ok(()), "{held:?} {offered:?}"),
            Some(part) => {
                let text = judged.unwrap_err().to_string();
                assert!(text.contains(part) && text.contains("weft store accept"), "{text}");
            }
        }
    }

    #[test]
    fn nobody_is_led_backwards_without_a_word() {
        check(None, Some("a 1 4"), None);
        check(Some("a 1 4"), None, None);
        check(Some("a 1 4"), Some("a 1 4"), None);
        check(Some("a 1 4"), Some("a 1 5"), None);
        check(Some("a 1 4"), Some("a 1 3"), Some("revision 3, this proxy has revision 4"));
        check(Some("a 1 4"), Some("a 2 3"), None);
        check(Some("a 2 4"), Some("a 1 9"), Some("epoch 1"));
        check(Some("a 1 4"), Some("b 1 9"), Some("of store b, this proxy follows store a"));
        check(Some("a 1 4"), Some("b 1 1 c,a"), None);
        check(Some("a 1 4"), Some("b 7 9 c"), Some("of store b"));
    }
}
