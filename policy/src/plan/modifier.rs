//! Actions of routes, as proxies are told them.

use crate::authz::is_of_mesh;
use crate::bundle::{Cors, HeaderModifier, Mirror, ObjectName, PathChange, Redirect, Rewrite, RouteAction};
use crate::resource::route::{
    CorsSpec, HeaderField, HeaderModifierSpec, MirrorSpec, PathModifierSpec, Referred, RewriteSpec, RouteFilter,
};

/// The actions that a rule's or backend's filters are. A route with another filter leads nowhere. `prefix`: by which the rule
/// matches. `resolve`: the service that a mirror refers to.
pub(super) fn actions(
    filters: &[RouteFilter],
    prefix: Option<&str>,
    resolve: impl Fn(Referred<'_>) -> Option<ObjectName>,
) -> Vec<RouteAction> {
    let action = |filter: &RouteFilter| match filter {
        RouteFilter::RequestHeaderModifier(spec) => changed(spec).map(RouteAction::RequestHeaders),
        RouteFilter::ResponseHeaderModifier(spec) => changed(spec).map(RouteAction::ResponseHeaders),
        RouteFilter::UrlRewrite(RewriteSpec { hostname, path }) => {
            Some(RouteAction::Rewrite(Rewrite { host: hostname.clone(), path: change(path, prefix) }))
        }
        RouteFilter::RequestRedirect(spec) => Some(RouteAction::Redirect(Redirect {
            status: spec.status_code.unwrap_or(302),
            scheme: spec.scheme,
            host: spec.hostname.clone(),
            port: spec.port,
            path: change(&spec.path, prefix),
        })),
        RouteFilter::Cors(spec) => Some(RouteAction::Cors(cors(spec))),
        RouteFilter::RequestMirror(spec) => {
            Some(RouteAction::Mirror(mirror(spec, resolve(spec.backend_ref.referred()))))
        }
        RouteFilter::Later(_) => None,
    };
    filters.iter().filter_map(action).collect()
}

fn cors(spec: &CorsSpec) -> Cors {
    Cors {
        origins: spec.allow_origins.clone(),
        credentials: spec.allow_credentials == Some(true),
        methods: spec.allow_methods.clone(),
        headers: spec.allow_headers.clone(),
        expose: spec.expose_headers.clone(),
        max_age_s: spec.max_age_s(),
    }
}

fn mirror(spec: &MirrorSpec, service: Option<ObjectName>) -> Mirror {
    let (numerator, denominator) = spec.share();
    Mirror { service, port: spec.backend_ref.port, numerator, denominator }
}

fn change(path: &Option<PathModifierSpec>, prefix: Option<&str>) -> Option<PathChange> {
    Some(match path.as_ref()? {
        PathModifierSpec::ReplaceFullPath { replace_full_path } => PathChange::Full(replace_full_path.clone()),
        PathModifierSpec::ReplacePrefixMatch { replace_prefix_match } => {
            PathChange::Prefix { matched: prefix.unwrap_or("/").to_owned(), to: replace_prefix_match.clone() }
        }
    })
}

/// What a modifier changes. Of several entries with one name the first counts, says the standard; one that no rule changes is
/// left out, whoever wrote it down.
fn changed(spec: &HeaderModifierSpec) -> Option<HeaderModifier> {
    let fields = |list: &[HeaderField]| {
        let mut fields: Vec<(String, String)> = Vec::with_capacity(list.len());
        let named = list.iter().map(|field| (field.name.to_ascii_lowercase(), &field.value));
        for (name, value) in named.filter(|(name, _)| uneditable(name).is_none()) {
            if !fields.iter().any(|(known, _)| *known == name) {
                fields.push((name, value.clone()));
            }
        }
        fields
    };
    let removed = spec.remove.iter().map(|name| name.to_ascii_lowercase());
    let remove = removed.filter(|name| uneditable(name).is_none()).collect();
    let modifier = HeaderModifier { set: fields(&spec.set), add: fields(&spec.add), remove };
    (modifier != HeaderModifier::default()).then_some(modifier)
}

/// Why a header can't be changed by a rule; `None` where it can. Names are in lower case.
//= rfc9110#section-7.6.1
pub(crate) fn uneditable(name: &str) -> Option<&'static str> {
    Some(match name {
        "host" => "it names the service that the request is for",
        "content-length" | "transfer-encoding" | "trailer" => "framing is made anew on each leg",
        "connection" | "keep-alive" | "proxy-connection" | "te" | "upgrade" | "http2-settings" => {
            "it belongs to one leg and is not passed on"
        }
        "x-forwarded-client-cert" => "it tells the app who its caller is, by the caller's certificate",
        _ if is_of_mesh(name) => "it is the mesh's own",
        _ => return None,
    })
}
