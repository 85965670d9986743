//! Publications good and bad. Components are assembled by hand: headers and sections as the binary format says.
