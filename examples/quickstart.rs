//! The main job: post a conversation, wait for its job, print its messages, with a token that nobody
//! has to think of.
//!
//! Runs against the stand-in server in this crate; or against the real service, with `SYMBL_APP_ID` and
//! `SYMBL_APP_SECRET` set (`SYMBL_API` sets another origin than `https://api.symbl.ai`).
//!
//! `cargo run --example quickstart --features mock`

use std::{env, error::Error, time::Duration};

use bytes::Bytes;
use futures::future::join_all;
use http::{Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde_json::{Value, json};
use tower::{BoxError, Layer, Service, ServiceExt};
use tower_symbl_auth::{Credentials, FetchToken, Origin, SymblAuthLayer, mock::MockSymbl};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let mock = match env::var_os("SYMBL_APP_ID") {
        None => Some(MockSymbl::start().await?),
        Some(_) => None,
    };
    let (layer, origin) = match &mock {
        Some(mock) => (mock.layer(), mock.origin()),
        None => real_service()?,
    };

    // One layer around any HTTP client, and every request to the API is authenticated.
    let provider = rustls::crypto::ring::default_provider();
    let connector = HttpsConnectorBuilder::new()
        .with_provider_and_platform_verifier(provider)?
        .https_or_http()
        .enable_http1()
        .build();
    let client = layer.layer(Client::builder(TokioExecutor::new()).build(connector));

    let conversation = json!({
        "name": "standup",
        "messages": [
            { "payload": { "content": "The release is done." }, "from": { "name": "Ada" } },
            { "payload": { "content": "Then let us celebrate." }, "from": { "name": "Grace" } },
        ],
    });
    let request = Request::post(url(&origin, "/v1/process/text")?)
        .header("content-type", "application/json")
        .body(Full::from(conversation.to_string()))?;
    let posted = json_of(client.clone().oneshot(request).await?).await?;
    let conversation = text(&posted, "conversationId")?;
    let job = text(&posted, "jobId")?;

    loop {
        let status = get(&client, &origin, &format!("/v1/job/{job}")).await?;
        println!("job {job}: {}", text(&status, "status")?);
        match text(&status, "status")?.as_str() {
            "completed" => break,
            "failed" => return Err("the job failed".into()),
            _ => tokio::time::sleep(Duration::from_millis(500)).await,
        }
    }
    let path = format!("/v1/conversations/{conversation}/messages");
    let messages = get(&client, &origin, &path).await?;
    for message in messages["messages"].as_array().into_iter().flatten() {
        println!("  {}: {}", message["from"]["name"], message["text"]);
    }

    if let Some(mock) = mock {
        revoke_amid_a_thousand_requests(&mock, &client, &path).await?;
    }
    Ok(())
}

fn real_service() -> Result<(SymblAuthLayer, Origin), BoxError> {
    let api = env::var("SYMBL_API").unwrap_or_else(|_| "https://api.symbl.ai".to_owned());
    let origin: Origin = api.parse()?;
    let endpoint = url(&origin, "/oauth2/token:generate")?;
    let fetch = FetchToken::new(Credentials::from_env()?).endpoint(endpoint)?;
    let layer = SymblAuthLayer::builder(fetch);
    Ok((layer.origins([origin.clone()]).build(), origin))
}

/// The token dies while a thousand requests are under way; none of their callers notices.
async fn revoke_amid_a_thousand_requests<S>(
    mock: &MockSymbl,
    client: &S,
    path: &str,
) -> Result<(), BoxError>
where
    S: Service<Request<Full<Bytes>>, Response = Response<Incoming>, Error = BoxError> + Clone,
{
    const REQUESTS: usize = 1000;
    let (fetches, rejections) = (mock.token_requests(), mock.rejections());
    let requests = (0..REQUESTS).map(|number| async move {
        if number == REQUESTS / 2 {
            mock.revoke_tokens();
        }
        let request = Request::get(mock.url(path)).body(Full::default())?;
        Ok::<_, BoxError>(client.clone().oneshot(request).await?.status())
    });
    let answers = join_all(requests).await;
    let rejected = |answer: &&Result<_, _>| matches!(answer, Ok(StatusCode::UNAUTHORIZED));
    let seen_by_callers = answers.iter().filter(rejected).count();
    let failed = answers
        .iter()
        .filter(|answer| !matches!(answer, Ok(StatusCode::OK)))
        .count();

    println!("\nwhile the token was revoked:");
    println!("{:>6} requests", REQUESTS);
    println!("{:>6} token fetches", mock.token_requests() - fetches);
    println!(
        "{:>6} 401s seen by the server",
        mock.rejections() - rejections
    );
    println!("{seen_by_callers:>6} 401s seen by the caller");
    match failed {
        0 => Ok(()),
        failed => Err(format!("{failed} of {REQUESTS} requests failed").into()),
    }
}

async fn get<S>(client: &S, origin: &Origin, path: &str) -> Result<Value, BoxError>
where
    S: Service<Request<Full<Bytes>>, Response = Response<Incoming>, Error = BoxError> + Clone,
{
    let request = Request::get(url(origin, path)?).body(Full::default())?;
    json_of(client.clone().oneshot(request).await?).await
}

async fn json_of(response: Response<Incoming>) -> Result<Value, BoxError> {
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    if !status.is_success() {
        return Err(format!("the API answered {status}: {}", body.escape_ascii()).into());
    }
    Ok(serde_json::from_slice(&body)?)
}

fn url(origin: &Origin, path: &str) -> Result<Uri, http::uri::InvalidUri> {
    format!("{origin}{path}").parse()
}

fn text(value: &Value, name: &str) -> Result<String, String> {
    let text = value[name].as_str();
    Ok(text
        .ok_or_else(|| format!("the API's answer has no {name}: {value}"))?
        .to_owned())
}
