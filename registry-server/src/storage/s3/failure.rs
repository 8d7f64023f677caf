//! What became of a call to a store that did not do what it is for.

use std::io;

use berth_shared::telemetry::chain;
use object_store::client::HttpError;

/// What S3 says of what is to be tried again, whatever the status.
const PASSING: [&str; 8] = [
    "SlowDown",
    "InternalError",
    "ServiceUnavailable",
    "RequestTimeout",
    "OperationAborted",
    "ExpiredToken",
    "BadDigest",
    "XAmzContentSHA256Mismatch",
];

/// How much of what a store says is told.
const TOLD_CHARS_MAX: usize = 300;

/// Why a call did not do what it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// There is no such object.
    Missing,
    /// There is no such multipart upload.
    NoUpload,
    /// A part is another than it was.
    BadPart,
    /// No room is left.
    Full,
    /// It does not answer, or not now.
    Away,
    /// It does not want to.
    Refused,
}

/// A call failed.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) why: Why,
    /// S3's word for it, if it said one.
    pub(super) code: Option<String>,
    pub(super) source: io::Error,
}

impl Failure {
    /// It did not come in its time.
    pub(super) fn late() -> Self {
        Self { why: Why::Away, code: None, source: io::ErrorKind::TimedOut.into() }
    }
}

impl Failure {
    /// Of what is to be made: whatever says that it is missing is not the store.
    pub(super) fn of_new(self) -> Self {
        let why = if self.why == Why::Missing { Why::Away } else { self.why };
        Self { why, ..self }
    }
}

impl From<object_store::Error> for Failure {
    fn from(error: object_store::Error) -> Self {
        let text = chain(&error);
        let code = between(&text, "<Code>", "</Code>").or(between(&text, "(code: ", ")"));
        let why = match (code, status(&text)) {
            (Some("NoSuchUpload"), _) => Why::NoUpload,
            (Some("InvalidPart" | "InvalidPartOrder" | "EntityTooSmall"), _)
            | (Some("InvalidBlockList" | "InvalidBlockId"), _) => Why::BadPart,
            (Some(code), _) if PASSING.contains(&code) => Why::Away,
            (
                None | Some("NoSuchKey" | "NotFound" | "BlobNotFound" | "InvalidRange"),
                Some(404 | 416),
            ) => Why::Missing,
            (Some("NoSuchKey"), None) => Why::Missing,
            (_, Some(507)) => Why::Full,
            (_, Some(408 | 409 | 429 | 500..)) => Why::Away,
            (_, Some(_)) => Why::Refused,
            (_, None) if is_of_the_way(&error) => Why::Away,
            (_, None) => Why::Refused,
        };
        let told = told(&text, code);
        Self { why, code: code.map(str::to_owned), source: io::Error::other(told) }
    }
}

/// What is worth telling of an answer: some say again what they were sent, a secret in it too.
fn told(text: &str, code: Option<&str>) -> String {
    let Some((_, answer)) = text.split_once("status code: ") else {
        return text.chars().take(TOLD_CHARS_MAX).collect();
    };
    let status = answer.split([':', '<']).next().unwrap_or_default();
    let message = between(answer, "<Message>", "</Message>").unwrap_or_default();
    let message: String = message.chars().take(TOLD_CHARS_MAX).collect();
    let code = code.unwrap_or_default();
    [status, code, &message].map(str::trim).join(" ").trim().to_owned()
}

fn between<'t>(text: &'t str, before: &str, behind: &str) -> Option<&'t str> {
    Some(text.split_once(before)?.1.split_once(behind)?.0)
}

/// The status of an answer, which the library tells in words only.
fn status(text: &str) -> Option<u16> {
    text.split_once("status code: ")?.1.get(..3)?.parse().ok()
}

/// Whether no answer came.
fn is_of_the_way(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source()).any(|error| error.is::<HttpError>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generic(text: &str) -> object_store::Error {
        object_store::Error::Generic { store: "S3", source: text.to_owned().into() }
    }

    #[test]
    fn failures_are_told_apart_by_what_the_store_says() {
        let said = "Server returned non-2xx status code:";
        for (text, why) in [
            (
                format!("{said} 404 Not Found: <Error><Code>NoSuchUpload</Code></Error>"),
                Why::NoUpload,
            ),
            (format!("{said} 404 Not Found: <Error><Code>NoSuchKey</Code></Error>"), Why::Missing),
            (
                format!("{said} 404 Not Found: <Error><Code>NoSuchBucket</Code></Error>"),
                Why::Refused,
            ),
            (format!("{said} 404 Not Found: "), Why::Missing),
            (format!("{said} 416 Range Not Satisfiable: "), Why::Missing),
            (format!("{said} 404 Not Found: <Code>InvalidAccessKeyId</Code>"), Why::Refused),
            (format!("{said} 400 Bad Request: <Code>InvalidPart</Code>"), Why::BadPart),
            (format!("{said} 403 Forbidden: <Code>AccessDenied</Code>"), Why::Refused),
            (format!("{said} 503 Slow Down: <Code>SlowDown</Code>"), Why::Away),
            (format!("{said} 429 Too Many Requests: "), Why::Away),
            (format!("{said} 409 Conflict: "), Why::Away),
            (format!("{said} 507 Insufficient Storage: "), Why::Full),
            ("nothing that is known".to_owned(), Why::Refused),
            ("error response: <Error><Code>SlowDown</Code>".to_owned(), Why::Away),
            (format!("{said} 400 Bad Request: <Code>RequestTimeout</Code>"), Why::Away),
            ("DeleteObjects failed for key a (code: NoSuchKey): gone".to_owned(), Why::Missing),
            ("DeleteObjects failed for key a (code: AccessDenied): no".to_owned(), Why::Refused),
        ] {
            assert_eq!(Failure::from(generic(&text)).why, why, "{text}");
        }
        let failure =
            Failure::from(generic("status code: 403 Forbidden: <Code>AccessDenied</Code>"));
        assert_eq!(failure.code.as_deref(), Some("AccessDenied"));
        let answer = "<Code>SignatureDoesNotMatch</Code><Message>They differ.</Message>\
                      <CanonicalRequest>x-amz-security-token:secret</CanonicalRequest>";
        let failure = Failure::from(generic(&format!("{said} 403 Forbidden: {answer}")));
        assert_eq!(failure.source.to_string(), "403 Forbidden SignatureDoesNotMatch They differ.");
    }
}
