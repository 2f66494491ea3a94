use super::*;
use crate::sync::{AtomicUsize, Ordering};

#[test]
fn white_space_at_the_end_is_cut_and_what_cannot_be_sent_is_refused() {
    for (value, used, clean) in [
        ("key", Use::Sent, Ok("key")),
        ("key\n", Use::Sent, Ok("key")),
        ("key \t\r\n", Use::Sent, Ok("key")),
        ("two words", Use::Sent, Ok("two words")),
        ("a\nb", Use::Sent, Err("line break")),
        ("\nb", Use::Sent, Err("line break")),
        ("a\u{7f}", Use::Sent, Err("control")),
        ("a\tb", Use::Sent, Err("control")),
        ("schl\u{fc}ssel", Use::Sent, Err("not ASCII")),
        ("schl\u{fc}ssel", Use::Kept, Ok("schl\u{fc}ssel")),
        ("a\rb", Use::Kept, Err("line break")),
        ("{\n}\n", Use::Document, Ok("{\n}")),
    ] {
        match (cleaned(value, used), clean) {
            (Ok(found), Ok(wanted)) => assert_eq!(found, wanted),
            (Err(found), Err(wanted)) => assert!(found.contains(wanted), "{found}"),
            (found, _) => panic!("{value:?}: {found:?}"),
        }
    }
}

#[test]
fn variables_are_refused_by_name_and_without_their_value() {
    use std::os::unix::ffi::OsStrExt;
    let refused = |name: &str, value: &[u8]| {
        let error = variable(name, OsStr::from_bytes(value)).unwrap_err();
        assert!(matches!(error, BackendError::Invalid { .. }));
        error.to_string()
    };
    for (name, value) in [
        ("AWS_SECRET_ACCESS_KEY", &b"hid\nden"[..]),
        ("AWS_ACCESS_KEY_ID", b"hid\xc3\xbcden"),
        ("AWS_SESSION_TOKEN", b"hid\xffden"),
        ("AWS_REGION", b"hid\rden"),
        ("AZURE_STORAGE_TOKEN", b"hid\nden"),
        ("IDENTITY_HEADER", b"hid\nden"),
        ("GOOGLE_BEARER_TOKEN", b"hid\nden"),
    ] {
        let told = refused(name, value);
        assert!(told.contains(name) && !told.contains("den"), "{told}");
    }
    let key = OsStr::new("{\"private_key\": \"a\nb\"}\n");
    assert!(variable("GOOGLE_SERVICE_ACCOUNT_KEY", key).is_ok());
    let token = variable("AWS_SESSION_TOKEN", OsStr::new("token\r\n")).unwrap();
    assert_eq!(token, "token");
}

/// Hands out what its file has, as the library does.
#[derive(Debug)]
struct Reader(String, AtomicUsize);

#[async_trait]
impl CredentialProvider for Reader {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        self.1.fetch_add(1, Ordering::SeqCst);
        let token = std::fs::read_to_string(&self.0).unwrap();
        // A token that cannot be a header is a panic in the library.
        assert!(!token.contains('\n'), "the library panics");
        if token.is_empty() {
            return Err(unauthenticated("no token".to_owned()));
        }
        Ok(Arc::new(AwsCredential {
            key_id: "key".to_owned(),
            secret_key: "hidden\n".to_owned(),
            token: Some(token),
        }))
    }
}

#[tokio::test]
async fn a_token_file_is_followed_through_what_is_wrong_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("token");
    let write = |text: &[u8]| {
        let new = dir.path().join("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(&new, &path).unwrap();
    };
    let file = TokenFile::new(path.to_str().unwrap()).unwrap();
    let inner = Arc::new(Reader(file.path(), AtomicUsize::new(0)));
    let checked = Checked::new(inner, vec![file]);
    let token = async || {
        let got = checked.get_credential().await.map_err(|e| e.to_string())?;
        assert_eq!(got.secret_key, "hidden");
        Ok::<_, String>(got.token.clone().unwrap())
    };
    for bad in [None, Some(&b"a\nb\n"[..]), Some(b"\xff"), Some(b" \n")] {
        if let Some(bad) = bad {
            write(bad);
        }
        let error = token().await.unwrap_err();
        assert!(error.contains(path.to_str().unwrap()), "{error}");
    }
    write(b"one\r\n");
    assert_eq!(token().await.unwrap(), "one");
    // The token before may still be good.
    write(b"broken\ntoken");
    assert_eq!(token().await.unwrap(), "one");
    write(b"second\n");
    assert_eq!(token().await.unwrap(), "second");
}

#[tokio::test]
async fn a_panic_of_the_library_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("token");
    std::fs::write(&path, "a\nb").unwrap();
    let inner = Arc::new(Reader(
        path.to_str().unwrap().to_owned(),
        AtomicUsize::new(0),
    ));
    let checked = Checked::new(inner, Vec::new());
    for _ in 0..2 {
        let error = checked.get_credential().await.unwrap_err();
        assert!(matches!(error, Error::Unauthenticated { .. }), "{error}");
    }
    std::fs::write(&path, "a").unwrap();
    assert!(checked.get_credential().await.is_ok());
}

#[test]
fn what_a_service_hands_out_is_checked_too() {
    let bad = AwsCredential {
        key_id: "a\u{0}".to_owned(),
        secret_key: String::new(),
        token: None,
    };
    assert!(Arc::new(bad).sendable().unwrap_err().contains("key id"));
    let token = AzureCredential::BearerToken("token\n".to_owned());
    let clean = AzureCredential::BearerToken("token".to_owned());
    assert_eq!(*Arc::new(token).sendable().unwrap(), clean);
    let bearer = "to\nken".to_owned();
    assert!(Arc::new(GcpCredential { bearer }).sendable().is_err());
}
