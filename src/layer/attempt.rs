//! The steps of a request after its first attempt: acceptance or rejection, and the second attempt.

use std::sync::Arc;

use futures::{FutureExt, future::BoxFuture};
use http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use tower::Service;

use super::{Auth, acquire::Acquire, shared::Shared};
use crate::{
    NotRetried,
    replay::{Replay, ReplayBody},
    telemetry,
    token::{Claim, Key},
};

static GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// Whether a response says that the token was refused: status 401, or a gRPC answer that consists of
/// nothing but its trailers, whose status is 200, and says `UNAUTHENTICATED` (16).
#[inline]
pub(super) fn is_rejection<R>(response: &Response<R>) -> bool {
    match response.status() {
        StatusCode::UNAUTHORIZED => true,
        StatusCode::OK => {
            let status = response.headers().get(&GRPC_STATUS);
            status.is_some_and(|status| status == "16")
        }
        _ => false,
    }
}

/// A request that waits for a token, and for an instance to send it with.
pub(super) struct Waiting<S, B> {
    pub(super) acquire: Acquire<S>,
    pub(super) request: Request<ReplayBody<B>>,
    pub(super) replay: Replay<B>,
}

/// What it takes to send a request again.
pub(super) struct Retry<S, B> {
    pub(super) shared: Arc<Shared<S>>,
    pub(super) replay: Replay<B>,
    pub(super) generation: u64,
}

/// A 401, held unread until there is a newer token or none to be had.
pub(super) struct Rejected<S, B, Response> {
    pub(super) newer: BoxFuture<'static, Result<Option<Claim>, NotRetried>>,
    response: Response,
    retry: Retry<S, B>,
    key: Key,
}

type FirstAnswer<S, B, R> = Result<Response<R>, Box<Rejected<S, B, Response<R>>>>;

/// A request on its way to its second attempt.
pub(super) struct Resending<S, B> {
    pub(super) acquire: Acquire<S>,
    request: Request<ReplayBody<B>>,
    key: Key,
    claim: Option<Claim>,
}

/// What the second attempt's answer tells of the new token.
pub(super) struct Verdict {
    auth: Arc<Auth>,
    key: Key,
    generation: u64,
    claim: Option<Claim>,
}

impl<S, B> Retry<S, B> {
    /// The first attempt was accepted.
    #[inline]
    pub(super) fn accepted(&self) {
        let cache = &self.shared.auth.cache;
        if cache.awaits_answers() {
            cache.answered(self.generation, &self.replay.key(), true);
        }
    }

    /// The first attempt was rejected. The answer is to be handed on, unless a newer token may heal it.
    #[cold]
    pub(super) fn rejected<R>(self, response: Response<R>) -> FirstAnswer<S, B, R> {
        let cache = &self.shared.auth.cache;
        let key = self.replay.key();
        if !self.replay.hold() {
            cache.rejected_for_good(self.generation, &key);
            return Ok(NotRetried::Body.mark(response));
        }
        let newer = cache.clone().newer_than(self.generation, Arc::clone(&key));
        Err(Box::new(Rejected {
            newer: newer.boxed(),
            response,
            retry: self,
            key,
        }))
    }
}

impl<S: Clone, B, R> Rejected<S, B, Response<R>> {
    /// There is a newer token, or none: then the body goes on and the 401 is handed back.
    pub(super) fn resolve(
        self,
        newer: Result<Option<Claim>, NotRetried>,
    ) -> Result<Box<Resending<S, B>>, Response<R>> {
        let claim = match newer {
            Ok(claim) => claim,
            Err(why) => return Err(why.mark(self.response)),
        };
        drop(self.response);
        let retry = self.retry;
        Ok(Box::new(Resending {
            acquire: Acquire::new(Arc::clone(&retry.shared), retry.shared.instance()),
            request: retry.replay.take_over(),
            key: self.key,
            claim,
        }))
    }
}

impl<S, B> Resending<S, B>
where
    S: Service<Request<ReplayBody<B>>>,
{
    pub(super) fn send(self, (value, generation): (HeaderValue, u64)) -> (S::Future, Verdict) {
        let Acquire {
            shared,
            mut service,
            ..
        } = self.acquire;
        let mut request = self.request;
        shared.auth.placement.stamp(request.headers_mut(), value);
        let response = service.call(request);
        let verdict = Verdict {
            auth: Arc::clone(&shared.auth),
            key: self.key,
            generation,
            claim: self.claim,
        };
        (response, verdict)
    }
}

impl Verdict {
    pub(super) fn on<R>(self, response: Response<R>) -> Response<R> {
        let accepted = !is_rejection(&response);
        telemetry::retried(&self.key, self.generation, accepted);
        match self.claim {
            Some(claim) if accepted => claim.accepted(),
            Some(claim) => claim.rejected(self.generation),
            None => (self.auth.cache).retried(self.generation, &self.key, accepted),
        }
        if accepted {
            return response;
        }
        telemetry::handed_back(&self.key, &NotRetried::SecondRejection);
        NotRetried::SecondRejection.mark(response)
    }
}
