//! The first mount after a rebuild: files in segments that are newer than the log come back as versions with op `recovered`.
//!
//! A segment that no row cites has a footer with the inode, the content, the name and the length of each file in it. After the journal was
//! replayed, the newest state of each such file is put under its name, if the index has no newer one. Its bytes are copied through the
//! ordinary path of a put, which writes the file as a whole or not at all; the segments themselves stay uncited.
//!
//! Invariants: a state that the index has is never replaced by an older one, and a file is brought back only if all of its bytes are known: from
//! the footers, or from the content of the same lineage that the index has.
//! Futures are boxed where the compiler would take minutes for the type of the whole.
//! A crash in between leads to another run, which finds newer states where the first one has put some.

use bytes::Bytes;
use futures::FutureExt;

use crate::store::data::segment_walk::SegmentWalk;
use crate::store::model::error::StoreError;
use crate::store::model::failpoints::step;
use crate::store::model::ids::Dentry;
use crate::store::model::version::{Author, Ino, Kind, Op, ROOT, Timestamp};
use crate::store::recovery::Recovery;
use crate::store::recovery::footers::{FootedState, SegmentFooters};
use crate::store::replay::sorted::Spill;
use crate::store::schema::keys;
use crate::store::schema::object_names::SegmentId;
use crate::store::tree::create::{NAME_MAX, NewNode, check_entry_name};
use crate::store::tree::file::File;
use crate::store::tree::put::{AtomicPut, PutTarget};
use crate::sync::Arc;

/// The directory below the root for files whose own directory is not known.
const LOST: &[u8] = b"lost+found";
/// Maximum number of bytes that are read for one append.
const CHUNK: u64 = 1 << 20;
/// Bytes of extents in memory while they are sorted.
const SORTED_BYTES: usize = 8 << 20;
/// Zeros in the place of bytes that are known to be holes: more are not written.
const ZEROS_MAX: u64 = 64 << 20;
/// By how much a timestamp may be after the machine's clock, in nanoseconds.
const AHEAD_MAX: u64 = 86_400 * 1_000_000_000;
/// Maximum number of files that the status names.
const NAMED_MAX: usize = 100;
/// Maximum number of parent directories of a path in a message.
const DEPTH_MAX: usize = 4096;

/// The segments whose footers are looked at: those that no row cites.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UncitedRange {
    /// The first segment.
    pub(crate) from: SegmentId,
    /// The last writer epoch.
    pub(crate) last_epoch: u64,
}

/// What was done with the state of a file.
enum BroughtBack {
    /// The index has it, or a newer one.
    Known,
    /// It is a version at this place.
    Placed(Dentry),
    /// Not all of its bytes are known.
    LeftOut { place: Dentry, why: String },
}

/// Where a state goes, and what is there.
struct BackPlace {
    dentry: Dentry,
    /// The file as the index has it.
    file: Option<Arc<File>>,
    /// Its extended attributes.
    xattrs: Vec<(Bytes, Bytes)>,
}

impl Recovery {
    /// Makes versions of the files in uncited segments that are newer than what the index has, and waits until they are durable.
    ///
    /// # Errors
    /// `Unavailable`, `NoSpace`, `LocalDisk`, `Fenced`; another call goes on.
    pub(crate) async fn bring_back(&self, range: UncitedRange) -> Result<(), StoreError> {
        let footers = self.uncited_footers(range).boxed().await?;
        // New numbers and timestamps must not meet those in the footers.
        self.core.raise_ids(footers.newest_id.saturating_add(1));
        self.core.clock.raise(footers.newest.0);
        let (mut placed, mut left_out) = (0_u64, footers.unreadable.clone());
        let mut files = footers.files();
        while let Some(state) = files.next_file().await? {
            match self.bring_back_file(&state).boxed().await? {
                BroughtBack::Known => {}
                BroughtBack::Placed(dentry) => {
                    placed += 1;
                    let file = self.path(&dentry).await?;
                    tracing::warn!(file, "brought back a state that is newer than the log");
                }
                BroughtBack::LeftOut { place, why } => {
                    let file = self.path(&place).await?;
                    left_out.push(format!("{file}: not brought back: {why}"));
                }
            }
            step()?;
        }
        self.core.changed.notify_waiters();
        let all = self.commit.queue.all();
        self.commit.wait_all_durable(&all).await?;
        self.tell(placed, left_out);
        Ok(())
    }

    fn tell(&self, placed: u64, left_out: Vec<String>) {
        if placed > 0 {
            self.core.health.note(format!(
                "after the rebuild {placed} files were brought back from segments that are newer than the log, as versions marked recovered"
            ));
        }
        let more = left_out.len().saturating_sub(NAMED_MAX);
        for note in left_out.into_iter().take(NAMED_MAX) {
            tracing::warn!("{note}");
            self.core.health.note(note);
        }
        if more > 0 {
            let note = format!("{more} more files were not brought back");
            tracing::warn!("{note}");
            self.core.health.note(note);
        }
    }

    async fn uncited_footers(&self, range: UncitedRange) -> Result<SegmentFooters, StoreError> {
        let spill = Spill {
            dir: self.core.config.cache_dir.clone(),
            memory: SORTED_BYTES,
        };
        let latest = Timestamp(self.core.env.now().saturating_add(AHEAD_MAX));
        let mut footers = SegmentFooters::new(spill, latest);
        let mut walk = SegmentWalk::new(&self.core.backend, range.from);
        while let Some(segment) = walk.next_segment().await? {
            let SegmentId { epoch, sequence } = segment.id;
            if epoch > range.last_epoch {
                break;
            }
            let row = keys::segment(epoch, sequence);
            if self.core.index.get(&row).await?.is_none() {
                footers.read(&self.core.backend, segment).await?;
            }
        }
        Ok(footers)
    }

    async fn bring_back_file(&self, state: &FootedState) -> Result<BroughtBack, StoreError> {
        let count = self.core.index.row(&keys::count(state.content)).await?;
        if count.is_some_and(|count| count > 0) {
            return Ok(BroughtBack::Known);
        }
        let Some(mut place) = self.back_place(state).boxed().await? else {
            return Ok(BroughtBack::Known);
        };
        let Some(base_len) = base_len(state, place.file.as_deref()).boxed().await? else {
            return Ok(BroughtBack::LeftOut {
                place: place.dentry,
                why: "some of its bytes are in no segment that is left".to_owned(),
            });
        };
        let author = Author {
            uid: self.core.config.owner.uid,
            process: String::new(),
        };
        let (parent, name) = (place.dentry.parent, place.dentry.name.clone());
        let mut put = self.tree.begin(parent, &name, &author);
        match self
            .fill(&mut put, state, place.file.take(), base_len)
            .boxed()
            .await
        {
            Ok(()) => {}
            Err(StoreError::Corrupt(why)) => {
                let place = place.dentry;
                return Ok(BroughtBack::LeftOut { place, why });
            }
            Err(error) => return Err(error),
        }
        let how = PutTarget {
            mode: 0o600,
            owner: self.core.config.owner,
            xattrs: std::mem::take(&mut place.xattrs),
            op: Op::Recovered,
            author,
            since: None,
            foreign_id: None,
        };
        self.place(&mut put, place.dentry, state, &how)
            .boxed()
            .await
    }

    /// Returns where the newest state of a file belongs; `None` if the index has a newer one there.
    async fn back_place(&self, state: &FootedState) -> Result<Option<BackPlace>, StoreError> {
        let at = state.content.timestamp;
        match self.tree.file(state.ino).await {
            Ok(file) => {
                let locked = file.lock().await?;
                let Some(inode) = locked.as_file() else {
                    return Ok(None);
                };
                let content = inode.base.map(|base| base.content.timestamp);
                if inode.state.version().max(content) >= Some(at) {
                    return Ok(None);
                }
                let user = |(name, _): &&(Bytes, Bytes)| name.starts_with(b"user.");
                let xattrs = inode.node.xattrs.iter().filter(user).cloned().collect();
                drop(locked);
                let row = self.core.index.row(&keys::place(state.ino)).await?;
                return Ok(row.map(|row| BackPlace {
                    dentry: Dentry::new(row.directory, row.name),
                    file: Some(file),
                    xattrs,
                }));
            }
            Err(StoreError::NotFound) => {}
            // The number is that of something else.
            Err(StoreError::IsDirectory | StoreError::Invalid(_)) => return Ok(None),
            Err(error) => return Err(error),
        }
        let dentry = Dentry::new(state.file.directory, state.file.name.clone());
        let changed = self.tree.last_change(dentry.parent, &dentry.name).await?;
        Ok((changed < Some(at)).then_some(BackPlace {
            dentry,
            file: None,
            xattrs: Vec::new(),
        }))
    }

    /// Appends the bytes of a state; those that no footer has are those of `file`, up to `base_len`, or zeros.
    async fn fill(
        &self,
        put: &mut AtomicPut,
        state: &FootedState,
        file: Option<Arc<File>>,
        base_len: u64,
    ) -> Result<(), StoreError> {
        let (mut at, len) = (0, state.file.len);
        let parts = state.cover.parts();
        while at < len {
            let part = parts.range(..=at).next_back();
            let part = part.filter(|(start, part)| at < **start + part.len);
            let bytes = match (part, &file) {
                (Some((start, part)), _) => {
                    let skip = part.skip + (at - start);
                    let count = (start + part.len - at).min(CHUNK);
                    let extents = &self.data.extents;
                    extents
                        .read(&part.source, skip as u32, count as u32)
                        .await?
                }
                (None, file) => {
                    let next = parts.range(at..).next().map_or(len, |(start, _)| *start);
                    let end = next.min(len).min(at + CHUNK);
                    match file {
                        Some(file) if at < base_len => {
                            let count = end.min(base_len) - at;
                            file.read(at, count as u32).await?
                        }
                        _ => Bytes::from(vec![0; (end - at) as usize]),
                    }
                }
            };
            if bytes.is_empty() {
                let why = format!("the state before it ends at {at} bytes");
                return Err(StoreError::Corrupt(why));
            }
            at += bytes.len() as u64;
            put.append(bytes).boxed().await?;
        }
        Ok(())
    }

    /// Binds a written file to its name, or to one below `lost+found` if that is not possible.
    async fn place(
        &self,
        put: &mut AtomicPut,
        dentry: Dentry,
        state: &FootedState,
        how: &PutTarget,
    ) -> Result<BroughtBack, StoreError> {
        if check_entry_name(&dentry.name).is_ok() {
            match put.place(dentry.parent, &dentry.name, how).boxed().await {
                Ok(_id) => return Ok(BroughtBack::Placed(dentry)),
                Err(
                    StoreError::NotFound
                    | StoreError::NotDirectory
                    | StoreError::IsDirectory
                    | StoreError::Exists,
                ) => {}
                Err(error) => return Err(error),
            }
        }
        let Some(lost) = self
            .lost_place(&dentry, state.ino, &how.author)
            .boxed()
            .await?
        else {
            let why = format!(
                "a file named {} is in the way",
                String::from_utf8_lossy(LOST)
            );
            return Ok(BroughtBack::LeftOut { place: dentry, why });
        };
        put.place(lost.parent, &lost.name, how).boxed().await?;
        Ok(BroughtBack::Placed(lost))
    }

    /// Returns an unused name for a file whose directory is not there; makes its directory. `None` if another file has that name.
    async fn lost_place(
        &self,
        dentry: &Dentry,
        ino: Ino,
        author: &Author,
    ) -> Result<Option<Dentry>, StoreError> {
        let below = format!("directory-{}", dentry.parent.0);
        let Some(lost) = self.lost_directory(ROOT, LOST, author).await? else {
            return Ok(None);
        };
        let Some(directory) = self.lost_directory(lost, below.as_bytes(), author).await? else {
            return Ok(None);
        };
        let own = format!("~inode-{}", ino.0);
        if check_entry_name(&dentry.name).is_err() {
            return Ok(Some(Dentry::new(directory, own.into())));
        }
        let mut name = dentry.name.clone();
        if self.tree.entry(directory, &name).await?.is_some() {
            let kept = name.len().min(NAME_MAX - own.len());
            name = [&name[..kept], own.as_bytes()].concat().into();
        }
        Ok(Some(Dentry::new(directory, name)))
    }

    async fn lost_directory(
        &self,
        parent: Ino,
        name: &[u8],
        author: &Author,
    ) -> Result<Option<Ino>, StoreError> {
        if let Some(stat) = self.tree.lookup(parent, name).await? {
            return Ok((stat.kind == Kind::Directory).then_some(stat.ino));
        }
        let owner = self.core.config.owner;
        let node = NewNode {
            kind: Kind::Directory,
            mode: 0o700,
            uid: owner.uid,
            gid: owner.gid,
            rdev: 0,
            target: Bytes::new(),
            xattrs: Vec::new(),
        };
        let made = self.tree.create(parent, name, node, author).await?;
        Ok(Some(made.ino))
    }

    /// Returns a path from the root, for messages.
    async fn path(&self, dentry: &Dentry) -> Result<String, StoreError> {
        let mut names = vec![dentry.name.clone()];
        let mut at = dentry.parent;
        while at != ROOT && names.len() < DEPTH_MAX {
            let Some(above) = self.history.view().where_now(at).await? else {
                names.push(format!("directory-{}", at.0).into());
                break;
            };
            names.push(above.name);
            at = above.parent;
        }
        names.reverse();
        Ok(String::from_utf8_lossy(&names.join(&b"/"[..])).into_owned())
    }
}

/// Returns how many bytes of the file's content show below those of a state: none if the footers have all of its bytes. `None` if that is
/// not known.
async fn base_len(state: &FootedState, file: Option<&File>) -> Result<Option<u64>, StoreError> {
    let gaps = state.cover.gaps(state.file.len);
    let is_whole = gaps.is_empty();
    let Some(file) = file else {
        return Ok(is_whole.then_some(0));
    };
    let locked = file.lock().await?;
    let base = locked.as_file().and_then(|inode| inode.base);
    Ok(match base {
        Some(base) if base.content.cid == state.content.cid => {
            // Extents from before the content that the index has would hide bytes of it.
            let is_behind = base.content.timestamp < state.oldest;
            let shown = base.len.min(state.len_min);
            let zeros = gaps
                .iter()
                .map(|gap| gap.end.saturating_sub(gap.start.max(shown)));
            (is_behind && zeros.sum::<u64>() <= ZEROS_MAX).then_some(shown)
        }
        Some(_) | None => is_whole.then_some(0),
    })
}
