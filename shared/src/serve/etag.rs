//! Content that a client has already (RFC 9110 §13.1.2).

use http::{HeaderMap, header};

/// Whether the request says that its client has the content with this tag.
pub fn has_already(request: &HeaderMap, etag: &str) -> bool {
    let tags = request.get_all(header::IF_NONE_MATCH).iter();
    let mut tags = tags.flat_map(|tags| tags.as_bytes().split(|byte| *byte == b','));
    // Compared weakly: proxies that compress weaken a tag.
    tags.any(|tag| {
        let tag = tag.trim_ascii();
        tag == b"*" || tag.strip_prefix(b"W/").unwrap_or(tag) == etag.as_bytes()
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_tag_is_known_in_any_list_weakened_or_not() {
        for (lists, known) in [
            (&["\"a\""][..], true),
            (&["W/\"a\""], true),
            (&["*"], true),
            (&["\"b\", \"a\""], true),
            (&["\"b\"", "\"a\""], true),
            (&[], false),
            (&[""], false),
            (&["a"], false),
            (&["\"b\""], false),
        ] {
            let tags = lists.iter().map(|list| HeaderValue::from_static(list));
            let request = tags.map(|tags| (header::IF_NONE_MATCH, tags));
            let mut headers = HeaderMap::new();
            request.for_each(|(name, tags)| _ = headers.append(name, tags));
            assert_eq!(has_already(&headers, "\"a\""), known, "{lists:?}");
        }
    }
}
