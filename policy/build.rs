//! Compiles the wire messages, without protoc. Only where the feature `wire` asks for them: a filter that uses the
//! engines builds none of it.

#[cfg(not(feature = "wire"))]
fn main() {}

#[cfg(feature = "wire")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    const PROTO: &str = "proto/weft/control/v1/control.proto";
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile([PROTO], ["proto"])?;
    // No transport: the client's `connect` constructor would clash with the call of that name.
    // BTreeMap: the bytes of a message follow from its content, so a hash of them names a version.
    // Bytes: an encoded object is shared by all that it is sent to.
    const SHARED: &str = ".weft.control.v1.Object.payload";
    tonic_prost_build::configure().btree_map(".").bytes(SHARED).build_transport(false).compile_fds(descriptors)?;
    Ok(())
}
