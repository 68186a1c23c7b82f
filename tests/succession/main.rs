//! Rules T5, T7, J1 to J7 and N1 to N4 together: what callers see, and how many tokens are fetched, from the
//! beginning of a trouble to after its end.
//!
//! Each trouble of the table that the rules must satisfy is one test. It plays the trouble for 1, 7 and
//! 300 paths; 1, 20 and 300 requests a second; bodies that can be sent again and that cannot; requests
//! that come evenly and at random. Of a trouble that lasts long not all are played by default, but those
//! that make 4,000 requests at most, and, of replayable ones that come at random on 7 paths, 60,000.
//!
//! `SUCCESSION_ALL=1` plays them all, which takes a quarter of an hour; `SUCCESSION_TABLE=1` prints a line
//! for each with what was measured. Both are exact: the same seed, the same figures.
#![allow(clippy::unwrap_used, unreachable_pub)]

mod bad_input;
mod bodies;
mod late;
mod measured;
mod row;
mod rows;
mod traffic;
mod trouble;
#[cfg(feature = "tracing")]
mod warnings;
mod world;
