//! Faults that are planted in retention: the walk finds each.

use super::walk::walk;
use super::work::Work;
use crate::store::model::failpoints::PlantedFault;

/// Walks with a fault until a comparison with the model fails. Returns what that says.
fn found(fault: PlantedFault) -> String {
    // Few names, so that each gets versions that no grid time of days keeps.
    let work = Work {
        directories: 2,
        names: 5,
        days: 60,
        steps: 14,
        policies: false,
        limits: false,
        trees: false,
        part_bytes: 64 << 10,
        crashes: 7,
        recounts: 1,
        fault: Some(fault),
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    // Not every walk has a version that falls due in the hour of a run.
    let panic = (1..=8).find_map(|seed| {
        let walk = || runtime.block_on(walk(seed, work));
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(walk)).err()
    });
    let panic = panic.expect("a walk finds the fault");
    *panic
        .downcast::<String>()
        .expect("a message of a comparison")
}

#[test]
fn the_walk_finds_a_run_that_drops_versions_an_hour_early() {
    let found = found(PlantedFault::EarlyExpiry);
    assert!(found.starts_with("lost [(("), "{found}");
}

#[test]
fn the_walk_finds_one_version_that_a_label_does_not_keep() {
    let found = found(PlantedFault::ShortLabel);
    assert!(found.starts_with("lost [(("), "{found}");
}

#[test]
fn the_walk_finds_one_drop_that_does_not_extend_the_version_before() {
    let found = found(PlantedFault::NoExtension);
    assert!(found.starts_with("lost [(("), "{found}");
}

#[test]
fn the_walk_finds_one_dropped_version_whose_content_stays_counted() {
    let found = found(PlantedFault::StuckCounter);
    assert!(found.contains("wrong counts"), "{found}");
}
