//! The layer in other libraries' clothes.
//!
//! # tonic
//!
//! A [`Channel`] takes requests with tonic's own body, so the one line between it and the layer turns
//! [`ReplayBody`](crate::ReplayBody) back into that. The clients that tonic generates take the result:
//!
//! ```
//! use http::{Request, Response};
//! use tonic::{body::Body, transport::Channel};
//! use tower::{BoxError, Service};
//! use tower_symbl_auth::{ReplayBody, SymblAuthLayer};
//!
//! fn authenticated(
//!     channel: Channel,
//!     auth: SymblAuthLayer,
//! ) -> impl Service<Request<Body>, Response = Response<Body>, Error = BoxError> + Clone {
//!     tower::ServiceBuilder::new()
//!         .layer(auth)
//!         .map_request(|request: Request<ReplayBody<Body>>| request.map(Body::new))
//!         .service(channel)
//! }
//!
//! # fn check(channel: Channel, auth: SymblAuthLayer) {
//! # use tonic_health::pb::health_client::HealthClient;
//! let client = HealthClient::new(authenticated(channel, auth)); // or any other that is generated
//! # }
//! ```
//!
//! - A call that is answered `UNAUTHENTICATED` before anything else (trailers only) is made once more,
//!   unary or streaming alike: what it has sent is kept until then, up to the replay limit. A stream that
//!   has begun is not, however it ends, and nothing is kept of it.
//! - A `grpc-timeout` in the request counts from when the layer was handed it: its second attempt says what is
//!   left, and is not made if nothing is; then the rejection is handed back. The first attempt's is as it was.
//! - The requests of a generated client name no host, unless it was made `with_origin`. They get the token, and go
//!   wherever the channel is connected to, which the layer cannot see: put it around channels to the API only.
//! - Of a [`TokenError`](crate::TokenError) tonic makes a `Status` with the code `Unknown`, as whose `source()` it can
//!   be downcast. For `Unauthenticated` and `Unavailable` instead, and for a deadline that bounds the wait for a
//!   token as well, see [tonic](crate::clients#tonic) among the clients.
//!
//! [`Channel`]: https://docs.rs/tonic/latest/tonic/transport/struct.Channel.html
#![cfg_attr(
    feature = "client",
    doc = "\n# hyper-util\n\nFor uploads over HTTP/1.1, put an [`EarlyResponse`] around the connector."
)]
#![cfg_attr(
    feature = "reqwest-middleware",
    doc = "\n# reqwest-middleware\n\nSee [`mod@reqwest`]."
)]

#[cfg(feature = "client")]
pub use early_response::{EarlyResponse, EarlyResponseIo, EarlyResponseLayer};

#[cfg(feature = "client")]
mod early_response;
#[cfg(feature = "reqwest-middleware")]
pub mod reqwest;
#[cfg(feature = "reqwest")]
mod reqwest_client;

#[cfg(feature = "reqwest")]
pub use reqwest_client::ReqwestClient;
