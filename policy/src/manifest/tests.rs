//! Manifests that hold, come back as written, and every refusal with its file, line and key.

mod loadable;

use super::*;

/// Checks that a file with this text is refused with these errors, a line each.
fn check_refused(text: &str, expect: &[&str]) {
    let got: Vec<String> = match parse("shop.yaml", text) {
        Ok(documents) => panic!("accepted: {documents:?}\n{text}"),
        Err(errors) => errors.iter().map(without_column).collect(),
    };
    assert_eq!(got, expect, "{text}");
}

fn without_column(error: &ManifestError) -> String {
    let ManifestError { file, line, column: _, key, message } = error;
    format!("{file}:{line}: {}{message}", if key.is_empty() { String::new() } else { format!("{key}: ") })
}

/// One of each kind, in the order of `Kind::ALL`.
const ALL_KINDS: &str = include_str!("tests/kinds.yaml");

#[test]
fn every_kind_is_read_and_written() {
    let documents = parse("all.yaml", ALL_KINDS).unwrap();
    let kinds: Vec<Kind> = documents.iter().map(|document| document.resource.kind()).collect();
    assert_eq!(kinds, Kind::ALL);
    for Document { resource, .. } in &documents {
        let yaml = to_yaml(resource);
        if resource.kind() == Kind::Secret {
            // Its values are written for nobody who does not ask for them.
            let json = resource.revealed().unwrap();
            assert_eq!(&serde_json::from_value::<Resource>(json).unwrap(), resource);
            continue;
        }
        let again = parse("again.yaml", &yaml).unwrap_or_else(|errors| panic!("{errors:?}\n{yaml}"));
        assert_eq!(&again[0].resource, resource, "{yaml}");
        let json = serde_json::to_string_pretty(resource).unwrap();
        assert_eq!(&parse("again.json", &json).unwrap()[0].resource, resource, "{json}");
        assert_eq!(&serde_json::from_str::<Resource>(&json).unwrap(), resource);
    }
}

#[test]
fn the_manifests_in_the_documentation_are_taken() {
    let pages = [
        include_str!("../../../README.md"),
        include_str!("../../../docs/configuration.md"),
        include_str!("../../../docs/filters.md"),
        include_str!("../../../docs/filters/author.md"),
        include_str!("../../../docs/filters/capabilities.md"),
        include_str!("../../../docs/filters/policies.md"),
        include_str!("../../../docs/operations.md"),
    ];
    let blocks = pages.iter().flat_map(|page| page.split("```yaml\n").skip(1));
    let blocks = blocks.filter_map(|rest| rest.split("```").next());
    let manifests: Vec<_> = blocks.filter(|block| block.starts_with("apiVersion: ")).collect();
    assert!(manifests.len() >= 3, "{}", manifests.len());
    for text in manifests {
        let taken = parse("docs.md", text).unwrap_or_else(|errors| panic!("{errors:?}\n{text}"));
        // Wherever it is applied: the trust domain is the control plane's.
        assert!(!taken.is_empty() && !text.contains("trustDomain"), "{text}");
    }
}

#[test]
fn lines_of_documents_and_keys() {
    let text = "# a comment\napiVersion: v1\nkind: Service\nmetadata:\n  name: web\nspec:\n  ports:\n  - port: 80\n    name: a\n  - port: 81\n    name: b\n";
    let documents = parse("x.yaml", text).unwrap();
    let document = &documents[0];
    assert_eq!(document.line, 2);
    let lines =
        ["metadata.name", "spec.ports[1].name", "spec.ports[1].nothing", "nothing"].map(|key| document.line_of(key));
    assert_eq!(lines, [5, 11, 10, 2]);
}

#[test]
fn what_the_server_adds_is_read_past() {
    let text = "{apiVersion: v1, kind: Namespace, metadata: {name: a, uid: x, generation: 1, revision: 2, creationRevision: 1}, status: {x: y}}";
    assert_eq!(parse("x.json", text).unwrap()[0].resource.key().to_string(), "Namespace a");
}

#[test]
fn empty_documents_are_no_documents() {
    for text in ["", "---\n", "# nothing\n", "---\n---\n"] {
        assert_eq!(parse("x.yaml", text), Ok(vec![]), "{text:?}");
    }
}

#[test]
fn a_file_may_have_as_many_documents_as_an_apply() {
    let text: String = (0..10_000).map(|n| format!("---\napiVersion: v1\nkind: Service\nmetadata: {{name: s{n}}}\nspec: {{selector: {{app: s{n}}}, ports: [{{name: http, port: 80}}]}}\n")).collect();
    assert_eq!(parse("many.yaml", &text).map(|documents| documents.len()), Ok(10_000));
}

/// Finding all mistakes takes time that grows with the document, not with its square.
#[test]
fn a_large_document_full_of_mistakes_is_answered() {
    let ports: Vec<_> = (0..4_000).map(|n| serde_json::json!({"prot": n, "name": n, "protocol": "x"})).collect();
    let document =
        serde_json::json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": {"ports": ports}});
    let errors = from_json(document).unwrap_err();
    assert!((1..=101).contains(&errors.len()), "{}", errors.len());
    assert_eq!(errors[0].key, "spec.ports[0].name");
}

#[test]
fn not_yaml() {
    check_refused("a: [1,\n", &["shop.yaml:1: unclosed bracket '['"]);
    check_refused("a: 1\na: 2\n", &["shop.yaml:2: duplicate mapping key: a"]);
    check_refused("- 1\n", &["shop.yaml:1: a document is a mapping with apiVersion, kind, metadata and spec"]);
    check_refused("hello\n", &["shop.yaml:1: a document is a mapping with apiVersion, kind, metadata and spec"]);
}

#[test]
fn kinds_of_other_meshes_are_answered_with_those_of_this_one() {
    let check = |kind: &str, here: &str| {
        let told = format!("shop.yaml:2: kind: kind {kind} is of another mesh; here this is said by {here}");
        check_refused(&format!("apiVersion: networking.istio.io/v1\nkind: {kind}\nmetadata: {{name: a}}\n"), &[&told]);
    };
    check("VirtualService", "HTTPRoute, GRPCRoute, TLSRoute and TCPRoute");
    check("ServiceEntry", "ExternalService");
}

#[test]
fn kinds_and_envelopes() {
    check_refused(
        "kind: Service\n",
        &["shop.yaml:1: apiVersion: is missing", "shop.yaml:1: metadata: is missing", "shop.yaml:1: spec: is missing"],
    );
    check_refused(
        "apiVersion: v1\nkind: 5\nmetadata: {name: a}\n",
        &["shop.yaml:2: kind: the number 5 is not a string; put it in quotes"],
    );
    check_refused(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: UDPRoute\nmetadata: {name: a}\n",
        &["shop.yaml:2: kind: kind UDPRoute is not supported yet"],
    );
    check_refused(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n",
        &[
            "shop.yaml:2: kind: kind Pod is not known; known are Namespace, Mesh, Service, Workload, ReferenceGrant, HTTPRoute, GRPCRoute, TLSRoute, TCPRoute, Filter, FilterPublisher, Secret, FilterPolicy, RateLimitPolicy, FaultPolicy, JwtPolicy, AccessPolicy, PolicyTemplate, TrafficPolicy, ExternalService",
        ],
    );
    check_refused(
        "apiVersion: v1\nkind: Servcie\nmetadata: {name: a}\nspec: {port: 80}\n",
        &[
            "shop.yaml:2: kind: kind Servcie is not known; did you mean `Service`?",
            "shop.yaml:4: spec.port: unknown field `port`; did you mean `ports`?",
            "shop.yaml:4: spec.port: the number 80 is not a list",
        ],
    );
    check_refused(
        "apiVersion: gateway.networking.k8s.io/v1alpha2\nkind: HTTPRoute\nmetadata: {name: a}\nspec: {}\n",
        &[
            "shop.yaml:1: apiVersion: \"gateway.networking.k8s.io/v1alpha2\" is not supported for kind HTTPRoute; expected gateway.networking.k8s.io/v1",
        ],
    );
    let namespace = "apiVersion: v1\nkind: Namespace\n";
    check_refused(namespace, &["shop.yaml:1: metadata: is missing"]);
    check_refused(
        &format!("{namespace}metadata:\n  name: a\nextra: 1\n"),
        &["shop.yaml:5: extra: unknown field `extra`; known are apiVersion, kind, metadata, spec"],
    );
    check_refused(
        &format!("{namespace}metadata:\n  nmae: a\n"),
        &["shop.yaml:4: metadata.nmae: unknown field `nmae`; did you mean `name`?"],
    );
    check_refused(
        &format!("{namespace}metadata:\n  name: a.b\n"),
        &["shop.yaml:4: metadata.name: \"a.b\" is not a DNS label, at most 63 without dots"],
    );
    check_refused(
        &format!("{namespace}metadata:\n  name: A_b\n"),
        &["shop.yaml:4: metadata.name: \"A_b\" is not a name: lower-case letters, digits, '-' and '.', at most 253"],
    );
    check_refused(
        &format!("{namespace}metadata:\n  name: a\n  namespace: b\n"),
        &["shop.yaml:5: metadata.namespace: kind Namespace is of the whole mesh and has no namespace"],
    );
    check_refused(
        &format!("{namespace}metadata: {{name: 12}}\n"),
        &["shop.yaml:3: metadata.name: the number 12 is not a string; put it in quotes"],
    );
    check_refused("apiVersion: v1\nkind: Service\nmetadata: {name: a}\n", &["shop.yaml:1: spec: is missing"]);
    let twice = format!("{namespace}metadata: {{name: a}}\n---\n{namespace}metadata: {{name: a}}\n");
    check_refused(&twice, &["shop.yaml:7: metadata.name: Namespace a is given twice; first in line 1"]);
    let both = format!("{namespace}metadata: {{name: A}}\n---\n{namespace}x: 1\n");
    check_refused(
        &both,
        &[
            "shop.yaml:3: metadata.name: \"A\" is not a name: lower-case letters, digits, '-' and '.', at most 253",
            "shop.yaml:5: metadata: is missing",
            "shop.yaml:7: x: unknown field `x`; known are apiVersion, kind, metadata, spec",
        ],
    );
}

/// A spec of this kind, from line 4 on, and the only mistake in it.
fn check_spec(kind: Kind, spec: &str, expect: &str) {
    let head = format!("apiVersion: {}\nkind: {kind}\nmetadata: {{name: x}}\n", kind.api_version());
    check_refused(&format!("{head}spec:\n{spec}"), &[&format!("shop.yaml:{expect}")]);
}

#[test]
fn services() {
    let check = |spec: &str, expect: &str| check_spec(Kind::Service, spec, expect);
    check("  ports: [{port: 0}]\n", "5: spec.ports[0].port: 0 is not a port: 1 to 65535");
    check("  ports: [{port: 70000}]\n", "5: spec.ports[0].port: 70000 is not a port: 1 to 65535");
    check("  ports: [{port: eighty}]\n", "5: spec.ports[0].port: \"eighty\" is not a port: 1 to 65535");
    check(
        "  ports:\n  - port: 80\n    targetPort: Web_1\n",
        "7: spec.ports[0].targetPort: \"Web_1\" is not the name of a port: lower-case letters, digits and '-', at most 15, with a letter",
    );
    check("  ports:\n  - port: 80\n    targetPort: 0\n", "7: spec.ports[0].targetPort: 0 is not a port: 1 to 65535");
    check(
        "  ports:\n  - port: 53\n    protocol: UPD\n",
        "7: spec.ports[0].protocol: \"UPD\" is not one of TCP, UDP, SCTP; did you mean `UDP`?",
    );
    check("  ports: [{port: 80, name: a}, {port: 80, name: b}]\n", "5: spec.ports[1].port: 80 is given twice");
    check(
        "  ports: [{port: 80}, {port: 81, name: b}]\n",
        "5: spec.ports[0].name: is missing: with several ports each has a name",
    );
    check("  type: Magic\n", "5: spec.type: \"Magic\" is not one of ClusterIP, NodePort, LoadBalancer, ExternalName");
    check("  clusterIP: ten\n", "5: spec.clusterIP: \"ten\" is not an IP address");
    check("  clusterIP: 0.0.0.0\n", "5: spec.clusterIP: 0.0.0.0 is not the address of one machine");
    check("  selector: [a]\n", "5: spec.selector: a list is not a mapping");
}

#[test]
fn meshes_and_workloads() {
    check_spec(
        Kind::Mesh,
        "  mtls: {mode: Permissive}\n",
        "5: spec.mtls.mode: mTLS mode Permissive is not supported yet",
    );
    check_spec(
        Kind::Mesh,
        "  mtls: {mode: strict}\n",
        "5: spec.mtls.mode: \"strict\" is not an mTLS mode: Strict; did you mean `Strict`?",
    );
    check_spec(
        Kind::Mesh,
        "  defaults:\n    requestTimeout: 15\n",
        "6: spec.defaults.requestTimeout: the number 15 is not a duration such as 15s, 250ms or 1m30s",
    );
    check_spec(
        Kind::Mesh,
        "  defaults:\n    requestTimeout: 1.5s\n",
        "6: spec.defaults.requestTimeout: \"1.5s\" is not a duration such as 15s, 250ms or 1m30s",
    );
    check_spec(
        Kind::Mesh,
        "  trustDomain: Bad/Domain\n",
        "5: spec.trustDomain: \"Bad/Domain\" is not a trust domain: lower-case letters, digits, '.', '-' and '_', at most 255",
    );
    check_spec(Kind::Workload, "  ports: []\n", "4: spec.address: is missing");
    check_spec(Kind::Workload, "  address: 1.2.3\n", "5: spec.address: \"1.2.3\" is not an IP address");
    check_spec(
        Kind::Workload,
        "  address: 127.0.0.1\n  meshAddress: 127.0.0.1\n",
        "6: spec.meshAddress: \"127.0.0.1\" is not ip:port",
    );
    check_spec(
        Kind::Workload,
        "  address: 127.0.0.1\n  ports: [{port: 53, protocol: udp}]\n",
        "6: spec.ports[0].protocol: protocol udp is not supported yet",
    );
    check_spec(
        Kind::Workload,
        "  address: 127.0.0.1\n  weight: -1\n",
        "6: spec.weight: the number -1 is not a whole number from 0 to 4294967295",
    );
}

#[test]
fn egress_addresses_and_path_readings() {
    check_spec(Kind::Mesh, "  egress: Deny\n", "5: spec.egress: \"Deny\" is not one of Allow, RegistryOnly");
    check_spec(
        Kind::Workload,
        "  address: 127.0.0.1\n  addresses: [fd00::1, 0.0.0.0]\n",
        "6: spec.addresses[1]: 0.0.0.0 is not the address of one machine",
    );
    let text = "apiVersion: v1\nkind: Service\nmetadata:\n  name: web\n  annotations:\n    weft.dev/path-reading: params=gone\nspec: {}\n";
    let errors: Vec<_> = parse("x.yaml", text).unwrap_err().iter().map(without_column).collect();
    assert_eq!(
        errors,
        ["x.yaml:6: metadata.annotations.weft.dev/path-reading: \"params=gone\" is not one of \
          encoded-slash=literal|separator, params=cut|kept, slashes=merged|kept, each at most once"]
    );
}

#[test]
fn https_is_one_of_two_protocols_outside() {
    let spec = |protocol: &str| format!("  hosts: [a.example]\n  ports: [{{port: 443, protocol: {protocol}}}]\n");
    for (protocol, expect) in [
        ("HTTPS", "\"HTTPS\" is tls where the app begins TLS itself, and http where its proxy does (`tls`)"),
        ("tsl", "\"tsl\" is not one of http, grpc, tls, tcp; did you mean `tls`?"),
    ] {
        check_spec(Kind::ExternalService, &spec(protocol), &format!("6: spec.ports[0].protocol: {expect}"));
    }
}

#[test]
fn a_backend_needs_a_port_where_its_kind_has_ports() {
    let spec = |kind: &str| {
        format!("  parentRefs: [{{group: '', kind: Service, name: web}}]\n  rules: [{{backendRefs: [{kind}]}}]\n")
    };
    let text = |kind: &str| {
        format!(
            "apiVersion: {}\nkind: HTTPRoute\nmetadata: {{name: x}}\nspec:\n{}",
            Kind::HttpRoute.api_version(),
            spec(kind)
        )
    };
    assert!(parse("x.yaml", &text("{group: ex.example, kind: Bucket, name: b}")).is_ok());
    for kind in ["{name: web}", "{group: weft.dev, kind: ExternalService, name: api}"] {
        check_spec(Kind::HttpRoute, &spec(kind), "6: spec.rules[0].backendRefs[0].port: is missing");
    }
}

#[test]
fn headers_that_no_rule_ever_sees() {
    let policy = |name: &str| {
        let spec = format!("  rules: [{{to: [{{headers: [{{name: {name}, exact: a}}]}}]}}]\n");
        let what = |why: &str| format!("5: spec.rules[0].to[0].headers[0].name: {why}");
        (spec, what)
    };
    let check = |name: &str, lower: &str, why: &str| {
        let (spec, what) = policy(name);
        check_spec(Kind::AccessPolicy, &spec, &what(&format!("\"{lower}\" never reaches a rule: {why}")));
        check_rule(
            &format!("matches: [{{headers: [{{name: {name}, value: a}}]}}]"),
            "matches[0].headers[0].name",
            &format!("\"{lower}\" never reaches a rule: {why}"),
        );
    };
    // Routes see the host as a header; rules of access name it by `hosts`.
    let (spec, what) = policy("Host");
    let why = "a rule names it by `hosts`";
    check_spec(Kind::AccessPolicy, &spec, &what(&format!("\"host\" never reaches a rule: {why}")));
    let host = |value: &str, why: &str| {
        let matching = format!("matches: [{{headers: [{{name: Host, value: '{value}'}}]}}]");
        check_rule(
            &matching,
            "matches[0].headers[0].value",
            &format!("\"{value}\" is no host as it is compared: {why}"),
        );
    };
    for odd in ["Web.shop", "web:80", "web.", "*.shop", "a b"] {
        host(odd, "in lower case, without a port");
    }
    for framing in ["content-length", "transfer-encoding", "trailer"] {
        check(framing, framing, "framing is made anew on each hop");
    }
    for hop in ["connection", "keep-alive", "proxy-connection", "te", "upgrade", "http2-settings"] {
        check(hop, hop, "it belongs to one hop and is not passed on");
    }
    check("weft-dst", "weft-dst", "it is the mesh's own");
}

/// An HTTPRoute with this rule, in line 7, and the only mistake in it.
fn check_rule(rule: &str, key: &str, message: &str) {
    let parents = "  parentRefs: [{group: \"\", kind: Service, name: web}]\n  rules:\n";
    check_spec(Kind::HttpRoute, &format!("{parents}  - {rule}\n"), &format!("7: spec.rules[0].{key}: {message}"));
}

#[test]
fn filters_of_routes() {
    check_rule(
        "filters: [{type: Magic}]",
        "filters[0].type",
        "\"Magic\" is not one of RequestHeaderModifier, ResponseHeaderModifier, RequestMirror, RequestRedirect, URLRewrite, ExtensionRef, CORS, ExternalAuth",
    );
    check_rule("filters: [{type: URLRewrite}]", "filters[0]", "urlRewrite is missing");
    check_rule("filters: [{type: RequestHeaderModifier}]", "filters[0]", "requestHeaderModifier is missing");
    check_rule(
        "filters: [{type: RequestHeaderModifier, requestHeaderModifier: {}, cors: {}}]",
        "filters[0]",
        "a filter has the body of its own type and no other: requestHeaderModifier, not cors",
    );
    check_rule(
        "filters: [{type: RequestHeaderModifier, requestHeaderModifier: {}}, {type: RequestHeaderModifier, requestHeaderModifier: {}}]",
        "filters",
        "RequestHeaderModifier may be given once",
    );
    check_rule(
        "filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: a b, value: c}]}}]",
        "filters[0].requestHeaderModifier.set[0].name",
        "\"a b\" is not the name of a header",
    );
}

#[test]
fn rules_of_routes() {
    check_rule("matches: [{path: {value: a}}]", "matches[0].path.value", "\"a\": path does not begin with '/'");
    check_rule(
        "matches: [{path: {value: /a/../b}}]",
        "matches[0].path.value",
        "\"/a/../b\" never arrives: requests are normalised to \"/b\"",
    );
    check_rule(
        "matches: [{method: get}]",
        "matches[0].method",
        "\"get\" is not one of GET, HEAD, POST, PUT, DELETE, CONNECT, OPTIONS, TRACE, PATCH; did you mean `GET`?",
    );
    check_rule("backendRefs: [{name: web}]", "backendRefs[0].port", "is missing");
    check_rule(
        "backendRefs: [{name: web, port: 80, weight: 1000001}]",
        "backendRefs[0].weight",
        "1000001 is not a weight: 0 to 1000000",
    );
    let many = vec!["{}"; 65].join(", ");
    check_rule(&format!("matches: [{many}]"), "matches", "has 65 matches; at most 64 are allowed");
}

#[test]
fn routes() {
    let spec = |spec: &str, expect: &str| check_spec(Kind::HttpRoute, spec, expect);
    spec(
        "  parentRefs: [{group: \"\", kind: Service, name: a}]\n  rules: []\n",
        "6: spec.rules: is empty: no request would match",
    );
    spec(
        "  parentRefs: [{kind: Service, group: \"\", name: a}]\n  rules: [{name: a}, {name: a}]\n",
        "6: spec.rules[1].name: \"a\" is the name of several rules",
    );
}

#[test]
fn capabilities_and_their_parameters() {
    let policy = |spec: &str, expect: &str| check_spec(Kind::FilterPolicy, spec, expect);
    policy(
        "  filter: {name: a}\n  capabilities: [files]\n",
        "6: spec.capabilities[0]: \"files\" is not a capability: log, metrics, token-bucket, kv, callout, secret, crypto, wasi",
    );
    let granted = |entry: &str, expect: &str| {
        let spec = format!("  filter: {{name: a}}\n  capabilities: [log, {entry}]\n");
        policy(&spec, &format!("6: spec.capabilities[1]{expect}"));
    };
    granted(
        "cypto",
        ": \"cypto\" is not a capability: log, metrics, token-bucket, kv, callout, secret, crypto, wasi; did you mean `crypto`?",
    );
    granted("secret", ": \"secret\" needs its values: {secret: {values: [{name: SECRET, key: KEY}]}}");
    granted("{secret: {values: []}}", ".secret.values: has 0 entries; 1 to 16 are allowed");
    let several = "names several values; give each its own `as`";
    granted(
        "{secret: {values: [{name: s, key: b}, {name: t, key: c, as: b}]}}",
        &format!(".secret.values[1]: \"b\" {several}"),
    );
    granted(
        "{crypto: {keys: [{name: s, key: b/c}]}}",
        ".crypto.keys[0].key: \"b/c\" is no name: letters, digits, '-', '_' and '.', at most 253",
    );
    granted("{crypto: {}}", ".crypto.keys: is missing");
    granted("{wasi: {}}", ": \"wasi\" has no parameters; write the word alone");
    granted("{}", ": is empty: a capability is wanted");
    granted("{kv: {}, callout: {services: []}}", ": has several capabilities; each is an entry of its own");
    granted("{kv: {entires: 1}}", ".kv.entires: unknown field `entires`; did you mean `entries`?");
    granted("{kv: {entries: 0}}", ".kv.entries: 0 is out of range: 1 to 1000000");
    granted("{kv: {bytes: 100000000}}", ".kv.bytes: 100000000 is out of range: 1024 to 67108864");
    granted("{callout: {services: []}}", ".callout.services: is empty: no callout would be allowed");
    granted(
        "{callout: {services: [{name: b, port: 1}, {name: c, as: b, port: 2}]}}",
        ".callout.services[1]: \"b\" names several services; give each its own `as`",
    );
    granted("{callout: {services: [{name: b, port: 0}]}}", ".callout.services[0].port: 0 is not a port: 1 to 65535");
    policy("  filter: {name: a}\n  capabilities: [kv, {kv: {}}]\n", "6: spec.capabilities[1]: \"kv\" is granted twice");
}

#[test]
fn filters_and_policies() {
    let policy = |spec: &str, expect: &str| check_spec(Kind::FilterPolicy, spec, expect);
    policy("  order: 1\n", "4: spec.filter: is missing");
    policy(
        "  filter: {name: a}\n  phase: early\n",
        "6: spec.phase: \"early\" is not one of Connection, AuthN, Traffic, RateLimit, Custom",
    );
    policy("  filter: {name: a}\n  mode: Shadow\n", "6: spec.mode: \"Shadow\" is not one of Enforce, Audit, Off");
    policy(
        "  filter: {name: a}\n  direction: Sideways\n",
        "6: spec.direction: \"Sideways\" is not one of Inbound, Outbound",
    );
    policy(
        "  filter: {name: a}\n  limits: {bodyBytes: 16777217}\n",
        "6: spec.limits.bodyBytes: 16777217 is out of range: 1 to 16777216",
    );
    policy(
        "  filter: {name: a}\n  limits: {memoryBytes: 1}\n",
        "6: spec.limits.memoryBytes: 1 is out of range: 65536 to 67108864",
    );
    policy(
        "  filter: {name: a}\n  limits: {memoryBytes: 67108865}\n",
        "6: spec.limits.memoryBytes: 67108865 is out of range: 65536 to 67108864",
    );
    policy(
        "  filter: {name: a}\n  limits: {callTimeoutMs: 5000}\n",
        "6: spec.limits.callTimeoutMs: 5000 is out of range: 1 to 1000",
    );
    policy(
        "  filter: {name: authz}\n",
        "5: spec.filter.name: the authz filter is attached by AccessPolicy, not by FilterPolicy",
    );
    policy(
        "  filter: {name: a}\n  targetRefs: [{kind: Pod, name: a}]\n",
        "6: spec.targetRefs[0].kind: \"Pod\" is not one of Service, ExternalService, Workload, Namespace, Mesh, HTTPRoute, GRPCRoute",
    );
    let filter = "  version: 1.0.0\n  digest: sha256:xyz\n  signature: a\n  publicKey: b\n  size: 1\n  abi: c\n";
    check_spec(Kind::Filter, filter, "6: spec.digest: \"sha256:xyz\" is not sha256: and 64 hex digits in lower case");
    let access = |rule: &str, expect: &str| {
        check_spec(Kind::AccessPolicy, &format!("  rules:\n  - {rule}\n"), &format!("6: spec.rules[0].{expect}"))
    };
    access("from: [{}]", "from[0]: names nobody; leave `from` out to mean everybody");
    access("from: [{principals: [web]}]", "from[0].principals[0]: \"web\": a SPIFFE ID begins with spiffe://");
    access(
        "from: [{serviceAccounts: [shop/web, web]}]",
        "from[0].serviceAccounts[1]: \"web\" is not namespace/account",
    );
    access(
        "from: [{podSelector: [a]}]",
        "from[0].podSelector: unknown field `podSelector`; known are principals, notPrincipals, namespaces, notNamespaces, serviceAccounts, notServiceAccounts, ipBlocks, notIpBlocks, claims",
    );
    access(
        "from: [{ipBlocks: [10.0.0.0/8, 10.1.0.1/8]}]",
        "from[0].ipBlocks[1]: \"10.1.0.1/8\" has bits behind its prefix; the block that it lies in is 10.0.0.0/8",
    );
    access(
        "to: [{notHosts: ['shop.example:80']}]",
        "to[0].notHosts[0]: \"shop.example:80\" is not a host: a name in lower case without a port, or `*.` and a name",
    );
    access(
        "to: [{paths: ['/a*']}]",
        "to[0].paths[0]: \"/a*\": `*` stands only alone or as the last element, as in /x/*",
    );
    access("to: [{methods: [get]}]", "to[0].methods[0]: \"get\" is not a method; methods are in upper case");
    access("to: [{headers: [{name: a}]}]", "to[0].headers[0]: header a needs one of exact, prefix and present");
    check_spec(Kind::AccessPolicy, "  action: Audit\n", "5: spec.action: \"Audit\" is not one of Allow, Deny");
}

#[test]
fn the_lists_of_an_object_have_so_many_entries() {
    let policy = |methods: usize| format!("  rules: [{{to: [{{methods: [{}]}}]}}]\n", vec!["GET"; methods].join(", "));
    let wanted = "4: spec: its lists have 4097 entries in all; at most 4096 are taken";
    check_spec(Kind::AccessPolicy, &policy(MAX_ENTRIES - 1), wanted);
    let filter = "apiVersion: weft.dev/v1alpha1\nkind: FilterPolicy\nmetadata: {name: f, namespace: shop}\n";
    let config = vec!["a"; 2 * MAX_ENTRIES].join(", ");
    let taken = format!("{filter}spec: {{filter: {{name: f}}, config: {{list: [{config}]}}}}\n");
    assert_eq!(parse("x", &taken).unwrap().len(), 1, "what a filter is told is not looked at");
}

/// Damaged texts get an answer, whatever they are, and never a panic.
#[test]
fn damaged_texts_are_answered() {
    let mut state = 7_u64;
    let mut below = |bound: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from((state >> 33) % bound as u64).unwrap()
    };
    for _ in 0..2000 {
        let mut bytes = ALL_KINDS.as_bytes().to_vec();
        let start = below(bytes.len());
        bytes.truncate(start + below(400));
        let mut bytes = bytes.split_off(start.min(bytes.len()));
        for _ in 0..below(4) {
            if !bytes.is_empty() {
                let at = below(bytes.len());
                bytes[at] = b"{}[]:,-\n \"'&*!|>%@`#"[below(20)];
            }
        }
        if let Err(errors) = parse("x", &String::from_utf8_lossy(&bytes)) {
            assert!(errors.iter().all(|error| !error.message.is_empty()));
        }
    }
}
