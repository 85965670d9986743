//! The harness: a control plane and sidecars as real processes on loopback addresses of their own, applications inside the
//! test, clients that go through the sidecars. Waits for conditions with deadlines, never sleeps a guess; a failed
//! expectation panics with the logs of what it concerns.

pub mod address;
pub mod app;
pub mod client;
pub mod control;
pub mod etcd;
pub mod exchange;
pub mod namespace;
pub mod process;
pub mod scrape;
pub mod sidecar;
pub mod wait;
pub mod way;

pub use app::{App, TcpApp};
pub use client::{Answer, Client};
pub use control::Mesh;
pub use scrape::Scrape;
pub use sidecar::{Sidecar, Workload};
pub use wait::{eventually, until};
pub use way::Way;
