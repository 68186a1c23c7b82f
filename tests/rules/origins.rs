//! Rule Q1: the origin guard, which fails closed.
//!
//! Peers' bugs covered: a token sent to the wrong host (golang/oauth2 #500, Duende CVE-2025-26620).

use bytes::Bytes;
use http::{Request, StatusCode, Uri, uri::Authority};
use http_body_util::Empty;
use tower::{Layer, ServiceExt};
use tower_http::follow_redirect::FollowRedirectLayer;
use tower_symbl_auth::Origin;

use crate::support::*;

/// Whether a request is stamped by a layer for these origins.
async fn is_stamped(origins: &[&str], request: Request<Empty<Bytes>>) -> bool {
    let issuer = Issuer::fresh(DAY, SECOND);
    let origins: Vec<Origin> = origins.iter().map(|text| origin(text)).collect();
    let layer = issuer.builder().origins(origins).build();
    let api = Api::judging(|_| StatusCode::OK);
    send(&layer, &api, request).await.unwrap();
    let stamped = api.tokens() == ["token-1"];
    assert_eq!(
        issuer.calls(),
        usize::from(stamped),
        "nothing is fetched for other origins"
    );
    stamped
}

fn to(uri: &str) -> Request<Empty<Bytes>> {
    get(uri)
}

#[tokio::test(start_paused = true)]
async fn scheme_host_and_port_must_match_whatever_their_spelling() {
    for uri in [
        "https://api.symbl.ai/v1/job/1",
        "https://api.symbl.ai:443/",
        "https://API.Symbl.AI/",
        "HTTPS://api.symbl.ai/",
    ] {
        assert!(
            is_stamped(&["https://api.symbl.ai"], to(uri)).await,
            "{uri}"
        );
        assert!(
            is_stamped(&["wss://API.symbl.ai:443"], to(uri)).await,
            "{uri}"
        );
    }
    for uri in [
        "http://api.symbl.ai/",
        "ws://api.symbl.ai/",
        "wss://api.symbl.ai/",
        "WSS://api.symbl.ai/",
        "ftp://api.symbl.ai/",
        "https://api.symbl.ai:444/",
        "https://api.symbl.ai:80/",
        "https://api.symbl.ai:/",
        "https://api.symbl.ai./",
        "https://symbl.ai/",
        "https://x.api.symbl.ai/",
        "https://api.symbl.ai.evil.example/",
        "https://evil-api.symbl.ai/",
        "https://user@api.symbl.ai/",
        "https://user:pass@api.symbl.ai/",
        "https://api.symbl.ai@evil.example/",
        "https://api.symbl.ai:443@evil.example/",
        "https://api.symbl.ai:x@api.symbl.ai:443/",
    ] {
        assert!(
            !is_stamped(&["https://api.symbl.ai"], to(uri)).await,
            "{uri}"
        );
    }
    // Parsed, it is in lower case. Built, it is as it was given, and connectors take it for another scheme.
    let built = Uri::builder().scheme("HTTPS").authority("api.symbl.ai");
    let mut request = to("https://api.symbl.ai/");
    *request.uri_mut() = built.path_and_query("/").build().unwrap();
    assert!(!is_stamped(&["https://api.symbl.ai"], request).await);
}

#[tokio::test(start_paused = true)]
async fn plain_http_and_ports_match_where_they_are_listed() {
    assert!(is_stamped(&["http://127.0.0.1:8080"], to("http://127.0.0.1:8080/")).await);
    assert!(!is_stamped(&["http://127.0.0.1:8080"], to("ws://127.0.0.1:8080/")).await);
    assert!(is_stamped(&["http://[::1]"], to("http://[::1]:80/")).await);
    assert!(!is_stamped(&["http://127.0.0.1:8080"], to("http://127.0.0.1/")).await);
    assert!(!is_stamped(&["http://h:80"], to("https://h:80/")).await);
    assert!(!is_stamped(&[], to("https://api.symbl.ai/")).await);
}

#[tokio::test(start_paused = true)]
async fn the_default_list_is_the_two_apis_and_not_nebula() {
    let layer = Issuer::fresh(DAY, SECOND).layer();
    for (host, stamped) in [
        ("api.symbl.ai", true),
        ("api-labs.symbl.ai", true),
        ("api-nebula.symbl.ai", false),
    ] {
        let mut request = to(&format!("https://{host}/v1/model/chat"));
        let token = layer.authorize(&mut request).await.unwrap();
        assert_eq!(token.is_some(), stamped, "{host}");
        assert_eq!(
            request.headers().contains_key("authorization"),
            stamped,
            "{host}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_without_authority_is_stamped_unless_host_names_another_origin() {
    let hosts = |hosts: &[&str]| {
        let mut request = Request::get("/v1/job/1");
        for host in hosts {
            request = request.header("host", *host);
        }
        request.body(Empty::new()).unwrap()
    };
    for good in [
        &[][..],
        &["api.symbl.ai"],
        &["API.symbl.ai:443"],
        &["api.symbl.ai", "api.symbl.ai:443"],
    ] {
        assert!(
            is_stamped(&["https://api.symbl.ai"], hosts(good)).await,
            "{good:?}"
        );
    }
    for bad in [
        &["evil.example"][..],
        &["api.symbl.ai", "evil.example"],
        &["api.symbl.ai:80"],
        &["api.symbl.ai."],
        &["user@api.symbl.ai"],
        &[""],
    ] {
        assert!(
            !is_stamped(&["https://api.symbl.ai"], hosts(bad)).await,
            "{bad:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn the_authority_form_of_connect_is_never_stamped() {
    let mut request = to("https://api.symbl.ai/");
    *request.method_mut() = http::Method::CONNECT;
    *request.uri_mut() = Uri::from(Authority::from_static("api.symbl.ai:443"));
    assert!(!is_stamped(&["https://api.symbl.ai"], request).await);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_ours_passes_through_untouched() {
    let issuer = Issuer::fresh(DAY, SECOND);
    let layer = issuer.layer();
    let api: Api<Empty<Bytes>> = Api::judging(|token| match token {
        "theirs" => StatusCode::UNAUTHORIZED,
        _ => StatusCode::OK,
    });
    let request = Request::get("https://example.com/").header("authorization", "Bearer theirs");
    let response = send(&layer, &api, request.body(Empty::new()).unwrap()).await;
    let response = response.unwrap();
    assert_eq!(
        response.status(),
        StatusCode::UNAUTHORIZED,
        "it is not retried"
    );
    assert!(matches!(
        response.extensions().get(),
        Some(tower_symbl_auth::NotRetried::Unstamped)
    ));
    assert_eq!(api.tokens(), ["theirs"]);
    assert_eq!(issuer.calls(), 0);
}

#[test]
fn an_origin_that_could_never_match_is_refused_with_what_to_do() {
    for (text, advice) in [
        ("https://api.symbl.ai/v1", "path"),
        ("https://*.symbl.ai", "list each"),
        ("https://user@api.symbl.ai", "userinfo"),
        ("https://api.symbl.ai?x", "query"),
        ("https://api.symbl.ai.", "dot"),
        ("https://api.symbl.ai:99999", "port"),
        ("https://api.symbl.ai:", "port"),
        ("ftp://api.symbl.ai", "scheme"),
        ("api.symbl.ai", "scheme"),
        ("", "parse"),
        ("https://", "parse"),
    ] {
        let error = text.parse::<Origin>().unwrap_err().to_string();
        assert!(error.contains(advice), "{text}: {error}");
    }
}

#[test]
fn an_origin_is_shown_and_compared_in_one_spelling() {
    let shown = |text| origin(text).to_string();
    assert_eq!(shown("WSS://API.symbl.ai:443/"), "https://api.symbl.ai");
    assert_eq!(shown("ws://h:8080"), "http://h:8080");
    assert_eq!(origin("http://h"), origin("ws://H:80"));
    assert_ne!(origin("http://h"), origin("https://h"));
    assert_eq!(Origin::try_from("http://h").unwrap(), origin("http://h"));
}

/// A redirect to another host never carries the token, on whichever side it is followed.
#[tokio::test(start_paused = true)]
async fn a_redirect_to_another_host_leaves_the_token_behind() {
    let api = || {
        Api::<Empty<Bytes>>::new(|request| async move {
            let mut response = answer(StatusCode::OK);
            if request.uri().host() == Some("api.symbl.ai") {
                *response.status_mut() = StatusCode::FOUND;
                let elsewhere = "https://evil.example/".parse()?;
                response.headers_mut().insert("location", elsewhere);
            }
            Ok(response)
        })
    };
    let layer = Issuer::fresh(DAY, SECOND).layer();

    let (outside, seen) = (FollowRedirectLayer::new(), api());
    let service = outside.layer(layer.layer(seen.clone()));
    service.oneshot(get(URL)).await.unwrap();
    assert_eq!(seen.tokens(), ["token-1", ""]);
}

/// A proxy that hands its caller's headers on would send the token to whichever virtual host that names.
#[tokio::test(start_paused = true)]
async fn a_host_header_that_names_another_host_is_not_sent_the_token() {
    let with_hosts = |uri: &str, hosts: &[&str]| {
        let mut request = to(uri);
        for host in hosts {
            let value = host.parse().unwrap();
            request.headers_mut().append("host", value);
        }
        request
    };
    let origins = ["https://api.symbl.ai"];
    for (hosts, stamped) in [
        (&[][..], true),
        (&["api.symbl.ai"], true),
        (&["API.symbl.ai:443"], true),
        (&["api.symbl.ai", "api.symbl.ai"], true),
        (&["another-tenant.example"], false),
        (&["api.symbl.ai:444"], false),
        (&["api.symbl.ai", "another-tenant.example"], false),
        (&["another-tenant.example", "api.symbl.ai"], false),
        (&[""], false),
        (&["user@api.symbl.ai"], false),
    ] {
        for uri in ["https://api.symbl.ai/", "https://API.symbl.ai:443/", "/"] {
            let request = with_hosts(uri, hosts);
            assert_eq!(
                is_stamped(&origins, request).await,
                stamped,
                "{uri} {hosts:?}"
            );
        }
    }
}

/// A handshake is encrypted by whoever opens the WebSocket, and so it is `authorize`'s alone.
#[tokio::test(start_paused = true)]
async fn only_authorize_takes_a_websockets_schemes() {
    let layer = Issuer::fresh(DAY, SECOND).layer();
    for (uri, stamped) in [
        ("wss://api.symbl.ai/v1/streaming/1", true),
        ("WSS://api.symbl.ai/v1/streaming/1", true),
        ("https://api.symbl.ai/v1/streaming/1", true),
        ("ws://api.symbl.ai/v1/streaming/1", false),
        ("wss://example.com/v1/streaming/1", false),
    ] {
        let mut request = to(uri);
        let token = layer.authorize(&mut request).await.unwrap();
        assert_eq!(token.is_some(), stamped, "{uri}");
        assert_eq!(request.headers().contains_key("authorization"), stamped);
    }
}
