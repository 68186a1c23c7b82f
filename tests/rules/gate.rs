//! Rules T5 and T7: one gate, which failed fetches close and a success opens, with a live token and without
//! one.
//!
//! Peers' bugs covered: a failed refresh displacing a valid token, one error ending refreshing for ever,
//! poisoned after an outage (google-cloud-rust #5809, #5864), overflow of the backoff (aws-sdk-java-v2
//! #6805), a fetch for each caller while the endpoint fails (azure_core, aws-smithy-runtime, yup-oauth2).

use std::time::Duration;

use http::StatusCode;
use tokio::time::{Instant, advance, sleep};
use tower_symbl_auth::{AccessToken, FetchReason, NotRetried, TokenError, TokenErrorKind};

use crate::{
    support::*,
    world::{World, scripted, token},
};

const MILLIS: Duration = Duration::from_millis(1);

fn failing(kind: TokenErrorKind) -> Issuer {
    Issuer::new(move |_| async move { Err(TokenError::new(kind, "no").into()) })
}

/// The first token, and then nothing but errors.
fn failing_after_the_first(retry_after: Option<Duration>) -> Issuer {
    Issuer::new(move |call| async move {
        if call == 1 {
            return Ok(AccessToken::new("token-1", DAY)?);
        }
        let error = TokenError::new(TokenErrorKind::RateLimited, "no");
        Err(match retry_after {
            Some(delay) => error.with_retry_after(delay).into(),
            None => error.into(),
        })
    })
}

/// T5
#[tokio::test(start_paused = true)]
async fn failed_refreshes_back_off_to_a_minute_and_never_displace_the_live_token() {
    let issuer = failing_after_the_first(None);
    let layer = issuer.layer();
    let api = Api::judging(|_| StatusCode::OK);
    layer.token().await.unwrap();
    advance(DAY - 3600 * SECOND).await;
    let mut seen = 0;
    for _ in 0..3500 {
        send(&layer, &api, get(URL)).await.unwrap();
        settle().await;
        seen += 1;
        advance(SECOND).await;
    }
    assert_eq!(api.tokens(), vec!["token-1"; seen]);
    // 1, 2, 4, 8, 16, 32 and then 60 seconds, each of them jittered by half of it at most.
    let calls = issuer.calls();
    assert!((58..=130).contains(&calls), "{calls}");
}

/// T5
#[tokio::test(start_paused = true)]
async fn the_thousandth_failure_in_a_row_is_like_the_tenth() {
    let issuer = Issuer::new(|call| async move {
        match call {
            1 => Ok(AccessToken::new("token-1", 3000 * DAY)?),
            _ => Err(TokenError::new(TokenErrorKind::Unavailable, "no").into()),
        }
    });
    let layer = issuer.builder().refresh_margin(1400 * DAY).build();
    layer.token().await.unwrap();
    advance(1600 * DAY).await;
    for _ in 0..1000 {
        layer_in_use(&layer).await;
        advance(60 * SECOND).await;
    }
    assert_eq!(issuer.calls(), 1001);
    layer_in_use(&layer).await;
    advance(29 * SECOND).await;
    layer_in_use(&layer).await;
    assert_eq!(issuer.calls(), 1002, "half a minute is the least");
}

/// T5
#[tokio::test(start_paused = true)]
async fn a_refresh_is_put_off_as_long_as_retry_after_asks_and_five_minutes_at_most() {
    for (asked, waits) in [(100, 100), (299, 299), (86_400, 300)] {
        let issuer = failing_after_the_first(Some(asked * SECOND));
        let layer = issuer.layer();
        layer.token().await.unwrap();
        advance(DAY - 3600 * SECOND).await;
        layer_in_use(&layer).await;
        advance((waits - 1) * SECOND).await;
        layer_in_use(&layer).await;
        assert_eq!(issuer.calls(), 2);
        advance(SECOND).await;
        layer_in_use(&layer).await;
        assert_eq!(issuer.calls(), 3);
    }
}

/// T5
#[tokio::test(start_paused = true)]
async fn refreshing_recovers_when_the_endpoint_does() {
    let issuer = Issuer::new(|call| async move {
        match call {
            2..=7 => Err(TokenError::new(TokenErrorKind::Credentials, "no").into()),
            call => Ok(AccessToken::new(format!("token-{call}"), DAY)?),
        }
    });
    let world = World::with(issuer, |builder| builder);
    world.prove().await;
    advance(DAY - 3600 * SECOND).await;
    for _ in 0..7 {
        world.get("/good").await.accepted();
        advance(60 * SECOND).await;
    }
    assert_eq!((world.sent(), world.fetches()), (vec![1; 7], 8));
    world.get("/good").await.accepted();
    assert_eq!((world.sent(), world.served().await), (vec![8], 8));
}

/// The first token, and then errors that ask for that delay, if any.
fn down_after_the_first(kind: TokenErrorKind, asked: Option<Duration>) -> Issuer {
    Issuer::new(move |call| async move {
        let error = TokenError::new(kind, "down");
        match (call, asked) {
            (1, _) => Ok(token(1)?),
            (_, None) => Err(error.into()),
            (_, Some(asked)) => Err(error.with_retry_after(asked).into()),
        }
    })
}

/// Requests to `/bad` each 50 ms, with others to `/good` in between. How long each fetch came after the
/// one before it.
async fn gaps(world: &World, span: Duration) -> Vec<Duration> {
    let (start, mut fetched) = (Instant::now(), Vec::new());
    while start.elapsed() < span {
        let before = world.fetches();
        world.get("/good").await;
        world.get("/bad").await;
        if world.fetches() > before {
            fetched.push(start.elapsed());
        }
        advance(50 * MILLIS).await;
    }
    fetched.windows(2).map(|pair| pair[1] - pair[0]).collect()
}

#[track_caller]
fn assert_doubled(gaps: &[Duration], first: Duration, cap: Duration) {
    for (times, gap) in gaps.iter().enumerate() {
        let longest = (first * 2_u32.pow(times as u32)).min(cap);
        // Looked at each 50 ms.
        let range = longest / 2..=longest + 60 * MILLIS;
        assert!(range.contains(gap), "{gap:?} of {longest:?}: {gaps:?}");
    }
}

/// T5
#[tokio::test(start_paused = true)]
async fn rejections_beside_acceptances_pass_after_a_second_and_then_twice_as_long_up_to_a_minute() {
    let issuer = down_after_the_first(TokenErrorKind::Unavailable, None);
    let world = World::with(issuer, |builder| builder);
    world.prove().await;
    world.answers(|path, _| if path == "/bad" { 401 } else { 200 });
    let gaps = gaps(&world, 400 * SECOND).await;
    assert!(gaps.len() >= 8, "{gaps:?}");
    assert_doubled(&gaps, SECOND, 60 * SECOND);
}

/// T5
#[tokio::test(start_paused = true)]
async fn rejections_of_a_token_that_nobody_accepts_pass_after_a_quarter_and_up_to_ten_seconds() {
    let issuer = down_after_the_first(TokenErrorKind::Unavailable, None);
    let world = World::with(issuer, |builder| builder);
    world.prove().await;
    advance(2 * SECOND).await;
    world.accepts(&[]);
    let gaps = gaps(&world, 90 * SECOND).await;
    assert!(gaps.len() >= 10, "{gaps:?}");
    assert_doubled(&gaps, 250 * MILLIS, 10 * SECOND);
}

/// T5
#[tokio::test(start_paused = true)]
async fn after_refused_credentials_rejections_of_a_token_that_nobody_accepts_pass_each_five_seconds()
 {
    let issuer = down_after_the_first(TokenErrorKind::Credentials, None);
    let world = World::with(issuer, |builder| builder);
    world.prove().await;
    advance(2 * SECOND).await;
    world.accepts(&[]);
    let gaps = gaps(&world, 60 * SECOND).await;
    assert!(gaps.len() >= 10, "{gaps:?}");
    for gap in gaps {
        assert!((5 * SECOND..=5060 * MILLIS).contains(&gap), "{gap:?}");
    }
}

/// T5
#[tokio::test(start_paused = true)]
async fn a_retry_after_holds_for_a_minute_if_nobody_accepts_the_token_and_else_for_five() {
    for (accepted, asked, waits) in [
        (false, 300, 60),
        (false, 31_536_000, 60),
        (false, 30, 30),
        (true, 31_536_000, 300),
        (true, 200, 200),
    ] {
        let asked = asked * SECOND;
        let issuer = down_after_the_first(TokenErrorKind::RateLimited, Some(asked));
        let world = World::with(issuer, |builder| builder);
        world.prove().await;
        world.layer.refresh().await.unwrap_err();
        advance(2 * SECOND).await;
        world.answers(move |path, _| {
            if accepted && path == "/good" {
                200
            } else {
                401
            }
        });
        for (wait, fetches) in [(waits - 3, 2), (2, 3)] {
            advance(wait * SECOND).await;
            world.get("/good").await;
            world
                .get("/bad")
                .await
                .because(|why| matches!(why, NotRetried::Token(_)));
            assert_eq!(world.fetches(), fetches, "{accepted}, {asked:?}");
        }
    }
}

/// T5: whatever the fetch was for.
#[tokio::test(start_paused = true)]
async fn a_refresh_ahead_that_fails_closes_the_gate_to_rejections_too_and_a_success_opens_it() {
    let issuer = Issuer::new(|call| async move {
        match call {
            1 => Ok(AccessToken::new("token-1", 1003 * SECOND)?),
            2 => Err(TokenError::new(TokenErrorKind::Unavailable, "down").into()),
            _ => Ok(token(call)?),
        }
    });
    let world = World::with(issuer, |builder| builder);
    world.prove().await;
    advance(600 * SECOND).await;
    world.get("/good").await.accepted();
    assert_eq!(world.issuer.reasons()[1..], [FetchReason::Early]);
    world.answers(|path, _| if path == "/bad" { 401 } else { 200 });
    world
        .get("/bad")
        .await
        .because(|why| matches!(why, NotRetried::Token(_)));
    assert_eq!(world.fetches(), 2);
    world.layer.refresh().await.unwrap();
    world.get("/good").await.accepted();
    world.get("/bad").await;
    assert_eq!(
        world.issuer.reasons()[2..],
        [FetchReason::Forced, FetchReason::Rejected]
    );
}

/// T7
#[tokio::test(start_paused = true)]
async fn after_refused_credentials_calls_fail_at_once_for_five_seconds() {
    let issuer = failing(TokenErrorKind::Credentials);
    let layer = issuer.layer();
    layer.token().await.unwrap_err();
    let error = layer.token().await.unwrap_err();
    assert_eq!(error.retry_after(), Some(5 * SECOND));
    advance(4 * SECOND).await;
    let again = layer.token().await.unwrap_err();
    assert_eq!(again.kind(), TokenErrorKind::Credentials);
    assert_eq!(again.retry_after(), Some(SECOND), "it counts down");
    assert_eq!(error.retry_after(), Some(SECOND), "on each clone");
    assert_eq!(issuer.calls(), 1);
    advance(SECOND).await;
    layer.token().await.unwrap_err();
    assert_eq!(issuer.calls(), 2, "no error is for ever");
}

/// T7: as those that come after it do.
#[tokio::test(start_paused = true)]
async fn the_error_that_closes_the_gate_says_for_how_long() {
    let asking = || {
        let issuer = Issuer::new(|_| async {
            let error = TokenError::new(TokenErrorKind::RateLimited, "no");
            Err(error.with_retry_after(3600 * SECOND).into())
        });
        issuer.layer()
    };
    for (layer, waits) in [
        (failing(TokenErrorKind::Credentials).layer(), 5),
        (asking(), 60),
    ] {
        let error = layer.token().await.unwrap_err();
        assert_eq!(error.retry_after(), Some(waits * SECOND));
    }
}

/// T7
#[tokio::test(start_paused = true)]
async fn with_no_live_token_and_the_gate_closed_a_401_goes_back_with_the_last_error() {
    // The token ends while the answer is on its way.
    let issuer = Issuer::new(|call| async move {
        match call {
            1 => Ok(AccessToken::new("token-1", 100 * SECOND)?),
            _ => Err(TokenError::new(TokenErrorKind::Credentials, "no").into()),
        }
    });
    let world = World::with(issuer, |builder| builder);
    world.get("/good").await.accepted();
    world.accepts(&[]);
    world.delays(150 * SECOND);
    let late = world.get("/good");
    let meanwhile = async {
        sleep(149 * SECOND).await;
        world.layer.token().await.unwrap_err();
    };
    let (late, ()) = tokio::join!(late, meanwhile);
    assert_eq!(late.status, 401);
    match late.why {
        Some(NotRetried::Token(error)) => {
            assert_eq!(error.kind(), TokenErrorKind::Credentials);
            assert_eq!(error.retry_after(), Some(4 * SECOND), "what is left of it");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(world.fetches(), 2);
}

/// T5, T7
#[tokio::test(start_paused = true)]
async fn after_other_failures_calls_fail_at_once_for_twice_as_long_each_time_up_to_ten_seconds() {
    let issuer = failing(TokenErrorKind::Unavailable);
    let layer = issuer.layer();
    for millis in [250, 500, 1000, 2000, 4000, 8000, 10_000, 10_000] {
        let longest = Duration::from_millis(millis);
        layer.token().await.unwrap_err();
        let left = layer.token().await.unwrap_err().retry_after().unwrap();
        assert!(
            (longest / 2..=longest).contains(&left),
            "{left:?} of {longest:?}"
        );
        let calls = issuer.calls();
        advance(left - SECOND / 100).await;
        layer.token().await.unwrap_err();
        assert_eq!(issuer.calls(), calls);
        advance(SECOND / 50).await;
    }
}

/// T5, T7
#[tokio::test(start_paused = true)]
async fn calls_fail_at_once_for_as_long_as_retry_after_asks_and_a_minute_at_most() {
    for (asked, waits) in [(7, 7), (60, 60), (3600, 60)] {
        let issuer = Issuer::new(move |_| async move {
            let error = TokenError::new(TokenErrorKind::RateLimited, "no");
            Err(error.with_retry_after(asked * SECOND).into())
        });
        let layer = issuer.layer();
        layer.token().await.unwrap_err();
        let error = layer.token().await.unwrap_err();
        assert_eq!(error.retry_after(), Some(waits * SECOND));
        advance(waits * SECOND).await;
        layer.token().await.unwrap_err();
        assert_eq!(issuer.calls(), 2);
    }
}

/// T7
#[tokio::test(start_paused = true)]
async fn requests_that_fail_while_the_gate_is_closed_never_reach_the_api() {
    let issuer = failing(TokenErrorKind::Timeout);
    let layer = issuer.layer();
    let api = Api::judging(|_| StatusCode::OK);
    for _ in 0..10 {
        let error = send(&layer, &api, get(URL)).await.unwrap_err();
        let error = error.downcast_ref::<TokenError>().unwrap();
        assert_eq!(error.kind(), TokenErrorKind::Timeout);
    }
    assert_eq!((issuer.calls(), api.calls()), (1, 0));
}

/// T5
#[tokio::test(start_paused = true)]
async fn a_success_opens_the_gate_and_ends_its_doubling() {
    let issuer = Issuer::new(|call| async move {
        match call {
            4 => Ok(AccessToken::new("token", SECOND)?),
            _ => Err(TokenError::new(TokenErrorKind::Unavailable, "no").into()),
        }
    });
    let layer = issuer.layer();
    for _ in 0..3 {
        layer.token().await.unwrap_err();
        advance(SECOND).await;
    }
    layer.token().await.unwrap();
    advance(SECOND).await;
    layer.token().await.unwrap_err();
    let left = layer.token().await.unwrap_err().retry_after().unwrap();
    assert!(left <= SECOND / 4, "{left:?}");
    assert_eq!(issuer.calls(), 5);
}

/// T7
#[tokio::test(start_paused = true)]
async fn refresh_goes_past_the_gate() {
    let issuer = Issuer::new(|call| async move {
        match call {
            1 => Err(TokenError::new(TokenErrorKind::Credentials, "no").into()),
            _ => Ok(AccessToken::new("token", DAY)?),
        }
    });
    let layer = issuer.layer();
    layer.token().await.unwrap_err();
    assert_eq!(layer.refresh().await.unwrap().expose_secret(), "token");
    layer.token().await.unwrap();
    assert_eq!(issuer.reasons(), [FetchReason::First, FetchReason::Forced]);
}

/// T7
#[tokio::test(start_paused = true)]
async fn refresh_joins_a_fetch_that_is_under_way() {
    let issuer = Issuer::fresh(DAY, SECOND);
    let layer = issuer.layer();
    let (token, refreshed) = tokio::join!(layer.token(), layer.refresh());
    assert_eq!(token.unwrap().expose_secret(), "token-1");
    assert_eq!(refreshed.unwrap().expose_secret(), "token-1");
    assert_eq!(issuer.calls(), 1);
}

/// T7
#[tokio::test(start_paused = true)]
async fn a_refresh_that_brings_the_same_token_is_a_success() {
    let issuer = Issuer::new(|_| async { Ok(AccessToken::new("same", DAY)?) });
    let layer = issuer.layer();
    layer.token().await.unwrap();
    assert_eq!(layer.refresh().await.unwrap().expose_secret(), "same");
    assert_eq!(issuer.calls(), 2);
}

/// T5, T7
#[tokio::test(start_paused = true)]
async fn a_refresh_that_fails_tells_its_caller_and_leaves_the_live_token() {
    let issuer = failing_after_the_first(None);
    let layer = issuer.layer();
    layer.token().await.unwrap();
    let error = layer.refresh().await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::RateLimited);
    assert_eq!(layer.token().await.unwrap().expose_secret(), "token-1");
}

/// T7: so that what comes is served at once.
#[tokio::test(start_paused = true)]
async fn a_fetch_that_refresh_joins_counts_as_forced() {
    let issuer = Issuer::new(|call| async move {
        if call == 1 {
            return Ok(AccessToken::new("token-1", 1003 * SECOND)?);
        }
        sleep(5 * SECOND).await;
        Ok(token(call)?)
    });
    let world = World::with(issuer, |builder| builder);
    world.prove().await;
    advance(600 * SECOND).await;
    world.get("/good").await.accepted();
    let start = Instant::now();
    let new = world.layer.refresh().await.unwrap();
    assert_eq!(
        (number(new.expose_secret()), start.elapsed()),
        (2, 5 * SECOND)
    );
    assert_eq!((world.fetches(), world.served().await), (2, 2));
}

/// T7, J4: so that the token it brings again is vouched for.
#[tokio::test(start_paused = true)]
async fn a_rejection_that_joins_a_forced_fetch_is_answered_by_it() {
    let world = World::with(
        scripted(|call| (1, if call > 1 { 5 * SECOND } else { Duration::ZERO })),
        |builder| builder,
    );
    world.prove().await;
    world.answers(|path, _| if path == "/bad" { 401 } else { 200 });
    let (got, refreshed) = tokio::join!(world.get("/bad"), world.layer.refresh());
    refreshed.unwrap();
    got.because(|why| matches!(why, NotRetried::SameToken));
    assert_eq!(world.fetches(), 2);
}

/// T5: what the endpoint has asked for holds, whatever it fails with later.
#[tokio::test(start_paused = true)]
async fn a_retry_after_outlasts_a_later_failure_without_one() {
    let issuer = Issuer::new(|call| async move {
        match call {
            1 => Ok(AccessToken::new("token-1", 1003 * SECOND)?),
            2 => {
                let limited = TokenError::new(TokenErrorKind::RateLimited, "slow down");
                Err(limited.with_retry_after(300 * SECOND).into())
            }
            _ => Err("down".into()),
        }
    });
    let world = World::with(issuer, |builder| builder);
    world.prove().await;
    advance(600 * SECOND).await;
    let start = Instant::now();
    world.get("/good").await.accepted();
    assert_eq!(world.fetches(), 2);
    advance(SECOND).await;
    world.layer.refresh().await.unwrap_err();
    while world.fetches() == 3 {
        advance(SECOND).await;
        world.get("/good").await.accepted();
    }
    assert_eq!(start.elapsed(), 300 * SECOND);
}
