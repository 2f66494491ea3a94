//! Each test records, in order, what a request did: its answer, the end of its work, the undo of its result. A second
//! answer, a second undo or a missing one changes the record.

use super::super::reply::{CountedLookups, Created, OpenedDirectory, OpenedFile};
use super::*;
use crate::fs::{Caller, FsConfig};
use crate::store::testing::TestHost;
use crate::sync::{Mutex, lock};
use std::sync::mpsc;
use tokio::runtime::{Builder, Handle};
use tokio::time::{pause, sleep};

const DEADLINE: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);
const ROOT: u64 = 1;
const ALICE: Caller = Caller {
    uid: 1000,
    gid: 1000,
    pid: 0,
};

/// What a request did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    /// Its work ended.
    Worked,
    /// Its reply was sent with a value.
    Answered,
    /// Its reply was sent with an error number.
    Failed(i32),
    /// Its reply was dropped unsent, which fuser answers with EIO.
    Unsent,
    /// Its result was undone.
    Undone,
}

use Event::{Answered, Failed, Undone, Unsent, Worked};

const EIO: Event = Failed(libc::EIO);

/// The events of one request, in order.
#[derive(Debug, Clone, Default)]
struct Record(Arc<Mutex<Vec<Event>>>);

impl Record {
    fn add(&self, event: Event) {
        lock(&self.0).push(event);
    }

    fn events(&self) -> Vec<Event> {
        lock(&self.0).clone()
    }

    fn reply(&self) -> RecordedReply {
        RecordedReply {
            record: self.clone(),
            sent: false,
        }
    }
}

/// A reply that records how it was sent, or that it was not.
struct RecordedReply {
    record: Record,
    sent: bool,
}

impl<T> Reply<T> for RecordedReply {
    fn succeed(mut self, _: T) {
        self.sent = true;
        self.record.add(Answered);
    }

    fn fail(mut self, errno: Errno) {
        self.sent = true;
        self.record.add(Failed(errno.code()));
    }
}

impl Drop for RecordedReply {
    fn drop(&mut self) {
        if !self.sent {
            self.record.add(Unsent);
        }
    }
}

/// A result that records its undo.
struct Granted(Record);

impl KernelReference for Granted {
    async fn undo(self, _: &FileSystem) {
        self.0.add(Undone);
    }
}

/// A dispatcher over an empty file system, and the groups its requests and the rooms below run in.
struct Bench {
    fs: Arc<FileSystem>,
    dispatcher: Dispatcher,
    requests: Tasks,
    below: Tasks,
    _host: TestHost,
}

impl Bench {
    /// Opens the file system, then pauses the clock: it moves only while every task waits.
    async fn new() -> Self {
        let host = TestHost::new();
        let namespace = host.open().await;
        let group = || Tasks::new(Handle::current());
        let (requests, below) = (group(), group());
        let fs = FileSystem::new(namespace, FsConfig::default(), below.clone());
        let fs = Arc::new(fs);
        let dispatcher = Dispatcher::new(
            Arc::clone(&fs),
            requests.clone(),
            below.clone(),
            DEADLINE,
            2,
        );
        pause();
        Self {
            fs,
            dispatcher,
            requests,
            below,
            _host: host,
        }
    }

    /// Starts a request whose work takes `duration` and grants something.
    fn start(&self, call: Call, duration: Duration) -> Record {
        let record = Record::default();
        let inner = record.clone();
        self.dispatcher
            .run(call, record.reply(), move |_| async move {
                sleep(duration).await;
                inner.add(Worked);
                Ok(Granted(inner))
            });
        record
    }

    /// Starts a request whose result `work` makes, and which takes a second longer than its deadline.
    async fn late<T, F>(&self, work: impl FnOnce(Arc<FileSystem>) -> F) -> Record
    where
        T: KernelReference,
        F: Future<Output = Result<T, FsError>> + Send + 'static,
    {
        let record = Record::default();
        let inner = record.clone();
        self.dispatcher
            .run(Call::metadata("late", ROOT), record.reply(), move |fs| {
                let work = work(fs);
                async move {
                    let result = work.await;
                    sleep(DEADLINE + SECOND).await;
                    inner.add(Worked);
                    result
                }
            });
        self.requests.join().await;
        record
    }

    /// Whether the table of inodes knows a name for `ino`: it does as long as a lookup is counted.
    async fn knows(&self, ino: u64) -> bool {
        let named = self.fs.named(ino).await.to_string();
        !named.starts_with(&format!("inode {ino}"))
    }

    /// Makes a file and closes it; the lookup of its creation stays counted.
    async fn make(&self, name: &[u8]) -> u64 {
        let created = self.fs.create(&ALICE, ROOT, name, 0o644, 0, libc::O_RDWR);
        let (entry, opened) = created.await.unwrap();
        let ino = entry.stat.ino.0;
        self.fs.release(ino, opened.handle).await.unwrap();
        ino
    }

    /// The events of a request that would succeed at once.
    async fn next(&self) -> Vec<Event> {
        let record = self.start(Call::metadata("next", ROOT), Duration::ZERO);
        self.requests.join().await;
        record.events()
    }
}

#[tokio::test]
async fn a_result_before_the_deadline_is_the_answer_and_is_not_undone() {
    let bench = Bench::new().await;
    let record = bench.start(Call::metadata("lookup", ROOT), DEADLINE - SECOND);
    bench.requests.join().await;
    assert_eq!(record.events(), [Worked, Answered]);
}

#[tokio::test]
async fn an_error_before_the_deadline_is_the_answer() {
    let bench = Bench::new().await;
    let record = Record::default();
    bench
        .dispatcher
        .run(Call::metadata("lookup", ROOT), record.reply(), |_| async {
            Err::<Granted, _>(FsError::NotFound)
        });
    bench.requests.join().await;
    assert_eq!(record.events(), [Failed(libc::ENOENT)]);
}

#[tokio::test]
async fn at_the_deadline_the_caller_gets_eio_and_the_work_goes_on() {
    let bench = Bench::new().await;
    let record = bench.start(Call::metadata("lookup", ROOT), DEADLINE + SECOND);
    sleep(DEADLINE - SECOND).await;
    assert_eq!(record.events(), []);
    sleep(SECOND + Duration::from_millis(1)).await;
    assert_eq!(record.events(), [EIO]);
    bench.requests.join().await;
    assert_eq!(record.events(), [EIO, Worked, Undone]);
}

#[tokio::test]
async fn a_call_on_contents_has_ten_deadlines() {
    let bench = Bench::new().await;
    let before = bench.start(Call::data("read", ROOT), DEADLINE * 10 - SECOND);
    let after = bench.start(Call::data("read", ROOT), DEADLINE * 10 + SECOND);
    bench.requests.join().await;
    assert_eq!(before.events(), [Worked, Answered]);
    assert_eq!(after.events(), [EIO, Worked, Undone]);
}

#[tokio::test]
async fn a_late_error_is_no_second_answer() {
    let bench = Bench::new().await;
    let record = bench
        .late(|_| async { Err::<Granted, _>(FsError::NotFound) })
        .await;
    assert_eq!(record.events(), [EIO, Worked]);
    assert_eq!(bench.next().await, [Worked, Answered]);
}

#[tokio::test]
async fn a_late_lookup_gives_back_its_own_count_and_no_other() {
    let bench = Bench::new().await;
    let ino = bench.make(b"a").await;
    let record = bench
        .late(|fs| async move { fs.lookup(&ALICE, ROOT, b"a").await })
        .await;
    assert_eq!(record.events(), [EIO, Worked]);
    assert!(bench.knows(ino).await, "the count of the creation is left");
    bench.fs.forget(ino, 1);
    assert!(!bench.knows(ino).await, "the late lookup is given back");
}

#[tokio::test]
async fn a_late_listing_gives_back_each_count() {
    let bench = Bench::new().await;
    let (one, other) = (bench.make(b"a").await, bench.make(b"b").await);
    bench
        .late(move |_| async move { Ok(CountedLookups(vec![one, other])) })
        .await;
    assert!(!bench.knows(one).await && !bench.knows(other).await);
}

#[tokio::test]
async fn a_late_create_gives_back_its_handle_and_its_count() {
    let bench = Bench::new().await;
    let made = Arc::new(Mutex::new(None));
    let told = Arc::clone(&made);
    let record = bench
        .late(move |fs| async move {
            let created = fs.create(&ALICE, ROOT, b"a", 0o644, 0, libc::O_RDWR);
            let (entry, opened) = created.await?;
            *lock(&told) = Some((entry.stat.ino.0, opened.handle));
            Ok(Created { entry, opened })
        })
        .await;
    assert_eq!(record.events(), [EIO, Worked]);
    let (ino, handle) = lock(&made).take().unwrap();
    let read = bench.fs.read(ino, handle, 0, 1).await;
    assert_eq!(read, Err(FsError::BadHandle));
    assert!(!bench.knows(ino).await);
}

#[tokio::test]
async fn a_late_open_gives_back_its_handle_and_no_count() {
    let bench = Bench::new().await;
    let ino = bench.make(b"a").await;
    let handle = Arc::new(Mutex::new(None));
    let told = Arc::clone(&handle);
    bench
        .late(move |fs| async move {
            let opened = fs.open(&ALICE, ino, libc::O_RDWR).await?;
            *lock(&told) = Some(opened.handle);
            Ok(OpenedFile { ino, opened })
        })
        .await;
    let handle = lock(&handle).take().unwrap();
    let read = bench.fs.read(ino, handle, 0, 1).await;
    assert_eq!(read, Err(FsError::BadHandle));
    assert!(bench.knows(ino).await);
}

#[tokio::test]
async fn a_late_opendir_gives_back_its_handle() {
    let bench = Bench::new().await;
    let handle = Arc::new(Mutex::new(None));
    let told = Arc::clone(&handle);
    bench
        .late(move |fs| async move {
            let opened = fs.opendir(&ALICE, ROOT).await?;
            *lock(&told) = Some(opened.handle);
            Ok(OpenedDirectory { ino: ROOT, opened })
        })
        .await;
    let handle = lock(&handle).take().unwrap();
    let released = bench.fs.releasedir(ROOT, handle).await;
    assert_eq!(released, Err(FsError::BadHandle));
}

#[tokio::test]
async fn a_panic_is_eio_for_its_caller_and_for_every_later_one() {
    let bench = Bench::new().await;
    let record = Record::default();
    bench
        .dispatcher
        .run(Call::metadata("lookup", ROOT), record.reply(), |_| {
            planted::<Granted>()
        });
    bench.requests.join().await;
    assert_eq!(record.events(), [EIO]);
    assert_eq!(bench.requests.poisoned(), Some("lookup"));
    assert_eq!(bench.next().await, [EIO]);
    assert_eq!(bench.next().await, [EIO]);
}

#[tokio::test]
async fn the_file_system_is_poisoned_before_the_caller_hears_of_a_panic() {
    /// Asks the file system for the root at the moment it is sent.
    struct AskingReply(Arc<FileSystem>, mpsc::Sender<Option<i32>>);

    impl Reply<()> for AskingReply {
        fn succeed(self, (): ()) {}

        fn fail(self, _: Errno) {
            let root = self.0.getattr(ROOT, None).now_or_never();
            let errno = root.and_then(|answer| answer.err().map(|error| error.errno()));
            self.1.send(errno).unwrap();
        }
    }

    let bench = Bench::new().await;
    let (tells, hears) = mpsc::channel();
    let reply = AskingReply(Arc::clone(&bench.fs), tells);
    bench
        .dispatcher
        .run(Call::metadata("lookup", ROOT), reply, |_| planted());
    bench.requests.join().await;
    assert_eq!(hears.recv().unwrap(), Some(libc::EIO));
}

#[tokio::test]
async fn a_late_panic_is_no_second_answer_and_makes_later_calls_eio() {
    let bench = Bench::new().await;
    let record = Record::default();
    bench
        .dispatcher
        .run(Call::metadata("lookup", ROOT), record.reply(), |_| async {
            sleep(DEADLINE + SECOND).await;
            planted::<Granted>().await
        });
    bench.requests.join().await;
    assert_eq!(record.events(), [EIO]);
    assert_eq!(bench.requests.poisoned(), Some("lookup"));
    assert!(bench.fs.getattr(ROOT, None).await.is_err());
    assert_eq!(bench.next().await, [EIO]);
}

#[tokio::test]
async fn a_panic_in_the_rooms_below_makes_later_calls_eio() {
    let bench = Bench::new().await;
    assert_eq!(bench.next().await, [Worked, Answered]);
    let failed = bench.below.spawn("uploader", planted::<()>());
    assert!(failed.await.unwrap_err().is_panic());
    assert_eq!(bench.next().await, [EIO]);
}

#[tokio::test]
async fn a_panic_in_a_detached_call_makes_later_calls_eio() {
    let bench = Bench::new().await;
    let call = Call::metadata("release", ROOT);
    bench
        .dispatcher
        .run_detached(call, |_| async { drop(planted::<()>().await) });
    bench.requests.join().await;
    assert_eq!(bench.requests.poisoned(), Some("release"));
    assert!(bench.fs.getattr(ROOT, None).await.is_err());
    assert_eq!(bench.next().await, [EIO]);
}

#[tokio::test]
async fn a_panic_on_the_dispatch_thread_does_not_end_it_and_poisons_the_file_system() {
    let bench = Bench::new().await;
    let call = Call::metadata("forget", ROOT);
    bench.dispatcher.run_inline(call, |_| panic!("planted"));
    let record = Record::default();
    bench.dispatcher.run(call, record.reply(), |fs| async move {
        fs.getattr(ROOT, None).await.map(|_| ())
    });
    bench.requests.join().await;
    assert_eq!(record.events(), [EIO]);
}

/// fuser answers INTERRUPT itself and tells no callback, so only the end of the process interrupts a request.
#[test]
fn a_request_interrupted_by_the_end_of_the_runtime_drops_its_reply_unsent() {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let (early, late) = runtime.block_on(async {
        let bench = Bench::new().await;
        let late = bench.start(Call::metadata("lookup", ROOT), DEADLINE * 3);
        sleep(DEADLINE - SECOND).await;
        let early = bench.start(Call::metadata("lookup", ROOT), DEADLINE * 3);
        sleep(SECOND * 2).await;
        (early, late)
    });
    drop(runtime);
    assert_eq!(early.events(), [Unsent]);
    assert_eq!(late.events(), [EIO], "its caller had an answer before");
}

async fn planted<T>() -> Result<T, FsError> {
    tokio::task::yield_now().await;
    panic!("planted")
}

/// Starts a request whose work waits for nothing.
fn ready(dispatcher: &Dispatcher, call: Call) -> Record {
    let record = Record::default();
    let inner = record.clone();
    dispatcher.run(call, record.reply(), move |_| async move {
        inner.add(Worked);
        Ok(Granted(inner))
    });
    record
}

#[tokio::test]
async fn a_call_that_waits_for_nothing_is_answered_before_the_dispatch_thread_goes_on() {
    let bench = Bench::new().await;
    let record = ready(&bench.dispatcher, Call::metadata("getattr", ROOT));
    assert_eq!(record.events(), [Worked, Answered]);
    let record = ready(&bench.dispatcher, Call::transfer("read", ROOT, 65536));
    assert_eq!(record.events(), [Worked, Answered]);
    let large = ready(&bench.dispatcher, Call::transfer("read", ROOT, 65537));
    let marked = ready(
        &bench.dispatcher,
        Call::metadata("statfs", ROOT).on_runtime(),
    );
    assert_eq!((large.events(), marked.events()), (vec![], vec![]));
    bench.requests.join().await;
    assert_eq!(large.events(), [Worked, Answered]);
    assert_eq!(marked.events(), [Worked, Answered]);
}

#[tokio::test]
async fn while_a_dispatch_thread_hangs_in_a_call_the_last_one_polls_none() {
    let bench = Bench::new().await;
    let (hangs, is_hung) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let (hung, dispatcher) = (Record::default(), bench.dispatcher.clone());
    let (reply, inner) = (hung.reply(), hung.clone());
    let thread = std::thread::spawn(move || {
        dispatcher.run(Call::metadata("create", ROOT), reply, |_| async move {
            hangs.send(()).unwrap();
            released.recv().unwrap();
            inner.add(Worked);
            Ok(Granted(inner))
        });
    });
    is_hung.recv().unwrap();
    let other = ready(&bench.dispatcher, Call::metadata("getattr", ROOT));
    assert_eq!(other.events(), []);
    tokio::task::yield_now().await;
    assert_eq!(
        (other.events(), hung.events()),
        (vec![Worked, Answered], vec![])
    );
    release.send(()).unwrap();
    thread.join().unwrap();
    assert_eq!(hung.events(), [Worked, Answered]);
    assert_eq!(
        ready(&bench.dispatcher, Call::metadata("getattr", ROOT)).events(),
        [Worked, Answered]
    );
}

#[tokio::test]
async fn a_refusal_on_the_dispatch_thread_is_the_answer_and_without_one_the_reply_is_returned() {
    let bench = Bench::new().await;
    let record = Record::default();
    let call = Call::metadata("getxattr", ROOT);
    let refuse = |refusal: Option<FsError>| {
        let dispatcher = &bench.dispatcher;
        dispatcher.refuse_at_once(call, record.reply(), |_| refusal)
    };
    assert!(refuse(Some(FsError::NoAttribute)).is_none());
    assert_eq!(record.events(), [Failed(libc::ENODATA)]);
    let reply = refuse(None).expect("the reply");
    assert_eq!(record.events(), [Failed(libc::ENODATA)]);
    drop(reply);
    let panics = |_: &FileSystem| -> Option<FsError> { panic!("on purpose") };
    let returned = bench
        .dispatcher
        .refuse_at_once(call, record.reply(), panics);
    assert!(returned.is_some(), "the call's own way has the answer");
}
