//! The one integration-test binary: whole meshes of real processes. Tests in modules called `real` need programs of other
//! people or root; `cargo xtask test --real` runs them, one at a time.

#![allow(
    clippy::unwrap_used,
    clippy::large_futures,
    clippy::unused_async,
    reason = "a test ends where its setup fails, runs once, and awaits its helpers however they work"
)]

mod mesh {
    mod addresses;
    mod app_limits;
    mod authoring;
    mod authorization;
    mod awaited;
    mod balancing;
    mod behaviour;
    mod compiling;
    mod conformance;
    mod copies;
    mod cut_off;
    mod deadlines;
    mod declared;
    mod deputy;
    mod differential;
    mod edge_cases;
    mod equal;
    mod external;
    mod filters;
    mod first_calls;
    mod forms;
    mod grpc_routes;
    mod health;
    mod held;
    mod hiccup;
    mod hidden;
    mod hostile;
    mod in_process;
    mod joining;
    mod killed;
    mod leaving;
    mod lifecycle;
    mod lines;
    mod load;
    mod local_replies;
    mod locality;
    mod operators;
    mod outage;
    mod outside;
    mod parts;
    mod policies;
    mod profile;
    mod real;
    mod refused;
    mod replicas;
    mod retrying;
    mod rogue;
    mod rolling;
    mod rotation;
    mod stalled;
    mod standing;
    mod stream_routes;
    mod swapped;
    mod tiers;
    mod time_and_space;
    #[path = "../../../dataplane/transport/src/quic/tests/tls12.rs"]
    mod tls12;
    mod tunnelled;
}
