//! What the example talks to when it is given nothing else: a token endpoint, and an API.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    Form, Json, Router,
    http::{HeaderMap, StatusCode, header::AUTHORIZATION},
    routing::{get, post},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tower::BoxError;

/// A token endpoint of RFC 6749 section 4.4 for one client, id and secret of which need no escapes.
pub(crate) async fn token_endpoint(
    id: &str,
    secret: &str,
    scope: &str,
) -> Result<String, BoxError> {
    let basic = format!("Basic {}", BASE64_STANDARD.encode(format!("{id}:{secret}")));
    let scope = scope.to_owned();
    let token = move |headers: HeaderMap, Form(form): Form<HashMap<String, String>>| async move {
        let field = |name| form.get(name).map_or("", String::as_str);
        let refuse = |status, error| (status, Json(json!({ "error": error })));
        if headers
            .get(AUTHORIZATION)
            .is_none_or(|given| *given != *basic)
        {
            return refuse(StatusCode::UNAUTHORIZED, "invalid_client");
        }
        if field("grant_type") != "client_credentials" {
            return refuse(StatusCode::BAD_REQUEST, "unsupported_grant_type");
        }
        if field("scope") != scope {
            return refuse(StatusCode::BAD_REQUEST, "invalid_scope");
        }
        let token = format!("{:032x}", fastrand::u128(..));
        let body = json!({ "access_token": token, "token_type": "Bearer", "expires_in": 3600 });
        (StatusCode::OK, Json(body))
    };
    Ok(serve(Router::new().route("/token", post(token))).await? + "/token")
}

/// An API that takes every token it has not been told to refuse.
#[derive(Clone, Default)]
pub(crate) struct Api {
    tokens: Arc<Mutex<Tokens>>,
}

#[derive(Default)]
struct Tokens {
    seen: HashSet<String>,
    refused: HashSet<String>,
}

impl Api {
    pub(crate) async fn start(&self) -> Result<String, BoxError> {
        let api = self.clone();
        let calls = move |headers: HeaderMap| async move { api.answer(&headers) };
        serve(Router::new().route("/calls", get(calls))).await
    }

    /// Refuses every token it has seen so far.
    pub(crate) fn refuse_tokens(&self) {
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = std::mem::take(&mut tokens.seen);
        tokens.refused.extend(seen);
    }

    fn answer(&self, headers: &HeaderMap) -> (StatusCode, Json<Value>) {
        let given = headers
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok());
        let token = given.and_then(|value| value.strip_prefix("Bearer "));
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        match token {
            Some(token) if !tokens.refused.contains(token) => {
                tokens.seen.insert(token.to_owned());
                (StatusCode::OK, Json(json!({ "calls": [] })))
            }
            _ => (
                StatusCode::UNAUTHORIZED,
                Json(json!({ "message": "Unauthorized" })),
            ),
        }
    }
}

async fn serve(app: Router) -> Result<String, BoxError> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok(url)
}
