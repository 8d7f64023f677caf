//! A connection on which a test writes HTTP/1.1 byte by byte, as no library would.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

use crate::client::{Client, HOST, Response};

/// An open connection.
pub struct Raw {
    stream: TlsStream<TcpStream>,
    read: Vec<u8>,
}

impl Raw {
    /// Connects.
    pub async fn connect(client: &Client) -> Self {
        Self { stream: client.connect().await, read: Vec::new() }
    }

    /// Connects with little room for what the test does not read.
    ///
    /// # Panics
    /// When the server cannot be reached.
    pub async fn connect_narrow(client: &Client) -> Self {
        let stream = client.try_connect_narrow().await.expect("connecting");
        Self { stream, read: Vec::new() }
    }

    /// Sends request line and headers, `Host` added, and the empty line behind them.
    pub async fn head(&mut self, request_line: &str, headers: &[(&str, &str)]) {
        let mut head = format!("{request_line} HTTP/1.1\r\nHost: {HOST}\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        self.send(head.as_bytes()).await;
    }

    /// Sends bytes as they are.
    ///
    /// # Panics
    /// When the server has closed the connection.
    pub async fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes).await.expect("sending");
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// When the server has closed the connection.
    pub async fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// Leaves as a client that is killed: the connection ends without a word of TLS.
    ///
    /// # Panics
    /// When the server has closed the connection.
    pub async fn leave(self) {
        let mut tcp = self.stream.into_inner().0;
        tcp.shutdown().await.expect("closing");
        // What the server still says is read, lest the system take back what was sent.
        tokio::spawn(async move { tcp.read_to_end(&mut Vec::new()).await });
    }

    /// Reads one answer, whose length must be announced. `path` and `is_head` are those of the
    /// request.
    ///
    /// # Panics
    /// When the connection ends first, or the answer lacks what every answer must have.
    pub async fn answer(&mut self, path: &str, is_head: bool) -> Response {
        let answer = self.unchecked_answer(is_head).await;
        answer.check(path, is_head);
        answer
    }

    /// Reads one answer that need not come from a handler.
    ///
    /// # Panics
    /// When the connection ends first.
    pub async fn unchecked_answer(&mut self, is_head: bool) -> Response {
        let end = loop {
            if let Some(at) = self.read.windows(4).position(|window| window == b"\r\n\r\n") {
                break at;
            }
            self.fill().await;
        };
        let head = String::from_utf8(self.read[..end].to_vec()).expect("a head of text");
        self.read.drain(..end + 4);
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).expect("a status");
        let status: StatusCode = status.parse().expect("a status");
        let mut headers = HeaderMap::new();
        for line in lines {
            let (name, value) = line.split_once(':').expect("a header");
            let name: HeaderName = name.parse().expect("a header name");
            headers.append(name, HeaderValue::from_str(value.trim()).expect("a header value"));
        }
        let length = headers.get("content-length").and_then(|length| length.to_str().ok());
        let has_body = !is_head && !status.is_informational();
        let length = length.filter(|_| has_body).map_or(0, |text| text.parse().expect("a length"));
        while self.read.len() < length {
            self.fill().await;
        }
        let body: Vec<u8> = self.read.drain(..length).collect();
        Response { status, headers, body: Bytes::from(body) }
    }

    /// Reads so many bytes at most; none at the end, in whatever way it came.
    pub async fn read(&mut self, bytes_max: usize) -> Vec<u8> {
        let mut buffer = vec![0; bytes_max];
        let count = self.stream.read(&mut buffer).await.unwrap_or(0);
        buffer.truncate(count);
        buffer
    }

    /// Reads until the server closes the connection, and gives what came.
    pub async fn until_closed(&mut self) -> Vec<u8> {
        let mut read = std::mem::take(&mut self.read);
        loop {
            let piece = self.read(16 * 1024).await;
            if piece.is_empty() {
                return read;
            }
            read.extend(piece);
        }
    }

    async fn fill(&mut self) {
        let mut buffer = [0; 16 * 1024];
        let count = self.stream.read(&mut buffer).await.expect("reading");
        assert!(count > 0, "the connection ended within an answer");
        self.read.extend_from_slice(&buffer[..count]);
    }
}
