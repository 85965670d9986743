//! Prometheus text as a dashboard would read it: series by name and labels.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::client::Client;

/// One scrape.
#[derive(Debug, Clone, Default)]
pub struct Scrape {
    series: Vec<(String, BTreeMap<String, String>, f64)>,
    text: String,
}

impl Scrape {
    /// Fetches `/metrics`.
    ///
    /// # Panics
    /// When it isn't answered with 200.
    pub async fn fetch(address: SocketAddr) -> Self {
        let answer = Client::direct(address).await.get("/metrics").await;
        assert_eq!(answer.status, 200, "{address}/metrics");
        Self::parse(&answer.text())
    }

    pub fn parse(text: &str) -> Self {
        let series = text.lines().filter(|line| !line.starts_with('#')).filter_map(series).collect();
        Self { series, text: text.to_owned() }
    }

    /// The sum of every series of this name that has all of these labels.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let matches = |have: &BTreeMap<String, String>| {
            labels.iter().all(|(key, value)| have.get(*key).is_some_and(|label| label == value))
        };
        self.series.iter().filter(|(known, have, _)| known == name && matches(have)).map(|(_, _, value)| value).sum()
    }

    /// Values of one label of the series of this name.
    pub fn labels(&self, name: &str, label: &str) -> Vec<String> {
        let named = self.series.iter().filter(|(known, ..)| known == name);
        named.filter_map(|(_, labels, _)| labels.get(label).cloned()).collect()
    }

    /// Lines that contain this, for panics.
    pub fn lines(&self, part: &str) -> String {
        self.text.lines().filter(|line| line.contains(part)).collect::<Vec<_>>().join("\n")
    }
}

fn series(line: &str) -> Option<(String, BTreeMap<String, String>, f64)> {
    let (series, value) = line.rsplit_once(' ')?;
    let value = value.parse().ok()?;
    let Some((name, labels)) = series.split_once('{') else { return Some((series.to_owned(), BTreeMap::new(), value)) };
    let mut parsed = BTreeMap::new();
    let mut rest = labels.trim_end_matches('}');
    while let Some((key, after)) = rest.split_once("=\"") {
        let end = end_of_value(after)?;
        parsed.insert(key.trim_start_matches(',').to_owned(), after[..end].replace("\\\"", "\"").replace("\\\\", "\\"));
        rest = &after[end + 1..];
    }
    Some((name.to_owned(), parsed, value))
}

fn end_of_value(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return Some(at),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_what_matches() {
        let text = "# HELP a x\na{b=\"1\",c=\"x,\\\"y\"} 2\na{b=\"1\",c=\"z\"} 3\na{b=\"2\",c=\"z\"} 4\nd 5\n";
        let scrape = Scrape::parse(text);
        assert_eq!(scrape.sum("a", &[("b", "1")]), 5.0);
        assert_eq!(scrape.sum("a", &[("c", "x,\"y")]), 2.0);
        assert_eq!(scrape.sum("a", &[]), 9.0);
        assert_eq!(scrape.sum("d", &[]), 5.0);
        assert_eq!(scrape.sum("a", &[("nope", "1")]), 0.0);
    }
}
