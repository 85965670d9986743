//! Tests of deltas.
