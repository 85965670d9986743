//! Vectors of RFC 9204 and RFC 7541, splits, limits and malformed input.
