//! A token endpoint and an API in a thread of its own, so that tests may block.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, mpsc},
    thread,
    time::Duration,
};

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::{get, post},
};
use bytes::Bytes;
use http_body_util::Full;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, runtime, sync::watch};
use tower_symbl_auth::{AccessToken, Builder, Credentials, FetchToken, Origin, SymblAuthLayer};

pub struct Symbl {
    address: SocketAddr,
    issued: Shared,
    _stop: watch::Sender<()>,
}

type Shared = Arc<Mutex<Issued>>;

#[derive(Default)]
pub struct Issued {
    pub requests: usize,
    /// The token in force. As Symbl's, the endpoint hands it out until it is revoked.
    token: Option<String>,
    pub delay: Duration,
    /// The next request gets no answer, and its coming is told here.
    pub hangs: Option<mpsc::Sender<()>>,
    /// How many 401s the API has given.
    pub refused: usize,
}

impl Symbl {
    pub fn start() -> Self {
        let issued = Shared::default();
        let router = Router::new()
            .route("/token", post(token))
            .route("/good", get(good))
            .with_state(Arc::clone(&issued));
        let (stop, mut stopped) = watch::channel(());
        let (tell, told) = mpsc::channel();
        thread::spawn(move || {
            let runtime = runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
                tell.send(listener.local_addr().unwrap()).unwrap();
                tokio::select! {
                    served = axum::serve(listener, router) => served.unwrap(),
                    _ = stopped.changed() => {}
                }
            });
        });
        Self {
            address: told.recv().unwrap(),
            issued,
            _stop: stop,
        }
    }

    pub fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn issued(&self) -> MutexGuard<'_, Issued> {
        self.issued.lock().unwrap()
    }

    pub fn token_requests(&self) -> usize {
        self.issued().requests
    }

    pub fn revoke(&self) {
        self.issued().token = None;
    }

    pub fn accepts(&self, token: &AccessToken) -> bool {
        self.issued().token.as_deref() == Some(token.expose_secret())
    }

    /// A token service for it, and a layer around that, but for its store.
    pub fn fetch(origin: &str) -> FetchToken<Client<HttpConnector, Full<Bytes>>> {
        let client = Client::builder(TokioExecutor::new()).build_http();
        let fetch = FetchToken::with_client(Credentials::new("app", "s3cr3t"), client);
        fetch
            .endpoint(format!("{origin}/token").parse().unwrap())
            .unwrap()
    }

    pub fn builder(origin: &str) -> Builder {
        let list: Origin = origin.parse().unwrap();
        SymblAuthLayer::builder(Self::fetch(origin)).origins([list])
    }
}

async fn token(State(issued): State<Shared>) -> Json<Value> {
    let (delay, hangs) = {
        let mut issued = issued.lock().unwrap();
        issued.requests += 1;
        (issued.delay, issued.hangs.take())
    };
    if let Some(hangs) = hangs {
        hangs.send(()).unwrap();
        std::future::pending::<()>().await;
    }
    tokio::time::sleep(delay).await;
    let mut issued = issued.lock().unwrap();
    let number = issued.requests;
    let token = issued
        .token
        .get_or_insert_with(|| format!("token-{number}"));
    Json(json!({ "accessToken": token, "expiresIn": 86_400 }))
}

async fn good(State(issued): State<Shared>, headers: HeaderMap) -> StatusCode {
    let mut issued = issued.lock().unwrap();
    let sent = headers
        .get("authorization")
        .and_then(|value| value.to_str().ok());
    let sent = sent.and_then(|value| value.strip_prefix("Bearer "));
    if sent.is_some() && sent == issued.token.as_deref() {
        return StatusCode::OK;
    }
    issued.refused += 1;
    StatusCode::UNAUTHORIZED
}
