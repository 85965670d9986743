//! Settings of several levels: which holds, whose it is, what is told of the rest, and what is made anew after a change.

use std::sync::Arc;

use super::*;

/// The shop with a Mesh, a service of the tier gold, and another namespace's service.
fn base() -> String {
    let more = "{apiVersion: weft.dev/v1alpha1, kind: Mesh, metadata: {name: mesh}, spec: {defaults: {requestTimeout: 30s}}}
---
{apiVersion: v1, kind: Service, metadata: {name: gold, namespace: shop, labels: {weft.dev/tier: gold}},
 spec: {selector: {app: gold}, ports: [{port: 81, targetPort: 8080}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: api, namespace: partner}, spec: {selector: {app: api}, ports: [{port: 80}]}}
";
    format!("{SHOP}---\n{more}")
}

fn policy(name: &str, target: &str, body: &str) -> String {
    let (namespace, name) = name.split_once('/').unwrap();
    format!(
        "{{apiVersion: weft.dev/v1alpha1, kind: TrafficPolicy, metadata: {{name: {name}, namespace: {namespace}}}, spec: \
         {{targetRefs: [{{{target}}}]{body}}}}}\n"
    )
}

fn template(name: &str, head: &str, body: &str) -> String {
    format!(
        "{{apiVersion: weft.dev/v1alpha1, kind: PolicyTemplate, metadata: {{name: {name}}}, spec: {{{head}trafficPolicy: \
         {{{body}}}}}}}\n"
    )
}

fn put(world: &mut World, text: &str, revision: u64) {
    for document in manifest::parse("policy.yaml", text).unwrap_or_else(|errors| panic!("{errors:?}\n{text}")) {
        world.put(&Owner::Applied, document.resource, Revision(revision), "uid").unwrap();
    }
}

/// The base with these, applied one after another.
fn with(texts: &[String]) -> World {
    let mut world = world(&base());
    for (revision, text) in (1_000..).zip(texts) {
        put(&mut world, text, revision);
    }
    world
}

/// What is said of a service, each with who says it.
fn said(world: &World, service: &str) -> Vec<String> {
    let all = effective(world, &name(service)).into_iter();
    all.filter_map(|it| Some(format!("{}: {} ({})", it.setting, it.value, it.by?))).collect()
}

const MESH: &str = "kind: Mesh, name: mesh";
const NAMESPACE: &str = "kind: Namespace, name: shop";
const GOLD: &str = "kind: Service, name: gold";

#[test]
fn the_nearest_says_each_setting() {
    let mesh_wide = policy("weft-system/all", MESH, ", timeouts: {request: 20s, backendRequest: 5s}");
    let tier = template("gold", "tier: gold, ", "timeouts: {request: 10s}, retry: {attempts: 3}");
    let namespace = policy("shop/all", NAMESPACE, ", timeouts: {request: 8s}, limits: {maxActiveRequests: 7}");
    let own = policy("shop/own", GOLD, ", timeouts: {request: 6s}");
    let all = [mesh_wide, tier, namespace, own];
    let check = |count: usize, service: &str, expect: &[&str]| {
        // Whatever the age: a nearer one wins.
        let mut texts = all[..count].to_vec();
        assert_eq!(said(&with(&texts), service), expect, "{count}");
        texts.reverse();
        assert_eq!(said(&with(&texts), service), expect, "{count}, the other way round");
    };
    check(0, "shop/gold", &["timeouts.request: 30s (Mesh mesh)"]);
    let of_mesh = "timeouts.backendRequest: 5s (TrafficPolicy weft-system/all, of the mesh)";
    check(1, "shop/gold", &["timeouts.request: 20s (TrafficPolicy weft-system/all, of the mesh)", of_mesh]);
    let retry = "retry: 3 more after no answer, of idempotent methods (PolicyTemplate gold, of the tier)";
    check(2, "shop/gold", &["timeouts.request: 10s (PolicyTemplate gold, of the tier)", of_mesh, retry]);
    let limits = "limits: 7 active requests of each proxy (TrafficPolicy shop/all, of the namespace)";
    let request = "timeouts.request: 8s (TrafficPolicy shop/all, of the namespace)";
    check(3, "shop/gold", &[limits, request, of_mesh, retry]);
    check(4, "shop/gold", &[limits, "timeouts.request: 6s (TrafficPolicy shop/own)", of_mesh, retry]);
    check(4, "shop/web", &[limits, request, of_mesh]);
    check(4, "partner/api", &["timeouts.request: 20s (TrafficPolicy weft-system/all, of the mesh)", of_mesh]);
    // Proxies are told the outcome, and the nearest that says any of it.
    let told = |count: usize, service: &str| {
        let bundle = bundle(&with(&all[..count]), &["shop/web-1"]);
        let traffic = bundle.services[&name(service)].traffic.clone()?;
        Some((traffic.policy.to_string(), traffic.request_timeout_ms, traffic.attempt_timeout_ms))
    };
    assert_eq!(told(0, "shop/gold"), None, "what the Mesh says is told with the Mesh");
    assert_eq!(told(2, "shop/gold"), Some(("/gold".to_owned(), Some(10_000), Some(5_000))));
    assert_eq!(told(4, "shop/gold"), Some(("shop/own".to_owned(), Some(6_000), Some(5_000))));
    assert_eq!(told(4, "partner/api"), Some(("weft-system/all".to_owned(), Some(20_000), Some(5_000))));
}

#[test]
fn of_equally_near_ones_the_oldest_says_each_setting_and_the_others_are_told() {
    for (namespace, target, place) in
        [("shop", GOLD, "Service shop/gold"), ("shop", NAMESPACE, "Namespace shop"), ("weft-system", MESH, "Mesh mesh")]
    {
        let named = |name: &str| format!("{namespace}/{name}");
        let z = policy(&named("z"), target, ", limits: {maxActiveRequests: 1}, retry: {attempts: 1}");
        let a = policy(&named("a"), target, ", limits: {maxActiveRequests: 2}, timeouts: {backendRequest: 1s}");
        let b = policy(&named("b"), target, ", timeouts: {backendRequest: 2s}, retry: {attempts: 2}");
        let world = with(&[z, a, b]);
        let values: Vec<_> = effective(&world, &name("shop/gold")).into_iter().map(|it| it.value).collect();
        let expect = ["1 active requests of each proxy", "30s", "1s", "1 more after no answer, of idempotent methods"];
        assert_eq!(values[2..6], expect, "{place}");
        let idle = |policy: &str, settings: &[&'static str], older: &str| Idle {
            policy: name(&named(policy)),
            settings: settings.to_vec(),
            older: name(&named(older)),
        };
        let idle =
            [idle("a", &["limits"], "z"), idle("b", &["timeouts.backendRequest"], "a"), idle("b", &["retry"], "z")];
        assert_eq!(without_effect(&world, &name("shop/gold")), idle, "{place}");
        let status = |policy: &str| {
            let policy = world.traffic_policy(&name(&named(policy))).unwrap();
            let Condition { status, reason, message, key, .. } = traffic_status(&world, policy).remove(0);
            (status, reason, message, key)
        };
        assert!(status("z").0);
        let told = format!("for {place} the older TrafficPolicy {namespace}/z sets limits");
        assert_eq!(status("a"), (false, "Conflicted", told, "spec.targetRefs[0]".to_owned()));
        let told = format!(
            "for {place} the older TrafficPolicy {namespace}/a sets timeouts.backendRequest; for {place} the older \
             TrafficPolicy {namespace}/z sets retry"
        );
        assert_eq!(status("b").2, told);
    }
}

#[test]
fn a_policy_for_a_mesh_that_is_not_there_holds_for_nobody() {
    let world = with(&[policy("weft-system/all", "kind: Mesh, name: other", ", retry: {attempts: 1}")]);
    assert_eq!(said(&world, "shop/web"), ["timeouts.request: 30s (Mesh mesh)"]);
    let status = traffic_status(&world, world.traffic_policy(&name("weft-system/all")).unwrap()).remove(0);
    assert_eq!((status.reason, status.message.as_str()), ("TargetNotFound", "Mesh other does not exist"));
}

#[test]
fn a_tier_is_the_oldest_template_that_is_for_the_namespace() {
    let of = |name: &str, head: &str, attempts: u32| {
        template(name, &format!("tier: gold, {head}"), &format!("retry: {{attempts: {attempts}}}"))
    };
    let texts = [of("z", "namespaces: [partner], ", 1), of("y", "namespaces: [shop, till], ", 2), of("x", "", 3)];
    let world = with(&texts);
    let retry = "retry: 2 more after no answer, of idempotent methods (PolicyTemplate y, of the tier)";
    assert_eq!(said(&world, "shop/gold").last().map(String::as_str), Some(retry));
    let status = |name: &str| {
        let status = template_status(&world, world.template(name).unwrap()).remove(0);
        (status.reason, status.message)
    };
    assert_eq!(status("y").0, "Accepted", "no namespace is both's");
    assert_eq!(status("x"), ("Conflicted", "the older PolicyTemplate z is of this tier".to_owned()));
}

#[test]
fn a_policy_says_what_its_template_does_with_its_values() {
    let parameters =
        "parameters: [{name: patience, type: Duration, max: 10s}, {name: tries, type: Integer, default: 2}], ";
    let body = "timeouts: {request: '${patience}'}, retry: {attempts: '${tries}'}, limits: {maxActiveRequests: 9}";
    let standard = template("standard", parameters, body);
    let uses = |values: &str| {
        policy(
            "shop/p",
            GOLD,
            &format!(", limits: {{maxActiveRequests: 3}}, template: {{name: standard, parameters: {{{values}}}}}"),
        )
    };
    let check = |template: &str, values: &str, expect: &[&str], told: &str| {
        let world = with(&[template.to_owned(), uses(values)]);
        assert_eq!(said(&world, "shop/gold"), expect, "{values}");
        let status = traffic_status(&world, world.traffic_policy(&name("shop/p")).unwrap()).remove(0);
        assert_eq!(status.message, told, "{values}");
    };
    let own = "limits: 3 active requests of each proxy (TrafficPolicy shop/p)";
    let from = "(TrafficPolicy shop/p by PolicyTemplate standard)";
    let good = "every target exists, and no older TrafficPolicy sets the same for one";
    let request = format!("timeouts.request: 4s {from}");
    let retry = |tries: u32| format!("retry: {tries} more after no answer, of idempotent methods {from}");
    check(&standard, "patience: 4s", &[own, &request, &retry(2)], good);
    check(&standard, "patience: 4s, tries: 5", &[own, &request, &retry(5)], good);
    // A value that it does not take: its own settings hold, and nothing of the template's.
    let mesh = "timeouts.request: 30s (Mesh mesh)";
    let told = "template.parameters.patience: 11s is out of range: 10s at most";
    check(&standard, "patience: 11s", &[own, mesh], told);
    let elsewhere = standard.replace("parameters: [", "namespaces: [partner], parameters: [");
    let told = "template.name: PolicyTemplate standard is not for namespace shop";
    check(&elsewhere, "patience: 4s", &[own, mesh], told);
    check(
        &standard.replace("name: standard", "name: other"),
        "",
        &[own, mesh],
        "PolicyTemplate standard does not exist",
    );
}

/// Numbers that look random, from a seed.
struct Draw(u64);

impl Draw {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// A drawn policy or template. Levels: the mesh, the tier, the namespace, the service.
struct Candidate {
    level: usize,
    created: u64,
    name: String,
    says: [Option<u64>; 6],
}

const LEVELS: usize = 4;

/// A setting's text in a manifest.
fn written(setting: usize, value: u64) -> String {
    let algorithm = ["RoundRobin", "Random", "LeastRequest"][usize::try_from(value).unwrap()];
    match setting {
        0 => format!("loadBalancing: {{algorithm: {algorithm}}}"),
        1 => format!("outlierDetection: {{consecutive5xx: {}}}", value + 1),
        2 => format!("limits: {{maxActiveRequests: {}}}", value + 1),
        3 => format!("request: {}ms", value + 100),
        4 => format!("backendRequest: {}ms", value + 1),
        _ => format!("retry: {{attempts: {}}}", value + 1),
    }
}

/// The same in print.
fn printed(setting: usize, value: u64) -> String {
    let number = value + 1;
    match setting {
        0 => ["RoundRobin", "Random", "LeastRequest"][usize::try_from(value).unwrap()].to_owned(),
        1 => format!("{number} of 5xx or 5 unanswered in a row (each within 10s), out for 30s to 5m, at most 10 %"),
        2 => format!("{number} active requests of each proxy"),
        3 => format!("{}ms", value + 100),
        4 => format!("{number}ms"),
        _ => format!("{number} more after no answer, of idempotent methods"),
    }
}

impl Candidate {
    fn draw(draw: &mut Draw, number: u64) -> Self {
        let level = usize::try_from(draw.below(4)).unwrap();
        let created = 100 + draw.below(5);
        let mut says = [None; 6];
        says.iter_mut().for_each(|said| *said = (draw.below(2) == 0).then(|| draw.below(3)));
        // A template that sets nothing is refused.
        says[5] = says[5].or((level == 1).then_some(0));
        Self { level, created, name: format!("p{number}"), says }
    }

    fn text(&self) -> String {
        let part = |settings: std::ops::Range<usize>| {
            let said = settings.filter_map(|setting| Some(written(setting, self.says[setting]?)));
            said.collect::<Vec<_>>().join(", ")
        };
        let timeouts = format!("timeouts: {{{}}}", part(3..5));
        let body = [part(0..3), timeouts, part(5..6)].into_iter().filter(|text| !text.is_empty());
        let body = body.collect::<Vec<_>>().join(", ");
        match self.level {
            0 => policy(&format!("weft-system/{}", self.name), MESH, &format!(", {body}")),
            1 => template(&self.name, "tier: gold, ", &body),
            2 => policy(&format!("shop/{}", self.name), NAMESPACE, &format!(", {body}")),
            _ => policy(&format!("shop/{}", self.name), GOLD, &format!(", {body}")),
        }
    }

    fn source(&self) -> String {
        match self.level {
            0 => format!("TrafficPolicy weft-system/{}, of the mesh", self.name),
            1 => format!("PolicyTemplate {}, of the tier", self.name),
            2 => format!("TrafficPolicy shop/{}, of the namespace", self.name),
            _ => format!("TrafficPolicy shop/{}", self.name),
        }
    }
}

/// Each setting by itself: from level to level, the nearest last, each takes the place of what the ones before said.
fn model(candidates: &[Candidate]) -> Vec<String> {
    let keys = ["loadBalancing", "outlierDetection", "limits", "timeouts.request", "timeouts.backendRequest", "retry"];
    let of_setting = |(setting, key): (usize, &&str)| {
        let mut held = (setting == 3).then(|| format!("{key}: 30s (Mesh mesh)"));
        for level in 0..LEVELS {
            let mut own: Vec<_> = candidates.iter().filter(|it| it.level == level).collect();
            own.sort_by_key(|it| (it.created, &it.name));
            if level == 1 {
                own.truncate(1);
            }
            if let Some((first, value)) = own.into_iter().find_map(|it| Some((it, it.says[setting]?))) {
                held = Some(format!("{key}: {} ({})", printed(setting, value), first.source()));
            }
        }
        held
    };
    keys.iter().enumerate().filter_map(of_setting).collect()
}

#[test]
fn settings_are_merged_as_level_by_level() {
    let empty = world(&base());
    for seed in 1..=1_000 {
        let mut draw = Draw(u64::wrapping_mul(seed, 0x9e37_79b9_7f4a_7c15));
        let count = draw.below(9);
        let candidates: Vec<_> = (0..count).map(|number| Candidate::draw(&mut draw, number)).collect();
        let mut world = empty.clone();
        for candidate in &candidates {
            put(&mut world, &candidate.text(), candidate.created);
        }
        assert_eq!(said(&world, "shop/gold"), model(&candidates), "seed {seed}");
    }
}

#[test]
fn what_a_policy_or_template_is_for_is_made_anew_and_nothing_else() {
    let anew = |before: &World, after: &World| -> Vec<String> {
        let served = [name("partner/api-1")];
        let first = Shared::new(Arc::new(before.clone()), "ROOTS".into(), |object| object);
        let held = first.of_proxy(&served);
        let next = first.next(Arc::new(after.clone()), "ROOTS").of_proxy(&served);
        let is_new = |object: &&Arc<_>| !held.iter().any(|known| Arc::ptr_eq(known, object));
        next.iter().filter(is_new).map(|it| it.key().to_string()).collect()
    };
    let shop: Vec<String> = ["gold", "nothing", "web", "web-v2"].map(|it| format!("Service shop/{it}")).into();
    let all: Vec<String> = std::iter::once("Service partner/api".to_owned()).chain(shop.clone()).collect();
    let uses = policy("shop/p", "kind: Service, name: web", ", template: {name: gold}");
    let before = with(&[uses, template("other", "tier: silver, ", "retry: {attempts: 1}")]);
    let check = |world: &World, text: &str, expect: &[String]| {
        let mut after = world.clone();
        put(&mut after, text, 2_000);
        assert_eq!(anew(world, &after), expect, "{text}");
        after
    };
    let gold = "Service shop/gold".to_owned();
    let web = "Service shop/web".to_owned();
    let with_gold =
        check(&before, &template("gold", "tier: gold, ", "retry: {attempts: 1}"), &[gold.clone(), web.clone()]);
    check(&with_gold, &template("gold", "", "retry: {attempts: 2}"), &[gold.clone(), web]);
    check(&before, &template("other", "tier: gold, ", "retry: {attempts: 1}"), &[gold]);
    check(&before, &template("third", "tier: bronze, ", "retry: {attempts: 1}"), &[]);
    check(&before, &policy("shop/all", NAMESPACE, ", retry: {attempts: 1}"), &shop);
    let mesh_wide = check(&before, &policy("weft-system/all", MESH, ", retry: {attempts: 1}"), &all);
    // Under another name the Mesh is another target.
    let mut after = mesh_wide.clone();
    after.remove(&ObjectKey::new(Kind::Mesh, "", "mesh"));
    let with_mesh: Vec<String> = std::iter::once("Mesh".to_owned()).chain(all).collect();
    assert_eq!(anew(&mesh_wide, &after), with_mesh);
}
