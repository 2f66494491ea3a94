//! What a mount does before it answers: replays the journal, and keeps what another writer has overtaken as conflicts.

pub(crate) mod conflict;
pub(crate) mod conflict_version;
pub(crate) mod evidence;
pub(crate) mod journal;
pub(crate) mod mount;
pub(crate) mod replay;
pub(crate) mod superseded;
