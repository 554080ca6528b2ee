use std::path::Path;

use super::*;
use crate::serve::{Client, ClientError};

/// A server, what it asks, and its client.
struct Case {
    folder: tempfile::TempDir,
    _server: Server,
    requests: mpsc::Receiver<Request>,
    events: Events,
    client: Client,
}

async fn case() -> Case {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("api.sock");
    let (sender, requests) = mpsc::channel(1);
    let events = Events::default();
    let server = Server::start(
        Socket::bind_with_link(&path, &folder.path().join("usual.sock"), None).unwrap(),
        App {
            requests: sender,
            view: watch::channel(View::default()).1,
            events: events.clone(),
            checks: Default::default(),
            cluster: watch::channel(None).1,
            announcer: crate::announce::Announcer::new(Default::default()).reader(),
            counts: Counts::default(),
            followers: Followers::default(),
            started: Instant::now(),
        },
    );
    let client = Client::connect_to(&path).await.unwrap();
    Case { folder, _server: server.unwrap(), requests, events, client }
}

/// Fills the queue with a request that the event loop does not take; gives the task that waits for its answer, and another client.
async fn occupy(
    mut client: Client,
    requests: &mpsc::Receiver<Request>,
    folder: &tempfile::TempDir,
) -> (tokio::task::JoinHandle<()>, Client) {
    let waiting = tokio::spawn(async move {
        drop(client.call::<Reloaded>(hyper::Method::POST, paths::RELOAD, None).await);
    });
    while requests.is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    (waiting, Client::connect_to(&folder.path().join("usual.sock")).await.unwrap())
}

#[tokio::test]
async fn reads_are_answered_while_the_event_loop_takes_no_request() {
    let Case { requests, client, folder, _server, .. } = case().await;
    let (waiting, mut second) = occupy(client, &requests, &folder).await;
    let services: Vec<ServiceRow> = second.get(paths::SERVICES).await.unwrap();
    assert_eq!(services, []);
    let unknown = second.get::<ServiceRow>("/v1/services/web").await.unwrap_err();
    assert!(unknown.to_string().starts_with("no service 'web'"), "{unknown}");
    waiting.abort();
}

#[tokio::test]
async fn the_event_loop_makes_changes() {
    let Case { mut requests, mut client, _server, .. } = case().await;
    let answered = tokio::spawn(async move {
        let Some(Request::Reload(answer)) = requests.recv().await else { panic!() };
        answer.send(Ok(Reloaded { changed: true, fans: 1, services: 2 })).unwrap();
    });
    let reloaded: Reloaded = client.call(hyper::Method::POST, paths::RELOAD, None).await.unwrap();
    assert_eq!(reloaded.services, 2);
    answered.await.unwrap();
}

#[tokio::test]
async fn a_loop_with_too_much_to_do_is_not_waited_for() {
    let Case { requests, client, folder, _server, .. } = case().await;
    let (waiting, mut second) = occupy(client, &requests, &folder).await;
    let error = second.call::<Reloaded>(hyper::Method::POST, paths::RELOAD, None).await.unwrap_err();
    assert!(error.to_string().starts_with("the agent is busy"), "{error}");
    waiting.abort();
}

#[tokio::test]
async fn what_is_not_there_is_refused_by_name() {
    let Case { mut client, _server, .. } = case().await;
    let error = client.get::<()>("/v1/nothing").await.unwrap_err();
    assert_eq!(error.to_string(), "/v1/nothing: no such path");
    let error = client.call::<()>(hyper::Method::PUT, paths::EVENTS, None).await.unwrap_err();
    assert_eq!(error.to_string(), "PUT /v1/events: no such method here");
}

#[tokio::test]
async fn events_come_as_lines_while_the_client_listens() {
    let Case { client, events, _server, .. } = case().await;
    let mut readers = events.readers();
    let mut lines = client.lines(paths::EVENTS).await.unwrap();
    readers.wait_for(|&readers| readers == 1).await.unwrap();
    events.tell(&serde_json::json!({"event": "drop"}));
    events.tell(&1);
    assert_eq!(lines.next().await.unwrap().as_deref(), Some("{\"event\":\"drop\"}"));
    assert_eq!(lines.next().await.unwrap().as_deref(), Some("1"));
    drop(lines);
    readers.wait_for(|&readers| readers == 0).await.unwrap();
}

#[tokio::test]
async fn without_an_agent_there_is_one_clear_error() {
    let Err(error) = Client::connect_to(Path::new("/nowhere/api.sock")).await else { panic!() };
    assert!(matches!(error, ClientError::NoAgent { .. }));
    let text = error.to_string();
    assert!(text.starts_with("no agent is running: /nowhere/api.sock: "), "{text}");
    assert!(text.ends_with("; start it with 'fanlight agent'"), "{text}");
}

#[tokio::test]
async fn clients_that_say_nothing_keep_nobody_waiting() {
    let Case { folder, mut client, _server, .. } = case().await;
    let path = folder.path().join("api.sock");
    let silent: Vec<_> =
        (0..20).map(|_| std::os::unix::net::UnixStream::connect(&path).expect("it listens")).collect();
    let error = client.get::<()>("/v1/nothing").await.unwrap_err();
    assert_eq!(error.to_string(), "/v1/nothing: no such path");
    drop(silent);
}

#[tokio::test]
async fn what_is_sent_is_bounded_and_of_a_known_type() {
    let Case { folder, mut client, _server, .. } = case().await;
    let sent =
        client.call::<()>(hyper::Method::POST, paths::SERVICES, Some(("text/plain", Vec::new()))).await;
    assert_eq!(
        sent.unwrap_err().to_string(),
        "content type 'text/plain' is not read here; use one of application/toml, application/yaml, application/json"
    );
    let mut client = Client::connect_to(&folder.path().join("api.sock")).await.unwrap();
    let bytes = vec![b' '; BODY_SIZE + 1];
    let sent =
        client.call::<()>(hyper::Method::POST, paths::SERVICES, Some(("application/json", bytes))).await;
    assert!(matches!(sent, Err(ClientError::Refused(_) | ClientError::Broken(_))));
    let mut client = Client::connect_to(&folder.path().join("api.sock")).await.unwrap();
    let sent =
        client.call::<()>(hyper::Method::POST, paths::SERVICES, Some(("application/json", vec![0xff]))).await;
    assert!(sent.unwrap_err().to_string().starts_with("is no text: "));
}

#[tokio::test]
async fn a_backend_that_is_none_is_refused_before_the_loop_is_asked() {
    let Case { mut client, requests, _server, .. } = case().await;
    let sent = client.call::<()>(hyper::Method::PUT, "/v1/services/web/drained/x", None).await;
    assert_eq!(
        sent.unwrap_err().to_string(),
        "'x' is no backend; write ADDRESS:PORT, such as 250.0.27.3:8080"
    );
    assert!(requests.is_empty());
}

#[tokio::test]
async fn readers_of_events_leave_connections_for_requests_and_one_too_many_is_refused() {
    let Case { folder, events, client, _server, .. } = case().await;
    let path = folder.path().join("api.sock");
    let mut counted = events.readers();
    let mut readers = vec![client.lines(paths::EVENTS).await.unwrap()];
    while readers.len() < READERS {
        readers.push(Client::connect_to(&path).await.unwrap().lines(paths::EVENTS).await.unwrap());
    }
    for _ in 0..3 {
        let refused = Client::connect_to(&path).await.unwrap().lines(paths::EVENTS).await;
        let Err(error) = refused else { panic!("one reader too many") };
        let error = error.to_string();
        assert!(error.starts_with("64 readers follow the events, and no more may; end one"), "{error}");
    }
    let asked = Client::connect_to(&path).await.unwrap().get::<()>("/v1/nothing").await;
    assert_eq!(asked.unwrap_err().to_string(), "/v1/nothing: no such path");
    readers.pop();
    counted.wait_for(|&counted| counted < READERS).await.unwrap();
    Client::connect_to(&path).await.unwrap().lines(paths::EVENTS).await.expect("a place is free");
}
