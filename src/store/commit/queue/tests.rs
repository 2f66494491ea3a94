use super::*;
use crate::store::model::ids::UsageChange;
use crate::store::schema::journal_record::Dependencies;
use crate::store::schema::keys;
use crate::store::schema::tables::RowKey;

fn txn(timestamp: u64, touches: Bytes) -> Txn {
    Txn {
        timestamp: Timestamp(timestamp),
        recorded: None,
        time: Timestamp(timestamp).time(),
        rows: Batch::new(),
        dependencies: Dependencies {
            touches: vec![touches],
            ..Dependencies::default()
        },
        content: None,
        byteless_flush: None,
        usage: UsageChange::default(),
        held: Guards::default(),
        unreferenced: Vec::new(),
    }
}

#[test]
fn the_oldest_uncommitted_timestamp_is_that_of_an_answered_call() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(directory.path(), uuid::Uuid::nil()).unwrap();
    let queue = Queue::new(Arc::new(journal), 1, Arc::default());
    let push = |timestamp, key: Bytes| queue.push(txn(timestamp, key), 2, |_, _| {}).unwrap();
    let key = |ino| RowKey::bytes(keys::inode(Ino(ino)));
    assert_eq!(queue.oldest_without(&[]), None);
    let _garbage = push(1, keys::applied().bytes());
    assert_eq!(
        queue.oldest_without(&[]),
        None,
        "garbage collection is left out"
    );
    let (second, first, third) = (push(20, key(2)), push(10, key(3)), push(30, key(4)));
    assert_eq!(queue.oldest_without(&[]), Some(Timestamp(10)));
    assert_eq!(
        queue.oldest_without(&[Arc::clone(&second), Arc::clone(&first)]),
        Some(Timestamp(30))
    );
    queue.committed(&[first], Commit::default());
    assert_eq!(queue.oldest_without(&[]), Some(Timestamp(20)));
    queue.committed(&[second, third], Commit::default());
    assert_eq!(queue.oldest_without(&[]), None);
}

#[test]
fn the_queue_is_read_while_another_operation_is_journaled() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(directory.path(), uuid::Uuid::nil()).unwrap();
    let queue = Queue::new(Arc::new(journal), 1, Arc::default());
    let key = RowKey::bytes(keys::inode(Ino(2)));
    // The lock that covers the write to the journal is held while the condition is asked.
    let read_meanwhile = || {
        std::thread::scope(|scope| {
            let read = || (queue.newest(), queue.all().len(), queue.moves_in_flight());
            scope.spawn(read).join().unwrap() == (0, 0, false)
        })
    };
    let queued = queue.push_if(txn(10, key), 2, read_meanwhile, |_, _| {});
    assert_eq!(queued.unwrap().unwrap().number, 1);
    assert_eq!(queue.newest(), 1);
}

#[test]
fn operations_are_durable_once_and_those_that_were_committed_late_are_found() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(directory.path(), uuid::Uuid::nil()).unwrap();
    let queue = Queue::new(Arc::new(journal), 1, Arc::default());
    let key = |ino| RowKey::bytes(keys::inode(Ino(ino)));
    let many = u64::try_from(PART).unwrap() * 2 + 1;
    let push = |ino| queue.push(txn(ino, key(ino)), 2, |_, _| {}).unwrap();
    let operations: Vec<_> = (0..many).map(push).collect();
    let commit = Commit::default();
    assert!(queue.durable(commit).is_empty());
    assert_eq!(queue.newest_committed(), None);
    queue.committed(&operations, commit);
    assert_eq!(queue.newest_committed(), Some(commit));
    assert_eq!(queue.last_on(&key(many - 1), None).len(), 1);
    assert!(!queue.is_durable(1));
    assert_eq!(queue.durable(commit).len(), operations.len());
    assert_eq!(queue.newest_committed(), None);
    assert!(queue.durable(commit).is_empty() && queue.all().is_empty());
    assert!(queue.last_on(&key(many - 1), None).is_empty() && queue.is_durable(many));
}
