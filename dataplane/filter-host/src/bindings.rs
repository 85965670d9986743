//! Host-side bindings of `filters-sdk/wit`, generated: one module for each contract. Nothing is written by hand here.

/// Contract 0.1. Types that go both ways have two forms, `…Param` and `…Result`, so that arguments are borrowed.
pub(crate) mod v01 {
    wasmtime::component::bindgen!({
        path: "../../filters-sdk/wit/0.1",
        world: "filter",
        ownership: Borrowing { duplicate_if_necessary: true },
    });
}

/// Contract 0.2. Its exports are taken one by one: a component has those that it needs.
pub(crate) mod v02 {
    wasmtime::component::bindgen!({
        path: "../../filters-sdk/wit/0.2",
        inline: "
            package weft:host;

            world host {
                include weft:filter/filter@0.2.0;
                include weft:filter/replies@0.2.0;
            }
        ",
        world: "weft:host/host",
    });
}
