//! The nftables rules of transparent capture: rendered as text (pure), handed to the `nft` program as one transaction.
//! They outlive a crash of the proxy on purpose: captured traffic then fails instead of leaving in the clear.

use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::net::IpAddr;
use std::process::{Command, Stdio};
use std::str::FromStr;

use super::MARK;

/// Begins the name of every table of ours.
const PREFIX: &str = "inet weft_";

/// Longest name of a proxy that stands in its table's name as it is (nft takes 255 bytes for all of it).
const LONGEST_NAME: usize = 200;

/// Destinations that never pass a proxy: a link-local address means nothing without its interface, and there is no TCP to
/// a group.
const NEVER: [&str; 5] = ["169.254.0.0/16", "224.0.0.0/4", "255.255.255.255/32", "fe80::/10", "ff00::/8"];

/// Description of what is captured in the current network namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// Names the table (`inet weft_<name>`): each proxy has its own and touches no other. Letters, digits, `-` and `.`.
    pub name: String,
    /// Port to which outgoing TCP connections are redirected, e.g. 15001.
    pub outbound_port: Option<u16>,
    /// Port to which incoming TCP connections are redirected, e.g. 15006.
    pub inbound_port: Option<u16>,
    /// Connections of sockets with this mark pass, and only sockets with this mark are redirected to: the proxy's own.
    pub mark: u32,
    /// The user whose marked sockets pass; `None`: everybody's. Setting a mark takes CAP_NET_ADMIN or CAP_NET_RAW, which
    /// containers often have.
    pub uid: Option<u32>,
    /// Users whose outgoing connections pass.
    pub exclude_uids: Vec<u32>,
    /// Destination ports that pass, outgoing and incoming. Those of the proxy's metrics and health belong here.
    pub exclude_ports: Vec<u16>,
    /// Destinations that pass, outgoing.
    pub exclude_cidrs: Vec<Cidr>,
    /// Ports of the proxy that only this host may connect to.
    pub local_ports: Vec<u16>,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            name: "proxy".to_owned(),
            outbound_port: Some(15001),
            inbound_port: Some(15006),
            mark: MARK,
            uid: None,
            exclude_uids: Vec::new(),
            exclude_ports: vec![15020, 15021],
            exclude_cidrs: Vec::new(),
            local_ports: vec![15000, 15080],
        }
    }
}

impl Rules {
    /// The nft script that puts these rules in place of earlier ones of the same name, in one transaction.
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
        self.render_guard(&mut script);
        script.push_str("}\n");
        script
    }

    /// The nft script that removes them; no error when they are not there.
    pub fn render_removal(&self) -> String {
        let table = self.table();
        format!("table {table} {{}}\ndelete table {table}\n")
    }

    /// Puts the rules in place. Refused where another proxy's rules capture in this namespace already: two redirections
    /// of one connection would lead wherever the earlier one says. Blocks while `nft` runs (milliseconds). Needs
    /// CAP_NET_ADMIN.
    pub fn install(&self) -> Result<(), CaptureError> {
        if let Some(table) = self.others()?.into_iter().next() {
            return Err(CaptureError::Taken(table));
        }
        self.put()?;
        // Another may have come between the two: then both step back, rather than one of them capture for nothing.
        match self.others()?.into_iter().next() {
            Some(table) => self.remove().and(Err(CaptureError::Taken(table))),
            None => Ok(()),
        }
    }

    /// Tries what [`install`](Self::install) would do, and changes nothing.
    pub fn check(&self) -> Result<(), CaptureError> {
        if let Some(table) = self.others()?.into_iter().next() {
            return Err(CaptureError::Taken(table));
        }
        run_nft(&["-c", "-f", "-"], &self.render()).map(drop)
    }

    /// Puts the rules in place again, whoever else has some.
    pub fn put(&self) -> Result<(), CaptureError> {
        run_nft(&["-f", "-"], &self.render()).map(drop)
    }

    /// Takes the rules away. Blocks while `nft` runs (milliseconds). Needs CAP_NET_ADMIN.
    pub fn remove(&self) -> Result<(), CaptureError> {
        run_nft(&["-f", "-"], &self.render_removal()).map(drop)
    }

    /// The rules of this name as the kernel has them; `None` where there are none. Equal texts are equal rules.
    pub fn listing(&self) -> Result<Option<String>, CaptureError> {
        if !tables()?.contains(&self.table()) {
            return Ok(None);
        }
        match run_nft(&["-nn", "-s", "list", "table", "inet", self.table().trim_start_matches("inet ")], "") {
            Ok(text) => Ok(Some(text)),
            // Gone between the two looks.
            Err(CaptureError::Refused(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Tables of other proxies in this namespace.
    fn others(&self) -> Result<Vec<String>, CaptureError> {
        let own = self.table();
        Ok(tables()?.into_iter().filter(|table| table.starts_with(PREFIX) && *table != own).collect())
    }

    fn table(&self) -> String {
        let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '.') { c } else { '_' };
        let name: String = self.name.chars().map(plain).collect();
        if name.len() <= LONGEST_NAME {
            return format!("{PREFIX}{name}");
        }
        // FNV-1a keeps names apart whose beginnings are equal.
        let hash = name
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        format!("{PREFIX}{}_{hash:016x}", &name[..LONGEST_NAME])
    }

    fn render_outbound(&self, script: &mut String, port: u16) {
        script.push_str("  chain outbound {\n    type nat hook output priority -100; policy accept;\n");
        script.push_str("    meta l4proto != tcp return\n");
        let user = self.uid.map(|uid| format!(" meta skuid {uid}")).unwrap_or_default();
        let _ = writeln!(script, "    meta mark {:#010x}{user} return", self.mark);
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
        // After the ports that others publish (Docker, at -100), which lead to no app of this host's own.
        script.push_str("  chain inbound {\n    type nat hook prerouting priority -99; policy accept;\n");
        script.push_str(
            "    meta l4proto != tcp return\n    iifname \"lo\" return\n    fib daddr type != local return\n",
        );
        let mut passing = self.exclude_ports.clone();
        passing.extend(self.local_ports.iter().copied().chain(self.outbound_port).chain([port]));
        if let Some(ports) = set(&passing) {
            let _ = writeln!(script, "    tcp dport {ports} return");
        }
        let _ = writeln!(script, "    meta l4proto tcp redirect to :{port}\n  }}");
    }

    /// Renders the chain that guards the proxy's own ports: a redirected connection reaches a socket of the proxy or
    /// nobody (another user may bind the port while the proxy is away), and the network reaches neither the ports for
    /// local applications nor those that connections are redirected to.
    fn render_guard(&self, script: &mut String) {
        script.push_str("  chain guard {\n    type filter hook input priority 0; policy accept;\n");
        let captured: Vec<u16> = self.outbound_port.into_iter().chain(self.inbound_port).collect();
        if let Some(ports) = set(&captured) {
            let _ = writeln!(script, "    tcp dport {ports} socket mark != {:#010x} reject with tcp reset", self.mark);
        }
        script.push_str("    iifname \"lo\" return\n");
        let local: Vec<u16> = self.local_ports.iter().copied().chain(self.outbound_port).collect();
        if let Some(ports) = set(&local) {
            let _ = writeln!(script, "    tcp dport {ports} reject with tcp reset");
        }
        if let Some(port) = self.inbound_port {
            let _ = writeln!(script, "    tcp dport {port} ct status & dnat == 0 reject with tcp reset");
        }
        script.push_str("  }\n");
    }

    fn render_excluded_ports(&self, script: &mut String) {
        if let Some(ports) = set(&self.exclude_ports) {
            let _ = writeln!(script, "    tcp dport {ports} return");
        }
    }

    fn cidrs(&self, ipv4: bool) -> Vec<Cidr> {
        let never = NEVER.iter().map(|text| text.parse().expect("a block of addresses"));
        let all = self.exclude_cidrs.iter().copied().chain(never);
        let mut cidrs: Vec<Cidr> = all.filter(|cidr| cidr.address.is_ipv4() == ipv4).collect();
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
    #[error(
        "another proxy captures in this network namespace (nft table {0}); where it is gone, end what it left with its \
         own --capture-remove or nft delete table {0}"
    )]
    Taken(String),
    #[error("nft could not be run")]
    Run(#[source] std::io::Error),
}

/// All tables of this namespace, as `inet NAME`.
fn tables() -> Result<Vec<String>, CaptureError> {
    let text = run_nft(&["list", "tables"], "")?;
    Ok(text.lines().filter_map(|line| line.strip_prefix("table ")).map(|table| table.trim().to_owned()).collect())
}

/// Runs nft with a script on its standard input; what it prints.
fn run_nft(arguments: &[&str], script: &str) -> Result<String, CaptureError> {
    let search = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let spawned = Command::new("nft")
        .args(arguments)
        .env("PATH", search)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
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
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if message.contains("Operation not permitted") {
        return Err(CaptureError::NotPermitted(message));
    }
    Err(CaptureError::Refused(message))
}
