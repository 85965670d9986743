//! `weft run`: one command with a sidecar of its own. Reads top to bottom: reserve an address, join, start the sidecar,
//! run the command, drain. Nothing of it outlives this process: the children die with their parent.

mod address;
mod command;
mod home;
mod sidecar;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::ValueEnum;
use serde::Serialize;
use weft_api::{CreateToken, CreatedToken, Revoked, TokenKind};
use weft_policy::resource::Kind;

use crate::access::{Access, AccessArgs};
use crate::answer::{Answer, Failure, Outcome};
use crate::api::{Client, segment};
use crate::commands::lint;
use crate::commands::token::granted;
use crate::findings::Level;
use crate::output::Paint;
use crate::values;

use address::LoopbackPort;
pub(crate) use address::{EXPLICIT_PORT, HEALTH_PORT, Reserved, reserve};
pub(crate) use command::{Signals, die_with_parent, signal_child};
use home::Home;
use sidecar::{Setup, Sidecar};

/// How long the control plane may take to revoke a token that came to nothing.
const REVOKE: Duration = Duration::from_secs(3);

const EXAMPLE: &str = "Examples:
  weft run --service reviews --port 9080 -- ./reviews --listen 127.0.0.1:9080
  weft run --service prices --port 50051 --protocol grpc --namespace shop -- python3 prices.py
  weft run --service shell -- bash          # a pure client: curl in it goes through the mesh

CMD gets http_proxy, HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and grpc_proxy, NO_PROXY and WEFT_IP. The proxy is http://IP:15080; with an
--ip that is not loopback http://127.0.0.1:15080 ([::1] with IPv6), beside an admin port 127.0.0.1:15000, or what is free and is said.
The exit status is CMD's (128 + signal where a signal ended it, 127 not found, 126 not executable).";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(crate) struct RunArgs {
    /// The service that CMD is an instance of; a client without `--port` only carries its name.
    #[arg(long, value_name = "NAME", value_parser = values::name)]
    service: String,
    /// Its namespace.
    #[arg(long, default_value = "default", value_name = "NS", value_parser = values::name)]
    namespace: String,
    /// Whose identity it has [default: the service's name].
    #[arg(long, value_name = "SA", value_parser = values::name)]
    service_account: Option<String>,
    /// Address of this workload [default: the next free 127.0.0.x].
    #[arg(long)]
    ip: Option<IpAddr>,
    /// Port that CMD listens on; without it the workload is a pure client.
    #[arg(long, value_name = "APP_PORT", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// Protocol that CMD speaks on its port.
    #[arg(long, value_enum, default_value_t = Protocol::Auto)]
    protocol: Protocol,
    /// Name of this instance [default: the service's name and the address's end].
    #[arg(long, value_name = "NAME", value_parser = values::name)]
    name: Option<String>,
    /// A label of the workload, for selectors; may be repeated.
    #[arg(long = "label", value_name = "K=V", value_parser = values::label)]
    labels: Vec<(String, String)>,
    /// Keep the sidecar's identity, bundle and filters here [default: a folder that goes with the run].
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// URL at which the control plane takes proxies, one for each replica [default: port 15012 of --server's host].
    #[arg(long, env = "WEFT_CONTROL", value_name = "URL,...", value_delimiter = ',')]
    control: Vec<String>,
    /// The sidecar's log [default: DIR/proxy.log, shown when the sidecar fails].
    #[arg(long, value_name = "FILE")]
    proxy_log: Option<PathBuf>,
    /// The sidecar's log filter, such as `debug` or `weft_proxy=trace`.
    #[arg(long, default_value = "info", value_name = "FILTER")]
    proxy_log_level: String,
    /// Data-plane threads of the sidecar [default: the cores that the cgroup grants].
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    workers: Option<u16>,
    /// How long the sidecar may take to become ready.
    #[arg(long, default_value = "30s", value_name = "TIME", value_parser = values::duration)]
    ready_timeout: Duration,
    /// How long open requests may take to finish after CMD.
    #[arg(long, default_value = "30s", value_name = "TIME", value_parser = values::duration)]
    drain_timeout: Duration,
    #[command(flatten)]
    access: AccessArgs,
    /// The command and its arguments.
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// The application protocol of a workload's port, as people write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum Protocol {
    Http,
    Grpc,
    Tcp,
    /// Known to be refused with the reason.
    #[value(hide = true)]
    Udp,
    Auto,
}

pub(crate) async fn run(args: RunArgs) -> Outcome {
    // Before anything is made for it.
    if let Err(error) = command::find(&args.command) {
        return Ok(Answer::Status(command::not_run(&args.command, &error)));
    }
    let mut signals = Signals::listen()?;
    let token = OnceLock::new();
    let started = tokio::select! {
        started = start(&args, &token) => started,
        signal = signals.next() => {
            revoke(&args, &token).await;
            return Ok(Answer::Status(command::status_of_signal(signal.as_raw())));
        }
    };
    if started.is_err() {
        revoke(&args, &token).await;
    }
    let Started { mut sidecar, environment, home, reserved, loopback: _loopback } = started?;
    let status = command::supervise(&args.command, &environment, &mut signals, &mut sidecar).await;
    sidecar.drain(&mut signals).await;
    drop((home, reserved));
    Ok(Answer::Status(status?))
}

struct Started {
    sidecar: Sidecar,
    environment: Vec<(&'static str, String)>,
    /// Removed with its folder when dropped, unless the person chose it.
    home: Home,
    reserved: Reserved,
    /// Held while the app may be on loopback.
    loopback: Option<LoopbackPort>,
}

/// Nobody uses the token of a run whose sidecar never served. The control plane may be why: it is asked once.
async fn revoke(args: &RunArgs, token: &OnceLock<String>) {
    let Some((token, client)) = token.get().zip(args.access.client().ok()) else { return };
    let path = format!("/tokens/{}", segment(token));
    let asked = tokio::time::timeout(REVOKE, client.delete::<Revoked>(&path, &())).await;
    if !matches!(asked, Ok(Ok(_))) {
        let left = "its join token could not be revoked, and is good for 10 minutes: weft token revoke";
        crate::output::complain(&format!("weft run: {left} {token}"));
    }
}

async fn start(args: &RunArgs, token: &OnceLock<String>) -> Result<Started, Failure> {
    if args.protocol == Protocol::Udp {
        return Err(anyhow::anyhow!("--protocol udp is not supported yet: http, grpc, tcp and auto are").into());
    }
    let access = args.access.resolve()?;
    let control = control_addresses(&args.control, &access)?;
    let reserved = address::reserve(args.ip)?;
    let home = Home::make(args.state_dir.as_deref())?;
    let token_file = join_token(args, &access, &home, token).await?;
    let loopback = args.port.and_then(LoopbackPort::take);
    let mut setup = setup(args, &access, &reserved, &home, control, token_file)?;
    if !reserved.local().is_usual() {
        crate::output::complain(&format!(
            "weft run: ports of {} are taken: the sidecar's admin port is {}, its proxy for applications {}",
            setup.listen.admin.ip(),
            setup.listen.admin,
            setup.listen.explicit
        ));
    }
    setup.workload.app_on_loopback = args.port.is_none() || loopback.is_some();
    if let Some(port) = args.port.filter(|_| !setup.workload.app_on_loopback) {
        crate::output::complain(&format!(
            "weft run: another `weft run` has port {port}: the app must listen at {}:{port}, what listens at 127.0.0.1:{port} is \
             not taken for it",
            reserved.ip()
        ));
    }
    let explicit = setup.listen.explicit;
    let health = setup.listen.health;
    let config = home.write("proxy.yaml", &crate::output::yaml(&setup)?)?;
    let log = args.proxy_log.clone().unwrap_or_else(|| home.path().join("proxy.log"));
    let mut sidecar = Sidecar::start(config, log, health, args.drain_timeout)?;
    sidecar.ready(args.ready_timeout).await?;
    if args.port.is_some() {
        tell_findings(args, &access, &setup.workload.name).await;
    }
    let environment = environment(reserved.ip(), explicit);
    Ok(Started { sidecar, environment, home, reserved, loopback })
}

/// Tells what the control plane finds about the workload that joined, such as a port that its service does not lead to.
async fn tell_findings(args: &RunArgs, access: &Access, name: &str) {
    let client = match Client::new(access) {
        Ok(client) => client,
        Err(error) => return crate::output::complain(&format!("weft run: the control plane can't be asked: {error}")),
    };
    match lint::of_object(&client, Kind::Workload.as_str(), &args.namespace, name).await {
        Ok(found) => {
            for finding in found.iter().filter(|finding| finding.severity <= Level::Warning) {
                crate::output::complain(&format!("weft run: {}", finding.line(&Paint::plain())));
            }
        }
        Err(error) => crate::output::complain(&format!("weft run: what lint finds is not known: {error}")),
    }
}

/// Port 15012 of the API's host, unless told otherwise.
fn control_addresses(given: &[String], access: &Access) -> anyhow::Result<Vec<String>> {
    if given.is_empty() {
        let uri: http::Uri =
            access.server.parse().with_context(|| format!("--server {}: not an address", access.server))?;
        return Ok(vec![format!("https://{}:15012", uri.host().context("--server has no host")?)]);
    }
    given.iter().map(|text| control_address(text)).collect()
}

fn control_address(text: &str) -> anyhow::Result<String> {
    let uri: http::Uri = text.parse().with_context(|| format!("--control {text}: not an address"))?;
    if uri.scheme_str() != Some("https") || uri.port_u16().is_none() {
        bail!("--control {text}: an address such as https://127.0.0.1:15012 is expected");
    }
    Ok(text.trim_end_matches('/').to_owned())
}

/// A join token by the operator's token. Where an earlier run left an identity in the state folder, a control plane
/// that is away stops nothing.
async fn join_token(args: &RunArgs, access: &Access, home: &Home, made: &OnceLock<String>) -> Result<PathBuf, Failure> {
    let account = args.service_account.as_deref().unwrap_or(&args.service);
    // This command line may grant claims to the proxy, because its user may make the token.
    let is_own = account == args.service || args.port.is_none();
    let request = CreateToken {
        service_account: Some(format!("{}/{account}", args.namespace)),
        ttl_seconds: Some(600),
        uses: Some(1),
        services: if is_own { Vec::new() } else { vec![args.service.clone()] },
        labels: granted(&args.labels),
        addresses: args.ip.iter().filter(|ip| !ip.is_loopback()).map(ToString::to_string).collect(),
        ..CreateToken::new(TokenKind::Join)
    };
    let answer: CreatedToken = match Client::new(access)?.post("/tokens", &request).await {
        Ok(answer) => answer,
        Err(error) if home.was_used() => {
            crate::output::complain(&format!(
                "weft run: no join token ({error}); going on with the identity in {}",
                home.path().display()
            ));
            return Ok(home.path().join("join.token"));
        }
        Err(error) => return Err(error.into()),
    };
    let _ = made.set(answer.id);
    Ok(home.write("join.token", &answer.token)?)
}

fn setup(
    args: &RunArgs,
    access: &Access,
    reserved: &Reserved,
    home: &Home,
    control: Vec<String>,
    token_file: PathBuf,
) -> anyhow::Result<Setup> {
    let ip = reserved.ip();
    let name = args.name.clone().unwrap_or_else(|| instance_name(&args.service, ip));
    let mut labels: BTreeMap<String, String> = BTreeMap::from([("app".to_owned(), args.service.clone())]);
    labels.extend(args.labels.iter().cloned());
    let ca_file = std::path::absolute(&access.ca_file).context("cannot resolve --ca-file")?;
    Ok(Setup {
        name: name.clone(),
        state_dir: home.path().join("state"),
        control: sidecar::Control { address: control, ca_file, token_file },
        workload: sidecar::Workload {
            name,
            namespace: args.namespace.clone(),
            service_account: args.service_account.clone().unwrap_or_else(|| args.service.clone()),
            address: ip,
            ports: args.port.map(|port| sidecar::Port { port, protocol: args.protocol }).into_iter().collect(),
            labels,
            service: args.port.map(|_| args.service.clone()),
            app_on_loopback: true,
        },
        listen: sidecar::Listen::on(ip, reserved.local()),
        workers: args.workers,
        drain_timeout_s: args.drain_timeout.as_secs().max(1),
        log: args.proxy_log_level.clone(),
    })
}

/// `reviews` on 127.0.0.11 -> `reviews-11`; elsewhere the whole address, so that two hosts don't meet.
fn instance_name(service: &str, ip: IpAddr) -> String {
    let end = match ip {
        IpAddr::V4(v4) if v4.octets()[..3] == [127, 0, 0] => v4.octets()[3].to_string(),
        IpAddr::V4(_) | IpAddr::V6(_) => {
            ip.to_string().split(['.', ':']).filter(|part| !part.is_empty()).collect::<Vec<_>>().join("-")
        }
    };
    format!("{service}-{end}")
}

fn environment(ip: IpAddr, explicit: SocketAddr) -> Vec<(&'static str, String)> {
    let proxy = format!("http://{explicit}");
    let mut pairs = vec![("WEFT_IP", ip.to_string())];
    for name in ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "grpc_proxy"] {
        pairs.push((name, proxy.clone()));
    }
    for name in ["no_proxy", "NO_PROXY"] {
        pairs.push((name, format!("localhost,127.0.0.1,::1,{ip}")));
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_are_named_by_their_address() {
        assert_eq!(instance_name("reviews", "127.0.0.11".parse().unwrap()), "reviews-11");
        assert_eq!(instance_name("reviews", "10.1.2.3".parse().unwrap()), "reviews-10-1-2-3");
        assert_eq!(instance_name("reviews", "fd00::7".parse().unwrap()), "reviews-fd00-7");
    }

    #[test]
    fn the_control_addresses_follow_the_server() {
        let access = Access { server: "https://[::1]:15013".into(), token_file: "/t".into(), ca_file: "/c".into() };
        let found = |given: &[&str]| {
            let given: Vec<_> = given.iter().map(ToString::to_string).collect();
            control_addresses(&given, &access)
        };
        assert_eq!(found(&[]).unwrap(), ["https://[::1]:15012"]);
        assert_eq!(found(&["https://a:1/", "https://b:1"]).unwrap(), ["https://a:1", "https://b:1"]);
        assert!(found(&["https://b:1", "http://a:1"]).unwrap_err().to_string().contains("--control http://a:1"));
    }

    #[test]
    fn the_environment_of_the_contract() {
        let pairs = environment("127.0.0.11".parse().unwrap(), "127.0.0.11:15080".parse().unwrap());
        let value = |name: &str| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| value.as_str());
        for name in ["http_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "grpc_proxy"] {
            assert_eq!(value(name), Some("http://127.0.0.11:15080"), "{name}");
        }
        assert_eq!(value("NO_PROXY"), Some("localhost,127.0.0.1,::1,127.0.0.11"));
        assert_eq!(value("WEFT_IP"), Some("127.0.0.11"));
    }
}
