//! Programs that save: every save is in the list of the file's versions, in order and with its bytes, and no temporary file, lock or
//! probe of the program is listed. The saves follow one another within seconds, as those of a test program or of a quick typist.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::support::mount::{Cache, TestMount};
use crate::support::place::Place;
use crate::support::shell;
use crate::versions::check_states;

/// The time limit of a program.
const LIMIT: Duration = Duration::from_secs(300);

/// Runs a program in a terminal and types into it. The argument is a JSON file: the program's arguments, and steps. A step is keys,
/// and the file and the content that the keys lead to; without a file the program ends.
const TERMINAL: &str = r"
import fcntl, json, os, pty, select, struct, sys, termios, time
arguments, steps = json.load(open(sys.argv[1]))
pid, terminal = pty.fork()
if pid == 0:
    os.environ['TERM'] = 'xterm'
    fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack('HHHH', 40, 120, 0, 0))
    os.execvp(arguments[0], arguments)
screen = b''
ended = False
def read(seconds):
    global screen, ended
    if not select.select([terminal], [], [], seconds)[0]:
        return False
    try:
        part = os.read(terminal, 65536)
    except OSError:
        part = b''
    screen, ended = screen + part, ended or not part
    return not ended
def content(path):
    try:
        return open(path).read()
    except FileNotFoundError:
        return None
def wait(reached, what):
    end = time.time() + 60
    while not reached():
        if time.time() > end:
            os.kill(pid, 9)
            raise SystemExit(f'{what}; the screen: {screen[-2000:]!r}')
        read(0.02)
# A program that has shown its screen and waits for keys.
wait(lambda: screen and not read(0.2), 'nothing is shown')
for keys, path, text in steps:
    for part in keys:
        os.write(terminal, part.encode())
        read(0.02)
    if path is None:
        wait(lambda: ended, f'no end after {keys!r}')
    else:
        wait(lambda: content(path) == text, f'{keys!r} led to {content(path)!r}')
status = os.waitpid(pid, 0)[1]
if status != 0:
    raise SystemExit(f'wait status {status}; the screen: {screen[-2000:]!r}')
";

/// One step in a terminal: what is typed, and what the file then contains.
struct Step {
    /// Keys that are typed together, one after another.
    keys: Vec<String>,
    /// The file and its content after these keys; `None` if the program ends.
    leads_to: Option<(String, String)>,
}

impl Step {
    fn saves(keys: &[&str], name: &str, text: String) -> Self {
        Self {
            keys: keys.iter().map(|keys| (*keys).to_owned()).collect(),
            leads_to: Some((name.to_owned(), text)),
        }
    }

    fn ends(keys: &str) -> Self {
        Self {
            keys: vec![keys.to_owned()],
            leads_to: None,
        }
    }
}

/// A namespace on a local directory, mounted, and a directory outside of it.
struct Desk {
    mount: TestMount,
    outside: tempfile::TempDir,
    _store: tempfile::TempDir,
}

impl Desk {
    fn new() -> Self {
        let store = tempfile::tempdir().unwrap();
        Self {
            mount: TestMount::start(&Place::local(store.path()), &[]),
            outside: tempfile::tempdir().unwrap(),
            _store: store,
        }
    }

    /// A new directory of the mount with `doc.txt`, which was saved a moment ago.
    fn directory(&self, name: &str) -> std::path::PathBuf {
        let directory = self.mount.path(name);
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join("doc.txt"), text(0)).unwrap();
        directory
    }

    /// Runs a program in a terminal in `directory`.
    #[track_caller]
    fn type_into(&self, directory: &Path, arguments: &[&str], steps: &[Step]) {
        let steps: Vec<_> = steps
            .iter()
            .map(|step| match &step.leads_to {
                Some((name, text)) => serde_json::json!([step.keys, name, text]),
                None => serde_json::json!([step.keys, null, null]),
            })
            .collect();
        let session = self.outside.path().join("session.json");
        fs::write(&session, serde_json::json!([arguments, steps]).to_string()).unwrap();
        let terminal = self.outside.path().join("terminal.py");
        fs::write(&terminal, TERMINAL).unwrap();
        self.run(
            directory,
            &format!("python3 {} {}", terminal.display(), session.display()),
        );
    }

    /// Runs a script in `directory` with a home directory outside of the mount.
    #[track_caller]
    fn run(&self, directory: &Path, script: &str) -> String {
        let home = self.outside.path().display();
        shell::sh_within(directory, &format!("export HOME={home}; {script}"), LIMIT).ok()
    }
}

/// The content of a document after `count` saves.
fn text(saves: usize) -> String {
    let lines = (1..=saves).map(|n| format!("line {n}\n"));
    "begin\n".to_owned() + &lines.collect::<String>()
}

/// The states of a document that was saved so often.
fn states(saves: usize) -> Vec<String> {
    (0..=saves).map(text).collect()
}

/// What `@files` and `@deleted` of a directory list.
fn lists(directory: &Path) -> [String; 2] {
    ["@files", "@deleted"].map(|place| {
        let entries = fs::read_dir(directory.join(".versions").join(place)).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names.join(" ")
    })
}

#[test]
fn vim_keeps_every_save_with_each_kind_of_backup() {
    const SAVES: usize = 3;
    let mut desk = Desk::new();
    let mut shown = Vec::new();
    for copy in ["yes", "no", "auto"] {
        for options in [
            "backup writebackup",
            "backup nowritebackup",
            "nobackup writebackup",
            "nobackup nowritebackup",
        ] {
            let name = format!("{copy} {options}");
            let directory = desk.directory(&name);
            // Without this vim makes no backups below /tmp.
            let set = format!("set backupskip= backupcopy={copy} {options}");
            let vim = [
                "vim", "-N", "-u", "NONE", "-i", "NONE", "-c", &set, "doc.txt",
            ];
            let mut steps: Vec<Step> = (1..=SAVES)
                .map(|n| Step::saves(&[&format!("Goline {n}\x1b:w\r")], "doc.txt", text(n)))
                .collect();
            steps.push(Step::ends(":q\r"));
            desk.type_into(&directory, &vim, &steps);
            if !options.contains("nobackup") {
                let backup = fs::read_to_string(directory.join("doc.txt~")).unwrap();
                assert_eq!(backup, text(SAVES - 1), "{name}");
                shown.push((directory, "doc.txt doc.txt~"));
            } else {
                shown.push((directory, "doc.txt"));
            }
        }
    }
    for cache in [Cache::Kept, Cache::Wiped] {
        for (directory, files) in &shown {
            check_states(directory, "doc.txt", &states(SAVES));
            assert_eq!(lists(directory), [*files, ""], "{}", directory.display());
        }
        desk.mount.remount(cache);
    }
}

#[test]
fn a_file_that_vim_saved_keeps_its_list_under_another_name() {
    let desk = Desk::new();
    let directory = desk.directory("d");
    let set = "set backupskip= backupcopy=no";
    let vim = [
        "vim", "-N", "-u", "NONE", "-i", "NONE", "-c", set, "doc.txt",
    ];
    let steps = [
        Step::saves(&["Goline 1\x1b:w\r"], "doc.txt", text(1)),
        Step::saves(&["Goline 2\x1b:w\r"], "doc.txt", text(2)),
        Step::ends(":q\r"),
    ];
    desk.type_into(&directory, &vim, &steps);
    desk.mount.sh("cd d; mv doc.txt final.txt");
    let read = "cd d/.versions/@files/final.txt; for version in 2*; do cat $version; echo; done";
    let expected = [text(0), text(1), text(2), text(2)].join("\n") + "\n";
    assert_eq!(desk.mount.sh(read), expected);
}

#[test]
fn emacs_keeps_every_save_with_each_kind_of_backup() {
    const SAVES: usize = 3;
    let desk = Desk::new();
    // Each save makes a backup, also below /tmp.
    let save = "(progn (setq backup-enable-predicate (lambda (name) t) delete-old-versions t)
        (find-file \"doc.txt\")
        (dotimes (n 3) (goto-char (point-max)) (insert (format \"line %d\\n\" (1+ n)))
          (setq buffer-backed-up nil) (save-buffer)))";
    for (options, files) in [
        ("(setq make-backup-files nil)", "doc.txt"),
        ("(setq backup-by-copying t)", "doc.txt doc.txt~"),
        ("(setq backup-by-copying nil)", "doc.txt doc.txt~"),
        (
            "(setq version-control t)",
            "doc.txt doc.txt.~1~ doc.txt.~2~ doc.txt.~3~",
        ),
        ("(setq file-precious-flag t)", "doc.txt doc.txt~"),
    ] {
        let directory = desk.directory(options);
        desk.run(
            &directory,
            &format!("emacs --quick --batch --eval '{options}' --eval '{save}'"),
        );
        check_states(&directory, "doc.txt", &states(SAVES));
        assert_eq!(lists(&directory), [files, ""], "{options}");
    }
    // In a terminal, with an automatic save before each save.
    let directory = desk.directory("terminal");
    let predicate = "(setq backup-enable-predicate (lambda (name) t))";
    let emacs = ["emacs", "-nw", "--quick", "--eval", predicate, "doc.txt"];
    let mut steps = Vec::new();
    for n in 1..=SAVES {
        let line = format!("line {n}\r");
        let typed = ["\x1b>", &line, "\x1bxdo-auto-save\r"];
        steps.push(Step::saves(&typed, "#doc.txt#", text(n)));
        steps.push(Step::saves(&["\x18\x13"], "doc.txt", text(n)));
    }
    steps.push(Step::ends("\x18\x03"));
    desk.type_into(&directory, &emacs, &steps);
    check_states(&directory, "doc.txt", &states(SAVES));
    assert_eq!(lists(&directory), ["doc.txt doc.txt~", ""], "in a terminal");
}

#[test]
fn nano_keeps_every_save_with_and_without_backup_and_lock() {
    const SAVES: usize = 3;
    let desk = Desk::new();
    for (options, files) in [
        ("--nonewlines", "doc.txt"),
        ("--nonewlines --backup --locking", "doc.txt doc.txt~"),
    ] {
        let directory = desk.directory(options);
        let mut nano = vec!["nano", "--ignorercfiles", "--nohelp", "+2"];
        nano.extend(options.split(' '));
        nano.push("doc.txt");
        let mut steps: Vec<Step> = (1..=SAVES)
            .map(|n| {
                let line = format!("line {n}\r");
                Step::saves(&[&line, "\x0f", "\r"], "doc.txt", text(n))
            })
            .collect();
        steps.push(Step::ends("\x18"));
        desk.type_into(&directory, &nano, &steps);
        check_states(&directory, "doc.txt", &states(SAVES));
        assert_eq!(lists(&directory), [files, ""], "{options}");
    }
}

#[test]
fn sed_keeps_every_save_with_and_without_backup() {
    const SAVES: usize = 4;
    let desk = Desk::new();
    for (suffix, files) in [("", "doc.txt"), (".bak", "doc.txt doc.txt.bak")] {
        let directory = desk.directory(&format!("sed{suffix}"));
        let save = format!("for n in 1 2 3 4; do sed -i{suffix} \"\\$a line $n\" doc.txt; done");
        shell::sh(&directory, &save);
        check_states(&directory, "doc.txt", &states(SAVES));
        assert_eq!(lists(&directory), [files, ""], "sed -i{suffix}");
    }
}

/// The calls of LibreOffice: a lock file while the document is open; a save writes a temporary file and renames it over the document.
const OFFICE: &str = r"
import os, sys
lock = '.~lock.doc.txt#'
def write(name, text):
    file = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    os.write(file, text.encode())
    os.fsync(file)
    os.close(file)
document = open('doc.txt').read()
for session in ([1, 2], [3], [4]):
    write(lock, ',user,host,20.11.2026 21:26,file:///home/user/.config;')
    for n in session:
        document += f'line {n}\n'
        write(f'lu{n}a7x.tmp', document)
        os.chmod(f'lu{n}a7x.tmp', 0o644)
        os.rename(f'lu{n}a7x.tmp', 'doc.txt')
    os.unlink(lock)
";

#[test]
fn an_office_suite_keeps_every_save_and_leaves_no_lock_in_the_lists() {
    let desk = Desk::new();
    let directory = desk.directory("d");
    let office = desk.outside.path().join("office.py");
    fs::write(&office, OFFICE).unwrap();
    shell::sh(&directory, &format!("python3 {}", office.display()));
    check_states(&directory, "doc.txt", &states(4));
    assert_eq!(lists(&directory), ["doc.txt", ""]);
}

#[test]
fn rsync_keeps_every_transfer_as_a_version() {
    const TRANSFERS: usize = 4;
    let desk = Desk::new();
    for (options, files) in [
        ("", "doc.txt"),
        ("--inplace", "doc.txt"),
        ("--inplace --no-whole-file", "doc.txt"),
        ("--delay-updates", "doc.txt"),
        ("--backup", "doc.txt doc.txt~"),
    ] {
        let directory = desk.directory(&format!("rsync {options}"));
        let source = tempfile::tempdir().unwrap();
        let rsync = |more: &str| {
            let from = source.path().display();
            shell::sh(&directory, &format!("rsync -a {options} {more} {from}/ ./"));
        };
        for n in 1..=TRANSFERS {
            fs::write(source.path().join("doc.txt"), text(n)).unwrap();
            rsync("");
        }
        check_states(&directory, "doc.txt", &states(TRANSFERS));
        assert_eq!(lists(&directory), [files, ""], "rsync {options}");
        if options == "--inplace" {
            fs::remove_file(source.path().join("doc.txt")).unwrap();
            rsync("--delete");
            assert_eq!(lists(&directory), ["doc.txt", "doc.txt"], "--delete");
            let removed = directory.join(".versions/@deleted/doc.txt");
            assert_eq!(fs::read_to_string(removed).unwrap(), text(TRANSFERS));
        }
    }
}

#[test]
fn git_keeps_every_state_of_a_file_of_a_branch_and_of_head() {
    let desk = Desk::new();
    let hashes = desk.mount.sh(r#"
        git init -q -b main repo; cd repo; git config gc.auto 0; git config maintenance.auto false
        echo begin > doc.txt
        for n in 1 2 3; do
            echo "line $n" >> doc.txt; git add doc.txt; git commit -q -m "save $n"
        done
        git rev-list --reverse main
        git checkout -q HEAD~2; git checkout -q main
        git rm -q doc.txt; git reset -q --hard
        "#);
    let repository = desk.mount.path("repo");
    let expected = [0, 1, 2, 3, 1, 3, 3].map(text);
    check_states(&repository, "doc.txt", &expected);
    assert_eq!(lists(&repository), ["doc.txt", ""]);
    let inner = repository.join(".git");
    let messages = [1, 2, 3].map(|n| format!("save {n}\n"));
    check_states(&inner, "COMMIT_EDITMSG", &messages);
    let commits: Vec<String> = hashes.lines().map(|line| format!("{line}\n")).collect();
    assert_eq!(commits.len(), 3);
    check_states(&inner.join("refs/heads"), "main", &commits);
    // git made this lock for `reset` and removed it, as the branch did not change. It can be undeleted as any removed file.
    assert_eq!(
        lists(&inner.join("refs/heads")),
        ["main main.lock", "main.lock"]
    );
    let branch = "ref: refs/heads/main\n".to_owned();
    check_states(
        &inner,
        "HEAD",
        &[branch.clone(), commits[0].clone(), branch],
    );
    let [files, _] = lists(&inner);
    assert!(
        !files.contains("index.lock") && !files.contains("config.lock"),
        "what left by a rename is in no list: {files}"
    );
    // The whole repository of a moment in the past can be read.
    let told = desk.mount.sh(r"
        export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0='*'; cd repo
        second=$(ls .git/refs/heads/.versions/@files/main | sed -n 2p)
        git --git-dir=.versions/$second/.git rev-list --count HEAD
        git --git-dir=.versions/$second/.git show HEAD:doc.txt
        ");
    assert_eq!(told, format!("2\n{}", text(2)));
}

/// Makes `small-1.0` and `small-2.0`, Python packages of one module each.
const WHEELS: &str = r"
import base64, hashlib, zipfile
for version in ('1.0', '2.0'):
    info = f'small-{version}.dist-info/'
    files = {
        'small/__init__.py': f'VERSION = {version!r}\n',
        info + 'METADATA': f'Metadata-Version: 2.1\nName: small\nVersion: {version}\n',
        info + 'WHEEL': 'Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n',
    }
    def line(name, text):
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b'=').decode()
        return f'{name},sha256={digest},{len(text)}\n'
    files[info + 'RECORD'] = ''.join(line(*f) for f in files.items()) + info + 'RECORD,,\n'
    with zipfile.ZipFile(f'small-{version}-py3-none-any.whl', 'w') as wheel:
        for name, text in files.items():
            wheel.writestr(name, text)
";

#[test]
fn a_package_that_pip_replaced_is_found_at_its_time() {
    let desk = Desk::new();
    let outside = desk.outside.path();
    fs::write(outside.join("wheels.py"), WHEELS).unwrap();
    shell::sh_within(outside, "python3 wheels.py; python3 -m venv pip", LIMIT).ok();
    let outside = outside.display();
    let told = desk.mount.sh_within(
        &format!(
            r"
            python3 -m venv --without-pip environment
            install() {{ {outside}/pip/bin/pip --python environment/bin/python --quiet --disable-pip-version-check install --no-index $1; }}
            install {outside}/small-1.0-py3-none-any.whl
            sleep 1.1; between=$(date -u +%Y-%m-%dT%H-%M-%S); sleep 1.1
            install {outside}/small-2.0-py3-none-any.whl
            cd environment/lib/python3*/site-packages
            cat small/__init__.py .versions/$between/small/__init__.py small/.versions/$between/__init__.py
            cat small/.versions/@files/__init__.py/2*
            ls .versions/$between
            ls .versions/@deleted
            "
        ),
        LIMIT,
    );
    // The last list: pip renames what it replaces and then removes it.
    let expected = "VERSION = '2.0'\nVERSION = '1.0'\nVERSION = '1.0'\nVERSION = '2.0'\n\
                    small\nsmall-1.0.dist-info\n\
                    ~mall\n~mall-1.0.dist-info\n";
    assert_eq!(told, expected);
}

#[test]
fn a_database_has_a_version_for_each_program_that_changed_it() {
    let desk = Desk::new();
    // The names that sqlite3 removed; the first transaction of `wal` has a journal too.
    for (mode, deleted) in [("delete", "x.db-journal"), ("wal", "x.db-journal x.db-wal")] {
        let directory = desk.mount.path(mode);
        fs::create_dir(&directory).unwrap();
        // One program with three transactions makes one version.
        let told = shell::sh(
            &directory,
            &format!(
                r#"
                sqlite3 x.db 'PRAGMA journal_mode={mode}; CREATE TABLE t(n INTEGER);' > /dev/null
                add='INSERT INTO t VALUES (1);'
                for n in 1 2 3; do sqlite3 x.db "$add"; done
                sqlite3 x.db "$add $add $add"
                for version in $(ls .versions/@files/x.db); do
                    sqlite3 "file:.versions/@files/x.db/$version?immutable=1" 'PRAGMA integrity_check; SELECT count(*) FROM t;'
                done
                "#
            ),
        );
        // Each version, then `latest` and `previous`.
        let counts = [0, 1, 2, 3, 6, 6, 3].map(|count| format!("ok\n{count}\n"));
        assert_eq!(told, counts.concat(), "{mode}");
        let files = format!("x.db {deleted}");
        assert_eq!(lists(&directory), [&files, deleted], "{mode}");
    }
}
