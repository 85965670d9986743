//! `bench index`: what finding the rule of a request costs with few and with many routes, by the functions that a proxy calls for
//! each request, in this process and without any traffic. Sizes take turns, so that only ratios inside one run mean anything.

use std::fmt::Write as _;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde_json::json;
use weft_policy::bundle::{Bundle, MeshSettings, Route, Service};
use weft_policy::path::NormalPath;
use weft_policy::route::{self, Authority, HeadView, Meant, Resolution, Resolver, RouteTable};

use crate::options::Index;
use crate::process::resident_kib;
use crate::report::{self, Verdict, write_pair};
use crate::statistics::{Median, count, median, ms, ratio};
use crate::weft::NAMESPACE;

/// What a request may cost with the most routes, of what it costs with the fewest.
const GOAL: f64 = 1.3;
/// Different requests of each size that are compared: as many as there are routes in the smallest.
const HOT: usize = 10;
/// Routes of a service where there are many services.
const EACH: usize = 10;

/// How routes are spread over services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Spread {
    OneService,
    ManyServices,
}

impl Spread {
    fn services(self, routes: usize) -> usize {
        match self {
            Self::OneService => 1,
            Self::ManyServices => routes.div_ceil(EACH),
        }
    }
}

/// A table and requests that meet its rules.
struct Case {
    spread: Spread,
    routes: usize,
    table: RouteTable,
    mesh: MeshSettings,
    hot: Vec<Request>,
    all: Vec<Request>,
    bytes_per_route: f64,
    build_ms: f64,
    change_ms: f64,
    /// Nanoseconds for a request, of each round.
    hot_ns: Vec<f64>,
    all_ns: Vec<f64>,
}

struct Request {
    host: String,
    path: NormalPath,
}

/// What one size came to.
#[derive(Debug, Serialize)]
struct Row {
    spread: Spread,
    routes: usize,
    services: usize,
    hot_ns: f64,
    all_ns: f64,
    bytes_per_route: f64,
    build_ms: f64,
    change_ms: f64,
}

#[derive(Debug, Serialize)]
struct Figures {
    machine: String,
    commit: String,
    rows: Vec<Row>,
    ratios: Vec<Compared>,
}

/// The most routes beside the fewest.
#[derive(Debug, Serialize)]
struct Compared {
    spread: Spread,
    most: usize,
    fewest: usize,
    hot: Median,
    all: Median,
    verdict: Verdict,
}

pub(crate) fn run(options: &Index) -> Result<()> {
    let mut sizes = options.routes.clone();
    sizes.sort_unstable();
    if sizes.first().is_none_or(|fewest| *fewest < HOT) {
        bail!("a size has {HOT} routes or more");
    }
    let mut cases = Vec::new();
    for spread in [Spread::OneService, Spread::ManyServices] {
        // The largest first: what it leaves behind would hide what a small one takes.
        for routes in sizes.iter().rev() {
            cases.push(Case::new(spread, *routes).with_context(|| format!("{routes} routes"))?);
        }
    }
    for _ in 0..options.rounds {
        // Forth and back, as in `peers`.
        cases.reverse();
        for case in &mut cases {
            let (hot, all) = (case.time(&case.hot, options.requests)?, case.time(&case.all, options.requests)?);
            case.hot_ns.push(hot);
            case.all_ns.push(all);
        }
    }
    cases.sort_by_key(|case| (case.spread == Spread::ManyServices, case.routes));
    let ratios = [Spread::OneService, Spread::ManyServices].into_iter().filter_map(|spread| compared(&cases, spread));
    let (machine, commit, ratios) = (report::machine(), report::commit(), ratios.collect());
    let figures = Figures { machine, commit, rows: cases.iter().map(Case::row).collect(), ratios };
    write_pair(&options.reports, "index", &markdown(options, &figures), &figures)
}

fn compared(cases: &[Case], spread: Spread) -> Option<Compared> {
    let mut own = cases.iter().filter(|case| case.spread == spread);
    let fewest = own.next()?;
    let most = own.next_back()?;
    let (hot, all) = (ratio(&most.hot_ns, &fewest.hot_ns)?, ratio(&most.all_ns, &fewest.all_ns)?);
    let verdict = Verdict::of(&hot, GOAL);
    Some(Compared { spread, most: most.routes, fewest: fewest.routes, hot, all, verdict })
}

impl Case {
    fn new(spread: Spread, routes: usize) -> Result<Self> {
        let services = spread.services(routes);
        let mut bundle = Bundle { mesh: Some(mesh()?), ..Bundle::default() };
        for number in 0..services {
            let service = service(number)?;
            bundle.services.insert(service.name.clone(), service);
        }
        for number in 0..routes {
            let route = route(number, number % services, "app")?;
            bundle.routes.insert(route.name.clone(), route);
        }
        let mut changed = bundle.clone();
        let other = route(0, 0, "other")?;
        changed.routes.insert(other.name.clone(), other);
        let (bundle, changed) = (Arc::new(bundle), Arc::new(changed));
        let (before, began) = (resident_kib()?, Instant::now());
        let table = RouteTable::new(&bundle);
        let (build_ms, taken) = (ms(began.elapsed()), resident_kib()?.saturating_sub(before) * 1024);
        let began = Instant::now();
        drop(black_box(RouteTable::following(&changed, Some(&table))));
        let change_ms = ms(began.elapsed());
        let request = |number: usize| request(number, number % services);
        Ok(Self {
            hot: (0..HOT).map(|number| request(number * routes / HOT)).collect::<Result<_>>()?,
            // In an order in which neighbours are far from each other; 7,919 is a prime.
            all: (0..routes).map(|number| request(number * 7_919 % routes)).collect::<Result<_>>()?,
            bytes_per_route: count(taken) / count(routes as u64),
            spread,
            routes,
            table,
            mesh: mesh()?,
            build_ms,
            change_ms,
            hot_ns: Vec::new(),
            all_ns: Vec::new(),
        })
    }

    /// Nanoseconds for each of so many requests, in turn.
    fn time(&self, requests: &[Request], times: usize) -> Result<f64> {
        let resolver =
            Resolver { table: &self.table, mesh: &self.mesh, from_namespace: NAMESPACE, is_local: &|_| false };
        let began = Instant::now();
        for (dice, request) in (0_u64..).zip(requests.iter().cycle().take(times)) {
            let authority = Authority { host: &request.host, port: Some(80) };
            let Resolution::Mesh(to) = resolver.resolve(Meant::Nothing, Some(authority)) else {
                bail!("{} is no service", request.host);
            };
            let head = HeadView {
                method: "GET",
                path: &request.path,
                host: Some(&request.host),
                headers: &|_| None,
                others: &[],
            };
            let plan = route::plan(&self.table, &to, NAMESPACE, &head, dice, &self.mesh);
            black_box(plan.with_context(|| format!("{}{}", request.host, request.path))?);
        }
        Ok(began.elapsed().as_secs_f64() * 1e9 / count(times as u64))
    }

    fn row(&self) -> Row {
        Row {
            spread: self.spread,
            routes: self.routes,
            services: self.spread.services(self.routes),
            hot_ns: median(&self.hot_ns),
            all_ns: median(&self.all_ns),
            bytes_per_route: self.bytes_per_route,
            build_ms: self.build_ms,
            change_ms: self.change_ms,
        }
    }
}

fn mesh() -> Result<MeshSettings> {
    let settings = json!({
        "trust_domain": "cluster.local", "trust_bundle_pem": "", "access_log": false, "connect_timeout_ms": 1_000,
        "max_retries": 1,
    });
    Ok(serde_json::from_value(settings)?)
}

fn service(number: usize) -> Result<Service> {
    let service = json!({
        "name": {"namespace": NAMESPACE, "name": format!("app-{number}")},
        "ports": [{"port": 80, "target_port": 8080, "protocol": "http"}],
        "endpoints": [],
    });
    Ok(serde_json::from_value(service)?)
}

/// The first of two is met by a prefix, the second by a whole path, the third also by a method.
fn route(number: usize, service: usize, label: &str) -> Result<Route> {
    let path =
        if number.is_multiple_of(2) { json!({"Prefix": place(number)}) } else { json!({"Exact": place(number)}) };
    let mut matching = json!({"path": path, "headers": []});
    if number % 3 == 2 {
        matching["method"] = "GET".into();
    }
    let app = json!({"namespace": NAMESPACE, "name": format!("app-{service}")});
    let route = json!({
        "name": {"namespace": NAMESPACE, "name": format!("route-{number}")},
        "parent": app,
        "created": number,
        "rules": [{"name": label, "matches": [matching], "backends": [{"service": app, "port": 80, "weight": 1}]}],
    });
    Ok(serde_json::from_value(route)?)
}

fn request(number: usize, service: usize) -> Result<Request> {
    let below = if number.is_multiple_of(2) { "/item" } else { "" };
    let path = NormalPath::new(format!("{}{below}?page=1", place(number)).into())?;
    Ok(Request { host: format!("app-{service}.{NAMESPACE}.svc.cluster.local"), path })
}

fn place(number: usize) -> String {
    format!("/api/v1/thing-{number}")
}

fn markdown(options: &Index, figures: &Figures) -> String {
    let mut text = format!(
        "# The rule of a request, by how many routes there are\n\n{}; commit {}. {} rounds of {} requests for each size, \
         alternating, by the functions that a proxy calls for each request: name to service, then rule and backend. Ten \
         paths: {HOT} different requests, as many for each size. All paths: each route's in turn, which adds what the \
         processor's caches don't hold. Memory is that of the table beside the bundle, and means little where routes are few.\n\n\
         | routes | services | ns for a request: ten paths | all paths | bytes for a route | build ms | a change of one route ms |\n\
         |---|---|---|---|---|---|---|\n",
        figures.machine, figures.commit, options.rounds, options.requests
    );
    for row in &figures.rows {
        let Row { routes, services, hot_ns, all_ns, bytes_per_route, build_ms, change_ms, .. } = row;
        _ = writeln!(
            text,
            "| {routes} | {services} | {hot_ns:.0} | {all_ns:.0} | {bytes_per_route:.0} | {build_ms:.1} | {change_ms:.1} |"
        );
    }
    text.push_str("\n| | at most | ten paths: median [95 %] | | all paths |\n|---|---|---|---|---|\n");
    for Compared { spread, most, fewest, hot, all, verdict } in &figures.ratios {
        let of = match spread {
            Spread::OneService => "one service",
            Spread::ManyServices => "many services",
        };
        _ = writeln!(text, "| {most} / {fewest} routes, {of} | {GOAL:.1} | {hot} | {} | {all} |", verdict.word());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_request_meets_its_own_route() {
        for spread in [Spread::OneService, Spread::ManyServices] {
            let case = Case::new(spread, 30).unwrap();
            assert_eq!((case.hot.len(), case.all.len()), (HOT, 30));
            // An answer that is no plan is an error.
            assert!(case.time(&case.hot, 10).unwrap() > 0.0 && case.time(&case.all, 30).unwrap() > 0.0);
            assert_eq!(case.row().services, spread.services(30));
        }
    }
}
