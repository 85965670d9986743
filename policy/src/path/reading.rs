//! R(path): the smallest set that holds the path and is closed under what servers are known to do with it, in any order.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{octets, resolve_dots};

/// A path with more readings is refused.
pub const MAX_READINGS: usize = 32;

/// More readings than are judged: 400 `ambiguous_path`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("path can be read in more than {MAX_READINGS} ways")]
pub struct Ambiguous;

/// Declared habit of an application with its paths; unknown by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
enum Does {
    #[default]
    Unknown,
    Always,
    Never,
}

/// How an application says it reads its paths; by default nothing is known and every reading is judged.
///
/// As text: `encoded-slash=literal|separator, params=cut|kept, slashes=merged|kept`, each part at most once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PathReading {
    separates_at_encoded_slash: Does,
    cuts_params: Does,
    merges_slashes: Does,
}

/// Change that a server may make to a path.
type Step = fn(&str) -> String;

/// Not a declaration of how paths are read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not one of encoded-slash=literal|separator, params=cut|kept, slashes=merged|kept, each at most once")]
pub struct PathReadingError(String);

impl PathReading {
    /// Reading of an application that stands behind two declarations: a part on which they differ is not known.
    #[must_use]
    pub fn common(self, other: Self) -> Self {
        let common = |a, b| if a == b { a } else { Does::Unknown };
        Self {
            separates_at_encoded_slash: common(self.separates_at_encoded_slash, other.separates_at_encoded_slash),
            cuts_params: common(self.cuts_params, other.cuts_params),
            merges_slashes: common(self.merges_slashes, other.merges_slashes),
        }
    }

    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    fn steps(self) -> [(Does, Step); 6] {
        [
            (Does::Unknown, backslashes),
            (self.separates_at_encoded_slash, encoded_slashes),
            (self.cuts_params, params_cut),
            (self.merges_slashes, slashes_merged),
            (Does::Unknown, dots_resolved),
            (Does::Unknown, octets::as_latin1),
        ]
    }
}

impl FromStr for PathReading {
    type Err = PathReadingError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut reading = Self::default();
        for part in text.split(',').map(str::trim) {
            let (does, what) = match part {
                "encoded-slash=literal" => (&mut reading.separates_at_encoded_slash, Does::Never),
                "encoded-slash=separator" => (&mut reading.separates_at_encoded_slash, Does::Always),
                "params=cut" => (&mut reading.cuts_params, Does::Always),
                "params=kept" => (&mut reading.cuts_params, Does::Never),
                "slashes=merged" => (&mut reading.merges_slashes, Does::Always),
                "slashes=kept" => (&mut reading.merges_slashes, Does::Never),
                _ => return Err(PathReadingError(part.to_owned())),
            };
            if std::mem::replace(does, what) != Does::Unknown {
                return Err(PathReadingError(text.to_owned()));
            }
        }
        Ok(reading)
    }
}

impl fmt::Display for PathReading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            ("encoded-slash=separator", "encoded-slash=literal", self.separates_at_encoded_slash),
            ("params=cut", "params=kept", self.cuts_params),
            ("slashes=merged", "slashes=kept", self.merges_slashes),
        ];
        let told = parts.into_iter().filter_map(|(always, never, does)| match does {
            Does::Unknown => None,
            Does::Always => Some(always),
            Does::Never => Some(never),
        });
        for (index, part) in told.enumerate() {
            if index > 0 {
                f.write_str(", ")?;
            }
            f.write_str(part)?;
        }
        Ok(())
    }
}

/// All the ways in which an application may read a path; at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readings<'p> {
    first: Cow<'p, str>,
    others: Vec<String>,
}

impl<'p> Readings<'p> {
    /// For a path that can be read in one way only.
    pub(super) fn one(path: Cow<'p, str>) -> Self {
        Self { first: path, others: Vec::new() }
    }

    /// The readings of a normalised path, the path itself first where it is one.
    pub(super) fn of(path: Cow<'p, str>, reading: PathReading) -> Result<Self, Ambiguous> {
        let steps = reading.steps();
        let mut all = vec![path.into_owned()];
        let mut next = 0;
        while next < all.len() {
            for (_, step) in steps.iter().filter(|(does, _)| *does != Does::Never) {
                let read = step(&all[next]);
                if !all.contains(&read) {
                    all.push(read);
                }
            }
            if all.len() > MAX_READINGS {
                return Err(Ambiguous);
            }
            next += 1;
        }
        let settled = |read: &String| steps.iter().all(|(does, step)| *does != Does::Always || step(read) == *read);
        all.retain(settled);
        // Steps that are always done are done in the end, so at least one reading is left.
        let mut all = all.into_iter();
        let first = all.next().ok_or(Ambiguous)?;
        Ok(Self { first: Cow::Owned(first), others: all.collect() })
    }

    /// Each reading as rules see it: text, with escapes.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&*self.first).chain(self.others.iter().map(String::as_str))
    }

    /// True where there is nothing to be judged but the path itself.
    pub fn is_single(&self) -> bool {
        self.others.is_empty()
    }
}

fn backslashes(path: &str) -> String {
    path.replace('\\', "/").replace("%5C", "/")
}

fn encoded_slashes(path: &str) -> String {
    path.replace("%2F", "/")
}

fn params_cut(path: &str) -> String {
    let segments: Vec<&str> = path.split('/').map(|segment| segment.split(';').next().unwrap_or_default()).collect();
    segments.join("/")
}

fn slashes_merged(path: &str) -> String {
    let mut merged = String::with_capacity(path.len());
    for character in path.chars() {
        if character != '/' || !merged.ends_with('/') {
            merged.push(character);
        }
    }
    merged
}

fn dots_resolved(path: &str) -> String {
    String::from_utf8_lossy(&resolve_dots(path.as_bytes())).into_owned()
}
