//! `sessionPersistence` of a rule, as Gateway API has it (GEP-1619).

use http::HeaderName;
use serde::{Deserialize, Serialize};

use super::{PathType, RuleSpec};
use crate::bundle::{ObjectName, Persistence, SessionToken};
use crate::resource::value;

/// The longest name of a session, as the standard bounds it.
const MAX_NAME: usize = 128;

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct SessionSpec {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_name: Option<String>,
    #[serde(
        rename = "absoluteTimeout",
        deserialize_with = "value::duration_ms",
        serialize_with = "value::serialize_duration",
        skip_serializing_if = "Option::is_none"
    )]
    pub absolute_timeout_ms: Option<u64>,
    #[serde(
        rename = "idleTimeout",
        deserialize_with = "value::duration_ms",
        serialize_with = "value::serialize_duration",
        skip_serializing_if = "Option::is_none"
    )]
    pub idle_timeout_ms: Option<u64>,
    #[serde(rename = "type")]
    pub session_type: SessionType,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cookie_config: Option<CookieConfig>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum SessionType {
    #[default]
    Cookie,
    Header,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct CookieConfig {
    pub lifetime_type: LifetimeType,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum LifetimeType {
    #[default]
    Session,
    Permanent,
}

impl SessionSpec {
    /// Everything that is wrong; keys are inside `sessionPersistence`.
    pub(super) fn check(&self) -> Vec<(&'static str, String)> {
        let mut wrong = Vec::new();
        if let Some(name) = &self.session_name
            && let Err(message) = self.check_name(name)
        {
            wrong.push(("sessionName", message));
        }
        for (key, limit) in [("absoluteTimeout", self.absolute_timeout_ms), ("idleTimeout", self.idle_timeout_ms)] {
            if limit == Some(0) {
                wrong.push((key, "0s is no time: leave it out where sessions do not end by it".to_owned()));
            }
        }
        if self.is_permanent() && self.absolute_timeout_ms.is_none() {
            wrong.push((
                "absoluteTimeout",
                "is needed with `lifetimeType: Permanent`: how long the cookie is kept".to_owned(),
            ));
        }
        if self.session_type == SessionType::Header && self.cookie_config.is_some() {
            wrong.push(("cookieConfig", "is of sessions by Cookie: their `type` is Header".to_owned()));
        }
        wrong
    }

    fn check_name(&self, name: &str) -> Result<(), String> {
        if name.is_empty() || name.len() > MAX_NAME || HeaderName::try_from(name).is_err() {
            return Err(format!(
                "{name:?} is not the name of a cookie or a header: a token of 1 to {MAX_NAME} characters"
            ));
        }
        if self.session_type == SessionType::Cookie {
            return Ok(());
        }
        let name = name.to_ascii_lowercase();
        if matches!(name.as_str(), "cookie" | "set-cookie" | "authorization" | "content-type") {
            return Err(format!("{name:?} has a meaning of its own"));
        }
        value::matchable_header(&name)
    }

    fn is_permanent(&self) -> bool {
        self.cookie_config.as_ref().is_some_and(|config| config.lifetime_type == LifetimeType::Permanent)
    }
}

impl RuleSpec {
    /// As proxies are told it. `route`: whose rule it is, `place`: the rule's in it. Without a name the session has one
    /// of both.
    pub(crate) fn persistence(&self, route: &ObjectName, place: usize) -> Option<Persistence> {
        let spec = self.session_persistence.as_ref()?;
        let own = || {
            let rule = self.name.clone().unwrap_or_else(|| place.to_string());
            format!("session-{}-{}-{rule}", route.namespace, route.name)
        };
        let name = spec.session_name.clone().unwrap_or_else(own);
        let (name, by) = match spec.session_type {
            SessionType::Header => (name.to_ascii_lowercase(), SessionToken::Header),
            SessionType::Cookie => {
                (name, SessionToken::Cookie { path: self.cookie_path(), permanent: spec.is_permanent() })
            }
        };
        Some(Persistence { name, by, absolute_ms: spec.absolute_timeout_ms, idle_ms: spec.idle_timeout_ms })
    }

    /// Where every request of the rule is below one path, that: a browser has no reason to send the cookie elsewhere.
    fn cookie_path(&self) -> String {
        let paths: Vec<_> = self.matches.iter().map(|matched| matched.path.as_ref()).collect();
        let only = match paths.as_slice() {
            [Some(path)] if path.path_type != PathType::RegularExpression => Some(&path.value),
            _ => None,
        };
        let is_plain =
            |path: &&String| path.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b';' | b','));
        only.filter(is_plain).cloned().unwrap_or_else(|| "/".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::route::{HttpRouteSpec, MatchSpec};

    fn rule(session: &str, paths: &[&str]) -> RuleSpec {
        let spec: SessionSpec = serde_saphyr::from_str(&format!("{{{session}}}")).unwrap();
        let matched =
            |path: &&str| MatchSpec { path: Some(serde_saphyr::from_str(path).unwrap()), ..MatchSpec::default() };
        RuleSpec {
            matches: paths.iter().map(matched).collect(),
            session_persistence: Some(spec),
            ..RuleSpec::default()
        }
    }

    #[test]
    fn sessions_that_can_not_be_meant() {
        fn check(session: &str, expect: &[&str]) {
            let spec = HttpRouteSpec { rules: vec![rule(session, &[])], ..HttpRouteSpec::default() };
            let keys: Vec<_> = spec.check().into_iter().map(|(key, _)| key).collect();
            let expect: Vec<_> = expect.iter().map(|key| format!("rules[0].sessionPersistence.{key}")).collect();
            assert_eq!(keys, expect, "{session}");
        }
        check("", &[]);
        check("sessionName: sid, type: Cookie, absoluteTimeout: 1h, cookieConfig: {lifetimeType: Permanent}", &[]);
        check("sessionName: X-Session, type: Header, idleTimeout: 5m", &[]);
        check("cookieConfig: {lifetimeType: Permanent}", &["absoluteTimeout"]);
        check("type: Header, cookieConfig: {}", &["cookieConfig"]);
        check(
            "sessionName: 'a b', absoluteTimeout: 0s, idleTimeout: 0s",
            &["sessionName", "absoluteTimeout", "idleTimeout"],
        );
        check("sessionName: ''", &["sessionName"]);
        check("sessionName: weft-dst, type: Header", &["sessionName"]);
        check("sessionName: Set-Cookie, type: Header", &["sessionName"]);
        check("sessionName: weft-dst", &[]);
    }

    #[test]
    fn proxies_are_told_of_them_by_name_and_path() {
        let route = ObjectName::new("shop", "cart");
        let told = |session: &str, paths: &[&str]| rule(session, paths).persistence(&route, 2).unwrap().to_string();
        assert_eq!(told("", &[]), "by cookie session-shop-cart-2 of /");
        assert_eq!(told("sessionName: Sid", &["{value: /v2}"]), "by cookie Sid of /v2");
        assert_eq!(told("sessionName: Sid", &["{value: /v2}", "{value: /v3}"]), "by cookie Sid of /");
        assert_eq!(told("sessionName: Sid", &["{type: RegularExpression, value: /v.}"]), "by cookie Sid of /");
        assert_eq!(told("sessionName: Sid", &["{type: Exact, value: '/a;b'}"]), "by cookie Sid of /");
        let all = "sessionName: Sid, absoluteTimeout: 90m, idleTimeout: 5m, cookieConfig: {lifetimeType: Permanent}";
        assert_eq!(told(all, &[]), "by permanent cookie Sid of /, for 1h30m, until none came for 5m");
        assert_eq!(told("sessionName: X-Sid, type: Header", &[]), "by header x-sid");
        assert_eq!(rule("", &[]).persistence(&route, 2), rule("type: Cookie", &[]).persistence(&route, 2));
        assert_eq!(RuleSpec::default().persistence(&route, 2), None);
    }
}
