//! Tests of a real mount with common tools. Needs `/dev/fuse`, and the object stores that
//! `scripts/setup tests` installs.
//!
//! `REWINDFS_TEST_LONG=1` turns the long mode on, `REWINDFS_TEST_SEED=N` repeats a random walk,
//! `REWINDFS_TEST_SKIP_S3=1` skips every store over HTTP.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "tests use the real clock, and fail by a panic"
)]

#[path = "../support/mod.rs"]
mod support;

mod at;
mod attributes;
mod audit;
mod bad_input;
mod changing_names;
mod check_repair;
mod check_writer;
mod clock;
mod clone;
mod clouds;
mod consistent_copies;
mod crash;
mod crash_log;
mod credentials;
mod damage;
mod data;
mod directory_policies;
mod durability;
mod economy;
mod editors;
mod end_to_end;
mod failing_store;
mod file_managers;
mod followers;
mod forget;
mod harness;
mod hostile_bucket;
mod index_log;
mod label_verbs;
mod labels;
mod linked;
mod listing;
mod locks;
mod log_size;
mod many_files;
mod mount_helper;
mod names;
mod outage;
mod pjdfstest;
mod posix;
mod private_files;
mod privileges;
mod programs;
mod random_walk;
mod read_ahead;
mod rebuild;
mod reclaim;
mod restore;
mod retention;
mod running;
mod salvage;
mod samba;
mod scale;
mod secrets;
mod small_disk;
mod suites;
mod takeover;
mod undelete;
mod unlinked;
mod usage;
mod users;
mod verbs;
mod verbs_diff;
mod verbs_grep;
mod verbs_kept;
mod verbs_patch;
mod verbs_progress;
mod versions;
mod waiting;
mod writers;
mod wrong_answers;
