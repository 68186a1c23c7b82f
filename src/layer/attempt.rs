//! The steps of a request after its first attempt: acceptance or rejection, and the second attempt.

use std::{sync::Arc, time::Duration};

use futures::{FutureExt, future::BoxFuture};
use http::{Request, Response, header::CONTENT_LENGTH};
use tower::{BoxError, Service};

use super::{Auth, acquire::Acquire, auth::is_acceptance, instances::Instances};
use crate::{
    NotRetried, TokenError, TokenErrorKind,
    deadline::Deadline,
    grpc_timeout,
    replay::{Replay, ReplayBody},
    telemetry,
    token::{Key, PATIENT, ProbeGuard, Refusal, Rejection, Stamp},
};

/// A request that waits for a token, and for an instance to send it with.
pub(super) struct Waiting<S, B> {
    pub(super) acquire: Acquire<S>,
    pub(super) request: Request<ReplayBody<B>>,
    pub(super) replay: Replay<B>,
}

/// What it takes to send a request again.
pub(super) struct Retry<S, B> {
    pub(super) shared: Arc<Instances<S>>,
    pub(super) replay: Replay<B>,
    pub(super) generation: u64,
    pub(super) probe: Option<Box<ProbeGuard>>,
}

/// Sends the first attempt with a service that is ready.
pub(super) fn first<S, B>(
    shared: Arc<Instances<S>>,
    ready: &mut S,
    mut request: Request<ReplayBody<B>>,
    replay: Replay<B>,
    stamp: Stamp,
) -> (S::Future, Retry<S, B>)
where
    S: Service<Request<ReplayBody<B>>>,
{
    (shared.auth.placement).stamp(request.headers_mut(), stamp.value);
    let retry = Retry {
        shared,
        replay,
        generation: stamp.generation,
        probe: stamp.probe,
    };
    (ready.call(request), retry)
}

/// A 401, held unread until there is a token to send the request again with, or none to be had.
pub(super) struct Rejected<S, B, Response> {
    pub(super) decided: BoxFuture<'static, Result<(Rejection, u64), NotRetried>>,
    response: Response,
    retry: Retry<S, B>,
    path: Key,
    deadline: Option<Deadline>,
}

pub(super) type FirstAnswer<S, B, R> = Result<Response<R>, Box<Rejected<S, B, Response<R>>>>;

/// A request on its way to its second attempt.
pub(super) struct Resending<S, B> {
    pub(super) acquire: Acquire<S>,
    pub(super) path: Key,
    request: Request<ReplayBody<B>>,
    rejection: Rejection,
    deadline: Option<Deadline>,
}

/// A request on its second attempt.
pub(super) struct Resent {
    /// It may be a probe, until it is answered.
    _probe: Option<Box<ProbeGuard>>,
    auth: Arc<Auth>,
    rejection: Rejection,
    generation: u64,
}

/// The body of a 401 that is longer takes up room which other requests on its connection need.
const LONG: u64 = 16 * 1024;

/// For how long a 401 may be held.
fn patience<R>(response: &Response<R>) -> Duration {
    let length = response.headers().get(CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
    if length.is_some_and(|length: u64| length > LONG) {
        Duration::from_secs(1)
    } else {
        PATIENT
    }
}

impl<S, B> Retry<S, B> {
    #[inline]
    pub(super) fn is_rejection<R>(&self, response: &Response<R>) -> bool {
        self.shared.auth.is_rejection(response)
    }

    fn key(&self) -> Key {
        self.replay.key(&self.shared.auth.origins)
    }

    /// The first attempt was answered, and not rejected.
    #[inline]
    pub(super) fn answered<R>(&self, response: &Response<R>) {
        let auth = &self.shared.auth;
        auth.answered(self.generation, response.status(), || self.key());
    }

    /// The first attempt was rejected. The answer is to be handed on, unless another token may heal it.
    #[cold]
    pub(super) fn rejected<R>(self, response: Response<R>) -> FirstAnswer<S, B, R> {
        let cache = &self.shared.auth.cache;
        let path = self.key();
        let can_be_sent_again = self.replay.hold();
        let refusal = Refusal {
            generation: self.generation,
            path: Arc::clone(&path),
            probe: self.probe.as_ref().map(|probe| probe.id),
            retry: can_be_sent_again,
        };
        if !can_be_sent_again {
            cache.rejected_for_good(&refusal);
            return Ok(NotRetried::Body.mark(response));
        }
        let deadline = self.replay.deadline();
        let left = deadline.map_or(Duration::MAX, Deadline::left);
        let limit = patience(&response).min(left);
        Err(Box::new(Rejected {
            decided: cache.rejected(refusal, limit).boxed(),
            response,
            retry: self,
            path,
            deadline,
        }))
    }
}

impl<S: Clone, B, R> Rejected<S, B, Response<R>> {
    /// There is a token to try, or none: then the body goes on and the 401 is handed back.
    pub(super) fn resolve(
        self,
        decided: Result<(Rejection, u64), NotRetried>,
    ) -> Result<Box<Resending<S, B>>, Response<R>> {
        let (rejection, generation) = match decided {
            Ok(decided) => decided,
            Err(why) => return Err(why.mark(self.response)),
        };
        if self
            .deadline
            .is_some_and(|deadline| deadline.left().is_zero())
        {
            let why = NotRetried::Token(too_late());
            telemetry::handed_back(&self.path, &why);
            return Err(why.mark(self.response));
        }
        drop(self.response);
        let retry = self.retry;
        let instance = retry.shared.instance();
        let refused = rejection.refusal.generation;
        Ok(Box::new(Resending {
            acquire: Acquire::retry(Arc::clone(&retry.shared), instance, generation, refused),
            path: self.path,
            request: retry.replay.take_over(&retry.shared.auth.origins),
            rejection,
            deadline: self.deadline,
        }))
    }
}

impl<S, B> Resending<S, B>
where
    S: Service<Request<ReplayBody<B>>>,
{
    /// Fails if nothing is left of its `grpc-timeout` by now: the 401 is gone.
    pub(super) fn send(self, stamp: Stamp) -> Result<(S::Future, Resent), BoxError> {
        let Acquire {
            shared,
            mut service,
            ..
        } = self.acquire;
        let mut request = self.request;
        if let Some(deadline) = self.deadline
            && !grpc_timeout::set(request.headers_mut(), deadline)
        {
            return Err(too_late().into());
        }
        shared
            .auth
            .placement
            .stamp(request.headers_mut(), stamp.value);
        let response = service.call(request);
        let resent = Resent {
            _probe: stamp.probe,
            auth: Arc::clone(&shared.auth),
            rejection: self.rejection,
            generation: stamp.generation,
        };
        Ok((response, resent))
    }
}

fn too_late() -> TokenError {
    let what = "the request's grpc-timeout ran out before it could be sent again";
    TokenError::new(TokenErrorKind::Timeout, what)
}

impl Resent {
    pub(super) fn on<R>(self, response: Response<R>) -> Response<R> {
        if self.auth.is_rejection(&response) {
            self.rejection.rejected(self.generation);
            return NotRetried::SecondRejection.mark(response);
        }
        if is_acceptance(response.status()) {
            self.rejection.accepted(self.generation);
        }
        response
    }
}
