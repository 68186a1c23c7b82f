//! The service that shares what a token service brings.

use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use futures::future::BoxFuture;
use tower::{BoxError, Service};

use super::{SealingKey, TokenStore, aid::Aid, turn::Turn};
use crate::{AccessToken, TokenRequest};

/// A token service around another one, whose tokens it shares with other processes through a store. See
/// the [module](super).
///
/// [`Builder::store`](crate::Builder::store) is short for it. A token comes from the store if one is
/// there that is live, newer than the one to be [replaced](TokenRequest::replaces), and another; else
/// from the service around which this is, once for all. [`Forced`](crate::FetchReason::Forced) asks the
/// service in any case. Its errors are those of the service: the store has none to add.
///
/// Dropping a response future gives its lease back, in a task of its own.
///
/// ```
/// # #[cfg(feature = "mock")] {
/// use tower::{Service, ServiceExt};
/// use tower_symbl_auth::{FetchReason, TokenRequest, mock::MockSymbl, store::Shared};
/// # #[cfg(feature = "file-store")]
/// use tower_symbl_auth::store::FileStore;
///
/// # #[cfg(feature = "file-store")]
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// # let folder = std::env::temp_dir().join(format!("tower-symbl-auth-doc-{}", std::process::id()));
/// let symbl = MockSymbl::start().await?;
/// let fetch = symbl.fetch_token();
/// let key = fetch.sealing_key();
/// for _replica in 0..3 {
///     let shared = Shared::new(fetch.clone(), FileStore::new(folder.join("token")), key.clone());
///     shared.oneshot(TokenRequest::new(FetchReason::First)).await?;
/// }
/// assert_eq!(symbl.token_requests(), 1);
/// # std::fs::remove_dir_all(folder)?;
/// # Ok::<(), tower::BoxError>(()) }).unwrap();
/// # }
/// # Ok::<(), std::io::Error>(())
/// ```
#[must_use = "a token service does nothing until it is called"]
#[derive(Clone)]
pub struct Shared<T> {
    service: T,
    aid: Arc<Aid>,
}

impl<T> Shared<T> {
    /// Shares the tokens of a service through a store, sealed with a key. All who share them must have
    /// the same key, and a service that brings the same tokens.
    pub fn new(token_service: T, store: impl TokenStore, key: SealingKey) -> Self {
        Self {
            service: token_service,
            aid: Arc::new(Aid::new(store, key)),
        }
    }
}

impl<T> Service<TokenRequest> for Shared<T>
where
    T: Service<TokenRequest, Response = AccessToken> + Clone + Send + 'static,
    T::Error: Into<BoxError> + Send,
    T::Future: Send + 'static,
{
    type Response = AccessToken;
    type Error = T::Error;
    type Future = BoxFuture<'static, Result<AccessToken, T::Error>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), T::Error>> {
        // A clone of the service is made ready once there is something to ask it.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: TokenRequest) -> Self::Future {
        let turn = Turn::new(self.service.clone(), Arc::clone(&self.aid), request);
        Box::pin(turn.run())
    }
}

impl<T: fmt::Debug> fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("token_service", &self.service)
            .finish_non_exhaustive()
    }
}
