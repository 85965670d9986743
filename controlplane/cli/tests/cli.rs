//! The `weft` binary from outside: what it sends, what it prints, its exit status. The control plane is a small server
//! inside the test, the sidecar a stand-in; the real ones are run by the tests crate and the demo.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

#[path = "cli/commands.rs"]
mod commands;
#[path = "cli/contract.rs"]
mod contract;
#[path = "cli/control.rs"]
mod control;
#[path = "cli/golden.rs"]
mod golden;
#[path = "cli/run.rs"]
mod run;
#[path = "cli/shown.rs"]
mod shown;
