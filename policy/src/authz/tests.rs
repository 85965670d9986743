//! The engine: tables of single rules, and a naive model run beside it by seeded random policies and requests.

use super::*;

const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";
const PARTNER: &str = "spiffe://cluster.local/ns/partner/sa/api";

fn request<'a>(
    principal: Option<&'a str>,
    method: &'a str,
    path: &'a str,
    headers: &'a [(&'a str, &'a str)],
) -> Request<'a> {
    Request { principal, l4: false, method, path, port: 8080, headers }
}

fn policy(action: Action, rules: Vec<Rule>) -> Policy {
    Policy { name: "shop/p".to_owned(), action, rules }
}

fn engine(policies: Vec<Policy>) -> Engine {
    Engine::new(&Config { policies, ..Config::default() }).unwrap()
}

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| (*text).to_owned()).collect()
}

fn to(operation: Operation) -> Vec<Rule> {
    vec![Rule { to: vec![operation], ..Rule::default() }]
}

fn from(source: Source) -> Vec<Rule> {
    vec![Rule { from: vec![source], ..Rule::default() }]
}

#[test]
fn without_policies_authenticated_peers_are_allowed() {
    let engine = engine(vec![]);
    let decision = engine.decide(&request(Some(WEB), "GET", "/", &[]));
    assert_eq!(decision, Decision { allowed: true, rule: None, reason: "no policy forbids it" });
    let decision = engine.decide(&request(None, "GET", "/", &[]));
    assert_eq!(decision, Decision { allowed: false, rule: None, reason: "peer is not authenticated" });
}

#[test]
fn deny_comes_first_and_allow_closes() {
    let paths = |path: &str| to(Operation { paths: strings(&[path]), ..Operation::default() });
    let named = |name: &str, mut rules: Vec<Rule>| {
        rules[0].name = Some(name.to_owned());
        rules
    };
    let allow = Policy { name: "shop/open".to_owned(), ..policy(Action::Allow, named("app", paths("/app/*"))) };
    let deny = Policy { name: "shop/no-admin".to_owned(), ..policy(Action::Deny, paths("/app/admin/*")) };
    let both = engine(vec![allow, deny.clone()]);
    let check = |engine: &Engine, path: &str, allowed: bool, rule: Option<&str>| {
        let decision = engine.decide(&request(Some(WEB), "GET", path, &[]));
        assert_eq!((decision.allowed, decision.rule), (allowed, rule), "{path}");
    };
    check(&both, "/app/x", true, Some("shop/open#app"));
    check(&both, "/app/admin/x", false, Some("shop/no-admin#0"));
    check(&both, "/other", false, Some("shop/open#no-match"));
    let deny_only = engine(vec![deny]);
    check(&deny_only, "/other", true, None);
    check(&deny_only, "/app/admin", false, Some("shop/no-admin#0"));
    check(&engine(vec![policy(Action::Allow, vec![])]), "/", false, Some("shop/p#no-match"));
    check(&engine(vec![policy(Action::Deny, vec![])]), "/", false, Some("shop/p#all"));
    check(&engine(vec![policy(Action::Allow, vec![Rule::default()])]), "/", true, Some("shop/p#0"));
}

#[test]
fn paths() {
    fn check(pattern: &str, path: &str, expect: bool) {
        let rules = to(Operation { paths: strings(&[pattern]), ..Operation::default() });
        let path = crate::path::normalize(path).unwrap();
        let engine = engine(vec![policy(Action::Allow, rules)]);
        assert_eq!(engine.decide(&request(Some(WEB), "GET", &path, &[])).allowed, expect, "{pattern} {path}");
    }
    check("/x", "/x", true);
    check("/x", "/x/", false);
    check("/x", "/X", false);
    check("/x/*", "/x/y", true);
    check("/x/*", "/x/", true);
    check("/x/*", "/x", true);
    check("/x/*", "/xy", false);
    check("/*", "/anything/at/all", true);
    check("*", "/", true);
    check("/a/{id}/b", "/a/1/b", true);
    check("/a/{id}/b", "/a/1/2/b", false);
    check("/a/{id}/b", "/a//b", false);
    check("/a/{id}", "/a/", false);
    check("/a/{id}/*", "/a/1", true);
    check("/a/{id}/*", "/a/1/2/3", true);
    check("/a/{id}/*", "/a", false);
    check("/admin/*", "/x/../%61dmin/y", true);
    check("/repos/{id}", "/repos/group%2fproject", true);
    check("/repos/group/*", "/repos/group%2fproject", false);
    check("/repos/group%2Fproject", "/repos/group%2fproject", true);
    check("/repos/group%2Fproject", "/repos/group%252fproject", false);
    check("/caf%E9", "/caf%e9", true);
    check("/@admin", "/%40admin", true);
    check("/%40admin", "/@admin", true);
    check("/café", "/caf%C3%A9", true);
    check("/a b", "/a%20b", true);
    check("/admin", "/%2561dmin", false);
}

#[test]
fn identities() {
    fn check(source: Source, principal: Option<&str>, allow: bool, deny: bool) {
        let decide = |action| {
            engine(vec![policy(action, from(source.clone()))])
                .decide(&request(principal, "GET", "/", &[]))
                .rule
                .is_some_and(|rule| rule == "shop/p#0")
        };
        assert_eq!((decide(Action::Allow), decide(Action::Deny)), (allow, deny), "{source:?} {principal:?}");
    }
    let principals = |list: &[&str]| Source { principals: strings(list), ..Source::default() };
    check(principals(&[WEB]), Some(WEB), true, true);
    check(principals(&[WEB]), Some(PARTNER), false, false);
    check(principals(&[WEB]), None, false, false);
    check(principals(&["*"]), Some(WEB), true, true);
    check(principals(&["*"]), None, false, false);
    check(principals(&["spiffe://cluster.local/ns/shop/*"]), Some(WEB), true, true);
    check(
        principals(&["spiffe://cluster.local/ns/shop/*"]),
        Some("spiffe://cluster.local/ns/shop2/sa/web"),
        false,
        false,
    );
    let namespaces = |list: &[&str]| Source { namespaces: strings(list), ..Source::default() };
    check(namespaces(&["shop"]), Some(WEB), true, true);
    check(namespaces(&["shop"]), Some("spiffe://cluster.local/ns/shop2/sa/web"), false, false);
    check(namespaces(&["shop"]), Some("spiffe://other.domain/ns/shop/sa/web"), false, false);
    let accounts = |list: &[&str]| Source { service_accounts: strings(list), ..Source::default() };
    check(accounts(&["shop/web"]), Some(WEB), true, true);
    check(accounts(&["shop/web2"]), Some(WEB), false, false);
    let not = Source { not_namespaces: strings(&["shop"]), ..Source::default() };
    check(not.clone(), Some(PARTNER), true, true);
    check(not.clone(), Some(WEB), false, false);
    check(not.clone(), None, false, true);
    check(
        Source { namespaces: strings(&["shop"]), not_principals: strings(&[WEB]), ..Source::default() },
        Some(WEB),
        false,
        false,
    );
}

#[test]
fn headers_that_are_repeated() {
    fn check(condition: HeaderCondition, values: &[&str], allow: bool, deny: bool) {
        let headers: Vec<(&str, &str)> = values.iter().map(|value| ("x-role", *value)).collect();
        let rules = to(Operation { headers: vec![condition.clone()], ..Operation::default() });
        let hit = |action| {
            engine(vec![policy(action, rules.clone())]).decide(&request(Some(WEB), "GET", "/", &headers)).rule
                == Some("shop/p#0")
        };
        assert_eq!((hit(Action::Allow), hit(Action::Deny)), (allow, deny), "{condition:?} {values:?}");
    }
    let role = || HeaderCondition { name: "X-Role".to_owned(), ..HeaderCondition::default() };
    let exact = || HeaderCondition { exact: Some("admin".to_owned()), ..role() };
    check(exact(), &["admin"], true, true);
    check(exact(), &["user"], false, false);
    check(exact(), &[], false, false);
    check(exact(), &["user", "admin"], false, true);
    // A deny rule looks at the members of a list, too; an allow rule at the value as it was sent.
    check(exact(), &["user, admin"], false, true);
    check(exact(), &["user,\tadmin ,,"], false, true);
    check(exact(), &["user, administrator"], false, false);
    check(HeaderCondition { exact: Some("user, admin".to_owned()), ..role() }, &["user, admin"], true, true);
    check(HeaderCondition { exact: Some(String::new()), ..role() }, &["user,,"], false, false);
    check(HeaderCondition { prefix: Some("ad".to_owned()), ..role() }, &["user, admin"], false, true);
    check(HeaderCondition { present: Some(false), ..role() }, &["a, b"], false, false);
    check(HeaderCondition { prefix: Some("ad".to_owned()), ..role() }, &["admin", "adder"], true, true);
    check(HeaderCondition { present: Some(true), ..role() }, &[""], true, true);
    check(HeaderCondition { present: Some(true), ..role() }, &[], false, false);
    check(HeaderCondition { present: Some(false), ..role() }, &[], true, true);
    check(HeaderCondition { present: Some(false), ..role() }, &["x"], false, false);
    let rules = to(Operation {
        headers: vec![exact(), HeaderCondition { present: Some(true), name: "B".to_owned(), ..role() }],
        ..Operation::default()
    });
    assert_eq!(engine(vec![policy(Action::Allow, rules)]).needed_headers(), ["b", "x-role", "x_role"]);
}

#[test]
fn spellings_that_servers_fold_pass_no_deny_rule_and_meet_no_allow_rule() {
    fn check(operation: &Operation, method: &str, headers: &[(&str, &str)], allow: bool, deny: bool) {
        let hit = |action| {
            let engine = engine(vec![policy(action, to(operation.clone()))]);
            engine.decide(&request(Some(WEB), method, "/", headers)).rule == Some("shop/p#0")
        };
        assert_eq!((hit(Action::Allow), hit(Action::Deny)), (allow, deny), "{operation:?} {method} {headers:?}");
    }
    let methods = Operation { methods: strings(&["DELETE"]), ..Operation::default() };
    check(&methods, "DELETE", &[], true, true);
    check(&methods, "delete", &[], false, true);
    check(&methods, "Delete", &[], false, true);
    check(&methods, "DELETED", &[], false, false);
    let but = Operation { not_methods: strings(&["DELETE"]), ..Operation::default() };
    check(&but, "GET", &[], true, true);
    check(&but, "DELETE", &[], false, false);
    check(&but, "dElete", &[], false, true);

    let header = |name: &str| HeaderCondition { name: name.to_owned(), ..HeaderCondition::default() };
    let on = |condition| Operation { headers: vec![condition], ..Operation::default() };
    let role = on(HeaderCondition { exact: Some("evil".to_owned()), ..header("X-My-Role") });
    check(&role, "GET", &[("x-my-role", "evil")], true, true);
    for spelling in ["x_my_role", "x_my-role", "x-my_role"] {
        check(&role, "GET", &[(spelling, "evil")], false, true);
        check(&role, "GET", &[(spelling, "good, evil")], false, true);
        check(&role, "GET", &[("x-my-role", "evil"), (spelling, "good")], false, true);
        check(&role, "GET", &[("x-my-role", "good"), (spelling, "evil")], false, true);
    }
    for other in ["x-my-roles", "xxmy-role", "x.my-role"] {
        check(&role, "GET", &[(other, "evil")], false, false);
    }
    check(
        &on(HeaderCondition { exact: Some("evil".to_owned()), ..header("x_my_role") }),
        "GET",
        &[("x-my-role", "evil")],
        false,
        true,
    );
    let absent = on(HeaderCondition { present: Some(false), ..header("x-debug-on") });
    check(&absent, "GET", &[], true, true);
    check(&absent, "GET", &[("x_debug_on", "1")], false, true);
    check(&absent, "GET", &[("x-debug-on", "1")], false, false);
    let needed = engine(vec![policy(Action::Deny, to(on(HeaderCondition { present: Some(true), ..header("A_b-c") })))]);
    assert_eq!(needed.needed_headers(), ["a_b-c", "a_b_c"]);
}

#[test]
fn plain_tcp() {
    fn check(operation: Operation, port: u16, allow: bool, deny: bool) {
        let request = Request { principal: Some(WEB), l4: true, method: "", path: "", port, headers: &[] };
        let hit =
            |action| engine(vec![policy(action, to(operation.clone()))]).decide(&request).rule == Some("shop/p#0");
        assert_eq!((hit(Action::Allow), hit(Action::Deny)), (allow, deny), "{operation:?} {port}");
    }
    let ports = Operation { ports: vec![5432], ..Operation::default() };
    check(ports.clone(), 5432, true, true);
    check(ports.clone(), 6379, false, false);
    check(Operation { methods: strings(&["GET"]), ..Operation::default() }, 5432, false, true);
    check(Operation { methods: strings(&["GET"]), ..ports.clone() }, 5432, false, true);
    check(Operation { not_paths: strings(&["/x"]), ..ports }, 6379, false, false);
}

#[test]
fn what_cannot_be_meant_is_refused() {
    fn check(rule: Rule, expect: &str) {
        let config = Config { policies: vec![policy(Action::Allow, vec![rule])], ..Config::default() };
        assert_eq!(Engine::new(&config).unwrap_err().to_string(), format!("shop/p: rules[0]{expect}"));
    }
    let source = |source| Rule { from: vec![source], ..Rule::default() };
    let operation = |operation| Rule { to: vec![operation], ..Rule::default() };
    let paths = |path: &str| operation(Operation { paths: strings(&[path]), ..Operation::default() });
    check(source(Source::default()), ".from[0]: names nobody; leave `from` out to mean everybody");
    check(operation(Operation::default()), ".to[0]: names nothing; leave `to` out to mean everything");
    check(
        source(Source { principals: strings(&[WEB, "web"]), ..Source::default() }),
        ".from[0].principals[1]: \"web\": a SPIFFE ID begins with spiffe://",
    );
    check(
        source(Source { principals: strings(&["*web"]), ..Source::default() }),
        ".from[0].principals[0]: \"*web\": a SPIFFE ID begins with spiffe://",
    );
    check(
        source(Source { principals: strings(&["web*"]), ..Source::default() }),
        ".from[0].principals[0]: \"web*\" is not a prefix of a SPIFFE ID; `*` stands at its end only",
    );
    check(
        source(Source { service_accounts: strings(&["web"]), ..Source::default() }),
        ".from[0].serviceAccounts[0]: \"web\" is not namespace/account",
    );
    check(
        source(Source { namespaces: strings(&["Shop"]), ..Source::default() }),
        ".from[0].namespaces[0]: \"Shop\" is not the name of a namespace",
    );
    check(
        operation(Operation { methods: strings(&["get"]), ..Operation::default() }),
        ".to[0].methods[0]: \"get\" is not a method; methods are in upper case",
    );
    check(operation(Operation { ports: vec![0], ..Operation::default() }), ".to[0].ports[0]: 0 is not a port");
    check(paths(""), ".to[0].paths[0]: \"\": path does not begin with '/'");
    check(paths("x"), ".to[0].paths[0]: \"x\": path does not begin with '/'");
    check(paths("/x*"), ".to[0].paths[0]: \"/x*\": `*` stands only alone or as the last element, as in /x/*");
    check(paths("/a/*/b"), ".to[0].paths[0]: \"/a/*/b\": `*` stands only alone or as the last element, as in /x/*");
    check(paths("/a/{id}x"), ".to[0].paths[0]: \"/a/{id}x\": {name} stands for one whole element");
    for never in ["/a/../b", "/a/.", "/%2e%2e/a"] {
        check(paths(never), &format!(".to[0].paths[0]: {never:?} is never a request's path: dots are resolved before"));
    }
    check(paths("/%c0%af"), ".to[0].paths[0]: \"/%c0%af\": path has overlong UTF-8");
    let header = |name: &str| HeaderCondition { name: name.to_owned(), ..HeaderCondition::default() };
    check(
        operation(Operation { headers: vec![header("x")], ..Operation::default() }),
        ".to[0].headers[0]: header x needs one of exact, prefix and present",
    );
    check(
        operation(Operation {
            headers: vec![HeaderCondition { present: Some(true), ..header("a b") }],
            ..Operation::default()
        }),
        ".to[0].headers[0]: \"a b\" is not the name of a header",
    );
    check(Rule { name: Some("a b".to_owned()), ..Rule::default() }, ".name: a rule's name has no blanks and no `#`");
}

/// Reference model of the engine, so plain that it can be seen to be right.
mod model {
    use super::*;

    pub(super) fn allowed(policies: &[Policy], request: &Request<'_>) -> bool {
        let hits = |action: Action| {
            let of = policies.iter().filter(|policy| policy.action == action);
            of.flat_map(|policy| &policy.rules).any(|rule| holds(rule, request, action == Action::Allow))
        };
        let denies_all = policies.iter().any(|policy| policy.action == Action::Deny && policy.rules.is_empty());
        if denies_all || hits(Action::Deny) {
            return false;
        }
        if policies.iter().any(|policy| policy.action == Action::Allow) {
            return hits(Action::Allow);
        }
        request.principal.is_some()
    }

    fn holds(rule: &Rule, request: &Request<'_>, allow: bool) -> bool {
        (rule.from.is_empty() || rule.from.iter().any(|source| from(source, request.principal, allow)))
            && (rule.to.is_empty() || rule.to.iter().any(|operation| to(operation, request, allow)))
    }

    fn from(source: &Source, principal: Option<&str>, allow: bool) -> bool {
        let Some(principal) = principal else {
            return !allow
                && source.principals.is_empty()
                && source.namespaces.is_empty()
                && source.service_accounts.is_empty();
        };
        let parts: Vec<&str> = principal.split('/').collect();
        let (namespace, account) = (parts[4], format!("{}/{}", parts[4], parts[6]));
        let principals = |list: &[String]| {
            list.iter().any(|p| p.strip_suffix('*').map_or(p == principal, |prefix| principal.starts_with(prefix)))
        };
        let within = |list: &[String], value: &str| list.iter().any(|entry| entry == value);
        (source.principals.is_empty() || principals(&source.principals))
            && (source.namespaces.is_empty() || within(&source.namespaces, namespace))
            && (source.service_accounts.is_empty() || within(&source.service_accounts, &account))
            && !principals(&source.not_principals)
            && !within(&source.not_namespaces, namespace)
            && !within(&source.not_service_accounts, &account)
    }

    fn to(operation: &Operation, request: &Request<'_>, allow: bool) -> bool {
        let ports = (operation.ports.is_empty() || operation.ports.contains(&request.port))
            && !operation.not_ports.contains(&request.port);
        let http_only = !(operation.methods.is_empty() && operation.paths.is_empty() && operation.not_paths.is_empty());
        if request.l4 {
            return ports && !(allow && http_only);
        }
        let path = |list: &[String]| list.iter().any(|pattern| path_matches(pattern, request.path));
        ports
            && (operation.methods.is_empty() || operation.methods.iter().any(|m| m == request.method))
            && (operation.paths.is_empty() || path(&operation.paths))
            && !path(&operation.not_paths)
    }

    fn path_matches(pattern: &str, path: &str) -> bool {
        let (pattern, path): (Vec<&str>, Vec<&str>) = (pattern.split('/').collect(), path.split('/').collect());
        if pattern.last() == Some(&"*") {
            let before = pattern.len() - 1;
            return path.len() >= before && pattern[..before].iter().zip(&path).all(|(a, b)| one(a, b));
        }
        pattern.len() == path.len() && pattern.iter().zip(&path).all(|(a, b)| one(a, b))
    }

    fn one(pattern: &str, segment: &str) -> bool {
        if pattern.starts_with('{') { !segment.is_empty() } else { pattern == segment }
    }
}

/// Seeded random numbers: splitmix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % bound as u64).unwrap()
    }

    fn some(&mut self, from: &[&str], rarely: usize) -> Vec<String> {
        let count = if self.below(rarely) == 0 { 1 + self.below(2) } else { 0 };
        (0..count).map(|_| from[self.below(from.len())].to_owned()).collect()
    }

    fn source(&mut self) -> Source {
        const PRINCIPALS: [&str; 5] = [
            "spiffe://cluster.local/ns/a/sa/x",
            "spiffe://cluster.local/ns/b/sa/y",
            "spiffe://cluster.local/ns/a/*",
            "*",
            "spiffe://cluster.local/ns/c/sa/x",
        ];
        loop {
            let source = Source {
                principals: self.some(&PRINCIPALS, 2),
                not_principals: self.some(&PRINCIPALS, 6),
                namespaces: self.some(&["a", "b"], 3),
                not_namespaces: self.some(&["a", "b"], 6),
                service_accounts: self.some(&["a/x", "b/y"], 4),
                not_service_accounts: self.some(&["a/x", "b/y"], 6),
            };
            if source != Source::default() {
                return source;
            }
        }
    }

    fn operation(&mut self) -> Operation {
        const PATHS: [&str; 7] = ["/", "/a", "/a/*", "/a/{id}", "/a/{id}/b", "/*", "/{x}/b/*"];
        loop {
            let operation = Operation {
                methods: self.some(&["GET", "POST"], 3),
                paths: self.some(&PATHS, 2),
                not_paths: self.some(&PATHS, 5),
                ports: if self.below(4) == 0 { vec![80] } else { vec![] },
                not_ports: if self.below(6) == 0 { vec![81] } else { vec![] },
                ..Operation::default()
            };
            if operation != Operation::default() {
                return operation;
            }
        }
    }
}

#[test]
fn agrees_with_the_model() {
    const PRINCIPALS: [Option<&str>; 5] = [
        Some("spiffe://cluster.local/ns/a/sa/x"),
        Some("spiffe://cluster.local/ns/a/sa/z"),
        Some("spiffe://cluster.local/ns/b/sa/y"),
        Some("spiffe://cluster.local/ns/c/sa/x"),
        None,
    ];
    const PATHS: [&str; 8] = ["/", "/a", "/a/", "/a/1", "/a/1/b", "/a/1/b/c", "/ab", "/c/b"];
    let mut verdicts = [0, 0];
    for seed in 0..3000 {
        let mut random = Random(seed);
        let policies: Vec<Policy> = (0..random.below(4))
            .map(|index| Policy {
                name: format!("ns/p{index}"),
                action: if random.below(3) == 0 { Action::Deny } else { Action::Allow },
                rules: (0..random.below(4))
                    .map(|_| Rule {
                        name: None,
                        from: (0..random.below(3)).map(|_| random.source()).collect(),
                        to: (0..random.below(3)).map(|_| random.operation()).collect(),
                    })
                    .collect(),
            })
            .collect();
        let engine = engine(policies.clone());
        for _ in 0..30 {
            let request = Request {
                principal: PRINCIPALS[random.below(5)],
                l4: random.below(5) == 0,
                method: ["GET", "POST", "PUT"][random.below(3)],
                path: PATHS[random.below(8)],
                port: [80, 81][random.below(2)],
                headers: &[],
            };
            let expect = model::allowed(&policies, &request);
            verdicts[usize::from(expect)] += 1;
            assert_eq!(engine.decide(&request).allowed, expect, "seed {seed}: {policies:#?} {request:?}");
        }
    }
    assert!(verdicts.iter().all(|count| *count > 10_000), "both verdicts are common: {verdicts:?}");
}
