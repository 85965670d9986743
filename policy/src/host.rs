//! Hosts as requests, routes and policies write them: one reading for all who compare them.

/// An IPv6 address without its brackets.
pub(crate) fn bare(host: &str) -> &str {
    host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host)
}

/// As names are compared: in lower case, without the dot at its end.
pub(crate) fn plain(host: &str) -> String {
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

/// True for a name below another, of which `end` is what a pattern has behind its `*`: the dot before it, and it.
pub(crate) fn is_below(name: &str, end: &str) -> bool {
    name.len() > end.len() && name.ends_with(end)
}

/// True for a name and all below it.
pub(crate) fn is_under(name: &str, parent: &str) -> bool {
    name.strip_suffix(parent).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_in_one_way() {
        assert_eq!((bare("[fd00::1]"), bare("fd00::1"), bare("[a")), ("fd00::1", "fd00::1", "[a"));
        assert_eq!((plain("Web.Shop."), plain("web")), ("web.shop".to_owned(), "web".to_owned()));
        for (name, expect) in [("x.a.b", true), ("y.x.a.b", true), ("a.b", false), (".a.b", false), ("xa.b", false)] {
            assert_eq!(is_below(name, ".a.b"), expect, "{name}");
        }
        for (name, expect) in [("a.b", true), ("x.a.b", true), ("xa.b", false), ("b", false)] {
            assert_eq!(is_under(name, "a.b"), expect, "{name}");
        }
    }
}
