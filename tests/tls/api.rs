//! An API over TLS, by HTTP/1.1 and HTTP/2, and clients that trust it.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use rustls::ClientConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;
use tower_symbl_auth::{Placement, SymblAuthLayer, mock::MockSymbl};

use crate::identity::Identity;

/// The first byte of a connection with TLS (RFC 8446, section 5.1).
const TLS_HANDSHAKE: [u8; 1] = [22];

pub type TlsClient<B> = Client<HttpsConnector<HttpConnector>, B>;

/// What a request looked like to the server: version, headers, body.
type Seen = Arc<Mutex<Vec<(Version, HeaderMap, Bytes)>>>;

/// An API at `https://localhost:port` that takes any token but those refused, and redirects `/away` to
/// wherever it is told. It answers what comes to its port in clear as well.
#[derive(Clone)]
pub struct Api {
    pub port: u16,
    seen: Seen,
    in_clear: Arc<Mutex<Vec<HeaderMap>>>,
    pub refused: Arc<Mutex<Vec<String>>>,
    pub elsewhere: Arc<Mutex<String>>,
    identity: Arc<Identity>,
}

impl Api {
    pub async fn start() -> Self {
        let identity = Identity::new();
        let mut config = identity.server();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let api = Self {
            port: listener.local_addr().unwrap().port(),
            seen: Arc::default(),
            in_clear: Arc::default(),
            refused: Arc::default(),
            elsewhere: Arc::default(),
            identity: Arc::new(identity),
        };
        tokio::spawn(
            api.clone()
                .run(listener, TlsAcceptor::from(Arc::new(config))),
        );
        api
    }

    async fn run(self, listener: TcpListener, acceptor: TlsAcceptor) {
        while let Ok((stream, _)) = listener.accept().await {
            let (api, acceptor) = (self.clone(), acceptor.clone());
            tokio::spawn(async move {
                let mut first = [0];
                let _ = stream.peek(&mut first).await;
                if first == TLS_HANDSHAKE {
                    api.serve(acceptor.accept(stream).await.unwrap(), true)
                        .await;
                } else {
                    api.serve(stream, false).await;
                }
            });
        }
    }

    async fn serve<T>(self, stream: T, encrypted: bool)
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let service = service_fn(move |request: Request<Incoming>| {
            if !encrypted {
                let head = request.headers().clone();
                self.in_clear.lock().unwrap().push(head);
            }
            self.clone().answer(request)
        });
        let server = auto::Builder::new(TokioExecutor::new());
        let _ = server.serve_connection(TokioIo::new(stream), service).await;
    }

    async fn answer(self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let token = token(&head.headers).unwrap_or_default();
        let away = head.uri.path() == "/away";
        self.seen
            .lock()
            .unwrap()
            .push((head.version, head.headers, body));
        let mut response = Response::new(Full::default());
        if self.refused.lock().unwrap().contains(&token) {
            *response.status_mut() = StatusCode::UNAUTHORIZED;
        } else if away {
            *response.status_mut() = StatusCode::FOUND;
            let location = self.elsewhere.lock().unwrap().parse().unwrap();
            response.headers_mut().insert("location", location);
        }
        Ok(response)
    }

    pub fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.port)
    }

    pub fn client<B>(&self, h2: bool) -> TlsClient<B>
    where
        B: http_body::Body<Data: Send> + Send,
    {
        Client::builder(TokioExecutor::new()).build(self.connector(h2))
    }

    pub fn connector(&self, h2: bool) -> HttpsConnector<HttpConnector> {
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(self.tls())
            .https_or_http();
        if h2 {
            connector.enable_all_versions().build()
        } else {
            connector.enable_http1().build()
        }
    }

    /// That trusts this API.
    pub fn tls(&self) -> ClientConfig {
        self.identity.client(None)
    }

    pub fn layer(&self, symbl: &MockSymbl, placement: Placement) -> SymblAuthLayer {
        SymblAuthLayer::builder(symbl.fetch_token())
            .origins([self.url("").parse().unwrap()])
            .placement(placement)
            .build()
    }

    /// The headers of what came in clear.
    pub fn in_clear(&self) -> Vec<HeaderMap> {
        self.in_clear.lock().unwrap().clone()
    }

    pub fn seen(&self) -> Vec<(Version, HeaderMap, Bytes)> {
        self.seen.lock().unwrap().clone()
    }
}

pub fn token(headers: &HeaderMap) -> Option<String> {
    let bearer = headers
        .get("authorization")
        .map(|value| value.to_str().unwrap());
    let key = headers
        .get("x-api-key")
        .map(|value| value.to_str().unwrap());
    bearer
        .map(|value| value.strip_prefix("Bearer ").unwrap())
        .or(key)
        .map(str::to_owned)
}
