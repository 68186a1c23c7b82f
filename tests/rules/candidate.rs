//! Rules N1 to N3: make before break. Which two tokens are kept, which is served, who tries the other,
//! and when they change places.
//!
//! Peers' bugs covered: a new token believed before the API knows it, and a working one thrown away for
//! it.

use std::time::Duration;

use http::StatusCode;
use tokio::time::{Instant, advance};
use tower_symbl_auth::{AccessToken, FetchReason, NotRetried};

use crate::{
    support::*,
    world::{World, scripted, third_brings},
};

const MILLIS: Duration = Duration::from_millis(1);

// === N1: which tokens are kept, and which is served ===

#[tokio::test(start_paused = true)]
async fn what_a_refresh_ahead_brings_is_served_once_the_api_has_accepted_it() {
    let world = World::with_a_candidate().await;
    assert_eq!(world.served().await, 1);
    world.get("/good").await.accepted();
    assert_eq!((world.sent(), world.served().await), (vec![2], 2));
}

#[tokio::test(start_paused = true)]
async fn what_replaces_an_accepted_token_is_not_served_before_it_is_accepted_itself() {
    let world = World::with_a_proven_token().await;
    // A failure of the API's and "too many requests" prove nothing.
    for status in [500, 503, 429] {
        world.answers(move |path, token| match (path, token) {
            ("/bad", 1) => 401,
            (_, 1) => 200,
            _ => status,
        });
        assert_eq!(world.get("/bad").await.status, status);
        assert_eq!(world.served().await, 1, "{status}");
    }
    assert_eq!((world.fetches(), world.sent()), (2, vec![1, 2, 2, 2]));
    world.accepts(&[1, 2]);
    world.get("/good").await.accepted();
    assert_eq!((world.sent(), world.served().await), (vec![2], 2));
}

#[tokio::test(start_paused = true)]
async fn what_replaces_a_token_that_was_refused_and_never_accepted_is_served_at_once() {
    let world = World::new();
    world.answers(|_, token| if token == 1 { 401 } else { 500 });
    assert_eq!(world.get("/good").await.status, 500);
    assert_eq!((world.sent(), world.served().await), (vec![1, 2], 2));
}

/// N1: also if it was there already, and is brought once more.
#[tokio::test(start_paused = true)]
async fn a_candidate_that_is_brought_again_is_served_at_once_beside_one_that_was_only_refused() {
    let world = World::with(
        scripted(|call| (call.min(4 - call), Duration::ZERO)),
        |builder| builder,
    );
    assert_eq!(world.served().await, 1);
    world.layer.refresh().await.unwrap();
    world.answers(|_, token| if token == 2 { 401 } else { 503 });
    assert_eq!(world.get("/good").await.status, 503);
    assert_eq!((world.sent(), world.served().await), (vec![2, 1], 1));
}

#[tokio::test(start_paused = true)]
async fn what_a_forced_refresh_brings_is_served_at_once() {
    let world = World::with_a_proven_token().await;
    let new = world.layer.refresh().await.unwrap();
    assert_eq!(number(new.expose_secret()), 2);
    assert_eq!(world.served().await, 2);
}

#[tokio::test(start_paused = true)]
async fn the_one_that_was_accepted_is_kept_beside_the_newest() {
    let world = World::with_a_proven_token().await;
    world.layer.refresh().await.unwrap();
    world.layer.refresh().await.unwrap();
    world.accepts(&[1, 2]);
    world.get("/good").await.accepted();
    assert_eq!((world.sent(), world.fetches()), (vec![3, 1], 3));
}

/// N1: and served, until the newest has been accepted, if that is no longer the one that `refresh` brought.
#[tokio::test(start_paused = true)]
async fn what_a_refresh_ahead_brings_beside_two_is_a_candidate_and_the_accepted_one_is_served() {
    let issuer = Issuer::new(|call| async move {
        let lifetime = if call == 2 { 40 * SECOND } else { DAY };
        Ok(AccessToken::new(format!("token-{call}"), lifetime)?)
    });
    let world = World::with(issuer, |builder| builder);
    world.prove().await;
    world.layer.refresh().await.unwrap();
    assert_eq!(world.served().await, 2);
    advance(25 * SECOND).await;
    layer_in_use(&world.layer).await;
    assert_eq!((world.fetches(), world.served().await), (3, 1));
    world.get("/good").await.accepted();
    assert_eq!((world.sent(), world.served().await), (vec![3], 3));
}

#[tokio::test(start_paused = true)]
async fn of_tokens_that_nobody_has_accepted_the_two_newest_are_kept() {
    let world = World::new();
    assert_eq!(world.served().await, 1);
    world.layer.refresh().await.unwrap();
    world.layer.refresh().await.unwrap();
    advance(2 * SECOND).await;
    world.answers(|_, token| if token == 3 { 401 } else { 503 });
    // The newest is replaced at its first refusal, and the next newest is kept.
    assert_eq!(world.get("/a").await.status, 503);
    assert_eq!((world.sent(), world.served().await), (vec![3, 4], 4));
    world.answers(|_, token| if token == 4 { 401 } else { 503 });
    assert_eq!(world.get("/b").await.status, 401);
    assert_eq!(world.sent(), [4, 4]);
    assert_eq!(world.get("/c").await.status, 503);
    assert_eq!(world.sent(), [3], "as the probe");
}

#[tokio::test(start_paused = true)]
async fn one_that_was_accepted_goes_once_a_newer_one_has_been() {
    let world = World::with_a_proven_token().await;
    world.layer.refresh().await.unwrap();
    world.get("/good").await.accepted();
    assert_eq!(world.sent(), [2]);
    world.accepts(&[1]);
    world
        .get("/good")
        .await
        .because(|why| matches!(why, NotRetried::SecondRejection));
    assert_eq!(world.sent(), [2, 3]);
}

#[tokio::test(start_paused = true)]
async fn a_candidate_takes_over_when_the_served_token_ends() {
    let world = World::with_a_candidate().await;
    advance(500 * SECOND).await;
    assert_eq!((world.served().await, world.fetches()), (2, 2));
}

/// N1: it has been accepted, and is kept until it ends.
#[tokio::test(start_paused = true)]
async fn an_accepted_token_is_there_for_retries_until_its_very_end_though_the_candidate_took_over()
{
    let world = World::with_a_candidate().await;
    advance(492 * SECOND).await;
    assert_eq!(world.served().await, 2, "the first is in its hard margin");
    world.accepts(&[1]);
    for _ in 0..7 {
        world.get("/good").await.accepted();
        assert_eq!(world.sent(), [2, 1]);
        advance(SECOND).await;
    }
    assert_eq!(world.fetches(), 2);
    advance(3 * SECOND).await;
    world.get("/good").await;
    assert!(!world.sent().contains(&1), "it has ended");
}

/// N1, N4: but what cannot be sent again gets nothing of it, and so does not keep the bad one.
#[tokio::test(start_paused = true)]
async fn an_accepted_token_in_its_hard_margin_keeps_no_bad_one_for_what_cannot_be_sent_again() {
    for accepted in [&[3][..], &[1, 3]] {
        let world = World::with_a_candidate().await;
        advance(491 * SECOND).await;
        assert_eq!(world.served().await, 2);
        world.accepts(accepted);
        world
            .upload("/x")
            .await
            .because(|why| matches!(why, NotRetried::Body));
        settle().await;
        world.upload("/x").await.accepted();
        assert_eq!((world.sent(), world.fetches()), (vec![2, 3], 3));
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_takes_over_from_a_newer_token_changes_places_with_it() {
    let world = World::with_a_proven_token().await;
    world.layer.refresh().await.unwrap();
    world.accepts(&[1]);
    world.get("/good").await.accepted();
    assert_eq!((world.sent(), world.served().await), (vec![2, 1], 1));
    // The newer one is still there to be tried, and the next request tries it.
    world.accepts(&[1, 2]);
    world.get("/good").await.accepted();
    assert_eq!((world.sent(), world.served().await), (vec![2], 2));
    assert_eq!(world.fetches(), 2);
}

/// J2
#[tokio::test(start_paused = true)]
async fn a_late_rejection_of_a_token_that_is_kept_no_more_is_retried_with_the_accepted_one() {
    let world = World::with_a_proven_token().await;
    world.layer.refresh().await.unwrap();
    world.delays(5 * SECOND);
    world.answers(|_, token| if token == 1 { 200 } else { 401 });
    let late = world.get("/good");
    let meanwhile = async {
        settle().await;
        world.layer.refresh().await.unwrap();
        assert_eq!(world.served().await, 3);
    };
    let (late, ()) = tokio::join!(late, meanwhile);
    late.accepted();
    assert_eq!((world.sent(), world.fetches()), (vec![2, 1], 3));
}

// === N2: who carries the candidate ===

#[tokio::test(start_paused = true)]
async fn one_request_at_a_time_tries_the_candidate() {
    let world = World::with_a_candidate().await;
    world.delays(SECOND);
    let requests = (0..5).map(|_| world.get("/good"));
    for got in futures::future::join_all(requests).await {
        got.accepted();
    }
    assert_eq!(world.sent(), [2, 1, 1, 1, 1]);
    world.get("/good").await.accepted();
    assert_eq!(world.sent(), [2]);
}

#[tokio::test(start_paused = true)]
async fn every_retry_after_a_rejection_of_the_served_token_carries_the_candidate() {
    let world = World::with_a_candidate().await;
    world.delays(SECOND);
    world.answers(|_, token| if token == 2 { 200 } else { 401 });
    let requests = (0..5).map(|_| world.get("/good"));
    for got in futures::future::join_all(requests).await {
        got.accepted();
    }
    assert_eq!(world.sent(), [2, 1, 1, 1, 1, 2, 2, 2, 2]);
    assert_eq!(world.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_candidate_that_ends_no_later_is_not_tried_while_the_served_token_is_not_refused() {
    let world = World::with_a_proven_token().await;
    world.layer.refresh().await.unwrap();
    world.answers(|_, _| 503); // which neither accepts nor refuses
    for _ in 0..20 {
        assert_eq!(world.get("/good").await.status, 503);
        advance(SECOND).await;
    }
    assert_eq!(world.sent(), [2; 20]);
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_brings_a_token_of_seconds_displaces_none_of_minutes_though_the_endpoint_then_fails()
 {
    let issuer = Issuer::new(|call| async move {
        Ok(match call {
            1 => AccessToken::new("token-1", 1003 * SECOND)?,
            2 => AccessToken::new("token-2", 15 * SECOND)?,
            _ => return Err("down".into()),
        })
    });
    let layer = issuer.layer();
    let api = Api::judging(|_| StatusCode::OK);
    send(&layer, &api, get(URL)).await.unwrap();
    advance(653 * SECOND).await;
    for _ in 0..330 {
        let response = send(&layer, &api, get(URL)).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        advance(SECOND).await;
    }
    assert!(issuer.calls() > 2, "it was refreshed, and failed since");
    assert!(api.tokens().iter().all(|token| token == "token-1"));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_sent_again_does_not_try_the_candidate() {
    let world = World::with_a_candidate().await;
    world.upload("/good").await.accepted();
    world.get("/good").await.accepted();
    assert_eq!(world.sent(), [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn it_does_once_the_served_token_has_been_refused() {
    let world = World::with_a_candidate().await;
    world.accepts(&[]);
    world
        .get("/a")
        .await
        .because(|why| matches!(why, NotRetried::SecondRejection));
    assert_eq!(world.sent(), [2, 1]);
    advance(1500 * MILLIS).await;
    world.accepts(&[2]);
    world.upload("/b").await.accepted();
    assert_eq!((world.sent(), world.served().await), (vec![2], 2));
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_is_refused_goes_again_with_the_served_token_and_costs_no_fetch() {
    let world = World::with_a_candidate().await;
    world.accepts(&[1]);
    world.get("/good").await.accepted();
    assert_eq!((world.sent(), world.served().await), (vec![2, 1], 1));
    assert_eq!(world.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_path_that_has_refused_the_candidate_tries_it_again_after_five_seconds_only() {
    let world = World::with_a_candidate().await;
    world.answers(|path, token| if (path, token) == ("/a", 2) { 401 } else { 200 });
    world.get("/a").await.accepted();
    assert_eq!(world.sent(), [2, 1]);
    advance(4900 * MILLIS).await;
    world.get("/a").await.accepted();
    assert_eq!(world.sent(), [1]);
    advance(200 * MILLIS).await;
    world.get("/a").await.accepted();
    assert_eq!(world.sent(), [2, 1]);

    let world = World::with_a_candidate().await;
    world.answers(|path, token| if (path, token) == ("/a", 2) { 401 } else { 200 });
    world.get("/a").await.accepted();
    advance(1100 * MILLIS).await;
    world.get("/a").await.accepted();
    world.get("/b").await.accepted();
    assert_eq!(world.sent(), [2, 1, 1, 2]);
}

#[tokio::test(start_paused = true)]
async fn between_refused_probes_the_candidate_rests_twice_as_long_each_time() {
    let world = World::with_a_candidate().await;
    world.accepts(&[1]);
    let (start, mut probes) = (Instant::now(), Vec::new());
    for request in 0..1000 {
        world.get(&format!("/good/{request}")).await.accepted();
        if world.sent()[0] == 2 {
            probes.push(start.elapsed());
        }
        advance(100 * MILLIS).await;
    }
    let at = [0, 1, 3, 7, 15, 31, 63].map(Duration::from_secs);
    assert_eq!(probes.len(), at.len(), "{probes:?}");
    for (probe, at) in probes.into_iter().zip(at) {
        assert!(
            (at..=at + SECOND).contains(&probe),
            "{probe:?} is not {at:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn it_does_not_rest_if_the_served_token_is_refused_as_well_once_it_is_a_second_old() {
    let second = |why: &NotRetried| matches!(why, NotRetried::SecondRejection);
    let world = World::with_a_candidate().await;
    world.accepts(&[1, 2]);
    advance(SECOND).await;
    world.get("/bad").await.because(second);
    world.get("/good").await.accepted();
    assert_eq!(world.sent(), [2, 1, 2]);

    // In its first second it does.
    let world = World::with_a_candidate().await;
    world.accepts(&[1, 2]);
    world.get("/bad").await.because(second);
    world.get("/good").await.accepted();
    assert_eq!(world.sent(), [2, 1, 1]);
    advance(1100 * MILLIS).await;
    world.get("/good").await.accepted();
    assert_eq!(world.sent(), [2]);
}

#[tokio::test(start_paused = true)]
async fn a_probe_without_an_answer_for_ten_seconds_is_given_up() {
    let world = World::with_a_candidate().await;
    world.delays(DAY);
    let mut probe = Box::pin(world.get("/hangs"));
    assert!(is_pending(probe.as_mut()).await);
    world.delays(Duration::ZERO);
    advance(9900 * MILLIS).await;
    world.get("/good").await.accepted();
    assert_eq!(world.sent(), [2, 1]);
    advance(200 * MILLIS).await;
    world.get("/good").await.accepted();
    assert_eq!(world.sent(), [2]);
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_is_dropped_or_fails_does_not_block_the_next() {
    let world = World::with_a_candidate().await;
    world.delays(DAY);
    assert!(is_pending(world.get("/dropped")).await);
    world.delays(Duration::ZERO);
    world.answers(|_, _| 503);
    assert_eq!(world.get("/failing").await.status, 503);
    world.accepts(&[1, 2]);
    world.get("/good").await.accepted();
    assert_eq!((world.sent(), world.served().await), (vec![2, 2, 2], 2));
}

#[tokio::test(start_paused = true)]
async fn a_refused_candidate_is_replaced_when_it_is_two_minutes_old() {
    let world = World::with_a_candidate().await;
    world.accepts(&[1, 3]);
    world.get("/good").await.accepted();
    advance(119 * SECOND).await;
    world.get("/good").await.accepted();
    assert_eq!(world.fetches(), 2);
    advance(2 * SECOND).await;
    world.get("/good").await.accepted();
    assert_eq!(world.issuer.reasons()[2..], [FetchReason::Early]);
    world.sent();
    world.get("/good").await.accepted();
    assert_eq!((world.sent(), world.served().await), (vec![3], 3));
}

#[tokio::test(start_paused = true)]
async fn one_that_nobody_has_refused_is_not() {
    let world = World::with_a_candidate().await;
    advance(200 * SECOND).await;
    world.upload("/good").await.accepted();
    assert_eq!(world.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_candidate_goes_if_the_served_token_comes_in_its_place() {
    let world = World::with(third_brings(1), |builder| builder);
    world.bring_the_candidate().await;
    world.accepts(&[1]);
    for _ in 0..130 {
        world.get("/good").await.accepted();
        advance(SECOND).await;
    }
    assert_eq!(world.fetches(), 3);
    world.sent();
    for request in 0..100 {
        world.get(&format!("/good/{request}")).await.accepted();
        advance(SECOND).await;
    }
    assert_eq!(world.sent(), [1; 100], "the endpoint vouches for it");
}

// === N3: turns ===

#[tokio::test(start_paused = true)]
async fn a_served_token_that_nobody_has_accepted_for_two_seconds_gives_way_to_the_candidate() {
    let world = World::new();
    world.get("/good").await.accepted();
    world.accepts(&[]);
    world
        .get("/good")
        .await
        .because(|why| matches!(why, NotRetried::SecondRejection));
    assert_eq!(world.sent(), [1, 1, 2]);
    advance(1900 * MILLIS).await;
    assert_eq!(world.served().await, 1);
    advance(200 * MILLIS).await;
    assert_eq!(world.served().await, 2);
}

#[tokio::test(start_paused = true)]
async fn one_whose_last_answer_was_no_rejection_does_not() {
    let world = World::new();
    world.get("/good").await.accepted();
    world.answers(|path, token| {
        if path == "/bad" || token == 2 {
            401
        } else {
            200
        }
    });
    world
        .get("/bad")
        .await
        .because(|why| matches!(why, NotRetried::SecondRejection));
    world.get("/good").await.accepted();
    advance(60 * SECOND).await;
    assert_eq!(world.served().await, 1);
}

#[tokio::test(start_paused = true)]
async fn they_change_places_every_two_seconds_at_most() {
    let issuer = scripted(|call| (if call > 2 { 0 } else { call }, Duration::ZERO));
    let world = World::with(issuer, |builder| builder);
    world.get("/good").await.accepted();
    world.accepts(&[]);
    let (mut served, mut turned, mut turns) = (1, Instant::now(), 0);
    for _ in 0..200 {
        world.get("/good").await;
        let now = world.served().await;
        if now != served {
            assert!(turned.elapsed() >= 2 * SECOND, "{:?}", turned.elapsed());
            (served, turned, turns) = (now, Instant::now(), turns + 1);
        }
        advance(100 * MILLIS).await;
    }
    assert!((7..=10).contains(&turns), "{turns} in twenty seconds");
}

/// Path `/bad` has one fruitless fetch, and the token of the next, 3, is the candidate. Token 2 is served,
/// and was last accepted just now.
async fn with_a_fruitless_fetch() -> World {
    let world = World::with_a_proven_token().await;
    world.accepts(&[1, 2, 3]);
    world.get("/bad").await;
    world.get("/good").await.accepted();
    world.get("/bad").await;
    assert_eq!(world.sent(), [1, 2, 2, 2, 3]);
    world
}

#[tokio::test(start_paused = true)]
async fn a_path_with_a_fruitless_fetch_casts_no_doubt_on_a_token_accepted_within_ten_seconds() {
    let world = with_a_fruitless_fetch().await;
    for _ in 0..9 {
        advance(SECOND).await;
        world.get("/bad").await;
        assert_eq!(world.served().await, 2);
    }
    advance(1100 * MILLIS).await;
    world.get("/bad").await;
    assert_ne!(world.served().await, 2, "that was longer ago");
}

#[tokio::test(start_paused = true)]
async fn a_token_of_which_nobody_was_asked_counts_as_accepted_at_the_first_rejection() {
    let world = World::with_a_proven_token().await;
    advance(3600 * SECOND).await; // nobody listens any more
    world.accepts(&[]);
    world.get("/bad").await;
    assert_eq!((world.sent(), world.served().await), (vec![1, 2], 1));
    advance(1900 * MILLIS).await;
    assert_eq!(world.served().await, 1);
    advance(200 * MILLIS).await;
    assert_eq!(world.served().await, 2);
}
