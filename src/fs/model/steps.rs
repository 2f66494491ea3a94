//! The calls of a program, and the generator of random programs. An operand is a number, taken modulo the number of existing
//! directories, nodes or handles, so that a program stays valid when shrinking removes calls from it.

use proptest::prelude::*;
use proptest::strategy::Union;

use crate::fs::Caller;

/// A name, as a number.
pub(crate) type Name = u8;
/// A directory, as a number.
pub(crate) type Dir = u8;
/// Any node, as a number.
pub(crate) type Any = u8;
/// An open handle, as a number.
pub(crate) type Open = u8;
/// The caller, as a number.
pub(crate) type Who = u8;

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flags {
    Read,
    Write,
    Append,
    Truncate,
    Exclusive,
}

/// One call.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Create(Dir, Name, u32, Flags, Who),
    Open(Any, Flags, Who),
    Mknod(Dir, Name, u8, u32, Who),
    Mkdir(Dir, Name, u32, Who),
    Symlink(Dir, Name, u8),
    Link(Any, Dir, Name),
    Unlink(Dir, Name),
    Rmdir(Dir, Name),
    Rename(Dir, Name, Dir, Name, u32),
    Write(Open, u64, usize, bool),
    Read(Open, u64, u32),
    Ftruncate(Open, usize, Who),
    Truncate(Any, usize, Who),
    Fallocate(Open, u64, u64, i32),
    /// Source handle and offset, target handle and offset, length.
    Copy(Open, u64, Open, u64, u64, Who),
    /// The offset, and whether SEEK_DATA (else SEEK_HOLE).
    Seek(Open, u64, bool),
    Flush(Open),
    /// RELEASE without a FLUSH before it.
    Release(Open),
    /// FLUSH and RELEASE.
    Close(Open),
    Fsync(Open),
    Fsyncdir(Dir),
    Chmod(Any, u32),
    Chown(Any, Option<u32>, Option<u32>),
    Utimes(Any, Option<i64>, Option<i64>),
    SetXattr(Any, u8, usize, i32),
    RemoveXattr(Any, u8),
    Forget(Any),
    /// Time passes, milliseconds.
    Wait(u64),
    /// The host's clock goes back, by seconds.
    Back(u64),
    /// Sets the failpoint with this number; 0 clears it.
    Halt(u8),
    Drain,
    /// kill -9, then a mount.
    Crash,
    /// An unmount, then a mount.
    Remount,
}

impl Flags {
    /// The flags of open(2).
    pub(crate) fn bits(self) -> i32 {
        match self {
            Self::Read => libc::O_RDONLY,
            Self::Write => libc::O_RDWR,
            Self::Append => libc::O_RDWR | libc::O_APPEND,
            Self::Truncate => libc::O_WRONLY | libc::O_TRUNC,
            Self::Exclusive => libc::O_RDWR | libc::O_EXCL,
        }
    }
}

/// The name of a number: four common names, then unusual ones.
pub(crate) fn name(number: Name) -> &'static [u8] {
    match number {
        0 => b"a",
        1 => b"b",
        2 => b"c",
        3 => b"d",
        4 => b"\xff\x80",
        5 => &[b'n'; 255],
        6 => &[b'n'; 256],
        _ => b".versions",
    }
}

/// The extended attribute of a number.
pub(crate) fn xattr(number: u8) -> &'static [u8] {
    match number {
        0 => b"user.a",
        1 => b"user.b",
        2 => super::tree::CAPABILITY,
        _ => b"user.versions.op",
    }
}

/// The caller of a number.
pub(crate) fn caller(number: Who) -> Caller {
    let id = [0, 1000, 1001][usize::from(number % 3)];
    Caller {
        uid: id,
        gid: id,
        pid: 0,
    }
}

/// A program of `calls` calls.
pub(crate) fn program(calls: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Step>> {
    proptest::collection::vec(step(), calls)
}

fn names() -> impl Strategy<Value = Name> {
    prop_oneof![40 => 0..4u8, 1 => 4..8u8]
}

/// Mostly small lengths; sometimes lengths near the limits of inline bytes, of memory, and of extents.
fn lengths() -> impl Strategy<Value = usize> {
    prop_oneof![
        50 => 0..40usize,
        4 => 4_090..4_100usize,
        2 => 65_530..65_540usize,
        1 => 262_140..262_150usize,
    ]
}

fn offsets() -> impl Strategy<Value = u64> {
    prop_oneof![
        60 => 0..40u64,
        4 => 4_090..4_100u64,
        2 => 65_530..65_540u64,
        1 => Just(i64::MAX as u64 - 3),
    ]
}

fn modes() -> impl Strategy<Value = u32> {
    prop::sample::select(vec![0o644, 0o600, 0o755, 0o6755, 0o2745, 0o1777, 0])
}

fn flags() -> impl Strategy<Value = Flags> {
    use Flags::*;
    prop::sample::select(vec![Write, Write, Read, Append, Truncate, Exclusive])
}

fn ids() -> impl Strategy<Value = Option<u32>> {
    prop::option::of(prop::sample::select(vec![0, 1000, 1001, u32::MAX - 1]))
}

/// `None` of a time is now.
fn seconds() -> impl Strategy<Value = Option<i64>> {
    let times = vec![-2_177_452_800, -1, 0, 1_000_000_000, 15_032_385_535];
    prop::option::of(prop::sample::select(times))
}

fn step() -> impl Strategy<Value = Step> {
    let mut all = of_files();
    all.extend(of_names());
    all.extend(of_attributes());
    all.extend(of_time());
    Union::new_weighted(all)
}

type Weighted = Vec<(u32, BoxedStrategy<Step>)>;

fn of_names() -> Weighted {
    use Step::*;
    let (any, dir) = (any::<u8>, any::<u8>);
    let renames = prop::sample::select(vec![
        0,
        0,
        0,
        libc::RENAME_NOREPLACE,
        libc::RENAME_EXCHANGE,
        libc::RENAME_EXCHANGE,
        libc::RENAME_WHITEOUT,
    ]);
    let slot = move || (dir(), names());
    vec![
        (
            12,
            (slot(), modes(), flags(), 0..3u8)
                .prop_map(|((d, n), m, f, w)| Create(d, n, m, f, w))
                .boxed(),
        ),
        (
            2,
            (slot(), 0..6u8, modes(), 0..3u8)
                .prop_map(|((d, n), k, m, w)| Mknod(d, n, k, m, w))
                .boxed(),
        ),
        (
            7,
            (slot(), modes(), 0..3u8)
                .prop_map(|((d, n), m, w)| Mkdir(d, n, m, w))
                .boxed(),
        ),
        (
            2,
            (slot(), any())
                .prop_map(|((d, n), t)| Symlink(d, n, t))
                .boxed(),
        ),
        (
            5,
            (any(), slot())
                .prop_map(|(i, (d, n))| Link(i, d, n))
                .boxed(),
        ),
        (7, slot().prop_map(|(d, n)| Unlink(d, n)).boxed()),
        (4, slot().prop_map(|(d, n)| Rmdir(d, n)).boxed()),
        (
            12,
            (slot(), slot(), renames)
                .prop_map(|((d, n), (e, o), f)| Rename(d, n, e, o, f))
                .boxed(),
        ),
    ]
}

fn of_files() -> Weighted {
    use Step::*;
    let (any, open) = (any::<u8>, any::<u8>);
    let modes = prop::sample::select(vec![0, 1, 3, 3, 0x10, 0x11, 0x08]);
    vec![
        (
            6,
            (any(), flags(), 0..3u8)
                .prop_map(|(i, f, w)| Open(i, f, w))
                .boxed(),
        ),
        (
            16,
            (open(), offsets(), lengths(), proptest::bool::ANY)
                .prop_map(|(h, o, l, k)| Write(h, o, l + 1, k))
                .boxed(),
        ),
        (
            2,
            (open(), offsets(), 0..100u32)
                .prop_map(|(h, o, l)| Read(h, o, l))
                .boxed(),
        ),
        (
            3,
            (open(), lengths(), 0..3u8)
                .prop_map(|(h, l, w)| Ftruncate(h, l, w))
                .boxed(),
        ),
        (
            3,
            (any(), lengths(), 0..3u8)
                .prop_map(|(i, l, w)| Truncate(i, l, w))
                .boxed(),
        ),
        (
            4,
            (open(), offsets(), lengths(), modes)
                .prop_map(|(h, o, l, m)| Fallocate(h, o, l as u64 + 1, m))
                .boxed(),
        ),
        (
            5,
            (open(), offsets(), open(), offsets(), lengths(), 0..3u8)
                .prop_map(|(f, o, t, p, l, w)| Copy(f, o, t, p, l as u64, w))
                .boxed(),
        ),
        (
            1,
            (open(), offsets(), proptest::bool::ANY)
                .prop_map(|(h, o, d)| Seek(h, o, d))
                .boxed(),
        ),
        (4, open().prop_map(Flush).boxed()),
        (3, open().prop_map(Release).boxed()),
        (6, open().prop_map(Close).boxed()),
        (2, open().prop_map(Fsync).boxed()),
    ]
}

fn of_attributes() -> Weighted {
    use Step::*;
    let any = any::<u8>;
    let lengths = prop_oneof![20 => 0..20usize, 1 => Just(40_000usize), 1 => Just(65_537usize)];
    let flags = prop::sample::select(vec![0, 0, libc::XATTR_CREATE, libc::XATTR_REPLACE]);
    vec![
        (2, (any(), modes()).prop_map(|(i, m)| Chmod(i, m)).boxed()),
        (
            2,
            (any(), ids(), ids())
                .prop_map(|(i, u, g)| Chown(i, u, g))
                .boxed(),
        ),
        (
            2,
            (any(), seconds(), seconds())
                .prop_map(|(i, a, m)| Utimes(i, a, m))
                .boxed(),
        ),
        (
            4,
            (any(), 0..4u8, lengths, flags)
                .prop_map(|(i, n, l, f)| SetXattr(i, n, l, f))
                .boxed(),
        ),
        (
            2,
            (any(), 0..4u8).prop_map(|(i, n)| RemoveXattr(i, n)).boxed(),
        ),
    ]
}

fn of_time() -> Weighted {
    use Step::*;
    let any = any::<u8>;
    let waits = prop::sample::select(vec![1, 60, 60, 1_100, 11_000, 61_000]);
    vec![
        (1, any().prop_map(Forget).boxed()),
        (1, any().prop_map(Fsyncdir).boxed()),
        (4, waits.prop_map(Wait).boxed()),
        (1, (0..6u8).prop_map(Halt).boxed()),
        (1, Just(Drain).boxed()),
        (6, Just(Crash).boxed()),
        (2, Just(Remount).boxed()),
    ]
}
