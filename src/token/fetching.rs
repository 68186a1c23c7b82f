//! The token-fetching service, any tower service that answers a [`TokenRequest`] with an [`AccessToken`];
//! and one fetch by it, in a task of its own.
//!
//! ```text
//!               token, error, panic, deadline
//!   in flight ────────────────────────────────► ended: the machine is told, then everyone who waits
//!        │
//!        │ its runtime is shut down, or has         ► lost: waiters start anew
//!        │ stopped running it
//!        └ the last layer and service are dropped   ► aborted
//! ```
//!
//! The cache holds what answers the waiters. The task holds a weak handle only, so that a fetch keeps
//! nothing alive.

use std::{
    panic::AssertUnwindSafe,
    pin::pin,
    sync::{Arc, Weak},
    time::Duration,
};

use futures::{
    FutureExt,
    future::{BoxFuture, Either, Shared as SharedFuture, select},
};
use tokio::sync::oneshot;
use tower::{BoxError, Service, ServiceExt};

use super::{
    AccessToken,
    cache::Inner,
    clock::Moment,
    machine::{DEADLINE, Told},
};
use crate::{TokenError, TokenErrorKind, rt, telemetry};

/// What a token-fetching service is asked: a token, please, and why.
///
/// ```
/// use std::time::Duration;
/// use tower_symbl_auth::{AccessToken, FetchReason, TokenRequest};
///
/// let old = AccessToken::new("s3cr3t", Duration::from_secs(60))?;
/// let request = TokenRequest::new(FetchReason::Early).replacing(old);
/// assert_eq!(request.reason(), FetchReason::Early);
/// assert_eq!(request.replaces().map(AccessToken::expose_secret), Some("s3cr3t"));
/// # Ok::<(), tower_symbl_auth::InvalidToken>(())
/// ```
#[derive(Debug, Clone)]
pub struct TokenRequest {
    pub(super) reason: FetchReason,
    pub(super) replaces: Option<AccessToken>,
}

impl TokenRequest {
    /// A request for a token, in place of none.
    #[must_use]
    pub fn new(reason: FetchReason) -> Self {
        Self {
            reason,
            replaces: None,
        }
    }

    /// The same request, for a token in place of this one.
    #[must_use]
    pub fn replacing(mut self, token: AccessToken) -> Self {
        self.replaces = Some(token);
        self
    }

    /// Why a token is needed. A service that keeps tokens of its own must not answer
    /// [`Rejected`](FetchReason::Rejected) or [`Forced`](FetchReason::Forced) from what it keeps.
    #[must_use]
    pub fn reason(&self) -> FetchReason {
        self.reason
    }

    /// The newest token that whoever asks has, if it has had any: what comes is to be another, unless
    /// the issuer hands out the same one again.
    #[must_use]
    pub fn replaces(&self) -> Option<&AccessToken> {
        self.replaces.as_ref()
    }
}

impl PartialEq for TokenRequest {
    fn eq(&self, other: &Self) -> bool {
        let secrets = [self, other].map(|it| it.replaces().map(AccessToken::expose_secret));
        self.reason == other.reason && secrets[0] == secrets[1]
    }
}

impl Eq for TokenRequest {}

/// Why a token is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FetchReason {
    /// There has been none yet.
    First,
    /// The last one has expired.
    Expired,
    /// The live one will expire before long.
    Early,
    /// The API rejected the live one.
    Rejected,
    /// [`SymblAuthLayer::refresh`](crate::SymblAuthLayer::refresh) was called.
    Forced,
}

/// A token, and the lifetime it was told to have when its request was sent.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub(crate) token: AccessToken,
    pub(crate) lifetime: Duration,
}

/// A token service with its type erased; each call is answered by a clone of it, made ready first.
pub(crate) type Fetch =
    Arc<dyn Fn(TokenRequest) -> BoxFuture<'static, Result<Fetched, TokenError>> + Send + Sync>;

pub(crate) fn erase<T>(service: T) -> Fetch
where
    T: Service<TokenRequest, Response = AccessToken> + Clone + Send + Sync + 'static,
    T::Error: Into<BoxError>,
    T::Future: Send + 'static,
{
    Arc::new(move |request| {
        let mut service = service.clone();
        Box::pin(async move {
            let fail = |error: T::Error| TokenError::from_service(error.into());
            let ready = service.ready().await.map_err(fail)?;
            let sent = Moment::now();
            let answer = ready.call(request);
            let token = answer.await.map_err(fail)?.counted_from(sent);
            let lifetime = token.remaining(sent);
            Ok(Fetched { token, lifetime })
        })
    })
}

/// What waiters hold. Its error says that the fetch was lost.
pub(super) type Handle = SharedFuture<oneshot::Receiver<Told>>;

/// A fetch under way. Dropping it aborts the task, and tells the waiters that the fetch is lost.
#[derive(Debug)]
pub(super) struct InFlight {
    pub(super) id: u64,
    pub(super) reason: FetchReason,
    pub(super) handle: Handle,
    pub(super) time: telemetry::Stopwatch,
    tell: oneshot::Sender<Told>,
    /// Dropped, it aborts the task.
    _abort: oneshot::Sender<()>,
}

/// The task of a fetch, to be spawned once the lock is released. Dropped before that has ended, it loses
/// the fetch.
#[must_use]
pub(super) struct Launch {
    id: u64,
    request: TokenRequest,
    cache: Weak<Inner>,
    aborted: oneshot::Receiver<()>,
}

impl InFlight {
    pub(super) fn new(id: u64, request: TokenRequest, cache: Weak<Inner>) -> (Self, Launch) {
        let (tell, told) = oneshot::channel();
        let (abort, aborted) = oneshot::channel();
        let in_flight = Self {
            id,
            reason: request.reason,
            handle: told.shared(),
            time: telemetry::Stopwatch::start(),
            tell,
            _abort: abort,
        };
        let launch = Launch {
            id,
            request,
            cache,
            aborted,
        };
        (in_flight, launch)
    }

    /// Tells everyone who waits. Not to be called under a lock: it wakes them.
    pub(super) fn tell(self, told: Told) {
        // Nobody may be waiting, and that is fine.
        let _ = self.tell.send(told);
    }
}

impl Launch {
    /// Not to be called under the cache's lock: a runtime that is being shut down drops the task there
    /// and then, which loses the fetch.
    pub(super) fn go(mut self, fetch: &Fetch) {
        let Some(runtime) = rt::Runtime::current() else {
            return; // which loses it
        };
        let (fetch, reason) = (Arc::clone(fetch), self.request.reason);
        runtime.spawn(telemetry::in_fetch(reason, async move {
            let fetched = pin!(run(fetch, self.request.clone()));
            if let Either::Right((outcome, _)) = select(&mut self.aborted, fetched).await
                && let Some(cache) = self.cache.upgrade()
            {
                cache.fetched(self.id, outcome);
            }
        }));
    }
}

impl Drop for Launch {
    fn drop(&mut self) {
        if let Some(cache) = self.cache.upgrade() {
            // Once it has ended the machine knows it no more, and nothing is lost.
            cache.lost(self.id);
        }
    }
}

async fn run(fetch: Fetch, request: TokenRequest) -> Result<Fetched, TokenError> {
    let fetch = async move { rt::timeout(DEADLINE, fetch(request)).await };
    match AssertUnwindSafe(fetch).catch_unwind().await {
        Ok(Some(outcome)) => outcome,
        Ok(None) => Err(TokenError::new(
            TokenErrorKind::Timeout,
            format!("no token within {} s", DEADLINE.as_secs()),
        )),
        Err(_panic) => Err(TokenError::internal("the token service panicked")),
    }
}
