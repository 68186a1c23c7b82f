//! Rules J1 to J4, J6 and J7: what counts as a rejection, and what a rejected request goes through.
//!
//! Peers' bugs covered: the same stale token sent again (google-auth-library-java #749), endless loops on
//! 401 (ktor #2864), late failures evicting newer tokens (zerobus-sdk #701).

use std::{
    future::pending,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::future::join_all;
use http::{Request, Response, StatusCode};
use http_body_util::{Empty, Full};
use tokio::{
    sync::oneshot,
    time::{Instant, advance, sleep},
};
use tower::BoxError;
use tower_symbl_auth::{AccessToken, FetchReason, NotRetried, TokenError, TokenErrorKind};

use crate::{
    support::*,
    world::{World, scripted, token},
};

const MILLIS: Duration = Duration::from_millis(1);

/// An API that accepts the nth token and those after it.
fn accepting_from(first: usize) -> Api<Empty<Bytes>> {
    Api::judging(move |token| match number(token) >= first {
        true => StatusCode::OK,
        false => StatusCode::UNAUTHORIZED,
    })
}

fn why(response: &Response<Full<Bytes>>) -> Option<&NotRetried> {
    response.extensions().get()
}

/// J1, J3
#[tokio::test(start_paused = true)]
async fn a_rejected_token_is_replaced_and_the_request_sent_again() {
    let issuer = Issuer::fresh(DAY, SECOND);
    let (layer, api) = (issuer.layer(), accepting_from(2));
    let response = send(&layer, &api, get(URL)).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(api.tokens(), ["token-1", "token-2"]);
    assert_eq!(
        issuer.reasons(),
        [FetchReason::First, FetchReason::Rejected]
    );
}

/// J1: whatever status a gateway may have given it.
#[tokio::test(start_paused = true)]
async fn a_grpc_answer_of_trailers_only_that_says_unauthenticated_is_a_rejection() {
    for code in [200, 400, 500, 503] {
        let issuer = Issuer::fresh(DAY, SECOND);
        let layer = issuer.layer();
        let api: Api<Empty<Bytes>> = Api::new(move |request| {
            let (code, status) = match token_of(request.headers()) {
                "token-1" => (code, "16"),
                _ => (200, "0"),
            };
            let response = Response::builder()
                .status(code)
                .header("grpc-status", status);
            let response = response.body(Full::default());
            async move { Ok(response?) }
        });
        let response = send(&layer, &api, get(URL)).await.unwrap();
        assert_eq!(response.headers()["grpc-status"], "0");
        assert_eq!(api.calls(), 2, "{code}");
    }
}

/// J1
#[tokio::test(start_paused = true)]
async fn nothing_else_is_a_rejection() {
    let issuer = Issuer::fresh(DAY, SECOND);
    let layer = issuer.layer();
    for (status, grpc) in [
        (302, None),
        (402, None),
        (403, None),
        (402, Some("16")),
        (403, Some("16")),
        (407, None),
        (200, Some("7")),
        (200, Some("0")),
        (500, Some("14")),
    ] {
        let api: Api<Empty<Bytes>> = Api::new(move |_| {
            let mut response = Response::builder().status(status);
            if let Some(grpc) = grpc {
                response = response.header("grpc-status", grpc);
            }
            async move { Ok(response.body(Full::default())?) }
        });
        let response = send(&layer, &api, get(URL)).await.unwrap();
        assert_eq!(response.status(), status);
        assert!(why(&response).is_none());
        assert_eq!(api.calls(), 1);
    }
    assert_eq!(issuer.calls(), 1);
}

/// J2
#[tokio::test(start_paused = true)]
async fn a_late_rejection_of_an_old_token_is_retried_with_the_newer_one_without_a_fetch() {
    let issuer = Issuer::fresh(DAY, Duration::ZERO);
    let layer = issuer.layer();
    let api: Api<Empty<Bytes>> = Api::new(|request| async move {
        match token_of(request.headers()) {
            "token-1" => {
                sleep(10 * SECOND).await;
                Ok(answer(StatusCode::UNAUTHORIZED))
            }
            _ => Ok(answer(StatusCode::OK)),
        }
    });
    let late = send(&layer, &api, get(URL));
    let renewed = async {
        sleep(SECOND).await;
        layer.refresh().await.unwrap();
    };
    let (late, ()) = tokio::join!(late, renewed);
    assert_eq!(late.unwrap().status(), StatusCode::OK);
    assert_eq!(issuer.reasons(), [FetchReason::First, FetchReason::Forced]);
}

/// J3
#[tokio::test(start_paused = true)]
async fn a_rejection_of_one_request_neither_delays_nor_fails_another() {
    let issuer = Issuer::new(|call| async move {
        match call {
            1 => Ok(AccessToken::new("token-1", DAY)?),
            _ => pending().await,
        }
    });
    let layer = issuer.layer();
    let bad: Api<Empty<Bytes>> = Api::judging(|_| StatusCode::UNAUTHORIZED);
    let good: Api<Empty<Bytes>> = Api::judging(|_| StatusCode::OK);
    // In its first second a token that nobody has accepted is another matter (N4).
    send(&layer, &good, get(URL)).await.unwrap();
    let rejected = send(&layer, &bad, get(URL));
    let others = async {
        settle().await;
        let start = Instant::now();
        for _ in 0..100 {
            let response = send(&layer, &good, get(URL)).await.unwrap();
            assert_eq!(response.status(), StatusCode::OK);
        }
        assert_eq!(start.elapsed(), Duration::ZERO);
    };
    let (rejected, ()) = tokio::join!(rejected, others);
    assert_eq!(rejected.unwrap().status(), StatusCode::UNAUTHORIZED);
    assert_eq!(issuer.calls(), 2);
}

fn large() -> Request<Upload> {
    Request::post(URL).body(Upload::new(2 << 20)).unwrap()
}

/// J3
#[tokio::test(start_paused = true)]
async fn a_rejected_request_that_cannot_be_replayed_gets_its_401_at_once_and_starts_the_fetch() {
    let issuer = Issuer::fresh(DAY, SECOND);
    let layer = issuer.layer();
    layer.token().await.unwrap();
    let api: Api<Upload> = Api::judging(|_| StatusCode::UNAUTHORIZED);
    let start = Instant::now();
    let response = send(&layer, &api, large()).await.unwrap();
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert!(matches!(why(&response), Some(NotRetried::Body)));
    sleep(2 * SECOND).await;
    assert_eq!(
        issuer.reasons(),
        [FetchReason::First, FetchReason::Rejected]
    );
    assert_eq!(layer.token().await.unwrap().expose_secret(), "token-2");
}

/// J3
#[tokio::test(start_paused = true)]
async fn a_request_that_cannot_be_replayed_waits_for_a_fetch_that_a_rejection_began() {
    let issuer = Issuer::fresh(DAY, 5 * SECOND);
    let layer = issuer.layer();
    layer.token().await.unwrap();
    let api: Api<Upload> = Api::judging(|token| match token {
        "token-1" => StatusCode::UNAUTHORIZED,
        _ => StatusCode::OK,
    });
    send(&layer, &api, large()).await.unwrap();
    settle().await;
    let start = Instant::now();
    let response = send(&layer, &api, large()).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(start.elapsed(), 5 * SECOND);
    assert_eq!(api.tokens(), ["token-1", "token-2"]);
}

/// J3
#[tokio::test(start_paused = true)]
async fn it_waits_for_one_that_a_rejection_joined_and_goes_with_the_old_token_if_that_brings_none()
{
    let issuer = Issuer::new(|call| async move {
        if call == 1 {
            return Ok(AccessToken::new("token-1", 1000 * SECOND)?);
        }
        sleep(5 * SECOND).await;
        Err(TokenError::new(TokenErrorKind::Unavailable, "no").into())
    });
    let layer = issuer.layer();
    let ok: Api<Upload> = Api::judging(|_| StatusCode::OK);
    let bad: Api<Upload> = Api::judging(|_| StatusCode::UNAUTHORIZED);
    layer.token().await.unwrap();
    sleep(900 * SECOND).await;
    layer_in_use(&layer).await;
    assert_eq!(issuer.reasons()[1..], [FetchReason::Early]);

    let start = Instant::now();
    send(&layer, &ok, large()).await.unwrap();
    assert_eq!(
        start.elapsed(),
        Duration::ZERO,
        "an early one makes nobody wait"
    );

    send(&layer, &bad, large()).await.unwrap();
    let response = send(&layer, &ok, large()).await.unwrap();
    assert_eq!(start.elapsed(), 5 * SECOND);
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(ok.tokens(), ["token-1", "token-1"]);
    assert_eq!(issuer.calls(), 2);
}

/// J4
#[tokio::test(start_paused = true)]
async fn a_token_that_the_endpoint_vouches_for_is_kept_and_not_sent_again() {
    let issuer = Issuer::new(|_| async { Ok(AccessToken::new("token-1", DAY)?) });
    let layer = issuer.layer();
    let api: Api<Empty<Bytes>> = Api::judging(|_| StatusCode::UNAUTHORIZED);
    let response = send(&layer, &api, get(URL)).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert!(matches!(why(&response), Some(NotRetried::SameToken)));
    assert_eq!((api.calls(), issuer.calls()), (1, 2));
    assert_eq!(layer.token().await.unwrap().expose_secret(), "token-1");
    assert_eq!(issuer.calls(), 2);
}

/// J6
#[tokio::test(start_paused = true)]
async fn the_second_401_goes_to_the_caller() {
    let issuer = Issuer::fresh(DAY, Duration::ZERO);
    let layer = issuer.layer();
    let api: Api<Empty<Bytes>> = Api::judging(|_| StatusCode::UNAUTHORIZED);
    let response = send(&layer, &api, get(URL)).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert!(matches!(why(&response), Some(NotRetried::SecondRejection)));
    assert_eq!((api.calls(), issuer.calls()), (2, 2));
}

/// J7
#[tokio::test(start_paused = true)]
async fn a_401_is_handed_back_intact_when_there_is_no_new_token() {
    let issuer = Issuer::new(|call| async move {
        match call {
            1 => Ok(AccessToken::new("token-1", DAY)?),
            _ => Err(TokenError::new(TokenErrorKind::RateLimited, "slow down").into()),
        }
    });
    let layer = issuer.layer();
    for (name, value, status) in [("x-trace", "7", 401), ("grpc-status", "16", 200)] {
        let api: Api<Empty<Bytes>> = Api::new(move |_| async move {
            let response = Response::builder().status(status).header(name, value);
            Ok(response.extension(7_u8).body(Full::from("why"))?)
        });
        let url = format!("{URL}/{name}");
        let response = send(&layer, &api, get(&url)).await.unwrap();
        match why(&response) {
            Some(NotRetried::Token(error)) => assert_eq!(error.kind(), TokenErrorKind::RateLimited),
            other => panic!("{other:?}"),
        }
        assert_eq!(response.status(), status);
        assert_eq!(response.headers()[name], value);
        assert_eq!(response.extensions().get(), Some(&7_u8));
        let body = http_body_util::BodyExt::collect(response.into_body())
            .await
            .unwrap();
        assert_eq!(body.to_bytes(), "why");
    }
}

/// J7
#[tokio::test(start_paused = true)]
async fn the_401_is_dropped_before_the_request_is_sent_again() {
    struct Body(Arc<AtomicBool>);
    impl Drop for Body {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let dropped = Arc::new(AtomicBool::new(false));
    let issuer = Issuer::fresh(DAY, SECOND);
    let layer = issuer.layer();
    layer.token().await.unwrap();
    let flag = Arc::clone(&dropped);
    let first = Arc::new(Mutex::new(Some(Body(Arc::clone(&dropped)))));
    let api = tower::service_fn(move |_: ApiRequest<Empty<Bytes>>| {
        let body = first.lock().unwrap().take();
        let status = match &body {
            Some(_) => StatusCode::UNAUTHORIZED,
            None => {
                assert!(flag.load(Ordering::Relaxed), "the 401 is still held");
                StatusCode::OK
            }
        };
        let mut response = Response::new(body);
        *response.status_mut() = status;
        async move { Ok::<_, BoxError>(response) }
    });
    let service = tower::Layer::layer(&layer, api);
    let mut response = Box::pin(tower::ServiceExt::oneshot(service, get(URL)));
    assert!(futures::poll!(response.as_mut()).is_pending());
    assert!(
        !dropped.load(Ordering::Relaxed),
        "it is held while the token is fetched"
    );
    assert_eq!(response.await.unwrap().status(), StatusCode::OK);
}

/// J2, J7: though another comes while its instance gets ready.
#[tokio::test(start_paused = true)]
async fn the_retry_goes_with_the_token_that_was_chosen_for_it_while_that_is_kept() {
    for (accepted, tokens) in [(false, [1, 2]), (true, [1, 3])] {
        let world = World::new();
        world.answers(|_, token| if token == 1 { 401 } else { 200 });
        let (permit, wait) = oneshot::channel::<()>();
        let slow = SlowToBeReady::new(world.api.clone(), wait);
        world.layer.token().await.unwrap();
        let service = tower::Layer::layer(&world.layer, slow);
        let request = Request::post(URL).body(Upload::new(0)).unwrap();
        let response = tower::ServiceExt::oneshot(service, request);
        let renewed = async {
            settle().await;
            world.layer.refresh().await.unwrap();
            if accepted {
                // Which leaves no room for the older ones.
                world.get("/good").await.accepted();
            }
            permit.send(()).unwrap();
        };
        let (response, ()) = tokio::join!(response, renewed);
        assert_eq!(response.unwrap().status(), StatusCode::OK);
        let sent = world.sent();
        assert_eq!([sent[0], sent[sent.len() - 1]], tokens);
    }
}

/// J7
#[tokio::test(start_paused = true)]
async fn a_401_is_held_for_ten_seconds_at_most_and_for_one_if_its_body_is_long() {
    for (length, held) in [
        (None, 10),
        (Some(0), 10),
        (Some(16 * 1024), 10),
        (Some(16 * 1024 + 1), 1),
        (Some(1_u64 << 40), 1),
    ] {
        let issuer = Issuer::new(|call| async move {
            match call {
                1 => Ok(token(1)?),
                _ => pending().await,
            }
        });
        let layer = issuer.layer();
        let api: Api<Empty<Bytes>> = Api::new(move |_| async move {
            let mut response = Response::builder().status(401);
            if let Some(length) = length {
                response = response.header("content-length", length);
            }
            Ok(response.body(Full::default())?)
        });
        let start = Instant::now();
        let response = send(&layer, &api, get(URL)).await.unwrap();
        assert_eq!(start.elapsed(), held * SECOND, "{length:?}");
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        match why(&response) {
            Some(NotRetried::Token(error)) => assert_eq!(error.kind(), TokenErrorKind::Timeout),
            other => panic!("{other:?}"),
        }
    }
}

/// J7: the fetch goes on.
#[tokio::test(start_paused = true)]
async fn what_was_handed_back_after_ten_seconds_leaves_the_fetch_to_those_who_come_after() {
    let world = World::with(scripted(|call| (call, 12 * SECOND)), |builder| builder);
    world.prove().await;
    world.answers(|_, token| if token == 1 { 401 } else { 200 });
    let failed = |why: &NotRetried| matches!(why, NotRetried::Token(_));
    world.get("/a").await.because(failed);
    world.get("/a").await.accepted();
    assert_eq!((world.sent(), world.fetches()), (vec![1, 1, 2], 2));
}

/// J3: with the newest token. But if the served one has been accepted since, the rejection was its path's own, and one
/// is enough to try the newest, which nobody may know yet.
#[tokio::test(start_paused = true)]
async fn what_is_over_the_limit_waits_ten_seconds_at_most_and_then_goes_with_the_likelier_token() {
    for (delay, accepted, waited, sent) in [
        (4, false, 4, [2, 2, 2]),
        (4, true, 4, [2, 1, 1]),
        (60, false, 10, [1, 1, 1]),
    ] {
        let issuer = scripted(move |call| (call, (call - 1) as u32 * delay * SECOND));
        let world = World::with(issuer, |builder| builder);
        world.prove().await;
        world.answers(|path, _| if path == "/bad" { 401 } else { 200 });
        world
            .upload("/bad")
            .await
            .because(|why| matches!(why, NotRetried::Body));
        let start = Instant::now();
        if accepted {
            world.get("/good").await.accepted();
        }
        assert_eq!(start.elapsed(), Duration::ZERO, "others do not wait");
        world.sent();
        world.delays(SECOND);
        let uploads = [(); 3].map(|()| world.upload("/good"));
        for upload in futures::future::join_all(uploads).await {
            upload.accepted();
        }
        assert_eq!(start.elapsed(), (waited + 1) * SECOND);
        assert_eq!(world.sent(), sent);
    }
}

/// J3: what has waited for a fetch that failed takes no candidate that has been refused, beside a token that works.
#[tokio::test(start_paused = true)]
async fn what_has_waited_for_a_fetch_that_failed_goes_with_the_token_that_was_accepted() {
    let issuer = Issuer::new(|call| async move {
        if call > 2 {
            sleep(2 * SECOND).await;
            return Err("down".into());
        }
        let lifetime = if call == 1 { 1003 * SECOND } else { DAY };
        Ok(AccessToken::new(format!("token-{call}"), lifetime)?)
    });
    let world = World::with(issuer, |builder| builder);
    world.bring_the_candidate().await;
    world.accepts(&[1]);
    for _ in 0..10 {
        world.get("/good").await.accepted();
        advance(SECOND).await;
    }
    advance(3 * SECOND).await;
    let bad = world.clone();
    tokio::spawn(async move { bad.get("/bad").await });
    settle().await;
    world.sent();
    let start = Instant::now();
    world.upload("/good").await.accepted();
    assert_eq!((start.elapsed(), world.sent()), (2 * SECOND, vec![1]));
}

/// J4: also if `refresh` has joined it as well, for it was asked for as an early one.
#[tokio::test(start_paused = true)]
async fn an_early_fetch_that_brings_the_same_is_followed_by_one_for_the_rejection_that_joined_it() {
    for (then, vouched, forced) in [
        (1, true, false),
        (3, false, false),
        (1, true, true),
        (3, false, true),
    ] {
        let issuer = Issuer::new(move |call| async move {
            if call > 1 {
                sleep(2 * SECOND).await;
            }
            match call {
                1 | 2 => Ok(AccessToken::new("token-1", 1003 * SECOND)?),
                _ => Ok(token(then)?),
            }
        });
        let world = World::with(issuer, |builder| builder);
        world.prove().await;
        advance(600 * SECOND).await;
        world.get("/good").await.accepted();
        world.answers(|path, token| {
            if (path, token) == ("/bad", 1) {
                401
            } else {
                200
            }
        });
        let start = Instant::now();
        if forced {
            let layer = world.layer.clone();
            tokio::spawn(async move { layer.refresh().await });
            settle().await;
        }
        let got = world.get("/bad").await;
        assert_eq!(start.elapsed(), 4 * SECOND);
        assert_eq!(
            world.issuer.reasons()[1..],
            [FetchReason::Early, FetchReason::Rejected]
        );
        match vouched {
            true => got.because(|why| matches!(why, NotRetried::SameToken)),
            false => got.accepted(),
        }
    }
}

/// J6: where a first 401 would start a fetch.
#[tokio::test(start_paused = true)]
async fn a_second_401_starts_a_fetch_in_the_background_unless_the_newest_token_is_very_young() {
    for (age, fetches) in [(900 * MILLIS, 2), (1100 * MILLIS, 3)] {
        // The second token takes a while to come, so that what follows does not answer the caller.
        let issuer = scripted(|call| (call, if call < 3 { Duration::ZERO } else { 5 * SECOND }));
        let world = World::with(issuer, |builder| builder);
        world.prove().await;
        world.answers(|path, _| if path == "/bad" { 401 } else { 200 });
        world.delays(5 * SECOND);
        let late = world.get("/bad");
        let others = async {
            settle().await;
            world.delays(Duration::ZERO);
            sleep(5 * SECOND - age).await;
            world.layer.refresh().await.unwrap();
            world.get("/good").await.accepted();
        };
        let start = Instant::now();
        let (late, ()) = tokio::join!(late, others);
        late.because(|why| matches!(why, NotRetried::SecondRejection));
        assert_eq!(start.elapsed(), 5 * SECOND, "nobody waits for it");
        assert_eq!((world.sent(), world.fetches()), (vec![1, 2, 2], fetches));
    }
}

/// J1: neither accepted nor refused.
#[tokio::test(start_paused = true)]
async fn too_many_requests_and_failures_of_the_api_neither_prove_a_token_nor_refuse_it() {
    for status in [429, 500, 502, 503, 504, 599, 600, 999] {
        let world = World::new();
        world.answers(move |_, _| status);
        assert_eq!(world.get("/good").await.status, status);
        assert_eq!(world.fetches(), 1);
        // Had it been proven, what replaces it would be a candidate at first.
        world.answers(|_, token| if token == 1 { 401 } else { 503 });
        assert_eq!(world.get("/good").await.status, 503);
        assert_eq!((world.sent(), world.served().await), (vec![1, 1, 2], 2));
        // Nor has it been refused, which would have it replaced.
        world.answers(move |_, _| status);
        assert_eq!(world.get("/good").await.status, status);
        assert_eq!(world.fetches(), 2);
    }
}

/// J1
#[tokio::test(start_paused = true)]
async fn any_other_answer_below_500_proves_a_token() {
    for status in [100, 200, 204, 302, 400, 402, 403, 404, 407, 418, 499] {
        let world = World::new();
        world.answers(move |_, _| status);
        assert_eq!(world.get("/good").await.status, status);
        world.answers(|_, token| if token == 1 { 401 } else { 503 });
        assert_eq!(world.get("/good").await.status, 503);
        assert_eq!(
            (world.sent(), world.served().await),
            (vec![1, 1, 2], 1),
            "{status}"
        );
    }
}

/// J7
#[tokio::test(start_paused = true)]
async fn an_error_of_the_retry_reaches_the_caller_as_it_is() {
    #[derive(Debug)]
    struct Broken;
    impl std::fmt::Display for Broken {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("broken")
        }
    }
    impl std::error::Error for Broken {}
    let layer = Issuer::fresh(DAY, Duration::ZERO).layer();
    let api: Api<Empty<Bytes>> = Api::new(|request| async move {
        match token_of(request.headers()) {
            "token-1" => Ok(answer(StatusCode::UNAUTHORIZED)),
            _ => Err(Broken.into()),
        }
    });
    let error = send(&layer, &api, get(URL)).await.unwrap_err();
    assert!(error.is::<Broken>());
}

/// J3, T6: and the same once more, at once.
#[tokio::test(start_paused = true)]
async fn a_thousand_requests_in_flight_survive_a_revocation_and_the_next_with_one_fetch_each() {
    let issuer = Issuer::fresh(DAY, SECOND / 20);
    let layer = issuer.layer();
    layer.token().await.unwrap();
    let valid = Arc::new(Mutex::new(1));
    let judge = Arc::clone(&valid);
    let api: Api<Empty<Bytes>> = Api::new(move |request| {
        let token = number(token_of(request.headers()));
        let judge = Arc::clone(&judge);
        async move {
            sleep(SECOND / 10).await;
            let path: u64 = request.uri().path().rsplit('/').next().unwrap().parse()?;
            sleep(SECOND * (path as u32 % 100) / 1000).await; // 401s spread over 100 ms
            match token >= *judge.lock().unwrap() {
                true => Ok(answer(StatusCode::OK)),
                false => Ok(answer(StatusCode::UNAUTHORIZED)),
            }
        }
    });
    for revocation in 1..=3 {
        let requests = (0..1000).map(|n| send(&layer, &api, get_owned(format!("{URL}{n}"))));
        let revoke = async {
            sleep(SECOND / 20).await;
            *valid.lock().unwrap() = revocation + 1;
        };
        let (answers, ()) = tokio::join!(join_all(requests), revoke);
        assert!(
            answers
                .iter()
                .all(|answer| answer.as_ref().unwrap().status() == StatusCode::OK)
        );
        assert_eq!(
            issuer.calls(),
            revocation + 1,
            "one fetch for each revocation"
        );
    }
}
