//! Rules J1, J7, Q5, R3, R6 and S1 to S3 over real sockets, HTTP/1.1 and HTTP/2, against the stand-in
//! server.
//!
//! Peers' bugs covered: a panic when the response comes before the upload ends (linkerd2 #11529), a
//! stampede of 401s after a revocation (azure_core).

use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::{Value, json};
use tower::{BoxError, Layer, Service, ServiceExt};
use tower_symbl_auth::{
    Credentials, FetchToken, NotRetried, Placement, ReplayBody, SymblAuthLayer, TokenErrorKind,
    mock::{MockSymbl, TokenReply},
};

use crate::support::*;

fn client<B>(h2: bool) -> Client<HttpConnector, ReplayBody<B>>
where
    B: http_body::Body + Unpin + Send + 'static,
    B::Error: Into<BoxError>,
{
    Client::builder(TokioExecutor::new())
        .http2_only(h2)
        .build_http()
}

async fn json(response: Response<Incoming>) -> Value {
    let body = response.into_body().collect().await.unwrap().to_bytes();
    serde_json::from_slice(&body).unwrap()
}

#[tokio::test]
async fn what_is_posted_can_be_read_back() {
    for h2 in [false, true] {
        let symbl = MockSymbl::start().await.unwrap();
        let client = symbl.layer().layer(client(h2));
        let send = |method: &str, path: &str, body: Value| {
            let request = Request::builder().method(method).uri(symbl.url(path));
            let body = if body.is_null() {
                String::new()
            } else {
                body.to_string()
            };
            client
                .clone()
                .oneshot(request.body(Full::<Bytes>::from(body)).unwrap())
        };
        let messages = json!([{ "payload": { "content": "hi there" }, "from": { "name": "Ada", "userId": "a@b" } }]);
        let posted = send(
            "POST",
            "/v1/process/text",
            json!({ "name": "n", "messages": messages }),
        )
        .await
        .unwrap();
        assert_eq!(posted.status(), StatusCode::CREATED);
        let ids = json(posted).await;
        let (conversation, job) = (
            ids["conversationId"].as_str().unwrap(),
            ids["jobId"].as_str().unwrap(),
        );
        for status in ["in_progress", "completed"] {
            let answer = send("GET", &format!("/v1/job/{job}"), Value::Null)
                .await
                .unwrap();
            assert_eq!(json(answer).await["status"], status);
        }
        let path = format!("/v1/conversations/{conversation}");
        let read = json(send("GET", &path, Value::Null).await.unwrap()).await;
        assert_eq!(
            (&read["name"], &read["members"][0]["email"]),
            (&json!("n"), &json!("a@b"))
        );
        let read = json(
            send("GET", &format!("{path}/messages"), Value::Null)
                .await
                .unwrap(),
        )
        .await;
        assert_eq!(read["messages"][0]["text"], "hi there");
        let read = json(
            send("GET", &format!("{path}/topics"), Value::Null)
                .await
                .unwrap(),
        )
        .await;
        assert_eq!(read["topics"][0]["text"], "hi");
        send("DELETE", &path, Value::Null).await.unwrap();
        let gone = send("GET", &path, Value::Null).await.unwrap();
        assert_eq!(gone.status(), StatusCode::NOT_FOUND);
        for status in [StatusCode::OK, StatusCode::CONFLICT] {
            let tracker = json!({ "name": "t", "vocabulary": ["a"] });
            let answer = send("POST", "/v1/manage/tracker", tracker).await.unwrap();
            assert_eq!(answer.status(), status);
        }
    }
}

#[tokio::test]
async fn a_thousand_concurrent_requests_survive_a_revocation_with_one_fetch() {
    for h2 in [false, true] {
        let symbl = MockSymbl::start().await.unwrap();
        let client = symbl.layer().layer(client(h2));
        for fetches in 1..=3 {
            let requests = (0..1000).map(|number| {
                let (client, url) = (client.clone(), symbl.url("/v1/conversations/1"));
                let symbl = &symbl;
                async move {
                    if number == 500 && fetches > 1 {
                        symbl.revoke_tokens();
                    }
                    let request = Request::get(url).body(Empty::<Bytes>::new()).unwrap();
                    client.oneshot(request).await.unwrap().status()
                }
            });
            let answers = join_all(requests).await;
            assert!(
                answers
                    .iter()
                    .all(|status| *status == StatusCode::NOT_FOUND)
            );
            assert_eq!(symbl.token_requests(), fetches);
        }
    }
}

#[tokio::test]
async fn content_length_survives_on_both_attempts_and_none_is_made_up() {
    for h2 in [false, true] {
        let symbl = MockSymbl::start().await.unwrap();
        let layer = symbl.layer();
        layer.token().await.unwrap();
        symbl.revoke_tokens();
        let uri = symbl.url("/v1/process/audio?name=a");
        let known = Request::post(&uri)
            .body(Full::<Bytes>::from("audio"))
            .unwrap();
        let answer = layer.layer(client(h2)).oneshot(known).await.unwrap();
        assert_eq!(answer.status(), StatusCode::CREATED);

        let frames = futures::stream::iter([Ok::<_, BoxError>(Frame::data(Bytes::from("audio")))]);
        let unknown = Request::post(&uri).body(StreamBody::new(frames)).unwrap();
        let answer = layer.layer(client(h2)).oneshot(unknown).await.unwrap();
        assert_eq!(answer.status(), StatusCode::LENGTH_REQUIRED);
    }
}

#[tokio::test]
async fn an_api_key_is_accepted_and_replaced_like_a_bearer() {
    let symbl = MockSymbl::start().await.unwrap();
    let layer = SymblAuthLayer::builder(symbl.fetch_token())
        .origins([symbl.origin()])
        .placement(Placement::ApiKey)
        .build();
    for _ in 0..2 {
        let request = Request::get(symbl.url("/v1/job/1"))
            .body(Empty::<Bytes>::new())
            .unwrap();
        let answer = layer.layer(client(false)).oneshot(request).await.unwrap();
        assert_eq!(answer.status(), StatusCode::NOT_FOUND);
        symbl.revoke_tokens();
    }
    assert_eq!((symbl.token_requests(), symbl.rejections()), (2, 1));
}

#[tokio::test]
async fn the_stand_in_refuses_what_the_real_one_would() {
    let symbl = MockSymbl::start().await.unwrap();
    let bare = Client::builder(TokioExecutor::new()).build_http();
    let unstamped = Request::get(symbl.url("/v1/job/1"))
        .body(Full::<Bytes>::default())
        .unwrap();
    let answer = bare.request(unstamped).await.unwrap();
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    let text = "Token validation failed for provided token.";
    assert_eq!(json(answer).await["message"], text);

    let token_request = |method: &str, content_type: &str, body: &str| {
        let request = Request::builder()
            .method(method)
            .uri(symbl.token_endpoint());
        let request = request.header("content-type", content_type);
        bare.request(request.body(Full::from(body.to_owned())).unwrap())
    };
    let good = r#"{"type":"application","appId":"mock-app-id","appSecret":"mock-app-secret"}"#;
    let wrong = r#"{"type":"application","appId":"mock-app-id","appSecret":"x"}"#;
    for (method, content_type, body, status) in [
        ("POST", "application/json", good, 200),
        ("POST", "application/json", wrong, 401),
        ("POST", "application/json", "{}", 400),
        ("POST", "application/json", "x", 400),
        ("POST", "text/plain", good, 400),
        ("GET", "application/json", good, 405),
    ] {
        let answer = token_request(method, content_type, body).await.unwrap();
        assert_eq!(answer.status(), status, "{method} {content_type} {body}");
    }
}

#[tokio::test]
async fn the_stand_in_hands_out_the_same_token_until_it_is_told_otherwise() {
    let symbl = MockSymbl::start().await.unwrap();
    let layer = symbl.layer();
    let first = layer.refresh().await.unwrap();
    assert_eq!(
        layer.refresh().await.unwrap().expose_secret(),
        first.expose_secret()
    );
    symbl.set_cache_margin(2 * DAY);
    let second = layer.refresh().await.unwrap();
    assert_ne!(second.expose_secret(), first.expose_secret());
    symbl.set_cache_margin(Duration::ZERO);
    assert_eq!(
        layer.refresh().await.unwrap().expose_secret(),
        second.expose_secret()
    );
    symbl.cache_tokens(false);
    assert_ne!(
        layer.refresh().await.unwrap().expose_secret(),
        second.expose_secret()
    );
    symbl.set_token_lifetime(SECOND / 2);
    let short = layer.refresh().await.unwrap();
    assert!(short.expires_in() <= SECOND / 2);
}

#[tokio::test]
async fn dropping_the_stand_in_ends_it() {
    let symbl = MockSymbl::start().await.unwrap();
    let layer = symbl.layer();
    layer.token().await.unwrap();
    drop(symbl);
    let error = layer.refresh().await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Unavailable);
}

/// R6: against the stand-in, which answers before it has read.
#[tokio::test]
async fn a_large_upload_with_a_revoked_token_is_sent_again() {
    for h2 in [false, true] {
        let symbl = MockSymbl::start().await.unwrap();
        let fetch = symbl.fetch_token();
        let layer = SymblAuthLayer::builder(fetch).origins([symbl.origin()]);
        let layer = layer.build();
        let client = layer.layer(client(h2));
        layer.token().await.unwrap();
        for _ in 0..3 {
            symbl.revoke_tokens();
            // In memory: more than the replay limit.
            let audio = Full::<Bytes>::from(vec![7; 20 << 20]);
            let request = Request::post(symbl.url("/v1/process/audio"));
            let request = request.body(audio).unwrap();
            let answer = client.clone().oneshot(request).await.unwrap();
            assert_eq!(answer.status(), StatusCode::CREATED, "h2: {h2}");
        }
    }
}

/// S1, S2: over a real connection, in bounded time and memory.
#[tokio::test]
async fn what_the_endpoint_may_answer_becomes_an_error_of_the_right_kind() {
    let symbl = MockSymbl::start().await.unwrap();
    let unavailable = TokenReply::Status(StatusCode::SERVICE_UNAVAILABLE);
    for (replies, kind) in [
        (
            vec![TokenReply::Body("<html>".into())],
            TokenErrorKind::InvalidResponse,
        ),
        (
            vec![TokenReply::Body(String::new())],
            TokenErrorKind::InvalidResponse,
        ),
        (
            vec![TokenReply::Body(r#"{"accessTok"#.into())],
            TokenErrorKind::InvalidResponse,
        ),
        (
            vec![TokenReply::Body("x".repeat(100_000_000))],
            TokenErrorKind::InvalidResponse,
        ),
        (
            vec![TokenReply::Status(StatusCode::FOUND)],
            TokenErrorKind::InvalidResponse,
        ),
        (
            vec![TokenReply::Status(StatusCode::UNAUTHORIZED)],
            TokenErrorKind::Credentials,
        ),
        (vec![TokenReply::Hang], TokenErrorKind::Timeout),
        (vec![unavailable; 2], TokenErrorKind::Unavailable),
        (vec![TokenReply::Disconnect; 2], TokenErrorKind::Unavailable),
    ] {
        let attempts = replies.len() as u32;
        symbl.next_token_responses(replies);
        let fetch = symbl.fetch_token().timeout(SECOND / 2).attempts(attempts);
        let error = SymblAuthLayer::builder(fetch)
            .build()
            .token()
            .await
            .unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
    }
    let limited = TokenReply::RetryAfter(StatusCode::TOO_MANY_REQUESTS, 30 * SECOND);
    symbl.next_token_responses([limited]);
    let error = symbl.layer().token().await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::RateLimited);
    assert!(error.retry_after().unwrap() > 29 * SECOND);

    let before = symbl.token_requests();
    symbl.next_token_responses([TokenReply::Disconnect, TokenReply::Delay(SECOND / 10)]);
    symbl.layer().token().await.unwrap();
    assert_eq!(symbl.token_requests() - before, 2);
}

#[tokio::test]
async fn wrong_credentials_are_told_apart_and_the_request_is_never_sent() {
    let symbl = MockSymbl::start().await.unwrap();
    let bare = Client::builder(TokioExecutor::new()).build_http();
    let fetch = FetchToken::with_client(Credentials::new("mock-app-id", "wrong"), bare);
    let fetch = fetch.endpoint(symbl.token_endpoint()).unwrap();
    let layer = SymblAuthLayer::builder(fetch)
        .origins([symbl.origin()])
        .build();
    let request = Request::get(symbl.url("/v1/job/1"))
        .body(Empty::<Bytes>::new())
        .unwrap();
    let error = layer
        .layer(client(false))
        .oneshot(request)
        .await
        .unwrap_err();
    let error = error
        .downcast_ref::<tower_symbl_auth::TokenError>()
        .unwrap();
    assert_eq!(error.kind(), TokenErrorKind::Credentials);
    assert_eq!(error.status(), Some(StatusCode::UNAUTHORIZED));
    assert!(error.to_string().contains("Invalid credentials"), "{error}");
    assert_eq!((symbl.token_requests(), symbl.api_requests()), (1, 0));
}

/// The default client: hyper-util and rustls.
#[cfg(feature = "client")]
#[tokio::test]
async fn the_default_client_fetches_a_token() {
    let symbl = MockSymbl::start().await.unwrap();
    let fetch = FetchToken::new(symbl.credentials());
    let fetch = fetch.endpoint(symbl.token_endpoint()).unwrap();
    SymblAuthLayer::builder(fetch)
        .build()
        .token()
        .await
        .unwrap();
    assert_eq!(symbl.token_requests(), 1);
}

/// An error of the wrapped client is boxed as it is.
#[tokio::test]
async fn an_error_of_the_client_can_be_downcast() {
    let symbl = MockSymbl::start().await.unwrap();
    let origin = "http://127.0.0.1:1".parse().unwrap();
    let layer = SymblAuthLayer::builder(symbl.fetch_token())
        .origins([origin])
        .build();
    let request = Request::get("http://127.0.0.1:1/")
        .body(Empty::<Bytes>::new())
        .unwrap();
    let error = layer
        .layer(client(false))
        .oneshot(request)
        .await
        .unwrap_err();
    assert!(error.is::<hyper_util::client::legacy::Error>());
}

/// J4: an endpoint that caches vouches for the token that the API has rejected.
#[tokio::test]
async fn a_path_that_always_answers_401_does_not_storm_the_endpoint() {
    let symbl = MockSymbl::start().await.unwrap();
    let always = tower::service_fn(|_| async {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::UNAUTHORIZED;
        Ok::<_, BoxError>(response)
    });
    let mut service = symbl.layer().layer(always);
    for _ in 0..1000 {
        let request = Request::get(symbl.url("/v1/job/1"))
            .body(Empty::<Bytes>::new())
            .unwrap();
        let response = service.ready().await.unwrap().call(request).await.unwrap();
        assert!(response.extensions().get::<NotRetried>().is_some());
    }
    assert!(symbl.token_requests() <= 3, "{}", symbl.token_requests());
}
