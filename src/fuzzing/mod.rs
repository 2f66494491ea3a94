//! Fuzzing of the decoders: of bytes that come from the bucket, from the cache directory, from a client of the control socket, or from a
//! command line. No such bytes may end the program.
//!
//! A target panics where its decoder does, and where what was accepted is something else after it was encoded and decoded again.
//! The tests run each target for a moment; `cargo run --profile fuzz --features fuzzing --example fuzz` runs them for as long as it is told to.

mod corpus;
mod targets;

pub use corpus::Fuzzer;
pub use targets::{FuzzTarget, targets};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_target_panics_and_each_accepts_something() {
        let (mut refusing, mut panicking) = (Vec::new(), Vec::new());
        for target in targets() {
            let run = || {
                let mut fuzzer = Fuzzer::new(&target, 7);
                fuzzer.run(4000);
                fuzzer.accepted()
            };
            match std::panic::catch_unwind(run) {
                Ok(0) => refusing.push(target.name),
                Ok(_) => {}
                Err(_) => panicking.push(target.name),
            }
        }
        assert!(panicking.is_empty(), "panics in {panicking:?}");
        assert!(refusing.is_empty(), "nothing was accepted by {refusing:?}");
    }

    #[test]
    fn equal_seeds_give_equal_runs() {
        let targets = targets();
        let run = |seed| {
            let mut fuzzer = Fuzzer::new(&targets[0], seed);
            fuzzer.run(500);
            (fuzzer.accepted(), fuzzer.digest())
        };
        assert_eq!(run(1), run(1));
        assert_ne!(run(1).1, run(2).1);
    }
}
