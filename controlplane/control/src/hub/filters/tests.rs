//! Versions of filters: which one runs, which one a policy names, and the one that the mesh can't do without.

use weft_policy::lint::{Code, Severity};
use weft_policy::plan::World;
use weft_policy::resource::Resource;

use super::super::tests::{SHOP, hub_in, resources};
use super::super::{Expected, How};
use super::*;
use crate::artifact::tests::{artifact_with_cases, component, publication, publication_of, sign, state};
use crate::builtin;

const OLD: &str = "weft:filter/log@0.1.0";
const NEW: &str = "weft:filter/metrics@0.1.0";

fn current(world: &World, name: &str) -> String {
    world.filter(&ObjectName::new(ROOT_NAMESPACE, name)).unwrap().spec.version.clone()
}

fn authz_key() -> ObjectKey {
    ObjectKey::new(Kind::Filter, ROOT_NAMESPACE, AUTHZ)
}

/// The shop with a policy that runs `noop`.
fn policy(reference: &str) -> Vec<Resource> {
    resources(&format!(
        "{SHOP}---\napiVersion: weft.dev/v1alpha1\nkind: FilterPolicy\nmetadata: {{name: f, namespace: shop}}\n\
         spec: {{filter: {{name: noop{reference}}}}}\n"
    ))
}

/// What the policy runs.
fn runs(hub: &Hub) -> (String, String) {
    let web = ObjectName::new("shop", "web-1");
    let attachment = filters_for(&hub.published().world, &[web]).remove("shop/f").unwrap();
    (attachment.filter, attachment.version)
}

fn of_noop(version: &str) -> (String, String) {
    ("noop".to_owned(), version.to_owned())
}

async fn publish(hub: &Arc<Hub>, version: &str, channel: Option<&str>) -> Result<FilterVersion, PublishError> {
    let import = if version.ends_with('0') { OLD } else { NEW };
    let publication = Publication { channel: channel.map(str::to_owned), ..publication("noop", version, import) };
    hub.publish_filter("me", publication).await
}

#[tokio::test]
async fn publishing_changes_nothing_and_channels_go_up_and_back() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub_in(dir.path(), |_| {});
    // The first version has nobody who runs another.
    publish(&hub, "1.9.0", None).await.unwrap();
    hub.apply("me", policy(""), How::Safely).await.unwrap();
    publish(&hub, "1.10.1", None).await.unwrap();
    assert_eq!(runs(&hub), of_noop("1.9.0"));
    let error = hub.apply("me", policy(", version: 3.0.0"), How::Safely).await.unwrap_err().to_string();
    assert!(error.contains("is published as 1.9.0, 1.10.1, not as 3.0.0"), "{error}");

    let moved = hub.promote_filter("me", "noop", "1.10.1", STABLE).await.unwrap();
    assert_eq!((moved.from.as_deref(), moved.to.as_str()), (Some("1.9.0"), "1.10.1"));
    assert_eq!(runs(&hub), of_noop("1.10.1"));
    let error = hub.promote_filter("me", "noop", "1.9.0", STABLE).await.unwrap_err();
    assert!(matches!(error, PublishError::Older { .. }), "{error}");
    let error = publish(&hub, "1.9.0", Some(STABLE)).await.unwrap_err();
    assert!(matches!(error, PublishError::Older { .. }), "an old publication brings nothing back: {error}");

    // Ranges and names, whose binaries the workload may fetch.
    hub.apply("me", policy(", version: ~1.9"), How::Safely).await.unwrap();
    assert_eq!(runs(&hub), of_noop("1.9.0"));
    let identity = "spiffe://cluster.local/ns/shop/sa/web".parse().unwrap();
    let digest = publication("noop", "1.9.0", OLD).artifact.digest;
    assert!(hub.may_fetch(&identity, &digest));
    hub.apply("me", policy(", version: ^1.9"), How::Safely).await.unwrap();
    assert_eq!(runs(&hub), of_noop("1.10.1"));
    drop(hub);

    // The same after a restart, and back: a range goes with its channel.
    let hub = hub_in(dir.path(), |_| {});
    assert_eq!(runs(&hub), of_noop("1.10.1"));
    let moved = hub.roll_back_filter("me", "noop", STABLE, None).await.unwrap();
    assert_eq!((moved.from.as_deref(), moved.to.as_str()), (Some("1.10.1"), "1.9.0"));
    assert_eq!(runs(&hub), of_noop("1.9.0"));
    assert_eq!(current(&hub.published().world, "noop"), "1.9.0");
    let error = hub.roll_back_filter("me", "noop", STABLE, None).await.unwrap_err().to_string();
    assert!(error.contains("stood for nothing before 1.9.0"), "{error}");
    let error = hub.roll_back_filter("me", "noop", STABLE, Some("1.10.1")).await.unwrap_err().to_string();
    assert!(error.contains("weft filter promote goes up"), "{error}");
    // Another channel is moved by itself.
    hub.promote_filter("me", "noop", "1.10.1", "beta").await.unwrap();
    assert_eq!(runs(&hub), of_noop("1.9.0"));
    hub.apply("me", policy(", channel: beta"), How::Safely).await.unwrap();
    assert_eq!(runs(&hub), of_noop("1.10.1"));
}

#[tokio::test]
async fn versions_from_before_there_were_channels_and_statements_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub_in(dir.path(), |_| {});
    publish(&hub, "1.0.0", None).await.unwrap();
    publish(&hub, "1.1.1", Some(STABLE)).await.unwrap();
    // As an older release has written them.
    let records = hub.filter_records().await.unwrap();
    let old = records.into_iter().map(|record| {
        let mut json = serde_json::to_value(&record).unwrap();
        let fields = json.as_object_mut().unwrap();
        fields.remove("statement").unwrap();
        fields.remove("channels").unwrap();
        Write::PutFilterVersion { key: format!("noop@{}", record.version), json: json.to_string() }
    });
    let old: Vec<_> = old.collect();
    hub.store.commit(None, old).unwrap();
    drop(hub);
    let hub = hub_in(dir.path(), |_| {});
    hub.apply("me", policy(", version: ^1"), How::Safely).await.unwrap();
    assert_eq!(runs(&hub), of_noop("1.1.1"));
    hub.roll_back_filter("me", "noop", STABLE, None).await.unwrap();
    assert_eq!(runs(&hub), of_noop("1.0.0"));
    // What is there may be published again as it is; what is new needs a statement.
    let unsigned =
        |version: &str, import: &str| Publication { statement: None, ..publication("noop", version, import) };
    hub.publish_filter("me", unsigned("1.1.1", NEW)).await.unwrap();
    let error = hub.publish_filter("me", unsigned("1.2.0", OLD)).await.unwrap_err();
    assert!(matches!(error, PublishError::Unstated(_)), "{error}");
}

#[tokio::test]
async fn what_was_signed_is_published_as_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub_in(dir.path(), |_| {});
    let signed = || publication("noop", "1.0.0", OLD);
    for (name, version, expect) in [("stamp", "1.0.0", "about name noop"), ("noop", "1.0.1", "about version 1.0.0")] {
        let posted = Publication { name: name.to_owned(), version: version.to_owned(), ..signed() };
        let error = hub.publish_filter("me", posted).await.unwrap_err().to_string();
        assert!(error.contains(expect), "{error}");
    }
    let artifact = signed().artifact;
    let stranger = Some(state(&artifact.statement("noop", "1.0.0").unwrap(), 9));
    let error = hub.publish_filter("me", Publication { statement: stranger, ..signed() }).await.unwrap_err();
    assert!(matches!(error, PublishError::Misstated(_)), "{error}");
    hub.publish_filter("me", Publication { dry_run: true, ..signed() }).await.unwrap();
    assert!(hub.filter_versions().await.unwrap().is_empty(), "a dry run makes nothing");
    // What stays of it is no other key's.
    hub.publish_filter("me", signed()).await.unwrap();
    let bytes = signed().artifact.bytes;
    let (signature, key) = sign(&bytes, 9);
    let artifact = Artifact::verify(bytes, &signature, &key).unwrap();
    let posted = Publication { artifact, statement: None, accept_new_key: true, ..signed() };
    let error = hub.publish_filter("me", posted).await.unwrap_err();
    assert!(matches!(error, PublishError::Misstated(_)), "{error}");
}

#[tokio::test]
async fn what_does_not_do_what_its_cases_say_is_not_published() {
    let dir = tempfile::tempdir().unwrap();
    let cases = r#"{"cases": [{"name": "passes", "expect": {"verdict": "pass"}}]}"#;
    let with_cases = || publication_of("noop", "1.0.0", artifact_with_cases(OLD, cases).unwrap());
    let hub = hub_in(dir.path(), |config| config.try_filters = true);
    for dry_run in [true, false] {
        let error = hub.publish_filter("me", Publication { dry_run, ..with_cases() }).await.unwrap_err();
        assert!(matches!(error, PublishError::Cases { .. }), "{error}");
    }
    assert!(hub.filter_versions().await.unwrap().is_empty());
    let dir = tempfile::tempdir().unwrap();
    let untried = hub_in(dir.path(), |_| {});
    untried.publish_filter("me", with_cases()).await.unwrap();
    let error = artifact_with_cases(OLD, r#"{"cases": []}"#).unwrap_err().to_string();
    assert!(error.contains("0 cases"), "{error}");
}

#[tokio::test]
async fn a_version_is_yanked_and_deleted_only_where_nobody_needs_it() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub_in(dir.path(), |_| {});
    for version in ["1.0.0", "1.1.1", "1.2.1"] {
        publish(&hub, version, Some(STABLE)).await.unwrap();
    }
    let refused = async |version: &str, expect: &str| {
        let error = hub.delete_filter_version("me", "noop", version).await.unwrap_err().to_string();
        assert!(error.contains(expect), "{error}");
    };
    hub.apply("me", policy(", version: ~1.1"), How::Safely).await.unwrap();
    refused("1.1.1", "is run by FilterPolicy shop/f").await;
    refused("1.2.1", "channel stable stands for noop 1.2.1").await;
    refused("7.0.0", "no filter noop 7.0.0").await;
    let error = hub.yank_filter("me", "noop", "1.2.1", false).await.unwrap_err().to_string();
    assert!(error.contains("channel stable stands for noop 1.2.1: roll it back"), "{error}");
    // Who would run nothing without it keeps it.
    let error = hub.yank_filter("me", "noop", "1.1.1", false).await.unwrap_err();
    assert!(matches!(error, PublishError::Unsound(_)), "{error}");
    hub.apply("me", policy(", version: '>=1.0, <1.2'"), How::Safely).await.unwrap();
    hub.yank_filter("me", "noop", "1.1.1", false).await.unwrap();
    assert_eq!(runs(&hub), of_noop("1.0.0"));
    let error = hub.promote_filter("me", "noop", "1.1.1", "beta").await.unwrap_err();
    assert!(matches!(error, PublishError::Yanked { .. }), "{error}");
    let root = ObjectName::new(ROOT_NAMESPACE, "noop");
    let mut filter = hub.published().world.filter(&root).unwrap().clone();
    filter.spec = hub.published().world.published_version(&root, "1.1.1").unwrap().clone();
    let error = hub.apply("me", vec![Resource::Filter(filter)], How::Safely).await.unwrap_err().to_string();
    assert!(error.contains("version 1.1.1 was yanked"), "{error}");
    hub.yank_filter("me", "noop", "1.1.1", true).await.unwrap();
    assert_eq!(runs(&hub), of_noop("1.1.1"));

    hub.apply("me", policy(""), How::Safely).await.unwrap();
    let record = hub.delete_filter_version("me", "noop", "1.1.1").await.unwrap();
    assert_eq!(hub.filter_versions().await.unwrap().len(), 2);
    let error = hub.change(move |draft| draft.still(record.clone())).await.unwrap_err();
    assert!(matches!(error, PublishError::Unknown(_)), "whoever has read it before brings it back by nothing: {error}");
    let unsigned = Publication { statement: None, ..publication("noop", "1.1.1", NEW) };
    let error = hub.publish_filter("me", unsigned).await.unwrap_err();
    assert!(matches!(error, PublishError::Unstated(_)), "{error}");
    let other = publication("noop", "1.1.1", OLD);
    let error = hub.publish_filter("me", other).await.unwrap_err();
    assert!(matches!(error, PublishError::Exists { .. }), "its number stays its own: {error}");
    hub.promote_filter("me", "noop", "1.2.1", "beta").await.unwrap();
    let error = hub.yank_filter("me", "noop", "1.2.1", false).await.unwrap_err().to_string();
    assert!(error.contains("channels beta, stable stand for noop 1.2.1: roll each back"), "{error}");
    drop(hub);
    let hub = hub_in(dir.path(), |_| {});
    let root = ObjectName::new(ROOT_NAMESPACE, "noop");
    assert_eq!(hub.published().world.published_version(&root, "1.1.1"), None, "after a restart as well");
}

#[tokio::test]
async fn a_binary_that_no_version_names_goes_after_a_while() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub_in(dir.path(), |_| {});
    publish(&hub, "1.0.0", None).await.unwrap();
    let newer = publish(&hub, "1.1.1", None).await.unwrap();
    hub.sweep_binaries(0).await.unwrap();
    hub.delete_filter_version("me", "noop", "1.1.1").await.unwrap();
    for (now, is_there) in [(10, true), (3_600, true), (3_610, false)] {
        hub.sweep_binaries(now).await.unwrap();
        assert_eq!(hub.artifact(newer.digest.clone()).await.unwrap().is_some(), is_there, "at {now}");
    }
    let left = hub.filter_versions().await.unwrap();
    assert!(hub.artifact(left[0].digest.clone()).await.unwrap().is_some(), "and nothing else does");
    // Published again it is there again.
    publish(&hub, "1.1.1", None).await.unwrap();
    assert!(hub.artifact(newer.digest).await.unwrap().is_some());
}

#[tokio::test]
async fn a_key_that_is_taken_out_stops_its_filters() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub_in(dir.path(), |_| {});
    hub.publish_filter(SYSTEM, publication(AUTHZ, "1.0.0", OLD)).await.unwrap();
    publish(&hub, "1.0.0", None).await.unwrap();
    let other = weft_policy::statement::KeyId::of_pem(OTHER_KEY).expect("a key");
    hub.apply("me", policy(""), How::Safely).await.unwrap();
    let mesh = format!(
        "apiVersion: weft.dev/v1alpha1\nkind: Mesh\nmetadata: {{name: mesh}}\nspec: {{filterPublishers: [\"{}\"]}}\n",
        OTHER_KEY.replace('\n', "\\n")
    );
    let applied = hub.apply("me", resources(&mesh), How::Safely).await.unwrap();
    let warned = applied.findings.iter().find(|finding| finding.code == Code::PublisherDistrusted).expect("a warning");
    assert_eq!(warned.severity, Severity::Warning);
    assert!(warned.message.contains("refused (onFailure: Deny)") && !warned.message.contains(&other.to_string()));
    assert_eq!(runs(&hub).0, AUTHZ, "what it would judge is refused");
    // Nothing of it is attached or published anew, whoever does it.
    let mut again = policy("");
    let Some(Resource::FilterPolicy(changed)) = again.last_mut() else { panic!("a policy") };
    changed.spec.order = 7;
    let error = hub.apply("me", again, How::Safely).await.unwrap_err();
    assert!(matches!(error, ApplyError::Unsound(_)), "{error}");
    let error = publish(&hub, "1.1.1", None).await.unwrap_err();
    assert!(matches!(error, PublishError::Untrusted(_)), "{error}");
}

/// The last FilterPublisher goes by force only: without any everybody's filters are run.
#[tokio::test]
async fn a_publisher_with_limits_publishes_what_it_may() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub_in(dir.path(), |_| {});
    let own = publication("noop", "1.0.0", OLD).artifact.public_key_pem.replace('\n', "\\n");
    let limited = |filters: &str| {
        resources(&format!(
            "apiVersion: weft.dev/v1alpha1\nkind: FilterPublisher\nmetadata: {{name: me}}\nspec: {{keys: [\"{own}\"], filters: [{filters}]}}\n"
        ))
    };
    hub.apply("me", limited("acme-*"), How::Safely).await.unwrap();
    let error = publish(&hub, "1.0.0", None).await.unwrap_err();
    assert!(matches!(&error, PublishError::Untrusted(why) if why.contains("FilterPublisher")), "{error}");
    hub.apply("me", limited("acme-*, noop"), How::Safely).await.unwrap();
    publish(&hub, "1.0.0", None).await.unwrap();
    // A removal names the policies whose filters end with it.
    hub.apply("me", policy(""), How::Safely).await.unwrap();
    let other = OTHER_KEY.replace('\n', "\\n");
    let other = format!(
        "apiVersion: weft.dev/v1alpha1\nkind: FilterPublisher\nmetadata: {{name: other}}\nspec: {{keys: [\"{other}\"], filters: [x]}}\n"
    );
    hub.apply("me", resources(&other), How::Safely).await.unwrap();
    let key = ObjectKey::new(Kind::FilterPublisher, "", "me");
    let removed = hub.delete_if("me", key, How::Safely, Expected::new()).await.unwrap();
    let ended = removed.findings.iter().find(|finding| finding.code == Code::PublisherDistrusted);
    assert_eq!(ended.map(|finding| finding.object.to_string()).as_deref(), Some("FilterPolicy shop/f"));
    let key = ObjectKey::new(Kind::FilterPublisher, "", "other");
    let error = hub.delete("me", key.clone(), How::Safely).await.unwrap_err();
    assert!(error.to_string().contains("everybody's filters are accepted"), "{error}");
    hub.delete("me", key, How::Forced).await.unwrap();
}

/// A key that nobody here signs with.
const OTHER_KEY: &str = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n";

#[tokio::test]
async fn nobody_deletes_replaces_or_publishes_what_enforces_access_policies() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub_in(dir.path(), |_| {});
    hub.publish_filter(SYSTEM, publication(AUTHZ, "1.0.0", OLD)).await.unwrap();
    let newer = Publication { channel: Some(STABLE.to_owned()), ..publication(AUTHZ, "1.1.0", NEW) };
    hub.publish_filter(SYSTEM, newer).await.unwrap();
    for how in [How::Safely, How::Forced] {
        let error = hub.delete("operator:x", authz_key(), how).await.unwrap_err();
        assert!(matches!(error, ApplyError::Own(_)), "{error}");
    }
    let mut publication = publication(AUTHZ, "2.0.0", OLD);
    publication.accept_new_key = true;
    let error = hub.publish_filter("operator:x", publication).await.unwrap_err();
    assert!(matches!(error, PublishError::Own(_)), "{error}");
    // Also not by a manifest of another version that was published.
    let world = hub.published().world.clone();
    let mut filter = world.filter(&authz_key().object_name()).unwrap().clone();
    hub.apply("operator:x", vec![Resource::Filter(filter.clone())], How::Safely).await.unwrap();
    filter.spec = world.published_version(&authz_key().object_name(), "1.0.0").unwrap().clone();
    let error = hub.apply("operator:x", vec![Resource::Filter(filter)], How::Forced).await.unwrap_err();
    assert!(matches!(error, ApplyError::Own(_)), "{error}");
    assert_eq!(current(&hub.published().world, AUTHZ), "1.1.0");
}

#[tokio::test]
async fn what_ships_takes_nobodys_name_and_authz_follows_the_control_plane() {
    let (dir, shipped) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let exports = ["configure", "on-connection", "on-request-head", "on-response-head", "on-done"];
    for name in [AUTHZ, "body-guard", "expr", "extauth", "fault", "header-edit", "jwt", "ratelimit"] {
        std::fs::write(shipped.path().join(format!("{name}.wasm")), component(&[OLD], &exports)).unwrap();
    }
    let hub = hub_in(dir.path(), |config| config.builtin_filters = Some(shipped.path().to_owned()));
    hub.publish_filter("me", publication("jwt", "3.0.0", OLD)).await.unwrap();
    hub.publish_filter(SYSTEM, publication("fault", "0.0.1", NEW)).await.unwrap();
    hub.publish_filter(SYSTEM, publication("ratelimit", "0.0.1", NEW)).await.unwrap();
    let theirs = Publication { channel: Some(STABLE.to_owned()), ..publication("ratelimit", "7.0.0", OLD) };
    hub.publish_filter("me", theirs).await.unwrap();
    builtin::publish(&hub).await.unwrap();
    let release = env!("CARGO_PKG_VERSION");
    for (name, expect) in [("fault", release), ("ratelimit", "7.0.0"), ("jwt", "3.0.0"), (AUTHZ, release)] {
        assert_eq!(current(&hub.published().world, name), expect, "stable of {name}");
    }
    let versions = hub.filter_versions().await.unwrap();
    let of =
        |name: &str| versions.iter().filter(|it| it.name == name).map(|it| it.version.as_str()).collect::<Vec<_>>();
    assert_eq!((of("jwt"), of("fault")), (vec!["3.0.0"], vec!["0.0.1", release]));
    hub.publish_filter("me", publication("jwt", "3.0.1", NEW)).await.unwrap();
    // A control plane of an earlier release, which can't read today's, puts its own back.
    let earlier = Publication { statement: None, accept_new_key: true, ..publication(AUTHZ, "0.0.1", NEW) };
    hub.publish_filter(SYSTEM, Publication { channel: Some(STABLE.to_owned()), ..earlier }).await.unwrap();
    assert_eq!(current(&hub.published().world, AUTHZ), "0.0.1");
    builtin::publish(&hub).await.unwrap();
    assert_eq!(current(&hub.published().world, AUTHZ), release);
}

#[tokio::test]
async fn authz_is_put_right_whatever_of_it_is_lost_or_damaged() {
    let json = |key: &str| Write::PutObject { key: key.to_owned(), json: "{".to_owned() };
    let digest = publication(AUTHZ, "1.0.0", OLD).artifact.digest;
    let record = "authz@1.0.0".to_owned();
    let bytes = vec![0; 10];
    let damages = [
        ("object deleted", vec![Write::DeleteObject { key: "filters/weft-system/authz".to_owned() }]),
        ("object unreadable", vec![json("filters/weft-system/authz")]),
        ("binary damaged", vec![Write::PutArtifact { digest: digest.clone(), bytes: bytes.clone() }]),
        ("record unreadable", vec![Write::PutFilterVersion { key: record.clone(), json: "{".to_owned() }]),
        (
            "everything",
            vec![
                json("filters/weft-system/authz"),
                Write::PutArtifact { digest, bytes },
                Write::PutFilterVersion { key: record, json: "{".to_owned() },
            ],
        ),
    ];
    // The release's own version lies beside the executable.
    let shipped = tempfile::tempdir().unwrap();
    let binary = publication(AUTHZ, "1.0.0", NEW).artifact.bytes;
    std::fs::write(shipped.path().join("authz.wasm"), binary).unwrap();
    for (damage, writes) in damages {
        let dir = tempfile::tempdir().unwrap();
        let hub = hub_in(dir.path(), |_| {});
        hub.publish_filter(SYSTEM, publication(AUTHZ, "1.0.0", OLD)).await.unwrap();
        builtin::keep_authz(&hub).await.unwrap();
        hub.store.commit(None, writes).unwrap();
        drop(hub);
        let hub = hub_in(dir.path(), |config| config.builtin_filters = Some(shipped.path().to_owned()));
        builtin::keep_authz(&hub).await.unwrap();
        assert!(builtin::is_in_order(&hub), "{damage}");
        let revision = hub.published().revision;
        builtin::keep_authz(&hub).await.unwrap();
        assert_eq!(hub.published().revision, revision, "{damage}: once and for all");
        let world = hub.published().world.clone();
        let spec = &world.filter(&authz_key().object_name()).unwrap().spec;
        let bytes = hub.artifact(spec.digest.clone()).await.unwrap().unwrap();
        assert!(Artifact::verify(bytes.to_vec(), &spec.signature, &spec.public_key).is_ok(), "{damage}");
    }
}

#[tokio::test]
async fn a_binary_is_in_memory_once_however_many_fetch_it() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub_in(dir.path(), |_| {});
    let published = hub.publish_filter("me", publication("noop", "1.0.0", OLD)).await.unwrap();
    let fetch = async || hub.artifact(published.digest.clone()).await.unwrap().unwrap();
    let fetched = [fetch().await, fetch().await, fetch().await];
    assert!(fetched.iter().all(|copy| Arc::ptr_eq(copy, &fetched[0])), "one copy for all");
    drop(fetched);
    assert!(hub.artifacts.0.lock().await.values().all(|copy| copy.strong_count() == 0), "and none for nobody");
    assert_eq!(fetch().await.len(), publication("noop", "1.0.0", OLD).artifact.bytes.len());
}
