//! F5: the limits of fetches after rejections hold for the fleet. Covers from elsewhere: an API that answers
//! 401 for ever made one token request per call (Duende; acronis/go-appkit #46).

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::future::join_all;
use http::StatusCode;
use tokio::time::{Instant, advance, sleep};
use tower_symbl_auth::{AccessToken, FetchReason, SymblAuthLayer};

use crate::{
    memory::Memory,
    sharing::{ask, first, key, process},
    support::*,
};

#[tokio::test(start_paused = true)]
async fn a_hundred_processes_ask_sixteen_times_and_once_more_every_ten_seconds() {
    let (issuer, store) = (Issuer::fresh(DAY, Duration::ZERO), Memory::default());
    let processes: Vec<_> = (0..100).map(|_| process(&issuer, &store)).collect();
    let mut newest = first(&processes[0]).await;
    let fetched_by = |seconds: u64| {
        let calls = issuer.calls() - 1;
        assert!(
            calls as u64 <= 16 + seconds / 10,
            "{calls} after {seconds} s"
        );
        calls
    };
    for seconds in 0..60 {
        for process in &processes {
            newest = ask(process, FetchReason::Rejected, Some(&newest))
                .await
                .unwrap();
        }
        fetched_by(seconds);
        advance(SECOND).await;
    }
    assert_eq!(fetched_by(60), 16 + 5);
}

#[tokio::test(start_paused = true)]
async fn at_the_limit_the_newest_token_is_the_answer_and_nobody_waits() {
    let (issuer, store) = (Issuer::fresh(DAY, Duration::ZERO), Memory::default());
    let (one, other) = (process(&issuer, &store), process(&issuer, &store));
    let oldest = first(&one).await;
    let mut newest = oldest.clone();
    for _ in 0..16 {
        newest = ask(&one, FetchReason::Rejected, Some(&newest))
            .await
            .unwrap();
    }
    let start = Instant::now();
    let same = ask(&one, FetchReason::Rejected, Some(&newest))
        .await
        .unwrap();
    assert_eq!(same.expose_secret(), newest.expose_secret());
    // Who has an older one is given the newest, at no cost.
    first(&other).await;
    let taken = ask(&other, FetchReason::Rejected, Some(&oldest))
        .await
        .unwrap();
    assert_eq!(taken.expose_secret(), newest.expose_secret());
    assert_eq!((start.elapsed(), issuer.calls()), (Duration::ZERO, 17));
    // Only rejections are limited.
    ask(&one, FetchReason::Early, Some(&newest)).await.unwrap();
    ask(&one, FetchReason::Forced, Some(&newest)).await.unwrap();
    assert_eq!(issuer.calls(), 19);
}

#[tokio::test(start_paused = true)]
async fn failed_fetches_are_sixteen_at_once_and_one_more_a_second() {
    let issuer = Issuer::new(|call| async move {
        match call {
            1 => Ok(AccessToken::new("token-1", DAY)?),
            _ => Err("out of order".into()),
        }
    });
    let store = Memory::default();
    let processes: Vec<_> = (0..20).map(|_| process(&issuer, &store)).collect();
    let token = first(&processes[0]).await;
    for seconds in 0..5 {
        for process in &processes {
            let _ = ask(process, FetchReason::Rejected, Some(&token)).await;
        }
        assert_eq!(issuer.calls(), 1 + 16 + seconds);
        advance(SECOND).await;
    }
}

#[tokio::test(start_paused = true)]
async fn short_lived_tokens_do_not_make_the_limits_forgotten() {
    let (issuer, store) = (Issuer::fresh(2 * SECOND, Duration::ZERO), Memory::default());
    let process = process(&issuer, &store);
    let mut newest = first(&process).await;
    for _ in 0..16 {
        newest = ask(&process, FetchReason::Rejected, Some(&newest))
            .await
            .unwrap();
    }
    advance(3 * SECOND).await;
    newest = ask(&process, FetchReason::Expired, Some(&newest))
        .await
        .unwrap();
    assert_eq!(issuer.calls(), 18);
    ask(&process, FetchReason::Rejected, Some(&newest))
        .await
        .unwrap();
    assert_eq!(issuer.calls(), 18);
}

/// Fifty layers, in each of them a path that always answers 401 beside a good one, for ten minutes. How
/// many good requests were sent, and how many refused.
async fn fifty_processes_with_a_bad_path_each(keeps_one_token: bool) -> (usize, usize) {
    let valid: Arc<Mutex<Vec<String>>> = Arc::default();
    let issuing = Arc::clone(&valid);
    let issuer = Issuer::new(move |call| {
        let valid = Arc::clone(&issuing);
        async move {
            sleep(Duration::from_millis(50)).await;
            let token = format!("token-{call}");
            let mut valid = valid.lock().unwrap();
            if keeps_one_token {
                valid.clear();
            }
            valid.push(token.clone());
            Ok(AccessToken::new(token, DAY)?)
        }
    });
    let api = Api::new(move |request: ApiRequest<_>| {
        let token = token_of(request.headers()).to_owned();
        let good = request.uri().path() != "/bad" && valid.lock().unwrap().contains(&token);
        async move {
            sleep(Duration::from_millis(20)).await;
            Ok(answer(match good {
                true => StatusCode::OK,
                false => StatusCode::UNAUTHORIZED,
            }))
        }
    });
    let store = Memory::default();
    let start = Instant::now();
    let processes = (0..50).map(|_| async {
        let layer: SymblAuthLayer = issuer.builder().store(store.clone(), key()).build();
        let (mut sent, mut refused) = (0, 0);
        while start.elapsed() < 600 * SECOND {
            let bad = send(&layer, &api, get("https://api.symbl.ai/bad"));
            let good = send(&layer, &api, get(URL));
            let (bad, good) = futures::join!(bad, good);
            assert_eq!(bad.unwrap().status(), StatusCode::UNAUTHORIZED);
            sent += 1;
            refused += usize::from(good.unwrap().status() != StatusCode::OK);
            let (seconds, calls) = (start.elapsed().as_secs(), issuer.calls() as u64);
            // The first of all, and what one process may.
            assert!(calls <= 1 + 16 + seconds / 10, "{calls} after {seconds} s");
            sleep(Duration::from_millis(fastrand::u64(500..1500))).await;
        }
        (sent, refused)
    });
    let counts = join_all(processes).await.into_iter();
    counts.fold((0, 0), |(sent, refused), counts| {
        (sent + counts.0, refused + counts.1)
    })
}

#[tokio::test(start_paused = true)]
async fn fifty_processes_with_a_bad_path_each_have_the_limits_of_one_and_refuse_no_good_request() {
    let (sent, refused) = fifty_processes_with_a_bad_path_each(false).await;
    assert!(sent > 25_000, "{sent}");
    assert_eq!(refused, 0);
}

/// With an issuer that keeps one token, each fetch for a bad path revokes the token of all. While the first
/// sixteen are made, a process may have two tokens that are both revoked by now, and not ask for a third
/// (N4's patience).
#[tokio::test(start_paused = true)]
async fn with_an_issuer_that_keeps_one_token_they_have_the_limits_of_one_and_refuse_few() {
    let (sent, refused) = fifty_processes_with_a_bad_path_each(true).await;
    assert!(
        refused * 20 < sent,
        "{refused} of {sent} good requests were refused"
    );
}
