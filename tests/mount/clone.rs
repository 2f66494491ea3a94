//! Copies by copy_file_range(2): both files refer to the same bytes, and none are uploaded again.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::support::mount::{Cache, TestMount};
use crate::support::place::Place;
use crate::support::random::Random;

const MEBIBYTES: u64 = 48;

/// Bytes of all segments in a bucket that is a directory.
fn stored(directory: &Path) -> u64 {
    let mut bytes = 0;
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let kind = entry.file_type().unwrap();
        bytes += if kind.is_dir() {
            stored(&entry.path())
        } else {
            entry.metadata().unwrap().len()
        };
    }
    bytes
}

#[test]
fn a_copy_out_of_the_past_uploads_no_bytes() {
    let bucket = tempfile::tempdir().unwrap();
    let mut mount = TestMount::start(&Place::local(bucket.path()), &[]);
    let data = bucket.path().join("main/data");
    let large = Random::new(21).bytes((MEBIBYTES << 20) as usize);
    fs::write(mount.path("report.bin"), &large).unwrap();
    fs::write(mount.path("report.bin"), "short now\n").unwrap();
    mount.drain();
    let before = stored(&data);
    assert!(before > MEBIBYTES << 20, "{before} bytes are in segments");

    mount.sh("set -e; past=$(ls .versions/@files/report.bin | grep -v -e latest -e previous | head -n 1); \
              cp \".versions/@files/report.bin/$past\" restored.bin; cp restored.bin again.bin; cp restored.bin report.bin");
    mount.drain();
    let copied = stored(&data) - before;
    println!("3 copies of {MEBIBYTES} MiB: {copied} bytes more in segments");
    assert!(copied < 4096, "{copied} bytes of segments for three copies");

    // A change to one copy uploads little and leaves the other copies as they are.
    let file = OpenOptions::new()
        .write(true)
        .open(mount.path("restored.bin"))
        .unwrap();
    let (at, change) = (20_000_001, [7; 4096]);
    file.write_all_at(&change, at).unwrap();
    file.sync_all().unwrap();
    drop(file);
    mount.drain();
    let changed = stored(&data) - before;
    assert!(changed < 64 << 10, "{changed} bytes of segments for 4 KiB");

    let mut expected = large.clone();
    expected[at as usize..at as usize + change.len()].copy_from_slice(&change);
    for cache in [Cache::Kept, Cache::Wiped] {
        mount.remount(cache);
        for (name, bytes) in [
            ("restored.bin", &expected),
            ("again.bin", &large),
            ("report.bin", &large),
        ] {
            assert!(fs::read(mount.path(name)).unwrap() == *bytes, "{name}");
        }
        assert_eq!(
            fs::read_to_string(mount.path(".versions/@files/report.bin/previous")).unwrap(),
            "short now\n"
        );
    }
    println!("{}", mount.check_log("main"));
}

#[test]
fn copied_ranges_of_other_files_are_readable_in_the_target() {
    let bucket = tempfile::tempdir().unwrap();
    let mut mount = TestMount::start(&Place::local(bucket.path()), &[]);
    let mut random = Random::new(22);
    let (one, two) = (random.bytes(9 << 20), random.bytes(300_000));
    fs::write(mount.path("one"), &one).unwrap();
    fs::write(mount.path("two"), &two).unwrap();
    // copy_file_range(2) at unaligned offsets between two files, and within one file.
    mount.sh("python3 - <<'END'\n\
         import os\n\
         one, two = os.open('one', os.O_RDWR), os.open('two', os.O_RDONLY)\n\
         out = os.open('out', os.O_CREAT | os.O_RDWR)\n\
         os.pwrite(out, b'head', 0)\n\
         assert os.copy_file_range(one, out, 5_000_000, 4_000_000, 7) == 5_000_000\n\
         assert os.copy_file_range(two, out, 200_000, 100_000, 12_000_000) == 200_000\n\
         assert os.copy_file_range(two, out, 100, 299_950, 20_000_000) == 50\n\
         os.pwrite(out, b'over', 100)\n\
         assert os.copy_file_range(one, one, 1_000_000, 0, 9_437_184 + 10) == 1_000_000\n\
         END");
    let (start, mut out) = (4_000_000, b"head".to_vec());
    out.resize(12_000_000 + 200_000, 0);
    out[7..7 + 5_000_000].copy_from_slice(&one[start..start + 5_000_000]);
    out[12_000_000..].copy_from_slice(&two[100_000..]);
    out.resize(20_000_050, 0);
    out[20_000_000..].copy_from_slice(&two[299_950..]);
    out[100..104].copy_from_slice(b"over");
    let mut twice = one.clone();
    twice.resize((9 << 20) + 10, 0);
    twice.extend_from_slice(&one[..1_000_000]);
    let check = |mount: &TestMount| {
        assert!(fs::read(mount.path("out")).unwrap() == out, "out");
        assert!(fs::read(mount.path("one")).unwrap() == twice, "one");
    };
    check(&mount);
    fs::remove_file(mount.path("two")).unwrap();
    mount.drain();
    check(&mount);
    mount.remount(Cache::Wiped);
    check(&mount);
    println!("{}", mount.check_log("main"));
}
