//! Lists with a limit, decoded from bytes that another program may have written.
//!
//! An element of a byte may take a hundred bytes in memory, so that the length of what is decoded is no limit of what it takes.

use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};
use std::fmt;
use std::marker::PhantomData;

/// Elements for which memory is allocated before they are decoded.
const AHEAD: usize = 1024;

/// Decodes a list of at most `MOST` elements.
///
/// # Errors
/// That of the decoder; a longer list.
pub(crate) fn list_of_at_most<'de, const MOST: usize, T, D>(decoder: D) -> Result<Vec<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    decoder.deserialize_seq(BoundedList::<MOST, T>(PhantomData))
}

/// Collects the elements.
struct BoundedList<const MOST: usize, T>(PhantomData<T>);

impl<'de, const MOST: usize, T: Deserialize<'de>> Visitor<'de> for BoundedList<MOST, T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at most {MOST} elements")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Vec<T>, A::Error> {
        let told = elements.size_hint().unwrap_or(0);
        if told > MOST {
            return Err(A::Error::invalid_length(told, &self));
        }
        let mut list = Vec::with_capacity(told.min(AHEAD));
        while let Some(element) = elements.next_element()? {
            if list.len() == MOST {
                return Err(A::Error::invalid_length(MOST + 1, &self));
            }
            list.push(element);
        }
        Ok(list)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    struct Three {
        #[serde(deserialize_with = "list_of_at_most::<3, _, _>")]
        list: Vec<()>,
    }

    #[test]
    fn a_list_up_to_its_limit_is_decoded_and_a_longer_one_is_not() {
        for len in 0..6 {
            let whole = Three {
                list: vec![(); len],
            };
            let bytes = postcard::to_allocvec(&whole).unwrap();
            let json = serde_json::to_vec(&whole).unwrap();
            assert_eq!(postcard::from_bytes::<Three>(&bytes).is_ok(), len <= 3);
            assert_eq!(serde_json::from_slice::<Three>(&json).is_ok(), len <= 3);
        }
        // A count that lies, with no element behind it.
        let count = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
        assert!(postcard::from_bytes::<Three>(&count).is_err());
    }
}
