//! Section 2, `with_provider`: credentials that rotate. Over real sockets where a request is made.

use std::{
    future::pending,
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tower::{BoxError, ServiceExt};
use tower_symbl_auth::{
    AccessToken, Credentials, FetchReason, FetchToken, TokenError, TokenErrorKind, TokenRequest,
};

use crate::support::*;

/// A provider that is asked for the nth time (from 1); and how often it was.
fn provider<F>(
    answer: impl Fn(usize) -> F + Send + Sync + 'static,
) -> (FetchToken, Arc<AtomicUsize>)
where
    F: Future<Output = Result<Credentials, BoxError>> + Send + 'static,
{
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let fetch = FetchToken::with_provider(move || answer(count.fetch_add(1, Ordering::SeqCst) + 1));
    (fetch, asked)
}

async fn token(fetch: &FetchToken) -> Result<AccessToken, TokenError> {
    let request = TokenRequest::new(FetchReason::First);
    fetch.clone().oneshot(request).await
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_fails_is_asked_again_and_its_cause_is_shown() {
    let (fetch, asked) =
        provider(|_| async { Err(io::Error::other("the vault is sealed").into()) });
    let error = token(&fetch).await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Unavailable);
    let why = "the credentials provider failed: the vault is sealed";
    assert!(error.to_string().ends_with(why), "{error}");
    assert!(std::error::Error::source(&error).unwrap().is::<io::Error>());
    assert_eq!(asked.load(Ordering::SeqCst), 3);
}

#[tokio::test(start_paused = true)]
async fn a_token_error_of_the_providers_is_handed_on() {
    let (fetch, asked) = provider(|_| async {
        Err(TokenError::new(TokenErrorKind::Credentials, "no secret is mounted").into())
    });
    let error = token(&fetch).await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Credentials);
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_hangs_ends_with_each_attempt_and_is_named() {
    let (fetch, asked) = provider(|_| pending());
    let start = tokio::time::Instant::now();
    let error = token(&fetch).await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Timeout);
    let why = "the credentials provider gave no answer within 10s";
    assert!(error.to_string().ends_with(why), "{error}");
    assert_eq!(asked.load(Ordering::SeqCst), 3);
    assert!((30 * SECOND..31 * SECOND).contains(&start.elapsed()));
}

#[cfg(feature = "mock")]
mod over_sockets {
    use std::time::Duration;

    use super::*;
    use tower_symbl_auth::{SymblAuthLayer, mock::MockSymbl};

    fn good(symbl: &MockSymbl) -> Credentials {
        symbl.credentials()
    }

    fn stale(version: usize) -> Credentials {
        Credentials::new("mock-app-id", format!("stale-{version}"))
    }

    #[tokio::test]
    async fn it_is_asked_before_every_token_request() {
        let symbl = MockSymbl::start().await.unwrap();
        let credentials = good(&symbl);
        let (fetch, asked) = provider(move |_| std::future::ready(Ok(credentials.clone())));
        let fetch = fetch.endpoint(symbl.token_endpoint()).unwrap();
        assert_eq!(asked.load(Ordering::SeqCst), 0, "not before the first");
        let layer = SymblAuthLayer::builder(fetch).build();
        for fetches in 1..=3 {
            layer.refresh().await.unwrap();
            assert_eq!(asked.load(Ordering::SeqCst), fetches);
        }
    }

    #[tokio::test]
    async fn after_a_refusal_it_is_asked_again_at_once() {
        let symbl = MockSymbl::start().await.unwrap();
        let rotated = good(&symbl);
        let (fetch, asked) = provider(move |nth| {
            std::future::ready(Ok(if nth == 1 { stale(1) } else { rotated.clone() }))
        });
        let fetch = fetch.endpoint(symbl.token_endpoint()).unwrap().attempts(1);
        token(&fetch).await.unwrap();
        assert_eq!(
            (asked.load(Ordering::SeqCst), symbl.token_requests()),
            (2, 2)
        );
    }

    #[tokio::test]
    async fn it_is_asked_again_once_and_the_same_credentials_are_not_sent_again() {
        for (rotates, requests) in [(true, 2), (false, 1)] {
            let symbl = MockSymbl::start().await.unwrap();
            let (fetch, asked) =
                provider(move |nth| std::future::ready(Ok(stale(if rotates { nth } else { 1 }))));
            let fetch = fetch.endpoint(symbl.token_endpoint()).unwrap();
            let error = token(&fetch).await.unwrap_err();
            assert_eq!(error.kind(), TokenErrorKind::Credentials);
            let counts = (asked.load(Ordering::SeqCst), symbl.token_requests());
            assert_eq!(counts, (2, requests));
        }
    }

    #[tokio::test]
    async fn a_refusal_is_told_when_the_provider_then_fails() {
        let symbl = MockSymbl::start().await.unwrap();
        let (fetch, _) = provider(|nth| {
            std::future::ready(if nth == 1 {
                Ok(stale(1))
            } else {
                Err("sealed".into())
            })
        });
        let fetch = fetch.endpoint(symbl.token_endpoint()).unwrap();
        let error = token(&fetch).await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::Credentials);
        assert!(error.to_string().contains("Invalid credentials"), "{error}");
    }

    /// The first answer comes never, the second late but in time.
    #[tokio::test]
    async fn a_slow_provider_has_the_attempts_timeout_to_itself_and_is_waited_for() {
        let symbl = MockSymbl::start().await.unwrap();
        let credentials = good(&symbl);
        let limit = Duration::from_millis(400);
        let (fetch, asked) = provider(move |nth| {
            let credentials = credentials.clone();
            async move {
                tokio::time::sleep(if nth == 1 { 10 * limit } else { limit / 4 }).await;
                Ok(credentials)
            }
        });
        let fetch = fetch
            .endpoint(symbl.token_endpoint())
            .unwrap()
            .timeout(limit);
        token(&fetch).await.unwrap();
        assert_eq!(
            (asked.load(Ordering::SeqCst), symbl.token_requests()),
            (2, 1)
        );
    }
}
