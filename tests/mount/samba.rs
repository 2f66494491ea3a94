//! Samba shows the past of a mount as Windows' "Previous Versions", with the settings of docs/SAMBA.md.

use crate::support::mount::TestMount;
use crate::support::place::Place;
use crate::support::samba::Samba;

/// SMB's name of a time that `ls .versions` lists.
fn smb_name(listed: &str) -> String {
    let (day, time) = listed[..19].split_once('T').unwrap();
    format!("@GMT-{}-{}", day.replace('-', "."), time.replace('-', "."))
}

/// The previous versions that the client lists for a path, in its order.
#[track_caller]
fn previous_versions(samba: &Samba, path: &str) -> Vec<String> {
    let told = samba.client(&format!("allinfo \"{path}\"")).ok();
    let names = told.lines().filter(|line| line.starts_with("@GMT-"));
    names.map(str::to_owned).collect()
}

/// Fails unless the client reports `status` for `commands`.
#[track_caller]
fn refused(samba: &Samba, commands: &str, status: &str) {
    let ran = samba.client(commands);
    let told = format!("{}{}", ran.stdout, ran.stderr);
    assert!(told.contains(status), "{commands}: {ran}");
}

#[test]
fn samba_lists_and_fetches_every_version() {
    let store = tempfile::tempdir().unwrap();
    let mount = TestMount::start(&Place::local(store.path()), &[]);
    // Guests enter the directory above the mount point.
    mount.sh(r"
        chmod 755 ..; umask 022
        mkdir d
        for text in one two three; do echo $text > d/f; sleep 1.1; done
        mkdir d/sub; echo deep > d/sub/g; sleep 1.1
        rm d/f; echo other > d/new
        # Many changes of one second are one version.
        for text in 1 2 3 4 5; do echo $text > d/new; done
        sleep 1.1
    ");
    let samba = Samba::start(&mount.root());
    let listed = mount.sh("ls -r d/.versions | grep ^2");
    let times: Vec<String> = listed.lines().map(smb_name).collect();
    assert!((5..=6).contains(&times.len()), "{listed}");
    for path in ["d", "d/new"] {
        assert_eq!(previous_versions(&samba, path), times, "{}", samba.log());
    }
    let root = mount.sh("ls -r .versions | grep ^2");
    let root: Vec<String> = root.lines().map(smb_name).collect();
    assert_eq!(previous_versions(&samba, "/"), root, "{}", samba.log());

    let states = mount.sh("ls d/.versions/@files/f | grep ^2");
    let saved: Vec<String> = states.lines().map(smb_name).collect();
    assert_eq!(saved.len(), 3, "{states}");
    for (time, text) in saved.iter().zip(["one\n", "two\n", "three\n"]) {
        assert!(times.contains(time), "{time} is not in {times:?}");
        assert_eq!(samba.fetch(&format!("{time}/d/f")), text, "{time}");
        assert_eq!(samba.fetch(&format!("d/{time}/f")), text, "{time}");
    }
    assert_eq!(samba.fetch(&format!("{}/d/new", times[0])), "5\n");
    assert_eq!(samba.fetch(&format!("{}/d/sub/g", times[0])), "deep\n");
    let missing = "NT_STATUS_OBJECT_NAME_NOT_FOUND";
    refused(&samba, &format!("get {}/d/f fetched", times[0]), missing);
    refused(&samba, "ls @GMT-2020.01.01-00.00.00/d/*", missing);
    let then = samba.client(&format!("ls {}/d/*", saved[2])).ok();
    assert!(then.contains(" f ") && !then.contains(" new "), "{then}");

    // A time between two changes is not listed, and is found.
    let between = mount.sh("touch d/now; sleep 2.2; date -u +%Y-%m-%dT%H-%M-%S -d '1 second ago'");
    let between = smb_name(&between);
    assert!(!previous_versions(&samba, "d").contains(&between));
    assert_eq!(samba.fetch(&format!("{between}/d/new")), "5\n");
}

#[test]
fn samba_changes_nothing_in_the_past_and_keeps_its_rights() {
    let store = tempfile::tempdir().unwrap();
    let mount = TestMount::start(&Place::local(store.path()), &[]);
    mount.sh(r"
        chmod 755 ..; umask 0
        mkdir open closed; echo mine > open/f; echo secret > closed/f
        sleep 1.1
        chmod 700 closed
    ");
    let samba = Samba::start(&mount.root());
    let listening = samba.listening();
    assert!(listening.contains("127.0.0.1:"), "{listening}");
    assert_eq!(listening.lines().count(), 1, "{listening}");

    let time = previous_versions(&samba, "open/f").remove(0);
    let denied = "NT_STATUS_ACCESS_DENIED";
    assert_eq!(samba.fetch(&format!("{time}/open/f")), "mine\n");
    samba.client("put fetched open/written").ok();
    for change in [
        format!("put fetched {time}/open/f"),
        format!("put fetched {time}/open/new"),
        format!("del {time}/open/f"),
        format!("mkdir {time}/open/new"),
        format!("rename {time}/open/f open/back"),
    ] {
        refused(&samba, &change, "NT_STATUS_");
    }
    let shown = mount.sh("cat open/f open/written; ls open open/.versions/*/ | sort -u");
    assert_eq!(shown.lines().next(), Some("mine"));
    assert!(!shown.contains("new") && !shown.contains("back"), "{shown}");
    // Closing a directory has closed its past.
    refused(&samba, &format!("get {time}/closed/f fetched"), denied);
    refused(&samba, "allinfo closed/f", denied);
}
