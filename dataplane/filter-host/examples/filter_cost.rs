//! What a call of each shipped filter costs.
fn main() {}
