//! Values on the command line, parsed once: a wrong one is refused by name before anything happens.

use std::collections::BTreeMap;
use std::time::Duration;

/// `250ms`, `30s`, `10m`, `24h`, `7d`; a number alone is refused, because nobody agrees on its unit.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a time: a number and ms, s, m, h or d are expected, such as 30s");
    let split = text.find(|character: char| !character.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(split);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(wrong()),
    };
    number.checked_mul(milliseconds).map(Duration::from_millis).ok_or_else(wrong)
}

/// A DNS label, as names of services, namespaces and accounts are.
pub(crate) fn name(text: &str) -> Result<String, String> {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let ends = !text.starts_with('-') && !text.ends_with('-');
    if text.is_empty() || text.len() > 63 || !text.bytes().all(inner) || !ends {
        return Err(format!("{text:?} is not a name: at most 63 of a-z, 0-9 and -, not - at an end"));
    }
    Ok(text.to_owned())
}

/// `MAJOR.MINOR.PATCH`, with a pre-release after `-` where there is one.
pub(crate) fn version(text: &str) -> Result<String, String> {
    let wrong = || format!("{text:?} is not a version: MAJOR.MINOR.PATCH is expected, such as 1.0.0");
    let core = text.split_once('-').map_or(text, |(core, _)| core);
    let numbers: Vec<&str> = core.split('.').collect();
    let all_numbers = numbers.iter().all(|part| part.parse::<u64>().is_ok_and(|number| number.to_string() == *part));
    if numbers.len() != 3 || !all_numbers || text.len() > 64 { Err(wrong()) } else { Ok(text.to_owned()) }
}

/// `NAME@VERSION` of a filter.
pub(crate) fn versioned(text: &str) -> Result<(String, String), String> {
    let (filter, number) =
        text.split_once('@').ok_or_else(|| format!("{text:?}: NAME@VERSION is expected, such as mine@1.0.0"))?;
    Ok((name(filter)?, version(number)?))
}

/// `NS/NAME`.
pub(crate) fn namespaced(text: &str) -> Result<(String, String), String> {
    let (namespace, account) = text
        .split_once('/')
        .ok_or_else(|| format!("{text:?}: NAMESPACE/NAME is expected, such as default/frontend"))?;
    Ok((name(namespace)?, name(account)?))
}

/// `K=V` of a label.
pub(crate) fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or_else(|| format!("{text:?}: KEY=VALUE is expected"))?;
    if key.is_empty() || key.len() > 253 || value.len() > 63 {
        return Err(format!("{text:?}: a key of 1 to 253 characters and a value of at most 63 are expected"));
    }
    Ok((key.to_owned(), value.to_owned()))
}

/// `k:v` of a header, as curl's -H takes it.
pub(crate) fn header(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once(':').ok_or_else(|| format!("{text:?}: NAME:VALUE is expected"))?;
    let key =
        http::HeaderName::from_bytes(key.trim().as_bytes()).map_err(|_| format!("{key:?} is not a header name"))?;
    http::HeaderValue::from_str(value.trim()).map_err(|_| format!("{value:?} is not a header value"))?;
    Ok((key.as_str().to_owned(), value.trim().to_owned()))
}

pub(crate) fn claim(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("{text:?}: NAME=VALUE is expected"))?;
    // As a JwtPolicy tells it.
    Ok((name.to_ascii_lowercase(), value.to_owned()))
}

/// Labels that an object must have, or must not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Selector(Vec<Wanted>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Wanted {
    key: String,
    /// `None`: whatever its value.
    value: Option<String>,
    is_there: bool,
}

impl Selector {
    /// `app=reviews,version!=v1,tier,!canary`
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let one = |part: &str| {
            let part = part.trim();
            let (key, value, is_there) = if let Some((key, value)) = part.split_once("!=") {
                (key, Some(value), false)
            } else if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
                (key, Some(value), true)
            } else {
                part.strip_prefix('!').map_or((part, None, true), |key| (key, None, false))
            };
            // Sets of values, as `app in (a,b)`, are none of these.
            let is_word = |text: &str| !text.trim().contains(|c: char| c.is_whitespace() || matches!(c, '(' | ')'));
            if key.trim().is_empty() || !is_word(key) || !value.is_none_or(is_word) {
                return Err(format!("{part:?} names no label: KEY=VALUE, KEY!=VALUE, KEY or !KEY"));
            }
            let value = value.map(|value| value.trim().to_owned());
            Ok(Wanted { key: key.trim().to_owned(), value, is_there })
        };
        text.split(',').map(one).collect::<Result<_, _>>().map(Self)
    }

    pub(crate) fn chooses(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.iter().all(|wanted| {
            let has = match (&wanted.value, labels.get(&wanted.key)) {
                (Some(value), has) => has == Some(value),
                (None, has) => has.is_some(),
            };
            has == wanted.is_there
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let check = |text: &str, expect: Option<u64>| {
            assert_eq!(duration(text).ok(), expect.map(Duration::from_millis), "{text}");
        };
        check("250ms", Some(250));
        check("30s", Some(30_000));
        check("10m", Some(600_000));
        check("1d", Some(86_400_000));
        check("30", None);
        check("s", None);
        check("", None);
        check("-5s", None);
        check("99999999999999999999d", None);
        check("1000000000000000d", None);
    }

    #[test]
    fn versions() {
        for right in ["1.0.0", "0.12.3-rc.1"] {
            assert!(version(right).is_ok(), "{right}");
        }
        for wrong in ["1.0", "v1.0.0", "01.0.0", "1.0.x", ""] {
            assert!(version(wrong).is_err(), "{wrong}");
        }
        assert_eq!(versioned("mine@1.0.0").unwrap(), ("mine".to_owned(), "1.0.0".to_owned()));
        assert!(versioned("mine").unwrap_err().contains("NAME@VERSION") && versioned("mine@1").is_err());
    }

    #[test]
    fn names_and_pairs() {
        assert!(name("reviews-v1").is_ok());
        for wrong in ["", "Reviews", "-a", "a-", "a.b", &"x".repeat(64)] {
            assert!(name(wrong).is_err(), "{wrong}");
        }
        assert_eq!(namespaced("shop/front").unwrap(), ("shop".into(), "front".into()));
        assert!(namespaced("front").unwrap_err().contains("NAMESPACE/NAME"));
        assert_eq!(label("app=x").unwrap(), ("app".into(), "x".into()));
        assert_eq!(header("X-Canary: yes").unwrap(), ("x-canary".into(), "yes".into()));
        assert!(header("no colon").is_err() && header("bad name: x").is_err());
    }

    #[test]
    fn labels_are_chosen() {
        let labels = [("app", "reviews"), ("version", "v2")];
        let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let check = |text: &str| Selector::parse(text).unwrap().chooses(&labels);
        for (text, chosen) in [
            ("app=reviews", true),
            ("app==reviews,version!=v1", true),
            ("version!=v2", false),
            ("app", true),
            ("!app", false),
            ("!canary, app = reviews", true),
            ("tier=x", false),
            ("tier!=x", true),
        ] {
            assert_eq!(check(text), chosen, "{text}");
        }
        assert!(!Selector::parse("app").unwrap().chooses(&BTreeMap::new()));
        assert!(Selector::parse("=x").unwrap_err().contains("names no label"));
        for sets in ["app in (a)", "app notin (a,b)", "app=a b"] {
            assert!(Selector::parse(sets).is_err(), "{sets}");
        }
    }
}
