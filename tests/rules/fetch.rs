//! Rules S1 to S3: the token request, its retries, and what its failures are called.

use std::{
    io,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{Method, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use tokio::time::{Instant, sleep};
use tower::{BoxError, ServiceExt, service_fn};
use tower_symbl_auth::{
    Credentials, FetchReason, FetchToken, SymblAuthLayer, TokenError, TokenErrorKind, TokenRequest,
};

use crate::{endpoint::*, support::*};

/// S1
#[tokio::test(start_paused = true)]
async fn the_request_is_what_symbl_documents() {
    let endpoint = Endpoint::default();
    endpoint.token().await.unwrap();
    let (_, request) = endpoint.requests.lock().unwrap().pop().unwrap();
    assert_eq!(request.method(), Method::POST);
    assert_eq!(request.uri(), "https://api.symbl.ai/oauth2/token:generate");
    assert_eq!(request.headers()["content-type"], "application/json");
    assert_eq!(request.headers()["accept"], "application/json");
    let agent = concat!("tower-symbl-auth/", env!("CARGO_PKG_VERSION"));
    assert_eq!(request.headers()["user-agent"], agent);
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let expected = r#"{"type":"application","appId":"the-id","appSecret":"the-secret"}"#;
    assert_eq!(body, expected);
}

/// S1
#[tokio::test(start_paused = true)]
async fn transient_failures_are_tried_again_up_to_three_attempts() {
    let transient = [408, 429, 500, 502, 503, 504].map(status as fn(u16) -> Reply);
    for reply in transient.into_iter().chain([broken()]) {
        let endpoint = Endpoint::replying([reply]);
        endpoint.token().await.unwrap();
        assert_eq!(endpoint.requests(), 2);
    }
    let endpoint = Endpoint::replying([status(503), broken(), status(500), ok()]);
    let error = endpoint.token().await.unwrap_err();
    assert_eq!(error.status(), Some(StatusCode::INTERNAL_SERVER_ERROR));
    assert_eq!(endpoint.requests(), 3);
}

/// S1
#[tokio::test(start_paused = true)]
async fn other_failures_are_not_tried_again() {
    for code in [301, 302, 400, 401, 403, 404, 409, 501, 505] {
        let endpoint = Endpoint::replying([status(code)]);
        let error = endpoint.token().await.unwrap_err();
        assert_eq!(error.status().unwrap().as_u16(), code);
        assert_eq!(endpoint.requests(), 1, "{code}");
    }
}

/// S1
#[tokio::test(start_paused = true)]
async fn the_status_decides_the_kind() {
    for (code, kind) in [
        (400, TokenErrorKind::Credentials),
        (401, TokenErrorKind::Credentials),
        (403, TokenErrorKind::Credentials),
        (408, TokenErrorKind::Unavailable),
        (429, TokenErrorKind::RateLimited),
        (500, TokenErrorKind::Unavailable),
        (503, TokenErrorKind::Unavailable),
        (302, TokenErrorKind::InvalidResponse),
        (404, TokenErrorKind::InvalidResponse),
    ] {
        // Whatever its body is.
        for body in [String::new(), "<html>".to_owned(), "x".repeat(100_000)] {
            let replies = || {
                let response = Response::builder().status(code).body(body.clone().into());
                Ok(response.unwrap())
            };
            let endpoint = Endpoint::replying([replies(), replies(), replies()]);
            assert_eq!(endpoint.token().await.unwrap_err().kind(), kind, "{code}");
        }
    }
    let endpoint = Endpoint::replying([broken(), broken(), broken()]);
    let error = endpoint.token().await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Unavailable);
    let source = std::error::Error::source(&error).unwrap();
    assert!(
        source.is::<io::Error>(),
        "the client's own error is its source"
    );
}

/// S1
#[tokio::test(start_paused = true)]
async fn retries_come_after_a_full_jitter_of_200_then_400_milliseconds() {
    let mut gaps = [Vec::new(), Vec::new()];
    for _ in 0..200 {
        let endpoint = Endpoint::replying([broken(), broken()]);
        endpoint.token().await.unwrap();
        let requests = endpoint.requests.lock().unwrap();
        gaps[0].push(requests[1].0 - requests[0].0);
        gaps[1].push(requests[2].0 - requests[1].0);
    }
    for (gaps, longest) in gaps.iter().zip([200, 400]) {
        // Tokio's timers count milliseconds, rounded up.
        let longest = Duration::from_millis(longest + 1);
        let (low, high) = (gaps.iter().min().unwrap(), gaps.iter().max().unwrap());
        assert!(*high <= longest && *high > longest * 3 / 4, "{high:?}");
        assert!(*low < longest / 4, "{low:?}");
    }
}

/// S1
#[tokio::test(start_paused = true)]
async fn a_retry_after_of_more_than_five_seconds_ends_the_attempts_and_is_handed_on() {
    let endpoint = Endpoint::replying([retry_after(429, "7")]);
    let error = endpoint.token().await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::RateLimited);
    assert_eq!(error.retry_after(), Some(7 * SECOND));
    assert_eq!(endpoint.requests(), 1);

    let date = httpdate::fmt_http_date(SystemTime::now() + 100 * SECOND);
    let error = Endpoint::replying([retry_after(503, &date)])
        .token()
        .await
        .unwrap_err();
    let left = error.retry_after().unwrap();
    assert!((98 * SECOND..=100 * SECOND).contains(&left), "{left:?}");

    let endless = Endpoint::replying([retry_after(503, "99999999999999999999")]);
    assert!(endless.token().await.unwrap_err().retry_after().unwrap() > DAY);
}

/// S1
#[tokio::test(start_paused = true)]
async fn a_retry_after_of_up_to_five_seconds_is_waited_for() {
    let gap = |asked: String| async move {
        let endpoint = Endpoint::replying([retry_after(429, &asked)]);
        endpoint.token().await.unwrap();
        let requests = endpoint.requests.lock().unwrap();
        assert_eq!(requests.len(), 2, "{asked}");
        requests[1].0 - requests[0].0
    };
    for asked in [1, 2, 5] {
        let waited = gap(asked.to_string()).await;
        let asked = asked * SECOND;
        assert!(
            (asked..asked + SECOND / 100).contains(&waited),
            "{waited:?}"
        );
    }
    // Dates count whole seconds.
    let waited = gap(httpdate::fmt_http_date(SystemTime::now() + 4 * SECOND)).await;
    assert!((2 * SECOND..=4 * SECOND).contains(&waited), "{waited:?}");
    for at_once in ["0", "Sun, 06 Nov 1994 08:49:37 GMT", "soon"] {
        let waited = gap(at_once.to_owned()).await;
        assert!(waited <= SECOND / 5 + SECOND / 1000, "{waited:?}");
    }
    let replies = || retry_after(503, "1");
    let endpoint = Endpoint::replying([replies(), replies(), replies()]);
    let error = endpoint.token().await.unwrap_err();
    assert_eq!(
        (endpoint.requests(), error.retry_after()),
        (3, Some(SECOND))
    );
}

/// S1
#[tokio::test(start_paused = true)]
async fn each_attempt_has_its_own_timeout() {
    let endpoint = Endpoint {
        delay: 60 * SECOND,
        ..Endpoint::default()
    };
    let start = Instant::now();
    let request = || TokenRequest::new(FetchReason::First);
    let error = endpoint.fetch().oneshot(request()).await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Timeout);
    assert!((30 * SECOND..31 * SECOND).contains(&start.elapsed()));
    assert_eq!(endpoint.requests(), 3);

    let start = Instant::now();
    let fetch = endpoint.fetch().timeout(SECOND).attempts(0);
    fetch.oneshot(request()).await.unwrap_err();
    assert_eq!(start.elapsed(), SECOND);
    assert_eq!(endpoint.requests(), 4, "there is one attempt at least");
}

/// S1, T1
#[tokio::test(start_paused = true)]
async fn each_attempt_anchors_its_own_lifetime() {
    let endpoint = Endpoint {
        delay: 8 * SECOND,
        ..Endpoint::replying([broken(), broken()])
    };
    let layer = SymblAuthLayer::builder(endpoint.fetch()).build();
    let token = layer.token().await.unwrap();
    assert_near(token.expires_in(), (3600 - 8) * SECOND);
}

/// S2
#[tokio::test(start_paused = true)]
async fn an_answer_that_is_no_token_is_invalid_and_says_why_without_quoting_it() {
    for (body, why) in [
        ("", "empty"),
        ("<html>s3cr3t</html>", "HTML"),
        (r#"{"accessToken":"s3cr3t"#, "ends early"),
        (r#"["s3cr3t"]"#, "not an object"),
        ("s3cr3t", "not JSON"),
        (r#"{"token":"s3cr3t"}"#, "no accessToken"),
        (r#"{"accessToken":["s3cr3t"]}"#, "not a string"),
        (r#"{"accessToken":""}"#, "empty"),
        (r#"{"accessToken":"s3cr\n3t"}"#, "line break"),
        (r#"{"accessToken":"s3cr3t","expiresIn":-5}"#, "negative"),
    ] {
        let endpoint = Endpoint::replying([Ok(Response::new(body.into()))]);
        let error = endpoint.token().await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::InvalidResponse, "{body}");
        assert!(error.to_string().contains(why), "{body}: {error}");
        assert!(!format!("{error}{error:?}").contains("s3cr3t"), "{error:?}");
        assert_eq!(endpoint.requests(), 1);
    }
}

/// S3
#[tokio::test(start_paused = true)]
async fn an_error_shows_the_endpoints_message_with_the_secret_masked() {
    let message_of = |message: String| async move {
        let body = serde_json::json!({ "message": message }).to_string();
        let reply = Response::builder().status(401).body(body.into()).unwrap();
        let error = Endpoint::replying([Ok(reply)]).token().await.unwrap_err();
        error.to_string()
    };
    let shown = message_of("no such app".to_owned()).await;
    assert_eq!(shown, "token request refused (401): no such app");
    let shown = message_of("bad the-secret, the-secret!\r\n".to_owned()).await;
    assert!(!shown.contains("the-secret"), "{shown}");
    assert!(shown.contains("bad [redacted], [redacted]!"), "{shown}");
    assert!(!shown.contains('\n'), "{shown}");
    let shown = message_of("é".repeat(1000)).await;
    assert_eq!(shown.matches('é').count(), 200);
}

/// S3
#[tokio::test(start_paused = true)]
async fn a_secret_that_is_echoed_as_json_is_masked_too() {
    let secret = "hunter2\"\\secret";
    let echo = serde_json::json!({ "appSecret": secret }).to_string();
    let body = serde_json::json!({ "message": echo }).to_string();
    let client = service_fn(move |_| {
        let response = Response::builder()
            .status(400)
            .body(Full::<Bytes>::from(body.clone()));
        async move { Ok::<_, BoxError>(response.unwrap()) }
    });
    let fetch = FetchToken::with_client(Credentials::new("id", secret), client);
    let request = TokenRequest::new(FetchReason::First);
    let error = fetch.oneshot(request).await.unwrap_err().to_string();
    assert!(error.contains(r#"{"appSecret":"[redacted]"}"#), "{error}");
}

/// S1: the status decides, however long its body takes.
#[tokio::test(start_paused = true)]
async fn a_refusal_whose_body_stalls_is_a_refusal_and_is_not_tried_again() {
    for timeout in [SECOND / 2, 10 * SECOND] {
        let calls = Arc::new(Mutex::new(0));
        let count = Arc::clone(&calls);
        let client = service_fn(move |_| {
            *count.lock().unwrap() += 1;
            async move {
                sleep(timeout * 95 / 100).await;
                let stalled =
                    futures::stream::pending::<Result<http_body::Frame<Bytes>, BoxError>>();
                let response = Response::builder().status(401);
                Ok::<_, BoxError>(response.body(http_body_util::StreamBody::new(stalled))?)
            }
        });
        let fetch = FetchToken::with_client(Credentials::new("id", "secret"), client);
        let request = TokenRequest::new(FetchReason::First);
        let error = fetch.timeout(timeout).oneshot(request).await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::Credentials);
        assert_eq!(error.status(), Some(StatusCode::UNAUTHORIZED));
        assert_eq!(*calls.lock().unwrap(), 1);
    }
}

/// S1
#[tokio::test(start_paused = true)]
async fn another_services_error_is_searched_for_a_token_error() {
    #[derive(Debug)]
    struct Wrapped(TokenError);
    impl std::fmt::Display for Wrapped {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("wrapped")
        }
    }
    impl std::error::Error for Wrapped {
        fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
            Some(&self.0)
        }
    }
    let error_of = |error: fn() -> BoxError| {
        let issuer = Issuer::new(move |_| async move { Err(error()) });
        async move { issuer.layer().token().await.unwrap_err() }
    };
    let error = error_of(|| {
        let inner = TokenError::new(TokenErrorKind::RateLimited, "no");
        Wrapped(inner.with_retry_after(9 * SECOND)).into()
    });
    let error = error.await;
    assert_eq!(error.kind(), TokenErrorKind::RateLimited);
    assert_eq!(error.retry_after(), Some(9 * SECOND));
    let error = error_of(|| "nothing of ours".into()).await;
    assert_eq!(error.kind(), TokenErrorKind::Unavailable);
    let why = "token endpoint unavailable: the token service failed: nothing of ours";
    assert_eq!(error.to_string(), why);
}

/// S1
#[tokio::test(start_paused = true)]
async fn a_token_service_that_brings_no_token_gives_an_invalid_answer() {
    let issuer =
        Issuer::new(|_| async { Ok(tower_symbl_auth::AccessToken::new("two\nlines", DAY)?) });
    let error = issuer.layer().token().await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::InvalidResponse);
    let (error, source) = (
        error.to_string(),
        std::error::Error::source(&error).unwrap().to_string(),
    );
    assert!(error.contains("the token service failed: "), "{error}");
    assert!(error.ends_with(&source), "{error}");
}
