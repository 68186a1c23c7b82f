//! kube-client: the layer that reads a token from a file, once a minute.

use std::path::Path;

use kube_client::{
    Config,
    client::{ConfigExt, middleware::AuthLayer},
};

use crate::common::ORIGIN;

pub fn layer(token_file: &Path) -> AuthLayer {
    let mut config = Config::new(ORIGIN.parse().expect("it is a URI"));
    config.auth_info.token_file = Some(token_file.to_string_lossy().into_owned());
    let layer = config.auth_layer().expect("the file is there");
    layer.expect("a token file asks for a layer")
}
