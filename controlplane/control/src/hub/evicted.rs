//! Certificates of proxies that an operator evicted: every proxy ends the connections that stand with them, and takes new
//! ones. Told for a while and not stored: who is to be kept out is banned.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use weft_policy::identity::SpiffeId;
use weft_policy::wire::v1;

use super::Hub;
use super::bans::Bans;
use super::identity::{IssuedRecord, issued};
use crate::registry::ProxyKey;
use crate::store::StoreError;

/// So long a proxy hears of an eviction that it missed.
const TOLD: Duration = Duration::from_secs(60);
/// So many certificates are told of at a time: those of the latest evictions, and of one those that end last.
const MAX_TOLD: usize = 1_000;
/// So long it is remembered which proxies were evicted.
const REMEMBERED: Duration = Duration::from_secs(600);
/// A certificate that ended so many seconds ago carries no connection, however wrong a clock is.
const OVER: i64 = 86_400;

/// One certificate whose connections end.
#[derive(Debug, Clone)]
pub(crate) struct Eviction {
    /// Hexadecimal digits.
    serial: String,
    /// Differs from that of each other eviction.
    number: u64,
    at: Instant,
}

/// Evictions in their order.
pub(crate) type Evictions = Arc<Vec<Eviction>>;

/// Proxies that were evicted, each with when.
pub(super) type Lately = Mutex<BTreeMap<ProxyKey, Instant>>;

/// What a session follows to tell its proxy who is out.
pub(crate) struct KeptOut {
    bans: watch::Receiver<Bans>,
    evicted: watch::Receiver<Evictions>,
}

impl KeptOut {
    /// Wakes when there is something to tell. Cancel safe.
    pub(crate) async fn changed(&mut self) {
        tokio::select! {
            _ = self.bans.changed() => {}
            _ = self.evicted.changed() => {}
        }
    }

    /// The message to a proxy: all that holds now.
    pub(crate) fn message(&mut self) -> v1::ControlMessage {
        told(&self.bans.borrow_and_update(), &self.evicted.borrow_and_update())
    }
}

fn told(bans: &Bans, evicted: &[Eviction]) -> v1::ControlMessage {
    let identities = bans.keys().map(ToString::to_string).collect();
    let lately = evicted.iter().filter(|eviction| eviction.at.elapsed() < TOLD);
    let evicted = lately.map(|it| v1::Evicted { serial: it.serial.clone(), number: it.number }).collect();
    v1::ControlMessage { message: Some(v1::control_message::Message::Denials(v1::Denials { identities, evicted })) }
}

impl Hub {
    /// Wakes when an identity is banned or let in again, and when a proxy is evicted.
    pub(crate) fn watch_kept_out(&self) -> KeptOut {
        KeptOut { bans: self.bans.subscribe(), evicted: self.evicted.subscribe() }
    }

    /// Has every proxy here end its connections with proxies that showed these certificates, whichever the connections began
    /// with. Of one that showed none since this process began, those of its whole identity end: others that have it connect
    /// again. Gives the certificates, and the number of the eviction.
    pub(super) async fn end_connections(
        &self,
        shown: Vec<(SpiffeId, Option<String>)>,
    ) -> Result<(Vec<String>, u64), StoreError> {
        let mut serials = self.blocking(move |store| Ok(evicted(&issued(store)?, shown, crate::now_unix()))).await?;
        serials.drain(..serials.len().saturating_sub(MAX_TOLD));
        let number = self.keep_evicted(serials.clone(), None);
        Ok((serials, number))
    }

    /// Remembers for a while that these were evicted.
    pub(super) fn note_evicted(&self, keys: &[ProxyKey]) {
        let at = Instant::now();
        let mut lately = self.evicted_lately.lock().unwrap_or_else(PoisonError::into_inner);
        lately.retain(|_, then| at.saturating_duration_since(*then) < REMEMBERED);
        let room = MAX_TOLD.saturating_sub(lately.len());
        lately.extend(keys.iter().take(room).map(|key| (key.clone(), at)));
    }

    /// Proxies that were evicted of late, each with when.
    pub(crate) fn evicted_lately(&self) -> BTreeMap<ProxyKey, Instant> {
        let mut lately = self.evicted_lately.lock().unwrap_or_else(PoisonError::into_inner);
        lately.retain(|_, then| then.elapsed() < REMEMBERED);
        lately.clone()
    }

    /// Tells of certificates whose connections end, under a number that the eviction has or gets.
    pub(super) fn keep_evicted(&self, serials: Vec<String>, number: Option<u64>) -> u64 {
        let (at, mut given) = (Instant::now(), 0);
        self.evicted.send_modify(|evicted| {
            let last = evicted.last().map_or(0, |last| last.number);
            given = number.unwrap_or_else(|| crate::now_unix().unsigned_abs().max(last + 1));
            let evicted = Arc::make_mut(evicted);
            evicted.retain(|it| at.saturating_duration_since(it.at) < TOLD);
            evicted.extend(serials.into_iter().map(|serial| Eviction { serial, number: given, at }));
            let surplus = evicted.len().saturating_sub(MAX_TOLD);
            evicted.drain(..surplus);
        });
        given
    }
}

/// The certificates whose connections end, that which ends last at the end.
fn evicted(
    issued: &BTreeMap<String, IssuedRecord>,
    shown: Vec<(SpiffeId, Option<String>)>,
    now_unix: i64,
) -> Vec<String> {
    let mut found = BTreeSet::new();
    for (identity, serial) in shown {
        match serial {
            Some(serial) => found.extend(line(issued, &identity, serial)),
            None => {
                let own = issued.iter().filter(|(_, record)| record.identity == identity);
                found.extend(own.map(|(serial, _)| serial.clone()));
            }
        }
    }
    // A certificate without a record may be in use for as long as any other.
    let end = |serial: &String| issued.get(serial).map_or(i64::MAX, |record| record.not_after_unix);
    let mut found: Vec<_> = found.into_iter().filter(|serial| end(serial).saturating_add(OVER) >= now_unix).collect();
    found.sort_by_key(end);
    found
}

/// The certificates of the line that `serial` is in: those that it took the place of, and those that took its.
fn line(issued: &BTreeMap<String, IssuedRecord>, identity: &SpiffeId, serial: String) -> BTreeSet<String> {
    let mut before = BTreeMap::<String, Vec<&String>>::new();
    for (serial, record) in issued.iter().filter(|(_, record)| record.identity == *identity) {
        if let Some(next) = record.next() {
            before.entry(next).or_default().push(serial);
        }
    }
    let mut found = BTreeSet::new();
    let mut open = vec![super::identity::row_of(&serial)];
    while let Some(serial) = open.pop() {
        let after = issued.get(&serial).and_then(IssuedRecord::next);
        let before = before.get(&serial).into_iter().flatten().copied().cloned();
        open.extend(before.chain(after).filter(|other| !found.contains(other)));
        found.insert(serial);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_found_from_each_of_its_certificates() {
        let of = |name: &str| -> SpiffeId { format!("spiffe://cluster.local/ns/shop/sa/{name}").parse().unwrap() };
        let record = |name: &str, next: Option<&str>| IssuedRecord {
            identity: of(name),
            not_after_unix: 0,
            replaced_by: next.map(str::to_owned),
            root: None,
        };
        let issued: BTreeMap<_, _> = [
            ("0a", record("web", Some("0B"))),
            ("0b", record("web", Some("0c"))),
            ("0c", record("web", None)),
            // Another proxy of the same account, and a circle that nothing makes.
            ("1a", record("web", Some("1b"))),
            ("1b", record("web", Some("1a"))),
            ("2a", record("api", Some("0b"))),
        ]
        .map(|(serial, record)| (serial.to_owned(), record))
        .into();
        for serial in ["0a", "0b", "0:C"] {
            let found = line(&issued, &of("web"), serial.to_owned());
            assert_eq!(found, ["0a", "0b", "0c"].map(str::to_owned).into(), "{serial}");
        }
        assert_eq!(line(&issued, &of("web"), "1b".to_owned()).len(), 2);
        assert_eq!(line(&issued, &of("web"), "ff".to_owned()), ["ff".to_owned()].into(), "one that was forgotten");
    }

    #[test]
    fn what_may_be_in_use_is_told_of_however_much_is_over() {
        let web: SpiffeId = "spiffe://cluster.local/ns/shop/sa/web".parse().unwrap();
        let now = 100 * OVER;
        // A line of 1,500, of which the one in use is not the last by its name, nor the first.
        let name = |number: i64| format!("{:04x}", (number * 7_919) % 10_007);
        let record = |number: i64| IssuedRecord {
            identity: web.clone(),
            not_after_unix: now - (1_499 - number) * 60 + 30,
            replaced_by: (number < 1_499).then(|| name(number + 1)),
            root: None,
        };
        let mut issued: BTreeMap<_, _> = (0..1_500).map(|number| (name(number), record(number))).collect();
        let last = name(1_499);
        let told = evicted(&issued, vec![(web.clone(), Some(name(3)))], now);
        assert!(told.len() == 1_441 && told.last() == Some(&last), "{} {:?}", told.len(), told.last());
        // One that showed none: all of its identity, and of no other.
        let api: SpiffeId = "spiffe://cluster.local/ns/shop/sa/api".parse().unwrap();
        issued.insert("ffff".to_owned(), IssuedRecord { identity: api.clone(), ..record(1_499) });
        assert_eq!(evicted(&issued, vec![(api.clone(), None)], now), ["ffff"]);
        assert_eq!(evicted(&issued, vec![(web, None)], now).len(), 1_441);
        assert_eq!(evicted(&issued, vec![(api, Some("eeee".to_owned()))], now), ["eeee"], "one that was forgotten");
    }
}
