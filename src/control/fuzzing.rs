//! What the fuzzer calls of the control socket.

use super::{Request, Response, RuntimeFile};

/// Reads a request.
pub(crate) fn request(line: &[u8]) -> bool {
    let Ok(request) = serde_json::from_slice::<Request>(line) else {
        return false;
    };
    round_trip(&request)
}

/// Reads an answer.
pub(crate) fn response(line: &[u8]) -> bool {
    let Ok(response) = serde_json::from_slice::<Response>(line) else {
        return false;
    };
    round_trip(&response)
}

/// Reads a runtime file, which root reads of other users.
pub(crate) fn runtime_file(text: &[u8]) -> bool {
    let Ok(file) = serde_json::from_slice::<RuntimeFile>(text) else {
        return false;
    };
    let _path = file.mountpoint();
    round_trip(&file)
}

fn round_trip<T: serde::Serialize + serde::de::DeserializeOwned + PartialEq>(value: &T) -> bool {
    let again = serde_json::to_vec(value).ok();
    let again = again.and_then(|text| serde_json::from_slice::<T>(&text).ok());
    assert!(
        again.is_some_and(|again| again == *value),
        "another value after a round trip"
    );
    true
}
