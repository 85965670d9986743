//! The index of edge cases that a naive proxy gets wrong, by the numbers of the list that other meshes' suites were read for: each
//! has tests of ours, or one line why not. A number without either fails, and so does a test that isn't in the tree.

use std::collections::BTreeSet;
use std::path::Path;

enum Index {
    Tests(&'static [&'static str]),
    WhyNot(&'static str),
}

use Index::{Tests, WhyNot};

/// The numbers that concern the data path and identity.
fn wanted() -> BTreeSet<u8> {
    (1..=42).chain(52..=60).collect()
}

const INDEX: &[(u8, &str, Index)] = &[
    (
        1,
        "both codings and a length, odd codings",
        Tests(&["smuggling_is_refused", "framing_is_taken_where_every_reading_agrees", "every_exchange_is_the_same"]),
    ),
    (
        2,
        "lengths that are none",
        Tests(&[
            "smuggling_is_refused",
            "content_length_goes_on_once_and_plain",
            "malformed_requests_cost_their_stream",
        ]),
    ),
    (
        3,
        "answers that nobody asked for",
        Tests(&["bytes_after_a_response_forbid_reuse", "a_connection_that_ended_or_spoke_while_idle_is_stale"]),
    ),
    (
        4,
        "pipelining, the second malformed",
        Tests(&["pipelined_requests_are_answered_in_order_until_the_malformed_one", "every_exchange_is_the_same"]),
    ),
    (
        5,
        "malformed lines and fields",
        Tests(&[
            "malformed_request_lines_are_refused",
            "malformed_http1_is_refused",
            "broken_messages_arrive_as_they_are_or_not_at_all",
        ]),
    ),
    (
        6,
        "HTTP/1.0",
        Tests(&[
            "http10_gets_no_chunks_and_its_own_persistence",
            "persistence_follows_version_and_connection",
            "a_request_without_host_gets_that_of_its_connection",
            "every_exchange_is_the_same",
        ]),
    ),
    (
        7,
        "bodies that end with the connection",
        Tests(&[
            "responses_end_where_they_say_and_reuse_follows",
            "responses_are_framed_for_the_client_that_asked",
            "every_exchange_is_the_same",
        ]),
    ),
    (8, "no framing is invented", Tests(&["requests_say_what_follows_and_nothing_else", "every_exchange_is_the_same"])),
    (
        9,
        "HEAD, 204, 304",
        Tests(&[
            "head_answers_have_no_body",
            "responses_end_as_http_says",
            "answers_without_content_keep_their_length",
            "a_refused_head_request_is_answered_without_a_body",
            "a_status_says_whether_there_is_content",
            "every_exchange_is_the_same",
        ]),
    ),
    (
        10,
        "chunks split anywhere, extensions, trailers",
        Tests(&[
            "chunks_survive_every_split",
            "extensions_and_trailers_are_bounded",
            "a_message_split_at_every_byte_is_one_message",
        ]),
    ),
    (
        11,
        "answers before the request is complete",
        Tests(&[
            "an_early_answer_is_seen_and_the_connection_not_reused",
            "an_early_answer_survives_an_upload_that_nobody_reads",
            "a_whole_answer_outlives_the_reset_behind_it",
        ]),
    ),
    (
        12,
        "fields of the connection",
        Tests(&[
            "connection_fields_stay_on_this_hop",
            "headers_are_the_applications",
            "hop_by_hop_fields_never_enter_http2",
        ]),
    ),
    (
        13,
        "a target that differs from Host",
        Tests(&["the_target_of_absolute_form_replaces_host", "targets_have_their_form", "every_exchange_is_the_same"]),
    ),
    (
        14,
        "HTTP/2 and 3 without :authority",
        Tests(&[
            "malformed_requests_are_reset_and_the_connection_lives",
            "malformed_requests_cost_their_stream",
            "every_exchange_is_the_same",
        ]),
    ),
    (15, "a missing or impossible host", Tests(&["host_is_required_single_and_sane", "every_exchange_is_the_same"])),
    (
        16,
        "h2c is stripped, an unsolicited Upgrade too",
        Tests(&["headers_are_the_applications", "every_exchange_is_the_same"]),
    ),
    (17, "set-cookie is never merged", Tests(&["headers_are_the_applications", "every_exchange_is_the_same"])),
    (
        18,
        "names with an underscore",
        WhyNot(
            "they pass unchanged, as RFC 9110 5.1 has it; what an app makes of them is its own: the table of exchanges sends one",
        ),
    ),
    (
        19,
        "case of names is kept",
        WhyNot("HTTP/3 carries lower case only, and RFC 9110 5.1 gives case no meaning; written down, not offered"),
    ),
    (
        20,
        "long values with spaces, split across reads",
        Tests(&["a_message_split_at_every_byte_is_one_message", "every_exchange_is_the_same"]),
    ),
    (
        21,
        "limits of heads, fields, cookies, methods",
        Tests(&[
            "limits_have_their_status",
            "heads_above_the_limits_are_answered",
            "a_header_list_over_the_limit_is_answered_with_431",
            "limits_of_requests",
        ]),
    ),
    (
        22,
        "the mesh's own fields come from nobody and leave with nobody",
        Tests(&["headers_are_the_applications", "an_app_cannot_speak_as_a_proxy", "a_peer_cannot_name_another_source"]),
    ),
    (23, "x-forwarded-client-cert", Tests(&["headers_are_the_applications"])),
    (
        24,
        "spellings of a path before authorization",
        Tests(&["normal_form_of", "readings_of", "the_app_is_sent_the_path_that_was_judged", "paths"]),
    ),
    (
        25,
        "loops",
        Tests(&[
            "own_ports_are_no_destination",
            "a_loop_through_somebody_outside_is_broken",
            "requests_reach_served_sockets_only",
            "tunnels_reach_served_sockets_only",
        ]),
    ),
    (26, "hosts match in any case", Tests(&["names_of_services", "http1_behaves"])),
    (
        27,
        "redirects of a prefix",
        WhyNot("RequestRedirect and URLRewrite are filters of HTTPRoute that Weft does not offer yet: apply says so"),
    ),
    (
        28,
        "100 and other interim answers",
        Tests(&[
            "interim_responses_come_first_and_the_body_after_100",
            "interim_responses_are_seen_and_bounded",
            "a_final_answer_instead_of_100_closes",
            "every_exchange_is_the_same",
        ]),
    ),
    (
        29,
        "trailers",
        Tests(&[
            "trailers_lose_what_frames_or_routes",
            "the_last_chunk_carries_trailers",
            "every_exchange_is_the_same",
        ]),
    ),
    (
        30,
        "gRPC without a body, a status in either place, or in none",
        Tests(&[
            "grpc_behaves",
            "trailers_only_and_bodyless_answers_end_with_their_head",
            "every_exchange_is_the_same",
        ]),
    ),
    (
        31,
        "own errors in gRPC's form",
        Tests(&["grpc_behaves", "grpc_messages_are_percent_encoded", "each_failure_tells_one_story"]),
    ),
    (
        32,
        "upgrades",
        Tests(&[
            "what_asks_for_another_protocol",
            "tokens_and_methods_come_back",
            "an_app_that_answers_101_has_answered_wrongly",
            "every_exchange_is_the_same",
            "a_standing_upgrade_is_judged_by_each_new_policy",
        ]),
    ),
    (
        33,
        "CONNECT: no byte before 200, malformed ones",
        Tests(&[
            "connect_holds_payload_back_until_accepted_and_then_is_raw",
            "connect_is_a_tunnel_without_a_body",
            "connect_can_be_refused",
        ]),
    ),
    (
        34,
        "half-close",
        Tests(&[
            "the_prefix_comes_first_and_each_side_closes_alone",
            "a_reset_is_no_end_in_either_direction",
            "tcp_behaves",
            "every_exchange_is_the_same",
        ]),
    ),
    (35, "a server that speaks first", Tests(&["tcp_behaves", "a_silent_client_is_opaque_after_the_timeout"])),
    (
        36,
        "resets travel from HTTP/2 to HTTP/2",
        Tests(&["resets_keep_their_meaning", "resets_carry_their_codes", "every_exchange_is_the_same"]),
    ),
    (
        37,
        "GOAWAY",
        Tests(&[
            "goaway_is_exact_and_loses_nothing",
            "goaway_finishes_what_was_taken_and_refuses_the_rest",
            "goaway_from_a_silent_server_frees_those_above_it",
        ]),
    ),
    (
        38,
        "one slow stream stalls no other",
        Tests(&["a_slow_stream_holds_up_nobody", "a_stalled_reader_holds_up_its_own_stream_only"]),
    ),
    (
        39,
        "floods",
        Tests(&[
            "a_flood_of_cancelled_requests_costs_its_connection",
            "a_flood_of_cancelled_requests_ends_the_connection",
            "floods_end_the_connection",
            "calls_that_are_cancelled_again_and_again_end_the_connection",
            "a_breach_ends_the_connection_with_goaway",
            "too_many_settings",
            "too_many_interim_responses",
        ]),
    ),
    (
        40,
        "pools",
        Tests(&[
            "a_stampede_makes_one_connection",
            "different_identities_and_addresses_never_share",
            "more_connections_at_the_stream_limit",
            "idle_connections_go_and_busy_ones_stay",
        ]),
    ),
    (
        41,
        "QUIC: workers, connection ids, no resumption, no 0-RTT",
        Tests(&[
            "the_kernel_steers_by_the_first_byte_of_the_connection_id",
            "connections_stay_with_their_worker",
            "nothing_is_resumed_and_post_quantum_comes_first",
            "a_peer_without_stream_credit_holds_a_request_until_its_deadline",
        ]),
    ),
    (
        42,
        "client certificates on QUIC",
        Tests(&[
            "a_callee_refuses_bad_callers_and_both_know_why",
            "bad_certificates_are_refused_with_a_reason",
            "withdrawn_trust_cuts_connections",
        ]),
    ),
    (
        52,
        "nothing is served before there is an identity, and rotation",
        Tests(&[
            "ready_only_with_a_configuration",
            "identity_rotates_under_live_connections",
            "a_caller_refuses_bad_callees_and_both_know_why",
        ]),
    ),
    (
        53,
        "names in certificates",
        Tests(&[
            "what_is_not_an_svid_is_no_identity",
            "trust_domains_vouch_for_their_own_only",
            "parses_exactly_one_shape",
        ]),
    ),
    (
        54,
        "what is a ClientHello, a preface, a request",
        Tests(&[
            "every_prefix_needs_more_until_it_is_clear",
            "odd_first_bytes_at_a_port_declared_http_pass_by_no_filter",
            "a_client_hello_in_many_records_is_one",
            "reading_keeps_every_byte",
        ]),
    ),
    (
        55,
        "a peer names a socket that isn't served",
        Tests(&["requests_reach_served_sockets_only", "tunnels_reach_served_sockets_only"]),
    ),
    (
        56,
        "sources come from TLS only; the mesh port takes ordinary requests too",
        Tests(&["a_peer_cannot_name_another_source", "bad_certificates_are_refused_with_a_reason"]),
    ),
    (
        57,
        "revocation ends connections",
        Tests(&[
            "withdrawn_trust_cuts_connections",
            "trust_rotates_without_a_gap_and_cuts_what_it_leaves",
            "a_standing_request_is_judged_by_each_new_policy",
            "a_standing_tunnel_is_judged_by_each_new_policy",
        ]),
    ),
    (
        58,
        "the proxy for apps binds loopback only",
        WhyNot(
            "listen.explicit is where the operator puts it, since a namespace may have no loopback of its own; admin alone must be loopback",
        ),
    ),
    (
        59,
        "certificates are kept, renewed, asked for once",
        Tests(&[
            "a_renewed_certificate_retires_connections_without_dropping_requests",
            "doubles_up_to_the_most",
            "killed_under_load_and_back",
            "a_certificate_that_ended_meanwhile_is_renewed_when_the_control_plane_is_back",
        ]),
    ),
    (
        60,
        "shutdown",
        Tests(&[
            "requests_in_flight_finish_when_the_server_drains",
            "outbound_goes_on_for_an_app_that_is_finishing",
            "draining_closes_after_the_answer",
            "a_taken_address_is_said_at_start",
        ]),
    ),
];

/// Faults of an index, given the tests that there are.
fn faults(index: &[(u8, &str, Index)], tests: &BTreeSet<String>) -> Vec<String> {
    let numbers: Vec<u8> = index.iter().map(|(number, ..)| *number).collect();
    let named: BTreeSet<u8> = numbers.iter().copied().collect();
    let mut faults: Vec<String> =
        wanted().difference(&named).map(|number| format!("{number} is not in the index")).collect();
    faults.extend(named.difference(&wanted()).map(|number| format!("{number} is no number of the list")));
    if named.len() < numbers.len() {
        faults.push("a number stands twice".to_owned());
    }
    for (number, what, entry) in index {
        match entry {
            Tests([]) => faults.push(format!("{number} ({what}) has no test and no reason")),
            Tests(names) => {
                let missing = names.iter().filter(|name| !tests.contains(**name));
                faults.extend(missing.map(|name| format!("{number} ({what}) names {name}, which is no test")));
            }
            WhyNot(why) if why.len() < 20 => faults.push(format!("{number} ({what}) says too little why not")),
            WhyNot(_) => {}
        }
    }
    faults
}

/// Names of all functions with a `test` attribute below a folder.
fn tests_below(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).expect("a folder of the tree can be read").flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        if path.is_dir() && name != "target" && !name.to_string_lossy().starts_with('.') {
            tests_below(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            tests_of(&std::fs::read_to_string(&path).expect("a source can be read"), found);
        }
    }
}

fn tests_of(text: &str, found: &mut BTreeSet<String>) {
    let mut is_test = false;
    for line in text.lines().map(str::trim) {
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            is_test = true;
        } else if let Some((_, rest)) = line.split_once("fn ").filter(|_| is_test && !line.starts_with("//")) {
            found.insert(rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
            is_test = false;
        }
    }
}

/// Names of all tests of the workspace.
pub(super) fn tests_of_the_tree() -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this crate lies in the workspace");
    let mut tests = BTreeSet::new();
    tests_below(root, &mut tests);
    tests
}

#[test]
fn every_edge_case_has_a_test_or_a_reason() {
    let tests = tests_of_the_tree();
    assert!(tests.len() > 100, "{} tests", tests.len());
    let faults = faults(INDEX, &tests);
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn an_index_can_be_wrong() {
    let mut tests = BTreeSet::new();
    tests_of(
        "#[tokio::test(flavor = \"multi_thread\")]\n#[ignore = \"x\"]\nasync fn there() {}\nfn helper() {}",
        &mut tests,
    );
    assert_eq!(tests, BTreeSet::from(["there".to_owned()]));
    let index = [
        (1, "a", Tests(&["there"])),
        (2, "b", Tests(&["gone"])),
        (3, "c", Tests(&[])),
        (4, "d", WhyNot("no")),
        (99, "e", Tests(&["there"])),
    ];
    let faults = faults(&index, &tests);
    let says = |text: &str| faults.iter().any(|fault| fault.contains(text));
    assert!(says("2 (b) names gone, which is no test") && says("3 (c) has no test and no reason"), "{faults:?}");
    assert!(says("4 (d) says too little") && says("99 is no number") && says("5 is not in the index"), "{faults:?}");
    assert!(!faults.iter().any(|fault| fault.starts_with("1 ")), "{faults:?}");
}
