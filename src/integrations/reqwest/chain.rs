//! The rest of the middlewares' chain as a service, for one request.

use std::{
    error, fmt, mem,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::future::BoxFuture;
use http::{Extensions, HeaderMap, StatusCode};
use reqwest::{Body, Request, Response, Url};
use reqwest_middleware::{Error, Next, Result};
use tokio::sync::Mutex;
use tower::Service;

use super::short::is_listed;
use crate::{ReplayBody, deadline::Deadline, layer::Auth};

/// By how much an attempt may be late to say that its timeout has run out.
pub(super) const GRACE: Duration = Duration::from_millis(100);

#[derive(Clone)]
pub(super) struct Chain<'a> {
    pub(super) auth: &'a Auth,
    pub(super) next: Next<'a>,
    /// Locked while an attempt is under way.
    pub(super) lent: Arc<Mutex<Lent<'a>>>,
    /// The request with all that `http::Request` has no room for; and with its body, if that is in memory.
    /// Sent as it was, such a body can still be repeated by reqwest itself, for a redirect or a connection
    /// that went away.
    pub(super) template: Arc<Request>,
    pub(super) streams: bool,
    pub(super) deadline: Option<Deadline>,
}

/// What one attempt after the other is lent, and leaves: never both at once.
pub(super) struct Lent<'a> {
    extensions: &'a mut Extensions,
    unrelated: Option<Response>,
}

impl<'a> Lent<'a> {
    pub(super) fn new(extensions: &'a mut Extensions) -> Self {
        Self {
            extensions,
            unrelated: None,
        }
    }

    /// The answer that says nothing of the token.
    pub(super) fn unrelated(&mut self) -> Option<Response> {
        self.unrelated.take()
    }
}

impl Chain<'_> {
    fn request(&self, message: http::Request<ReplayBody<Body>>) -> Request {
        let (parts, body) = message.into_parts();
        let template = self.template.try_clone();
        let mut request = template.expect("its body is in memory, or was taken out");
        *request.headers_mut() = parts.headers;
        if self.streams {
            *request.body_mut() = Some(Body::wrap(body));
        }
        if let Some(deadline) = self.deadline {
            *request.timeout_mut() = Some(deadline.left());
        }
        request
    }
}

/// Whether an answer tells of the token that the request carried. It does not if it comes from another
/// origin. Nor is its rejection one to heal if it came by a redirect: the request may have been done,
/// and only what is idempotent is done again.
pub(super) fn tells_of_token(
    auth: &Auth,
    request: &Request,
    answered: &Url,
    status: StatusCode,
    headers: &HeaderMap,
) -> bool {
    let asked = request.url();
    // A middleware beneath that makes up its own response may give it no URL, for which reqwest has a
    // placeholder.
    if without_fragment(answered) == without_fragment(asked)
        || answered.host_str() == Some("no.url.provided.local")
    {
        return true;
    }
    let (from, to) = (asked.origin(), answered.origin());
    if from == to {
        return request.method().is_idempotent() || !auth.means_rejection(status, headers);
    }
    if is_listed(auth, request) {
        let (from, to) = (from.ascii_serialization(), to.ascii_serialization());
        auth.led_away.tell(&from, &to);
    }
    false
}

fn without_fragment(url: &Url) -> &str {
    let url = url.as_str();
    url.split_once('#').map_or(url, |(before, _)| before)
}

impl<'a> Service<http::Request<ReplayBody<Body>>> for Chain<'a> {
    type Response = http::Response<Response>;
    type Error = Error;
    type Future = BoxFuture<'a, Result<Self::Response>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, message: http::Request<ReplayBody<Body>>) -> Self::Future {
        let request = self.request(message);
        let chain = self.clone();
        Box::pin(async move {
            let mut lent = chain.lent.lock().await;
            let response = chain
                .next
                .clone()
                .run(request, &mut *lent.extensions)
                .await?;
            let carrier = carry(response);
            let (url, headers) = (carrier.body().url(), carrier.headers());
            if tells_of_token(chain.auth, &chain.template, url, carrier.status(), headers) {
                return Ok(carrier);
            }
            // Of an error the layer makes neither an acceptance nor a rejection.
            lent.unrelated = Some(put_back(carrier));
            Err(Error::middleware(Unrelated))
        })
    }
}

/// Around a response, its head.
pub(super) fn carry(mut response: Response) -> http::Response<Response> {
    let (status, headers) = (response.status(), mem::take(response.headers_mut()));
    let mut carrier = http::Response::new(response);
    *carrier.status_mut() = status;
    *carrier.headers_mut() = headers;
    carrier
}

/// The response again, with what the layer has added.
pub(super) fn put_back(carrier: http::Response<Response>) -> Response {
    let (parts, mut response) = carrier.into_parts();
    *response.headers_mut() = parts.headers;
    response.extensions_mut().extend(parts.extensions);
    response
}

/// In place of a response that says nothing of the token.
#[derive(Debug)]
struct Unrelated;

impl fmt::Display for Unrelated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the answer is another origin's")
    }
}

impl error::Error for Unrelated {}
