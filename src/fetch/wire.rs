//! Symbl's wire format: `{"type":"application","appId":"…","appSecret":"…"}` there, and
//! `{"accessToken":"…","expiresIn":86400}` back. Errors are told in several forms.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use secrecy::zeroize::Zeroizing;
use serde_json::{Value, value::RawValue};

use crate::Credentials;

/// What Symbl documents, for an answer that does not say.
const DOCUMENTED_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

type Object<'a> = BTreeMap<String, &'a RawValue>;

/// The request's body, zeroized when it has been sent.
pub(super) fn encode(credentials: &Credentials) -> Bytes {
    let (id, secret) = (credentials.app_id(), credentials.app_secret());
    // An escape takes six bytes at most: the buffer never moves, and so leaves no copy behind.
    let capacity = 64 + 6 * (id.len() + secret.len());
    let mut json = Zeroizing::new(Vec::with_capacity(capacity));
    let mut put = |name: &str, value: &str| {
        json.extend_from_slice(name.as_bytes());
        serde_json::to_writer(&mut *json, value).expect("a string is written to memory");
    };
    put(r#"{"type":"application","appId":"#, id);
    put(r#","appSecret":"#, secret);
    json.push(b'}');
    Bytes::from_owner(json)
}

/// Token and lifetime, `None` being longer than can be told; or what is wrong, without quoting it.
pub(super) fn decode(body: &[u8]) -> Result<(String, Option<Duration>), String> {
    let object = object(body)?;
    let token = object.get("accessToken").ok_or("it has no accessToken")?;
    // The token last: nothing fails after it, and so no copy of it is left behind.
    let lifetime = match object.get("expiresIn").map(|raw| raw.get()) {
        None | Some("null") => Some(DOCUMENTED_LIFETIME),
        Some(raw) => lifetime(raw)?,
    };
    let mut token: String =
        serde_json::from_str(token.get()).map_err(|_| "accessToken is not a string")?;
    // A line break at its end is a file's, or a shell's. In place, as a copy would be left behind.
    token.truncate(token.trim_end().len());
    token.drain(..token.len() - token.trim_start().len());
    Ok((token, lifetime))
}

/// Where an error's text is found: Symbl's name for it, OAuth's, then what gateways and frameworks use.
const WORDS: [&str; 4] = ["message", "error_description", "detail", "error"];

/// An error's text, if there is any; or why the body cannot be the endpoint's.
pub(super) fn words(body: &[u8]) -> Result<Option<String>, &'static str> {
    let object = object(body)?;
    let found = WORDS.iter().filter_map(|name| object.get(*name));
    Ok(found
        .filter_map(|raw| serde_json::from_str(raw.get()).ok())
        .find_map(|value| text(&value)))
}

/// A text, a list of them, or an object that has one.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if !text.trim().is_empty() => Some(text.trim().to_owned()),
        Value::Array(list) => {
            let texts: Vec<_> = list.iter().filter_map(text).collect();
            (!texts.is_empty()).then(|| texts.join("; "))
        }
        Value::Object(object) => {
            let mut found = WORDS.iter().filter_map(|name| object.get(*name));
            // Some framework's own form, as it is.
            found.find_map(text).or_else(|| Some(value.to_string()))
        }
        _ => None,
    }
}

fn object(body: &[u8]) -> Result<Object<'_>, &'static str> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body); // a byte order mark
    let start = body.trim_ascii_start();
    if start.is_empty() {
        return Err("it is empty");
    }
    if start.starts_with(b"\x1f\x8b") {
        return Err("it is compressed with gzip, which was not asked for");
    }
    if start.starts_with(b"<") {
        return Err("it is HTML or XML, not JSON");
    }
    serde_json::from_slice(body).map_err(|error| {
        if error.is_eof() {
            "its JSON ends early"
        } else if error.is_data() {
            "its JSON is not an object"
        } else {
            "it is not JSON"
        }
    })
}

/// Seconds: an integer, a float, or either in quotes. JSON allows numbers that no float holds.
fn lifetime(raw: &str) -> Result<Option<Duration>, &'static str> {
    const NOT_A_NUMBER: &str = "expiresIn is not a number";
    let unquoted: String = match raw.starts_with('"') {
        true => serde_json::from_str(raw).map_err(|_| NOT_A_NUMBER)?,
        false => raw.to_owned(),
    };
    let number = unquoted.trim();
    // Or `inf` and `nan` would be numbers as well.
    if !number
        .bytes()
        .all(|byte| b"0123456789+-.eE".contains(&byte))
    {
        return Err(NOT_A_NUMBER);
    }
    let seconds: f64 = number.parse().map_err(|_| NOT_A_NUMBER)?;
    match Duration::try_from_secs_f64(seconds) {
        Ok(Duration::ZERO) => Err("expiresIn is zero"),
        Ok(lifetime) => Ok(Some(lifetime)),
        Err(_) if seconds < 0.0 => Err("expiresIn is negative"),
        Err(_) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expires_in(json: &str) -> Result<Option<Duration>, String> {
        let body = format!(r#"{{"accessToken":"t","expiresIn":{json},"refershToken":[1]}}"#);
        decode(body.as_bytes()).map(|(_, lifetime)| lifetime)
    }

    #[test]
    fn credentials_are_escaped_as_json_needs() {
        let credentials = Credentials::new("a\"\\\u{1}é", "s\n\u{7f}");
        let json: serde_json::Value = serde_json::from_slice(&encode(&credentials)).unwrap();
        assert_eq!(json["type"], "application");
        assert_eq!(json["appId"], "a\"\\\u{1}é");
        assert_eq!(json["appSecret"], "s\n\u{7f}");
    }

    #[test]
    fn a_lifetime_is_an_integer_a_float_or_a_numeric_string() {
        let seconds = |s| Ok(Some(Duration::from_secs_f64(s)));
        assert_eq!(expires_in("86400"), seconds(86400.0));
        assert_eq!(expires_in("12.5"), seconds(12.5));
        assert_eq!(expires_in("1e3"), seconds(1000.0));
        assert_eq!(expires_in(r#""3600""#), seconds(3600.0));
        assert_eq!(expires_in("null"), seconds(86400.0));
        let absent = decode(br#"{"accessToken":"t"}"#).unwrap();
        assert_eq!(absent, ("t".to_owned(), Some(DOCUMENTED_LIFETIME)));
    }

    #[test]
    fn a_huge_lifetime_is_longer_than_can_be_told() {
        for huge in ["1e400", "1e300", r#""1e400""#, &"9".repeat(500)] {
            assert_eq!(expires_in(huge), Ok(None), "{huge}");
        }
    }

    #[test]
    fn what_is_no_lifetime_is_refused() {
        let bad = [
            "0",
            "-1",
            "0.0",
            "-0.5",
            "true",
            "[]",
            "{}",
            r#""""#,
            r#""soon""#,
            r#""inf""#,
            r#""NaN""#,
            r#""-1""#,
            "1e-400",
            "-1e400",
        ];
        for bad in bad {
            assert!(expires_in(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_without_quoting_it() {
        let wrong = |body: &str| decode(body.as_bytes()).unwrap_err();
        assert_eq!(wrong(""), "it is empty");
        assert_eq!(wrong("\u{feff}"), "it is empty");
        assert_eq!(wrong("\n<html>"), "it is HTML or XML, not JSON");
        assert_eq!(wrong(r#"{"accessToken":"t0p"#), "its JSON ends early");
        assert_eq!(wrong(r#"["t0p"]"#), "its JSON is not an object");
        assert_eq!(wrong("t0p"), "it is not JSON");
        assert_eq!(wrong(r#"{"token":"t0p"}"#), "it has no accessToken");
        assert_eq!(wrong(r#"{"accessToken":7}"#), "accessToken is not a string");
    }

    #[test]
    fn a_byte_order_mark_and_white_space_around_the_token_are_taken_off() {
        let body = "\u{feff}{\"accessToken\":\" t0 ken\\r\\n\"}";
        assert_eq!(decode(body.as_bytes()).unwrap().0, "t0 ken");
    }

    #[test]
    fn an_error_is_told_in_many_forms() {
        for (body, told) in [
            (r#"{"message":"a","error":"b"}"#, Some("a")),
            (
                r#"{"message":null,"error_description":"a","error":"b"}"#,
                Some("a"),
            ),
            (r#"{"message":" ","detail":"a","error":"b"}"#, Some("a")),
            (r#"{"error":"a"}"#, Some("a")),
            (r#"{"message":["a",7,"b"]}"#, Some("a; b")),
            (r#"{"error":{"code":1,"message":"a"}}"#, Some("a")),
            (r#"{"errors":"a","error":true,"message":3}"#, None),
            (r#"{"detail":[{"msg":"a"}]}"#, Some(r#"{"msg":"a"}"#)),
        ] {
            assert_eq!(words(body.as_bytes()).unwrap().as_deref(), told, "{body}");
        }
        assert_eq!(words(b"<html>"), Err("it is HTML or XML, not JSON"));
    }
}
