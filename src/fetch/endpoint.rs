//! Where the app secret may be sent.

use std::{error::Error, fmt, net::IpAddr};

use http::Uri;

pub(super) fn check(uri: &Uri) -> Result<(), InvalidEndpoint> {
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(InvalidEndpoint(
            "it lacks scheme or host; give the whole URI",
        ));
    };
    let (host, whole) = (authority.host(), authority.as_str());
    if whole.contains('@') {
        return Err(InvalidEndpoint("it has userinfo; leave that out"));
    }
    if host.is_empty() || whole.len() > host.len() && authority.port_u16().is_none() {
        return Err(InvalidEndpoint(
            "its host is empty, or its port is no number up to 65535",
        ));
    }
    match scheme {
        "https" => Ok(()),
        "http" if is_loopback(host) => Ok(()),
        "http" => Err(InvalidEndpoint(
            "plain http would show the app secret to the network; use https (http is for loopback only)",
        )),
        _ => Err(InvalidEndpoint("its scheme is not https")),
    }
}

pub(super) fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || address.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

/// A token endpoint that the app secret cannot be sent to, with what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidEndpoint(&'static str);

impl fmt::Display for InvalidEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not a token endpoint: {}", self.0)
    }
}

impl Error for InvalidEndpoint {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_secret_goes_over_tls_or_stays_on_this_machine() {
        let check = |uri: &str| check(&uri.parse().unwrap());
        for good in [
            "https://api.symbl.ai/oauth2/token:generate",
            "http://127.0.0.1:8080/t",
            "http://127.9.9.9/t",
            "http://[::1]:1/t",
            "http://LOCALHOST/t",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in [
            "http://api.symbl.ai/t",
            "http://localhost.example/t",
            "http://127.0.0.1.example/t",
            "http://10.0.0.1/t",
            "ftp://api.symbl.ai/t",
            "https://user@api.symbl.ai/t",
            "https://api.symbl.ai:99999/t",
            "/oauth2/token:generate",
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
        let plain = check("http://api.symbl.ai/t").unwrap_err().to_string();
        assert!(plain.contains("use https"), "{plain}");
    }
}
