//! Callers without a token, all at once, and a fetch that takes 20 ms.

use std::{
    convert::Infallible,
    marker::PhantomData,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use azure_core::http::policies::Policy;
use futures::{StreamExt, stream::FuturesUnordered};
use toolkit_http::HttpError;
use tower::Layer;

use crate::{
    common::{Nothing, Shape, send},
    endpoint::Endpoint,
    peers::{azure, gears, ours, smithy, yup},
};

/// A herd that is not through by then is left.
const PATIENCE: Duration = Duration::from_secs(10);
/// yup-oauth2 fetches for each caller, on a connection of its own: more of them run out of descriptors.
const MOST_CONNECTIONS: usize = 1_000;

const PEERS: [&str; 5] = [
    "tower-symbl-auth",
    "cf-gears-toolkit-auth",
    "azure_core",
    "aws-smithy-runtime",
    "yup-oauth2",
];

pub async fn print(token_file: &Path) {
    println!("\n### Herds: callers at once, no token, 20 ms a fetch\n");
    println!(
        "| peer | callers | endpoint | fetches | answered | after, ms | the next caller waits, ms |"
    );
    println!("|---|---|---|---|---|---|---|");
    for callers in [100, 10_000] {
        for failing in [false, true] {
            for peer in PEERS {
                row(peer, callers, failing, token_file).await;
            }
        }
    }
}

async fn row(peer: &str, mut callers: usize, failing: bool, token_file: &Path) {
    let endpoint = Endpoint::new(failing);
    let request = || Shape::Get.request();
    let (answered, fetches, wall, next) = match peer {
        "tower-symbl-auth" => {
            let service = ours::layer(&endpoint).layer(Nothing::<Infallible>(PhantomData));
            let call = async || send(&mut service.clone(), request()).await;
            herd(callers, &endpoint, call).await
        }
        "cf-gears-toolkit-auth" => {
            let layer = gears::layer(&endpoint).await;
            let service = layer.layer(Nothing::<HttpError>(PhantomData));
            let call = async || send(&mut service.clone(), request()).await;
            herd(callers, &endpoint, call).await
        }
        "azure_core" => {
            let policy = azure::policy(&endpoint);
            let next: [Arc<dyn Policy>; 1] = [Arc::new(azure::Nothing)];
            let call = async || azure::send(&policy, azure::request(Shape::Get), &next).await;
            herd(callers, &endpoint, call).await
        }
        "aws-smithy-runtime" => {
            let smithy = smithy::Smithy::new(&endpoint);
            herd(callers, &endpoint, async || smithy.header().await).await
        }
        _ => {
            callers = callers.min(MOST_CONNECTIONS);
            let authenticator = yup::authenticator(&endpoint, token_file).await;
            let call = async || yup::header(&authenticator).await;
            herd(callers, &endpoint, call).await
        }
    };
    let how = if failing { "failing" } else { "healthy" };
    let left = if answered < callers {
        ", then left"
    } else {
        ""
    };
    println!("| {peer} | {callers} | {how} | {fetches} | {answered} | {wall:.0}{left} | {next} |");
}

/// How many were answered, by how many fetches, within how many milliseconds; and how long one more
/// caller waits.
async fn herd<T>(
    callers: usize,
    endpoint: &Endpoint,
    call: impl AsyncFn() -> T,
) -> (usize, usize, f64, String) {
    let start = Instant::now();
    let mut waiting: FuturesUnordered<_> = (0..callers).map(|_| call()).collect();
    let mut answered = 0;
    let all = async {
        while waiting.next().await.is_some() {
            answered += 1;
        }
    };
    let _ = tokio::time::timeout(PATIENCE, all).await;
    let wall = millis(start);
    drop(waiting);
    let fetches = endpoint.fetches();
    let start = Instant::now();
    let next = tokio::time::timeout(PATIENCE, call()).await;
    let next = next.map_or("more".into(), |_| format!("{:.2}", millis(start)));
    (answered, fetches, wall, next)
}

fn millis(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}
