//! Rules T5, T7, J1 to J7 and N1 to N4 together: what callers see, and how many tokens are fetched, from the
//! beginning of a trouble to after its end.
//!
//! Each trouble of the table that the rules must satisfy is one test. It plays the trouble for 1, 7 and
//! 300 paths; 1, 20 and 300 requests a second; bodies that can be sent again and that cannot; requests
//! that come evenly and at random. A trouble that lasts long is played for the traffics that fit into
//! [`BUDGET`](row::BUDGET) requests each, and for one that does not.
//!
//! `SUCCESSION_ALL=1` plays them all, and `SUCCESSION_TABLE=1` prints a line for each with what was
//! measured; in the release profile that takes a few minutes.
#![allow(clippy::unwrap_used, unreachable_pub)]

mod bad_input;
mod measured;
mod row;
mod rows;
mod traffic;
#[cfg(feature = "tracing")]
mod warnings;
mod world;
