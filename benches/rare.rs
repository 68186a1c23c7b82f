//! What is rare costs, in instructions under valgrind: a refresh; a rejection with the fetch and the retry that follow.
//! Token service and API answer at once.
//!
//! After `--`, `--count EVENT N` lets it happen N times and no more, to be counted.
#![allow(missing_docs)]

use std::{
    convert::Infallible,
    future::{Ready, ready},
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response, StatusCode};
use tower::{Layer, Service, ServiceExt};

mod common;

use common::{Shape, instructions::count, request, tokens::Tokens};

const EVENTS: [&str; 3] = [
    "a request that is accepted",
    "the same, and a refresh",
    "the same, rejected first: a fetch, and a retry",
];

/// Answers at once, by the token that a request carries.
#[derive(Clone)]
struct Judges(Tokens);

impl<B> Service<Request<B>> for Judges {
    type Response = Response<()>;
    type Error = Infallible;
    type Future = Ready<Result<Response<()>, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let mut response = Response::new(());
        *response.status_mut() = self.0.status(request.headers());
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
        let [Some(few), Some(many)] = [10, 110].map(|times| count(&[event, times])) else {
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
    let layer = tokens.builder().build();
    let mut service = layer.layer(Judges(tokens.clone()));
    for _ in 0..times {
        tokio::time::advance(Duration::from_secs(2)).await;
        match event {
            1 => {
                _ = layer
                    .refresh()
                    .await
                    .expect("the token service never fails")
            }
            2 => tokens.revoke(),
            _ => {}
        }
        let response = (&mut service)
            .oneshot(request(Shape::PostThreeHeaders))
            .await;
        assert_eq!(response.expect("it answers").status(), StatusCode::OK);
    }
    let fetches = if event == 0 { 1 } else { times };
    assert!(tokens.fetched() >= fetches);
}
