//! Host-side bindings of `filters-sdk/wit`, generated. Nothing is written by hand here.

wasmtime::component::bindgen!({
    path: "../../filters-sdk/wit/0.1",
    world: "filter",
    ownership: Borrowing { duplicate_if_necessary: true },
});
