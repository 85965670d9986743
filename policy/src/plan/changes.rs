//! Differences between two worlds, for people: objects and their texts.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde::Serialize;

use super::World;
use crate::manifest::to_yaml;
use crate::resource::ObjectKey;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    Created,
    Changed,
    Unchanged,
    Deleted,
}

/// One object that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    pub action: Action,
    pub object: ObjectKey,
    /// Unified diff of the YAML.
    pub diff: String,
}

/// Objects created, changed or deleted from `old` to `new`; those that are the same are left out.
pub fn diff_world(old: &World, new: &World) -> Vec<Change> {
    let keys: BTreeSet<&ObjectKey> = old.iter().chain(new.iter()).map(|(key, _)| key).collect();
    let change = |key: &ObjectKey| {
        let (before, after) = (old.get(key).map(|e| &e.resource), new.get(key).map(|e| &e.resource));
        let action = match (before, after) {
            (None, Some(_)) => Action::Created,
            (Some(_), None) => Action::Deleted,
            (Some(before), Some(after)) if before != after => Action::Changed,
            (Some(_), Some(_)) | (None, None) => return None,
        };
        let (before, after) = (before.map(to_yaml).unwrap_or_default(), after.map(to_yaml).unwrap_or_default());
        Some(Change { action, object: key.clone(), diff: text_diff(&before, &after) })
    };
    keys.into_iter().filter_map(change).collect()
}

/// Lines of context around a change.
const CONTEXT: usize = 3;
/// So many line pairs are compared for each line. Beyond, texts are shown as replaced: the comparison would grow with
/// the square of their length.
const CELLS_PER_LINE: usize = 512;

/// A unified diff without file names; empty where the texts are the same.
pub fn text_diff(old: &str, new: &str) -> String {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let script = script(&old, &new);
    let changed: Vec<usize> = script.iter().enumerate().filter(|(_, line)| line.0 != ' ').map(|(i, _)| i).collect();
    let mut out = String::new();
    // Lines of the old and of the new text before the hunk.
    let (mut seen, mut olds, mut news) = (0, 0, 0);
    let mut next = 0;
    while next < changed.len() {
        let first = changed[next].saturating_sub(CONTEXT);
        let mut last = changed[next];
        while next < changed.len() && changed[next] <= last + 2 * CONTEXT + 1 {
            last = changed[next];
            next += 1;
        }
        let hunk = &script[first..script.len().min(last + CONTEXT + 1)];
        for (sign, _) in &script[seen..first] {
            olds += usize::from(*sign != '+');
            news += usize::from(*sign != '-');
        }
        seen = first;
        let length = |sign: char| hunk.iter().filter(|line| line.0 != sign).count();
        let _ = writeln!(out, "@@ -{},{} +{},{} @@", olds + 1, length('+'), news + 1, length('-'));
        for (sign, line) in hunk {
            let _ = writeln!(out, "{sign}{line}");
        }
    }
    out
}

/// Lines with their sign, by the longest common subsequence.
fn script<'t>(old: &[&'t str], new: &[&'t str]) -> Vec<(char, &'t str)> {
    let start = old.iter().zip(new).take_while(|(a, b)| a == b).count();
    let end = old[start..].iter().rev().zip(new[start..].iter().rev()).take_while(|(a, b)| a == b).count();
    let (middle_old, middle_new) = (&old[start..old.len() - end], &new[start..new.len() - end]);
    let mut out: Vec<(char, &str)> = old[..start].iter().map(|line| (' ', *line)).collect();
    let lines = middle_old.len() + middle_new.len();
    if middle_old.len().saturating_mul(middle_new.len()) > CELLS_PER_LINE * lines {
        out.extend(middle_old.iter().map(|line| ('-', *line)));
        out.extend(middle_new.iter().map(|line| ('+', *line)));
    } else {
        out.extend(middle(middle_old, middle_new));
    }
    out.extend(old[old.len() - end..].iter().map(|line| (' ', *line)));
    out
}

fn middle<'t>(old: &[&'t str], new: &[&'t str]) -> Vec<(char, &'t str)> {
    let width = new.len() + 1;
    // common[i * width + j]: length of the longest common subsequence of old[i..] and new[j..].
    let mut common = vec![0_usize; (old.len() + 1) * width];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            common[i * width + j] = if old[i] == new[j] {
                common[(i + 1) * width + j + 1] + 1
            } else {
                common[(i + 1) * width + j].max(common[i * width + j + 1])
            };
        }
    }
    let (mut i, mut j, mut out) = (0, 0, Vec::new());
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            out.push((' ', old[i]));
            (i, j) = (i + 1, j + 1);
        } else if j == new.len() || (i < old.len() && common[(i + 1) * width + j] >= common[i * width + j + 1]) {
            out.push(('-', old[i]));
            i += 1;
        } else {
            out.push(('+', new[j]));
            j += 1;
        }
    }
    out
}
