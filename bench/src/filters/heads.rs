//! What filters add to a request at its head: pairs of sidecars that differ in their filters alone all run, and have load in turns.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::line::Line;
use super::{Extent, Setup, callee, policy, start};
use crate::chain::{Bench, Chain};
use crate::load;
use crate::statistics::{count, differences};
use crate::weft::{Attached, NAMESPACE};

/// What one filter may add to a request, in microseconds of both proxies, and to the memory of the proxy that runs it, in MiB.
const ONE: (f64, f64) = (1.5, 1.0);
const THREE: (f64, f64) = (4.0, 3.0);

/// Keys and tokens of the filter's own tests.
const TOKENS: &str = include_str!("../../../filters/jwt/vectors.json");

/// A pair with some filters.
struct Filtered {
    what: &'static str,
    filters: u32,
    policies: Vec<Value>,
    headers: Vec<(&'static str, String)>,
    goals: Option<(f64, f64)>,
}

/// What was seen of it.
struct Case {
    what: &'static str,
    filters: u32,
    goals: Option<(f64, f64)>,
    chain: Chain,
    callee: String,
    cpu_us: Vec<f64>,
    held_mib: Vec<f64>,
    memory_mib: Vec<f64>,
}

pub(super) fn measure(bench: &Bench<'_>, extent: Extent) -> Result<Vec<Line>> {
    let _origin = bench.origin()?;
    let (pairs, mut cases) = (pairs()?, Vec::new());
    let order: Vec<&str> = pairs.iter().map(|pair| pair.what).collect();
    for (number, filtered) in (1..).zip(pairs) {
        let Filtered { what, filters, policies, headers, goals } = filtered;
        let attached = Attached { components: Vec::new(), policies };
        let chain = start(bench, Setup { number, name: what, workers: 2, attached, headers })?;
        load::closed_loop(&chain.entry, extent.connections, 1, &bench.scratch)
            .with_context(|| format!("warming {what}"))?;
        let (cpu_us, held_mib, memory_mib) = (Vec::new(), Vec::new(), Vec::new());
        cases.push(Case { what, filters, goals, chain, callee: callee(number), cpu_us, held_mib, memory_mib });
    }
    for round in 1..=extent.rounds {
        // Forth and back, as in `peers`.
        cases.reverse();
        for case in &mut cases {
            case.load(bench, extent).with_context(|| format!("{} in round {round}", case.what))?;
        }
    }
    let without = cases.iter().find(|case| case.filters == 0).context("a pair without filters")?;
    let mut lines = vec![Line::of("pair without filters, CPU for a request", "us", without.cpu_us.clone(), None)];
    let of_name = |what: &&str| cases.iter().find(|case| case.what == *what && case.filters > 0);
    for case in order.iter().filter_map(of_name) {
        let (us, mib) = case.goals.unzip();
        let (what, cpu) = (case.what, differences(&case.cpu_us, &without.cpu_us));
        lines.push(Line::of(format!("{what}: CPU for a request"), "us", cpu, us));
        let held = differences(&case.held_mib, &without.held_mib);
        lines.push(Line::of(format!("{what}: memory that the proxy holds"), "MiB", held, mib));
        let memory = differences(&case.memory_mib, &without.memory_mib);
        lines.push(Line::of(format!("{what}: the same and its pages of files"), "MiB", memory, None));
    }
    Ok(lines)
}

impl Case {
    /// Load on this pair, while the others have none.
    fn load(&mut self, bench: &Bench<'_>, extent: Extent) -> Result<()> {
        let (called, before) = (calls(&self.callee)?, self.chain.usage());
        let seen = load::closed_loop(&self.chain.entry, extent.connections, extent.seconds, &bench.scratch)?;
        let after = self.chain.usage();
        self.chain.check()?;
        let (called, requests) = (calls(&self.callee)? - called, count(seen.requests));
        let expect = requests * f64::from(self.filters);
        ensure!(called >= expect, "{requests} requests made {called} calls of filters, at least {expect} are expected");
        let cpu_us = after.cpu.saturating_sub(before.cpu).as_secs_f64() * 1e6 / requests.max(1.0);
        let callee = self.chain.callee();
        let memory_mib = count(callee.rss_kib) / 1024.0;
        self.held_mib.push(count(callee.held_kib) / 1024.0);
        eprintln!("weft-bench: {:<20} {:>8.0} req/s, {cpu_us:.2} us, {memory_mib:.1} MiB", self.what, seen.rate);
        self.cpu_us.push(cpu_us);
        self.memory_mib.push(memory_mib);
        Ok(())
    }
}

/// Calls of all filters that a proxy has counted.
fn calls(address: &str) -> Result<f64> {
    let mut curl = Command::new("curl");
    let output = curl.args(["-sS", "--max-time", "5", &format!("http://{address}:15020/metrics")]).output()?;
    ensure!(output.status.success(), "no metrics of {address}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(sum(&String::from_utf8_lossy(&output.stdout), "weft_filter_calls_total"))
}

/// The sum of a metric's series.
fn sum(metrics: &str, name: &str) -> f64 {
    let of_it = metrics.lines().filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])));
    of_it.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// Every pair: without filters, with one each, and with three.
fn pairs() -> Result<Vec<Filtered>> {
    let one = |what, policies: Value| Filtered {
        what,
        filters: 1,
        policies: vec![policies],
        headers: Vec::new(),
        goals: Some(ONE),
    };
    let three = Filtered {
        filters: 3,
        policies: vec![fault(), ratelimit(), authz()],
        goals: Some(THREE),
        ..one("authz-fault-ratelimit", Value::Null)
    };
    let (hmac, signed) = (token("HS256", "hs")?, token("EdDSA", "ed")?);
    let with_token = |what, (key, bearer): (Value, String), goals| Filtered {
        headers: vec![("authorization", bearer)],
        goals,
        ..one(what, jwt(&key))
    };
    Ok(vec![
        Filtered { filters: 0, policies: Vec::new(), goals: None, ..one("none", Value::Null) },
        one("authz", authz()),
        one("ratelimit", ratelimit()),
        one("fault", fault()),
        one("header-edit", header_edit()),
        one("expr", expr()),
        with_token("jwt-hs256", hmac, Some(ONE)),
        // The signature alone costs more than the goal for a filter.
        with_token("jwt-eddsa", signed, None),
        three,
    ])
}

/// Ten rules, of which the last one matches.
fn authz() -> Value {
    let mut rules: Vec<Value> = (1..10)
        .map(|number| {
            let principal = format!("spiffe://cluster.local/ns/bench/sa/caller-{number}");
            json!({
                "name": format!("r{number}"),
                "from": [{"principals": [principal]}],
                "to": [{"methods": ["GET", "POST"], "paths": [format!("/section-{number}/*")]}],
            })
        })
        .collect();
    rules.push(json!({
        "name": "client",
        "from": [{"principals": ["spiffe://cluster.local/ns/bench/sa/client"]}],
        "to": [{"methods": ["GET"], "paths": ["/"]}],
    }));
    json!({
        "apiVersion": "weft.dev/v1alpha1",
        "kind": "AccessPolicy",
        "metadata": {"name": "ten", "namespace": NAMESPACE},
        "spec": {"targetRefs": [{"kind": "Service", "name": "origin"}], "action": "Allow", "rules": rules},
    })
}

fn ratelimit() -> Value {
    let limit = json!({"key": "identity", "requests": 1_000_000_000, "per_seconds": 1, "burst": 1_000_000_000});
    let more = json!({"order": 2, "capabilities": ["token-bucket"]});
    policy("ratelimit", "ratelimit", &more, &json!({"limits": [limit]}))
}

fn fault() -> Value {
    let abort = json!({"status": 503, "percentage": 100, "headers": [{"name": "x-abort", "exact": "yes"}]});
    policy("fault", "fault", &json!({"order": 1}), &json!({"abort": abort}))
}

fn header_edit() -> Value {
    let set = json!([{"name": "x-env", "value": "bench"}, {"name": "x-caller", "from": "source.principal"}]);
    policy("header-edit", "header-edit", &Value::Null, &json!({"request": {"set": set}}))
}

fn expr() -> Value {
    let when = "request.path.startsWith('/admin') && source.namespace != 'ops'";
    let rule = json!({"name": "admin", "when": when, "then": {"deny": {}}});
    policy("expr", "expr", &Value::Null, &json!({"rules": [rule]}))
}

fn jwt(key: &Value) -> Value {
    let config = json!({"issuers": ["https://issuer.test"], "audiences": ["shop"], "keys": [key]});
    policy("jwt", "jwt", &json!({"capabilities": ["crypto"]}), &config)
}

/// A key, and what a caller sends who has a token of it.
pub(super) fn token(algorithm: &str, id: &str) -> Result<(Value, String)> {
    let vectors: Value = serde_json::from_str(TOKENS).context("the tokens are JSON")?;
    let token = vectors["tokens"][algorithm].as_str().with_context(|| format!("a token of {algorithm}"))?;
    let keys = vectors["config"]["keys"].as_array().context("keys")?;
    let key = keys.iter().find(|key| key["kid"] == id).with_context(|| format!("the key {id}"))?;
    Ok((key.clone(), format!("Bearer {token}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_has_its_filters_and_one_has_none() {
        let pairs = pairs().unwrap();
        assert_eq!(pairs.iter().filter(|pair| pair.filters == 0).count(), 1);
        for pair in &pairs {
            assert_eq!(pair.policies.len(), pair.filters as usize, "{}", pair.what);
            assert!(pair.policies.iter().all(Value::is_object), "{}", pair.what);
        }
    }

    #[test]
    fn calls_are_summed_over_filters() {
        let text = "# HELP weft_filter_calls_total x\nweft_filter_calls_total{name=\"a b\"} 3\n\
                    weft_filter_calls_total{name=\"c\"} 4\nweft_filter_calls_total_more 9\n";
        assert_eq!(sum(text, "weft_filter_calls_total"), 7.0);
    }
}
