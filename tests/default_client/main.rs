//! The client of `FetchToken::new`, over real sockets: rules S1 to S3, and section 2's `DefaultClient`.
//! What it reads from its environment is tried in processes of their own; see `child`.
#![allow(clippy::unwrap_used, unreachable_pub)]

mod causes;
mod child;
mod crypto;
mod proxies;
mod runtimes;
mod servers;
