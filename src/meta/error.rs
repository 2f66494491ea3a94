//! What can go wrong in the index, by what the caller can do about it.

use thiserror::Error;

/// Why the index refused. Each variant carries the engine's own words; clones reach every waiter of one flush.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum MetaError {
    /// Another write came in between. Read again and decide again.
    #[error("the index changed meanwhile: {0}")]
    Conflict(String),
    /// The object store cannot be reached at present. Nothing is lost; ask again later.
    #[error("the index cannot be reached: {0}")]
    Unavailable(String),
    /// A newer writer has taken this namespace over. This one is over for good.
    #[error("another writer took over the index: {0}")]
    Fenced(String),
    /// Stored bytes, or what was asked of the engine, make no sense. Asking again does not help.
    #[error("the index is damaged or of another make: {0}")]
    Corrupt(String),
    /// The store was closed, or its engine has stopped. Only a new open helps.
    #[error("the index is closed: {0}")]
    Closed(String),
}

/// Joins an error and its causes into one line, outermost first, without repeating a cause that the line already tells.
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
