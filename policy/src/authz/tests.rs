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
    Request { l4: false, method, path, headers, ..Request::connection(principal, 8080) }
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
    fn check(condition: ValueCondition, values: &[&str], allow: bool, deny: bool) {
        let headers: Vec<(&str, &str)> = values.iter().map(|value| ("x-role", *value)).collect();
        let rules = to(Operation { headers: vec![condition.clone()], ..Operation::default() });
        let hit = |action| {
            engine(vec![policy(action, rules.clone())]).decide(&request(Some(WEB), "GET", "/", &headers)).rule
                == Some("shop/p#0")
        };
        assert_eq!((hit(Action::Allow), hit(Action::Deny)), (allow, deny), "{condition:?} {values:?}");
    }
    let role = || ValueCondition { name: "X-Role".to_owned(), ..ValueCondition::default() };
    let exact = || ValueCondition { exact: Some("admin".to_owned()), ..role() };
    check(exact(), &["admin"], true, true);
    check(exact(), &["user"], false, false);
    check(exact(), &[], false, false);
    check(exact(), &["user", "admin"], false, true);
    // A deny rule looks at the members of a list, too; an allow rule at the value as it was sent.
    check(exact(), &["user, admin"], false, true);
    check(exact(), &["user,\tadmin ,,"], false, true);
    check(exact(), &["user, administrator"], false, false);
    check(ValueCondition { exact: Some("user, admin".to_owned()), ..role() }, &["user, admin"], true, true);
    check(ValueCondition { exact: Some(String::new()), ..role() }, &["user,,"], false, false);
    check(ValueCondition { prefix: Some("ad".to_owned()), ..role() }, &["user, admin"], false, true);
    check(ValueCondition { present: Some(false), ..role() }, &["a, b"], false, false);
    check(ValueCondition { prefix: Some("ad".to_owned()), ..role() }, &["admin", "adder"], true, true);
    check(ValueCondition { present: Some(true), ..role() }, &[""], true, true);
    check(ValueCondition { present: Some(true), ..role() }, &[], false, false);
    check(ValueCondition { present: Some(false), ..role() }, &[], true, true);
    check(ValueCondition { present: Some(false), ..role() }, &["x"], false, false);
    let rules = to(Operation {
        headers: vec![exact(), ValueCondition { present: Some(true), name: "B".to_owned(), ..role() }],
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

    let header = |name: &str| ValueCondition { name: name.to_owned(), ..ValueCondition::default() };
    let on = |condition| Operation { headers: vec![condition], ..Operation::default() };
    let role = on(ValueCondition { exact: Some("evil".to_owned()), ..header("X-My-Role") });
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
        &on(ValueCondition { exact: Some("evil".to_owned()), ..header("x_my_role") }),
        "GET",
        &[("x-my-role", "evil")],
        false,
        true,
    );
    let absent = on(ValueCondition { present: Some(false), ..header("x-debug-on") });
    check(&absent, "GET", &[], true, true);
    check(&absent, "GET", &[("x_debug_on", "1")], false, true);
    check(&absent, "GET", &[("x-debug-on", "1")], false, false);
    let needed = engine(vec![policy(Action::Deny, to(on(ValueCondition { present: Some(true), ..header("A_b-c") })))]);
    assert_eq!(needed.needed_headers(), ["a_b-c", "a_b_c"]);
}

#[test]
fn plain_tcp() {
    fn check(operation: Operation, port: u16, allow: bool, deny: bool) {
        let request = Request::connection(Some(WEB), port);
        let hit =
            |action| engine(vec![policy(action, to(operation.clone()))]).decide(&request).rule == Some("shop/p#0");
        assert_eq!((hit(Action::Allow), hit(Action::Deny)), (allow, deny), "{operation:?} {port}");
    }
    let ports = Operation { ports: vec![5432], ..Operation::default() };
    check(ports.clone(), 5432, true, true);
    check(ports.clone(), 6379, false, false);
    check(Operation { methods: strings(&["GET"]), ..Operation::default() }, 5432, false, true);
    check(Operation { methods: strings(&["GET"]), ..ports.clone() }, 5432, false, true);
    check(Operation { not_paths: strings(&["/x"]), ..ports.clone() }, 6379, false, false);
    check(Operation { hosts: strings(&["a.example"]), ..ports.clone() }, 5432, false, true);
    check(Operation { not_hosts: strings(&["a.example"]), ..ports }, 5432, false, true);
}

#[test]
fn addresses() {
    fn check(blocks: &[&str], except: &[&str], address: Option<&str>, allow: bool, deny: bool) {
        let source = Source { ip_blocks: strings(blocks), not_ip_blocks: strings(except), ..Source::default() };
        let address = address.map(|text| text.parse::<IpAddr>().unwrap());
        let hit = |action| {
            let engine = engine(vec![policy(action, from(source.clone()))]);
            assert!(engine.needs_address());
            let request = Request { address, ..request(Some(WEB), "GET", "/", &[]) };
            engine.decide(&request).rule == Some("shop/p#0")
        };
        assert_eq!((hit(Action::Allow), hit(Action::Deny)), (allow, deny), "{source:?} {address:?}");
    }
    let inner = &["10.0.0.0/8"][..];
    check(inner, &[], Some("10.1.2.3"), true, true);
    check(inner, &[], Some("::ffff:10.1.2.3"), true, true);
    check(inner, &[], Some("11.1.2.3"), false, false);
    check(inner, &[], Some("fd00::1"), false, false);
    check(inner, &["10.1.0.0/16"], Some("10.1.2.3"), false, false);
    check(inner, &["10.1.0.0/16"], Some("10.2.2.3"), true, true);
    check(&[], inner, Some("10.1.2.3"), false, false);
    check(&[], inner, Some("fd00::1"), true, true);
    check(&["fd00::/8", "10.1.2.3"], &[], Some("fd00::1"), true, true);
    check(&["fd00::/8", "10.1.2.3"], &[], Some("10.1.2.3"), true, true);
    check(&["0.0.0.0/0"], &[], Some("fd00::1"), false, false);
    // An address that is not known is let in by none, and escapes none.
    check(inner, &[], None, false, true);
    check(&[], inner, None, false, true);
    let none =
        engine(vec![policy(Action::Allow, from(Source { namespaces: strings(&["shop"]), ..Source::default() }))]);
    assert!(!none.needs_address() && !none.needs_authority());
    // A caller without identity meets no allow rule by its address alone.
    let by_address = Source { ip_blocks: strings(inner), ..Source::default() };
    let nobody = Request { address: Some(IpAddr::from([10, 0, 0, 1])), ..request(None, "GET", "/", &[]) };
    assert!(!engine(vec![policy(Action::Allow, from(by_address.clone()))]).decide(&nobody).allowed);
    assert!(!engine(vec![policy(Action::Deny, from(by_address))]).decide(&nobody).allowed);
}

#[test]
fn claims() {
    fn check(condition: ValueCondition, claims: &[(&str, &str)], expect: bool) {
        let rules = from(Source { claims: vec![condition.clone()], ..Source::default() });
        for (action, allowed) in [(Action::Allow, expect), (Action::Deny, !expect)] {
            let engine = engine(vec![policy(action, rules.clone())]);
            let request = Request { claims, ..request(Some(WEB), "GET", "/", &[]) };
            assert_eq!(engine.decide(&request).allowed, allowed, "{action:?} {condition:?} {claims:?}");
            let connection = Request { claims, ..Request::connection(Some(WEB), 8080) };
            assert!(!engine.decide(&connection).allowed, "{action:?} {condition:?} of a connection");
        }
    }
    let role = || ValueCondition { name: "role".to_owned(), ..ValueCondition::default() };
    let exact = || ValueCondition { exact: Some("admin".to_owned()), ..role() };
    check(exact(), &[("role", "admin")], true);
    check(exact(), &[("role", "dev"), ("role", "admin")], true);
    check(exact(), &[("role", "dev,admin")], false);
    check(exact(), &[("role", "Admin")], false);
    check(exact(), &[("sub", "admin")], false);
    check(exact(), &[], false);
    let prefix = || ValueCondition { prefix: Some("ad".to_owned()), ..role() };
    check(prefix(), &[("role", "dev"), ("role", "admin")], true);
    check(prefix(), &[("role", "bad")], false);
    let present = |present| ValueCondition { present: Some(present), ..role() };
    check(present(true), &[("role", "")], true);
    check(present(true), &[("sub", "x")], false);
    check(present(false), &[("sub", "x")], true);
    check(present(false), &[("role", "x")], false);
    for (condition, expect) in [
        (role(), ".from[0].claims[0]: claim role needs one of exact, prefix and present"),
        (
            ValueCondition { name: "Role".to_owned(), ..exact() },
            ".from[0].claims[0]: \"Role\" is no claim that can be told: a-z, 0-9, -, _ and ., at most 128 bytes",
        ),
    ] {
        let source = Source { claims: vec![condition], ..Source::default() };
        check_refused(Rule { from: vec![source], ..Rule::default() }, expect);
    }
}

#[test]
fn hosts() {
    fn check(hosts: &[&str], except: &[&str], authority: Option<&str>, allow: bool, deny: bool) {
        let operation = Operation { hosts: strings(hosts), not_hosts: strings(except), ..Operation::default() };
        let hit = |action| {
            let engine = engine(vec![policy(action, to(operation.clone()))]);
            assert!(engine.needs_authority());
            let request = Request { authority, ..request(Some(WEB), "GET", "/", &[]) };
            engine.decide(&request).rule == Some("shop/p#0")
        };
        assert_eq!((hit(Action::Allow), hit(Action::Deny)), (allow, deny), "{operation:?} {authority:?}");
    }
    check(&["a.example"], &[], Some("A.Example.:8080"), true, true);
    check(&["a.example"], &[], Some("b.example"), false, false);
    check(&["*.example"], &[], Some("a.b.example"), true, true);
    check(&["*.example"], &[], Some("example"), false, false);
    check(&["*.example"], &["*.b.example"], Some("a.b.example:80"), false, false);
    check(&[], &["a.example"], Some("b.example"), true, true);
    check(&[], &["a.example"], Some("a.example"), false, false);
    check(&["a.example"], &[], Some("[fd00::1]:80"), false, false);
    // One that names no host may be for any of them.
    for none in [None, Some(""), Some("a.example..")] {
        check(&["a.example"], &[], none, false, true);
        check(&[], &["a.example"], none, false, true);
    }
}

fn check_refused(rule: Rule, expect: &str) {
    let config = Config { policies: vec![policy(Action::Allow, vec![rule])], ..Config::default() };
    assert_eq!(Engine::new(&config).unwrap_err().to_string(), format!("shop/p: rules[0]{expect}"));
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let check = check_refused;
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
    let header = |name: &str| ValueCondition { name: name.to_owned(), ..ValueCondition::default() };
    check(
        operation(Operation { headers: vec![header("x")], ..Operation::default() }),
        ".to[0].headers[0]: header x needs one of exact, prefix and present",
    );
    check(
        operation(Operation {
            headers: vec![ValueCondition { present: Some(true), ..header("a b") }],
            ..Operation::default()
        }),
        ".to[0].headers[0]: \"a b\" is not the name of a header",
    );
    check(Rule { name: Some("a b".to_owned()), ..Rule::default() }, ".name: a rule's name has no blanks and no `#`");
}

#[test]
fn addresses_and_hosts_that_cannot_be_meant() {
    let blocks = |list| Rule { from: vec![Source { ip_blocks: list, ..Source::default() }], ..Rule::default() };
    for (text, why) in [
        ("10.0.0.0/33", "is not a block of addresses, as in 10.0.0.0/8"),
        ("shop", "is not a block of addresses, as in 10.0.0.0/8"),
        ("10.1.0.0/8", "has bits behind its prefix; the block that it lies in is 10.0.0.0/8"),
        ("::ffff:10.0.0.0/104", "is a block of IPv4 addresses, which are compared as such"),
    ] {
        check_refused(blocks(strings(&[text])), &format!(".from[0].ipBlocks[0]: {text:?} {why}"));
    }
    check_refused(
        blocks(vec!["10.0.0.1".to_owned(); 257]),
        ".from[0].ipBlocks: it has 257 entries; at most 256 are taken",
    );
    for text in ["*", "*.", "Shop.example", "shop.example:80", "a.*.example", "shop.example.", "[::1]", ""] {
        check_refused(
            Rule { to: vec![Operation { hosts: strings(&[text]), ..Operation::default() }], ..Rule::default() },
            &format!(
                ".to[0].hosts[0]: {text:?} is not a host: a name in lower case without a port, or `*.` and a name"
            ),
        );
    }
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
        (rule.from.is_empty() || rule.from.iter().any(|source| from(source, request, allow)))
            && (rule.to.is_empty() || rule.to.iter().any(|operation| to(operation, request, allow)))
    }

    fn from(source: &Source, request: &Request<'_>, allow: bool) -> bool {
        let within = |list: &[String]| list.iter().any(|block| contains(block, request.address));
        let lists = !source.ip_blocks.is_empty() || !source.not_ip_blocks.is_empty();
        let near = match request.address {
            None => !(allow && lists),
            Some(_) => (source.ip_blocks.is_empty() || within(&source.ip_blocks)) && !within(&source.not_ip_blocks),
        };
        near && claims(source, request, allow) && named(source, request.principal, allow)
    }

    fn claims(source: &Source, request: &Request<'_>, allow: bool) -> bool {
        let has = |claim: &ValueCondition| {
            let mut members = request.claims.iter().filter(|(name, _)| *name == claim.name).map(|(_, member)| *member);
            match (&claim.exact, &claim.prefix, claim.present) {
                (Some(exact), _, _) => members.any(|member| member == exact),
                (_, Some(prefix), _) => members.any(|member| member.starts_with(prefix)),
                (_, _, present) => members.next().is_some() == present.unwrap(),
            }
        };
        if request.l4 { source.claims.is_empty() || !allow } else { source.claims.iter().all(has) }
    }

    /// The blocks of the model are `A.B.0.0/16` and whole addresses.
    fn contains(block: &str, address: Option<IpAddr>) -> bool {
        let address = address.unwrap().to_string();
        block.strip_suffix("0.0/16").map_or(block == address, |prefix| address.starts_with(prefix))
    }

    fn named(source: &Source, principal: Option<&str>, allow: bool) -> bool {
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
        let by_host = !(operation.hosts.is_empty() && operation.not_hosts.is_empty());
        let http_only = http_only || by_host;
        if request.l4 {
            return ports && !(allow && http_only);
        }
        let path = |list: &[String]| list.iter().any(|pattern| path_matches(pattern, request.path));
        ports
            && (operation.methods.is_empty() || operation.methods.iter().any(|m| m == request.method))
            && (operation.paths.is_empty() || path(&operation.paths))
            && !path(&operation.not_paths)
            && match request.authority {
                None => !(allow && by_host),
                Some(host) => {
                    let of = |list: &[String]| {
                        list.iter().any(|text| text.strip_prefix('*').map_or(text == host, |end| host.ends_with(end)))
                    };
                    (operation.hosts.is_empty() || of(&operation.hosts)) && !of(&operation.not_hosts)
                }
            }
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
        const BLOCKS: [&str; 3] = ["10.1.0.0/16", "10.2.0.0/16", "10.1.0.1"];
        loop {
            let source = Source {
                principals: self.some(&PRINCIPALS, 2),
                not_principals: self.some(&PRINCIPALS, 6),
                namespaces: self.some(&["a", "b"], 3),
                not_namespaces: self.some(&["a", "b"], 6),
                service_accounts: self.some(&["a/x", "b/y"], 4),
                not_service_accounts: self.some(&["a/x", "b/y"], 6),
                ip_blocks: self.some(&BLOCKS, 4),
                not_ip_blocks: self.some(&BLOCKS, 8),
                claims: if self.below(4) == 0 { vec![self.claim()] } else { vec![] },
            };
            if source != Source::default() {
                return source;
            }
        }
    }

    fn claim(&mut self) -> ValueCondition {
        let name = ["role", "sub"][self.below(2)].to_owned();
        let text = ["a", "ab"][self.below(2)].to_owned();
        match self.below(4) {
            0 => ValueCondition { name, prefix: Some(text), ..ValueCondition::default() },
            1 => ValueCondition { name, present: Some(self.below(2) == 0), ..ValueCondition::default() },
            _ => ValueCondition { name, exact: Some(text), ..ValueCondition::default() },
        }
    }

    fn operation(&mut self) -> Operation {
        const PATHS: [&str; 7] = ["/", "/a", "/a/*", "/a/{id}", "/a/{id}/b", "/*", "/{x}/b/*"];
        const HOSTS: [&str; 4] = ["a.test", "*.test", "*.b.test", "c"];
        loop {
            let operation = Operation {
                methods: self.some(&["GET", "POST"], 3),
                paths: self.some(&PATHS, 2),
                not_paths: self.some(&PATHS, 5),
                ports: if self.below(4) == 0 { vec![80] } else { vec![] },
                not_ports: if self.below(6) == 0 { vec![81] } else { vec![] },
                hosts: self.some(&HOSTS, 4),
                not_hosts: self.some(&HOSTS, 8),
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
    const ADDRESSES: [Option<[u8; 4]>; 4] = [None, Some([10, 1, 0, 1]), Some([10, 1, 2, 3]), Some([10, 2, 0, 1])];
    const CLAIMS: [&[(&str, &str)]; 5] =
        [&[], &[("role", "a")], &[("role", "b"), ("role", "ab")], &[("sub", "ab")], &[("sub", "a"), ("role", "ab")]];
    const AUTHORITIES: [Option<&str>; 5] = [None, Some("a.test"), Some("a.b.test"), Some("c"), Some("test")];
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
        let config = Config { policies: policies.clone(), ..Config::default() };
        let older = Engine::new(&config.for_older().unwrap_or(config)).unwrap();
        assert!(!older.needs_address() && !older.needs_authority() && older.needed_claims().is_empty());
        for _ in 0..30 {
            let request = Request {
                principal: PRINCIPALS[random.below(5)],
                address: ADDRESSES[random.below(4)].map(IpAddr::from),
                l4: random.below(5) == 0,
                method: ["GET", "POST", "PUT"][random.below(3)],
                path: PATHS[random.below(8)],
                port: [80, 81][random.below(2)],
                authority: AUTHORITIES[random.below(5)],
                headers: &[],
                claims: CLAIMS[random.below(5)],
            };
            let expect = model::allowed(&policies, &request);
            verdicts[usize::from(expect)] += 1;
            assert_eq!(engine.decide(&request).allowed, expect, "seed {seed}: {policies:#?} {request:?}");
            // What is absent, a deny rule may ask for: an engine that knows no claims refuses more, and never less.
            let unseen = Request { address: None, authority: None, claims: &[], ..request };
            let (lets_in, would) = (older.decide(&request).allowed, engine.decide(&unseen).allowed);
            let has_claims = !engine.needed_claims().is_empty();
            assert!(would || !lets_in, "seed {seed}: {policies:#?} {request:?}");
            assert!(has_claims || older.decide(&request) == engine.decide(&unseen), "seed {seed}: {policies:#?}");
        }
    }
    assert!(verdicts.iter().all(|count| *count > 10_000), "both verdicts are common: {verdicts:?}");
}
