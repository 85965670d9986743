//! Certificates for the peers, made fresh for each run with the openssl program: one CA, one leaf for either proxy.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Writes `ca.pem` and, for `a` and `b`, `X.pem`, `X.key` and `X.both.pem` into `folder`.
pub(crate) fn write(folder: &Path) -> Result<()> {
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"];
    let ca = ["-x509", "-subj", "/CN=bench", "-keyout", "ca.key", "-out", "ca.pem"];
    openssl(folder, ["req"].iter().chain(&key).chain(&ca))?;
    for side in ["a", "b"] {
        let name = format!("subjectAltName=DNS:{side}.bench,URI:spiffe://bench/ns/bench/sa/{side}");
        let (subject, pem, private) = (format!("/CN={side}.bench"), format!("{side}.pem"), format!("{side}.key"));
        let leaf = ["-x509", "-CA", "ca.pem", "-CAkey", "ca.key", "-subj", &subject, "-addext", &name];
        let rest = ["-addext", "basicConstraints=critical,CA:FALSE", "-keyout", &private, "-out", &pem];
        openssl(folder, ["req"].iter().chain(&key).chain(&leaf).chain(&rest))?;
        let both = std::fs::read_to_string(folder.join(&pem))? + &std::fs::read_to_string(folder.join(&private))?;
        std::fs::write(folder.join(format!("{side}.both.pem")), both)?;
    }
    Ok(())
}

fn openssl<'a>(folder: &Path, arguments: impl Iterator<Item = &'a &'a str>) -> Result<()> {
    let output =
        Command::new("openssl").args(arguments).current_dir(folder).output().context("cannot start openssl")?;
    if !output.status.success() {
        bail!("openssl: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}
