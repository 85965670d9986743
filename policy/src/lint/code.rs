//! The table of codes: number, usual severity, meaning, cure and an example of each. docs/lint.md is made of it, and a test
//! lints every example. A number is never given to something else.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use super::Severity;

/// What a code says.
#[derive(Debug, Clone, Copy)]
pub struct About {
    pub code: Code,
    pub number: u16,
    /// The severity that most findings of it have; a finding tells its own.
    pub severity: Severity,
    /// It can be told for certain only with the whole world: of files alone it is a note.
    pub needs_world: bool,
    pub title: &'static str,
    pub means: &'static str,
    pub cure: &'static str,
    /// Documents beside the [`super::reference`]'s own that show it; empty where no manifest alone does.
    pub example: &'static str,
}

macro_rules! codes {
    ($($name:ident = $number:literal, $severity:ident, $scope:ident, $title:literal,
        means: $means:literal, cure: $cure:literal, example: $example:literal;)*) => {
        /// A kind of finding.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Code {
            $(#[doc = $title] $name,)*
        }

        /// All codes in the order of their numbers.
        pub const CODES: &[About] = &[$(About {
            code: Code::$name,
            number: $number,
            severity: Severity::$severity,
            needs_world: codes!(@ $scope),
            title: $title,
            means: $means,
            cure: $cure,
            example: $example,
        },)*];
    };
    (@ world) => { true };
    (@ itself) => { false };
}

codes! {
    Unfit = 1, Error, itself, "not a manifest",
        means: "The document can't be read as a resource: a field is unknown, missing, misspelt or out of its range.",
        cure: "The message says what is expected at this key.",
        example: "";
    SecondMesh = 2, Error, itself, "second Mesh",
        means: "There is a Mesh already, and one holds for all.",
        cure: "Change the Mesh that is there.",
        example: "{apiVersion: weft.dev/v1alpha1, kind: Mesh, metadata: {name: a}}
---
{apiVersion: weft.dev/v1alpha1, kind: Mesh, metadata: {name: b}}";
    ForeignMesh = 3, Error, world, "Mesh of another trust domain",
        means: "The Mesh names another trust domain than the control plane's, which was fixed at its first start.",
        cure: "Leave `trustDomain` out, or name the control plane's.",
        example: "{apiVersion: weft.dev/v1alpha1, kind: Mesh, metadata: {name: a}, spec: {trustDomain: elsewhere}}";
    Unprotects = 4, Error, itself, "protection would be lost",
        means: "The change takes a policy's protection from a workload in passing: the policy's target is deleted, selects \
                others or is mistyped.",
        cure: "Name the right target, or apply with `--force`.",
        example: "";
    GrantedBySelector = 5, Warning, itself, "selector grants an account",
        means: "A Service that is applied selects a registered workload of another account, which from now on may stand \
                behind it.",
        cure: "List the accounts that may in the Service's annotation `weft.dev/accounts`.",
        example: "";
    UnknownAnnotation = 6, Warning, itself, "unknown annotation of weft.dev",
        means: "Nothing reads an annotation of this name: it is misspelt or belongs on another kind.",
        cure: "Services have `weft.dev/accounts` and `weft.dev/path-reading`; `weft.dev/made-for` is the control plane's.",
        example: "{apiVersion: v1, kind: Service, metadata: {name: b, namespace: shop, annotations: {weft.dev/acounts: web}},
 spec: {selector: {app: web}, ports: [{port: 81, targetPort: 8080}]}}";
    MisspeltNamespace = 7, Warning, world, "namespace looks misspelt",
        means: "The object is in a namespace without a Namespace whose name is nearly that of one with.",
        cure: "Correct the name, or apply a Namespace of this name.",
        example: "{apiVersion: weft.dev/v1alpha1, kind: Workload, metadata: {name: b, namespace: shp},
 spec: {address: 10.0.0.9}}";
    ShortTimeout = 8, Warning, itself, "connections have no time",
        means: "`connectTimeout` is zero, or so short that no connection is made in it.",
        cure: "Give a second or more; 5s is the default.",
        example: "{apiVersion: weft.dev/v1alpha1, kind: Mesh, metadata: {name: a}, spec: {defaults: {connectTimeout: 0s}}}";

    Unserved = 9, Warning, itself, "nothing acts on it",
        means: "A field that clusters know is taken and has no effect here: a type of Service, a policy of traffic, a target \
                port by a name that no workload declares.",
        cure: "Nothing, where the rest is what you want.",
        example: "{apiVersion: v1, kind: Service, metadata: {name: b, namespace: shop},
 spec: {selector: {app: web}, sessionAffinity: ClientIP, ports: [{port: 81, targetPort: 8080}]}}";

    Opens = 10, Warning, itself, "policy opens",
        means: "The change loosens a policy or deletes it, so that a workload takes what it refused: the message has an \
                example. Whoever may write the policy may do that; the audit log says so.",
        cure: "Nothing, where that is meant; else look at the rule, the action and the targets again (`weft diff`).",
        example: "";

    ParentMissing = 101, Warning, world, "route of no Service",
        means: "The Service that the route is attached to does not exist, so the route holds for nothing.",
        cure: "Correct `parentRefs`, or apply the Service.",
        example: "{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: r, namespace: shop},
 spec: {parentRefs: [{group: '', kind: Service, name: wep}], rules: [{backendRefs: [{name: web, port: 80}]}]}}";
    ParentPortMissing = 102, Warning, world, "route of a port that the Service lacks",
        means: "The Service has no such port, so the route holds for nothing. `port` is the Service's, not the app's.",
        cure: "Name a `port` of the Service, or leave it out for all.",
        example: "{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: r, namespace: shop},
 spec: {parentRefs: [{group: '', kind: Service, name: web, port: 8080}], rules: [{backendRefs: [{name: web, port: 80}]}]}}";
    BackendMissing = 103, Warning, world, "backend does not exist",
        means: "A rule sends requests to a Service that does not exist: they are answered 500.",
        cure: "Correct the name, or apply the Service.",
        example: "{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: r, namespace: shop},
 spec: {parentRefs: [{group: '', kind: Service, name: web}], rules: [{backendRefs: [{name: web-v2, port: 80}]}]}}";
    BackendPortMissing = 104, Warning, world, "backend lacks the port",
        means: "The backend's Service has no such port: its share is answered 500. `port` is the Service's, not the app's.",
        cure: "Name a `port` of the Service.",
        example: "{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: r, namespace: shop},
 spec: {parentRefs: [{group: '', kind: Service, name: web}], rules: [{backendRefs: [{name: web, port: 8080}]}]}}";
    BackendForeign = 105, Warning, world, "backend of another namespace",
        means: "The backend is in another namespace, where no ReferenceGrant permits it: its share is answered 500. Only the \
                Service that a consumer's route is attached to needs no grant.",
        cure: "Let who may write in that namespace apply the grant that the message shows, or name a Service of the \
               route's own namespace.",
        example: "{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: r, namespace: shop},
 spec: {parentRefs: [{group: '', kind: Service, name: web}], rules: [{backendRefs: [{name: web, namespace: partner, port: 80}]}]}}";
    NoWeight = 106, Warning, itself, "rule sends nothing anywhere",
        means: "The rule has no backend, or all have the weight 0: what meets it is answered 500.",
        cure: "Give a backend a weight.",
        example: "{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: r, namespace: shop},
 spec: {parentRefs: [{group: '', kind: Service, name: web}], rules: [{backendRefs: [{name: web, port: 80, weight: 0}]}]}}";
    ZeroWeight = 107, Note, itself, "backend of weight 0",
        means: "The backend gets no request while others of the rule do.",
        cure: "Nothing, where a release is being prepared or has ended.",
        example: "{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: r, namespace: shop},
 spec: {parentRefs: [{group: '', kind: Service, name: web}],
  rules: [{backendRefs: [{name: web, port: 80}, {name: web, port: 80, weight: 0}]}]}}";
    RepeatedMatch = 108, Warning, itself, "match is never met",
        means: "Another match of the same route has the same conditions and comes first: exact paths come before long \
                prefixes, those before short ones, then methods, then the number of headers, then the order written.",
        cure: "Take it away, or give it the condition that it lacks.",
        example: "{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: r, namespace: shop},
 spec: {parentRefs: [{group: '', kind: Service, name: web}], rules: [{backendRefs: [{name: web, port: 80}]},
  {matches: [{path: {type: PathPrefix, value: /}}], backendRefs: [{name: web, port: 80}]}]}}";
    ShadowedRoute = 109, Warning, world, "match of an older route",
        means: "An older route of the same Service has a match with the same conditions and comes first.",
        cure: "Put the rules into one route, or give one a further condition.",
        example: "{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: r, namespace: shop},
 spec: {parentRefs: [{group: '', kind: Service, name: web}], rules: [{backendRefs: [{name: web, port: 80}]}]}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: s, namespace: shop},
 spec: {parentRefs: [{group: '', kind: Service, name: web, port: 80}], rules: [{backendRefs: [{name: web, port: 80}]}]}}";
    ConsumerRoute = 110, Note, world, "consumer's route in place of the producer's",
        means: "Callers of the route's namespace meet it instead of the routes that the Service's own namespace has for it.",
        cure: "Nothing, where that is meant.",
        example: "{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: r, namespace: shop},
 spec: {parentRefs: [{group: '', kind: Service, name: web}], rules: [{backendRefs: [{name: web, port: 80}]}]}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: own, namespace: partner},
 spec: {parentRefs: [{group: '', kind: Service, name: web, namespace: shop}],
  rules: [{backendRefs: [{name: web, namespace: shop, port: 80}]}]}}";
    ConnectNeverRouted = 111, Warning, itself, "no route sees CONNECT",
        means: "A tunnel is carried as bytes and meets no route; an upgraded request is routed as the GET that it is.",
        cure: "Match GET, or leave the method out.",
        example: "{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: r, namespace: shop},
 spec: {parentRefs: [{group: '', kind: Service, name: web}],
  rules: [{matches: [{method: CONNECT}], backendRefs: [{name: web, port: 80}]}]}}";
    RepeatedHeaderMatch = 112, Warning, itself, "header or query parameter matched twice",
        means: "The match names a header or a query parameter twice; the first entry counts, as the standard says.",
        cure: "Keep one of them; two values are two matches.",
        example: "{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: r, namespace: shop},
 spec: {parentRefs: [{group: '', kind: Service, name: web}], rules: [{backendRefs: [{name: web, port: 80}],
  matches: [{headers: [{name: x-a, value: '1'}, {name: X-A, value: '2'}]}]}]}}";
    RepeatedHeaderChange = 113, Warning, itself, "header changed twice",
        means: "The filter names a header twice in `set` or in `add`; the first entry counts, as the standard says.",
        cure: "Keep one of them.",
        example: "{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: r, namespace: shop},
 spec: {parentRefs: [{group: '', kind: Service, name: web}], rules: [{backendRefs: [{name: web, port: 80}],
  filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-a, value: '1'}, {name: x-a, value: '2'}]}}]}]}}";
    UneditableHeader = 114, Error, itself, "header that no rule changes",
        means: "Host, fields of framing and of one hop, and those of the mesh itself are made anew on each leg. The change \
                would do nothing.",
        cure: "Take it away; requests reach another service by `backendRefs`.",
        example: "{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: r, namespace: shop},
 spec: {parentRefs: [{group: '', kind: Service, name: web}], rules: [{backendRefs: [{name: web, port: 80}],
  filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: Host, value: other}]}}]}]}}";
    NoDeadline = 115, Warning, world, "rule lifts the mesh's deadline",
        means: "The Mesh has a `requestTimeout`, and the rule's `timeouts.request` is longer, or 0s, which means none.",
        cure: "Leave it out, where the mesh's is meant.",
        example: "{apiVersion: weft.dev/v1alpha1, kind: Mesh, metadata: {name: a}, spec: {defaults: {requestTimeout: 5s}}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: r, namespace: shop},
 spec: {parentRefs: [{group: '', kind: Service, name: web}],
  rules: [{backendRefs: [{name: web, port: 80}], timeouts: {request: 0s}}]}}";
    BackendNotHttp = 116, Warning, world, "backend that takes nothing of the route",
        means: "The backend is no Service, or its port is declared tcp: no request is sent there. Of a TLSRoute or a \
                TCPRoute: its port is declared http or grpc, and no bytes are.",
        cure: "Declare what it speaks by `appProtocol`, or name another port.",
        example: "{apiVersion: v1, kind: Service, metadata: {name: raw, namespace: shop},
 spec: {selector: {app: web}, ports: [{port: 90, targetPort: 8080, appProtocol: tcp}]}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: r, namespace: shop},
 spec: {parentRefs: [{group: '', kind: Service, name: web}], rules: [{backendRefs: [{name: raw, port: 90}]}]}}";
    BackendWithoutEndpoints = 117, Warning, world, "backend without endpoints",
        means: "No workload stands behind the backend's Service: its share is answered 503.",
        cure: "Start one, or set the weight to 0 until there is one.",
        example: "{apiVersion: v1, kind: Service, metadata: {name: web-v2, namespace: shop},
 spec: {selector: {app: web, version: v2}, ports: [{port: 80, targetPort: 8080}]}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: r, namespace: shop},
 spec: {parentRefs: [{group: '', kind: Service, name: web}], rules: [{backendRefs: [{name: web-v2, port: 80}]}]}}";
    RouteOffHttp = 118, Warning, world, "route or filter at a port that is not HTTP",
        means: "What holds for HTTP never holds at a port that is declared tcp; where nothing is declared, what is not \
                HTTP is refused because of it.",
        cure: "Declare what the port speaks by `appProtocol`.",
        example: "{apiVersion: v1, kind: Service, metadata: {name: raw, namespace: shop},
 spec: {selector: {app: web}, ports: [{port: 90, targetPort: 8080, appProtocol: tcp}]}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: r, namespace: shop},
 spec: {parentRefs: [{group: '', kind: Service, name: raw}], rules: [{backendRefs: [{name: web, port: 80}]}]}}";

    NotAttached = 119, Warning, itself, "route that leads nowhere",
        means: "The route asks for what can't be done yet, and every request that it matches is answered 500, not in part; or \
                no parent of it is a Service, and it holds nowhere.",
        cure: "Take the part away that the message names.",
        example: "{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: r, namespace: shop},
 spec: {parentRefs: [{name: outside}], rules: [{backendRefs: [{name: web, port: 80}]}]}}";
    OtherKind = 120, Warning, world, "route beside one of another kind",
        means: "A route of another kind is attached to the same port of the Service. Routes of two kinds are not mixed, says \
                the standard: GRPCRoutes come first, then HTTPRoutes, TLSRoutes and TCPRoutes, and this route is asked for \
                nothing there.",
        cure: "Write all rules of the port as one kind, or attach the routes to different ports by `port`.",
        example: "{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: r, namespace: shop},
 spec: {parentRefs: [{group: '', kind: Service, name: web}], rules: [{backendRefs: [{name: web, port: 80}]}]}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: GRPCRoute, metadata: {name: g, namespace: shop},
 spec: {parentRefs: [{group: '', kind: Service, name: web}], rules: [{backendRefs: [{name: web, port: 80}]}]}}";
    RedirectsToItself = 121, Warning, itself, "redirect to itself",
        means: "The redirect names neither another host nor another scheme, port or path: its Location is the address that was \
                asked for, and a caller that follows it comes back until it gives up.",
        cure: "Say where to: `scheme`, `hostname`, `port` or `path`.",
        example: "{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: r, namespace: shop},
 spec: {parentRefs: [{group: '', kind: Service, name: web}],
  rules: [{filters: [{type: RequestRedirect, requestRedirect: {statusCode: 301}}]}]}}";
    RouteOffBytes = 122, Warning, world, "TLSRoute or TCPRoute at a port of requests",
        means: "The port is declared http or grpc: what comes there is read as requests, and no route of bytes is asked.",
        cure: "Name a port that is declared tcp (or nothing) by `port`, or write an HTTPRoute.",
        example: "{apiVersion: gateway.networking.k8s.io/v1, kind: TCPRoute, metadata: {name: r, namespace: shop},
 spec: {parentRefs: [{group: '', kind: Service, name: web}], rules: [{backendRefs: [{name: web, port: 80}]}]}}";

    AnyMethod = 201, Error, itself, "`*` is no method",
        means: "Methods are compared as they are, and no request has the method `*`: a Deny by it never denies, and \
                `notMethods: [\"*\"]` excepts nothing.",
        cure: "Leave `methods` out to mean every method.",
        example: "{apiVersion: weft.dev/v1alpha1, kind: AccessPolicy, metadata: {name: p, namespace: shop},
 spec: {action: Deny, rules: [{to: [{methods: ['*'], paths: [/admin]}]}]}}";
    MisspeltMethod = 202, Warning, itself, "method looks misspelt",
        means: "No standard has the method, and one has nearly that name.",
        cure: "Correct it.",
        example: "{apiVersion: weft.dev/v1alpha1, kind: AccessPolicy, metadata: {name: p, namespace: shop},
 spec: {action: Deny, rules: [{to: [{methods: [DELTE]}]}]}}";
    ConnectNeverJudged = 203, Warning, itself, "no rule sees CONNECT",
        means: "A tunnel is judged as a connection, without a method; an upgraded request as the GET that it is. Of a \
                connection a deny rule holds by its other conditions.",
        cure: "Deny the port or the caller.",
        example: "{apiVersion: weft.dev/v1alpha1, kind: AccessPolicy, metadata: {name: p, namespace: shop},
 spec: {action: Deny, rules: [{to: [{methods: [CONNECT]}]}]}}";
    ServicePort = 204, Error, world, "a Service's port where the app's is meant",
        means: "Rules are judged at the workload, by the port that the app listens on. This one is the Service's: a Deny \
                by it never denies, and `notPorts` with it excepts nothing.",
        cure: "Name the Service's `targetPort`.",
        example: "{apiVersion: weft.dev/v1alpha1, kind: AccessPolicy, metadata: {name: p, namespace: shop},
 spec: {action: Deny, rules: [{to: [{ports: [80]}]}]}}";
    UnservedRulePort = 205, Warning, world, "port that no target serves",
        means: "No workload that the policy holds for has a port of this number.",
        cure: "Name a port of the workloads.",
        example: "{apiVersion: weft.dev/v1alpha1, kind: AccessPolicy, metadata: {name: p, namespace: shop},
 spec: {rules: [{to: [{ports: [9999]}, {ports: [8080]}]}]}}";
    ForeignPrincipal = 206, Error, world, "caller of another trust domain",
        means: "Peers of other trust domains are never let in, so nobody is this principal: a Deny by it never denies, \
                and `notPrincipals` with it excepts nobody.",
        cure: "Name the trust domain of the mesh.",
        example: "{apiVersion: weft.dev/v1alpha1, kind: AccessPolicy, metadata: {name: p, namespace: shop},
 spec: {action: Deny, rules: [{from: [{principals: ['spiffe://cluster.locl/ns/shop/sa/web']}]}]}}";
    UnknownAccount = 207, Warning, world, "account of no workload",
        means: "No workload has this account now.",
        cure: "Correct it; nothing, where its workloads come later.",
        example: "{apiVersion: weft.dev/v1alpha1, kind: AccessPolicy, metadata: {name: p, namespace: shop},
 spec: {rules: [{from: [{serviceAccounts: [shop/wep]}]}]}}";
    UnknownNamespace = 208, Warning, world, "namespace of nobody",
        means: "No object is in a namespace of this name.",
        cure: "Correct it; nothing, where its workloads come later.",
        example: "{apiVersion: weft.dev/v1alpha1, kind: AccessPolicy, metadata: {name: p, namespace: shop},
 spec: {rules: [{from: [{namespaces: [shopp]}]}]}}";
    Contradiction = 209, Error, itself, "rule that contradicts itself",
        means: "Its conditions exclude each other: the same entry with and without `not`, a header that is absent and has \
                a value, a value that no header has, an account outside the namespaces named beside it. The rule never \
                holds.",
        cure: "Take one of the conditions away, or split the rule.",
        example: "{apiVersion: weft.dev/v1alpha1, kind: AccessPolicy, metadata: {name: p, namespace: shop},
 spec: {action: Deny, rules: [{to: [{paths: [/admin], notPaths: [/admin]}]}]}}";
    RepeatedRule = 210, Warning, itself, "rule that adds nothing",
        means: "An earlier rule of the policy says the same, or holds for everything.",
        cure: "Take it away.",
        example: "{apiVersion: weft.dev/v1alpha1, kind: AccessPolicy, metadata: {name: p, namespace: shop},
 spec: {rules: [{name: all}, {to: [{paths: [/x]}]}]}}";
    Contradicted = 211, Warning, world, "allowed and denied",
        means: "A deny policy that holds for the same workloads covers the rule: deny comes first, and it allows nothing.",
        cure: "Narrow the deny policy, or take the rule away.",
        example: "{apiVersion: weft.dev/v1alpha1, kind: AccessPolicy, metadata: {name: p, namespace: shop},
 spec: {rules: [{to: [{paths: [/x]}]}]}}
---
{apiVersion: weft.dev/v1alpha1, kind: AccessPolicy, metadata: {name: q, namespace: shop},
 spec: {action: Deny, rules: [{from: [{namespaces: [shop]}]}, {to: [{paths: [/x]}]}]}}";
    TargetMissing = 212, Warning, world, "policy without its target",
        means: "The Service or Workload that the policy is for does not exist: it holds for nobody there.",
        cure: "Correct the name, or apply the target.",
        example: "{apiVersion: weft.dev/v1alpha1, kind: AccessPolicy, metadata: {name: p, namespace: shop},
 spec: {targetRefs: [{kind: Service, name: wep}], rules: []}}";
    ForeignTarget = 213, Error, itself, "target of another namespace",
        means: "A policy holds in its own namespace; only one of `weft-system` may target other namespaces.",
        cure: "Put the policy into that namespace.",
        example: "{apiVersion: weft.dev/v1alpha1, kind: AccessPolicy, metadata: {name: p, namespace: shop},
 spec: {targetRefs: [{kind: Namespace, name: partner}], rules: []}}";
    HoldsForNobody = 214, Warning, world, "policy that holds for nobody",
        means: "Its targets exist and no workload is behind them, or its namespace has no workload.",
        cure: "Nothing, where workloads come later.",
        example: "{apiVersion: weft.dev/v1alpha1, kind: AccessPolicy, metadata: {name: p, namespace: partner},
 spec: {rules: []}}";
    AuthzMissing = 215, Error, world, "authorization is not published",
        means: "The filter `weft-system/authz` enforces access policies and is not published.",
        cure: "Start the control plane with its built-in filters.",
        example: "";
    RuleOffHttp = 216, Warning, world, "rule at a port that is not HTTP",
        means: "Methods, paths and headers are not seen at a port that is declared tcp: an allow rule with them allows \
                nothing there, a deny rule denies by its other conditions. Where nothing is declared, what is not HTTP is \
                refused because of the rule.",
        cure: "Declare what the port speaks by `appProtocol`, or narrow the rule by `ports`.",
        example: "{apiVersion: v1, kind: Service, metadata: {name: raw, namespace: shop},
 spec: {selector: {app: raw}, ports: [{port: 90, appProtocol: tcp}]}}
---
{apiVersion: weft.dev/v1alpha1, kind: Workload, metadata: {name: raw-1, namespace: shop, labels: {app: raw}},
 spec: {address: 10.0.0.9, ports: [{port: 90, protocol: tcp}]}}
---
{apiVersion: weft.dev/v1alpha1, kind: AccessPolicy, metadata: {name: p, namespace: shop},
 spec: {rules: [{to: [{paths: [/x]}]}]}}";
    Overruled = 217, Warning, world, "policy that an older one overrules",
        means: "An older TrafficPolicy for the same Service, namespace or Mesh sets the same: what the younger one says of that \
                has no effect there. Its other settings hold. A host outside goes as the oldest ExternalService of a namespace \
                says that claims it, at the ports that this one has.",
        cure: "Take the setting out of one of them, the target, or the host.",
        example: "{apiVersion: weft.dev/v1alpha1, kind: TrafficPolicy, metadata: {name: first, namespace: shop},
 spec: {targetRefs: [{kind: Service, name: web}], loadBalancing: {algorithm: RoundRobin}}}
---
{apiVersion: weft.dev/v1alpha1, kind: TrafficPolicy, metadata: {name: second, namespace: shop},
 spec: {targetRefs: [{kind: Service, name: web}], loadBalancing: {algorithm: Random}}}";
    ClaimNotTold = 218, Warning, world, "claim that nobody tells",
        means: "A rule reads a claim that no JwtPolicy (or FilterPolicy of `jwt`) of the workload tells: it is never there. A \
                rule that wants it is never met, one that wants it absent always.",
        cure: "Name the claim in `claims` of the JwtPolicy, or let that hold for the workload too.",
        example: "{apiVersion: weft.dev/v1alpha1, kind: AccessPolicy, metadata: {name: p, namespace: shop},
 spec: {action: Deny, rules: [{from: [{claims: [{name: role, exact: guest}]}]}]}}";

    SameAddress = 301, Error, itself, "virtual address that is taken",
        means: "The `clusterIP` is another Service's, or the address of a workload: whoever dials it may mean either.",
        cure: "Give the Service an address of its own, or none.",
        example: "{apiVersion: v1, kind: Service, metadata: {name: b, namespace: shop},
 spec: {selector: {app: web}, clusterIP: 10.96.0.1, ports: [{port: 80, targetPort: 8080}]}}";
    SelectsNobody = 302, Warning, world, "Service without endpoints",
        means: "No workload of the Service's namespace has all labels of its selector: requests are answered 503.",
        cure: "Correct the selector or the labels; nothing, where workloads come later.",
        example: "{apiVersion: v1, kind: Service, metadata: {name: b, namespace: shop},
 spec: {selector: {app: wep}, ports: [{port: 80}]}}";
    NoSelector = 303, Warning, itself, "Service without selector",
        means: "Without a selector no workload ever stands behind the Service, and no route is attached to it.",
        cure: "Give it one, or attach a route that leads to others.",
        example: "{apiVersion: v1, kind: Service, metadata: {name: b, namespace: shop}, spec: {ports: [{port: 80}]}}";
    UnservedPort = 304, Warning, world, "port that nobody serves",
        means: "None of the workloads behind the Service has a port of the number `targetPort`: requests are answered 503.",
        cure: "Correct `targetPort`, or the workloads' ports.",
        example: "{apiVersion: v1, kind: Service, metadata: {name: b, namespace: shop},
 spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8081}]}}";
    UnservedByWorkload = 305, Warning, world, "endpoint that does not serve the Service's port",
        means: "The workload stands behind a Service and has no port that the Service leads to: it is no endpoint of it.",
        cure: "Let the app listen on the Service's `targetPort`, or change that.",
        example: "{apiVersion: weft.dev/v1alpha1, kind: Workload, metadata: {name: web-2, namespace: shop, labels: {app: web}},
 spec: {address: 10.0.0.9, serviceAccount: web, ports: [{port: 9090}]}}";
    DeclaredOtherwise = 306, Warning, world, "port declared in two ways",
        means: "The Service and a workload behind it declare other protocols for one port. What they disagree on counts \
                as the workload's.",
        cure: "Declare the same, or only one of them.",
        example: "{apiVersion: v1, kind: Service, metadata: {name: b, namespace: shop},
 spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080, appProtocol: tcp}]}}";
    ZeroWeights = 307, Warning, world, "endpoints of weight 0",
        means: "All endpoints of the Service have the weight 0, and share its requests as if each had 1.",
        cure: "Give the weight 0 to some only, or delete the Service.",
        example: "{apiVersion: v1, kind: Service, metadata: {name: b, namespace: shop},
 spec: {selector: {app: b}, ports: [{port: 80}]}}
---
{apiVersion: weft.dev/v1alpha1, kind: Workload, metadata: {name: b-1, namespace: shop, labels: {app: b}},
 spec: {address: 10.0.0.9, weight: 0, ports: [{port: 80}]}}";
    SameSocket = 308, Warning, world, "two workloads at one socket",
        means: "Two workloads have one address and one port there: what is sent to the socket reaches one of them. In two \
                namespaces it is an error.",
        cure: "Correct the address.",
        example: "{apiVersion: weft.dev/v1alpha1, kind: Workload, metadata: {name: web-2, namespace: shop, labels: {app: web}},
 spec: {address: 10.0.0.1, serviceAccount: web, ports: [{port: 8080}]}}";
    UnknownListedAccount = 309, Note, world, "Service lists an account of no workload",
        means: "`weft.dev/accounts` names an account that no workload of the namespace has now.",
        cure: "Correct it; nothing, where its workloads come later.",
        example: "{apiVersion: v1, kind: Service, metadata: {name: b, namespace: shop, annotations: {weft.dev/accounts: 'web,wep'}},
 spec: {selector: {app: web}, ports: [{port: 81, targetPort: 8080}]}}";

    FilterMissing = 401, Error, world, "filter is not published",
        means: "The policy names a Filter that is not published.",
        cure: "Correct the name, or `weft filter publish` it first.",
        example: "{apiVersion: weft.dev/v1alpha1, kind: FilterPolicy, metadata: {name: p, namespace: shop},
 spec: {filter: {name: ratelimt}}}";
    FilterVersion = 402, Error, world, "no such version is published",
        means: "The policy names a version of the Filter that was never published, or a range or a channel in which there is none.",
        cure: "Publish it, promote one to the channel, or leave `version` out.",
        example: "{apiVersion: weft.dev/v1alpha1, kind: FilterPolicy, metadata: {name: p, namespace: shop},
 spec: {filter: {name: ratelimit, version: 9.0.0}, capabilities: [token-bucket]}}";
    NotGranted = 403, Error, world, "capability is not granted",
        means: "The Filter needs a capability that the policy does not grant.",
        cure: "List it in `capabilities`.",
        example: "{apiVersion: weft.dev/v1alpha1, kind: FilterPolicy, metadata: {name: p, namespace: shop},
 spec: {filter: {name: ratelimit}}}";
    GrantedInVain = 404, Note, world, "capability that the filter does not use",
        means: "The policy grants more than the Filter asks for.",
        cure: "Take it away.",
        example: "{apiVersion: weft.dev/v1alpha1, kind: FilterPolicy, metadata: {name: p, namespace: shop},
 spec: {filter: {name: fault}, capabilities: [token-bucket]}}";
    UnusedFilter = 405, Note, world, "filter that nobody uses",
        means: "No policy names the Filter.",
        cure: "Delete it, or attach it by a FilterPolicy.",
        example: "{apiVersion: weft.dev/v1alpha1, kind: Filter, metadata: {name: teapot, namespace: weft-system},
 spec: {version: 1.0.0, digest: 'sha256:cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc',
  signature: c2ln, publicKey: PEM, size: 10, abi: 'weft:filter@0.1.0'}}";
    SwitchedOff = 406, Note, itself, "policy that is switched off",
        means: "`mode: Off` attaches the filter nowhere; `mode: Audit` counts its verdicts and refuses nothing.",
        cure: "Nothing, where that is meant.",
        example: "{apiVersion: weft.dev/v1alpha1, kind: FilterPolicy, metadata: {name: p, namespace: shop},
 spec: {filter: {name: ratelimit}, capabilities: [token-bucket], mode: Off}}";
    AttachedTwice = 407, Warning, world, "filter attached twice with one configuration",
        means: "Two policies attach one Filter in one direction with the same configuration to the same workload: it runs \
                twice.",
        cure: "Delete one, or narrow its targets.",
        example: "{apiVersion: weft.dev/v1alpha1, kind: FilterPolicy, metadata: {name: p, namespace: shop},
 spec: {filter: {name: ratelimit}, capabilities: [token-bucket]}}
---
{apiVersion: weft.dev/v1alpha1, kind: FilterPolicy, metadata: {name: q, namespace: shop},
 spec: {filter: {name: ratelimit}, capabilities: [token-bucket]}}";
    NeverPublished = 408, Error, world, "filter that was never published",
        means: "A Filter is applied with a version that was never published, or otherwise than it was.",
        cure: "`weft filter publish` makes Filters; take what it made.",
        example: "";
    PolicyRefused = 409, Error, world, "filter that can't run as its policy says",
        means: "The control plane has tried the filter as proxies would: it refuses its configuration, lacks a capability, \
                is given too little, or can't run at all.",
        cure: "The message says what the filter says.",
        example: "";
    PolicyUntried = 410, Note, world, "filter that could not be tried",
        means: "The control plane could not try the filter with its configuration, which says nothing of it.",
        cure: "Nothing, or look at what the message says of the control plane's machine.",
        example: "";
    FilterYanked = 411, Warning, world, "version that was yanked",
        means: "The policy names this very version of a Filter, which was yanked since: it still runs, and nobody else takes it up.",
        cure: "Name another version, a range or a channel.",
        example: "";
    PublisherDistrusted = 412, Warning, world, "publisher is not trusted",
        means: "The Filter is signed with a key that is none of the Mesh's `filterPublishers`, and none that a FilterPublisher has for \
                its name: it does not run. With `onFailure: Deny` \
                everything that it would judge is refused, with `onFailure: Allow` nothing is judged. A FilterPolicy that is \
                applied is refused with this.",
        cure: "Take a version of a trusted publisher, or put the key into `filterPublishers` or a FilterPublisher.",
        example: "";
    ConfigUnfit = 413, Error, world, "configuration does not fit the filter's schema",
        means: "The Filter carries a JSON Schema of its configuration, and the policy's `config` does not fit it.",
        cure: "The message says what is expected at this key.",
        example: "{apiVersion: weft.dev/v1alpha1, kind: Filter, metadata: {name: teapot, namespace: weft-system},
 spec: {version: 1.0.0, digest: 'sha256:cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc',
  signature: c2ln, publicKey: PEM, size: 10, abi: 'weft:filter@0.1.0', configSchema: {properties: {status: {type: integer}}}}}
---
{apiVersion: weft.dev/v1alpha1, kind: FilterPolicy, metadata: {name: p, namespace: shop},
 spec: {filter: {name: teapot}, config: {status: hot}}}";
    ExpressionUnfit = 414, Error, itself, "expression that can't be evaluated",
        means: "The configuration of a FilterPolicy of the filter `expr` does not fit: an expression can't be parsed, names what is not \
                there, compares values of different types or costs too much, or a rule is not formed as rules are.",
        cure: "The message says what is wrong at this key, in an expression with line and column.",
        example: "{apiVersion: weft.dev/v1alpha1, kind: FilterPolicy, metadata: {name: p, namespace: shop},
 spec: {filter: {name: expr}, config: {rules: [{name: r, when: 'request.pth == 1', then: {deny: {}}}]}}}";
    CalloutNowhere = 421, Warning, world, "callout that leads nowhere",
        means: "The policy lets its filter call a service that does not exist, or a port that it lacks or that takes no HTTP; or its \
                configuration of `extauth` or `jwt` names a callout that it does not grant: \
                each callout to it is an error, and what comes of it is the filter's business.",
        cure: "Correct the name or the port, or apply the Service.",
        example: "{apiVersion: weft.dev/v1alpha1, kind: Filter, metadata: {name: quota, namespace: weft-system},
 spec: {version: 1.0.0, digest: 'sha256:cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc',
  signature: c2ln, publicKey: PEM, size: 10, abi: 'weft:filter@0.2.0', capabilities: [callout]}}
---
{apiVersion: weft.dev/v1alpha1, kind: FilterPolicy, metadata: {name: p, namespace: shop},
 spec: {filter: {name: quota}, capabilities: [{callout: {services: [{name: quotas, port: 80}]}}]}}";
    DeniedCapability = 422, Warning, world, "capability that the filter is denied",
        means: "The Filter can call a capability that the policy does not grant. It runs, and each such call fails with `denied`.",
        cure: "List it in `capabilities`, or nothing, where the filter can do without.",
        example: "{apiVersion: weft.dev/v1alpha1, kind: Filter, metadata: {name: memory, namespace: weft-system},
 spec: {version: 1.0.0, digest: 'sha256:cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc',
  signature: c2ln, publicKey: PEM, size: 10, abi: 'weft:filter@0.2.0', capabilities: [kv]}}
---
{apiVersion: weft.dev/v1alpha1, kind: FilterPolicy, metadata: {name: p, namespace: shop},
 spec: {filter: {name: memory}}}";
    SecretMissing = 423, Warning, world, "secret that is not there",
        means: "The policy grants its filter a value that no Secret of its namespace has. With `onFailure: Deny` everything that it \
                would judge is refused until it is there, with `onFailure: Allow` nothing is judged.",
        cure: "Correct the name or the key, or apply the Secret.",
        example: "{apiVersion: weft.dev/v1alpha1, kind: Filter, metadata: {name: signer, namespace: weft-system},
 spec: {version: 1.0.0, digest: 'sha256:cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc',
  signature: c2ln, publicKey: PEM, size: 10, abi: 'weft:filter@0.2.0', capabilities: [secret]}}
---
{apiVersion: weft.dev/v1alpha1, kind: FilterPolicy, metadata: {name: p, namespace: shop},
 spec: {filter: {name: signer}, capabilities: [{secret: {values: [{name: signing, key: hmac}]}}]}}";

    TemplateMissing = 501, Error, world, "template does not exist",
        means: "The TrafficPolicy has settings from a PolicyTemplate that does not exist. Whoever deletes one that is used is \
                told so for each policy that uses it.",
        cure: "Correct the name, or apply the PolicyTemplate.",
        example: "{apiVersion: weft.dev/v1alpha1, kind: TrafficPolicy, metadata: {name: p, namespace: shop},
 spec: {targetRefs: [{kind: Service, name: web}], template: {name: standard}}}";
    TemplateRefuses = 502, Error, world, "values that the template does not take",
        means: "A value is of no parameter, of another type or out of range, one is missing, or the settings can't be meant with \
                it; or the PolicyTemplate is for other namespaces. A change of a PolicyTemplate is refused with this for each \
                policy that it would break.",
        cure: "The message says what is expected.",
        example: "{apiVersion: weft.dev/v1alpha1, kind: PolicyTemplate, metadata: {name: standard},
 spec: {parameters: [{name: patience, type: Duration, max: 10s}], trafficPolicy: {timeouts: {request: '${patience}'}}}}
---
{apiVersion: weft.dev/v1alpha1, kind: TrafficPolicy, metadata: {name: p, namespace: shop},
 spec: {targetRefs: [{kind: Service, name: web}], template: {name: standard, parameters: {patience: 1m}}}}";
    TierMissing = 503, Warning, world, "tier that nobody defines",
        means: "The Service's label `weft.dev/tier` names a tier of which there is no PolicyTemplate for its namespace: it has \
                the settings of a Service without one.",
        cure: "Correct the label, or apply a PolicyTemplate with this `tier`.",
        example: "{apiVersion: v1, kind: Service, metadata: {name: b, namespace: shop, labels: {weft.dev/tier: gold}},
 spec: {selector: {app: web}, ports: [{port: 81, targetPort: 8080}]}}";
    TierTaken = 504, Warning, world, "tier of an older template",
        means: "An older PolicyTemplate is of the same tier, for the same namespaces or some of them: there the Services get \
                what the older one says.",
        cure: "Change the older one, or the `tier` or `namespaces` of one of them.",
        example: "{apiVersion: weft.dev/v1alpha1, kind: PolicyTemplate, metadata: {name: first},
 spec: {tier: gold, trafficPolicy: {timeouts: {request: 1s}}}}
---
{apiVersion: weft.dev/v1alpha1, kind: PolicyTemplate, metadata: {name: second},
 spec: {tier: gold, trafficPolicy: {timeouts: {request: 2s}}}}";
}

impl Code {
    /// What the table says of it.
    #[must_use]
    pub fn about(self) -> &'static About {
        CODES.iter().find(|about| about.code == self).expect("the macro gives each code its entry")
    }
}

impl About {
    /// `WEFT204`.
    #[must_use]
    pub fn id(&self) -> String {
        format!("WEFT{:03}", self.number)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.about().id())
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Not a code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a code such as WEFT204")]
pub struct CodeError(String);

impl FromStr for Code {
    type Err = CodeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is = |about: &&About| about.id().eq_ignore_ascii_case(text);
        CODES.iter().find(is).map(|about| about.code).ok_or_else(|| CodeError(text.to_owned()))
    }
}
