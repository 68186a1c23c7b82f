//! One token for a fleet of real processes, over real Redis servers and files. `tests/redis.sh` installs
//! Redis where it is missing; without it these tests fail and say so.
#![allow(clippy::unwrap_used, unreachable_pub)]

mod cluster;
#[path = "../store/contract.rs"]
mod contract;
mod outages;
mod processes;
mod proxy;
mod redis_server;
mod redis_store;
mod symbl;
mod worker;
