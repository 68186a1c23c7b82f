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
    attempt::{Rejected, Resending, Resent, Retry, Waiting},
    shared::Shared,
};
use crate::{
    NotRetried,
    replay::{Replay, ReplayBody},
    token::{Stamp, WaitFor, Waited},
};

pin_project! {
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
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, F, R, B> {
        /// Goes without a token. If its origin is not listed, a rejection says so.
        Passing { #[pin] response: F, unlisted: Option<Arc<Auth>> },
        Waiting { waiting: Option<Box<Waiting<S, B>>> },
        First { #[pin] response: F, retry: Option<Retry<S, B>> },
        Rejected { rejected: Option<Box<Rejected<S, B, R>>> },
        Resending { resending: Option<Box<Resending<S, B>>> },
        Second { #[pin] response: F, resent: Option<Resent> },
    }
}

impl<S, B> ResponseFuture<S, B>
where
    S: Service<Request<ReplayBody<B>>>,
{
    pub(super) fn pass(response: S::Future, unlisted: Option<Arc<Auth>>) -> Self {
        Self {
            state: State::Passing { response, unlisted },
        }
    }

    pub(super) fn wait(
        shared: Arc<Shared<S>>,
        service: S,
        request: Request<ReplayBody<B>>,
        replay: Replay<B>,
        wait: (WaitFor, Waited),
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
        }
    }

    /// Stamps the request, and sends it with the service that is ready.
    #[inline(always)] // it moves some hundred bytes less
    pub(super) fn first(
        shared: Arc<Shared<S>>,
        ready: &mut S,
        request: Request<ReplayBody<B>>,
        replay: Replay<B>,
        stamp: Stamp,
    ) -> Self {
        Self {
            state: State::first(shared, ready, request, replay, stamp),
        }
    }
}

impl<S, B> State<S, S::Future, S::Response, B>
where
    S: Service<Request<ReplayBody<B>>>,
{
    #[inline(always)]
    fn first(
        shared: Arc<Shared<S>>,
        ready: &mut S,
        mut request: Request<ReplayBody<B>>,
        replay: Replay<B>,
        stamp: Stamp,
    ) -> Self {
        (shared.auth.placement).stamp(request.headers_mut(), stamp.value);
        Self::First {
            response: ready.call(request),
            retry: Some(Retry {
                shared,
                replay,
                generation: stamp.generation,
                probe: stamp.probe,
            }),
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
        let mut state = self.project().state;
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
                    let stamp = ready!(acquire.poll(cx, &|| replay.key()))?;
                    let Waiting {
                        acquire,
                        request,
                        replay,
                    } = *take(waiting);
                    let mut service = acquire.service;
                    State::first(acquire.shared, &mut service, request, replay, stamp)
                }
                StateProj::First { response, retry } => match response.poll(cx) {
                    Poll::Ready(Ok(response)) if running(retry).is_rejection(&response) => {
                        match take(retry).rejected(response) {
                            Ok(response) => return Poll::Ready(Ok(response)),
                            Err(rejected) => State::Rejected {
                                rejected: Some(rejected),
                            },
                        }
                    }
                    Poll::Pending => return Poll::Pending,
                    done => {
                        if let Poll::Ready(Ok(response)) = &done {
                            running(retry).answered(response);
                        }
                        // Nothing is kept any longer, and the body goes on.
                        *retry = None;
                        return done.map_err(Into::into);
                    }
                },
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
                        resent: Some(resent),
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
