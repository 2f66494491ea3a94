//! What becomes of a lease.

/// What has become of a lease.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaseStatus {
    /// Whether it was lost.
    pub standing: LeaseStanding,
    /// How often it was over and was not renewed in time: the process or the machine stood still, or the bucket did not answer while another
    /// process waited.
    pub lapses: u64,
    /// The machine of the process that waits for the namespace.
    pub watched_by: Option<String>,
}

/// Whether a writer has its lease.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LeaseStanding {
    /// It has it, or renews it.
    #[default]
    Held,
    /// Another process has taken the namespace; its machine, if it is known.
    Lost(Option<String>),
}
