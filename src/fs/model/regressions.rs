//! Programs for which the file system once differed from the model.

use super::run;
use super::steps::{Flags, Step};

fn agrees(program: &[Step]) {
    if let Err(difference) = run(program) {
        panic!("{difference}");
    }
}

#[test]
fn link_refuses_a_directory_but_reports_an_existing_name_first() {
    use Step::*;
    agrees(&[
        Mkdir(0, 1, 0o755, 0),
        Link(1, 0, 0),
        // EEXIST takes precedence over EPERM.
        Link(1, 0, 1),
    ]);
}

#[test]
fn a_removed_inode_takes_attribute_changes_until_the_kernel_forgets_it() {
    use Step::*;
    let gone = [
        Create(0, 0, 0o6755, Flags::Write, 0),
        Unlink(0, 0),
        Close(0),
        Symlink(0, 0, 3),
        Unlink(0, 0),
        Mknod(0, 0, 1, 0o644, 1),
        Unlink(0, 0),
        Mkdir(0, 0, 0o755, 1),
        Rmdir(0, 0),
        Mkdir(0, 0, 0o755, 1),
        Mkdir(0, 1, 0o755, 1),
        Rename(0, 0, 0, 1, 0),
    ];
    for of in 1..=6 {
        let calls = [
            // The file's content is gone, and a directory has no content.
            Truncate(of, 5, 1),
            Chmod(of, 0o600),
            Chown(of, Some(1), None),
            Utimes(of, None, Some(0)),
            SetXattr(of, 0, 3, 0),
            SetXattr(of, 1, 4, 0),
            RemoveXattr(of, 0),
            RemoveXattr(of, 0),
            Truncate(of, 5, 0),
            Truncate(of, 5, 1),
            Forget(of),
        ];
        agrees(&[&gone[..], &calls].concat());
    }
}

#[test]
fn times_set_after_an_unsaved_write_survive_a_crash() {
    use Step::*;
    for set in [Utimes(1, Some(0), Some(0)), Utimes(1, None, None)] {
        let write = Write(0, 3, 20, false);
        let begin = [Create(0, 0, 0o644, Flags::Write, 1), write.clone(), set];
        agrees(&[&begin[..], &[Crash]].concat());
        agrees(&[&begin[..], &[Wait(60), Crash]].concat());
        // A later write sets times of its own.
        agrees(&[&begin[..], &[write, Crash]].concat());
    }
}

#[test]
fn a_crash_keeps_the_newest_attributes_when_the_clock_went_back() {
    use Step::*;
    let write = |fill| Write(0, fill, 20, false);
    let begin = [Create(0, 0, 0o644, Flags::Write, 1), write(3)];
    // Attributes set after a flush, with a clock before the flush.
    let set = [Flush(0), Back(7_200), Chmod(1, 0o600)];
    // A write after a change of attributes, with a clock before that change.
    let written = [Chmod(1, 0o600), Back(7_200), write(9), Flush(0)];
    // An fsync after a flush, with a clock before the flush.
    let synced = [Flush(0), Back(7_200), write(9), Fsync(0)];
    for calls in [&set[..], &written, &synced] {
        agrees(&[&begin, calls, &[Crash]].concat());
        agrees(&[&begin, calls, &[Close(0), Crash]].concat());
    }
}

#[test]
fn a_call_that_changes_no_bytes_still_updates_the_times_durably() {
    use Step::*;
    for call in [
        Ftruncate(0, 0, 0),
        Truncate(1, 0, 0),
        Fallocate(0, 0, 9, 3),
        Fallocate(0, 7, 9, 0x11),
        Open(1, Flags::Truncate, 0),
    ] {
        let made = Create(0, 0, 0o644, Flags::Write, 0);
        for end in [Crash, Remount] {
            agrees(&[made.clone(), call.clone(), end.clone()]);
            agrees(&[made.clone(), Flush(0), call.clone(), Close(0), end]);
        }
    }
}

#[test]
fn ftruncate_through_a_read_handle_keeps_set_id_bits() {
    use Step::*;
    agrees(&[
        Create(0, 0, 0o6755, Flags::Write, 0),
        Open(1, Flags::Read, 1),
        Ftruncate(1, 4, 1),
    ]);
}

#[test]
fn removal_of_one_of_several_links_updates_ctime_durably() {
    use Step::*;
    let links = [
        Create(0, 0, 0o644, Flags::Write, 0),
        Close(0),
        Link(1, 0, 1),
        Mknod(0, 2, 0, 0o644, 0),
    ];
    for call in [Unlink(0, 0), Rename(0, 2, 0, 1, 0)] {
        for end in [Crash, Remount] {
            agrees(&[&links[..], &[call.clone(), end]].concat());
        }
    }
}
