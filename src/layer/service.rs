//! The service: adds the token's header to a request and sends it, at once if there is a live token.

use std::{
    fmt, mem,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use http_body::Body;
use tower::{BoxError, Service};

use super::{
    Auth, SkipAuth,
    attempt::{Retry, first},
    future::ResponseFuture,
    instances::Instances,
};
use crate::{
    origin::guard::{Listed, allows},
    replay::{
        Replay, ReplayBody,
        look::{Seen, Stream, look},
    },
    rt,
    token::{Ended, Next, Stamp, WaitFor, Waited},
};

/// Adds the shared token's header to each request, and sends it once more if the token is rejected.
///
/// Made by [`SymblAuthLayer`](crate::SymblAuthLayer). Its errors are boxed: those of the wrapped service
/// as they are, or a [`TokenError`](crate::TokenError).
///
/// The wrapped service has to be `Clone`. It sends requests itself while a token is live. A request that has to wait for
/// a token, and one that is sent again, goes through a clone, which is made ready for it. The clone that
/// retries start from is taken at the first request, and anew after [`get_mut`](Self::get_mut).
#[derive(Clone)]
pub struct SymblAuth<S> {
    inner: S,
    shared: Arc<Instances<S>>,
}

impl<S> SymblAuth<S> {
    pub(super) fn new(inner: S, auth: Arc<Auth>) -> Self {
        Self {
            inner,
            shared: Instances::new(auth),
        }
    }

    /// The wrapped service.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The wrapped service, mutably.
    pub fn get_mut(&mut self) -> &mut S {
        // Whatever is done to it holds for the retries of the requests to come.
        self.shared = Instances::new(Arc::clone(&self.shared.auth));
        &mut self.inner
    }

    /// The wrapped service, without the layer.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S, B, R> Service<Request<B>> for SymblAuth<S>
where
    S: Service<Request<ReplayBody<B>>, Response = Response<R>> + Clone,
    S::Error: Into<BoxError>,
    B: Body + Unpin,
    B::Error: Into<BoxError>,
{
    type Response = Response<R>;
    type Error = BoxError;
    type Future = ResponseFuture<S, B>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let auth = &self.shared.auth;
        if request.extensions().get::<SkipAuth>().is_some() {
            let request = request.map(ReplayBody::passing);
            return ResponseFuture::pass(self.inner.call(request), None);
        }
        let Some(listed) = allows(&auth.origins, request.uri(), request.headers()) else {
            auth.unlisted.tell(request.uri());
            let unlisted = Some(Arc::clone(auth));
            let request = request.map(ReplayBody::passing);
            return ResponseFuture::pass(self.inner.call(request), unlisted);
        };
        self.shared.keep(&self.inner);
        // What is in memory takes the short way, and is moved once: a head is long.
        let whole = match look(request.body_mut()) {
            Seen::Whole(whole) => whole,
            Seen::Stream(stream) => return self.stream(request, listed, stream),
        };
        let Some(stamp) = auth.cache.live() else {
            let replay = Replay::whole(&request, listed, whole.clone());
            return self.ask(request.map(|_| ReplayBody::whole(whole)), replay);
        };
        let retry = Some(Retry {
            shared: Arc::clone(&self.shared),
            replay: Replay::whole(&request, listed, whole.clone()),
            generation: stamp.generation,
            probe: stamp.probe,
        });
        auth.placement.stamp(request.headers_mut(), stamp.value);
        // To drop the empty body before the call would have the head moved twice.
        let (parts, _empty) = request.into_parts();
        let request = Request::from_parts(parts, ReplayBody::whole(whole));
        ResponseFuture::first(self.inner.call(request), retry)
    }
}

impl<S> SymblAuth<S> {
    /// Sends a request whose body is a stream.
    fn stream<B, R>(
        &mut self,
        request: Request<B>,
        listed: Listed,
        seen: Stream,
    ) -> ResponseFuture<S, B>
    where
        S: Service<Request<ReplayBody<B>>, Response = Response<R>> + Clone,
        B: Body + Unpin,
        B::Error: Into<BoxError>,
    {
        let auth = &self.shared.auth;
        let (request, replay) = Replay::stream(request, listed, seen, auth.replay_limit);
        // Who cannot send again what is rejected waits for a fetch that a rejection has begun.
        let waits = replay.is_known_to_be_none() && auth.cache.is_fetching_after_rejection();
        match auth.cache.live() {
            Some(stamp) if !waits => self.first(request, replay, stamp),
            _ => self.ask(request, replay),
        }
    }

    /// For a request that was sent by other means, with the token of that generation, and rejected: what becomes of it. It
    /// is sent again without a body.
    #[cfg(feature = "reqwest-middleware")]
    pub(crate) fn rejected<B, R>(
        &self,
        request: &Request<B>,
        generation: u64,
        rejection: Response<R>,
    ) -> ResponseFuture<S, B>
    where
        S: Service<Request<ReplayBody<B>>, Response = Response<R>> + Clone,
    {
        let origins = &self.shared.auth.origins;
        let listed = allows(origins, request.uri(), request.headers());
        let listed = listed.unwrap_or(Listed::Otherwise);
        self.shared.keep(&self.inner);
        let retry = Retry {
            shared: Arc::clone(&self.shared),
            replay: Replay::whole(request, listed, crate::replay::look::Whole::none()),
            generation,
            probe: None,
        };
        ResponseFuture::rejected(retry.rejected(rejection))
    }

    /// There is something to ask before the request goes.
    #[cold]
    fn ask<B, R>(
        &mut self,
        request: Request<ReplayBody<B>>,
        replay: Replay<B>,
    ) -> ResponseFuture<S, B>
    where
        S: Service<Request<ReplayBody<B>>, Response = Response<R>> + Clone,
        B: Body + Unpin,
        B::Error: Into<BoxError>,
    {
        let shared = Arc::clone(&self.shared);
        let path = || replay.key(&shared.auth.origins);
        let over_limit = replay.is_known_to_be_none();
        let mut waited = Waited::default();
        let wait = match shared.auth.cache.ask(Some(&path), over_limit, &mut waited) {
            Ok(Next::Do(stamp)) => return self.first(request, replay, stamp),
            Ok(Next::Wait(wait)) => Some(wait),
            // It may yet be polled in one.
            Err(_) if !rt::is_here() => None,
            Err(error) => Some(WaitFor::Ended(Ended::Told(Err(error)))),
        };
        // The reserved instance is dropped here and now: nothing is held while the token is awaited.
        let service = self.inner.clone();
        drop(mem::replace(&mut self.inner, service.clone()));
        ResponseFuture::wait(shared, service, request, replay, (wait, waited))
    }

    /// Sends a request with the reserved instance.
    fn first<B>(
        &mut self,
        request: Request<ReplayBody<B>>,
        replay: Replay<B>,
        stamp: Stamp,
    ) -> ResponseFuture<S, B>
    where
        S: Service<Request<ReplayBody<B>>>,
    {
        let shared = Arc::clone(&self.shared);
        let (response, retry) = first(shared, &mut self.inner, request, replay, stamp);
        ResponseFuture::first(response, Some(retry))
    }
}

impl<S: fmt::Debug> fmt::Debug for SymblAuth<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SymblAuth")
            .field("inner", &self.inner)
            .field("layer", &self.shared.auth)
            .finish()
    }
}
