//! What is rare costs, in instructions under valgrind: a refresh; a rejection with the fetch and the retry that follow.
//! Token service and API answer at once.
//!
//! After `--`, `--count EVENT N` lets it happen N times and no more, to be counted.
#![allow(missing_docs)]

use std::{
    convert::Infallible,
    future::{Ready, ready},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response, StatusCode, header::AUTHORIZATION};
use tower::{BoxError, Layer, Service, ServiceExt, service_fn};
use tower_symbl_auth::{AccessToken, SymblAuthLayer, TokenRequest};

mod common;

use common::{Shape, request};

const EVENTS: [&str; 3] = [
    "a request that is accepted",
    "the same, and a refresh",
    "the same, rejected first: a fetch, and a retry",
];

/// The tokens: numbered, and accepted from `least` on.
#[derive(Clone, Default)]
struct Tokens {
    fetched: Arc<AtomicUsize>,
    least: Arc<AtomicUsize>,
}

impl Tokens {
    fn layer(&self) -> SymblAuthLayer {
        let fetched = Arc::clone(&self.fetched);
        SymblAuthLayer::builder(service_fn(move |_: TokenRequest| {
            let number = fetched.fetch_add(1, Relaxed) + 1;
            let token = AccessToken::new(format!("{number:0>400}"), Duration::from_secs(86_400));
            ready(token.map_err(BoxError::from))
        }))
        .build()
    }
}

impl<B> Service<Request<B>> for Tokens {
    type Response = Response<()>;
    type Error = Infallible;
    type Future = Ready<Result<Response<()>, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let value = request.headers()[AUTHORIZATION]
            .to_str()
            .expect("it is ASCII");
        let number = value.trim_start_matches("Bearer ").parse::<usize>();
        let mut response = Response::new(());
        if number.expect("it is a number") < self.least.load(Relaxed) {
            *response.status_mut() = StatusCode::UNAUTHORIZED;
        }
        ready(Ok(response))
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|argument| argument == "--count") {
        let number = |offset: usize| arguments[at + offset].parse().expect("a number");
        // The clock stands still but for what is said: fetches after rejections are limited in time.
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_all().start_paused(true).build();
        return runtime
            .expect("a runtime starts")
            .block_on(happen(number(1), number(2)));
    }
    println!("| event | instructions | over the first |");
    println!("|---|---|---|");
    let mut first = None;
    for (event, name) in EVENTS.iter().enumerate() {
        // What the start of the program costs is in both.
        let [Some(few), Some(many)] = [10, 110].map(|times| count(event, times)) else {
            println!("\nskipped: valgrind cannot be run");
            return;
        };
        let each = (many - few) / 100;
        let over = each - *first.get_or_insert(each);
        println!("| {name} | {each} | {over} |");
    }
}

async fn happen(event: usize, times: usize) {
    let tokens = Tokens::default();
    let layer = tokens.layer();
    let mut service = layer.layer(tokens.clone());
    for _ in 0..times {
        tokio::time::advance(Duration::from_secs(2)).await;
        match event {
            1 => {
                _ = layer
                    .refresh()
                    .await
                    .expect("the token service never fails")
            }
            2 => tokens
                .least
                .store(tokens.fetched.load(Relaxed) + 1, Relaxed),
            _ => {}
        }
        let response = (&mut service)
            .oneshot(request(Shape::PostThreeHeaders))
            .await;
        assert_eq!(response.expect("it answers").status(), StatusCode::OK);
    }
    let fetches = if event == 0 { 1 } else { times };
    assert!(tokens.fetched.load(Relaxed) >= fetches);
}

fn count(event: usize, times: usize) -> Option<i64> {
    let this = std::env::current_exe().ok()?;
    let numbers = [event, times].map(|number| number.to_string());
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(this)
        .arg("--count")
        .args(numbers)
        .output()
        .ok()?;
    let log = String::from_utf8(output.stderr).ok()?;
    let collected = log.lines().find_map(|line| line.split_once("Collected : "));
    collected?.1.trim().parse().ok()
}
