//! Compiles what control planes ask each other, without protoc. What proxies say of themselves is told on in the messages that
//! `weft-policy` has for it.

const PROXIES: &str = "../../policy/proto";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    println!("cargo::rerun-if-changed={PROXIES}");
    let descriptors = protox::compile(["proto/replica.proto"], ["proto", PROXIES])?;
    tonic_prost_build::configure()
        .build_transport(false)
        .extern_path(".weft.control.v1", "::weft_policy::wire::v1")
        .compile_fds(descriptors)?;
    Ok(())
}
