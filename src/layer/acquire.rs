//! An instance of the inner service that is ready, and a live token to send with: both, at once.
//!
//! A reservation is never held while waiting for a token, for a permit or a buffer slot kept that long
//! starves others; and getting ready may outlast the token. So it is token first, then ready; and should
//! the token have expired by then, the reservation is given up and it begins again.

use std::{
    sync::Arc,
    task::{Context, Poll, ready},
};

use futures::{FutureExt, future::BoxFuture};
use http::HeaderValue;
use tower::{BoxError, Service};

use super::shared::Shared;
use crate::token::{Landed, Landing, Live, cache::TokenCache};

/// After so many waits the token is sent even if it has expired: a rejection is mended, but waiting
/// for an inner service slower than the token's whole life would never end.
const WAITS: usize = 3;

pub(super) struct Acquire<S> {
    pub(super) shared: Arc<Shared<S>>,
    pub(super) service: S,
    token: Option<BoxFuture<'static, Landed>>,
    waits: usize,
    /// The token that was waited for last.
    last: Option<Arc<Live>>,
}

impl<S> Acquire<S> {
    /// For the first attempt: waits for a token, and before that for a flight, if one is given.
    pub(super) fn with_wait(shared: Arc<Shared<S>>, service: S, flight: Option<Landing>) -> Self {
        let token = wait_for_token(shared.auth.cache.clone(), flight).boxed();
        Self {
            token: Some(token),
            ..Self::new(shared, service)
        }
    }

    /// For the retry: there is a token.
    pub(super) fn new(shared: Arc<Shared<S>>, service: S) -> Self {
        Self {
            shared,
            service,
            token: None,
            waits: 0,
            last: None,
        }
    }

    /// Resolves with `service` ready, and the newest token's header value and generation.
    pub(super) fn poll<Request>(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(HeaderValue, u64), BoxError>>
    where
        S: Service<Request> + Clone,
        S::Error: Into<BoxError>,
    {
        let cache = &self.shared.auth.cache;
        loop {
            if let Some(token) = &mut self.token {
                self.last = Some(ready!(token.poll_unpin(cx))?);
                self.token = None;
                self.waits += 1;
            }
            ready!(self.service.poll_ready(cx)).map_err(Into::into)?;
            if let Some(stamp) = cache.stamp() {
                return Poll::Ready(Ok(stamp));
            }
            if let Some(live) = self.last.take().filter(|_| self.waits >= WAITS) {
                return Poll::Ready(Ok((live.value.clone(), live.generation)));
            }
            // The ready instance goes, and its permit or slot with it; a clone has none.
            self.service = self.service.clone();
            self.token = Some(wait_for_token(cache.clone(), None).boxed());
        }
    }
}

async fn wait_for_token(cache: TokenCache, flight: Option<Landing>) -> Landed {
    if let Some(flight) = flight {
        // However it ends.
        flight.wait().await;
    }
    cache.get().await
}
