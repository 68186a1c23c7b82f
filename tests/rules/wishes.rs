//! What users may ask for: an own idea of a rejection, requests to leave alone, to be told of tokens, tokens
//! kept fresh. And J1, Q1, `grpc-timeout`.

use std::{
    future::{self, Ready},
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use http::{Request, Response, StatusCode};
use http_body_util::{Empty, Full};
use tokio::time::{Instant, sleep};
use tower::{BoxError, Layer, Service, ServiceExt, retry::Policy};
use tower_symbl_auth::{
    AccessToken, NotRetried, SkipAuth, SymblAuthLayer, TokenError, TokenErrorKind,
};

use crate::support::*;

fn why(response: &Response<Full<Bytes>>) -> Option<&NotRetried> {
    response.extensions().get()
}

/// That status for `token-1`, 200 for any other.
fn refusing_first(status: StatusCode) -> Api<Empty<Bytes>> {
    Api::judging(move |token| match token {
        "token-1" => status,
        _ => StatusCode::OK,
    })
}

// === rejected_when ===

#[tokio::test(start_paused = true)]
async fn a_403_is_healed_only_if_the_user_takes_it_for_a_rejection() {
    for (taken, tokens) in [(true, &["token-1", "token-2"][..]), (false, &["token-1"])] {
        let issuer = Issuer::fresh(DAY, SECOND);
        let mut builder = issuer.builder();
        if taken {
            builder = builder.rejected_when(|status, _| status == StatusCode::FORBIDDEN);
        }
        let api = refusing_first(StatusCode::FORBIDDEN);
        let response = send(&builder.build(), &api, get(URL)).await.unwrap();
        assert_eq!(response.status() == StatusCode::OK, taken);
        assert!(why(&response).is_none());
        assert_eq!(api.tokens(), tokens);
        assert_eq!(issuer.calls(), tokens.len());
    }
}

#[tokio::test(start_paused = true)]
async fn a_redirect_to_a_login_page_is_healed_and_any_other_goes_back() {
    let issuer = Issuer::fresh(DAY, SECOND);
    let builder = issuer.builder().rejected_when(|status, headers| {
        let to = headers.get("location").map(|to| to.as_bytes());
        status.is_redirection() && to.is_some_and(|to| to.starts_with(b"/login"))
    });
    let layer = builder.build();
    let api: Api<Empty<Bytes>> = Api::new(|request| {
        let to = match (request.uri().path(), token_of(request.headers())) {
            ("/moved", _) => Some("/v2"),
            (_, "token-1") => Some("/login?back=1"),
            _ => None,
        };
        let mut response = answer(StatusCode::OK);
        if let Some(to) = to {
            response = answer(StatusCode::FOUND);
            (response.headers_mut()).insert("location", to.parse().unwrap());
        }
        async move { Ok(response) }
    });
    let moved = send(&layer, &api, get("https://api.symbl.ai/moved")).await;
    assert_eq!(moved.unwrap().status(), StatusCode::FOUND);
    assert_eq!(issuer.calls(), 1);
    let response = send(&layer, &api, get(URL)).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(api.tokens(), ["token-1", "token-1", "token-2"]);
}

#[tokio::test(start_paused = true)]
async fn a_grpc_status_of_ones_own_is_healed_if_the_user_takes_it_for_a_rejection() {
    for (taken, tokens) in [(true, &["token-1", "token-2"][..]), (false, &["token-1"])] {
        let issuer = Issuer::fresh(DAY, SECOND);
        let mut builder = issuer.builder();
        if taken {
            builder = builder.rejected_when(|_, headers| {
                headers
                    .get("grpc-status")
                    .is_some_and(|status| status == "7")
            });
        }
        let api: Api<Empty<Bytes>> = Api::new(|request| {
            let mut response = answer(StatusCode::OK);
            if token_of(request.headers()) == "token-1" {
                (response.headers_mut()).insert("grpc-status", "7".parse().unwrap());
            }
            async move { Ok(response) }
        });
        let response = send(&builder.build(), &api, get(URL)).await.unwrap();
        assert_eq!(response.headers().contains_key("grpc-status"), !taken);
        assert_eq!(
            (api.tokens(), issuer.calls()),
            (
                tokens.iter().map(ToString::to_string).collect(),
                tokens.len()
            )
        );
    }
}

#[tokio::test(start_paused = true)]
async fn who_takes_everything_for_a_rejection_has_one_retry_each_and_16_fetches_for_it() {
    let issuer = Issuer::fresh(DAY, Duration::ZERO);
    let layer = issuer.builder().rejected_when(|_, _| true).build();
    let start = Instant::now();
    for n in 0..300 {
        let api = Api::judging(|_| StatusCode::OK);
        let path = format!("https://api.symbl.ai/{n}");
        let response = send(&layer, &api, get_owned(path)).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert!(why(&response).is_some(), "{n}");
        assert!(api.calls() <= 2, "{n}");
        sleep(Duration::from_millis(10)).await;
    }
    assert!(start.elapsed() < 10 * SECOND, "{:?}", start.elapsed());
    let rejected = issuer.calls() - 1;
    assert!(rejected <= 16, "{rejected}");
}

#[tokio::test(start_paused = true)]
async fn a_predicate_that_panics_takes_its_own_request_down_and_nothing_else() {
    let issuer = Issuer::fresh(DAY, SECOND);
    let panics = Arc::new(AtomicBool::new(true));
    let armed = Arc::clone(&panics);
    let layer = issuer
        .builder()
        .rejected_when(move |_, _| {
            assert!(!armed.load(Ordering::Relaxed), "a bad predicate");
            false
        })
        .build();
    let api = refusing_first(StatusCode::OK);
    // With the first token, and with a live one.
    for _ in 0..2 {
        let sent = AssertUnwindSafe(send(&layer, &api, get(URL))).catch_unwind();
        let panic = sent.await.unwrap_err();
        assert_eq!(panic.downcast_ref(), Some(&"a bad predicate"));
    }
    panics.store(false, Ordering::Relaxed);
    let response = send(&layer, &api, get(URL)).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(issuer.calls(), 1);

    // On the answer to a retry: what has been fetched for it serves the next.
    let api = refusing_first(StatusCode::UNAUTHORIZED);
    panics.store(true, Ordering::Relaxed);
    let sent = AssertUnwindSafe(send(&layer, &api, get(URL))).catch_unwind();
    sent.await.unwrap_err();
    panics.store(false, Ordering::Relaxed);
    let response = send(&layer, &api, get(URL)).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(issuer.calls(), 2);
}

// === SkipAuth ===

fn skipping() -> Request<Empty<Bytes>> {
    let mut request = get(URL);
    request.extensions_mut().insert(SkipAuth);
    request
}

#[tokio::test(start_paused = true)]
async fn a_request_with_skip_auth_has_no_token_no_fetch_no_retry_and_no_mark() {
    let issuer = Issuer::fresh(DAY, SECOND);
    let layer = issuer.layer();
    let api = Api::judging(|_| StatusCode::UNAUTHORIZED);
    for _ in 0..2 {
        let response = send(&layer, &api, skipping()).await.unwrap();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        assert!(why(&response).is_none());
        // Nor with a token there to take.
        layer_in_use(&layer).await;
    }
    assert_eq!(api.tokens(), ["", ""]);
    assert_eq!(issuer.calls(), 1);

    // The header that the caller chose stays.
    let mut request = skipping();
    let own = "Bearer own".parse().unwrap();
    request.headers_mut().insert("authorization", own);
    send(&layer, &api, request).await.unwrap();
    assert_eq!(api.tokens()[2], "own");
    assert!(layer.authorize(&mut skipping()).await.unwrap().is_none());
}

/// Sends once more whatever is refused, as a user's own retry would.
#[derive(Clone)]
struct Again(usize);

impl Policy<Request<Empty<Bytes>>, Response<Full<Bytes>>, BoxError> for Again {
    type Future = Ready<()>;

    fn retry(
        &mut self,
        _: &mut Request<Empty<Bytes>>,
        result: &mut Result<Response<Full<Bytes>>, BoxError>,
    ) -> Option<Self::Future> {
        let refused = result.as_ref().unwrap().status() == StatusCode::UNAUTHORIZED;
        (refused && self.0 > 0).then(|| {
            self.0 -= 1;
            future::ready(())
        })
    }

    fn clone_request(&mut self, request: &Request<Empty<Bytes>>) -> Option<Request<Empty<Bytes>>> {
        Some(request.clone())
    }
}

#[tokio::test(start_paused = true)]
async fn an_outer_retry_sends_a_request_with_skip_auth_as_it_was() {
    let issuer = Issuer::fresh(DAY, SECOND);
    let api = Api::judging(|_| StatusCode::UNAUTHORIZED);
    let inner = issuer.layer().layer(api.clone());
    let service = tower::retry::Retry::new(Again(3), inner);
    let response = service.oneshot(skipping()).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert!(why(&response).is_none());
    assert_eq!(api.tokens(), [""; 4]);
    assert_eq!(issuer.calls(), 0);
}

// === watch ===

async fn next(tokens: &mut (impl StreamExt<Item = AccessToken> + Unpin)) -> Option<String> {
    let token = tokens.next().await?;
    Some(token.expose_secret().to_owned())
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_gets_the_latest_and_readers_that_never_read_hold_nothing_up() {
    let issuer = Issuer::fresh(DAY, SECOND);
    let layer = issuer.layer();
    drop(layer.watch());
    let _never_read: Vec<_> = (0..100).map(|_| layer.watch()).collect();
    let mut slow = Box::pin(layer.watch());
    assert!(slow.next().now_or_never().is_none(), "there is none yet");
    assert_eq!(issuer.calls(), 0, "it fetches nothing by itself");

    layer.token().await.unwrap();
    for _ in 0..20 {
        layer.refresh().await.unwrap();
    }
    assert_eq!(next(&mut slow).await.unwrap(), "token-21");
    assert!(slow.next().now_or_never().is_none(), "the latest only");
}

#[tokio::test(start_paused = true)]
async fn each_of_two_readers_is_told_of_each_token_and_a_late_one_of_that_in_service() {
    let layer = Issuer::fresh(DAY, SECOND).layer();
    let mut readers = [Box::pin(layer.watch()), Box::pin(layer.watch())];
    layer.token().await.unwrap();
    for reader in &mut readers {
        assert_eq!(next(reader).await.unwrap(), "token-1");
    }
    // A rejection brings the next, which the retry proves.
    let api = refusing_first(StatusCode::UNAUTHORIZED);
    send(&layer, &api, get(URL)).await.unwrap();
    for reader in &mut readers {
        assert_eq!(next(reader).await.unwrap(), "token-2");
        assert!(reader.next().now_or_never().is_none());
    }
    let [one, _] = readers;
    drop(one);
    let mut late = Box::pin(layer.watch());
    assert_eq!(next(&mut late).await.unwrap(), "token-2");
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_tokens_ends_with_the_last_layer_and_service() {
    let layer = Issuer::fresh(DAY, SECOND).layer();
    layer.token().await.unwrap();
    let mut tokens = Box::pin(layer.watch());
    assert_eq!(next(&mut tokens).await.unwrap(), "token-1");
    let service = layer.layer(refusing_first(StatusCode::OK));
    drop(layer);
    settle().await;
    assert!(tokens.next().now_or_never().is_none(), "a service is left");
    drop(service);
    assert_eq!(next(&mut tokens).await, None);
}

// === keep_fresh ===

fn keep_fresh(layer: &SymblAuthLayer) -> tokio::task::JoinHandle<()> {
    let layer = layer.clone();
    tokio::spawn(async move { layer.keep_fresh().await })
}

#[tokio::test(start_paused = true)]
async fn a_token_is_kept_fresh_without_traffic_until_that_is_dropped() {
    let issuer = Issuer::fresh(1000 * SECOND, 5 * SECOND);
    let wall = Wall::new();
    let layer = issuer.builder().wall_clock(wall.reader()).build();
    let fresh = keep_fresh(&layer);
    sleep(10 * SECOND).await;
    assert_eq!(issuer.calls(), 1, "at once");
    for n in 0..1000 {
        sleep(10 * SECOND).await;
        wall.forward(10 * SECOND);
        let token = layer.token().now_or_never();
        assert!(token.is_some_and(|token| token.is_ok()), "{n}: a gap");
    }
    let calls = issuer.calls();
    assert!((10..=40).contains(&calls), "{calls}");

    fresh.abort();
    assert!(fresh.await.unwrap_err().is_cancelled());
    settle().await;
    let calls = issuer.calls();
    sleep(DAY).await;
    assert_eq!(issuer.calls(), calls);
}

#[tokio::test(start_paused = true)]
async fn keeping_fresh_survives_a_token_service_that_fails() {
    let failing = Arc::new(AtomicUsize::new(5));
    let left = Arc::clone(&failing);
    let issuer = Issuer::new(move |call| {
        let fails = left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1))
            .is_ok();
        async move {
            if fails {
                let error = TokenError::new(TokenErrorKind::Unavailable, "down");
                return Err(error.into());
            }
            Ok(AccessToken::new(format!("token-{call}"), 1000 * SECOND)?)
        }
    });
    let layer = issuer.layer();
    let fresh = keep_fresh(&layer);
    sleep(600 * SECOND).await;
    assert!(
        layer
            .token()
            .now_or_never()
            .is_some_and(|token| token.is_ok())
    );
    // And again, ahead of its end, in the middle of its life.
    failing.store(3, Ordering::Relaxed);
    let calls = issuer.calls();
    sleep(900 * SECOND).await;
    assert!(issuer.calls() > calls + 3, "{}", issuer.calls());
    assert!(
        layer
            .token()
            .now_or_never()
            .is_some_and(|token| token.is_ok())
    );
    assert!(!fresh.is_finished());
    fresh.abort();
}

// === unlisted origins ===

#[tokio::test(start_paused = true)]
async fn only_a_rejection_says_that_a_request_went_without_a_token() {
    let issuer = Issuer::fresh(DAY, SECOND);
    let builder = issuer.builder();
    let layer = builder
        .rejected_when(|status, _| status == StatusCode::FORBIDDEN)
        .build();
    for (status, marked) in [
        (StatusCode::OK, false),
        (StatusCode::NOT_FOUND, false),
        (StatusCode::UNAUTHORIZED, true),
        (StatusCode::FORBIDDEN, true),
    ] {
        let api = Api::judging(move |_| status);
        let response = send(&layer, &api, get("https://other.example/"))
            .await
            .unwrap();
        assert_eq!(response.status(), status);
        assert_eq!(
            matches!(why(&response), Some(NotRetried::Unstamped)),
            marked,
            "{status}"
        );
        assert_eq!(why(&response).is_some(), marked);
    }
    assert_eq!(issuer.calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn origins_are_given_as_text_or_as_what_they_are() {
    let issuer = Issuer::fresh(DAY, SECOND);
    let builder = issuer
        .builder()
        .try_origins(["https://a.example", "http://b.example:8080"]);
    let layer = builder.unwrap().build();
    let api = Api::judging(|_| StatusCode::OK);
    for url in ["https://a.example/", "http://b.example:8080/", URL] {
        send(&layer, &api, get(url)).await.unwrap();
    }
    assert_eq!(
        api.tokens(),
        ["token-1", "token-1", ""],
        "in place of the default"
    );

    let Ok(builder) = issuer
        .builder()
        .try_origins(vec![origin("https://c.example")]);
    send(&builder.build(), &api, get("https://c.example/"))
        .await
        .unwrap();
    assert_eq!(api.tokens()[3], "token-2");

    let error = issuer
        .builder()
        .try_origins(["https://a.example", "https://*.b.example"]);
    assert!(error.unwrap_err().to_string().contains("list each"));
}

// === grpc-timeout ===

fn timed(timeout: &'static str) -> Request<Empty<Bytes>> {
    let mut request = get(URL);
    let timeout = timeout.parse().unwrap();
    request.headers_mut().insert("grpc-timeout", timeout);
    request
}

fn timeouts(api: &Api<Empty<Bytes>>) -> Vec<String> {
    let seen = api.seen();
    let value = |headers: &http::HeaderMap| headers["grpc-timeout"].to_str().unwrap().to_owned();
    seen.iter().map(value).collect()
}

fn is_timeout(why: Option<&NotRetried>) -> bool {
    matches!(why, Some(NotRetried::Token(error)) if error.kind() == TokenErrorKind::Timeout)
}

#[tokio::test(start_paused = true)]
async fn the_second_attempt_has_what_is_left_of_the_grpc_timeout() {
    for long in [false, true] {
        let api = refusing_first(StatusCode::UNAUTHORIZED);
        let mut request = timed("10S");
        if long {
            let much = "l".repeat(1000).parse().unwrap();
            request.headers_mut().insert("x-long", much);
        }
        let layer = Issuer::fresh(DAY, 2 * SECOND).layer();
        layer.token().await.unwrap();
        let response = send(&layer, &api, request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let timeouts = timeouts(&api);
        assert_eq!(timeouts[0], "10S");
        let left: u64 = timeouts[1].strip_suffix('u').unwrap().parse().unwrap();
        assert!((7_990_000..=8_000_000).contains(&left), "{left}");
        assert_eq!(api.seen()[1].contains_key("x-long"), long);
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_grpc_timeout_has_run_out_is_handed_back_in_time() {
    let issuer = Issuer::fresh(DAY, 2 * SECOND);
    let layer = issuer.layer();
    layer.token().await.unwrap();
    let api = refusing_first(StatusCode::UNAUTHORIZED);
    let start = Instant::now();
    let response = send(&layer, &api, timed("500m")).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert!(is_timeout(why(&response)), "{:?}", why(&response));
    assert!(start.elapsed() < SECOND, "{:?}", start.elapsed());
    assert_eq!(api.calls(), 1);
    // Its fetch goes on, for the next.
    let response = send(&layer, &api, timed("30S")).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(issuer.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_sent_again_when_the_first_attempt_took_all_of_the_grpc_timeout() {
    let layer = Issuer::fresh(DAY, Duration::ZERO).layer();
    layer.token().await.unwrap();
    let api: Api<Empty<Bytes>> = Api::new(|_| async {
        sleep(2 * SECOND).await;
        Ok(answer(StatusCode::UNAUTHORIZED))
    });
    let response = send(&layer, &api, timed("1S")).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert!(is_timeout(why(&response)), "{:?}", why(&response));
    assert_eq!(api.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_grpc_timeout_that_runs_out_while_an_instance_gets_ready_is_an_error() {
    let layer = Issuer::fresh(DAY, Duration::ZERO).layer();
    layer.token().await.unwrap();
    let (ready, wait) = tokio::sync::oneshot::channel();
    let api = refusing_first(StatusCode::UNAUTHORIZED);
    let mut service = layer.layer(SlowToBeReady::new(api.clone(), wait));
    let sent = service.ready().await.unwrap().call(timed("1S"));
    tokio::spawn(async move {
        sleep(2 * SECOND).await;
        ready.send(()).unwrap();
    });
    let error = sent.await.unwrap_err().downcast::<TokenError>().unwrap();
    assert_eq!(error.kind(), TokenErrorKind::Timeout);
    assert_eq!(api.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_grpc_timeout_that_is_none_goes_on_as_it_is() {
    for bad in ["", "soon", "123456789S", "-1S"] {
        let layer = Issuer::fresh(DAY, SECOND).layer();
        let api = refusing_first(StatusCode::UNAUTHORIZED);
        let response = send(&layer, &api, timed(bad)).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(timeouts(&api), [bad; 2]);
    }
    let layer = Issuer::fresh(DAY, SECOND).layer();
    let api = refusing_first(StatusCode::UNAUTHORIZED);
    send(&layer, &api, get(URL)).await.unwrap();
    assert!(!api.seen()[1].contains_key("grpc-timeout"));
}
