//! Rule J5: one path's trouble never becomes another's, whatever the traffic.
//!
//! Peers' bugs covered: one token request for each call to an API that answers 401 for ever (Duende,
//! go-appkit #46), a second revocation within minutes that is not healed (cf-gears).

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::FutureExt;
use http::{Request, StatusCode};
use tokio::time::{Instant, advance, sleep};
use tower::{Layer, ServiceExt, limit::ConcurrencyLimit};
use tower_symbl_auth::{AccessToken, NotRetried, SymblAuthLayer, TokenError, TokenErrorKind};

use crate::support::*;

/// An API with paths that always answer 401 (`/bad/…`), and others that accept what is not revoked;
/// and the endpoint that goes with it.
#[derive(Clone)]
struct World {
    /// Tokens before this one are revoked.
    valid_from: Arc<AtomicUsize>,
    issuer: Issuer,
    layer: SymblAuthLayer,
    api: Api<Upload>,
    /// Bodies are over the limit.
    unreplayable: bool,
}

impl World {
    fn new(each_token_revokes_the_last: bool, unreplayable: bool) -> Self {
        let valid_from = Arc::new(AtomicUsize::new(1));
        let issued = Arc::clone(&valid_from);
        let issuer = Issuer::new(move |call| {
            if each_token_revokes_the_last {
                issued.store(call, Ordering::Relaxed);
            }
            async move { Ok(AccessToken::new(format!("token-{call}"), 30 * DAY)?) }
        });
        let valid = Arc::clone(&valid_from);
        let api = Api::new(move |request: ApiRequest<Upload>| {
            let token = number(token_of(request.headers()));
            let good = !request.uri().path().starts_with("/bad");
            let accepted = good && token >= valid.load(Ordering::Relaxed);
            let status = if accepted {
                StatusCode::OK
            } else {
                StatusCode::UNAUTHORIZED
            };
            async move { Ok(answer(status)) }
        });
        Self {
            valid_from,
            layer: issuer.layer(),
            issuer,
            api,
            unreplayable,
        }
    }

    async fn send(&self, path: &str) -> (StatusCode, Option<NotRetried>) {
        let length = if self.unreplayable { 2 << 20 } else { 0 };
        let uri = format!("https://api.symbl.ai{path}");
        let request = Request::post(uri).body(Upload::new(length)).unwrap();
        let response = send(&self.layer, &self.api, request).await.unwrap();
        settle().await;
        let why = response.extensions().get().cloned();
        (response.status(), why)
    }

    fn revoke(&self) {
        self.valid_from
            .store(self.issuer.calls() + 1, Ordering::Relaxed);
    }

    /// Traffic for so long: each step a request to each of these paths; with the good one in between, if
    /// asked. Tells how many fetches that cost.
    async fn traffic(&self, span: Duration, step: Duration, bad: usize, good: bool) -> usize {
        let (start, before) = (Instant::now(), self.issuer.calls());
        while start.elapsed() < span {
            for path in 0..bad {
                self.send(&format!("/bad/{path}?n={}", start.elapsed().as_millis()))
                    .await;
                if good {
                    self.send("/good").await;
                }
            }
            advance(step).await;
        }
        self.issuer.calls() - before
    }
}

/// All combinations of: each token revokes the last one; nothing can be replayed.
fn worlds() -> [World; 4] {
    [(false, false), (true, false), (false, true), (true, true)].map(|(r, u)| World::new(r, u))
}

#[tokio::test(start_paused = true)]
async fn a_path_that_always_answers_401_costs_about_one_fetch_a_minute() {
    for world in worlds() {
        for good in [false, true] {
            world.traffic(120 * SECOND, SECOND / 4, 1, good).await;
            let fetches = world.traffic(600 * SECOND, SECOND / 4, 1, good).await;
            assert!((8..=12).contains(&fetches), "{fetches} in ten minutes");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_thousand_such_paths_cost_six_fetches_a_minute_after_the_first_sixteen() {
    for world in worlds() {
        let first = world.traffic(60 * SECOND, 5 * SECOND, 1000, false).await;
        assert!((16..=24).contains(&first), "{first} in the first minute");
        let then = world.traffic(120 * SECOND, 5 * SECOND, 1000, false).await;
        assert!((8..=14).contains(&then), "{then} in two minutes");
    }
}

#[tokio::test(start_paused = true)]
async fn a_thousand_such_paths_cost_no_more_when_others_accept_the_token_in_between() {
    for world in worlds() {
        world.traffic(20 * SECOND, 10 * SECOND, 1000, true).await;
        let fetches = world.traffic(60 * SECOND, 10 * SECOND, 1000, true).await;
        assert!((4..=8).contains(&fetches), "{fetches} in a minute");
    }
}

#[tokio::test(start_paused = true)]
async fn a_good_path_never_sees_the_trouble_of_bad_ones() {
    // Not even when each token they fetch revokes the one before.
    for revokes in [false, true] {
        let world = World::new(revokes, false);
        let start = Instant::now();
        while start.elapsed() < 120 * SECOND {
            for path in 0..3 {
                world.send(&format!("/bad/{path}")).await;
                assert_eq!(world.send("/good").await.0, StatusCode::OK);
            }
            advance(SECOND / 4).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_revocation_is_healed_at_once_beside_three_bad_paths_that_have_just_begun() {
    for revokes in [false, true] {
        let world = World::new(revokes, false);
        world.traffic(SECOND, SECOND / 4, 3, true).await;
        for _ in 0..3 {
            world.revoke();
            assert_eq!(world.send("/good").await.0, StatusCode::OK);
            world.traffic(SECOND, SECOND / 4, 3, true).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_revocation_is_healed_within_ten_seconds_beside_a_thousand_bad_paths() {
    for world in worlds() {
        world.traffic(40 * SECOND, 10 * SECOND, 1000, true).await;
        for _ in 0..3 {
            world.revoke();
            let revoked = Instant::now();
            while world.send("/good").await.0 != StatusCode::OK {
                world.traffic(SECOND / 10, SECOND / 10, 20, false).await;
                assert!(revoked.elapsed() <= 10 * SECOND, "{:?}", revoked.elapsed());
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn revocations_each_right_after_the_last_was_healed_are_all_healed() {
    let world = World::new(false, false);
    world.send("/good").await;
    for _ in 0..100 {
        world.revoke();
        assert_eq!(world.send("/good").await.0, StatusCode::OK);
    }
    assert_eq!(world.issuer.calls(), 101, "with one fetch each");
}

#[tokio::test(start_paused = true)]
async fn revocations_are_healed_for_what_cannot_be_replayed_by_the_next_request() {
    let world = World::new(false, true);
    assert_eq!(world.send("/good").await.0, StatusCode::OK);
    for _ in 0..30 {
        world.revoke();
        assert!(matches!(
            world.send("/good").await,
            (_, Some(NotRetried::Body))
        ));
        assert_eq!(world.send("/good").await.0, StatusCode::OK);
    }
    assert_eq!(world.issuer.calls(), 31);
}

/// An API that takes its time, with four permits; requests wait for them, and so do retries.
fn busy(world: &World) -> ConcurrencyLimit<Api<Upload>> {
    let api = world.api.clone();
    let slow: Api<Upload> = Api::new(move |request| {
        let answered = tower::ServiceExt::oneshot(api.clone(), request);
        async move {
            sleep(SECOND / 5).await;
            answered.await
        }
    });
    ConcurrencyLimit::new(slow, 4)
}

/// Requests to these paths, each worker's one after the other, until the test ends.
fn workers(world: &World, service: &ConcurrencyLimit<Api<Upload>>, count: usize, paths: usize) {
    for worker in 0..count {
        let service = world.layer.layer(service.clone());
        tokio::spawn(async move {
            for request in worker.. {
                let uri = format!("https://api.symbl.ai/bad/{}", request % paths);
                let request = Request::post(uri).body(Upload::default()).unwrap();
                service.clone().oneshot(request).await.unwrap();
                sleep(SECOND / 100).await;
            }
        });
    }
}

#[tokio::test(start_paused = true)]
async fn a_bad_path_costs_one_fetch_a_minute_also_when_its_retries_are_slower_than_its_requests() {
    let world = World::new(false, false);
    workers(&world, &busy(&world), 40, 1);
    sleep(120 * SECOND).await;
    let before = world.issuer.calls();
    sleep(600 * SECOND).await;
    let fetches = world.issuer.calls() - before;
    assert!((8..=12).contains(&fetches), "{fetches} in ten minutes");
}

#[tokio::test(start_paused = true)]
async fn a_revocation_is_healed_at_once_beside_three_busy_bad_paths() {
    for revokes in [false, true] {
        let world = World::new(revokes, false);
        let service = busy(&world);
        workers(&world, &service, 60, 3);
        sleep(6 * SECOND).await;
        for _ in 0..3 {
            world.revoke();
            let service = world.layer.layer(service.clone());
            let request = Request::post("https://api.symbl.ai/good");
            let request = request.body(Upload::default()).unwrap();
            let response = service.oneshot(request).await.unwrap();
            assert_eq!(response.status(), StatusCode::OK);
            sleep(SECOND).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_accepted_retry_clears_its_path_even_if_another_paths_refresh_brought_the_token() {
    let (world, down) = (World::new(false, false), Arc::new(AtomicBool::new(false)));
    let (outage, valid) = (Arc::clone(&down), Arc::clone(&world.valid_from));
    let issuer = Issuer::new(move |call| {
        let down = outage.load(Ordering::Relaxed);
        async move {
            match down {
                true => Err(TokenError::new(TokenErrorKind::Unavailable, "down").into()),
                false => Ok(AccessToken::new(format!("token-{call}"), 30 * DAY)?),
            }
        }
    });
    let world = World {
        layer: issuer.layer(),
        issuer,
        ..world
    };
    world.send("/good/p").await;
    // An outage after a revocation: the path's refreshes fail, and it cools down ever longer.
    down.store(true, Ordering::Relaxed);
    world.revoke();
    for _ in 0..40 {
        world.send("/good/p").await;
        advance(SECOND).await;
    }
    let late = send_with_the_token_of_before(&world).await;
    down.store(false, Ordering::Relaxed);
    world.revoke();
    assert_eq!(world.send("/good/q").await.0, StatusCode::OK);
    late.send(()).unwrap();
    settle().await;
    valid.store(world.issuer.calls() + 1, Ordering::Relaxed);
    assert_eq!(world.send("/good/p").await.0, StatusCode::OK);
}

/// A request to the path `/good/p` whose 401 comes when it is told to; its retry is accepted.
async fn send_with_the_token_of_before(world: &World) -> tokio::sync::oneshot::Sender<()> {
    let (answer_now, told) = tokio::sync::oneshot::channel();
    let (api, told) = (world.api.clone(), told.shared());
    let slow: Api<Upload> = Api::new(move |request| {
        let answered = tower::ServiceExt::oneshot(api.clone(), request);
        let told = told.clone();
        async move {
            told.await?;
            answered.await
        }
    });
    let service = world.layer.layer(slow);
    let request = Request::post("https://api.symbl.ai/good/p");
    let request = request.body(Upload::default()).unwrap();
    tokio::spawn(async move {
        let response = service.oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
    });
    settle().await;
    answer_now
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_asks_to_be_left_alone_is_left_alone_by_rejections_too() {
    let issuer = Issuer::new(|call| async move {
        if call == 1 {
            return Ok(AccessToken::new("token-1", DAY)?);
        }
        let error = TokenError::new(TokenErrorKind::RateLimited, "slow down");
        Err(error.with_retry_after(100 * SECOND).into())
    });
    let (layer, api) = (issuer.layer(), Api::judging(|_| StatusCode::UNAUTHORIZED));
    for path in 0..100 {
        let url = format!("{URL}/{path}");
        let response = send(&layer, &api, get(&url)).await.unwrap();
        match response.extensions().get() {
            Some(NotRetried::Token(error)) => assert!(error.retry_after().is_some()),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(issuer.calls(), 2);
    advance(100 * SECOND).await;
    send(&layer, &api, get(URL)).await.unwrap();
    assert_eq!(issuer.calls(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_fruitless_refresh_cools_its_own_path_down_and_no_other() {
    let world = World::new(false, false);
    assert!(matches!(
        world.send("/bad").await.1,
        Some(NotRetried::SecondRejection)
    ));
    assert!(matches!(
        world.send("/bad?other=query").await.1,
        Some(NotRetried::CoolingDown)
    ));
    assert!(matches!(
        world.send("/bad/other").await.1,
        Some(NotRetried::SecondRejection)
    ));
    assert_eq!(world.issuer.calls(), 3);
}

#[tokio::test(start_paused = true)]
async fn the_same_token_and_an_error_are_fruitless_too() {
    for fails in [false, true] {
        let issuer = Issuer::new(move |call| async move {
            match (fails, call) {
                (true, 2..) => Err(TokenError::new(TokenErrorKind::Unavailable, "no").into()),
                _ => Ok(AccessToken::new("token-1", DAY)?),
            }
        });
        let layer = issuer.layer();
        let api = Api::judging(|_| StatusCode::UNAUTHORIZED);
        for calls in [2, 2, 3] {
            send(&layer, &api, get(URL)).await.unwrap();
            assert_eq!(issuer.calls(), calls);
            advance(SECOND / 2).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn callers_who_go_away_amid_a_revocation_use_up_nothing() {
    let world = World::new(false, false);
    world.send("/good").await;
    for _ in 0..100 {
        world.revoke();
        // Dropped while its token is fetched; the next request judges in its stead.
        assert!(is_pending_once(world.send("/good")).await);
        settle().await;
        assert_eq!(world.send("/good").await.0, StatusCode::OK);
    }
}

/// Polls a future once, and drops it.
async fn is_pending_once<F: Future>(future: F) -> bool {
    futures::poll!(std::pin::pin!(future)).is_pending()
}

#[tokio::test(start_paused = true)]
async fn requests_that_something_else_sends_are_bounded_in_the_same_way() {
    let world = World::new(false, false);
    let mut fetches = 0;
    for _ in 0..600 {
        let mut request = get("wss://api.symbl.ai/v1/streaming/1");
        let token = world.layer.authorize(&mut request).await.unwrap().unwrap();
        if let Some(newer) = world.layer.rejected(&token).await.unwrap() {
            assert_ne!(newer.expose_secret(), token.expose_secret());
            assert!(world.layer.rejected(&newer).await.unwrap().is_none());
            fetches += 1;
        }
        advance(SECOND).await;
    }
    assert!((12..=18).contains(&fetches), "{fetches} in ten minutes");
}

#[tokio::test(start_paused = true)]
async fn a_rejected_handshake_gets_a_newer_token_that_is_there_already() {
    let world = World::new(false, false);
    let old = world.layer.token().await.unwrap();
    let new = world.layer.refresh().await.unwrap();
    let newer = world.layer.rejected(&old).await.unwrap().unwrap();
    assert_eq!(newer.expose_secret(), new.expose_secret());
    assert_eq!(world.issuer.calls(), 2);
}
