//! The API, as far as Symbl's documentation shows it: what is posted can be read back.

use std::collections::HashMap;

use http::{Method, Request, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::{
    server::{HttpAnswer, answer, discard, message, read},
    state::MockState,
    streaming,
};

const TIME: &str = "2026-01-01T00:00:00.000Z";

#[derive(Default)]
pub(super) struct Records {
    conversations: HashMap<String, Conversation>,
    /// How often each job has been asked for.
    jobs: HashMap<String, u32>,
    trackers: HashMap<String, Value>,
}

struct Conversation {
    name: String,
    messages: Vec<Value>,
}

pub(super) async fn route(shared: &MockState, request: Request<Incoming>) -> HttpAnswer {
    let path = request.uri().path().to_owned();
    let path: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    match (request.method(), &*path) {
        (&Method::POST, ["v1", "process", "text"]) => text(shared, request).await,
        (&Method::POST, ["v1", "process", "audio" | "video"]) => upload(shared, request).await,
        (&Method::POST, ["v1", "manage", "tracker"]) => tracker(shared, request).await,
        (
            &Method::GET,
            ["v1", "streaming" | "subscribe", _]
            | ["v1", "realtime", "insights", _]
            | ["session", "subscribe", _],
        ) => streaming::open(shared, request),
        (&Method::GET, ["v1", "job", id]) => shared.records().job(id),
        (method, ["v1", "conversations", id, rest @ ..]) => {
            shared.records().conversation(method, id, rest)
        }
        _ => not_found(),
    }
}

async fn text(shared: &MockState, request: Request<Incoming>) -> HttpAnswer {
    let Some(Ok(body)) = read(request)
        .await
        .map(|body| serde_json::from_slice::<Value>(&body))
    else {
        return message(StatusCode::BAD_REQUEST, "the body is not JSON");
    };
    let Some(messages) = body["messages"].as_array() else {
        return message(StatusCode::BAD_REQUEST, "messages are required");
    };
    let name = body["name"].as_str().unwrap_or("conversation");
    shared.records().add(name, messages)
}

async fn upload(shared: &MockState, request: Request<Incoming>) -> HttpAnswer {
    if !request.headers().contains_key(header::CONTENT_LENGTH) {
        discard(request);
        return message(StatusCode::LENGTH_REQUIRED, "Content-Length is required");
    }
    let query = request.uri().query().unwrap_or_default();
    let name = query.split('&').find_map(|pair| pair.strip_prefix("name="));
    let name = name.unwrap_or("upload").to_owned();
    let mut body = request.into_body();
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => length += frame.data_ref().map_or(0, bytes::Bytes::len),
            Err(_) => return message(StatusCode::BAD_REQUEST, "the upload ended early"),
        }
    }
    let content = format!("{length} bytes");
    shared
        .records()
        .add(&name, &[json!({ "payload": { "content": content } })])
}

async fn tracker(shared: &MockState, request: Request<Incoming>) -> HttpAnswer {
    let body = read(request).await;
    let body = body.and_then(|body| serde_json::from_slice::<Value>(&body).ok());
    let Some(name) = body.as_ref().and_then(|body| body["name"].as_str()) else {
        return message(StatusCode::BAD_REQUEST, "name and vocabulary are required");
    };
    let mut records = shared.records();
    if records.trackers.contains_key(name) {
        return message(StatusCode::CONFLICT, "the tracker exists");
    }
    let vocabulary = body.as_ref().map(|body| body["vocabulary"].clone());
    let tracker = json!({ "id": new_id(), "name": name, "vocabulary": vocabulary });
    records.trackers.insert(name.to_owned(), tracker.clone());
    answer(StatusCode::OK, &json!({ "tracker": tracker }))
}

impl Records {
    fn add(&mut self, name: &str, posted: &[Value]) -> HttpAnswer {
        let (conversation, job) = (new_id(), new_id());
        let messages = posted.iter().map(|message| {
            json!({
                "id": new_id(),
                "text": message["payload"]["content"],
                "from": { "name": message["from"]["name"], "email": message["from"]["userId"] },
                "startTime": TIME,
                "endTime": TIME,
                "conversationId": conversation,
            })
        });
        let record = Conversation {
            name: name.to_owned(),
            messages: messages.collect(),
        };
        self.conversations.insert(conversation.clone(), record);
        self.jobs.insert(job.clone(), 0);
        let ids = json!({ "conversationId": conversation, "jobId": job });
        answer(StatusCode::CREATED, &ids)
    }

    /// Done when it is asked for the second time.
    fn job(&mut self, id: &str) -> HttpAnswer {
        let Some(asked) = self.jobs.get_mut(id) else {
            return not_found();
        };
        let status = if *asked == 0 {
            "in_progress"
        } else {
            "completed"
        };
        *asked += 1;
        answer(StatusCode::OK, &json!({ "id": id, "status": status }))
    }

    fn conversation(&mut self, method: &Method, id: &str, rest: &[&str]) -> HttpAnswer {
        let Some(conversation) = self.conversations.get(id) else {
            return not_found();
        };
        let messages = &conversation.messages;
        let body = match (method, rest) {
            (&Method::GET, []) => json!({
                "id": id,
                "type": "meeting",
                "name": conversation.name,
                "startTime": TIME,
                "endTime": TIME,
                "members": members(messages),
            }),
            (&Method::GET, ["messages"]) => json!({ "messages": messages }),
            (&Method::GET, ["topics"]) => json!({ "topics": topics(messages) }),
            (&Method::DELETE, []) => {
                self.conversations.remove(id);
                json!({ "message": "successfully deleted the conversation" })
            }
            _ => return not_found(),
        };
        answer(StatusCode::OK, &body)
    }
}

fn members(messages: &[Value]) -> Vec<Value> {
    let mut members: Vec<Value> = Vec::new();
    for from in messages.iter().map(|message| &message["from"]) {
        if from["name"].is_string() && members.iter().all(|member| member["name"] != from["name"]) {
            members.push(json!({ "id": new_id(), "name": from["name"], "email": from["email"] }));
        }
    }
    members
}

/// The first word of each message will do for a topic.
fn topics(messages: &[Value]) -> Vec<Value> {
    let topic = |message: &Value| {
        let word = message["text"].as_str()?.split_whitespace().next()?;
        Some(json!({
            "id": new_id(),
            "text": word,
            "type": "topic",
            "score": 0.5,
            "messageIds": [message["id"]],
        }))
    };
    messages.iter().filter_map(topic).collect()
}

fn not_found() -> HttpAnswer {
    message(StatusCode::NOT_FOUND, "not found")
}

/// Sixteen digits, as Symbl's.
fn new_id() -> String {
    fastrand::u64(1_000_000_000_000_000..=9_999_999_999_999_999).to_string()
}
