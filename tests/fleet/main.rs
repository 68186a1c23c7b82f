//! One token for a fleet of real processes, over real Redis servers and files. What needs Redis is left
//! out where it is not installed; `.ci/test` installs it first.
#![allow(clippy::unwrap_used, unreachable_pub)]

mod cluster;
#[path = "../store/contract.rs"]
mod contract;
mod outages;
mod processes;
mod proxy;
mod redis_server;
mod redis_store;
#[path = "../servers/mod.rs"]
mod servers;
mod symbl;
mod worker;
