//! Programs to be built before anything runs: the three binaries and the signed filters beside them, in one profile.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::cargo::{self, Workspace};
use crate::wasm;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    Dev,
    Release,
}

impl Profile {
    pub(crate) fn of(release: bool) -> Self {
        if release { Self::Release } else { Self::Dev }
    }

    fn folder(self) -> &'static str {
        match self {
            Self::Dev => "debug",
            Self::Release => "release",
        }
    }
}

/// Builds the binaries of the whole workspace at once, so that every later step finds the same features built,
/// and the filters. Gives the folder that holds them.
pub(crate) fn everything(workspace: &Workspace, profile: Profile) -> Result<PathBuf> {
    let mut build = workspace.cargo(["build", "--workspace", "--bins"]);
    if profile == Profile::Release {
        // What tests need of libraries is no part of what ships.
        cargo::without_lints(build.args(["--release", "--exclude", "weft-tests"]));
    }
    cargo::run(&mut build)?;
    let binaries = workspace.target.join(profile.folder());
    filters(workspace, profile)?;
    Ok(binaries)
}

/// Builds and signs the shipped filters into `filters/` beside the binaries.
pub(crate) fn filters(workspace: &Workspace, profile: Profile) -> Result<PathBuf> {
    let out = workspace.target.join(profile.folder()).join("filters");
    std::fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;
    wasm::build_filters(&workspace.root, &out).context("building the filters")?;
    Ok(out)
}
