//! HTTP in the clear on a port that speaks TLS: one answer that says so, since what a client makes of
//! a TLS alert is a riddle.

use std::{io, time::Duration};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::error::{Code, ErrorBody};

/// How much of the request is read away, so that the answer outlives the close.
const READ_BYTES_MAX: usize = 64 * 1024;

/// How long the client has to take the answer.
const ANSWER_TIME: Duration = Duration::from_secs(2);

/// Whether the client begins as HTTP does, with a letter: a record of TLS begins with 22.
pub(super) async fn is_plain(stream: &TcpStream) -> bool {
    let mut first = [0];
    matches!(stream.peek(&mut first).await, Ok(1) if first[0].is_ascii_uppercase())
}

/// Tells the client where it should have gone.
pub(super) async fn refuse(stream: TcpStream, origin: Option<&str>) {
    // A client that does not take it has left.
    let _ = timeout(ANSWER_TIME, answer(stream, origin.unwrap_or("https://"))).await;
}

async fn answer(mut stream: TcpStream, origin: &str) -> io::Result<()> {
    let message = format!("HTTP request to an HTTPS port: use {origin}");
    let text = ErrorBody::new(Code::Unsupported, message, Value::Null).to_json();
    let head = format!(
        "HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        text.len()
    );
    stream.write_all(format!("{head}{text}").as_bytes()).await?;
    stream.shutdown().await?;
    let mut read = [0; 4096];
    let mut left = READ_BYTES_MAX;
    while left > 0 {
        match stream.read(&mut read).await? {
            0 => break,
            bytes => left = left.saturating_sub(bytes),
        }
    }
    Ok(())
}
