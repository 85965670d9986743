//! One figure of the report beside its goal: the median of what was measured, its interval, and what that says.

use serde::Serialize;

use crate::report::Verdict;
use crate::statistics::{Median, interval};

#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Line {
    what: String,
    unit: &'static str,
    measured: Option<Median>,
    /// The goal; `None`: told for its own sake.
    most: Option<f64>,
    verdict: Option<Verdict>,
    /// Why there is no figure.
    failed: Option<String>,
}

impl Line {
    /// Of values that were measured one after the other.
    pub(super) fn of(what: impl Into<String>, unit: &'static str, values: Vec<f64>, most: Option<f64>) -> Self {
        let measured = interval(values);
        let verdict = measured.as_ref().zip(most).map(|(measured, most)| Verdict::of(measured, most));
        let failed = measured.is_none().then(|| "nothing was measured".to_owned());
        Self { what: what.into(), unit, measured, most, verdict, failed }
    }

    /// Of a part that came to nothing.
    pub(super) fn failed(what: impl Into<String>, error: &anyhow::Error) -> Self {
        let failed = Some(format!("{error:#}"));
        Self { what: what.into(), unit: "", measured: None, most: None, verdict: None, failed }
    }

    pub(super) fn is_measured(&self) -> bool {
        self.failed.is_none()
    }

    /// A row of the report's table.
    pub(super) fn row(&self) -> String {
        let Self { what, unit, measured, most, verdict, failed } = self;
        let measured = match (measured, failed) {
            (Some(measured), _) => format!("{measured} {unit}"),
            // In a table, and of one line.
            (None, failed) => {
                format!("not measured: {}", failed.as_deref().unwrap_or_default().replace(['|', '\n'], " "))
            }
        };
        let most = most.map_or_else(String::new, |most| format!("{most} {unit}"));
        let word = verdict.map_or("", Verdict::word);
        format!("| {what} | {measured} | {most} | {word} |\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_its_interval_says() {
        let line = |values: &[f64]| Line::of("one filter", "us", values.to_vec(), Some(1.5)).row();
        for (values, word) in [
            ([1.0, 1.2, 1.1, 1.3, 1.4, 1.2], "reached"),
            ([1.0, 2.2, 2.1, 2.3, 2.4, 2.2], "not shown to be missed"),
            ([1.6, 2.2, 2.1, 2.3, 2.4, 2.2], "missed"),
        ] {
            let row = line(&values);
            assert!(row.ends_with(&format!("| 1.5 us | {word} |\n")), "{row}");
        }
        assert_eq!(line(&[1.0, 1.0]), "| one filter | 1.000 [too few rounds] us | 1.5 us | reached |\n");
    }

    #[test]
    fn what_failed_is_no_figure_and_breaks_no_table() {
        let failed = Line::failed("a body", &anyhow::anyhow!("no\nanswer | none"));
        assert!(!failed.is_measured());
        assert_eq!(failed.row(), "| a body | not measured: no answer   none |  |  |\n");
        assert!(!Line::of("nothing", "us", Vec::new(), Some(1.0)).is_measured());
    }
}
