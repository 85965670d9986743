//! The host against real components: the shipped filters, and one that does what no filter should.

#[path = "host/cases.rs"]
mod cases;
#[path = "host/contract.rs"]
mod contract;
#[path = "host/isolation.rs"]
mod isolation;
#[path = "host/languages.rs"]
mod languages;
#[path = "host/loading.rs"]
mod loading;
#[path = "host/released.rs"]
mod released;
#[path = "host/shipped.rs"]
mod shipped;
#[path = "host/support.rs"]
mod support;
#[path = "host/verdicts.rs"]
mod verdicts;
#[path = "host/wasi.rs"]
mod wasi;
