//! The behaviour of the crate, rule by rule. Each file names the rules that it covers.
#![allow(clippy::unwrap_used, unreachable_pub)]

mod answers;
mod candidate;
#[cfg(feature = "mock")]
mod connections;
mod endpoint;
mod fetch;
mod fetches;
mod gate;
mod origins;
mod outer_limits;
mod paths;
mod patience;
#[cfg(feature = "client")]
mod providers;
mod rejection;
mod replay;
mod replay_property;
mod requests;
mod secrets;
mod support;
mod token_lifetime;
mod wishes;
mod world;
