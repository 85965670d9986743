//! Weft's other programs, found by an environment variable or beside this executable: all land in one target folder.

use std::path::PathBuf;

use anyhow::{Context, bail};

/// A program of ours and the variable that says where it is instead.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Program {
    pub(crate) name: &'static str,
    variable: &'static str,
}

pub(crate) const PROXY: Program = Program { name: "weft-proxy", variable: "WEFT_PROXY_BIN" };
pub(crate) const CONTROL: Program = Program { name: "weft-control", variable: "WEFT_CONTROL_BIN" };
pub(crate) const SHOP: Program = Program { name: "weft-shop", variable: "WEFT_SHOP_BIN" };

impl Program {
    pub(crate) fn find(self) -> anyhow::Result<PathBuf> {
        if let Some(path) = std::env::var_os(self.variable) {
            let path = PathBuf::from(path);
            if !path.is_file() {
                bail!("{} names {}, which is not a file", self.variable, path.display());
            }
            return Ok(path);
        }
        let own = std::env::current_exe().context("cannot find this executable's folder")?;
        let path = own.with_file_name(self.name);
        if !path.is_file() {
            bail!(
                "{} is not beside {}: build it (`cargo build`) or name it by {}",
                self.name,
                own.display(),
                self.variable
            );
        }
        Ok(path)
    }
}
