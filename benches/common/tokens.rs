//! Tokens that can be revoked.

use std::{
    future::ready,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use http::{HeaderMap, StatusCode, header::AUTHORIZATION};
use tower::BoxError;
use tower_symbl_auth::{AccessToken, Builder, SymblAuthLayer, TokenRequest};

/// Numbered, and accepted from one on.
#[derive(Clone, Default)]
pub struct Tokens {
    fetched: Arc<AtomicUsize>,
    least: Arc<AtomicUsize>,
}

impl Tokens {
    /// A layer that fetches them.
    pub fn builder(&self) -> Builder {
        let fetched = Arc::clone(&self.fetched);
        SymblAuthLayer::builder(tower::service_fn(move |_: TokenRequest| {
            let number = fetched.fetch_add(1, Relaxed) + 1;
            let token = AccessToken::new(format!("{number:0>400}"), Duration::from_secs(86_400));
            ready(token.map_err(BoxError::from))
        }))
    }

    pub fn fetched(&self) -> usize {
        self.fetched.load(Relaxed)
    }

    pub fn revoke(&self) {
        self.least.store(self.fetched() + 1, Relaxed);
    }

    /// What an API answers to a request with these headers.
    pub fn status(&self, headers: &HeaderMap) -> StatusCode {
        let value = headers.get(AUTHORIZATION);
        let number =
            value.and_then(|value| value.to_str().ok()?.strip_prefix("Bearer ")?.parse().ok());
        match number {
            Some(number) if self.least.load(Relaxed) <= number => StatusCode::OK,
            _ => StatusCode::UNAUTHORIZED,
        }
    }
}
