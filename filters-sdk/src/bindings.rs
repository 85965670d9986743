//! Guest-side bindings of `wit/0.2/filter.wit`, generated. Nothing is written by hand here.

#![allow(unsafe_code, unreachable_pub, clippy::all, reason = "generated: the component ABI is raw memory")]
#![allow(clippy::cast_possible_truncation, clippy::undocumented_unsafe_blocks, reason = "generated")]
#![allow(clippy::too_many_lines, clippy::wildcard_enum_match_arm, reason = "generated")]

wit_bindgen::generate!({
    path: "wit/0.2",
    world: "filter",
    pub_export_macro: true,
    default_bindings_module: "weft_filters_sdk::bindings",
    generate_all,
});

/// The world of filters that stream their answers, beside the other one.
pub mod replies {
    wit_bindgen::generate!({
        path: "wit/0.2",
        world: "replies",
        pub_export_macro: true,
        default_bindings_module: "weft_filters_sdk::bindings::replies",
        with: { "weft:filter/types@0.2.0": crate::bindings::weft::filter::types },
    });
}
