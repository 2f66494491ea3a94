//! A map of blob stores by account and region. Each store is a namespace of its own and is opened on first use.

use std::collections::BTreeMap;

use super::BlobStore;
use super::error::BlobError;
use super::{BlobOptions, StoreRegistry};
use crate::backend::Backend;
use crate::store::{check_name, list_namespaces};
use crate::sync::{Arc, Mutex, lock};

/// Blob stores by (account, region). Their namespaces are named `NAME/ACCOUNT/REGION`.
#[derive(Clone, Debug)]
pub struct StoreMap(Arc<OpenStores>);

#[derive(Debug)]
struct OpenStores {
    backend: Backend,
    name: String,
    options: BlobOptions,
    family: Arc<StoreRegistry>,
    /// The stores that were opened; the map keeps them open.
    held: Mutex<BTreeMap<(String, String), BlobStore>>,
}

impl StoreMap {
    /// Creates a map for the namespaces below `name` in the bucket at `url`. No namespace is opened; the bucket is
    /// checked.
    ///
    /// # Errors
    /// `Store`: `Invalid` for a wrong URL or name, `Unavailable` if the bucket does not answer.
    pub async fn open(url: &str, name: &str, options: BlobOptions) -> Result<Self, BlobError> {
        let backend = Backend::open(url, &options.backend)?;
        backend.check().await?;
        Self::open_in(&backend, name, options)
    }

    /// As [`StoreMap::open`], in a bucket that is already open.
    ///
    /// # Errors
    /// `Store` with `Invalid` for a wrong name.
    pub fn open_in(backend: &Backend, name: &str, options: BlobOptions) -> Result<Self, BlobError> {
        check_name(name)?;
        Ok(Self(Arc::new(OpenStores {
            backend: backend.clone(),
            name: name.to_owned(),
            options,
            family: Arc::default(),
            held: Mutex::default(),
        })))
    }

    /// Returns the store of an account in a region, opens it on first use, and creates it if it does not exist. The
    /// store stays open until [`StoreMap::close`].
    ///
    /// # Errors
    /// `Invalid` if the account or the region contains a `/`; else as [`BlobStore::open`].
    pub async fn get(&self, account: &str, region: &str) -> Result<BlobStore, BlobError> {
        for part in [account, region] {
            if part.contains('/') {
                let text = format!("{part:?}: an account or region is one part of a name");
                return Err(BlobError::Invalid(text));
            }
        }
        let key = (account.to_owned(), region.to_owned());
        if let Some(open) = lock(&self.0.held).get(&key) {
            return Ok(open.clone());
        }
        let whole = format!("{}/{account}/{region}", self.0.name);
        check_name(&whole)?;
        let (backend, options) = (self.0.backend.clone(), self.0.options.clone());
        let store = BlobStore::join(backend, whole, options, Arc::clone(&self.0.family)).await?;
        lock(&self.0.held).insert(key, store.clone());
        Ok(store)
    }

    /// Returns every (account, region) that has a store in the bucket, open or not, in ascending order.
    ///
    /// # Errors
    /// `Store` with `Unavailable`.
    pub async fn children(&self) -> Result<Vec<(String, String)>, BlobError> {
        let below = self.0.backend.child(&self.0.name);
        let mut found = Vec::new();
        for name in list_namespaces(&below).await? {
            match name.split_once('/') {
                Some((account, region)) if !region.contains('/') => {
                    found.push((account.to_owned(), region.to_owned()));
                }
                _ => {}
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    /// Closes all open stores.
    ///
    /// # Errors
    /// The first failure, after all stores were closed; see [`BlobStore::close`].
    pub async fn close(&self) -> Result<(), BlobError> {
        let held = std::mem::take(&mut *lock(&self.0.held));
        let mut first = Ok(());
        for store in held.into_values() {
            let closed = store.close().await;
            first = first.and(closed);
        }
        first
    }
}

impl BlobStore {
    /// Returns the names of all namespaces below this one, nested ones included, in ascending order. Each name is a
    /// valid argument of [`BlobStore::child`].
    ///
    /// # Errors
    /// `Store` with `Unavailable`.
    pub async fn children(&self) -> Result<Vec<String>, BlobError> {
        let below = self.0.backend.child(&self.0.name);
        Ok(list_namespaces(&below).await?)
    }
}
