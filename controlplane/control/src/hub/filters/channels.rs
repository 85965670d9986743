//! What becomes of versions that are published: channels come to stand for them, go back, and old versions go.
//! Invariant: a channel goes up, or back to a version that its filter had before; it never stands for one that was
//! yanked or deleted.

use std::sync::Arc;

use weft_policy::identity::is_label;
use weft_policy::lint::Near;
use weft_policy::plan::World;
use weft_policy::resource::filter::STABLE;
use weft_policy::resource::{Kind, ObjectKey, ROOT_NAMESPACE};

use super::super::apply::{self, store_key};
use super::super::{Actor, Draft, Hub};
use super::{AUTHZ, FilterVersion, PublishError, number, root};
use crate::store::Write;

/// So many policies are named in a refusal.
const NAMED: usize = 8;

/// A channel that was moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    pub channel: String,
    /// The version that it stood for; `None`: there was no such channel.
    pub from: Option<String>,
    pub to: String,
}

impl Hub {
    /// Has a channel stand for a published version. It is tried with the policies that will run it.
    pub async fn promote_filter(
        self: &Arc<Self>,
        actor: impl Into<Actor>,
        name: &str,
        version: &str,
        channel: &str,
    ) -> Result<Moved, PublishError> {
        let (actor, record) = (actor.into(), self.record_to_move(name, version, channel).await?);
        self.trust_publisher(&actor, &record)?;
        let (tried, into) = (record.clone(), channel.to_owned());
        self.try_change(name, move |draft| draft.promote(tried.clone(), &into).map(drop)).await?;
        let channel = channel.to_owned();
        self.change(move |draft| {
            let before = draft.world.clone();
            let moved = draft.promote(draft.still(record.clone())?, &channel)?;
            draft.told_of_move(&actor, &before, "filter.promote", &record.name, &moved)?;
            Ok(moved)
        })
        .await
    }

    /// Has a channel stand for the version before the one that it stands for, or for `to`, which is an older one. Newer
    /// versions leave the channel, so that ranges go back as well.
    pub async fn roll_back_filter(
        self: &Arc<Self>,
        actor: impl Into<Actor>,
        name: &str,
        channel: &str,
        to: Option<&str>,
    ) -> Result<Moved, PublishError> {
        let (actor, records) = (actor.into(), self.records_to_move(name, channel).await?);
        let back = Back { name: name.to_owned(), channel: channel.to_owned(), to: to.map(str::to_owned), records };
        let back = Arc::new(back);
        let tried = back.clone();
        self.try_change(name, move |draft| draft.roll_back(&tried).map(drop)).await?;
        let (_, target) = back.target(&self.published().world)?;
        self.trust_publisher(&actor, &target)?;
        self.change(move |draft| {
            let before = draft.world.clone();
            draft.still(back.target(&before)?.1)?;
            let moved = draft.roll_back(&back)?;
            draft.told_of_move(&actor, &before, "filter.rollback", &back.name, &moved)?;
            Ok(moved)
        })
        .await
    }

    /// Has nobody take a version up any more, or takes that back. Policies that name the very version keep it.
    pub async fn yank_filter(
        self: &Arc<Self>,
        actor: impl Into<Actor>,
        name: &str,
        version: &str,
        undo: bool,
    ) -> Result<FilterVersion, PublishError> {
        let actor = actor.into();
        let record = self.record_to_move(name, version, STABLE).await?;
        let tried = record.clone();
        self.try_change(name, move |draft| draft.yank(tried.clone(), undo).map(drop)).await?;
        self.change(move |draft| {
            let before = draft.world.clone();
            let yanked = draft.yank(draft.still(record.clone())?, undo)?;
            draft.sound(&Actor::default(), &before, &Near::Everything).map_err(PublishError::Unsound)?;
            let action = if undo { "filter.unyank" } else { "filter.yank" };
            draft.audit(&actor, action, root(&yanked.name).to_string(), yanked.version.clone());
            Ok(yanked)
        })
        .await
    }

    /// Deletes a version that no policy runs and no channel stands for; with the last one goes the filter. Its number
    /// is never given to another binary.
    pub async fn delete_filter_version(
        self: &Arc<Self>,
        actor: impl Into<Actor>,
        name: &str,
        version: &str,
    ) -> Result<FilterVersion, PublishError> {
        let actor = actor.into();
        let record = self.record_to_move(name, version, STABLE).await?;
        self.change(move |draft| {
            let deleted = draft.delete_version(draft.still(record.clone())?)?;
            draft.audit(&actor, "filter.delete", root(&deleted.name).to_string(), deleted.version.clone());
            Ok(deleted)
        })
        .await
    }

    /// The versions of a filter whose channel is to be moved.
    async fn records_to_move(&self, name: &str, channel: &str) -> Result<Vec<FilterVersion>, PublishError> {
        if !is_label(channel) {
            return Err(PublishError::Channel(channel.to_owned()));
        }
        if name == AUTHZ {
            return Err(PublishError::Own(name.to_owned()));
        }
        let mut records = self.filter_versions().await?;
        records.retain(|record| record.name == name);
        if records.is_empty() {
            return Err(PublishError::Unknown(name.to_owned()));
        }
        Ok(records)
    }

    /// One of them.
    async fn record_to_move(&self, name: &str, version: &str, channel: &str) -> Result<FilterVersion, PublishError> {
        let records = self.records_to_move(name, channel).await?;
        let found = records.into_iter().find(|record| record.version == version);
        found.ok_or_else(|| PublishError::Unknown(format!("{name} {version}")))
    }
}

/// A way back.
#[derive(Debug)]
struct Back {
    name: String,
    channel: String,
    to: Option<String>,
    records: Vec<FilterVersion>,
}

impl Back {
    /// The version that the channel stands for, and the record of the one that it goes back to.
    fn target(&self, world: &World) -> Result<(String, FilterVersion), PublishError> {
        let Self { name, channel, to, records } = self;
        let filter = root(name);
        let current = world.in_channel(&filter, channel);
        let current = current.ok_or_else(|| PublishError::Unknown(format!("{name} in channel {channel}")))?;
        let wanted = match to {
            Some(to) => to.clone(),
            None => {
                let before = world.before_in_channel(&filter, channel).map(|release| release.spec.version.clone());
                let none = || format!("channel {channel} of {name} stood for nothing before {}", current.version);
                before.ok_or_else(|| PublishError::InUse(none() + ": name a version by --to"))?
            }
        };
        if number(&wanted) >= number(&current.version) {
            let message = format!("channel {channel} of {name} stands for {}, which is not newer", current.version);
            return Err(PublishError::InUse(format!("{message} than {wanted}: weft filter promote goes up")));
        }
        if world.is_yanked(&filter, &wanted) {
            return Err(PublishError::Yanked { name: name.clone(), version: wanted });
        }
        let record = records.iter().find(|record| record.version == wanted).cloned();
        let record = record.ok_or_else(|| PublishError::Unknown(format!("{name} {wanted}")))?;
        Ok((current.version.clone(), record))
    }
}

impl Draft {
    /// Refuses what may not come into a channel.
    pub(super) fn may_enter(&self, record: &FilterVersion, channel: &str) -> Result<(), PublishError> {
        let FilterVersion { name, version, .. } = record;
        // The control plane puts its own filter right by whatever version of it is whole.
        if name == AUTHZ {
            return Ok(());
        }
        if record.yanked {
            return Err(PublishError::Yanked { name: name.clone(), version: version.clone() });
        }
        let current = self.world.in_channel(&root(name), channel).map(|spec| spec.version.clone());
        match current {
            Some(current) if number(&current) > number(version) => {
                let (name, version, channel) = (name.clone(), version.clone(), channel.to_owned());
                Err(PublishError::Older { name, version, channel, current })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Has a channel stand for a version. The record is still to be written.
    pub(super) fn enter(&mut self, record: &mut FilterVersion, channel: &str) -> Result<(), PublishError> {
        let current = self.world.in_channel(&root(&record.name), channel);
        let is_there = current.is_some_and(|spec| spec.version == record.version);
        let release = apply::release(record);
        if !is_there || release.since(channel).is_none() {
            let mut marks = release.marks();
            marks.insert(channel.to_owned(), self.revision.0);
            record.channels = Some(marks);
        }
        if channel == STABLE {
            apply::put_filter(self, record)?;
        }
        Ok(())
    }

    /// A record that was read before, as it is now, unless another control plane has deleted it meanwhile.
    pub(super) fn still(&self, record: FilterVersion) -> Result<FilterVersion, PublishError> {
        let FilterVersion { name, version, .. } = &record;
        if self.world.release(&root(name), version).is_none() {
            return Err(PublishError::Unknown(format!("{name} {version}")));
        }
        Ok(self.as_it_is(record))
    }

    fn promote(&mut self, record: FilterVersion, channel: &str) -> Result<Moved, PublishError> {
        let record = self.as_it_is(record);
        let from = self.world.in_channel(&root(&record.name), channel).map(|spec| spec.version.clone());
        let to = self.put_version(record, Some(channel))?.version;
        Ok(Moved { channel: channel.to_owned(), from, to })
    }

    fn roll_back(&mut self, back: &Back) -> Result<Moved, PublishError> {
        let (from, target) = back.target(&self.world)?;
        let to = target.version.clone();
        // What the channel came to after that version is in it no longer.
        let is_known = |record: &&FilterVersion| self.world.release(&root(&record.name), &record.version).is_some();
        let known: Vec<_> = back.records.iter().filter(is_known).collect();
        for record in known {
            let mut record = self.as_it_is(record.clone());
            let mut marks = apply::release(&record).marks();
            if number(&record.version) > number(&to) && marks.remove(&back.channel).is_some() {
                record.channels = Some(marks);
                self.keep_version(&record)?;
            }
        }
        let mut target = self.as_it_is(target);
        self.enter(&mut target, &back.channel)?;
        self.keep_version(&target)?;
        Ok(Moved { channel: back.channel.clone(), from: Some(from), to })
    }

    fn told_of_move(
        &mut self,
        actor: &Actor,
        before: &World,
        action: &str,
        name: &str,
        moved: &Moved,
    ) -> Result<(), PublishError> {
        self.sound(&Actor::default(), before, &Near::Everything).map_err(PublishError::Unsound)?;
        let Moved { channel, from, to } = moved;
        let from = from.as_deref().unwrap_or("nothing");
        self.audit(actor, action, root(name).to_string(), format!("channel {channel} from {from} to {to}"));
        Ok(())
    }

    fn yank(&mut self, record: FilterVersion, undo: bool) -> Result<FilterVersion, PublishError> {
        let FilterVersion { name, version, .. } = &record;
        let channels = self.world.channels_of(&root(name), version);
        let standing = match channels.as_slice() {
            [] => None,
            [channel] => Some((format!("channel {channel} stands"), "it")),
            several => Some((format!("channels {} stand", several.join(", ")), "each")),
        };
        if let Some((channels, them)) = standing.filter(|_| !undo) {
            let message = format!("{channels} for {name} {version}");
            return Err(PublishError::InUse(format!("{message}: roll {them} back, or promote another version first")));
        }
        let record = FilterVersion { yanked: !undo, ..self.as_it_is(record) };
        self.keep_version(&record)?;
        Ok(record)
    }

    fn delete_version(&mut self, record: FilterVersion) -> Result<FilterVersion, PublishError> {
        let FilterVersion { name, version, .. } = &record;
        let filter = root(name);
        let users: Vec<_> =
            self.world.users(&filter, Some(version.as_str())).map(|policy| policy.key().to_string()).collect();
        if !users.is_empty() {
            let more = if users.len() > NAMED { " ..." } else { "" };
            let named = users[..users.len().min(NAMED)].join(", ");
            return Err(PublishError::InUse(format!("{name} {version} is run by {named}{more}")));
        }
        let is_last = self.world.releases(&filter).all(|release| release.spec.version == *version);
        if let Some(channel) = self.world.channels_of(&filter, version).first().filter(|_| !is_last) {
            let message = format!("channel {channel} stands for {name} {version}: promote another version first");
            return Err(PublishError::InUse(message));
        }
        if is_last && self.world.users(&filter, None).next().is_some() {
            return Err(PublishError::InUse(format!("policies name {name}, of which {version} is the last version")));
        }
        if is_last {
            let key = ObjectKey::new(Kind::Filter, ROOT_NAMESPACE, name);
            self.set_aside(&store_key(&key));
            if self.world.remove(&key).is_some() {
                self.writes.push(Write::DeleteObject { key: store_key(&key) });
                self.changed = true;
            }
        }
        let record = FilterVersion { deleted: true, channels: Some(Default::default()), ..record };
        self.keep_version(&record)?;
        Ok(record)
    }
}
