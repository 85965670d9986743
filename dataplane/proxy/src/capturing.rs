//! From the configuration to capture rules, and their removal.

use weft_transport::capture::{CaptureError, Cidr, Rules};

use crate::config::{Capture, Config};

/// The rules that redirect this workload's connections to our listeners. Our own ports always pass.
pub fn rules(config: &Config, settings: &Capture) -> Rules {
    let listen = &config.listen;
    let own = [
        listen.explicit,
        listen.outbound,
        listen.inbound,
        Some(listen.mesh),
        Some(listen.admin),
        Some(listen.metrics),
        Some(listen.health),
    ];
    let mut exclude_ports: Vec<u16> = own.into_iter().flatten().map(|address| address.port()).collect();
    exclude_ports.extend(&settings.exclude_ports);
    exclude_ports.sort_unstable();
    exclude_ports.dedup();
    Rules {
        outbound_port: listen.outbound.map(|address| address.port()),
        inbound_port: listen.inbound.map(|address| address.port()),
        exclude_uids: settings.exclude_uids.clone(),
        exclude_ports,
        exclude_cidrs: settings.exclude_cidrs.iter().map(cidr).collect(),
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
