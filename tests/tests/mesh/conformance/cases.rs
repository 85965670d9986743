//! The rows of the conformance table: routes, requests, and what each meets. Facts of Gateway API's conformance suite, with routes
//! of our own; what its mesh comparator does not look at (targets, Location) is compared, too.

use Met::{Answered, App as To, Moved, Sent, Status};

/// Fields of a head; a list of values is joined by commas, and nothing stands for an absent field.
pub(super) type Fields = &'static [(&'static str, &'static str)];

/// What becomes of a request.
#[derive(Debug, Clone, Copy)]
pub(super) enum Met {
    /// This app sees it as it was sent.
    App(&'static str),
    /// This app sees this target and these fields.
    Sent(&'static str, &'static str, Fields),
    /// This app answers, and the answer arrives with these fields.
    Answered(&'static str, Fields),
    /// A redirect to this address.
    Moved(u16, &'static str),
    Status(u16),
}

/// `METHOD TARGET`, where a target may begin with a port as in `:8080/`; what is sent with it; what it meets.
pub(super) type Row = (&'static str, Fields, Met);

/// A service of its own, behind which is echo-v1, with its routes.
pub(super) struct Case {
    /// Of the service and its routes.
    pub(super) name: &'static str,
    /// The behaviours of the suite that it shows.
    pub(super) of: &'static [&'static str],
    /// What the reference to the parent has beside its name.
    pub(super) parent: &'static str,
    /// The rules of each route.
    pub(super) routes: &'static [&'static str],
    pub(super) rows: &'static [Row],
    /// Conditions of the first route: type, status, reason.
    pub(super) conditions: &'static [(&'static str, &'static str, &'static str)],
}

/// Of a case that says no more.
const PLAIN: Case = Case { name: "", of: &[], parent: "", routes: &[], rows: &[], conditions: &[ATTACHED, RESOLVED] };

const ATTACHED: (&str, &str, &str) = ("Accepted", "True", "Accepted");
const RESOLVED: (&str, &str, &str) = ("ResolvedRefs", "True", "ResolvedRefs");
const NO_PARENT: (&str, &str, &str) = ("Accepted", "False", "NoMatchingParent");

/// Words that stand for longer ones in rules.
pub(super) const SHORT: [(&str, &str); 6] = [
    ("$1", "backendRefs: [{name: echo-v1, port: 80}]"),
    ("$2", "backendRefs: [{name: echo-v2, port: 80}]"),
    ("@redirect", "type: RequestRedirect, requestRedirect"),
    ("@rewrite", "type: URLRewrite, urlRewrite"),
    ("@request", "type: RequestHeaderModifier, requestHeaderModifier"),
    ("@answer", "type: ResponseHeaderModifier, responseHeaderModifier"),
];

const V1: &str = "echo-v1";
const V2: &str = "echo-v2";

/// The same seven changes of a request's header, by rules and by their backends.
const HEADER_ROWS: &[Row] = &[
    ("GET /set", &[], Sent(V1, "/set", &[("x-header-set", "set-overwrites-values")])),
    ("GET /set", &[("x-header-set", "old")], Sent(V1, "/set", &[("x-header-set", "set-overwrites-values")])),
    ("GET /add", &[], Sent(V1, "/add", &[("x-header-add", "add-appends-values")])),
    ("GET /add", &[("x-header-add", "old")], Sent(V1, "/add", &[("x-header-add", "old,add-appends-values")])),
    (
        "GET /remove",
        &[("x-header-remove", "old"), ("x-kept", "1")],
        Sent(V1, "/remove", &[("x-header-remove", ""), ("x-kept", "1")]),
    ),
    (
        "GET /multi",
        &[("x-set-2", "old"), ("x-add-2", "old"), ("x-remove-1", "old"), ("x-remove-2", "old"), ("x-kept", "1")],
        Sent(
            V1,
            "/multi",
            &[
                ("x-set-1", "one"),
                ("x-set-2", "two"),
                ("x-add-1", "one"),
                ("x-add-2", "old,two"),
                ("x-remove-1", ""),
                ("x-remove-2", ""),
                ("x-kept", "1"),
            ],
        ),
    ),
    (
        "GET /case",
        &[("x-set", "old"), ("X-ADD", "old"), ("x-ReMoVe", "old")],
        Sent(V1, "/case", &[("x-set", "new"), ("x-add", "old,new"), ("x-remove", "")]),
    ),
];

const MATCHING: &[Row] = &[
    ("GET /", &[], To(V1)),
    ("GET /example", &[], To(V1)),
    ("GET /", &[("version", "one")], To(V1)),
    ("GET /v2", &[], To(V2)),
    ("GET /v2/", &[], To(V2)),
    ("GET /v2/example", &[], To(V2)),
    ("GET /", &[("version", "two")], To(V2)),
    ("GET /v2example", &[], To(V1)),
    ("GET /foo/v2/example", &[], To(V1)),
];

const QUERIES: &[Row] = &[
    ("GET /?animal=whale", &[], To(V1)),
    ("GET /?animal=dolphin", &[], To(V2)),
    ("GET /?animal=whale&otherparam=irrelevant", &[], To(V1)),
    ("GET /?animal=dolphin&color=yellow", &[], To(V2)),
    ("GET /?animal=dolphin&color=blue", &[], To(V1)),
    ("GET /?color=blue&animal=dolphin", &[], To(V1)),
    ("GET /?ANIMAL=Whale", &[], To(V2)),
    ("GET /?Animal=whale", &[], Status(404)),
    ("GET /?animal=Whale", &[], Status(404)),
    ("GET /?color=blue", &[], Status(404)),
    ("GET /?animal=dog", &[], Status(404)),
    ("GET /?animal=whaledolphin", &[], Status(404)),
    ("GET /", &[], Status(404)),
    ("GET /path1?animal=whale", &[], To(V2)),
    ("GET /?animal=whale", &[("version", "one")], To(V2)),
    ("GET /path2?animal=shark", &[("version", "two")], To(V1)),
    ("GET /path2?animal=shark", &[], Status(404)),
    ("GET /path3?animal=shark", &[], To(V1)),
    ("GET /path4?animal=kraken", &[], To(V1)),
    ("GET /path5?animal=hydra", &[], To(V1)),
    ("GET /?animal=hydra", &[], To(V2)),
];

pub(super) const CASES: &[Case] = &[
    Case {
        name: "basic",
        of: &["MeshBasic"],
        rows: &[("GET /", &[], To(V1)), ("POST /any?a=b", &[], To(V1)), ("GET :8080/", &[], To(V1))],
        ..PLAIN
    },
    Case {
        name: "simple",
        of: &["MeshHTTPRouteSimpleSameNamespace", "HTTPRouteSimpleSameNamespace"],
        routes: &["[{$2}]"],
        rows: &[("GET /", &[], To(V2)), ("PUT /any", &[], To(V2))],
        ..PLAIN
    },
    Case {
        name: "split",
        of: &["MeshTrafficSplit"],
        routes: &[
            "[{matches: [{path: {type: Exact, value: /v1}}], $1}, {matches: [{path: {type: Exact, value: /v2}}], $2}]",
        ],
        rows: &[("GET /v1", &[], To(V1)), ("GET /v2", &[], To(V2)), ("GET /v3", &[], Status(404))],
        ..PLAIN
    },
    Case {
        name: "matching",
        of: &["MeshHTTPRouteMatching", "HTTPRouteMatching"],
        routes: &["[{matches: [{path: {value: /}}, {headers: [{name: version, value: one}]}], $1}, \
                   {matches: [{path: {value: /v2}}, {headers: [{name: version, value: two}]}], $2}]"],
        rows: MATCHING,
        ..PLAIN
    },
    Case {
        name: "exact-path",
        of: &["HTTPRouteExactPathMatching"],
        routes: &[
            "[{matches: [{path: {type: Exact, value: /one}}], $1}, {matches: [{path: {type: Exact, value: /two}}], $2}]",
        ],
        rows: &[
            ("GET /one", &[], To(V1)),
            ("GET /two", &[], To(V2)),
            ("GET /", &[], Status(404)),
            ("GET /one/example", &[], Status(404)),
            ("GET /two/", &[], Status(404)),
            ("GET /Two", &[], Status(404)),
        ],
        ..PLAIN
    },
    Case {
        name: "path-order",
        of: &["HTTPRoutePathMatchOrder"],
        routes: &["[{matches: [{path: {value: /match}}], $1}, {matches: [{path: {value: /match/prefix}}], $2}, \
                   {matches: [{path: {value: /match/prefix/one}}], $1}, {matches: [{path: {type: Exact, value: /match/exact}}], $2}, \
                   {matches: [{path: {type: Exact, value: /match/prefix/one/two}}], $2}]"],
        rows: &[
            ("GET /match/exact/one", &[], To(V1)),
            ("GET /match/exact", &[], To(V2)),
            ("GET /match", &[], To(V1)),
            ("GET /match/prefix/one/any", &[], To(V1)),
            ("GET /match/prefix/any", &[], To(V2)),
            ("GET /match/prefix/one/two", &[], To(V2)),
            ("GET /match/any", &[], To(V1)),
        ],
        ..PLAIN
    },
    Case {
        name: "headers",
        of: &["HTTPRouteHeaderMatching"],
        routes: &[
            "[{matches: [{headers: [{name: version, value: one}]}], $1}, {matches: [{headers: [{name: Version, value: two}]}], $2}, \
                   {matches: [{headers: [{name: version, value: two}, {name: color, value: orange}]}], $1}, \
                   {matches: [{headers: [{name: color, value: blue}]}, {headers: [{name: color, value: green}]}], $1}, \
                   {matches: [{headers: [{name: color, value: red}]}, {headers: [{name: color, value: yellow}]}], $2}]",
        ],
        rows: &[
            ("GET /", &[("version", "one")], To(V1)),
            ("GET /", &[("version", "two")], To(V2)),
            ("GET /", &[("version", "two"), ("color", "orange")], To(V1)),
            ("GET /", &[("Version", "two"), ("COLOR", "orange")], To(V1)),
            ("GET /", &[("color", "blue")], To(V1)),
            ("GET /", &[("color", "green")], To(V1)),
            ("GET /", &[("color", "red")], To(V2)),
            ("GET /", &[("color", "yellow")], To(V2)),
            ("GET /", &[("color", "orange")], Status(404)),
            ("GET /", &[("color", "purple")], Status(404)),
            ("GET /", &[("some-other-header", "one")], Status(404)),
        ],
        ..PLAIN
    },
    Case {
        name: "methods",
        of: &["HTTPRouteMethodMatching"],
        routes: &[
            "[{matches: [{method: POST}], $1}, {matches: [{method: GET}], $2}, {matches: [{method: GET, path: {value: /path1}}], $1}, \
                   {matches: [{method: PUT, headers: [{name: version, value: one}]}], $2}, \
                   {matches: [{method: POST, path: {value: /path2}, headers: [{name: version, value: two}]}], $2}, \
                   {matches: [{path: {value: /path3}}], $1}, {matches: [{method: PATCH}], $2}, \
                   {matches: [{headers: [{name: version, value: four}, {name: color, value: red}]}], $1}]",
        ],
        rows: &[
            ("POST /", &[], To(V1)),
            ("GET /", &[], To(V2)),
            ("HEAD /", &[], Status(404)),
            ("GET /path1", &[], To(V1)),
            ("PUT /", &[("version", "one")], To(V2)),
            ("PUT /", &[], Status(404)),
            ("POST /path2", &[("version", "two")], To(V2)),
            ("POST /path2", &[], To(V1)),
            // The longer path comes before the method, the method before any number of headers.
            ("PATCH /path3", &[], To(V1)),
            ("PATCH /path4", &[], To(V2)),
            ("PATCH /", &[("version", "four"), ("color", "red")], To(V2)),
            ("DELETE /", &[("version", "four"), ("color", "red")], To(V1)),
        ],
        ..PLAIN
    },
    Case {
        name: "queries",
        of: &["MeshHTTPRouteQueryParamMatching", "HTTPRouteQueryParamMatching"],
        routes: &[
            "[{matches: [{queryParams: [{name: animal, value: whale}]}], $1}, {matches: [{queryParams: [{name: animal, value: dolphin}]}], $2}, \
                   {matches: [{queryParams: [{name: animal, value: dolphin}, {name: color, value: blue}]}], $1}, \
                   {matches: [{queryParams: [{name: ANIMAL, value: Whale}]}], $2}, \
                   {matches: [{path: {value: /path1}, queryParams: [{name: animal, value: whale}]}], $2}, \
                   {matches: [{headers: [{name: version, value: one}], queryParams: [{name: animal, value: whale}]}], $2}, \
                   {matches: [{path: {value: /path2}, headers: [{name: version, value: two}], queryParams: [{name: animal, value: shark}]}, \
                   {path: {value: /path3}, queryParams: [{name: animal, value: shark}]}, {path: {value: /path4}, queryParams: [{name: animal, value: kraken}]}], $1}, \
                   {matches: [{path: {value: /path5}}], $1}, {matches: [{queryParams: [{name: animal, value: hydra}]}], $2}]",
        ],
        rows: QUERIES,
        ..PLAIN
    },
    Case {
        name: "across-routes",
        of: &["HTTPRouteMatchingAcrossRoutes"],
        routes: &[
            "[{matches: [{path: {value: /}}, {headers: [{name: version, value: one}]}], $1}]",
            "[{matches: [{path: {value: /v2}}, {path: {value: /}, headers: [{name: version, value: two}]}], $2}]",
        ],
        rows: &[
            ("GET /", &[], To(V1)),
            ("GET /", &[("version", "one")], To(V1)),
            ("GET /v2", &[], To(V2)),
            ("GET /v2/", &[("version", "one")], To(V2)),
            ("GET /v2example", &[], To(V1)),
            ("GET /", &[("version", "two")], To(V2)),
            ("GET /any", &[("version", "two")], To(V2)),
        ],
        ..PLAIN
    },
    Case {
        name: "named",
        of: &["MeshHTTPRouteNamedRule", "HTTPRouteNamedRule"],
        routes: &[
            "[{name: named-rule, matches: [{path: {value: /named}}], $1}, {matches: [{path: {value: /unnamed}}], $2}]",
        ],
        rows: &[("GET /named", &[], To(V1)), ("GET /unnamed", &[], To(V2))],
        ..PLAIN
    },
    Case {
        name: "ports",
        of: &["MeshPorts"],
        parent: ", port: 80",
        routes: &["[{filters: [{@answer: {set: [{name: X-Header-Set, value: set}]}}], $1}]"],
        rows: &[
            ("GET /", &[], Answered(V1, &[("x-header-set", "set")])),
            ("GET :8080/", &[], Answered(V1, &[("x-header-set", "")])),
        ],
        ..PLAIN
    },
    Case {
        name: "every-port",
        of: &["MeshPorts"],
        routes: &["[{filters: [{@answer: {set: [{name: X-Header-Set, value: set}]}}], $1}]"],
        rows: &[
            ("GET /", &[], Answered(V1, &[("x-header-set", "set")])),
            ("GET :8080/", &[], Answered(V1, &[("x-header-set", "set")])),
        ],
        ..PLAIN
    },
    Case {
        name: "frontend",
        of: &["MeshFrontend", "MeshFrontendHostname"],
        routes: &["[{filters: [{@answer: {set: [{name: X-Header-Set, value: set}]}}], $1}]"],
        rows: &[("GET /", &[], Answered(V1, &[("x-header-set", "set")]))],
        ..PLAIN
    },
    // Its route is of another namespace.
    Case { name: "consumed", of: &["MeshConsumerRoute"], ..PLAIN },
    Case {
        name: "redirect-status",
        of: &[
            "MeshHTTPRoute303Redirect",
            "MeshHTTPRoute307Redirect",
            "MeshHTTPRoute308Redirect",
            "HTTPRoute303Redirect",
            "HTTPRoute307Redirect",
            "HTTPRoute308Redirect",
            "MeshHTTPRouteRedirectHostAndStatus",
            "HTTPRouteRedirectHostAndStatus",
        ],
        routes: &[
            "[{matches: [{path: {value: /see-other}}], filters: [{@redirect: {hostname: example.org, statusCode: 303}}]}, \
                   {matches: [{path: {value: /temporary}}], filters: [{@redirect: {hostname: example.org, statusCode: 307}}]}, \
                   {matches: [{path: {value: /permanent}}], filters: [{@redirect: {hostname: example.org, statusCode: 308}}]}, \
                   {matches: [{path: {value: /hostname-redirect}}], filters: [{@redirect: {hostname: example.org}}]}, \
                   {matches: [{path: {value: /host-and-status}}], filters: [{@redirect: {hostname: example.org, statusCode: 301}}]}]",
        ],
        rows: &[
            ("POST /see-other", &[], Moved(303, "http://example.org/see-other")),
            ("GET /temporary?a=b", &[], Moved(307, "http://example.org/temporary?a=b")),
            ("PUT /permanent", &[], Moved(308, "http://example.org/permanent")),
            ("GET /hostname-redirect", &[], Moved(302, "http://example.org/hostname-redirect")),
            ("GET /host-and-status", &[], Moved(301, "http://example.org/host-and-status")),
        ],
        ..PLAIN
    },
    Case {
        name: "redirect-path",
        of: &["MeshHTTPRouteRedirectPath", "HTTPRouteRedirectPath"],
        routes: &[
            "[{matches: [{path: {value: /original-prefix}}], filters: [{@redirect: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /replacement-prefix}}}]}, \
                   {matches: [{path: {value: /full}}], filters: [{@redirect: {path: {type: ReplaceFullPath, replaceFullPath: /full-path-replacement}}}]}, \
                   {matches: [{path: {value: /path-and-host}}], filters: [{@redirect: {hostname: example.org, path: {type: ReplacePrefixMatch, replacePrefixMatch: /replacement-prefix}}}]}, \
                   {matches: [{path: {value: /path-and-status}}], filters: [{@redirect: {statusCode: 301, path: {type: ReplacePrefixMatch, replacePrefixMatch: /replacement-prefix}}}]}, \
                   {matches: [{path: {value: /full-path-and-host}}], filters: [{@redirect: {hostname: example.org, path: {type: ReplaceFullPath, replaceFullPath: /replacement-full}}}]}, \
                   {matches: [{path: {value: /full-path-and-status}}], filters: [{@redirect: {statusCode: 301, path: {type: ReplaceFullPath, replaceFullPath: /replacement-full}}}]}]",
        ],
        rows: &[
            ("GET /original-prefix/lemon", &[], Moved(302, "http://redirect-path/replacement-prefix/lemon")),
            ("GET /original-prefix", &[], Moved(302, "http://redirect-path/replacement-prefix")),
            ("GET /full/path/original?a=b", &[], Moved(302, "http://redirect-path/full-path-replacement?a=b")),
            ("GET /path-and-host/lemon", &[], Moved(302, "http://example.org/replacement-prefix/lemon")),
            ("GET /path-and-status/lemon", &[], Moved(301, "http://redirect-path/replacement-prefix/lemon")),
            ("GET /full-path-and-host", &[], Moved(302, "http://example.org/replacement-full")),
            ("GET /full-path-and-status/x", &[], Moved(301, "http://redirect-path/replacement-full")),
        ],
        ..PLAIN
    },
    Case {
        name: "redirect-port",
        of: &["MeshHTTPRouteRedirectPort", "HTTPRouteRedirectPort"],
        routes: &["[{matches: [{path: {value: /port}}], filters: [{@redirect: {port: 8083}}]}, \
                   {matches: [{path: {value: /port-and-host}}], filters: [{@redirect: {port: 8083, hostname: example.org}}]}, \
                   {matches: [{path: {value: /port-and-status}}], filters: [{@redirect: {port: 8083, statusCode: 301}}]}, \
                   {matches: [{path: {value: /all}}], filters: [{@redirect: {port: 8083, hostname: example.org, statusCode: 301}}]}]"],
        rows: &[
            ("GET /port", &[], Moved(302, "http://redirect-port:8083/port")),
            ("GET /port-and-host", &[], Moved(302, "http://example.org:8083/port-and-host")),
            ("GET /port-and-status", &[], Moved(301, "http://redirect-port:8083/port-and-status")),
            ("GET /all", &[], Moved(301, "http://example.org:8083/all")),
        ],
        ..PLAIN
    },
    Case {
        name: "redirect-scheme",
        of: &["MeshHTTPRouteSchemeRedirect", "HTTPRouteRedirectScheme"],
        routes: &["[{matches: [{path: {value: /scheme}}], filters: [{@redirect: {scheme: https}}]}, \
                   {matches: [{path: {value: /scheme-and-host}}], filters: [{@redirect: {scheme: https, hostname: example.org}}]}, \
                   {matches: [{path: {value: /scheme-and-status}}], filters: [{@redirect: {scheme: https, statusCode: 301}}]}, \
                   {matches: [{path: {value: /all}}], filters: [{@redirect: {scheme: https, hostname: example.org, statusCode: 301}}]}]"],
        rows: &[
            ("GET /scheme", &[], Moved(302, "https://redirect-scheme/scheme")),
            ("GET /scheme-and-host", &[], Moved(302, "https://example.org/scheme-and-host")),
            ("GET /scheme-and-status", &[], Moved(301, "https://redirect-scheme/scheme-and-status")),
            ("GET /all", &[], Moved(301, "https://example.org/all")),
        ],
        ..PLAIN
    },
    Case {
        name: "redirect-well-known",
        of: &["HTTPRouteRedirectPortAndScheme"],
        routes: &["[{matches: [{path: {value: /nothing}}], filters: [{@redirect: {hostname: example.org}}]}, \
                   {matches: [{path: {value: /port-80}}], filters: [{@redirect: {hostname: example.org, port: 80}}]}, \
                   {matches: [{path: {value: /port-8080}}], filters: [{@redirect: {hostname: example.org, port: 8080}}]}, \
                   {matches: [{path: {value: /http}}], filters: [{@redirect: {hostname: example.org, scheme: http}}]}, \
                   {matches: [{path: {value: /http-8080}}], filters: [{@redirect: {hostname: example.org, scheme: http, port: 8080}}]}, \
                   {matches: [{path: {value: /https}}], filters: [{@redirect: {hostname: example.org, scheme: https}}]}, \
                   {matches: [{path: {value: /https-443}}], filters: [{@redirect: {hostname: example.org, scheme: https, port: 443}}]}, \
                   {matches: [{path: {value: /https-8443}}], filters: [{@redirect: {hostname: example.org, scheme: https, port: 8443}}]}]"],
        rows: &[
            ("GET /nothing", &[], Moved(302, "http://example.org/nothing")),
            ("GET /port-80", &[], Moved(302, "http://example.org/port-80")),
            ("GET /port-8080", &[], Moved(302, "http://example.org:8080/port-8080")),
            ("GET /http", &[], Moved(302, "http://example.org/http")),
            ("GET /http-8080", &[], Moved(302, "http://example.org:8080/http-8080")),
            ("GET /https", &[], Moved(302, "https://example.org/https")),
            ("GET /https-443", &[], Moved(302, "https://example.org/https-443")),
            ("GET /https-8443", &[], Moved(302, "https://example.org:8443/https-8443")),
            ("GET :8080/nothing", &[], Moved(302, "http://example.org:8080/nothing")),
            ("GET :8080/port-80", &[], Moved(302, "http://example.org/port-80")),
            ("GET :8080/http", &[], Moved(302, "http://example.org/http")),
            ("GET :8080/https", &[], Moved(302, "https://example.org/https")),
        ],
        ..PLAIN
    },
    Case {
        name: "rewrite-path",
        of: &["MeshHTTPRouteRewritePath", "HTTPRouteRewritePath"],
        routes: &[
            "[{matches: [{path: {value: /prefix/one}}], filters: [{@rewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /one}}}], $1}, \
                   {matches: [{path: {value: /strip-prefix}}], filters: [{@rewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}}], $1}, \
                   {matches: [{path: {value: /full/one}}], filters: [{@rewrite: {path: {type: ReplaceFullPath, replaceFullPath: /one}}}], $1}, \
                   {matches: [{path: {value: /full/and-headers}}], filters: [{@rewrite: {path: {type: ReplaceFullPath, replaceFullPath: /test}}}, \
                   {@request: {set: [{name: x-set, value: new}], add: [{name: x-add, value: new}], remove: [x-remove]}}], $1}, \
                   {matches: [{path: {value: /prefix/and-headers}}], filters: [{@rewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /prefix}}}, \
                   {@request: {set: [{name: x-set, value: new}], add: [{name: x-add, value: new}], remove: [x-remove]}}], $2}]",
        ],
        rows: &[
            ("GET /prefix/one/two", &[], Sent(V1, "/one/two", &[])),
            ("GET /strip-prefix", &[], Sent(V1, "/", &[])),
            ("GET /strip-prefix/three?a=b", &[], Sent(V1, "/three?a=b", &[])),
            ("GET /full/one/two", &[], Sent(V1, "/one", &[])),
            (
                "GET /full/and-headers/two",
                &[("x-set", "old"), ("x-add", "old"), ("x-remove", "old")],
                Sent(V1, "/test", &[("x-set", "new"), ("x-add", "old,new"), ("x-remove", "")]),
            ),
            (
                "GET /prefix/and-headers/one",
                &[("x-set", "old"), ("x-add", "old"), ("x-remove", "old")],
                Sent(V2, "/prefix/one", &[("x-set", "new"), ("x-add", "old,new"), ("x-remove", "")]),
            ),
        ],
        ..PLAIN
    },
    Case {
        name: "rewrite-host",
        of: &["HTTPRouteRewriteHost"],
        routes: &["[{matches: [{path: {value: /one}}], filters: [{@rewrite: {hostname: one.example.org}}], $1}, \
                   {matches: [{path: {value: /two}}], filters: [{@rewrite: {hostname: two.example.org}}, \
                   {@request: {set: [{name: x-set, value: new}], add: [{name: x-add, value: new}], remove: [x-remove]}}], $2}, {$1}]"],
        rows: &[
            ("GET /one", &[], Sent(V1, "/one", &[("host", "one.example.org")])),
            (
                "GET /two",
                &[("x-set", "old"), ("x-add", "old"), ("x-remove", "old")],
                Sent(
                    V2,
                    "/two",
                    &[("host", "two.example.org"), ("x-set", "new"), ("x-add", "old,new"), ("x-remove", "")],
                ),
            ),
            ("GET /", &[], Sent(V1, "/", &[("host", "rewrite-host")])),
        ],
        ..PLAIN
    },
    Case {
        name: "rewrite-backend",
        of: &["HTTPRouteBackendURLRewrite"],
        routes: &["[{matches: [{path: {value: /full}}], backendRefs: [{name: echo-v1, port: 80, filters: \
                   [{@rewrite: {path: {type: ReplaceFullPath, replaceFullPath: /replacement}}}]}]}, \
                   {matches: [{path: {value: /original}}], backendRefs: [{name: echo-v2, port: 80, filters: \
                   [{@rewrite: {hostname: in.example.org, path: {type: ReplacePrefixMatch, replacePrefixMatch: /replacement}}}]}]}]"],
        rows: &[
            ("GET /full/path?a=b", &[], Sent(V1, "/replacement?a=b", &[("host", "rewrite-backend")])),
            ("GET /original/lemon", &[], Sent(V2, "/replacement/lemon", &[("host", "in.example.org")])),
        ],
        ..PLAIN
    },
    Case {
        name: "redirect-backend",
        of: &["HTTPRouteBackendRequestRedirect"],
        routes: &["[{matches: [{path: {value: /moved}}], backendRefs: [{name: echo-v1, port: 80, filters: \
                   [{@redirect: {hostname: example.org, statusCode: 301}}]}]}, {$1}]"],
        rows: &[
            ("GET /moved/here?a=b", &[], Moved(301, "http://example.org/moved/here?a=b")),
            ("GET /here", &[], To(V1)),
        ],
        ..PLAIN
    },
    Case {
        name: "host",
        of: &[],
        routes: &[
            "[{matches: [{headers: [{name: Host, value: host}]}], $1}, {matches: [{headers: [{name: Host, value: other}]}], $2}]",
        ],
        rows: &[("GET /", &[], To(V1))],
        ..PLAIN
    },
    Case {
        name: "request-headers",
        of: &["MeshHTTPRouteRequestHeaderModifier", "HTTPRouteRequestHeaderModifier"],
        routes: &[
            "[{matches: [{path: {value: /set}}], filters: [{@request: {set: [{name: X-Header-Set, value: set-overwrites-values}]}}], $1}, \
                   {matches: [{path: {value: /add}}], filters: [{@request: {add: [{name: X-Header-Add, value: add-appends-values}]}}], $1}, \
                   {matches: [{path: {value: /remove}}], filters: [{@request: {remove: [X-Header-Remove]}}], $1}, \
                   {matches: [{path: {value: /multi}}], filters: [{@request: {set: [{name: x-set-1, value: one}, {name: x-set-2, value: two}], \
                   add: [{name: x-add-1, value: one}, {name: x-add-2, value: two}], remove: [x-remove-1, x-remove-2]}}], $1}, \
                   {matches: [{path: {value: /case}}], filters: [{@request: {set: [{name: X-SET, value: new}], add: [{name: x-AdD, value: new}], remove: [X-Remove]}}], $1}]",
        ],
        rows: HEADER_ROWS,
        ..PLAIN
    },
    Case {
        name: "backend-headers",
        of: &["MeshHTTPRouteBackendRequestHeaderModifier", "HTTPRouteBackendRequestHeaderModifier"],
        routes: &[
            "[{matches: [{path: {value: /set}}], backendRefs: [{name: echo-v1, port: 80, filters: [{@request: {set: [{name: X-Header-Set, value: set-overwrites-values}]}}]}]}, \
                   {matches: [{path: {value: /add}}], backendRefs: [{name: echo-v1, port: 80, filters: [{@request: {add: [{name: X-Header-Add, value: add-appends-values}]}}]}]}, \
                   {matches: [{path: {value: /remove}}], backendRefs: [{name: echo-v1, port: 80, filters: [{@request: {remove: [X-Header-Remove]}}]}]}, \
                   {matches: [{path: {value: /multi}}], backendRefs: [{name: echo-v1, port: 80, filters: [{@request: {set: [{name: x-set-1, value: one}, {name: x-set-2, value: two}], \
                   add: [{name: x-add-1, value: one}, {name: x-add-2, value: two}], remove: [x-remove-1, x-remove-2]}}]}]}, \
                   {matches: [{path: {value: /case}}], backendRefs: [{name: echo-v1, port: 80, filters: \
                   [{@request: {set: [{name: X-SET, value: new}], add: [{name: x-AdD, value: new}], remove: [X-Remove]}}]}]}]",
        ],
        rows: HEADER_ROWS,
        ..PLAIN
    },
    Case {
        name: "answer-headers",
        of: &["HTTPRouteResponseHeaderModifier"],
        routes: &[
            "[{matches: [{path: {value: /set}}], filters: [{@answer: {set: [{name: X-Header-Set, value: set-overwrites-values}]}}], $1}, \
                   {matches: [{path: {value: /add}}], filters: [{@answer: {add: [{name: X-Header-Add, value: add-appends-values}]}}], $1}, \
                   {matches: [{path: {value: /remove}}], filters: [{@answer: {remove: [X-Header-Remove]}}], $1}, \
                   {matches: [{path: {value: /multi}}], filters: [{@answer: {set: [{name: x-set-1, value: one}, {name: x-set-2, value: two}], \
                   add: [{name: x-add-1, value: one}, {name: x-add-2, value: two}], remove: [x-remove-1, x-remove-2]}}], $1}, \
                   {matches: [{path: {value: /case}}], filters: [{@answer: {set: [{name: X-SET, value: new}], add: [{name: x-AdD, value: new}], remove: [X-Remove]}}], $1}]",
        ],
        rows: &[
            ("GET /set", &[], Answered(V1, &[("x-header-set", "set-overwrites-values")])),
            (
                "GET /set",
                &[("x-answer", "X-Header-Set: old")],
                Answered(V1, &[("x-header-set", "set-overwrites-values")]),
            ),
            ("GET /add", &[], Answered(V1, &[("x-header-add", "add-appends-values")])),
            (
                "GET /add",
                &[("x-answer", "X-Header-Add: old")],
                Answered(V1, &[("x-header-add", "old,add-appends-values")]),
            ),
            ("GET /remove", &[("x-answer", "X-Header-Remove: old")], Answered(V1, &[("x-header-remove", "")])),
            (
                "GET /multi",
                &[
                    ("x-answer", "x-set-2: old"),
                    ("x-answer", "x-add-2: old"),
                    ("x-answer", "x-remove-1: old"),
                    ("x-answer", "x-kept: 1"),
                ],
                Answered(
                    V1,
                    &[
                        ("x-set-1", "one"),
                        ("x-set-2", "two"),
                        ("x-add-1", "one"),
                        ("x-add-2", "old,two"),
                        ("x-remove-1", ""),
                        ("x-remove-2", ""),
                        ("x-kept", "1"),
                    ],
                ),
            ),
            (
                "GET /case",
                &[("x-answer", "x-set: old"), ("x-answer", "X-ADD: old"), ("x-answer", "x-ReMoVe: old")],
                Answered(V1, &[("x-set", "new"), ("x-add", "old,new"), ("x-remove", "")]),
            ),
        ],
        ..PLAIN
    },
    Case {
        name: "no-backends",
        of: &["HTTPRouteNoBackendRefs"],
        routes: &[
            "[{matches: [{path: {value: /omitted}}]}, {matches: [{path: {value: /empty}}], backendRefs: []}, {matches: [{path: {value: /}}], $1}]",
        ],
        rows: &[("GET /omitted", &[], Status(500)), ("GET /empty", &[], Status(500)), ("GET /", &[], To(V1))],
        ..PLAIN
    },
    Case {
        name: "backend-gone",
        of: &["HTTPRouteInvalidNonExistentBackendRef"],
        routes: &[
            "[{matches: [{path: {value: /gone}}], backendRefs: [{name: gone, port: 80}]}, {matches: [{path: {value: /there}}], $2}]",
        ],
        rows: &[("GET /gone", &[], Status(500)), ("GET /there", &[], To(V2))],
        conditions: &[ATTACHED, ("ResolvedRefs", "False", "BackendNotFound")],
        ..PLAIN
    },
    Case {
        name: "foreign",
        of: &[
            "HTTPRouteInvalidCrossNamespaceBackendRef",
            "HTTPRouteInvalidReferenceGrant",
            "HTTPRoutePartiallyInvalidViaInvalidReferenceGrant",
            "HTTPRouteReferenceGrant",
        ],
        routes: &[
            "[{matches: [{path: {value: /theirs}}], backendRefs: [{name: theirs, namespace: granting, port: 80}]}, {matches: \
                   [{path: {value: /own}}], $2}]",
        ],
        rows: &[("GET /theirs", &[], Status(500)), ("GET /own", &[], To(V2))],
        conditions: &[ATTACHED, ("ResolvedRefs", "False", "RefNotPermitted")],
        ..PLAIN
    },
    Case {
        name: "backend-kind",
        of: &["HTTPRouteInvalidBackendRefUnknownKind"],
        routes: &["[{backendRefs: [{group: unknown.example.com, kind: Bucket, name: some, port: 80}]}]"],
        rows: &[("GET /", &[], Status(500))],
        conditions: &[ATTACHED, ("ResolvedRefs", "False", "InvalidKind")],
        ..PLAIN
    },
    Case {
        name: "parent-port",
        of: &["HTTPRouteInvalidParentRefNotMatchingListenerPort"],
        parent: ", port: 81",
        routes: &["[{$2}]"],
        rows: &[("GET /", &[], To(V1))],
        conditions: &[NO_PARENT],
    },
    Case {
        name: "parent-section",
        of: &["HTTPRouteInvalidParentRefNotMatchingSectionName"],
        parent: ", sectionName: nothing",
        routes: &["[{$2}]"],
        rows: &[("GET /", &[], To(V1))],
        conditions: &[NO_PARENT],
    },
    Case {
        name: "parent-section-port",
        of: &["HTTPRouteInvalidParentRefSectionNameNotMatchingPort"],
        parent: ", port: 80, sectionName: other",
        routes: &["[{$2}]"],
        rows: &[("GET /", &[], To(V1)), ("GET :8080/", &[], To(V1))],
        conditions: &[NO_PARENT],
    },
    Case {
        name: "timeouts",
        of: &["HTTPRouteTimeoutRequest", "HTTPRouteTimeoutBackendRequest"],
        routes: &["[{matches: [{path: {value: /slow/3000}}], timeouts: {request: 100ms}, $1}, \
                   {matches: [{path: {value: /slow/3001}}], timeouts: {backendRequest: 100ms}, $1}, \
                   {matches: [{path: {value: /slow/150}}], timeouts: {request: 0s}, $1}, \
                   {matches: [{path: {value: /slow/151}}], timeouts: {backendRequest: 0s}, $1}]"],
        rows: &[
            ("GET /slow/3000", &[], Status(504)),
            ("GET /slow/3001", &[], Status(504)),
            ("GET /slow/150", &[], To(V1)),
            ("GET /slow/151", &[], To(V1)),
        ],
        ..PLAIN
    },
    // Shares are counted, and each request beside the fields of its backend.
    Case {
        name: "weights",
        of: &["MeshHTTPRouteWeight", "HTTPRouteWeight", "HTTPRouteRequestHeaderModifierBackendWeights"],
        routes: &[
            "[{backendRefs: [{name: echo-v1, port: 80, weight: 70, filters: [{@request: {set: [{name: x-backend, value: echo-v1}]}}]}, \
                   {name: echo-v2, port: 80, weight: 30, filters: [{@request: {set: [{name: x-backend, value: echo-v2}]}}]}, \
                   {name: resetting, port: 80, weight: 0}]}]",
        ],
        ..PLAIN
    },
];
