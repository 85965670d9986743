//! `ExternalService`: names outside the mesh that its workloads may reach, and how. What parses and passes `check` can be told
//! to proxies.

use std::net::IpAddr;

use serde::de::{Error as _, IntoDeserializer};
use serde::{Deserialize, Deserializer, Serialize};

use super::check::is_one_host;
use super::{Object, ROOT_NAMESPACE, value};
use crate::bundle::ExternalProtocol;
use crate::host::is_under;
use crate::identity::{is_label, is_subdomain};

/// Bounds of its lists.
const MAX_HOSTS: usize = 32;
const MAX_PORTS: usize = 16;
const MAX_ENDPOINTS: usize = 16;
/// Bytes of the roots that one brings along: each proxy that sees it holds them.
const MAX_CA: usize = 64 << 10;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExternalServiceSpec {
    /// Names in lower case; `*.` at the beginning stands for one or more labels.
    pub hosts: Vec<String>,
    pub ports: Vec<ExternalPortSpec>,
    #[serde(default)]
    pub resolution: ResolutionSpec,
    /// With `Static`: where it is dialled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<ExternalEndpointSpec>,
    /// Absent: what the app sends is carried as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<ExternalTlsSpec>,
    #[serde(default)]
    pub visibility: Visibility,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExternalPortSpec {
    #[serde(default, deserialize_with = "value::label_option", skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(deserialize_with = "value::port")]
    pub port: u16,
    #[serde(deserialize_with = "protocol")]
    pub protocol: ExternalProtocol,
    /// The port that is dialled; `port` where absent.
    #[serde(default, deserialize_with = "value::port_option", skip_serializing_if = "Option::is_none")]
    pub target_port: Option<u16>,
}

fn protocol<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ExternalProtocol, D::Error> {
    let text = String::deserialize(deserializer)?;
    // Other meshes mean by it what the app encrypts itself.
    if text.eq_ignore_ascii_case("https") {
        let message = "is tls where the app begins TLS itself, and http where its proxy does (`tls`)";
        return Err(D::Error::custom(format!("{text:?} {message}")));
    }
    ExternalProtocol::deserialize(IntoDeserializer::<D::Error>::into_deserializer(text))
}

/// How the addresses are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum ResolutionSpec {
    /// The name that was asked for is looked up.
    #[default]
    #[serde(rename = "DNS")]
    Dns,
    /// They are `endpoints`.
    Static,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExternalEndpointSpec {
    /// An IP address, or a name that is looked up.
    pub address: String,
    #[serde(default, deserialize_with = "value::port_option", skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExternalTlsSpec {
    pub mode: TlsMode,
    /// The name that the server has to prove; the host that was asked for where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sni: Option<String>,
    /// Whom is believed, PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_bundle: Option<String>,
    /// The roots of the machine that the caller's proxy runs on are believed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub system_roots: bool,
    /// TLS is begun on ports of tcp as well, where the app speaks plain.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub under_tcp: bool,
    #[serde(default, skip_serializing_if = "value::is_default")]
    pub min_version: TlsVersion,
    /// The certificate that the server may ask for, by its name in the caller's proxy's own configuration.
    #[serde(default, deserialize_with = "value::label_option", skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<String>,
}

/// The oldest version that is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum TlsVersion {
    #[serde(rename = "1.2")]
    V1_2,
    #[default]
    #[serde(rename = "1.3")]
    V1_3,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TlsMode {
    /// The app speaks without TLS, and its proxy begins it.
    Originate,
}

/// Whose workloads see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Visibility {
    #[default]
    Namespace,
    Mesh,
}

type Wrong = Vec<(String, String)>;

/// Labels under which registries of countries keep names that anybody may have: `co.uk`, `com.au`, `or.jp`.
const REGISTRIES: [&str; 16] =
    ["ac", "co", "com", "edu", "gob", "gouv", "gov", "ltd", "mil", "ne", "net", "nom", "or", "org", "plc", "sch"];
/// The names of services under which each of their customers has one.
const OF_CUSTOMERS: [&str; 18] = [
    "appspot.com",
    "azurewebsites.net",
    "blob.core.windows.net",
    "blogspot.com",
    "cloudfront.net",
    "firebaseapp.com",
    "fly.dev",
    "github.io",
    "gitlab.io",
    "herokuapp.com",
    "netlify.app",
    "ngrok.io",
    "onrender.com",
    "pages.dev",
    "s3.amazonaws.com",
    "vercel.app",
    "web.app",
    "workers.dev",
];

/// Why a host is a pattern that only the root namespace may have. `None`: anybody may. The list of public suffixes is not
/// here: it is long, and of the day of a release. These are the rules that most of it follows.
fn too_wide(host: &str) -> Option<&'static str> {
    let parent = host.strip_prefix("*.")?;
    if is_label(parent) {
        return Some(
            "stands for all names of a top-level domain, which is for namespace weft-system only: it would let its workloads out \
             to nearly everywhere",
        );
    }
    let is_registry = parent.split_once('.').is_some_and(|(label, country)| {
        country.len() == 2 && country.bytes().all(|byte| byte.is_ascii_lowercase()) && REGISTRIES.contains(&label)
    });
    (is_registry || OF_CUSTOMERS.contains(&parent)).then_some(
        "stands for names that anybody may have, which is for namespace weft-system only: it would let its workloads out to \
         whoever registers one",
    )
}

impl Object<ExternalServiceSpec> {
    /// Everything that is wrong; keys are inside `spec`.
    pub(super) fn check(&self) -> Wrong {
        let mut wrong = self.spec.check_lists();
        wrong.extend(self.spec.tls.iter().flat_map(|tls| tls.check(&self.spec.ports)));
        if self.metadata.namespace != ROOT_NAMESPACE {
            let hosts = self.spec.hosts.iter().enumerate();
            wrong.extend(hosts.filter_map(|(index, host)| {
                let why = too_wide(host)?;
                Some((format!("hosts[{index}]"), format!("{host:?} {why}")))
            }));
        }
        if self.spec.visibility == Visibility::Mesh && self.metadata.namespace != ROOT_NAMESPACE {
            let message = format!(
                "\"Mesh\" is for namespace {ROOT_NAMESPACE} only: it would say where other namespaces' requests go"
            );
            wrong.push(("visibility".to_owned(), message));
        }
        wrong
    }
}

impl ExternalServiceSpec {
    fn check_lists(&self) -> Wrong {
        let mut wrong = Vec::new();
        bounded(&mut wrong, "hosts", self.hosts.len(), MAX_HOSTS);
        for (index, host) in self.hosts.iter().enumerate() {
            let twice = || self.hosts[..index].contains(host).then(|| format!("{host:?} is given twice"));
            let message = wrong_host(host, true).or_else(twice);
            wrong.extend(message.map(|message| (format!("hosts[{index}]"), message)));
        }
        bounded(&mut wrong, "ports", self.ports.len(), MAX_PORTS);
        for (index, port) in self.ports.iter().enumerate() {
            let before = &self.ports[..index];
            if before.iter().any(|other| other.port == port.port) {
                wrong.push((format!("ports[{index}].port"), format!("{} is given twice", port.port)));
            }
            if let Some(name) = port.name.as_ref().filter(|_| before.iter().any(|other| other.name == port.name)) {
                wrong.push((format!("ports[{index}].name"), format!("{name:?} is given twice")));
            }
        }
        self.check_endpoints(&mut wrong);
        wrong
    }

    fn check_endpoints(&self, wrong: &mut Wrong) {
        match self.resolution {
            ResolutionSpec::Static => bounded(wrong, "endpoints", self.endpoints.len(), MAX_ENDPOINTS),
            ResolutionSpec::Dns if !self.endpoints.is_empty() => {
                let message = "resolution DNS looks the host up that was asked for: `endpoints` are for Static";
                wrong.push(("endpoints".to_owned(), message.to_owned()));
            }
            ResolutionSpec::Dns => {}
        }
        for (index, ExternalEndpointSpec { address, port }) in self.endpoints.iter().enumerate() {
            let message = match address.parse::<IpAddr>() {
                Ok(ip) if is_one_host(ip) => None,
                Ok(ip) => Some(format!("{ip} is not the address of one machine")),
                Err(_) => wrong_host(address, false),
            };
            let is_same = |other: &ExternalEndpointSpec| other.address == *address && other.port == *port;
            let twice = || self.endpoints[..index].iter().any(is_same).then(|| format!("{address:?} is given twice"));
            let message = message.or_else(twice);
            wrong.extend(message.map(|message| (format!("endpoints[{index}].address"), message)));
        }
    }
}

fn bounded(wrong: &mut Wrong, key: &str, count: usize, most: usize) {
    if !(1..=most).contains(&count) {
        wrong.push((key.to_owned(), format!("{count} are given: 1 to {most} are expected")));
    }
}

impl ExternalTlsSpec {
    fn check(&self, ports: &[ExternalPortSpec]) -> Wrong {
        let mut wrong = Vec::new();
        let mut refuse = |key: &str, message: String| wrong.push((key.to_owned(), message));
        let has_tcp = ports.iter().any(|port| port.protocol == ExternalProtocol::Tcp);
        if self.under_tcp && !has_tcp {
            refuse("tls.underTcp", "no port is of tcp".to_owned());
        } else if !self.under_tcp && !ports.iter().any(|port| port.protocol.is_http()) {
            let message = "TLS is begun under http and grpc, and no port has one: what flows to a port of tls is carried as \
                           it is, and so is that of tcp without `underTcp: true`";
            refuse("tls.mode", message.to_owned());
        }
        if let Some(message) = self.sni.as_deref().and_then(|sni| wrong_host(sni, false)) {
            refuse("tls.sni", message);
        }
        match (&self.ca_bundle, self.system_roots) {
            (None, false) => refuse(
                "tls.caBundle",
                "is expected: certificates in PEM, or `systemRoots: true` for those of each proxy's machine".to_owned(),
            ),
            (Some(_), true) => {
                refuse("tls.systemRoots", "is given beside caBundle: one of them is believed".to_owned())
            }
            (Some(pem), false) => {
                if let Some(message) = wrong_bundle(pem) {
                    refuse("tls.caBundle", message);
                }
            }
            (None, true) => {}
        }
        wrong
    }
}

/// Says why a text is no PEM of certificates. Whether they can be used the proxies find out.
fn wrong_bundle(pem: &str) -> Option<String> {
    if pem.len() > MAX_CA {
        return Some(format!("{} bytes are more than {MAX_CA}", pem.len()));
    }
    if pem.contains("PRIVATE KEY") {
        return Some("holds a private key, which nobody else may have: certificates in PEM are expected".to_owned());
    }
    let (mut count, mut rest) = (0, pem);
    while let Some((_, behind)) = rest.split_once("-----BEGIN CERTIFICATE-----") {
        let Some((inside, after)) = behind.split_once("-----END CERTIFICATE-----") else {
            return Some(format!("certificate {count} has no end"));
        };
        let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=');
        let written: Vec<u8> = inside.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
        if written.is_empty() || !written.into_iter().all(is_base64) {
            return Some(format!("certificate {count} is not base64"));
        }
        (count, rest) = (count + 1, after);
    }
    (count == 0).then(|| "holds no certificate: PEM is expected, -----BEGIN CERTIFICATE-----".to_owned())
}

/// Names under these are the mesh's in every mesh, or each machine's own.
const NEVER_OUTSIDE: [&str; 4] = ["svc.cluster.local", "mesh.local", "svc", "localhost"];

/// Says why a text is no name outside the mesh, in lower case: with `wildcard` its first label may be `*`.
pub(crate) fn wrong_host(text: &str, wildcard: bool) -> Option<String> {
    let name = text.strip_prefix("*.").filter(|_| wildcard).unwrap_or(text);
    let is_pattern = name.len() < text.len();
    let pattern = if wildcard { ", with *. before it for all names below" } else { "" };
    if name.parse::<IpAddr>().is_ok() {
        return Some(format!("{text:?} is an address: a name is expected"));
    }
    let last = name.rsplit('.').next().unwrap_or_default();
    if !is_subdomain(name) || last.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(format!("{text:?} is not a host: lower-case letters, digits, '-' and '.', at most 253{pattern}"));
    }
    if let Some(suffix) = NEVER_OUTSIDE.into_iter().find(|suffix| is_under(name, suffix)) {
        return Some(format!("{text:?} is not outside the mesh: nothing under {suffix} is"));
    }
    // What has one label may be a service of the caller's namespace.
    (!is_pattern && !name.contains('.'))
        .then(|| format!("{text:?} has one label, as services have: a name with a dot is expected"))
}
