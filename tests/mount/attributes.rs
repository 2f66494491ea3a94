//! Times, extended attributes, access control lists, statfs and inotify, tested with the system calls.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use rustix::fs::{
    AtFlags, CWD, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, XattrFlags, getxattr, listxattr,
    removexattr, setxattr, utimensat,
};
use rustix::io::Errno;

use crate::support::mount::{Cache, TestMount};
use crate::support::place::Place;

/// A fresh namespace on a local directory, mounted.
fn mounted() -> (tempfile::TempDir, TestMount) {
    let store = tempfile::tempdir().unwrap();
    let mount = TestMount::start(&Place::local(store.path()), &[]);
    (store, mount)
}

fn at(seconds: i64, nanos: i64) -> Timespec {
    Timespec {
        tv_sec: seconds,
        tv_nsec: nanos,
    }
}

#[test]
fn times_from_1901_to_2446_are_kept_to_the_nanosecond() {
    // The first second of 32 bits (1901-12-13), around 1970, 2038, the last second of ext4 (2446-05-10), and times beyond both.
    let times = [
        at(-2_147_483_648, 0),
        at(-2_147_483_648, 1),
        at(-1, 999_999_999),
        at(0, 0),
        at(0, 1),
        at(2_147_483_648, 123_456_789),
        at(15_032_385_535, 999_999_999),
        at(-(1 << 40), 7),
        at(1 << 40, 7),
    ];
    let (_store, mut mount) = mounted();
    mount.sh("touch file; mkdir directory; ln -s nowhere link");
    let shown = |mount: &TestMount, name: &str| {
        let found = fs::symlink_metadata(mount.path(name)).unwrap();
        (
            at(found.atime(), found.atime_nsec()),
            at(found.mtime(), found.mtime_nsec()),
        )
    };
    for (index, time) in times.into_iter().enumerate() {
        let other = times[(index + 1) % times.len()];
        let both = Timestamps {
            last_access: time,
            last_modification: other,
        };
        let names = ["file", "directory", "link"];
        for name in names {
            utimensat(CWD, mount.path(name), &both, AtFlags::SYMLINK_NOFOLLOW).unwrap();
            assert_eq!(shown(&mount, name), (time, other), "{name}");
        }
        if index % 3 == 2 {
            mount.remount(Cache::Wiped);
            for name in names {
                assert_eq!(shown(&mount, name), (time, other), "{name} afterwards");
            }
        }
    }
}

#[test]
fn utimensat_sets_leaves_or_takes_each_time_from_the_clock() {
    let (_store, mount) = mounted();
    fs::write(mount.path("f"), "x").unwrap();
    let set = |access: Timespec, modification: Timespec| {
        let times = Timestamps {
            last_access: access,
            last_modification: modification,
        };
        let before = fs::metadata(mount.path("f")).unwrap();
        utimensat(CWD, mount.path("f"), &times, AtFlags::empty()).unwrap();
        (before, fs::metadata(mount.path("f")).unwrap())
    };
    let (now, omit) = (at(0, UTIME_NOW), at(0, UTIME_OMIT));
    let (_, old) = set(at(5, 6), at(7, 8));
    assert_eq!(
        (old.atime(), old.atime_nsec(), old.mtime(), old.mtime_nsec()),
        (5, 6, 7, 8)
    );
    let (_, new) = set(omit, now);
    assert_eq!((new.atime(), new.atime_nsec()), (5, 6));
    assert!(new.mtime() > 1_700_000_000 && new.ctime() >= new.mtime());
    let (_, new) = set(now, at(9, 10));
    assert!(new.atime() > 1_700_000_000);
    assert_eq!((new.mtime(), new.mtime_nsec()), (9, 10));
    let (old, new) = set(omit, omit);
    assert_eq!(
        (old.ctime(), old.ctime_nsec()),
        (new.ctime(), new.ctime_nsec())
    );
}

/// fuser panics on one value of a time, `i64::MIN`, before the adapter gets the call. The mount ends, as after any other panic, and
/// no data is lost.
#[test]
fn the_smallest_time_value_ends_the_mount_and_loses_no_data() {
    let (_store, mut mount) = mounted();
    fs::write(mount.path("f"), "kept").unwrap();
    let first = Timestamps {
        last_access: at(i64::MIN, 1),
        last_modification: at(i64::MIN, 1),
    };
    utimensat(CWD, mount.path("f"), &first, AtFlags::empty()).unwrap_err();
    let status = mount.ended(Duration::from_secs(60));
    assert_eq!(status.and_then(|status| status.code()), Some(1));
    mount.mount();
    assert_eq!(fs::read_to_string(mount.path("f")).unwrap(), "kept");
}

#[test]
fn extended_attributes_obey_namespaces_flags_and_limits() {
    let (_store, mut mount) = mounted();
    fs::write(mount.path("f"), "x").unwrap();
    let file = mount.path("f");
    let set = |name: &str, value: &[u8], flags| setxattr(&file, name, value, flags);
    let (any, create, replace) = (XattrFlags::empty(), XattrFlags::CREATE, XattrFlags::REPLACE);
    for name in ["user.a", "trusted.a", "security.a"] {
        assert_eq!(set(name, b"x", replace), Err(Errno::NODATA), "{name}");
        set(name, b"\0\xff,=\n", create).unwrap();
        assert_eq!(set(name, b"x", create), Err(Errno::EXIST), "{name}");
        set(name, b"", replace).unwrap();
        set(name, b"\0\xff,=\n", any).unwrap();
    }
    for name in ["other.a", "system.a", "a"] {
        assert_eq!(set(name, b"x", any), Err(Errno::OPNOTSUPP), "{name}");
    }
    let long = format!("user.{}", "n".repeat(250));
    assert_eq!(set(&format!("{long}n"), b"x", any), Err(Errno::RANGE));
    assert_eq!(
        set("user.big", &vec![b'x'; 65_537], any),
        Err(Errno::TOOBIG)
    );
    for name in ["user.a", "trusted.a", "security.a"] {
        removexattr(&file, name).unwrap();
        assert_eq!(removexattr(&file, name), Err(Errno::NODATA));
    }
    let big = vec![b'x'; 65_536];
    set(&long, &big, any).unwrap();
    assert_eq!(set("user.more", b"x", any), Err(Errno::NOSPC));
    let mut value = vec![0; 65_536];
    for round in 0..2 {
        assert_eq!(
            getxattr(&file, long.as_str(), &mut value),
            Ok(65_536),
            "{round}"
        );
        assert!(value == big);
        assert_eq!(
            getxattr(&file, long.as_str(), &mut [0; 10]),
            Err(Errno::RANGE)
        );
        let mut list = vec![0; 1000];
        let length = listxattr(&file, &mut list).unwrap();
        assert_eq!(list[..length], *format!("{long}\0").as_bytes());
        mount.remount(Cache::Wiped);
    }
}

#[test]
fn posix_acls_are_inherited_masked_and_enforced() {
    let (_store, mut mount) = mounted();
    mount.sh(r#"
        mkdir d; setfacl -d -m u:4321:rwx,g:4322:r-x,m::rwx d
        setfacl -m u:4321:rwx d
        (umask 077; echo x >d/file; mkdir d/sub; cp /bin/sh d/tool; mkfifo d/fifo)
        mkdir plain; (umask 027; echo x >plain/file)
        chmod 700 d/sub
        "#);
    let lists = "getfacl -cnR d plain; stat -c '%a %n' d/* plain/*";
    let first = mount.sh(lists);
    // With a default ACL the umask is not applied; the mode of the call becomes the mask.
    for expected in [
        "664 d/file",
        "700 d/sub",
        "640 plain/file",
        "user:4321:rwx\t#effective:rw-",
    ] {
        assert!(first.contains(expected), "no {expected} in\n{first}");
    }
    mount.sh(
        r#"
        as() { setpriv --reuid "$1" --regid 9999 --groups "$2" sh -c "$3"; }
        as 4321 9999 'echo y >>d/file; echo z >d/new'
        as 5555 4322 'cat d/file >/dev/null'
        if as 5555 4322 'echo y >>d/file' 2>/dev/null; then echo 'written by a reader'; exit 1; fi
        setfacl -m o::- d/file
        if as 5555 9999 'cat d/file' 2>/dev/null; then echo 'read by a stranger'; exit 1; fi
        # With an access list, chmod of the group's bits changes the mask.
        chmod g-w d/file
        if as 4321 9999 'echo y >>d/file' 2>/dev/null; then echo 'written beyond the mask'; exit 1; fi
        "#,
    );
    let before = mount.sh(lists);
    mount.remount(Cache::Wiped);
    assert_eq!(mount.sh(lists), before);
}

#[test]
fn df_reports_usage_and_free_space() {
    let (_store, mut mount) = mounted();
    let ask = |mount: &TestMount| -> Vec<u64> {
        let said =
            mount.sh("df -B1 --output=used,avail . | tail -n 1; df --output=iused . | tail -n 1");
        said.split_whitespace()
            .map(|word| word.parse().unwrap())
            .collect()
    };
    let before = ask(&mount);
    mount.sh(
        "head -c 8388608 /dev/zero >f; mkdir d; head -c 100 /dev/zero >d/g; truncate -s 4T d/holes",
    );
    for _ in 0..2 {
        let now = ask(&mount);
        let grown = now[0] - before[0];
        assert!(
            (8_388_608..8_500_000).contains(&grown),
            "{before:?} {now:?}"
        );
        assert_eq!(now[1], 1 << 50);
        assert_eq!(now[2] - before[2], 4);
        mount.remount(Cache::Wiped);
    }
    mount.sh("rm -r f d");
    assert_eq!(ask(&mount), before);
}

#[test]
fn inotify_reports_changes_made_through_this_mount() {
    let (_store, mount) = mounted();
    let seen = mount.sh(
        r#"
        mkdir d
        cat >../watch.py <<'END'
import ctypes, os, struct, subprocess
libc = ctypes.CDLL(None, use_errno=True)
names = {2: "modify", 4: "attrib", 8: "close_write", 0x40: "from", 0x80: "to", 0x100: "create", 0x200: "delete"}
fd = libc.inotify_init1(os.O_NONBLOCK)
assert libc.inotify_add_watch(fd, b"d", sum(names)) > 0
subprocess.check_call("echo x >d/f; chmod 600 d/f; mv d/f d/g; ln d/g d/h; rm d/g; mkdir d/s", shell=True)
data = os.read(fd, 65536)
while data:
    _, mask, _, length = struct.unpack("iIII", data[:16])
    print(names[mask & 0xFFF], data[16:16 + length].rstrip(b"\0").decode())
    data = data[16 + length:]
END
        python3 ../watch.py
        "#,
    );
    assert_eq!(
        seen,
        "create f\nmodify f\nclose_write f\nattrib f\nfrom f\nto g\ncreate h\ndelete g\ncreate s\n"
    );
}
