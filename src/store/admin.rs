//! Administration of namespaces without mounting them: list, show, create, change settings, delete.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::backend::Backend;
use crate::env::Env;
use crate::meta::{MetaStore, SlateConfig, SlateStore};
use crate::store::commit::{epoch_object, log_object};
use crate::store::lease::acquire::revoke;
use crate::store::model::config::check_name;
use crate::store::model::error::StoreError;
use crate::store::schema::applied_row::AppliedRow;
use crate::store::schema::manifest::{Manifest, PARTS, RebuildStage, existing_identity};
use crate::store::schema::merge;
use crate::store::schema::writer_object;

/// Maximum length of the name and of the value of a setting, in bytes.
const SETTING_MAX: (usize, usize) = (64, 1024);
/// Time for a writer to notice that its namespace is being deleted: it does with its next heartbeat.
const FENCED: Duration = Duration::from_secs(62);
/// The same in a local directory: a writer checks once per second there.
const FENCED_LOCAL: Duration = Duration::from_millis(2500);
/// The number of objects that are deleted between two reports of progress.
const AT_ONCE: usize = 1000;
/// Maximum number of sweeps until a listing is empty; requests of a fenced writer may arrive late.
const SWEEPS_MAX: usize = 10;

/// A step of the deletion of a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeletionStep {
    /// It waits so long, until a writer that still has the namespace has noticed that it lost it.
    Waiting(Duration),
    /// So many objects are deleted, of all that are known.
    Deleted {
        /// Number of deleted objects.
        gone: u64,
        /// Number of objects in all.
        of: u64,
    },
}

/// The description of a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespaceInfo {
    /// The name in the backend.
    pub name: String,
    /// The id of the namespace; cache directories are named after it.
    pub uuid: uuid::Uuid,
    /// The format version of everything below the namespace.
    pub format: u32,
    /// The index engine and the version that created the index.
    pub engine: String,
    /// The time of creation, in nanoseconds since 1970.
    pub created_ns: u64,
    /// Whether a deletion has begun.
    pub deleting: bool,
    /// The namespace that has the segments and the log, if that is another one: a rebuild made this one of it.
    pub objects_of: Option<String>,
    /// The rebuild that has not completed it.
    pub half_made: Option<HalfMade>,
    /// The namespace that a rebuild made of it; this one is not opened any more.
    pub replaced_by: Option<String>,
    /// The settings that users made.
    pub settings: BTreeMap<String, String>,
    /// The state at the newest batch of the log; the log is at most one minute behind the writer.
    pub last: Option<LastWrite>,
}

/// A namespace that a rebuild has not completed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HalfMade {
    /// The namespace that is rebuilt.
    pub from: String,
}

/// What stands in the way of the use of a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamespaceState {
    /// Nothing.
    Usable,
    /// Its deletion is not completed.
    Deleting,
    /// Its rebuild is not completed.
    HalfMade(HalfMade),
    /// A rebuild made the namespace of this name of it.
    Replaced(String),
    /// Its `namespace.json` cannot be read, for this reason.
    Damaged(String),
}

/// The state of a namespace at a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastWrite {
    /// The epoch of the writer: the number of times that the index was opened for writing.
    pub epoch: u64,
    /// The last timestamp that was given, in nanoseconds since 1970.
    pub instant_ns: u64,
    /// Bytes of the live files, without holes.
    pub bytes: u64,
    /// Number of live inodes.
    pub files: u64,
    /// The machine of the newest writer; `None` if that is not known.
    pub host: Option<String>,
}

/// Parses `KEY=VALUE`. An empty value means that the setting is removed.
///
/// # Errors
/// `Invalid` with the reason.
pub fn parse_setting(text: &str) -> Result<(String, Option<String>), StoreError> {
    let bad = |why: &str| Err(StoreError::Invalid(format!("setting {text:?}: {why}")));
    let Some((key, value)) = text.split_once('=') else {
        return bad("write KEY=VALUE, or KEY= to remove it");
    };
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c);
    if key.is_empty() || key.len() > SETTING_MAX.0 || !key.chars().all(plain) {
        return bad("the name must have 1 to 64 of a-z, 0-9, '-', '_' and '.'");
    }
    if value.len() > SETTING_MAX.1 {
        return bad("the value is longer than 1024 bytes");
    }
    let value = (!value.is_empty()).then(|| value.to_owned());
    Ok((key.to_owned(), value))
}

/// Returns the names of all namespaces in a backend, nested ones included, in ascending order.
///
/// # Errors
/// `Unavailable`.
pub async fn list_namespaces(backend: &Backend) -> Result<Vec<String>, StoreError> {
    let (mut found, mut open) = (Vec::new(), vec![String::new()]);
    while let Some(at) = open.pop() {
        if !at.is_empty() && backend.has(&format!("{at}/namespace.json")).await? {
            found.push(at.clone());
        }
        for name in backend.folders(&at).await? {
            let below = match at.as_str() {
                "" => name.clone(),
                above => format!("{above}/{name}"),
            };
            if !PARTS.contains(&name.as_str()) && check_name(&below).is_ok() {
                open.push(below);
            }
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Returns what stands in the way of the use of a namespace.
///
/// # Errors
/// `NotFound`, `Invalid` for a bad name, `Unavailable`.
pub async fn namespace_state(backend: &Backend, name: &str) -> Result<NamespaceState, StoreError> {
    let identity = match find(backend, name).await {
        Ok((_, identity)) => identity,
        Err(StoreError::Corrupt(why)) => return Ok(NamespaceState::Damaged(why)),
        Err(error) => return Err(error),
    };
    if identity.deleting {
        return Ok(NamespaceState::Deleting);
    }
    Ok(match (half_made(&identity), identity.replaced_by) {
        (Some(half_made), _) => NamespaceState::HalfMade(half_made),
        (None, Some(new)) => NamespaceState::Replaced(new),
        (None, None) => NamespaceState::Usable,
    })
}

fn half_made(identity: &Manifest) -> Option<HalfMade> {
    match &identity.rebuild {
        Some(RebuildStage::Building { from, .. }) => Some(HalfMade { from: from.clone() }),
        Some(RebuildStage::Recovering { .. }) | None => None,
    }
}

/// Returns the description of a namespace. Does not disturb a writer.
///
/// # Errors
/// `NotFound`, `Invalid` for a bad name, `Corrupt`, `Unavailable`.
pub async fn show_namespace(backend: &Backend, name: &str) -> Result<NamespaceInfo, StoreError> {
    let (_, identity) = find(backend, name).await?;
    let objects = identity.home(backend, name).objects;
    let Some(applied) = last_applied(&objects).await? else {
        return Ok(info(name, identity, None));
    };
    let writer = epoch_object::newest_writer(&objects).await?;
    let last = LastWrite {
        epoch: applied.batch.epoch,
        instant_ns: applied.clock,
        bytes: applied.bytes.max(0).cast_unsigned(),
        files: applied.files.max(0).cast_unsigned(),
        host: writer.map(|writer| writer.host),
    };
    Ok(info(name, identity, Some(last)))
}

fn info(name: &str, identity: Manifest, last: Option<LastWrite>) -> NamespaceInfo {
    NamespaceInfo {
        name: name.to_owned(),
        uuid: identity.uuid,
        format: identity.format,
        engine: format!("{} {}", identity.engine, identity.engine_version),
        created_ns: identity.created,
        deleting: identity.deleting,
        half_made: half_made(&identity),
        objects_of: identity.objects_of,
        replaced_by: identity.replaced_by,
        settings: identity.settings,
        last,
    }
}

async fn find(backend: &Backend, name: &str) -> Result<(Backend, Manifest), StoreError> {
    check_name(name)?;
    let place = backend.child(name);
    let identity = existing_identity(&place).await?;
    Ok((place, identity))
}

/// Returns the row `G A` from the newest readable log object that tells it; watermarks may be left out.
async fn last_applied(place: &Backend) -> Result<Option<AppliedRow>, StoreError> {
    for object in place.list("log").await?.into_iter().rev() {
        let object = match log_object::read(place, &object.key).await {
            Ok(object) => object,
            // What is older is told in its place, so that a damaged object keeps no command from the namespace.
            Err(StoreError::Corrupt(_)) => continue,
            Err(error) => return Err(error),
        };
        if let Some(applied) = object.newest_applied()? {
            return Ok(Some(applied));
        }
    }
    Ok(None)
}

/// Creates a namespace.
///
/// # Errors
/// `Exists`; `Invalid` for a bad name; `Unavailable`.
pub async fn create_namespace(
    backend: &Backend,
    name: &str,
    settings: BTreeMap<String, String>,
    env: &dyn Env,
) -> Result<NamespaceInfo, StoreError> {
    check_name(name)?;
    let identity = Manifest {
        settings,
        ..Manifest::fresh(env)
    };
    match identity.make(&backend.child(name)).await? {
        true => Ok(info(name, identity, None)),
        false => Err(StoreError::Exists),
    }
}

/// Changes or removes settings. Does not disturb a writer; of two concurrent calls, the last one wins.
///
/// # Errors
/// As [`show_namespace`]; `Busy` if the namespace is being deleted.
pub async fn set_namespace(
    backend: &Backend,
    name: &str,
    changes: Vec<(String, Option<String>)>,
) -> Result<NamespaceInfo, StoreError> {
    let (place, mut identity) = find(backend, name).await?;
    identity.check_alive()?;
    for (key, value) in changes {
        match value {
            Some(value) => identity.settings.insert(key, value),
            None => identity.settings.remove(&key),
        };
    }
    identity.replace(&place).await?;
    Ok(info(name, identity, None))
}

/// Deletes a namespace with its history: marks it as deleting, fences its writer, and deletes its objects. Namespaces
/// nested in it are kept. Of a namespace that a rebuild made, the objects of the namespace that it was made of go too; a half-made one goes
/// alone, and so does one that was rebuilt again. Returns the number of objects deleted. After a failure, another call completes the deletion.
/// `progress` receives each step.
///
/// # Errors
/// As [`show_namespace`]; `Held` if another namespace, which a rebuild made of this one, has its segments.
pub async fn delete_namespace(
    backend: &Backend,
    name: &str,
    mut progress: impl FnMut(DeletionStep),
) -> Result<u64, StoreError> {
    let (place, mut identity) = find(backend, name).await?;
    check_not_cited(backend, name, &identity).await?;
    release_rebuilt(backend, name, &identity).await?;
    identity.deleting = true;
    identity.replace(&place).await?;
    revoke(&place).await?;
    // No writer ever has a half-made namespace.
    if half_made(&identity).is_none() && !place.list("meta").await?.is_empty() {
        fence(&place, &mut progress).await?;
    }
    let mut gone = 0;
    if let Some(owner) = objects_to_delete(backend, name, &identity).await? {
        gone = delete_parts(&owner, &PARTS, gone, &mut progress).await?;
        owner.delete(writer_object::KEY).await?;
        Manifest::remove(&owner).await?;
        gone += 1;
    }
    gone = delete_parts(&place, &PARTS, gone, &mut progress).await?;
    place.delete(writer_object::KEY).await?;
    Manifest::remove(&place).await?;
    Ok(gone + 1)
}

/// Fails if a namespace that a rebuild made of this one has its segments.
async fn check_not_cited(
    backend: &Backend,
    name: &str,
    identity: &Manifest,
) -> Result<(), StoreError> {
    let (Some(new), None) = (&identity.replaced_by, &identity.objects_of) else {
        return Ok(());
    };
    match Manifest::find(&backend.child(new)).await? {
        Some(found) if found.objects_of.as_deref() == Some(name) => Err(StoreError::Held(format!(
            "it is not deleted, because its segments and its log are those of namespace {new}, which was rebuilt from it: \
             `rewindfs namespace delete` of {new} deletes both"
        ))),
        _ => Ok(()),
    }
}

/// Makes the namespace usable again of which `identity` is a half-made rebuild.
async fn release_rebuilt(
    backend: &Backend,
    name: &str,
    identity: &Manifest,
) -> Result<(), StoreError> {
    let Some(HalfMade { from }) = half_made(identity) else {
        return Ok(());
    };
    let mut names = vec![from];
    names.extend(identity.objects_of.clone());
    names.dedup();
    for rebuilt in names {
        let place = backend.child(&rebuilt);
        if let Some(found) = Manifest::find(&place).await?
            && found.replaced_by.as_deref() == Some(name)
        {
            let released = Manifest {
                replaced_by: None,
                ..found
            };
            released.replace(&place).await?;
        }
    }
    Ok(())
}

/// Returns the place of the objects that only this namespace cites, if they are not under its own prefix.
async fn objects_to_delete(
    backend: &Backend,
    name: &str,
    identity: &Manifest,
) -> Result<Option<Backend>, StoreError> {
    let Some(owner) = &identity.objects_of else {
        return Ok(None);
    };
    if identity.replaced_by.is_some() || half_made(identity).is_some() {
        return Ok(None);
    }
    let place = backend.child(owner);
    let found = Manifest::find(&place).await?;
    let is_own = found.is_some_and(|found| found.replaced_by.as_deref() == Some(name));
    Ok(is_own.then_some(place))
}

/// Takes the index from a writer that may have it, and waits until that has noticed.
async fn fence(place: &Backend, progress: &mut impl FnMut(DeletionStep)) -> Result<(), StoreError> {
    let config = SlateConfig {
        local: place.is_local(),
        ..SlateConfig::new(merge::merge)
    };
    match SlateStore::open(place.object_store(), "meta", config).await {
        Ok(index) => index.close().await?,
        // An earlier attempt deleted part of the index; it has already fenced the writer.
        Err(error) => tracing::warn!(%error, "cannot open the partly deleted index"),
    }
    let wait = match place.is_local() {
        true => FENCED_LOCAL,
        false => FENCED,
    };
    progress(DeletionStep::Waiting(wait));
    tokio::time::sleep(wait).await;
    Ok(())
}

/// Deletes the objects below `parts` of a namespace; `gone` objects were deleted before. Returns how many are deleted by now.
///
/// # Errors
/// `Unavailable`; some of the objects may be deleted.
pub(crate) async fn delete_parts(
    place: &Backend,
    parts: &[&str],
    mut gone: u64,
    progress: &mut impl FnMut(DeletionStep),
) -> Result<u64, StoreError> {
    for _ in 0..SWEEPS_MAX {
        let mut all = Vec::new();
        for part in parts {
            all.extend(place.list(part).await?.into_iter().map(|object| object.key));
        }
        if all.is_empty() {
            break;
        }
        let of = gone + all.len() as u64;
        for keys in all.chunks(AT_ONCE) {
            place.delete_many(keys).await?;
            gone += keys.len() as u64;
            progress(DeletionStep::Deleted { gone, of });
        }
    }
    Ok(gone)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::BackendConfig;
    use crate::env::SeededEnv;
    use bytes::Bytes;

    #[test]
    fn a_setting_is_parsed_or_refused_with_the_reason() {
        let read = |text| parse_setting(text).unwrap();
        assert_eq!(read("a.b-c=x=y"), ("a.b-c".into(), Some("x=y".into())));
        assert_eq!(read("a="), ("a".to_owned(), None));
        for bad in [
            "",
            "a",
            "=x",
            "A=x",
            "a b=x",
            &format!("a={}", "x".repeat(1025)),
        ] {
            let error = parse_setting(bad).unwrap_err().to_string();
            assert!(error.contains("setting"), "{bad}: {error}");
        }
    }

    #[tokio::test]
    async fn namespaces_are_listed_and_changing_or_deleting_one_leaves_the_others() {
        let backend = Backend::open("memory://admin", &BackendConfig::default()).unwrap();
        let env = SeededEnv::new(1);
        for name in ["team", "team/eu", "probe", "other"] {
            let made = create_namespace(&backend, name, BTreeMap::new(), &env);
            assert_eq!(made.await.unwrap().name, name);
        }
        let again = create_namespace(&backend, "team", BTreeMap::new(), &env).await;
        assert!(matches!(again, Err(StoreError::Exists)));
        let stray = Bytes::from_static(b"x");
        for key in [
            "team/data/00000/000/000/000/001",
            "loose/file",
            "team/data/namespace.json",
        ] {
            backend.put(key, stray.clone()).await.unwrap();
        }
        let all = || async { list_namespaces(&backend).await.unwrap() };
        assert_eq!(all().await, ["other", "probe", "team", "team/eu"]);
        let set = vec![parse_setting("a=1").unwrap(), parse_setting("b=2").unwrap()];
        set_namespace(&backend, "team", set).await.unwrap();
        let set = vec![parse_setting("a=").unwrap()];
        let changed = set_namespace(&backend, "team", set).await.unwrap();
        let shown = show_namespace(&backend, "team").await.unwrap();
        assert_eq!(shown, changed);
        assert_eq!(
            shown.settings,
            BTreeMap::from([("b".to_owned(), "2".to_owned())])
        );
        let mut heard = Vec::new();
        let gone = delete_namespace(&backend, "team", |step| heard.push(step));
        assert_eq!(gone.await.unwrap(), 3);
        assert_eq!(heard, [DeletionStep::Deleted { gone: 2, of: 2 }]);
        assert_eq!(all().await, ["other", "probe", "team/eu"]);
        assert!(matches!(
            show_namespace(&backend, "team").await,
            Err(StoreError::NotFound)
        ));
    }
}
