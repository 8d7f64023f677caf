//! What every value with a grammar is besides: text again, and read from text by serde.

/// For types that can be read from text and say theirs by `as_str`: shown as that, and by
/// `#[serde(try_from = "String", into = "String")]` read and written as it.
macro_rules! text_value {
    ($($name:ident: $invalid:ty),*) => {$(
        impl TryFrom<String> for $name {
            type Error = $invalid;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.as_str().to_owned()
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    )*};
}

pub(crate) use text_value;
