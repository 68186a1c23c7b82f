//! Rules J1 to J4, J6 and J7: what counts as a rejection, and what a rejected request goes through.

use http::StatusCode;

use crate::support::*;

#[tokio::test(start_paused = true)]
async fn a_rejected_token_is_replaced_and_the_request_sent_again() {
    let issuer = Issuer::fresh(DAY, SECOND);
    let layer = issuer.layer();
    let api = Api::judging(|token| match token {
        "token-1" => StatusCode::UNAUTHORIZED,
        _ => StatusCode::OK,
    });
    let response = send(&layer, &api, get(URL)).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(api.tokens(), ["token-1", "token-2"]);
    assert_eq!(issuer.calls(), 2);
}
