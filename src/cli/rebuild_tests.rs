use super::*;
use crate::cli::{Arguments, Command};
use crate::store::{LostObject, NewerSegments};
use clap::Parser;

fn job(words: &[&str]) -> Result<RebuildJob, String> {
    let words = ["rewindfs", "rebuild"].iter().chain(words);
    let parsed = Arguments::try_parse_from(words).map_err(|error| error.to_string())?;
    let Command::Rebuild(arguments) = parsed.command else {
        return Err("another command".to_owned());
    };
    RebuildJob::new(arguments).map_err(|cli_error| {
        assert_eq!(cli_error.status(), 2);
        cli_error.message
    })
}

fn report() -> RebuildReport {
    RebuildReport {
        outcome: RebuildOutcome::Complete,
        from: RebuiltFrom::Log,
        uuid: uuid::Uuid::nil(),
        uuid_origin: UuidOrigin::Kept,
        log_objects: 7,
        rows: 40,
        files: 3,
        bytes: 1 << 20,
        versions: 5,
        labels: 2,
        wrong_counts: 0,
        losses: RebuildLosses::default(),
        newer: NewerSegments::default(),
    }
}

#[test]
fn arguments_that_make_no_sense_are_refused_by_their_flag() {
    for (words, part) in [
        (&["file:///x"][..], "--to"),
        (&["--to", "new"], "URL"),
        (&["file:///x", "--to", "A"], "--to: invalid"),
        (&["file:///x", "--to", "main"], "choose another name"),
        (
            &["file:///x", "--namespace", "a//b", "--to", "b"],
            "--namespace: invalid",
        ),
    ] {
        let message = job(words).unwrap_err();
        assert!(message.contains(part), "{words:?}: {message}");
    }
    assert!(job(&["file:///x", "--to", "main-2"]).is_ok());
}

#[test]
fn the_last_line_is_the_next_command() {
    let job = job(&["file:///x", "--to", "new"]).unwrap();
    let text = job.as_text(&report());
    let last = text.lines().last().unwrap().trim();
    assert_eq!(last, "rewindfs mount file:///x DIR --namespace new");
    for part in [
        "7 objects",
        "3 files of 1.0 MiB, 5 earlier versions, 2 labels",
    ] {
        assert!(text.contains(part), "{text}");
    }
    assert!(!text.contains("lost"), "{text}");
}

#[test]
fn what_is_lost_is_named_by_object_and_time() {
    let job = job(&["file:///x", "--to", "new"]).unwrap();
    let mut lossy = report();
    lossy.outcome = RebuildOutcome::Refused;
    lossy.uuid_origin = UuidOrigin::New;
    lossy.newer.segments = 4;
    lossy.losses.log_objects = 30;
    lossy.losses.named_log_objects = vec![
        LostObject {
            key: "log/1".to_owned(),
            what: "is missing".to_owned(),
        };
        30
    ];
    lossy.losses.times = vec![LostTime {
        after_ns: Some(1_767_268_800_000_000_000),
        until_ns: None,
    }];
    lossy.losses.segments = 1;
    lossy.losses.named_segments = vec!["data/1".to_owned()];
    let text = job.as_text(&lossy);
    for part in [
        "lost: object log/1: is missing",
        "and 10 more log objects",
        "lost: changes after 2026-01-01T12:00:00Z",
        "lost: object data/1",
        "4 segments",
        "has a new id",
    ] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
    assert!(!text.contains("mount it with"), "{text}");
    let json = as_json(&job.request, &lossy);
    assert_eq!(json["complete"], false);
    assert_eq!(json["lost"]["log_objects"], 30);
}
