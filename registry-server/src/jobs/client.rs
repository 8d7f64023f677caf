//! Asking a running server to do a job.

use std::{io, path::Path};

use axum::{
    body::Body,
    http::{HeaderValue, Method, Request, Uri, header},
};
use berth_shared::client::{self, ClientError};
use futures_util::{StreamExt, TryStreamExt, future};
use http_body_util::BodyExt;
use tokio_util::{
    codec::{FramedRead, LinesCodec, LinesCodecError},
    io::StreamReader,
};

use super::{
    JOBS_PATH, Job,
    event::{Outcome, Tale, Told},
};

/// The longest event, as one line.
const LINE_BYTES_MAX: usize = 1024 * 1024;

impl Job {
    /// Has the server behind `socket` do the job. Dropping what it tells stops the job.
    ///
    /// # Errors
    /// When nobody listens on the socket.
    pub async fn ask(&self, socket: &Path) -> Result<Tale<Outcome>, ClientError> {
        let body = serde_json::to_vec(self).unwrap_or_default();
        let mut request = Request::new(Body::from(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = Uri::from_static(JOBS_PATH);
        let headers = request.headers_mut();
        headers.insert(header::HOST, HeaderValue::from_static("localhost"));
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let answer = client::send(socket, request).await?;
        let status = answer.status();
        let body = answer.into_body().into_data_stream().map_err(io::Error::other);
        let codec = LinesCodec::new_with_max_length(LINE_BYTES_MAX);
        let lines = FramedRead::new(StreamReader::new(body), codec);
        let is_there = |line: &Result<_, _>| !matches!(line, Err(LinesCodecError::Io(_)));
        let told = lines.take_while(move |line| future::ready(is_there(line))).map(move |line| {
            let event = serde_json::from_str(&line.unwrap_or_default());
            event.unwrap_or_else(|_| Told::Failed {
                message: format!("the server answers {status}: is it of another version?"),
            })
        });
        Ok(Tale(told.boxed()))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::UnixListener,
        time::sleep,
    };

    use super::*;
    use crate::registry::event::Event;

    #[tokio::test]
    async fn a_server_that_goes_away_is_noticed_by_whoever_it_holds_objects_for() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("socket");
        let listener = UnixListener::bind(&socket).unwrap();
        let answer = async {
            let (mut connection, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            while !request.contains(&b'}') {
                assert!(connection.read(&mut request).await.unwrap() > 0);
            }
            let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
            let line = "11\r\n{\"event\":\"held\"}\n\r\n";
            connection.write_all(format!("{head}{line}").as_bytes()).await.unwrap();
            connection
        };
        let (told, connection) = tokio::join!(Job::Hold.ask(&socket), answer);
        let mut told = told.unwrap();
        assert_eq!(told.recv().await, Some(Told::Step(Event::Held)));
        assert!(told.is_silent());
        drop(connection);
        while told.is_silent() {
            sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(told.recv().await, None);
    }
}
