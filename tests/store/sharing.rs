//! F2 and F6: one token for all, one fetch at a time, and whoever fetches may die. Covers from elsewhere:
//! a stampede across replicas (dotnet/extensions #6759).

use std::{sync::Arc, time::Duration};

use futures::future::join_all;
use http::StatusCode;
use tokio::time::{Instant, advance, sleep, timeout};
use tower::{BoxError, ServiceExt};
use tower_symbl_auth::{
    AccessToken, FetchReason, SymblAuthLayer, TokenRequest,
    store::{SealingKey, Shared, TokenStore},
};

use crate::{memory::Memory, support::*};

pub fn key() -> SealingKey {
    SealingKey::new("secret", "app")
}

/// A process: a token service of its own, and the store of all.
pub fn process(issuer: &Issuer, store: &Memory) -> Shared<Issuer> {
    Shared::new(issuer.clone(), store.clone(), key())
}

pub async fn ask(
    process: &Shared<Issuer>,
    reason: FetchReason,
    replaced: Option<&AccessToken>,
) -> Result<AccessToken, BoxError> {
    let mut request = TokenRequest::new(reason);
    if let Some(token) = replaced {
        request = request.replacing(token.clone());
    }
    process.clone().oneshot(request).await
}

pub async fn first(process: &Shared<Issuer>) -> AccessToken {
    ask(process, FetchReason::First, None).await.unwrap()
}

fn layer(issuer: &Issuer, store: &Memory) -> SymblAuthLayer {
    issuer.builder().store(store.clone(), key()).build()
}

#[tokio::test(start_paused = true)]
async fn a_process_that_starts_later_makes_its_first_request_without_a_token_request() {
    let (issuer, store) = (Issuer::fresh(DAY, SECOND), Memory::default());
    layer(&issuer, &store).token().await.unwrap();
    advance(3600 * SECOND).await;
    let api = Api::judging(|token| match token {
        "token-1" => StatusCode::OK,
        _ => StatusCode::UNAUTHORIZED,
    });
    let later = layer(&issuer, &store);
    let response = send(&later, &api, get(URL)).await.unwrap();
    assert_eq!((response.status(), issuer.calls()), (StatusCode::OK, 1));
    // What is left of it is told by the store.
    let left = later.token().await.unwrap().expires_in();
    assert_near(left, DAY - 3601 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn fifty_processes_that_start_at_once_make_one_token_request() {
    let (issuer, store) = (Issuer::fresh(DAY, 3 * SECOND), Memory::default());
    let layers: Vec<_> = (0..50).map(|_| layer(&issuer, &store)).collect();
    let start = Instant::now();
    let tokens = join_all(layers.iter().map(SymblAuthLayer::token)).await;
    assert!(
        tokens
            .iter()
            .all(|it| it.as_ref().unwrap().expose_secret() == "token-1")
    );
    assert_eq!(issuer.calls(), 1);
    // The others look every 50 to 200 ms.
    assert!(start.elapsed() <= 3 * SECOND + Duration::from_millis(200));
}

#[tokio::test(start_paused = true)]
async fn a_rejected_token_is_replaced_once_for_all() {
    let (issuer, store) = (Issuer::fresh(DAY, SECOND), Memory::default());
    let processes: Vec<_> = (0..20).map(|_| process(&issuer, &store)).collect();
    let old = first(&processes[0]).await;
    for process in &processes {
        assert_eq!(first(process).await.expose_secret(), "token-1");
    }
    let replaced = processes
        .iter()
        .map(|it| ask(it, FetchReason::Rejected, Some(&old)));
    for token in join_all(replaced).await {
        assert_eq!(token.unwrap().expose_secret(), "token-2");
    }
    assert_eq!(
        issuer.reasons(),
        [FetchReason::First, FetchReason::Rejected]
    );
}

#[tokio::test(start_paused = true)]
async fn the_issuers_word_on_a_rejected_token_holds_for_all_who_wait_for_it() {
    let issuer = Issuer::new(|_| async {
        sleep(SECOND).await;
        Ok(AccessToken::new("token-1", DAY)?)
    });
    let store = Memory::default();
    let processes: Vec<_> = (0..20).map(|_| process(&issuer, &store)).collect();
    let old = first(&processes[0]).await;
    let replaced = processes
        .iter()
        .map(|it| ask(it, FetchReason::Rejected, Some(&old)));
    for token in join_all(replaced).await {
        assert_eq!(token.unwrap().expose_secret(), "token-1");
    }
    assert_eq!(issuer.calls(), 2);
    // But whoever asks after that has it asked again.
    ask(&processes[3], FetchReason::Rejected, Some(&old))
        .await
        .unwrap();
    assert_eq!(issuer.calls(), 3);
}

#[tokio::test(start_paused = true)]
async fn an_early_refresh_takes_the_token_that_another_process_got() {
    let (issuer, store) = (Issuer::fresh(DAY, SECOND), Memory::default());
    let (one, other) = (process(&issuer, &store), process(&issuer, &store));
    let old = first(&one).await;
    first(&other).await;
    ask(&one, FetchReason::Early, Some(&old)).await.unwrap();
    let token = ask(&other, FetchReason::Early, Some(&old)).await.unwrap();
    assert_eq!((token.expose_secret(), issuer.calls()), ("token-2", 2));
}

#[tokio::test(start_paused = true)]
async fn an_issuer_that_hands_out_the_same_token_again_is_asked_early_by_one() {
    let end = Instant::now() + 2 * 3600 * SECOND;
    let issuer = Issuer::new(move |_| async move {
        Ok(AccessToken::new(
            "token-1",
            end.saturating_duration_since(Instant::now()),
        )?)
    });
    let store = Memory::default();
    let processes: Vec<_> = (0..20).map(|_| process(&issuer, &store)).collect();
    let old = first(&processes[0]).await;
    advance(3600 * SECOND).await;
    for process in &processes {
        let token = ask(process, FetchReason::Early, Some(&old)).await.unwrap();
        assert_near(token.expires_in(), 3600 * SECOND);
    }
    assert_eq!(issuer.calls(), 2);
    // Half of what was left is over.
    advance(1801 * SECOND).await;
    for process in &processes {
        ask(process, FetchReason::Early, Some(&old)).await.unwrap();
    }
    assert_eq!(issuer.calls(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_forced_request_asks_the_issuer_and_saves_for_all() {
    let (issuer, store) = (Issuer::fresh(DAY, SECOND), Memory::default());
    let (one, other) = (process(&issuer, &store), process(&issuer, &store));
    let old = first(&one).await;
    let forced = ask(&other, FetchReason::Forced, None).await.unwrap();
    assert_eq!((forced.expose_secret(), issuer.calls()), ("token-2", 2));
    let token = ask(&one, FetchReason::Rejected, Some(&old)).await.unwrap();
    assert_eq!((token.expose_secret(), issuer.calls()), ("token-2", 2));
}

#[tokio::test(start_paused = true)]
async fn a_stored_token_that_has_all_but_expired_is_not_used() {
    let (issuer, store) = (
        Issuer::fresh(100 * SECOND, Duration::ZERO),
        Memory::default(),
    );
    first(&process(&issuer, &store)).await;
    advance(94 * SECOND).await;
    assert_eq!(
        first(&process(&issuer, &store)).await.expose_secret(),
        "token-1"
    );
    advance(2 * SECOND).await;
    assert_eq!(
        first(&process(&issuer, &store)).await.expose_secret(),
        "token-2"
    );
}

#[tokio::test(start_paused = true)]
async fn a_token_is_counted_from_when_its_request_was_sent() {
    let (issuer, store) = (Issuer::fresh(100 * SECOND, 20 * SECOND), Memory::default());
    assert_near(
        first(&process(&issuer, &store)).await.expires_in(),
        80 * SECOND,
    );
    assert_near(
        first(&process(&issuer, &store)).await.expires_in(),
        80 * SECOND,
    );
}

#[tokio::test(start_paused = true)]
async fn processes_whose_clocks_are_five_minutes_apart_share_a_token() {
    let (issuer, store) = (
        Issuer::fresh(600 * SECOND, Duration::ZERO),
        Memory::default(),
    );
    for minutes in [-5, 0, 5] {
        let wall = Wall::new();
        match minutes {
            0.. => wall.forward(300 * SECOND),
            _ => wall.back(300 * SECOND),
        }
        let builder = issuer.builder().wall_clock(wall.reader());
        let layer = builder.store(store.clone(), key()).build();
        layer.token().await.unwrap();
    }
    assert_eq!(issuer.calls(), 1);
}

/// Gives somebody who will never release it the lease on whatever is asked for first.
async fn dead_holder(store: &Memory) {
    let name = name(store).await;
    assert!(store.lease(&name, "dead", 40 * SECOND).await.unwrap());
}

async fn name(store: &Memory) -> String {
    let issuer = Issuer::fresh(DAY, Duration::ZERO);
    first(&process(&issuer, store)).await;
    let (name, _) = store.only();
    store.contents().values.clear();
    name
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_died_is_replaced_by_one_before_anybody_gives_up() {
    let (issuer, store) = (Issuer::fresh(DAY, SECOND), Memory::default());
    dead_holder(&store).await;
    let start = Instant::now();
    let layers: Vec<_> = (0..50).map(|_| layer(&issuer, &store)).collect();
    for token in join_all(layers.iter().map(SymblAuthLayer::token)).await {
        assert_eq!(token.unwrap().expose_secret(), "token-1");
    }
    assert_eq!(issuer.calls(), 1);
    assert!(start.elapsed() < 27 * SECOND, "{:?}", start.elapsed());

    // Whoever comes once the lease has run out goes on under the first name.
    advance(20 * SECOND).await;
    first(&process(&issuer, &store)).await;
    assert_eq!(issuer.calls(), 2);
    first(&process(&issuer, &store)).await;
    assert_eq!(issuer.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn with_all_leases_taken_a_token_is_fetched_directly_within_the_fetchs_own_time() {
    let (issuer, store) = (Issuer::fresh(DAY, SECOND), Memory::default());
    let name = name(&store).await;
    for name in [name.clone(), format!("{name}-2")] {
        assert!(store.lease(&name, "dead", DAY).await.unwrap());
    }
    let start = Instant::now();
    assert_eq!(
        layer(&issuer, &store)
            .token()
            .await
            .unwrap()
            .expose_secret(),
        "token-1"
    );
    assert!(start.elapsed() < 32 * SECOND, "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_slow_fetch_is_waited_for() {
    let (issuer, store) = (Issuer::fresh(DAY, 24 * SECOND), Memory::default());
    let layers: Vec<_> = (0..20).map(|_| layer(&issuer, &store)).collect();
    for token in join_all(layers.iter().map(SymblAuthLayer::token)).await {
        token.unwrap();
    }
    assert_eq!(issuer.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_is_dropped_gives_its_lease_back() {
    let issuer = Issuer::new(|call| async move {
        if call == 1 {
            std::future::pending::<()>().await;
        }
        Ok(AccessToken::new(format!("token-{call}"), DAY)?)
    });
    let store = Memory::default();
    let hangs = process(&issuer, &store);
    timeout(SECOND, first(&hangs)).await.unwrap_err();
    let start = Instant::now();
    assert_eq!(
        first(&process(&issuer, &store)).await.expose_secret(),
        "token-2"
    );
    assert!(start.elapsed() < SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_fails_gives_its_lease_back_and_the_next_process_fetches() {
    let issuer = Issuer::new(|call| async move {
        sleep(SECOND).await;
        match call {
            1 => Err("out of order".into()),
            _ => Ok(AccessToken::new(format!("token-{call}"), DAY)?),
        }
    });
    let store = Memory::default();
    let processes: Vec<_> = (0..10).map(|_| process(&issuer, &store)).collect();
    let asked = processes.iter().map(|it| ask(it, FetchReason::First, None));
    let answers = join_all(asked).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_err()).count(), 1);
    assert_eq!(issuer.calls(), 2);
    assert!(store.contents().leases.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_comes_back_after_its_lease_ran_out_overwrites_nothing() {
    let issuer = Issuer::new(|call| async move {
        // As if the first process had been stopped with its request under way.
        sleep(if call == 1 { 60 * SECOND } else { SECOND }).await;
        Ok(AccessToken::new(format!("token-{call}"), DAY)?)
    });
    let store = Memory::default();
    let (late, next) = (process(&issuer, &store), process(&issuer, &store));
    let late = tokio::spawn(async move { first(&late).await });
    sleep(41 * SECOND).await;
    assert_eq!(first(&next).await.expose_secret(), "token-2");
    let stored = store.only();
    // It goes on with what the others have.
    assert_eq!(late.await.unwrap().expose_secret(), "token-2");
    assert_eq!(store.only(), stored);
}

#[tokio::test(start_paused = true)]
async fn two_apps_in_one_store_have_a_token_each() {
    let store = Memory::default();
    let issuers = [Issuer::fresh(DAY, SECOND), Issuer::fresh(DAY, SECOND)];
    for (issuer, app) in issuers.iter().zip(["one", "two"]) {
        let key = SealingKey::new("secret", app);
        first(&Shared::new(issuer.clone(), store.clone(), key)).await;
    }
    assert_eq!(issuers.map(|issuer| issuer.calls()), [1, 1]);
    assert_eq!(store.contents().values.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_stored_without_a_time_to_live() {
    let (issuer, store) = (Issuer::fresh(DAY, Duration::ZERO), Memory::default());
    let store = Arc::new(store);
    first(&Shared::new(issuer.clone(), (*store).clone(), key())).await;
    let (_, end) = store.contents().values.values().next().unwrap().clone();
    assert_near(end - Instant::now(), DAY);
    assert!(store.contents().leases.is_empty());
}
