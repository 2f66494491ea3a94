//! `writer.json`: which process writes a namespace, and that it is alive.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use uuid::Uuid;

const FORMAT: u32 = 1;

/// The object's key, relative to the namespace.
pub(crate) const KEY: &str = "writer.json";

/// What the writer does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum WriterPhase {
    /// It has taken the namespace and opens it.
    Opening,
    /// It writes.
    Writing,
    /// It has ended in order: the namespace is free.
    Ended,
}

/// A process that waits for the namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WaiterNotice {
    /// The process.
    pub(crate) waiter: Uuid,
    /// Its machine, for messages only.
    pub(crate) host: String,
    /// Counts its notices, so that each is seen.
    pub(crate) notice: u64,
}

/// The content of `writer.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WriterObject {
    format: u32,
    /// The id of the cache directory with which the writer works.
    pub(crate) writer: Uuid,
    /// The id of this opening of the namespace.
    pub(crate) session: Uuid,
    /// The writer's epoch; while it opens the namespace, that of its cache directory's last writer.
    pub(crate) epoch: u64,
    /// Its machine, for messages only.
    pub(crate) host: String,
    pub(crate) phase: WriterPhase,
    /// Counts the writer's heartbeats.
    pub(crate) beat: u64,
    /// How long the writer may answer after this heartbeat without another one, in milliseconds.
    lease_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) waiter: Option<WaiterNotice>,
}

impl WriterObject {
    /// Makes the first state of a writer that opens the namespace.
    pub(crate) fn opening(writer: Uuid, session: Uuid, epoch: u64, host: &str) -> Self {
        Self {
            format: FORMAT,
            writer,
            session,
            epoch,
            host: host.to_owned(),
            phase: WriterPhase::Opening,
            beat: 0,
            lease_ms: 0,
            waiter: None,
        }
    }

    /// Returns how long the writer may answer after this heartbeat.
    pub(crate) fn lease(&self) -> Duration {
        Duration::from_millis(self.lease_ms)
    }

    /// Sets how long the writer may answer after this heartbeat.
    pub(crate) fn set_lease(&mut self, lease: Duration) {
        self.lease_ms = u64::try_from(lease.as_millis()).unwrap_or(u64::MAX);
    }

    pub(crate) fn encode(&self) -> Bytes {
        // proof: the object is plain data with string keys.
        let text = serde_json::to_vec_pretty(self).expect("a writer is plain data");
        Bytes::from(text)
    }

    /// Decodes the object.
    ///
    /// # Errors
    /// The text says what is wrong: another format, or bytes that are none.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, String> {
        let object: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        match object.format {
            FORMAT => Ok(object),
            format => Err(format!("format {format}, this build knows {FORMAT}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_decoded_as_it_was_encoded_and_other_formats_are_refused() {
        let (writer, session) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let mut object = WriterObject::opening(writer, session, 3, "host");
        object.set_lease(Duration::from_secs(5));
        object.waiter = Some(WaiterNotice {
            waiter: Uuid::from_u128(4),
            host: "other".to_owned(),
            notice: 6,
        });
        assert_eq!(WriterObject::decode(&object.encode()).unwrap(), object);
        assert_eq!(object.lease(), Duration::from_secs(5));
        object.format = 2;
        let refused = WriterObject::decode(&object.encode()).unwrap_err();
        assert!(refused.contains("format 2"), "{refused}");
        assert!(WriterObject::decode(b"{}").is_err());
        assert!(WriterObject::decode(b"").is_err());
    }
}
