//! The behaviour of the crate, rule by rule. Each file names the rules that it covers.
#![allow(clippy::unwrap_used, unreachable_pub)]

mod book;
mod connections;
mod fetch;
mod flights;
mod origins;
mod rejection;
mod replay;
mod requests;
mod support;
mod token_failures;
mod token_lifetime;
