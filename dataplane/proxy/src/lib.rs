//! The data plane of Weft, beside one application (or, later, one per node): `outbound` and `inbound` are the request
//! path, `control` the way new configuration comes, `app` the composition root. Its pure counterparts are `weft-policy`
//! and `weft-flow`.

#![forbid(unsafe_code)]

pub mod outbound;

pub mod inbound;

pub mod alarms;
pub mod app_leg;
pub mod call;
pub mod copying;
pub mod deadline;
pub mod filtering;
pub mod mesh;
pub mod record;
pub mod relay;
pub mod reply;
pub mod via;

pub mod apps;
pub mod asking;
pub mod budget;
pub mod crew;
pub mod destination;
pub mod names;
pub mod outside_certificates;
mod parts;
pub mod quota;
mod room;
pub mod shares;
pub mod snapshot;
pub mod sockets;
pub mod stalls;
pub mod terms;
pub mod trial;
pub mod usage;

pub mod app;
pub mod capturing;
pub mod check;
pub mod config;
pub mod control;
pub mod descriptors;
pub mod gate;
pub mod gauges;
pub mod health;
pub mod heartbeat;
pub mod hosts;
pub mod ledger;
pub mod life;
pub mod listeners;
mod private;
pub mod reach;
pub mod shared;
pub mod signals;
mod staggered;
pub mod state;
pub mod worker;

pub mod admin;
pub mod scrape;
pub mod side;
pub mod telemetry;

/// An error with all its sources, on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
