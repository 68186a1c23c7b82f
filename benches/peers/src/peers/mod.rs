//! One file a peer, or one for those that are alike: how each is set up, and how it sends a request.

pub mod azure;
#[path = "../../../common/careful.rs"]
pub mod careful;
pub mod gears;
pub mod google;
pub mod kube;
#[path = "../../../common/middlewares.rs"]
pub mod middlewares;
#[path = "../../../common/on_401.rs"]
pub mod on_401;
pub mod ours;
pub mod reqwest;
pub mod smithy;
pub mod tower_layers;
pub mod yup;
