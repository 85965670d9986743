//! Capture rules of this proxy, from its configuration to their removal. Invariant: once installed they are there, or are put
//! back within a second, or readiness says that they are not; only a clean end takes them away,
//! and not even that where the configuration says so.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tracing::{error, info, warn};
use weft_transport::capture::{CaptureError, Changes, Cidr, Rules};

use crate::config::{Capture, Config};

/// How often the rules are looked at when the kernel announces no change.
const LOOK: Duration = Duration::from_secs(10);
/// How often while they are not as they should be, or where changes are not announced.
const LOOK_CLOSELY: Duration = Duration::from_millis(500);
/// Least time between two looks: somebody else's firewall may change many times a second.
const PAUSE: Duration = Duration::from_millis(100);

/// Remote administration is never captured.
const SSH: u16 = 22;

/// The rules that redirect this workload's connections to our listeners.
pub fn rules(config: &Config, settings: &Capture) -> Rules {
    let listen = &config.listen;
    // Scraped and asked for health from outside, also by a scraper that is captured itself; and whoever turns capture on for
    // a host over SSH must still get in.
    let mut exclude_ports = vec![listen.metrics.port(), listen.health.port(), SSH];
    exclude_ports.extend(&settings.exclude_ports);
    Rules {
        name: config.name.clone(),
        outbound_port: listen.outbound.map(|address| address.port()),
        inbound_port: listen.inbound.map(|address| address.port()),
        uid: Some(rustix::process::geteuid().as_raw()),
        exclude_uids: settings.exclude_uids.clone(),
        exclude_ports,
        exclude_cidrs: settings.exclude_cidrs.iter().map(cidr).collect(),
        local_ports: listen.explicit.into_iter().chain([listen.admin]).map(|address| address.port()).collect(),
        ..Rules::default()
    }
}

fn cidr(net: &ipnet::IpNet) -> Cidr {
    net.to_string().parse().expect("an IpNet prints as a block of addresses")
}

/// Takes this proxy's rules away, as after a crash.
pub fn remove(config: &Config) -> Result<(), CaptureError> {
    rules(config, &config.capture.clone().unwrap_or_default()).remove()
}

/// Tries what a start would install, and changes nothing.
pub(crate) fn check(config: &Config) -> Result<(), CaptureError> {
    config.capture.as_ref().map_or(Ok(()), |settings| rules(config, settings).check())
}

/// Installed rules.
#[derive(Debug)]
pub struct Capturing {
    rules: Rules,
    present: AtomicBool,
    restored: AtomicU64,
    /// The kernel's listing of the rules when they are as they should be; `None` once they have been taken away.
    expected: Mutex<Option<String>>,
    /// They outlive a clean end.
    stay: bool,
}

impl Capturing {
    /// Installs the rules, where the configuration asks for capture.
    ///
    /// # Errors
    /// nft is missing or may not, or another proxy captures in this namespace already.
    pub fn install(config: &Config) -> Result<Option<Arc<Self>>, CaptureError> {
        let Some(settings) = &config.capture else { return Ok(None) };
        let rules = rules(config, settings);
        rules.install()?;
        let expected = rules.listing()?;
        info!("capture rules installed");
        Ok(Some(Arc::new(Self {
            rules,
            present: AtomicBool::new(true),
            restored: AtomicU64::new(0),
            expected: Mutex::new(Some(expected.unwrap_or_default())),
            stay: settings.keep_on_stop,
        })))
    }

    /// False while captured traffic may pass by the proxy.
    pub fn is_present(&self) -> bool {
        self.present.load(Ordering::Relaxed)
    }

    /// How often they were put back.
    pub fn restored(&self) -> u64 {
        self.restored.load(Ordering::Relaxed)
    }

    /// Watches the rules and puts them back, until they are removed.
    pub async fn keep(self: Arc<Self>) {
        let mut changes = subscribe();
        loop {
            let wait = if self.is_present() && changes.is_some() { LOOK } else { LOOK_CLOSELY };
            let announced = async {
                match &changes {
                    Some(changes) => changes.changed().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                announced = announced => if let Err(error) = announced {
                    warn!(%error, "changes of the firewall are no longer announced; looking twice a second");
                    changes = None;
                },
                () = tokio::time::sleep(wait) => {}
            }
            let looking = Arc::clone(&self);
            if tokio::task::spawn_blocking(move || looking.look()).await.is_ok_and(|gone| gone) {
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Compares with what the kernel has and puts the rules back where they differ. True once they have been removed.
    fn look(&self) -> bool {
        let mut expected = self.expected.lock().expect("no holder panics");
        let Some(wanted) = &mut *expected else { return true };
        let problem = match self.rules.listing() {
            Ok(Some(listing)) if listing == *wanted => {
                self.present.store(true, Ordering::Relaxed);
                return false;
            }
            Ok(Some(_)) => "changed",
            Ok(None) => "gone",
            Err(error) => return self.lost(&error),
        };
        self.present.store(false, Ordering::Relaxed);
        match self.rules.put().and_then(|()| self.rules.listing()) {
            Ok(listing) => {
                *wanted = listing.unwrap_or_default();
                self.restored.fetch_add(1, Ordering::Relaxed);
                self.present.store(true, Ordering::Relaxed);
                warn!(problem, "somebody else took capture rules away; they are back");
            }
            Err(error) => return self.lost(&error),
        }
        false
    }

    fn lost(&self, problem: &CaptureError) -> bool {
        if self.present.swap(false, Ordering::Relaxed) {
            error!(error = %crate::chain(problem), "the capture rules can't be checked or put back; trying again");
        }
        false
    }

    /// Ends the watch, and takes them away unless they shall stay.
    ///
    /// # Errors
    /// nft says why.
    pub fn end(&self) -> Result<(), CaptureError> {
        self.expected.lock().expect("no holder panics").take();
        if self.stay {
            info!(
                "the capture rules stay: captured traffic is refused until the proxy is back (weft-proxy --capture-remove)"
            );
            return Ok(());
        }
        self.rules.remove()
    }
}

fn subscribe() -> Option<Changes> {
    Changes::subscribe()
        .inspect_err(|error| warn!(%error, "changes of the firewall are not announced; looking twice a second"))
        .ok()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn what_must_stay_reachable_is_never_captured() {
        let text = "
name: reviews-1
state_dir: /nowhere
control: {address: 'https://127.0.0.1:15012', ca_file: /nowhere}
workload: {service_account: reviews, address: 127.0.0.11}
listen: {mesh: '127.0.0.11:15008', explicit: '127.0.0.1:15080', outbound: '[::]:15001', inbound: '[::]:15006'}
capture: {exclude_ports: [5353], exclude_uids: [9]}
";
        let config = Config::parse(Path::new("proxy.yaml"), text).unwrap();
        let rules = rules(&config, config.capture.as_ref().unwrap());
        // Metrics, health and SSH, then what the operator says.
        assert_eq!(rules.exclude_ports, [15020, 15021, 22, 5353]);
        assert_eq!(rules.local_ports, [15080, 15000], "for applications of this host only");
        assert_eq!((rules.outbound_port, rules.inbound_port), (Some(15001), Some(15006)));
        assert_eq!((rules.exclude_uids, rules.name.as_str()), (vec![9], "reviews-1"));
    }
}
