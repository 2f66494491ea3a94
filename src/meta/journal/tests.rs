use super::format::{FILE_HEADER, RECORD_HEADER};
use super::*;
use proptest::prelude::*;
use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use tempfile::TempDir;

const NAMESPACE: Uuid = Uuid::from_u128(7);

/// Opens with files of 1 KiB, so that a few records fill one.
fn open(dir: &Path) -> Result<(Journal, Vec<Recovered>), JournalError> {
    Journal::open_with(dir, NAMESPACE, 1024)
}

fn payloads(recovered: &[Recovered]) -> Vec<Vec<u8>> {
    recovered.iter().map(|r| r.payload.to_vec()).collect()
}

fn paths(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|suffix| suffix == "journal"))
        .collect();
    files.sort();
    files
}

fn numbered(n: u32) -> Vec<u8> {
    format!("record {n:04} {}", "x".repeat(n as usize * 37 % 300)).into_bytes()
}

/// Appends numbered records and leaves the files as a killed process would.
fn write(dir: &Path, count: u32) {
    let (journal, _) = open(dir).unwrap();
    let tokens: Vec<_> = (0..count)
        .map(|n| journal.append(&numbered(n)).unwrap())
        .collect();
    drop(journal);
    drop(tokens);
}

#[test]
fn a_new_journal_is_empty_and_private() {
    let dir = TempDir::new().unwrap();
    let inside = dir.path().join("deep/inside");
    let (journal, recovered) = open(&inside).unwrap();
    assert!(recovered.is_empty() && journal.dropped().is_empty());
    assert!(paths(&inside).is_empty());
    drop(journal.append(b"secret").unwrap());
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&inside), mode(&paths(&inside)[0])), (0o700, 0o600));
}

#[test]
fn directories_of_a_journal_become_private_and_those_of_another_user_are_refused() {
    let dir = TempDir::new().unwrap();
    let (local, all) = (dir.path().join("local"), || {
        std::fs::Permissions::from_mode(0o777)
    });
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    std::fs::create_dir_all(local.join("journal")).unwrap();
    for open in [&local, &local.join("journal")] {
        std::fs::set_permissions(open, all()).unwrap();
    }
    drop(Journal::open_in(&local, NAMESPACE).unwrap());
    assert_eq!((mode(&local), mode(&local.join("journal"))), (0o700, 0o700));

    let link = dir.path().join("link");
    std::os::unix::fs::symlink(&local, &link).unwrap();
    let error = Journal::open_in(&link, NAMESPACE).unwrap_err().to_string();
    assert!(error.contains("no directory of user"), "{error}");
    if !rustix::process::geteuid().is_root() {
        return;
    }
    std::os::unix::fs::chown(&local, Some(65_534), None).unwrap();
    let error = Journal::open_in(&local, NAMESPACE).unwrap_err().to_string();
    assert!(error.contains("belongs to user 65534"), "{error}");
    assert_eq!(mode(&local), 0o700);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn all_appended_records_are_recovered_in_order(
        lives in prop::collection::vec(
            prop::collection::vec(prop::collection::vec(any::<u8>(), 0..400), 0..12), 1..5)
    ) {
        let dir = TempDir::new().unwrap();
        let mut expected: Vec<Vec<u8>> = Vec::new();
        for life in &lives {
            let (journal, recovered) = open(dir.path()).unwrap();
            prop_assert_eq!(payloads(&recovered), expected.clone());
            let mut tokens = Vec::new();
            for payload in life {
                tokens.push(journal.append(payload).unwrap());
                expected.push(payload.clone());
            }
            drop(journal);
            drop((tokens, recovered));
        }
        let (journal, recovered) = open(dir.path()).unwrap();
        prop_assert_eq!(payloads(&recovered), expected);
        prop_assert_eq!(journal.dropped(), &[]);
    }

    #[test]
    fn tokens_in_any_order_delete_strictly_oldest_first(
        order in Just((0..30_u32).collect::<Vec<_>>()).prop_shuffle()
    ) {
        let dir = TempDir::new().unwrap();
        let (journal, _) = open(dir.path()).unwrap();
        let mut tokens: Vec<_> = (0..30).map(|n| Some(journal.append(&numbered(n * 7)).unwrap())).collect();
        let all = paths(dir.path());
        let newest = all.last().unwrap().clone();
        let file_of: Vec<u64> = tokens.iter().flatten().map(|token| token.0.file).collect();
        for n in order {
            tokens[n as usize] = None;
            let needed = (0..30).filter(|n| tokens[*n].is_some()).map(|n| file_of[n]).min();
            let left = paths(dir.path());
            prop_assert!(left.contains(&newest));
            prop_assert!(all.ends_with(&left), "a file was deleted before an older one");
            let oldest = needed.map_or(newest.clone(), |number| files::path(dir.path(), number));
            prop_assert_eq!(&left[0], &oldest.min(newest.clone()));
        }
        journal.trim();
        prop_assert!(paths(dir.path()).is_empty());
    }

    #[test]
    fn damage_is_reported_and_costs_only_the_damaged_record(at in 0.0..1.0_f64, flip in 1..=255_u8) {
        let dir = TempDir::new().unwrap();
        write(dir.path(), 12);
        let all = paths(dir.path());
        let path = &all[0];
        prop_assert!(all.len() > 1);
        let mut bytes = std::fs::read(path).unwrap();
        let at = (bytes.len() as f64 * at) as usize;
        bytes[at] ^= flip;
        std::fs::write(path, &bytes).unwrap();
        match open(dir.path()) {
            Err(JournalError::Corrupt { .. } | JournalError::Foreign { .. }) => prop_assert!(at < FILE_HEADER),
            Err(other) => prop_assert!(false, "{other}"),
            Ok((journal, recovered)) => {
                let lost = journal.dropped();
                prop_assert_eq!(lost.len(), 1);
                prop_assert!(lost[0].position <= at as u64 && (at as u64) < lost[0].position + lost[0].bytes);
                prop_assert_eq!(recovered.len(), 11, "only the damaged record may be lost");
            }
        }
    }
}

#[test]
fn a_cut_anywhere_in_the_last_record_keeps_the_records_before_it() {
    let dir = TempDir::new().unwrap();
    write(dir.path(), 3);
    let path = paths(dir.path()).pop().unwrap();
    let whole = std::fs::read(&path).unwrap();
    let last = RECORD_HEADER + numbered(2).len();
    for cut in 1..=last {
        std::fs::write(&path, &whole[..whole.len() - cut]).unwrap();
        let (journal, recovered) = open(dir.path()).unwrap();
        assert_eq!(payloads(&recovered), [numbered(0), numbered(1)], "{cut}");
        assert!(journal.dropped().is_empty());
        let token = journal.append(b"after").unwrap();
        drop(journal);
        drop((recovered, token));
        let (_, recovered) = open(dir.path()).unwrap();
        assert_eq!(recovered.len(), 3);
        assert_eq!(&recovered[2].payload[..], b"after");
        std::fs::remove_file(paths(dir.path()).pop().unwrap()).unwrap();
    }
}

#[test]
fn zeros_or_noise_behind_the_last_record_are_cut_off() {
    for tail in [vec![0; 500], vec![0xa5; 500]] {
        let dir = TempDir::new().unwrap();
        write(dir.path(), 2);
        let path = paths(dir.path()).pop().unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        let good = bytes.len();
        bytes.extend(tail);
        std::fs::write(&path, bytes).unwrap();
        let (_journal, recovered) = open(dir.path()).unwrap();
        assert_eq!(recovered.len(), 2);
        assert_eq!(std::fs::metadata(&path).unwrap().len(), good as u64);
    }
}

#[test]
fn a_cut_of_an_older_file_is_damage() {
    let dir = TempDir::new().unwrap();
    write(dir.path(), 12);
    let oldest = paths(dir.path()).remove(0);
    let len = std::fs::metadata(&oldest).unwrap().len();
    let file = File::options().write(true).open(&oldest).unwrap();
    file.set_len(len - 1).unwrap();
    let (journal, recovered) = open(dir.path()).unwrap();
    assert_eq!(recovered.len(), 11);
    assert_eq!(journal.dropped().len(), 1);
}

#[test]
fn journal_bytes_inside_a_payload_are_not_read_as_records() {
    let dir = TempDir::new().unwrap();
    write(dir.path(), 2);
    let image = std::fs::read(&paths(dir.path())[0]).unwrap();
    let (journal, recovered) = open(dir.path()).unwrap();
    let tokens = [journal.append(&image), journal.append(b"end")];
    drop((journal, tokens, recovered));
    let path = paths(dir.path()).pop().unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    // Without the outer header, a reader looks for the next record inside the payload.
    bytes[FILE_HEADER] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let (journal, recovered) = open(dir.path()).unwrap();
    assert_eq!(journal.dropped().len(), 1);
    assert_eq!(&recovered.last().unwrap().payload[..], b"end");
    assert_eq!(recovered.len(), 3);
}

#[test]
fn a_newest_file_without_a_whole_header_is_removed() {
    for head in [vec![], vec![0; FILE_HEADER], b"rewind".to_vec()] {
        let dir = TempDir::new().unwrap();
        write(dir.path(), 2);
        std::fs::write(files::path(dir.path(), 2), head).unwrap();
        let (journal, recovered) = open(dir.path()).unwrap();
        assert_eq!(recovered.len(), 2);
        assert_eq!(journal.append(b"next").unwrap().0.file, 2);
    }
}

#[test]
fn another_format_and_a_gap_are_refused() {
    let dir = TempDir::new().unwrap();
    write(dir.path(), 30);
    let path = paths(dir.path()).remove(1);
    let whole = std::fs::read(&path).unwrap();
    let mut newer = whole.clone();
    newer[8] = 9;
    std::fs::write(&path, newer).unwrap();
    let refusal = open(dir.path()).unwrap_err().to_string();
    assert!(refusal.contains("format 9"), "{refusal}");
    std::fs::remove_file(&path).unwrap();
    let refusal = open(dir.path()).unwrap_err().to_string();
    assert!(refusal.contains("missing"), "{refusal}");
    std::fs::write(&path, whole).unwrap();
    assert_eq!(open(dir.path()).unwrap().1.len(), 30);
}

#[test]
fn a_second_open_of_the_same_directory_is_busy() {
    let dir = TempDir::new().unwrap();
    let (journal, _) = open(dir.path()).unwrap();
    let token = journal.append(b"mine").unwrap();
    assert!(matches!(open(dir.path()), Err(JournalError::Busy(at)) if at == dir.path()));
    drop(journal);
    // A token that outlives its journal keeps nothing.
    let (_journal, recovered) = open(dir.path()).unwrap();
    drop(token);
    assert_eq!(recovered.len(), 1);
    assert_eq!(paths(dir.path()).len(), 1);
}

#[test]
fn another_namespace_is_refused() {
    let dir = TempDir::new().unwrap();
    write(dir.path(), 1);
    let other = Uuid::from_u128(8);
    let refused = Journal::open_with(dir.path(), other, 1024);
    let expected = (NAMESPACE, other);
    assert!(
        matches!(refused, Err(JournalError::Foreign { found, expected: asked, .. }) if (found, asked) == expected)
    );
    assert_eq!(open(dir.path()).unwrap().1.len(), 1);
}

#[test]
fn a_clone_of_a_token_keeps_the_file() {
    let dir = TempDir::new().unwrap();
    let (journal, _) = open(dir.path()).unwrap();
    let token = journal.append(&[1; 1000]).unwrap();
    let clone = token.clone();
    let _newest = journal.append(&[2; 1000]).unwrap();
    drop(token);
    assert_eq!(paths(dir.path()).len(), 2);
    drop(clone);
    assert_eq!(paths(dir.path()).len(), 1);
}

#[test]
fn trim_deletes_the_newest_file_only_without_tokens() {
    let dir = TempDir::new().unwrap();
    let (journal, _) = open(dir.path()).unwrap();
    let token = journal.append(b"needed").unwrap();
    journal.trim();
    assert_eq!(paths(dir.path()).len(), 1);
    drop(token);
    journal.trim();
    assert!(paths(dir.path()).is_empty());
    let token = journal.append(b"again").unwrap();
    drop(journal);
    drop(token);
    assert_eq!(payloads(&open(dir.path()).unwrap().1), [b"again"]);
}

#[test]
fn a_full_disk_loses_one_record_and_nothing_else() {
    let dir = TempDir::new().unwrap();
    let (journal, _) = open(dir.path()).unwrap();
    let first = journal.append(b"first").unwrap();
    let full = File::options().write(true).open("/dev/full").unwrap();
    let swap = |file: File| {
        let mut state = lock(&journal.shared.state);
        std::mem::replace(&mut state.files.back_mut().unwrap().file, file)
    };
    let real = swap(full);
    let len = |journal: &Journal| lock(&journal.shared.state).files.back().unwrap().len;
    let before = len(&journal);
    assert!(matches!(
        journal.append(b"lost"),
        Err(JournalError::NoSpace(_))
    ));
    assert_eq!(len(&journal), before);
    swap(real);
    let second = journal.append(b"second").unwrap();
    drop(journal);
    drop((first, second));
    let (_, recovered) = open(dir.path()).unwrap();
    assert_eq!(payloads(&recovered), [&b"first"[..], b"second"]);
}

#[test]
fn a_file_that_cannot_be_created_loses_one_record_and_nothing_else() {
    let dir = TempDir::new().unwrap();
    let (journal, _) = open(dir.path()).unwrap();
    let first = journal.append(&[1; 1000]).unwrap();
    let obstacle = files::path(dir.path(), 2);
    std::fs::create_dir(&obstacle).unwrap();
    assert!(matches!(
        journal.append(b"lost"),
        Err(JournalError::Io { .. })
    ));
    std::fs::remove_dir(&obstacle).unwrap();
    let second = journal.append(&[2; 1000]).unwrap();
    drop(journal);
    drop((first, second));
    assert_eq!(open(dir.path()).unwrap().1.len(), 2);
}

#[test]
fn appends_of_many_threads_are_all_recovered() {
    let dir = TempDir::new().unwrap();
    let (journal, _) = open(dir.path()).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4_u32 {
            let journal = &journal;
            scope.spawn(move || {
                for n in 0..200_u32 {
                    let token = journal.append(&(thread * 1000 + n).to_le_bytes()).unwrap();
                    // The records are to be recovered, so their files must stay.
                    std::mem::forget(token);
                }
            });
        }
    });
    drop(journal);
    let (_, recovered) = open(dir.path()).unwrap();
    let numbers: Vec<u32> = recovered
        .iter()
        .map(|r| u32::from_le_bytes(r.payload[..].try_into().unwrap()))
        .collect();
    assert_eq!(numbers.len(), 800);
    for thread in 0..4 {
        let own: Vec<_> = numbers.iter().filter(|n| **n / 1000 == thread).collect();
        assert!(own.is_sorted());
    }
}

#[test]
fn a_payload_beyond_the_limit_is_refused() {
    let dir = TempDir::new().unwrap();
    let (journal, _) = open(dir.path()).unwrap();
    // Zeroed pages that are never touched use no physical memory.
    let refused = journal.append(&vec![0; PAYLOAD_MAX + 1]);
    assert!(matches!(refused, Err(JournalError::TooLong(len)) if len == PAYLOAD_MAX + 1));
    let token = journal.append(&[7; 5000]).unwrap();
    drop(journal);
    drop(token);
    assert_eq!(open(dir.path()).unwrap().1[0].payload.len(), 5000);
}

#[test]
fn a_snapshot_reads_what_an_open_recovers_and_changes_nothing() {
    let dir = TempDir::new().unwrap();
    write(dir.path(), 12);
    let all = paths(dir.path());
    let mut first = std::fs::read(&all[0]).unwrap();
    first[FILE_HEADER + RECORD_HEADER] ^= 1;
    std::fs::write(&all[0], &first).unwrap();
    let newest = all.last().unwrap();
    let mut cut = std::fs::read(newest).unwrap();
    cut.extend_from_slice(b"unfinished");
    std::fs::write(newest, &cut).unwrap();

    let snapshot = JournalSnapshot::read(dir.path(), NAMESPACE).unwrap();
    assert_eq!(paths(dir.path()), all);
    assert_eq!(std::fs::read(&all[0]).unwrap(), first);
    assert_eq!(std::fs::read(newest).unwrap(), cut);
    let expected: Vec<_> = (1..12).map(numbered).collect();
    assert_eq!(payloads(&snapshot.records), expected);
    assert_eq!(snapshot.damage.len(), 1);
    assert!(matches!(open(dir.path()), Err(JournalError::Busy(_))));
    drop(snapshot);
    let (_journal, recovered) = open(dir.path()).unwrap();
    assert_eq!(payloads(&recovered), expected);
    let busy = JournalSnapshot::read(dir.path(), NAMESPACE);
    assert!(matches!(busy, Err(JournalError::Busy(_))));
    let foreign = JournalSnapshot::read(dir.path(), Uuid::from_u128(8));
    assert!(foreign.is_err());
}

#[test]
fn each_new_file_begins_with_the_newest_head() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open_with(dir.path(), NAMESPACE, 4096).unwrap();
    let first = journal.append(b"before any head").unwrap();
    let second = journal.append_with_head(b"head 1", b"one").unwrap();
    journal.begin_file().unwrap();
    let third = journal.append(b"two").unwrap();
    let large = vec![7; 4096];
    let fourth = journal.append_with_head(b"head 2", &large).unwrap();
    drop(journal);
    let (journal, recovered) = Journal::open_with(dir.path(), NAMESPACE, 4096).unwrap();
    let found: Vec<&[u8]> = recovered.iter().map(|r| &r.payload[..]).collect();
    let expected: [&[u8]; 6] = [
        b"before any head",
        b"one",
        b"head 1",
        b"two",
        b"head 2",
        &large,
    ];
    assert_eq!(found, expected);
    assert!(journal.dropped().is_empty());
    drop((first, second, third, fourth));
}

#[test]
fn a_journal_whose_directory_is_deleted_goes_on_in_a_new_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    let (journal, _) = Journal::open_with(&path, NAMESPACE, 4096).unwrap();
    let before = journal.append(b"before").unwrap();
    std::fs::remove_dir_all(&path).unwrap();
    // The file that is open takes what it can; the next one needs the directory.
    journal.begin_file().unwrap();
    let after = journal.append(b"after").unwrap();
    let busy = Journal::open_with(&path, NAMESPACE, 4096);
    assert!(matches!(busy, Err(JournalError::Busy(_))), "{busy:?}");
    drop(journal);
    let (_journal, recovered) = Journal::open_with(&path, NAMESPACE, 4096).unwrap();
    let found: Vec<&[u8]> = recovered.iter().map(|r| &r.payload[..]).collect();
    assert_eq!(found, [b"after"]);
    drop((before, after));
}
