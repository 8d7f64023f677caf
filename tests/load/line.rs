//! A kept connection that speaks HTTP/1.1: what a client uses that sends one request after another.

use std::io;

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use harness::{Client, client::HOST, stack::PASSWORD};
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;

/// The `Authorization` header that shows a user's password.
pub(crate) fn authorization(user: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{PASSWORD}")))
}

/// A connection, made anew when the server has ended it.
pub(crate) struct Line {
    client: Client,
    authorization: Option<String>,
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl Line {
    /// A way to the server, with what each request is authorised by.
    pub(crate) fn new(client: &Client, authorization: Option<String>) -> Self {
        Self { client: client.clone(), authorization, sender: None }
    }

    /// Sends a request and reads the answer whole.
    ///
    /// # Errors
    /// When there is no connection, or it ends before the answer does.
    pub(crate) async fn send(
        &mut self,
        method: &str,
        target: &str,
        content_type: Option<&str>,
        body: impl Into<Bytes>,
    ) -> io::Result<Response<Bytes>> {
        let mut request = Request::builder().method(method).uri(target).header(header::HOST, HOST);
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        if let Some(content_type) = content_type {
            request = request.header(header::CONTENT_TYPE, content_type);
        }
        let request = request.body(Full::new(body.into())).map_err(io::Error::other)?;
        let mut sender = match self.sender.take() {
            Some(sender) if !sender.is_closed() => sender,
            _ => self.connect().await?,
        };
        sender.ready().await.map_err(io::Error::other)?;
        let answer = sender.send_request(request).await.map_err(io::Error::other)?;
        let (parts, body) = answer.into_parts();
        let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
        self.sender = Some(sender);
        Ok(Response::from_parts(parts, body))
    }

    /// As [`Line::send`], for what must succeed.
    ///
    /// # Errors
    /// When it does not.
    pub(crate) async fn expect(
        &mut self,
        method: &str,
        target: &str,
        content_type: Option<&str>,
        body: impl Into<Bytes>,
    ) -> io::Result<Response<Bytes>> {
        let answer = self.send(method, target, content_type, body).await?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let said = String::from_utf8_lossy(answer.body());
        Err(io::Error::other(format!("{method} {target}: {} {said}", answer.status())))
    }

    async fn connect(&self) -> io::Result<SendRequest<Full<Bytes>>> {
        let stream = self.client.try_connect().await?;
        let (sender, connection) =
            handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        tokio::spawn(connection);
        Ok(sender)
    }
}

/// Where an upload that was begun goes on.
///
/// # Errors
/// When it was not begun.
pub(crate) fn location(answer: &Response<Bytes>) -> io::Result<String> {
    let location = answer.headers().get(header::LOCATION).and_then(|it| it.to_str().ok());
    match location {
        Some(location) if answer.status() == StatusCode::ACCEPTED => Ok(location.to_owned()),
        _ => Err(io::Error::other(format!("no upload was begun: {}", answer.status()))),
    }
}
