//! Compiles the messages that etcd speaks, without protoc: a client of them and no server.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(["proto/etcd.proto"], ["proto"])?;
    tonic_prost_build::configure().bytes(".").build_server(false).build_transport(false).compile_fds(descriptors)?;
    Ok(())
}
