//! A token endpoint without a network: an HTTP client that answers as it is told.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tokio::time::{Instant, sleep};
use tower::{Service, ServiceExt, service_fn};
use tower_symbl_auth::{
    AccessToken, Credentials, FetchReason, FetchToken, TokenError, TokenRequest,
};

type Requests = Vec<(Instant, Request<Full<Bytes>>)>;
pub type Reply = Result<Response<Full<Bytes>>, io::Error>;

/// A client that gives these replies, and then `ok()`s; and the times and bodies of its requests.
#[derive(Clone, Default)]
pub struct Endpoint {
    pub replies: Arc<Mutex<VecDeque<Reply>>>,
    pub requests: Arc<Mutex<Requests>>,
    pub delay: Duration,
}

impl Endpoint {
    pub fn replying(replies: impl IntoIterator<Item = Reply>) -> Self {
        let endpoint = Self::default();
        endpoint.replies.lock().unwrap().extend(replies);
        endpoint
    }

    pub fn requests(&self) -> usize {
        self.requests.lock().unwrap().len()
    }

    pub fn fetch(
        &self,
    ) -> FetchToken<
        impl Service<
            Request<Full<Bytes>>,
            Response = Response<Full<Bytes>>,
            Error = io::Error,
            Future: Send + 'static,
        > + Clone
        + Send
        + Sync
        + 'static,
    > {
        let this = self.clone();
        let client = service_fn(move |request| {
            let this = this.clone();
            async move {
                this.requests
                    .lock()
                    .unwrap()
                    .push((Instant::now(), request));
                let reply = this.replies.lock().unwrap().pop_front();
                sleep(this.delay).await;
                reply.unwrap_or_else(ok)
            }
        });
        FetchToken::with_client(Credentials::new("the-id", "the-secret"), client)
    }

    pub async fn token(&self) -> Result<AccessToken, TokenError> {
        self.fetch()
            .oneshot(TokenRequest::new(FetchReason::First))
            .await
    }
}

pub fn ok() -> Reply {
    Ok(Response::new(
        r#"{"accessToken":"token","expiresIn":3600}"#.into(),
    ))
}

pub fn status(status: u16) -> Reply {
    let body = format!(r#"{{"message":"about {status}"}}"#);
    Ok(Response::builder()
        .status(status)
        .body(body.into())
        .unwrap())
}

pub fn refusal(status: u16, body: &str) -> Reply {
    let response = Response::builder().status(status);
    Ok(response.body(body.to_owned().into()).unwrap())
}

pub fn retry_after(status: u16, value: &str) -> Reply {
    let response = Response::builder()
        .status(status)
        .header("retry-after", value);
    Ok(response.body(Full::default()).unwrap())
}

pub fn broken() -> Reply {
    Err(io::ErrorKind::ConnectionRefused.into())
}
