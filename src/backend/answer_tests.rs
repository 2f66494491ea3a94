use super::*;

fn answer(status: u16, headers: &[(&'static str, &str)], body: &str) -> HttpResponse {
    let mut answer = HttpResponse::new(body.as_bytes().to_vec().into());
    *answer.status_mut() = status.try_into().unwrap();
    for (name, value) in headers {
        answer.headers_mut().insert(*name, value.parse().unwrap());
    }
    answer
}

fn asked(method: &str, url: &str, range: bool) -> RequestClass {
    let mut request = HttpRequest::new(object_store::client::HttpRequestBody::empty());
    *request.method_mut() = method.parse().unwrap();
    *request.uri_mut() = url.parse().unwrap();
    if range {
        request
            .headers_mut()
            .insert("range", "bytes=0-1".parse().unwrap());
    }
    RequestClass::of(&request)
}

const KEY: &str = "http://host/bucket/main/log/1";
const LIST: &str = "http://host/bucket?list-type=2&prefix=main%2Flog%2F";
const LISTING: &str = "<?xml version=\"1.0\"?>\n<ListBucketResult xmlns=\"x\"><Name>b</Name><Prefix>main/log/</Prefix>\
    <Contents><Key>main/log/1</Key></Contents></ListBucketResult>\n";
const PAGE: &str = "\n <!DOCTYPE HTML><html><body>Sign in</body></html>";
const ABSENT: &str = "<Error><Code>NoSuchKey</Code></Error>";

const OBJECT: [(&str, &str); 2] = [("etag", "\"1\""), ("content-length", "2")];
const XML: [(&str, &str); 1] = [("content-type", "application/xml")];
const HTML: [(&str, &str); 1] = [("content-type", "text/html; charset=utf-8")];
const AZURE: &str = "http://host/c?restype=container&comp=list&prefix=a";

fn get() -> RequestClass {
    asked("GET", KEY, false)
}

fn part() -> RequestClass {
    asked("GET", KEY, true)
}

fn list() -> RequestClass {
    asked("GET", LIST, false)
}

fn delete() -> RequestClass {
    asked("POST", "http://host/bucket?delete", false)
}

fn of_range(told: &str, body: &str) -> HttpResponse {
    answer(
        206,
        &[&OBJECT[..], &[("content-range", told)]].concat(),
        body,
    )
}

#[tokio::test]
async fn what_stores_send_passes() {
    let good = [
        (get(), answer(200, &OBJECT, "ab")),
        (part(), of_range("bytes 0-1/9", "ab")),
        (get(), answer(404, &XML, ABSENT)),
        (get(), answer(404, &[("x-amz-request-id", "1")], "")),
        (get(), answer(304, &[], "")),
        (
            get(),
            answer(403, &XML, "<Error><Code>AccessDenied</Code></Error>"),
        ),
        // The library repeats these by itself.
        (get(), answer(503, &[("content-type", "text/html")], PAGE)),
        (asked("HEAD", KEY, false), answer(200, &OBJECT, "")),
        (asked("HEAD", KEY, false), answer(404, &[], "")),
        (asked("PUT", KEY, false), answer(200, &OBJECT, "")),
        (asked("PUT", KEY, false), answer(412, &XML, "<Error/>")),
        (asked("DELETE", KEY, false), answer(204, &[], "")),
        (list(), answer(200, &XML, LISTING)),
        (list(), answer(200, &XML, "<ListBucketResult/>")),
        (
            asked("GET", AZURE, false),
            answer(
                200,
                &XML,
                "<EnumerationResults><Prefix>a</Prefix><Blobs/></EnumerationResults>",
            ),
        ),
        (
            delete(),
            answer(200, &XML, "<DeleteResult xmlns=\"x\"></DeleteResult>"),
        ),
        (
            delete(),
            answer(200, &XML, "<Error><Code>InternalError</Code></Error>"),
        ),
    ];
    for (asked, answer) in good {
        let shown = format!("{asked:?}: {answer:?}");
        let passed = from_store(&asked, answer).await;
        assert!(passed.is_ok(), "{shown}: {passed:?}");
    }
}

#[tokio::test]
async fn what_stores_cannot_have_sent_does_not_pass() {
    let other = LISTING.replace("main/log/<", "main/data/<");
    let bad = [
        (get(), answer(200, &HTML, PAGE)),
        (get(), answer(200, &[], PAGE)),
        (get(), answer(200, &[], "")),
        (get(), answer(200, &OBJECT[1..], "ab")),
        (get(), answer(200, &OBJECT[..1], "ab")),
        (get(), answer(404, &[("content-type", "text/html")], PAGE)),
        (get(), answer(404, &[], "")),
        (
            get(),
            answer(
                404,
                &XML,
                "<Error><Code>NoSuchKey</Code><Key>main/log/2</Key></Error>",
            ),
        ),
        (get(), answer(403, &[], PAGE)),
        (part(), of_range("bytes 0-4/9", "ab")),
        (part(), of_range("2 bytes", "ab")),
        (part(), answer(206, &OBJECT, "ab")),
        (asked("HEAD", KEY, false), answer(200, &HTML, "")),
        (
            asked("HEAD", KEY, false),
            answer(404, &[("content-type", "text/html")], ""),
        ),
        (
            asked("HEAD", KEY, false),
            answer(200, &[("content-length", "0")], ""),
        ),
        (asked("PUT", KEY, false), answer(200, &[], "")),
        (asked("PUT", KEY, false), answer(412, &[], PAGE)),
        (asked("DELETE", KEY, false), answer(200, &[], "")),
        (list(), answer(200, &[], "")),
        (list(), answer(404, &[], "")),
        (asked("PUT", KEY, false), answer(404, &[], "")),
        (list(), answer(200, &HTML, PAGE)),
        (list(), answer(200, &[], "<html><body></body></html>")),
        (list(), answer(200, &XML, &LISTING[..LISTING.len() / 2])),
        (list(), answer(200, &XML, &format!("{LISTING}and more"))),
        (list(), answer(200, &XML, &other)),
        (asked("GET", AZURE, false), answer(200, &XML, LISTING)),
        (delete(), answer(200, &[], "")),
        (delete(), answer(200, &[], PAGE)),
        (
            asked("POST", &format!("{KEY}?uploads="), false),
            answer(200, &[], PAGE),
        ),
        (
            asked("POST", &format!("{KEY}?uploadId=1"), false),
            answer(200, &[], ""),
        ),
    ];
    for (asked, answer) in bad {
        let shown = format!("{asked:?}: {answer:?}");
        let error = from_store(&asked, answer).await.expect_err(&shown);
        assert_eq!(error.kind(), HttpErrorKind::Request, "{shown}");
        assert!(
            error.to_string().contains("no answer of an object store"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_token_that_is_handed_out_can_be_sent_back() {
    for (body, passed) in [
        ("token\n", "token"),
        ("role-name", "role-name"),
        ("{\"AccessKeyId\": \"a\"}\n", "{\"AccessKeyId\": \"a\"}\n"),
        ("<AssumeRole/>", "<AssumeRole/>"),
    ] {
        let answer = from_credentials(answer(200, &[], body)).await.unwrap();
        assert_eq!(answer.into_body().bytes().await.unwrap(), passed);
    }
    for body in ["to\nken", "t\u{1}", PAGE, "<html></html>"] {
        from_credentials(answer(200, &[], body)).await.unwrap_err();
    }
    from_credentials(answer(403, &[], PAGE)).await.unwrap();
}
