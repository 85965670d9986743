//! The view driven as a stream drives it, and against an obvious model under random steps.

use super::*;

/// From here on a version is one that the model proxy refuses.
const BAD: Version = 100;

fn id(name: &str) -> Key {
    match name {
        "authz" => Key::Filter(name.to_owned()),
        other => Key::Route(weft_policy::bundle::ObjectName::new("shop", other)),
    }
}

/// `a=1 b=2` as versions.
fn world(text: &str) -> Versions {
    let pair = |item: &str| {
        let (name, version) = item.split_once('=').unwrap();
        (id(name), version.parse().unwrap())
    };
    text.split_whitespace().map(pair).collect()
}

fn show(plan: Option<Plan>) -> String {
    let Some(plan) = plan else { return "-".to_owned() };
    let name = |key: &Key| key.to_string().replace("Filter ", "").replace("HTTPRoute shop/", "");
    let up = plan.upserts.iter().map(|key| format!("+{}", name(key)));
    let down = plan.removals.iter().map(|key| format!("-{}", name(key)));
    format!("{}:{}", plan.revision.0, up.chain(down).collect::<Vec<_>>().join(","))
}

#[test]
fn only_differences_are_sent_and_one_at_a_time() {
    let mut view = View::new(Versions::new());
    assert_eq!(show(view.poll_delta(Revision(1), &world("a=1 b=1"))), "1:+a,+b");
    assert_eq!(show(view.poll_delta(Revision(2), &world("a=2 b=1"))), "-");
    assert_eq!(view.handle_ack(Revision(7), &[]), Answer::Stray);
    assert_eq!(view.handle_ack(Revision(1), &[]), Answer::Taken);
    assert_eq!(view.synced(), Revision(1));
    assert_eq!(show(view.poll_delta(Revision(2), &world("a=2"))), "2:+a,-b");
    view.handle_ack(Revision(2), &[]);
    assert_eq!(show(view.poll_delta(Revision(3), &world("a=2"))), "-");
    assert_eq!(view.synced(), Revision(3), "nothing of revision 3 concerns this proxy");
}

#[test]
fn a_proxy_that_comes_back_gets_the_difference_only() {
    let mut view = View::new(world("a=1 b=1 old=1"));
    assert_eq!(show(view.poll_delta(Revision(9), &world("a=1 b=2"))), "9:+b,-old");
    let mut view = View::new(world("a=1"));
    assert_eq!(show(view.poll_delta(Revision(9), &world("a=1"))), "9:", "told once that it is in step");
}

#[test]
fn a_refused_object_is_held_until_it_changes() {
    let mut view = View::new(world("a=1 b=1"));
    assert_eq!(show(view.poll_delta(Revision(2), &world("a=100 b=2 c=1"))), "2:+a,+b,+c");
    view.handle_nack(Revision(2), Some(&id("a")), "no such filter");
    assert_eq!(show(view.poll_delta(Revision(2), &world("a=100 b=2 c=1"))), "2:+b,+c");
    view.handle_ack(Revision(2), &[]);
    assert_eq!(view.held()[&id("a")].reason, "no such filter");
    assert_eq!(show(view.poll_delta(Revision(3), &world("a=100 b=3 c=1"))), "3:+b");
    view.handle_ack(Revision(3), &[]);
    assert_eq!(show(view.poll_delta(Revision(4), &world("a=2 b=3 c=1"))), "4:+a");
    view.handle_ack(Revision(4), &[]);
    assert!(view.held().is_empty());
    // Going back to what the proxy holds also ends the hold.
    assert_eq!(show(view.poll_delta(Revision(5), &world("a=100 b=3 c=1"))), "5:+a");
    view.handle_nack(Revision(5), Some(&id("a")), "still bad");
    assert_eq!(show(view.poll_delta(Revision(6), &world("a=2 b=3 c=1"))), "-");
    assert!(view.held().is_empty());
}

#[test]
fn a_refusal_that_names_nothing_holds_the_whole_delta() {
    let mut view = View::new(world("a=1"));
    view.poll_delta(Revision(2), &world("a=2 b=2"));
    view.handle_nack(Revision(2), Some(&id("unknown")), "?");
    assert_eq!(show(view.poll_delta(Revision(2), &world("a=2 b=2"))), "-");
    assert_eq!(show(view.poll_delta(Revision(3), &world("a=2 b=3"))), "3:+b");
}

/// A filter that its proxy still compiles keeps nothing else back.
#[test]
fn a_pending_filter_holds_up_nothing_but_the_revision_that_brought_it() {
    let mut view = View::new(world("authz=1 a=1"));
    let pending = BTreeSet::from([id("authz"), id("a")]);
    assert_eq!(show(view.poll_delta(Revision(2), &world("authz=2 a=2"))), "2:+a,+authz");
    assert_eq!(view.handle_stage(Revision(2), &[], &pending), Answer::Taken);
    assert_eq!(view.pending().collect::<Vec<_>>(), [&id("authz")], "only filters are waited for");
    assert!(!view.is_in_flight() && !view.is_at_rest());
    assert_eq!(show(view.poll_delta(Revision(3), &world("authz=2 a=3"))), "3:+a");
    view.handle_ack(Revision(3), &[]);
    assert_eq!(show(view.poll_delta(Revision(4), &world("authz=2 a=3"))), "-");
    assert_eq!(view.synced(), Revision::default());
    assert_eq!(view.handle_settled(&id("authz"), 1, None), Answer::Stray, "of another version");
    assert_eq!(view.handle_settled(&id("authz"), 2, None), Answer::Taken);
    assert_eq!((view.synced(), view.is_at_rest()), (Revision(4), true));
    assert_eq!(view.handle_settled(&id("authz"), 2, None), Answer::Stray);
    assert_eq!(show(view.poll_delta(Revision(5), &world("authz=2 a=3"))), "-");
}

#[test]
fn a_pending_filter_may_be_changed_taken_back_or_taken_away() {
    let staged = |start: &str| {
        let mut view = View::new(world(start));
        view.poll_delta(Revision(2), &world("authz=2 a=1"));
        view.handle_stage(Revision(2), &[], &BTreeSet::from([id("authz")]));
        view
    };
    for (start, then, expected) in [
        ("authz=1 a=1", "authz=3 a=1", "3:+authz"),
        // It has what is wanted, and another one is on its way there.
        ("authz=1 a=1", "authz=1 a=1", "3:+authz"),
        ("a=1", "a=1", "3:-authz"),
    ] {
        let mut view = staged(start);
        assert_eq!(show(view.poll_delta(Revision(3), &world(then))), expected, "{start} {then}");
        view.handle_ack(Revision(3), &[]);
        assert_eq!((view.pending().count(), view.synced()), (0, Revision(3)), "{start} {then}");
        assert_eq!(view.handle_settled(&id("authz"), 2, None), Answer::Stray, "late");
    }
}

#[test]
fn a_pending_filter_that_is_refused_is_held_back_and_can_be_taken_away() {
    for (then, expected) in [("authz=3 a=1", "4:+authz"), ("authz=1 a=1", "4:+authz"), ("a=1", "4:-authz")] {
        let mut view = View::new(world("authz=1 a=1"));
        view.poll_delta(Revision(2), &world("authz=2 a=1"));
        view.handle_stage(Revision(2), &[], &BTreeSet::from([id("authz")]));
        view.handle_settled(&id("authz"), 2, Some("too large"));
        assert_eq!((view.synced(), view.is_at_rest()), (Revision(2), false));
        let held = &view.held()[&id("authz")];
        assert_eq!((held.version, held.revision, held.reason.as_str()), (Some(2), Revision(2), "too large"));
        assert_eq!(show(view.poll_delta(Revision(3), &world("authz=2 a=1"))), "-");
        assert_eq!(show(view.poll_delta(Revision(4), &world(then))), expected);
    }
    // It is tried again as everything that was refused.
    let mut view = View::new(world("authz=1"));
    view.poll_delta(Revision(2), &world("authz=2"));
    view.handle_stage(Revision(2), &[], &BTreeSet::from([id("authz")]));
    view.handle_settled(&id("authz"), 2, Some("too large"));
    view.release_held();
    assert_eq!(show(view.poll_delta(Revision(2), &world("authz=2"))), "2:+authz");
}

/// What a proxy can't do, by names.
fn withheld(names: &str) -> BTreeMap<Key, (Version, String)> {
    names.split_whitespace().map(|name| (id(name), (9, "withheld".to_owned()))).collect()
}

#[test]
fn what_is_withheld_stays_as_it_is_held_and_everything_else_goes_on() {
    let mut view = View::new(world("authz=1 a=1"));
    view.withhold(Revision(2), withheld("authz"));
    assert_eq!(show(view.poll_delta(Revision(2), &world("a=2"))), "2:+a", "the filter that it runs is not taken away");
    view.handle_ack(Revision(2), &[]);
    // It keeps the revision from which on it is withheld, so that it spoils no later wait.
    view.withhold(Revision(5), withheld("authz"));
    assert_eq!(view.withheld()[&id("authz")].revision, Revision(2));
    // One that is closed is sent in its closed form.
    view.withhold(Revision(6), withheld("authz a"));
    assert_eq!(show(view.poll_delta(Revision(6), &world("a=3"))), "6:+a");
    view.handle_ack(Revision(6), &[]);
    view.withhold(Revision(7), withheld(""));
    assert_eq!(show(view.poll_delta(Revision(7), &world("authz=2 a=4"))), "7:+a,+authz");
    view.handle_ack(Revision(7), &[]);
    assert_eq!(show(view.poll_delta(Revision(8), &world("a=4"))), "8:-authz");
}

#[test]
fn a_proxy_that_has_nothing_gets_nothing_without_its_protection() {
    let mut view = View::new(Versions::new());
    view.withhold(Revision(1), withheld("authz"));
    assert!(view.waits());
    assert_eq!(show(view.poll_delta(Revision(1), &world("a=1"))), "-");
    view.withhold(Revision(2), withheld("a"));
    assert!(!view.waits(), "a route protects nothing: it is there in a closed form");
    assert_eq!(show(view.poll_delta(Revision(2), &world("a=1"))), "2:+a");
}

#[test]
fn what_was_skipped_is_not_held_and_not_sent_again() {
    let mut view = View::new(Versions::new());
    view.poll_delta(Revision(1), &world("a=1 b=1"));
    view.handle_ack(Revision(1), &[id("b"), id("nothing-that-was-sent")]);
    assert_eq!(view.held().keys().collect::<Vec<_>>(), [&id("b")]);
    assert_eq!(show(view.poll_delta(Revision(2), &world("a=1 b=1"))), "-");
    assert_eq!(show(view.poll_delta(Revision(3), &world("a=1 b=2"))), "3:+b");
    view.handle_ack(Revision(3), &[id("b")]);
    assert_eq!(show(view.poll_delta(Revision(4), &world("a=1"))), "-", "it has none to remove");
}

#[test]
fn what_was_cut_is_sent_whole_again() {
    let mut view = View::new(world("s=1 t=1"));
    view.poll_delta(Revision(1), &world("s=1 t=1"));
    view.handle_ack(Revision(1), &[]);
    view.handle_subtraction(&BTreeSet::from([id("s")]));
    assert_eq!(show(view.poll_delta(Revision(2), &world("s=1 t=1"))), "2:+s");
    // Cut while in flight: the delta may bring the endpoint back, so it is sent again after the answer.
    view.handle_subtraction(&BTreeSet::from([id("s")]));
    view.handle_ack(Revision(2), &[]);
    assert_eq!(show(view.poll_delta(Revision(3), &world("s=3 t=1"))), "3:+s");
}

#[test]
fn of_a_store_that_was_set_back_nothing_is_acknowledged_yet() {
    let mut view = View::new(world("a=1"));
    view.poll_delta(Revision(9), &world("a=2"));
    view.handle_ack(Revision(9), &[]);
    view.pass_by(Revision(12));
    assert_eq!(view.synced(), Revision(12));
    view.begin_anew();
    assert_eq!(show(view.poll_delta(Revision(5), &world("a=3"))), "5:+a");
    assert_eq!(view.synced(), Revision(0));
    view.handle_ack(Revision(5), &[]);
    assert_eq!(view.synced(), Revision(5));
}

#[test]
fn what_went_ahead_is_told_again_or_taken_away() {
    let mut view = View::new(world("a=1 b=1"));
    assert_eq!(show(view.poll_delta(Revision(2), &world("a=2 authz=1"))), "2:+a,+authz,-b");
    assert!(view.is_preparing());
    // One that is new, one that is held, one in flight and one that is taken away.
    view.handle_ahead(["new", "gone", "a", "b"].map(id));
    view.handle_ack(Revision(2), &[]);
    assert!(!view.is_preparing());
    assert!(view.has(&id("authz"), 1) && !view.has(&id("a"), 2) && view.is_without(&id("new")));
    let newest = world("a=2 b=3 new=4 authz=1");
    assert_eq!(show(view.poll_delta(Revision(3), &newest)), "3:+a,+b,+new,-gone");
    view.handle_ack(Revision(3), &[]);
    assert_eq!(show(view.poll_delta(Revision(4), &newest)), "-");
}

#[test]
fn a_route_that_went_ahead_and_is_refused_is_one_without_rules() {
    let mut view = View::new(world("b=1"));
    view.poll_delta(Revision(2), &world("b=1 authz=1"));
    view.handle_ahead([id("a")]);
    view.handle_ack(Revision(2), &[]);
    assert_eq!(show(view.poll_delta(Revision(3), &world("a=5 b=1 authz=1"))), "3:+a");
    view.handle_nack(Revision(3), Some(&id("a")), "no such field");
    assert_eq!(view.unread(&id("a"), 5), Some("no such field"));
}

/// A proxy that refuses every version from `BAD` on (single-object faults) always ends with the newest good version of
/// everything, whatever the order of changes and answers.
#[test]
fn a_model_proxy_converges_under_random_steps() {
    for seed in 1..200_u64 {
        let mut dice = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut roll = |n: u64| {
            dice ^= dice << 13;
            dice ^= dice >> 7;
            dice ^= dice << 17;
            dice % n
        };
        let mut view = View::new(Versions::new());
        let mut proxy = Versions::new();
        let mut target = Versions::new();
        let mut revision = 0;
        for _ in 0..60 {
            if roll(3) > 0 {
                revision += 1;
                let name = id(&format!("o{}", roll(4)));
                if roll(4) == 0 {
                    target.remove(&name);
                } else {
                    let bad = if roll(3) == 0 { BAD } else { 0 };
                    target.insert(name, bad + roll(5));
                }
            } else {
                step(&mut view, &mut proxy, &target, revision);
            }
        }
        for _ in 0..10 {
            step(&mut view, &mut proxy, &target, revision);
        }
        for (name, version) in &target {
            if *version < BAD {
                assert_eq!(proxy.get(name), Some(version), "seed {seed}");
            } else {
                assert!(proxy.get(name).is_none_or(|held| *held < BAD), "seed {seed}");
            }
        }
        assert!(proxy.keys().all(|name| target.contains_key(name)), "seed {seed}");
        assert_eq!(view.synced(), Revision(revision));
    }
}

/// It may stay without a world, but never with half of one.
#[test]
fn a_fresh_proxy_gets_no_world_without_its_filters() {
    let mut view = View::new(Versions::new());
    let authz = id("authz");
    assert_eq!(show(view.poll_delta(Revision(1), &world("authz=100 app=1"))), "1:+app,+authz");
    view.handle_nack(Revision(1), Some(&authz), "not loaded");
    assert_eq!(show(view.poll_delta(Revision(1), &world("authz=100 app=1"))), "-");
    assert_eq!(view.held()[&authz].reason, "not loaded");
    assert!(view.synced() < Revision(1));
    assert_eq!(show(view.poll_delta(Revision(2), &world("authz=100 app=2"))), "2:+app,+authz");
    view.handle_nack(Revision(2), Some(&authz), "not loaded");
    view.release_held();
    assert_eq!(show(view.poll_delta(Revision(2), &world("authz=100 app=2"))), "2:+app,+authz");
    view.handle_ack(Revision(2), &[]);
    // From here on what it holds goes on without the refused change.
    assert_eq!(show(view.poll_delta(Revision(3), &world("authz=101 app=3"))), "3:+app,+authz");
    view.handle_nack(Revision(3), Some(&authz), "not loaded");
    assert_eq!(show(view.poll_delta(Revision(3), &world("authz=101 app=3"))), "3:+app");
}

/// A proxy that refuses a route of which it has no rules gets its closed form, until it takes the route itself.
#[test]
fn a_route_that_was_refused_at_first_is_unread_until_it_is_taken() {
    let (mut view, a) = (View::new(Versions::new()), id("a"));
    view.poll_delta(Revision(1), &world("a=5 b=1")).unwrap();
    view.note_closed(a.clone(), 9);
    view.handle_nack(Revision(1), Some(&a), "no such field");
    assert_eq!(view.unread(&a, 5), Some("no such field"));
    assert!(view.holds_back() && view.held().is_empty());
    // The closed form goes out in its place.
    assert_eq!(show(view.poll_delta(Revision(1), &world("a=9 b=1"))), "1:+a,+b");
    view.handle_ack(Revision(1), &[]);
    assert_eq!(view.unread(&a, 5), Some("no such field"), "the closed form is not the route");
    // Tried again in vain: it has the closed form still, and not a version that it may go on with.
    view.release_held();
    assert_eq!(view.unread(&a, 5), None);
    assert_eq!(show(view.poll_delta(Revision(1), &world("a=5 b=1"))), "1:+a");
    view.handle_nack(Revision(1), Some(&a), "no such field");
    assert_eq!(view.unread(&a, 5), Some("no such field"));
    assert_eq!(show(view.poll_delta(Revision(1), &world("a=9 b=1"))), "-");
    // Another version of it is tried at once, and taken.
    assert_eq!(view.unread(&a, 6), None);
    assert_eq!(show(view.poll_delta(Revision(2), &world("a=6 b=1"))), "2:+a");
    view.handle_ack(Revision(2), &[]);
    assert!(!view.holds_back());
    // From here on a version that it refuses leaves it with the one that it has.
    assert_eq!(show(view.poll_delta(Revision(3), &world("a=7 b=1"))), "3:+a");
    view.handle_nack(Revision(3), Some(&a), "no such field");
    assert!(view.unread(&a, 7).is_none() && view.held().contains_key(&a));
}

/// It came back with the closed form that an earlier session had sent.
#[test]
fn a_proxy_that_comes_back_with_a_closed_route_has_none_of_its_rules() {
    let (mut view, a) = (View::new(world("a=9 b=1")), id("a"));
    view.poll_delta(Revision(1), &world("a=5 b=1")).unwrap();
    view.note_closed(a.clone(), 9);
    view.handle_nack(Revision(1), Some(&a), "no such field");
    assert_eq!(view.unread(&a, 5), Some("no such field"));
}

fn step(view: &mut View, proxy: &mut Versions, target: &Versions, revision: u64) {
    let Some(plan) = view.poll_delta(Revision(revision), target) else { return };
    if let Some(bad) = plan.upserts.iter().find(|id| target[*id] >= BAD) {
        view.handle_nack(plan.revision, Some(bad), "bad");
        return;
    }
    for name in &plan.upserts {
        proxy.insert(name.clone(), target[name]);
    }
    for name in &plan.removals {
        proxy.remove(name);
    }
    view.handle_ack(plan.revision, &[]);
}
