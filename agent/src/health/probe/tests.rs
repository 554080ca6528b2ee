use std::{fs, net::Ipv4Addr};

use control::health::{Http, Tls};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::sleep,
};

use super::*;

const MOMENT: Duration = Duration::from_millis(300);

fn http(path: &str) -> Http {
    Http {
        tls: None,
        path: path.to_owned(),
        host: None,
        method: "GET".to_owned(),
        expect: Default::default(),
    }
}

fn check(probe: Probe) -> Check {
    Check { timeout: MOMENT, ..Check::new(probe) }
}

fn program(line: &str) -> Probe {
    Probe::Command(["/bin/sh", "-c", line].map(str::to_owned).into())
}

async fn made(check: &Check, address: SocketAddr) -> Outcome {
    Prober::default().make(check, &Subject::backend("web", address), true).await
}

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// A server that does this with each connection.
async fn server<F: Future<Output = ()> + Send>(
    serve: impl Fn(TcpStream) -> F + Send + 'static,
) -> SocketAddr {
    let (listener, address) = listener().await;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            serve(stream).await;
        }
    });
    address
}

/// A server that answers everything so, and tells nothing of what it was asked.
async fn answering(answer: &'static [u8]) -> SocketAddr {
    server(move |mut stream| async move {
        let mut head = [0; 1024];
        drop(stream.read(&mut head).await);
        drop(stream.write_all(answer).await);
    })
    .await
}

#[tokio::test]
async fn a_port_that_takes_connections_passes_and_a_closed_one_does_not() {
    let (listener, address) = listener().await;
    let outcome = made(&check(Probe::Tcp), address).await;
    assert_eq!((outcome.passed, outcome.said.as_str()), (true, "connected"));
    drop(listener);
    let outcome = made(&check(Probe::Tcp), address).await;
    assert_eq!((outcome.passed, outcome.said.as_str()), (false, "connection refused"));
}

#[tokio::test]
async fn the_check_s_own_port_is_asked() {
    let (_listener, address) = listener().await;
    let check = Check { port: Some(address.port()), ..check(Probe::Tcp) };
    assert!(made(&check, SocketAddr::new(address.ip(), 1)).await.passed);
}

#[tokio::test]
async fn a_status_that_is_expected_passes_and_redirects_are_not_followed() {
    let found = answering(b"HTTP/1.1 302 Found\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n").await;
    let outcome = made(&check(Probe::Http(http("/"))), found).await;
    assert_eq!((outcome.passed, outcome.said.as_str()), (true, "302 Found"));
    let strict = Http { expect: "200".parse().unwrap(), ..http("/") };
    let outcome = made(&check(Probe::Http(strict)), found).await;
    assert_eq!((outcome.passed, outcome.said.as_str()), (false, "302 Found"));
    let old = answering(b"HTTP/1.0 200 OK\r\n\r\nhello").await;
    assert!(made(&check(Probe::Http(http("/"))), old).await.passed);
}

#[tokio::test]
async fn the_request_says_what_was_asked_for() {
    let (listener, address) = listener().await;
    let asked = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = vec![0; 1024];
        let length = stream.read(&mut head).await.unwrap();
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        String::from_utf8(head[..length].to_vec()).unwrap()
    });
    let http =
        Http { host: Some("www.example.org".to_owned()), method: "HEAD".to_owned(), ..http("/health?a=b") };
    assert!(made(&check(Probe::Http(http)), address).await.passed);
    let head = asked.await.unwrap().to_lowercase();
    assert!(head.starts_with("head /health?a=b http/1.1\r\n"), "{head}");
    assert!(
        head.contains("\r\nhost: www.example.org\r\n") && head.contains("\r\nconnection: close\r\n"),
        "{head}"
    );
}

#[tokio::test]
async fn servers_that_never_come_to_an_end_are_left_in_time() {
    let silent = server(|stream| async move {
        sleep(10 * MOMENT).await;
        drop(stream);
    })
    .await;
    let slow = server(|mut stream| async move {
        for byte in b"HTTP/1.1 200 OK\r\n".iter().cycle().take(100) {
            sleep(MOMENT / 5).await;
            if stream.write_all(&[*byte]).await.is_err() {
                return;
            }
        }
    })
    .await;
    for address in [silent, slow] {
        let outcome = made(&check(Probe::Http(http("/"))), address).await;
        assert_eq!((outcome.passed, outcome.said.as_str()), (false, "no answer within 300 ms"));
        assert!(outcome.took < 3 * MOMENT, "{:?}", outcome.took);
    }
}

#[tokio::test]
async fn a_head_without_end_and_what_is_no_http_fail_and_a_body_is_not_read() {
    let endless = server(|mut stream| async move {
        drop(stream.write_all(b"HTTP/1.1 200 OK\r\n").await);
        while stream.write_all(&[b"x-filler: ".as_slice(), &[b'a'; 4000], b"\r\n"].concat()).await.is_ok() {}
    })
    .await;
    let outcome = made(&check(Probe::Http(http("/"))), endless).await;
    assert_eq!((outcome.passed, outcome.said.as_str()), (false, "the answer's head is too long"));
    let garbage = answering(b"220 mail.example.org ESMTP\r\n").await;
    let outcome = made(&check(Probe::Http(http("/"))), garbage).await;
    assert_eq!((outcome.passed, outcome.said.as_str()), (false, "the answer is no HTTP"));
    let closing = server(|mut stream| async move {
        let mut head = [0; 1024];
        drop(stream.read(&mut head).await);
    })
    .await;
    let outcome = made(&check(Probe::Http(http("/"))), closing).await;
    assert_eq!((outcome.passed, outcome.said.as_str()), (false, "the connection ended without an answer"));
    let giant = server(|mut stream| async move {
        drop(stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n").await);
        while stream.write_all(&[b'a'; 65536]).await.is_ok() {}
    })
    .await;
    let outcome = made(&check(Probe::Http(http("/"))), giant).await;
    assert!(outcome.passed, "{outcome:?}");
}

#[tokio::test]
async fn a_file_of_certificates_that_is_none_is_named() {
    let (_listener, address) = listener().await;
    let https = |ca: &str| Http { tls: Some(Tls { ca: Some(ca.to_owned()), insecure: false }), ..http("/") };
    let outcome = made(&check(Probe::Http(https("/nowhere/ca.pem"))), address).await;
    assert!(!outcome.passed && outcome.said.starts_with("ca /nowhere/ca.pem: "), "{outcome:?}");
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), "no certificate\n").unwrap();
    let outcome = made(&check(Probe::Http(https(&file.path().display().to_string()))), address).await;
    assert!(outcome.said.ends_with("no certificates in PEM"), "{outcome:?}");
}

#[tokio::test]
async fn a_program_passes_by_its_status_and_knows_what_it_checks() {
    let address = "250.0.28.4:8080".parse().unwrap();
    let outcome =
        made(&check(program("echo $FANLIGHT_SERVICE $FANLIGHT_BACKEND; cat; echo late >&2")), address).await;
    assert_eq!((outcome.passed, outcome.said.as_str()), (true, "exit status 0"));
    assert_eq!(outcome.output.as_deref(), Some("web 250.0.28.4:8080\nlate\n"));
    let outcome = made(&check(program("exit 3")), address).await;
    assert_eq!((outcome.passed, outcome.said.as_str()), (false, "exit status 3"));
    let outcome = made(&check(program("kill -9 $$")), address).await;
    assert_eq!((outcome.passed, outcome.said.as_str()), (false, "killed by signal 9"));
    let outcome = made(&check(Probe::Command(vec!["/no/such/program".to_owned()])), address).await;
    assert!(!outcome.passed && outcome.said.starts_with("/no/such/program: "), "{outcome:?}");
}

#[tokio::test]
async fn a_program_that_takes_too_long_is_killed_with_all_that_it_started() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let line = format!("sleep 60 & echo $! > {}; wait", file.path().display());
    let outcome = made(&check(program(&line)), "250.0.28.4:80".parse().unwrap()).await;
    assert_eq!(outcome.said, "did not end within 300 ms and was killed");
    let child = fs::read_to_string(file.path()).unwrap();
    let status = format!("/proc/{}/stat", child.trim());
    let is_gone = || fs::read_to_string(&status).map_or(true, |stat| stat.contains(") Z "));
    for _ in 0..50 {
        if is_gone() {
            return;
        }
        sleep(MOMENT / 10).await;
    }
    panic!("{child} still runs");
}

#[tokio::test]
async fn a_program_that_writes_without_end_and_leaves_others_behind_is_bounded() {
    let address = "250.0.28.4:80".parse().unwrap();
    let outcome = made(&check(program("yes")), address).await;
    assert!(!outcome.passed && outcome.output.is_some_and(|output| output.len() <= 128 << 10));
    let outcome = made(&check(program("sleep 5 & exit 0")), address).await;
    assert!(outcome.passed && outcome.took < 3 * MOMENT, "{outcome:?}");
}

#[test]
fn what_a_target_says_is_one_line() {
    assert_eq!(one_line("a\r\nb\x1b[31m"), "a  b [31m");
    assert_eq!(one_line(&"x".repeat(1000)).len(), SAID);
}
