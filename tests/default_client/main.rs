//! The client of `FetchToken::new`, over real sockets: rules S1 to S3, and section 2's `DefaultClient`.
//! What it reads from its environment is tried in processes of their own; see `child`. What it cannot do, a client of
//! the user's can; see `own_clients`.
#![allow(clippy::unwrap_used, unreachable_pub)]

mod causes;
mod child;
mod crypto;
#[path = "../identity/mod.rs"]
mod identity;
mod own_clients;
mod proxies;
mod runtimes;
mod servers;
