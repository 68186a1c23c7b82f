//! Rules J4 and J5: one path's trouble never becomes another's, whatever the traffic. Paths cool down, and
//! fetches after rejections are limited.
//!
//! Peers' bugs covered: one token request for each call to an API that answers 401 for ever (Duende,
//! go-appkit #46), a second revocation within minutes that is not healed (cf-gears).

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::{Request, StatusCode};
use tokio::time::{Instant, advance, sleep};
use tower::{Layer, ServiceExt, limit::ConcurrencyLimit};
use tower_symbl_auth::{AccessToken, NotRetried, SymblAuthLayer, TokenError, TokenErrorKind};

use crate::{
    support::*,
    world::{World, scripted, token},
};

const MILLIS: Duration = Duration::from_millis(1);

/// An API with paths that always answer 401 (`/bad/…`), and others that accept what is not revoked;
/// and the endpoint that goes with it.
#[derive(Clone)]
struct Site {
    /// Tokens before this one are revoked.
    valid_from: Arc<AtomicUsize>,
    issuer: Issuer,
    layer: SymblAuthLayer,
    api: Api<Upload>,
    /// Bodies are over the limit.
    unreplayable: bool,
}

impl Site {
    fn new(each_token_revokes_the_last: bool, unreplayable: bool) -> Self {
        let valid_from = Arc::new(AtomicUsize::new(1));
        let issued = Arc::clone(&valid_from);
        let issuer = Issuer::new(move |call| {
            if each_token_revokes_the_last {
                issued.store(call, Ordering::Relaxed);
            }
            async move { Ok(token(call)?) }
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
fn worlds() -> [Site; 4] {
    [(false, false), (true, false), (false, true), (true, true)].map(|(r, u)| Site::new(r, u))
}

#[tokio::test(start_paused = true)]
async fn a_path_that_always_answers_401_costs_about_one_fetch_a_minute() {
    for world in worlds() {
        world.traffic(120 * SECOND, SECOND / 4, 1, true).await;
        let fetches = world.traffic(600 * SECOND, SECOND / 4, 1, true).await;
        // If nothing can be sent again then nothing tries new tokens, and none is thrown away.
        let fewest = if world.unreplayable { 0 } else { 8 };
        assert!((fewest..=12).contains(&fetches), "{fetches} in ten minutes");
    }
}

#[tokio::test(start_paused = true)]
async fn and_one_in_two_minutes_if_nothing_says_that_it_is_not_the_tokens() {
    for world in worlds() {
        world.traffic(300 * SECOND, SECOND / 4, 1, false).await;
        let fetches = world.traffic(600 * SECOND, SECOND / 4, 1, false).await;
        assert!((4..=6).contains(&fetches), "{fetches} in ten minutes");
    }
}

#[tokio::test(start_paused = true)]
async fn a_thousand_such_paths_cost_six_fetches_a_minute_after_the_first_sixteen() {
    for world in worlds() {
        let first = world.traffic(60 * SECOND, 5 * SECOND, 1000, true).await;
        assert!((16..=24).contains(&first), "{first} in the first minute");
        let then = world.traffic(120 * SECOND, 5 * SECOND, 1000, true).await;
        assert!((8..=14).contains(&then), "{then} in two minutes");
    }
}

#[tokio::test(start_paused = true)]
async fn a_good_path_never_sees_the_trouble_of_bad_ones() {
    // Not even when each token they fetch revokes the one before.
    for revokes in [false, true] {
        let world = Site::new(revokes, false);
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
        let world = Site::new(revokes, false);
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
async fn revocations_a_second_apart_are_all_healed() {
    let world = Site::new(false, false);
    world.send("/good").await;
    for _ in 0..100 {
        world.revoke();
        assert_eq!(world.send("/good").await.0, StatusCode::OK);
        advance(SECOND).await;
    }
    assert_eq!(world.issuer.calls(), 101, "with one fetch each");
}

#[tokio::test(start_paused = true)]
async fn of_revocations_right_after_one_another_sixteen_are_healed_and_then_one_a_second() {
    let world = Site::new(false, false);
    world.send("/good").await;
    let mut healed = 0;
    for _ in 0..100 {
        world.revoke();
        healed += u32::from(world.send("/good").await.0 == StatusCode::OK);
    }
    assert_eq!(healed, 16);
    for _ in 0..5 {
        advance(SECOND).await;
        world.revoke();
        assert_eq!(world.send("/good").await.0, StatusCode::OK);
    }
}

#[tokio::test(start_paused = true)]
async fn revocations_are_healed_for_what_cannot_be_replayed_by_the_next_request() {
    let world = Site::new(false, true);
    assert_eq!(world.send("/good").await.0, StatusCode::OK);
    for _ in 0..30 {
        world.revoke();
        assert!(matches!(
            world.send("/good").await,
            (_, Some(NotRetried::Body))
        ));
        assert_eq!(world.send("/good").await.0, StatusCode::OK);
        advance(SECOND).await;
    }
    assert_eq!(world.issuer.calls(), 31);
}

/// An API that takes its time, with four permits; requests wait for them, and so do retries.
fn busy(world: &Site) -> ConcurrencyLimit<Api<Upload>> {
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

/// Requests to these paths and by one worker to a good one, each one's one after the other, until the
/// test ends.
fn workers(world: &Site, service: &ConcurrencyLimit<Api<Upload>>, count: usize, paths: usize) {
    for worker in 0..=count {
        let service = world.layer.layer(service.clone());
        tokio::spawn(async move {
            for request in worker.. {
                let uri = match worker == count {
                    true => "https://api.symbl.ai/good".to_owned(),
                    false => format!("https://api.symbl.ai/bad/{}", request % paths),
                };
                let request = Request::post(uri).body(Upload::default()).unwrap();
                service.clone().oneshot(request).await.unwrap();
                sleep(SECOND / 100).await;
            }
        });
    }
}

#[tokio::test(start_paused = true)]
async fn a_bad_path_costs_one_fetch_a_minute_also_when_its_retries_are_slower_than_its_requests() {
    let world = Site::new(false, false);
    workers(&world, &busy(&world), 40, 1);
    sleep(120 * SECOND).await;
    let before = world.issuer.calls();
    sleep(600 * SECOND).await;
    let fetches = world.issuer.calls() - before;
    assert!((8..=12).contains(&fetches), "{fetches} in ten minutes");
}

#[tokio::test(start_paused = true)]
async fn a_revocation_is_healed_at_once_beside_three_busy_bad_paths() {
    let world = Site::new(false, false);
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

#[tokio::test(start_paused = true)]
async fn an_accepted_retry_clears_its_path_even_if_another_paths_fetch_brought_the_token() {
    let world = World::with_a_proven_token().await;
    bad_paths(&world);
    fetch_for(&world, "/bad/p").await;
    for _ in 0..3 {
        fetch_for(&world, "/bad/p").await;
        world.get("/bad/p").await.because(cooling);
        advance(4100 * MILLIS).await;
        world.get("/good").await.accepted();
    }
    // It refuses this one as well, but says so late.
    world.delays(SECOND);
    let late = world.get("/bad/p");
    let other = async {
        settle().await;
        world.delays(Duration::ZERO);
        let newest = world.fetches();
        world.answers(move |_, token| if token > newest { 200 } else { 401 });
        world.get("/good").await.accepted();
    };
    let (late, ()) = tokio::join!(late, other);
    late.accepted();
    bad_paths(&world);
    world.get("/good").await.accepted();
    fetch_for(&world, "/bad/p").await;
    fetch_for(&world, "/bad/p").await;
    world.get("/bad/p").await.because(cooling);
    advance(1100 * MILLIS).await;
    fetch_for(&world, "/bad/p").await;
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

/// The API refuses everything on paths that begin with `/bad`, and nothing else.
fn bad_paths(world: &World) {
    world.answers(|path, _| if path.starts_with("/bad") { 401 } else { 200 });
}

/// A fetch on that path's account, and the proof that what came is good.
async fn fetch_for(world: &World, path: &str) {
    let fetches = world.fetches();
    let second = |why: &NotRetried| matches!(why, NotRetried::SecondRejection);
    world.get(path).await.because(second);
    world.get("/good").await.accepted();
    assert_eq!(world.fetches(), fetches + 1);
}

fn cooling(why: &NotRetried) -> bool {
    matches!(why, NotRetried::CoolingDown)
}

/// J5
#[tokio::test(start_paused = true)]
async fn the_second_fruitless_fetch_in_a_row_cools_its_path_down_and_no_other() {
    let world = World::with_a_proven_token().await;
    bad_paths(&world);
    fetch_for(&world, "/bad").await;
    fetch_for(&world, "/bad").await;
    world.get("/bad").await.because(cooling);
    world.get("/bad?other=query").await.because(cooling);
    assert_eq!(world.fetches(), 3);
    fetch_for(&world, "/bad/other").await;
    world.get("/bad").await.because(cooling);
    // The method is a part of it.
    let request = Request::get("https://api.symbl.ai/bad").body(Upload::new(0));
    let response = send(&world.layer, &world.api, request.unwrap())
        .await
        .unwrap();
    assert!(matches!(
        response.extensions().get(),
        Some(NotRetried::SecondRejection)
    ));
}

/// J5
#[tokio::test(start_paused = true)]
async fn cool_downs_double_from_a_second_to_a_minute() {
    let world = World::with_a_proven_token().await;
    bad_paths(&world);
    fetch_for(&world, "/bad").await;
    for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
        fetch_for(&world, "/bad").await;
        world.get("/bad").await.because(cooling);
        advance(seconds * SECOND - 10 * MILLIS).await;
        world.get("/good").await.accepted();
        world.get("/bad").await.because(cooling);
        advance(20 * MILLIS).await;
    }
}

/// J5
#[tokio::test(start_paused = true)]
async fn a_fetch_is_fruitless_only_once_what_it_brought_has_been_accepted_and_refused() {
    let world = World::with_a_proven_token().await;
    bad_paths(&world);
    fetch_for(&world, "/bad").await;
    fetch_for(&world, "/bad").await;
    // Its retries were refused with tokens that nobody had accepted by then, so the cool-down begins now.
    advance(1100 * MILLIS).await;
    world.get("/good").await.accepted();
    world.get("/bad").await.because(cooling);
}

/// J5
#[tokio::test(start_paused = true)]
async fn an_accepted_retry_clears_its_path() {
    let world = World::with_a_proven_token().await;
    bad_paths(&world);
    fetch_for(&world, "/bad").await;
    fetch_for(&world, "/bad").await;
    world.get("/bad").await.because(cooling);
    advance(1100 * MILLIS).await;
    // It has been a revocation after all.
    world.accepts(&[4]);
    world.answers(|_, token| if token == 4 { 200 } else { 401 });
    world.get("/bad").await.accepted();
    bad_paths(&world);
    advance(SECOND).await;
    fetch_for(&world, "/bad").await;
    fetch_for(&world, "/bad").await;
    world.get("/bad").await.because(cooling);
    advance(1100 * MILLIS).await;
    fetch_for(&world, "/bad").await;
}

/// J5
#[tokio::test(start_paused = true)]
async fn the_next_accepted_answer_clears_a_path_whose_request_could_not_be_sent_again() {
    let world = World::with_a_proven_token().await;
    bad_paths(&world);
    fetch_for(&world, "/bad").await;
    fetch_for(&world, "/bad").await;
    world.get("/bad").await.because(cooling);
    advance(1100 * MILLIS).await;
    world
        .upload("/bad")
        .await
        .because(|why| matches!(why, NotRetried::Body));
    world.answers(|_, _| 200);
    world.upload("/bad").await.accepted();
    bad_paths(&world);
    world.get("/good").await.accepted();
    fetch_for(&world, "/bad").await;
    fetch_for(&world, "/bad").await;
    world.get("/bad").await.because(cooling);
}

/// J5
#[tokio::test(start_paused = true)]
async fn ten_minutes_without_a_word_of_it_clear_a_path() {
    for (minutes, cleared) in [(9, false), (11, true)] {
        let world = World::with_a_proven_token().await;
        bad_paths(&world);
        fetch_for(&world, "/bad").await;
        fetch_for(&world, "/bad").await;
        world.get("/bad").await.because(cooling);
        advance(minutes * 60 * SECOND).await;
        world.get("/good").await.accepted();
        fetch_for(&world, "/bad").await;
        let got = world.get("/bad").await;
        assert_eq!(!got.why.as_ref().is_some_and(cooling), cleared, "{minutes}");
    }
}

/// J5
#[tokio::test(start_paused = true)]
async fn at_most_64_paths_are_kept_and_the_longest_unheard_of_goes() {
    for (others, kept) in [(60, true), (64, false)] {
        let world = World::with_a_proven_token().await;
        bad_paths(&world);
        fetch_for(&world, "/bad").await;
        fetch_for(&world, "/bad").await;
        world.get("/bad").await.because(cooling);
        for other in 0..others {
            // Within the ten minutes, as the limits allow it.
            advance(if other < 13 { SECOND } else { 11 * SECOND }).await;
            world.get("/good").await.accepted();
            fetch_for(&world, &format!("/bad/{other}")).await;
        }
        advance(11 * SECOND).await;
        world.get("/good").await.accepted();
        fetch_for(&world, "/bad").await;
        let got = world.get("/bad").await;
        assert_eq!(got.why.as_ref().is_some_and(cooling), kept, "{others}");
    }
}

/// J5
#[tokio::test(start_paused = true)]
async fn sixteen_fetches_that_do_not_help_are_made_at_once_and_one_more_every_ten_seconds() {
    let world = World::with_a_proven_token().await;
    bad_paths(&world);
    for path in 0..16 {
        fetch_for(&world, &format!("/bad/{path}")).await;
    }
    // At the limit, a request whose token is proven is sent again with the same.
    world.sent();
    world
        .get("/bad/16")
        .await
        .because(|why| matches!(why, NotRetried::SecondRejection));
    assert_eq!((world.sent(), world.fetches()), (vec![17, 17], 17));
    for path in 17..20 {
        advance(9900 * MILLIS).await;
        world.get("/good").await.accepted();
        world.get(&format!("/bad/{path}/early")).await;
        let fetches = world.fetches();
        advance(100 * MILLIS).await;
        world.get("/good").await.accepted();
        fetch_for(&world, &format!("/bad/{path}")).await;
        assert_eq!(world.fetches(), fetches + 1);
    }
}

/// J5
#[tokio::test(start_paused = true)]
async fn an_accepted_retry_gives_its_paths_share_back_and_a_failed_fetch_its_own() {
    let issuer = scripted(|call| (if call % 2 == 0 { 0 } else { call }, Duration::ZERO));
    let world = World::with(issuer, |builder| builder);
    world.prove().await;
    for _ in 0..50 {
        // One that fails, and one that helps.
        let fetches = world.fetches();
        world.answers(move |_, token| if token > fetches { 200 } else { 401 });
        while world.get("/good").await.status != 200 {
            advance(SECOND).await;
        }
        assert_eq!(world.fetches(), fetches + 2);
        advance(SECOND).await;
    }
    bad_paths(&world);
    // So there are sixteen at once still; each second one fails.
    let fetches = world.fetches();
    for path in 0..40 {
        world.get(&format!("/bad/{path}")).await;
        world.get("/good").await.accepted();
        advance(1100 * MILLIS).await;
    }
    let fetched = world.fetches() - fetches;
    assert!((32..=40).contains(&fetched), "{fetched}");
}

/// J4
#[tokio::test(start_paused = true)]
async fn a_path_cools_down_at_once_when_the_endpoint_vouches_for_the_token_that_it_refuses() {
    let world = World::with(scripted(|_| (1, Duration::ZERO)), |builder| builder);
    world.prove().await;
    bad_paths(&world);
    let same = |why: &NotRetried| matches!(why, NotRetried::SameToken);
    world.get("/bad").await.because(same);
    world.get("/bad").await.because(cooling);
    advance(990 * MILLIS).await;
    world.get("/bad").await.because(cooling);
    assert_eq!((world.fetches(), world.sent()), (2, vec![1; 3]));
    advance(20 * MILLIS).await;
    world.get("/bad").await.because(same);
    advance(1900 * MILLIS).await;
    world.get("/bad").await.because(cooling);
}

/// J5
#[tokio::test(start_paused = true)]
async fn a_fetch_that_fails_is_not_held_against_the_path_whose_401_asked_for_it() {
    let issuer = scripted(|call| {
        (
            if (2..=6).contains(&call) { 0 } else { call },
            Duration::ZERO,
        )
    });
    let world = World::with(issuer, |builder| builder);
    world.prove().await;
    bad_paths(&world);
    while world.fetches() < 6 {
        let failed = |why: &NotRetried| matches!(why, NotRetried::Token(_));
        world.get("/bad").await.because(failed);
        world.get("/good").await.accepted();
        advance(SECOND).await;
    }
    advance(60 * SECOND).await;
    world.get("/good").await.accepted();
    fetch_for(&world, "/bad").await;
    fetch_for(&world, "/bad").await;
    world.get("/bad").await.because(cooling);
}

#[tokio::test(start_paused = true)]
async fn callers_who_go_away_amid_a_revocation_use_up_nothing() {
    let world = Site::new(false, false);
    world.send("/good").await;
    for _ in 0..100 {
        world.revoke();
        // Dropped while its token is fetched; the next request judges in its stead.
        assert!(is_pending_once(world.send("/good")).await);
        settle().await;
        assert_eq!(world.send("/good").await.0, StatusCode::OK);
        advance(SECOND).await;
    }
    assert_eq!(world.issuer.calls(), 101);
}

/// Polls a future once, and drops it.
async fn is_pending_once<F: Future>(future: F) -> bool {
    futures::poll!(std::pin::pin!(future)).is_pending()
}

#[tokio::test(start_paused = true)]
async fn requests_that_something_else_sends_are_bounded_in_the_same_way() {
    let world = Site::new(false, false);
    for _ in 0..600 {
        let mut request = get("wss://api.symbl.ai/v1/streaming/1");
        let token = world.layer.authorize(&mut request).await.unwrap().unwrap();
        if let Some(other) = world.layer.rejected(&token).await.unwrap() {
            assert_ne!(other.expose_secret(), token.expose_secret());
            let _ = world.layer.rejected(&other).await.unwrap();
        }
        advance(SECOND).await;
    }
    let fetches = world.issuer.calls();
    assert!((8..=12).contains(&fetches), "{fetches} in ten minutes");
}

#[tokio::test(start_paused = true)]
async fn a_rejected_handshake_gets_a_newer_token_that_is_there_already() {
    let world = Site::new(false, false);
    let old = world.layer.token().await.unwrap();
    let new = world.layer.refresh().await.unwrap();
    let newer = world.layer.rejected(&old).await.unwrap().unwrap();
    assert_eq!(newer.expose_secret(), new.expose_secret());
    assert_eq!(world.issuer.calls(), 2);
}

/// J5: the path's next accepted answer, if no retry was to come of it. Here the second 401 starts no fetch, for the newest
/// token is very young.
#[tokio::test(start_paused = true)]
async fn a_second_401_of_a_very_young_token_leaves_the_word_to_the_paths_next_answer() {
    let world = World::with_a_proven_token().await;
    for _ in 0..6 {
        let next = world.fetches() + 1;
        world.accepts(&[]);
        world
            .get("/x")
            .await
            .because(|why| matches!(why, NotRetried::SecondRejection));
        assert_eq!(world.fetches(), next);
        advance(SECOND / 3).await;
        world.accepts(&[next]);
        world.get("/y").await.accepted();
        advance(3 * SECOND).await;
        world.get("/x").await.accepted();
        advance(30 * SECOND).await;
    }
}

/// J5: nor is a retry to come of a fetch beside which the request goes again with another token.
#[tokio::test(start_paused = true)]
async fn a_retry_with_another_token_beside_the_fetch_leaves_the_word_to_the_paths_next_answer() {
    let world = World::with_a_proven_token().await;
    world.layer.refresh().await.unwrap();
    advance(3 * SECOND).await;
    world.accepts(&[]);
    world
        .get("/y")
        .await
        .because(|why| matches!(why, NotRetried::SecondRejection));
    assert_eq!((world.sent(), world.fetches()), (vec![2, 1], 3));
    advance(SECOND * 21 / 10).await;
    assert_eq!(world.served().await, 3);
    world.accepts(&[1]);
    world.get("/x").await.accepted();
    assert_eq!((world.sent(), world.fetches()), (vec![3, 1], 4));
    world.accepts(&[4]);
    for _ in 0..60 {
        advance(SECOND).await;
        world.get("/x").await.accepted();
    }
    let next = world.fetches() + 1;
    world.accepts(&[next]);
    world
        .upload("/x")
        .await
        .because(|why| matches!(why, NotRetried::Body));
    settle().await;
    world.upload("/x").await.accepted();
}

/// J5 for those who send by themselves, with tokens that are for no request in particular.
#[tokio::test(start_paused = true)]
async fn a_token_that_was_asked_for_and_is_accepted_clears_what_its_rejection_left() {
    let world = World::with_a_proven_token().await;
    for _ in 0..6 {
        let next = world.fetches() + 1;
        world.accepts(&[next]);
        let token = world.layer.token().await.unwrap();
        assert!(world.layer.rejected(&token).await.unwrap().is_some());
        world.get("/good").await.accepted();
        let token = world.layer.token().await.unwrap();
        assert_eq!(number(token.expose_secret()), next);
        world.layer.accepted(&token);
        advance(30 * SECOND).await;
    }
}
