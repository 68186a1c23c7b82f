//! F3: the store is an aid. Covers from elsewhere: Redis down meant authentication down (Duende #32); a
//! store that was flushed or rolled back.

use std::time::Duration;

use http::StatusCode;
use tokio::time::{Instant, advance};
use tower_symbl_auth::FetchReason;

use crate::{
    memory::{Memory, Mood},
    sharing::{ask, first, key, process},
    support::*,
};

const MOODS: [Mood; 4] = [
    Mood::Failing,
    Mood::Panicking,
    Mood::Slow(Duration::from_secs(30)),
    Mood::Slow(DAY),
];

#[tokio::test(start_paused = true)]
async fn a_store_in_trouble_costs_a_second_and_is_left_alone_for_ten() {
    for mood in MOODS {
        let (issuer, store) = (Issuer::fresh(DAY, Duration::ZERO), Memory::default());
        store.set(mood);
        let process = process(&issuer, &store);
        let start = Instant::now();
        let old = first(&process).await;
        assert!(start.elapsed() <= SECOND, "{mood:?}");
        assert_eq!((issuer.calls(), store.asked()), (1, 1), "{mood:?}");

        store.set(Mood::Well);
        advance(9 * SECOND).await;
        let start = Instant::now();
        let old = ask(&process, FetchReason::Rejected, Some(&old))
            .await
            .unwrap();
        assert_eq!((issuer.calls(), store.asked()), (2, 1), "{mood:?}");
        assert_eq!(start.elapsed(), Duration::ZERO);

        advance(SECOND).await;
        ask(&process, FetchReason::Rejected, Some(&old))
            .await
            .unwrap();
        assert_eq!(issuer.calls(), 3);
        assert!(store.asked() > 1, "recovered, and not used again: {mood:?}");
        assert_eq!(
            first(&super::sharing::process(&issuer, &store))
                .await
                .expose_secret(),
            "token-3"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn whichever_operation_fails_the_token_is_fetched_once_and_handed_out() {
    for mood in MOODS {
        for operation in ["load", "lease", "save", "release"] {
            let (issuer, store) = (Issuer::fresh(DAY, Duration::ZERO), Memory::default());
            store.contents().of = Some(operation);
            store.set(mood);
            let start = Instant::now();
            let token = first(&process(&issuer, &store)).await;
            assert_eq!(token.expose_secret(), "token-1", "{operation} {mood:?}");
            assert_eq!(issuer.calls(), 1, "{operation} {mood:?}");
            assert!(start.elapsed() <= SECOND, "{operation} {mood:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_store_is_used() {
    let (issuer, store) = (Issuer::fresh(DAY, Duration::ZERO), Memory::default());
    store.set(Mood::Slow(Duration::from_millis(900)));
    first(&process(&issuer, &store)).await;
    first(&process(&issuer, &store)).await;
    assert_eq!(issuer.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_while_others_wait_fails_none_of_them() {
    let (issuer, store) = (Issuer::fresh(DAY, 5 * SECOND), Memory::default());
    let asked = (0..10)
        .map(|_| process(&issuer, &store))
        .map(|process| tokio::spawn(async move { first(&process).await }));
    let asked: Vec<_> = asked.collect();
    tokio::time::sleep(2 * SECOND).await;
    store.set(Mood::Failing);
    for token in asked {
        token.await.unwrap();
    }
    assert_eq!(issuer.calls(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_was_flushed_is_caught_up_with_the_next_save() {
    let (issuer, store) = (Issuer::fresh(DAY, Duration::ZERO), Memory::default());
    let (one, other) = (process(&issuer, &store), process(&issuer, &store));
    let mut old = first(&one).await;
    for _ in 0..5 {
        old = ask(&one, FetchReason::Rejected, Some(&old)).await.unwrap();
    }
    first(&other).await;
    store.contents().values.clear();
    // A process that knows nothing begins anew; it takes one fetch until all are together again.
    let cold = process(&issuer, &store);
    let began_anew = first(&cold).await;
    let calls = issuer.calls();
    let newer = ask(&one, FetchReason::Rejected, Some(&old)).await.unwrap();
    assert_eq!(issuer.calls(), calls + 1);
    for (process, replaced) in [(&other, &old), (&cold, &began_anew)] {
        let token = ask(process, FetchReason::Rejected, Some(replaced))
            .await
            .unwrap();
        assert_eq!(token.expose_secret(), newer.expose_secret());
    }
    assert_eq!(issuer.calls(), calls + 1);
}

#[tokio::test(start_paused = true)]
async fn a_replayed_older_token_is_not_used_by_who_knows_a_newer_one() {
    let (issuer, store) = (Issuer::fresh(DAY, Duration::ZERO), Memory::default());
    let process = process(&issuer, &store);
    let old = first(&process).await;
    let (_, replayed) = store.only();
    let newer = ask(&process, FetchReason::Rejected, Some(&old))
        .await
        .unwrap();
    store.plant(replayed);
    let newest = ask(&process, FetchReason::Early, Some(&newer))
        .await
        .unwrap();
    assert_eq!((newest.expose_secret(), issuer.calls()), ("token-3", 3));
    // And the store has been caught up.
    assert_eq!(
        first(&super::sharing::process(&issuer, &store))
            .await
            .expose_secret(),
        "token-3"
    );
}

#[tokio::test(start_paused = true)]
async fn a_token_fetched_past_the_store_is_not_replaced_by_what_was_stored_before() {
    let (issuer, store) = (Issuer::fresh(DAY, Duration::ZERO), Memory::default());
    let (one, other) = (process(&issuer, &store), process(&issuer, &store));
    let old = first(&one).await;
    first(&other).await;
    store.set(Mood::Failing);
    let past = ask(&one, FetchReason::Rejected, Some(&old)).await.unwrap();
    assert_eq!(past.expose_secret(), "token-2");
    store.set(Mood::Well);
    advance(10 * SECOND).await;
    let next = ask(&one, FetchReason::Rejected, Some(&past)).await.unwrap();
    assert_eq!(next.expose_secret(), "token-3");
    let shared = ask(&other, FetchReason::Rejected, Some(&old))
        .await
        .unwrap();
    assert_eq!((shared.expose_secret(), issuer.calls()), ("token-3", 3));
}

#[tokio::test(start_paused = true)]
async fn requests_are_served_while_the_store_is_in_trouble() {
    for mood in MOODS {
        let (issuer, store) = (Issuer::fresh(DAY, Duration::ZERO), Memory::default());
        store.set(mood);
        let layer = issuer.builder().store(store.clone(), key()).build();
        let api = Api::judging(|_| StatusCode::OK);
        let response = send(&layer, &api, get(URL)).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
    }
}
