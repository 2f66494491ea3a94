//! What a world did, in figures.

use std::fmt;
use std::time::Duration;

/// What a world did.
#[derive(Debug, Clone, Default)]
pub(crate) struct WorldReport {
    pub(crate) digest: u64,
    pub(crate) operations: u64,
    pub(crate) crashes: u64,
    pub(crate) requests: u64,
    pub(crate) takeovers: u64,
    pub(crate) moments: u64,
    pub(crate) followers: u64,
    pub(crate) virtual_time: Duration,
    pub(crate) violations: Vec<String>,
}

impl WorldReport {
    pub(crate) fn add(&mut self, other: &Self) {
        self.operations += other.operations;
        self.crashes += other.crashes;
        self.requests += other.requests;
        self.takeovers += other.takeovers;
        self.moments += other.moments;
        self.followers += other.followers;
        self.virtual_time += other.virtual_time;
    }
}

impl fmt::Display for WorldReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} operations, {} crashes, {} takeovers, {} moments of the past and {} followers compared, {} requests, {} s of virtual time",
            self.operations,
            self.crashes,
            self.takeovers,
            self.moments,
            self.followers,
            self.requests,
            self.virtual_time.as_secs()
        )
    }
}
