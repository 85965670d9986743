//! This machine: kernel, UDP buffers, offloads, file descriptors, ports, nft, our own programs.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::process::{Command, Stdio};

use super::Finding;
use crate::programs;

/// SO_REUSEPORT with eBPF-free steering, UDP_SEGMENT and UDP_GRO are all there since 5.0.
const OLDEST_KERNEL: (u32, u32) = (5, 0);
/// Bytes of buffer that one QUIC socket asks for.
const UDP_BUFFER: u64 = 2 << 20;
const OPEN_FILES: u64 = 16_384;

pub(super) fn findings() -> Vec<Finding> {
    let mut findings = vec![kernel(&read("/proc/sys/kernel/osrelease"))];
    for name in ["rmem_max", "wmem_max"] {
        findings.push(udp_buffer(name, &read(&format!("/proc/sys/net/core/{name}"))));
    }
    findings.push(offload());
    findings.push(open_files());
    findings.push(ports());
    findings.push(nft());
    findings.extend([programs::PROXY, programs::CONTROL].map(program));
    findings
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

fn kernel(release: &str) -> Finding {
    let mut numbers = release.split(|character: char| !character.is_ascii_digit()).map(|part| part.parse::<u32>().ok());
    let (Some(Some(major)), Some(Some(minor))) = (numbers.next(), numbers.next()) else {
        return Finding::warn(
            "kernel",
            format!("{release:?}"),
            "the kernel's version can't be read; Linux 5.0 or newer is needed",
        );
    };
    if (major, minor) < OLDEST_KERNEL {
        return Finding::fail("kernel", release, "Linux 5.0 or newer is needed");
    }
    Finding::ok("kernel", release)
}

fn udp_buffer(name: &str, text: &str) -> Finding {
    let check = format!("net.core.{name}");
    match text.parse::<u64>() {
        Ok(bytes) if bytes >= UDP_BUFFER => Finding::ok(&check, format!("{bytes} bytes")),
        Ok(bytes) => Finding::warn(
            &check,
            format!("{bytes} bytes"),
            format!("bursts may be lost: sysctl -w net.core.{name}={UDP_BUFFER} (root; in a container: on the host)"),
        ),
        // A container's network namespace doesn't show the host's limit.
        Err(_) => Finding::warn(&check, "not visible here", format!("see that the host allows {UDP_BUFFER}")),
    }
}

fn offload() -> Finding {
    let check = "UDP GSO/GRO";
    // A machine may have addresses of one family only.
    let loopback: [SocketAddr; 2] = [(Ipv4Addr::LOCALHOST, 0).into(), (Ipv6Addr::LOCALHOST, 0).into()];
    let socket = UdpSocket::bind(loopback.as_slice());
    let state = socket.and_then(|socket| quinn_udp::UdpSocketState::new((&socket).into()));
    match state {
        Ok(state) if state.max_gso_segments() > 1 => {
            Finding::ok(check, format!("{} segments out, {} in", state.max_gso_segments(), state.gro_segments()))
        }
        Ok(_) => Finding::warn(check, "no segmentation offload", "QUIC works, at a higher cost for each packet"),
        Err(error) => Finding::fail(check, error.to_string(), "no UDP socket can be opened on loopback"),
    }
}

fn open_files() -> Finding {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    match limit.current {
        Some(current) if current < OPEN_FILES => Finding::warn(
            "open files",
            current.to_string(),
            format!("a busy sidecar holds more sockets: ulimit -n {OPEN_FILES} (hard limit {:?})", limit.maximum),
        ),
        Some(current) => Finding::ok("open files", current.to_string()),
        None => Finding::ok("open files", "unlimited"),
    }
}

fn ports() -> Finding {
    match crate::run::reserve(None) {
        Ok(reserved) => Finding::ok("ports", format!("a sidecar's ports are free on {}", reserved.ip())),
        Err(error) => Finding::fail("ports", format!("{error:#}"), "stop what listens there; `ss -lntup` shows it"),
    }
}

/// Needed for transparent capture only.
fn nft() -> Finding {
    let run = |arguments: &[&str]| {
        Command::new("nft").args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status()
    };
    match run(&["list", "tables"]) {
        Ok(status) if status.success() => Finding::ok("nft", "may change rules: transparent capture is possible"),
        Ok(_) => Finding::warn(
            "nft",
            "installed, but it may not change rules",
            "transparent capture needs CAP_NET_ADMIN; `weft run` works without",
        ),
        Err(error) => {
            Finding::warn("nft", error.to_string(), "transparent capture needs nftables; `weft run` works without")
        }
    }
}

fn program(program: programs::Program) -> Finding {
    match program.find() {
        Ok(path) => Finding::ok(program.name, path.display().to_string()),
        Err(error) => Finding::warn(program.name, "not found", format!("{error:#}")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    #[test]
    fn kernels() {
        let check = |release: &str, expect| assert_eq!(kernel(release).state, expect, "{release}");
        check("6.12.1-amd64", State::Ok);
        check("5.0.0", State::Ok);
        check("4.19.0-rc1", State::Fail);
        check("", State::Warn);
    }

    #[test]
    fn buffers() {
        let check = |text: &str, expect| assert_eq!(udp_buffer("rmem_max", text).state, expect, "{text}");
        check("212992", State::Warn);
        check("7500000", State::Ok);
        check("", State::Warn);
        assert!(udp_buffer("rmem_max", "212992").advice.contains("sysctl -w net.core.rmem_max="));
    }

    #[test]
    fn this_machine_can_be_looked_at() {
        assert!(findings().iter().any(|finding| finding.check == "kernel" && finding.state == State::Ok));
    }
}
