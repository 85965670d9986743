//! The patterns of rules. Each is parsed once; matching allocates nothing.

use super::ValueCondition;
use crate::identity::{SpiffeId, TrustDomain, is_label, is_subdomain};

/// A principal: exact or prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Text {
    Exact(String),
    Prefix(String),
}

impl Text {
    pub(super) fn principal(text: &str) -> Result<Self, String> {
        if let Some(prefix) = text.strip_suffix('*') {
            const SCHEME: &str = "spiffe://";
            if prefix.contains('*') || !(prefix.starts_with(SCHEME) || SCHEME.starts_with(prefix)) {
                return Err(format!("{text:?} is not a prefix of a SPIFFE ID; `*` stands at its end only"));
            }
            return Ok(Self::Prefix(prefix.to_owned()));
        }
        let id: SpiffeId = text.parse().map_err(|error| format!("{text:?}: {error}"))?;
        Ok(Self::Exact(id.as_str().to_owned()))
    }

    pub(super) fn namespace(text: &str, trust_domain: &str) -> Result<Self, String> {
        if !is_label(text) {
            return Err(format!("{text:?} is not the name of a namespace"));
        }
        Ok(Self::Prefix(format!("spiffe://{trust_domain}/ns/{text}/sa/")))
    }

    pub(super) fn service_account(text: &str, trust_domain: &TrustDomain) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not namespace/account");
        let (namespace, account) = text.split_once('/').ok_or_else(wrong)?;
        if !is_label(namespace) || !is_subdomain(account) {
            return Err(wrong());
        }
        let id = trust_domain.workload(namespace, account).map_err(|_| wrong())?;
        Ok(Self::Exact(id.as_str().to_owned()))
    }

    pub(super) fn matches(&self, text: &str) -> bool {
        match self {
            Self::Exact(exact) => exact == text,
            Self::Prefix(prefix) => text.starts_with(prefix.as_str()),
        }
    }
}

/// Says whether a text is a principal as rules name one.
///
/// # Errors
/// Why it is none.
#[cfg(feature = "manifest")]
pub(crate) fn check_principal(text: &str) -> Result<(), String> {
    Text::principal(text).map(drop)
}

/// A path pattern by which requests are told apart: those that it matches belong together as far as they have the same
/// in the places of its `{name}` elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathTemplate(Path);

impl PathTemplate {
    /// Of the same form as the paths of rules.
    ///
    /// # Errors
    /// Why it is no such path.
    pub fn parse(text: &str) -> Result<Self, String> {
        Path::parse(text).map(Self)
    }

    /// What requests for a normalised path have in common: its elements that the template names, decoded, with slashes
    /// between them. `None`: the template does not match the path.
    pub fn key(&self, path: &str) -> Option<Vec<u8>> {
        let path = crate::path::decode(path);
        if !self.0.matches(&path) {
            return None;
        }
        let segments = match &self.0 {
            Path::Template { segments, .. } => segments.as_slice(),
            Path::Any | Path::Exact(_) | Path::Under(_) => &[],
        };
        let given = path.split(|byte| *byte == b'/').skip(1);
        let named = segments.iter().zip(given).filter(|(segment, _)| **segment == Segment::One);
        Some(named.map(|(_, text)| text).collect::<Vec<_>>().join(&b'/'))
    }
}

/// A path pattern, over decoded readings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Path {
    Any,
    Exact(Vec<u8>),
    /// `/x/*`: `/x` and all below; kept as `/x`.
    Under(Vec<u8>),
    Template {
        segments: Vec<Segment>,
        open: bool,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Segment {
    Literal(Vec<u8>),
    /// `{name}`: one segment that is not empty.
    One,
}

impl Path {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if matches!(text, "*" | "/*") {
            return Ok(Self::Any);
        }
        let (body, open) = match text.strip_suffix("/*") {
            Some(body) => (body, true),
            None => (text, false),
        };
        if body.contains('*') {
            return Err(format!("{text:?}: `*` stands only alone or as the last element, as in /x/*"));
        }
        // The pattern as a request's path could look, with a plain character for each brace.
        let probe = body.replace(' ', "%20").replace(['{', '}'], "~");
        let normal = crate::path::normalize(&probe).map_err(|error| format!("{text:?}: {error}"))?;
        if crate::path::decode(&normal) != crate::path::decode(&probe) {
            return Err(format!("{text:?} is never a request's path: dots are resolved before"));
        }
        let decoded = crate::path::decode(body);
        if !body.contains(['{', '}']) {
            return Ok(if open { Self::Under(decoded.into_owned()) } else { Self::Exact(decoded.into_owned()) });
        }
        let segments = body.split('/').skip(1).map(|s| Segment::parse(s, text)).collect::<Result<_, _>>()?;
        Ok(Self::Template { segments, open })
    }

    /// A beginning that all paths have which it matches: the whole of them, or up to one of their slashes. `None`: they have
    /// nothing in common.
    pub(super) fn key(&self) -> Option<Vec<u8>> {
        match self {
            Self::Any => None,
            Self::Exact(path) | Self::Under(path) => Some(path.clone()),
            Self::Template { segments, .. } => {
                let literals = segments.iter().map_while(|segment| match segment {
                    Segment::Literal(literal) => Some(literal.as_slice()),
                    Segment::One => None,
                });
                Some(literals.flat_map(|literal| [&b"/"[..], literal].concat()).collect())
            }
        }
    }

    pub(super) fn matches(&self, path: &[u8]) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(exact) => exact == path,
            Self::Under(base) => {
                path.strip_prefix(base.as_slice()).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
            }
            Self::Template { segments, open } => {
                let mut given = path.split(|byte| *byte == b'/').skip(1);
                let all = segments.iter().all(|segment| given.next().is_some_and(|text| segment.matches(text)));
                all && (*open || given.next().is_none())
            }
        }
    }
}

impl Segment {
    fn parse(text: &str, whole: &str) -> Result<Self, String> {
        let name = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
        match name {
            Some(name)
                if !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-') =>
            {
                Ok(Self::One)
            }
            None if !text.contains(['{', '}']) => Ok(Self::Literal(crate::path::decode(text).into_owned())),
            _ => Err(format!("{whole:?}: {{name}} stands for one whole element")),
        }
    }

    fn matches(&self, text: &[u8]) -> bool {
        match self {
            Self::Literal(literal) => literal == text,
            Self::One => !text.is_empty(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    name: String,
    value: Value,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Value {
    Exact(String),
    Prefix(String),
    Present,
    Absent,
}

impl Header {
    pub(super) fn parse(condition: &ValueCondition) -> Result<Self, String> {
        let name = &condition.name;
        if !is_token(name) {
            return Err(format!("{name:?} is not the name of a header"));
        }
        let value =
            Value::parse(condition).ok_or_else(|| format!("header {name} needs one of exact, prefix and present"))?;
        Ok(Self { name: name.to_ascii_lowercase(), value })
    }

    /// For an allow rule every value must do as it was sent; for a deny rule any value is enough, or any member of one that
    /// the app may read as a list: `good, evil` is denied by a rule on `evil`. Servers that hand fields on as variables read
    /// `x_role` as `x-role`: such a field can't pass a deny rule, and meets no allow rule by itself.
    pub(super) fn matches(&self, headers: &[(&str, &str)], allow: bool) -> bool {
        let mut values = headers.iter().filter(|(name, _)| is_alike(name, &self.name)).map(|(_, value)| *value);
        let is_there = headers.iter().any(|(name, _)| *name == self.name);
        match (&self.value, allow) {
            (Value::Absent, true) => values.next().is_none(),
            (Value::Absent, false) => !is_there,
            (_, true) => is_there && values.all(|value| self.value.holds(value)),
            (_, false) => values.any(|value| self.holds_for_any_of(value)),
        }
    }

    /// Spellings of its name under which the field is to be shown: its own, and one for those that are read alike.
    pub(super) fn spellings(name: &str) -> impl Iterator<Item = String> {
        let own = name.to_ascii_lowercase();
        let other = if own.contains('-') { own.replace('-', "_") } else { own.replace('_', "-") };
        let other = (other != own).then_some(other);
        std::iter::once(own).chain(other)
    }

    /// Empty members are none. Quotes are not looked at: a comma inside them parts for a deny rule, too.
    //= rfc9110#section-5.6.1.2
    fn holds_for_any_of(&self, value: &str) -> bool {
        let mut members = value.split(',').map(|member| member.trim_matches([' ', '\t'])).filter(|it| !it.is_empty());
        self.value.holds(value) || members.any(|member| self.value.holds(member))
    }
}

impl Value {
    /// Of `exact`, `prefix` and `present`. `None`: it is not one of them.
    fn parse(ValueCondition { name: _, exact, prefix, present }: &ValueCondition) -> Option<Self> {
        Some(match (exact, prefix, present) {
            (Some(exact), None, None) => Value::Exact(exact.clone()),
            (None, Some(prefix), None) => Value::Prefix(prefix.clone()),
            (None, None, Some(true)) => Value::Present,
            (None, None, Some(false)) => Value::Absent,
            _ => return None,
        })
    }

    fn holds(&self, value: &str) -> bool {
        match self {
            Value::Exact(exact) => exact == value,
            Value::Prefix(prefix) => value.starts_with(prefix.as_str()),
            Value::Present => true,
            Value::Absent => false,
        }
    }
}

/// A claim of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Claim {
    name: String,
    value: Value,
}

impl Claim {
    pub(super) fn parse(condition: &ValueCondition) -> Result<Self, String> {
        const MOST: usize = 128;
        let name = &condition.name;
        let is_told = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
        if name.is_empty() || name.len() > MOST || !name.bytes().all(is_told) {
            return Err(format!("{name:?} is no claim that can be told: a-z, 0-9, -, _ and ., at most {MOST} bytes"));
        }
        let value =
            Value::parse(condition).ok_or_else(|| format!("claim {name} needs one of exact, prefix and present"))?;
        Ok(Self { name: name.clone(), value })
    }

    /// Any member of a list will do: what a token says of its bearer is no word of the bearer's.
    pub(super) fn matches(&self, claims: &[(&str, &str)]) -> bool {
        let mut members = claims.iter().filter(|(name, _)| *name == self.name).map(|(_, member)| *member);
        if self.value == Value::Absent { members.next().is_none() } else { members.any(|it| self.value.holds(it)) }
    }
}

/// True for names of headers that are the same but for `_` in place of `-`.
#[must_use]
pub fn is_alike(a: &str, b: &str) -> bool {
    let plain = |byte: u8| if byte == b'_' { b'-' } else { byte };
    a.len() == b.len() && a.bytes().map(plain).eq(b.bytes().map(plain))
}

/// True for names of headers, in lower case, in which only proxies of the mesh say something: `weft-*`, also in a spelling that
/// servers fold into it (`_` is `-` in CGI and WSGI).
#[must_use]
pub fn is_of_mesh(name: &str) -> bool {
    name.strip_prefix("weft").is_some_and(|rest| rest.starts_with(['-', '_']))
}

//= rfc9110#section-5.6.2
pub(crate) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}
