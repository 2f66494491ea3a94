//! The errors of the index, classified by what the caller can do.

use thiserror::Error;

/// Why an operation of the index failed, with the engine's message. Every waiting caller of a flush gets a clone.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum MetaError {
    /// Another write conflicted; the caller may read again and retry.
    #[error("the index changed meanwhile: {0}")]
    Conflict(String),
    /// The object store does not answer at present. No data is lost; a later attempt may succeed.
    #[error("the index cannot be reached: {0}")]
    Unavailable(String),
    /// A newer writer has opened the index. This one cannot write any more.
    #[error("another writer took over the index: {0}")]
    Fenced(String),
    /// Stored bytes or a request to the engine are invalid. Another attempt fails in the same way.
    #[error("the index is damaged or of another make: {0}")]
    Corrupt(String),
    /// The store was closed, or its engine has stopped.
    #[error("the index is closed: {0}")]
    Closed(String),
}

/// Joins the messages of an error and its causes into one line, outermost first, without those that the line already contains.
pub(super) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let text = inner.to_string();
        if !line.contains(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        cause = inner.source();
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Error)]
    #[error("{text}")]
    struct Link {
        text: &'static str,
        source: Option<Box<Self>>,
    }

    #[test]
    fn a_chain_names_every_cause_once() {
        let inner = Link {
            text: "connection refused",
            source: None,
        };
        let middle = Link {
            text: "connection refused",
            source: Some(Box::new(inner)),
        };
        let outer = Link {
            text: "object store error",
            source: Some(Box::new(middle)),
        };
        assert_eq!(chain(&outer), "object store error: connection refused");
    }
}
