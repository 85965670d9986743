//! What calls of filters cost without a proxy around them, by the crate that proxies run them with: in a process of its own, on
//! one thread.

use std::hint::black_box;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use bytes::Bytes;
use ed25519_dalek::pkcs8::EncodePublicKey as _;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::{Signer as _, SigningKey};
use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::{Value, json};
use weft_filter_host::{
    Attributes, Chain, Digest, Event, FilterSpec, Host, HostConfig, Outcome, Position, Prepared, RequestView, Summary,
    Worker,
};
use weft_policy::bundle::{Direction, FilterMode, OnFailure, OverBody};
use weft_policy::path::{NormalPath, PathReading};

use super::Series;
use super::heads::token;
use super::line::Line;
use crate::options::{Inside, Measure};
use crate::process::resident_kib;
use crate::statistics::{count, differences, ms};

/// Calls of which one value of a round is the mean.
const CALLS: u32 = 2_000;
const CHUNK: usize = 16 << 10;
/// Loops of which one value of a round is the worst.
const LOOPS: u32 = 5;
/// What one call may take where that is not the subject.
const TIMEOUT: Duration = Duration::from_millis(50);
const LOOP_BUDGET: Duration = Duration::from_millis(5);
const CHAINS: usize = 100;
const CALLER: &str = "spiffe://cluster.local/ns/web/sa/front";

/// True where a process gives one value, since memory that was used once is seldom given back whole.
pub(super) fn is_single(measure: Measure) -> bool {
    match measure {
        Measure::Chains | Measure::ChainsApart => true,
        Measure::Heads | Measure::Rules | Measure::Cookie | Measure::FirstCall | Measure::Loop => false,
    }
}

/// The values as lines of the report, with the goals that there are.
pub(super) fn lines(measure: Measure, series: Series) -> Vec<Line> {
    let (unit, goal) = match measure {
        Measure::Heads => ("us", None),
        Measure::Rules => ("x", Some(2.0)),
        Measure::Cookie => ("us", Some(0.3)),
        Measure::FirstCall => ("ms", Some(5.0)),
        Measure::Loop => ("ms", Some(2.0)),
        Measure::Chains | Measure::ChainsApart => ("MiB", Some(64.0)),
    };
    series.into_iter().map(|(what, values)| Line::of(what, unit, values, goal)).collect()
}

pub(super) fn measure(options: &Inside) -> Result<Series> {
    let rounds = options.rounds.max(1);
    let place = Place { components: options.components.clone(), cache: options.cache.clone() };
    match options.what {
        Measure::Heads => heads(&place, rounds),
        Measure::Rules => rules(&place, rounds),
        Measure::Cookie => cookie(&place, rounds),
        Measure::FirstCall => first_call(&place, rounds),
        Measure::Loop => endless(&place, rounds),
        Measure::Chains => chains(&place, false),
        Measure::ChainsApart => chains(&place, true),
    }
}

/// Folders of components and of what was compiled of them.
struct Place {
    components: PathBuf,
    cache: PathBuf,
}

impl Place {
    fn made(&self) -> Result<Made<'_>> {
        let config = HostConfig { cache_dir: Some(self.cache.clone()), ..HostConfig::default() };
        Ok(Made { host: Host::new(config)?, place: self })
    }

    fn wasm(&self, name: &str) -> Result<Vec<u8>> {
        let path = self.components.join(format!("{name}.wasm"));
        std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
    }
}

/// A host that makes filters ready.
struct Made<'p> {
    host: Host,
    place: &'p Place,
}

impl Made<'_> {
    /// The filter `name` of an attachment, which filters of the same namespace share instances with.
    fn filter(&self, attachment: &str, name: &str, config: &Value, timeout: Duration) -> Result<Arc<Prepared>> {
        let wasm = self.place.wasm(name)?;
        let spec = spec(attachment, name, &wasm, config, timeout)?;
        self.host.prepare(&spec, &wasm).with_context(|| format!("{name} can't be made ready"))
    }

    /// A chain of it alone.
    fn chain(&self, attachment: &str, name: &str, config: &Value) -> Result<Chain> {
        Ok(Chain::new(vec![self.filter(attachment, name, config, TIMEOUT)?]))
    }
}

fn spec(attachment: &str, name: &str, wasm: &[u8], config: &Value, call_timeout: Duration) -> Result<FilterSpec> {
    let key = SigningKey::from_bytes(&[7; 32]);
    let digest = Digest::of(wasm);
    let public = key.verifying_key().to_public_key_pem(LineEnding::LF);
    Ok(FilterSpec {
        name: attachment.to_owned(),
        filter: name.to_owned(),
        version: "1.0.0".to_owned(),
        digest,
        signature: key.sign(digest.as_bytes()).to_bytes().to_vec(),
        public_key_pem: public.map_err(|error| anyhow!("the public key: {error}"))?,
        statement: None,
        direction: Direction::Inbound,
        config_json: config.to_string(),
        on_failure: OnFailure::Deny,
        mode: FilterMode::Enforce,
        authorization: name == "authz",
        capabilities: ["token-bucket", "crypto"].map(str::to_owned).to_vec(),
        grants: Vec::new(),
        shipped: name != "hostile2",
        scope: attachment.split_once('/').map_or("", |(namespace, _)| namespace).to_owned(),
        memory_bytes: 64 << 20,
        call_timeout,
        body_bytes: 1 << 20,
        over_body: OverBody::Refuse,
    })
}

/// A worker, and the request that it judges again and again.
struct Bench {
    worker: Worker,
    stream: u64,
    authority: Option<Authority>,
    path: Option<NormalPath>,
    headers: HeaderMap,
}

impl Bench {
    fn new(host: &Host) -> Result<Self> {
        let mut headers = HeaderMap::new();
        for (name, value) in [("user-agent", "wrk"), ("accept", "*/*"), ("x-request-id", "0123456789abcdef")] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        let (_, bearer) = token("HS256", "hs")?;
        headers.insert("authorization", HeaderValue::from_str(&bearer)?);
        Ok(Self {
            worker: Worker::new(host),
            stream: 0,
            authority: Some(Authority::from_static("reviews.shop:80")),
            path: Some(NormalPath::new("/api/v1/items/42".into()).context("a path")?),
            headers,
        })
    }

    /// The head of a new request, which is not done yet; true where it may pass.
    fn head(&mut self, chain: &Chain) -> bool {
        self.stream += 1;
        let attributes = Attributes {
            principal: Some(CALLER),
            source: None,
            destination_port: 80,
            direction: Direction::Inbound,
            request_id: None,
            destination_service: Some("shop/reviews"),
            route: None,
            tls: true,
            protocol: "h2",
        };
        let mut body = None;
        let mut view = RequestView {
            method: &Method::GET,
            authority: &mut self.authority,
            path: &mut self.path,
            path_reading: PathReading::default(),
            headers: &mut self.headers,
            body: &mut body,
        };
        let outcome = self.worker.request_head(chain, Position::START, Event::Go, self.stream, &mut view, &attributes);
        matches!(outcome, Outcome::Permitted(_))
    }

    fn done(&mut self, chain: &Chain) {
        self.worker.done(chain, self.stream, &Summary::default());
    }

    /// Microseconds for a request's head, on the average of many.
    fn head_us(&mut self, chain: &Chain) -> Result<f64> {
        let began = Instant::now();
        for _ in 0..CALLS {
            let passed = self.head(chain);
            self.done(chain);
            ensure!(passed, "a request was not let pass");
        }
        Ok(us(began.elapsed()) / f64::from(CALLS))
    }

    /// Microseconds for a chunk of a request's body, on the average of many.
    fn chunk_us(&mut self, chain: &Chain) -> Result<f64> {
        ensure!(self.head(chain), "a request was not let pass");
        let bytes = Bytes::from(vec![0; CHUNK]);
        let began = Instant::now();
        for _ in 0..CALLS {
            match self.worker.request_chunk(chain, self.stream, bytes.clone(), false) {
                Ok(chunk) => drop(black_box(chunk)),
                Err(cut) => bail!("a chunk was not let pass: {cut:?}"),
            }
        }
        let took = us(began.elapsed()) / f64::from(CALLS);
        self.done(chain);
        Ok(took)
    }
}

fn us(time: Duration) -> f64 {
    ms(time) * 1_000.0
}

/// One call of each shipped filter that judges heads.
fn heads(place: &Place, rounds: u32) -> Result<Series> {
    let made = place.made()?;
    let (key, _) = token("HS256", "hs")?;
    let tokens = json!({"issuers": ["https://issuer.test"], "audiences": ["shop"], "keys": [key]});
    let limit = json!({"key": "identity", "requests": 1_000_000_000});
    let abort = json!({"status": 503, "percentage": 0, "headers": [{"name": "x-fault"}]});
    let admin = json!({"f": ["starts_with", [{"v": "request.path"}, {"s": "/admin"}]]});
    let expression = json!({"name": "admin", "then": {"deny": {"status": 404}}, "when": admin});
    let mut chains = Vec::new();
    for (name, config) in [
        ("authz", numbered(10)),
        ("ratelimit", json!({"limits": [limit]})),
        ("fault", json!({"abort": abort})),
        ("header-edit", json!({"request": {"set": [{"name": "x-caller", "from": "source.principal"}]}})),
        ("expr", json!({"rules": [expression]})),
        ("jwt", tokens),
    ] {
        let chain = made.chain(&format!("bench/{name}"), name, &config)?;
        chains.push((format!("{name}: run of a chain of it alone"), chain));
    }
    chains.push(("no filter: run of a chain".to_owned(), Chain::default()));
    let mut bench = Bench::new(&made.host)?;
    let mut series: Series = chains.iter().map(|(what, _)| (what.clone(), Vec::new())).collect();
    for _ in 0..rounds {
        for ((what, chain), (_, values)) in chains.iter().zip(&mut series) {
            values.push(bench.head_us(chain).with_context(|| what.clone())?);
        }
    }
    Ok(series)
}

/// Authorization by many rules beside few.
fn rules(place: &Place, rounds: u32) -> Result<Series> {
    let made = place.made()?;
    let (few, many) = (numbered(10), numbered(10_000));
    let (few, many) = (made.chain("few/authz", "authz", &few)?, made.chain("many/authz", "authz", &many)?);
    let mut bench = Bench::new(&made.host)?;
    let mut ratios = Vec::new();
    for _ in 0..rounds {
        let (few, many) = (bench.head_us(&few)?, bench.head_us(&many)?);
        ratios.push(many / few);
    }
    Ok(vec![("authz: 10,000 rules, of 10 rules".to_owned(), ratios)])
}

/// Rules for so many callers, of which the last one matches.
fn numbered(rules: usize) -> Value {
    let mut all: Vec<Value> = (1..rules)
        .map(|number| {
            json!({
                "name": format!("r{number}"),
                "from": [{"principals": [format!("spiffe://cluster.local/ns/web/sa/caller-{number}")]}],
                "to": [{"methods": ["GET"], "paths": [format!("/section-{number}/*")]}],
            })
        })
        .collect();
    all.push(json!({"name": "last", "from": [{"principals": [CALLER]}], "to": [{"paths": ["/api/v1/items/{id}"]}]}));
    json!({"policies": [{"name": "shop/p", "action": "Allow", "rules": all}]})
}

/// A hook that keeps a byte between calls beside one that keeps nothing.
fn cookie(place: &Place, rounds: u32) -> Result<Series> {
    let made = place.made()?;
    let (without, with) = (json!({"mode": "pass", "at": "request-body"}), json!({"mode": "count"}));
    let without = made.chain("without/cookie", "hostile2", &without)?;
    let with = made.chain("with/cookie", "hostile2", &with)?;
    let mut bench = Bench::new(&made.host)?;
    let (mut withouts, mut withs) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        withouts.push(bench.chunk_us(&without)?);
        withs.push(bench.chunk_us(&with)?);
    }
    Ok(vec![("a cookie, there and back".to_owned(), differences(&withs, &withouts))])
}

/// From what was compiled before, on disk, to the first request that was judged.
fn first_call(place: &Place, rounds: u32) -> Result<Series> {
    let config = numbered(10);
    drop(place.made()?.chain("bench/authz", "authz", &config)?);
    let mut took = Vec::new();
    for _ in 0..rounds {
        let made = place.made()?;
        let began = Instant::now();
        let chain = made.chain("bench/authz", "authz", &config)?;
        let mut bench = Bench::new(&made.host)?;
        ensure!(bench.head(&chain), "a request was not let pass");
        took.push(ms(began.elapsed()));
        bench.done(&chain);
        let hits = made.host.cache_stats().map_or(0, |stats| stats.hits);
        ensure!(hits > 0, "it was compiled anew");
    }
    Ok(vec![("from compiled code on disk to the first call".to_owned(), took)])
}

/// By how much a call that never ends is longer than it may be.
fn endless(place: &Place, rounds: u32) -> Result<Series> {
    let made = place.made()?;
    let told = made.filter("bench/told", "hostile2", &json!({"mode": "told"}), LOOP_BUDGET)?;
    let chain = Chain::new(vec![told]);
    let mut bench = Bench::new(&made.host)?;
    ensure!(bench.head(&chain), "a request was not let pass");
    bench.done(&chain);
    bench.headers.insert(HeaderName::from_static("x-do"), HeaderValue::from_static("loop"));
    let mut over = Vec::new();
    for _ in 0..rounds {
        let mut worst = Duration::ZERO;
        for _ in 0..LOOPS {
            let began = Instant::now();
            ensure!(!bench.head(&chain), "an endless loop was let pass");
            worst = worst.max(began.elapsed());
            bench.done(&chain);
        }
        over.push(ms(worst.saturating_sub(LOOP_BUDGET)));
    }
    Ok(vec![(format!("the longest of {LOOPS} endless calls, beyond its {} ms", LOOP_BUDGET.as_millis()), over)])
}

/// Memory of many chains of three filters beside that of one.
fn chains(place: &Place, apart: bool) -> Result<Series> {
    let made = place.made()?;
    let mut bench = Bench::new(&made.host)?;
    let mut chain = |number: usize| -> Result<Chain> {
        let scope = if apart { format!("ns-{number}") } else { "one".to_owned() };
        let limit = json!({"key": "identity", "requests": 1_000_000_000, "name": format!("limit-{number}")});
        let abort = json!({"status": 503, "percentage": 0, "headers": [{"name": format!("x-fault-{number}")}]});
        let filters =
            [("fault", json!({"abort": abort})), ("ratelimit", json!({"limits": [limit]})), ("authz", numbered(10))]
                .map(|(name, config)| made.filter(&format!("{scope}/{name}-{number}"), name, &config, TIMEOUT));
        let chain = Chain::new(filters.into_iter().collect::<Result<_>>()?);
        ensure!(bench.head(&chain), "a request was not let pass");
        bench.done(&chain);
        Ok(chain)
    };
    let first = chain(0)?;
    let before = resident_kib()?;
    let all = (1..=CHAINS).map(&mut chain).collect::<Result<Vec<_>>>()?;
    let grown = (count(resident_kib()?) - count(before)) / 1024.0;
    drop((first, all));
    let of = if apart { "each of a namespace of its own" } else { "of one namespace" };
    Ok(vec![(format!("{CHAINS} chains of three filters, {of}"), vec![grown])])
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Where `cargo xtask build` puts components.
    fn components() -> PathBuf {
        if let Some(folder) = std::env::var_os("WEFT_FILTERS_DIR") {
            return folder.into();
        }
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let target = std::env::var_os("CARGO_TARGET_DIR");
        target.map_or_else(|| root.join("target"), |target| root.join(target)).join("filters")
    }

    #[test]
    fn what_is_measured_without_a_proxy_runs() {
        let cache = tempfile::tempdir().unwrap();
        let place = Place { components: components(), cache: cache.path().join("compiled") };
        for (measured, values) in [(cookie(&place, 1), 1), (first_call(&place, 2), 2), (endless(&place, 1), 1)] {
            let series = measured.unwrap();
            assert_eq!((series.len(), series[0].1.len()), (1, values), "{series:?}");
        }
    }

    #[test]
    fn the_last_of_the_rules_is_the_caller_s() {
        let rules = &numbered(10)["policies"][0]["rules"];
        assert_eq!(rules.as_array().unwrap().len(), 10);
        assert_eq!(rules[9]["from"][0]["principals"][0], CALLER);
    }

    #[test]
    fn values_of_one_process_each_are_those_of_memory() {
        let values = |measure| lines(measure, vec![("x".to_owned(), vec![1.0])]);
        assert!(is_single(Measure::Chains) && !is_single(Measure::Loop));
        assert!(values(Measure::Cookie)[0].row().ends_with("| 0.3 us | not shown to be missed |\n"));
        assert!(values(Measure::Heads)[0].row().ends_with("|  |  |\n"), "no goal");
    }
}
