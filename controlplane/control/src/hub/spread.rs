//! Proxies go where there is room: a control plane that holds more than its share of them sends some away, a few each second,
//! when another came up. They move by themselves to another one of their addresses. Invariant: none is sent away again that came
//! back, as one does that knows of no other, and none while it has something to hear or to ask.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use weft_policy::bundle::Revision;

use super::Hub;
use crate::registry::{ProxyKey, ProxyStatus, SyncState};

/// How often it is looked at; up to as much again passes by lot.
const LOOK: Duration = if cfg!(test) { Duration::from_millis(50) } else { Duration::from_secs(2) };
/// So long another one must have been there.
const SETTLED: Duration = if cfg!(test) { Duration::ZERO } else { Duration::from_secs(15) };
/// Who said something so lately may be about to say more.
const QUIET: Duration = if cfg!(test) { Duration::ZERO } else { Duration::from_secs(1) };
/// One that was sent away stays for so long where it comes back to.
const ONCE: Duration = Duration::from_secs(3_600);
/// More than its share by this part is no reason to move anybody: nor is so many.
const SLACK: (usize, usize) = (10, 2);
/// Of what is too much one in so many goes at a time, at least one.
const AT_A_TIME: usize = 20;

/// How many of `own` proxies are too many beside what each of the others holds.
fn surplus(own: usize, others: &[usize]) -> usize {
    let all = own + others.iter().sum::<usize>();
    let share = all.div_ceil(others.len() + 1);
    let most = share + (share / SLACK.0).max(SLACK.1);
    // Nobody has room where all others have their share.
    let has_room = others.iter().any(|other| *other < share);
    if has_room && own > most { own - share } else { 0 }
}

/// Looks at it until this process ends.
pub(super) async fn tend(hub: Weak<Hub>, stop: CancellationToken) {
    let mut moved = BTreeMap::new();
    loop {
        tokio::select! {
            () = tokio::time::sleep(LOOK.mul_f64(1.0 + rand::random::<f64>())) => {}
            () = stop.cancelled() => return,
        }
        let Some(hub) = hub.upgrade() else { return };
        send_away(&hub, &mut moved);
    }
}

fn send_away(hub: &Arc<Hub>, moved: &mut BTreeMap<ProxyKey, Instant>) {
    moved.retain(|_, at| at.elapsed() < ONCE);
    let (holders, peers) = (hub.registry().holders(), hub.replica.peers().settled(SETTLED));
    let held = |session: &String| holders.values().filter(|holder| *holder == session).count();
    let others: Vec<usize> = peers.iter().map(held).collect();
    // Who counts here is said by the streams; what others took over meanwhile is theirs.
    let own = hub.registry().list(hub.published().revision, Revision(0));
    let own: Vec<_> = own.into_iter().filter(|proxy| proxy.connected_since.is_some()).collect();
    let surplus = if others.is_empty() { 0 } else { surplus(own.len(), &others) };
    if surplus == 0 {
        return;
    }
    let is_idle = |proxy: &&ProxyStatus| proxy.state == SyncState::Synced && proxy.heard_ago >= QUIET;
    let idle = own.iter().filter(is_idle).map(|proxy| &proxy.key).filter(|key| !moved.contains_key(*key));
    // By lot, so that no proxy of a name is always the one.
    let mut idle: Vec<_> = idle.map(|key| (rand::random::<u64>(), key)).collect();
    idle.sort_unstable_by_key(|(lot, _)| *lot);
    for (_, key) in idle.into_iter().take(surplus.div_ceil(AT_A_TIME)) {
        tracing::info!(proxy = %key, surplus, "a proxy is sent to another control plane, which has room");
        hub.metrics().proxies_sent_away.increment(1);
        moved.insert(key.clone(), Instant::now());
        hub.registry().dismiss(key, "another control plane of this store has more room for it");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_more_than_his_share_has_too_many_while_another_has_room() {
        assert_eq!(surplus(300, &[300, 0]), 100);
        assert_eq!(surplus(220, &[200, 180]), 0, "a tenth more moves nobody");
        assert_eq!(surplus(221, &[200, 179]), 21);
        assert_eq!(surplus(3, &[0]), 0, "nor do two");
        assert_eq!(surplus(6, &[0]), 3);
        assert_eq!(surplus(0, &[600]), 0);
    }
}
