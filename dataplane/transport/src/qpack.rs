//! QPACK with the static table and Huffman coding (RFC 9204); no dynamic table in either direction.
