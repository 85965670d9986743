//! Prometheus text as proxies serve it: parsed once, summed by labels. What can't be parsed is left out.

use std::collections::BTreeMap;

/// One sample: name, labels, value.
#[derive(Debug, Clone, PartialEq)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

/// One answer of `/metrics`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Scrape {
    samples: Vec<Sample>,
}

impl Scrape {
    pub(crate) fn parse(text: &str) -> Self {
        Self { samples: text.lines().filter_map(parse_line).collect() }
    }

    /// The sum of all samples of this name that carry these labels.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.matching(name, labels).map(|sample| sample.value).sum()
    }

    /// Sums of the samples that carry these labels, by the values of another one.
    pub(crate) fn by_label(&self, name: &str, labels: &[(&str, &str)], label: &str) -> BTreeMap<String, f64> {
        let mut sums = BTreeMap::new();
        for sample in self.matching(name, labels) {
            let value = sample.labels.get(label).cloned().unwrap_or_default();
            *sums.entry(value).or_insert(0.0) += sample.value;
        }
        sums
    }

    fn matching<'a>(&'a self, name: &'a str, labels: &'a [(&'a str, &'a str)]) -> impl Iterator<Item = &'a Sample> {
        self.samples.iter().filter(move |sample| {
            sample.name == name
                && labels.iter().all(|(key, value)| sample.labels.get(*key).is_some_and(|has| has == value))
        })
    }
}

fn parse_line(line: &str) -> Option<Sample> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = BTreeMap::new();
    if let Some(mut inner) = rest.strip_prefix('{') {
        while !inner.starts_with('}') {
            let (key, tail) = inner.split_once("=\"")?;
            let (value, tail) = quoted(tail)?;
            labels.insert(key.trim().to_owned(), value);
            inner = tail.trim_start_matches([',', ' ']);
        }
        rest = &inner[1..];
    }
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some(Sample { name: name.to_owned(), labels, value })
}

/// Text up to the closing quote, with its escapes undone, and what follows.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match characters.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_summed_by_labels() {
        let text = "# HELP x\nx{code=\"200\",who=\"a\"} 3\nx{code=\"403\",who=\"a, \\\"b\\\"}\"} 2 1700000000\ny 1.5\nbroken{\n";
        let scrape = Scrape::parse(text);
        assert_eq!(scrape.samples.len(), 3);
        assert!((scrape.sum("x", &[]) - 5.0).abs() < f64::EPSILON);
        assert!((scrape.sum("x", &[("code", "403")]) - 2.0).abs() < f64::EPSILON);
        assert!((scrape.sum("x", &[("who", "a, \"b\"}")]) - 2.0).abs() < f64::EPSILON);
        assert!((scrape.sum("y", &[]) - 1.5).abs() < f64::EPSILON);
        assert_eq!(scrape.by_label("x", &[], "code").get("200"), Some(&3.0));
    }
}
