//! The environment's proxy, and its roots.

use crate::{
    child::fetch,
    servers::{Endpoint, Manner, Proxy},
};

#[tokio::test]
async fn a_token_comes_through_the_environments_proxy_and_with_a_private_root() {
    let (endpoint, root) = Endpoint::tls().await;
    let proxy = Proxy::start(Manner::Connect).await;
    let by = |credentials: &str| format!("http://{credentials}127.0.0.1:{}", proxy.port);
    let url = endpoint.url("https", "localhost");
    for name in ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"] {
        let proxy = by("");
        let told = fetch(&url, &[("SSL_CERT_FILE", root.path()), (name, &proxy)]).await;
        assert_eq!(told, "t0ken", "{name}");
    }
    let with_password = by("user:p%40ss@");
    let variables = [
        ("SSL_CERT_FILE", root.path()),
        ("HTTPS_PROXY", &with_password),
    ];
    assert_eq!(fetch(&url, &variables).await, "t0ken");

    let heads = proxy.heads();
    assert_eq!(heads.len(), 4);
    let target = format!("CONNECT localhost:{} HTTP/1.1\r\n", endpoint.port());
    assert!(
        heads.iter().all(|head| head.starts_with(&target)),
        "{heads:?}"
    );
    let authorized = |head: &String| head.contains("Proxy-Authorization: Basic dXNlcjpwQHNz\r\n");
    let authorized: Vec<_> = heads.iter().map(authorized).collect();
    assert_eq!(authorized, [false, false, false, true]);
    assert!(!heads.concat().contains("s3cr3t"));
}

#[tokio::test]
async fn no_proxy_is_read_in_its_usual_forms() {
    let (endpoint, root) = Endpoint::tls().await;
    let proxy = Proxy::start(Manner::Connect).await;
    let by = format!("http://127.0.0.1:{}", proxy.port);
    for (host, no_proxy, goes_around) in [
        ("localhost", "localhost", true),
        ("localhost", "a.example, LOCALHOST ,b.example", true),
        ("localhost", ".localhost", true),
        ("localhost", "*", true),
        ("127.0.0.1", "127.0.0.1", true),
        ("127.0.0.1", "10.0.0.0/8,127.0.0.0/8", true),
        ("localhost", "", false),
        (
            "localhost",
            "notlocalhost,host,a.localhost,10.0.0.0/8",
            false,
        ),
        ("127.0.0.1", "127.0.0.2,128.0.0.0/8", false),
    ] {
        let before = proxy.heads().len();
        let root = ("SSL_CERT_FILE", root.path());
        let variables = [root, ("HTTPS_PROXY", &by), ("NO_PROXY", no_proxy)];
        let told = fetch(&endpoint.url("https", host), &variables).await;
        assert_eq!(told, "t0ken", "{no_proxy}");
        let through = proxy.heads().len() - before;
        assert_eq!(through, usize::from(!goes_around), "{host}: {no_proxy}");
    }
}

#[tokio::test]
async fn no_proxy_has_a_name_in_lower_case_and_takes_ipv6_addresses_but_no_ports() {
    let (endpoint, root) = Endpoint::tls().await;
    let proxy = Proxy::start(Manner::Say("HTTP/1.1 403 Forbidden\r\n\r\n")).await;
    let by = format!("http://127.0.0.1:{}", proxy.port);
    let port = endpoint.port();
    let with_port = format!("localhost:{port}");
    for (host, name, no_proxy, goes_around) in [
        ("localhost", "no_proxy", "localhost", true),
        ("localhost", "no_proxy", &*with_port, false),
        ("localhost", "NO_PROXY", &with_port, false),
        ("[::1]", "NO_PROXY", "::1", true),
        ("[::1]", "no_proxy", "10.0.0.1,::1", true),
        ("[::1]", "NO_PROXY", "::/64", true),
        ("[::1]", "NO_PROXY", "::2,fe80::/10,127.0.0.1", false),
        ("[::1]", "NO_PROXY", "[::1]", false),
    ] {
        let root = ("SSL_CERT_FILE", root.path());
        let variables = [root, ("HTTPS_PROXY", &by), (name, no_proxy)];
        let told = fetch(&endpoint.url("https", host), &variables).await;
        // Nobody listens on IPv6, if there is such a thing here.
        let went_around = match host {
            "localhost" => told == "t0ken",
            _ => told.starts_with("token endpoint unavailable: ") && !told.contains("proxy"),
        };
        let row = format!("{host} {name}={no_proxy}: {told}");
        assert_eq!(went_around, goes_around, "{row}");
        assert_eq!(
            told.contains("tunnel error: unsuccessful"),
            !goes_around,
            "{row}"
        );
    }
}

#[tokio::test]
async fn plain_http_goes_through_a_proxy_on_loopback_and_past_any_other() {
    let endpoint = Endpoint::plain(&[]).await;
    let proxy = Proxy::start(Manner::Connect).await;
    let url = endpoint.url("http", "127.0.0.1");
    let by = format!("http://127.0.0.1:{}", proxy.port);
    assert_eq!(fetch(&url, &[("HTTP_PROXY", &by)]).await, "t0ken");
    assert_eq!(proxy.heads().len(), 1);
    let elsewhere = [("HTTP_PROXY", "http://proxy.invalid:3128")];
    assert_eq!(fetch(&url, &elsewhere).await, "t0ken");
    assert_eq!(endpoint.connections(), 2);
}

#[tokio::test]
async fn a_proxy_that_does_not_connect_is_named_with_the_reason() {
    const WANTS_CREDENTIALS: &str =
        "HTTP/1.1 407 Proxy Authentication Required\r\nproxy-authenticate: Basic\r\n\r\n";
    let (endpoint, root) = Endpoint::tls().await;
    let url = endpoint.url("https", "localhost");
    for (manner, why) in [
        (
            Manner::Say(WANTS_CREDENTIALS),
            "tunnel error: proxy authorization required",
        ),
        (
            Manner::Say("HTTP/1.1 403 Forbidden\r\n\r\n"),
            "tunnel error: unsuccessful",
        ),
        (Manner::Say(""), "tunnel error: unexpected end of file"),
        (Manner::Hang, "client error (Connect): request timed out"),
    ] {
        let proxy = Proxy::start(manner).await;
        let by = format!("http://user:pa55word@127.0.0.1:{}", proxy.port);
        let variables = [("SSL_CERT_FILE", root.path()), ("HTTPS_PROXY", &by)];
        let told = fetch(&url, &variables).await;
        let named = format!("through the proxy http://127.0.0.1:{}/: {why}", proxy.port);
        assert_eq!(told, format!("token endpoint unavailable: {named}"));
    }
    for (proxy, why) in [
        ("http://127.0.0.1:1", "Connection refused"),
        ("http://proxy.invalid:3128", "failed to lookup address"),
        (
            "socks5://127.0.0.1:1080",
            "only proxies over http and https are supported",
        ),
    ] {
        let variables = [("SSL_CERT_FILE", root.path()), ("HTTPS_PROXY", proxy)];
        let told = fetch(&url, &variables).await;
        let named = format!("through the proxy {proxy}/: ");
        assert!(told.contains(&named) && told.contains(why), "{told}");
    }
    assert_eq!(endpoint.connections(), 0);
}
