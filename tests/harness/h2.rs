//! A connection on which a test writes HTTP/2 frame by frame (RFC 9113), as no library would: no
//! window is opened, no PING answered and no end sent that the test does not ask for.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

use crate::client::{Client, HOST};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS_INITIAL_WINDOW_SIZE: u16 = 4;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

/// How a head begins whose status is 200 (RFC 7541, appendix A).
const STATUS_200: u8 = 0x88;

/// The kinds of frames that tests look for.
pub mod kind {
    /// A part of a body.
    pub const DATA: u8 = 0;
    /// The head of a request or an answer.
    pub const HEADERS: u8 = 1;
    /// The end of one stream, before its time.
    pub const RST_STREAM: u8 = 3;
    /// What either side allows.
    pub const SETTINGS: u8 = 4;
    /// A question whether the peer is there.
    pub const PING: u8 = 6;
    /// The end of the connection is near.
    pub const GOAWAY: u8 = 7;
    /// More of a body may be sent.
    pub const WINDOW_UPDATE: u8 = 8;
}

/// A frame as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// One of [`kind`], or another.
    pub kind: u8,
    /// Bits whose meaning depends on the kind.
    pub flags: u8,
    /// Which stream; 0 for the connection.
    pub stream: u32,
    /// The rest.
    pub payload: Vec<u8>,
}

impl Frame {
    /// Whether it is the last of its stream.
    #[must_use]
    pub fn ends_stream(&self) -> bool {
        matches!(self.kind, kind::DATA | kind::HEADERS) && self.flags & END_STREAM != 0
    }

    /// Whether it is the head of an answer whose status is 200.
    #[must_use]
    pub fn is_ok_head(&self) -> bool {
        self.kind == kind::HEADERS && self.payload.first() == Some(&STATUS_200)
    }
}

/// An open connection.
pub struct H2 {
    stream: TlsStream<TcpStream>,
    next_stream: u32,
}

impl H2 {
    /// Connects with a client that offers `h2`, and allows `window` bytes of each answer.
    ///
    /// # Panics
    /// When the server takes no HTTP/2.
    pub async fn connect(client: &Client, window: u32) -> Self {
        Self::try_connect(client, window).await.expect("connecting")
    }

    /// As [`H2::connect`], to a server that may turn connections away.
    ///
    /// # Errors
    /// When it does, or is not trusted.
    ///
    /// # Panics
    /// When the server takes no HTTP/2.
    pub async fn try_connect(client: &Client, window: u32) -> std::io::Result<Self> {
        let stream = client.try_connect().await?;
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]), "the protocol");
        let mut connection = Self { stream, next_stream: 1 };
        connection.try_send(PREFACE).await?;
        let mut settings = SETTINGS_INITIAL_WINDOW_SIZE.to_be_bytes().to_vec();
        settings.extend(window.to_be_bytes());
        connection.frame(kind::SETTINGS, 0, 0, &settings).await?;
        Ok(connection)
    }

    /// Sends the whole head of a request, and gives its stream. Without `ends` a body may follow.
    ///
    /// # Errors
    /// When the server has closed the connection.
    pub async fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        ends: bool,
    ) -> std::io::Result<u32> {
        let stream = self.next_stream;
        self.next_stream += 2;
        let mut block = Vec::new();
        let pseudo =
            [(":method", method), (":scheme", "https"), (":authority", HOST), (":path", path)];
        for (name, value) in pseudo.iter().chain(headers) {
            literal(&mut block, name, value);
        }
        let flags = END_HEADERS | if ends { END_STREAM } else { 0 };
        self.frame(kind::HEADERS, flags, stream, &block).await?;
        Ok(stream)
    }

    /// Sends a part of a request's body.
    ///
    /// # Errors
    /// When the server has closed the connection.
    pub async fn data(&mut self, stream: u32, bytes: &[u8], ends: bool) -> std::io::Result<()> {
        self.frame(kind::DATA, u8::from(ends) * END_STREAM, stream, bytes).await
    }

    /// Allows more bytes of an answer, or of all with stream 0.
    ///
    /// # Errors
    /// When the server has closed the connection.
    pub async fn open_window(&mut self, stream: u32, bytes: u32) -> std::io::Result<()> {
        self.frame(kind::WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes()).await
    }

    /// Answers a frame that asks whether somebody is there, or that says what the server allows.
    ///
    /// # Errors
    /// When the server has closed the connection.
    pub async fn answer_question(&mut self, frame: &Frame) -> std::io::Result<()> {
        let payload = match frame.kind {
            kind::PING => frame.payload.as_slice(),
            kind::SETTINGS => &[],
            _ => return Ok(()),
        };
        if frame.flags & ACK != 0 {
            return Ok(());
        }
        self.frame(frame.kind, ACK, 0, payload).await
    }

    /// Sends a frame as it is.
    ///
    /// # Errors
    /// When the server has closed the connection.
    pub async fn frame(
        &mut self,
        kind: u8,
        flags: u8,
        stream: u32,
        payload: &[u8],
    ) -> std::io::Result<()> {
        let length = u32::try_from(payload.len()).map_err(std::io::Error::other)?;
        let mut frame = length.to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        self.try_send(&frame).await
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// When the server has closed the connection.
    pub async fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// The next frame from the server; `None` when it has closed the connection.
    pub async fn next(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head).await.ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let mut payload = vec![0; usize::try_from(length).ok()?];
        self.stream.read_exact(&mut payload).await.ok()?;
        Some(Frame { kind: head[3], flags: head[4], stream, payload })
    }

    /// Reads until the server closes the connection, and gives what came before.
    pub async fn until_closed(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let Some(frame) = self.next().await {
            frames.push(frame);
        }
        frames
    }
}

/// A header that neither side's table remembers, without Huffman coding (RFC 7541 §6.2.2).
fn literal(block: &mut Vec<u8>, name: &str, value: &str) {
    block.push(0);
    for text in [name, value] {
        integer(block, text.len());
        block.extend(text.as_bytes());
    }
}

/// An integer with a prefix of seven bits (RFC 7541 §5.1).
fn integer(block: &mut Vec<u8>, mut value: usize) {
    const PREFIX_MAX: usize = 127;
    if value < PREFIX_MAX {
        block.push(value as u8);
        return;
    }
    block.push(PREFIX_MAX as u8);
    value -= PREFIX_MAX;
    while value >= 128 {
        block.push((value % 128) as u8 | 128);
        value /= 128;
    }
    block.push(value as u8);
}
