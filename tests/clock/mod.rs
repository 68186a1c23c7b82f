//! A clock that stands still beside real sockets.
#![allow(dead_code)]

use std::{
    pin::pin,
    sync::mpsc,
    time::{Duration, Instant},
};

use futures::future::{Either, select};
use tokio::task::{spawn_blocking, yield_now};

/// Holds a paused clock: while this lives, it moves by `tokio::time::advance` alone. Else it moves on whenever all tasks
/// wait, be it for a socket. For tests with `start_paused`: a clock that was paused later is not at a whole millisecond,
/// and timers are late by what is left of it.
pub struct Held(#[expect(dead_code)] mpsc::Sender<()>);

pub fn hold() -> Held {
    let (alive, until_dropped) = mpsc::channel::<()>();
    // While one of these runs, a paused clock does not move by itself.
    spawn_blocking(move || until_dropped.recv());
    Held(alive)
}

/// What comes of that future, soon.
///
/// # Panics
///
/// As [`until`].
#[track_caller]
pub fn soon<F: Future>(future: F) -> impl Future<Output = F::Output> {
    let never = until(|| false);
    async move {
        match select(pin!(future), pin!(never)).await {
            Either::Left((output, _)) => output,
            Either::Right(_) => unreachable!("it panics"),
        }
    }
}

/// Lets all run until that is so, while no time passes.
///
/// # Panics
///
/// If it takes more than a minute of a clock on the wall.
#[track_caller]
pub fn until(is_so: impl Fn() -> bool) -> impl Future<Output = ()> {
    let caller = std::panic::Location::caller();
    async move {
        let begun = Instant::now();
        while !is_so() {
            let patient = begun.elapsed() < Duration::from_secs(60);
            assert!(patient, "{caller}: it does not come to that");
            yield_now().await;
        }
    }
}
