//! The targets of all rooms.

use crate::{backend, cache, fs, meta, store};

/// A decoder, as the fuzzer calls it.
#[derive(Clone, Debug)]
pub struct FuzzTarget {
    /// Its name.
    pub name: &'static str,
    /// Decodes; tells whether the bytes were accepted. Panics on a fault.
    pub run: fn(&[u8]) -> bool,
    /// Inputs to begin with.
    pub seeds: &'static [&'static [u8]],
}

/// A row begins with its format.
const ROWS: &[&[u8]] = &[
    b"\x01",
    b"\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
];
/// A row of a range with a slice of inline bytes, over another one.
const SLICES: &[u8] = b"\x09\x01\x01\x01\x02\x01\0\x01\x01x\x01\0\x01\0\x04\0\x01\x04four";
/// Records of a journal: a file is opened, and a byte is written to it.
const RECORDS: &[u8] = b"\x0a\x01\x01\x01\x02\0\0\0\0\x01\0\x06\x01\x02\x01\0\x01x";
/// The window 0 of the table `a`, which has two bytes.
const TABLE_FILE: &[u8] = b"\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\0\0\x01aok";
/// Everything that is 0.
const ZEROS: &[&[u8]] = &[b"", &[0; 64]];

/// Returns all targets.
#[must_use]
pub fn targets() -> Vec<FuzzTarget> {
    let target = |name, run: fn(&[u8]) -> bool, seeds| FuzzTarget { name, run, seeds };
    let mut all: Vec<FuzzTarget> = store::fuzzing::ROWS
        .iter()
        .map(|(table, run)| target(table, *run, ROWS))
        .collect();
    all.extend([
        target("merge of rows", store::fuzzing::merge, ROWS),
        target("keys of rows", store::fuzzing::keys, ZEROS),
        target("log object", store::fuzzing::log_object, ZEROS),
        target("segment footer", store::fuzzing::footer, ZEROS),
        target("journal record", store::fuzzing::record, &[b"\x01\0\0\0\0\0\0\0\0\0"]),
        target("slices of a range", store::fuzzing::slices, &[SLICES]),
        target("salvaged records", store::fuzzing::salvaged, &[RECORDS]),
        target(
            "object names",
            store::fuzzing::names,
            &[b"data/00000/001/000/000/001", b"log/00000/001/000/000/001"],
        ),
        target("namespace.json", store::fuzzing::manifest, &[store::fuzzing::MANIFEST]),
        target(
            "retention policy",
            store::fuzzing::policy,
            &[b"all=2d", b"hourly=7d", b"daily=90d", b"versions=10", b"grid=off", b"max-bytes=10G"],
        ),
        target("journal file", meta::fuzzing::journal, ZEROS),
        target("object of the index", meta::fuzzing::index_object, &[b"\0\x01", b"12", &[1; 24]]),
        target("table file", meta::fuzzing::table_file, &[TABLE_FILE]),
        target(
            "block file",
            cache::fuzzing::block_file,
            &[b"0000000000000001000000000000000200000003\0\0\x01\0\0\0\0\0"],
        ),
        target("staging file's name", cache::fuzzing::staging_name, &[b"000000000000002a"]),
        target(
            "response of a store",
            backend::fuzzing::response,
            &[
                b"\x02\n\n\n<ListBucketResult><Prefix>main/log/</Prefix><Contents><Key>main/log/1</Key></Contents></ListBucketResult>",
                b"\x05bytes 0-1/9\n2\n\nab",
                b"\x0b\n\n\n<Error><Code>NoSuchKey</Code><Key>main/log/1</Key></Error>",
            ],
        ),
        target("object mark", backend::fuzzing::mark, &[b"12.0badcafe.data/1", b"..data/1"]),
        target(
            "time in .versions",
            fs::fuzzing::time,
            &[
                b"2026-11-20T21-26-48.123Z",
                b"2026-11-20T21-26",
                b"2026-11-20 21:26:48+0100",
                b"@GMT-2026.11.20-21.26.48",
                b"-3d",
            ],
        ),
        target(
            "access control list",
            fs::fuzzing::acl,
            &[b"\x02\0\0\0\x01\0\x06\0\xff\xff\xff\xff\x04\0\x04\0\xff\xff\xff\xff\x20\0\x04\0\xff\xff\xff\xff"],
        ),
    ]);
    #[cfg(all(feature = "cli", feature = "fuse"))]
    all.extend([
        target(
            "control request",
            crate::control::fuzzing::request,
            &[b"{\"command\":\"status\"}", b"{\"command\":\"drain\"}"],
        ),
        target(
            "control answer",
            crate::control::fuzzing::response,
            &[
                b"{\"answer\":\"done\"}",
                b"{\"answer\":\"failed\",\"message\":\"no\"}",
            ],
        ),
        target(
            "runtime file",
            crate::control::fuzzing::runtime_file,
            &[b"{\"pid\":1,\"mountpoint\":[47],\"uuid\":\"\"}"],
        ),
        target(
            "table of mounts",
            crate::fuse::fuzzing::mounts,
            &[b"30 22 0:41 / /mnt/a\\040b ro,nosuid shared:7 - fuse.rewindfs file:///x rw,user_id=0\n"],
        ),
        target(
            "PATH@TIME",
            crate::verbs::fuzzing::path,
            &[b"a/b@-3d", b"x@", b"@a"],
        ),
    ]);
    all
}
