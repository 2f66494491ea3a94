//! Which reads make a run, and what is fetched ahead of it.

use super::*;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const FREE: u64 = 64 * MIB;

/// Notes a read; returns the step that it begins.
fn begun(runs: &ReadAhead, offset: u64, len: u64, free: u64) -> Option<NextStep> {
    match runs.note(offset, len, free) {
        ReadStart::Begin(step) => Some(step),
        ReadStart::Plain | ReadStart::Await(_) => None,
    }
}

/// Notes reads of 128 KiB in order from `offset` on until `end`; returns the steps that they begin, as ranges.
fn in_order(runs: &ReadAhead, offset: u64, end: u64) -> Vec<(u64, u64)> {
    let reads = (offset..end).step_by(128 << 10);
    let steps = reads.filter_map(|at| begun(runs, at, 128 * KIB, FREE));
    steps.map(|step| (step.from, step.to)).collect()
}

#[test]
fn the_steps_of_a_run_double_and_end_where_segments_do() {
    let runs = ReadAhead::default();
    let steps = in_order(&runs, 0, 80 * MIB);
    let expected = [
        (256 * KIB, 1280 * KIB),
        (1280 * KIB, 3328 * KIB),
        (3328 * KIB, 8 * MIB),
        (8 * MIB, 16 * MIB),
        (16 * MIB, 32 * MIB),
        (32 * MIB, 64 * MIB),
        (64 * MIB, 96 * MIB),
        (96 * MIB, 128 * MIB),
    ];
    assert_eq!(steps, expected);
}

#[test]
fn a_step_leaves_half_of_the_free_budget_to_others() {
    let runs = ReadAhead::default();
    assert!(begun(&runs, 0, 256 * KIB, MIB).is_none());
    let step = begun(&runs, 256 * KIB, 256 * KIB, MIB).unwrap();
    assert_eq!((step.from, step.to), (512 * KIB, MIB));
    let runs = ReadAhead::default();
    for at in 0..20 {
        assert!(begun(&runs, at * 128 * KIB, 128 * KIB, 511 * KIB).is_none());
    }
    assert!(
        begun(&runs, 20 * 128 * KIB, 128 * KIB, FREE).is_some(),
        "the run goes on when there is room again"
    );
}

#[test]
fn a_long_run_waits_for_room_while_enough_is_fetched_ahead() {
    let step = |free: u64, from: u64, to: u64| {
        let runs = ReadAhead::default();
        assert_eq!(in_order(&runs, 0, 16 * MIB).len(), 5, "up to 32 MiB");
        let reads = (from..to).step_by(128 << 10);
        let mut steps = reads.filter_map(|at| begun(&runs, at, 128 * KIB, free));
        steps.next().map(|step| (step.from, step.to))
    };
    assert_eq!(step(6 * MIB, 16 * MIB, 28 * MIB), None);
    let short = Some((32 * MIB, 35 * MIB));
    assert_eq!(step(6 * MIB, 16 * MIB, 32 * MIB), short, "near its end");
    let long = Some((32 * MIB, 40 * MIB));
    assert_eq!(step(16 * MIB, 16 * MIB, 17 * MIB), long);
}

#[test]
fn reads_without_order_fetch_nothing() {
    let runs = ReadAhead::default();
    let mut at = 1_u64;
    for _ in 0..100_000 {
        at = at * 48_271 % 0x7fff_ffff;
        assert!(begun(&runs, (at % 16_384) * 4096, 4096, FREE).is_none());
    }
}

#[test]
fn several_runs_of_one_handle_are_followed() {
    let runs = ReadAhead::default();
    let mut steps = [0; 4];
    for read in 0..64 {
        for (run, steps) in steps.iter_mut().enumerate() {
            let at = run as u64 * 1024 * MIB + read * 128 * KIB;
            *steps += u32::from(begun(&runs, at, 128 * KIB, FREE).is_some());
        }
    }
    assert_eq!(steps, [4; 4]);
}

#[test]
fn reads_that_come_late_or_skip_a_little_belong_to_the_run() {
    let runs = ReadAhead::default();
    assert_eq!(in_order(&runs, 0, 512 * KIB).len(), 1);
    for at in [768, 512, 640, 1024, 896, 1152] {
        let _step = begun(&runs, at * KIB, 128 * KIB, FREE);
    }
    // Every second block of 64 KiB.
    let mut steps = 0;
    for at in (1280..16_384).step_by(128) {
        steps += u32::from(begun(&runs, at * KIB, 64 * KIB, FREE).is_some());
    }
    assert_eq!(
        lock(&runs.runs).runs.len(),
        1,
        "they made no run of their own"
    );
    assert!(steps >= 3, "{steps} steps");
}

#[test]
fn a_reader_that_skips_more_than_it_reads_is_no_run_any_more() {
    let runs = ReadAhead::default();
    assert_eq!(in_order(&runs, 0, 8 * MIB).len(), 4);
    let skipping = (8..1024).filter_map(|at| begun(&runs, at * MIB, 4 * KIB, FREE));
    // The first of them goes on where the run ended.
    assert_eq!(skipping.count(), 1);
}

#[test]
fn nothing_is_fetched_behind_the_end_of_the_file() {
    let runs = ReadAhead::default();
    let step = (0..3).find_map(|at| begun(&runs, at * 128 * KIB, 128 * KIB, FREE));
    runs.fetched(&step.unwrap(), StepEnd::OfFile, None);
    assert_eq!(in_order(&runs, 384 * KIB, 8 * MIB), []);
}

#[tokio::test]
async fn a_request_is_told_when_its_reader_has_passed_or_is_gone() {
    let runs = ReadAhead::default();
    let step = (0..3).find_map(|at| begun(&runs, at * 128 * KIB, 128 * KIB, FREE));
    let step = step.unwrap();
    let (first, second) = (Stretch::new(768 * KIB), Stretch::new(step.to));
    let (passed, gone) = (first.watch(), second.watch());
    runs.fetched(&step, StepEnd::At(768 * KIB), Some(first));
    runs.fetched(&step, StepEnd::At(step.to), Some(second));
    drop(in_order(&runs, 384 * KIB, 768 * KIB + 1));
    passed.clone().over().await;
    let pause = std::time::Duration::from_millis(20);
    let waits = tokio::time::timeout(pause, passed.abandoned());
    assert!(
        waits.await.is_err(),
        "a stretch that was passed is not abandoned"
    );
    drop(runs);
    gone.clone().abandoned().await;
    gone.over().await;
}

#[tokio::test]
async fn a_read_waits_for_the_reservation_of_a_step_that_it_needs() {
    let runs = ReadAhead::default();
    let step = (0..2).find_map(|at| begun(&runs, at * 128 * KIB, 128 * KIB, FREE));
    let before = runs.note(0, 128 * KIB, FREE);
    assert!(matches!(before, ReadStart::Plain), "{before:?}");
    let ReadStart::Await(reserved) = runs.note(256 * KIB, 128 * KIB, FREE) else {
        panic!("a read of bytes that are being resolved");
    };
    let (_, ()) = tokio::join!(reserved.wait(), async { drop(step) });
    // Later ones do not wait.
    let ReadStart::Await(reserved) = runs.note(384 * KIB, 128 * KIB, FREE) else {
        panic!("a read of bytes of the last step");
    };
    reserved.wait().await;
}
