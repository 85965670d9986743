//! The nftables rules of transparent capture: rendered as text (pure), handed to the `nft` program as one transaction.
//! They outlive a crash of the proxy on purpose: captured traffic then fails instead of leaving in the clear.

use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::net::IpAddr;
use std::process::{Command, Stdio};
use std::str::FromStr;

use super::MARK;

/// What is captured in the current network namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// Numbers the table (`inet weft_<id>`), so that several proxies in one namespace keep apart.
    pub id: u16,
    /// Where outgoing TCP connections are redirected to, e.g. 15001.
    pub outbound_port: Option<u16>,
    /// Where incoming TCP connections are redirected to, e.g. 15006.
    pub inbound_port: Option<u16>,
    /// Connections of sockets with this mark pass: the proxy's own.
    pub mark: u32,
    /// Users whose outgoing connections pass.
    pub exclude_uids: Vec<u32>,
    /// Destination ports that pass, outgoing and incoming. The proxy's own ports belong here.
    pub exclude_ports: Vec<u16>,
    /// Destinations that pass, outgoing.
    pub exclude_cidrs: Vec<Cidr>,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            id: 0,
            outbound_port: Some(15001),
            inbound_port: Some(15006),
            mark: MARK,
            exclude_uids: Vec::new(),
            exclude_ports: vec![15000, 15001, 15006, 15008, 15020, 15021, 15053, 15080],
            exclude_cidrs: Vec::new(),
        }
    }
}

impl Rules {
    /// The nft script that puts these rules in place of earlier ones of the same id, in one transaction.
    pub fn render(&self) -> String {
        let table = self.table();
        let mut script = self.render_removal();
        let _ = writeln!(script, "table {table} {{");
        if let Some(port) = self.outbound_port {
            self.render_outbound(&mut script, port);
        }
        if let Some(port) = self.inbound_port {
            self.render_inbound(&mut script, port);
        }
        script.push_str("}\n");
        script
    }

    /// The nft script that removes them; no error when they are not there.
    pub fn render_removal(&self) -> String {
        let table = self.table();
        format!("table {table} {{}}\ndelete table {table}\n")
    }

    /// Puts the rules in place. Blocks while `nft` runs (milliseconds). Needs CAP_NET_ADMIN.
    pub fn install(&self) -> Result<(), CaptureError> {
        run_nft(&self.render())
    }

    /// Takes the rules away. Blocks while `nft` runs (milliseconds). Needs CAP_NET_ADMIN.
    pub fn remove(&self) -> Result<(), CaptureError> {
        run_nft(&self.render_removal())
    }

    fn table(&self) -> String {
        format!("inet weft_{}", self.id)
    }

    fn render_outbound(&self, script: &mut String, port: u16) {
        script.push_str("  chain outbound {\n    type nat hook output priority -100; policy accept;\n");
        script.push_str("    meta l4proto != tcp return\n");
        let _ = writeln!(script, "    meta mark {:#010x} return", self.mark);
        script.push_str("    fib daddr type local return\n");
        if let Some(uids) = set(&self.exclude_uids) {
            let _ = writeln!(script, "    meta skuid {uids} return");
        }
        self.render_excluded_ports(script);
        for (family, cidrs) in [("ip", self.cidrs(true)), ("ip6", self.cidrs(false))] {
            if let Some(cidrs) = set(&cidrs) {
                let _ = writeln!(script, "    {family} daddr {cidrs} return");
            }
        }
        let _ = writeln!(script, "    meta l4proto tcp redirect to :{port}\n  }}");
    }

    fn render_inbound(&self, script: &mut String, port: u16) {
        script.push_str("  chain inbound {\n    type nat hook prerouting priority -100; policy accept;\n");
        script.push_str(
            "    meta l4proto != tcp return\n    iifname \"lo\" return\n    fib daddr type != local return\n",
        );
        self.render_excluded_ports(script);
        let _ = writeln!(script, "    meta l4proto tcp redirect to :{port}\n  }}");
    }

    fn render_excluded_ports(&self, script: &mut String) {
        if let Some(ports) = set(&self.exclude_ports) {
            let _ = writeln!(script, "    tcp dport {ports} return");
        }
    }

    fn cidrs(&self, ipv4: bool) -> Vec<Cidr> {
        let mut cidrs: Vec<Cidr> =
            self.exclude_cidrs.iter().copied().filter(|cidr| cidr.address.is_ipv4() == ipv4).collect();
        // nft refuses sets whose intervals overlap.
        let all = cidrs.clone();
        cidrs.retain(|cidr| !all.iter().any(|other| other != cidr && other.contains(cidr)));
        cidrs
    }
}

/// An nft set of the distinct values, in order; `None` when there are none.
fn set<T: Ord + Clone + fmt::Display>(values: &[T]) -> Option<String> {
    let mut values = values.to_vec();
    values.sort();
    values.dedup();
    let texts: Vec<String> = values.iter().map(ToString::to_string).collect();
    (!texts.is_empty()).then(|| format!("{{ {} }}", texts.join(", ")))
}

/// A block of addresses, with no bit set beyond its prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cidr {
    address: IpAddr,
    prefix: u8,
}

/// Why a text is no block of addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a block of addresses such as 10.0.0.0/8 or fd00::/8")]
pub struct CidrError {
    text: String,
}

impl Cidr {
    fn contains(&self, other: &Cidr) -> bool {
        self.prefix <= other.prefix && masked(other.address, self.prefix) == self.address
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    /// `ADDRESS/PREFIX`, or an address alone.
    fn from_str(text: &str) -> Result<Self, CidrError> {
        let error = || CidrError { text: text.into() };
        let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let address: IpAddr = address.parse().map_err(|_| error())?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Ok(bits), |prefix| prefix.parse().map_err(|_| error()))?;
        if prefix > bits {
            return Err(error());
        }
        Ok(Cidr { address: masked(address, prefix), prefix })
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

fn masked(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(ip) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
            IpAddr::V4((ip.to_bits() & mask).into())
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix.min(128))).unwrap_or(0);
            IpAddr::V6((ip.to_bits() & mask).into())
        }
    }
}

/// Why capture rules could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    #[error("the program nft is missing: install the package nftables")]
    NftMissing,
    #[error("nft may not change rules here: CAP_NET_ADMIN in this network namespace is needed ({0})")]
    NotPermitted(String),
    #[error("nft refused the rules: {0}")]
    Refused(String),
    #[error("nft could not be run")]
    Run(#[source] std::io::Error),
}

fn run_nft(script: &str) -> Result<(), CaptureError> {
    let search = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let spawned = Command::new("nft")
        .args(["-f", "-"])
        .env("PATH", search)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(CaptureError::NftMissing),
        Err(error) => return Err(CaptureError::Run(error)),
    };
    if let Some(mut input) = child.stdin.take() {
        // nft that ends before it has read everything says why on stderr.
        let _ = input.write_all(script.as_bytes());
    }
    let output = child.wait_with_output().map_err(CaptureError::Run)?;
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if message.contains("Operation not permitted") {
        return Err(CaptureError::NotPermitted(message));
    }
    Err(CaptureError::Refused(message))
}
