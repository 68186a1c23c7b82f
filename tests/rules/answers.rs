//! Rules S2 and S3: what is made of an answer that is no token, and what of it is shown.

use http::{Response, StatusCode};
use tower_symbl_auth::{TokenError, TokenErrorKind};

use crate::endpoint::*;

async fn error_of(reply: Reply) -> TokenError {
    Endpoint::replying([reply]).token().await.unwrap_err()
}

/// S3
#[tokio::test(start_paused = true)]
async fn an_error_is_shown_wherever_it_stands_and_whatever_the_status() {
    for (body, words) in [
        (r#"{"message":"no such app"}"#, "no such app"),
        (
            r#"{"error":"invalid_client","error_description":"no such app"}"#,
            "no such app",
        ),
        (r#"{"detail":"no such app"}"#, "no such app"),
        (r#"{"error":"no such app"}"#, "no such app"),
        (r#"{"error":{"message":"no such app"}}"#, "no such app"),
        (
            r#"{"message":["no such app","the-secret"]}"#,
            "no such app; [redacted]",
        ),
    ] {
        let error = error_of(refusal(401, body)).await;
        assert_eq!(
            error.to_string(),
            format!("token request refused (401): {words}")
        );

        let error = error_of(refusal(200, body)).await;
        assert_eq!(error.kind(), TokenErrorKind::InvalidResponse);
        assert!(
            error.to_string().ends_with(&format!("but says: {words}")),
            "{error}"
        );
    }
    let long = format!(r#"{{"error":"{}"}}"#, "é".repeat(1000));
    let error = error_of(refusal(200, &long)).await.to_string();
    assert_eq!(error.matches('é').count(), 200);
}

/// S3: a firewall's page is not the endpoint's word.
#[tokio::test(start_paused = true)]
async fn a_refusal_that_is_not_json_says_so() {
    for (body, why) in [
        ("<html>Blocked</html>", "HTML"),
        ("blocked", "not JSON"),
        ("", "empty"),
        ("\"blocked\"", "not an object"),
    ] {
        let error = error_of(refusal(403, body)).await;
        assert_eq!(error.kind(), TokenErrorKind::Credentials);
        let error = error.to_string();
        assert!(
            error.contains("Forbidden") && error.contains(why),
            "{error}"
        );
        assert!(
            error.contains("not be the endpoint's own answer"),
            "{error}"
        );
    }
    let json = error_of(refusal(403, r#"{"code":7}"#)).await;
    assert_eq!(json.to_string(), "token request refused (403): Forbidden");
}

/// S2
#[tokio::test(start_paused = true)]
async fn a_redirect_tells_the_host_that_it_leads_to_and_is_not_followed() {
    for (target, host) in [
        ("https://login.example/a?session=s3cr3t", "login.example,"),
        (
            "https://u:s3cr3t@login.example:8443/",
            "login.example:8443,",
        ),
        ("/login?s3cr3t", "api.symbl.ai,"),
    ] {
        let response = Response::builder().status(302).header("location", target);
        let endpoint = Endpoint::replying([Ok(response.body("<html>".into()).unwrap())]);
        let error = endpoint.token().await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::InvalidResponse);
        assert_eq!(error.status(), Some(StatusCode::FOUND));
        let error = error.to_string();
        assert!(error.contains(&format!("redirects to {host}")), "{error}");
        assert!(!error.contains("s3cr3t"), "{error}");
        assert_eq!(endpoint.requests(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn an_encoding_that_nobody_asked_for_is_named() {
    const GZIP: &[u8] = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03";
    for status in [200, 401] {
        let reply = |encoding: Option<&str>, body: &'static [u8]| {
            let mut response = Response::builder().status(status);
            if let Some(encoding) = encoding {
                response = response.header("content-encoding", encoding);
            }
            Ok(response.body(body.into()).unwrap())
        };
        let error = error_of(reply(None, GZIP)).await.to_string();
        assert!(error.contains("compressed with gzip"), "{error}");
        let error = error_of(reply(Some("br"), b"\x0b\x02")).await.to_string();
        assert!(error.contains("encoded as br"), "{error}");
    }
    // What is plain is read, whatever its head says.
    let response = Response::builder().header("content-encoding", "gzip");
    let plain = response.body(r#"{"accessToken":"token"}"#.into()).unwrap();
    Endpoint::replying([Ok(plain)]).token().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_byte_order_mark_and_a_line_break_after_the_token_do_no_harm() {
    let body = "\u{feff}{\"accessToken\":\"token\\r\\n\",\"expiresIn\":60}";
    let endpoint = Endpoint::replying([refusal(200, body)]);
    assert_eq!(endpoint.token().await.unwrap().expose_secret(), "token");
    let body = "\u{feff}{\"message\":\"no such app\"}";
    let error = error_of(refusal(401, body)).await;
    assert_eq!(
        error.to_string(),
        "token request refused (401): no such app"
    );
}
