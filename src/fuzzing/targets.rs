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
/// The file 3 of the blocks of the segment 1, 2, with a block.
const BLOCK_FILE: &[u8] = b"0000000000000001000000000000000200000003\0\0\x01\0\0\0\0\0";
/// A listing, the answer to a ranged read, and one that there is no such object.
const RESPONSES: &[&[u8]] = &[
    b"\x02\n\n\n<ListBucketResult><Prefix>main/log/</Prefix><Contents><Key>main/log/1</Key></Contents></ListBucketResult>",
    b"\x05bytes 0-1/9\n2\n\nab",
    b"\x0b\n\n\n<Error><Code>NoSuchKey</Code><Key>main/log/1</Key></Error>",
];
/// Words of a retention policy.
const POLICIES: &[&[u8]] = &[
    b"all=2d",
    b"hourly=7d",
    b"daily=90d",
    b"versions=10",
    b"grid=off",
    b"max-bytes=10G",
];
/// Times in each form.
const TIMES: &[&[u8]] = &[
    b"2026-11-20T21-26-48.123Z",
    b"2026-11-20T21-26",
    b"2026-11-20 21:26:48+0100",
    b"@GMT-2026.11.20-21.26.48",
    b"-3d",
];
/// An access control list of the owner, the group and the others.
const LIST: &[u8] = b"\x02\0\0\0\x01\0\x06\0\xff\xff\xff\xff\x04\0\x04\0\xff\xff\xff\xff\x20\0\x04\0\xff\xff\xff\xff";
/// A line of /proc/self/mountinfo.
#[cfg(all(feature = "cli", feature = "fuse"))]
const MOUNTS: &[u8] =
    b"30 22 0:41 / /mnt/a\\040b ro,nosuid shared:7 - fuse.rewindfs file:///x rw,user_id=0\n";
/// Everything that is 0.
const ZEROS: &[&[u8]] = &[b"", &[0; 64]];

/// Returns all targets.
#[must_use]
pub fn targets() -> Vec<FuzzTarget> {
    let rows = store::fuzzing::ROWS.iter();
    let mut all: Vec<FuzzTarget> = rows.map(|(table, run)| target(table, *run, ROWS)).collect();
    all.extend(of_the_bucket());
    all.extend(of_the_machine());
    all.extend(of_programs());
    #[cfg(all(feature = "cli", feature = "fuse"))]
    all.extend(of_commands());
    all
}

fn target(
    name: &'static str,
    run: fn(&[u8]) -> bool,
    seeds: &'static [&'static [u8]],
) -> FuzzTarget {
    FuzzTarget { name, run, seeds }
}

/// Decoders of what comes from the bucket, beside the rows of the tables.
fn of_the_bucket() -> Vec<FuzzTarget> {
    vec![
        target("merge of rows", store::fuzzing::merge, ROWS),
        target("keys of rows", store::fuzzing::keys, ZEROS),
        target("slices of a range", store::fuzzing::slices, &[SLICES]),
        target("log object", store::fuzzing::log_object, ZEROS),
        target("segment footer", store::fuzzing::footer, ZEROS),
        target(
            "writer.json",
            store::fuzzing::writer,
            &[store::fuzzing::WRITER],
        ),
        target(
            "object names",
            store::fuzzing::names,
            &[b"data/00000/001/000/000/001", b"log/00000/001/000/000/001"],
        ),
        target(
            "namespace.json",
            store::fuzzing::manifest,
            &[store::fuzzing::MANIFEST],
        ),
        target(
            "object of the index",
            meta::fuzzing::index_object,
            &[b"\0\x01", b"12", &[1; 24]],
        ),
        target(
            "object mark",
            backend::fuzzing::mark,
            &[b"12.0badcafe.data/1", b"..data/1"],
        ),
        target("response of a store", backend::fuzzing::response, RESPONSES),
    ]
}

/// Decoders of what lies on this machine.
fn of_the_machine() -> Vec<FuzzTarget> {
    vec![
        target(
            "journal record",
            store::fuzzing::record,
            &[b"\x01\0\0\0\0\0\0\0\0\0"],
        ),
        target("salvaged records", store::fuzzing::salvaged, &[RECORDS]),
        target("journal file", meta::fuzzing::journal, ZEROS),
        target("table file", meta::fuzzing::table_file, &[TABLE_FILE]),
        target("block file", cache::fuzzing::block_file, &[BLOCK_FILE]),
        target(
            "staging file's name",
            cache::fuzzing::staging_name,
            &[b"000000000000002a"],
        ),
    ]
}

/// Decoders of what programs on the mount write.
fn of_programs() -> Vec<FuzzTarget> {
    vec![
        target("retention policy", store::fuzzing::policy, POLICIES),
        target("time in .versions", fs::fuzzing::time, TIMES),
        target("access control list", fs::fuzzing::acl, &[LIST]),
    ]
}

/// Decoders of what commands and the daemon say to each other, and of command lines.
#[cfg(all(feature = "cli", feature = "fuse"))]
fn of_commands() -> Vec<FuzzTarget> {
    vec![
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
        target("table of mounts", crate::fuse::fuzzing::mounts, &[MOUNTS]),
        target(
            "PATH@TIME",
            crate::verbs::fuzzing::path,
            &[b"a/b@-3d", b"x@", b"@a"],
        ),
    ]
}
