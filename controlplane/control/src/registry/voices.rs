//! What proxies say of the endpoints of one that fell silent. Invariant: an account has one voice, however many proxies it has and
//! whichever control plane each is connected to.

use std::collections::BTreeSet;
use std::time::Duration;

use weft_policy::bundle::ObjectName;
use weft_policy::identity::SpiffeId;

use super::Registry;
use crate::lease::Word;

/// A report is believed for so long; proxies that have something to say repeat it sooner.
const BELIEVED: Duration = Duration::from_secs(90);
/// Accounts that must say of an endpoint that they don't reach it, where there are as many.
const VOICES: usize = 2;

/// What was said of a silent proxy's endpoints.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Voices {
    /// Somebody got through to one of them, or may have.
    pub(crate) is_reached: bool,
    /// Accounts whose proxies tried in vain.
    pub(crate) without: BTreeSet<SpiffeId>,
    /// Accounts whose connected proxies tell whom they reach.
    pub(crate) telling: BTreeSet<SpiffeId>,
}

impl Voices {
    /// Those of other proxies as well.
    pub(crate) fn add(&mut self, others: Self) {
        self.is_reached |= others.is_reached;
        self.without.extend(others.without);
        self.telling.extend(others.telling);
    }

    /// The word on a proxy of the account `of`. Of itself it is believed; another one alone removes nothing where more could be
    /// heard.
    pub(crate) fn word(&self, of: &SpiffeId) -> Word {
        let others = self.telling.iter().filter(|account| *account != of).count();
        match self.without.len() {
            _ if self.is_reached => Word::Reached,
            0 => Word::None,
            _ if self.without.contains(of) => Word::Unreachable,
            voices if voices >= others.min(VOICES) => Word::Unreachable,
            _ => Word::None,
        }
    }

    /// As many as make a difference to whoever adds them to his own.
    pub(crate) fn shortened(mut self, of: &SpiffeId) -> Self {
        let is_own = self.without.contains(of);
        self.without = match is_own {
            true => [of.clone()].into(),
            false => self.without.into_iter().take(VOICES).collect(),
        };
        self.telling = self.telling.into_iter().filter(|account| account != of).take(VOICES).collect();
        self
    }
}

impl Registry {
    /// What the proxies that are connected here say of any of these workloads.
    pub(crate) fn voices(&self, workloads: &[ObjectName]) -> Voices {
        let entries = self.lock();
        let mut voices = Voices::default();
        for (key, entry) in entries.iter().filter(|(_, entry)| entry.connected) {
            if entry.introduction.tells_reach() {
                voices.telling.insert(key.identity.clone());
            }
            let Some((_, words)) = entry.words.as_ref().filter(|(at, _)| at.elapsed() < BELIEVED) else { continue };
            for reached in workloads.iter().filter_map(|workload| words.get(workload)) {
                match reached {
                    true => voices.is_reached = true,
                    false => drop(voices.without.insert(key.identity.clone())),
                }
            }
        }
        voices
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_hear_counts_as_what_is_heard_here() {
        let account = |name: &str| -> SpiffeId { format!("spiffe://cluster.local/ns/shop/sa/{name}").parse().unwrap() };
        let all = |names: &[&str]| names.iter().map(|name| account(name)).collect::<BTreeSet<_>>();
        let voices = |without: &[&str], telling: &[&str]| Voices {
            is_reached: false,
            without: all(without),
            telling: all(telling),
        };
        let own = account("web");
        let mut here = voices(&["a"], &["a"]);
        assert_eq!(here.word(&own), Word::Unreachable, "nobody else tells");
        here.add(voices(&[], &["b", "web"]));
        assert_eq!(here.word(&own), Word::None, "another one could say more");
        here.add(voices(&["b"], &["b"]).shortened(&own));
        assert_eq!(here.word(&own), Word::Unreachable);
        here.add(Voices { is_reached: true, ..Voices::default() });
        assert_eq!(here.word(&own), Word::Reached);
        let many = voices(&["a", "b", "c", "web"], &["a", "b", "c", "web"]).shortened(&own);
        assert_eq!((many.without, many.telling), (all(&["web"]), all(&["a", "b"])));
    }
}
