//! Loads of strangers: connections that are held, and tokens that anybody may have.

use std::io;

use harness::{H2, h2::kind};
use tokio::io::AsyncReadExt;

use crate::{
    crowd::{Crowd, Tally},
    line::Line,
    site::Site,
};

/// As many connections as the registry takes unless it is told otherwise.
const CONNECTIONS_MAX: usize = 1024;

/// HTTP/1 connections on which nothing is asked.
pub(crate) fn idle(site: &Site, count: usize) -> Crowd {
    let client = site.client.clone();
    Crowd::of(count, |_, tally| {
        let client = client.clone();
        async move {
            match client.try_connect().await {
                // Until the server ends it.
                Ok(mut stream) => drop(stream.read(&mut [0; 1]).await),
                Err(error) => tally.unconnected(&error),
            }
        }
    })
}

/// HTTP/2 connections on which nothing is asked.
pub(crate) fn silent(site: &Site) -> Crowd {
    h2(site, CONNECTIONS_MAX, 65_535, Say::Nothing)
}

/// HTTP/2 connections whose one answer may not be sent.
pub(crate) fn closed_windows(site: &Site) -> Crowd {
    let ask = Say::Get { target: "/v2/".to_owned(), authorization: String::new(), count: 1 };
    h2(site, CONNECTIONS_MAX, 0, ask)
}

/// HTTP/2 connections that begin a head and leave it at that.
pub(crate) fn unfinished_heads(site: &Site) -> Crowd {
    h2(site, CONNECTIONS_MAX, 65_535, Say::HalfAHead)
}

/// Tokens for nobody by 64 connections.
pub(crate) fn tokens(site: &Site) -> Crowd {
    let client = site.client.clone();
    Crowd::of(64, |_, tally| {
        let mut line = Line::new(&client, None);
        async move {
            loop {
                let target = "/token?service=berth&scope=repository:public/app:pull";
                let answer = line.send("GET", target, None, "").await;
                tally.count(answer.ok().map(|answer| answer.status()));
            }
        }
    })
}

/// What is said on an HTTP/2 connection once it is open.
#[derive(Debug, Clone)]
pub(crate) enum Say {
    Nothing,
    /// A head whose end does not come.
    HalfAHead,
    /// The same request, on as many streams.
    Get {
        target: String,
        authorization: String,
        count: usize,
    },
}

impl Say {
    async fn on(&self, connection: &mut H2) -> io::Result<()> {
        match self {
            Self::Nothing => {}
            Self::HalfAHead => {
                // GET and https, from the static table (RFC 7541 Appendix A); no END_HEADERS.
                connection.frame(kind::HEADERS, 0, 1, &[0x82, 0x87]).await?;
            }
            Self::Get { target, authorization, count } => {
                let headers = [("authorization", authorization.as_str())];
                let headers = if authorization.is_empty() { &[][..] } else { &headers[..] };
                for _ in 0..*count {
                    connection.request("GET", target, headers, true).await?;
                }
            }
        }
        Ok(())
    }
}

/// HTTP/2 connections that allow `window` bytes of each answer, say something, and stay.
pub(crate) fn h2(site: &Site, count: usize, window: u32, say: Say) -> Crowd {
    let client = site.http2.clone();
    Crowd::of(count, move |_, tally| {
        let (client, say) = (client.clone(), say.clone());
        async move {
            let mut connection = match H2::try_connect(&client, window).await {
                Ok(connection) => connection,
                Err(error) => return tally.unconnected(&error),
            };
            match say.on(&mut connection).await {
                // Within a head nothing else may be said (RFC 9113 §6.10).
                Ok(()) if matches!(say, Say::HalfAHead) => drop(connection.until_closed().await),
                Ok(()) => stay(connection, &tally).await,
                Err(_) => tally.broken(),
            }
        }
    })
}

/// Stays until the server ends the connection, and answers whatever asks whether it is there.
async fn stay(mut connection: H2, tally: &Tally) {
    while let Some(frame) = connection.next().await {
        if connection.answer_question(&frame).await.is_err() {
            return;
        }
        if frame.is_ok_head() {
            tally.answered();
        } else if matches!(frame.kind, kind::HEADERS | kind::RST_STREAM) {
            tally.refused();
        }
    }
}
