//! The same exchange by several ways: clients and origins on raw sockets that write what a case tells them, bad bytes included,
//! and note all that they see. Judges nothing: what two ways may differ in is for the suite to say.

pub mod h1;
pub mod h2;
pub mod message;
pub mod seen;
pub mod wire;
