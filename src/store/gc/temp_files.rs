//! Removal of temporary files that a crashed writer left in a `file://` bucket: where they can be, and the sweep.

use crate::backend::{Backend, TempFileLocation};
use crate::env::Env;
use crate::store::model::error::StoreError;
use crate::store::schema::manifest::Manifest;

/// Where every mount writes outside its namespace.
const OF_ALL: [TempFileLocation; 1] = [TempFileLocation::Tree("probe")];

/// Where a writer writes in its namespace. Segments and log objects are written in the order of their keys, so only the
/// newest directories of each epoch can hold a temporary file: the cost of a sweep grows with the number of mounts and
/// not with the amount of data. The index writes anywhere below `meta`, but removes its own leftovers and stays small.
const OF_A_NAMESPACE: [TempFileLocation; 5] = [
    TempFileLocation::Directory(""),
    TempFileLocation::Tree("meta"),
    TempFileLocation::Newest("data", 2),
    TempFileLocation::Newest("log", 2),
    TempFileLocation::Newest("epochs", 0),
];

/// Removes the temporary files of crashed writers. Returns the number of files removed; does nothing for buckets that
/// cannot have such files.
///
/// # Errors
/// `Unavailable`; the next mount of a writer tries again.
pub async fn sweep_orphans(
    backend: &Backend,
    namespace: &str,
    env: &dyn Env,
) -> Result<usize, StoreError> {
    let of_all = backend.sweep_temp_files(env.now(), &OF_ALL).await?;
    let own = backend.child(namespace);
    let of_one = own.sweep_temp_files(env.now(), &OF_A_NAMESPACE).await?;
    // Only a local bucket has such files; others are not asked.
    let identity = match backend.is_local() {
        true => Manifest::find(&own).await?,
        false => None,
    };
    let mut of_objects = 0;
    if let Some(owner) = identity.and_then(|identity| identity.objects_of) {
        let objects = backend.child(&owner);
        of_objects = objects.sweep_temp_files(env.now(), &OF_A_NAMESPACE).await?;
    }
    Ok(of_all + of_one + of_objects)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::BackendConfig;
    use crate::env::SystemEnv;
    use crate::store::schema::object_names::object_key;

    #[tokio::test]
    async fn every_place_of_a_temporary_file_is_swept() {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("file://{}", directory.path().display());
        let backend = Backend::open(&url, &BackendConfig::default()).unwrap();
        let mut left = vec![
            "probe/0123".to_owned(),
            "team/eu/namespace.json".to_owned(),
            "team/eu/meta/wal/00000001.sst".to_owned(),
        ];
        for kind in ["data", "log"] {
            for epoch in [1, 2, 4097] {
                // An object far before the newest one, and two on both sides of a directory boundary.
                for sequence in [0, 0x00ff_ffff, 0x0100_0000] {
                    let key = format!("team/eu/{}", object_key(kind, epoch, sequence));
                    backend.put(&key, bytes::Bytes::new()).await.unwrap();
                    if sequence > 0 {
                        left.push(key);
                    }
                }
            }
        }
        let paths = left.iter().map(|key| {
            let path = directory.path().join(format!("{key}#1"));
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            let file = std::fs::File::create(&path).unwrap();
            file.set_modified(std::time::UNIX_EPOCH).unwrap();
            path
        });
        let paths: Vec<_> = paths.collect();
        let swept = sweep_orphans(&backend, "team/eu", &SystemEnv).await;
        assert_eq!(swept.unwrap(), paths.len());
        for path in paths {
            assert!(!path.exists(), "{}", path.display());
        }
        let objects = backend.list("").await.unwrap().len();
        assert_eq!(objects, 18, "no object is deleted");
    }
}
