//! The languages that filters are written in here, and how a folder shows which one is its own.

use std::path::Path;

use anyhow::bail;
use clap::ValueEnum;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(super) enum Language {
    #[default]
    Rust,
    C,
    Javascript,
    Python,
}

impl Language {
    pub(super) const ALL: [Self; 4] = [Self::Rust, Self::C, Self::Javascript, Self::Python];

    /// The file that only folders of the language have.
    const fn mark(self) -> &'static str {
        match self {
            Self::Rust => "Cargo.toml",
            Self::C => "src/filter.c",
            Self::Javascript => "src/filter.js",
            Self::Python => "src/filter.py",
        }
    }

    /// The file that has the filter itself.
    pub(super) const fn source(self) -> &'static str {
        match self {
            Self::Rust => "src/lib.rs",
            Self::C | Self::Javascript | Self::Python => self.mark(),
        }
    }

    /// The language of a filter's folder.
    pub(super) fn of(folder: &Path) -> anyhow::Result<Self> {
        let mut found = Self::ALL.into_iter().filter(|language| folder.join(language.mark()).is_file());
        match (found.next(), found.next()) {
            (Some(language), None) => Ok(language),
            (Some(one), Some(other)) => {
                bail!("{} has both {} and {}: which is the filter?", folder.display(), one.mark(), other.mark())
            }
            (None, _) => {
                let marks = Self::ALL.map(Self::mark).join(", ");
                bail!("{} is no filter's folder: of {marks} it has none", folder.display())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_shows_its_language() {
        let folder = tempfile::tempdir().unwrap();
        let error = Language::of(folder.path()).unwrap_err().to_string();
        assert!(error.contains("Cargo.toml, src/filter.c, src/filter.js, src/filter.py"), "{error}");
        std::fs::create_dir(folder.path().join("src")).unwrap();
        std::fs::write(folder.path().join("src/filter.c"), "").unwrap();
        assert_eq!(Language::of(folder.path()).unwrap(), Language::C);
        std::fs::write(folder.path().join("src/filter.py"), "").unwrap();
        let error = Language::of(folder.path()).unwrap_err().to_string();
        assert!(error.contains("has both src/filter.c and src/filter.py"), "{error}");
    }
}
