//! The response future: two attempts at most.
//!
//! ```text
//!   no token ─► Waiting ─ token, ready ─┐
//!   token ──────────────────────────────┴► First ─ 401 ─► Rejected ─ other token ─► Resending ─ ready ─► Second
//!   other origin ─► Passing                  │                │                                           │
//!                      └──────────────────► response   401 handed back                                response
//! ```
//!
//! With a live token and no rejection nothing is boxed; the states off that path are, which keeps the
//! future small.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use futures::FutureExt;
use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tower::{BoxError, Service};

use super::{
    Auth,
    acquire::Acquire,
    attempt::{Rejected, Resending, Resent, Retry, Waiting, first},
    instances::Instances,
};
use crate::{
    NotRetried,
    replay::{Replay, ReplayBody},
    token::{WaitFor, Waited},
};

pin_project! {
    #[project = Projected]
    /// The future of [`SymblAuth`](crate::SymblAuth).
    ///
    /// # Cancel safety
    ///
    /// Dropping it at any point leaves token, body and inner service in order; a token fetch that it
    /// waited for goes on.
    pub struct ResponseFuture<S, B>
    where
        S: Service<Request<ReplayBody<B>>>,
    {
        #[pin]
        state: State<S, S::Future, S::Response, B>,
        // Of the first attempt. In its state it would be moved once more.
        retry: Option<Retry<S, B>>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, F, R, B> {
        /// Goes without a token. If its origin is not listed, a rejection says so.
        Passing { #[pin] response: F, unlisted: Option<Arc<Auth>> },
        Waiting { waiting: Option<Box<Waiting<S, B>>> },
        First { #[pin] response: F },
        Rejected { rejected: Option<Box<Rejected<S, B, R>>> },
        Resending { resending: Option<Box<Resending<S, B>>> },
        Second { #[pin] response: F, resent: Option<Box<Resent>> },
    }
}

impl<S, B> ResponseFuture<S, B>
where
    S: Service<Request<ReplayBody<B>>>,
{
    pub(super) fn pass(response: S::Future, unlisted: Option<Arc<Auth>>) -> Self {
        Self {
            state: State::Passing { response, unlisted },
            retry: None,
        }
    }

    pub(super) fn wait(
        shared: Arc<Instances<S>>,
        service: S,
        request: Request<ReplayBody<B>>,
        replay: Replay<B>,
        wait: (Option<WaitFor>, Waited),
    ) -> Self {
        let waiting = Box::new(Waiting {
            acquire: Acquire::first(shared, service, replay.is_known_to_be_none(), wait),
            request,
            replay,
        });
        Self {
            state: State::Waiting {
                waiting: Some(waiting),
            },
            retry: None,
        }
    }

    /// The first attempt is under way.
    #[inline(always)]
    pub(super) fn first(response: S::Future, retry: Option<Retry<S, B>>) -> Self {
        Self {
            state: State::First { response },
            retry,
        }
    }
}

#[cfg(feature = "reqwest-middleware")]
impl<S, B, R> ResponseFuture<S, B>
where
    S: Service<Request<ReplayBody<B>>, Response = Response<R>>,
{
    /// The first attempt was rejected, whichever way it was sent.
    pub(super) fn rejected(rejected: super::attempt::FirstAnswer<S, B, R>) -> Self {
        let Err(rejected) = rejected else {
            unreachable!("what is in memory can be sent again");
        };
        Self {
            state: State::Rejected {
                rejected: Some(rejected),
            },
            retry: None,
        }
    }
}

impl<S, B, R> Future for ResponseFuture<S, B>
where
    S: Service<Request<ReplayBody<B>>, Response = Response<R>> + Clone,
    S::Error: Into<BoxError>,
    B: Body + Unpin,
    B::Error: Into<BoxError>,
{
    type Output = Result<Response<R>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Projected { mut state, retry } = self.project();
        loop {
            let next = match state.as_mut().project() {
                StateProj::Passing { response, unlisted } => {
                    let response = ready!(response.poll(cx)).map_err(Into::into)?;
                    return Poll::Ready(Ok(match unlisted {
                        Some(auth) if auth.is_rejection(&response) => {
                            NotRetried::Unstamped.mark(response)
                        }
                        _ => response,
                    }));
                }
                StateProj::Waiting { waiting } => {
                    let Waiting {
                        acquire, replay, ..
                    } = &mut **running(waiting);
                    let origins = &Arc::clone(&acquire.shared).auth.origins;
                    let stamp = ready!(acquire.poll(cx, &|| replay.key(origins)))?;
                    let Waiting {
                        acquire,
                        request,
                        replay,
                    } = *take(waiting);
                    let mut service = acquire.service;
                    let (response, first) =
                        first(acquire.shared, &mut service, request, replay, stamp);
                    *retry = Some(first);
                    State::First { response }
                }
                StateProj::First { response } => {
                    let response = match ready!(response.poll(cx)) {
                        Ok(response) => response,
                        Err(error) => {
                            *retry = None;
                            return Poll::Ready(Err(error.into()));
                        }
                    };
                    if !running(retry).is_rejection(&response) {
                        running(retry).answered(&response);
                        // Nothing is kept any longer, and the body goes on.
                        *retry = None;
                        return Poll::Ready(Ok(response));
                    }
                    match take(retry).rejected(response) {
                        Ok(response) => return Poll::Ready(Ok(response)),
                        Err(rejected) => State::Rejected {
                            rejected: Some(rejected),
                        },
                    }
                }
                StateProj::Rejected { rejected } => {
                    let decided = ready!(running(rejected).decided.poll_unpin(cx));
                    match take(rejected).resolve(decided) {
                        Ok(resending) => State::Resending {
                            resending: Some(resending),
                        },
                        Err(response) => return Poll::Ready(Ok(response)),
                    }
                }
                StateProj::Resending { resending } => {
                    let Resending { acquire, path, .. } = &mut **running(resending);
                    let stamp = ready!(acquire.poll(cx, &|| Arc::clone(path)))?;
                    let (response, resent) = take(resending).send(stamp)?;
                    State::Second {
                        response,
                        resent: Some(Box::new(resent)),
                    }
                }
                StateProj::Second { response, resent } => {
                    let response = ready!(response.poll(cx));
                    let resent = take(resent);
                    return Poll::Ready(Ok(resent.on(response.map_err(Into::into)?)));
                }
            };
            state.set(next);
        }
    }
}

const POLLED_AGAIN: &str = "a future is not polled again once it has resolved";

fn running<T>(state: &mut Option<T>) -> &mut T {
    state.as_mut().expect(POLLED_AGAIN)
}

fn take<T>(state: &mut Option<T>) -> T {
    state.take().expect(POLLED_AGAIN)
}

impl<S, B> fmt::Debug for ResponseFuture<S, B>
where
    S: Service<Request<ReplayBody<B>>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
