//! Shared state: the std types, and locks that ignore poisoning.
//!
//! Poisoning is ignored because a panic in a task poisons its task group (`task.rs`), which the owner of the group checks. A
//! poisoned mutex would only cause more panics.
//! Invariant: a guard of these locks is never held across an await.

pub(crate) use std::sync::{
    Arc, Mutex, MutexGuard, OnceLock, RwLock, Weak,
    atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering},
};
use std::sync::{PoisonError, RwLockReadGuard, RwLockWriteGuard};

/// Locks `mutex`, also if a thread has panicked while it held the lock.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Locks `lock` for reading, also if a thread has panicked while it held the lock.
pub(crate) fn read<T: ?Sized>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

/// Locks `lock` for writing, also if a thread has panicked while it held the lock.
pub(crate) fn write<T: ?Sized>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs `hold`, which panics with a lock held, in a new thread.
    fn panic_while(hold: impl FnOnce() + Send + 'static) {
        assert!(std::thread::spawn(hold).join().is_err());
    }

    #[test]
    fn a_mutex_works_after_its_holder_panicked() {
        let mutex = Arc::new(Mutex::new(1));
        let theirs = Arc::clone(&mutex);
        panic_while(move || {
            let mut value = lock(&theirs);
            *value = 2;
            panic!("while holding the lock");
        });
        assert!(mutex.is_poisoned());
        assert_eq!(*lock(&mutex), 2);
    }

    #[test]
    fn an_rwlock_works_after_its_writer_panicked() {
        let shared = Arc::new(RwLock::new(1));
        let theirs = Arc::clone(&shared);
        panic_while(move || {
            *write(&theirs) = 2;
            let _guard = write(&theirs);
            panic!("while holding the lock");
        });
        assert_eq!(*read(&shared), 2);
        *write(&shared) = 3;
        assert_eq!(*read(&shared), 3);
    }
}
