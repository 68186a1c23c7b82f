//! Rules T1 to T4 and T9: how long a token is good for, by both clocks, and when it is refreshed.
//!
//! Peers' bugs covered: busy loops on short tokens (google-cloud-rust #4541), a margin longer than the
//! issuer's window (arrow-rs #6625), a margin applied twice (opendal-reqsign #783), `Instant` stopping in
//! a sleeping laptop (pizauth #48), quoted `expires_in` (zerobus-sdk #580).

use std::{
    future::pending,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use tokio::time::{Instant, advance, sleep};
use tower::{BoxError, service_fn};
use tower_symbl_auth::{
    AccessToken, Credentials, FetchReason, FetchToken, SymblAuthLayer, TokenError, TokenErrorKind,
};

use crate::{support::*, world::World};

/// T1
#[tokio::test(start_paused = true)]
async fn a_lifetime_counts_from_when_its_request_was_sent() {
    let issuer = Issuer::fresh(100 * SECOND, 30 * SECOND);
    let token = issuer.layer().token().await.unwrap();
    assert_near(token.expires_in(), 70 * SECOND);
}

/// T1
#[tokio::test(start_paused = true)]
async fn a_token_that_its_service_had_kept_counts_from_when_it_was_made() {
    let kept = AccessToken::new("kept", 100 * SECOND).unwrap();
    advance(60 * SECOND).await;
    let issuer = Issuer::new(move |_| {
        let kept = kept.clone();
        async move { Ok(kept) }
    });
    let token = issuer.layer().token().await.unwrap();
    assert_near(token.expires_in(), 40 * SECOND);
}

/// T1
#[tokio::test(start_paused = true)]
async fn a_token_that_has_expired_when_it_arrives_is_an_invalid_response() {
    let issuer = Issuer::fresh(20 * SECOND, 20 * SECOND);
    let error = issuer.layer().token().await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::InvalidResponse);
}

/// T2
#[tokio::test(start_paused = true)]
async fn a_token_is_live_until_its_expiry_less_the_hard_margin() {
    for (lifetime, live) in [(DAY, DAY - 10 * SECOND), (100 * SECOND, 95 * SECOND)] {
        let issuer = Issuer::new(move |call| async move {
            match call {
                1 => Ok(AccessToken::new("token-1", lifetime)?),
                2 => pending().await, // the early refresh
                _ => unreachable!(),
            }
        });
        let wall = Wall::new();
        let layer = issuer.builder().wall_clock(wall.reader()).build();
        let api = Api::judging(|_| StatusCode::OK);
        layer.token().await.unwrap();
        advance(live - SECOND / 100).await;
        send(&layer, &api, get(URL)).await.unwrap();
        advance(SECOND / 50).await;
        assert!(is_pending(send(&layer, &api, get(URL))).await);
        assert_eq!(api.tokens(), ["token-1"]);
    }
}

/// The first token ends in five seconds, and is within its hard margin. Then these come, each after two
/// seconds; 0 is a failure.
async fn with_an_ending_token(then: &'static [usize]) -> World {
    let issuer = Issuer::new(move |call| async move {
        if call == 1 {
            return Ok(AccessToken::new("token-1", 1000 * SECOND)?);
        }
        sleep(2 * SECOND).await;
        match then[(call - 2).min(then.len() - 1)] {
            0 => Err(TokenError::new(TokenErrorKind::Unavailable, "down").into()),
            number => Ok(AccessToken::new(format!("token-{number}"), DAY)?),
        }
    });
    let wall = Wall::new();
    let world = World::with(issuer, |builder| builder.wall_clock(wall.reader()));
    world.prove().await;
    advance(992 * SECOND).await;
    world
}

/// T2
#[tokio::test(start_paused = true)]
async fn between_hard_margin_and_expiry_a_request_waits_for_a_new_token() {
    let world = with_an_ending_token(&[2]).await;
    let start = Instant::now();
    world.get("/good").await.accepted();
    assert_eq!((world.sent(), start.elapsed()), (vec![2], 2 * SECOND));
    assert_eq!(world.issuer.reasons()[1..], [FetchReason::Expired]);
}

/// T2
#[tokio::test(start_paused = true)]
async fn between_hard_margin_and_expiry_it_takes_the_old_one_if_the_fetch_fails() {
    let world = with_an_ending_token(&[0]).await;
    let start = Instant::now();
    world.get("/good").await.accepted();
    assert_eq!((world.sent(), start.elapsed()), (vec![1], 2 * SECOND));
    // And at once while the gate is closed.
    world.get("/good").await.accepted();
    assert_eq!((world.sent(), start.elapsed()), (vec![1], 2 * SECOND));
    assert_eq!((world.fetches(), world.served().await), (2, 1));
    // But none that has ended.
    advance(3 * SECOND + SECOND / 10).await;
    let error = world.layer.token().await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Unavailable);
}

/// T2: as by a laptop that sleeps in the midst of a fetch.
#[tokio::test(start_paused = true)]
async fn a_fetch_is_overdue_when_the_wall_clock_says_so_though_the_other_stood_still() {
    for live in [false, true] {
        let issuer = Issuer::new(move |call| async move {
            let hangs = if live { 2 } else { 1 };
            if call == hangs {
                return pending().await;
            }
            Ok(AccessToken::new(format!("token-{call}"), 1000 * DAY)?)
        });
        let wall = Wall::new();
        let builder = issuer.builder().refresh_margin(500 * DAY);
        let layer = builder.wall_clock(wall.reader()).build();
        if live {
            layer.token().await.unwrap();
            advance(600 * DAY).await;
            layer_in_use(&layer).await;
        } else {
            assert!(is_pending(layer.token()).await);
        }
        let calls = issuer.calls();
        wall.forward(3600 * SECOND);
        advance(SECOND / 10).await;
        let start = Instant::now();
        layer_in_use(&layer).await;
        if live {
            // What was lost closes the gate to what is not urgent, for a second at most.
            advance(SECOND).await;
            layer_in_use(&layer).await;
        }
        assert_eq!(issuer.calls(), calls + 1, "{live}");
        assert!(start.elapsed() <= SECOND, "{:?}", start.elapsed());
    }
}

/// T2: a waiter of before is served by the new one as well.
#[tokio::test(start_paused = true)]
async fn who_waits_for_an_overdue_fetch_is_told_by_the_next() {
    let issuer = Issuer::new(|call| async move {
        match call {
            1 => pending().await,
            _ => Ok(AccessToken::new("token-2", DAY)?),
        }
    });
    let wall = Wall::new();
    let layer = issuer.builder().wall_clock(wall.reader()).build();
    let mut waiter = Box::pin(layer.token());
    assert!(futures::poll!(waiter.as_mut()).is_pending());
    settle().await;
    wall.forward(3600 * SECOND);
    let start = Instant::now();
    layer_in_use(&layer).await;
    assert_eq!(waiter.await.unwrap().expose_secret(), "token-2");
    assert_eq!((start.elapsed(), issuer.calls()), (Duration::ZERO, 2));
}

/// T2
#[tokio::test(start_paused = true)]
async fn a_token_expires_when_the_wall_clock_says_so_though_the_other_stood_still() {
    let (issuer, wall) = (Issuer::fresh(DAY, Duration::ZERO), Wall::new());
    let layer = issuer.builder().wall_clock(wall.reader()).build();
    let api = Api::judging(|_| StatusCode::OK);
    send(&layer, &api, get(URL)).await.unwrap();
    wall.forward(DAY);
    advance(SECOND / 10).await;
    send(&layer, &api, get(URL)).await.unwrap();
    assert_eq!(api.tokens(), ["token-1", "token-2"]);
    assert_eq!(issuer.reasons(), [FetchReason::First, FetchReason::Expired]);
}

/// T2
#[tokio::test(start_paused = true)]
async fn what_the_wall_clock_has_called_expired_stays_so_when_it_is_set_back() {
    let wall = Wall::new();
    let issuer = Issuer::new(|call| async move {
        match call {
            1 => Ok(AccessToken::new("token-1", DAY)?),
            _ => Err(TokenError::new(TokenErrorKind::Unavailable, "down").into()),
        }
    });
    let layer = issuer.builder().wall_clock(wall.reader()).build();
    let api = Api::judging(|_| StatusCode::OK);
    send(&layer, &api, get(URL)).await.unwrap();
    wall.forward(DAY);
    advance(SECOND / 10).await;
    send(&layer, &api, get(URL)).await.unwrap_err();
    wall.back(DAY);
    advance(SECOND / 10).await;
    send(&layer, &api, get(URL)).await.unwrap_err();
}

/// T2
#[tokio::test(start_paused = true)]
async fn a_token_expires_by_the_monotonic_clock_though_the_wall_clock_was_set_back() {
    let (issuer, wall) = (Issuer::fresh(DAY, Duration::ZERO), Wall::new());
    let layer = issuer.builder().wall_clock(wall.reader()).build();
    layer.token().await.unwrap();
    wall.back(DAY);
    advance(DAY).await;
    assert_eq!(layer.token().await.unwrap().expose_secret(), "token-2");
    assert_eq!(issuer.reasons(), [FetchReason::First, FetchReason::Expired]);
}

/// T3
#[tokio::test(start_paused = true)]
async fn a_refresh_ahead_is_one_fetch_and_no_request_waits_for_it() {
    let issuer = Issuer::new(|call| async move {
        match call {
            1 => Ok(AccessToken::new("token-1", DAY)?),
            2 => pending().await,
            _ => Ok(AccessToken::new("token-3", DAY)?),
        }
    });
    let wall = Wall::new();
    let layer = issuer.builder().wall_clock(wall.reader()).build();
    let api = Api::judging(|_| StatusCode::OK);
    layer.token().await.unwrap();
    advance(DAY - Duration::from_secs(4321)).await;
    send(&layer, &api, get(URL)).await.unwrap();
    settle().await;
    assert_eq!(
        issuer.calls(),
        1,
        "a fifth before an hour before is too early"
    );
    advance(Duration::from_secs(722)).await;
    for _ in 0..1000 {
        let start = Instant::now();
        send(&layer, &api, get(URL)).await.unwrap();
        layer.token().await.unwrap();
        assert_eq!(start.elapsed(), Duration::ZERO);
    }
    settle().await;
    assert_eq!(issuer.reasons(), [FetchReason::First, FetchReason::Early]);
}

/// T3, N2
#[tokio::test(start_paused = true)]
async fn the_refreshed_token_goes_with_the_next_request_and_is_served_from_then_on() {
    let world = World::with(Issuer::fresh(DAY, SECOND), |builder| builder);
    world.prove().await;
    advance(DAY - Duration::from_secs(3600)).await;
    world.get("/good").await.accepted();
    sleep(2 * SECOND).await;
    world.get("/good").await.accepted();
    assert_eq!((world.sent(), world.served().await), (vec![1, 2], 2));
    assert_eq!(world.issuer.reasons()[1..], [FetchReason::Early]);
}

/// T3: the lifetime, the margin that was set, and the margin that holds.
#[tokio::test(start_paused = true)]
async fn the_times_of_refresh_are_spread_over_a_fifth_of_the_margin() {
    for (lifetime, set, margin) in [
        (1000, None, 500),
        (100_000, None, 3600),
        (1000, Some(100), 100),
        (1000, Some(86_400), 500),
    ] {
        let mut begun = Vec::new();
        for _ in 0..100 {
            let issuer = Issuer::fresh(lifetime * SECOND, Duration::ZERO);
            let layer = match set {
                Some(margin) => issuer.builder().refresh_margin(margin * SECOND).build(),
                None => issuer.layer(),
            };
            layer.token().await.unwrap();
            let start = Instant::now();
            let step = margin * SECOND / 250;
            advance((lifetime - margin * 6 / 5) * SECOND - 2 * step).await;
            while issuer.calls() == 1 {
                layer_in_use(&layer).await;
                advance(step).await;
            }
            begun.push(lifetime * SECOND - (start.elapsed() - step));
        }
        let (last, first) = (begun.iter().min().unwrap(), begun.iter().max().unwrap());
        let margin = margin * SECOND;
        let slack = margin / 100;
        assert!(
            *last >= margin - slack && *first <= margin * 6 / 5 + slack,
            "{first:?} to {last:?} before the end, for {margin:?}"
        );
        assert!(*first - *last > margin / 10, "{first:?} to {last:?}");
    }
}

/// T4: as Symbl's endpoint, hands out the same token with what remains of its life, until that is less
/// than `window`.
fn caching(lifetime: Duration, window: Duration) -> Issuer {
    let issued: Arc<Mutex<Option<(usize, Instant)>>> = Arc::default();
    Issuer::new(move |call| {
        let mut issued = issued.lock().unwrap();
        let now = Instant::now();
        let (name, end) = match *issued {
            Some((name, end)) if end > now + window => (name, end),
            _ => (call, now + lifetime),
        };
        *issued = Some((name, end));
        async move { Ok(AccessToken::new(format!("token-{name}"), end - now)?) }
    })
}

/// T4
#[tokio::test(start_paused = true)]
async fn an_endpoint_that_caches_is_not_asked_in_a_loop_at_any_lifetime() {
    for lifetime in [1, 5, 11, 20, 60, 120, 300, 3600, 86_400] {
        let lifetime = Duration::from_secs(lifetime);
        for window in [Duration::ZERO, SECOND, 60 * SECOND] {
            let issuer = caching(lifetime, window.min(lifetime / 2));
            let layer = issuer.layer();
            let (start, mut failed) = (Instant::now(), 0);
            let span = (20 * lifetime).max(600 * SECOND).min(3 * DAY);
            let step = (lifetime / 100).max(SECOND / 10);
            while start.elapsed() < span {
                failed += u32::from(layer.token().await.is_err());
                advance(step).await;
            }
            // For each life: the fetch, and early ones at a half of what remains each, from a fifth on.
            let lives = span.as_secs_f64() / lifetime.as_secs_f64();
            let most = 8.0 * lives.ceil() + 8.0;
            assert!(
                (issuer.calls() as f64) < most,
                "{lifetime:?}, {window:?}: {}",
                issuer.calls()
            );
            assert_eq!(failed, 0, "{lifetime:?}, {window:?}");
        }
    }
}

/// T4
#[tokio::test(start_paused = true)]
async fn after_the_same_token_the_next_refresh_waits_for_half_of_the_rest() {
    let issuer = caching(1000 * SECOND, Duration::ZERO);
    let layer = issuer.layer();
    layer.token().await.unwrap();
    advance(900 * SECOND).await;
    layer_in_use(&layer).await;
    assert_eq!(issuer.calls(), 2);
    for (wait, calls) in [
        (49, 2),
        (1, 3),
        (24, 3),
        (1, 4),
        (12, 4),
        (1, 5),
        (9, 5),
        (1, 6),
    ] {
        advance(wait * SECOND).await;
        layer_in_use(&layer).await;
        assert_eq!(issuer.calls(), calls);
    }
}

/// T4
#[tokio::test(start_paused = true)]
async fn the_endpoints_word_for_the_expiry_is_taken() {
    let issuer = Issuer::new(|call| async move {
        let lifetime = if call == 1 { 1000 } else { 60 };
        Ok(AccessToken::new("same", lifetime * SECOND)?)
    });
    let layer = issuer.layer();
    layer.token().await.unwrap();
    advance(900 * SECOND).await;
    layer_in_use(&layer).await;
    let rest = layer.token().await.unwrap().expires_in();
    assert!(rest <= 60 * SECOND, "{rest:?}");
}

/// T4, N1
#[tokio::test(start_paused = true)]
async fn beside_a_candidate_that_ends_no_later_the_next_refresh_waits_for_half_of_the_rest() {
    let issuer = Issuer::new(|call| async move {
        let lifetime = if call == 2 { 400 } else { 1000 };
        Ok(AccessToken::new(
            format!("token-{call}"),
            lifetime * SECOND,
        )?)
    });
    let world = World::with(issuer, |builder| builder);
    world.bring_the_candidate().await; // the served token has 500 s left
    for (wait, fetches) in [(248, 2), (5, 3)] {
        advance(wait * SECOND).await;
        world.upload("/good").await.accepted();
        assert_eq!(world.fetches(), fetches);
    }
    assert_eq!(world.issuer.reasons()[1..], [FetchReason::Early; 2]);
}

/// N1: it may only have to become known.
#[tokio::test(start_paused = true)]
async fn a_candidate_that_ends_later_and_is_still_to_be_tried_is_not_refreshed() {
    let world = World::with_a_candidate().await; // whose served token has 500 s left
    for _ in 0..4 {
        advance(110 * SECOND).await;
        world.upload("/good").await.accepted();
    }
    assert_eq!(world.fetches(), 2);
}

/// T4
#[tokio::test(start_paused = true)]
async fn a_new_token_that_ends_no_later_is_not_refreshed_in_a_loop_either() {
    // A new one each time, and each ends when the first does.
    let end = Instant::now() + 1000 * SECOND;
    let issuer = Issuer::new(move |call| async move {
        let left = end - Instant::now();
        Ok(AccessToken::new(format!("token-{call}"), left)?)
    });
    let world = World::with(issuer, |builder| builder);
    world.prove().await;
    advance(600 * SECOND).await;
    for _ in 0..380 {
        world.get("/good").await.accepted();
        advance(SECOND).await;
    }
    // At a half of what is left each time, down to ten seconds.
    let fetches = world.fetches();
    assert!((5..=9).contains(&fetches), "{fetches}");
}

/// T9
#[tokio::test(start_paused = true)]
async fn expires_in_is_read_in_all_forms_it_is_known_to_take() {
    let lifetime_of = |expires_in: &'static str| async move {
        let body = format!(r#"{{"accessToken":"token","expiresIn":{expires_in}}}"#);
        token_from(body).await.map(|token| token.expires_in())
    };
    assert_near(lifetime_of("3600").await.unwrap(), 3600 * SECOND);
    assert_near(lifetime_of("90.5").await.unwrap(), 90 * SECOND);
    assert_near(lifetime_of(r#""3600""#).await.unwrap(), 3600 * SECOND);
    assert_near(lifetime_of("null").await.unwrap(), DAY);
    let absent = token_from(r#"{"accessToken":"token"}"#.to_owned()).await;
    assert_near(absent.unwrap().expires_in(), DAY);
    assert!(lifetime_of("1e400").await.unwrap() > 1000 * DAY);
    assert!(lifetime_of("18446744073709551616").await.unwrap() > 1000 * DAY);
    for bad in ["0", "-1", "\"soon\"", "true", "[]", "\"\""] {
        let error = lifetime_of(bad).await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::InvalidResponse, "{bad}");
    }
}

async fn token_from(body: String) -> Result<AccessToken, TokenError> {
    let client = service_fn(move |_| {
        let response = Response::new(Full::<Bytes>::from(body.clone()));
        async move { Ok::<_, BoxError>(response) }
    });
    let fetch = FetchToken::with_client(Credentials::new("id", "secret"), client);
    SymblAuthLayer::builder(fetch).build().token().await
}
