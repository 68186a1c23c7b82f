//! The default HTTP client: hyper-util over rustls, through the environment's proxy.

use std::{
    fmt,
    net::SocketAddr,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use http::{Request, Response, Uri, uri::Scheme};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper_rustls::HttpsConnector;
use hyper_util::{
    client::{
        legacy::{
            Client,
            connect::{Connect, HttpConnector, dns::Name, proxy::Tunnel},
        },
        proxy::matcher::{Intercept, Matcher},
    },
    rt::TokioExecutor,
};
use tower::{BoxError, Service, timeout::Timeout};

use super::{endpoint::is_loopback, tls};
use crate::{TokenError, TokenErrorKind};

type ClientResponse = Response<UnsyncBoxBody<Bytes, BoxError>>;

/// The HTTP client of [`FetchToken::new`](crate::FetchToken::new): hyper-util, and rustls with the
/// platform's root certificates.
///
/// - All of them share one TLS configuration: the roots are read once a process. On Linux they come from
///   the file that `SSL_CERT_FILE` names, if it is set.
/// - `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY` are read when one is made, as curl reads
///   them; `NO_PROXY` has names, addresses and networks, without ports or brackets. A proxy is spoken to
///   over `http` or `https`, asked to `CONNECT`, and given the user and password of its URL. Plain `http`,
///   which is for loopback, goes only through a proxy on loopback.
/// - Connecting, or a proxy's tunnel, takes a third of [`FetchToken::timeout`](crate::FetchToken::timeout)
///   at most, divided among the addresses of a name; 3.3 s outside of a `FetchToken`.
/// - No connection is kept, since the next token request is hours away; no redirect is followed.
///
/// Its crypto provider is the process's default for rustls. If there is none, the first client makes
/// that of the feature `aws-lc-rs` or else `ring` the default, as rustls's own builder would.
///
/// ```
/// use tower_symbl_auth::{Credentials, DefaultClient, FetchToken};
///
/// let client = DefaultClient::default();
/// // The same as `FetchToken::new`; a client can be wrapped in layers of your own first.
/// let fetch = FetchToken::with_client(Credentials::new("app-id", "app-secret"), client);
/// ```
#[derive(Clone)]
pub struct DefaultClient {
    proxies: Arc<Matcher>,
}

impl Default for DefaultClient {
    fn default() -> Self {
        // Now, rather than while a caller waits for a token. Each request asks again, and says what failed.
        let _ = tls::config();
        Self {
            proxies: Arc::new(Matcher::from_env()),
        }
    }
}

/// How long a connection may take; among a request's extensions.
#[derive(Debug, Clone, Copy)]
pub(super) struct ConnectTimeout(pub(super) Duration);

impl Default for ConnectTimeout {
    fn default() -> Self {
        Self(Duration::from_secs(10) / 3)
    }
}

impl Service<Request<Full<Bytes>>> for DefaultClient {
    type Response = ClientResponse;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<ClientResponse, BoxError>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Full<Bytes>>) -> Self::Future {
        self.clone().send(HttpConnector::new(), request).boxed()
    }
}

impl DefaultClient {
    async fn send<R>(
        self,
        mut http: HttpConnector<R>,
        request: Request<Full<Bytes>>,
    ) -> Result<ClientResponse, BoxError>
    where
        R: Service<Name> + Clone + Send + Sync + Unpin + 'static,
        R::Response: Iterator<Item = SocketAddr>,
        R::Error: Into<BoxError>,
        R::Future: Send,
    {
        let limit = request.extensions().get().copied();
        let ConnectTimeout(limit) = limit.unwrap_or_default();
        http.set_connect_timeout(Some(limit));
        http.enforce_http(false);
        let Some(proxy) = self.proxy(request.uri()) else {
            return if request.uri().scheme() == Some(&Scheme::HTTP) {
                once(http, request).await
            } else {
                once(HttpsConnector::from((http, tls::config()?)), request).await
            };
        };
        let tls = tls::config()?;
        let through = format!("through the proxy {}", proxy.uri());
        if ![Some("http"), Some("https")].contains(&proxy.uri().scheme_str()) {
            let why = format!("{through}: only proxies over http and https are supported");
            return Err(TokenError::internal(why).into());
        }
        let to_proxy = HttpsConnector::from((http, Arc::clone(&tls)));
        let mut tunnel = Tunnel::new(proxy.uri().clone(), to_proxy);
        if let Some(auth) = proxy.basic_auth() {
            tunnel = tunnel.with_auth(auth.clone());
        }
        let connector = HttpsConnector::from((Timeout::new(tunnel, limit), tls));
        let answer = once(connector, request).await;
        answer.map_err(|error| {
            TokenError::because(TokenErrorKind::Unavailable, &through, error).into()
        })
    }

    /// The proxy to go through. `http` is allowed on loopback, where the app secret shows to nobody: it
    /// must not leave in clear through a proxy elsewhere, which could not reach our loopback anyway.
    fn proxy(&self, uri: &Uri) -> Option<Intercept> {
        let proxy = self.proxies.intercept(uri)?;
        let safe = uri.scheme() == Some(&Scheme::HTTPS)
            // Tunnels take 443 for the port that is not told.
            || uri.port().is_some() && proxy.uri().host().is_some_and(is_loopback);
        safe.then_some(proxy)
    }
}

/// A connection for one request, closed after it. One that were kept would be driven by a task of this
/// runtime, which may be gone by the next request.
async fn once<C>(connector: C, request: Request<Full<Bytes>>) -> Result<ClientResponse, BoxError>
where
    C: Connect + Clone + Send + Sync + 'static,
{
    let client = Client::builder(TokioExecutor::new())
        .pool_max_idle_per_host(0)
        .build(connector);
    let response = client.request(request).await?;
    Ok(response.map(|body| body.map_err(Into::into).boxed_unsync()))
}

impl fmt::Debug for DefaultClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DefaultClient").finish_non_exhaustive()
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")] // all of 127.0.0.0/8 is loopback there, and a full backlog is silent
mod tests {
    use std::{future::ready, io};

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpSocket, TcpStream},
        time::timeout,
    };
    use tower::{ServiceExt, service_fn};

    use super::*;
    use crate::{AccessToken, Credentials, FetchReason, FetchToken, TokenRequest};

    /// An address that takes a connection and no more: its listener's backlog is full, so that the kernel
    /// drops what comes. It lasts as long as what is returned with it.
    async fn black_hole(port: u16) -> (SocketAddr, impl Sized) {
        let address = SocketAddr::from(([127, 0, 0, 2], port));
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(address).unwrap();
        let listener = socket.listen(1).unwrap();
        let mut connected = Vec::new();
        let patience = Duration::from_millis(200);
        while let Ok(stream) = timeout(patience, TcpStream::connect(address)).await {
            connected.push(stream.unwrap());
        }
        (address, (listener, connected))
    }

    /// Answers one connection with a token.
    async fn serve(listener: TcpListener) {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut buffer = [0; 4096];
        assert_ne!(stream.read(&mut buffer).await.unwrap(), 0);
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 23\r\n\r\n{\"accessToken\":\"token\"}";
        stream.write_all(answer).await.unwrap();
    }

    /// One attempt at an endpoint whose name has those addresses.
    async fn attempt(addresses: Vec<SocketAddr>, port: u16) -> Result<AccessToken, TokenError> {
        let resolver =
            service_fn(move |_: Name| ready(io::Result::Ok(addresses.clone().into_iter())));
        let http = HttpConnector::new_with_resolver(resolver);
        let client = DefaultClient {
            proxies: Arc::new(Matcher::builder().build()),
        };
        let client = service_fn(move |request| client.clone().send(http.clone(), request));
        let fetch = FetchToken::with_client(Credentials::new("id", "secret"), client);
        let endpoint = format!("http://localhost:{port}/").parse().unwrap();
        let fetch = fetch.endpoint(endpoint).unwrap();
        let fetch = fetch.attempts(1).timeout(Duration::from_millis(1500));
        fetch.oneshot(TokenRequest::new(FetchReason::First)).await
    }

    #[tokio::test]
    async fn a_dead_first_address_leaves_time_for_the_second() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let alive = listener.local_addr().unwrap();
        let (dead, _open) = black_hole(alive.port()).await;
        tokio::spawn(serve(listener));
        let start = std::time::Instant::now();
        attempt(vec![dead, alive], alive.port()).await.unwrap();
        // A third of the attempt's 1.5 s, and some.
        assert!(start.elapsed() < Duration::from_secs(1));
    }

    #[tokio::test]
    async fn an_endpoint_that_does_not_connect_is_told_from_one_that_does_not_answer() {
        let free = TcpListener::bind("127.0.0.2:0").await.unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let (dead, _open) = black_hole(port).await;
        let error = attempt(vec![dead], port).await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::Unavailable);
        let why = "token endpoint unavailable: tcp connect error: deadline has elapsed";
        assert_eq!(error.to_string(), why);
    }

    #[test]
    fn plain_http_leaves_this_machine_through_no_proxy() {
        let through = |proxy: &str, uri: &'static str| {
            let proxies = Arc::new(Matcher::builder().all(proxy).build());
            let client = DefaultClient { proxies };
            client.proxy(&Uri::from_static(uri)).is_some()
        };
        assert!(through("http://proxy.example", "https://api.symbl.ai/"));
        assert!(through("http://127.0.0.1:3128", "http://127.0.0.1:80/"));
        assert!(!through("http://proxy.example", "http://127.0.0.1:80/"));
    }
}
