//! Rules T5 to T7: failed fetches, with a live token and without one.
//!
//! Peers' bugs covered: a failed refresh displacing a valid token, one error ending refreshing for ever,
//! poisoned after an outage (google-cloud-rust #5809, #5864), overflow of the backoff (aws-sdk-java-v2
//! #6805), a fetch for each caller while the endpoint fails (azure_core, aws-smithy-runtime, yup-oauth2).

use std::time::Duration;

use futures::future::join_all;
use http::StatusCode;
use tokio::time::{Instant, advance, sleep};
use tower_symbl_auth::{AccessToken, FetchReason, TokenError, TokenErrorKind};

use crate::support::*;

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
    let layer = issuer.layer();
    layer.token().await.unwrap();
    advance(DAY - 3600 * SECOND).await;
    for _ in 0..7 {
        layer_in_use(&layer).await;
        advance(60 * SECOND).await;
    }
    assert_eq!(layer.token().await.unwrap().expose_secret(), "token-8");
}

/// T6
#[tokio::test(start_paused = true)]
async fn ten_thousand_callers_make_one_fetch_and_share_its_token() {
    let issuer = Issuer::fresh(DAY, 20 * SECOND / 1000);
    let layer = issuer.layer();
    let api = Api::judging(|_| StatusCode::OK);
    let start = Instant::now();
    let callers = (0..10_000).map(|_| send(&layer, &api, get(URL)));
    let answers = join_all(callers).await;
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!((issuer.calls(), api.calls()), (1, 10_000));
    assert_eq!(start.elapsed(), 20 * SECOND / 1000);
}

/// T6
#[tokio::test(start_paused = true)]
async fn ten_thousand_callers_make_one_fetch_and_share_its_error() {
    let issuer = Issuer::new(|_| async {
        sleep(20 * SECOND / 1000).await;
        Err(TokenError::new(TokenErrorKind::Unavailable, "down").into())
    });
    let layer = issuer.layer();
    let api = Api::judging(|_| StatusCode::OK);
    let start = Instant::now();
    let callers = (0..10_000).map(|_| send(&layer, &api, get(URL)));
    for answer in join_all(callers).await {
        let error = answer.unwrap_err();
        let error = error.downcast_ref::<TokenError>().unwrap();
        assert_eq!(error.kind(), TokenErrorKind::Unavailable);
    }
    assert_eq!((issuer.calls(), api.calls()), (1, 0));
    assert_eq!(start.elapsed(), 20 * SECOND / 1000);
}

/// T7
#[tokio::test(start_paused = true)]
async fn after_refused_credentials_calls_fail_at_once_for_five_seconds() {
    let issuer = failing(TokenErrorKind::Credentials);
    let layer = issuer.layer();
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

/// T7
#[tokio::test(start_paused = true)]
async fn after_other_failures_the_cool_down_doubles_up_to_ten_seconds() {
    let issuer = failing(TokenErrorKind::Unavailable);
    let layer = issuer.layer();
    for millis in [250, 500, 1000, 2000, 4000, 8000, 10_000, 10_000] {
        let longest = Duration::from_millis(millis);
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

/// T7
#[tokio::test(start_paused = true)]
async fn a_cool_down_lasts_as_long_as_retry_after_asks_and_a_minute_at_most() {
    for (asked, waits) in [(7, 7), (60, 60), (3600, 60)] {
        let issuer = Issuer::new(move |_| async move {
            let error = TokenError::new(TokenErrorKind::RateLimited, "no");
            Err(error.with_retry_after(asked * SECOND).into())
        });
        let error = issuer.layer().token().await.unwrap_err();
        assert_eq!(error.retry_after(), Some(waits * SECOND));
    }
}

/// T7
#[tokio::test(start_paused = true)]
async fn requests_that_fail_in_a_cool_down_never_reach_the_api() {
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

/// T7
#[tokio::test(start_paused = true)]
async fn a_success_ends_the_cool_down_and_its_doubling() {
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
    let left = layer.token().await.unwrap_err().retry_after().unwrap();
    assert!(left <= SECOND / 4, "{left:?}");
}

/// T7
#[tokio::test(start_paused = true)]
async fn refresh_goes_past_a_cool_down() {
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
async fn refresh_joins_a_flight_that_is_under_way() {
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
