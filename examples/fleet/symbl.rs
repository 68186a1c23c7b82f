//! A token endpoint and an API that count. As Symbl's, the endpoint hands out the same token until it is
//! revoked; or it keeps one token only, and each request for one revokes the last.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::{get, post},
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::AbortHandle, time::sleep};

use crate::PROCESSES;

pub(crate) struct Symbl {
    address: SocketAddr,
    state: Shared,
    server: AbortHandle,
}

type Shared = Arc<Mutex<Issued>>;

#[derive(Default)]
struct Issued {
    number: usize,
    token: Option<String>,
    keeps_one: bool,
    /// Token requests since they were last taken.
    requests: usize,
    /// How many requests of each process were refused, and with which token it was last accepted.
    processes: HashMap<String, (usize, Option<String>)>,
}

impl Symbl {
    pub(crate) async fn start() -> std::io::Result<Self> {
        let state = Shared::default();
        let router = Router::new()
            .route("/oauth2/token:generate", post(token))
            .route("/v1/job/1", get(job))
            .with_state(Arc::clone(&state));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let server = tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(Self {
            address,
            state,
            server: server.abort_handle(),
        })
    }

    pub(crate) fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn revoke(&self) {
        lock(&self.state).token = None;
    }

    pub(crate) fn keep_one_token(&self, keeps_one: bool) {
        lock(&self.state).keeps_one = keeps_one;
    }

    /// Until each process has been accepted with the token in force.
    pub(crate) async fn all_are_served(&self) {
        loop {
            {
                let state = lock(&self.state);
                let served = |(_, token): &&(usize, Option<String>)| {
                    token.is_some() && *token == state.token
                };
                if state.processes.values().filter(served).count() == PROCESSES {
                    return;
                }
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// The token requests since this was last asked.
    pub(crate) fn taken(&self) -> usize {
        std::mem::take(&mut lock(&self.state).requests)
    }

    /// How many 401s have reached a caller.
    pub(crate) fn refused(&self) -> usize {
        lock(&self.state)
            .processes
            .values()
            .map(|(refused, _)| refused)
            .sum()
    }
}

impl Drop for Symbl {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn token(State(state): State<Shared>) -> Json<Value> {
    let mut state = lock(&state);
    state.requests += 1;
    state.number += 1;
    if state.keeps_one || state.token.is_none() {
        state.token = Some(format!("token-{}", state.number));
    }
    Json(json!({ "accessToken": state.token, "expiresIn": 86_400 }))
}

async fn job(State(state): State<Shared>, headers: HeaderMap) -> (StatusCode, Json<Value>) {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let mut state = lock(&state);
    let sent = text("authorization").and_then(|value| value.strip_prefix("Bearer "));
    let accepted = sent.is_some() && sent == state.token.as_deref();
    if let Some(process) = text("x-process") {
        let (refused, token) = state.processes.entry(process.to_owned()).or_default();
        *refused = text("x-refused")
            .and_then(|count| count.parse().ok())
            .unwrap_or(0);
        if accepted {
            *token = sent.map(str::to_owned);
        }
    }
    match accepted {
        true => (
            StatusCode::OK,
            Json(json!({ "id": "1", "status": "completed" })),
        ),
        false => (
            StatusCode::UNAUTHORIZED,
            Json(json!({ "message": "Unauthorized." })),
        ),
    }
}

fn lock(state: &Shared) -> MutexGuard<'_, Issued> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
