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

/// Fifty layers, an issuer that keeps one token a client, and in each process a path that always answers
/// 401, for ten minutes.
#[tokio::test(start_paused = true)]
async fn fifty_processes_with_a_bad_path_each_cost_what_one_costs_and_refuse_no_good_request() {
    let valid = Arc::new(Mutex::new(String::new()));
    let issuing = Arc::clone(&valid);
    let issuer = Issuer::new(move |call| {
        let valid = Arc::clone(&issuing);
        async move {
            sleep(Duration::from_millis(50)).await;
            let token = format!("token-{call}");
            valid.lock().unwrap().clone_from(&token);
            Ok(AccessToken::new(token, DAY)?)
        }
    });
    let api = Api::new(move |request: ApiRequest<_>| {
        let valid = Arc::clone(&valid);
        async move {
            let good = *valid.lock().unwrap() == token_of(request.headers());
            let bad = request.uri().path() == "/bad";
            sleep(Duration::from_millis(20)).await;
            Ok(answer(match good && !bad {
                true => StatusCode::OK,
                false => StatusCode::UNAUTHORIZED,
            }))
        }
    });
    let store = Memory::default();
    let start = Instant::now();
    let fetched = Mutex::new(Vec::new());
    let processes = (0..50).map(|_| async {
        let layer: SymblAuthLayer = issuer.builder().store(store.clone(), key()).build();
        let mut refused = 0;
        while start.elapsed() < 600 * SECOND {
            let bad = send(&layer, &api, get("https://api.symbl.ai/bad"));
            let good = send(&layer, &api, get(URL));
            let (bad, good) = futures::join!(bad, good);
            assert_eq!(bad.unwrap().status(), StatusCode::UNAUTHORIZED);
            refused += usize::from(good.unwrap().status() != StatusCode::OK);
            fetched
                .lock()
                .unwrap()
                .push((start.elapsed().as_secs(), issuer.calls()));
            sleep(Duration::from_millis(fastrand::u64(500..1500))).await;
        }
        refused
    });
    let refused: usize = join_all(processes).await.into_iter().sum();
    for (seconds, calls) in fetched.into_inner().unwrap() {
        assert!(
            calls as u64 <= 1 + 16 + seconds / 10 + 1,
            "{calls} after {seconds} s"
        );
    }
    assert_eq!(refused, 0, "good requests were refused");
}
