//! Applies changes of definitions: collections made, dropped, renamed, modified; indexes built and
//! dropped.
//!
//! Each runs alone, after everything before it and before everything after it. Each may run twice:
//! a crash can come between it and its checkpoint. What is only settings (an index's expiry, a
//! validator on a view) is compared once more at the cutover.
//!
//! Two things cannot be replayed. A rename that happened while the collection's data was still
//! being read: what was read under the old name may be part of it only. And a capped collection
//! that is made of another one (`convertToCapped`, `cloneCollectionAsCapped`): the server reports
//! none of its documents. Both are copied again, whole.

use std::sync::{Arc, PoisonError};

use mongodb::bson::{RawDocument, RawDocumentBuf, doc, rawdoc};
use schemas::cluster_time::ClusterTime;
use schemas::fault::{Fault, FaultCode};
use schemas::namespace::Namespace;

use crate::engine::catalog::{self, CollectionInfo, Kind};
use crate::engine::change_event::Definition;
use crate::engine::checkpoint::Recopied;
use crate::engine::copy::part::Copier;
use crate::engine::copy::partition;
use crate::engine::copy::rate_limit::Pace;
use crate::engine::copy::workers::WorkerPool;
use crate::engine::destination::shard_collection;
use crate::engine::element::{Writer, elements};
use crate::engine::index;
use crate::engine::index::per_shard;
use crate::engine::source::ShardSource;
use crate::engine::source::topology::{self, Cluster, Placement};
use crate::engine::tail::{Nature, Tail, Traits};
use crate::mongo::{append, error, server_code, timestamp};

/// Options of `collMod` that are carried as they come; expiry and what is an index's are given back
/// at the end. So are the bounds of capped collections.
const CARRIED_OPTIONS: [&str; 5] = [
    "validator",
    "validationLevel",
    "validationAction",
    "changeStreamPreAndPostImages",
    "timeseries",
];
/// Options of `collMod` on a view.
const VIEW_OPTIONS: [&str; 2] = ["viewOn", "pipeline"];

/// How often a collection is copied again from another look at the cluster, since chunks of it
/// moved meanwhile.
const COPIES: u32 = 10;

/// The server's codes for a change that does not fit what is there: an option of another kind of
/// collection; a view.
const DOES_NOT_FIT: [i32; 2] =
    [server_code::INVALID_OPTIONS, server_code::COMMAND_NOT_SUPPORTED_ON_VIEW];

/// Whether a view is the face of a time-series collection, which is made with it.
fn is_face(options: &RawDocument) -> bool {
    options.get_str("viewOn").is_ok_and(|on| on.starts_with("system.buckets."))
}

impl Tail {
    /// Applies one change of a definition, committed at `time`.
    pub(in crate::engine) async fn define(
        &self,
        definition: &Definition,
        time: ClusterTime,
    ) -> Result<(), Fault> {
        match definition {
            Definition::Create(namespace, options) => match catalog::owner_of(namespace) {
                Some(owner) if self.scope.contains(&owner) => {
                    let options = catalog::options_of_owner(options);
                    self.create(&owner, &options, Nature::TimeSeries).await
                }
                None if self.scope.contains(namespace) && !is_face(options) => {
                    let nature = if options.get_str("viewOn").is_ok() {
                        Nature::View
                    } else {
                        Nature::Plain
                    };
                    self.create(namespace, options, nature).await
                }
                Some(_) | None => Ok(()),
            },
            Definition::Drop(namespace) => match catalog::owner_of(namespace) {
                // The face of a time-series collection is dropped first, and takes the buckets with
                // it here.
                Some(owner) if self.traits_of(&owner).nature == Nature::TimeSeries => {
                    self.drop(&owner).await
                }
                Some(_) => Ok(()),
                None if self.scope.contains(namespace) => self.drop(namespace).await,
                None => Ok(()),
            },
            Definition::DropDatabase(db) => self.drop_database(db).await,
            Definition::Rename(from, to) => self.rename(from, to, time).await,
            Definition::CreateIndexes(namespace, specs) => match self.carried(namespace) {
                Some((owner, _)) => self.create_indexes(&owner, namespace, specs, time).await,
                None => Ok(()),
            },
            Definition::DropIndexes(namespace, names) => {
                if self.carried(namespace).is_some() {
                    for name in names {
                        index::drop_one(&self.destination, namespace, name).await?;
                    }
                }
                Ok(())
            }
            Definition::Modify(namespace, change) => self.modify(namespace, change).await,
            Definition::Shard(namespace) => match self.carried(namespace) {
                Some((owner, _)) => self.place(&owner).await,
                None => Ok(()),
            },
        }
    }

    /// Shards a collection on a sharded destination as is wanted, where it is there.
    async fn shard(&self, namespace: &Namespace) -> Result<(), Fault> {
        if !self.destination.is_sharded() {
            return Ok(());
        }
        match catalog::find(&self.destination, namespace).await? {
            Some(info) => {
                shard_collection::shard(
                    &self.source.entry,
                    &self.destination,
                    self.sharding.as_ref(),
                    &info,
                )
                .await
            }
            None => Ok(()),
        }
    }

    /// Gives a collection the place that it has on the source by now, where that is reported: one
    /// that has another shard key there is copied again under that.
    async fn place(&self, namespace: &Namespace) -> Result<(), Fault> {
        let is_resharded = self.is_copied_in_part(namespace)
            || self.destination.shard_key(namespace).is_some()
                && self.is_placed_otherwise(namespace, namespace).await?;
        if !is_resharded {
            return self.shard(namespace).await;
        }
        tracing::info!(%namespace, "it has another shard key");
        self.copy_anew(namespace).await
    }

    /// Drops what there is of a collection and copies it as it is on the source now.
    pub(in crate::engine) async fn copy_anew(&self, namespace: &Namespace) -> Result<(), Fault> {
        self.make_way(namespace).await?;
        self.copy_again(namespace).await
    }

    /// Drops what there is of a collection that is to be copied again. Noted before that: should it
    /// fail half-way, whoever comes here again finds nothing of it, and must not take that for
    /// done.
    async fn make_way(&self, namespace: &Namespace) -> Result<(), Fault> {
        let time = self.source.newest_optime().await?;
        self.set_recopied(namespace, Some(Recopied { whole: false, time })).await?;
        self.drop_data(namespace).await
    }

    /// Whether a collection was to be copied again and is not whole, or was gone when it was to be
    /// read.
    pub(in crate::engine) fn is_copied_in_part(&self, namespace: &Namespace) -> bool {
        let recopied = self.recopied.lock().unwrap_or_else(PoisonError::into_inner);
        recopied.get(namespace).is_some_and(|recopied| !recopied.whole)
    }

    /// Whether a collection that is renamed would have another shard key under its new name, or
    /// another database, which a cluster's rename does not give it.
    async fn is_placed_otherwise(&self, from: &Namespace, to: &Namespace) -> Result<bool, Fault> {
        if !self.destination.is_sharded() {
            return Ok(false);
        }
        let wanted = shard_collection::wanted(
            &self.source.entry,
            &self.destination,
            self.sharding.as_ref(),
            to,
        )
        .await?;
        let now = self.destination.shard_key(from);
        let is_same = match (&wanted, &now) {
            (Some(wanted), Some(now)) => {
                shard_collection::is_same(&wanted.key, &now.key)
                    && wanted.is_unique == now.is_unique
            }
            (None, None) => true,
            _ => false,
        };
        Ok(!is_same || from.db != to.db)
    }

    async fn create(
        &self,
        namespace: &Namespace,
        options: &RawDocument,
        nature: Nature,
    ) -> Result<(), Fault> {
        self.note_created(vec![namespace.clone()]).await?;
        // The server leaves out an index on `_id` of the old version, and reports every other one.
        let old = rawdoc! { "v": 1, "key": { "_id": 1 }, "name": "_id_" };
        let id_index = options.get_document("idIndex").unwrap_or(&old);
        let mut wrapped = RawDocumentBuf::new();
        append(&mut wrapped, "name", namespace.collection.as_str());
        append(&mut wrapped, "options", options);
        if let Some(info) = CollectionInfo::new(&namespace.db, wrapped)
            && let Some(fault) = catalog::unsupported(&info, self.source.entry.version)
        {
            return Err(fault);
        }
        let made = catalog::create(
            &self.destination,
            &namespace.db,
            catalog::create_command(&namespace.collection, Some(options), Some(id_index)),
        )
        .await?;
        let capped = options.get_bool("capped").unwrap_or(false);
        if !made {
            // A later state, which the copy has read: it stays what it is, and what leads to it is
            // further on. Or this one, made before a crash and not filled.
            self.shard(namespace).await?;
            return if capped && self.traits_of(namespace).capped {
                self.fill_capped(namespace).await
            } else {
                Ok(())
            };
        }
        self.set_traits(
            namespace,
            Some(Traits { nature, collated: options.get_document("collation").is_ok(), capped }),
        );
        self.shard(namespace).await?;
        if capped { self.fill_capped(namespace).await } else { Ok(()) }
    }

    /// Copies what a capped collection was made of, as it is now. One that is empty, or is gone,
    /// costs a look.
    async fn fill_capped(&self, namespace: &Namespace) -> Result<(), Fault> {
        match catalog::find(&self.source.entry, namespace).await? {
            Some(info) if info.is_capped() => self.copy_documents(&info).await,
            Some(_) | None => {
                let time = self.source.newest_optime().await?;
                self.set_recopied(namespace, Some(Recopied { whole: false, time })).await
            }
        }
    }

    async fn drop(&self, namespace: &Namespace) -> Result<(), Fault> {
        self.drop_data(namespace).await?;
        self.set_recopied(namespace, None).await
    }

    async fn drop_data(&self, namespace: &Namespace) -> Result<(), Fault> {
        // Only what this run made: with `existing_data = "refuse"` there is nothing else in scope,
        // but the rule is checked here too.
        if self.progress.created().contains(namespace) {
            catalog::drop(&self.destination, namespace).await?;
        }
        self.set_traits(namespace, None);
        self.verifier.gone(namespace).await
    }

    /// Drops what is left of a database. Its collections were dropped one by one; of its views
    /// nothing was reported.
    async fn drop_database(&self, db: &str) -> Result<(), Fault> {
        if !self.scope.has_database(db) {
            return Ok(());
        }
        for info in catalog::list_database(&self.destination, db).await? {
            if self.scope.contains(&info.namespace) {
                self.drop(&info.namespace).await?;
            }
        }
        catalog::drop_empty_views(&self.destination, db).await?;
        catalog::drop_emptied(&self.destination, db).await
    }

    pub(super) async fn create_indexes(
        &self,
        owner: &Namespace,
        namespace: &Namespace,
        specs: &[RawDocumentBuf],
        time: ClusterTime,
    ) -> Result<(), Fault> {
        self.note_created(vec![owner.clone()]).await?;
        if let Some(odd) = specs.iter().find_map(|spec| catalog::odd_index(namespace, spec)) {
            let fault = catalog::odd_indexes(&self.source.entry, &[odd]);
            return Err(Fault { code: FaultCode::UnsupportedChange, ..fault }.with_remedy(
                "build it again on the source under another name, and raise `generation` to run \
                 again from scratch",
            ));
        }
        for spec in specs {
            self.progress.add_deferred(index::deferred(owner, spec));
            if shard_collection::take_place(&self.source.entry, &self.destination, namespace, spec)
                .await?
            {
                continue;
            }
            match index::build_one(
                &self.destination,
                namespace,
                spec,
                self.traits_of(owner).collated,
            )
            .await
            {
                // Documents of a later state need not fit it; what drops it then is further on.
                Err(fault) if !fault.retryable && self.was_read_after(owner, time) => {
                    tracing::info!(
                        %namespace, index = index::name(spec), error = %fault.message,
                        "an index that later documents do not fit",
                    );
                }
                built => built?,
            }
        }
        Ok(())
    }

    async fn rename(
        &self,
        from: &Namespace,
        to: &Namespace,
        time: ClusterTime,
    ) -> Result<(), Fault> {
        match (self.scope.contains(from), self.scope.contains(to)) {
            (false, false) => Ok(()),
            (true, false) => self.drop(from).await,
            (false, true) => self.copy_anew(to).await,
            (true, true)
                if self.was_read_after(from, time)
                    || self.was_read_after(to, time)
                    || self.is_placed_otherwise(from, to).await? =>
            {
                self.make_way(to).await?;
                self.drop(from).await?;
                self.copy_again(to).await
            }
            (true, true) => {
                self.note_created(vec![to.clone()]).await?;
                if self.traits_of(to).nature != Nature::Plain {
                    self.drop(to).await?;
                }
                if self.duplicate_fields.contains(from) {
                    self.duplicate_fields.add(to).await?;
                }
                let rename = doc! {
                    "renameCollection": from.to_string(), "to": to.to_string(), "dropTarget": true,
                    "writeConcern": { "w": "majority" },
                };
                match self.destination.command("admin", rename).await {
                    Ok(_) => {}
                    // It ran before a crash, and its checkpoint was not stored. That what is there
                    // is what was renamed then is not sure.
                    Err(e) if error::code(&e) == Some(server_code::NAMESPACE_NOT_FOUND) => {
                        return self.copy_anew(to).await;
                    }
                    Err(e) => {
                        return Err(self
                            .destination
                            .fault(&format!("renaming {from} to {to}"), &e));
                    }
                }
                if let Some(keys) = &self.destination.shard_keys {
                    keys.set(to, self.destination.sharded_by(to).await?);
                    keys.set(from, None);
                }
                if from.db != to.db {
                    catalog::drop_emptied(&self.destination, &from.db).await?;
                }
                self.verifier.renamed(from, to).await?;
                let traits = self.traits_of(from);
                self.set_traits(from, None);
                self.set_traits(to, Some(traits));
                self.set_recopied(to, None).await
            }
        }
    }

    async fn modify(&self, namespace: &Namespace, change: &RawDocument) -> Result<(), Fault> {
        let owner = catalog::owner_of(namespace);
        let is_bucket = owner.is_some();
        let owner = owner.unwrap_or_else(|| namespace.clone());
        let carried: &[&str] = match self.traits_of(&owner).nature {
            Nature::Plain if !is_bucket => &CARRIED_OPTIONS,
            Nature::TimeSeries if is_bucket => &CARRIED_OPTIONS,
            Nature::View if !is_bucket => &VIEW_OPTIONS,
            Nature::Plain | Nature::TimeSeries | Nature::View => &[],
        };
        if self.scope.contains(&owner) && !carried.is_empty() {
            self.hide_index(&owner, change).await?;
        }
        let mut modify = Writer::default();
        modify.push_text(b"collMod", owner.collection.as_bytes());
        let mut carries = false;
        for option in elements(change) {
            if self.scope.contains(&owner)
                && carried.iter().any(|carried| carried.as_bytes() == option.name)
            {
                modify.copy(&option);
                carries = true;
            }
        }
        let modify = modify.finish();
        if !carries {
            return Ok(());
        }
        match self.destination.raw_command(&owner.db, modify).await {
            Ok(_) => Ok(()),
            // Replayed for a collection that was dropped since, or is another one now: that is
            // further on.
            Err(e) if error::code(&e) == Some(server_code::NAMESPACE_NOT_FOUND) => Ok(()),
            Err(e) if error::code(&e).is_some_and(|code| DOES_NOT_FIT.contains(&code)) => {
                tracing::info!(namespace = %owner, "a change of options does not fit; they are \
                     compared at the cutover");
                Ok(())
            }
            Err(e) => Err(self.destination.fault(&format!("modifying {owner}"), &e)),
        }
    }

    /// Hides an index or shows it, as a `collMod` says. What else it says of an index is given back
    /// at the end.
    async fn hide_index(&self, owner: &Namespace, change: &RawDocument) -> Result<(), Fault> {
        let Ok(of_index) = change.get_document("index") else { return Ok(()) };
        let (Ok(name), Ok(hidden)) = (of_index.get_str("name"), of_index.get_bool("hidden")) else {
            return Ok(());
        };
        // One that is not there waits for the end, or what drops it is further on.
        let there = catalog::indexes(&self.destination, owner).await?;
        match there.iter().find(|spec| index::name(spec) == name) {
            Some(spec) if index::is_hidden(spec) != hidden => {
                index::hide(&self.destination, owner, name, hidden).await
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Copies one namespace whole, as it is on the source now.
    async fn copy_again(&self, namespace: &Namespace) -> Result<(), Fault> {
        let Some(info) = catalog::find(&self.source.entry, namespace).await? else {
            tracing::info!(%namespace, "gone again; what made it go is further on");
            let time = self.source.newest_optime().await?;
            return self.set_recopied(namespace, Some(Recopied { whole: false, time })).await;
        };
        if let Some(fault) = catalog::unsupported(&info, self.source.entry.version) {
            return Err(fault);
        }
        tracing::info!(%namespace, "copying it again");
        self.note_created(vec![namespace.clone()]).await?;
        catalog::create(&self.destination, &namespace.db, info.create_command()).await?;
        shard_collection::shard(
            &self.source.entry,
            &self.destination,
            self.sharding.as_ref(),
            &info,
        )
        .await?;
        self.set_traits(namespace, Some(Traits::of(&info)));
        if info.kind == Kind::View {
            let time = self.source.newest_optime().await?;
            return self.set_recopied(namespace, Some(Recopied { whole: false, time })).await;
        }
        self.copy_documents(&info).await?;
        let specs = catalog::indexes(&self.source.entry, namespace).await?;
        let (entry, shards) = (&self.source.entry, &self.source.shards);
        per_shard::build(entry, shards, &self.destination, namespace, &specs, info.has_collation())
            .await?;
        self.verifier.copied_again(&info.data()).await
    }

    /// Copies a collection's documents as they are on the source now, into what is there.
    async fn copy_documents(&self, info: &CollectionInfo) -> Result<(), Fault> {
        self.copy_documents_to(info, None).await
    }

    /// The same, into another collection where one is named.
    pub(in crate::engine) async fn copy_documents_to(
        &self,
        info: &CollectionInfo,
        aside: Option<&Namespace>,
    ) -> Result<(), Fault> {
        for tries in 1.. {
            match self.copy_from_all(info, aside).await {
                // Chunks of it moved meanwhile: what was copied is met again, and left.
                Err(fault) if fault.code == FaultCode::ChunksMoved && tries < COPIES => {
                    tracing::info!(namespace = %info.namespace, error = %fault.message, "copied \
                         again from another look at the cluster");
                }
                copied => {
                    copied?;
                    break;
                }
            }
        }
        let time = self.source.newest_optime().await?;
        self.set_recopied(&info.namespace, Some(Recopied { whole: true, time })).await
    }

    /// Copies what every shard owns of a collection in one state of the cluster, or fails with
    /// `ChunksMoved`.
    async fn copy_from_all(
        &self,
        info: &CollectionInfo,
        aside: Option<&Namespace>,
    ) -> Result<(), Fault> {
        let cluster = match self.source.tells_shards_apart() {
            true => Some(Arc::new(Cluster::discover(&self.source.entry).await?)),
            false => None,
        };
        for shard in &self.source.shards {
            let placement = cluster.as_ref().map(|cluster| Placement {
                cluster: Arc::clone(cluster),
                shard: shard.name.clone(),
            });
            if placement.as_ref().is_none_or(|placement| placement.holds(&info.data())) {
                self.copy_from(shard, placement.as_ref(), info, aside).await?;
            }
        }
        Ok(())
    }

    async fn copy_from(
        &self,
        shard: &ShardSource,
        placement: Option<&Placement>,
        info: &CollectionInfo,
        aside: Option<&Namespace>,
    ) -> Result<(), Fault> {
        let start = shard.deployment.oplog_note("cutover: copying a collection again").await?;
        let (documents, bytes) = topology::size(&shard.deployment, placement, &info.data()).await?;
        // Record ids are a member's own.
        let (source, _) = shard.deployment.pinned().await?;
        let (pace, worker_pool) = (Pace::new(self.rate_limit, 1), WorkerPool::of_one());
        let copier = Copier {
            source: &source,
            entry: &self.source.entry,
            shards: &self.source.shards,
            destination: &self.destination,
            aside,
            progress: &self.progress.shard(&shard.name),
            duplicate_fields: &self.duplicate_fields,
            start: timestamp(start),
            pace: &pace,
            worker_pool: &worker_pool,
            tuning: &self.tuning,
            placement,
        };
        for part in partition::split(&source, info, bytes, placement, &self.tuning).await? {
            copier.copy(&info.data(), &part, copier.batch(documents, bytes, 1)).await?;
        }
        Ok(())
    }

    pub(in crate::engine) async fn set_recopied(
        &self,
        namespace: &Namespace,
        recopied: Option<Recopied>,
    ) -> Result<(), Fault> {
        self.checkpoints.store_recopied(namespace, recopied).await?;
        let mut known = self.recopied.lock().unwrap_or_else(PoisonError::into_inner);
        match recopied {
            Some(recopied) => known.insert(namespace.clone(), recopied),
            None => known.remove(namespace),
        };
        Ok(())
    }
}
