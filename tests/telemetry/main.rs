//! What the crate tells of itself: spans, events and metrics.
#![allow(clippy::unwrap_used, unreachable_pub)]

use std::{
    convert::Infallible,
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{Empty, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tokio::time::{advance, sleep};
use tower::{BoxError, Layer, ServiceExt, service_fn};
use tower_symbl_auth::{
    AccessToken, Credentials, FetchReason, FetchToken, SymblAuthLayer, TokenError, TokenErrorKind,
    TokenRequest, mock::MockSymbl,
};
use tracing::Instrument;

use support::*;
use told::told;

#[cfg(all(feature = "client", feature = "ring"))]
mod causes;
#[cfg(all(feature = "client", feature = "ring"))]
#[path = "../identity/mod.rs"]
mod identity;
mod pages;
#[cfg(all(feature = "client", feature = "ring"))]
#[allow(dead_code)]
#[path = "../default_client/servers.rs"]
mod servers;
#[path = "../rules/support.rs"]
mod support;
mod told;

const FETCH: &str = "symbl_auth.fetch";

fn accepting() -> Api<Empty<Bytes>> {
    Api::judging(|_| StatusCode::OK)
}

#[test]
fn the_first_fetch_has_a_span_of_its_own_that_follows_from_the_requests() {
    let told = told(|_| async {
        let layer = Issuer::fresh(DAY, 2 * SECOND).layer();
        let request = async { send(&layer, &accepting(), get(URL)).await.unwrap() };
        let span = tracing::info_span!("request");
        request.instrument(span).await;
    });
    assert_eq!(told.names(), [FETCH]);
    let fetch = told.all(FETCH)[0];
    assert_eq!(fetch.get("reason"), "first");
    assert_eq!(fetch.get("outcome"), "new_token");
    assert_eq!(fetch.get("follows"), "request");
    assert_eq!((fetch.get("parent"), fetch.get("error")), ("", ""));

    let fetches = "symbl_auth_fetches_total{reason=first,outcome=new_token}";
    assert_eq!(told.counter(fetches), 1);
    for name in [
        "symbl_auth_fetch_duration_seconds",
        "symbl_auth_token_wait_seconds",
    ] {
        let samples = told.samples(name);
        assert_eq!(samples.len(), 1, "{name}");
        assert!((2.0..2.1).contains(&samples[0]), "{name}: {samples:?}");
    }
    let left = told.gauge("symbl_auth_token_seconds_left");
    assert!((86_397.0..=86_398.0).contains(&left), "{left}");
}

#[test]
fn a_request_with_a_live_token_tells_nothing() {
    let told = told(|log| async move {
        let layer = Issuer::fresh(DAY, SECOND).layer();
        layer.token().await.unwrap();
        let before = log.len();
        for _ in 0..3 {
            send(&layer, &accepting(), get(URL)).await.unwrap();
        }
        assert_eq!(log.len(), before);
    });
    assert_eq!(told.samples("symbl_auth_token_wait_seconds").len(), 1);
    assert_eq!(told.metrics().len(), 4, "{:?}", told.metrics());
}

#[test]
fn an_early_refresh_is_told_and_nobody_has_waited_for_it() {
    let told = told(|_| async {
        let layer = Issuer::fresh(1000 * SECOND, Duration::ZERO).layer();
        layer.token().await.unwrap();
        advance(950 * SECOND).await;
        // The first starts it, and the second has what it brought accepted, and so served.
        for _ in 0..2 {
            send(&layer, &accepting(), get(URL)).await.unwrap();
            settle().await;
        }
    });
    let fetch = told.all(FETCH)[1];
    assert_eq!(
        (fetch.get("reason"), fetch.get("outcome")),
        ("early", "new_token")
    );
    let fetches = "symbl_auth_fetches_total{reason=early,outcome=new_token}";
    assert_eq!(told.counter(fetches), 1);
    assert_eq!(told.samples("symbl_auth_token_wait_seconds").len(), 1);
    assert!(told.gauge("symbl_auth_token_seconds_left") > 999.0);
}

#[test]
fn the_life_left_is_told_when_an_early_refresh_begins() {
    let told = told(|_| async {
        let issuer = Issuer::new(|call| async move {
            if call > 1 {
                std::future::pending::<()>().await;
            }
            Ok(AccessToken::new("token-1", 1000 * SECOND)?)
        });
        let layer = issuer.layer();
        layer.token().await.unwrap();
        advance(950 * SECOND).await;
        layer.token().await.unwrap();
        settle().await;
    });
    let left = told.gauge("symbl_auth_token_seconds_left");
    assert!((49.0..=50.0).contains(&left), "{left}");
}

#[test]
fn a_revocation_is_told_as_rejection_fetch_and_accepted_retry() {
    let mut tokens = Vec::new();
    let told = told(|_| async {
        tokio::time::resume();
        let symbl = MockSymbl::start().await.unwrap();
        let layer = symbl.layer();
        let client = layer.layer(Client::builder(TokioExecutor::new()).build_http());
        tokens.push(layer.token().await.unwrap());
        symbl.revoke_tokens();
        let job = symbl.url("/v1/job/1?q=s3cr3t");
        let job = Request::get(job).body(Empty::<Bytes>::new()).unwrap();
        let response = client.oneshot(job).await.unwrap();
        assert_eq!(response.status(), StatusCode::NOT_FOUND);
        tokens.push(layer.token().await.unwrap());
    });
    assert_eq!(
        told.names(),
        [FETCH, "token rejected", FETCH, "request sent again"]
    );
    let fetch = told.all(FETCH)[1];
    assert_eq!(
        (fetch.get("reason"), fetch.get("outcome")),
        ("rejected", "new_token")
    );
    assert_eq!(fetch.get("attempts"), "1");
    for (name, generation, accepted) in [
        ("token rejected", "1", ""),
        ("request sent again", "2", "true"),
    ] {
        let event = told.all(name)[0];
        assert_eq!(
            (event.get("method"), event.get("path")),
            ("GET", "/v1/job/1")
        );
        assert_eq!(event.get("generation"), generation);
        assert_eq!(
            (event.get("accepted"), event.get("level")),
            (accepted, "DEBUG")
        );
    }
    assert_eq!(
        told.counter("symbl_auth_rejections_total{outcome=retried}"),
        1
    );
    let fetches = "symbl_auth_fetches_total{reason=rejected,outcome=new_token}";
    assert_eq!(told.counter(fetches), 1);
    assert_eq!(told.samples("symbl_auth_token_wait_seconds").len(), 2);
    for token in tokens {
        told.assert_not_told(token.expose_secret());
    }
}

#[test]
fn a_hand_back_is_told_with_its_reason() {
    let told = told(|_| async {
        let rejecting = Api::judging(|_| StatusCode::UNAUTHORIZED);
        let layer = Issuer::fresh(DAY, SECOND).layer();
        send(&layer, &rejecting, get(URL)).await.unwrap();

        let same = Issuer::new(|_| async { Ok(AccessToken::new("token-1", DAY)?) });
        let layer = same.layer();
        send(&layer, &accepting(), get(URL)).await.unwrap();
        for _ in ["same token", "cooling down"] {
            send(&layer, &rejecting, get(URL)).await.unwrap();
        }

        let down = Issuer::new(|call| async move {
            if call > 1 {
                return Err("down".into());
            }
            Ok(AccessToken::new("token-1", DAY)?)
        });
        send(&down.layer(), &rejecting, get(URL)).await.unwrap();

        let layer = Issuer::fresh(DAY, SECOND).builder().replay_limit(1).build();
        let rejecting = Api::judging(|_| StatusCode::UNAUTHORIZED);
        let upload = Request::put(URL).body(Upload::new(2 << 20)).unwrap();
        send(&layer, &rejecting, upload).await.unwrap();
        sleep(2 * SECOND).await;
    });
    let handed_back = told.all("rejection handed back");
    let reasons: Vec<_> = handed_back.iter().map(|it| it.get("reason")).collect();
    let expected = [
        "it was sent again with another token and rejected again",
        "the token endpoint handed out the same token again",
        "no new token was fetched: the last ones did not help",
        "no new token: token endpoint unavailable: the token service failed: down",
        "the body could not be sent again",
    ];
    assert_eq!(reasons, expected);
    assert_eq!(handed_back[4].get("method"), "PUT");
    assert_eq!(handed_back[4].get("path"), "/v1/conversations/1");
    assert_eq!(told.all("request sent again")[0].get("accepted"), "false");
    for (outcome, count) in [
        ("retried", 1),
        ("second_rejection", 1),
        ("cooling_down", 1),
        ("same_token", 1),
        ("token_error", 1),
        ("body", 1),
    ] {
        let name = format!("symbl_auth_rejections_total{{outcome={outcome}}}");
        assert_eq!(told.counter(&name), count, "{outcome}");
    }
    for outcome in ["new_token", "same_token", "unavailable"] {
        let name = format!("symbl_auth_fetches_total{{reason=rejected,outcome={outcome}}}");
        assert!(told.counter(&name) > 0, "{outcome}");
    }
}

#[test]
fn of_a_request_left_unstamped_only_the_origin_is_told() {
    let told = told(|_| async {
        let layer = Issuer::fresh(DAY, Duration::ZERO).layer();
        let mut request = get("https://me:s3cr3t@other.example:8443/s3cr3t?q=s3cr3t");
        request
            .headers_mut()
            .insert("cookie", "s3cr3t".parse().unwrap());
        assert!(layer.authorize(&mut request).await.unwrap().is_none());
        send(&layer, &accepting(), request).await.unwrap();
    });
    let unstamped = told.all("request left unstamped");
    assert_eq!(unstamped.len(), 2);
    for event in &unstamped {
        assert_eq!(event.get("origin"), "https://other.example:8443");
    }
    let levels: Vec<_> = unstamped.iter().map(|event| event.get("level")).collect();
    assert_eq!(levels, ["WARN", "DEBUG"], "one warning for each server");
    assert_eq!(told.metrics(), ["symbl_auth_unstamped_total{}"]);
    assert_eq!(told.counter("symbl_auth_unstamped_total{}"), 2);
}

#[test]
fn of_a_thousand_servers_without_a_token_a_few_are_warned_of() {
    let told = told(|_| async {
        let layer = Issuer::fresh(DAY, Duration::ZERO).layer();
        for n in 0..2000 {
            let url = format!("https://{}.example/", n % 1000);
            send(&layer, &accepting(), get(&url)).await.unwrap();
        }
    });
    let unstamped = told.all("request left unstamped");
    assert_eq!(unstamped.len(), 2000);
    let warned = unstamped
        .iter()
        .filter(|event| event.get("level") == "WARN");
    let warned: Vec<_> = warned.map(|event| event.get("origin")).collect();
    let first: Vec<_> = (0..16).map(|n| format!("https://{n}.example")).collect();
    assert_eq!(warned, first);
    assert_eq!(told.counter("symbl_auth_unstamped_total{}"), 2000);
}

type Answer = Result<Response<Full<Bytes>>, Infallible>;
type Endpoint =
    tower::util::BoxCloneSyncService<Request<Full<Bytes>>, Response<Full<Bytes>>, Infallible>;

fn token_endpoint() -> Endpoint {
    let answer = || Answer::Ok(Response::new(r#"{"accessToken":"token-1"}"#.into()));
    Endpoint::new(service_fn(move |_| async move { answer() }))
}

/// An endpoint that is down first, and then refuses the credentials, which it repeats.
fn refused() -> SymblAuthLayer {
    let replies = Arc::new(Mutex::new(vec![401, 503]));
    let client = service_fn(move |_: Request<Full<Bytes>>| {
        let status = replies.lock().unwrap().pop().unwrap();
        let body = Full::<Bytes>::from(r#"{"message":"no app has app-s3cr3t"}"#);
        let response = Response::builder().status(status).body(body).unwrap();
        async { Answer::Ok(response) }
    });
    let fetch = FetchToken::with_client(Credentials::new("app-id", "app-s3cr3t"), client);
    SymblAuthLayer::builder(fetch).build()
}

#[test]
fn a_failed_fetch_is_told_with_its_attempts_and_its_error_without_the_secret() {
    let told = told(|_| async {
        let error = refused().token().await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::Credentials);
    });
    let fetch = told.all(FETCH)[0];
    assert_eq!(
        (fetch.get("attempts"), fetch.get("outcome")),
        ("2", "credentials")
    );
    let message = "token request refused (401): no app has ";
    assert!(fetch.get("error").starts_with(message), "{fetch:?}");
    let event = told.all("token fetch failed")[0];
    assert_eq!((event.get("level"), event.get("reason")), ("WARN", "first"));
    assert_eq!(event.get("error"), fetch.get("error"));
    let fetches = "symbl_auth_fetches_total{reason=first,outcome=credentials}";
    assert_eq!(told.counter(fetches), 1);
    assert_eq!(told.gauge("symbl_auth_token_seconds_left"), 0.0);
}

#[test]
fn the_warning_says_why_a_connection_failed() {
    let told = told(|_| async {
        let client = service_fn(|_: Request<Full<Bytes>>| async {
            let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
            Err::<Response<Full<Bytes>>, BoxError>(Wrapped(refused).into())
        });
        let fetch = FetchToken::with_client(Credentials::new("app-id", "app-s3cr3t"), client);
        let layer = SymblAuthLayer::builder(fetch).build();
        layer.token().await.unwrap_err();
    });
    let event = told.all("token fetch failed")[0];
    let why = "token endpoint unavailable: connection refused";
    assert_eq!((event.get("level"), event.get("error")), ("WARN", why));
}

/// What clients say: little, and the rest in a source.
#[derive(Debug)]
struct Wrapped(io::Error);

impl std::fmt::Display for Wrapped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("client error (Connect)")
    }
}

impl std::error::Error for Wrapped {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

#[test]
fn each_metric_has_its_meaning_and_its_unit() {
    let told = told(|_| async {
        let layer = Issuer::fresh(DAY, SECOND).layer();
        send(
            &layer,
            &Api::judging(|_| StatusCode::UNAUTHORIZED),
            get(URL),
        )
        .await
        .unwrap();
        send(&layer, &accepting(), get("https://other.example/"))
            .await
            .unwrap();
    });
    assert_eq!(told.described().count(), 6);
    for (name, unit, meaning) in told.described() {
        assert!(meaning.len() > 30, "{name} is not described");
        let seconds = name.contains("seconds").then_some(metrics::Unit::Seconds);
        assert_eq!(unit, seconds, "{name}");
    }
}

#[test]
fn the_metric_of_unlisted_origins_has_its_meaning_before_there_is_a_fetch() {
    let told = told(|_| async {
        let layer = Issuer::fresh(DAY, SECOND).layer();
        send(&layer, &accepting(), get("https://other.example/"))
            .await
            .unwrap();
    });
    let meanings: Vec<_> = told.described().map(|(_, _, meaning)| meaning).collect();
    assert!(
        meanings.len() == 1 && meanings[0].contains("without a token"),
        "{meanings:?}"
    );
}

#[test]
fn each_kind_of_error_is_an_outcome() {
    for (kind, outcome) in [
        (TokenErrorKind::RateLimited, "rate_limited"),
        (TokenErrorKind::Timeout, "timeout"),
        (TokenErrorKind::InvalidResponse, "invalid_response"),
        (TokenErrorKind::Internal, "internal"),
    ] {
        let told = told(|_| async move {
            let issuer = Issuer::new(move |_| async move {
                Err::<_, BoxError>(TokenError::new(kind, "no").into())
            });
            issuer.layer().refresh().await.unwrap_err();
        });
        let name = format!("symbl_auth_fetches_total{{reason=forced,outcome={outcome}}}");
        assert_eq!(told.counter(&name), 1);
        assert_eq!(told.all(FETCH)[0].get("outcome"), outcome);
    }
}

#[test]
fn nothing_is_recorded_in_spans_that_are_not_the_crates_own() {
    let told = told(|_| async {
        let fields = tracing::info_span!(
            target: "tower_symbl_auth",
            "mine",
            attempts = tracing::field::Empty,
            outcome = tracing::field::Empty,
        );
        let request = TokenRequest::new(FetchReason::First);
        let fetch = FetchToken::with_client(Credentials::new("a", "s3cr3t"), token_endpoint());
        fetch.oneshot(request).instrument(fields).await.unwrap();
    });
    let mine = told.all("mine")[0];
    assert_eq!((mine.get("attempts"), mine.get("outcome")), ("", ""));
}

#[test]
fn a_fetch_that_goes_down_with_its_runtime_is_told_as_lost() {
    let told = told(|_| async {
        let layer = Issuer::fresh(DAY, SECOND).layer();
        assert!(is_pending(layer.token()).await);
        layer
    });
    assert_eq!(told.all(FETCH)[0].get("outcome"), "lost");
    let fetches = "symbl_auth_fetches_total{reason=first,outcome=lost}";
    assert_eq!(told.counter(fetches), 1);
}
