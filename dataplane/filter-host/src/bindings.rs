//! Host-side bindings of `filters-sdk/wit`, generated. Nothing is written by hand here.

wasmtime::component::bindgen!({
    path: "../../filters-sdk/wit",
    world: "filter",
    ownership: Borrowing { duplicate_if_necessary: true },
});
